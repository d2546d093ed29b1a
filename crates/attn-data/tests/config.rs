//! How data is described.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod common;

use attn_data::DataConfig;
use common::Folder;
use schemars::schema_for;

fn parsed(yaml: &str) -> Result<DataConfig, String> {
    serde_yaml::from_str(yaml).map_err(|error| error.to_string())
}

const SPEECH: &str = "speech: {manifest_train: a, manifest_valid: b, manifest_test: c, task: translation, \
                      tokenizer: {train: 8000, file: t.json}, features: {stack: 4, normalise: global}}";

#[test]
fn a_configuration_is_written_as_it_is_read() {
    let config = parsed(SPEECH).unwrap();
    let yaml = serde_yaml::to_string(&config).unwrap();
    assert!(yaml.starts_with("speech:\n"), "{yaml}");
    assert_eq!(parsed(&yaml).unwrap(), config);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<DataConfig>(&json).unwrap(), config);
}

#[test]
fn unknown_keys_are_refused_at_every_depth() {
    for yaml in [
        "speach: {}".to_owned(),
        SPEECH.replace("task:", "mode: x, task:"),
        SPEECH.replace("stack:", "stacks:"),
        SPEECH.replace("train: 8000", "train: 8000, model: bpe"),
        SPEECH.replace("task:", "limits: {max: 3}, task:"),
    ] {
        let error = parsed(&yaml).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
    assert!(parsed(&SPEECH.replace("translation", "singing")).is_err());
}

#[test]
fn one_kind_of_data_is_meant() {
    for yaml in [
        "{}",
        &format!("{SPEECH}\ntext: {{train: a, valid: b, test: c, tokenizer: {{}}}}"),
    ] {
        let error = parsed(yaml).unwrap_err();
        assert!(error.contains("data are one of"), "{error}");
    }
}

#[test]
fn the_schema_has_every_kind() {
    let schema = serde_json::to_value(schema_for!(DataConfig)).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let names: Vec<&String> = properties.keys().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(schema["maxProperties"], 1);
}

const SPEECH_ALONE: &str = "speech: {manifest_train: a, manifest_valid: b, manifest_test: c, task: recognition, \
                            tokenizer: {file: t.json}}";

#[test]
fn settings_that_cannot_be_meant_of_speech() {
    // Before any file is looked for.
    let folder = Folder::new();
    for (settings, message) in [
        (
            "features: {sample_rate: 0}",
            "features.sample_rate: from 1000 to 384000 Hz",
        ),
        (
            "features: {window_ms: 0}",
            "features.window_ms: from 1 to 1000 ms",
        ),
        ("features: {hop_ms: 5000}", "features.hop_ms: from 1 to 1000 ms"),
        ("features: {stack: 0}", "features.stack: from 1 to 64 frames"),
        (
            "features: {mel_bins: 300}",
            "features.mel_bins: from 1 to 256, which is what the window resolves",
        ),
        ("limits: {max_text: 1}", "limits.max_text: at least 2"),
        ("cache_mib: 99999999", "cache_mib: at most 1048576"),
    ] {
        let yaml = SPEECH_ALONE.replace("t.json}}", &format!("t.json}}, {settings}}}"));
        assert_eq!(folder.error(&yaml), message);
    }
    let without = SPEECH_ALONE.replace(", tokenizer: {file: t.json}", "");
    assert_eq!(folder.error(&without), "tokenizer: it is missing");
    let error = folder.error(&SPEECH_ALONE.replace("recognition", "understanding"));
    assert!(
        error.starts_with("tokenizer: task understanding has none"),
        "{error}"
    );
}
