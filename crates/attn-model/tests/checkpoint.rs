//! Saved models come back bit by bit, and damaged ones are refused in words.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use attn_core::{Build, Weights};
use attn_model::{DecoderKind, ModelSpec, load, save};
use candle_core::{DType, Device, Tensor};
use common::*;
use tempfile::TempDir;

fn spec(decoder: DecoderKind, variant: &attn_core::Variant) -> ModelSpec {
    ModelSpec {
        decoder,
        variant: variant.key.to_string(),
        params: params(variant, 3),
        d_model: DIMS.d_model,
        n_heads: DIMS.n_heads,
        head_dim: DIMS.head_dim,
        n_layers: 2,
        d_ff: 20,
        vocab: VOCAB,
        norm_eps: 1e-6,
        tie_embeddings: decoder == DecoderKind::Llama,
        mlp_bias: decoder == DecoderKind::Llama,
    }
}

fn saved(spec: &ModelSpec) -> (TempDir, Weights) {
    let config = spec.configure(&VARIANTS).unwrap();
    let weights = Weights::seeded(&config.weight_specs(), 3).unwrap();
    let dir = TempDir::new().unwrap();
    save(dir.path(), spec, &VARIANTS, &weights).unwrap();
    (dir, weights)
}

#[test]
fn a_model_comes_back_as_it_was() {
    for variant in VARIANTS {
        for kind in [DecoderKind::Prefix, DecoderKind::Llama] {
            let spec = spec(kind, variant);
            let (dir, weights) = saved(&spec);
            let model = load(dir.path(), &VARIANTS).unwrap();
            assert_eq!(model.variant, variant.key);
            let bits = |weights: &Weights| -> Vec<(String, Vec<usize>, Vec<u32>)> {
                let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                weights
                    .iter()
                    .map(|(name, t)| {
                        let bits = bits(t).iter().map(|x| x.to_bits()).collect();
                        (name.to_string(), t.dims().to_vec(), bits)
                    })
                    .collect()
            };
            assert_eq!(bits(&weights), bits(&model.weights));
            let build = Build::cpu(attn_core::Path::Fused, DType::F32);
            let states = (kind == DecoderKind::Prefix).then(|| prefix(1, 3, 1));
            let [before, after] = [
                spec.configure(&VARIANTS).unwrap().build(&weights, &build),
                model.config.build(&model.weights, &build),
            ]
            .map(|decoder| whole(&decoder.unwrap(), states.as_ref(), &tokens(5, 1)));
            assert_close(&after, &before, 0.0, variant.key);
        }
    }
}

#[test]
fn half_precision_weights_stay_what_they_are() {
    let spec = spec(DecoderKind::Prefix, &attn_mla::VARIANT);
    let config = spec.configure(&VARIANTS).unwrap();
    let weights = Weights::seeded(&config.weight_specs(), 3).unwrap();
    let half: Weights = weights
        .iter()
        .map(|(name, t)| (name.to_string(), t.to_dtype(DType::BF16).unwrap()))
        .collect();
    let dir = TempDir::new().unwrap();
    save(dir.path(), &spec, &VARIANTS, &half).unwrap();
    let back = load(dir.path(), &VARIANTS).unwrap();
    assert!(back.weights.iter().all(|(_, t)| t.dtype() == DType::BF16));
    back.config
        .build(&back.weights, &Build::cpu(attn_core::Path::Fused, DType::F32))
        .unwrap();
}

/// Changes a saved folder, and returns what reading it says.
fn damaged(change: impl FnOnce(&Path)) -> String {
    let (dir, _) = saved(&spec(DecoderKind::Prefix, &attn_mtla::VARIANT));
    change(dir.path());
    load(dir.path(), &VARIANTS).unwrap_err().to_string()
}

fn set(key: &'static str, value: serde_json::Value) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join("config.json");
        let mut json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        std::fs::write(path, json.to_string()).unwrap();
    }
}

fn change_weights(change: impl FnOnce(&mut std::collections::HashMap<String, Tensor>)) -> impl FnOnce(&Path) {
    |dir| {
        let path = dir.join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, &path).unwrap();
    }
}

#[test]
fn what_is_damaged_is_named() {
    let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    let expect = |said: String, parts: &[&str]| {
        for part in parts {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    };
    expect(
        damaged(change_weights(|all| {
            drop(all.remove("layers.1.self_attn.wq.weight"))
        })),
        &["`layers.1.self_attn.wq.weight` of shape [56, 24] is missing"],
    );
    expect(
        damaged(change_weights(|all| {
            all.insert("layer_norm.bias".to_string(), zeros(7));
        })),
        &["`layer_norm.bias` has shape [7], expected [24]"],
    );
    expect(
        damaged(change_weights(|all| {
            all.insert("layers.2.fc1.bias".to_string(), zeros(7));
            all.insert("surplus".to_string(), zeros(7));
        })),
        &["`layers.2.fc1.bias` and 1 more is not of the model"],
    );
    expect(
        damaged(|dir| {
            let path = dir.join("model.safetensors");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
        }),
        &["model.safetensors", "damaged or not a safetensors file"],
    );
    expect(
        damaged(|dir| std::fs::write(dir.join("model.safetensors"), b"{}").unwrap()),
        &["model.safetensors", "damaged"],
    );
    expect(
        damaged(|dir| std::fs::remove_file(dir.join("model.safetensors")).unwrap()),
        &["cannot read", "model.safetensors"],
    );
    expect(
        damaged(|dir| std::fs::remove_file(dir.join("config.json")).unwrap()),
        &["cannot read", "config.json"],
    );
    expect(
        damaged(|dir| std::fs::write(dir.join("config.json"), "{").unwrap()),
        &["config.json", "line 1"],
    );
    expect(
        damaged(set("variant", "sliding".into())),
        &["`variant` is `sliding`, expected one of mha, gqa, mqa, mla, mtla"],
    );
    expect(
        damaged(set("format", "other".into())),
        &["`format` is \"other\"", "attn-model-1"],
    );
    expect(damaged(set("dropout", 0.1.into())), &["unknown field `dropout`"]);
    expect(damaged(set("vocab", 0.into())), &["`vocab` is 0"]);
    expect(
        damaged(set("n_layers", 100_000.into())),
        &["`n_layers` is 100000, expected at most"],
    );
    expect(damaged(set("d_ff", 21.into())), &["`layers.0.fc1.weight`"]);
    expect(
        damaged(set("params", serde_json::json!({"kv_rank": 16, "rope_dim": 5}))),
        &["rope_dim 5 must be even"],
    );
    expect(
        damaged(set("model_type", "gpt2".into())),
        &["`model_type` is \"gpt2\", expected \"llama-mtla\""],
    );
}

#[test]
fn what_is_saved_is_checked_first() {
    let spec = spec(DecoderKind::Prefix, &attn_mha::VARIANT);
    let dir = TempDir::new().unwrap();
    let error = save(dir.path(), &spec, &VARIANTS, &Weights::default()).unwrap_err();
    assert!(error.to_string().contains("`embed_tokens.weight`"), "{error}");
    assert!(!dir.path().join("config.json").exists());
}
