//! The best score of every task is reached by rules that read what a model reads.

use std::collections::BTreeMap;

use super::{build, examples, from_json};
use crate::TaskConfig;
use crate::registry::Registered;
use crate::summarisation::{Summarisation, SummarisationConfig};
use crate::task::{Example, Part, Source, Task};

/// Every answer is what `solve` says after the tokens before it.
fn answers_all(config: &str, solve: impl Fn(&[u32]) -> u32) {
    let task = build(&from_json(config));
    for example in examples(task.as_ref(), Part::Test, 200) {
        for i in (1..example.text.len()).filter(|i| example.is_answer[i - 1]) {
            assert_eq!(solve(&example.text[..i]), example.text[i]);
        }
    }
}

fn last_place(text: &[u32], token: u32) -> usize {
    text.iter().rposition(|other| *other == token).unwrap()
}

#[test]
fn copying_by_rule_is_right_every_time() {
    answers_all(r#""copy""#, |text| text[text.len() - last_place(text, 1)]);
}

#[test]
fn recalling_by_rule_is_right_every_time() {
    for config in [
        r#""recall""#,
        r#"{"recall": {"keys": 8, "tokens": 32, "power": 0}}"#,
    ] {
        answers_all(config, |text| {
            let key = text[text.len() - 1];
            let pair = text.iter().position(|token| *token == key).unwrap();
            text[pair + 1]
        });
    }
}

#[test]
fn finding_the_needle_by_rule_is_right_every_time() {
    for config in [
        r#""needle""#,
        r#"{"needle": {"needles": {"min": 1, "max": 8}, "value_tokens": 3}}"#,
    ] {
        answers_all(config, |text| {
            let question = last_place(text, 2);
            let needle = text
                .windows(2)
                .position(|pair| pair == [1, text[question + 1]])
                .unwrap();
            text[needle + text.len() - question]
        });
    }
}

#[test]
fn distances_of_probes_are_those_in_the_text() {
    for name in ["copy", "recall", "needle"] {
        let task = TaskConfig::named(name).unwrap().build().unwrap();
        for Example {
            text,
            is_answer,
            probes,
            ..
        } in examples(task.as_ref(), Part::Test, 50)
        {
            let places = (1..text.len()).filter(|i| is_answer[i - 1]);
            for (i, place) in places.enumerate() {
                let distance = probes[i % probes.len()].distance;
                assert_eq!(text[place - 1 - distance], text[place], "{name}");
            }
        }
    }
}

#[test]
fn needles_stand_at_the_depth_asked_for() {
    let task = build(&from_json(
        r#"{"needle": {"depth": {"min": 25, "max": 25}, "tokens": {"min": 100, "max": 100}, "needles": {"min": 1, "max": 1}}}"#,
    ));
    for example in examples(task.as_ref(), Part::Test, 10) {
        assert_eq!(example.text.iter().position(|token| *token == 1), Some(1 + 25));
    }
}

#[test]
fn counting_comes_near_the_entropy_and_never_below_it() {
    let task = build(&from_json(
        r#"{"entropy": {"symbols": 8, "order": 2, "branching": 3}}"#,
    ));
    let mut counts: BTreeMap<[u32; 2], [f64; 9]> = BTreeMap::new();
    let context = |text: &[u32], i: usize| [if i > 1 { text[i - 2] } else { 0 }, text[i - 1]];
    let mut excess = |n: u64| {
        for Example { text, .. } in examples(task.as_ref(), Part::Train, n) {
            for i in 1..text.len() {
                counts.entry(context(&text, i)).or_insert([0.01; 9])[text[i] as usize] += 1.0;
            }
        }
        let mut excess = 0.0;
        for example in examples(task.as_ref(), Part::Test, 300) {
            let text = &example.text;
            let nats = |i: usize| {
                let row = counts.get(&context(text, i)).copied().unwrap_or([1.0; 9]);
                (row.iter().sum::<f64>() / row[text[i] as usize]).ln()
            };
            excess += (1..text.len()).map(nats).sum::<f64>() - task.true_nats(&example).unwrap();
        }
        excess / (300.0 * 64.0)
    };
    let (few, many) = (excess(30), excess(1500));
    assert!(few > 10.0 * many && many > 0.0 && many < 0.002, "{few} {many}");
}

#[test]
fn a_text_of_another_language_is_not_possible() {
    let task = build(&from_json(r#""entropy""#));
    let mut example = task.example(Part::Test, 0);
    assert!(task.true_nats(&example).unwrap().is_finite());
    example.text[5] = 0;
    assert_eq!(task.true_nats(&example), Some(f64::INFINITY));
}

/// Every text is what `solve` says of its source.
pub(super) fn writes_all<T: Task>(task: &T, n: u64, solve: impl Fn(&T, &Source) -> Vec<u32>) {
    let spec = task.spec();
    for example in examples(task, Part::Test, n) {
        let text = [
            vec![spec.bos],
            solve(task, &example.source),
            spec.eos.into_iter().collect(),
        ]
        .concat();
        assert_eq!(text, example.text);
    }
}

fn sum_up(task: &Summarisation, source: &Source) -> Vec<u32> {
    let Source::Tokens(tokens) = source else {
        panic!("there is nothing to read");
    };
    let config = &task.0;
    let facts = (config.entities + config.attributes + config.values) as u32;
    let told: Vec<u32> = tokens
        .iter()
        .copied()
        .filter(|token| *token < facts + config.times as u32)
        .collect();
    let mut records: Vec<&[u32]> = told.chunks(4).collect();
    records.sort();
    let mentions = |entity: u32| records.iter().filter(|record| record[1] == entity).count();
    let salient = (0..config.entities as u32)
        .max_by_key(|entity| mentions(*entity))
        .unwrap();
    let mut text = vec![salient + 2];
    for record in records.iter().filter(|record| record[1] == salient) {
        text.extend([record[2] + 2, record[3] + 2]);
    }
    text
}

#[test]
fn summing_up_by_rule_is_right_every_time() {
    let shuffled = SummarisationConfig {
        shuffled: true,
        ..SummarisationConfig::default()
    };
    for config in [SummarisationConfig::default(), shuffled] {
        writes_all(&Summarisation::new(&config).unwrap(), 200, sum_up);
    }
}
