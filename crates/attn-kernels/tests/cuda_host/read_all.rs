//! A buffer read by blocks in turns.

use attn_kernels::cuda::{Machine, ReadAllPlan};

use crate::host::{self, Kernels, Operand};
use crate::machine;

#[test]
fn read_all_adds_every_word_once_and_nothing_else() {
    if !host::is_possible() {
        return;
    }
    // Few blocks, which then have several tiles each.
    let machine = Machine {
        multiprocessors: 1,
        ..machine()
    };
    let mut kernels = Kernels::new("ReadAll");
    // A vector, less and more than a tile of 2048, and several rounds of tiles with a rest.
    for (seed, vectors) in [1_usize, 100, 2_049, 5 * 2_048, 11 * 2_048 + 33]
        .into_iter()
        .enumerate()
    {
        let plan = ReadAllPlan::new(machine, 16 * vectors).unwrap();
        assert_eq!(plan.sums(), vectors.div_ceil(2_048).min(4));
        let words: Vec<u32> = (1..=4 * vectors as u32)
            .map(|i| i.wrapping_mul(0x9e37_79b9))
            .collect();
        let (from, sums) = (Operand::new(&words), Operand::new(&vec![7_u32; plan.sums()]));
        let params = plan.params(from.memory(), sums.memory()).unwrap();
        // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
        unsafe { kernels.run(&plan.planned, &params, seed as u64) };
        let add = |words: &[u32]| words.iter().fold(0_u32, |sum, word| sum.wrapping_add(*word));
        let before = 7 * plan.sums() as u32;
        assert_eq!(
            add(&sums.read::<u32>()),
            before.wrapping_add(add(&words)),
            "{vectors}"
        );
    }
}
