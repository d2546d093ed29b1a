//! The audio of a manifest, checked once and read when it is asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use attn_tasks::Part;
use serde::{Deserialize, Serialize};

use super::manifest::Row;
use crate::audio::{self, AudioProblem, Header, Span};
use crate::error::{Error, Place, Result};

/// How audio is checked when a dataset is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudioCheck {
    /// Every file is decoded once: what is broken is found before training begins.
    #[default]
    Whole,
    /// Headers alone, for large corpora on slow disks. A FLAC file that is cut short is found when it is asked for.
    Headers,
}

/// Where an utterance is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Clip {
    pub path: PathBuf,
    pub span: Span,
}

/// Finds clips and remembers what files say of themselves: many clips can be of one file.
pub(super) struct Checker {
    rate: u32,
    check: AudioCheck,
    lengths: HashMap<PathBuf, u64>,
    seen: HashMap<Clip, (Part, Place)>,
}

impl Checker {
    pub fn new(rate: u32, check: AudioCheck) -> Self {
        Self {
            rate,
            check,
            lengths: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    /// The clip of a row, which must not be in another part too.
    pub fn clip(&mut self, part: Part, row: &Row) -> Result<Clip> {
        let span = self.span(row).map_err(|problem| Error::Audio {
            at: row.at.clone(),
            audio: row.audio.clone(),
            problem,
        })?;
        let clip = Clip {
            path: row.audio.clone(),
            span,
        };
        match self.seen.get(&clip) {
            Some((other, place)) if *other != part => Err(Error::InTwoParts {
                at: row.at.clone(),
                other: place.clone(),
            }),
            Some(_) => Ok(clip),
            None => {
                self.seen.insert(clip.clone(), (part, row.at.clone()));
                Ok(clip)
            }
        }
    }

    fn span(&mut self, row: &Row) -> Result<Span, AudioProblem> {
        let samples = match self.lengths.get(&row.audio) {
            Some(samples) => *samples,
            None => {
                let samples = self.length(&row.audio)?;
                self.lengths.insert(row.audio.clone(), samples);
                samples
            }
        };
        let span = row.span.unwrap_or(Span {
            start: 0,
            len: samples,
        });
        let end = span.start.saturating_add(span.len);
        if end > samples {
            return Err(AudioProblem::Segment { end, samples });
        }
        audio::fits(span)?;
        Ok(span)
    }

    /// Samples of a file that has the rate asked for.
    fn length(&self, path: &Path) -> Result<u64, AudioProblem> {
        let Header { rate, samples } = audio::header(path)?;
        if rate != self.rate {
            return Err(AudioProblem::Rate {
                expected: self.rate,
                got: rate,
            });
        }
        match (self.check, samples) {
            (AudioCheck::Headers, Some(samples)) => Ok(samples),
            (AudioCheck::Whole, _) | (_, None) => audio::check(path),
        }
    }
}
