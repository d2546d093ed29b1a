//! Saved models: a folder of `config.json` and `model.safetensors`.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use attn_core::{DecoderKind, ModelDims, ParamValue, Params, Variant, Weights};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::DecoderConfig;
use crate::error::{Error, Result};
use crate::llama_mtla;

/// Name of the configuration in a folder.
pub(crate) const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const FORMAT: &str = "attn-model-1";
/// No model is larger; beyond it products of sizes leave 64 bits.
pub(crate) const MAX_SIZE: usize = 1 << 20;
/// No model is deeper.
pub(crate) const MAX_LAYERS: usize = 1 << 12;

/// A model's configuration as it is saved: a variant by its name, with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// What stands around the attention layers.
    pub decoder: DecoderKind,
    /// Registry key of the variant.
    pub variant: String,
    /// Its settings.
    #[serde(default)]
    pub params: Params,
    /// Model width M.
    pub d_model: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// Head size D.
    pub head_dim: usize,
    /// Layers N.
    pub n_layers: usize,
    /// Inner size F of the feed-forward layers.
    pub d_ff: usize,
    /// Tokens V of the vocabulary.
    pub vocab: usize,
    /// Epsilon of the decoder's norms.
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    /// Whether the output projection is the embedding.
    #[serde(default)]
    pub tie_embeddings: bool,
    /// Whether the projections of SwiGLU have biases.
    #[serde(default)]
    pub mlp_bias: bool,
}

fn norm_eps() -> f64 {
    1e-5
}

impl ModelSpec {
    /// The configuration, its variant one of `variants`.
    ///
    /// # Errors
    /// [`Error::Input`] where the variant is not among them or a size cannot be, and those of the variant.
    pub fn configure(&self, variants: &[&'static Variant]) -> Result<DecoderConfig> {
        let Some(variant) = variants.iter().find(|variant| variant.key == self.variant) else {
            let known: Vec<&str> = variants.iter().map(|variant| variant.key).collect();
            return Err(Error::input(
                "variant",
                format!("`{}`", self.variant),
                format!("one of {}", known.join(", ")),
            ));
        };
        let sizes = [
            ("d_model", self.d_model),
            ("n_heads", self.n_heads),
            ("head_dim", self.head_dim),
            ("d_ff", self.d_ff),
            ("vocab", self.vocab),
        ];
        for (what, size) in sizes {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(Error::input(what, size, format!("1 to {MAX_SIZE}")));
            }
        }
        for value in self.params.0.values() {
            if let ParamValue::Int(size) = *value
                && size > MAX_SIZE as u64
            {
                return Err(Error::input(
                    "params",
                    size,
                    format!("sizes of at most {MAX_SIZE}"),
                ));
            }
        }
        if self.n_layers > MAX_LAYERS {
            return Err(Error::input(
                "n_layers",
                self.n_layers,
                format!("at most {MAX_LAYERS}"),
            ));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return Err(Error::input("norm_eps", self.norm_eps, "a positive number"));
        }
        let dims = ModelDims {
            d_model: self.d_model,
            n_heads: self.n_heads,
            head_dim: self.head_dim,
        };
        Ok(DecoderConfig {
            kind: self.decoder,
            attention: variant.configure(&dims, &self.params)?.into(),
            n_layers: self.n_layers,
            d_ff: self.d_ff,
            vocab: self.vocab,
            norm_eps: self.norm_eps,
            tie_embeddings: self.tie_embeddings,
            mlp_bias: self.mlp_bias,
        })
    }
}

/// A model as it was read.
#[derive(Debug)]
pub struct SavedModel {
    /// Registry key of its variant.
    pub variant: String,
    /// Everything but its weights.
    pub config: DecoderConfig,
    /// Its weights, as they are in the file.
    pub weights: Weights,
    /// The token that ends a sequence, where the folder says.
    pub eos: Option<u32>,
    /// The token that fills up ended sequences, where the folder says.
    pub pad: Option<u32>,
}

impl SavedModel {
    /// What it is, in words.
    pub fn summary(&self) -> String {
        let c = &self.config;
        format!(
            "{} decoder of {} layers of {}, width {}, vocabulary {}, {} parameters",
            c.kind.name(),
            c.n_layers,
            self.variant,
            c.d_model(),
            c.vocab,
            c.parameters()
        )
    }
}

/// Writes a model to a folder, which is made where it is missing. Reading it gives the same bits.
///
/// # Errors
/// [`Error::Weights`] where they are not those of the configuration, [`Error::File`].
pub fn save(dir: &Path, spec: &ModelSpec, variants: &[&'static Variant], weights: &Weights) -> Result<()> {
    let config = spec.configure(variants)?;
    check_weights(dir, &config, weights, |_| false)?;
    std::fs::create_dir_all(dir).map_err(|error| Error::write(dir, error))?;
    let tensors: HashMap<String, Tensor> = weights
        .iter()
        .map(|(name, tensor)| (name.to_string(), tensor.clone()))
        .collect();
    let path = dir.join(WEIGHTS);
    candle_core::safetensors::save(&tensors, &path).map_err(|error| Error::write(&path, error))?;
    let path = dir.join(CONFIG);
    let mut json = serde_json::json!({ "format": FORMAT });
    if let (Value::Object(all), Ok(Value::Object(spec))) = (&mut json, serde_json::to_value(spec)) {
        all.extend(spec);
    }
    let text = format!("{json:#}\n");
    std::fs::write(&path, text).map_err(|error| Error::write(&path, error))
}

/// Reads a folder that [`save`] wrote, or one of a `LlamaMTLAForCausalLM` of the Python package `mtla`.
///
/// # Errors
/// [`Error::File`], [`Error::Setting`] with the key that cannot be used, [`Error::Weights`] with the name of the weight
/// that is missing, misshapen or left over.
pub fn load(dir: &Path, variants: &[&'static Variant]) -> Result<SavedModel> {
    let path = dir.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|error| Error::read(&path, error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| Error::read(&path, error))?;
    if json.get("model_type").is_some() {
        return llama_mtla::load(dir, &path, &json);
    }
    let setting = |key: &str, got: &Value, expected: String| Error::Setting {
        path: path.clone(),
        key: key.to_string(),
        got: match got {
            Value::Null => "missing".to_string(),
            got => got.to_string(),
        },
        expected,
    };
    let Value::Object(mut settings) = json else {
        return Err(Error::read(&path, "it is no JSON object"));
    };
    let format = settings.remove("format").unwrap_or(Value::Null);
    if format != FORMAT {
        let expected = format!("\"{FORMAT}\", or a `model_type` of a Python package");
        return Err(setting("format", &format, expected));
    }
    let spec: ModelSpec =
        serde_json::from_value(Value::Object(settings)).map_err(|error| Error::read(&path, error))?;
    let config = spec.configure(variants).map_err(|error| match error {
        Error::Input { what, got, expected } => Error::Setting {
            path: path.clone(),
            key: what.to_string(),
            got,
            expected,
        },
        other => Error::read(&path, other),
    })?;
    let weights = read_weights(dir)?;
    check_weights(dir, &config, &weights, |_| false)?;
    Ok(SavedModel {
        variant: spec.variant,
        config,
        weights,
        eos: None,
        pad: None,
    })
}

/// The weights of a folder, in one file or several.
pub(crate) fn read_weights(dir: &Path) -> Result<Weights> {
    let single = dir.join(WEIGHTS);
    let index = dir.join(INDEX);
    if single.is_file() || !index.is_file() {
        return read_tensors(&single);
    }
    let text = std::fs::read_to_string(&index).map_err(|error| Error::read(&index, error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| Error::read(&index, error))?;
    let names = json.get("weight_map").and_then(Value::as_object).map(|map| {
        map.values()
            .map(Value::as_str)
            .collect::<Option<BTreeSet<&str>>>()
    });
    let Some(Some(names)) = names else {
        return Err(Error::read(&index, "it has no `weight_map` of file names"));
    };
    let mut weights = Weights::default();
    for name in names {
        // A name, not a way out of the folder.
        if Path::new(name).components().count() != 1 || name.contains("..") {
            return Err(Error::read(&index, format!("`{name}` is no file beside it")));
        }
        for (name, tensor) in read_tensors(&dir.join(name))?.iter() {
            weights.insert(name, tensor.clone());
        }
    }
    Ok(weights)
}

/// All tensors of a safetensors file.
pub(crate) fn read_tensors(path: &Path) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(|error| Error::read(path, error))?;
    let damaged = |error: String| Error::read(path, format!("damaged or not a safetensors file ({error})"));
    safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|error| damaged(error.to_string().lines().next().unwrap_or_default().to_string()))?;
    Ok(tensors.into_iter().collect())
}

/// Whether `weights` are those of `config`: all of them, and none but those that `is_ignored`.
pub(crate) fn check_weights(
    dir: &Path,
    config: &DecoderConfig,
    weights: &Weights,
    is_ignored: impl Fn(&str) -> bool,
) -> Result<()> {
    let specs = config.weight_specs();
    let wrong = |reason: String| Error::Weights {
        path: PathBuf::from(dir),
        reason,
    };
    for spec in &specs {
        weights
            .get(&spec.name, &spec.shape)
            .map_err(|error| wrong(error.to_string()))?;
    }
    let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let left: Vec<&str> = weights
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !known.contains(name) && !is_ignored(name))
        .collect();
    match left.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(wrong(format!(
            "weight `{first}`{} is not of the model that {CONFIG} describes",
            match left.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            }
        ))),
    }
}
