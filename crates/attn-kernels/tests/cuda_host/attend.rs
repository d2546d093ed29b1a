//! Attention of whole sequences.

use attn_kernels::cuda::{AttendEntries, AttendOperands, AttendPlan, Machine};
use attn_kernels::{Attend, Element, Entries};
use half::{bf16, f16};

use crate::cases::attend::{Sequences, causal, strided, with_sequences};
use crate::common::{self, assert_close, bits, tolerance};
use crate::host::{self, Kernels, Operand};
use crate::machine;

/// Entries, and where they are.
pub struct Held {
    _operands: Vec<Operand>,
    pub entries: AttendEntries,
}

impl Held {
    pub fn new<E: Element>(entries: &Entries<'_, E>) -> Self {
        let mut operands = Vec::new();
        let mut hold = |rows| {
            let (operand, cache) = Operand::rows(rows);
            operands.push(operand);
            cache
        };
        let entries = AttendEntries {
            k: hold(&entries.k),
            shared: entries.shared.as_ref().map(&mut hold),
            v: hold(&entries.v),
        };
        Self {
            _operands: operands,
            entries,
        }
    }
}

/// What attend gives: `[B, T, H, Dv]`, and the logarithms `[B, H, T]` where it is asked for them.
pub fn run<E: Element>(
    kernels: &mut Kernels,
    plan: &AttendPlan,
    input: &Attend<'_, E>,
    has_logarithms: bool,
    seed: u64,
) -> (Vec<E>, Vec<f32>) {
    let rows = input.batch * input.tokens * input.n_heads;
    let (_q, q) = Operand::rows(&input.q);
    let (closed, own) = (
        input.closed.as_ref().map(Held::new),
        input.own.as_ref().map(Held::new),
    );
    let out = Operand::unwritten::<E>(rows * input.value_dim);
    let lse = Operand::unwritten::<f32>(rows);
    let operands = AttendOperands {
        q,
        closed: closed.as_ref().map(|held| held.entries),
        own: own.as_ref().map(|held| held.entries),
        n_keys: input.n_keys,
        start: input.start,
        out: out.memory(),
        lse: has_logarithms.then(|| lse.memory()),
        scale: input.scale,
    };
    let params = plan.params(&operands).unwrap();
    // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
    unsafe { kernels.run(&plan.planned, &params, seed) };
    (out.read(), lse.read())
}

/// All of them are of the same kernels: those of many blocks, and of few.
fn check<E: Element>(all: impl IntoIterator<Item = Sequences>) {
    if !host::is_possible() {
        return;
    }
    let mut kernels = Kernels::new("Attend");
    for sizes in all {
        with_sequences::<E>(sizes, |input, shape| {
            let (expected, logarithms) = common::attend(input);
            let mut seen = Vec::new();
            for multiprocessors in [1, 1000] {
                let machine = Machine {
                    multiprocessors,
                    ..machine()
                };
                let plan = shape.plan(machine, sizes.batch, sizes.tokens).unwrap();
                if seen.contains(&plan.tiles) {
                    continue;
                }
                seen.push(plan.tiles);
                let (out, lse) = run(&mut kernels, &plan, input, true, 1);
                assert_close(&out, &expected, tolerance::<E>());
                assert_close(&lse, &logarithms, 2e-6);
                let (again, _) = run(&mut kernels, &plan, input, false, 2);
                assert_eq!(bits(&again), bits(&out), "the order shows in the result");
            }
        });
    }
}

/// Around the sizes of tiles of keys and of blocks of queries.
const LENGTHS: [usize; 7] = [1, 2, 31, 64, 65, 129, 150];

#[test]
fn plain_causal_attention_of_every_length() {
    let all = || LENGTHS.map(|tokens| causal(1, 1, tokens, 16));
    check::<f32>(all());
    check::<bf16>(all());
    check::<f16>(all());
}

#[test]
fn strides_with_a_diagonal_of_every_length() {
    let all = |stride| {
        [false, true].into_iter().flat_map(move |ends| {
            LENGTHS.map(|tokens| Sequences {
                ends,
                ..strided(tokens, stride)
            })
        })
    };
    check::<f32>(all(2));
    check::<bf16>(all(3));
    check::<f16>(all(4));
}

#[test]
fn queries_begin_anywhere() {
    // From 14 and 47 on the first query of a warp sees all but one key of a tile.
    let starts = || {
        [1, 5, 14, 47, 64, 130]
            .into_iter()
            .flat_map(|start| [1, 3, 70].map(|tokens| (start, tokens)))
    };
    check::<f32>(starts().map(|(start, tokens)| Sequences {
        start,
        ends: false,
        ..strided(tokens, 3)
    }));
    check::<bf16>(starts().map(|(start, tokens)| Sequences {
        start,
        ..causal(1, 1, tokens, 16)
    }));
}

#[test]
fn batches_and_groups_of_heads() {
    let all = [(4, 2), (3, 1), (2, 2)].map(|(n_heads, n_kv_heads)| Sequences {
        batch: 2,
        n_heads,
        n_kv_heads,
        ..strided(65, 2)
    });
    check::<bf16>(all);
    check::<f32>(all.map(|sizes| Sequences {
        stride: None,
        ends: false,
        ..sizes
    }));
}

/// MLA and MTLA: keys and values of a head side by side, rope keys of all heads, sizes that differ.
#[test]
fn heads_of_latent_layers() {
    let mla = |[key_dim, shared_dim, value_dim]: [usize; 3], stride| Sequences {
        key_dim,
        shared_dim,
        value_dim,
        joint: true,
        stride,
        ends: stride.is_some(),
        ..causal(2, 2, 70, 16)
    };
    check::<bf16>([mla([192, 64, 128], Some(2))]);
    check::<f32>([mla([96, 32, 64], Some(3))]);
    check::<f16>([mla([96, 32, 64], None)]);
}

#[test]
fn heads_of_odd_and_of_the_largest_sizes() {
    let of = |[key_dim, shared_dim, value_dim]: [usize; 3]| Sequences {
        key_dim,
        shared_dim,
        value_dim,
        ..strided(70, 2)
    };
    check::<f16>([of([40, 8, 24])]);
    check::<bf16>([of([64, 64, 200])]);
    check::<bf16>([of([256, 0, 256])]);
    check::<f32>([of([80, 0, 112])]);
}
