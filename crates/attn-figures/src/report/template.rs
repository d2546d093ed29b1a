//! The page: what was gathered, put into the template.

use crate::Error;
use crate::font::{BOLD_WEB, REGULAR_WEB};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;

use super::cells::Cells;
use super::data::Table;
use super::doubts::Doubts;
use super::drawings::{self, Drawings};
use super::environment::Fact;
use super::findings::Block;
use super::held::{self, Held};
use super::{REPORT_MARK, Report, ReportRun, doubts, environment, learned, published, rows, timed, ways};

const PAGE: &str = include_str!("../../assets/report/page.html");
const STYLE: &str = include_str!("../../assets/report/style.css");
const SCRIPT: &str = include_str!("../../assets/report/script.js");
/// Set before anything is drawn, so that a page that was switched does not flash.
const THEME: &str = include_str!("../../assets/report/theme.js");

/// Findings of a run that a page has room for.
const MOST_BLOCKS: usize = 60;

/// A run as the template sees it.
#[derive(Serialize)]
struct RunView<'a> {
    name: &'a str,
    sweep: String,
    questions: Vec<String>,
    held: Held,
    blocks: Vec<Block>,
    n_more_blocks: usize,
    drawings: Drawings,
    doubts: Doubts,
    commands: &'a [String],
    sweep_yaml: &'a str,
    warnings: &'a [String],
    commit: Option<String>,
    is_dirty: bool,
    data_hash: Option<&'a (String, String)>,
}

/// Findings of all runs beside each other.
#[derive(Serialize)]
struct Beside {
    title: String,
    setting: String,
    table: Table,
}

/// A run against the first.
#[derive(Serialize)]
struct ComparedView<'a> {
    base: &'a str,
    name: &'a str,
    refused: Option<&'a String>,
    warnings: &'a [String],
    counts: String,
    timed: Table,
    trained: Table,
    alone: Table,
}

pub(super) fn page(report: &Report, cells: &[Cells]) -> Result<String, Error> {
    let runs: Vec<RunView<'_>> = (report.runs.iter().zip(cells).enumerate())
        .map(|(at, (run, cells))| view(report, run, cells, at))
        .collect::<Result<_, _>>()?;
    let facts: Vec<Fact> = environment::of(&report.runs, cells);
    let rows = rows::of(report, cells);
    let mut pages = Environment::new();
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    pages.set_trim_blocks(true);
    pages.set_lstrip_blocks(true);
    pages.add_template("page", PAGE).map_err(broken)?;
    let font = |bytes: &[u8]| STANDARD.encode(bytes);
    pages
        .get_template("page")
        .and_then(|page| {
            page.render(context! {
                mark => REPORT_MARK,
                style => STYLE,
                script => SCRIPT,
                theme => THEME,
                regular => font(REGULAR_WEB),
                bold => font(BOLD_WEB),
                title => title(&runs),
                many => report.is_many(),
                beside => beside(&runs),
                compared => compared(report),
                facts => facts,
                n_facts_differ => facts.iter().filter(|fact| fact.differs).count(),
                packed => rows.packed,
                first => rows.first,
                n_rows => rows.n_rows,
                left_out => rows.left_out,
                runs => runs,
            })
        })
        .map_err(broken)
}

fn broken(error: minijinja::Error) -> Error {
    Error::Page {
        message: format!("{error:#}"),
    }
}

fn view<'a>(report: &Report, run: &'a ReportRun, cells: &Cells, at: usize) -> Result<RunView<'a>, Error> {
    let mut blocks = published::blocks(&run.frame);
    blocks.extend(ways::blocks(&run.frame));
    blocks.extend(learned::blocks(&run.frame, report.interval_of_mean));
    blocks.extend(timed::blocks(&run.frame));
    // Thousands of rows may be hundreds of comparisons.
    let n_more_blocks = blocks.len().saturating_sub(MOST_BLOCKS);
    blocks.truncate(MOST_BLOCKS);
    let (commit, is_dirty) =
        environment::commit(&run.environment).map_or((None, false), |(c, d)| (Some(c), d));
    Ok(RunView {
        name: &run.name,
        sweep: cells.values("sweep_name").join(", "),
        questions: cells.values("question"),
        held: held::of(cells),
        blocks,
        n_more_blocks,
        drawings: drawings::of(run, at, report.runs.len())?,
        doubts: doubts::of(cells),
        commands: &run.commands,
        sweep_yaml: &run.sweep_yaml,
        warnings: &run.warnings,
        commit,
        is_dirty,
        data_hash: run.data_hash.as_ref(),
    })
}

/// The sweeps' names, or the folders' where runs are of the same sweep.
fn title(runs: &[RunView<'_>]) -> String {
    let sweeps: Vec<&str> = runs.iter().map(|run| run.sweep.as_str()).collect();
    let is_told = sweeps
        .iter()
        .enumerate()
        .all(|(at, name)| !name.is_empty() && !sweeps[..at].contains(name));
    let names: Vec<&str> = if is_told {
        sweeps
    } else {
        runs.iter().map(|run| run.name).collect()
    };
    names.join(" and ")
}

/// One table for each finding that is in two runs.
fn beside(runs: &[RunView<'_>]) -> Vec<Beside> {
    let mut all = Vec::new();
    if runs.len() < 2 {
        return all;
    }
    for block in runs.iter().flat_map(|run| &run.blocks) {
        let is_same = |other: &&Block| other.title == block.title && other.setting == block.setting;
        let is_known = |known: &Beside| known.title == block.title && known.setting == block.setting;
        let own: Vec<Option<&Block>> = runs.iter().map(|run| run.blocks.iter().find(is_same)).collect();
        if own.iter().flatten().count() < 2 || all.iter().any(is_known) {
            continue;
        }
        let mut heads = vec!["variant"];
        heads.extend(runs.iter().map(|run| run.name));
        let mut table = Table::new(&heads);
        let mut labels: Vec<&String> = Vec::new();
        for (label, _) in own.iter().flatten().flat_map(|block| &block.short) {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        for label in labels {
            let mut row = vec![label.clone()];
            row.extend(own.iter().map(|block| {
                let short = block.and_then(|block| block.short.iter().find(|(known, _)| known == label));
                short.map_or_else(|| "-".to_owned(), |(_, told)| told.clone())
            }));
            table.push(row);
        }
        all.push(Beside {
            title: block.title.clone(),
            setting: block.setting.clone(),
            table,
        });
    }
    all
}

fn compared(report: &Report) -> Vec<ComparedView<'_>> {
    let Some(base) = report.runs.first() else {
        return Vec::new();
    };
    (report.runs[1..].iter().zip(&report.compared))
        .map(|(run, found)| ComparedView {
            base: &base.name,
            name: &run.name,
            refused: found.refused.as_ref(),
            warnings: &found.warnings,
            counts: found.counts(),
            timed: found.timed(),
            trained: found.trained(),
            alone: found.alone(),
        })
        .collect()
}
