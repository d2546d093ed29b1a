//! The best score of every task over speech is reached by a listener who knows how words sound and what they mean.

use super::listener::listen;
use super::solvers::writes_all;
use crate::registry::Registered;
use crate::speech::{Recognition, SpeechConfig, Translation, Understanding, UnderstandingConfig};
use crate::task::{Part, Source, Task};

fn quiet<T: for<'a> serde::Deserialize<'a>>() -> T {
    serde_json::from_str(r#"{"sound": {"noise": 0}}"#).unwrap()
}

fn recognise(task: &Recognition, source: &Source) -> Vec<u32> {
    listen(&task.sound, source)
        .iter()
        .map(|word| *word as u32 + 2)
        .collect()
}

#[test]
fn recognising_without_noise_is_right_every_time() {
    writes_all(&Recognition::new(&quiet()).unwrap(), 100, recognise);
}

#[test]
fn the_usual_noise_hides_no_word() {
    writes_all(
        &Recognition::new(&SpeechConfig::default()).unwrap(),
        300,
        recognise,
    );
}

/// Nouns come first, then adjectives, then verbs; each clause is a noun phrase, a verb and a noun phrase.
fn translate(task: &Translation, source: &Source) -> Vec<u32> {
    let SpeechConfig {
        nouns, adjectives, ..
    } = task.config;
    let (mut text, mut clause, mut described) = (Vec::new(), Vec::new(), None);
    let mut verb: Option<(usize, usize)> = None;
    let mut subject = 0;
    for word in listen(&task.sound, source) {
        if word >= nouns + adjectives {
            verb = Some((word, task.genders[subject]));
        } else if word >= nouns {
            described = Some(word);
        } else {
            clause.push(task.forms[word]);
            let form = |adjective: usize| task.forms[nouns + 2 * (adjective - nouns) + task.genders[word]];
            clause.extend(described.take().map(form));
            match verb.take() {
                Some((verb, gender)) => {
                    clause.push(task.forms[nouns + 2 * (verb - nouns) + gender]);
                    text.append(&mut clause);
                }
                None => subject = word,
            }
        }
    }
    text
}

#[test]
fn translating_by_rule_is_right_every_time() {
    writes_all(&Translation::new(&quiet()).unwrap(), 100, translate);
    writes_all(
        &Translation::new(&SpeechConfig::default()).unwrap(),
        100,
        translate,
    );
}

fn understand(task: &Understanding, source: &Source) -> Vec<u32> {
    let config = &task.config;
    let (mut action, mut object, mut slots) = (0, 0, Vec::new());
    let first_kind = config.actions + config.objects;
    for word in listen(&task.sound, source) {
        if word < config.actions {
            action = word;
        } else if word < first_kind {
            object = word - config.actions;
        } else if word < first_kind + config.kinds + config.values {
            slots.push((word - first_kind + 2 + config.intents) as u32);
        }
    }
    let intent = task.table[action * config.objects + object] as u32 + 2;
    [vec![intent], slots].concat()
}

#[test]
fn understanding_by_rule_is_right_every_time() {
    writes_all(&Understanding::new(&quiet()).unwrap(), 100, understand);
    writes_all(
        &Understanding::new(&UnderstandingConfig::default()).unwrap(),
        100,
        understand,
    );
}

#[test]
fn of_an_understood_text_the_intent_is_judged() {
    let task = Understanding::new(&UnderstandingConfig::default()).unwrap();
    let text = task.example(Part::Test, 0).text;
    assert_eq!(task.words(&text), [text[1].to_string()]);
    assert_eq!(task.words(&text[..2]), task.words(&text[1..]));
    assert!(task.words(&[0, 1]).is_empty());
}
