//! The merge of training and its gradients.

use attn_kernels::Element;
use attn_kernels::cuda::{MergeGradients, MergeOperands};
use half::{bf16, f16};

use crate::cases::merge::Merge;
use crate::common::assert_close;
use crate::host::{self, Kernels, Operand};
use crate::machine;

/// Batches and lengths of one rank, which are all of the same kernels.
fn check<E: Element>(rank: usize, stride: usize, sizes: &[(usize, usize)], tolerance: f64) {
    if !host::is_possible() {
        return;
    }
    let mut kernels = Kernels::new("Merge");
    for (batch, tokens) in sizes.iter().copied() {
        let case = Merge::<E>::new(rank, stride, batch, tokens);
        let plan = case.shape.plan(machine(), batch, tokens).unwrap();
        let (c, grad) = (Operand::new(&case.c), Operand::new(&case.grad));
        let (u, b) = (Operand::new(&case.u), Operand::new(&case.b));
        let [sums, dc] = [(); 2].map(|()| Operand::unwritten::<E>(case.c.len()));
        let (du, db) = (
            Operand::unwritten::<f32>(case.u.len()),
            Operand::unwritten::<f32>(case.b.len()),
        );
        let of_logits = Operand::unwritten::<f32>(batch * tokens);
        let forward = MergeOperands {
            c: c.memory(),
            u: u.memory(),
            b: b.memory(),
            sums: Some(sums.memory()),
            gradients: None,
        };
        let backward = MergeOperands {
            sums: None,
            gradients: Some(MergeGradients {
                sums: grad.memory(),
                c: dc.memory(),
                u: du.memory(),
                b: db.memory(),
                of_logits: of_logits.memory(),
            }),
            ..forward
        };
        let (forward, backward) = (plan.params(&forward).unwrap(), plan.params(&backward).unwrap());
        let seed = tokens as u64;
        // SAFETY: the parameters are these kernels', and their operands live until they have ended.
        unsafe {
            kernels.run(&plan.forward, &forward, seed);
            for pass in &plan.backward {
                kernels.run(pass, &backward, seed);
            }
        }
        let expected = case.formula();
        assert_close(&sums.read::<E>(), &expected.sums, tolerance);
        assert_close(&dc.read::<E>(), &expected.dc, tolerance);
        // One product that is nearly zero may be all there is.
        assert_close(&du.read::<f32>(), &expected.du, 1e-4);
        assert_close(&db.read::<f32>(), &expected.db, 1e-4);
        of_logits.read::<f32>();
    }
}

/// One token, whole blocks, and blocks that the last tokens leave open.
const SIZES: [(usize, usize); 5] = [(1, 1), (2, 3), (1, 24), (3, 25), (1, 27)];

#[test]
fn merge_sums_blocks_and_their_gradients() {
    check::<f32>(256, 2, &SIZES, 1e-5);
    check::<bf16>(256, 3, &SIZES, 5e-3);
    check::<f16>(512, 4, &SIZES, 1e-3);
}

#[test]
fn merge_takes_ranks_that_leave_lanes_without_vectors() {
    check::<f32>(33, 2, &SIZES, 1e-5);
    check::<bf16>(84, 1, &SIZES, 5e-3);
    check::<f16>(16, 3, &SIZES, 1e-3);
}
