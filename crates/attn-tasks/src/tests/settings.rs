//! Settings: their text forms, and what is refused with the name of its key.

use super::{defaults, from_json};
use crate::{TaskConfig, names};

#[test]
fn every_name_has_one_sentence_and_default_settings_that_build() {
    assert_eq!(names().len(), 8);
    for (name, sentence) in names() {
        let config = TaskConfig::named(name).unwrap();
        assert_eq!(config.name(), *name);
        assert!(sentence.len() > 20 && !sentence.ends_with('.') && config.build().is_ok());
    }
    assert_eq!(TaskConfig::named("copying"), None);
}

#[test]
fn settings_survive_json_and_yaml() {
    for config in defaults() {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(from_json(&json), config);
        let yaml = serde_yaml::to_string(&config).unwrap();
        assert_eq!(serde_yaml::from_str::<TaskConfig>(&yaml).unwrap(), config);
        assert_eq!(serde_yaml::from_str::<TaskConfig>(config.name()).unwrap(), config);
    }
}

#[test]
fn keys_left_out_have_their_defaults() {
    let config: TaskConfig = serde_yaml::from_str("copy: {symbols: 64, parts: {train: 5000}}").unwrap();
    let TaskConfig::Copy(copy) = &config else {
        panic!("another task: {config:?}");
    };
    assert_eq!(
        (copy.symbols, copy.tokens.max, copy.parts.train, copy.parts.test),
        (64, 24, Some(5000), 1024)
    );
    assert_eq!(
        serde_yaml::from_str::<TaskConfig>("copy: {}").unwrap(),
        from_json(r#""copy""#)
    );
}

#[test]
fn what_is_no_setting_is_refused() {
    let refused = |json: &str| serde_json::from_str::<TaskConfig>(json).unwrap_err().to_string();
    assert!(refused(r#"{"copy": {"symbol": 3}}"#).contains("unknown field `symbol`"));
    assert!(refused(r#"{"speech_recognition": {"sound": {"loud": 3}}}"#).contains("unknown field `loud`"));
    assert!(refused(r#""copying""#).contains("unknown variant `copying`, expected one of `entropy`"));
    assert!(refused(r#"{"copy": {}, "recall": {}}"#).contains("several names"));
    assert!(refused("{}").contains("one task"));
    assert!(refused("3").contains("the name of a task"));
}

#[test]
fn settings_that_cannot_be_meant_name_their_key() {
    let cases = [
        (
            r#"{"entropy": {"symbols": 1}}"#,
            "`entropy.symbols` is 1, expected 2 to 65536",
        ),
        (
            r#"{"entropy": {"branching": 17}}"#,
            "`entropy.branching` is 17, expected 1 to 16",
        ),
        (
            r#"{"entropy": {"symbols": 300}}"#,
            "`entropy.order` is 2, expected at most 65536 contexts, these are 90601",
        ),
        (
            r#"{"entropy": {"branching": 1}}"#,
            "`entropy.tokens` is 64, expected enough for 65536 different examples",
        ),
        (
            r#"{"entropy": {"parts": {"train": 0}}}"#,
            "`entropy.parts.train` is 0, expected at least 1",
        ),
        (
            r#"{"copy": {"tokens": {"min": 3, "max": 2}}}"#,
            "`copy.tokens` is {min: 3, max: 2}, expected 1 <= min",
        ),
        (
            r#"{"copy": {"tokens": {"min": 3, "max": 9}}}"#,
            "there are only 32768",
        ),
        (
            r#"{"recall": {"tokens": 31}}"#,
            "`recall.tokens` is 31, expected 32 to",
        ),
        (
            r#"{"recall": {"tokens": 33}}"#,
            "`recall.tokens` is 33, expected an even number",
        ),
        (
            r#"{"recall": {"keys": 7}}"#,
            "`recall.pairs` is {min: 4, max: 8}, expected 1 <= min <= max <= 7",
        ),
        (
            r#"{"needle": {"depth": {"min": 0, "max": 101}}}"#,
            "`needle.depth`",
        ),
        (
            r#"{"speech_recognition": {"nouns": 1}}"#,
            "`speech_recognition.nouns`",
        ),
        (
            r#"{"speech_translation": {"nouns": 500}}"#,
            "`speech_translation.sound.phones_per_word`",
        ),
        (
            r#"{"speech_translation": {"sound": {"noise": -1}}}"#,
            "`speech_translation.sound.noise` is -1",
        ),
        (
            r#"{"speech_translation": {"sound": {"dim": 1}}}"#,
            "`speech_translation.sound.dim`",
        ),
        (
            r#"{"spoken_understanding": {"intents": 7}}"#,
            "`spoken_understanding.intents` is 7, expected a divisor",
        ),
        (
            r#"{"spoken_understanding": {"words": {"min": 4, "max": 9}}}"#,
            "`spoken_understanding.words`",
        ),
        (
            r#"{"summarisation": {"entities": 9}}"#,
            "`summarisation.entities` is 9, expected 10 to",
        ),
        (
            r#"{"summarisation": {"times": 19}}"#,
            "`summarisation.times` is 19, expected 20 to",
        ),
    ];
    for (json, message) in cases {
        let Err(error) = from_json(json).build() else {
            panic!("{json} is accepted");
        };
        assert!(error.to_string().contains(message), "{error}");
    }
}
