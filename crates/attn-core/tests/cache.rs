//! Caches: bytes, growth, rewinding, and what must be refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use attn_core::{
    Build, Cache, Capacity, Entry, Error, Geometry, Path, ProjectionMacs, SlotRows, Values, random_tensor,
};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

/// A latent of 6, a rope key of 2, merged over `stride` tokens.
fn geometry(stride: usize) -> Geometry {
    let macs = ProjectionMacs::default();
    Geometry {
        d_model: 8,
        n_heads: 2,
        n_kv_heads: 2,
        score_dim: 4,
        v_dim: 4,
        stride,
        window: None,
        entry: Entry::new(1, 8, Values::KeyPrefix(6)),
        state_elements: if stride > 1 { 6 } else { 0 },
        parameters: 0,
        forward_macs: macs,
        decode_macs: macs,
    }
}

fn cache(stride: usize, path: Path, capacity: Capacity) -> Cache {
    Cache::new(&geometry(stride), &Build::cpu(path, DType::F32), 3, capacity).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_preallocated_cache_has_the_bytes_of_its_capacity_and_never_more() {
    let mut cache = cache(2, Path::Fused, Capacity::Exact(7));
    cache.fill(5, 1).unwrap();
    assert_eq!(cache.kv_bytes(), 3 * 3 * 8 * 4);
    assert_eq!(cache.kv_allocated_bytes(), 3 * 4 * 8 * 4);
    assert_eq!(cache.kv_state_bytes(), 3 * (6 * 4 + 8));
    let error = cache.fill(9, 1).unwrap_err();
    assert!(
        matches!(
            error,
            Error::CacheFull {
                capacity: 8,
                requested: 9 | 10
            }
        ),
        "{error}"
    );
}

#[test]
fn the_open_slot_of_a_filled_cache_keeps_nothing_else_alive() {
    for batch in [1, 3] {
        let build = Build::cpu(Path::Fused, DType::F32);
        let mut cache = Cache::new(&geometry(2), &build, batch, Capacity::Exact(99)).unwrap();
        cache.fill(99, 1).unwrap();
        let (storage, _) = cache.open().unwrap().storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
            panic!("f32 on the CPU")
        };
        assert_eq!(values.len(), batch * 6);
    }
}

#[test]
fn a_growing_cache_doubles_and_keeps_what_it_holds() {
    let mut cache = cache(1, Path::Fused, Capacity::Growing(2));
    cache.fill(2, 1).unwrap();
    let before = values(cache.keys());
    let row = random_tensor(&[3, 1, 1, 8], 1, 9, DType::F32, &Device::Cpu).unwrap();
    cache.write(&[2, 2, 2], &SlotRows::keys(row.clone())).unwrap();
    cache.advance(1);
    assert_eq!(cache.keys().dims(), [3, 1, 4, 8]);
    assert_eq!(values(&cache.keys().narrow(2, 0, 2).unwrap()), before);
    assert!(
        values(&cache.keys().narrow(2, 3, 1).unwrap())
            .iter()
            .all(|x| x.is_nan())
    );
}

#[test]
fn a_seedlike_cache_holds_exactly_its_length() {
    let mut cache = cache(2, Path::Seedlike, Capacity::Exact(7));
    assert_eq!(cache.kv_allocated_bytes(), 0);
    cache.fill(5, 1).unwrap();
    assert_eq!(cache.kv_allocated_bytes(), cache.kv_bytes());
    cache.rewind(2).unwrap();
    assert_eq!(cache.kv_allocated_bytes(), cache.kv_bytes());
}

#[test]
fn the_same_seed_fills_alike_on_every_path_and_capacity() {
    let mut a = cache(2, Path::Fused, Capacity::Exact(20));
    let mut b = cache(2, Path::Seedlike, Capacity::Growing(1));
    a.fill(5, 4).unwrap();
    b.fill(5, 4).unwrap();
    assert_eq!(values(&a.keys().narrow(2, 0, 3).unwrap()), values(b.keys()));
    assert_eq!(values(a.open().unwrap()), values(b.open().unwrap()));
}

#[test]
fn rewinding_into_a_block_needs_a_mark_and_restores_slot_and_sum() {
    let mut cache = cache(3, Path::Fused, Capacity::Exact(12));
    cache.fill(4, 1).unwrap();
    let (slots, open) = (
        values(&cache.keys().narrow(2, 0, 2).unwrap()),
        values(cache.open().unwrap()),
    );
    let row = random_tensor(&[3, 1, 1, 8], 1, 9, DType::F32, &Device::Cpu).unwrap();
    cache.write(&[1, 1, 1], &SlotRows::keys(row.clone())).unwrap();
    cache.set_open(
        row.squeeze(1)
            .unwrap()
            .squeeze(1)
            .unwrap()
            .narrow(1, 0, 6)
            .unwrap(),
    );
    cache.advance(3);
    assert!(matches!(
        cache.rewind(5).unwrap_err(),
        Error::Rewind { requested: 5, .. }
    ));
    assert!(matches!(
        cache.rewind(8).unwrap_err(),
        Error::Rewind { requested: 8, .. }
    ));
    cache.rewind(4).unwrap();
    assert_eq!(values(&cache.keys().narrow(2, 0, 2).unwrap()), slots);
    assert_eq!(values(cache.open().unwrap()), open);
    cache.rewind(3).unwrap();
    assert_eq!(cache.lens(), [3, 3, 3]);
}

/// Where the longest sequence leaves, what was its own is read by nobody.
#[test]
fn a_concatenated_cache_ends_with_its_longest_sequence() {
    for stride in [1, 2] {
        let mut cache = cache(stride, Path::Seedlike, Capacity::Exact(9));
        let mut parts = cache.split().unwrap();
        for (part, tokens) in parts.iter_mut().zip([3, 7, 4]) {
            part.fill(tokens, 1).unwrap();
        }
        cache.join(&parts).unwrap();
        cache.reorder(&[0, 2, 2]).unwrap();
        assert_eq!(cache.lens(), [3, 4, 4]);
        assert_eq!(cache.keys().dims(), [3, 1, 4_usize.div_ceil(stride), 8]);
        cache.reorder(&[1, 2]).unwrap();
        assert!(values(cache.keys()).iter().all(|x| x.is_finite()));
    }
}

/// Of whole blocks nothing is left that each hypothesis has for itself.
#[test]
fn whole_blocks_are_shared_by_concatenated_caches_too() {
    for (stride, tokens) in [(1, 5), (2, 4), (2, 5)] {
        let mut cache = cache(stride, Path::Seedlike, Capacity::Exact(9));
        cache.fill(tokens, 1).unwrap();
        cache.share(2).unwrap();
        assert_eq!(cache.lens(), [tokens; 6]);
        assert_eq!(cache.keys().dims(), [6, 1, tokens % stride, 8]);
        assert_eq!(cache.shared().unwrap().slots(), [tokens / stride; 3]);
        cache.reorder(&[1, 0, 3, 3]).unwrap();
        assert_eq!(cache.lens(), [tokens; 4]);
    }
}

#[test]
fn reordering_refuses_beams_that_are_not_there() {
    let mut cache = cache(1, Path::Fused, Capacity::Exact(4));
    cache.fill(2, 1).unwrap();
    assert!(matches!(
        cache.reorder(&[0, 3]).unwrap_err(),
        Error::Shape { op: "reorder", .. }
    ));
    assert!(cache.reorder(&[]).is_err());
    let before = values(&cache.keys().narrow(0, 2, 1).unwrap());
    cache.reorder(&[2, 2, 0]).unwrap();
    for b in 0..2 {
        let row = values(&cache.keys().narrow(0, b, 1).unwrap());
        assert_eq!(row[..16], before[..16]);
    }
}

#[test]
fn half_precision_caches_are_poisoned_too() {
    for dtype in [DType::BF16, DType::F16, DType::F64] {
        let build = Build::cpu(Path::Fused, dtype);
        let cache = Cache::new(&geometry(2), &build, 1, Capacity::Exact(4)).unwrap();
        assert_eq!(cache.keys().dtype(), dtype);
        assert!(
            values(&cache.keys().to_dtype(DType::F32).unwrap())
                .iter()
                .all(|x| x.is_nan())
        );
    }
}

/// A cache of two sequences that keeps 4 slots, whose keys and values are the slots' numbers.
fn window(path: Path, capacity: Capacity) -> Cache {
    let geometry = Geometry {
        window: Some(4),
        entry: Entry::new(1, 2, Values::Own(2)),
        ..geometry(1)
    };
    Cache::new(&geometry, &Build::cpu(path, DType::F32), 2, capacity).unwrap()
}

/// Adds slots of these numbers.
fn append(cache: &mut Cache, numbers: std::ops::Range<usize>) {
    let n = numbers.len();
    let each: Vec<f32> = numbers.flat_map(|number| [number as f32; 2]).collect();
    let rows = Tensor::from_vec([each.clone(), each].concat(), (2, 1, n, 2), &Device::Cpu).unwrap();
    let starts = cache.lens().to_vec();
    cache
        .write(&starts, &SlotRows::keys_values(rows.clone(), rows))
        .unwrap();
    cache.advance(n);
}

/// The number in every slot of the first sequence, the oldest first.
fn numbers(cache: &Cache) -> Vec<f32> {
    let rows = cache.chronological().unwrap();
    let of = |t: &Tensor| values(t).chunks(2).map(|pair| pair[0]).collect::<Vec<_>>();
    let keys = of(&rows.keys);
    assert_eq!(keys, of(rows.values.as_ref().unwrap()));
    assert_eq!(keys[..keys.len() / 2], keys[keys.len() / 2..]); // of both sequences
    keys[..keys.len() / 2].to_vec()
}

#[test]
fn a_window_keeps_its_last_slots_however_they_come() {
    for (path, capacity) in [
        (Path::Fused, Capacity::Exact(100)),
        (Path::Fused, Capacity::Growing(1)),
        (Path::Seedlike, Capacity::Exact(100)),
    ] {
        for steps in [vec![1; 9], vec![3, 6], vec![9], vec![2, 1, 5, 1], vec![4, 4, 1]] {
            let mut cache = window(path, capacity);
            for n in steps {
                let at = cache.lens()[0];
                append(&mut cache, at..at + n);
                let kept = cache.lens()[0].saturating_sub(4)..cache.lens()[0];
                assert_eq!(numbers(&cache), kept.map(|n| n as f32).collect::<Vec<_>>());
            }
            assert_eq!(
                cache.kv_bytes(),
                2 * 4 * 4 * 4,
                "two sequences, 4 slots of 4 elements"
            );
            assert_eq!(cache.kv_allocated_bytes(), cache.kv_bytes());
        }
    }
}

#[test]
fn a_window_is_a_ring() {
    let mut cache = window(Path::Fused, Capacity::Exact(100));
    append(&mut cache, 0..6);
    let first: Vec<f32> = values(cache.keys())
        .chunks(2)
        .take(4)
        .map(|pair| pair[0])
        .collect();
    assert_eq!(first, [4.0, 5.0, 2.0, 3.0]);
}

#[test]
fn rewinding_a_window_needs_a_mark_and_puts_back_what_was_written_over() {
    for path in [Path::Fused, Path::Seedlike] {
        let mut cache = window(path, Capacity::Exact(100));
        append(&mut cache, 0..6);
        assert!(matches!(
            cache.rewind(5).unwrap_err(),
            Error::Rewind { requested: 5, .. }
        ));
        cache.mark().unwrap();
        for steps in [1, 3, 9, 2] {
            for i in 6..6 + steps {
                append(&mut cache, 100 + i..101 + i);
            }
            cache.rewind(6).unwrap();
            assert_eq!(numbers(&cache), [2.0, 3.0, 4.0, 5.0], "{steps} steps on {path}");
        }
        cache.rewind(0).unwrap();
        append(&mut cache, 50..53);
        assert_eq!(numbers(&cache), [50.0, 51.0, 52.0]);
    }
}
