//! Files with bytes changed by chance: they open or they are refused, and nothing panics or hangs.

mod common;

use std::fs;
use std::path::Path;

use attn_tasks::Part;
use common::Folder;
use serde_json::{Value, json};

/// A small generator of its own: the same files on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        // Knuth's MMIX constants; the high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    /// Changes some bytes, most often near the beginning, where headers are, and may cut the end off.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let within = if self.below(3) > 0 {
                bytes.len().min(64)
            } else {
                bytes.len()
            };
            let i = self.below(within);
            bytes[i] = match self.below(3) {
                0 => 0,
                1 => 0xFF,
                _ => self.below(256) as u8,
            };
        }
        if self.below(4) == 0 {
            bytes.truncate(1 + self.below(bytes.len()));
        }
    }
}

/// Opens a corpus whose test part is a file with spoilt bytes, so many times; returns how often it was refused.
fn refused(name: &str, good: &[u8], yaml: &str, folder: &Folder, times: usize) -> usize {
    let mut chance = Chance(11);
    let mut refused = 0;
    for _ in 0..times {
        let mut bytes = good.to_vec();
        chance.spoil(&mut bytes);
        folder.write(name, bytes);
        match folder.open(yaml) {
            Ok(data) => {
                for index in 0..data.len(Part::Test).unwrap_or(0) {
                    let _ = data.example(Part::Test, index);
                }
            }
            Err(_) => refused += 1,
        }
    }
    refused
}

fn audio_corpus(extension: &str, good: &[u8]) -> Folder {
    let folder = Folder::new();
    for part in ["train", "valid", "test"] {
        let audio = format!("{part}.{extension}");
        folder.write(&audio, good);
        folder.write(&format!("{part}.tsv"), format!("audio\ttgt_text\n{audio}\tx\n"));
    }
    folder
}

const SPEECH: &str = "speech: {manifest_train: train.tsv, manifest_valid: valid.tsv, manifest_test: test.tsv, \
                      task: understanding";

#[test]
fn spoilt_wav_files() {
    let folder = Folder::new();
    folder.wav("good.wav", 16_000, 2, 900);
    let good = fs::read(folder.file("good.wav")).unwrap();
    for check in ["whole", "headers"] {
        let folder = audio_corpus("wav", &good);
        let yaml = format!("{SPEECH}, check: {check}}}");
        let refused = refused("test.wav", &good, &yaml, &folder, 800);
        assert!((250..800).contains(&refused), "{refused}");
    }
}

#[test]
fn spoilt_flac_files() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chirp.flac");
    let good = fs::read(fixture).unwrap();
    for check in ["whole", "headers"] {
        let folder = audio_corpus("flac", &good);
        let yaml = format!("{SPEECH}, check: {check}}}");
        let refused = refused("test.flac", &good, &yaml, &folder, 200);
        assert!((50..200).contains(&refused), "{refused}");
    }
}

#[test]
fn spoilt_tokenizers() {
    let folder = Folder::new();
    folder.write("a.txt", "a few words\nand a few more\n");
    let yaml = |tokenizer: &str| {
        format!("text: {{train: a.txt, valid: a.txt, test: a.txt, block: 2, tokenizer: {tokenizer}}}")
    };
    folder.open(&yaml("{train: 262, file: t.json}")).unwrap();
    let good = fs::read(folder.file("t.json")).unwrap();
    refused("t.json", &good, &yaml("{file: t.json}"), &folder, 300);
    // What is JSON still, but says something else.
    let mut chance = Chance(5);
    let mut opened = 0;
    for _ in 0..1_000 {
        let mut json = serde_json::from_slice(&good).unwrap();
        for _ in 0..=chance.below(2) {
            change(&mut json, &mut chance);
        }
        folder.write("t.json", json.to_string());
        if let Ok(data) = folder.open(&yaml("{file: t.json}")) {
            opened += 1;
            data.words(&data.example(Part::Test, 0).text);
        }
    }
    assert!((100..900).contains(&opened), "{opened}");
}

/// Puts another value somewhere, or takes one away.
fn change(value: &mut Value, chance: &mut Chance) {
    let deeper = chance.below(6) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let i = chance.below(map.len());
            let Some(key) = map.keys().nth(i).cloned() else {
                return;
            };
            match chance.below(8) {
                0 => drop(map.remove(&key)),
                _ => change(&mut map[&key], chance),
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let i = chance.below(list.len());
            match chance.below(8) {
                0 => drop(list.remove(i)),
                _ => change(&mut list[i], chance),
            }
        }
        _ => {
            *value = match chance.below(8) {
                0 => Value::Null,
                1 => json!(-1),
                2 => json!(0.5),
                3 => json!(u64::MAX),
                4 => json!(""),
                5 => json!(["x"]),
                6 => json!(chance.below(300)),
                _ => json!({"type": "ByteLevel"}),
            }
        }
    }
}

#[test]
fn spoilt_tables_and_documents() {
    let folder = Folder::new();
    folder.wav("test.wav", 16_000, 1, 900);
    folder.wav("train.wav", 16_000, 1, 900);
    folder.wav("valid.wav", 16_000, 1, 900);
    for part in ["train", "valid"] {
        folder.write(
            &format!("{part}.tsv"),
            format!("audio\ttgt_text\n{part}.wav\tx\n"),
        );
    }
    let good = b"audio\ttgt_text\ntest.wav\tx\ntest.wav:0:700\tx\n";
    let refused_tables = refused("test.tsv", good, &format!("{SPEECH}}}"), &folder, 500);
    assert!(refused_tables > 300, "{refused_tables}");

    let good = br#"{"document": "a few words", "summary": "few"}"#;
    for part in ["train", "valid"] {
        folder.write(&format!("{part}.jsonl"), good);
    }
    let yaml =
        "documents: {train: train.jsonl, valid: valid.jsonl, test: test.jsonl, tokenizer: {train: 260}}";
    let refused_documents = refused("test.jsonl", good, yaml, &folder, 300);
    assert!(refused_documents > 100, "{refused_documents}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let folder = Folder::new();
    folder.wav("good.wav", 16_000, 1, 900);
    let good = fs::read(folder.file("good.wav")).unwrap();
    let folder = audio_corpus("wav", &good);
    fs::remove_file(folder.file("test.wav")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.file("test.wav"))
        .status();
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(
            folder.error(&format!("{SPEECH}}}")),
            "test.tsv:2: test.wav: it is no regular file"
        );
    }
}
