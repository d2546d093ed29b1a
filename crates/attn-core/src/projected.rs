//! A layer around projections: what is left of a variant once cache, operations, paths and habits are taken care of.
//!
//! A variant says how tokens become queries, what its cache holds of them and how heads become outputs;
//! [`Projected`] makes an [`Attention`] layer of it, on either path, with any of the seed's habits.
//!
//! ```
//! use attn_core::grouped::{GroupedConfig, GroupedProjections};
//! use attn_core::{Attention, Build, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Projected, Values, Weights, random_tensor};
//! use candle_core::{DType, Device};
//!
//! let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
//! let config = GroupedConfig::new(&dims, Entry::new(2, 8, Values::Own(8)), &Params::default())?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let build = Build::cpu(Path::Fused, DType::F32);
//! let layer = Projected::new(config.geometry(), &build, GroupedProjections::new(&config, &weights, &build)?);
//! let mut cache = layer.new_cache(1, Capacity::Exact(4))?;
//! let x = random_tensor(&[1, 1, 32], 7, 0, DType::F32, &Device::Cpu)?;
//! assert_eq!(layer.decode(&x, &mut cache)?.dims(), [1, 1, 32]);
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::Tensor;

use crate::attention::{Attention, Queries};
use crate::cache::{Cache, SlotRows};
use crate::error::{Error, Result};
use crate::geometry::{Entry, Geometry};
use crate::habits::{Habit, Habits};
use crate::ops::{self, AttendInput, DecodeInput, Entries};
use crate::phase::{Phase, timed};
use crate::pool::in_pool;
use crate::variant::Build;

/// The projections of a variant.
///
/// Two views of the same attention: whole sequences are attended to by the keys and values that the formulas have
/// ([`keys_values`](Self::keys_values)), decode steps by what the cache holds. Where these differ, as with latents,
/// queries are [`absorbed`](Self::absorb) and what comes out is [`decompressed`](Self::decompress).
///
/// ```
/// use attn_core::{Projections, Result, SlotRows};
/// use candle_core::Tensor;
///
/// /// One head whose queries, keys and values are the tokens themselves.
/// struct Plain;
///
/// impl Projections for Plain {
///     fn queries(&self, x: &Tensor, _: &[usize]) -> Result<Tensor> {
///         Ok(x.unsqueeze(2)?) // [B, T, 1, M]
///     }
///
///     fn slots(&self, x: &Tensor, _: &[usize]) -> Result<SlotRows> {
///         let x = x.unsqueeze(1)?; // [B, 1, T, M]
///         Ok(SlotRows::keys_values(x.clone(), x))
///     }
///
///     fn output(&self, heads: &Tensor) -> Result<Tensor> {
///         Ok(heads.squeeze(2)?)
///     }
/// }
/// ```
pub trait Projections: Send + Sync {
    /// Queries of all tokens, turned to their positions.
    ///
    /// # Shapes
    /// - `x`: `[B, T, M]`, the tokens of sequence b at `starts[b]..`
    /// - returns `[B, T, H, Dk]`
    ///
    /// # Errors
    /// [`Error::Shape`] where `starts` is not one per sequence.
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor>;

    /// What the cache holds of all tokens: `[B, heads, T, width]` a tensor, widths as the [`Entry`] has them.
    ///
    /// # Errors
    /// As [`queries`](Self::queries).
    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows>;

    /// Outputs of heads: `[B, n, H, Dv]` -> `[B, n, M]`.
    ///
    /// # Errors
    /// [`Error::Candle`] where shapes do not fit.
    fn output(&self, heads: &Tensor) -> Result<Tensor>;

    /// Keys `[B, Hkv, n, Dk]` and values `[B, Hkv, n, Dv]` of slots, for whole sequences; gradients flow through them. Those
    /// that the entry says ([`ops::form`]), unless they are latents to decompress.
    ///
    /// # Errors
    /// [`Error::Candle`] where shapes do not fit.
    fn keys_values(&self, rows: &SlotRows, entry: &Entry) -> Result<[Tensor; 2]> {
        ops::form(rows, entry)
    }

    /// Queries `[B, n, H, Dk]` as they are multiplied with what the cache holds: themselves, unless that is a latent.
    ///
    /// # Errors
    /// [`Error::Candle`] where shapes do not fit.
    fn absorb(&self, q: Tensor) -> Result<Tensor> {
        Ok(q)
    }

    /// Weighed values of the cache `[B, n, H, width]` as heads have them, `[B, n, H, Dv]`: themselves, unless they are
    /// latents.
    ///
    /// # Errors
    /// [`Error::Candle`] where shapes do not fit.
    fn decompress(&self, heads: Tensor) -> Result<Tensor> {
        Ok(heads)
    }

    /// One token `[B, 1, M]` of every sequence decoded by kernels that have lengths on a GPU, up to the output; `None`, and
    /// nothing done, where there are none.
    ///
    /// # Errors
    /// [`Error::CacheFull`].
    fn step(&self, _x: &Tensor, _cache: &mut Cache, _scale: f64) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Whether a function of [`Projections`] gave what the geometry says; `op` is what it gave and in which order.
fn expect(op: &'static str, got: Option<&Tensor>, expected: Option<[usize; 4]>) -> Result<()> {
    let dims = got.map_or(&[][..], Tensor::dims);
    if dims == expected.as_ref().map_or(&[][..], |expected| &expected[..]) {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        expected: match expected {
            Some(expected) => format!("{expected:?} as the geometry says"),
            None => "none, since the entry has none apart".to_string(),
        },
        got: dims.to_vec(),
    })
}

/// A layer around the projections of a variant.
///
/// ```
/// # use attn_core::{Projections, Result, SlotRows};
/// # use candle_core::Tensor;
/// # struct Plain;
/// # impl Projections for Plain {
/// #     fn queries(&self, x: &Tensor, _: &[usize]) -> Result<Tensor> { Ok(x.unsqueeze(2)?) }
/// #     fn slots(&self, x: &Tensor, _: &[usize]) -> Result<SlotRows> {
/// #         let x = x.unsqueeze(1)?;
/// #         Ok(SlotRows::keys_values(x.clone(), x))
/// #     }
/// #     fn output(&self, heads: &Tensor) -> Result<Tensor> { Ok(heads.squeeze(2)?) }
/// # }
/// use attn_core::{Attention, Build, Entry, Geometry, Path, Projected, ProjectionMacs, Queries, Values, random_tensor};
/// use candle_core::{DType, Device};
///
/// let geometry = Geometry {
///     d_model: 8,
///     n_heads: 1,
///     n_kv_heads: 1,
///     score_dim: 8,
///     v_dim: 8,
///     stride: 1,
///     window: None,
///     entry: Entry::new(1, 8, Values::Own(8)),
///     state_elements: 0,
///     parameters: 0,
///     forward_macs: ProjectionMacs::default(),
///     decode_macs: ProjectionMacs::default(),
/// };
/// let layer = Projected::new(geometry, &Build::cpu(Path::Fused, DType::F32), Plain);
/// let x = random_tensor(&[1, 5, 8], 7, 0, DType::F32, &Device::Cpu)?;
/// let y = layer.forward(&x, Queries::All)?;
/// let (first, same) = (y.narrow(1, 0, 1)?, x.narrow(1, 0, 1)?); // it sees nothing but itself
/// assert!((first - same)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Projected<P> {
    geometry: Geometry,
    build: Build,
    projections: P,
    scale: f64,
}

impl<P: Projections> Projected<P> {
    /// The layer of this geometry. Scores are multiplied with `Dk^-1/2`.
    pub fn new(geometry: Geometry, build: &Build, projections: P) -> Self {
        Self {
            scale: (geometry.score_dim as f64).powf(-0.5),
            build: build.clone(),
            geometry,
            projections,
        }
    }

    /// Queries of tokens, of the sizes that the geometry says.
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let Geometry {
            n_heads, score_dim, ..
        } = self.geometry;
        let q = self.projections.queries(x, starts)?;
        expect(
            "`queries` [B, T, H, Dk]",
            Some(&q),
            Some([b, t, n_heads, score_dim]),
        )?;
        Ok(q)
    }

    /// What the cache holds of tokens, of the sizes that its entry says: others would be read as something else.
    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let (b, t, _) = x.dims3()?;
        let entry = &self.geometry.entry;
        let of_heads = |width| [b, entry.heads, t, width];
        let rows = self.projections.slots(x, starts)?;
        let SlotRows { keys, values, tail } = &rows;
        expect(
            "keys of `slots` [B, Hkv, T, width]",
            Some(keys),
            Some(of_heads(entry.key_width())),
        )?;
        expect(
            "values of `slots` [B, Hkv, T, width]",
            values.as_ref(),
            entry.value_width().map(of_heads),
        )?;
        expect(
            "tail of `slots` [B, 1, T, width]",
            tail.as_ref(),
            (entry.tail > 0).then_some([b, 1, t, entry.tail]),
        )?;
        Ok(rows)
    }

    /// Queries of the last `n` tokens, `[B, n, H, Dk]`.
    fn last_queries(&self, x: &Tensor, n: usize, starts: &[usize]) -> Result<Tensor> {
        let t = x.dim(1)?;
        let starts: Vec<usize> = starts.iter().map(|start| start + t - n).collect();
        self.queries(&x.narrow(1, t - n, n)?, &starts)
    }

    /// Attention of queries `[B, n, H, Dk]`, the first of which is at `start`, over slots; outputs `[B, n, M]`.
    fn attend(&self, q: &Tensor, rows: &SlotRows, start: usize) -> Result<Tensor> {
        let [k, v] = self.projections.keys_values(rows, &self.geometry.entry)?;
        let (k, v) = (self.heads_of(&k)?, self.heads_of(&v)?);
        let window = self.geometry.window;
        if self.build.has(Habit::DenseMask) {
            let (n, l) = (q.dim(1)?, k.dim(2)?);
            let sees = |i: usize, j: usize| j <= i && window.is_none_or(|window| i - j < window);
            let mask = ops::seedlike::dense_mask(l, sees, q.dtype(), q.device())?.narrow(0, start, n)?;
            let q = q.transpose(1, 2)?;
            let heads = ops::seedlike::dense_attention(&q, &k, &v, Some(&mask), self.scale)?;
            return self.projections.output(&heads.transpose(1, 2)?);
        }
        self.projections.output(&ops::attend(&AttendInput {
            q,
            closed: Some(Entries::Apart {
                k: &k.transpose(1, 2)?,
                v: &v.transpose(1, 2)?,
            }),
            own: None,
            start,
            stride: 1,
            window,
            scale: self.scale,
        })?)
    }

    /// Keys or values `[B, Hkv, L, D]` of as many heads as attention is given: repeated where that is a habit.
    fn heads_of(&self, x: &Tensor) -> Result<Tensor> {
        match self.build.has(Habit::Expand) {
            true => Ok(ops::seedlike::expand_heads(x, self.geometry.n_heads)?.contiguous()?),
            false => Ok(x.clone()),
        }
    }

    /// Attention of one query per sequence `[B, H, key]` over the cache, `[B, H, width of its values]`.
    fn attend_cached(&self, q: &Tensor, cache: &Cache) -> Result<Tensor> {
        let is_dense = self.build.has(Habit::DenseMask);
        if !is_dense && !self.build.has(Habit::Expand) {
            return ops::decode_cached(q, cache, self.scale);
        }
        timed(Phase::Attention, || {
            cache.check_unshared("attention in the seed's way")?;
            let slots = cache.slots();
            let [k, v] = ops::form(
                &cache.first(slots.iter().max().copied().unwrap_or(0))?,
                cache.entry(),
            )?;
            let (k, v) = (self.heads_of(&k)?, self.heads_of(&v)?);
            if is_dense {
                let q = q.unsqueeze(2)?;
                return Ok(ops::seedlike::dense_attention(&q, &k, &v, None, self.scale)?.squeeze(2)?);
            }
            let entry = Entry::new(k.dim(1)?, cache.entry().key, crate::Values::Own(v.dim(3)?));
            ops::decode(&DecodeInput {
                q,
                rows: &SlotRows::keys_values(k, v),
                entry: &entry,
                slots: &slots,
                scale: self.scale,
            })
        })
    }

    /// The slots that T new ones `rows` see, of sequences of `past` tokens that the cache still holds, and how many are
    /// before the first new one; the new ones are written.
    fn store(&self, cache: &mut Cache, rows: SlotRows, past: usize) -> Result<(SlotRows, usize)> {
        let (t, starts) = (rows.len(), cache.lens().to_vec());
        // What a window loses by writing is still seen by the first of the new tokens.
        let before = match self.geometry.window {
            Some(window) if past > 0 && window > 1 => {
                let all = cache.chronological()?;
                let kept = all.len().min(window - 1);
                // Copied: what the cache has there is about to be written over.
                let kept = all.narrow(all.len() - kept, kept)?;
                Some(kept.map(Tensor::force_contiguous)?)
            }
            _ => None,
        };
        cache.write(&starts, &rows)?;
        cache.advance(t);
        if past == 0 || self.geometry.window == Some(1) {
            return Ok((rows, 0));
        }
        let Some(before) = before else {
            return Ok((cache.first(past + t)?, past));
        };
        let n = before.len();
        let all = SlotRows::merge(&[before, rows.clone()], |parts| Tensor::cat(parts, 2))?;
        Ok((all.unwrap_or(rows), n))
    }
}

impl<P: Projections> Attention for Projected<P> {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn build(&self) -> &Build {
        &self.build
    }

    fn forward(&self, x: &Tensor, queries: Queries) -> Result<Tensor> {
        in_pool(|| {
            let (b, t, _) = self.geometry.check_input(x)?;
            let n = queries.count(t)?;
            let starts = vec![0; b];
            let q = self.last_queries(x, n, &starts)?;
            let rows = self.slots(x, &starts)?;
            self.attend(&q, &rows, t - n)
        })
    }

    fn prefill(&self, x: &Tensor, cache: &mut Cache, queries: Queries) -> Result<Tensor> {
        in_pool(|| {
            let (b, t, _) = self.geometry.check_input(x)?;
            let n = queries.count(t)?;
            cache.check_batch(b)?;
            cache.check_unshared("a prompt")?;
            let Some(past) = cache.uniform_len() else {
                return cache.each_sequence(x, |x, cache| self.prefill(x, cache, queries));
            };
            let starts = cache.lens().to_vec();
            let q = self.last_queries(x, n, &starts)?;
            let rows = self.slots(x, &starts)?;
            let (rows, before) = self.store(cache, rows, past)?;
            self.attend(&q, &rows, before + t - n)
        })
    }

    fn decode(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        in_pool(|| {
            let (b, _, _) = self.geometry.check_step(x)?;
            cache.check_batch(b)?;
            if self.needs_uniform() && cache.uniform_len().is_none() {
                return cache.each_sequence(x, |x, cache| self.decode(x, cache));
            }
            let is_whole = self.build.habits == Habits::NONE && cache.shared().is_none();
            if is_whole && let Some(y) = self.projections.step(x, cache, self.scale)? {
                return Ok(y);
            }
            let starts = cache.lens().to_vec();
            let projected = timed(Phase::Projections, || {
                let q = self.projections.absorb(self.queries(x, &starts)?)?;
                Ok::<_, Error>((q, self.slots(x, &starts)?))
            });
            let (q, rows) = projected?;
            timed(Phase::CacheUpdate, || cache.write(&starts, &rows))?;
            cache.advance(1);
            let heads = self.attend_cached(&q.squeeze(1)?, cache)?;
            timed(Phase::Projections, || {
                self.projections
                    .output(&self.projections.decompress(heads.unsqueeze(1)?)?)
            })
        })
    }
}

impl<P> Projected<P> {
    /// Whether sequences of several lengths cannot take a step together: the seed's dense attention knows none, and of a
    /// window that is concatenated each would lose another slot.
    fn needs_uniform(&self) -> bool {
        self.build.has(Habit::DenseMask) || (self.build.has(Habit::Cat) && self.geometry.window.is_some())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::geometry::{ProjectionMacs, Values};
    use crate::variant::Path;
    use crate::weights::random_tensor;

    /// One of the mistakes that are made easily, or none.
    #[derive(Clone, Copy)]
    enum Mistake {
        Nothing,
        TurnedQueries,
        TurnedKeys,
        ValuesBesideKeys,
        Tail,
    }

    /// Two heads of 4 columns, whose queries and keys are the tokens themselves; keys are values too.
    struct Tied(Mistake);

    impl Projections for Tied {
        fn queries(&self, x: &Tensor, _: &[usize]) -> Result<Tensor> {
            let (b, t, _) = x.dims3()?;
            let q = x.reshape((b, t, 2, 4))?;
            match self.0 {
                Mistake::TurnedQueries => Ok(q.transpose(1, 2)?),
                _ => Ok(q),
            }
        }

        fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
            let heads = Tied(Mistake::Nothing).queries(x, starts)?; // [B, T, 2, 4]
            let keys = match self.0 {
                Mistake::TurnedKeys => heads,
                _ => heads.transpose(1, 2)?,
            };
            let tail = keys.narrow(1, 0, 1)?;
            Ok(SlotRows {
                values: matches!(self.0, Mistake::ValuesBesideKeys).then(|| keys.clone()),
                tail: matches!(self.0, Mistake::Tail).then_some(tail),
                keys,
            })
        }

        fn output(&self, heads: &Tensor) -> Result<Tensor> {
            let (b, n, h, d) = heads.dims4()?;
            Ok(heads.reshape((b, n, h * d))?)
        }
    }

    #[test]
    fn what_does_not_fit_the_geometry_is_named() {
        let geometry = Geometry {
            d_model: 8,
            n_heads: 2,
            n_kv_heads: 2,
            score_dim: 4,
            v_dim: 4,
            stride: 1,
            window: None,
            entry: Entry::new(2, 4, Values::KeyPrefix(4)),
            state_elements: 0,
            parameters: 0,
            forward_macs: ProjectionMacs::default(),
            decode_macs: ProjectionMacs::default(),
        };
        let x = random_tensor(&[1, 3, 8], 7, 0, DType::F32, &Device::Cpu).unwrap();
        let forward = |mistake| {
            let build = Build::cpu(Path::Fused, DType::F32);
            let layer = Projected::new(geometry.clone(), &build, Tied(mistake));
            layer.forward(&x, Queries::All).map_err(|error| error.to_string())
        };
        assert_eq!(forward(Mistake::Nothing).unwrap().dims(), [1, 3, 8]);
        for (mistake, message) in [
            (
                Mistake::TurnedQueries,
                "shape mismatch in `queries` [B, T, H, Dk], expected [1, 3, 2, 4] as the geometry says, got [1, 2, 3, 4]",
            ),
            (
                Mistake::TurnedKeys,
                "shape mismatch in keys of `slots` [B, Hkv, T, width], expected [1, 2, 3, 4] as the geometry says, got [1, 3, 2, 4]",
            ),
            (
                Mistake::ValuesBesideKeys,
                "shape mismatch in values of `slots` [B, Hkv, T, width], expected none, since the entry has none apart, got [1, 2, 3, 4]",
            ),
            (
                Mistake::Tail,
                "shape mismatch in tail of `slots` [B, 1, T, width], expected none, since the entry has none apart, got [1, 1, 3, 4]",
            ),
        ] {
            assert_eq!(forward(mistake).unwrap_err(), message);
        }
    }
}
