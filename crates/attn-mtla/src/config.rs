//! The variant's settings, and the way from them to a layer.

use attn_core::latent::{LATENT_PARAMS, LatentConfig};
use attn_core::linear::Linear;
use attn_core::{
    Attention, Build, Error, Free, Geometry, LayerConfig, ModelDims, ParamKind, ParamSpec, Params, Result,
    Variant, WeightSpec, Weights,
};

use crate::cache::entry;
use crate::forward::Mtla;
use crate::merging::{Merging, SlotKey};

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "mtla",
    title: "MTLA",
    summary: "latents merged over blocks of `stride` tokens, weighted by a hyper-network",
    paper: "2505.13544",
    cache_formula: "ceil(L / s) (r + Dr)",
    params: &PARAMS,
    // The rank is what the variant trades; the stride is part of the question.
    free: Free::by("kv_rank"),
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

static PARAMS: [ParamSpec; 14] = {
    let mut params = [ParamSpec {
        name: "stride",
        kind: ParamKind::Int { min: 1 },
        default: "2",
        help: "temporal stride s: tokens that share a cache slot",
        symbol: "s",
    }; 14];
    params[1] = ParamSpec {
        name: "hyper_rank",
        kind: ParamKind::Int { min: 1 },
        default: "kv_rank / 4",
        help: "inner size of the hyper-network",
        symbol: "",
    };
    params[2] = ParamSpec {
        name: "merge",
        kind: ParamKind::Choice(&Merging::NAMES),
        default: "hyper",
        help: "what the tokens of a slot are weighed by: hyper-network, a learned constant, 1 / s, 1, or the last alone",
        symbol: "",
    };
    params[3] = ParamSpec {
        name: "rope_key",
        kind: ParamKind::Choice(&SlotKey::NAMES),
        default: "newest",
        help: "whose rope key a slot has: its newest token's, its first's, or the mean of all",
        symbol: "",
    };
    params[4] = ParamSpec {
        name: "train_mask",
        kind: ParamKind::Choice(&["strided", "causal"]),
        default: "strided",
        help: "what a token sees in training: closed slots and its own, as in decoding, or every token before it",
        symbol: "",
    };
    let mut i = 0;
    while i < LATENT_PARAMS.len() {
        params[i + 5] = LATENT_PARAMS[i];
        i += 1;
    }
    params
};

/// Sizes and settings of an MTLA layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MtlaConfig {
    /// What it shares with MLA.
    pub latent: LatentConfig,
    /// Temporal stride s.
    pub stride: usize,
    /// Inner size of the hyper-network, r / 4 in the paper.
    pub hyper_rank: usize,
    /// What the tokens of a slot are weighed by; the paper's is the hyper-network.
    pub merging: Merging,
    /// Whose rope key a slot has; in the paper the newest token's.
    pub slot_key: SlotKey,
    /// Whether training sees every token before a query, as decoding does not: what the paper's mask is there to avoid.
    pub trains_causal: bool,
}

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`Error::Geometry`] where the rope size is odd, or the rank is no multiple of 4.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<MtlaConfig> {
    let latent = LatentConfig::new(dims, params)?;
    let r = latent.kv_rank;
    if r % 2 != 0 {
        return Err(Error::geometry(
            &["kv_rank"],
            format!(
                "the hyper-network encodes block indices in pairs of {r} elements, so kv_rank must be even"
            ),
        ));
    }
    let merging = Merging::named(params.text("merge", "hyper")?);
    if merging != Merging::Hyper && params.0.contains_key("hyper_rank") {
        return Err(Error::geometry(
            &["hyper_rank", "merge"],
            format!(
                "merge {} has no hyper-network, leave out hyper_rank",
                merging.name()
            ),
        ));
    }
    if merging == Merging::Hyper && r % 4 != 0 && !params.0.contains_key("hyper_rank") {
        return Err(Error::geometry(
            &["kv_rank"],
            format!(
                "the hyper-network's rank is kv_rank / 4, so kv_rank {r} must be a multiple of 4 (or set hyper_rank)"
            ),
        ));
    }
    Ok(MtlaConfig {
        latent,
        stride: params.int("stride", 2)?,
        hyper_rank: params.int("hyper_rank", r / 4)?,
        merging,
        slot_key: SlotKey::named(params.text("rope_key", "newest")?),
        trains_causal: params.text("train_mask", "strided")? == "causal",
    })
}

impl MtlaConfig {
    pub(crate) fn hyper_specs(&self) -> Vec<WeightSpec> {
        let (r, inner) = (self.latent.kv_rank, self.hyper_rank);
        match self.merging {
            Merging::Hyper => {}
            // Half of every token to begin with.
            Merging::Constant => {
                return vec![WeightSpec {
                    std: 0.02,
                    ..WeightSpec::bias("merge_logit", 1)
                }];
            }
            Merging::Mean | Merging::Sum | Merging::Last => return Vec::new(),
        }
        ["hypernet_down.fc_c", "hypernet_down.fc_p"]
            .iter()
            .flat_map(|name| Linear::specs(name, inner, r, true))
            .collect()
    }
}

impl LayerConfig for MtlaConfig {
    fn geometry(&self) -> Geometry {
        // The gate is one product with a table row and one multiply-add of the merge per element (fact A).
        let parameters = self.hyper_specs().iter().map(WeightSpec::elements).sum();
        let entry = entry(self.latent.kv_rank, self.latent.rope_dim);
        let merge_macs = match self.merging {
            Merging::Hyper => 2 * self.latent.kv_rank,
            _ => self.latent.kv_rank,
        };
        self.latent.geometry(entry, self.stride, merge_macs, parameters)
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        [self.latent.weight_specs(), self.hyper_specs()].concat()
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        Ok(Box::new(Mtla::new(*self, weights, build)?))
    }
}
