//! Made-up whole decoders: a beam search by phase, with every set of the seed's habits and three kinds of prefix.

use super::{VARIANTS, Variant, time};
use attn_figures::Row;

const HABITS: [&str; 5] = ["cat", "expand", "reorder-copy", "dense-mask", "f32"];
const LAYERS: f64 = 9.0;
const BATCH: u64 = 8;
const BEAM: u64 = 10;
const PREFIX: u64 = 300;
const NEW: u64 = 40;
/// Bytes a second that a cache is read or copied with.
const BANDWIDTH: f64 = 9e9;

/// Every variant in every way.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, variant) in VARIANTS.iter().enumerate() {
        for set in 0..32 {
            // One variant was not measured with every set, and one failed.
            if variant.0 == "MTLA s=3" && set % 3 == 2 {
                continue;
            }
            rows.push(seedlike(variant, set, at));
        }
        for dtype in ["f32", "bf16"] {
            for prefix in ["replicated", "copied", "shared"] {
                let mut row = fused(variant, prefix, dtype, at);
                if variant.0 == "GQA (2)" && prefix == "shared" {
                    (row.status, row.time_median_s) = ("oom".into(), None);
                }
                rows.push(row);
            }
        }
    }
    rows
}

/// Seconds by phase.
struct Phases {
    prefill: f64,
    projections: f64,
    cache_update: f64,
    attention: f64,
    reorder: f64,
    rest: f64,
}

fn seedlike(variant: &Variant, set: usize, noise: usize) -> Row {
    let has = |name: &str| {
        HABITS
            .iter()
            .position(|habit| *habit == name)
            .is_some_and(|at| set & (1 << at) != 0)
    };
    let wide = if has("f32") { 4.0 } else { 2.0 };
    let hypotheses = (BATCH * BEAM) as f64;
    let cache = cache_elements(variant) * LAYERS * (PREFIX + NEW) as f64 * hypotheses * wide;
    let steps = NEW as f64;
    let once = cache * steps / BANDWIDTH;
    let expanded = if has("expand") {
        8.0 / variant.2.unwrap_or(8) as f64 - 1.0
    } else {
        0.0
    };
    // The processor is slower in bf16 than half the bytes would have it, where nothing else is.
    let slower = if has("f32") { 1.0 } else { 1.25 };
    let phases = Phases {
        prefill: (if has("dense-mask") { 0.9 } else { 0.5 }) * slower,
        projections: 0.8 * slower,
        cache_update: if has("cat") { 1.6 * once } else { 0.02 * once },
        attention: once * (1.0 + 1.4 * expanded) * if has("dense-mask") { 1.5 } else { 1.0 },
        reorder: if has("reorder-copy") {
            1.9 * once
        } else {
            0.1 * once
        },
        rest: 1.5 * slower,
    };
    let mut row = base(
        variant,
        "seedlike",
        if has("f32") { "f32" } else { "bf16" },
        "replicated",
    );
    let names: Vec<&str> = HABITS.into_iter().filter(|name| has(name)).collect();
    row.habits = Some(if names.is_empty() {
        "none".into()
    } else {
        names.join("+")
    });
    fill(&mut row, &phases, noise + set);
    row.kv_bytes = Some(cache);
    row.kv_allocated_bytes = Some(cache);
    let copies = if has("cat") { 1.2 } else { 0.1 } + expanded * 0.1;
    row.peak_bytes = Some(300e6 + cache * (1.0 + copies) + 120e6);
    row.paper_memory_bytes = Some(250e6 + cache * (0.7 + 0.6 * copies));
    if variant.0 == "MQA" && set == 31 {
        row.trust = Some("shared".into());
    }
    row
}

fn fused(variant: &Variant, prefix: &str, dtype: &str, noise: usize) -> Row {
    let wide = if dtype == "f32" { 4.0 } else { 2.0 };
    let (of_prefix, stored) = match prefix {
        "replicated" => (1.0, BEAM as f64),
        "copied" => (0.15, BEAM as f64),
        _ => (0.1, 1.0),
    };
    let elements = cache_elements(variant) * LAYERS * BATCH as f64 * wide;
    let cache = elements * (PREFIX as f64 * stored + (NEW * BEAM) as f64);
    let read = elements * ((PREFIX + NEW) * BEAM) as f64 * NEW as f64 / BANDWIDTH;
    let phases = Phases {
        prefill: 0.5 * of_prefix,
        projections: 0.8,
        cache_update: 0.02 * read,
        attention: read * if prefix == "shared" { 0.4 } else { 1.0 },
        reorder: 0.08 * read,
        rest: 1.2,
    };
    let mut row = base(variant, "fused", dtype, prefix);
    fill(&mut row, &phases, noise + 3);
    row.kv_bytes = Some(cache);
    row.kv_allocated_bytes = Some(1.1 * cache);
    row.peak_bytes = Some(300e6 + 1.1 * cache + 60e6);
    row.paper_memory_bytes = Some(200e6 + 0.8 * cache);
    row
}

/// Of one token in one layer.
fn cache_elements(variant: &Variant) -> f64 {
    variant.4 / variant.3.unwrap_or(1) as f64
}

fn base(variant: &Variant, path: &str, dtype: &str, prefix: &str) -> Row {
    Row {
        scope: Some("model".into()),
        dtype_requested: Some(dtype.into()),
        dtype_resolved: Some(dtype.into()),
        path_requested: Some(path.into()),
        path_resolved: Some(path.into()),
        prefix: Some(prefix.into()),
        tokens: Some(PREFIX),
        new_tokens: Some(NEW),
        beam: Some(BEAM),
        d_model: Some(512),
        n_heads: Some(8),
        n_layers: Some(LAYERS as u64),
        d_ff: Some(2048),
        vocab: Some(8000),
        decoder: Some("prefix".into()),
        weights_bytes: Some(300e6),
        sweep_name: Some("paper-st-cpu".into()),
        question: Some("How much of MTLA's speed-up on speech translation is MTLA's doing?".into()),
        ..super::base(variant, "beam", BATCH)
    }
}

fn fill(row: &mut Row, phases: &Phases, noise: usize) {
    let Phases {
        prefill,
        projections,
        cache_update,
        attention,
        reorder,
        rest,
    } = *phases;
    let whole = prefill + projections + cache_update + attention + reorder + rest;
    time(row, whole, noise);
    let scale = row.time_median_s.unwrap_or(whole) / whole;
    row.prefill_s = Some(scale * prefill);
    row.projections_s = Some(scale * projections);
    row.cache_update_s = Some(scale * cache_update);
    row.attention_s = Some(scale * attention);
    row.reorder_s = Some(scale * reorder);
    row.feed_forward_s = Some(scale * 0.55 * rest);
    row.vocabulary_s = Some(scale * 0.25 * rest);
    row.choosing_s = Some(scale * 0.12 * rest);
    row.other_s = Some(scale * 0.08 * rest);
    row.time_to_first_token_s = Some(scale * prefill * 1.1);
    row.paper_time_s = Some(1.08 * whole);
}
