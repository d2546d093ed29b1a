//! Parts share no example, and examples stay within what their task says of itself.

use std::collections::BTreeSet;

use super::{build, defaults, examples, from_json};
use crate::batch::{Batch, Sources};
use crate::order::Order;
use crate::task::{Example, Part, Source, SourceKind, Task};

/// What an example is about, as bits.
fn content(example: &Example) -> Vec<u32> {
    let mut content = example.text.clone();
    match &example.source {
        Source::None => {}
        Source::Frames { features, .. } => content.extend(features.iter().map(|x| x.to_bits())),
        Source::Tokens(tokens) => content.extend(tokens),
    }
    content
}

fn contents(task: &dyn Task, part: Part, n: u64) -> BTreeSet<Vec<u32>> {
    examples(task, part, n).iter().map(content).collect()
}

fn shares_none(task: &dyn Task, n: u64) -> usize {
    let [train, valid, test] = Part::ALL.map(|part| contents(task, part, n));
    assert!(train.is_disjoint(&valid) && train.is_disjoint(&test) && valid.is_disjoint(&test));
    3 * n as usize - train.len() - valid.len() - test.len()
}

#[test]
fn parts_share_no_example() {
    for config in defaults() {
        shares_none(build(&config).as_ref(), 100);
    }
}

#[test]
fn parts_share_none_even_where_examples_repeat() {
    // Without noise and with phones of one length, equal words are equal frames.
    let sound = r#""sound": {"noise": 0, "phones_per_word": {"min": 2, "max": 2}, "frames_per_phone": {"min": 1, "max": 1}}"#;
    let small = [
        r#"{"copy": {"symbols": 2, "tokens": {"min": 16, "max": 16}}}"#.to_string(),
        r#"{"entropy": {"symbols": 2, "order": 1, "branching": 2, "tokens": 24}}"#.to_string(),
        format!(
            r#"{{"speech_recognition": {{"nouns": 8, "adjectives": 2, "verbs": 2, "clauses": {{"min": 2, "max": 2}}, {sound}}}}}"#
        ),
        format!(
            r#"{{"spoken_understanding": {{"intents": 2, "actions": 2, "objects": 2, "kinds": 1, "values": 4, "fillers": 4,
                "slots": {{"min": 1, "max": 1}}, "words": {{"min": 10, "max": 10}}, {sound}}}}}"#
        ),
    ];
    for config in small {
        let repeated = shares_none(build(&from_json(&config)).as_ref(), 4000);
        assert!(repeated > 0, "{config} has too many examples to show anything");
    }
}

#[test]
fn recognition_and_translation_hear_the_same() {
    let recognition = build(&from_json(r#"{"speech_recognition": {"seed": 3}}"#));
    let translation = build(&from_json(r#"{"speech_translation": {"seed": 3}}"#));
    for part in Part::ALL {
        assert_eq!(
            recognition.example(part, 9).source,
            translation.example(part, 9).source
        );
    }
}

#[test]
fn examples_stay_within_what_the_task_says() {
    for config in defaults() {
        let task = build(&config);
        let spec = task.spec();
        let (mut longest_text, mut longest_source) = (0, 0);
        for example in examples(task.as_ref(), Part::Train, 300) {
            longest_text = longest_text.max(example.text.len());
            longest_source = longest_source.max(example.source.len());
            assert_eq!(example.text[0], spec.bos);
            assert_eq!(example.is_answer.len() + 1, example.text.len());
            assert!(example.text.iter().all(|token| (*token as usize) < spec.vocab));
            let answers = example.answers().count();
            assert!(answers > 0 && [0, 1, answers].contains(&example.probes.len()));
            if let Some(eos) = spec.eos {
                assert_eq!(
                    example.text.iter().position(|token| *token == eos),
                    Some(example.text.len() - 1)
                );
                assert_eq!(task.body(&example.text), &example.text[1..example.text.len() - 1]);
            }
            match (spec.source, &example.source) {
                (SourceKind::None, Source::None) => {}
                (SourceKind::Frames { dim }, Source::Frames { dim: own, .. }) => assert_eq!(dim, *own),
                (SourceKind::Tokens { vocab }, Source::Tokens(tokens)) => {
                    assert!(tokens.iter().all(|token| (*token as usize) < vocab));
                }
                _ => panic!("{} has another kind of source than it says", config.name()),
            }
        }
        assert!(longest_text <= spec.max_text && 2 * longest_text > spec.max_text);
        assert!(longest_source <= spec.max_source && 2 * longest_source >= spec.max_source);
        assert_eq!(task.len(Part::Train), None);
        assert_eq!(task.len(Part::Test), Some(1024));
    }
}

#[test]
fn a_batch_of_every_task_weighs_answers_alone() {
    for config in defaults() {
        let task = build(&config);
        let indices = Order::new(1, 8, task.len(Part::Train)).unwrap().indices(2);
        let batch = Batch::of(task.as_ref(), Part::Train, &indices).unwrap();
        let t = batch.tokens;
        for (row, index) in indices.iter().enumerate() {
            let example = task.example(Part::Train, *index);
            let weighed: Vec<u32> = (0..t)
                .filter(|i| batch.weights[row * t + i] == 1.0)
                .map(|i| batch.targets[row * t + i])
                .collect();
            assert_eq!(weighed, example.answers().collect::<Vec<u32>>());
            assert_eq!(
                batch.inputs[row * t..][..batch.text_lens[row]],
                example.text[..example.text.len() - 1]
            );
            match (&batch.sources, &example.source) {
                (Sources::Frames { features, lens, dim }, Source::Frames { features: own, .. }) => {
                    let s = batch.sources.len();
                    assert_eq!(lens[row], example.source.len());
                    assert_eq!(&features[row * s * dim..][..own.len()], own.as_slice());
                    assert!(
                        features[row * s * dim + own.len()..(row + 1) * s * dim]
                            .iter()
                            .all(|x| *x == 0.0)
                    );
                }
                (Sources::Tokens { tokens, lens }, Source::Tokens(own)) => {
                    assert_eq!(&tokens[row * batch.sources.len()..][..lens[row]], own.as_slice());
                }
                (sources, _) => assert_eq!(*sources, Sources::None),
            }
        }
    }
}
