//! Plain text in blocks.

mod common;

use attn_tasks::{Measure, Part, Source, SourceKind};
use common::{Folder, SENTENCES};

const YAML: &str = "text: {train: train.txt, valid: valid.txt, test: test.txt, tokenizer: {train: 300}";

fn corpus() -> Folder {
    let folder = Folder::new();
    for part in ["train", "valid", "test"] {
        folder.write(&format!("{part}.txt"), SENTENCES.join("\n\n"));
    }
    folder
}

#[test]
fn blocks_hold_all_of_a_text_but_its_tail() {
    let folder = corpus();
    let data = folder.open(&format!("{YAML}, block: 32}}")).unwrap();
    let spec = data.spec();
    assert_eq!(
        (spec.source, spec.measure, spec.max_text, spec.eos),
        (SourceKind::None, Measure::Perplexity, 33, None)
    );
    let report = data.report().parts.train;
    assert!(report.tail_tokens < 32);
    let mut tokens = Vec::new();
    for index in 0..data.len(Part::Train).unwrap() {
        let example = data.example(Part::Train, index);
        assert_eq!(example.source, Source::None);
        assert_eq!(example.text.len(), 33);
        assert_eq!(example.text[0], spec.bos);
        assert_eq!(example.is_answer, [true; 32]);
        tokens.extend_from_slice(&example.text[1..]);
    }
    // Blocks of one token leave no tail; lines end with the token 1.
    let single = folder.open(&format!("{YAML}, block: 1}}")).unwrap();
    let all: Vec<u32> = (0..single.len(Part::Train).unwrap())
        .map(|index| single.example(Part::Train, index).text[1])
        .collect();
    assert_eq!(tokens, all[..tokens.len()]);
    assert_eq!(all.len(), tokens.len() + report.tail_tokens as usize);
    assert_eq!(all.iter().filter(|token| **token == 1).count(), SENTENCES.len());
    let words: Vec<&str> = SENTENCES.iter().flat_map(|line| line.split(' ')).collect();
    assert_eq!(single.words(&all), words);
}

#[test]
fn a_text_without_a_whole_block_is_an_error() {
    let folder = corpus();
    let error = folder.error(&format!("{YAML}, block: 100000}}"));
    assert!(
        error.starts_with("nothing is left of part train: 0 examples, "),
        "{error}"
    );
    assert!(error.ends_with(" tokens behind the last block"), "{error}");
    folder.write("test.txt", "\n \n");
    assert_eq!(
        folder.error(&format!("{YAML}, block: 8}}")),
        "test.txt has no examples"
    );
    folder.write("test.txt", b"fine\nnot \xE9\n");
    assert_eq!(
        folder.error(&format!("{YAML}, block: 8}}")),
        "test.txt:2: invalid UTF-8 at byte 5 of the line"
    );
}

#[test]
fn settings_that_cannot_be_meant() {
    let folder = corpus();
    assert_eq!(
        folder.error(&format!("{YAML}, block: 0}}")),
        "block: from 1 to 16777216 tokens"
    );
    let error = folder.error(&format!("{YAML}, limits: {{max_text: 5}}}}"));
    assert!(error.starts_with("limits: a text has blocks"), "{error}");
}
