//! WAV by the `hound` crate: integers of 8 to 32 bits and floats of 32.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::ops::Range;

use hound::{SampleFormat, WavReader};

use super::{AudioProblem, Header, Problem, Span};

/// The scale of 16 bits.
const FULL_SCALE: f32 = 32768.0;

fn broken(error: impl std::fmt::Display) -> AudioProblem {
    AudioProblem::Broken(error.to_string())
}

pub(super) fn header(file: File) -> Problem<Header> {
    let file_bytes = file.metadata().map_err(broken)?.len();
    let reader = WavReader::new(BufReader::new(file)).map_err(broken)?;
    let (spec, samples) = (reader.spec(), reader.duration());
    let data_at = reader.into_inner().stream_position().map_err(broken)?;
    // At least: 24 bits can take 3 or 4 bytes.
    let frame_bytes = u64::from(spec.channels) * u64::from(spec.bits_per_sample / 8).max(1);
    let expected = u64::from(samples);
    let got = file_bytes.saturating_sub(data_at) / frame_bytes;
    if got < expected {
        return Err(AudioProblem::Truncated { expected, got });
    }
    Ok(Header {
        rate: spec.sample_rate,
        samples: Some(expected),
    })
}

pub(super) fn decode(file: File, span: Option<Span>, sink: &mut dyn FnMut(f32)) -> Problem<()> {
    let mut reader = WavReader::new(BufReader::with_capacity(1 << 16, file)).map_err(broken)?;
    let spec = reader.spec();
    let samples = u64::from(reader.duration());
    let Span { start, len } = span.unwrap_or(Span {
        start: 0,
        len: samples,
    });
    let end = start.saturating_add(len);
    if end > samples {
        return Err(AudioProblem::Segment { end, samples });
    }
    // hound takes 24 bits to be 3 bytes where it seeks, and they may be 4.
    let mut first = 0;
    if spec.bits_per_sample != 24 {
        reader
            .seek(u32::try_from(start).map_err(broken)?)
            .map_err(broken)?;
        first = start;
    }
    let mut from_start = |frame, sample| {
        if frame >= start {
            sink(sample);
        }
    };
    match spec.sample_format {
        SampleFormat::Float => {
            let values = reader.samples::<f32>();
            mix(values, spec.channels, first..end, FULL_SCALE, &mut from_start)
        }
        SampleFormat::Int => {
            let scale = FULL_SCALE / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
            let values = reader.samples::<i32>().map(|value| value.map(|v| v as f32));
            mix(values, spec.channels, first..end, scale, &mut from_start)
        }
    }
}

/// Gives each frame's number and the mean of its channels.
fn mix(
    mut values: impl Iterator<Item = hound::Result<f32>>,
    channels: u16,
    frames: Range<u64>,
    scale: f32,
    sink: &mut dyn FnMut(u64, f32),
) -> Problem<()> {
    let scale = scale / f32::from(channels);
    let end = frames.end;
    for frame in frames {
        let mut sum = 0.0;
        for _ in 0..channels {
            sum += match values.next() {
                Some(Ok(value)) => value,
                Some(Err(hound::Error::IoError(_))) | None => {
                    return Err(AudioProblem::Truncated {
                        expected: end,
                        got: frame,
                    });
                }
                Some(Err(error)) => return Err(broken(error)),
            };
        }
        sink(frame, sum * scale);
    }
    Ok(())
}
