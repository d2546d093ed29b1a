//! What the rows say about time and memory: every variant against MHA at the largest point of each workload.

use crate::figures::points::{cache, is_baseline, latest, listed, positive, quotient, time};
use crate::figures::speedup_bars::{Place, WORKLOADS, place, place_title, workload_rank};
use crate::figures::ways::is_end;
use crate::frame::{Frame, Row};
use crate::sheet::{Grade, Measured};
use crate::slice::{Slice, TIMED, setting_in_words};
use crate::style::{SeriesKey, series_key};
use crate::units::Unit;
use std::collections::BTreeSet;

use super::data::Table;
use super::findings::{
    Block, Sentence, Side, State, capital, decimals, doubt, interval_of, side, some, times, unbroken, within,
};

/// A block for each workload of each setting in which MHA and another variant were measured.
pub(super) fn blocks(frame: &Frame) -> Vec<Block> {
    let slices = Slice::split(frame, TIMED, |row| workload_rank(row).is_some() && is_end(row));
    let settings = settings(&slices);
    let mut blocks = Vec::new();
    for (slice, setting) in slices.iter().zip(settings) {
        for workload in 0..WORKLOADS.len() {
            blocks.extend(Timed::new(slice, workload).map(|timed| timed.block(slice, setting.clone())));
        }
    }
    blocks
}

/// What tells each slice from the others, in words.
fn settings(slices: &[Slice<'_>]) -> Vec<String> {
    let all: Vec<Vec<String>> = slices
        .iter()
        .map(|slice| {
            slice
                .rows
                .first()
                .map(|row| setting_in_words(slice.frame, row))
                .unwrap_or_default()
        })
        .collect();
    let is_common = |part: &String| all.iter().all(|parts| parts.contains(part));
    let told = all.iter().map(|parts| {
        let own: Vec<&str> = parts
            .iter()
            .filter(|part| !is_common(part))
            .map(String::as_str)
            .collect();
        own.join(", ")
    });
    told.collect()
}

/// The measured rows of a workload, and the points at which MHA has a rival.
struct Timed<'a> {
    rows: Vec<&'a Row>,
    places: BTreeSet<Place>,
    largest: Place,
}

/// A variant against MHA.
struct Line<'a> {
    key: SeriesKey,
    row: Option<&'a Row>,
    ratio: Option<Measured>,
    /// At every point.
    all: Vec<Measured>,
    cache: Option<f64>,
    peak: Option<f64>,
}

impl<'a> Timed<'a> {
    fn new(slice: &Slice<'a>, workload: usize) -> Option<Self> {
        let of_workload =
            |row: &&&Row| workload_rank(row) == Some(workload) && time(row).is_some() && place(row).is_some();
        let timed: Vec<&Row> = slice.rows.iter().filter(of_workload).copied().collect();
        let (rows, _) = latest(&timed, place, time);
        let at = |wanted: Place| rows.iter().filter(move |row| place(row) == Some(wanted));
        let is_compared = |wanted: &Place| {
            at(*wanted).any(|row| is_baseline(row)) && at(*wanted).any(|row| !is_baseline(row))
        };
        let places: BTreeSet<Place> = rows
            .iter()
            .filter_map(|row| place(row))
            .filter(is_compared)
            .collect();
        let largest = *places
            .iter()
            .max_by_key(|place| (place.1, place.2, place.3, place.4))?;
        Some(Self {
            rows,
            places,
            largest,
        })
    }

    fn row(&self, key: &SeriesKey, wanted: Place) -> Option<&'a Row> {
        let mut own = self.rows.iter().copied();
        own.find(|row| series_key(row) == *key && place(row) == Some(wanted))
    }

    fn base(&self, wanted: Place) -> Option<&'a Row> {
        let mut all = self.rows.iter().copied();
        all.find(|row| is_baseline(row) && place(row) == Some(wanted))
    }

    fn ratio(&self, key: &SeriesKey, wanted: Place) -> Option<Measured> {
        Some(quotient(time(self.base(wanted)?)?, time(self.row(key, wanted)?)?))
    }

    fn line(&self, key: SeriesKey) -> Line<'a> {
        let (row, base) = (self.row(&key, self.largest), self.base(self.largest));
        let times_less = |of: fn(&Row) -> Option<f64>| Some(of(base?)? / of(row?)?);
        Line {
            ratio: self.ratio(&key, self.largest),
            all: self
                .places
                .iter()
                .filter_map(|place| self.ratio(&key, *place))
                .collect(),
            cache: times_less(|row| cache(row).map(|bytes| bytes.value)),
            peak: times_less(|row| positive(row.peak_bytes)),
            row,
            key,
        }
    }

    fn block(&self, slice: &Slice<'_>, setting: String) -> Block {
        let is_here = |row: &&&Row| place(row).is_some_and(|own| own.0 == self.largest.0);
        let failed: Vec<&Row> = slice.failed.iter().filter(is_here).copied().collect();
        let all: Vec<&Row> = self.rows.iter().chain(&failed).copied().collect();
        let lines: Vec<Line<'_>> = (slice.series(&all).into_iter())
            .map(|(key, _)| self.line(key))
            .collect();
        let title = capital(&place_title(self.largest));
        let mut table = Table::new(&[
            "variant",
            ">time",
            ">times as fast as MHA",
            "95 % interval",
            "verdict",
            "at all points",
            ">cache, times smaller",
            ">peak memory, times less",
            "trust",
        ]);
        let mut short = Vec::new();
        for line in &lines {
            let why = || {
                let here = failed
                    .iter()
                    .find(|row| series_key(row) == line.key && place(row) == Some(self.largest));
                here.map_or_else(|| "not measured".to_owned(), |row| row.status.replace('_', " "))
            };
            table.push(self.table_row(line, why()));
            let told = match line.ratio {
                Some(_) if line.row.is_some_and(is_baseline) => "1 (by definition)".to_owned(),
                Some(ratio) => {
                    let value = [times(ratio.value), within(ratio)].join(" ");
                    format!("{}, {}", value.trim_end(), side(ratio).word())
                }
                None => why(),
            };
            short.push((line.key.1.clone(), told));
        }
        Block {
            sentences: self.sentences(&lines),
            table: table.compact(),
            short,
            title,
            setting,
        }
    }

    fn table_row(&self, line: &Line<'_>, why_missing: String) -> Vec<String> {
        let is_base = line.row.is_some_and(is_baseline);
        let Some((row, ratio)) = line.row.zip(line.ratio) else {
            let mut cells = vec![line.key.1.clone(), why_missing];
            cells.resize(9, String::new());
            return cells;
        };
        let time = time(row).map(|time| Unit::Seconds.format(time.value, 3, false));
        let factor = |value: Option<f64>| value.map(times).unwrap_or_default();
        let [ratio_text, interval, verdict, overall] = if is_base {
            [
                "1×".to_owned(),
                String::new(),
                "by definition".to_owned(),
                String::new(),
            ]
        } else {
            [
                times(ratio.value),
                within(ratio),
                side(ratio).word().to_owned(),
                if self.places.len() > 1 {
                    overall(&line.all)
                } else {
                    String::new()
                },
            ]
        };
        vec![
            line.key.1.clone(),
            time.unwrap_or_default(),
            ratio_text,
            interval,
            verdict,
            overall,
            factor(line.cache),
            factor(line.peak),
            Grade::of(row).name().to_owned(),
        ]
    }

    fn sentences(&self, lines: &[Line<'_>]) -> Vec<Sentence> {
        let rivals: Vec<&Line<'_>> = lines
            .iter()
            .filter(|line| line.ratio.is_some() && !line.row.is_some_and(is_baseline))
            .collect();
        let mut told = Vec::new();
        told.extend(self.fastest(&rivals));
        told.extend(others(&rivals));
        let base = self.base(self.largest);
        told.extend(least(&rivals, base, &CACHE));
        told.extend(least(&rivals, base, &PEAK));
        told
    }

    fn fastest(&self, rivals: &[&Line<'_>]) -> Option<Sentence> {
        let value = |line: &Line<'_>| line.ratio.map_or(0.0, |ratio| ratio.value);
        let best = rivals.iter().max_by(|a, b| value(a).total_cmp(&value(b)))?;
        let ratio = best.ratio?;
        let name = &best.key.1;
        let of = match rivals.len() {
            1 => String::new(),
            n => format!(" of {n} variants"),
        };
        let how = format!(
            "{} times as fast as MHA{}",
            decimals(ratio.value),
            interval_of(ratio)
        );
        let mut text = if ratio.value > 1.0 {
            format!("{name} has the largest speed-up{of}: {how}")
        } else {
            format!("No variant is faster than MHA; the nearest{of} is {name}, {how}")
        };
        if self.places.len() > 1 {
            text.push_str(&format!(
                "; at all {} points: {}",
                best.all.len(),
                overall(&best.all)
            ));
        }
        text.push('.');
        let rows = [self.base(self.largest), best.row];
        Some(Sentence {
            text,
            state: side(ratio).state(),
            doubt: doubt(rows.into_iter().flatten()),
        })
    }
}

/// Every other variant than the fastest, by what is known of it.
fn others(rivals: &[&Line<'_>]) -> Vec<Sentence> {
    let value = |line: &Line<'_>| line.ratio.map_or(0.0, |ratio| ratio.value);
    let best = rivals.iter().map(|line| value(line)).fold(0.0, f64::max);
    let told = |wanted: Side| {
        let own: Vec<(&Line<'_>, Measured)> = rivals
            .iter()
            .filter_map(|line| Some((*line, line.ratio?)))
            .filter(|(_, ratio)| side(*ratio) == wanted && ratio.value < best)
            .collect();
        let name = |(line, ratio): &(&Line<'_>, Measured)| {
            let value = [times(ratio.value), unbroken(&within(*ratio))].join(" ");
            format!("{} {}", unbroken(&line.key.1), value.trim_end())
        };
        let names = some(own.iter().map(name).collect());
        let words = match wanted {
            Side::Above => "Also faster than MHA",
            Side::Below => "Slower than MHA",
            Side::Open => "Neither faster nor slower than MHA, the interval holds 1",
            Side::Unknown => "Against MHA",
        };
        (!names.is_empty()).then(|| Sentence {
            text: format!("{words}: {}.", listed(&names)),
            state: wanted.state(),
            doubt: doubt(own.iter().filter_map(|(line, _)| line.row)),
        })
    };
    if rivals.len() < 2 {
        return Vec::new();
    }
    let sides = [Side::Above, Side::Below, Side::Open, Side::Unknown];
    sides.into_iter().filter_map(told).collect()
}

/// A size of which less is better.
struct Size {
    of: fn(&Row) -> Option<f64>,
    ratio: fn(&Line<'_>) -> Option<f64>,
    subject: &'static str,
    end: &'static str,
    state: State,
}

const CACHE: Size = Size {
    of: |row| cache(row).map(|bytes| bytes.value),
    ratio: |line| line.cache,
    subject: "cache",
    end: "by the closed formula, which allocations were checked against",
    state: State::Exact,
};
const PEAK: Size = Size {
    of: |row| positive(row.peak_bytes),
    ratio: |line| line.peak,
    subject: "peak memory",
    end: "weights, inputs and scratch included; one value a case, so without an interval",
    state: State::Single,
};

fn least(rivals: &[&Line<'_>], base: Option<&Row>, size: &Size) -> Option<Sentence> {
    let known = rivals.iter().filter_map(|line| Some((line, (size.ratio)(line)?)));
    let (line, ratio) = known.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let bytes = |row: &Row| (size.of)(row).map(|bytes| Unit::Bytes.format(bytes, 3, true));
    let (own, mha) = (bytes(line.row?)?, bytes(base?)?);
    let subject = size.subject;
    let text = if ratio > 1.0 {
        format!(
            "{} has the smallest {subject}: {own}, {} times less than MHA's {mha} ({}).",
            line.key.1,
            decimals(ratio),
            size.end
        )
    } else {
        format!(
            "No variant has a smaller {subject} than MHA's {mha} ({}).",
            size.end
        )
    };
    Some(Sentence::new(size.state, text))
}

/// `6 of 6 shown faster, 1.21× to 3.10×`.
fn overall(all: &[Measured]) -> String {
    let (Some(low), Some(high)) = (
        all.iter().map(|one| one.value).reduce(f64::min),
        all.iter().map(|one| one.value).reduce(f64::max),
    ) else {
        return String::new();
    };
    let count = |wanted: Side| all.iter().filter(|one| side(**one) == wanted).count();
    let sides = [Side::Above, Side::Below, Side::Open, Side::Unknown];
    let counts: Vec<String> = sides
        .into_iter()
        .filter(|wanted| count(*wanted) > 0)
        .map(|wanted| format!("{} of {} {}", count(wanted), all.len(), wanted.word()))
        .collect();
    format!("{}, {} to {}", counts.join(", "), times(low), times(high))
}
