//! FLAC by the `claxon` crate.

use std::fs::File;

use claxon::{FlacReader, FlacReaderOptions};

use super::{AudioProblem, Header, Problem, Span};

fn broken(error: claxon::Error) -> AudioProblem {
    AudioProblem::Broken(error.to_string())
}

pub(super) fn header(file: File) -> Problem<Header> {
    let options = FlacReaderOptions {
        metadata_only: true,
        read_vorbis_comment: false,
    };
    let info = FlacReader::new_ext(file, options).map_err(broken)?.streaminfo();
    Ok(Header {
        rate: info.sample_rate,
        samples: info.samples,
    })
}

/// Blocks are decoded from the first on, whatever the span: the format has no positions that have to be there.
pub(super) fn decode(file: File, span: Option<Span>, sink: &mut dyn FnMut(f32)) -> Problem<()> {
    let options = FlacReaderOptions {
        metadata_only: false,
        read_vorbis_comment: false,
    };
    let mut reader = FlacReader::new_ext(file, options).map_err(broken)?;
    let info = reader.streaminfo();
    let scale = 32768.0 / (1u64 << (info.bits_per_sample.clamp(1, 32) - 1)) as f32;
    let (start, end) = match span {
        Some(Span { start, len }) => (start, start.saturating_add(len)),
        None => (0, u64::MAX),
    };
    // Behind the last sample there may be tags of other formats.
    let end = end.min(info.samples.unwrap_or(u64::MAX));
    let mut at = 0; // sample of a channel
    let mut buffer = Vec::new();
    let mut blocks = reader.blocks();
    while at < end {
        let block = match blocks.read_next_or_eof(buffer) {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(claxon::Error::IoError(_)) => return Err(truncated(info.samples, at)),
            Err(error) => return Err(broken(error)),
        };
        let channels = block.channels();
        let scale = scale / channels.max(1) as f32;
        for i in 0..block.duration() {
            if (start..end).contains(&at) {
                let sum: f32 = (0..channels).map(|c| block.sample(c, i) as f32).sum();
                sink(sum * scale);
            }
            at += 1;
        }
        buffer = block.into_buffer();
    }
    match info.samples {
        Some(expected) if at < end => Err(truncated(Some(expected), at)),
        _ => Ok(()),
    }
}

fn truncated(expected: Option<u64>, got: u64) -> AudioProblem {
    match expected {
        Some(expected) => AudioProblem::Truncated { expected, got },
        None => AudioProblem::Broken(format!("it ends in the midst of a block, after {got} samples")),
    }
}
