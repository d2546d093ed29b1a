//! The two operations against the formulas, one query at a time.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use attn_core::ops::{self, AttendInput, DecodeInput, Entries, naive};
use attn_core::{Entry, SlotRows};
use attn_core::{Values, random_tensor};
use candle_core::{DType, Device, Tensor};

fn random(shape: &[usize], stream: u64, dtype: DType) -> Tensor {
    random_tensor(shape, 42, stream, dtype, &Device::Cpu).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn attend_is_the_formula_for_every_stride_start_and_group() {
    // 150 and 131 queries take two chunks, the second of them not full.
    for (t, start, stride, h, h_kv) in [
        (1, 0, 1, 4, 4),
        (13, 0, 1, 4, 2),
        (13, 5, 1, 6, 1),
        (13, 0, 2, 4, 4),
        (13, 5, 3, 4, 2),
        (13, 1, 7, 4, 1),
        (5, 2, 40, 2, 2),
        (150, 0, 2, 2, 2),
        (131, 6, 4, 4, 2),
    ] {
        let (b, d_k, d_v) = (2, 6, 5);
        let n = if stride == 1 {
            start + t
        } else {
            (start + t) / stride
        };
        let q = random(&[b, t, h, d_k], 1, DType::F64);
        let (k, v) = (
            random(&[b, n, h_kv, d_k], 2, DType::F64),
            random(&[b, n, h_kv, d_v], 3, DType::F64),
        );
        let (own_k, own_v) = (
            random(&[b, t, h_kv, d_k], 4, DType::F64),
            random(&[b, t, h_kv, d_v], 5, DType::F64),
        );
        let own = (stride > 1).then_some(Entries::Apart { k: &own_k, v: &own_v });
        let input = AttendInput {
            q: &q,
            closed: Some(Entries::Apart { k: &k, v: &v }),
            own,
            start,
            stride,
            window: None,
            scale: 0.7,
        };
        let y = ops::attend(&input).unwrap();
        for sequence in 0..b {
            for query in 0..t {
                let row = y.narrow(0, sequence, 1).unwrap().narrow(1, query, 1).unwrap();
                let error = difference(&row, &naive::attend(&input, sequence, query).unwrap());
                assert!(
                    error < 1e-13,
                    "T {t} start {start} s {stride} H {h} Hkv {h_kv}: {error}"
                );
            }
        }
    }
}

#[test]
fn decode_is_the_formula_and_reads_nothing_beyond_a_length() {
    for (h, h_kv, slots, prefix) in [
        (4, 4, [9, 9, 9], false),
        (6, 2, [9, 9, 9], false),
        (4, 1, [1, 9, 4], false),
        (5, 1, [9, 9, 9], true),
        (4, 1, [7, 2, 9], true),
    ] {
        let (d_k, d_v, capacity) = (8, 5, 12);
        let poisoned = |stream: u64, width: usize| {
            let rows: Vec<Tensor> = slots
                .iter()
                .map(|&n| {
                    let used = random(&[1, h_kv, n, width], stream + n as u64, DType::F32);
                    let rest = Tensor::full(f32::NAN, (1, h_kv, capacity - n, width), &Device::Cpu).unwrap();
                    Tensor::cat(&[&used, &rest], 2).unwrap()
                })
                .collect();
            Tensor::cat(&rows, 0).unwrap().contiguous().unwrap()
        };
        let (q, keys, values) = (
            random(&[3, h, d_k], 1, DType::F32),
            poisoned(10, d_k),
            poisoned(50, d_v),
        );
        let input = DecodeInput {
            q: &q,
            rows: &SlotRows {
                keys,
                values: (!prefix).then_some(values),
                tail: None,
            },
            entry: &Entry::new(
                h_kv,
                d_k,
                match prefix {
                    true => Values::KeyPrefix(d_v),
                    false => Values::Own(d_v),
                },
            ),
            slots: &slots,
            scale: 0.4,
        };
        let y = ops::decode(&input).unwrap();
        for b in 0..3 {
            let error = difference(&y.narrow(0, b, 1).unwrap(), &naive::decode(&input, b).unwrap());
            assert!(error < 1e-6, "H {h} Hkv {h_kv} {slots:?}: {error}"); // false for NaN too
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let q = random(&[1, 4, 3, 6], 1, DType::F32);
    let (k, v) = (
        random(&[1, 4, 2, 6], 2, DType::F32),
        random(&[1, 4, 2, 6], 3, DType::F32),
    );
    let input = AttendInput {
        q: &q,
        closed: Some(Entries::Apart { k: &k, v: &v }),
        own: None,
        start: 0,
        stride: 1,
        window: None,
        scale: 1.0,
    };
    assert!(ops::attend(&input).is_err(), "three heads over two KV heads");
    let k = k.narrow(2, 0, 1).unwrap();
    let v = v.narrow(2, 0, 1).unwrap();
    assert!(
        ops::attend(&AttendInput {
            closed: Some(Entries::Apart { k: &k, v: &v }),
            start: 1,
            ..input
        })
        .is_err(),
        "a key is missing"
    );
    assert!(
        ops::attend(&AttendInput {
            closed: Some(Entries::Apart { k: &k, v: &v }),
            stride: 2,
            ..input
        })
        .is_err(),
        "no own entries"
    );
    let q = q.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let k = k.transpose(1, 2).unwrap();
    let decode = |slots: &[usize]| {
        ops::decode(&DecodeInput {
            q: &q,
            rows: &SlotRows::keys(k.clone()),
            entry: &Entry::new(1, 6, Values::KeyPrefix(3)),
            slots,
            scale: 1.0,
        })
    };
    assert!(
        decode(&[4]).is_ok() && decode(&[5]).is_err() && decode(&[0]).is_err() && decode(&[4, 4]).is_err()
    );
}
