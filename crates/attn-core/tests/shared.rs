//! Hypotheses that share a prefix: bytes, places, and what must be refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use attn_core::{
    Build, Cache, Capacity, Entry, Error, Geometry, Path, ProjectionMacs, SlotRows, Values, ops,
    random_tensor,
};
use candle_core::{D, DType, Device, Tensor};

const KEY: usize = 8;
const VALUE: usize = 6;

/// Latents of 6 with a rope key of 2, merged over `stride` tokens; or keys and values of their own.
fn geometry(stride: usize, heads: usize, values: Values) -> Geometry {
    let macs = ProjectionMacs::default();
    Geometry {
        d_model: 8,
        n_heads: 4,
        n_kv_heads: heads,
        score_dim: KEY,
        v_dim: VALUE,
        stride,
        window: None,
        entry: Entry::new(heads, KEY, values),
        state_elements: if stride > 1 { VALUE } else { 0 },
        parameters: 0,
        forward_macs: macs,
        decode_macs: macs,
    }
}

fn filled(geometry: &Geometry, dtype: DType, batch: usize, tokens: usize) -> Cache {
    let build = Build::cpu(Path::Fused, dtype);
    let mut cache = Cache::new(geometry, &build, batch, Capacity::Exact(tokens + 4)).unwrap();
    cache.fill(tokens, 7).unwrap();
    cache
}

/// Writes one more slot of every sequence.
fn append(cache: &mut Cache, geometry: &Geometry, dtype: DType) {
    let (b, heads) = (cache.batch(), geometry.entry.heads);
    let random =
        |width: usize, stream| random_tensor(&[b, heads, 1, width], 3, stream, dtype, &Device::Cpu).unwrap();
    let own = matches!(geometry.entry.values, Values::Own(_)).then(|| random(VALUE, 2));
    let slots: Vec<usize> = cache.lens().iter().map(|len| len / geometry.stride).collect();
    let rows = SlotRows {
        keys: random(KEY, 1),
        values: own,
        tail: None,
    };
    cache.write(&slots, &rows).unwrap();
    cache.advance(1);
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let gap = (wide(a) - wide(b)).unwrap().abs().unwrap();
    gap.flatten_all()
        .unwrap()
        .max(D::Minus1)
        .unwrap()
        .to_scalar()
        .unwrap()
}

#[test]
fn attention_over_a_shared_prefix_is_attention_over_copies() {
    let layouts = [
        (1, Values::KeyPrefix(VALUE)),
        (2, Values::Own(VALUE)),
        (4, Values::Own(VALUE)),
    ];
    // More heads over the prefix than any tile of the kernels holds, and prefixes of several blocks.
    for (beam, tokens) in [(1, 5), (3, 70), (50, 33)] {
        for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
            for (heads, values) in layouts {
                let g = geometry(1, heads, values);
                let mut shared = filled(&g, dtype, 2, tokens);
                let mut copied = shared.clone();
                let beams: Vec<usize> = (0..2 * beam).map(|i| i / beam).collect();
                shared.share(beam).unwrap();
                copied.reorder(&beams).unwrap();
                for cache in [&mut shared, &mut copied] {
                    append(cache, &g, dtype);
                }
                let q = random_tensor(&[2 * beam, 4, KEY], 5, 1, dtype, &Device::Cpu).unwrap();
                let of = |cache: &Cache| ops::decode_cached(&q, cache, 0.3).unwrap();
                let gap = distance(&of(&shared), &of(&copied));
                let most = match dtype {
                    DType::F64 => 1e-14,
                    DType::F32 => 1e-6,
                    // Rounded once, where the parts were joined in f32.
                    DType::F16 => 2e-3,
                    _ => 1.6e-2,
                };
                assert!(
                    gap <= most,
                    "{gap:e} for a beam of {beam} in {dtype:?}, {heads} heads"
                );
            }
        }
    }
}

#[test]
fn a_shared_prefix_is_counted_once_and_its_open_slot_for_every_hypothesis() {
    let g = geometry(2, 1, Values::KeyPrefix(VALUE));
    let mut cache = filled(&g, DType::F32, 3, 5);
    cache.share(4).unwrap();
    let slot = KEY as u64 * 4;
    assert_eq!(cache.batch(), 12);
    assert_eq!(cache.kv_bytes(), (3 * 2 + 12) * slot);
    // Room for four tokens more: slots 2, 3 and 4 are a hypothesis's own.
    assert_eq!(cache.kv_allocated_bytes(), (3 * 2 + 12 * 3) * slot);
    let shared = cache.shared().unwrap();
    assert_eq!((shared.slots(), shared.beam()), (&[2, 2, 2][..], 4));
    cache.reorder(&[7, 7, 4, 5]).unwrap();
    assert_eq!(cache.shared().unwrap().slots(), [2]);
    assert_eq!(cache.kv_bytes(), (2 + 4) * slot);
}

#[test]
fn a_prefix_without_a_closed_slot_is_copied() {
    let g = geometry(7, 1, Values::KeyPrefix(VALUE));
    let mut cache = filled(&g, DType::F32, 2, 5);
    cache.share(3).unwrap();
    assert!(cache.shared().is_none());
    assert_eq!(cache.lens(), [5; 6]);
}

#[test]
fn hypotheses_stay_with_the_prefix_they_share() {
    let g = geometry(1, 1, Values::KeyPrefix(VALUE));
    let mut cache = filled(&g, DType::F32, 2, 5);
    cache.share(2).unwrap();
    for beams in [&[0, 2, 2, 3][..], &[0, 1, 2], &[3]] {
        let error = cache.reorder(beams).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "reorder", .. }), "{beams:?}");
    }
    assert!(matches!(cache.share(2), Err(Error::Unsupported { .. })));
    assert!(matches!(cache.split(), Err(Error::Unsupported { .. })));
    assert!(matches!(cache.fill(1, 1), Err(Error::Unsupported { .. })));
    assert!(matches!(cache.rewind(4), Err(Error::Rewind { requested: 4, .. })));
    cache.rewind(5).unwrap();
    append(&mut cache, &g, DType::F32);
    cache.rewind(5).unwrap();
    assert_eq!(cache.lens(), [5; 4]);
    assert!(filled(&g, DType::F32, 2, 5).share(0).is_err());
}

#[test]
fn a_selection_leaves_the_cache_alone() {
    let g = geometry(2, 1, Values::KeyPrefix(VALUE));
    let cache = filled(&g, DType::F32, 4, 5);
    let before = cache.keys().copy().unwrap();
    let selected = cache.select(&[3, 1]).unwrap();
    assert_eq!(selected.lens(), [5, 5]);
    // What is not written is NaN, and not equal to itself.
    let used = |t: &Tensor| t.narrow(2, 0, 3).unwrap();
    assert_eq!(distance(&used(cache.keys()), &used(&before)), 0.0);
    let last = used(&before.narrow(0, 3, 1).unwrap());
    assert_eq!(
        distance(&used(&selected.keys().narrow(0, 0, 1).unwrap()), &last),
        0.0
    );
}
