//! What can be wrong with speech, with the file and the line where it is.

mod common;

use std::fs;

use attn_data::{AudioProblem, Error};
use attn_tasks::{Part, Source};
use common::{Folder, spec};
use hound::SampleFormat;

const YAML: &str = "speech: {manifest_train: train.tsv, manifest_valid: valid.tsv, manifest_test: test.tsv, \
                    task: recognition, tokenizer: {train: 270}}";

/// One utterance a part.
fn corpus() -> Folder {
    let folder = Folder::new();
    for part in ["train", "valid", "test"] {
        folder.wav(&format!("{part}.wav"), 16_000, 1, 4_000);
        folder.write(
            &format!("{part}.tsv"),
            format!("audio\ttgt_text\n{part}.wav\tsome words\n"),
        );
    }
    folder
}

/// What is said of a test part with a row after a good one.
fn error_of_row(folder: &Folder, row: &str) -> String {
    folder.write(
        "test.tsv",
        format!("audio\ttgt_text\ntest.wav\tsome words\n{row}\n"),
    );
    folder.error(YAML)
}

#[test]
fn missing_audio() {
    let error = error_of_row(&corpus(), "gone.wav\tx");
    assert!(error.starts_with("test.tsv:3: gone.wav: No such file"), "{error}");
}

#[test]
fn audio_of_another_kind() {
    let folder = corpus();
    for name in ["a.mp3", "fbank80.zip:12:345", "a"] {
        let error = error_of_row(&folder, &format!("{name}\tx"));
        assert!(
            error.ends_with("no WAV or FLAC file by its name, convert it"),
            "{error}"
        );
    }
}

#[test]
fn a_folder_in_the_place_of_audio() {
    let folder = corpus();
    fs::create_dir(folder.file("folder.wav")).unwrap();
    assert_eq!(
        error_of_row(&folder, "folder.wav\tx"),
        "test.tsv:3: folder.wav: it is no regular file"
    );
}

#[test]
fn another_sample_rate() {
    let folder = corpus();
    folder.wav("slow.wav", 8_000, 1, 4_000);
    assert_eq!(
        error_of_row(&folder, "slow.wav\tx"),
        "test.tsv:3: slow.wav: sample rate 8000 Hz, `features.sample_rate` is 16000 Hz: resample it"
    );
}

#[test]
fn a_truncated_wav() {
    let folder = corpus();
    let whole = fs::read(folder.file("test.wav")).unwrap();
    folder.write("short.wav", &whole[..whole.len() - 1_001]);
    assert_eq!(
        error_of_row(&folder, "short.wav\tx"),
        "test.tsv:3: short.wav: truncated: 3499 samples of 4000"
    );
    folder.write("shorter.wav", &whole[..30]);
    let error = error_of_row(&folder, "shorter.wav\tx");
    assert!(error.starts_with("test.tsv:3: shorter.wav: broken: "), "{error}");
    folder.write("empty.wav", "");
    let error = error_of_row(&folder, "empty.wav\tx");
    assert!(error.starts_with("test.tsv:3: empty.wav: broken: "), "{error}");
}

#[test]
fn a_file_that_is_no_wav() {
    let folder = corpus();
    folder.write(
        "text.wav",
        "this is a text and no sound at all, whatever its name says",
    );
    let error = error_of_row(&folder, "text.wav\tx");
    assert!(error.contains("text.wav: broken: "), "{error}");
}

#[test]
fn samples_that_are_no_numbers() {
    let folder = corpus();
    folder.wav_of("nan.wav", spec(16_000, 1, 32, SampleFormat::Float), |writer| {
        for i in 0..4_000 {
            writer.write_sample(if i == 7 { f32::NAN } else { 0.1 }).unwrap();
        }
    });
    assert_eq!(
        error_of_row(&folder, "nan.wav\tx"),
        "test.tsv:3: nan.wav: sample 7 is not finite"
    );
}

#[test]
fn a_piece_behind_the_end() {
    let folder = corpus();
    assert_eq!(
        error_of_row(&folder, "test.wav:3000:1001\tx"),
        "test.tsv:3: test.wav: the segment ends at sample 4001 of 4000"
    );
    let error = error_of_row(&folder, &format!("test.wav:{}:5\tx", u64::MAX));
    assert!(error.contains("the segment ends at"), "{error}");
}

#[test]
fn an_empty_text() {
    let folder = corpus();
    assert_eq!(
        error_of_row(&folder, "test.wav\t "),
        "test.tsv:3: tgt_text is empty"
    );
    assert_eq!(
        error_of_row(&folder, "\tx"),
        "test.tsv:3: the audio path is empty"
    );
}

#[test]
fn a_missing_column() {
    let folder = corpus();
    folder.write("valid.tsv", "id\taudio\n1\tvalid.wav\n");
    assert_eq!(
        folder.error(YAML),
        "valid.tsv:1: the header lacks a column `tgt_text`, it has id, audio"
    );
}

#[test]
fn a_row_of_another_width_and_a_line_that_is_no_text() {
    let folder = corpus();
    let error = error_of_row(&folder, "test.wav");
    assert!(
        error.starts_with("test.tsv:3: 1 fields, the header has 2"),
        "{error}"
    );
    folder.write("test.tsv", b"audio\ttgt_text\ntest.wav\t\xFF\xFE\n");
    assert_eq!(
        folder.error(YAML),
        "test.tsv:2: invalid UTF-8 at byte 10 of the line"
    );
}

#[test]
fn a_manifest_without_rows_or_without_a_file() {
    let folder = corpus();
    folder.write("test.tsv", "audio\ttgt_text\n");
    assert_eq!(folder.error(YAML), "test.tsv has no examples");
    fs::remove_file(folder.file("test.tsv")).unwrap();
    let error = folder.error(YAML);
    assert!(error.starts_with("cannot read test.tsv: No such file"), "{error}");
}

#[test]
fn audio_that_is_trained_on_and_tested_on() {
    let folder = corpus();
    assert_eq!(
        error_of_row(&folder, "train.wav\tx"),
        "test.tsv:3: this audio is in train.tsv:2 too, what is trained on cannot be tested on"
    );
}

#[test]
fn a_label_that_training_does_not_have() {
    let folder = corpus();
    folder.write("test.tsv", "audio\ttgt_text\ntest.wav\tunheard of\n");
    let yaml = YAML
        .replace("recognition", "understanding")
        .replace(", tokenizer: {train: 270}", "");
    assert_eq!(
        folder.error(&yaml),
        "test.tsv:2: no training example has the label `unheard of`"
    );
    let error = folder.error(&yaml.replace("understanding}", "understanding, limits: {max_vocab: 4}}"));
    assert!(error.starts_with("the set of labels has 5 tokens"), "{error}");
}

#[test]
fn nothing_left_of_a_part() {
    let error = corpus().error(&YAML.replace("270}}", "270}, limits: {max_source: 3}}"));
    assert_eq!(
        error,
        "nothing is left of part train: 0 examples, left out 1 (source too long 1)"
    );
}

#[test]
fn a_file_that_changes_later_is_a_fault_and_no_panic() {
    let folder = corpus();
    let data = folder.open(YAML).unwrap();
    fs::remove_file(folder.file("test.wav")).unwrap();
    folder.write("valid.wav", &fs::read(folder.file("train.wav")).unwrap()[..999]);
    assert!(data.fault().is_none());
    assert!(matches!(
        data.try_example(Part::Valid, 0),
        Err(Error::Audio {
            problem: AudioProblem::Truncated { expected: 4_000, .. },
            ..
        })
    ));
    let blank = data.example(Part::Test, 0);
    assert_eq!(blank.is_answer, [false]);
    assert!(matches!(blank.source, Source::Frames { dim: 80, features } if features.len() == 80));
    let fault = folder.without_folder(&data.fault().unwrap().to_string());
    assert!(fault.starts_with("test.tsv:2: test.wav: No such file"), "{fault}");
    assert!(matches!(
        data.try_example(Part::Test, 1),
        Err(Error::NoExample { index: 1, len: 1, .. })
    ));
}
