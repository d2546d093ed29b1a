//! Speech from manifests.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod common;

use attn_data::Dataset;
use attn_tasks::{Measure, Part, Source, SourceKind};
use common::{Folder, SENTENCES, spec};
use hound::SampleFormat;

/// Three manifests with two utterances each, of 0.3 and 0.5 seconds.
fn corpus() -> Folder {
    let folder = Folder::new();
    for (p, part) in ["train", "valid", "test"].into_iter().enumerate() {
        let mut manifest = "id\taudio\tn_frames\ttgt_text\tintent\n".to_owned();
        for (i, seconds) in [0.3, 0.5].into_iter().enumerate() {
            let name = format!("{part}{i}.wav");
            folder.wav(&name, 16_000, 1, (16_000.0 * seconds) as usize);
            let text = SENTENCES[2 * p + i];
            let intent = ["play_music", "alarm_set"][i];
            manifest += &format!("{part}{i}\t{name}\t0\t{text}\t{intent}\n");
        }
        folder.write(&format!("{part}.tsv"), manifest);
    }
    folder
}

const MANIFESTS: &str = "manifest_train: train.tsv, manifest_valid: valid.tsv, manifest_test: test.tsv";

fn open(folder: &Folder, settings: &str) -> Box<dyn Dataset> {
    folder
        .open(&format!("speech: {{{MANIFESTS}, {settings}}}"))
        .unwrap()
}

fn translation(folder: &Folder, settings: &str) -> Box<dyn Dataset> {
    open(
        folder,
        &format!("task: translation, tokenizer: {{train: 270}}, {settings}"),
    )
}

/// Frames and their elements.
fn frames_of(data: &dyn Dataset, part: Part, index: u64) -> (Vec<f32>, usize) {
    match data.try_example(part, index).unwrap().source {
        Source::Frames { features, dim } => (features, dim),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_utterance_has_frames_and_its_translation() {
    let folder = corpus();
    let data = translation(&folder, "cache_mib: 1");
    let spec = data.spec();
    assert_eq!(spec.source, SourceKind::Frames { dim: 80 });
    // 0.5 s: windows of 400 samples every 160.
    assert_eq!(spec.max_source, (8_000 - 400) / 160 + 1);
    assert_eq!((spec.bos, spec.eos, spec.measure), (0, Some(1), Measure::Bleu));
    for part in [Part::Train, Part::Valid, Part::Test] {
        assert_eq!(data.len(part), Some(2));
    }
    let example = data.example(Part::Valid, 1);
    assert_eq!(example.text[0], 0);
    assert_eq!(example.text.last(), Some(&1));
    assert_eq!(example.is_answer, vec![true; example.text.len() - 1]);
    assert_eq!(data.words(&example.text).join(" "), SENTENCES[3]);
    assert_eq!(example.probes[0].distance, spec.max_source);
    assert!(data.fault().is_none());
}

#[test]
fn features_are_finite_and_normalised_by_utterance() {
    let folder = corpus();
    folder.write("silence.tsv", "audio\ttgt_text\nsilence.wav\tnothing\n");
    folder.wav_of("silence.wav", spec(16_000, 1, 16, SampleFormat::Int), |writer| {
        (0..8_000).for_each(|_| writer.write_sample(0i16).unwrap());
    });
    let yaml = "speech: {manifest_train: train.tsv, manifest_valid: valid.tsv, manifest_test: silence.tsv, \
                task: recognition, tokenizer: {train: 260}}";
    let data = folder.open(yaml).unwrap();
    for part in [Part::Train, Part::Valid, Part::Test] {
        for index in 0..data.len(part).unwrap() {
            let (features, dim) = frames_of(&*data, part, index);
            assert!(features.iter().all(|x| x.is_finite()));
            let n = (features.len() / dim) as f32;
            for b in 0..dim {
                let bin = || features.iter().skip(b).step_by(dim);
                let mean = bin().sum::<f32>() / n;
                let variance = bin().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
                assert!(mean.abs() < 1e-3, "{mean}");
                let expected = if part == Part::Test { 0.0 } else { 1.0 };
                assert!((variance - expected).abs() < 1e-2, "{variance}");
            }
        }
    }
}

#[test]
fn global_statistics_are_those_of_the_training_part() {
    let folder = corpus();
    let plain = translation(&folder, "features: {normalise: none}");
    let global = translation(&folder, "features: {normalise: global}");
    let train: Vec<f32> = (0..2)
        .flat_map(|i| frames_of(&*plain, Part::Train, i).0)
        .collect();
    let bin = |features: &[f32]| features.iter().skip(7).step_by(80).copied().collect::<Vec<_>>();
    let values = bin(&train);
    let n = values.len() as f32;
    let mean = values.iter().sum::<f32>() / n;
    let scale = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
    let raw = bin(&frames_of(&*plain, Part::Test, 0).0);
    let got = bin(&frames_of(&*global, Part::Test, 0).0);
    for (raw, got) in raw.iter().zip(got) {
        assert!(((raw - mean) / scale - got).abs() < 1e-2, "{raw} {got}");
    }
}

#[test]
fn stacked_frames_are_the_same_numbers_in_fewer_rows() {
    let folder = corpus();
    let single = translation(&folder, "features: {mel_bins: 23}");
    let stacked = translation(&folder, "features: {mel_bins: 23, stack: 4}");
    let (one, _) = frames_of(&*single, Part::Train, 1);
    let (four, dim) = frames_of(&*stacked, Part::Train, 1);
    assert_eq!(dim, 92);
    // 48 frames.
    assert_eq!(stacked.spec().max_source, 12);
    assert_eq!(four, one);
    let (short, _) = frames_of(&*stacked, Part::Train, 0);
    assert_eq!(short.len() / dim, 28 / 4);
}

#[test]
fn intents_are_one_token_each() {
    let folder = corpus();
    let data = open(&folder, "task: understanding, text_column: intent");
    let spec = data.spec();
    assert_eq!(
        (spec.vocab, spec.max_text, spec.eos, spec.measure),
        (6, 2, None, Measure::TokenAccuracy)
    );
    assert_eq!(data.example(Part::Test, 0).text, [0, 5]);
    assert_eq!(data.example(Part::Test, 1).text, [0, 4]);
    assert_eq!(data.words(&[0, 4]), ["alarm_set"]);
    assert_eq!(data.words(&[99]), ["<unk>"]);
}

#[test]
fn the_order_of_reading_does_not_matter() {
    let folder = corpus();
    let data = translation(&folder, "cache_mib: 0");
    let again = translation(&folder, "cache_mib: 64");
    for index in [1, 0, 1] {
        assert_eq!(
            data.example(Part::Train, index),
            again.example(Part::Train, index)
        );
    }
}

#[test]
fn long_and_short_utterances_are_left_out_and_counted() {
    let folder = corpus();
    folder.wav("blip.wav", 16_000, 1, 399);
    folder.write(
        "test.tsv",
        "audio\ttgt_text\ntest0.wav\ta b\ntest1.wav\tc\nblip.wav\td\n",
    );
    let data = translation(&folder, "limits: {max_source: 30, max_text: 200}");
    let report = data.report();
    assert_eq!(
        (report.parts.train.kept, report.parts.train.source_too_long),
        (1, 1)
    );
    assert_eq!(
        report.parts.test.to_string(),
        "1 examples, left out 2 (source too long 1, source too short 1)"
    );
    assert_eq!(data.len(Part::Test), Some(1));
    assert_eq!(data.spec().max_source, 28);
    let (features, dim) = frames_of(&*data, Part::Train, 0);
    assert_eq!(features.len() / dim, 28);
}

#[test]
fn a_piece_of_a_file_is_what_the_whole_has_there() {
    let folder = corpus();
    for (name, bits, format) in [
        ("wide.wav", 24, SampleFormat::Int),
        ("narrow.wav", 16, SampleFormat::Int),
    ] {
        folder.wav_of(name, spec(16_000, 2, bits, format), |writer| {
            for i in 0..9_600 {
                let sample = i32::from(common::tone(i)) << (bits - 16);
                writer.write_sample(sample).unwrap();
                writer.write_sample(sample).unwrap();
            }
        });
        // 10 frames in: 1600 samples.
        folder.write(
            "test.tsv",
            format!("audio\ttgt_text\n{name}\tx\n{name}:1600:4000\tx\n"),
        );
        let data = translation(&folder, "features: {normalise: none}");
        let (whole, dim) = frames_of(&*data, Part::Test, 0);
        let (piece, _) = frames_of(&*data, Part::Test, 1);
        assert_eq!(piece.len() / dim, (4_000 - 400) / 160 + 1);
        assert_eq!(piece, whole[10 * dim..][..piece.len()], "{name}");
    }
}

#[test]
fn all_kinds_of_wav_give_the_same_frames() {
    let folder = corpus();
    let names = ["int16.wav", "int24.wav", "int32.wav", "float32.wav", "stereo.wav"];
    let write = |name: &str, channels, bits, format, scale: f32| {
        folder.wav_of(name, spec(16_000, channels, bits, format), |writer| {
            for i in 0..4_000 {
                let value = f32::from(common::tone(i));
                // Two channels with that mean.
                let sides = if channels == 2 {
                    vec![value * 2.0, 0.0]
                } else {
                    vec![value]
                };
                for value in sides {
                    match format {
                        SampleFormat::Float => writer.write_sample(value * scale).unwrap(),
                        SampleFormat::Int => writer.write_sample((value * scale) as i32).unwrap(),
                    }
                }
            }
        });
    };
    write(names[0], 1, 16, SampleFormat::Int, 1.0);
    write(names[1], 1, 24, SampleFormat::Int, 256.0);
    write(names[2], 1, 32, SampleFormat::Int, 65_536.0);
    write(names[3], 1, 32, SampleFormat::Float, 1.0 / 32_768.0);
    write(names[4], 2, 16, SampleFormat::Int, 1.0);
    let rows: String = names.iter().map(|name| format!("{name}\tx\n")).collect();
    folder.write("test.tsv", format!("audio\ttgt_text\n{rows}"));
    let data = translation(&folder, "features: {normalise: none}");
    let (expected, _) = frames_of(&*data, Part::Test, 0);
    for (i, name) in names.iter().enumerate() {
        let (features, _) = frames_of(&*data, Part::Test, i as u64);
        for (x, y) in features.iter().zip(&expected) {
            assert!((x - y).abs() < 1e-3, "{name}: {x} {y}");
        }
    }
}
