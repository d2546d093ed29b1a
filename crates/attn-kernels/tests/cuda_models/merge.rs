//! The merge and its gradients.

use attn_kernels::Element;
use attn_kernels::cuda::{Arch, Machine};
use half::{bf16, f16};

use crate::cases;
use crate::common::assert_close;
use crate::models::merge::Merge;

fn check_merge<E: Element>(rank: usize, stride: usize, batch: usize, tokens: usize, tolerance: f64) {
    let case = cases::merge::Merge::<E>::new(rank, stride, batch, tokens);
    let machine = Machine::usual(Arch::Sm90a);
    let plan = case.shape.plan(machine, batch, tokens).unwrap();
    let model = Merge {
        plan: &plan,
        c: &case.c,
        u: &case.u,
        b: &case.b,
    };
    let (got, expected) = (model.backward(&case.grad), case.formula());
    assert_close(&model.forward(), &expected.sums, tolerance);
    assert_close(&got.c, &expected.dc, tolerance);
    // One product that is nearly zero may be all there is.
    assert_close(&got.u, &expected.du, 1e-4);
    assert_close(&got.b, &expected.db, 1e-4);
}

#[test]
fn merge_sums_blocks_and_their_gradients() {
    for rank in [16, 84, 256, 512] {
        for stride in 1..=4 {
            for (batch, tokens) in [(1, 1), (2, 3), (1, 63), (3, 64), (2, 65), (1, 111), (2, 260)] {
                check_merge::<f32>(rank, stride, batch, tokens, 1e-5);
                check_merge::<bf16>(rank, stride, batch, tokens, 5e-3);
                check_merge::<f16>(rank, stride, batch, tokens, 1e-3);
            }
        }
    }
    check_merge::<f32>(33, 2, 2, 7, 1e-5);
}
