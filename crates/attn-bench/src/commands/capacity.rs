//! `capacity`: the longest context and the largest batch that fit in some memory, for every variant of a sweep.
//!
//! Closed form: weights, cache and state of the layers within the memory, and nothing else; activations come on top.
//! With `--verify` the cache of one layer is really allocated, at the limit and one step beyond it.

mod verify;

use std::collections::BTreeSet;

use attn_harness::sweep::ByteCount;
use attn_harness::units::format_bytes;
use attn_harness::{Case, Plan};
use serde::Serialize;
use serde_json::json;

use crate::cli::{CapacityArgs, Format};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json, table};
use verify::Check;

/// What is given, and what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// Sequences B; the longest context is asked for.
    Batch(usize),
    /// Tokens L of each sequence; the largest batch is asked for.
    Context(usize),
}

/// A context that is longer than any window.
const UNLIMITED: u64 = 1 << 40;

/// The limit of one layer at one given size.
#[derive(Debug, Serialize)]
pub struct Limit {
    variant: &'static str,
    label: String,
    dtype: String,
    given: Given,
    /// Tokens or sequences, whichever is not given; 0 where nothing fits, null where any number of tokens does, since a
    /// window of them is kept.
    limit: Option<u64>,
    /// Of one layer.
    weights_bytes: u64,
    /// Of one layer, at the limit.
    kv_bytes: u64,
    /// Of one layer, at the limit.
    kv_state_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
}

/// Prints the limits.
pub fn execute(args: &CapacityArgs) -> Result<Exit, Failure> {
    let plan = super::plan::load(&args.sweep)?;
    let layers = args.layers as u64;
    // Closed forms count in 64 bits, and no machine has more.
    let per_layer = args.memory.0.min(1 << 62) / layers;
    let mut limits = Vec::new();
    for case in layers_of(&plan) {
        for given in sizes(&plan) {
            let mut limit = limit(case, given, per_layer);
            if args.verify {
                limit.check = Some(verify::check(case, given, limit.limit, per_layer));
            }
            limits.push(limit);
        }
    }
    match args.format.format {
        Format::Table => print(&text(&limits, args))?,
        Format::Json => print_json(&json!({
            "memory_bytes": args.memory,
            "layers": layers,
            "limits": limits,
        }))?,
    }
    let failed = limits
        .iter()
        .any(|limit| matches!(limit.check, Some(Check::Failed(_))));
    Ok(if failed { Exit::CheckFailed } else { Exit::Done })
}

/// A case of every layer and dtype of the plan, in its order.
fn layers_of(plan: &Plan) -> Vec<&Case> {
    let mut layers: Vec<&Case> = Vec::new();
    for case in &plan.cases {
        let same = |known: &Case| {
            known.variant.key == case.variant.key
                && known.dims == case.dims
                && known.params == case.params
                && known.dtype == case.dtype
        };
        if !layers.iter().any(|known| same(known)) {
            layers.push(case);
        }
    }
    layers
}

/// Every batch and every context of the plan, the smallest first.
fn sizes(plan: &Plan) -> Vec<Given> {
    let batches: BTreeSet<usize> = plan.cases.iter().map(|case| case.workload.batch()).collect();
    let contexts = plan.cases.iter().map(|case| case.workload.cached_tokens());
    let contexts: BTreeSet<usize> = contexts.filter(|&tokens| tokens > 0).collect();
    let batches = batches.into_iter().map(Given::Batch);
    batches.chain(contexts.into_iter().map(Given::Context)).collect()
}

fn limit(case: &Case, given: Given, per_layer: u64) -> Limit {
    let (g, e) = (&case.geometry, case.dtype.size_in_bytes());
    let bytes = per_layer.saturating_sub(case.weights_bytes);
    let limit = match given {
        Given::Batch(batch) => g.longest_context(batch, bytes, e),
        Given::Context(tokens) => Some(g.largest_batch(tokens, bytes, e)),
    };
    let (batch, tokens) = given.with(limit.unwrap_or(UNLIMITED));
    Limit {
        variant: case.variant.key,
        label: case.label.clone(),
        dtype: case.dtype.to_string(),
        given,
        limit,
        weights_bytes: case.weights_bytes,
        kv_bytes: g.kv_bytes(batch, tokens, e),
        kv_state_bytes: g.kv_state_bytes(batch),
        check: None,
    }
}

impl Given {
    /// Batch and context where the other size is `limit`.
    fn with(self, limit: u64) -> (usize, usize) {
        match self {
            Self::Batch(batch) => (batch, limit as usize),
            Self::Context(tokens) => (limit as usize, tokens),
        }
    }
}

fn text(limits: &[Limit], args: &CapacityArgs) -> String {
    let layers = match args.layers {
        1 => "one layer".to_string(),
        n => format!("{n} layers"),
    };
    let mut text = format!(
        "Weights, cache and state of {layers} in {}; activations come on top.\n",
        shown(args.memory)
    );
    for (title, asked, wanted) in [
        ("batch", ">longest context", true),
        ("context", ">largest batch", false),
    ] {
        let lines: Vec<Vec<String>> = limits
            .iter()
            .filter(|limit| matches!(limit.given, Given::Batch(_)) == wanted)
            .map(line)
            .collect();
        let header = [
            "variant",
            "dtype",
            &format!(">{title}"),
            asked,
            ">KV cache",
            ">weights",
            "allocated",
        ];
        let columns = if args.verify {
            header.len()
        } else {
            header.len() - 1
        };
        let lines = lines.into_iter().map(|line| line[..columns].to_vec()).collect();
        text += "\n";
        text += &table(&header[..columns], lines);
    }
    if args.layers > 1 {
        text += "\nKV cache and weights are those of one layer\n";
    }
    text
}

fn shown(memory: ByteCount) -> String {
    format_bytes(memory.0 as f64)
}

fn line(limit: &Limit) -> Vec<String> {
    let (Given::Batch(given) | Given::Context(given)) = limit.given;
    let number = match limit.limit {
        Some(0) => "nothing fits".to_string(),
        Some(n) => n.to_string(),
        None => "any".to_string(),
    };
    vec![
        limit.label.clone(),
        limit.dtype.clone(),
        given.to_string(),
        number,
        format_bytes(limit.kv_bytes as f64),
        format_bytes(limit.weights_bytes as f64),
        limit.check.as_ref().map_or(String::new(), ToString::to_string),
    ]
}
