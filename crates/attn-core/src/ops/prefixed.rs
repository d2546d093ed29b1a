//! Decode where hypotheses share a prefix: the prefix is read once for all of them.
//!
//! The queries of a sentence's hypotheses are more query heads over the prefix's slots, and each has its own slots
//! besides. Two online softmaxes joined by their sums are the softmax over both.
//!
//! # Source
//! Cascade attention: Ye et al., FlashInfer (arXiv 2501.01005); Hydragen (arXiv 2402.05099).

use candle_core::{D, Tensor};
use rayon::prelude::*;

use crate::cache::{SharedSlots, accumulator_dtype};
use crate::error::{Error, Result};
use crate::ops::softmax::{Visible, softmax};
use crate::ops::{DecodeInput, native};
use crate::route::product;

/// `softmax(scale q K^T) V` over the slots of `shared` and then those of `input`.
///
/// # Shapes
/// - `input.q`: `[N beam, H, Dk]`; `input.rows`: C slots of `N beam` sequences; `shared.rows()`: P slots of N
/// - returns `[N beam, H, Dv]`
///
/// # Errors
/// [`Error::Shape`] where a sequence has no slot of its own, or the sizes do not fit.
pub(super) fn decode(input: &DecodeInput, shared: &SharedSlots) -> Result<Tensor> {
    let (b, h, _) = input.q.dims3()?;
    let (_, h_kv, capacity, _) = input.rows.keys.dims4()?;
    let (n, beam) = (shared.slots().len(), shared.beam());
    let fits = b == n * beam && input.slots.len() == b && h % h_kv == 0;
    if !fits || input.slots.iter().any(|&slots| slots == 0 || slots > capacity) {
        return Err(Error::Shape {
            op: "decode",
            expected: format!(
                "{n} sentences of {beam}, each with 1 to {capacity} slots of its own, and heads {h} a multiple of KV heads"
            ),
            got: input.slots.to_vec(),
        });
    }
    let own = native::decode_part(input)?;
    let Some(own) = own else {
        return composite(input, shared);
    };
    let folded = fold(input.q, n, h_kv)?;
    let in_common = native::decode_part(&DecodeInput {
        q: &folded,
        rows: shared.rows(),
        slots: shared.slots(),
        ..*input
    })?;
    match in_common {
        Some(in_common) => join(&own, &in_common, [n, beam, h_kv, h / h_kv]),
        None => composite(input, shared),
    }?
    .to_dtype(input.q.dtype())
    .map_err(Error::from)
}

/// Queries `[N beam, H, D]` with the hypotheses of a sentence as heads: `[N, Hkv beam G, D]`.
fn fold(q: &Tensor, n: usize, h_kv: usize) -> Result<Tensor> {
    let (b, h, d) = q.dims3()?;
    let (beam, g) = (b / n, h / h_kv);
    let folded = q.reshape((n, beam, h_kv, g, d))?.transpose(1, 2)?; // [N, Hkv, beam, G, D]
    Ok(folded.contiguous()?.reshape((n, h_kv * beam * g, d))?)
}

/// Both parts as one, `[N beam, H, Dv]` in f32. The part in common has its heads in another order ([`fold`]).
fn join(own: &native::Part, in_common: &native::Part, [n, beam, h_kv, g]: [usize; 4]) -> Result<Tensor> {
    let (h, d) = (h_kv * g, own.width);
    let mut out = vec![0_f32; n * beam * h * d];
    out.par_chunks_exact_mut(d).enumerate().for_each(|(row, out)| {
        let (sequence, head) = (row / h, row % h);
        let (sentence, hypothesis) = (sequence / beam, sequence % beam);
        let other = ((sentence * h_kv + head / g) * beam + hypothesis) * g + head % g;
        let (a, b) = (own.logs[row], in_common.logs[other]);
        let max = if a > b { a } else { b };
        let (a, b) = ((a - max).exp(), (b - max).exp());
        let (a, b) = (a / (a + b), b / (a + b));
        let rows = own.values[row * d..][..d]
            .iter()
            .zip(&in_common.values[other * d..][..d]);
        for (out, (x, y)) in out.iter_mut().zip(rows) {
            *out = a * x + b * y;
        }
    });
    Ok(Tensor::from_vec(
        out,
        (n * beam, h, d),
        &candle_core::Device::Cpu,
    )?)
}

/// The same of candle's operations, sentence by sentence.
fn composite(input: &DecodeInput, shared: &SharedSlots) -> Result<Tensor> {
    let (_, h, d) = input.q.dims3()?;
    let (beam, dtype) = (shared.beam(), input.q.dtype());
    let (wide, d_v) = (accumulator_dtype(dtype), input.entry.values.width());
    let mut sentences = Vec::with_capacity(shared.slots().len());
    for (sentence, &p) in shared.slots().iter().enumerate() {
        let first = sentence * beam;
        let q = input.q.narrow(0, first, beam)?.to_dtype(wide)?;
        let of_sentence = DecodeInput {
            rows: shared.rows(),
            ..*input
        };
        let [k, v] = of_sentence.formed(sentence, p, wide)?; // [1, Hkv, P, D]
        let h_kv = k.dim(1)?; // with factors there are keys for every head
        let g = h / h_kv;
        let folded = fold(&q, 1, h_kv)?.reshape((h_kv, beam * g, d))?;
        let scores = product(&folded, &k.squeeze(0)?.t()?)?; // [Hkv, beam G, P]
        let scores = scores.reshape((h_kv, beam, g, p))?.transpose(0, 1)?; // [beam, Hkv, G, P]
        let slots = &input.slots[first..first + beam];
        for (i, &own) in slots.iter().enumerate() {
            let [own_k, own_v] = input.formed(first + i, own, wide)?;
            let q = q.narrow(0, i, 1)?.reshape((h_kv, g, d))?;
            let own_scores = product(&q, &own_k.squeeze(0)?.t()?)?; // [Hkv, G, own]
            let scores = scores.narrow(0, i, 1)?.squeeze(0)?.contiguous()?;
            let scores = Tensor::cat(&[&scores, &own_scores], D::Minus1)?;
            let weights = softmax(&scores, None, Visible::All, input.scale)?;
            let of_shared = product(
                &weights.narrow(2, 0, p)?.contiguous()?,
                &v.squeeze(0)?.contiguous()?,
            )?;
            let of_own = product(
                &weights.narrow(2, p, own)?.contiguous()?,
                &own_v.squeeze(0)?.contiguous()?,
            )?;
            sentences.push((of_shared + of_own)?.reshape((1, h, d_v))?);
        }
    }
    Ok(Tensor::cat(&sentences, 0)?.to_dtype(dtype)?)
}
