//! Whole figures from small frames.

// The lint exempts test functions, but not the helpers between them.
#![allow(clippy::unwrap_used)]

mod decoders;
mod trainings;

use attn_figures::{Error, Frame, Outcome, Position, Row, draw_all, figures, find, render, to_png};
use polars::prelude::{DataType, df};
use resvg::tiny_skia::Pixmap;
use resvg::usvg::roxmltree::Document;

const LABELS: [(&str, &str, Option<u64>); 4] = [
    ("mha", "MHA", None),
    ("gqa", "GQA (2)", None),
    ("mtla", "MTLA s=2", Some(2)),
    ("mtla", "MTLA s=4", Some(4)),
];

fn row(at: usize, workload: &str, length: u64, batch: u64) -> Row {
    let (variant, label, stride) = LABELS[at];
    let seconds = 1e-4 * (length * batch) as f64 / 512.0 / (at + 1) as f64;
    let is_decode = workload == "decode";
    Row {
        case_id: Some(format!("{label} {workload} {length} {batch}")),
        flops: Some(seconds * 5e9),
        bytes_moved: Some(seconds * 1e9 * (at + 1) as f64),
        achieved_flops_per_s: Some(5e9),
        ceiling_flops_per_s: Some(50e9),
        ceiling_bytes_per_s: Some(12e9),
        variant: variant.into(),
        label: label.into(),
        stride,
        workload: workload.into(),
        status: "ok".into(),
        batch: Some(batch),
        context: is_decode.then_some(length),
        tokens: (!is_decode).then_some(length),
        new_tokens: ["generate", "trajectory"].contains(&workload).then_some(128),
        time_median_s: Some(seconds),
        time_ci_low_s: Some(seconds * 0.9),
        time_ci_high_s: Some(seconds * 1.1),
        tokens_per_s: Some(batch as f64 / seconds),
        kv_bytes: is_decode.then(|| (length * batch) as f64 * 1024.0 / (at + 1) as f64),
        dtype_resolved: Some("f32".into()),
        path_resolved: Some("fused".into()),
        scope: Some("layer".into()),
        machine: Some("Example CPU".into()),
        threads: Some(1),
        question: Some("How do latency and cache size grow?".into()),
        ..Row::default()
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for at in 0..LABELS.len() {
        for length in [512, 1024, 2048] {
            rows.extend([1, 8].map(|batch| row(at, "decode", length, batch)));
            let others = ["prefill", "train_step", "generate", "trajectory"];
            rows.extend(others.map(|workload| row(at, workload, length, 1)));
        }
    }
    rows
}

/// Rows that give a figure one document.
fn rows_for(figure: &str) -> Vec<Row> {
    if decoders::FIGURES.contains(&figure) {
        decoders::rows()
    } else if figure == "quality-vs-lr" {
        trainings::rows_at_three_rates()
    } else if trainings::FIGURES.contains(&figure) {
        trainings::rows()
    } else {
        rows()
    }
}

/// The rows with ten positions for each trajectory, the cache growing every `stride` tokens, and with all that belongs
/// to trainings.
fn frame(rows: Vec<Row>) -> Frame {
    let mut positions = Vec::new();
    for row in rows.iter().filter(|row| row.workload == "trajectory") {
        let (first, stride) = (row.tokens.unwrap() + 1, row.stride.unwrap_or(1));
        positions.extend((first..first + 10).map(|position| Position {
            case_id: row.case_id.clone().unwrap(),
            position,
            time_median_s: row.time_median_s,
            time_ci_low_s: row.time_ci_low_s,
            time_ci_high_s: row.time_ci_high_s,
            kv_bytes: Some(position.div_ceil(stride) as f64 * 256.0),
            closes_slot: Some(position % stride == 0),
        }));
    }
    trainings::with_details(Frame::from_rows(rows).and_positions(positions))
}

/// The only document of a figure.
fn svg_of(name: &str, rows: Vec<Row>) -> String {
    let mut rendered = render(&frame(rows), find(name).unwrap()).unwrap();
    assert_eq!(rendered.len(), 1, "{name}");
    rendered
        .remove(0)
        .unwrap_or_else(|skipped| panic!("{name}: {}", skipped.reason))
        .svg
}

fn reason_of(name: &str, rows: Vec<Row>) -> String {
    let mut rendered = render(&frame(rows), find(name).unwrap()).unwrap();
    rendered.remove(0).unwrap_err().reason
}

fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts
        .filter_map(|node| node.text())
        .map(|text| text.trim().to_owned())
        .collect()
}

#[test]
fn every_figure_names_every_variant_and_has_ink() {
    for figure in figures() {
        let svg = svg_of(figure.name, rows_for(figure.name));
        let texts = texts(&svg);
        for (_, label, stride) in LABELS {
            // Strides are the axis of these.
            let is_axis = ["compression-rate", "quality-vs-stride"].contains(&figure.name);
            if !is_axis || stride.is_none() {
                assert!(
                    texts.iter().any(|text| text == label),
                    "{}: {label} in {texts:?}",
                    figure.name
                );
            }
        }
        assert!(
            texts
                .iter()
                .any(|text| text == "How do latency and cache size grow?"),
            "{}",
            figure.name
        );
        let pixels = Pixmap::decode_png(&to_png(&svg, 1.0).unwrap()).unwrap();
        let n_inked = pixels.pixels().iter().filter(|pixel| pixel.red() < 200).count();
        assert!(n_inked > 2000, "{}: {n_inked}", figure.name);
    }
}

#[test]
fn no_text_leaves_the_page() {
    let long = "How does a question that somebody wrote with far too many words for a single line of a figure look, \
                when it has to be wrapped at least once, and perhaps twice, before the panels can begin below it?";
    for figure in figures() {
        let mut all = rows_for(figure.name);
        for row in &mut all {
            row.question = Some(long.into());
            row.label = format!("{} with a rather long name that goes on and on", row.label);
        }
        let svg = svg_of(figure.name, all.clone());
        let options = resvg::usvg::Options::default();
        assert!(resvg::usvg::Tree::from_str(&svg, &options).is_ok());
        let pixels = Pixmap::decode_png(&to_png(&svg, 1.0).unwrap()).unwrap();
        let (width, height) = (pixels.width() as usize, pixels.height() as usize);
        let is_inked = |x: usize, y: usize| pixels.pixels()[y * width + x].red() < 250;
        let sides = (0..height).any(|y| (0..8).any(|x| is_inked(x, y) || is_inked(width - 1 - x, y)));
        let ends = (0..width).any(|x| (0..8).any(|y| is_inked(x, y) || is_inked(x, height - 1 - y)));
        assert!(!sides && !ends, "{}", figure.name);
    }
}

#[test]
fn hostile_text_is_only_text() {
    let hostile = "<script>alert(1)</script>&\"'\u{0}\u{1b}\u{202e}]]>";
    for figure in figures() {
        let mut all = rows_for(figure.name);
        for row in &mut all {
            row.label = format!("{hostile}{}", row.label);
            row.question = Some(hostile.into());
            row.machine = Some(hostile.into());
            row.trust = Some(hostile.into());
        }
        let svg = svg_of(figure.name, all.clone());
        assert!(!svg.contains("<script"), "{}", figure.name);
        let document = Document::parse(&svg).unwrap();
        assert!(document.descendants().all(|node| !node.has_tag_name("script")));
        assert!(
            texts(&svg)
                .iter()
                .any(|text| text.contains("<script>alert(1)</script>&\"'")),
            "{}",
            figure.name
        );
    }
}

#[test]
fn two_draws_are_the_same_to_the_byte() {
    for figure in figures() {
        let mut turned = rows_for(figure.name);
        turned.reverse();
        let once = svg_of(figure.name, rows_for(figure.name));
        assert_eq!(
            once,
            svg_of(figure.name, rows_for(figure.name)),
            "{}",
            figure.name
        );
        assert_eq!(
            once,
            svg_of(figure.name, turned.clone()),
            "{}, rows turned around",
            figure.name
        );
        assert_eq!(
            to_png(&once, 1.0).unwrap(),
            to_png(&once, 1.0).unwrap(),
            "{}",
            figure.name
        );
    }
}

#[test]
fn rows_that_must_not_mix_get_files_of_their_own() {
    let mut all = rows();
    let mut halves = rows();
    halves
        .iter_mut()
        .for_each(|row| row.dtype_resolved = Some("bf16".into()));
    all.extend(halves);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new").join("plots");
    let outcomes = draw_all(&Frame::from_rows(all), &["latency-vs-context".into()], &out).unwrap();
    let names: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Drawn(figure) => figure.name.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["latency-vs-context-bf16", "latency-vs-context-f32"]);
    let mut files: Vec<String> = out
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let stems = ["latency-vs-context-bf16", "latency-vs-context-f32"];
    assert_eq!(
        files,
        stems.map(|s| [format!("{s}.png"), format!("{s}.svg")]).concat()
    );
}

#[test]
fn many_batches_leave_three_panels_and_a_note() {
    let mut all = Vec::new();
    for at in 0..LABELS.len() {
        for length in [512, 1024] {
            all.extend([1, 2, 4, 8, 16, 32].map(|batch| row(at, "decode", length, batch)));
        }
    }
    let texts = texts(&svg_of("latency-vs-context", all));
    for title in ["batch 1", "batch 8", "batch 32"] {
        assert!(texts.iter().any(|text| text == title), "{texts:?}");
    }
    assert!(!texts.iter().any(|text| text == "batch 16"));
    assert!(
        texts
            .iter()
            .any(|text| text.contains("batch 1, 8 and 32 of 6 measured")),
        "{texts:?}"
    );
}

#[test]
fn failures_and_doubts_are_in_the_caption() {
    let mut all = rows();
    for row in all
        .iter_mut()
        .filter(|row| row.label == "MHA" && row.context == Some(2048))
    {
        row.status = "skipped_oom".into();
    }
    for row in all
        .iter_mut()
        .filter(|row| row.label == "GQA (2)" && row.context == Some(512))
    {
        row.trust = Some("throttled".into());
    }
    let caption = texts(&svg_of("latency-vs-context", all)).join(" ");
    assert!(caption.contains("2 cases not drawn: 2 skipped oom"), "{caption}");
    assert!(
        caption.contains("hollow: trust not clean (2 cases: 2 throttled)"),
        "{caption}"
    );
    assert!(
        caption.contains("Example CPU · 1 thread · f32 · fused path · layer scope"),
        "{caption}"
    );
}

#[test]
fn a_figure_without_data_says_why() {
    let decode: Vec<Row> = rows()
        .into_iter()
        .filter(|row| row.workload == "decode")
        .collect();
    assert_eq!(reason_of("prefill-vs-tokens", decode.clone()), "no prefill rows");
    let one_batch: Vec<Row> = decode
        .iter()
        .filter(|row| row.batch == Some(1))
        .cloned()
        .collect();
    assert!(reason_of("latency-vs-batch", one_batch).contains("two values of batch"));
    let failed: Vec<Row> = decode
        .iter()
        .cloned()
        .map(|row| Row {
            status: "oom".into(),
            ..row
        })
        .collect();
    assert!(reason_of("latency-vs-context", failed).starts_with("none of the 24 decode rows"));
    let no_mha: Vec<Row> = decode
        .iter()
        .filter(|row| row.variant != "mha")
        .cloned()
        .collect();
    assert!(reason_of("speedup-bars", no_mha.clone()).contains("MHA"));
    assert!(reason_of("memory-bars", no_mha).contains("MHA"));
    let no_strides: Vec<Row> = decode.into_iter().filter(|row| row.stride.is_none()).collect();
    assert!(reason_of("compression-rate", no_strides).contains("two strides"));
    assert_eq!(reason_of("cache-vs-context", Vec::new()), "no decode rows");
}

#[test]
fn grades_are_counted_from_the_lightest_to_the_gravest() {
    let mut all = rows();
    for (row, trust) in all.iter_mut().filter(|row| row.workload == "decode").zip([
        "throttled",
        "shared",
        "throttled",
        "strange",
    ]) {
        row.trust = Some(trust.into());
    }
    let caption = texts(&svg_of("latency-vs-context", all)).join(" ");
    assert!(
        caption.contains("trust not clean (4 cases: 1 shared, 2 throttled, 1 other)"),
        "{caption}"
    );
}

/// Figures of what no cache regime changes: sizes in closed form, and qualities.
const UNTIMED: [&str; 8] = [
    "cache-vs-context",
    "memory-bars",
    "quality-vs-cache",
    "quality-vs-stride",
    "quality-vs-lr",
    "ablation-bars",
    "recall-heatmap",
    "learning-curves",
];

#[test]
fn every_figure_says_what_was_held_equal() {
    for figure in figures() {
        let mut all = rows_for(figure.name);
        for row in &mut all {
            (row.fair, row.fair_reference) = (Some("params".into()), Some("mha".into()));
            row.fair_mismatch = Some(if row.label == "GQA (2)" { -0.012 } else { 0.0 });
            row.cache_regime = Some("cold".into());
        }
        let caption = |rows| texts(&svg_of(figure.name, rows)).join(" ").replace('\u{a0}', " ");
        let fair = caption(all);
        assert!(
            fair.contains("same parameters as MHA (mismatch up to 1.2 %)"),
            "{}: {fair}",
            figure.name
        );
        assert_eq!(
            fair.contains("cold caches"),
            !UNTIMED.contains(&figure.name),
            "{}",
            figure.name
        );
        let plain = caption(rows_for(figure.name));
        assert!(plain.contains("same width"), "{}", figure.name);
    }
}

#[test]
fn a_trajectory_has_times_and_growth_and_names_what_to_doubt() {
    let mut all = rows();
    for row in all.iter_mut().filter(|row| row.label == "MHA") {
        row.trust = Some("shared".into());
    }
    let texts = texts(&svg_of("decode-trajectory", all));
    for title in ["Time of a step", "Bytes added since the first position"] {
        assert!(texts.iter().any(|text| text == title), "{texts:?}");
    }
    let all = texts.join(" ");
    assert!(all.contains("128 tokens generated after 2048"), "{all}");
    assert!(all.contains("one of 3 trajectories measured"), "{all}");
    assert!(all.contains("trust not clean: MHA (shared)"), "{all}");

    let without = render(&Frame::from_rows(rows()), find("decode-trajectory").unwrap()).unwrap();
    let reason = &without[0].as_ref().unwrap_err().reason;
    assert_eq!(reason, "no trajectory has times at two positions");
}

#[test]
fn positions_are_read_from_their_table_and_the_last_of_two_counts() {
    let table = df!(
        "case_id" => ["a", "a", "a"],
        "position" => [9u64, 10, 10],
        "time_median_s" => [1e-3, 5.0, 2e-3],
        "kv_bytes" => [64u64, 96, 96],
        "closes_slot" => [false, true, true],
        "bytes_moved" => [1u64, 1, 1],
    )
    .unwrap();
    let row = Row {
        case_id: Some("a".into()),
        tokens: Some(8),
        ..row(0, "trajectory", 8, 1)
    };
    let frame = Frame::from_rows(vec![row]).with_positions(&table).unwrap();
    let svg = render(&frame, find("decode-trajectory").unwrap())
        .unwrap()
        .remove(0);
    let texts = texts(&svg.unwrap().svg).join(" ").replace('\u{a0}', " ");
    assert!(texts.contains("2 ms") && !texts.contains("5 s"), "{texts}");

    let missing = df!("case_id" => ["a"]).unwrap();
    let error = Frame::from_rows(Vec::new()).with_positions(&missing).unwrap_err();
    assert!(
        matches!(error, Error::MissingColumn { column: "position" }),
        "{error}"
    );
    let words = df!("case_id" => ["a"], "position" => [1u64], "closes_slot" => ["yes"]).unwrap();
    let error = Frame::from_rows(Vec::new()).with_positions(&words).unwrap_err();
    assert!(error.to_string().contains("closes_slot"), "{error}");
}

#[test]
fn a_roofline_needs_ceilings_and_tells_them() {
    let texts = texts(&svg_of("roofline", rows()))
        .join(" ")
        .replace('\u{a0}', " ");
    assert!(
        texts.contains("12.0 GB/s read, 50.0 GFLOP/s in matrix products"),
        "{texts}"
    );
    let mut without = rows();
    for row in &mut without {
        row.ceiling_bytes_per_s = None;
    }
    assert_eq!(
        reason_of("roofline", without),
        "no row has operations, bytes and measured ceilings"
    );
}

#[test]
fn an_unknown_figure_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("plots");
    let error = draw_all(&Frame::from_rows(rows()), &["latency".into()], &out).unwrap_err();
    assert!(matches!(&error, Error::UnknownFigure { name, .. } if name == "latency"));
    assert!(error.to_string().contains("latency-vs-context"));
    assert!(!out.exists());
}

#[test]
fn a_table_with_the_essential_columns_is_enough() {
    let table = df!(
        "variant" => ["mha", "mtla"],
        "workload" => ["decode", "decode"],
        "status" => ["ok", "ok"],
        "stride" => [None, Some(2i32)],
        "batch" => [1u32, 1],
        "context" => [512.0, 1024.0],
        "unknown" => [true, false],
    )
    .unwrap();
    let frame = Frame::from_polars(&table).unwrap();
    let labels: Vec<&str> = frame.rows().iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels, ["MHA", "MTLA s=2"]);
    assert_eq!(frame.rows()[1].context, Some(1024));
    assert_eq!(frame.rows()[0].time_median_s, None);
}

#[test]
fn the_columns_are_the_fields() {
    let described = format!("{:#?}", Row::default());
    let fields = described.lines().filter_map(|line| line.trim().split_once(':'));
    let mut fields: Vec<&str> = fields.map(|(name, _)| name).collect();
    let mut columns = Frame::COLUMNS.to_vec();
    fields.sort_unstable();
    columns.sort_unstable();
    assert_eq!(columns, fields);
}

#[test]
fn integers_of_any_width_and_null_columns_are_read() {
    let mut table =
        df!("variant" => ["mha"], "workload" => ["decode"], "status" => ["ok"], "threads" => [2i64]);
    let table = table.as_mut().unwrap();
    for dtype in [
        DataType::Int32,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
    ] {
        let cast = table.column("threads").unwrap().cast(&dtype).unwrap();
        table.with_column(cast).unwrap();
        assert_eq!(
            Frame::from_polars(table).unwrap().rows()[0].threads,
            Some(2),
            "{dtype}"
        );
    }
    let nothing = table.column("threads").unwrap().cast(&DataType::Null);
    if let Ok(nothing) = nothing {
        table.with_column(nothing).unwrap();
        assert_eq!(Frame::from_polars(table).unwrap().rows()[0].threads, None);
    }
}

#[test]
fn a_bad_column_is_named() {
    let missing = df!("variant" => ["mha"], "workload" => ["decode"]).unwrap();
    let error = Frame::from_polars(&missing).unwrap_err();
    assert!(
        matches!(error, Error::MissingColumn { column: "status" }),
        "{error}"
    );

    let base =
        |name: &str| df!("variant" => ["mha"], "workload" => ["decode"], "status" => ["ok"], name => ["x"]);
    let error = Frame::from_polars(&base("batch").unwrap()).unwrap_err();
    assert!(
        matches!(error, Error::ColumnType { column: "batch", .. }),
        "{error}"
    );

    let number = df!("variant" => [1], "workload" => ["decode"], "status" => ["ok"]).unwrap();
    let error = Frame::from_polars(&number).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ColumnType {
                column: "variant",
                ..
            }
        ),
        "{error}"
    );

    let null = df!("variant" => ["mha"], "workload" => ["decode"], "status" => [None::<&str>]).unwrap();
    let error = Frame::from_polars(&null).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Value {
                column: "status",
                row: 0,
                ..
            }
        ),
        "{error}"
    );

    let negative =
        df!("variant" => ["mha"], "workload" => ["decode"], "status" => ["ok"], "batch" => [-1]).unwrap();
    let error = Frame::from_polars(&negative).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Value {
                column: "batch",
                row: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_variant_that_failed_keeps_its_bar_and_its_reason() {
    let mut all = rows();
    for row in all.iter_mut().filter(|row| row.label == "GQA (2)") {
        row.status = "oom".into();
    }
    for name in ["speedup-bars", "generate-bars"] {
        let texts = texts(&svg_of(name, all.clone()));
        assert!(
            texts.iter().any(|text| text == "GQA (2)") && texts.iter().any(|text| text == "oom"),
            "{name}"
        );
    }
}

#[test]
fn curves_that_end_at_different_places_get_a_legend() {
    let mut all = rows();
    all.retain(|row| row.batch == Some(1) && row.workload == "decode");
    let last = |row: &Row| row.context == Some(2048);
    all.retain(|row| row.label == "MHA" || !last(row));
    let texts = texts(&svg_of("latency-vs-context", all));
    for (_, label, _) in LABELS {
        assert_eq!(texts.iter().filter(|text| *text == label).count(), 1, "{texts:?}");
    }
}

#[test]
fn a_doubtful_reference_is_named_as_such() {
    let mut all = rows();
    for row in all.iter_mut().filter(|row| row.label == "MHA") {
        row.trust = Some("shared".into());
    }
    let texts = texts(&svg_of("compression-rate", all));
    assert!(
        texts
            .iter()
            .any(|text| text.contains("dashed, trust not clean: MHA")),
        "{texts:?}"
    );
    assert!(texts.iter().all(|text| !text.contains("hollow")), "{texts:?}");
}
