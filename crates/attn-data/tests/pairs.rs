//! Documents with summaries, and parallel text.

mod common;

use attn_tasks::{Measure, Part, Source, SourceKind};
use common::{Folder, SENTENCES};

const DOCUMENTS: &str =
    "documents: {train: train.jsonl, valid: valid.jsonl, test: test.jsonl, tokenizer: {train: 300}";
const PARALLEL: &str = "parallel: {train: {source: train.en, target: train.de}, valid: {source: valid.en, \
                        target: valid.de}, test: {source: test.en, target: test.de}, tokenizer: {train: 300}";

fn documents() -> Folder {
    let folder = Folder::new();
    for (i, part) in ["train", "valid", "test"].into_iter().enumerate() {
        let line = |text: &str, summary: &str| {
            format!("{{\"document\": \"{text}\", \"id\": {i}, \"summary\": \"{summary}\"}}\n")
        };
        let lines = line(&SENTENCES.join(" "), SENTENCES[i]) + &line(SENTENCES[2 * i], "short");
        folder.write(&format!("{part}.jsonl"), lines);
    }
    folder
}

fn parallel() -> Folder {
    let folder = Folder::new();
    for (i, part) in ["train", "valid", "test"].into_iter().enumerate() {
        folder.write(&format!("{part}.en"), SENTENCES[i..i + 3].join("\n"));
        folder.write(
            &format!("{part}.de"),
            SENTENCES[i + 1..i + 4].join("\r\n") + "\r\n",
        );
    }
    folder
}

fn tokens_of(source: Source) -> Vec<u32> {
    match source {
        Source::Tokens(tokens) => tokens,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_document_is_read_and_its_summary_is_written() {
    let folder = documents();
    let data = folder.open(&format!("{DOCUMENTS}}}")).unwrap();
    let spec = data.spec();
    assert_eq!(spec.measure, Measure::RougeL);
    assert_eq!(spec.source, SourceKind::Tokens { vocab: spec.vocab });
    let example = data.example(Part::Test, 0);
    assert_eq!(data.words(&example.text).join(" "), SENTENCES[2]);
    assert_eq!(example.is_answer.len(), example.text.len() - 1);
    let source = tokens_of(example.source);
    assert_eq!(source.len(), spec.max_source);
    assert_eq!(data.words(&source).join(" "), SENTENCES.join(" "));
}

#[test]
fn long_documents_are_left_out_or_cut_and_counted() {
    let folder = documents();
    let data = folder
        .open(&format!("{DOCUMENTS}, limits: {{max_source: 40}}}}"))
        .unwrap();
    assert_eq!(data.report().parts.test.source_too_long, 1);
    assert_eq!(data.len(Part::Test), Some(1));
    let data = folder
        .open(&format!(
            "{DOCUMENTS}, cut_documents: true, limits: {{max_source: 40}}}}"
        ))
        .unwrap();
    assert_eq!(data.report().parts.test.cut, 1);
    assert_eq!(data.len(Part::Test), Some(2));
    assert_eq!(data.spec().max_source, 40);
    assert_eq!(tokens_of(data.example(Part::Test, 0).source).len(), 40);
}

#[test]
fn keys_can_have_other_names() {
    let folder = Folder::new();
    for part in ["train", "valid", "test"] {
        folder.write(
            &format!("{part}.jsonl"),
            r#"{"article": "a long article", "highlights": "short"}"#,
        );
    }
    let yaml = format!("{DOCUMENTS}, document_key: article, summary_key: highlights}}");
    let data = folder.open(&yaml).unwrap();
    assert_eq!(data.words(&data.example(Part::Train, 0).text), ["short"]);
    // All three are the same.
    assert_eq!(data.report().parts.test.also_in_train, 1);
    assert_eq!(
        folder.error(&format!("{DOCUMENTS}}}")),
        "train.jsonl:1: there is no key `document`"
    );
}

#[test]
fn bad_documents_are_named_with_their_line() {
    for (line, message) in [
        ("{\"document\": \"x\"", "valid.jsonl:2: no JSON object: EOF"),
        ("[1, 2]", "valid.jsonl:2: no JSON object: invalid type"),
        ("", "valid.jsonl:2: no JSON object: EOF"),
        (
            r#"{"document": "x", "summary": ["y"]}"#,
            "valid.jsonl:2: `summary` is no string",
        ),
        (
            r#"{"document": " ", "summary": "y"}"#,
            "valid.jsonl:2: `document` is empty",
        ),
        (
            r#"{"document": "x", "summary": ""}"#,
            "valid.jsonl:2: `summary` is empty",
        ),
        (r#"{"document": "x"}"#, "valid.jsonl:2: there is no key `summary`"),
    ] {
        let folder = documents();
        folder.write(
            "valid.jsonl",
            format!("{{\"document\": \"x\", \"summary\": \"y\"}}\n{line}\n"),
        );
        let error = folder.error(&format!("{DOCUMENTS}}}"));
        assert!(error.starts_with(message), "{error}");
    }
    let folder = documents();
    let deep = "[".repeat(100_000);
    folder.write("test.jsonl", format!("{{\"document\": {deep}"));
    let error = folder.error(&format!("{DOCUMENTS}}}"));
    assert!(
        error.contains("test.jsonl:1: no JSON object: recursion limit"),
        "{error}"
    );
    folder.write("test.jsonl", "");
    assert_eq!(
        folder.error(&format!("{DOCUMENTS}}}")),
        "test.jsonl has no examples"
    );
    let error = documents().error(&format!("{DOCUMENTS}, cut_documents: true}}"));
    assert_eq!(error, "cut_documents: say `limits.max_source` too");
}

#[test]
fn lines_that_belong_together_are_an_example() {
    let data = parallel().open(&format!("{PARALLEL}}}")).unwrap();
    assert_eq!(data.spec().measure, Measure::Bleu);
    for (p, part) in [Part::Train, Part::Valid, Part::Test].into_iter().enumerate() {
        assert_eq!(data.len(part), Some(3));
        for i in 0..3 {
            let example = data.example(part, i as u64);
            let source = tokens_of(example.source);
            assert_eq!(data.words(&source).join(" "), SENTENCES[p + i]);
            assert_eq!(data.words(&example.text).join(" "), SENTENCES[p + i + 1]);
        }
    }
    assert_eq!(data.report().parts.valid.also_in_train, 2);
}

#[test]
fn sources_can_have_a_tokenizer_of_their_own() {
    let folder = parallel();
    let yaml = format!("{PARALLEL}, source_tokenizer: {{train: 264}}}}");
    let data = folder.open(&yaml).unwrap();
    let spec = data.spec();
    assert_eq!(spec.source, SourceKind::Tokens { vocab: 264 });
    assert!(spec.vocab > 264);
    let example = data.example(Part::Test, 0);
    assert!(tokens_of(example.source).iter().all(|token| *token < 264));
}

#[test]
fn files_of_different_lengths_are_named_with_theirs() {
    let folder = parallel();
    folder.write("valid.de", "a\nb\nc\nd\ne\n");
    assert_eq!(
        folder.error(&format!("{PARALLEL}}}")),
        "valid.en has 3 lines, valid.de has 5: parallel files have as many"
    );
    folder.write("valid.de", "a\n");
    let error = folder.error(&format!("{PARALLEL}}}"));
    assert!(
        error.starts_with("valid.en has 3 lines, valid.de has 1:"),
        "{error}"
    );
}

#[test]
fn bad_lines_of_parallel_text_are_named() {
    let folder = parallel();
    folder.write("test.de", "a\n \nc\n");
    assert_eq!(
        folder.error(&format!("{PARALLEL}}}")),
        "test.de:2: the target is empty"
    );
    folder.write("test.de", b"a\nb\n\xC3\n");
    assert_eq!(
        folder.error(&format!("{PARALLEL}}}")),
        "test.de:3: invalid UTF-8 at byte 1 of the line"
    );
    folder.write("test.de", "");
    folder.write("test.en", "");
    assert_eq!(folder.error(&format!("{PARALLEL}}}")), "test.en has no examples");
}

#[test]
fn texts_that_are_too_long_are_left_out() {
    let folder = parallel();
    let error = folder.error(&format!("{PARALLEL}, limits: {{max_text: 3}}}}"));
    assert_eq!(
        error,
        "nothing is left of part train: 0 examples, left out 3 (text too long 3)"
    );
}
