//! Made-up trainings: qualities that fall with what a cache leaves out, with seeds, curves and probes.

use super::{VARIANTS, Variant, decode};
use attn_figures::{CurvePoint, Frame, Probe, Row, Training};

/// Name, measure, higher is better, best, quality of MHA, loss for a cache that is half of MHA's, spread of seeds.
type Task = (&'static str, &'static str, bool, Option<f64>, f64, f64, f64);

const TASKS: [Task; 5] = [
    (
        "associative recall",
        "token_accuracy",
        true,
        Some(1.0),
        0.985,
        0.035,
        0.008,
    ),
    ("copy", "exact_match", true, Some(1.0), 0.96, 0.05, 0.015),
    (
        "markov text",
        "excess_loss",
        false,
        Some(0.0),
        0.012,
        -0.022,
        0.004,
    ),
    ("speech translation", "bleu", true, None, 23.2, 0.25, 0.12),
    ("speech recognition", "wer", false, None, 12.6, -0.35, 0.2),
];
/// Where settings are changed one by one.
const ABLATIONS: &str = "quality-ablations";
const SEEDS: u64 = 5;
const STEPS: u64 = 2000;

/// A variant and the settings that it was trained with.
struct Model {
    sweep: &'static str,
    variant: Variant,
    label: String,
    merge: Option<&'static str>,
    rope_key: Option<&'static str>,
    train_mask: Option<&'static str>,
    kv_rank: Option<u64>,
    downsample: u64,
    /// Bytes of a token against those of the variant as it is.
    size: f64,
    /// What the settings cost beside that, in halvings of a cache.
    penalty: f64,
}

/// Everything as it usually is, and at a stride of two what may be otherwise.
fn models() -> Vec<Model> {
    let usual = |variant: &Variant| Model {
        sweep: "quality",
        variant: *variant,
        label: variant.0.to_owned(),
        merge: variant.3.map(|_| "hyper"),
        rope_key: variant.3.map(|_| "newest"),
        train_mask: variant.3.map(|_| "strided"),
        kv_rank: (variant.1 == "mla" || variant.1 == "mtla").then_some(64),
        downsample: 1,
        size: 1.0,
        penalty: 0.0,
    };
    let mut all: Vec<Model> = VARIANTS.iter().map(usual).collect();
    let wide: Variant = ("MTLA s=8", "mtla", None, Some(8), 288.0, 4350.0);
    all.push(usual(&wide));
    let halved = |at: usize| Model {
        sweep: ABLATIONS,
        downsample: 2,
        size: 0.55,
        penalty: 0.6,
        ..usual(&VARIANTS[at])
    };
    let base = |at: usize| Model {
        sweep: ABLATIONS,
        ..usual(&VARIANTS[at])
    };
    all.extend([base(0), halved(0), base(3), halved(3), base(4)]);
    let merged = |name: &'static str, penalty: f64| Model {
        label: format!("MTLA s=2 merge={name}"),
        merge: Some(name),
        penalty,
        ..base(4)
    };
    all.extend([
        merged("constant", 0.15),
        merged("mean", 0.4),
        merged("sum", 0.7),
        merged("last", 1.6),
    ]);
    let rope = |name: &'static str, penalty: f64| Model {
        label: format!("MTLA s=2 rope={name}"),
        rope_key: Some(name),
        penalty,
        ..base(4)
    };
    all.extend([rope("first", 0.3), rope("mean", 0.9)]);
    all.push(Model {
        label: "MTLA s=2 mask=causal".into(),
        train_mask: Some("causal"),
        penalty: 2.2,
        ..base(4)
    });
    all.push(Model {
        label: "MTLA s=2 r=32".into(),
        kv_rank: Some(32),
        size: 0.55,
        penalty: 0.2,
        ..base(4)
    });
    all
}

/// Bytes of a token in the caches of all layers.
fn bytes(model: &Model) -> f64 {
    model.variant.4 / 4.0 / model.variant.3.unwrap_or(1) as f64 * model.size * 4.0 * 4.0
}

/// A number in -1..1 that is the same in every run.
fn noise(at: u64) -> f64 {
    let bits = at
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(29)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Every model on every task, with what belongs to it, and times to decode with.
pub fn frame() -> Frame {
    let mut rows = Vec::new();
    let (mut trainings, mut curves, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    for (at, task) in TASKS.iter().enumerate() {
        for (index, model) in models().iter().enumerate() {
            let salt = (at * 100 + index) as u64;
            let (mut row, seeds) = trained(task, model, salt);
            if row.label == "MTLA s=2 merge=sum" && at == 3 {
                (row.status, row.quality, row.n_diverged) = ("diverged".into(), None, Some(SEEDS));
            }
            if row.label == "MTLA s=3" && at == 1 {
                (row.n_seeds, row.quality_ci_low, row.quality_ci_high) = (Some(1), None, None);
            } else {
                trainings.extend(seeds);
            }
            curves.extend(curve(task, &row, salt));
            if at < 2 {
                probes.extend(places(model, &row, salt));
            }
            rows.push(row);
        }
    }
    rows.extend(times());
    Frame::from_rows(rows)
        .and_trainings(trainings)
        .and_curves(curves)
        .and_probes(probes)
}

/// The variants as they usually are at five learning rates, those with smaller caches best at lower ones.
pub fn at_rates() -> Frame {
    let mut rows = Vec::new();
    let usual = || models().into_iter().filter(|model| model.sweep != ABLATIONS);
    for (at, lr) in [2.5e-4_f64, 5e-4, 1e-3, 2e-3, 4e-3].into_iter().enumerate() {
        for (index, model) in usual().enumerate() {
            let best = 2e-3 / (1.0 + 0.4 * index as f64);
            let away = (lr / best).log2();
            let model = Model {
                penalty: 1.5 * away * away,
                ..model
            };
            for task in [&TASKS[0], &TASKS[3]] {
                let (mut row, _) = trained(task, &model, (at * 100 + index) as u64);
                row.lr = Some(lr);
                rows.push(row);
            }
        }
    }
    Frame::from_rows(rows)
}

fn trained(task: &Task, model: &Model, salt: u64) -> (Row, Vec<Training>) {
    let (name, measure, higher, best, top, slope, spread) = *task;
    let halvings = (4096.0 / bytes(model)).log2().max(0.0);
    let lost = 0.12 * halvings * halvings + model.penalty;
    let mean = top - slope * lost;
    let case_id = format!("{} {name} {} {}", model.sweep, model.label, model.downsample);
    let seed = |seed: u64| Training {
        case_id: case_id.clone(),
        seed,
        steps: Some(STEPS),
        quality: Some(
            (mean + spread * noise(salt * 16 + seed)).min(best.filter(|_| higher).unwrap_or(f64::MAX)),
        ),
        ..Training::default()
    };
    let seeds: Vec<Training> = (0..SEEDS).map(seed).collect();
    let values: Vec<f64> = seeds.iter().filter_map(|one| one.quality).collect();
    let quality = values.iter().sum::<f64>() / SEEDS as f64;
    let variance = values.iter().map(|v| (v - quality).powi(2)).sum::<f64>() / (SEEDS - 1) as f64;
    // Student's t with four degrees of freedom.
    let half = 2.776 * (variance / SEEDS as f64).sqrt();
    let row = Row {
        case_id: Some(case_id),
        label: model.label.clone(),
        merge: model.merge.map(str::to_owned),
        rope_key: model.rope_key.map(str::to_owned),
        train_mask: model.train_mask.map(str::to_owned),
        kv_rank: model.kv_rank,
        downsample: Some(model.downsample),
        scope: Some("model".into()),
        task: Some(name.into()),
        train_steps: Some(STEPS),
        d_model: Some(256),
        n_heads: Some(4),
        n_layers: Some(4),
        d_ff: Some(1024),
        quality_measure: Some(measure.into()),
        quality_higher_is_better: Some(higher),
        quality_best: best,
        quality: Some(quality),
        quality_ci_low: Some(quality - half),
        quality_ci_high: Some(quality + half),
        n_seeds: Some(SEEDS),
        n_diverged: Some(0),
        test_examples: Some(1000),
        kv_bytes_per_token: Some(bytes(model)),
        sweep_name: Some(model.sweep.into()),
        question: Some(if model.sweep == ABLATIONS {
            "What is each setting of a compressed cache worth?".into()
        } else {
            "What does a smaller cache cost in quality?".into()
        }),
        time_median_s: None,
        ..super::base(&model.variant, "quality", 32)
    };
    (row, seeds)
}

/// From the loss of guessing to one that depends on how good the model becomes.
fn curve(task: &Task, row: &Row, salt: u64) -> Vec<CurvePoint> {
    let quality = row.quality.unwrap_or(task.4);
    let lost = ((task.4 - quality) / task.5).max(0.0);
    let end = 0.05 + 0.12 * lost;
    let mut points = Vec::new();
    for seed in 0..SEEDS {
        let slow = 180.0 * (1.0 + 0.25 * lost + 0.15 * noise(salt * 7 + seed));
        for step in (0..=STEPS).step_by(100) {
            let wobble = 1.0 + 0.06 * noise(salt * 1000 + seed * 100 + step);
            let loss = (end + 4.1 * (-(step as f64) / slow).exp()) * wobble;
            points.push(CurvePoint {
                case_id: row.case_id.clone().unwrap_or_default(),
                seed,
                step,
                train_loss: Some(loss * 1.02),
                valid_nats: Some(loss),
                valid_accuracy: Some((-loss).exp()),
                grad_norm: Some(0.5),
            });
        }
    }
    points
}

/// Right answers by distance and load: worse far away, with much to remember, and with merged tokens.
fn places(model: &Model, row: &Row, salt: u64) -> Vec<Probe> {
    let merged = (model.variant.3.unwrap_or(1) as f64).log2() + model.penalty;
    let mut all = Vec::new();
    for seed in 0..SEEDS {
        for load in [2, 4, 8, 16, 32] {
            for distance in [3u64, 6, 12, 20, 28, 50, 90, 130, 200, 250] {
                if distance < load {
                    continue;
                }
                let hard = (distance as f64).log2() * 0.06 + (load as f64).log2() * 0.14;
                let wrong = (0.16 * merged * hard * hard).min(0.92);
                let chance = 0.02 * noise(salt * 31 + seed * 7 + load + distance);
                all.push(Probe {
                    case_id: row.case_id.clone().unwrap_or_default(),
                    seed,
                    distance,
                    load,
                    accuracy: Some((1.0 - wrong + chance).clamp(0.0, 1.0)),
                    answers: Some(200),
                });
            }
        }
    }
    all
}

/// Decode steps of every variant as it is, in a sweep of their own.
fn times() -> Vec<Row> {
    let timed = |(at, variant): (usize, &Variant)| {
        [2048, 8192].map(|context| Row {
            sweep_name: Some("context-sweep".into()),
            d_model: Some(512),
            ..decode(variant, context, 8, at)
        })
    };
    VARIANTS.iter().enumerate().flat_map(timed).collect()
}
