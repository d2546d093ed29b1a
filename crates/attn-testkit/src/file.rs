//! Conformance files: weights, input and expected results of an independent implementation.

use std::path::{Path, PathBuf};

use attn_core::{LayerConfig, ModelDims, ParamKind, ParamValue, Params, Variant, Weights};
use candle_core::{Device, Tensor};
use serde_json::Value;

const FORMAT: &str = "attn-conformance-1";
/// No layer is larger; beyond it products of sizes leave 64 bits.
const MAX_SIZE: u64 = 1 << 20;

/// Why a conformance file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path:?}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the reader said.
        reason: String,
    },
    /// It is readable, but not what a conformance file holds.
    #[error("{path:?} is no conformance file: {reason}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong, and what was expected.
        reason: String,
    },
    /// No conformance file among what was given.
    #[error("no conformance file in {path:?}, expected *.safetensors of format {FORMAT}")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The layer it describes failed.
    #[error("{path:?}: {source}")]
    Layer {
        /// The file.
        path: PathBuf,
        /// What the layer said.
        source: attn_core::Error,
    },
}

/// The contents of one file.
#[derive(Debug)]
pub struct ConformanceFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The layer's configuration.
    pub config: Box<dyn LayerConfig>,
    /// Registry key of the variant.
    pub variant: &'static str,
    /// Tokens given in one first call on the incremental path.
    pub prefill: usize,
    /// Weights under the seed's names.
    pub weights: Weights,
    /// Input `[B, T, M]`.
    pub input: Tensor,
    /// Expected tensors by the part of their name after `expected.`.
    expected: Vec<(String, Tensor)>,
}

/// Whether a folder holds a whole model and not conformance files.
pub fn is_model_dir(path: &Path) -> bool {
    path.join("config.json").is_file()
}

impl ConformanceFile {
    /// Reads a file; `variants` are those that can be named in it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(path: &Path, variants: &[&'static Variant]) -> Result<Self, Error> {
        let foreign = |reason: String| Error::Foreign {
            path: path.to_path_buf(),
            reason,
        };
        let read = |reason: String| Error::Read {
            path: path.to_path_buf(),
            reason,
        };
        let bytes = std::fs::read(path).map_err(|err| read(err.to_string()))?;
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|err| read(format!("damaged or not a safetensors file ({err})")))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |name: &str| {
            metadata
                .get(name)
                .ok_or_else(|| foreign(format!("its header has no `{name}`, expected format {FORMAT}")))
        };
        let format = field("format")?;
        if format != FORMAT {
            return Err(foreign(format!("its format is `{format}`, expected {FORMAT}")));
        }
        let key = field("variant")?;
        let Some(variant) = variants.iter().find(|variant| variant.key == key) else {
            let known: Vec<&str> = variants.iter().map(|variant| variant.key).collect();
            return Err(foreign(format!(
                "its variant is `{key}`, expected one of {}",
                known.join(", ")
            )));
        };
        let prefill: usize = field("prefill")?
            .parse()
            .map_err(|_| foreign("its `prefill` is no number of tokens".to_string()))?;
        let settings: Value = serde_json::from_str(field("config")?)
            .map_err(|err| foreign(format!("its `config` is no JSON ({err})")))?;
        let (dims, params) = split_settings(&settings, variant).map_err(foreign)?;
        let config = variant
            .configure(&dims, &params)
            .map_err(|err| foreign(err.to_string()))?;

        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|err| read(format!("damaged tensors ({err})")))?;
        let mut weights = Weights::default();
        let (mut input, mut expected) = (None, Vec::new());
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix("weights.") {
                weights.insert(name, tensor);
            } else if let Some(name) = name.strip_prefix("expected.") {
                expected.push((name.to_string(), tensor));
            } else if name == "input" {
                input = Some(tensor);
            }
        }
        let input = input.ok_or_else(|| foreign("it has no tensor `input` [B, T, M]".to_string()))?;
        let m = dims.d_model;
        match input.dims() {
            &[b, t, width] if width == m && b > 0 && t >= prefill.max(1) => {}
            got => {
                return Err(foreign(format!(
                    "`input` is {got:?}, expected [B, T >= {prefill}, {m}]"
                )));
            }
        }
        for spec in config.weight_specs() {
            weights
                .get(&spec.name, &spec.shape)
                .map_err(|err| foreign(err.to_string()))?;
        }
        let file = Self {
            path: path.to_path_buf(),
            config,
            variant: variant.key,
            prefill,
            weights,
            input,
            expected,
        };
        for name in ["parallel", "incremental"] {
            let got = file.expected(name)?.dims();
            if got != file.input.dims() {
                let want = file.input.dims();
                return Err(file.foreign(format!("`expected.{name}` is {got:?}, expected {want:?}")));
            }
        }
        Ok(file)
    }

    /// The tensor `expected.<name>`.
    ///
    /// # Errors
    /// [`Error::Foreign`] where it is missing.
    pub fn expected(&self, name: &str) -> Result<&Tensor, Error> {
        let found = self.expected.iter().find(|(known, _)| known == name);
        found
            .map(|(_, tensor)| tensor)
            .ok_or_else(|| self.foreign(format!("it has no tensor `expected.{name}`")))
    }

    fn foreign(&self, reason: String) -> Error {
        Error::Foreign {
            path: self.path.clone(),
            reason,
        }
    }
}

/// The model's sizes and the variant's settings among the keys of a file's `config`.
fn split_settings(settings: &Value, variant: &Variant) -> Result<(ModelDims, Params), String> {
    let Value::Object(settings) = settings else {
        return Err("its `config` is no JSON object".to_string());
    };
    let size = |names: &[&str]| {
        let found = names.iter().find_map(|name| settings.get(*name)?.as_u64());
        found
            .filter(|&size| size > 0)
            .map(|size| size as usize)
            .ok_or_else(|| format!("its `config` has no size `{}`", names.join("` or `")))
    };
    let dims = ModelDims {
        d_model: size(&["d_model"])?,
        n_heads: size(&["n_heads"])?,
        head_dim: size(&["head_dim", "nope_dim"])?,
    };
    let mut params = Params::default();
    for (name, value) in settings {
        let spec = variant.param(name);
        let is_size = match &spec {
            Ok(spec) => matches!(spec.kind, ParamKind::Int { .. }),
            Err(_) => true,
        };
        if let Some(size) = value.as_u64().filter(|&size| is_size && size > MAX_SIZE) {
            return Err(format!(
                "its setting `{name}` is {size}, expected at most {MAX_SIZE}"
            ));
        }
        if spec.is_err() {
            // Sizes of the model, and settings that follow from the variant (MHA's n_kv_heads).
            continue;
        }
        let value = match value {
            Value::Bool(value) => ParamValue::Bool(*value),
            Value::String(value) => ParamValue::Text(value.clone()),
            Value::Number(number) => match number.as_u64() {
                Some(value) => ParamValue::Int(value),
                None => ParamValue::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            other => {
                return Err(format!(
                    "its setting `{name}` is {other}, expected a number, a word or a boolean"
                ));
            }
        };
        params.0.insert(name.clone(), value);
    }
    Ok((dims, params))
}
