//! The time of a whole decoder against the elements of its cache: the paper's own model, a constant and a slope.

use super::FigureSpec;
use super::points::{positive, replaced_note, time};
use super::ways::{Prefix, by_way, is_end};
use crate::axis::Axis;
use crate::fit::Line;
use crate::frame::Row;
use crate::marker::Marker;
use crate::paper;
use crate::sheet::{
    Body, Cell, Fit, Grade, LinePanel, Measured, Point, Series, Shape, Sheet, Table, TableRow,
};
use crate::slice::{Slice, WAYS, sizes};
use crate::style::{AXIS, INK, Look, Palette, rank, series_key};
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "time-vs-cache",
    summary: "Time of a whole decoder against its cache elements, fitted by a constant and a slope, with residuals",
    needs: "whole-model",
    uses: |row| row.is_timed_model() && is_end(row),
    dimensions: WAYS,
    sheet,
};

/// One variant in a panel.
struct Place {
    label: String,
    look: Look,
    /// Whether its cache holds latents, merged or not.
    is_latent: bool,
    /// Elements of one token in one layer's cache.
    elements: f64,
    time: Measured,
}

/// From the whole cache's bytes to elements of one token in one layer. A shared prefix is stored once for all
/// hypotheses, so that there is no such number.
fn elements(row: &Row) -> Option<f64> {
    if Prefix::of(row) == Prefix::Shared {
        return None;
    }
    let tokens = row.tokens.or(row.context)? + row.new_tokens?;
    let sequences = row.batch.unwrap_or(1) * row.beam.unwrap_or(1);
    let bytes_each = match row.dtype_resolved.as_deref()? {
        "f64" => 8.0,
        "f32" => 4.0,
        "f16" | "bf16" => 2.0,
        _ => return None,
    };
    let entries = (sequences * tokens * row.n_layers?) as f64;
    positive(Some(row.kv_bytes? / entries / bytes_each))
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let (ways, n_replaced) = by_way(slice, time);
    let place = |row: &&Row| {
        let key = series_key(row);
        Some(Place {
            look: slice.frame.palette().look(&key),
            label: key.1,
            is_latent: row.kv_rank.is_some() || is_latent(&row.variant),
            elements: elements(row)?,
            time: time(row)?,
        })
    };
    let order: Vec<_> = slice
        .series(&slice.rows)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let mut measured: Vec<(String, Vec<Place>)> = Vec::new();
    for (way, rows) in &ways {
        let mut rows = rows.clone();
        rows.sort_by_key(|row| order.iter().position(|key| *key == series_key(row)));
        let places: Vec<Place> = rows.iter().filter_map(place).collect();
        if places.len() > 1 {
            measured.push((way.title(), places));
        }
    }
    if measured.is_empty() {
        return Err(
            "two variants with kv_bytes, sizes and times, and no shared prefix, are needed".to_owned(),
        );
    }
    let mut panels = vec![("published, speech translation".to_owned(), published(slice)?)];
    panels.extend(measured);

    let mut notes = vec![
        "time = constant + slope × x, by least squares".to_owned(),
        "x: bytes of the whole cache by elements, tokens, sequences and layers".to_owned(),
        "published: arXiv 2505.13544, Tables 1 and 5".to_owned(),
    ];
    if ways.iter().any(|(way, _)| *way.prefix() == Prefix::Shared) {
        notes.push("a shared prefix has no elements per hypothesis: left out".to_owned());
    }
    notes.extend(replaced_note(n_replaced));
    Ok(Sheet {
        title: "Is time the size of the cache?".to_owned(),
        subtitle: format!(
            "Time against cache elements of one token in one layer: {}. Solid: a line through MLA and MTLA alone; dashed: \
             through all. Tables: time over that of each line",
            slice.rows.first().map(|row| sizes(row)).unwrap_or_default()
        ),
        notes,
        reservations: slice.reservations(),
        body: Body::Fits(panels.iter().map(|(title, places)| fit(title, places)).collect()),
    })
}

fn is_latent(variant: &str) -> bool {
    matches!(variant, "mla" | "mtla")
}

/// The paper's rows of speech translation, looking like ours of the same name where there are some.
fn published(slice: &Slice<'_>) -> Result<Vec<Place>, String> {
    let rows = paper::published()?;
    let place = |row: &paper::Published| {
        let name = row.variant.to_uppercase();
        let stand_in = Row {
            variant: row.variant.clone(),
            stride: row.stride,
            n_kv_heads: row.n_kv_heads,
            label: match row.stride {
                Some(stride) => format!("{name} s={stride}"),
                None => name,
            },
            ..Row::default()
        };
        let ours = slice.rows.iter().find(|ours| {
            ours.variant == stand_in.variant
                && ours.stride == stand_in.stride
                && (stand_in.n_kv_heads.is_none() || ours.n_kv_heads == stand_in.n_kv_heads)
        });
        let key = series_key(ours.copied().unwrap_or(&stand_in));
        let look = match ours {
            Some(_) => slice.frame.palette().look(&key),
            None => Palette::new(std::slice::from_ref(&stand_in)).look(&key),
        };
        Some(Place {
            label: key.1,
            look,
            is_latent: is_latent(&row.variant),
            elements: row.cache_elements?,
            time: Measured {
                value: row.time_s,
                interval: None,
                grade: Grade::Clean,
            },
        })
    };
    let of_task = rows.iter().filter(|row| row.task == "st" && !row.is_flash);
    let mut of_task: Vec<&paper::Published> = of_task.collect();
    of_task.sort_by_key(|row| (rank(&row.variant), row.stride, row.n_kv_heads));
    Ok(of_task.into_iter().filter_map(place).collect())
}

/// The points of a panel, lines through the latent ones and through all, and times over those of the lines.
fn fit(title: &str, places: &[Place]) -> Fit {
    let through = |of: &dyn Fn(&Place) -> bool| {
        let chosen = places.iter().filter(|place| of(place));
        let points: Vec<(f64, f64)> = chosen.map(|place| (place.elements, place.time.value)).collect();
        Line::through(&points)
    };
    let latent = through(&|place| place.is_latent);
    let all = through(&|_| true);
    Fit {
        panel: panel(title, places, latent, all),
        equations: vec![equation("MLA and MTLA", latent), equation("all", all)],
        residuals: residuals(places, latent, all),
    }
}

/// `MLA and MTLA: 32.1 s + 226 ms × x, R² 0.998`.
fn equation(name: &str, line: Option<Line>) -> String {
    let Some(line) = line else {
        return format!("{name}: no line, it takes three points");
    };
    let seconds = |value: f64| {
        let sign = if value < 0.0 { "−" } else { "" };
        format!("{sign}{}", Unit::Seconds.format(value.abs(), 3, false))
    };
    let joined = if line.slope < 0.0 { "−" } else { "+" };
    format!(
        "{name}: {} {joined} {} × x, R² {:.3}",
        seconds(line.intercept),
        Unit::Seconds.format(line.slope.abs(), 3, false),
        line.r_squared
    )
}

fn panel(title: &str, places: &[Place], latent: Option<Line>, all: Option<Line>) -> LinePanel {
    let most = places.iter().map(|place| place.elements).fold(0.0, f64::max);
    let highest = places
        .iter()
        .map(|place| place.time.ends()[1])
        .fold(0.0, f64::max);
    let x = Axis::linear(
        "Cache elements per token and layer",
        Unit::Integer,
        [0.0, most * 1.03].into_iter(),
    );
    let lines = [
        ("line of MLA and MTLA", INK, Shape::Limit, latent),
        ("line of all", AXIS, Shape::Dashed, all),
    ];
    let reached = lines
        .iter()
        .filter_map(|(.., line)| Some(line.as_ref()?.at(most)));
    let y = Axis::linear(
        "Time",
        Unit::Seconds,
        [0.0, highest * 1.06].into_iter().chain(reached),
    );

    let mut series = Vec::new();
    for (label, color, shape, line) in lines {
        let Some(line) = line else { continue };
        let points = within(&line, (0.0, x.range.1), y.range);
        series.push(Series {
            label: label.to_owned(),
            look: Look {
                color,
                marker: Marker::Circle,
            },
            points: points.map(|(x, y)| point(x, y, Grade::Clean)).to_vec(),
            shape,
        });
    }
    series.extend(places.iter().map(|place| Series {
        label: place.label.clone(),
        look: place.look,
        points: vec![Point {
            x_interval: None,
            x: place.elements,
            y: place.time,
            look: None,
        }],
        shape: Shape::Scatter,
    }));
    LinePanel {
        title: Some(title.to_owned()),
        x,
        y,
        same_y_as_previous: false,
        series,
    }
}

fn point(x: f64, value: f64, grade: Grade) -> Point {
    Point {
        x_interval: None,
        x,
        y: Measured {
            value,
            interval: None,
            grade,
        },
        look: None,
    }
}

/// The two ends of a line inside a panel.
fn within(line: &Line, x: (f64, f64), y: (f64, f64)) -> [(f64, f64); 2] {
    let end = |at: f64| {
        let value = line.at(at);
        if (y.0..=y.1).contains(&value) || line.slope == 0.0 {
            return (at, value.clamp(y.0, y.1));
        }
        let border = value.clamp(y.0, y.1);
        ((border - line.intercept) / line.slope, border)
    };
    [end(x.0), end(x.1)]
}

/// Times over those of the two lines.
fn residuals(places: &[Place], latent: Option<Line>, all: Option<Line>) -> Table {
    let over = |place: &Place, line: Option<Line>| {
        let predicted = line
            .map(|line| line.at(place.elements))
            .filter(|value| *value > 0.0);
        let text = predicted.map_or_else(
            || "-".to_owned(),
            |value| format!("{:.2}×", place.time.value / value),
        );
        Cell {
            text,
            ..Cell::default()
        }
    };
    let text = |text: String| Cell {
        text,
        ..Cell::default()
    };
    let row = |place: &Place| TableRow {
        label: place.label.clone(),
        cells: vec![
            text(format!("{:.0}", place.elements)),
            text(Unit::Seconds.format(place.time.value, 3, false)),
            over(place, latent),
            over(place, all),
        ],
    };
    let head = |first: &str, second: &str| [first.to_owned(), second.to_owned()];
    Table {
        groups: Vec::new(),
        heads: vec![
            head("elements", ""),
            head("time", ""),
            head("over line of", "MLA, MTLA"),
            head("over line", "of all"),
        ],
        rows: places.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prefix: &str, dtype: &str) -> Row {
        Row {
            batch: Some(3),
            beam: Some(5),
            tokens: Some(90),
            new_tokens: Some(10),
            n_layers: Some(9),
            dtype_resolved: Some(dtype.into()),
            prefix: Some(prefix.into()),
            kv_bytes: Some(3.0 * 5.0 * 100.0 * 9.0 * 288.0 * 4.0),
            ..Row::default()
        }
    }

    #[test]
    fn elements_come_from_the_bytes_of_the_whole_cache() {
        assert_eq!(elements(&row("replicated", "f32")), Some(288.0));
        assert_eq!(elements(&row("copied", "bf16")), Some(576.0));
        assert_eq!(elements(&row("shared", "f32")), None);
        assert_eq!(elements(&row("copied", "i8")), None);
        let greedy = Row {
            beam: None,
            prefix: None,
            kv_bytes: Some(3.0 * 100.0 * 9.0 * 144.0 * 4.0),
            ..row("", "f32")
        };
        assert_eq!(elements(&greedy), Some(144.0));
    }

    #[test]
    fn a_line_ends_at_the_border_of_its_panel() {
        let line = Line {
            intercept: -10.0,
            slope: 2.0,
            r_squared: 1.0,
        };
        assert_eq!(
            within(&line, (0.0, 20.0), (0.0, 20.0)),
            [(5.0, 0.0), (15.0, 20.0)]
        );
    }

    #[test]
    fn equations_are_written_with_their_signs() {
        let line = |intercept, slope| {
            let line = Line {
                intercept,
                slope,
                r_squared: 0.9975,
            };
            equation("all", Some(line)).replace('\u{a0}', " ")
        };
        assert_eq!(line(32.1, 0.226), "all: 32.1 s + 226 ms × x, R² 0.998");
        assert_eq!(line(-0.5, -0.001), "all: −500 ms − 1.00 ms × x, R² 0.998");
        assert_eq!(equation("all", None), "all: no line, it takes three points");
    }
}
