//! Comparisons as text, for a terminal or for a pull request.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use super::{Case, Change, Comparison, Lost, QualityCase, Regression, Verdict};
use crate::status::Status;
use crate::table::format_quality;
use crate::units::format_time;

/// A rule under the header and nothing else, as in the summary of a run.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

const HEADER: [&str; 7] = [
    "verdict",
    "variant",
    "point",
    "base",
    "new",
    "new / base (95 % CI)",
    "adjusted p",
];

const QUALITY_HEADER: [&str; 7] = [
    "quality",
    "variant",
    "point",
    "base",
    "new",
    "new − base (95 % CI)",
    "adjusted p",
];

/// Columns of numbers begin here.
const FIRST_NUMBER: usize = 3;

pub(super) fn table(comparison: &Comparison) -> String {
    let mut text = counts(comparison) + "\n";
    if !comparison.cases.is_empty() {
        text.push('\n');
        text.push_str(&cases(&ordered(&comparison.cases), comparison, false));
    }
    if !comparison.qualities.is_empty() {
        text.push('\n');
        text.push_str(&qualities(
            comparison.qualities.iter().collect(),
            comparison,
            false,
        ));
    }
    let notes = notes(comparison);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&format!("* {note}\n"));
    }
    text
}

pub(super) fn markdown(comparison: &Comparison) -> String {
    let regressions = comparison.regressions();
    let found = match regressions.len() {
        0 => "no regression".to_string(),
        1 => "1 regression".to_string(),
        n => format!("{n} regressions"),
    };
    let mut text = format!("**attn-bench: {found}.** {}\n", counts(comparison));
    let slower: Vec<&Case> = regressions
        .iter()
        .filter_map(|regression| match regression {
            Regression::Slower(case) => Some(*case),
            Regression::Lost(_) | Regression::Worse(_) => None,
        })
        .collect();
    if !slower.is_empty() {
        text.push('\n');
        text.push_str(&cases(&slower, comparison, true));
    }
    let worse: Vec<&QualityCase> = regressions
        .iter()
        .filter_map(|regression| match regression {
            Regression::Worse(case) => Some(*case),
            Regression::Lost(_) | Regression::Slower(_) => None,
        })
        .collect();
    if !worse.is_empty() {
        text.push('\n');
        text.push_str(&qualities(worse, comparison, true));
    }
    let notes = notes(comparison);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&format!("- {note}\n"));
    }
    if !comparison.cases.is_empty() {
        let all = cases(&ordered(&comparison.cases), comparison, true);
        let n = comparison.cases.len();
        text.push_str(&format!(
            "\n<details>\n<summary>All compared cases ({n})</summary>\n\n{all}\n</details>\n"
        ));
    }
    if !comparison.qualities.is_empty() {
        let all = qualities(comparison.qualities.iter().collect(), comparison, true);
        let n = comparison.qualities.len();
        text.push_str(&format!(
            "\n<details>\n<summary>All compared trainings ({n})</summary>\n\n{all}\n</details>\n"
        ));
    }
    text
}

/// `84 cases compared: 2 slower, 1 faster, 70 same, 11 unclear. 3 are not trusted.`
fn counts(comparison: &Comparison) -> String {
    let counts = comparison.counts();
    let mut parts = Vec::new();
    if counts.compared > 0 || counts.trained == 0 {
        let plural = if counts.compared == 1 { "case" } else { "cases" };
        parts.push(format!(
            "{} {plural} compared: {} slower, {} faster, {} same, {} unclear.",
            counts.compared, counts.slower, counts.faster, counts.same, counts.unclear
        ));
    }
    if counts.trained > 0 {
        let plural = if counts.trained == 1 {
            "training"
        } else {
            "trainings"
        };
        parts.push(format!(
            "{} {plural} compared: {} worse, {} better, {} equal, {} open.",
            counts.trained, counts.worse, counts.better, counts.equal, counts.open
        ));
    }
    let mut text = parts.join(" ");
    for (n, what) in [
        (counts.untrusted, "not trusted"),
        (counts.missing_in_new, "missing in the new run"),
        (counts.missing_in_base, "missing in the base"),
        (counts.status_changed, "ended otherwise"),
    ] {
        if n > 0 {
            text.push_str(&format!(" {n} {what}."));
        }
    }
    text
}

/// Slower first, the worst on top; then faster, unclear and same.
fn ordered(cases: &[Case]) -> Vec<&Case> {
    let rank = |case: &Case| match case.verdict {
        Verdict::Slower => 0,
        Verdict::Faster => 1,
        Verdict::Unclear => 2,
        Verdict::Same => 3,
    };
    let mut cases: Vec<&Case> = cases.iter().collect();
    cases.sort_by(|a, b| {
        let size = |case: &Case| case.ratio.map_or(0.0, |ratio| ratio.ln().abs());
        rank(a)
            .cmp(&rank(b))
            .then(size(b).total_cmp(&size(a)))
            .then(a.case_id.cmp(&b.case_id))
    });
    cases
}

fn cases(cases: &[&Case], comparison: &Comparison, markdown: bool) -> String {
    let rows = cases.iter().map(|case| cells(case));
    lay_out(HEADER, rows, comparison, markdown)
}

/// Trainings: worse first, then better, open and equal.
fn qualities(mut cases: Vec<&QualityCase>, comparison: &Comparison, markdown: bool) -> String {
    let rank = |case: &QualityCase| match case.change {
        Change::Worse => 0,
        Change::Better => 1,
        Change::Open => 2,
        Change::Equal => 3,
    };
    cases.sort_by_key(|case| rank(case));
    let rows = cases.into_iter().map(quality_cells);
    lay_out(QUALITY_HEADER, rows, comparison, markdown)
}

fn lay_out(
    header: [&str; 7],
    rows: impl Iterator<Item = [String; 7]>,
    comparison: &Comparison,
    markdown: bool,
) -> String {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.load_style(if markdown { ASCII_MARKDOWN } else { STYLE });
    // `95 %` unless the rules say otherwise.
    let percent = format!("{} %", comparison.rules.confidence * 100.0);
    table.set_header(header.map(|name| name.replace("95 %", &percent)));
    for cells in rows {
        table.add_row(cells.map(|cell| if markdown { cell.replace('|', "\\|") } else { cell }));
    }
    for place in FIRST_NUMBER..header.len() {
        if let Some(column) = table.column_mut(place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

fn cells(case: &Case) -> [String; 7] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
    // The star leads to the note below.
    let star = if case.trusted { "" } else { " *" };
    let ratio = case
        .ratio
        .zip(case.ratio_ci_low.zip(case.ratio_ci_high))
        .map(|(ratio, (low, high))| format!("{ratio:.3} [{low:.3}, {high:.3}]"));
    [
        format!("{}{star}", case.verdict.name()),
        case.label.clone(),
        case.point.clone(),
        text(case.time_base_s.map(format_time)),
        text(case.time_new_s.map(format_time)),
        text(ratio),
        text(case.p_adjusted.map(p_text)),
    ]
}

fn quality_cells(case: &QualityCase) -> [String; 7] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
    let star = if case.trusted { "" } else { " *" };
    let change = match case.change {
        Change::Worse => "worse",
        Change::Better => "better",
        Change::Equal => "equal",
        Change::Open => "open",
    };
    let signed = |value: f64| {
        let sign = if value < 0.0 { "−" } else { "+" };
        format!("{sign}{}", format_quality(value.abs()))
    };
    let interval = case.difference_ci_low.zip(case.difference_ci_high);
    let interval = interval.map(|(low, high)| format!(" [{}, {}]", signed(low), signed(high)));
    let difference = case.difference.map(|difference| {
        let interval = interval.unwrap_or_default();
        format!("{}{interval}", signed(difference))
    });
    [
        format!("{change}{star}"),
        case.label.clone(),
        case.point.clone(),
        format!("{} {}", case.measure, format_quality(case.quality_base)),
        format_quality(case.quality_new),
        text(difference.filter(|_| case.change != Change::Equal)),
        text(case.p_adjusted.map(p_text)),
    ]
}

fn p_text(p: f64) -> String {
    if p < 1e-4 {
        "< 0.0001".to_string()
    } else {
        format!("{p:.4}")
    }
}

/// Lost cases, other changes, and reasons, each reason once however many cases share it.
fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes: Vec<String> = comparison
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}"))
        .collect();
    for regression in comparison.regressions() {
        if let Regression::Lost(lost) = regression {
            notes.push(match lost {
                Lost::Status(change) => {
                    let reason = change.reason.as_deref().unwrap_or("no reason is stored");
                    format!(
                        "lost: {} at {} was ok and is {}: {reason}",
                        change.label, change.point, change.status_new
                    )
                }
                Lost::Missing(named) => {
                    format!(
                        "lost: {} at {} has no row in the new run",
                        named.label, named.point
                    )
                }
            });
        }
    }
    for change in comparison
        .status_changed
        .iter()
        .filter(|change| change.status_base != Status::Ok)
    {
        notes.push(format!(
            "{} at {} was {} and is {}",
            change.label, change.point, change.status_base, change.status_new
        ));
    }
    let mut doubts: Vec<(String, usize)> = Vec::new();
    let timed = comparison.cases.iter();
    let timed = timed.map(|case| (&case.untrusted_because, case.why.as_ref()));
    let trained = comparison.qualities.iter();
    let trained = trained.map(|case| (&case.untrusted_because, None));
    for (untrusted, unclear) in timed.chain(trained) {
        let untrusted = untrusted
            .as_ref()
            .map(|reason| format!("not trusted (*): {reason}"));
        let unclear = unclear.map(|reason| format!("unclear: {reason}"));
        for reason in [untrusted, unclear].into_iter().flatten() {
            match doubts.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, n)) => *n += 1,
                None => doubts.push((reason, 1)),
            }
        }
    }
    doubts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let shown = doubts.len().min(MOST_DOUBTS);
    let rest = doubts.split_off(shown);
    notes.extend(doubts.into_iter().map(|(reason, n)| format!("{n} {reason}")));
    if !rest.is_empty() {
        let n: usize = rest.iter().map(|(_, n)| n).sum();
        notes.push(format!(
            "{n} more cases with other reasons: --format json has all"
        ));
    }
    notes
}

/// Reasons with numbers in them are seldom shared: more than these would bury the table.
const MOST_DOUBTS: usize = 8;
