//! Tokenizers: trained, saved, loaded, refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod common;

use std::fs;

use attn_data::{SPECIALS, Tokenizer};
use attn_tasks::Part;
use common::{Folder, SENTENCES};

fn trained(size: usize) -> Tokenizer {
    Tokenizer::train(size, SENTENCES.iter().map(|text| Ok((*text).into()))).unwrap()
}

fn yaml(tokenizer: &str) -> String {
    format!("text: {{train: a.txt, valid: a.txt, test: a.txt, block: 8, tokenizer: {tokenizer}}}")
}

fn corpus() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", SENTENCES.join("\n"));
    folder
}

#[test]
fn special_tokens_have_the_first_ids() {
    let folder = Folder::new();
    let path = folder.file("tokenizer.json");
    trained(300).save(&path).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (id, token) in SPECIALS.into_iter().enumerate() {
        assert_eq!(json["model"]["vocab"][token], id);
    }
}

#[test]
fn every_text_comes_back() {
    let tokenizer = trained(300);
    for text in
        SENTENCES
            .into_iter()
            .chain(["日本語 текст 🦀", "a  b\tc", "</s> is four characters, <s> three"])
    {
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&tokens), format!(" {text}"));
        assert!(tokens.iter().all(|t| (4..tokenizer.vocab() as u32).contains(t)));
    }
}

#[test]
fn merges_make_texts_shorter() {
    let (few, many) = (trained(260), trained(300));
    assert_eq!(few.encode("the mat").unwrap().len(), 8);
    assert!(many.encode("the mat").unwrap().len() < 5);
    assert_eq!((few.vocab(), trained(270).vocab()), (260, 270));
    // There is not so much to merge.
    assert!(many.vocab() < 300);
}

#[test]
fn words_end_with_the_end() {
    let tokenizer = trained(280);
    let mut tokens = vec![tokenizer.bos()];
    tokens.extend(tokenizer.encode("a cat").unwrap());
    tokens.push(tokenizer.eos());
    tokens.extend(tokenizer.encode("and more").unwrap());
    assert_eq!(tokenizer.words(&tokens), ["a", "cat"]);
    assert!(tokenizer.words(&[]).is_empty());
    // A model can write what is no token and no text.
    assert!(tokenizer.words(&[1 << 30]).is_empty());
}

#[test]
fn training_gives_the_same_file_every_time() {
    let folder = Folder::new();
    let files = ["a.json", "b.json"].map(|name| folder.file(name));
    for file in &files {
        trained(320).save(file).unwrap();
    }
    assert_eq!(fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
}

#[test]
fn a_saved_tokenizer_gives_the_same_tokens() {
    let folder = corpus();
    let first = folder.open(&yaml("{train: 300, file: t.json}")).unwrap();
    let loaded = folder.open(&yaml("{file: t.json}")).unwrap();
    assert_eq!(first.spec(), loaded.spec());
    for index in 0..first.len(Part::Test).unwrap() {
        assert_eq!(
            first.example(Part::Test, index),
            loaded.example(Part::Test, index)
        );
    }
    // The same again is no other.
    assert!(folder.open(&yaml("{train: 300, file: t.json}")).is_ok());
}

#[test]
fn another_file_is_not_overwritten() {
    let folder = corpus();
    folder.write("t.json", "somebody's notes");
    let error = folder.error(&yaml("{train: 300, file: t.json}"));
    assert!(
        error.starts_with("cannot write t.json: another file is there"),
        "{error}"
    );
    assert_eq!(fs::read(folder.file("t.json")).unwrap(), b"somebody's notes");
    let error = folder.error(&yaml("{train: 300, file: no/such/folder.json}"));
    assert!(error.starts_with("cannot write no/such/folder.json: "), "{error}");
}

#[test]
fn files_that_are_no_tokenizer_are_refused() {
    let folder = corpus();
    let error = folder.error(&yaml("{file: gone.json}"));
    assert!(error.starts_with("cannot read gone.json: "), "{error}");
    for (bytes, reason) in [
        (&b"{"[..], "t.json: no tokenizer: "),
        (b"\xFF\xFE", "t.json: no tokenizer: "),
        (b"{\"model\": {}}", "t.json: no tokenizer: "),
    ] {
        folder.write("t.json", bytes);
        let error = folder.error(&yaml("{file: t.json}"));
        assert!(error.starts_with(reason), "{error}");
    }
    let word_level = |vocab: &str| {
        format!(
            r#"{{"version": "1.0", "added_tokens": [], "pre_tokenizer": {{"type": "Whitespace"}},
                "model": {{"type": "WordLevel", "vocab": {vocab}, "unk_token": "x"}}}}"#
        )
    };
    folder.write("t.json", word_level(r#"{"x": 0, "<s>": 1}"#));
    assert_eq!(
        folder.error(&yaml("{file: t.json}")),
        "t.json: the vocabulary lacks the token `</s>`"
    );
    folder.write("t.json", word_level(r#"{"x": 0, "<s>": 1, "</s>": 9000000}"#));
    assert_eq!(
        folder.error(&yaml("{file: t.json}")),
        "the tokenizer has 9000001 tokens, more than the 262144 that `limits.max_vocab` allows"
    );
    folder.write("t.json", word_level(r#"{"x": 0, "<s>": 1, "</s>": 2, "sat": 3}"#));
    let data = folder.open(&yaml("{file: t.json}")).unwrap();
    assert_eq!(data.spec().vocab, 4);
}

#[test]
fn merges_that_are_dropped_by_chance_are_refused() {
    let folder = corpus();
    let path = folder.file("t.json");
    trained(300).save(&path).unwrap();
    let json = fs::read_to_string(&path).unwrap();
    folder.write("t.json", json.replace("\"dropout\": null", "\"dropout\": 0.1"));
    let error = folder.error(&yaml("{file: t.json}"));
    assert!(error.starts_with("t.json: it drops merges by chance"), "{error}");
}

#[test]
fn a_file_that_makes_its_reader_panic_is_an_error() {
    let folder = corpus();
    let path = folder.file("t.json");
    trained(300).save(&path).unwrap();
    let json = fs::read_to_string(&path).unwrap();
    let spoilt = json.replace("\"normalizer\": null", "\"normalizer\": [\"\"]");
    assert_ne!(json, spoilt);
    folder.write("t.json", spoilt);
    let error = folder.error(&yaml("{file: t.json}"));
    assert_eq!(
        error,
        "a.txt:1: the tokenizer failed: it panicked, so that its file is not to be trusted"
    );
}

#[test]
fn sizes_that_cannot_be_had_are_refused() {
    let folder = corpus();
    assert_eq!(
        folder.error(&yaml("{train: 100}")),
        "tokenizer.train: 100 tokens, byte-level BPE has 260 at least"
    );
    let error = folder.error(&yaml(&format!("{{train: {}}}", u64::MAX)));
    assert!(error.contains("more than the 262144"), "{error}");
    assert!(folder.error(&yaml("{}")).starts_with("tokenizer: say `file`"));
    let error = folder.error(&yaml("{train: 300}, limits: {max_vocab: 299}"));
    assert_eq!(
        error,
        "the tokenizer has 300 tokens, more than the 299 that `limits.max_vocab` allows"
    );
}

#[test]
fn data_that_is_no_language_is_trained_on_in_time() {
    let line = "x".repeat(500_000) + &" ".repeat(300_000) + &"ab".repeat(100_000);
    let tokenizer = Tokenizer::train(400, std::iter::once(Ok(line.clone()))).unwrap();
    let tokens = tokenizer.encode(&line).unwrap();
    assert_eq!(tokenizer.decode(&tokens), format!(" {line}"));
}
