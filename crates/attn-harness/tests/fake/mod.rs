//! Two variants without tensors, so that the tests of sweeps and plans are exact and know no real variant.

#![allow(dead_code, reason = "not every test file uses all of it")]

use attn_core::{
    Attention, Build, Entry, Error, Free, Geometry, LayerConfig, ModelDims, ParamKind, ParamSpec,
    ProjectionMacs, Result, Values, Variant, WeightSpec, Weights,
};
use attn_harness::device::{DeviceError, resolve_with};
use attn_harness::plan::{Rates, Setup};
use attn_harness::{Override, Plan, Problem, Sweep};

pub static FULL: Variant = Variant {
    key: "full",
    title: "Full",
    summary: "Caches keys and values.",
    paper: "0000.00000",
    cache_formula: "2 Hkv D L",
    params: &[ParamSpec {
        name: "n_kv_heads",
        kind: ParamKind::Int { min: 1 },
        default: "n_heads",
        help: "key and value heads",
        symbol: "",
    }],
    free: Free {
        params: "d_model",
        kv_bytes: "n_kv_heads",
        flops: "n_heads",
    },
    configure: |dims, params| {
        let h_kv = params.int("n_kv_heads", dims.n_heads)?;
        if dims.n_heads % h_kv != 0 {
            let message = format!("{} query heads cannot share {h_kv} heads evenly", dims.n_heads);
            return Err(Error::geometry(&["n_heads", "n_kv_heads"], message));
        }
        Ok(Box::new(Fake(geometry(
            dims,
            1,
            h_kv,
            dims.head_dim,
            Values::Own(dims.head_dim),
        ))))
    },
};

pub static MERGED: Variant = Variant {
    key: "merged",
    title: "Merged",
    summary: "Caches a latent of several tokens.",
    paper: "0000.00001",
    cache_formula: "ceil(L / s) (r + Dr)",
    params: &[
        ParamSpec {
            name: "kv_rank",
            kind: ParamKind::Int { min: 1 },
            default: "required",
            help: "rank of the latent",
            symbol: "",
        },
        ParamSpec {
            name: "rope_dim",
            kind: ParamKind::Int { min: 1 },
            default: "8",
            help: "size of the rope key",
            symbol: "",
        },
        ParamSpec {
            name: "stride",
            kind: ParamKind::Int { min: 1 },
            default: "2",
            help: "tokens a slot holds",
            symbol: "s",
        },
        ParamSpec {
            name: "norm",
            kind: ParamKind::Choice(&["rms", "layer"]),
            default: "rms",
            help: "normalisation",
            symbol: "",
        },
    ],
    free: Free {
        params: "d_model",
        kv_bytes: "kv_rank",
        flops: "n_heads",
    },
    configure: |dims, params| {
        let (rank, rope) = (params.int("kv_rank", 1)?, params.int("rope_dim", 8)?);
        if rope % 2 != 0 {
            return Err(Error::geometry(
                &["rope_dim"],
                format!("rope rotates pairs, {rope} is odd"),
            ));
        }
        if rank % 4 != 0 {
            return Err(Error::geometry(
                &["kv_rank"],
                format!("the gate needs a multiple of 4, {rank} is none"),
            ));
        }
        Ok(Box::new(Fake(geometry(
            dims,
            params.int("stride", 2)?,
            1,
            rank + rope,
            Values::KeyPrefix(rank),
        ))))
    },
};

pub static VARIANTS: [&Variant; 2] = [&FULL, &MERGED];
pub static FIGURES: [&str; 2] = ["latency", "cache"];

#[derive(Debug)]
struct Fake(Geometry);

impl LayerConfig for Fake {
    fn geometry(&self) -> Geometry {
        self.0.clone()
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        Vec::new()
    }

    fn build(&self, _: &Weights, _: &Build) -> Result<Box<dyn Attention>> {
        Err(Error::Unsupported {
            what: "a fake".to_string(),
            remedy: "use a real variant".to_string(),
        })
    }
}

fn geometry(dims: &ModelDims, stride: usize, heads: usize, key: usize, values: Values) -> Geometry {
    let macs = ProjectionMacs {
        query: 1000,
        key: 500,
    };
    Geometry {
        d_model: dims.d_model,
        n_heads: dims.n_heads,
        n_kv_heads: heads,
        score_dim: dims.head_dim,
        v_dim: dims.head_dim,
        stride,
        window: None,
        entry: Entry::new(heads, key, values),
        state_elements: 0,
        parameters: 10_000,
        forward_macs: macs,
        decode_macs: macs,
    }
}

pub fn setup() -> Setup<'static> {
    Setup {
        variants: &VARIANTS,
        figures: &FIGURES,
        memory_bytes: Some(1 << 30),
        rates: Rates::default(),
        device: |request| resolve_with(request, &Err(DeviceError::NotCompiledIn)),
    }
}

/// The plan of a sweep, with overrides as after `--set`.
pub fn plan_with(yaml: &str, set: &[&str]) -> std::result::Result<Plan, attn_harness::Error> {
    let overrides = set
        .iter()
        .map(|set| Override::parse(set))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let sweep = Sweep::parse(std::path::Path::new("sweep.yaml"), yaml.to_string(), &overrides)?;
    Plan::build(&sweep, &setup())
}

pub fn plan(yaml: &str) -> Plan {
    plan_with(yaml, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// The problems of a sweep, each as `message | label @ text, ... | help`.
pub fn problems(yaml: &str, set: &[&str]) -> Vec<String> {
    match plan_with(yaml, set) {
        Err(attn_harness::Error::Sweep(bad)) => bad
            .problems
            .iter()
            .map(|problem| shown(problem, &bad.source_text))
            .collect(),
        Err(other) => vec![other.to_string()],
        Ok(_) => Vec::new(),
    }
}

fn shown(problem: &Problem, text: &str) -> String {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let labels = problem.labels.iter();
    let labels: Vec<String> = labels
        .map(|l| {
            format!(
                "{}:{} ({})",
                line(l.span.start),
                text[l.span.clone()].lines().next().unwrap_or(""),
                l.text
            )
        })
        .collect();
    let labels = labels.join(", ");
    format!("{} | {labels}", problem.full_message())
        .trim_end()
        .to_string()
}

pub const SWEEP: &str = "\
name: test
question: What is what?
model: {d_model: 64, n_heads: 4}
variants:
  - full: {}
  - full: {n_kv_heads: 2}
  - merged: {kv_rank: 32, stride: [2, 3]}
workloads:
  - decode: {context: [16, 64], batch: [1, 2]}
  - prefill: {tokens: 32}
";

/// [`SWEEP`] with one line replaced.
pub fn with(from: &str, to: &str) -> String {
    assert!(SWEEP.contains(from), "{from}");
    SWEEP.replace(from, to)
}
