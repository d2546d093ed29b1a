//! A case as it travels to a worker: all that defines it, and nothing that follows from that.

use std::ops::Deref;

use attn_core::{Geometry, Habits, ModelDims, ModelShape, Params, Path, Prefix, Scope, Variant, Workload};
use serde::{Deserialize, Serialize};

use super::plant::Fault;
use crate::plan::Case;
use crate::sweep::{DeviceRequest, Dtype, Launch, Regime};

/// What a worker is told of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Key of the variant in the registry.
    pub variant: String,
    /// The variant's settings.
    pub params: Params,
    /// Sizes all variants share.
    pub dims: ModelDims,
    /// Workload and its sizes.
    pub workload: Workload,
    /// What is measured.
    pub scope: Scope,
    /// Formulation.
    pub path: Path,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the decoder around the layer, in scope `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelShape>,
    /// What of the seed's habits it has; none on path fused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub habits: Option<Habits>,
    /// Where a beam search keeps the prefix of its hypotheses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Device asked for.
    pub device: DeviceRequest,
    /// What the caches hold when a sample begins.
    pub regime: Regime,
    /// How a step gets to a GPU.
    pub launch: Option<Launch>,
    /// Seed of weights, inputs and cache contents.
    pub seed: u64,
    /// Consecutive steps of a sample.
    pub steps_per_sample: usize,
    /// Tokens the cache must hold per sequence.
    pub cache_capacity: usize,
    /// Whether to compare it with the reference: not where another worker of the same build has done so.
    pub verify: bool,
    /// What a test wants to go wrong.
    pub fault: Option<Fault>,
}

impl JobSpec {
    /// The case as a worker needs it.
    pub fn new(case: &Case, verify: bool, fault: Option<Fault>) -> Self {
        Self {
            variant: case.variant.key.to_string(),
            params: case.params.clone(),
            dims: case.dims,
            workload: case.workload,
            scope: case.scope,
            path: case.path,
            dtype: case.dtype,
            model: case.model,
            habits: case.habits,
            prefix: case.prefix,
            device: case.device,
            regime: case.regime,
            launch: case.launch,
            seed: case.seed,
            steps_per_sample: case.steps_per_sample,
            cache_capacity: case.cache_capacity,
            verify,
            fault,
        }
    }
}

/// A case as a worker runs it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    spec: JobSpec,
    /// The variant.
    pub(crate) variant: &'static Variant,
    /// Sizes of the layer.
    pub(crate) geometry: Geometry,
}

impl Job {
    /// Looks the variant up and asks it for its geometry.
    pub(crate) fn new(spec: JobSpec, variants: &[&'static Variant]) -> attn_core::Result<Self> {
        let unknown = || attn_core::Error::Unsupported {
            what: format!("variant `{}`", spec.variant),
            remedy: "the worker is of another build, start the run anew".to_string(),
        };
        let variant = variants
            .iter()
            .find(|variant| variant.key == spec.variant)
            .ok_or_else(unknown)?;
        let geometry = variant.configure(&spec.dims, &spec.params)?.geometry();
        Ok(Self {
            spec,
            variant,
            geometry,
        })
    }
}

impl Deref for Job {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        &self.spec
    }
}
