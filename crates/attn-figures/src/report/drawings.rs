//! The figures of a run inside the page: drawing, words, numbers.

use crate::figures::{FigureSpec, figures, find};
use crate::output::unknown;
use crate::slice::Slice;
use crate::{Error, page};
use serde::Serialize;

use super::ReportRun;
use super::data::{self, Table};

/// Bytes that the drawings of a page and their numbers may take: with its rows it stays below 3 MB.
const BUDGET: usize = 700_000;
/// Bytes of a single one: beyond them nobody can tell its curves apart.
const LARGEST: usize = 300_000;

/// A figure of the page.
#[derive(Debug, Serialize)]
pub(super) struct Drawing {
    /// Unique in the page.
    id: String,
    title: String,
    /// Its file's name where there are several of the figure: it says what tells them apart.
    name: Option<String>,
    subtitle: String,
    /// The document's root element.
    svg: String,
    /// What holds for it and what it does not show.
    remarks: Vec<String>,
    data: Table,
}

/// The figures that were drawn, and for each that was not its name and why.
#[derive(Debug, Default, Serialize)]
pub(super) struct Drawings {
    pub(super) drawn: Vec<Drawing>,
    pub(super) skipped: Vec<(String, String)>,
}

impl Drawing {
    fn bytes(&self) -> usize {
        let cells: usize = self
            .data
            .rows
            .iter()
            .flatten()
            .map(|cell| cell.len() + TAGS)
            .sum();
        self.svg.len() + cells
    }
}

/// Bytes around a cell of a table.
const TAGS: usize = 19;

/// Draws what the sweep asks for, as far as there is room for one of `n_runs` runs.
pub(super) fn of(run: &ReportRun, at: usize, n_runs: usize) -> Result<Drawings, Error> {
    let wanted: Vec<&FigureSpec> = if run.figures.is_empty() {
        figures().iter().collect()
    } else {
        let named = run
            .figures
            .iter()
            .map(|name| find(name).ok_or_else(|| unknown(name)));
        named.collect::<Result<_, _>>()?
    };
    let mut drawings = Drawings::default();
    let mut n_bytes = 0;
    for figure in wanted {
        let slices = Slice::split(&run.frame, figure.dimensions, figure.uses);
        if slices.is_empty() {
            let needs = match figure.needs {
                "measured" => "measured".to_string(),
                rows => format!("measured {rows}"),
            };
            drawings
                .skipped
                .push((figure.name.to_owned(), format!("no {needs} rows")));
        }
        for slice in slices {
            let name = format!("{}{}", figure.name, slice.suffix);
            let sheet = match (figure.sheet)(&slice) {
                Ok(sheet) => sheet,
                Err(reason) => {
                    drawings.skipped.push((name, reason));
                    continue;
                }
            };
            let failed = |message| Error::Draw {
                figure: name.clone(),
                message,
            };
            let svg = page::draw_bare(&sheet, &sheet.title).map_err(failed)?;
            let remarks = page::remarks(&sheet, &slice);
            let drawing = Drawing {
                svg: embedded(&svg, &alternative(&sheet.title, &sheet.subtitle, &remarks)),
                id: format!("figure-{at}-{name}"),
                name: (!slice.suffix.is_empty()).then(|| name.clone()),
                title: sheet.title,
                subtitle: sheet.subtitle,
                remarks,
                data: data::of(&sheet.body),
            };
            let bytes = drawing.bytes();
            if bytes > LARGEST || n_bytes + bytes > BUDGET / n_runs.max(1) {
                let reason = "no room for it on this page, `attn-bench plot` draws it";
                drawings.skipped.push((name, reason.to_owned()));
                continue;
            }
            n_bytes += bytes;
            drawings.drawn.push(drawing);
        }
    }
    Ok(drawings)
}

/// What a reader who cannot see it is told; the numbers are in the table under it.
fn alternative(title: &str, subtitle: &str, remarks: &[String]) -> String {
    let end = |text: &str| text.trim_end_matches('.').to_owned();
    let mut parts = vec![end(title), end(subtitle)];
    parts.extend(remarks.first().map(|first| end(first)));
    format!(
        "{}. The numbers are in the table under the figure.",
        parts.join(". ")
    )
}

/// The root with a label, without a size of its own, and without a title that would only be a tooltip.
fn embedded(svg: &str, label: &str) -> String {
    let label = label
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    let svg = svg.replacen("role=\"img\"", &format!("role=\"img\" aria-label=\"{label}\""), 1);
    match (svg.find("<title>"), svg.find("</title>")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &svg[..from], &svg[to + "</title>".len()..]),
        _ => svg,
    }
}
