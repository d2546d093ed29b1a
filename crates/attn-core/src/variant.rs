//! How a variant introduces itself: its settings, and the way from settings to a layer.
//!
//! ```
//! use attn_core::{ModelDims, ParamValue, Params};
//!
//! let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
//! let settings = Params::default().with("stride", ParamValue::Int(2));
//! assert_eq!(settings.int("stride", 1)?, 2);
//! assert_eq!(settings.int("kv_rank", 4 * dims.head_dim)?, 256); // not given: the default
//! # Ok::<(), attn_core::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::habits::{Habit, Habits};
use crate::weights::{WeightSpec, Weights};

/// Sizes that all variants of a sweep share.
///
/// ```
/// use attn_core::ModelDims;
///
/// let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
/// assert_eq!(dims.n_heads * dims.head_dim, dims.d_model); // usual, and not required
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelDims {
    /// Model width M.
    pub d_model: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// Head size D.
    pub head_dim: usize,
}

/// Which formulation computes a layer.
///
/// ```
/// use attn_core::Path;
/// use candle_core::DType;
///
/// assert_eq!(Path::Fused.to_string(), "fused");
/// assert!(Path::Fused.supports(DType::BF16));
/// assert!(!Path::Seedlike.supports(DType::BF16)); // the seed computes in f32
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Operation by operation as the seed's PyTorch does: concatenated caches, expanded heads, dense masks.
    Seedlike,
    /// The compact formulation: preallocated caches, grouped heads, no dense mask.
    Fused,
}

impl Path {
    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seedlike => "seedlike",
            Self::Fused => "fused",
        }
    }

    /// Whether the path is defined for a dtype: the seed computes in f32 (f64 serves as the reference).
    pub fn supports(self, dtype: DType) -> bool {
        match self {
            Self::Fused => matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16),
            Self::Seedlike => matches!(dtype, DType::F64 | DType::F32),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value of a variant's setting.
///
/// ```
/// use attn_core::ParamValue;
///
/// assert_eq!(ParamValue::Int(256).to_string(), "256");
/// assert_eq!(ParamValue::Text("rms".into()).to_string(), "rms");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// A yes or no.
    Bool(bool),
    /// A size.
    Int(u64),
    /// A real number.
    Float(f64),
    /// One of a list of words.
    Text(String),
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// What a setting may be.
///
/// ```
/// use attn_core::ParamKind;
///
/// assert_eq!(ParamKind::Int { min: 1 }.to_string(), "an integer of at least 1");
/// assert_eq!(ParamKind::Choice(&["layer", "rms"]).to_string(), "one of layer, rms");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamKind {
    /// An integer of at least this much.
    Int {
        /// The smallest value that makes sense.
        min: u64,
    },
    /// A positive real number.
    Float,
    /// A yes or no.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int { min } => write!(f, "an integer of at least {min}"),
            Self::Float => f.write_str("a positive number"),
            Self::Bool => f.write_str("true or false"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// One setting of a variant, as `list variants` and the schema show it.
///
/// ```
/// use attn_core::{ParamKind, ParamSpec, ParamValue};
///
/// let stride = ParamSpec {
///     name: "stride",
///     kind: ParamKind::Int { min: 1 },
///     default: "2",
///     help: "tokens that share a cache slot",
///     symbol: "s",
/// };
/// assert!(!stride.is_required());
/// assert!(stride.check("mtla", &ParamValue::Int(3)).is_ok());
/// let error = stride.check("mtla", &ParamValue::Int(0)).unwrap_err();
/// assert_eq!(error.to_string(), "mtla.stride is 0, expected an integer of at least 1");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ParamSpec {
    /// Name in a sweep file and in rows.
    pub name: &'static str,
    /// What it may be.
    pub kind: ParamKind,
    /// `required` where there is none; else a literal, or a size or another setting, possibly over a number
    /// (`head_dim`, `kv_rank / 4`).
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Symbol in labels (`s` in `MTLA s=2`); empty where labels show it only if it varies in a sweep.
    pub symbol: &'static str,
}

impl ParamSpec {
    /// Whether a sweep must give the setting.
    pub fn is_required(&self) -> bool {
        self.default == "required"
    }

    /// The default beside these sizes and settings, `None` where it is required.
    fn default_value(&self, dims: &ModelDims, params: &Params) -> Option<ParamValue> {
        match self.kind {
            ParamKind::Bool => self.default.parse().ok().map(ParamValue::Bool),
            ParamKind::Float => self.default.parse().ok().map(ParamValue::Float),
            ParamKind::Choice(words) => words
                .contains(&self.default)
                .then(|| ParamValue::Text(self.default.to_string())),
            ParamKind::Int { .. } => {
                let (name, divisor) = match self.default.split_once(" / ") {
                    Some((name, divisor)) => (name, divisor.parse().ok()?),
                    None => (self.default, 1),
                };
                let value = match name {
                    "d_model" => dims.d_model as u64,
                    "n_heads" => dims.n_heads as u64,
                    "head_dim" => dims.head_dim as u64,
                    other => match params.0.get(other) {
                        Some(ParamValue::Int(value)) => *value,
                        _ => other.parse().ok()?,
                    },
                };
                Some(ParamValue::Int(value / divisor))
            }
        }
    }

    /// Checks type and range of `value`.
    ///
    /// # Errors
    /// [`Error::ParamValue`].
    pub fn check(&self, variant: &str, value: &ParamValue) -> Result<()> {
        let ok = match (self.kind, value) {
            (ParamKind::Int { min }, ParamValue::Int(value)) => *value >= min,
            (ParamKind::Float, ParamValue::Float(value)) => value.is_finite() && *value > 0.0,
            (ParamKind::Float, ParamValue::Int(value)) => *value > 0,
            (ParamKind::Bool, ParamValue::Bool(_)) => true,
            (ParamKind::Choice(words), ParamValue::Text(word)) => words.contains(&word.as_str()),
            _ => false,
        };
        if ok {
            return Ok(());
        }
        Err(Error::ParamValue {
            variant: variant.to_string(),
            name: self.name.to_string(),
            expected: self.kind.to_string(),
            got: value.to_string(),
        })
    }
}

/// Settings of one variant at one point of a sweep.
///
/// ```
/// use attn_core::{ParamValue, Params};
///
/// let params = Params::default()
///     .with("kv_rank", ParamValue::Int(256))
///     .with("norm", ParamValue::Text("rms".into()))
///     .with("bias", ParamValue::Bool(true));
/// assert_eq!(params.int("kv_rank", 1)?, 256);
/// assert_eq!(params.text("norm", "layer")?, "rms");
/// assert!(params.bool("bias", false)?);
/// assert_eq!(params.float("rope_theta", 10_000.0)?, 10_000.0); // not given
/// assert!(params.int("norm", 1).is_err()); // a word is no integer
/// assert!(params.required_int("rope_dim").is_err()); // missing
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(pub BTreeMap<String, ParamValue>);

impl Params {
    /// An integer setting that has no default.
    ///
    /// # Errors
    /// [`Error::ParamValue`] where it is missing or no integer.
    pub fn required_int(&self, name: &str) -> Result<usize> {
        match self.0.get(name) {
            Some(_) => self.int(name, 0),
            None => Err(Self::wrong(name, "an integer", &"missing")),
        }
    }

    /// An integer setting, or its default.
    ///
    /// # Errors
    /// [`Error::ParamValue`] where it is no integer.
    pub fn int(&self, name: &str, default: usize) -> Result<usize> {
        match self.0.get(name) {
            None => Ok(default),
            Some(ParamValue::Int(value)) => Ok(*value as usize),
            Some(other) => Err(Self::wrong(name, "an integer", other)),
        }
    }

    /// A real setting, or its default.
    ///
    /// # Errors
    /// [`Error::ParamValue`] where it is no number.
    pub fn float(&self, name: &str, default: f64) -> Result<f64> {
        match self.0.get(name) {
            None => Ok(default),
            Some(ParamValue::Int(value)) => Ok(*value as f64),
            Some(ParamValue::Float(value)) => Ok(*value),
            Some(other) => Err(Self::wrong(name, "a number", other)),
        }
    }

    /// A yes-or-no setting, or its default.
    ///
    /// # Errors
    /// [`Error::ParamValue`] where it is neither.
    pub fn bool(&self, name: &str, default: bool) -> Result<bool> {
        match self.0.get(name) {
            None => Ok(default),
            Some(ParamValue::Bool(value)) => Ok(*value),
            Some(other) => Err(Self::wrong(name, "true or false", other)),
        }
    }

    /// A word, or its default.
    ///
    /// # Errors
    /// [`Error::ParamValue`] where it is no word.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        match self.0.get(name) {
            None => Ok(default),
            Some(ParamValue::Text(value)) => Ok(value),
            Some(other) => Err(Self::wrong(name, "a word", other)),
        }
    }

    /// Sets a setting; for tests and builders.
    #[must_use]
    pub fn with(mut self, name: &str, value: ParamValue) -> Self {
        self.0.insert(name.to_string(), value);
        self
    }

    fn wrong(name: &str, expected: &str, got: &dyn fmt::Display) -> Error {
        Error::ParamValue {
            variant: "variant".to_string(),
            name: name.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }
}

/// How a layer is to be built: formulation, element type and place.
///
/// ```
/// use attn_core::{Build, Habit, Habits, Path};
/// use candle_core::DType;
///
/// assert!(!Build::cpu(Path::Fused, DType::BF16).has(Habit::Cat));
/// let seed = Build::cpu(Path::Seedlike, DType::BF16);
/// assert!(seed.has(Habit::F32) && !seed.is_defined()); // f32 is one of its habits
/// assert!(seed.with_habits(Habits::ALL.without(Habit::F32)).is_defined());
/// ```
#[derive(Debug, Clone)]
pub struct Build {
    /// Formulation.
    pub path: Path,
    /// Element type of weights, activations and cache.
    pub dtype: DType,
    /// Where tensors live.
    pub device: Device,
    /// Which of the seed's habits the seed-like path has.
    pub habits: Habits,
}

impl Build {
    /// A build with all habits on the seed-like path, and none on the other.
    pub fn new(path: Path, dtype: DType, device: Device) -> Self {
        let habits = match path {
            Path::Seedlike => Habits::ALL,
            Path::Fused => Habits::NONE,
        };
        Self {
            path,
            dtype,
            device,
            habits,
        }
    }

    /// A build on the CPU.
    pub fn cpu(path: Path, dtype: DType) -> Self {
        Self::new(path, dtype, Device::Cpu)
    }

    /// The same with these habits alone, which only the seed-like path has.
    #[must_use]
    pub fn with_habits(mut self, habits: Habits) -> Self {
        if self.path == Path::Seedlike {
            self.habits = habits;
        }
        self
    }

    /// Whether the layer has a habit.
    pub fn has(&self, habit: Habit) -> bool {
        self.habits.contains(habit)
    }

    /// Whether path and habits are defined for the element type: the seed computes in f32, unless that habit is left
    /// out (f64 serves as the reference).
    pub fn is_defined(&self) -> bool {
        match self.path {
            Path::Seedlike if !self.has(Habit::F32) => Path::Fused.supports(self.dtype),
            path => path.supports(self.dtype),
        }
    }
}

/// A validated configuration: everything about a layer but its weights.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Build, Entry, LayerConfig, ModelDims, Params, Path, Values, WeightSpec, Weights};
/// use candle_core::DType;
///
/// /// Parameters of any configuration, of which no weight was made.
/// fn parameters(config: &dyn LayerConfig) -> usize {
///     config.weight_specs().iter().map(WeightSpec::elements).sum()
/// }
///
/// let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
/// let entry = Entry::new(8, 64, Values::Own(64));
/// let mha = GroupedConfig::new(&dims, entry, &Params::default())?;
/// assert_eq!(parameters(&mha), 4 * (512 * 512 + 512));
/// assert_eq!(mha.geometry().parameters, parameters(&mha));
/// let weights = Weights::seeded(&mha.weight_specs(), 42)?;
/// let layer = mha.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
/// assert_eq!(layer.geometry(), &mha.geometry());
/// # Ok::<(), attn_core::Error>(())
/// ```
pub trait LayerConfig: fmt::Debug + Send + Sync {
    /// Sizes, for caches and costs, without building anything.
    fn geometry(&self) -> Geometry;

    /// Name, shape and initialisation of every weight.
    fn weight_specs(&self) -> Vec<WeightSpec>;

    /// The layer over the given weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the path is not defined for the dtype.
    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>>;
}

/// What a fairness mode may change of a variant to make it equal to another one in some quantity: for each quantity
/// the name of one of its settings, or of a size of the model (`n_heads`, `head_dim`, `d_model`). The quantity must
/// never fall as the named value grows.
///
/// ```
/// use attn_core::Free;
///
/// // A variant whose parameters and operations follow its heads, and its cache the heads of keys.
/// let gqa = Free { params: "n_heads", kv_bytes: "n_kv_heads", flops: "n_heads" };
/// assert_eq!(gqa.kv_bytes, "n_kv_heads");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// For the same number of parameters.
    pub params: &'static str,
    /// For the same bytes of cache per token.
    pub kv_bytes: &'static str,
    /// For the same operations.
    pub flops: &'static str,
}

impl Free {
    /// The same setting or size for every quantity.
    ///
    /// ```
    /// use attn_core::Free;
    ///
    /// assert_eq!(Free::by("kv_rank").flops, "kv_rank");
    /// ```
    pub const fn by(name: &'static str) -> Self {
        Self {
            params: name,
            kv_bytes: name,
            flops: name,
        }
    }
}

/// A registry entry: how a variant introduces itself.
///
/// ```
/// use attn_core::grouped::{GROUPED_PARAMS, GroupedConfig};
/// use attn_core::{Entry, Free, LayerConfig, ModelDims, ParamValue, Params, Values, Variant};
///
/// static MQA: Variant = Variant {
///     key: "mqa",
///     title: "MQA",
///     summary: "all query heads share one key and value head",
///     paper: "1911.02150",
///     cache_formula: "2 D L",
///     params: &GROUPED_PARAMS,
///     free: Free { params: "n_heads", kv_bytes: "head_dim", flops: "n_heads" },
///     configure: |dims, params| {
///         let entry = Entry::new(1, dims.head_dim, Values::Own(dims.head_dim));
///         Ok(Box::new(GroupedConfig::new(dims, entry, params)?) as Box<dyn LayerConfig>)
///     },
/// };
///
/// let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
/// assert_eq!(MQA.configure(&dims, &Params::default())?.geometry().n_kv_heads, 1);
/// // What was not given has its default in rows and ids; what there is not is refused by name.
/// assert_eq!(MQA.complete(&dims, &Params::default()).0["bias"], ParamValue::Bool(true));
/// let unknown = Params::default().with("stride", ParamValue::Int(2));
/// let error = MQA.configure(&dims, &unknown).unwrap_err();
/// assert_eq!(error.to_string(), "mqa has no setting `stride`, it has bias, rope_theta");
/// assert_eq!(MQA.label(&Params::default(), &[]), "MQA");
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Registry key, lower case: the name in sweeps and rows.
    pub key: &'static str,
    /// Name in figures.
    pub title: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// arXiv id.
    pub paper: &'static str,
    /// Cache elements per sequence and layer, as a formula.
    pub cache_formula: &'static str,
    /// Its settings beside the model's sizes.
    pub params: &'static [ParamSpec],
    /// What is solved for where a sweep holds something equal.
    pub free: Free,
    /// From settings to a validated configuration.
    pub configure: fn(&ModelDims, &Params) -> Result<Box<dyn LayerConfig>>,
}

impl Variant {
    /// Checks names, types and ranges of settings, then configures.
    ///
    /// # Errors
    /// [`Error::UnknownParam`], [`Error::ParamValue`] or [`Error::Geometry`].
    pub fn configure(&self, dims: &ModelDims, params: &Params) -> Result<Box<dyn LayerConfig>> {
        for (name, value) in &params.0 {
            self.param(name)?.check(self.key, value)?;
        }
        for spec in self.params {
            if spec.is_required() && !params.0.contains_key(spec.name) {
                return Err(Error::ParamValue {
                    variant: self.key.to_string(),
                    name: spec.name.to_string(),
                    expected: spec.kind.to_string(),
                    got: "missing".to_string(),
                });
            }
        }
        (self.configure)(dims, params)
    }

    /// `params` with the defaults of what was not given, so that rows and ids do not depend on what a sweep left
    /// unsaid. A default that does not go with what was given is left out: it is of a part that the layer has not.
    #[must_use]
    pub fn complete(&self, dims: &ModelDims, params: &Params) -> Params {
        let mut complete = params.clone();
        for spec in self.params {
            if let (false, Some(value)) = (params.0.contains_key(spec.name), spec.default_value(dims, params))
            {
                let with_default = complete.clone().with(spec.name, value);
                if self.configure(dims, &with_default).is_ok() || self.configure(dims, &complete).is_err() {
                    complete = with_default;
                }
            }
        }
        complete
    }

    /// The setting of that name.
    ///
    /// # Errors
    /// [`Error::UnknownParam`].
    pub fn param(&self, name: &str) -> Result<&ParamSpec> {
        self.params
            .iter()
            .find(|spec| spec.name == name)
            .ok_or_else(|| Error::UnknownParam {
                variant: self.key.to_string(),
                name: name.to_string(),
                known: match self.params {
                    [] => "none".to_string(),
                    params => params.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", "),
                },
            })
    }

    /// The label of a point in figures: title and the settings that tell it from its siblings. Of a choice of words the
    /// usual one goes without saying.
    pub fn label(&self, params: &Params, varying: &[&str]) -> String {
        let mut label = self.title.to_string();
        for spec in self.params {
            let shown = !spec.symbol.is_empty() || varying.contains(&spec.name);
            let is_usual = |value: &ParamValue| {
                matches!(spec.kind, ParamKind::Choice(_)) && value.to_string() == spec.default
            };
            if let (true, Some(value)) = (shown, params.0.get(spec.name).filter(|value| !is_usual(value))) {
                let symbol = if spec.symbol.is_empty() {
                    spec.name
                } else {
                    spec.symbol
                };
                label.push_str(&format!(" {symbol}={value}"));
            }
        }
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PARAMS: [ParamSpec; 5] = {
        const INT: ParamKind = ParamKind::Int { min: 1 };
        const fn spec(name: &'static str, kind: ParamKind, default: &'static str) -> ParamSpec {
            ParamSpec {
                name,
                kind,
                default,
                help: "",
                symbol: "",
            }
        }
        [
            spec("rank", INT, "required"),
            spec("inner", INT, "rank / 4"),
            spec("size", INT, "head_dim"),
            spec("eps", ParamKind::Float, "1e-5"),
            spec("norm", ParamKind::Choice(&["layer", "rms"]), "layer"),
        ]
    };

    #[test]
    fn defaults_are_literals_sizes_and_parts_of_settings() {
        let variant = Variant {
            key: "toy",
            title: "Toy",
            summary: "",
            paper: "",
            cache_formula: "",
            params: &PARAMS,
            free: Free::by("rank"),
            configure: |_, _| Err(Error::geometry(&[], "never configured")),
        };
        let dims = ModelDims {
            d_model: 24,
            n_heads: 4,
            head_dim: 6,
        };
        let given = Params::default()
            .with("rank", ParamValue::Int(16))
            .with("norm", ParamValue::Text("rms".into()));
        let complete = variant.complete(&dims, &given);
        let expected = given
            .with("inner", ParamValue::Int(4))
            .with("size", ParamValue::Int(6))
            .with("eps", ParamValue::Float(1e-5));
        assert_eq!(complete, expected);
    }
}
