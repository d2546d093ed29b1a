//! The gate of whole decoders: what a search found is scored again by one pass over each text in f64, without any cache.
//!
//! A cache that followed the wrong hypothesis, that is stale, or that has another sentence's prefix gives other
//! log-probabilities than the text has. First and last sentence are scored, the best and the worst hypothesis of each;
//! greedy tokens must each be the most likely one.

use std::cmp::Ordering;

use attn_core::{Build, ModelShape, Path, Prefix, Workload};
use attn_model::Hypothesis;
use attn_testkit::tolerance;
use candle_core::{DType, Device, Tensor};

use super::Failure;
use super::check::{DENSE_TOKENS, reference_seed, sampled};
use super::model::{Found, Whole, decoder, sentences};
use crate::worker::Verdict;
use crate::worker::job::Job;

/// A log-probability is a difference of logits, and a sum over layers is behind each of them.
const SEARCH_FACTOR: f64 = 4.0;
/// What a search holds beside its caches: hypotheses, logits of its last step, and scratch that threads keep, which one
/// search may leave where the other did not.
const SEARCH_SLACK_BYTES: u64 = 16 << 20;

/// Compares what a search found with a reference, and audits its caches. Searches first where nothing was yet.
pub(super) fn verify(job: &Job, whole: &mut Whole) -> Result<Verdict, Failure> {
    let missing = || Failure::Failed("a whole decoder without its sizes".to_string());
    let shape = job.model.ok_or_else(missing)?;
    if whole.found.is_none() {
        attn_core::in_pool(|| whole.search())?;
    }
    // Tables of rotations and gates, and scratch that threads keep, are made once in a process: a first search that
    // holds more than its caches is asked again.
    let holds_more = |found: &Found| excess(job, &shape, found).is_some();
    if whole.found.as_ref().is_some_and(holds_more) {
        attn_core::in_pool(|| whole.search())?;
    }
    let has_scores = whole.has_scores();
    let nothing = || Failure::Failed("the search found nothing".to_string());
    let found = whole.found.as_ref().ok_or_else(nothing)?;
    let tokens = job.workload.cached_tokens();
    let path = if tokens <= DENSE_TOKENS {
        Path::Seedlike
    } else {
        Path::Fused
    };
    let reference = Reference {
        decoder: decoder(job, &shape, reference_seed(job), &Build::cpu(path, DType::F64))?,
        states: sentences(job, &shape, job.seed, job.dtype.into(), &Device::Cpu)?,
    };
    let mut worst = Compared::default();
    for sentence in sampled(job.workload.batch()) {
        let hypotheses = found.hypotheses.get(sentence).ok_or_else(nothing)?;
        let mut chosen: Vec<&Hypothesis> = hypotheses.iter().take(1).collect();
        chosen.extend(hypotheses.iter().skip(1).last());
        for hypothesis in chosen {
            worst.take(reference.compare(sentence, hypothesis, has_scores)?);
        }
    }
    let limit = SEARCH_FACTOR * tolerance(job.dtype.into());
    let against = format!("{path} in f64, the texts scored again");
    let failure = if worst.error.is_nan() {
        Some("NaN or infinity where the reference has none".to_string())
    } else if worst.error > limit {
        let what = if has_scores {
            "log-probabilities differ"
        } else {
            "tokens are less likely than others"
        };
        Some(format!(
            "{what} by {:.1e} of the logits' scale a token from {against}, {limit:.1e} allowed",
            worst.error
        ))
    } else {
        count(job, found).or_else(|| audit(job, &shape, found))
    };
    let total = |which: usize| found.caches.iter().map(|bytes| bytes[which]).sum();
    Ok(Verdict {
        against,
        rows: worst.rows,
        error_max: Some(worst.error),
        error_cosine: None,
        cache_bytes: Some([total(0), total(1), total(2)]),
        failure,
    })
}

/// The largest error so far, and the tokens that were compared.
#[derive(Debug, Clone, Copy, Default)]
struct Compared {
    error: f64,
    rows: usize,
}

impl Compared {
    fn take(&mut self, other: Self) {
        // `max` would forget a NaN.
        if other.error.is_nan() || other.error > self.error {
            self.error = other.error;
        }
        self.rows += other.rows;
    }
}

struct Reference {
    decoder: attn_model::Decoder,
    states: (Option<Tensor>, Vec<Vec<u32>>),
}

impl Reference {
    /// How far a hypothesis of a sentence is from what its text has in one pass, a token and in logits' scales.
    fn compare(
        &self,
        sentence: usize,
        hypothesis: &Hypothesis,
        has_scores: bool,
    ) -> Result<Compared, Failure> {
        let (states, prompts) = &self.states;
        let n = hypothesis.tokens.len();
        let prompt = &prompts[sentence];
        // The last token is never read.
        let read: Vec<u32> = prompt
            .iter()
            .chain(&hypothesis.tokens[..n - 1])
            .copied()
            .collect();
        let logits = self.logits(states.as_ref(), sentence, read)?;
        let rows = &logits[prompt.len() - 1..];
        let scale = rows.iter().flatten().fold(0_f64, |most, x| most.max(x.abs()));
        let mut error = 0_f64;
        let mut sum = 0_f64;
        for (row, &token) in rows.iter().zip(&hypothesis.tokens) {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let own = row.get(token as usize).copied().unwrap_or(f64::NAN);
            let total: f64 = row.iter().map(|x| (x - most).exp()).sum();
            sum += own - most - total.ln();
            if !has_scores {
                let gap = (most - own) / scale;
                // `max` would forget a NaN.
                error = if gap.is_nan() || gap > error { gap } else { error };
            }
        }
        if has_scores {
            error = (hypothesis.sum_log_prob - sum).abs() / (n as f64 * scale);
        }
        Ok(Compared { error, rows: n })
    }

    fn logits(
        &self,
        states: Option<&Tensor>,
        sentence: usize,
        read: Vec<u32>,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let logits = || -> Result<Vec<Vec<f64>>, attn_model::Error> {
            let prefix = match states {
                Some(states) => Some(states.narrow(0, sentence, 1)?.to_dtype(DType::F64)?),
                None => None,
            };
            let n = read.len();
            let ids = Tensor::from_vec(read, (1, n), &Device::Cpu)?;
            Ok(self
                .decoder
                .forward(prefix.as_ref(), &ids)?
                .squeeze(0)?
                .to_vec2()?)
        };
        logits().map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Whether there are as many hypotheses and tokens as were asked for, best first.
fn count(job: &Job, found: &Found) -> Option<String> {
    let new_tokens = match job.workload {
        Workload::Beam { new_tokens, .. } | Workload::Generate { new_tokens, .. } => new_tokens,
        _ => 0,
    };
    let (batch, beam) = (job.workload.batch(), job.workload.beam());
    let is_whole = |hypotheses: &Vec<Hypothesis>| {
        hypotheses.len() == beam && hypotheses.iter().all(|h| h.tokens.len() == new_tokens)
    };
    if found.hypotheses.len() != batch || !found.hypotheses.iter().all(is_whole) {
        return Some(format!(
            "it did not find {beam} hypotheses of {new_tokens} tokens for each of {batch} sentences"
        ));
    }
    let is_better = |a: &Hypothesis, b: &Hypothesis| a.score.partial_cmp(&b.score) == Some(Ordering::Greater);
    let is_sorted = |all: &Vec<Hypothesis>| all.windows(2).all(|pair| !is_better(&pair[1], &pair[0]));
    (!found.hypotheses.iter().all(is_sorted)).then(|| "hypotheses are not best first".to_string())
}

/// A layer's cache must be what its formula says, and all together no more memory than they say.
fn audit(job: &Job, shape: &ModelShape, found: &Found) -> Option<String> {
    let (g, e) = (&job.geometry, job.dtype.size_in_bytes());
    let layer = ModelShape {
        n_layers: 1,
        ..*shape
    };
    let expected = layer.kv_bytes(g, &job.workload, job.prefix, e);
    let state = g.kv_state_bytes(job.workload.batch() * job.workload.beam());
    if found.caches.len() != shape.n_layers {
        return Some(format!(
            "{} caches for {} layers",
            found.caches.len(),
            shape.n_layers
        ));
    }
    for (i, [used, allocated, beside]) in found.caches.iter().enumerate() {
        let checks = [
            ("cache bytes", expected, *used),
            ("allocated cache bytes", expected, *allocated),
            ("cache state bytes", state, *beside),
        ];
        let is_shared = job.prefix == Some(Prefix::Shared);
        // A shared prefix is counted once more by what tells hypotheses where it lies.
        let wrong = checks
            .into_iter()
            .find(|(what, expected, got)| expected != got && !(is_shared && *what == "cache state bytes"));
        if let Some((what, expected, got)) = wrong {
            return Some(format!(
                "{what} of layer {i} are {got}, the formula says {expected}"
            ));
        }
    }
    excess(job, shape, found)
}

/// The allocator does not take a cache's word.
fn excess(job: &Job, shape: &ModelShape, found: &Found) -> Option<String> {
    let element = job.dtype.size_in_bytes();
    let claimed = shape.kv_bytes(&job.geometry, &job.workload, job.prefix, element);
    let beside: u64 = found.caches.iter().map(|bytes| bytes[2]).sum();
    let rows = (job.workload.batch() * job.workload.beam() * shape.vocab * 4) as u64;
    let slack = SEARCH_SLACK_BYTES + 2 * rows + claimed / 20;
    let got = found.handed_out?;
    (got < claimed || got > claimed + beside + slack)
        .then(|| format!("the allocator handed out {got} bytes for a search whose caches are {claimed}"))
}
