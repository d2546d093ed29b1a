//! Rows of trainings with qualities that can be checked by hand, and what figures make of them.

use attn_figures::{CurvePoint, Error, Frame, Probe, Row, Skipped, Training, find, render};
use polars::prelude::df;

use super::{LABELS, reason_of, svg_of, texts};

/// The figures that are drawn from them alone.
pub const FIGURES: [&str; 7] = [
    "quality-vs-cache",
    "quality-vs-lr",
    "quality-vs-time",
    "quality-vs-stride",
    "ablation-bars",
    "recall-heatmap",
    "learning-curves",
];

/// A training on associative recall; `setting` makes it another one of the same variant.
fn row(at: usize, setting: Option<&str>) -> Row {
    let (variant, label, stride) = LABELS[at];
    let is_merged = setting.is_some() && stride.is_some();
    let label = match setting {
        Some(setting) if is_merged => format!("{label} merge={setting}"),
        _ => label.to_owned(),
    };
    let quality = 0.95 - 0.05 * at as f64 - if setting.is_some() { 0.02 } else { 0.0 };
    Row {
        case_id: Some(format!("{label} {setting:?}")),
        variant: variant.into(),
        label,
        stride,
        n_kv_heads: (variant == "gqa").then_some(2),
        merge: stride.map(|_| setting.unwrap_or("hyper").to_owned()),
        downsample: Some(if setting.is_some() && !is_merged { 2 } else { 1 }),
        workload: "quality".into(),
        scope: Some("model".into()),
        status: "ok".into(),
        task: Some("recall".into()),
        train_steps: Some(2000),
        lr: Some(0.001),
        valid_nats: Some(1.0 - quality),
        d_model: Some(128),
        n_heads: Some(4),
        n_layers: Some(2),
        d_ff: Some(512),
        vocab: Some(64),
        quality_measure: Some("token_accuracy".into()),
        quality_higher_is_better: Some(true),
        quality_best: Some(1.0),
        quality: Some(quality),
        quality_ci_low: Some(quality - 0.01),
        quality_ci_high: Some(quality + 0.01),
        n_seeds: Some(5),
        n_diverged: Some(0),
        test_examples: Some(1000),
        kv_bytes_per_token: Some(4096.0 / (at + 1) as f64),
        dtype_resolved: Some("f32".into()),
        path_resolved: Some("fused".into()),
        sweep_name: Some("quality".into()),
        question: Some("How do latency and cache size grow?".into()),
        ..Row::default()
    }
}

/// Every variant as it usually is and with one other setting, and times of the usual ones at two contexts.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for at in 0..LABELS.len() {
        rows.extend([row(at, None), row(at, Some("mean"))]);
        rows.extend([512, 1024].map(|context| super::row(at, "decode", context, 8)));
    }
    rows
}

/// The same at three learning rates: the first is best for MHA, the second for all others.
pub fn rows_at_three_rates() -> Vec<Row> {
    let mut rows = rows();
    let trained: Vec<Row> = rows
        .iter()
        .filter(|row| row.workload == "quality")
        .cloned()
        .collect();
    for (lr, loss, gain) in [(0.002, 0.03, 0.01), (0.004, 0.05, -0.02)] {
        rows.extend(trained.iter().map(|row| {
            let gain = if row.variant == "mha" { -loss } else { gain };
            let moved = |value: Option<f64>| value.map(|value| value + gain);
            Row {
                case_id: row.case_id.as_ref().map(|id| format!("{id} at {lr}")),
                lr: Some(lr),
                valid_nats: row.valid_nats.map(|nats| nats - gain),
                quality: moved(row.quality),
                quality_ci_low: moved(row.quality_ci_low),
                quality_ci_high: moved(row.quality_ci_high),
                ..row.clone()
            }
        }));
    }
    rows
}

/// What belongs to the trainings among the rows: two seeds around the mean, with curves and probes.
pub fn with_details(frame: Frame) -> Frame {
    let (mut trainings, mut curves, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    for row in frame.rows().iter().filter(|row| row.workload == "quality") {
        let case_id = row.case_id.clone().unwrap();
        for (seed, away) in [(1, -0.005), (2, 0.005)] {
            trainings.push(Training {
                case_id: case_id.clone(),
                seed,
                quality: row.quality.map(|quality| quality + away),
                ..Training::default()
            });
            curves.extend([0, 100, 200].map(|step| CurvePoint {
                case_id: case_id.clone(),
                seed,
                step,
                valid_nats: Some(4.0 / (1.0 + step as f64) + 0.05 + away),
                ..CurvePoint::default()
            }));
            probes.extend(
                [(3, 2), (64, 2), (100, 2), (64, 8)].map(|(distance, load)| Probe {
                    case_id: case_id.clone(),
                    seed,
                    distance,
                    load,
                    accuracy: Some(if distance == 100 { 0.5 } else { 0.9 }),
                    answers: Some(if distance == 100 { 100 } else { 300 }),
                }),
            );
        }
    }
    frame
        .and_trainings(trainings)
        .and_curves(curves)
        .and_probes(probes)
}

fn text_of(figure: &str, rows: Vec<Row>) -> String {
    texts(&svg_of(figure, rows)).join(" ").replace('\u{a0}', " ")
}

fn check(figure: &str, rows: Vec<Row>, expected: &[&str]) {
    let text = text_of(figure, rows);
    for part in expected {
        assert!(text.contains(part), "{figure}: `{part}` is not in: {text}");
    }
}

/// The same rows for a second task, which is measured otherwise.
fn with_speech(mut rows: Vec<Row>) -> Vec<Row> {
    let speech = rows.iter().filter(|row| row.task.is_some()).map(|row| Row {
        case_id: row.case_id.as_ref().map(|id| format!("{id} speech")),
        task: Some("speech".into()),
        vocab: Some(500),
        quality_measure: Some("wer".into()),
        quality_higher_is_better: Some(false),
        quality_best: None,
        quality: row.quality.map(|quality| 20.0 - 10.0 * quality),
        quality_ci_low: None,
        quality_ci_high: None,
        ..row.clone()
    });
    let speech: Vec<Row> = speech.collect();
    rows.extend(speech);
    rows
}

#[test]
fn tasks_are_panels_with_axes_that_say_what_is_better() {
    let rows = with_speech(rows());
    for figure in [
        "quality-vs-cache",
        "quality-vs-time",
        "quality-vs-stride",
        "ablation-bars",
    ] {
        check(
            figure,
            rows.clone(),
            &[
                "recall",
                "speech",
                "Token accuracy, higher is better",
                "Word error rate (%), lower is better",
                "2000 updates",
                "2 layers of width 128, 4 heads, feed-forward 512 · f32 · fused path · same width",
                "5 seeds · 1000 test examples",
            ],
        );
    }
    check(
        "learning-curves",
        rows,
        &["recall", "speech", "Validation loss (nats an answer)", "Updates"],
    );
}

#[test]
fn seven_tasks_are_two_figures() {
    let mut all = Vec::new();
    for task in ["a", "b", "c", "d", "e", "f", "g"] {
        all.extend([0, 1].map(|at| Row {
            task: Some(task.into()),
            ..row(at, None)
        }));
    }
    // It does not know its measure, but its task.
    all.push(Row {
        status: "crash".into(),
        quality: None,
        quality_measure: None,
        task: Some("g".into()),
        ..row(2, None)
    });
    let rendered = render(&Frame::from_rows(all), find("quality-vs-cache").unwrap()).unwrap();
    let drawn: Vec<_> = rendered.into_iter().map(Result::unwrap).collect();
    let names: Vec<&str> = drawn.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["quality-vs-cache", "quality-vs-cache-2"]);
    assert!(!drawn[0].svg.contains("not drawn"));
    assert!(drawn[1].svg.contains("1 case not drawn: 1 crash"));
}

#[test]
fn what_failed_and_what_has_few_seeds_is_told() {
    let mut all = rows();
    for row in &mut all {
        match (row.label.as_str(), row.downsample) {
            ("MHA", Some(2)) => (row.status, row.quality) = ("diverged".into(), None),
            ("GQA (2)", Some(1)) => row.n_seeds = Some(2),
            ("MTLA s=2", Some(1)) => row.n_diverged = Some(1),
            _ => {}
        }
    }
    check(
        "quality-vs-cache",
        all.clone(),
        &[
            "1 case not drawn: 1 diverged",
            "trainings that diverged: MTLA s=2 (1 of 5)",
            "fewer than 3 seeds, differences may be chance: GQA (2) (2)",
            "2 to 5 seeds",
            "GQA (2) ÷2",
        ],
    );
    // The bar of what failed keeps its place.
    check(
        "ablation-bars",
        all.clone(),
        &["MHA base: every state of the encoder base 95.0 % encoder ÷2 diverged"],
    );
    for row in &mut all {
        row.n_seeds = row.n_seeds.map(|_| 1);
    }
    assert!(text_of("quality-vs-cache", all).ends_with("fewer than 3 seeds, differences may be chance"));
}

#[test]
fn the_front_the_best_and_single_seeds_are_in_the_legend() {
    check(
        "quality-vs-cache",
        rows(),
        &[
            "best possible",
            "Pareto front",
            "single seeds",
            "KV cache per token (bytes)",
        ],
    );
    let mut far = rows();
    for row in &mut far {
        row.quality_best = Some(9.0);
        row.quality_measure = Some("bleu".into());
    }
    let text = text_of("quality-vs-cache", far);
    assert!(
        text.contains("best possible in recall: 9, beyond the axis"),
        "{text}"
    );
    let mut unknown = rows();
    for row in &mut unknown {
        row.quality_measure = Some("taste".into());
        row.quality_higher_is_better = None;
    }
    assert!(!text_of("quality-vs-cache", unknown).contains("Pareto front"));
    let mut bare = rows();
    for row in &mut bare {
        row.kv_bytes_per_token = None;
    }
    assert_eq!(
        reason_of("quality-vs-cache", bare),
        "no training has kv_bytes_per_token"
    );
}

#[test]
fn trainings_of_other_lengths_and_sweeps_do_not_share_an_axis() {
    let mut all = rows();
    all.extend([0, 2].map(|at| Row {
        train_steps: Some(500),
        ..row(at, None)
    }));
    check(
        "quality-vs-cache",
        all.clone(),
        &[
            "recall, 500 updates",
            "recall, 2000 updates",
            "500 to 2000 updates",
        ],
    );
    all.extend([0, 2].map(|at| Row {
        sweep_name: Some("other".into()),
        ..row(at, None)
    }));
    let rendered = render(&Frame::from_rows(all), find("quality-vs-cache").unwrap()).unwrap();
    let names: Vec<String> = rendered.into_iter().map(|one| one.unwrap().name).collect();
    assert_eq!(names, ["quality-vs-cache-other", "quality-vs-cache-quality"]);
}

#[test]
fn each_variant_is_drawn_at_its_best_learning_rate() {
    let mut all = rows_at_three_rates();
    // Validation decides, whatever the test says.
    for row in all
        .iter_mut()
        .filter(|row| row.label == "GQA (2)" && row.lr == Some(0.001))
    {
        row.valid_nats = Some(0.0);
    }
    check(
        "ablation-bars",
        all.clone(),
        &[
            "each at the best of 3 learning rates by validation loss",
            "every state of the encoder base 95.0 %",
            "every state of the encoder base 90.0 %",
            "merge hyper base 86.0 %",
            "best at the lowest or highest learning rate tried, which another may beat: GQA (2) (0.001), GQA (2) ÷2 \
             (0.001), MHA (0.001) and MHA ÷2 (0.001)",
        ],
    );
    check(
        "quality-vs-lr",
        all.clone(),
        &[
            "Learning rate",
            "0.001 0.002 0.004",
            "Token accuracy, higher is better",
        ],
    );
    all.retain(|row| row.lr != Some(0.004));
    check(
        "ablation-bars",
        all,
        &["every best learning rate is the lowest or highest tried, another may be better"],
    );
    assert_eq!(
        reason_of("quality-vs-lr", rows()),
        "two learning rates of one variant, trained on the same task, are needed"
    );
}

#[test]
fn losses_more_than_tenfold_apart_are_on_a_logarithmic_axis() {
    let mut all = rows();
    for (at, row) in all.iter_mut().filter(|row| row.task.is_some()).enumerate() {
        let loss = 0.01 * f64::from(1 << at);
        row.quality_measure = Some("excess_loss".into());
        row.quality_higher_is_better = Some(false);
        row.quality_best = Some(0.0);
        row.quality = Some(loss);
        (row.quality_ci_low, row.quality_ci_high) = (Some(loss - 0.02), Some(loss + 0.02));
    }
    check(
        "quality-vs-cache",
        all,
        &[
            "Excess loss (nats), lower is better",
            "0.1 1",
            "best possible in recall: 0, beyond the axis",
        ],
    );
}

#[test]
fn times_come_from_other_rows_at_the_largest_place_with_all() {
    let mut all = rows();
    check(
        "quality-vs-time",
        all.clone(),
        &[
            "decode, context 1k, batch 8, the largest at which all 4 timed variants are",
            "Time per decode step",
            "measured on Example CPU, 1 thread, f32, fused path, layer scope, hot caches",
            "one of 2 places with times",
            "no time there: MHA ÷2, GQA (2) ÷2, MTLA s=2 merge=mean and MTLA s=4 merge=mean",
        ],
    );
    // At the larger context one of them has no time.
    all.retain(|row| row.label != "MTLA s=4" || row.context != Some(1024));
    for row in all.iter_mut().filter(|row| row.workload == "decode") {
        row.d_model = Some(512);
    }
    check(
        "quality-vs-time",
        all,
        &[
            "decode, context 512, batch 8, the largest at which all 4 timed variants are",
            "times are of width 512, qualities of width 128",
        ],
    );
    let untimed: Vec<Row> = rows().into_iter().filter(|row| row.task.is_some()).collect();
    assert_eq!(
        reason_of("quality-vs-time", untimed.clone()),
        "no decode, generate or beam row has the label of a trained model"
    );
    // A generation's tokens share its time.
    let mut generated = untimed;
    generated.extend((0..LABELS.len()).map(|at| Row {
        time_median_s: Some(1.28),
        ..super::row(at, "generate", 64, 1)
    }));
    check(
        "quality-vs-time",
        generated,
        &[
            "Time per generated token",
            "generate, batch 1, 64 tokens + 128 new",
            "10 ms",
        ],
    );
}

#[test]
fn strides_have_lines_by_setting_and_others_are_references() {
    check(
        "quality-vs-stride",
        rows(),
        &[
            "MTLA",
            "MTLA merge mean",
            "MHA",
            "MHA ÷2",
            "Temporal stride s",
            "2 4",
        ],
    );
    let mut single = rows();
    single.retain(|row| row.label != "MTLA s=4 merge=mean");
    check(
        "quality-vs-stride",
        single,
        &["one stride only, no line: MTLA s=2 merge=mean"],
    );
    let mut none = rows();
    none.retain(|row| row.stride != Some(4));
    assert_eq!(
        reason_of("quality-vs-stride", none),
        "two strides of one variant, trained on the same task, are needed"
    );
}

#[test]
fn ablations_are_held_against_the_usual_setting() {
    check(
        "ablation-bars",
        rows(),
        &[
            "MTLA s=2 base: merge hyper base 85.0 % merge mean 83.0 % (−2.0)",
            "GQA (2) base: every state of the encoder base 90.0 % encoder ÷2 88.0 % (−2.0)",
            "differences of shares in percentage points",
        ],
    );
    let usual = rows()
        .into_iter()
        .filter(|row| row.downsample == Some(1) && row.merge.as_deref() != Some("mean"));
    assert!(
        reason_of("ablation-bars", usual.collect()).starts_with("no variant was trained with two settings")
    );
}

#[test]
fn recall_is_weighed_by_answers_in_bins_of_distance() {
    let text = text_of("recall-heatmap", rows());
    // 64 and 100 are one bin: (300 · 0.9 + 100 · 0.5) / 400.
    for part in [
        "3 64–100",
        "MHA 90 80 - 90 3 64–100 2 8",
        "Distance (tokens)",
        "Load (facts)",
        "MTLA s=4 merge=mean",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let without = render(&Frame::from_rows(rows()), find("recall-heatmap").unwrap()).unwrap();
    let Err(Skipped { reason, .. }) = &without[0] else {
        panic!("drawn")
    };
    assert_eq!(reason, "no training of this task has probes");
    // One file a task.
    let both = render(
        &Frame::from_rows(with_speech(rows())),
        find("recall-heatmap").unwrap(),
    )
    .unwrap();
    let mut names: Vec<String> = both.into_iter().map(|one| one.unwrap_err().name).collect();
    names.sort();
    assert_eq!(names, ["recall-heatmap-recall", "recall-heatmap-speech"]);
}

#[test]
fn curves_need_two_points_and_the_last_of_two_counts() {
    let reason = |frame: &Frame| {
        let rendered = render(frame, find("learning-curves").unwrap()).unwrap();
        rendered.into_iter().next().unwrap().map(|one| one.svg)
    };
    assert_eq!(
        reason(&Frame::from_rows(rows())).unwrap_err().reason,
        "no training has a validation loss at two updates"
    );
    let table = df!(
        "case_id" => ["a", "a", "a", "a"],
        "seed" => [1u64, 1, 1, 2],
        "step" => [0u64, 100, 100, 100],
        "train_loss" => [4.0, 2.0, 2.0, 2.0],
        "valid_nats" => [Some(4.0), Some(900.0), Some(2.0), None],
    )
    .unwrap();
    let one = Row {
        case_id: Some("a".into()),
        ..row(0, None)
    };
    let frame = Frame::from_rows(vec![one]).with_curves(&table).unwrap();
    let svg = reason(&frame).unwrap();
    let text = texts(&svg).join(" ");
    assert!(
        text.contains("MHA") && text.contains("4.0") && !text.contains("900"),
        "{text}"
    );
    // Joining keeps what belongs to the rows.
    let joined = Frame::joined(vec![Frame::from_rows(Vec::new()), frame]);
    assert_eq!(reason(&joined).unwrap(), svg);
}

#[test]
fn tables_of_trainings_are_read_and_their_columns_named() {
    let empty = || Frame::from_rows(Vec::new());
    let table = df!(
        "case_id" => ["a"],
        "seed" => [1u64],
        "steps" => [100u64],
        "diverged_at" => [None::<u64>],
        "quality" => [Some(0.5)],
        "distance" => [4u64],
        "load" => [2u64],
        "accuracy" => [0.5],
        "answers" => [10u64],
        "step" => [0u64],
    )
    .unwrap();
    let all = empty()
        .with_trainings(&table)
        .and_then(|frame| frame.with_probes(&table));
    assert!(all.and_then(|frame| frame.with_curves(&table)).is_ok());

    let missing = df!("case_id" => ["a"], "seed" => [1u64]).unwrap();
    let error = empty().with_curves(&missing).unwrap_err();
    assert!(
        matches!(error, Error::MissingColumn { column: "step" }),
        "{error}"
    );
    let error = empty().with_probes(&missing).unwrap_err();
    assert!(
        matches!(error, Error::MissingColumn { column: "distance" }),
        "{error}"
    );
    let words = df!("case_id" => ["a"], "seed" => [1u64], "quality" => ["good"]).unwrap();
    let error = empty().with_trainings(&words).unwrap_err();
    assert!(error.to_string().contains("quality"), "{error}");
}

#[test]
fn figures_of_times_leave_trainings_alone() {
    let only: Vec<Row> = rows().into_iter().filter(|row| row.task.is_some()).collect();
    for figure in attn_figures::figures()
        .iter()
        .filter(|figure| !FIGURES.contains(&figure.name))
    {
        assert!(
            reason_of(figure.name, only.clone()).starts_with("no "),
            "{}",
            figure.name
        );
    }
}
