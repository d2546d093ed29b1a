//! The gate: nothing is timed before it agrees with a reference in f64.
//!
//! The reference is the same variant with the same weights on the seed's path in f64, dense and slow, and thus a
//! formulation of its own; where its `[T, T]` tensors would be too large it is the compact one in f64, and the row
//! says which. Only some sequences and query rows are compared, the first and the last always among them.

use attn_core::ops::{self, naive};
use attn_core::{Attention, Build, Path, Queries, Result};
use attn_testkit::{Difference, compare, tolerance};
use candle_core::{DType, Device, Tensor, Var};

use super::subject::Subject;
use super::work::{Part, Work, weights};
use super::{Failure, check_model};
use crate::worker::job::Job;
use crate::worker::{Fault, Verdict};

/// Tokens up to which the reference may form `[T, T]` tensors; for gradients it keeps them all.
pub(super) const DENSE_TOKENS: usize = 1024;
const DENSE_TOKENS_GRADIENT: usize = 256;

/// Rows of a decode step that are compared at least: each is one step of one sequence.
const DECODE_ROWS: usize = 8;

/// What a cache may hold beside slots and state: shapes, handles, marks.
const BOOKKEEPING_BYTES: u64 = 64 << 10;

/// The same on a GPU, where a cache is a few allocations that its pool may round up, to 2 MiB each at most.
const POOL_SLACK_BYTES: u64 = 8 << 20;

/// Gradients pass through twice as many roundings as outputs and sum over all tokens.
const GRADIENT_FACTOR: f64 = 10.0;

struct Compared {
    against: String,
    rows: usize,
    differences: Vec<Difference>,
    factor: f64,
}

/// Runs the case once and compares; audits its cache.
pub(crate) fn verify(subject: &mut Subject) -> std::result::Result<Verdict, Failure> {
    let Subject {
        job,
        work,
        cache_bytes: handed_out,
        ..
    } = subject;
    if let Work::Model(whole) = work {
        return check_model::verify(job, whole);
    }
    work.reset()?;
    let compared = compare_with_reference(job, work)?;
    let cache_bytes = work.cache().map(|cache| {
        // The work leaves `decode` at its capacity and the others at their length.
        [kv_bytes(job), cache.kv_allocated_bytes(), cache.kv_state_bytes()]
    });
    let limit = compared.factor * tolerance(DType::from(job.dtype));
    let worst = |of: fn(&Difference) -> f64| compared.differences.iter().map(of).fold(0.0, f64::max);
    let (error_max, error_cosine) = (worst(|d| d.max), worst(|d| d.cosine));
    let failure = if compared.differences.iter().any(|d| !d.same_non_finite) {
        Some("NaN or infinity where the reference has none".to_string())
    } else if error_max > limit {
        Some(format!(
            "differs from {} by {error_max:.1e} of its scale, {limit:.1e} allowed",
            compared.against
        ))
    } else {
        audit(job, work, *handed_out)
    };
    Ok(Verdict {
        against: compared.against,
        rows: compared.rows,
        error_max: Some(error_max),
        error_cosine: Some(error_cosine),
        cache_bytes,
        failure,
    })
}

/// A cache must be what it claims: the formula at its length, on the fused path at its capacity, and no more memory
/// than it says.
fn audit(job: &Job, work: &Work, handed_out: Option<u64>) -> Option<String> {
    let cache = work.cache()?;
    let (g, batch, e) = (&job.geometry, cache.batch(), job.dtype.size_in_bytes());
    let len = cache.uniform_len()?;
    let held = match (job.path, job.scope) {
        (Path::Seedlike, _) => len,
        (Path::Fused, attn_core::Scope::Layer | attn_core::Scope::Model) => job.cache_capacity,
        (Path::Fused, attn_core::Scope::Op) => len,
    };
    let checks = [
        ("cache bytes", g.kv_bytes(batch, len, e), cache.kv_bytes()),
        (
            "allocated cache bytes",
            g.kv_bytes(batch, held, e),
            cache.kv_allocated_bytes(),
        ),
        (
            "cache state bytes",
            g.kv_state_bytes(batch),
            cache.kv_state_bytes(),
        ),
    ];
    let wrong = checks.into_iter().find(|(_, expected, got)| expected != got);
    if let Some((what, expected, got)) = wrong {
        return Some(format!("{what} are {got}, its formula says {expected}"));
    }
    // The allocator does not take a cache's word.
    let claimed = g.kv_bytes(batch, held, e);
    let slack = match cache.keys().device() {
        Device::Cpu => BOOKKEEPING_BYTES,
        _ => POOL_SLACK_BYTES,
    };
    let most = claimed + g.kv_state_bytes(batch) + slack;
    let got = handed_out.filter(|_| job.path == Path::Fused)?;
    (got < claimed || got > most)
        .then(|| format!("the allocator handed out {got} bytes for a cache of {claimed}"))
}

/// The papers' formula at the tokens the workload ends with.
fn kv_bytes(job: &Job) -> u64 {
    let (batch, tokens) = (job.workload.batch(), job.workload.cached_tokens());
    job.geometry.kv_bytes(batch, tokens, job.dtype.size_in_bytes())
}

/// First and last sequence.
pub(super) fn sampled(batch: usize) -> Vec<usize> {
    if batch == 1 { vec![0] } else { vec![0, batch - 1] }
}

fn pick(x: &Tensor, sequences: &[usize]) -> Result<Tensor> {
    let rows = sequences
        .iter()
        .map(|&b| x.narrow(0, b, 1))
        .collect::<candle_core::Result<Vec<_>>>()?;
    // References are computed on the processor.
    Ok(Tensor::cat(&rows, 0)?.to_device(&Device::Cpu)?)
}

/// That of the case, unless a test wants the comparison to fail.
pub(super) fn reference_seed(job: &Job) -> u64 {
    match job.fault {
        Some(Fault::Wrong) => job.seed.wrapping_add(1),
        _ => job.seed,
    }
}

/// The case's variant and weights in f64.
fn reference(job: &Job, dense: bool) -> std::result::Result<(Box<dyn Attention>, String), Failure> {
    let path = if dense { Path::Seedlike } else { Path::Fused };
    let (config, weights) = weights(job, reference_seed(job))?;
    Ok((
        config.build(&weights, &Build::cpu(path, DType::F64))?,
        format!("{path} in f64"),
    ))
}

fn compare_with_reference(job: &Job, work: &mut Work) -> std::result::Result<Compared, Failure> {
    let sequences = sampled(job.workload.batch());
    let wide = |x: &Tensor| -> Result<Tensor> { Ok(pick(x, &sequences)?.to_dtype(DType::F64)?) };
    match work {
        Work::Decode { stepper, tokens, .. } => {
            let (layer, against) = reference(job, true)?;
            let mut copy = stepper.cache().select(&sequences)?.convert(layer.build())?;
            // An open slot's sums are marked with the fill; the copy takes no turn back.
            // Enough steps to close a slot of the cache twice.
            let steps = DECODE_ROWS.div_ceil(sequences.len()).max(2 * job.geometry.stride);
            let n = tokens.len().min(steps);
            let expected: Vec<Tensor> = tokens[..n]
                .iter()
                .map(|x| layer.decode(&wide(x)?, &mut copy))
                .collect::<Result<_>>()?;
            let got = work.run(Part::Steps(n))?;
            let pairs = got.iter().zip(&expected);
            let differences = pairs
                .map(|(got, expected)| compare(&pick(got, &sequences)?, expected))
                .collect::<Result<Vec<_>>>()?;
            Ok(Compared {
                against,
                rows: got.len() * sequences.len(),
                differences,
                factor: 1.0,
            })
        }
        Work::Prefill { x, .. } => {
            let tokens = x.dim(1)?;
            let (layer, against) = reference(job, tokens <= DENSE_TOKENS)?;
            let x = wide(x)?;
            let got = pick(&work.run(Part::Steps(1))?[0], &sequences)?;
            let mut differences = Vec::new();
            let mut rows = 0;
            // Causality makes the rows of a shorter prompt those of the whole one.
            for (prompt, n) in [(4, 4), (tokens / 2, 2), (tokens, 2)] {
                let prompt = prompt.clamp(1, tokens);
                let n = n.min(prompt);
                let expected = layer.forward(&x.narrow(1, 0, prompt)?.contiguous()?, Queries::Last(n))?;
                differences.push(compare(&got.narrow(1, prompt - n, n)?, &expected)?);
                rows += n * sequences.len();
            }
            Ok(Compared {
                against,
                rows,
                differences,
                factor: 1.0,
            })
        }
        Work::Generate { x, tokens, .. } => {
            let mut all = vec![x.clone()];
            all.extend(tokens.iter().cloned());
            let x = wide(&Tensor::cat(&all, 1)?)?;
            let n = tokens.len() + 1;
            let (layer, against) = reference(job, x.dim(1)? <= DENSE_TOKENS)?;
            let expected = layer.forward(&x, Queries::Last(n))?;
            let got = pick(&Tensor::cat(&work.run(Part::Steps(1))?, 1)?, &sequences)?;
            let differences = vec![compare(&got, &expected)?];
            Ok(Compared {
                against,
                rows: n * sequences.len(),
                differences,
                factor: 1.0,
            })
        }
        Work::Train { x, projection, .. } => {
            let dense = x.dim(1)? <= DENSE_TOKENS_GRADIENT;
            let path = if dense { Path::Seedlike } else { Path::Fused };
            let (config, weights) = weights(job, reference_seed(job))?;
            let weights = weights.to_vars(DType::F64)?;
            let mut reference = Work::Train {
                layer: config.build(&weights, &Build::cpu(path, DType::F64))?,
                weights,
                x: Var::from_tensor(&x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?,
                projection: projection.to_device(&Device::Cpu)?.to_dtype(DType::F64)?,
            };
            let rows = x.dim(0)? * x.dim(1)?;
            let (got, expected) = (work.run(Part::Steps(1))?, reference.run(Part::Steps(1))?);
            let pairs = got.iter().zip(&expected);
            let differences = pairs
                .map(|(got, expected)| compare(got, expected))
                .collect::<Result<Vec<_>>>()?;
            Ok(Compared {
                against: format!("{path} in f64, gradients"),
                rows,
                differences,
                factor: GRADIENT_FACTOR,
            })
        }
        // Compared by the gate of whole decoders.
        Work::Model(_) => Ok(Compared {
            against: String::new(),
            rows: 0,
            differences: Vec::new(),
            factor: 0.0,
        }),
        Work::DecodeOp { replay } => {
            let operands = replay.operands();
            let slots = operands.cache.slots();
            let input = operands.input(&slots);
            let expected = sequences
                .iter()
                .map(|&b| naive::decode(&input, b))
                .collect::<Result<Vec<_>>>()?;
            let got = pick(&work.run(Part::Steps(1))?[0], &sequences)?;
            let differences = vec![compare(&got, &Tensor::cat(&expected, 0)?)?];
            Ok(Compared {
                against: "the formula in f64".to_string(),
                rows: sequences.len(),
                differences,
                factor: 1.0,
            })
        }
        Work::AttendOp { operands, .. } => {
            let o = &*operands;
            let t = o.q.dim(1)?;
            let got = ops::attend(&o.input())?;
            let mut places = vec![0, 1, t / 4, t / 3, t / 2, 3 * t / 4, t.saturating_sub(2), t - 1];
            places.retain(|&i| i < t);
            places.dedup();
            let mut differences = Vec::new();
            for &b in &sequences {
                for &i in &places {
                    let expected = naive::attend(&o.input(), b, i)?;
                    differences.push(compare(&got.narrow(0, b, 1)?.narrow(1, i, 1)?, &expected)?);
                }
            }
            let rows = differences.len();
            Ok(Compared {
                against: "the formula in f64".to_string(),
                rows,
                differences,
                factor: 1.0,
            })
        }
    }
}
