//! Frames against Kaldi's own, and FLAC: `scripts/reference/fbank.py` made both files.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use attn_data::{Fbank, FeatureConfig};
use attn_tasks::{Part, Source};
use common::Folder;
use safetensors::SafeTensors;

/// Of a logarithm; both sides compute in f32.
const TOLERANCE: f32 = 2e-3;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A table of the fixture with its shape.
fn table(name: &str) -> (Vec<f32>, Vec<usize>) {
    let bytes = fs::read(fixture("chirp.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let values = tensor
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    (values.collect(), tensor.shape().to_vec())
}

/// The left channel of the fixture.
fn chirp() -> Vec<f32> {
    let mut reader = claxon::FlacReader::open(fixture("chirp.flac")).unwrap();
    let samples: Vec<i32> = reader.samples().map(Result::unwrap).collect();
    samples.iter().step_by(2).map(|x| *x as f32).collect()
}

fn check(name: &str, config: &FeatureConfig) {
    let samples = chirp();
    let fbank = Fbank::new(config).unwrap();
    let (expected, shape) = table(name);
    assert_eq!(fbank.frames(samples.len() as u64), shape[0] as u64);
    assert_eq!(config.mel_bins, shape[1]);
    let got = fbank.compute(&samples);
    assert_eq!(got.len(), expected.len());
    let worst = got
        .iter()
        .zip(&expected)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f32::max);
    println!("{name}: largest error {worst:.1e}");
    assert!(worst < TOLERANCE, "{name}: {worst}");
}

#[test]
fn frames_are_those_of_kaldi() {
    check("mel80", &FeatureConfig::default());
    check(
        "mel23",
        &FeatureConfig {
            mel_bins: 23,
            window_ms: 32,
            hop_ms: 8,
            ..FeatureConfig::default()
        },
    );
}

#[test]
fn short_sounds_have_no_frames() {
    let fbank = Fbank::new(&FeatureConfig::default()).unwrap();
    assert_eq!(
        [0, 399, 400, 559, 560].map(|samples| fbank.frames(samples)),
        [0, 0, 1, 1, 2]
    );
    assert!(fbank.compute(&[0.0; 399]).is_empty());
}

const YAML: &str = "speech: {manifest_train: a.tsv, manifest_valid: b.tsv, manifest_test: c.tsv, task: recognition, \
                    tokenizer: {train: 260}, features: {normalise: none}";

/// Three manifests, each with the fixture under a name of its own.
fn corpus(bytes: &[u8]) -> Folder {
    let folder = Folder::new();
    for part in ["a", "b", "c"] {
        folder.write(&format!("{part}.flac"), bytes);
        folder.write(
            &format!("{part}.tsv"),
            format!("audio\ttgt_text\n{part}.flac\tsome words\n"),
        );
    }
    folder
}

#[test]
fn a_flac_file_is_mixed_down() {
    let folder = corpus(&fs::read(fixture("chirp.flac")).unwrap());
    let data = folder.open(&format!("{YAML}}}")).unwrap();
    let Source::Frames { features, dim } = data.example(Part::Train, 0).source else {
        panic!("no frames");
    };
    // The right channel is a quarter of the left one: the mean is 5/8 of it.
    let (left, shape) = table("mel80");
    assert_eq!([features.len() / dim, dim][..], shape[..]);
    let shift = 2.0 * (5.0f32 / 8.0).ln();
    let errors = features.iter().zip(&left).map(|(x, y)| (x - y - shift).abs());
    let mean = errors.sum::<f32>() / left.len() as f32;
    // The right channel is rounded to whole numbers once more.
    assert!(mean < 0.01, "{mean}");
}

#[test]
fn a_piece_of_a_flac_file_is_what_the_whole_has_there() {
    let folder = corpus(&fs::read(fixture("chirp.flac")).unwrap());
    folder.write("c.tsv", "audio\ttgt_text\nc.flac\tx\nc.flac:1600:4000\tx\n");
    let data = folder.open(&format!("{YAML}}}")).unwrap();
    let frames = |index| match data.example(Part::Test, index).source {
        Source::Frames { features, .. } => features,
        _ => panic!("no frames"),
    };
    let (whole, piece) = (frames(0), frames(1));
    assert_eq!(piece.len() / 80, (4_000 - 400) / 160 + 1);
    assert_eq!(piece, whole[10 * 80..][..piece.len()]);
}

#[test]
fn a_truncated_flac_file_is_found_when_it_is_opened() {
    let bytes = fs::read(fixture("chirp.flac")).unwrap();
    let folder = corpus(&bytes);
    folder.write("c.flac", &bytes[..bytes.len() * 2 / 3]);
    let error = folder.error(&format!("{YAML}}}"));
    assert!(error.starts_with("c.tsv:2: c.flac: truncated: "), "{error}");
    assert!(error.ends_with(" samples of 6400"), "{error}");
    // Its header says nothing of it.
    let data = folder.open(&format!("{YAML}, check: headers}}")).unwrap();
    assert_eq!(data.len(Part::Test), Some(1));
    assert!(data.try_example(Part::Test, 0).is_err());
}

#[test]
fn a_flac_file_with_a_flipped_bit_is_found() {
    let mut bytes = fs::read(fixture("chirp.flac")).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 4;
    let folder = corpus(&bytes);
    let error = folder.error(&format!("{YAML}}}"));
    assert!(error.starts_with("a.tsv:2: a.flac: broken: "), "{error}");
}
