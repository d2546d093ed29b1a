//! Models that the Python package `mtla` saves: `LlamaMTLAForCausalLM`, a Llama with MTLA in every layer.
//!
//! Its MTLA is the one of the seed, with RoPE in the rotate-half form and the model's own base. Its attention has no
//! biases whatever `attention_bias` says, and it takes `num_key_value_heads`, `recompute_prompt_attn` and `use_cache`
//! for nothing that would change a logit: so do we.

use std::path::Path;
use std::sync::Arc;

use attn_core::DecoderKind;
use attn_core::latent::LatentConfig;
use attn_core::norm::NormKind;
use attn_core::rope::Pairing;
use attn_mtla::{Merging, MtlaConfig, SlotKey};
use serde_json::Value;

use crate::checkpoint::{MAX_LAYERS, MAX_SIZE, SavedModel, check_weights, read_weights};
use crate::config::DecoderConfig;
use crate::error::{Error, Result};

const MODEL_TYPE: &str = "llama-mtla";
/// The epsilon of torch's LayerNorm, which the package does not set.
const LATENT_NORM_EPS: f64 = 1e-5;

/// The settings of a `config.json`, missing ones as in the package's `LlamaMTLAConfig`.
struct Settings<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl Settings<'_> {
    /// A value that is there and not null.
    fn value(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: impl Into<String>) -> Error {
        Error::Setting {
            path: self.path.to_path_buf(),
            key: key.to_string(),
            got: self.value(key).map_or("missing".to_string(), Value::to_string),
            expected: expected.into(),
        }
    }

    fn size(&self, key: &str, default: usize, min: usize, max: usize) -> Result<usize> {
        let Some(value) = self.value(key) else {
            return Ok(default);
        };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.filter(|size| (min..=max).contains(size))
            .ok_or_else(|| self.wrong(key, format!("an integer from {min} to {max}")))
    }

    fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.value(key) else {
            return Ok(default);
        };
        value
            .as_f64()
            .filter(|value| value.is_finite() && *value > 0.0)
            .ok_or_else(|| self.wrong(key, "a positive number"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.value(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A token, the first where there are several.
    fn token(&self, key: &str) -> Option<u32> {
        let value = self.value(key)?;
        let value = value.as_array().and_then(|all| all.first()).unwrap_or(value);
        value.as_u64().and_then(|token| u32::try_from(token).ok())
    }

    /// Refuses what would change the logits and is not built.
    fn check(&self) -> Result<()> {
        if self.value("model_type").and_then(Value::as_str) != Some(MODEL_TYPE) {
            return Err(self.wrong("model_type", format!("\"{MODEL_TYPE}\"")));
        }
        match self.value("hidden_act").map(Value::as_str) {
            None | Some(Some("silu" | "swish")) => {}
            Some(_) => return Err(self.wrong("hidden_act", "\"silu\", the only one that is built")),
        }
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.value(key) else { continue };
            let kind = value
                .get("rope_type")
                .or(value.get("type"))
                .and_then(Value::as_str);
            let has_theta = value.get("rope_theta").is_some() && self.value("rope_theta").is_none();
            if kind != Some("default") || has_theta {
                return Err(self.wrong(key, "null: scaled rotary embeddings are not built"));
            }
        }
        if self.value("quantization_config").is_some() {
            return Err(self.wrong("quantization_config", "null: quantised weights are not read"));
        }
        Ok(())
    }

    fn latent(&self) -> Result<LatentConfig> {
        let d_model = self.size("hidden_size", 4096, 1, MAX_SIZE)?;
        let n_heads = self.size("num_attention_heads", 32, 1, MAX_SIZE)?;
        let nope_dim = self.size("qk_nope_head_dim", 64, 1, MAX_SIZE)?;
        let rope_dim = self.size("qk_rope_head_dim", 32, 2, MAX_SIZE)?;
        let head_dim = self.size("head_dim", d_model / n_heads, 1, MAX_SIZE)?;
        // As the package computes it, rounding included: the rotary embedding's size, which its attention does not check.
        let factor = rope_dim as f64 / nope_dim as f64;
        if (head_dim as f64 * factor) as usize != rope_dim || rope_dim % 2 != 0 {
            return Err(self.wrong(
                "qk_rope_head_dim",
                format!(
                    "an even size that is int(head_dim * qk_rope_head_dim / qk_nope_head_dim): the package turns {} elements of a head of {head_dim}",
                    (head_dim as f64 * factor) as usize
                ),
            ));
        }
        let kv_rank = self.size("kv_lora_rank", 256, 4, MAX_SIZE)?;
        if kv_rank % 2 != 0 {
            return Err(self.wrong("kv_lora_rank", "an even size: block indices are encoded in pairs"));
        }
        Ok(LatentConfig {
            n_latents: 1,
            d_model,
            n_heads,
            kv_rank,
            q_rank: self.size("q_lora_rank", 0, 0, MAX_SIZE)?,
            nope_dim,
            rope_dim,
            v_dim: self.size("v_head_dim", 64, 1, MAX_SIZE)?,
            norm: NormKind::Layer,
            norm_eps: LATENT_NORM_EPS,
            bias: false,
            rope_theta: self.positive("rope_theta", 10_000.0)?,
            rope_pairing: Pairing::Halves,
        })
    }
}

/// Reads a folder whose `config.json` (`json`, at `path`) names a model of a Python package.
pub(crate) fn load(dir: &Path, path: &Path, json: &Value) -> Result<SavedModel> {
    let settings = Settings { path, json };
    settings.check()?;
    let mut latent = settings.latent()?;
    let weights = read_weights(dir)?;
    let has_bias = weights.contains("model.layers.0.self_attn.wo.bias");
    latent.bias = has_bias;
    let config = DecoderConfig {
        kind: DecoderKind::Llama,
        n_layers: settings.size("num_hidden_layers", 32, 0, MAX_LAYERS)?,
        d_ff: settings.size("intermediate_size", 11_008, 1, MAX_SIZE)?,
        vocab: settings.size("vocab_size", 32_000, 1, MAX_SIZE)?,
        norm_eps: settings.positive("rms_norm_eps", 1e-6)?,
        tie_embeddings: settings.flag("tie_word_embeddings")?,
        mlp_bias: settings.flag("mlp_bias")?,
        attention: Arc::new(MtlaConfig {
            hyper_rank: latent.kv_rank / 4,
            merging: Merging::Hyper,
            slot_key: SlotKey::Newest,
            trains_causal: false,
            stride: settings.size("down_rate", 2, 1, MAX_SIZE)?,
            latent,
        }),
    };
    let is_tied = config.tie_embeddings;
    // Tables that older versions store, a copy of the embedding, and a bias that the package creates and never reads.
    check_weights(dir, &config, &weights, |name| {
        name.ends_with("rotary_emb.inv_freq")
            || (is_tied && name == "lm_head.weight")
            || (has_bias && name.ends_with("self_attn.wkv_b.bias"))
    })?;
    Ok(SavedModel {
        variant: attn_mtla::VARIANT.key.to_string(),
        config,
        weights,
        eos: settings.token("eos_token_id"),
        pad: settings.token("pad_token_id"),
    })
}
