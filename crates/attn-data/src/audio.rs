//! Sound from WAV and FLAC files, mixed down to one channel.

mod flac;
mod wav;

use std::path::Path;

use crate::files;

/// Samples of the longest clip that is read at once, 4.6 hours at 16 kHz: a small FLAC file can claim more than memory.
const CLIP_LIMIT: u64 = 1 << 28;

/// What is wrong with a file of audio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioProblem {
    /// There is no such file, or it cannot be opened.
    #[error("{0}")]
    Unreadable(String),
    /// Neither WAV nor FLAC.
    #[error("no WAV or FLAC file by its name, convert it")]
    Kind,
    /// Not the rate asked for.
    #[error("sample rate {got} Hz, `features.sample_rate` is {expected} Hz: resample it")]
    Rate {
        /// The rate asked for.
        expected: u32,
        /// The rate of the file.
        got: u32,
    },
    /// Fewer samples than the file itself says.
    #[error("truncated: {got} samples of {expected}")]
    Truncated {
        /// Samples of a channel by the header.
        expected: u64,
        /// Samples of a channel that are there.
        got: u64,
    },
    /// A segment that ends behind the end.
    #[error("the segment ends at sample {end} of {samples}")]
    Segment {
        /// The first sample behind the segment.
        end: u64,
        /// Samples of a channel.
        samples: u64,
    },
    /// More than fits into memory with what else there is.
    #[error("{samples} samples, at most {limit} are read")]
    TooLong {
        /// Samples of a channel.
        samples: u64,
        /// The most that are read.
        limit: u64,
    },
    /// A sample that is infinite or no number.
    #[error("sample {0} is not finite")]
    NotFinite(u64),
    /// Not as its format asks for.
    #[error("broken: {0}")]
    Broken(String),
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub rate: u32,
    /// Samples of a channel; a FLAC stream need not say it.
    pub samples: Option<u64>,
}

/// Some samples of a file, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub start: u64,
    pub len: u64,
}

type Problem<T> = Result<T, AudioProblem>;

enum Kind {
    Wav,
    Flac,
}

fn kind_of(path: &Path) -> Problem<Kind> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("wav") => Ok(Kind::Wav),
        Some("flac") => Ok(Kind::Flac),
        _ => Err(AudioProblem::Kind),
    }
}

fn open(path: &Path) -> Problem<std::fs::File> {
    files::open(path).map_err(|error| match error {
        crate::error::Error::Read { reason, .. } => AudioProblem::Unreadable(reason),
        other => AudioProblem::Unreadable(other.to_string()),
    })
}

/// Reads the header alone; a WAV file's length is checked against it.
pub(crate) fn header(path: &Path) -> Problem<Header> {
    let kind = kind_of(path)?;
    let file = open(path)?;
    match kind {
        Kind::Wav => wav::header(file),
        Kind::Flac => flac::header(file),
    }
}

/// Decodes all of a file and counts its samples.
pub(crate) fn check(path: &Path) -> Problem<u64> {
    let mut samples = 0;
    decode(path, None, &mut |_| samples += 1)?;
    Ok(samples)
}

/// Whether a span is short enough to be read.
pub(crate) fn fits(span: Span) -> Problem<()> {
    match span.len {
        samples if samples > CLIP_LIMIT => Err(AudioProblem::TooLong {
            samples,
            limit: CLIP_LIMIT,
        }),
        _ => Ok(()),
    }
}

/// Samples of a span, the mean of the channels, on the scale of 16 bits, which is Kaldi's.
pub(crate) fn read(path: &Path, span: Span) -> Problem<Vec<f32>> {
    fits(span)?;
    let mut samples = Vec::new();
    decode(path, Some(span), &mut |sample| samples.push(sample))?;
    if samples.len() as u64 != span.len {
        return Err(AudioProblem::Truncated {
            expected: span.start + span.len,
            got: span.start + samples.len() as u64,
        });
    }
    Ok(samples)
}

fn decode(path: &Path, span: Option<Span>, sink: &mut dyn FnMut(f32)) -> Problem<()> {
    let kind = kind_of(path)?;
    let file = open(path)?;
    let mut index = span.map_or(0, |span| span.start);
    let mut failure = None;
    let mut finite = |sample: f32| {
        if !sample.is_finite() && failure.is_none() {
            failure = Some(AudioProblem::NotFinite(index));
        }
        index += 1;
        sink(sample);
    };
    match kind {
        Kind::Wav => wav::decode(file, span, &mut finite)?,
        Kind::Flac => flac::decode(file, span, &mut finite)?,
    }
    failure.map_or(Ok(()), Err)
}
