//! Draws every figure from made-up rows: `cargo run -p attn-figures --example gallery -- FOLDER`.
//!
//! The numbers come from a small cost model (bytes and operations at a fixed rate, with a fixed overhead),
//! so that the figures have the shapes of real ones.

#[path = "gallery/decoders.rs"]
mod decoders;
#[path = "gallery/trainings.rs"]
mod trainings;

use attn_figures::{Frame, Outcome, Position, Row, draw_all};
use std::path::PathBuf;

/// Label, variant, KV heads, stride, cache elements a token, operations a pair of tokens, projection cost.
type Variant = (&'static str, &'static str, Option<u64>, Option<u64>, f64, f64);

const VARIANTS: [Variant; 7] = [
    ("MHA", "mha", Some(8), None, 1024.0, 2048.0),
    ("GQA (2)", "gqa", Some(2), None, 256.0, 2048.0),
    ("MQA", "mqa", Some(1), None, 128.0, 2048.0),
    ("MLA", "mla", None, None, 288.0, 4350.0),
    ("MTLA s=2", "mtla", None, Some(2), 288.0, 4350.0),
    ("MTLA s=3", "mtla", None, Some(3), 288.0, 4350.0),
    ("MTLA s=4", "mtla", None, Some(4), 288.0, 4350.0),
];

/// Bytes and operations a second, and the seconds any call takes.
const BANDWIDTH: f64 = 12e9;
const COMPUTE: f64 = 60e9;
const OVERHEAD_S: f64 = 60e-6;

const FIGURES_OF_TRAININGS: [&str; 6] = [
    "quality-vs-cache",
    "quality-vs-time",
    "quality-vs-stride",
    "ablation-bars",
    "recall-heatmap",
    "learning-curves",
];

fn main() -> Result<(), attn_figures::Error> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("gallery"), PathBuf::from);
    let (trajectories, positions) = trajectories();
    let mut rows = rows();
    rows.extend(trajectories);
    rows.extend(decoders::rows());
    let frame = Frame::from_rows(rows).and_positions(positions);
    let mut outcomes = draw_all(&frame, &[], &folder)?;
    // Trainings have a frame of their own, for what they are called would change the colours of the others.
    let trained = FIGURES_OF_TRAININGS.map(str::to_owned);
    outcomes.extend(draw_all(&trainings::frame(), &trained, &folder)?);
    let rates = draw_all(&trainings::at_rates(), &["quality-vs-lr".to_owned()], &folder)?;
    outcomes.extend(rates);
    for outcome in outcomes {
        match outcome {
            Outcome::Drawn(figure) => println!("{}", figure.svg.display()),
            Outcome::Skipped(figure) => println!("skipped {}: {}", figure.name, figure.reason),
            _ => {}
        }
    }
    Ok(())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, variant) in VARIANTS.iter().enumerate() {
        for (step, context) in [512, 1024, 2048, 4096, 8192].into_iter().enumerate() {
            for batch in [1, 4, 16] {
                let mut row = decode(variant, context, batch, (at * 7 + step * 3 + batch as usize) % 11);
                // The things that go wrong: too large, and too noisy.
                if row.label == "MHA" && context == 8192 && batch == 16 {
                    row.status = "oom".into();
                }
                if row.label == "MLA" && context == 1024 {
                    row.trust = Some("unconverged".into());
                }
                rows.push(row);
            }
        }
        for tokens in [256, 512, 1024, 2048] {
            rows.push(whole(variant, "prefill", tokens, 1.0, at));
            rows.push(whole(variant, "train_step", tokens, 3.1, at + 3));
        }
        let mut generation = whole(variant, "generate", 512, 1.0, at);
        let steps = decode(variant, 640, 1, at).time_median_s.unwrap_or(0.0) * 256.0;
        let total = generation.time_median_s.unwrap_or(0.0) + steps;
        time(&mut generation, total, at);
        generation.context = generation.tokens.take();
        generation.new_tokens = Some(256);
        rows.push(generation);
    }
    rows
}

/// 96 tokens after 512, one case a variant.
fn trajectories() -> (Vec<Row>, Vec<Position>) {
    let (mut rows, mut positions) = (Vec::new(), Vec::new());
    for variant in &VARIANTS {
        let mut row = base(variant, "trajectory", 1);
        row.case_id = Some(variant.0.into());
        (row.tokens, row.new_tokens) = (Some(512), Some(96));
        if row.label == "MQA" {
            row.trust = Some("shared".into());
        }
        let stride = variant.3.unwrap_or(1);
        for position in 513..=608 {
            let noise = (position * 7 + variant.0.len() as u64 * 5) as usize;
            let mut step = decode(variant, position, 1, noise);
            // Merging costs a little where a slot is completed.
            let merges = stride > 1 && position % stride == 0;
            let seconds = step.time_median_s.unwrap_or(0.0) * if merges { 1.04 } else { 1.0 };
            time(&mut step, seconds, noise);
            positions.push(Position {
                case_id: variant.0.into(),
                position,
                time_median_s: step.time_median_s,
                time_ci_low_s: step.time_ci_low_s,
                time_ci_high_s: step.time_ci_high_s,
                kv_bytes: step.kv_bytes,
                closes_slot: Some(position % stride == 0),
            });
        }
        rows.push(row);
    }
    (rows, positions)
}

fn decode(variant: &Variant, context: u64, batch: u64, noise: usize) -> Row {
    let (.., per_token, per_pair) = *variant;
    let slots = context.div_ceil(variant.3.unwrap_or(1)) as f64;
    let kv_bytes = slots * per_token * 4.0 * batch as f64;
    let seconds = OVERHEAD_S * (1.0 + 0.1 * batch as f64)
        + kv_bytes / BANDWIDTH
        + slots * per_pair * batch as f64 / COMPUTE;
    let mut row = base(variant, "decode", batch);
    row.context = Some(context);
    row.kv_bytes = Some(kv_bytes);
    time(&mut row, seconds, noise);
    row.tokens_per_s = row.time_median_s.map(|t| batch as f64 / t);
    work(&mut row, slots * per_pair * batch as f64, kv_bytes);
    row
}

fn whole(variant: &Variant, workload: &str, tokens: u64, factor: f64, noise: usize) -> Row {
    let (.., per_token, _) = *variant;
    let t = tokens as f64;
    let pairs = t * t / 2.0 / variant.3.unwrap_or(1) as f64;
    let operations = pairs * 2048.0 * 1.25 + t * (2.0 * 512.0 * (1024.0 + per_token));
    let mut row = base(variant, workload, 1);
    row.tokens = Some(tokens);
    time(&mut row, (OVERHEAD_S + operations / COMPUTE) * factor, noise);
    row.tokens_per_s = row.time_median_s.map(|seconds| t / seconds);
    let weights = 4.0 * 512.0 * (1024.0 + per_token);
    work(
        &mut row,
        operations * factor,
        weights + 8.0 * t * (1024.0 + per_token),
    );
    row
}

fn base(variant: &Variant, workload: &str, batch: u64) -> Row {
    Row {
        variant: variant.1.into(),
        label: variant.0.into(),
        n_kv_heads: variant.2,
        stride: variant.3,
        workload: workload.into(),
        scope: Some("layer".into()),
        batch: Some(batch),
        dtype_requested: Some("f32".into()),
        dtype_resolved: Some("f32".into()),
        device_requested: Some("cpu".into()),
        device_resolved: Some("cpu".into()),
        path_requested: Some("fused".into()),
        path_resolved: Some("fused".into()),
        status: "ok".into(),
        sweep_name: Some("context-sweep".into()),
        question: Some("How do decode latency and cache size grow with context?".into()),
        machine: Some("Example CPU 9000, 2 cores (made-up numbers)".into()),
        threads: Some(2),
        fair: Some("width".into()),
        ..Row::default()
    }
}

/// What the cost model counts, and the rates that follow.
fn work(row: &mut Row, flops: f64, bytes: f64) {
    row.flops = Some(flops);
    row.bytes_moved = Some(bytes);
    row.achieved_flops_per_s = row.time_median_s.map(|seconds| flops / seconds);
    row.ceiling_flops_per_s = Some(1.3 * COMPUTE);
    row.ceiling_bytes_per_s = Some(BANDWIDTH);
}

/// A few per cent of noise that is the same in every run.
fn time(row: &mut Row, seconds: f64, noise: usize) {
    let share = (noise * 37 % 11) as f64 / 10.0 - 0.5;
    let median = seconds * (1.0 + 0.04 * share);
    row.time_median_s = Some(median);
    row.time_ci_low_s = Some(median * (0.985 - 0.02 * share.abs()));
    row.time_ci_high_s = Some(median * (1.01 + 0.05 * share.abs()));
}
