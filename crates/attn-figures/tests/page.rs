//! Whole reports: of the committed runs, of hostile rows, of many rows, and of rows whose findings follow by hand.

// The lint exempts test functions, but not the helpers between them.
#![allow(clippy::unwrap_used)]

use attn_figures::Frame;
use attn_figures::report::{Compared, ComparedCase, REPORT_MARK, Report, ReportRun};
use polars::prelude::{
    Column, DataFrame, DataType, NamedFrom as _, ParquetReader, SerReader as _, Series, df,
};
use serde_json::json;
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&<!--";

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results")
}

fn parquet(path: &Path) -> DataFrame {
    ParquetReader::new(File::open(path).unwrap()).finish().unwrap()
}

/// A run as `attn-bench report` reads it, all figures.
fn committed(name: &str) -> ReportRun {
    let folder = results().join(name);
    let rows = parquet(&folder.join("rows.parquet"));
    let mut frame = Frame::from_polars(&rows).unwrap();
    let table = |name: &str| {
        Some(folder.join(name))
            .filter(|path| path.exists())
            .map(|path| parquet(&path))
    };
    if let Some(table) = table("trainings.parquet") {
        frame = frame.with_trainings(&table).unwrap();
    }
    if let Some(table) = table("curves.parquet") {
        frame = frame.with_curves(&table).unwrap();
    }
    if let Some(table) = table("probes.parquet") {
        frame = frame.with_probes(&table).unwrap();
    }
    ReportRun {
        environment: serde_json::from_str(&fs::read_to_string(folder.join("environment.json")).unwrap())
            .unwrap(),
        sweep_yaml: fs::read_to_string(folder.join("sweep.yaml")).unwrap(),
        ..run(name, rows, frame)
    }
}

fn run(name: &str, rows: DataFrame, frame: Frame) -> ReportRun {
    ReportRun {
        name: name.to_owned(),
        rows,
        frame,
        figures: Vec::new(),
        environment: json!({}),
        sweep_yaml: String::new(),
        commands: vec![format!("attn-bench run experiments/{name}.yaml")],
        warnings: Vec::new(),
        data_hash: Some(("rows.parquet".to_owned(), "00".repeat(32))),
    }
}

fn untyped(name: &str, rows: DataFrame) -> ReportRun {
    let frame = Frame::from_polars(&rows).unwrap();
    run(name, rows, frame)
}

/// The mean with twice the standard error: easy to follow by hand.
fn twice_the_error(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = 2.0 * (variance / n).sqrt();
    (n > 1.0).then_some((mean - half, mean + half))
}

fn report(runs: Vec<ReportRun>) -> Report {
    Report {
        compared: runs[1..].iter().map(|_| Compared::default()).collect(),
        columns: vec![("label".to_owned(), "Name in tables.".to_owned())],
        interval_of_mean: twice_the_error,
        runs,
    }
}

/// What holds for every page.
fn check(html: &str) {
    assert!(html[..1024].contains(REPORT_MARK));
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    for outside in [
        "src=\"http",
        "href=\"http",
        "url(http",
        "<link",
        "@import",
        "<iframe",
    ] {
        assert!(!html.contains(outside), "{outside}");
    }
    let mut ids = HashSet::new();
    for part in html.split(" id=\"").skip(1) {
        let id = part.split('"').next().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
    }
    let body = html.split("<body>").nth(1).unwrap();
    assert_eq!(body.matches("</script>").count(), 2, "the rows and the script");
    let text = text_of(html);
    assert!(
        !text.contains("NaN") && !text.contains(" inf"),
        "no silly numbers"
    );
    let packed = html
        .split("id=\"packed\">")
        .nth(1)
        .unwrap()
        .split("</script>")
        .next()
        .unwrap();
    let packed: serde_json::Value = serde_json::from_str(packed).unwrap();
    assert!(packed["rows"].as_u64().unwrap() > 0 && packed["columns"].as_array().unwrap().len() > 4);
}

#[test]
fn committed_runs_of_every_kind_have_a_page() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&out).unwrap();
    let mut n = 0;
    for entry in fs::read_dir(results()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("rows.parquet").exists() {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let run = committed(&name);
        let (sweep, n_rows) = (run.sweep_yaml.clone(), run.rows.height());
        let html = report(vec![run]).to_html().unwrap();
        check(&html);
        fs::write(out.join(format!("{name}.html")), &html).unwrap();
        assert!(
            html.contains(&format!("{n_rows} cases")) && html.contains("<figure"),
            "{name}"
        );
        assert!(html.contains("<article class=\"block\">"), "{name} has findings");
        let question = sweep
            .lines()
            .find_map(|line| line.strip_prefix("question: "))
            .unwrap();
        let question = question
            .trim_matches('"')
            .replace('\'', "&#x27;")
            .replace('/', "&#x2f;");
        assert!(html.contains(&question), "{name}: {question}");
        n += 1;
    }
    assert!(n >= 10, "{n} runs");
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let page = || {
        report(vec![committed("quick-2cores"), committed("growth-2cores")])
            .to_html()
            .unwrap()
    };
    assert_eq!(page(), page());
}

fn timed(labels: [&str; 3]) -> DataFrame {
    df!(
        "case_id" => ["a", "b", "c"],
        "variant" => ["mha", "mqa", "mla"],
        "label" => labels,
        "workload" => ["decode"; 3],
        "status" => ["ok"; 3],
        "trust" => ["clean", "clean", "shared"],
        "trust_reason" => [None, None, Some("others took 9 % of the processors")],
        "batch" => [4u64; 3],
        "context" => [8192u64; 3],
        "time_median_s" => [2.0, 1.0, 1.9],
        "time_ci_low_s" => [1.8, 0.9, 1.7],
        "time_ci_high_s" => [2.2, 1.1, 2.1],
        "kv_bytes" => [4_194_304u64, 1_048_576, 2_097_152],
        "peak_bytes" => [6_291_456u64, 4_194_304, 8_388_608],
        "null_reasons" => ["{\"energy_j\":\"no counter\"}"; 3]
    )
    .unwrap()
}

/// A page's text without tags, with plain spaces.
fn text_of(html: &str) -> String {
    let main = html.split("<main>").nth(1).unwrap();
    let (before, rest) = main.split_once("<script type").unwrap();
    let after = rest.split_once("</script>").unwrap().1;
    let body = [before, after.split("<script>").next().unwrap()].concat();
    let mut text = String::new();
    let mut is_tag = false;
    for letter in body.chars() {
        match letter {
            '<' => is_tag = true,
            '>' => is_tag = false,
            _ if is_tag => {}
            '\u{a0}' | '\u{2009}' | '\n' => text.push(' '),
            other => text.push(other),
        }
    }
    text.replace("&#x27;", "'")
}

#[test]
fn findings_are_what_follows_by_hand() {
    let text = text_of(
        &report(vec![untyped("mine", timed(["MHA", "MQA", "MLA"]))])
            .to_html()
            .unwrap(),
    );
    for expected in [
        // 2 / 1, between 1.8 / 1.1 and 2.2 / 0.9.
        "shown MQA has the largest speed-up of 2 variants: 2.00 times as fast as MHA (95 % interval 1.64 to 2.44).",
        // 2 / 1.9, between 1.8 / 2.1 and 2.2 / 1.7.
        "open Neither faster nor slower than MHA, the interval holds 1: MLA 1.05× (0.86 to 1.29). not clean MLA is shared.",
        "by formula MQA has the smallest cache: 1 MiB, 4.00 times less than MHA's 4 MiB",
        "no interval MQA has the smallest peak memory: 4 MiB, 1.50 times less than MHA's 6 MiB",
        "others took 9 % of the processors",
        "no counter",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn qualities_are_compared_seed_by_seed() {
    let rows = df!(
        "case_id" => ["a", "b", "c"],
        "variant" => ["mha", "mqa", "mla"],
        "label" => ["MHA", "MQA", "MLA"],
        "workload" => ["quality"; 3],
        "task" => ["recall"; 3],
        "status" => ["ok"; 3],
        "quality_measure" => ["token_accuracy"; 3],
        "quality_higher_is_better" => [true; 3],
        "quality" => [0.6, 0.7, 0.62],
        "quality_ci_low" => [0.5, 0.6, 0.4],
        "quality_ci_high" => [0.7, 1.2, 0.8],
        "n_seeds" => [3u64; 3]
    )
    .unwrap();
    let trainings = df!(
        "case_id" => ["a", "a", "a", "b", "b", "b", "c", "c", "c"],
        "seed" => [1u64, 2, 3, 1, 2, 3, 1, 2, 3],
        "quality" => [0.5, 0.6, 0.7, 0.6, 0.72, 0.78, 0.4, 0.6, 0.86]
    )
    .unwrap();
    let frame = Frame::from_polars(&rows)
        .unwrap()
        .with_trainings(&trainings)
        .unwrap();
    let text = text_of(&report(vec![run("q", rows, frame)]).to_html().unwrap());
    for expected in [
        // An accuracy is at most 1, whatever Student says.
        "MQA has the best mean of 3 models: Token accuracy 70.0 % (higher is better, 95 % interval over 3 seeds 60.0 % to 100.0 %).",
        // Differences 10, 12 and 8: mean 10, standard error 2 / sqrt 3.
        "shown Better than MHA, in percentage points, seed by seed: MQA +10.0 (+7.7 to +12.3).",
        // -10, 0 and 16: mean 2, standard deviation 13.1.
        "open Neither better nor worse than MHA, the interval holds 0, in percentage points, seed by seed: MLA +2.0 (−13.1 to +17.1).",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_hostile_text_stays_text() {
    let hostile = |n: usize| vec![HOSTILE; n];
    let mut rows = timed(["MHA", HOSTILE, "MLA"]);
    for name in [
        "question",
        "sweep_name",
        "machine",
        "trust_reason",
        "notes",
        "null_reasons",
        "measure",
        "case_id",
    ] {
        rows.with_column(Column::from(Series::new(name.into(), hostile(3))))
            .unwrap();
    }
    let mut failed = rows.slice(0, 1);
    for (name, value) in [
        ("status", "crash"),
        ("reason", HOSTILE),
        ("label", HOSTILE),
        ("variant", HOSTILE),
    ] {
        failed
            .with_column(Column::from(Series::new(name.into(), [value])))
            .unwrap();
    }
    rows.with_column(Column::from(Series::full_null(
        "reason".into(),
        3,
        &DataType::String,
    )))
    .unwrap();
    let failed = failed.select(rows.get_column_names_owned()).unwrap();
    let rows = rows.vstack(&failed).unwrap();
    let hostile_run = || ReportRun {
        environment: json!({"cpu": {"model": HOSTILE}, HOSTILE: HOSTILE, "build": {"commit": HOSTILE, "dirty": true}}),
        sweep_yaml: HOSTILE.to_owned(),
        commands: hostile(1).into_iter().map(str::to_owned).collect(),
        warnings: vec![HOSTILE.to_owned()],
        ..untyped(HOSTILE, rows.clone())
    };
    let html = Report {
        compared: vec![Compared {
            warnings: vec![HOSTILE.to_owned()],
            cases: vec![ComparedCase {
                label: HOSTILE.to_owned(),
                point: HOSTILE.to_owned(),
                verdict: "SAME".to_owned(),
                ..ComparedCase::default()
            }],
            ..Compared::default()
        }],
        ..report(vec![hostile_run(), hostile_run()])
    }
    .to_html()
    .unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("hostile.html"), &html).unwrap();
    check(&html);
    assert!(
        !html.contains("<img") && !html.contains("<!--"),
        "a tag of a row's text"
    );
    // Every attribute is in double quotes: a quote of a text would end it.
    assert!(
        !html.contains("onerror=alert(1)>\""),
        "a raw quote of a row's text"
    );
    assert!(html.contains("&lt;img src=x"), "the text is there");
}

#[test]
fn five_thousand_rows_stay_below_three_megabytes() {
    let one = parquet(&results().join("quick-2cores/rows.parquet"));
    let mut all = one.clear();
    for copy in 0..60u32 {
        let mut next = one.clone();
        let names: Vec<String> = one
            .columns()
            .iter()
            .map(|column| column.name().to_string())
            .collect();
        for name in names {
            let column = next.column(&name).unwrap().clone();
            if column.dtype() == &DataType::Float64 {
                next.with_column(column * (1.0 + 0.001_37 * f64::from(copy)))
                    .unwrap();
            } else if name == "case_id" {
                let ids: Vec<String> = column
                    .str()
                    .unwrap()
                    .iter()
                    .map(|id| format!("{}{copy}", id.unwrap()))
                    .collect();
                next.with_column(Column::from(Series::new("case_id".into(), ids)))
                    .unwrap();
            } else if name == "label" {
                // Sixty settings of every variant: as many curves.
                let labels: Vec<String> = column
                    .str()
                    .unwrap()
                    .iter()
                    .map(|label| format!("{} v{copy}", label.unwrap()))
                    .collect();
                next.with_column(Column::from(Series::new("label".into(), labels)))
                    .unwrap();
            }
        }
        all.vstack_mut(&next).unwrap();
    }
    assert_eq!(all.height(), 5040);
    let html = report(vec![untyped("large", all)]).to_html().unwrap();
    check(&html);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("large.html"), &html).unwrap();
    eprintln!("{} bytes", html.len());
}

#[test]
fn runs_beside_each_other_say_where_they_differ() {
    let mut other = timed(["MHA", "MQA", "MLA"]);
    let times = Column::from(Series::new("time_median_s".into(), [2.0, 1.0, 1.0]));
    other.with_column(times).unwrap();
    let of = |name: &str, rows: DataFrame, cores: u64| ReportRun {
        environment: json!({"cpu": {"cores": cores, "model": "Example"}}),
        ..untyped(name, rows)
    };
    let runs = vec![
        of("first", timed(["MHA", "MQA", "MLA"]), 2),
        of("second", other, 4),
    ];
    let html = report(runs).to_html().unwrap();
    check(&html);
    let text = text_of(&html);
    assert!(text.contains("The runs differ in 1 of 2 entries, marked ≠."));
    assert!(html.contains("the runs differ\">≠</span> cpu.cores</th><td>2</td><td>4</td>"));
    assert!(
        html.contains("MLA</th><td>1.05× (0.86 to 1.29), open</td><td>2.00×, no interval</td>"),
        "{text}"
    );
}
