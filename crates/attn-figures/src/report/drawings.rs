//! The figures of a run inside the page: drawing, words, numbers.

use crate::figures::{FigureSpec, figures, find};
use crate::output::unknown;
use crate::slice::Slice;
use crate::{Error, page};
use serde::Serialize;

use super::ReportRun;
use super::data::{self, Table};

/// A figure of the page.
#[derive(Debug, Serialize)]
pub(super) struct Drawing {
    /// Unique in the page.
    id: String,
    title: String,
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

/// Draws what the sweep asks for.
pub(super) fn of(run: &ReportRun, at: usize) -> Result<Drawings, Error> {
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
    for figure in wanted {
        let slices = Slice::split(&run.frame, figure.dimensions, figure.uses);
        if slices.is_empty() {
            drawings.skipped.push((
                figure.name.to_owned(),
                format!("no measured {} rows", figure.needs),
            ));
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
            drawings.drawn.push(Drawing {
                svg: embedded(&svg, &alternative(&sheet.title, &sheet.subtitle, &remarks)),
                id: format!("figure-{at}-{name}"),
                title: sheet.title,
                subtitle: sheet.subtitle,
                remarks,
                data: data::of(&sheet.body),
            });
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
