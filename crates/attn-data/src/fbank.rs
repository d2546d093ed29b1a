//! Log-mel filterbanks as Kaldi computes them.

mod mel;
mod normalise;

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use mel::Filter;

pub(crate) use normalise::{Moments, Statistics};

/// How frames are made from sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureConfig {
    /// Samples a second that all audio must have. Default: 16000.
    pub sample_rate: u32,
    /// Mel filters, elements of a frame before stacking. Default: 80.
    pub mel_bins: usize,
    /// Milliseconds of sound in a frame. Default: 25.
    pub window_ms: u32,
    /// Milliseconds between the beginnings of frames. Default: 10.
    pub hop_ms: u32,
    /// Frames that are put together to one, without overlap; what is left at the end is dropped. Default: 1.
    pub stack: usize,
    /// Over what each mel filter has mean 0 and variance 1: `utterance`, `global` (the training part), or `none`.
    /// Default: `utterance`.
    pub normalise: Normalise,
}

/// Over what each mel filter has mean 0 and variance 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Each utterance.
    Utterance,
    /// The training part, of which up to 2000 utterances at equal distances are read.
    Global,
    /// Nothing.
    None,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            mel_bins: 80,
            window_ms: 25,
            hop_ms: 10,
            stack: 1,
            normalise: Normalise::Utterance,
        }
    }
}

/// Log-mel filterbanks.
///
/// For each window of W samples, scaled to 16 bits: its mean is taken off, then `x[i] -= 0.97 x[i - 1]`; times
/// `(0.5 - 0.5 cos(2 pi i / (W - 1)))^0.85`; padded with zeros to a power of two; `ln(max(eps, sum_k w[b, k] |X[k]|^2))`
/// for each of the triangles `w[b]`, which are equally wide in mel between 20 Hz and half the rate.
///
/// # Source
/// Kaldi's `compute-fbank-feats` (`feat/feature-window.cc`, `feat/mel-computations.cc`) with its defaults, but `dither` 0
/// and `mel_bins` filters; what fairseq's S2T recipes take from torchaudio's `compliance.kaldi.fbank`.
pub struct Fbank {
    window: Vec<f32>,
    hop: usize,
    filters: Vec<Filter>,
    fft: Arc<dyn RealToComplex<f32>>,
}

/// Weight of the sample before in the pre-emphasis.
const PREEMPHASIS: f32 = 0.97;

impl Fbank {
    /// Makes window, filters and transform.
    ///
    /// # Errors
    /// [`Error::Config`] on sizes that no sound has.
    pub fn new(config: &FeatureConfig) -> Result<Self> {
        let bad = |key, message: &str| Err(Error::config(key, message));
        if !(1_000..=384_000).contains(&config.sample_rate) {
            return bad("features.sample_rate", "from 1000 to 384000 Hz");
        }
        if !(1..=1_000).contains(&config.window_ms) {
            return bad("features.window_ms", "from 1 to 1000 ms");
        }
        if !(1..=1_000).contains(&config.hop_ms) {
            return bad("features.hop_ms", "from 1 to 1000 ms");
        }
        if !(1..=64).contains(&config.stack) {
            return bad("features.stack", "from 1 to 64 frames");
        }
        let samples_of = |ms: u32| (u64::from(config.sample_rate) * u64::from(ms) / 1000) as usize;
        let size = samples_of(config.window_ms).max(2);
        let padded = size.next_power_of_two();
        if !(1..=padded / 2).contains(&config.mel_bins) {
            let message = format!("from 1 to {}, which is what the window resolves", padded / 2);
            return bad("features.mel_bins", &message);
        }
        Ok(Self {
            window: povey(size),
            hop: samples_of(config.hop_ms).max(1),
            filters: mel::filters(config.mel_bins, padded, f64::from(config.sample_rate)),
            fft: RealFftPlanner::new().plan_fft_forward(padded),
        })
    }

    /// Frames of so many samples: windows that fit as a whole.
    pub fn frames(&self, samples: u64) -> u64 {
        match samples.checked_sub(self.window.len() as u64) {
            Some(rest) => 1 + rest / self.hop as u64,
            None => 0,
        }
    }

    /// Frames `[n, mel_bins]` of samples on the scale of 16 bits.
    pub fn compute(&self, samples: &[f32]) -> Vec<f32> {
        let n = self.frames(samples.len() as u64) as usize;
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0.0; spectrum.len()];
        let mut features = Vec::with_capacity(n * self.filters.len());
        for i in 0..n {
            let start = i * self.hop;
            self.fill(&samples[start..start + self.window.len()], &mut frame);
            // It fails on wrong sizes alone, and these are its own.
            let done = self
                .fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch);
            debug_assert!(done.is_ok());
            for (p, x) in power.iter_mut().zip(&spectrum) {
                *p = x.norm_sqr();
            }
            features.extend(self.filters.iter().map(|filter| filter.log_energy(&power)));
        }
        features
    }

    /// The window without its mean, pre-emphasised, tapered and padded with zeros.
    fn fill(&self, samples: &[f32], frame: &mut [f32]) {
        let (frame, padding) = frame.split_at_mut(samples.len());
        padding.fill(0.0);
        let mean = samples.iter().sum::<f32>() / samples.len() as f32;
        // Before the first sample there is the first.
        let mut before = samples.first().map_or(0.0, |x| x - mean);
        for ((slot, sample), taper) in frame.iter_mut().zip(samples).zip(&self.window) {
            let x = sample - mean;
            *slot = (x - PREEMPHASIS * before) * taper;
            before = x;
        }
    }
}

/// Povey's window: a Hann window to the power of 0.85, which goes to zero at its ends.
fn povey(size: usize) -> Vec<f32> {
    let step = std::f64::consts::TAU / (size - 1) as f64;
    (0..size)
        .map(|i| (0.5 - 0.5 * (step * i as f64).cos()).powf(0.85) as f32)
        .collect()
}

/// Puts frames `[n, F]` together to `[n / stack, stack F]`; the last ones that do not fill one are dropped.
pub(crate) fn stack(mut features: Vec<f32>, mel_bins: usize, stack: usize) -> Vec<f32> {
    let dim = mel_bins * stack;
    features.truncate(features.len() / dim * dim);
    features
}
