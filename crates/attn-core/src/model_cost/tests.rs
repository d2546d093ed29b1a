//! The closed forms against counting step by step.

use super::*;
use crate::cost::Scope;
use crate::geometry::{Entry, ProjectionMacs, Values};

fn layer(stride: usize) -> Geometry {
    Geometry {
        d_model: 8,
        n_heads: 2,
        n_kv_heads: 2,
        score_dim: 6,
        v_dim: 4,
        stride,
        window: None,
        entry: Entry::new(1, 7, Values::KeyPrefix(5)),
        state_elements: 5,
        parameters: 1000,
        forward_macs: ProjectionMacs { query: 11, key: 13 },
        decode_macs: ProjectionMacs { query: 17, key: 19 },
    }
}

const PREFIX: ModelShape = ModelShape {
    n_layers: 3,
    d_ff: 10,
    vocab: 50,
    decoder: DecoderKind::Prefix,
};
const LLAMA: ModelShape = ModelShape {
    decoder: DecoderKind::Llama,
    ..PREFIX
};

fn beam(batch: usize, tokens: usize, new_tokens: usize, beam: usize) -> Workload {
    Workload::Beam {
        batch,
        tokens,
        new_tokens,
        beam,
    }
}

#[test]
fn parameters_are_those_of_the_seeds_layers() {
    // fc1 [10, 8] and [10], fc2 [8, 10] and [8], two norms of [8] and [8]; the last norm; two tables.
    let each = 1000 + 80 + 10 + 80 + 8 + 4 * 8;
    assert_eq!(PREFIX.parameters(&layer(1)), 2 * 50 * 8 + 3 * each + 16);
    // gate, up, down; two norms without shift.
    let each = 1000 + 3 * 80 + 16;
    assert_eq!(LLAMA.parameters(&layer(1)), 2 * 50 * 8 + 3 * each + 8);
}

#[test]
fn a_small_search_by_hand() {
    // Two sentences of 5 states, 3 hypotheses, 2 tokens, s = 2. The start token is at position 5, where it closes the
    // block of position 4: floor(5 / 2) + 1 = 3 slots; the next one at 6 sees 4, of which those 3 are in common.
    let work = LayerWork::of(
        &layer(2),
        &Search::of(&beam(2, 5, 2, 3)).unwrap(),
        DecoderKind::Prefix,
    );
    let (prefix, steps) = (2 * 2 * 5 * 19, 2 * (2 + 6) * (17 + 19));
    let attention = 2 * 2 * (7 + 5) * (2 * 3 + 6 * 4);
    assert_eq!(work.flops, prefix + steps + attention);
    let read = 2 * 3 + (2 * 3 + 6);
    let written = 2 * 3 + (2 + 6);
    assert_eq!(work.cache_elements, (read + written) * 7);

    let cost = PREFIX.cost(&layer(2), &beam(2, 5, 2, 3), 4).unwrap();
    let vocabulary = 2 * 8 * 50 * 8;
    assert_eq!(cost.flops, 3 * (work.flops + 2 * 8 * (2 * 8 * 10)) + vocabulary);
    let weights = 2 * (PREFIX.parameters(&layer(2)) - 50 * 8);
    let states = 2 * 5 * 8;
    assert_eq!(cost.bytes_moved, 4 * (weights + states + 3 * work.cache_elements));
}

/// Step by step, hypothesis by hypothesis.
fn counted(g: &Geometry, model: &ModelShape, (b, s, n, k): (u64, usize, usize, u64)) -> Cost {
    let (m, layers, e) = (g.d_model as u64, model.n_layers as u64, 2);
    let table = model.vocab as u64 * m;
    let matrices = if model.decoder == DecoderKind::Prefix {
        2
    } else {
        3
    };
    let feed_forward = 2 * matrices * m * model.d_ff as u64;
    let elements = g.entry.elements() as u64;
    let (mut flops, mut bytes) = (0, layers * b * s.div_ceil(g.stride) as u64 * elements * e);
    for i in 0..s {
        match model.decoder {
            DecoderKind::Prefix => {
                flops += layers * b * 2 * g.decode_macs.key as u64;
                bytes += b * m * e;
            }
            DecoderKind::Llama => {
                let pairs = (i / g.stride + 1) as u64;
                let macs = (g.forward_macs.query + g.forward_macs.key) as u64
                    + pairs * g.n_heads as u64 * (g.score_dim + g.v_dim) as u64;
                flops += layers * b * (2 * macs + feed_forward);
            }
        }
    }
    for step in 0..n {
        let hypotheses = if step == 0 { b } else { b * k };
        let slots = ((s + step) / g.stride + 1) as u64;
        let closed = if step == 0 { 0 } else { ((s + 1) / g.stride) as u64 };
        let width = (g.entry.key + g.entry.values.width()) as u64;
        let macs = (g.decode_macs.query + g.decode_macs.key) as u64 + slots * g.n_heads as u64 * width;
        flops += hypotheses * (layers * (2 * macs + feed_forward) + 2 * table);
        let read = b * closed + hypotheses * (slots - closed);
        bytes += e * (model.parameters(g) - table) + e * layers * elements * (read + hypotheses);
    }
    Cost {
        flops,
        bytes_moved: bytes,
    }
}

#[test]
fn closed_forms_are_the_sums_they_close() {
    for stride in [1, 2, 3] {
        let g = layer(stride);
        for model in [PREFIX, LLAMA] {
            for (b, s, n, k) in [
                (1, 1, 1, 1),
                (2, 5, 4, 3),
                (3, 12, 7, 1),
                (1, 7, 1, 5),
                (2, 6, 9, 4),
            ] {
                let expected = counted(&g, &model, (b as u64, s, n, k as u64));
                let got = model.cost(&g, &beam(b, s, n, k), 2).unwrap();
                assert_eq!(got, expected, "s {stride} {model:?} {:?}", (b, s, n, k));
                if k == 1 {
                    let generate = Workload::Generate {
                        batch: b,
                        tokens: s,
                        new_tokens: n,
                    };
                    assert_eq!(model.cost(&g, &generate, 2), Some(got));
                }
            }
        }
    }
    let decode = Workload::Decode { batch: 1, context: 5 };
    assert_eq!(PREFIX.cost(&layer(1), &decode, 4), None);
}

#[test]
fn one_layers_part_has_its_weights_once_a_step() {
    let g = layer(3);
    let part = g.cost(&beam(2, 7, 4, 3), Scope::Model, 4);
    let work = LayerWork::of(&g, &Search::of(&beam(2, 7, 4, 3)).unwrap(), DecoderKind::Prefix);
    assert_eq!(part.flops, work.flops);
    assert_eq!(part.bytes_moved, 4 * (4 * 1000 + work.cache_elements));
}

#[test]
fn a_shared_prefix_is_kept_once_a_sentence_but_for_its_open_slot() {
    let bytes = |stride, prefix| PREFIX.kv_bytes(&layer(stride), &beam(2, 7, 4, 3), Some(prefix), 2);
    for prefix in [Prefix::Replicated, Prefix::Copied] {
        assert_eq!(bytes(1, prefix), 3 * 6 * 11 * 7 * 2);
        assert_eq!(bytes(2, prefix), 3 * 6 * 6 * 7 * 2);
    }
    // The start token is in common too.
    assert_eq!(bytes(1, Prefix::Shared), 3 * (2 * 8 + 6 * 3) * 7 * 2);
    // floor(8 / 2) = 4 shared, ceil(11 / 2) - 4 = 2 own.
    assert_eq!(bytes(2, Prefix::Shared), 3 * (2 * 4 + 6 * 2) * 7 * 2);
    // floor(8 / 3) = 2 shared, ceil(11 / 3) - 2 = 2 own.
    assert_eq!(bytes(3, Prefix::Shared), 3 * (2 * 2 + 6 * 2) * 7 * 2);
    let generate = Workload::Generate {
        batch: 2,
        tokens: 7,
        new_tokens: 4,
    };
    assert_eq!(PREFIX.kv_bytes(&layer(2), &generate, None, 2), 3 * 2 * 6 * 7 * 2);
}
