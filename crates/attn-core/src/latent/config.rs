//! Sizes and settings of latent attention.

use crate::error::Result;
use crate::geometry::{Entry, Geometry, ProjectionMacs};
use crate::linear::Linear;
use crate::norm::NormKind;
use crate::rope::Pairing;
use crate::settings::{ROPE_THETA, check_rope, rope_theta};
use crate::variant::{ModelDims, ParamKind, ParamSpec, Params};
use crate::weights::WeightSpec;

/// The settings MLA and MTLA share.
///
/// ```
/// use attn_core::latent::LATENT_PARAMS;
///
/// let required = LATENT_PARAMS.iter().filter(|spec| spec.is_required()).map(|spec| spec.name);
/// assert_eq!(required.collect::<Vec<_>>(), ["kv_rank", "rope_dim"]);
/// ```
pub const LATENT_PARAMS: [ParamSpec; 9] = [
    ParamSpec {
        name: "kv_rank",
        kind: ParamKind::Int { min: 1 },
        default: "required",
        help: "latent rank r, what the cache holds of a token beside its rope key",
        symbol: "",
    },
    ParamSpec {
        name: "rope_dim",
        kind: ParamKind::Int { min: 2 },
        default: "required",
        help: "rope size Dr of the one key all heads share",
        symbol: "",
    },
    ParamSpec {
        name: "q_rank",
        kind: ParamKind::Int { min: 0 },
        default: "0",
        help: "rank of the query projection, 0 for one plain projection",
        symbol: "",
    },
    ParamSpec {
        name: "nope_dim",
        kind: ParamKind::Int { min: 1 },
        default: "head_dim",
        help: "key size Dn per head without position",
        symbol: "",
    },
    ParamSpec {
        name: "v_dim",
        kind: ParamKind::Int { min: 1 },
        default: "head_dim",
        help: "value size Dv per head",
        symbol: "",
    },
    ParamSpec {
        name: "norm",
        kind: ParamKind::Choice(&["layer", "rms"]),
        default: "layer",
        help: "norm of latents: LayerNorm with bias (the seed) or RMSNorm (DeepSeek)",
        symbol: "",
    },
    ParamSpec {
        name: "norm_eps",
        kind: ParamKind::Float,
        default: "1e-5",
        help: "epsilon of the norms",
        symbol: "",
    },
    ParamSpec {
        name: "bias",
        kind: ParamKind::Bool,
        default: "false",
        help: "whether the projections of queries, latents and outputs have biases",
        symbol: "",
    },
    ROPE_THETA,
];

/// Sizes and settings of latent attention.
///
/// ```
/// use attn_core::latent::LatentConfig;
/// use attn_core::{Entry, ModelDims, ParamValue, Params, Values};
///
/// let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
/// let params = Params::default().with("kv_rank", ParamValue::Int(256)).with("rope_dim", ParamValue::Int(32));
/// let config = LatentConfig::new(&dims, &params)?;
/// assert_eq!(config.score_dim(), 64 + 32); // Dn + Dr
/// let entry = Entry::new(1, 256 + 32, Values::KeyPrefix(256));
/// assert_eq!(config.geometry(entry, 1, 0, 0).parameters, 1_065_472); // MLA's layer in MTLA's paper
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentConfig {
    /// Model width M.
    pub d_model: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// Latent rank r, of all latent heads together.
    pub kv_rank: usize,
    /// Latent heads, each of rank r over their number and for as many query heads: 1 but for GLA.
    pub n_latents: usize,
    /// Query rank, 0 for one plain projection.
    pub q_rank: usize,
    /// Key size Dn without position.
    pub nope_dim: usize,
    /// Rope size Dr.
    pub rope_dim: usize,
    /// Value size Dv.
    pub v_dim: usize,
    /// Norm of latents.
    pub norm: NormKind,
    /// Its epsilon.
    pub norm_eps: f64,
    /// Whether query, latent and output projections have biases (the decompression `wkv_b` never has).
    pub bias: bool,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Which elements it pairs.
    pub rope_pairing: Pairing,
}

impl LatentConfig {
    /// The configuration of `params` ([`LATENT_PARAMS`]).
    ///
    /// # Errors
    /// [`crate::Error::ParamValue`] where a rank or the rope size is missing, [`crate::Error::Geometry`] where the rope
    /// size is odd.
    pub fn new(dims: &ModelDims, params: &Params) -> Result<Self> {
        let rope_dim = params.required_int("rope_dim")?;
        check_rope("rope_dim", rope_dim)?;
        Ok(Self {
            d_model: dims.d_model,
            n_heads: dims.n_heads,
            kv_rank: params.required_int("kv_rank")?,
            n_latents: 1,
            q_rank: params.int("q_rank", 0)?,
            nope_dim: params.int("nope_dim", dims.head_dim)?,
            rope_dim,
            v_dim: params.int("v_dim", dims.head_dim)?,
            norm: match params.text("norm", "layer")? {
                "rms" => NormKind::Rms,
                _ => NormKind::Layer,
            },
            norm_eps: params.float("norm_eps", 1e-5)?,
            bias: params.bool("bias", false)?,
            rope_theta: rope_theta(params)?,
            rope_pairing: Pairing::default(),
        })
    }

    /// Rank of one latent head.
    pub fn latent_dim(&self) -> usize {
        self.kv_rank / self.n_latents
    }

    /// Width of a query and of a decompressed key per head: Dn + Dr.
    pub fn score_dim(&self) -> usize {
        self.nope_dim + self.rope_dim
    }

    /// Name, shape and initialisation of the shared weights, under the seed's names.
    pub fn weight_specs(&self) -> Vec<WeightSpec> {
        let Self {
            d_model: m,
            n_heads: h,
            kv_rank: r,
            q_rank,
            ..
        } = *self;
        let q_out = h * self.score_dim();
        let mut specs = match q_rank {
            0 => Linear::specs("wq", q_out, m, self.bias),
            _ => [
                Linear::specs("wq_a", q_rank, m, self.bias),
                self.norm.specs("q_norm", q_rank),
                Linear::specs("wq_b", q_out, q_rank, self.bias),
            ]
            .concat(),
        };
        specs.extend(Linear::specs("wkv_a", r + self.rope_dim, m, self.bias));
        specs.extend(self.norm.specs("kv_norm", r));
        let out = h * (self.nope_dim + self.v_dim);
        specs.extend(Linear::specs("wkv_b", out, self.latent_dim(), false));
        specs.extend(Linear::specs("wo", m, h * self.v_dim, self.bias));
        specs
    }

    /// The geometry of a cache that holds `entry` for every `stride` tokens, where a variant adds `extra_macs` a
    /// token and `extra_parameters`.
    pub fn geometry(
        &self,
        entry: Entry,
        stride: usize,
        extra_macs: usize,
        extra_parameters: usize,
    ) -> Geometry {
        let Self {
            d_model: m,
            n_heads: h,
            kv_rank: r,
            q_rank,
            nope_dim: d_n,
            rope_dim: d_r,
            v_dim: d_v,
            ..
        } = *self;
        let q_out = h * self.score_dim();
        let q = if q_rank == 0 {
            m * q_out
        } else {
            m * q_rank + q_rank * q_out
        };
        let query = q + h * d_v * m;
        let key = m * (r + d_r) + extra_macs;
        let specs: usize = self.weight_specs().iter().map(WeightSpec::elements).sum();
        Geometry {
            d_model: m,
            n_heads: h,
            n_kv_heads: h,
            score_dim: self.score_dim(),
            v_dim: d_v,
            stride,
            window: None,
            entry,
            state_elements: if stride > 1 { r } else { 0 },
            parameters: specs + extra_parameters,
            forward_macs: ProjectionMacs {
                query,
                key: key + self.latent_dim() * h * (d_n + d_v),
            },
            decode_macs: ProjectionMacs {
                query: query + self.latent_dim() * h * (d_n + d_v),
                key,
            },
        }
    }
}
