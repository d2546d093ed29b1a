//! Folders that the Python package `mtla` saved. Those of the project lie beside the repository or where
//! `ATTN_CONFORMANCE` says; small ones of our own are among the fixtures.

mod common;

use std::path::{Path, PathBuf};

use attn_model::{load, verify_folder};
use attn_testkit::{Outcome, pairs};
use candle_core::Device;
use common::*;
use tempfile::TempDir;

/// Folders of whole models, those given and our own.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("ATTN_CONFORMANCE")
        .map_or_else(|| root.join("../../../shared/conformance"), PathBuf::from);
    let mut folders = Vec::new();
    for parent in [given, root.join("tests/fixtures")] {
        let Ok(entries) = std::fs::read_dir(&parent) else {
            println!("{} is not there: skipped", parent.display());
            continue;
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        folders.extend(paths.filter(|path| path.join("config.json").is_file()));
    }
    folders.sort();
    folders
}

#[test]
fn saved_models_give_the_packages_logits_and_tokens() {
    for folder in folders() {
        let found = verify_folder(&folder, &VARIANTS, &pairs(), &Device::Cpu).unwrap();
        println!("{}: {}", folder.display(), found.model);
        for check in &found.report.checks {
            println!(
                "{} {} {}: {:?} of {:.1e}, {:?}",
                check.path, check.dtype, check.name, check.error, check.tolerance, check.outcome
            );
        }
        let report = found.report.assert();
        let in_f32 = report.checks.iter().filter(|check| check.dtype == "f32");
        assert_eq!(in_f32.count(), 4, "logits and tokens on both paths");
    }
}

/// A copy of the first folder there is, its configuration changed; `None` where there is no folder.
fn changed(change: impl FnOnce(&mut serde_json::Value, &Path)) -> Option<TempDir> {
    let folder = folders().into_iter().next()?;
    let copy = TempDir::new().unwrap();
    for name in ["model.safetensors", "expected.safetensors"] {
        std::fs::write(copy.path().join(name), std::fs::read(folder.join(name)).unwrap()).unwrap();
    }
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    change(&mut json, copy.path());
    std::fs::write(copy.path().join("config.json"), json.to_string()).unwrap();
    Some(copy)
}

#[test]
fn settings_that_are_not_built_are_named() {
    let cases = [
        ("hidden_act", serde_json::json!("gelu"), "expected \"silu\""),
        (
            "rope_scaling",
            serde_json::json!({"rope_type": "llama3", "factor": 8.0}),
            "rotary embeddings",
        ),
        (
            "qk_rope_head_dim",
            serde_json::json!(17),
            "`qk_rope_head_dim` is 17",
        ),
        (
            "head_dim",
            serde_json::json!(9),
            "int(head_dim * qk_rope_head_dim",
        ),
        ("kv_lora_rank", serde_json::json!(47), "an even size"),
        ("down_rate", serde_json::json!(0), "an integer from 1"),
        ("hidden_size", serde_json::json!(-3), "`hidden_size` is -3"),
        (
            "hidden_size",
            serde_json::json!("wide"),
            "`hidden_size` is \"wide\"",
        ),
        ("rms_norm_eps", serde_json::json!(-1.0), "a positive number"),
        (
            "num_hidden_layers",
            serde_json::json!(1 << 30),
            "`num_hidden_layers`",
        ),
        (
            "model_type",
            serde_json::json!("llama"),
            "expected \"llama-mtla\"",
        ),
        ("intermediate_size", serde_json::json!(8), "mlp.gate_proj.weight"),
        ("mlp_bias", serde_json::json!(true), "mlp.gate_proj.bias"),
        (
            "quantization_config",
            serde_json::json!({"bits": 4}),
            "quantised weights",
        ),
    ];
    for (key, value, says) in cases {
        let Some(copy) = changed(|json, _| json[key] = value) else {
            return println!("no folder: skipped");
        };
        let error = load(copy.path(), &VARIANTS).unwrap_err().to_string();
        assert!(error.contains(says), "`{says}` is not in: {error}");
    }
}

#[test]
fn what_changes_no_logit_is_taken() {
    let Some(copy) = changed(|json, _| {
        json["attention_bias"] = true.into(); // the package's attention has none
        json["rope_scaling"] = serde_json::json!({"rope_type": "default"});
        json["num_key_value_heads"] = 1.into();
    }) else {
        return println!("no folder: skipped");
    };
    let found = verify_folder(copy.path(), &VARIANTS, &pairs(), &Device::Cpu).unwrap();
    found.report.assert();
}

#[test]
fn a_changed_setting_fails() {
    for (key, value) in [
        ("rope_theta", serde_json::json!(300.0)),
        ("down_rate", serde_json::json!(5)),
        ("rms_norm_eps", serde_json::json!(0.1)),
    ] {
        let Some(copy) = changed(|json, _| json[key] = value) else {
            return println!("no folder: skipped");
        };
        let found = verify_folder(copy.path(), &VARIANTS, &pairs(), &Device::Cpu).unwrap();
        let failed = found
            .report
            .checks
            .iter()
            .any(|check| check.dtype == "f32" && matches!(check.outcome, Outcome::Failed(_)));
        assert!(failed, "{key}");
    }
}

#[test]
fn nothing_to_compare_with_is_no_pass() {
    let Some(copy) = changed(|_, dir| std::fs::remove_file(dir.join("expected.safetensors")).unwrap()) else {
        return println!("no folder: skipped");
    };
    let found = verify_folder(copy.path(), &VARIANTS, &pairs(), &Device::Cpu).unwrap();
    assert!(found.report.checks.is_empty() && !found.report.passed());
    assert!(found.model.contains("layers of mtla"), "{}", found.model);
}

#[test]
fn weights_in_several_files_are_read() {
    let Some(copy) = changed(|_, dir| {
        let path = dir.join("model.safetensors");
        let all = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut map = serde_json::Map::new();
        for (i, (name, tensor)) in all.into_iter().enumerate() {
            let file = format!("model-{:05}.safetensors", i % 3);
            map.insert(name.clone(), file.clone().into());
            let path = dir.join(&file);
            let mut part = match path.is_file() {
                true => candle_core::safetensors::load(&path, &Device::Cpu).unwrap(),
                false => Default::default(),
            };
            part.insert(name, tensor);
            candle_core::safetensors::save(&part, &path).unwrap();
        }
        let index = serde_json::json!({ "weight_map": map });
        std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }) else {
        return println!("no folder: skipped");
    };
    verify_folder(copy.path(), &VARIANTS, &pairs(), &Device::Cpu)
        .unwrap()
        .report
        .assert();
    let index = copy.path().join("model.safetensors.index.json");
    let away = serde_json::json!({ "weight_map": { "x": "../x.safetensors" } });
    std::fs::write(&index, away.to_string()).unwrap();
    let error = load(copy.path(), &VARIANTS).unwrap_err().to_string();
    assert!(error.contains("no file beside it"), "{error}");
}
