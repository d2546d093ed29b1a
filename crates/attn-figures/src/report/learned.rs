//! What the rows say about quality: every trained variant against MHA, task by task.

use crate::figures::points::{is_baseline, listed};
use crate::figures::quality::{Tasks, Trained, quality};
use crate::frame::{Frame, Row};
use crate::sheet::Grade;
use crate::slice::{Slice, TRAINED};
use crate::style::series_key;
use crate::units::Unit;
use std::collections::BTreeMap;

use super::cells::plain;
use super::data::Table;
use super::findings::{Block, Sentence, State, capital, doubt};

/// Half an interval around a mean of differences.
type Mean = fn(&[f64]) -> Option<(f64, f64)>;

/// New − base over the seeds of both.
struct Difference {
    mean: f64,
    interval: Option<(f64, f64)>,
}

/// A block for each task.
pub(super) fn blocks(frame: &Frame, interval_of_mean: Mean) -> Vec<Block> {
    let slices = Slice::split(frame, TRAINED, Row::is_quality);
    let mut blocks = Vec::new();
    for slice in &slices {
        let Ok(tasks) = Tasks::of(slice) else { continue };
        let setting = if slices.len() > 1 {
            slice.suffix.trim_start_matches('-').replace('-', " ")
        } else {
            String::new()
        };
        let (notes, reservations) = (tasks.notes(), tasks.reservations(slice));
        for trained in &tasks.all {
            blocks.push(block(frame, trained, setting.clone(), interval_of_mean));
        }
        // Said once for all tasks of the slice.
        if let Some(last) = blocks.last_mut() {
            let said = notes.into_iter().chain(reservations);
            let said: Vec<String> = said.map(|note| format!("{}.", capital(&note))).collect();
            last.sentences
                .extend((!said.is_empty()).then(|| Sentence::new(State::Note, said.join(" "))));
        }
    }
    blocks
}

fn block(frame: &Frame, trained: &Trained<'_>, setting: String, interval_of_mean: Mean) -> Block {
    let measure = trained.measure();
    let is_base = |row: &Row| is_baseline(row) && row.downsample.is_none_or(|n| n <= 1);
    let base = trained.rows.iter().copied().find(|row| is_base(row));
    let mut table = Table::new(&[
        "model",
        &format!(">{}", measure.title),
        "95 % interval",
        ">seeds",
        ">learning rate",
        ">minus MHA",
        "95 % interval of it",
        "verdict",
        ">cache a token",
        ">parameters",
        ">through the cache as in one pass",
        "trust",
    ]);
    let value = |v: f64| match measure.unit {
        Unit::Share => Unit::Share.format(v, 4, false),
        _ => plain((v * 1e4).round() / 1e4).replace('-', "−"),
    };
    let points = |v: f64| {
        let scaled = if measure.unit == Unit::Share { 100.0 * v } else { v };
        let sign = if v < 0.0 { "−" } else { "+" };
        format!("{sign}{}", plain((scaled.abs() * 1e3).round() / 1e3))
    };
    let range = |interval: Option<(f64, f64)>, write: &dyn Fn(f64) -> String| {
        interval
            .map(|(low, high)| format!("({} to {})", write(low), write(high)))
            .unwrap_or_default()
    };
    let mut short = Vec::new();
    let mut by_verdict: [Vec<String>; 4] = Default::default();
    for row in &trained.rows {
        let Some(measured) = quality(row) else { continue };
        let difference = base
            .filter(|base| !std::ptr::eq(*base, *row))
            .and_then(|base| difference(frame, base, row, interval_of_mean));
        let verdict = difference
            .as_ref()
            .map(|difference| verdict(difference, trained.is_higher_better()));
        let name = series_key(row).1;
        if let Some((verdict, difference)) = verdict.zip(difference.as_ref()) {
            let word = format!("{} {}", name.replace(' ', "\u{a0}"), points(difference.mean));
            by_verdict[verdict as usize].push(word);
        }
        let told = format!("{} {}", value(measured.value), range(measured.interval, &value));
        short.push((name.clone(), told.trim_end().to_owned()));
        table.push(vec![
            name,
            value(measured.value),
            range(measured.interval, &value),
            row.n_seeds.map(|n| n.to_string()).unwrap_or_default(),
            row.lr.map(plain).unwrap_or_default(),
            difference.as_ref().map(|it| points(it.mean)).unwrap_or_default(),
            difference
                .as_ref()
                .map(|it| range(it.interval, &points))
                .unwrap_or_default(),
            verdict.map(|it| it.word().to_owned()).unwrap_or_default(),
            row.kv_bytes_per_token
                .map(|b| Unit::Bytes.format(b, 3, true))
                .unwrap_or_default(),
            row.parameters.map(|n| n.to_string()).unwrap_or_default(),
            row.cache_agreement
                .map(|share| Unit::Share.format(share, 4, true))
                .unwrap_or_default(),
            Grade::of(row).name().to_owned(),
        ]);
    }
    let mut sentences: Vec<Sentence> = Vec::new();
    sentences.extend(best(trained, &value));
    if base.is_some() {
        let unit = if measure.unit == Unit::Share {
            " (percentage points)"
        } else {
            ""
        };
        let parts: Vec<String> = VERDICTS
            .into_iter()
            .filter(|verdict| !by_verdict[*verdict as usize].is_empty())
            .map(|verdict| format!("{}: {}", verdict.word(), listed(&by_verdict[verdict as usize])))
            .collect();
        let text = format!("Against MHA of the same seeds{unit}, {}.", parts.join("; "));
        sentences.extend((!parts.is_empty()).then(|| Sentence::new(State::Note, text)));
    } else {
        let text = "No MHA was trained on it: there is nothing to compare with.".to_owned();
        sentences.push(Sentence::new(State::Note, text));
    }
    Block {
        title: format!("Quality: {}", trained.title),
        setting,
        sentences,
        table: table.compact(),
        short,
    }
}

/// Which model is best, and whether another one's interval reaches it.
fn best(trained: &Trained<'_>, value: &dyn Fn(f64) -> String) -> Option<Sentence> {
    let sign = if trained.is_higher_better()? { 1.0 } else { -1.0 };
    let of = |row: &Row| quality(row).map(|it| sign * it.value);
    let row = (trained.rows.iter().copied().filter(|row| of(row).is_some()))
        .max_by(|a, b| of(a).partial_cmp(&of(b)).unwrap_or(std::cmp::Ordering::Equal))?;
    let measured = quality(row)?;
    let interval = measured.interval.map(|(low, high)| {
        format!(
            " (95\u{a0}% interval over seeds {} to {})",
            value(low),
            value(high)
        )
    });
    let rate = row
        .lr
        .map(|lr| format!(" at learning rate {}", plain(lr)))
        .unwrap_or_default();
    let limit = row
        .quality_best
        .map(|best| format!("; the best possible is {}", value(best)))
        .unwrap_or_default();
    Some(Sentence {
        text: format!(
            "{} has the best mean of {} models: {} {}{}{rate}{limit}.",
            series_key(row).1,
            trained.rows.len(),
            trained.measure().axis_title(trained.is_higher_better()),
            value(measured.value),
            interval
                .clone()
                .unwrap_or_else(|| " (one seed, no interval)".to_owned())
        ),
        state: if interval.is_some() {
            State::Note
        } else {
            State::Single
        },
        doubt: doubt(std::iter::once(row)),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Open,
    Unknown,
}

const VERDICTS: [Verdict; 4] = [Verdict::Better, Verdict::Worse, Verdict::Open, Verdict::Unknown];

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Better => "shown better",
            Self::Worse => "shown worse",
            Self::Open => "open",
            Self::Unknown => "no interval",
        }
    }
}

fn verdict(difference: &Difference, is_higher_better: Option<bool>) -> Verdict {
    match (difference.interval, is_higher_better) {
        (Some((low, high)), _) if low <= 0.0 && high >= 0.0 => Verdict::Open,
        (Some((low, _)), Some(higher)) if (low > 0.0) == higher => Verdict::Better,
        (Some(_), Some(_)) => Verdict::Worse,
        _ => Verdict::Unknown,
    }
}

/// Seed by seed: both drew the same weights and data for a seed, so its luck is in both.
fn difference(frame: &Frame, base: &Row, row: &Row, interval_of_mean: Mean) -> Option<Difference> {
    let (of_base, of_row) = (seeds(frame, base)?, seeds(frame, row)?);
    let differences: Vec<f64> = of_row
        .iter()
        .filter_map(|(seed, quality)| Some(quality - of_base.get(seed)?))
        .collect();
    (!differences.is_empty()).then(|| Difference {
        mean: differences.iter().sum::<f64>() / differences.len() as f64,
        interval: interval_of_mean(&differences),
    })
}

/// The qualities of a case's seeds.
fn seeds(frame: &Frame, row: &Row) -> Option<BTreeMap<u64, f64>> {
    let all = frame.trainings(row.case_id.as_deref()?).into_iter();
    Some(
        all.filter_map(|one| Some((one.seed, one.quality.filter(|value| value.is_finite())?)))
            .collect(),
    )
}
