//! `report`: one page of HTML about stored runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use attn_figures::report::{Compared, REPORT_MARK, Report, ReportRun};
use attn_harness::compare::{CompareError, Rules, compare};
use attn_harness::row::Row;
use attn_harness::stats::mean_interval;
use attn_harness::store::Run;

use super::runs;
use crate::cli::ReportArgs;
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Writes the page and says where it is.
pub fn execute(args: &ReportArgs) -> Result<Exit, Failure> {
    let places = places(args)?;
    if let Some(first) = places.first() {
        refuse_others(first)?; // before the work
    }
    let html = page(&args.runs)?;
    let mut failed = None;
    for place in places {
        refuse_others(&place)?;
        match write(&place, &html) {
            Ok(()) => {
                print(&format!("{}\n", place.display()))?;
                return Ok(Exit::Done);
            }
            Err(error) => failed = failed.or(Some(format!("cannot write {}: {error}", place.display()))),
        }
    }
    let reason = failed.unwrap_or_default();
    Err(Failure::machine(format!(
        "{reason}; name another place with --out FILE.html"
    )))
}

/// Where the page may go, the first that can be written: `--out` alone, else beside the figures of a run, else here.
fn places(args: &ReportArgs) -> Result<Vec<PathBuf>, Failure> {
    if let Some(out) = &args.out {
        let is_page = out
            .extension()
            .is_some_and(|ending| ending == "html" || ending == "htm");
        if !is_page {
            let message = format!("--out {}: a report is a file that ends in .html", out.display());
            return Err(Failure::input(message));
        }
        return Ok(vec![out.clone()]);
    }
    Ok(match args.runs.as_slice() {
        [run] => vec![
            runs::plots_dir(run).join("report.html"),
            PathBuf::from(format!("{}-report.html", name(run))),
        ],
        _ => vec![PathBuf::from("report.html")],
    })
}

/// What is there and no report of ours is not overwritten.
fn refuse_others(place: &Path) -> Result<(), Failure> {
    let refused = |what: &str| {
        Err(Failure::input(format!(
            "{} {what}, name another file with --out FILE.html",
            place.display()
        )))
    };
    if place.is_dir() {
        return refused("is a folder");
    }
    let Ok(file) = fs::File::open(place) else {
        return Ok(());
    };
    let mut start = Vec::new();
    let read = file.take(1024).read_to_end(&mut start);
    if read.is_err() || !String::from_utf8_lossy(&start).contains(REPORT_MARK) {
        return refused("is there already and is no report of attn-bench");
    }
    Ok(())
}

fn page(folders: &[PathBuf]) -> Result<String, Failure> {
    let opened = runs::open(folders)?;
    if let Some(empty) = opened.iter().find(|run| run.rows.is_empty()) {
        let message = format!("{} has no rows yet: run it first", empty.dir.display());
        return Err(Failure::input(message));
    }
    let all: Vec<ReportRun> = folders
        .iter()
        .zip(&opened)
        .map(|(folder, run)| stored(folder, run))
        .collect::<Result<_, _>>()?;
    let report = Report {
        compared: opened[1..]
            .iter()
            .map(|run| against(&opened[0], run))
            .collect::<Result<_, _>>()?,
        columns: Row::columns()
            .iter()
            .map(|column| (column.name.to_string(), column.doc.trim().to_string()))
            .collect(),
        interval_of_mean: |values| mean_interval(values).map(|(_, ci)| (ci.low, ci.high)),
        runs: distinct(all),
    };
    report.to_html().map_err(Failure::input)
}

fn stored(folder: &Path, run: &Run) -> Result<ReportRun, Failure> {
    let one = [folder.to_path_buf()];
    Ok(ReportRun {
        name: name(folder),
        rows: runs::frame(&run.rows)?,
        frame: runs::drawable(&one)?,
        figures: runs::figures(&one)?,
        environment: run.environment.clone(),
        sweep_yaml: run.sweep_yaml.clone(),
        commands: run.commands(),
        warnings: run.warnings.clone(),
        data_hash: ["rows.parquet", "log.jsonl"].iter().find_map(|file| {
            let bytes = fs::read(folder.join(file)).ok()?;
            Some(((*file).to_string(), blake3::hash(&bytes).to_hex().to_string()))
        }),
    })
}

/// What `compare` says of a run against the first one. Machines may differ here: the page says where they do.
fn against(base: &Run, run: &Run) -> Result<Compared, Failure> {
    let rules = Rules {
        other_hardware: true,
        ..Rules::default()
    };
    match compare(base, run, &rules) {
        Ok(comparison) => {
            let mut found: Compared = serde_json::from_str(&comparison.json()).map_err(Failure::input)?;
            found.warnings = comparison.warnings;
            Ok(found)
        }
        // The page names runs, not folders of this machine.
        Err(CompareError::NothingInCommon { .. }) => Ok(Compared {
            refused: Some(
                "the runs have no case in common; cases match by `case_id`, which changes with sweep settings, seed, \
                 dtype and device"
                    .to_string(),
            ),
            ..Compared::default()
        }),
        Err(refusal) => Ok(Compared {
            refused: Some(refusal.to_string()),
            ..Compared::default()
        }),
    }
}

/// The folder's own name, also of `.` and of `results/a/`.
fn name(folder: &Path) -> String {
    let full = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    full.file_name()
        .map_or_else(|| "run".to_string(), |name| name.to_string_lossy().into_owned())
}

/// Two folders of one name are told apart by a number.
fn distinct(mut all: Vec<ReportRun>) -> Vec<ReportRun> {
    let names: Vec<String> = all.iter().map(|run| run.name.clone()).collect();
    for (at, run) in all.iter_mut().enumerate() {
        let twins = names[..at].iter().filter(|name| **name == run.name).count();
        if twins > 0 {
            run.name = format!("{} ({})", run.name, twins + 1);
        }
    }
    all
}

/// A reader never sees half a page.
fn write(place: &Path, html: &str) -> std::io::Result<()> {
    let folder = match place.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let partial = folder.join(format!(".attn-bench-report-{}.tmp", std::process::id()));
    let written = fs::File::create(&partial)
        .and_then(|mut file| file.write_all(html.as_bytes()))
        .and_then(|()| fs::rename(&partial, place));
    if written.is_err() {
        fs::remove_file(&partial).ok();
    }
    written
}
