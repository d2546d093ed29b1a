//! Points as text, for a terminal or for Markdown.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};

use super::{Line, Point, quality_text, time_text};
use crate::units::{format_bytes, format_count, format_time};

/// Tables fit a terminal of this many columns.
const WIDTH: usize = 100;

/// Spaces between columns.
const GAP: usize = 2;

const N_COLUMNS: usize = 11;

const HEADER: [&str; N_COLUMNS] = [
    "variant",
    "quality (95 % CI)",
    "parameters",
    "training",
    "time (95 % CI)",
    "speed vs MHA",
    "tokens/s",
    "KV cache",
    "vs MHA",
    "peak",
    "error",
];

/// A rule under the header and nothing else: rows are few and short.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Every point as a block, 100 columns wide at most where it is no Markdown.
pub(super) fn render(points: &[Point], markdown: bool) -> String {
    let mut cells: Vec<Vec<[String; N_COLUMNS]>> = points
        .iter()
        .map(|point| point.variants.iter().map(Line::cells).collect())
        .collect();
    // A column in which nothing is said anywhere is left out.
    let shown: Vec<usize> = (0..HEADER.len())
        .filter(|column| cells.iter().flatten().any(|line| line[*column] != "-"))
        .collect();
    // The others are as wide in every block, and labels take what is left.
    let mut widths = HEADER.map(|name| name.chars().count());
    for line in cells.iter().flatten() {
        for column in 1..HEADER.len() {
            widths[column] = widths[column].max(line[column].chars().count());
        }
    }
    if !markdown {
        let taken: usize = shown.iter().skip(1).map(|column| widths[*column] + GAP).sum();
        for line in cells.iter_mut().flatten() {
            line[0] = wrap(&line[0], WIDTH.saturating_sub(taken));
            widths[0] = line[0]
                .lines()
                .map(|part| part.chars().count())
                .fold(widths[0], usize::max);
        }
    }

    let mut text = String::new();
    for (point, lines) in points.iter().zip(&cells) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!(
            "{}{}\n\n",
            if markdown { "### " } else { "" },
            point.title
        ));
        let mut table = Table::new();
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.load_style(if markdown { ASCII_MARKDOWN } else { STYLE });
        table.set_header(shown.iter().map(|column| HEADER[*column]));
        for line in lines {
            let escape = |text: &String| {
                if markdown {
                    text.replace('|', "\\|")
                } else {
                    text.clone()
                }
            };
            table.add_row(shown.iter().map(|column| escape(&line[*column])));
        }
        for (place, column) in shown.iter().enumerate() {
            let Some(shape) = table.column_mut(place) else {
                continue;
            };
            if !markdown {
                // The gap is on the left, where right-aligned numbers need it, beside the rule's junction.
                shape.set_padding((if place > 0 { GAP as u16 - 1 } else { 0 }, 0));
                shape.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
                    widths[*column] as u16,
                )));
            }
            if *column > 0 {
                shape.set_cell_alignment(CellAlignment::Right);
            }
        }
        text.push_str(&table.trim_fmt());
        text.push('\n');
        push_notes(&mut text, point, markdown);
    }
    text
}

/// Breaks a label between words, so that no line is longer than `width` unless a word is.
fn wrap(label: &str, width: usize) -> String {
    let (mut wrapped, mut length) = (String::new(), 0);
    for word in label.split(' ') {
        let added = word.chars().count();
        if length > 0 && length + 1 + added > width {
            wrapped.push('\n');
            length = 0;
        } else if length > 0 {
            wrapped.push(' ');
            length += 1;
        }
        wrapped.push_str(word);
        length += added;
    }
    wrapped
}

/// The reasons below a block, each once however many lines share it.
fn push_notes(text: &mut String, point: &Point, markdown: bool) {
    let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in &point.variants {
        let Some(note) = line.note.as_deref() else {
            continue;
        };
        match notes.iter_mut().find(|(known, _)| *known == note) {
            Some((_, labels)) => labels.push(&line.label),
            None => notes.push((note, vec![&line.label])),
        }
    }
    if markdown && !notes.is_empty() {
        text.push('\n');
    }
    for (note, labels) in notes {
        text.push_str(&format!(
            "{}{}: {note}\n",
            if markdown { "- " } else { "* " },
            labels.join(", ")
        ));
    }
}

impl Line {
    fn cells(&self) -> [String; N_COLUMNS] {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
        // The star leads to the note below the block.
        let star = if self.note.is_some() { " *" } else { "" };
        [
            format!("{}{star}", self.label),
            text(self.quality_measure.as_ref().map(|measure| match self.quality {
                Some(quality) => {
                    let ci = self.quality_low.zip(self.quality_high);
                    format!("{measure} {}", quality_text(quality, ci))
                }
                None => self.status.to_string(),
            })),
            text(self.parameters.map(|n| format_count(n as f64))),
            text(self.train_time_s.map(format_time)),
            match self.quality_measure {
                Some(_) => "-".to_string(),
                None => time_text(
                    self.status,
                    self.time_median_s,
                    self.time_ci_low_s.zip(self.time_ci_high_s),
                ),
            },
            text(
                self.speedup
                    .map(|ratio| match self.speedup_low.zip(self.speedup_high) {
                        Some((low, high)) if low < high => format!("{ratio:.2}× [{low:.2}, {high:.2}]"),
                        _ => format!("{ratio:.2}×"),
                    }),
            ),
            text(self.tokens_per_s.map(format_count)),
            text(self.kv_bytes.map(|bytes| format_bytes(bytes as f64))),
            text(self.kv_reduction.map(|ratio| format!("{ratio:.2}×"))),
            text(self.peak_bytes.map(|bytes| format_bytes(bytes as f64))),
            text(self.error_max.map(|error| format!("{error:.1e}"))),
        ]
    }
}
