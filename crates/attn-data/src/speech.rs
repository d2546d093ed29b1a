//! Speech: manifests of audio with its translation, its transcript or its intent.

mod cache;
mod clips;
mod config;
mod manifest;

use std::path::Path;

use attn_tasks::{Example, Measure, Part, Source, SourceKind, Task, TaskSpec};

use crate::audio;
use crate::dataset::{Dataset, Faults, position};
use crate::error::{Error, Place, Result};
use crate::fbank::{self, Fbank, FeatureConfig, Moments, Normalise, Statistics};
use crate::packed::Packed;
use crate::parts::Parts;
use crate::report::{PartReport, Report};
use crate::target::{self, Labels, Target};
use crate::tokenizer::Tokenizer;
use cache::Cache;
pub use clips::AudioCheck;
use clips::{Checker, Clip};
pub use config::{SpeechConfig, SpeechTask};

/// Utterances of the training part that global statistics are taken from, at most.
const GLOBAL_UTTERANCES: usize = 2_000;

/// Speech as log-mel frames, with text or a label to be written.
pub struct Speech {
    config: FeatureConfig,
    fbank: Fbank,
    /// Of the training part, where it is that which normalises.
    statistics: Option<Statistics>,
    target: Target,
    parts: Parts<Utterances>,
    cache: Cache<(Part, usize)>,
    spec: TaskSpec,
    report: Report,
    faults: Faults,
}

/// The utterances of a part.
#[derive(Default)]
struct Utterances {
    clips: Vec<Clip>,
    /// The line of each, to be named where its audio fails later.
    places: Vec<Place>,
    texts: Packed,
    longest_source: usize,
    report: PartReport,
}

impl Speech {
    /// Reads manifests, makes the tokenizer and checks all audio. Relative paths of the configuration begin at `base`,
    /// those of a manifest beside it.
    ///
    /// # Errors
    /// On the first thing that is wrong with configuration, manifests or audio; see [`Error`].
    pub fn open(config: &SpeechConfig, base: &Path) -> Result<Self> {
        config.check()?;
        let fbank = Fbank::new(&config.features)?;
        let target = make_target(config, base)?;
        if target.vocab() > config.limits.max_vocab {
            return Err(Error::Vocabulary {
                what: "set of labels",
                size: target.vocab(),
                allowed: config.limits.max_vocab,
            });
        }
        let mut checker = Checker::new(config.features.sample_rate, config.check);
        let parts = Parts::try_from_fn(|part| {
            let manifest = base.join(config.manifest(part));
            Utterances::read(&manifest, part, config, &fbank, &target, &mut checker)
        })?;
        let longest = |of: fn(&Utterances) -> usize| parts.iter().map(|(_, p)| of(p)).max().unwrap_or(0);
        let (measure, best) = match config.task {
            SpeechTask::Translation => (Measure::Bleu, 100.0),
            SpeechTask::Recognition => (Measure::Wer, 0.0),
            SpeechTask::Understanding => (Measure::TokenAccuracy, 1.0),
        };
        let spec = TaskSpec {
            source: SourceKind::Frames {
                dim: config.features.mel_bins * config.features.stack,
            },
            max_source: longest(|part| part.longest_source),
            vocab: target.vocab(),
            max_text: longest(|part| part.texts.longest()),
            bos: target.bos(),
            eos: target.eos(),
            measure,
            best,
        };
        let report = Report {
            vocab: spec.vocab,
            parts: Parts::try_from_fn(|part| Ok(parts.get(part).report))?,
        };
        let mut speech = Self {
            config: config.features.clone(),
            fbank,
            statistics: None,
            target,
            parts,
            cache: Cache::new(config.cache_mib << 20),
            spec,
            report,
            faults: Faults::default(),
        };
        if config.features.normalise == Normalise::Global {
            speech.statistics = Some(speech.global_statistics()?);
        }
        Ok(speech)
    }

    /// Mean and variance over the training part.
    fn global_statistics(&self) -> Result<Statistics> {
        let len = self.parts.train.clips.len();
        let taken = len.min(GLOBAL_UTTERANCES);
        let mut moments = Moments::new(self.config.mel_bins);
        for i in 0..taken {
            moments.add(&self.log_mel(Part::Train, i * len / taken)?);
        }
        Ok(moments.statistics())
    }

    /// Frames `[n, mel_bins]` as they come from the audio.
    fn log_mel(&self, part: Part, i: usize) -> Result<Vec<f32>> {
        let utterances = self.parts.get(part);
        let clip = &utterances.clips[i];
        let samples = audio::read(&clip.path, clip.span).map_err(|problem| Error::Audio {
            at: utterances.places[i].clone(),
            audio: clip.path.clone(),
            problem,
        })?;
        Ok(self.fbank.compute(&samples))
    }

    /// Frames `[n, F]`, normalised and stacked.
    fn features(&self, part: Part, i: usize) -> Result<Vec<f32>> {
        let dim = self.config.mel_bins;
        let mut features = self.log_mel(part, i)?;
        match (&self.statistics, self.config.normalise) {
            (Some(statistics), _) => statistics.apply(&mut features),
            (None, Normalise::Utterance) => Statistics::of(&features, dim).apply(&mut features),
            (None, Normalise::Global | Normalise::None) => {}
        }
        Ok(fbank::stack(features, dim, self.config.stack))
    }
}

/// The tokenizer, or the labels of the training part.
fn make_target(config: &SpeechConfig, base: &Path) -> Result<Target> {
    let texts = || -> Result<_> {
        let manifest = base.join(&config.manifest_train);
        let rows = manifest::rows(&manifest, &config.audio_column, &config.text_column)?;
        Ok(rows.map(|row| row.map(|row| row.text)))
    };
    Ok(match &config.tokenizer {
        Some(tokenizer) => Target::Text(Box::new(Tokenizer::make(
            tokenizer,
            base,
            config.limits.max_vocab,
            texts,
        )?)),
        None => Target::Label(Labels::new(texts()?)?),
    })
}

impl Utterances {
    fn read(
        manifest: &Path,
        part: Part,
        config: &SpeechConfig,
        fbank: &Fbank,
        target: &Target,
        checker: &mut Checker,
    ) -> Result<Self> {
        let mut all = Self::default();
        let mut rows = 0;
        for row in manifest::rows(manifest, &config.audio_column, &config.text_column)? {
            let row = row?;
            rows += 1;
            let clip = checker.clip(part, &row)?;
            let text = target.encode(&row.text, &row.at)?;
            let frames = fbank.frames(clip.span.len) as usize / config.features.stack;
            let left_out = &mut all.report;
            if frames == 0 {
                left_out.source_too_short += 1;
            } else if config.limits.source_too_long(frames) {
                left_out.source_too_long += 1;
            } else if config.limits.text_too_long(text.len()) {
                left_out.text_too_long += 1;
            } else {
                all.clips.push(clip);
                all.places.push(row.at);
                all.texts.push(&text);
                all.longest_source = all.longest_source.max(frames);
                all.report.kept += 1;
            }
        }
        if rows == 0 {
            return Err(Error::Empty {
                path: manifest.to_owned(),
            });
        }
        all.report.none_left(part)?;
        Ok(all)
    }
}

impl Task for Speech {
    fn spec(&self) -> TaskSpec {
        self.spec
    }

    fn len(&self, part: Part) -> Option<u64> {
        Some(self.parts.get(part).clips.len() as u64)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        self.faults.or_blank(self.try_example(part, index), &self.spec)
    }

    fn words(&self, tokens: &[u32]) -> Vec<String> {
        self.target.words(tokens)
    }
}

impl Dataset for Speech {
    fn try_example(&self, part: Part, index: u64) -> Result<Example> {
        let utterances = self.parts.get(part);
        let i = position(part, index, utterances.clips.len())?;
        let features = self.cache.get_or((part, i), || self.features(part, i))?;
        let source = Source::Frames {
            features: features.to_vec(),
            dim: self.config.mel_bins * self.config.stack,
        };
        Ok(target::example(source, utterances.texts.get(i)))
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn fault(&self) -> Option<&Error> {
        self.faults.first()
    }
}
