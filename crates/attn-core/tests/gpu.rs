//! What a GPU's kernels compute, held against the processor's; nothing is tested where there is no GPU.
//!
//! Operands are small and lengths ragged, but not those of the kernels' own trials: these come on top, since every
//! kernel is tried before it is used.

#![cfg(feature = "cuda")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use attn_core::Result;
use attn_core::latent::{GateTable, gated_sums_on_gpu};
use attn_core::ops::{AttendInput, Entries, attend, fallbacks};
use attn_core::weights::random_tensor;
use candle_core::{DType, Device, Tensor, Var};

/// The GPU, for one test at a time: what one composes is none of the others' business.
fn gpu() -> Option<(Device, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Some((Device::new_cuda_with_stream(0).ok()?, guard))
}

fn random(shape: &[usize], stream: u64, dtype: DType) -> Result<Tensor> {
    random_tensor(shape, 7, stream, dtype, &Device::Cpu)
}

fn assert_close(got: &Tensor, expected: &Tensor, bound: f64, what: &str) -> Result<()> {
    let flat = |x: &Tensor| -> Result<Vec<f64>> { Ok(x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?) };
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (flat(got)?, flat(expected)?);
    // What sees itself alone has gradients of nothing but roundings.
    let scale = expected.iter().fold(0.1, |most: f64, x| most.max(x.abs()));
    let error = got.iter().zip(&expected).map(|(a, b)| (a - b).abs() / scale);
    let error = error.fold(0.0, |most: f64, e| if e > most || e.is_nan() { e } else { most });
    assert!(
        error <= bound,
        "{what}: {error:.1e} of the scale, {bound:.1e} is allowed"
    );
    Ok(())
}

/// Entries of a kind, as a projection wrote them.
struct Sizes {
    heads: [usize; 2],
    key_dim: usize,
    /// 0: keys and values are tensors of their own.
    rope_dim: usize,
    value_dim: usize,
    tokens: usize,
    start: usize,
    /// `None`: without own entries.
    stride: Option<usize>,
}

fn entries(of: &[Tensor; 2], sizes: &Sizes) -> Entries<'static> {
    // Leaked: a handful of small tensors of a test.
    let [first, second] = Box::leak(Box::new(of.clone()));
    match sizes.rope_dim {
        0 => Entries::Apart { k: first, v: second },
        rope_dim => Entries::Joint {
            kv: first,
            k_r: second,
            nope_dim: sizes.key_dim - rope_dim,
        },
    }
}

/// Output, and gradients of all operands where they are asked for.
fn run(sizes: &Sizes, dtype: DType, device: &Device, has_gradients: bool) -> Result<Vec<Tensor>> {
    let [h, h_kv] = sizes.heads;
    let (b, t) = (2, sizes.tokens);
    let on = |x: Tensor| -> Result<Tensor> {
        let x = x.to_device(device)?;
        Ok(if has_gradients {
            Var::from_tensor(&x)?.into_inner()
        } else {
            x
        })
    };
    let pair = |n: usize, stream: u64| -> Result<[Tensor; 2]> {
        let of_head = sizes.key_dim - sizes.rope_dim;
        Ok(match sizes.rope_dim {
            0 => [
                on(random(&[b, n, h_kv, of_head], stream, dtype)?)?,
                on(random(&[b, n, h_kv, sizes.value_dim], stream + 1, dtype)?)?,
            ],
            rope_dim => [
                on(random(&[b, n, h_kv, of_head + sizes.value_dim], stream, dtype)?)?,
                on(random(&[b, n, rope_dim], stream + 1, dtype)?)?,
            ],
        })
    };
    let q = on(random(&[b, t, h, sizes.key_dim], 1, dtype)?)?;
    let (closed, own) = match sizes.stride {
        None => (Some(pair(sizes.start + t, 2)?), None),
        Some(_) if sizes.start == 0 => (None, Some(pair(t, 4)?)),
        Some(stride) => (Some(pair((sizes.start + t) / stride, 2)?), Some(pair(t, 4)?)),
    };
    let out = attend(&AttendInput {
        q: &q,
        closed: closed.as_ref().map(|of| entries(of, sizes)),
        own: own.as_ref().map(|of| entries(of, sizes)),
        start: sizes.start,
        stride: sizes.stride.unwrap_or(1),
        window: None,
        scale: (sizes.key_dim as f64).powf(-0.5),
    })?;
    let mut all = vec![out.clone()];
    if has_gradients {
        let grad = random(out.dims(), 6, dtype)?.to_device(device)?;
        let gradients = (out * grad)?.sum_all()?.backward()?;
        for x in std::iter::once(&q)
            .chain(closed.iter().flatten())
            .chain(own.iter().flatten())
        {
            let gradient = gradients.get(x).cloned();
            all.push(gradient.map_or_else(|| x.zeros_like(), Ok)?);
        }
    }
    Ok(all)
}

fn check(sizes: &Sizes, dtype: DType, device: &Device, has_gradients: bool) -> Result<()> {
    let before = fallbacks();
    let got = run(sizes, dtype, device, has_gradients)?;
    assert_eq!(fallbacks(), before, "nothing was composed");
    let expected = run(sizes, dtype, &Device::Cpu, has_gradients)?;
    let bound = if dtype == DType::F32 { 2e-5 } else { 2e-2 };
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_close(got, expected, bound, &format!("{dtype:?}, result {i}"))?;
    }
    Ok(())
}

const GROUPED: Sizes = Sizes {
    heads: [4, 2],
    key_dim: 32,
    rope_dim: 0,
    value_dim: 32,
    tokens: 70,
    start: 0,
    stride: None,
};

const LATENT: Sizes = Sizes {
    heads: [3, 3],
    key_dim: 24,
    rope_dim: 8,
    value_dim: 16,
    ..GROUPED
};

#[test]
fn attend_is_the_processors() -> Result<()> {
    let Some((device, _one)) = gpu() else {
        return Ok(());
    };
    for dtype in [DType::F32, DType::BF16] {
        for sizes in [GROUPED, LATENT] {
            check(&sizes, dtype, &device, false)?;
            check(
                &Sizes {
                    start: 11,
                    tokens: 1,
                    ..sizes
                },
                dtype,
                &device,
                false,
            )?;
        }
        for start in [0, 1, 9] {
            let stride = Some(3);
            check(
                &Sizes {
                    start,
                    stride,
                    ..LATENT
                },
                dtype,
                &device,
                false,
            )?;
        }
        // Nothing is closed yet.
        let sizes = Sizes {
            tokens: 3,
            stride: Some(5),
            ..LATENT
        };
        check(&sizes, dtype, &device, false)?;
    }
    Ok(())
}

#[test]
fn gradients_of_attend_are_the_processors() -> Result<()> {
    let Some((device, _one)) = gpu() else {
        return Ok(());
    };
    for dtype in [DType::F32, DType::F16] {
        for stride in [None, Some(2)] {
            check(&Sizes { stride, ..GROUPED }, dtype, &device, true)?;
            check(&Sizes { stride, ..LATENT }, dtype, &device, true)?;
        }
        check(&Sizes { start: 5, ..GROUPED }, dtype, &device, true)?;
        // No entry is closed.
        let sizes = Sizes {
            tokens: 3,
            stride: Some(4),
            ..LATENT
        };
        check(&sizes, dtype, &device, true)?;
    }
    Ok(())
}

#[test]
fn what_has_no_kernel_is_composed_and_said() -> Result<()> {
    let Some((device, _one)) = gpu() else {
        return Ok(());
    };
    let before = fallbacks();
    let odd = Sizes {
        key_dim: 20,
        ..GROUPED
    };
    for has_gradients in [false, true] {
        let got = run(&odd, DType::F32, &device, has_gradients)?;
        let expected = run(&odd, DType::F32, &Device::Cpu, has_gradients)?;
        for (got, expected) in got.iter().zip(&expected) {
            assert_close(got, expected, 2e-5, "composed")?;
        }
    }
    let noted = attn_core::ops::fallbacks_since(&before);
    assert!(
        noted
            .iter()
            .any(|it| it.op == "attend" && it.reason.contains("keys of 20"))
    );
    Ok(())
}

#[test]
fn the_merge_has_sums_and_gradients() -> Result<()> {
    let Some((device, _one)) = gpu() else {
        return Ok(());
    };
    for (dtype, stride) in [(DType::F32, 2), (DType::BF16, 3)] {
        let (b, t, r) = (2, 7, 32);
        let var =
            |x: Tensor| -> Result<Tensor> { Ok(Var::from_tensor(&x.to_device(&device)?)?.into_inner()) };
        let c = var(random(&[b, t, r], 1, dtype)?)?;
        let table = GateTable {
            u: var(random(&[4, r], 2, DType::F32)?)?,
            b: var(random(&[4], 3, DType::F32)?)?,
            stride,
        };
        let before = fallbacks();
        let sums = gated_sums_on_gpu(&c, &table);
        assert_eq!(fallbacks(), before, "nothing was composed");
        let sums = sums.map_or_else(|| c.zeros_like(), Ok)?;
        assert_eq!(sums.dtype(), dtype);
        let gradients = sums.to_dtype(DType::F32)?.sqr()?.sum_all()?.backward()?;
        for x in [&c, &table.u, &table.b] {
            let gradient = gradients.get(x).cloned().map_or_else(|| x.zeros_like(), Ok)?;
            assert_eq!((gradient.dims(), gradient.dtype()), (x.dims(), x.dtype()));
            let most = gradient
                .to_dtype(DType::F32)?
                .abs()?
                .max_all()?
                .to_scalar::<f32>()?;
            assert!(most.is_finite() && most > 0.0);
        }
    }
    Ok(())
}
