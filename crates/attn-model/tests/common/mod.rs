//! Small models of every variant.
#![allow(dead_code, reason = "every test uses some of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::sync::Arc;

use attn_core::{
    Build, LayerConfig, ModelDims, ParamValue, Params, Path, Variant, Weights, random_tensor, random_unit,
};
use attn_model::{Decoder, DecoderConfig, DecoderKind};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;

pub const VOCAB: usize = 11;
pub const DIMS: ModelDims = ModelDims {
    d_model: 24,
    n_heads: 4,
    head_dim: 8,
};
pub static VARIANTS: [&Variant; 5] = [
    &attn_mha::VARIANT,
    &attn_gqa::VARIANT,
    &attn_mqa::VARIANT,
    &attn_mla::VARIANT,
    &attn_mtla::VARIANT,
];
pub const PATHS: [Path; 2] = [Path::Fused, Path::Seedlike];

/// Settings of a variant at small sizes.
pub fn params(variant: &Variant, stride: u64) -> Params {
    let mut params = Params::default();
    for (name, value) in [
        ("n_kv_heads", 2),
        ("kv_rank", 16),
        ("rope_dim", 6),
        ("stride", stride),
    ] {
        if variant.param(name).is_ok() {
            params = params.with(name, ParamValue::Int(value));
        }
    }
    params
}

/// The attention of every variant, of MTLA at several strides.
pub fn attentions() -> Vec<(String, Arc<dyn LayerConfig>)> {
    let strides = VARIANTS.iter().flat_map(|variant| {
        let strides = if variant.key == "mtla" { 1..=4 } else { 1..=1 };
        strides.map(move |stride| (*variant, stride))
    });
    strides
        .map(|(variant, stride)| {
            let config = variant.configure(&DIMS, &params(variant, stride)).unwrap();
            (format!("{} s={stride}", variant.key), config.into())
        })
        .collect()
}

/// Two layers around an attention.
pub fn config(kind: DecoderKind, attention: &Arc<dyn LayerConfig>) -> DecoderConfig {
    DecoderConfig::new(kind, attention.clone(), 2)
        .with_d_ff(20)
        .with_vocab(VOCAB)
}

/// Random weights, the output projection three times as large: hypotheses differ clearly.
pub fn weights(config: &DecoderConfig, seed: u64) -> Weights {
    let weights = Weights::seeded(&config.weight_specs(), seed).unwrap();
    weights
        .iter()
        .map(|(name, tensor)| {
            let is_output = name == "output_projection.weight" || name == "lm_head.weight";
            let tensor = if is_output {
                (tensor * 3.0).unwrap()
            } else {
                tensor.clone()
            };
            (name.to_string(), tensor)
        })
        .collect()
}

pub fn decoder(config: &DecoderConfig, path: Path, dtype: DType) -> Decoder {
    config
        .build(&weights(config, 42), &Build::cpu(path, dtype))
        .unwrap()
}

/// Encoder states `[b, s, M]`.
pub fn prefix(b: usize, s: usize, seed: u64) -> Tensor {
    random_tensor(&[b, s, DIMS.d_model], seed, 3, DType::F64, &Device::Cpu).unwrap()
}

/// `n` tokens.
pub fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let uniform = random_unit(n, seed, 5);
    let of = |x: &f32| ((f64::from(*x) / 3f64.sqrt() + 1.0) / 2.0 * VOCAB as f64) as u32;
    uniform.iter().map(|x| of(x).min(VOCAB as u32 - 1)).collect()
}

/// The logits `[T, V]` of one sequence by [`Decoder::forward`], in f64.
pub fn whole(decoder: &Decoder, prefix: Option<&Tensor>, tokens: &[u32]) -> Tensor {
    let ids = Tensor::from_slice(tokens, (1, tokens.len()), &Device::Cpu).unwrap();
    let logits = decoder.forward(prefix, &ids).unwrap();
    logits.squeeze(0).unwrap().to_dtype(DType::F64).unwrap()
}

/// Asserts that two results agree to `tolerance` of the second one's scale.
#[track_caller]
pub fn assert_close(got: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    let difference = attn_testkit::compare(got, expected).unwrap();
    assert!(
        difference.within(tolerance),
        "{what}: {difference:?}, {tolerance:.1e} allowed"
    );
}

/// A direction to try a gradient along.
pub fn direction(shape: &[usize]) -> Tensor {
    random_tensor(shape, 77, 9, DType::F64, &Device::Cpu).unwrap()
}

/// A decoder of an independent implementation, with what it computed.
pub struct FixtureModel {
    pub config: DecoderConfig,
    pub settings: Value,
    pub metadata: HashMap<String, String>,
    pub weights: Weights,
    pub tensors: HashMap<String, Tensor>,
}

impl FixtureModel {
    pub fn read(path: &std::path::Path, format: &str) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        assert_eq!(metadata["format"], format);
        let settings: Value = serde_json::from_str(&metadata["config"]).unwrap();
        let size = |name: &str| settings[name].as_u64().unwrap() as usize;
        let head_dim = settings["head_dim"].as_u64().or(settings["nope_dim"].as_u64());
        let dims = ModelDims {
            d_model: size("d_model"),
            n_heads: size("n_heads"),
            head_dim: head_dim.unwrap() as usize,
        };
        let key = &metadata["variant"];
        let variant = VARIANTS.iter().find(|variant| variant.key == key).unwrap();
        let mut params = Params::default();
        for (name, value) in settings.as_object().unwrap() {
            let value = match (variant.param(name).is_ok(), value) {
                (false, _) => continue,
                (true, Value::Bool(value)) => ParamValue::Bool(*value),
                (true, value) => match value.as_u64() {
                    Some(value) => ParamValue::Int(value),
                    None => ParamValue::Float(value.as_f64().unwrap()),
                },
            };
            params = params.with(name, value);
        }
        let attention = variant.configure(&dims, &params).unwrap();
        let config = DecoderConfig::new(DecoderKind::Prefix, attention, size("n_layers"))
            .with_d_ff(size("d_ff"))
            .with_vocab(size("vocab"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let weights = tensors
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix("weights.")?.to_string(), t.clone())))
            .collect();
        Self {
            config,
            settings,
            metadata,
            weights,
            tensors,
        }
    }
}

/// The fixtures whose names begin with `head`.
pub fn fixtures(head: &str) -> Vec<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(head));
    paths.sort();
    paths
}
