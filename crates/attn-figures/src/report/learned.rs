//! What the rows say about quality: every trained variant against MHA, task by task.

use crate::figures::points::{is_baseline, listed};
use crate::figures::quality::{Tasks, Trained, possible, quality};
use crate::frame::{Frame, Row};
use crate::sheet::{Grade, Measured};
use crate::slice::{Slice, TRAINED};
use crate::style::series_key;
use crate::tasks::Measure;
use crate::units::Unit;
use std::collections::BTreeMap;

use super::cells::plain;
use super::data::Table;
use super::findings::{Block, Sentence, State, capital, doubt, some, unbroken};

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

/// A trained model beside MHA.
struct Model<'a> {
    name: String,
    row: &'a Row,
    quality: Measured,
    difference: Option<(Difference, Verdict)>,
}

fn block(frame: &Frame, trained: &Trained<'_>, setting: String, interval_of_mean: Mean) -> Block {
    let measure = trained.measure();
    let is_base = |row: &Row| is_baseline(row) && row.downsample.is_none_or(|n| n <= 1);
    let base = trained.rows.iter().copied().find(|row| is_base(row));
    let model = |row: &&'_ Row| {
        let against = base.filter(|base| !std::ptr::eq(*base, *row));
        let difference = against.and_then(|base| difference(frame, base, row, interval_of_mean));
        Some(Model {
            name: series_key(row).1,
            quality: possible(&measure, quality(row)?),
            difference: difference.map(|found| {
                let verdict = verdict(&found, trained.is_higher_better());
                (found, verdict)
            }),
            row: trained
                .rows
                .iter()
                .copied()
                .find(|own| std::ptr::eq(*own, *row))?,
        })
    };
    let models: Vec<Model<'_>> = trained.rows.iter().filter_map(model).collect();
    let digits = Digits::of(&measure);
    let mut sentences: Vec<Sentence> = Vec::new();
    sentences.extend(best(trained, &models, digits));
    if base.is_some() {
        let told = VERDICTS.into_iter();
        sentences.extend(told.filter_map(|verdict| against_base(&models, verdict, digits)));
    } else {
        let text = "No MHA was trained on it: there is nothing to compare with.".to_owned();
        sentences.push(Sentence::new(State::Note, text));
    }
    let short = |model: &Model<'_>| {
        let told = format!(
            "{} {}",
            digits.value(model.quality.value),
            digits.range(model.quality.interval)
        );
        (model.name.clone(), told.trim_end().to_owned())
    };
    Block {
        title: format!("Quality: {}", trained.title),
        setting,
        sentences,
        short: models.iter().map(short).collect(),
        table: table(&measure, &models, digits),
    }
}

fn table(measure: &Measure, models: &[Model<'_>], digits: Digits) -> Table {
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
    for model in models {
        let row = model.row;
        let found = model.difference.as_ref();
        let bytes = row
            .kv_bytes_per_token
            .map(|bytes| Unit::Bytes.format(bytes, 3, true));
        let agreement = row
            .cache_agreement
            .map(|share| Unit::Share.format(share, 4, true));
        table.push(vec![
            model.name.clone(),
            digits.value(model.quality.value),
            digits.range(model.quality.interval),
            row.n_seeds.map(|n| n.to_string()).unwrap_or_default(),
            row.lr.map(plain).unwrap_or_default(),
            found
                .map(|(it, _)| digits.difference(it.mean))
                .unwrap_or_default(),
            found
                .map(|(it, _)| digits.differences(it.interval))
                .unwrap_or_default(),
            found
                .map(|(_, verdict)| verdict.word().to_owned())
                .unwrap_or_default(),
            bytes.unwrap_or_default(),
            row.parameters.map(|n| n.to_string()).unwrap_or_default(),
            agreement.unwrap_or_default(),
            Grade::of(row).name().to_owned(),
        ]);
    }
    table.compact()
}

/// Which model has the best mean.
fn best(trained: &Trained<'_>, models: &[Model<'_>], digits: Digits) -> Option<Sentence> {
    let is_higher_better = trained.is_higher_better()?;
    let sign = if is_higher_better { 1.0 } else { -1.0 };
    let of = |model: &Model<'_>| sign * model.quality.value;
    let model = models.iter().max_by(|a, b| of(a).total_cmp(&of(b)))?;
    let interval = match model.quality.interval {
        Some((low, high)) => format!(
            ", 95\u{a0}% interval over {} seeds {} to {}",
            model.row.n_seeds.unwrap_or_default(),
            digits.value(low),
            digits.value(high)
        ),
        None => String::new(),
    };
    let rate = model.row.lr.map(|lr| format!(", at learning rate {}", plain(lr)));
    let limit = model
        .row
        .quality_best
        .map(|best| format!("; the best possible is {}", digits.value(best)));
    Some(Sentence {
        text: format!(
            "{} has the best mean of {} models: {} {} ({} is better{interval}{}){}.",
            model.name,
            models.len(),
            trained.measure().title,
            digits.value(model.quality.value),
            if is_higher_better { "higher" } else { "lower" },
            rate.unwrap_or_default(),
            limit.unwrap_or_default()
        ),
        state: if interval.is_empty() {
            State::Single
        } else {
            State::Note
        },
        doubt: doubt(std::iter::once(model.row)),
    })
}

/// The models of one verdict, each with its difference to MHA.
fn against_base(models: &[Model<'_>], wanted: Verdict, digits: Digits) -> Option<Sentence> {
    let own: Vec<(&Model<'_>, &Difference)> = models
        .iter()
        .filter_map(|model| {
            let (difference, verdict) = model.difference.as_ref()?;
            (*verdict == wanted).then_some((model, difference))
        })
        .collect();
    let name = |(model, difference): &(&Model<'_>, &Difference)| {
        let interval = unbroken(&digits.differences(difference.interval));
        let value = [digits.difference(difference.mean), interval].join(" ");
        format!("{} {}", unbroken(&model.name), value.trim_end())
    };
    let names = some(own.iter().map(name).collect());
    let (words, state) = match wanted {
        Verdict::Better => ("Better than MHA", State::Shown),
        Verdict::Worse => ("Worse than MHA", State::Shown),
        Verdict::Open => (
            "Neither better nor worse than MHA, the interval holds 0",
            State::Open,
        ),
        Verdict::Unknown => ("Against MHA", State::Single),
    };
    (!names.is_empty()).then(|| Sentence {
        text: format!(
            "{words}{}, seed by seed: {}.",
            digits.unit_of_differences(),
            listed(&names)
        ),
        state,
        doubt: doubt(own.iter().map(|(model, _)| model.row)),
    })
}

/// How many digits a quality has: no more than seeds agree in.
#[derive(Debug, Clone, Copy)]
struct Digits {
    is_share: bool,
    decimals: usize,
}

impl Digits {
    fn of(measure: &Measure) -> Self {
        let is_share = measure.unit == Unit::Share;
        let decimals = match measure {
            _ if is_share => 1,
            Measure { is_loss: true, .. } => 4,
            _ => 2,
        };
        Self { is_share, decimals }
    }

    fn value(self, value: f64) -> String {
        let (scale, unit) = if self.is_share {
            (100.0, "\u{a0}%")
        } else {
            (1.0, "")
        };
        format!("{:.*}{unit}", self.decimals, scale * value).replace('-', "−")
    }

    /// With its sign, of shares in percentage points.
    fn difference(self, value: f64) -> String {
        let scale = if self.is_share { 100.0 } else { 1.0 };
        let text = format!("{:.*}", self.decimals, (scale * value).abs());
        let is_zero = text.chars().all(|c| matches!(c, '0' | '.'));
        let sign = match value {
            _ if is_zero => "±",
            v if v < 0.0 => "−",
            _ => "+",
        };
        format!("{sign}{text}")
    }

    fn unit_of_differences(self) -> &'static str {
        if self.is_share {
            ", in percentage points"
        } else {
            ""
        }
    }

    fn range(self, interval: Option<(f64, f64)>) -> String {
        let told = interval.map(|(low, high)| format!("({} to {})", self.value(low), self.value(high)));
        told.unwrap_or_default()
    }

    fn differences(self, interval: Option<(f64, f64)>) -> String {
        let told =
            interval.map(|(low, high)| format!("({} to {})", self.difference(low), self.difference(high)));
        told.unwrap_or_default()
    }
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
