//! Who does not read what was asked cannot answer: answers are nearly as uncertain as they can be.

use std::collections::{BTreeMap, BTreeSet};

use super::{build, examples, from_json};
use crate::registry::Registered;
use crate::speech::{Understanding, UnderstandingConfig};
use crate::task::{Example, Part};

/// Nats of the most that can be known of an item that is drawn from these.
fn entropy<T: Ord>(items: impl IntoIterator<Item = T>) -> f64 {
    let mut counts: BTreeMap<T, f64> = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1.0;
    }
    let n: f64 = counts.values().sum();
    counts.values().map(|count| -count / n * (count / n).ln()).sum()
}

/// Examples of a task with default settings, all different.
fn many(name: &str) -> Vec<Example> {
    let task = build(&from_json(&format!("{name:?}")));
    let examples = examples(task.as_ref(), Part::Test, 1000);
    let texts: BTreeSet<&[u32]> = examples.iter().map(|example| example.text.as_slice()).collect();
    assert!(
        texts.len() > 900 || name == "spoken_understanding",
        "{name} has {} texts",
        texts.len()
    );
    examples
}

#[test]
fn copied_and_recalled_tokens_are_all_as_likely() {
    for name in ["copy", "recall", "needle"] {
        let nats = entropy(many(name).iter().flat_map(Example::answers));
        assert!(nats > 0.98 * 32_f64.ln(), "{name}: {nats}");
    }
}

#[test]
fn the_place_of_a_pair_or_a_needle_says_little_of_the_answer() {
    let mut right = [0; 3];
    let mut answers = 0;
    for Example {
        text,
        is_answer,
        probes,
        ..
    } in many("recall")
    {
        for (probe, place) in probes.iter().zip((1..text.len()).filter(|i| is_answer[i - 1])) {
            answers += 1;
            let guesses = [text[2], text[2 * probe.load], text[probe.load / 2 * 2]];
            for (right, guess) in right.iter_mut().zip(guesses) {
                *right += usize::from(guess == text[place]);
            }
        }
    }
    // One of four to eight pairs, and by chance one of 32 values.
    assert!(
        right.iter().all(|right| 4 * right < answers),
        "{right:?} of {answers}"
    );
}

#[test]
fn questions_get_rarer_with_distance_to_the_pairs() {
    let distances: Vec<usize> = many("recall")
        .iter()
        .flat_map(|example| &example.probes)
        .map(|p| p.distance)
        .collect();
    let near = distances.iter().filter(|distance| **distance <= 20).count();
    let far = distances.iter().filter(|distance| **distance > 40).count();
    assert!(
        near > 2 * far && far > distances.len() / 50,
        "{near} {far} of {}",
        distances.len()
    );
}

#[test]
fn words_of_speech_are_uncertain_and_so_are_those_after_others() {
    for name in ["speech_recognition", "speech_translation"] {
        let examples = many(name);
        let nats = entropy(examples.iter().flat_map(Example::answers));
        let pairs = entropy(examples.iter().flat_map(|example| example.text.windows(2)));
        assert!(nats > 2.9, "{name}: {nats}");
        assert!(pairs - nats > 2.0, "{name}: {}", pairs - nats);
    }
}

#[test]
fn an_intent_is_uncertain_and_remains_so_with_one_keyword() {
    let examples = many("spoken_understanding");
    let nats = entropy(examples.iter().map(|example| example.text[1]));
    assert!(nats > 0.97 * 12_f64.ln(), "{nats}");
    let task = Understanding::new(&UnderstandingConfig::default()).unwrap();
    for keyword in 0..6 {
        let with_action = entropy((0..6).map(|object| task.table[6 * keyword + object]));
        let with_object = entropy((0..6).map(|action| task.table[6 * action + keyword]));
        assert!(
            with_action > 1.2 && with_object > 1.2,
            "{with_action} {with_object}"
        );
    }
}

#[test]
fn summaries_are_uncertain_in_every_token() {
    let examples = many("summarisation");
    let entity = entropy(examples.iter().map(|example| example.text[1]));
    let attribute = entropy(examples.iter().map(|example| example.text[2]));
    let value = entropy(examples.iter().map(|example| example.text[3]));
    assert!(entity > 0.98 * 12_f64.ln() && attribute > 0.98 * 8_f64.ln() && value > 0.98 * 32_f64.ln());
}

#[test]
fn the_language_has_the_entropy_that_its_examples_say() {
    let task = build(&from_json(r#""entropy""#));
    let examples = many("entropy");
    let nats: f64 = examples
        .iter()
        .map(|example| task.true_nats(example).unwrap())
        .sum::<f64>()
        / 64_000.0;
    let pairs = |example: &Example| example.text.windows(3).map(<[u32]>::to_vec).collect::<Vec<_>>();
    let contexts = |example: &Example| {
        example
            .text
            .windows(3)
            .map(|w| w[..2].to_vec())
            .collect::<Vec<_>>()
    };
    let estimated = entropy(examples.iter().flat_map(pairs)) - entropy(examples.iter().flat_map(contexts));
    assert!((nats - estimated).abs() < 0.05, "{nats} {estimated}");
    assert!(nats > 0.5 && nats < 4_f64.ln() + 0.05, "{nats}");
}
