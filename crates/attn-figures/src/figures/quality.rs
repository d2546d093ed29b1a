//! What figures of quality share: rows by task, values with their intervals, axes, and what the caption says.

use super::points::{latest, listed, replaced_note};
use super::rates::at_best;
use crate::axis::Axis;
use crate::frame::Row;
use crate::marker::Marker;
use crate::sheet::{Grade, Measured, Point, Series, Shape};
use crate::slice::{Slice, cases};
use crate::style::{AXIS, GREY, Look, series_key};
use crate::tasks::{Measure, Task};
use crate::units::Unit;
use std::collections::BTreeSet;

/// Said once on every figure of qualities.
pub(super) const INTERVAL: &str = "mean over seeds, bars: 95\u{a0}% Student interval";
/// With fewer seeds an interval says little.
const FEW_SEEDS: u64 = 3;
/// The best possible value is left out where it would make the axis this much longer.
const FAR: f64 = 3.0;

/// The models trained on a task, one row a series.
pub(crate) struct Trained<'a> {
    pub(crate) task: Task,
    pub(crate) title: String,
    pub(crate) rows: Vec<&'a Row>,
}

/// Rows of a slice by task, in the order of legends.
pub(crate) struct Tasks<'a> {
    pub(crate) all: Vec<Trained<'a>>,
    n_replaced: usize,
    n_empty: usize,
    /// That the best of several learning rates was taken.
    rates_note: Option<String>,
    /// What there is to say against it.
    rates_reservation: Option<String>,
}

impl<'a> Tasks<'a> {
    /// Each variant at the best of its learning rates.
    pub(crate) fn of(slice: &Slice<'a>) -> Result<Self, String> {
        Self::new(slice, true)
    }

    /// Each variant at every learning rate.
    pub(super) fn at_every_rate(slice: &Slice<'a>) -> Result<Self, String> {
        Self::new(slice, false)
    }

    fn new(slice: &Slice<'a>, is_best_only: bool) -> Result<Self, String> {
        let (rows, empty): (Vec<&Row>, Vec<&Row>) = slice.rows.iter().partition(|row| quality(row).is_some());
        let place = |row: &Row| (Task::of(row), row.lr.map(f64::to_bits));
        let (mut rows, n_replaced) = latest(&rows, place, quality);
        let (mut rates_note, mut rates_reservation) = (None, None);
        if is_best_only {
            let best = at_best(&rows);
            (rates_note, rates_reservation) = (best.note(), best.reservation());
            rows = best.rows;
        }
        let order: Vec<_> = slice.series(&rows).into_iter().map(|(key, _)| key).collect();
        let tasks: BTreeSet<Task> = rows.iter().map(|row| Task::of(row)).collect();
        let names: Vec<&Task> = tasks.iter().collect();
        let trained = |task: &Task| {
            let mut own: Vec<&Row> = rows
                .iter()
                .copied()
                .filter(|row| Task::of(row) == *task)
                .collect();
            own.sort_by_key(|row| order.iter().position(|key| *key == series_key(row)));
            Trained {
                title: task.title(&names),
                task: task.clone(),
                rows: own,
            }
        };
        let all: Vec<Trained<'_>> = tasks.iter().map(trained).collect();
        if all.is_empty() {
            return Err("no training has a quality".to_owned());
        }
        Ok(Self {
            all,
            n_replaced,
            n_empty: empty.len(),
            rates_note,
            rates_reservation,
        })
    }

    /// Keeps the tasks that something can be drawn of.
    pub(super) fn retain(&mut self, keep: impl Fn(&Trained<'_>) -> bool) {
        self.all.retain(|trained| keep(trained));
    }

    /// `2000 updates`, for the subtitle.
    pub(super) fn updates(&self) -> String {
        let tasks: Vec<&Task> = self.all.iter().map(|trained| &trained.task).collect();
        Task::updates(&tasks).map_or_else(String::new, |text| format!("; {text}"))
    }

    fn rows(&self) -> impl Iterator<Item = &'a Row> {
        self.all.iter().flat_map(|trained| trained.rows.iter().copied())
    }

    /// How many seeds and examples, and what was left out.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(range(self.rows().filter_map(|row| row.n_seeds), "seed", "seeds"));
        let examples = self.rows().filter_map(|row| row.test_examples);
        notes.extend(range(examples, "test example", "test examples"));
        notes.extend(self.rates_note.clone());
        notes.extend(replaced_note(self.n_replaced));
        if self.n_empty > 0 {
            notes.push(format!("{} without a value", cases(self.n_empty)));
        }
        notes
    }

    /// What failed, and what there are too few seeds of.
    pub(crate) fn reservations(&self, slice: &Slice<'_>) -> Vec<String> {
        let mut notes = slice.reservations();
        notes.extend(self.rates_reservation.clone());
        let diverged = |row: &&Row| row.n_diverged.is_some_and(|n| n > 0);
        let name = |row: &Row| {
            let of = row.n_seeds.map(|n| format!(" of {n}")).unwrap_or_default();
            format!("{} ({}{of})", series_key(row).1, row.n_diverged.unwrap_or(0))
        };
        notes.extend(named(
            "trainings that diverged",
            self.rows().filter(diverged).map(name),
        ));
        let few = |row: &&Row| row.n_seeds.is_some_and(|n| n < FEW_SEEDS);
        let name = |row: &Row| format!("{} ({})", series_key(row).1, row.n_seeds.unwrap_or(0));
        let label = format!("fewer than {FEW_SEEDS} seeds, differences may be chance");
        if self.rows().all(|row| few(&row)) {
            notes.push(label);
        } else {
            notes.extend(named(&label, self.rows().filter(few).map(name)));
        }
        notes
    }
}

/// `label: a, b and c`, each once, at most six of them.
pub(super) fn named(label: &str, names: impl Iterator<Item = String>) -> Option<String> {
    const MOST: usize = 6;
    let mut each: Vec<String> = Vec::new();
    for name in names {
        if !each.contains(&name) {
            each.push(name);
        }
    }
    if each.len() > MOST {
        let rest = each.len() - (MOST - 1);
        each.truncate(MOST - 1);
        each.push(format!("{rest} more"));
    }
    (!each.is_empty()).then(|| format!("{label}: {}", listed(&each)))
}

/// `5 seeds`, `3 to 5 seeds`.
fn range(counts: impl Iterator<Item = u64>, one: &str, many: &str) -> Option<String> {
    let all: BTreeSet<u64> = counts.collect();
    let (least, most) = (all.first()?, all.last()?);
    let noun = if *most == 1 { one } else { many };
    Some(if least == most {
        format!("{most} {noun}")
    } else {
        format!("{least} to {most} {noun}")
    })
}

/// The mean over seeds, with its interval where there are several.
pub(crate) fn quality(row: &Row) -> Option<Measured> {
    let value = row.quality.filter(|value| value.is_finite())?;
    let interval = row.quality_ci_low.zip(row.quality_ci_high);
    Some(Measured {
        value,
        interval: interval.filter(|(low, high)| *low <= value && value <= *high),
        grade: Grade::of(row),
    })
}

impl<'a> Trained<'a> {
    /// The same with some of its rows.
    pub(super) fn only(&self, keep: impl Fn(&Row) -> bool) -> Self {
        Self {
            task: self.task.clone(),
            title: self.title.clone(),
            rows: self.rows.iter().copied().filter(|row| keep(row)).collect(),
        }
    }
}

impl Trained<'_> {
    pub(crate) fn measure(&self) -> Measure {
        self.task.measure()
    }

    pub(crate) fn is_higher_better(&self) -> Option<bool> {
        let said = self.rows.iter().find_map(|row| row.quality_higher_is_better);
        said.or(self.measure().is_higher_better)
    }

    /// The best value there is, the same for every model.
    pub(super) fn best(&self) -> Option<f64> {
        self.rows.iter().find_map(|row| row.quality_best)
    }

    /// The values of single seeds of a row.
    pub(super) fn seeds(slice: &Slice<'_>, row: &Row) -> Vec<f64> {
        let Some(case_id) = row.case_id.as_deref() else {
            return Vec::new();
        };
        let all = slice.frame.trainings(case_id);
        let values: Vec<f64> = all
            .iter()
            .filter_map(|one| one.quality)
            .filter(|q| q.is_finite())
            .collect();
        // One seed is the mean itself.
        if values.len() > 1 { values } else { Vec::new() }
    }

    /// An axis that holds the qualities, and `others` such as single seeds. Losses that differ more than tenfold are
    /// on a logarithmic one.
    pub(super) fn axis(&self, others: &[f64]) -> Axis {
        let measure = self.measure();
        let title = measure.axis_title(self.is_higher_better());
        let measured: Vec<Measured> = self.rows.iter().filter_map(|row| quality(row)).collect();
        let means = measured.iter().map(|one| one.value).chain(others.iter().copied());
        let (least, most) = means.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(v), b.max(v))
        });
        let inside = measured.iter().flat_map(|one| possible(&measure, *one).ends());
        let mut values: Vec<f64> = inside.chain(others.iter().copied()).collect();
        if measure.is_loss && least > 0.0 && most > 10.0 * least {
            // An interval that reaches below zero is cut at half the least mean.
            let floor = 0.5 * least;
            return Axis::logarithmic(
                &title,
                measure.unit,
                values.into_iter().map(|value| value.max(floor)),
            );
        }
        let range = |values: &[f64]| {
            let ends = values
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                    (a.min(*v), b.max(*v))
                });
            ends.1 - ends.0
        };
        let narrowest = match measure.unit {
            Unit::Share => 0.02,
            _ => 0.02 * most.abs().max(1e-6),
        };
        if let Some(best) = self.best() {
            let mut with = values.clone();
            with.push(best);
            if range(&with) <= FAR * range(&values).max(narrowest) {
                values = with;
            }
        }
        Axis::around(&title, measure.unit, values.into_iter(), narrowest)
    }

    /// A quality as it is drawn on an axis: its interval ends at the frame.
    pub(super) fn drawn(&self, row: &Row, axis: &Axis) -> Option<Measured> {
        let measured = possible(&self.measure(), quality(row)?);
        let [low, high] = axis.reach();
        let cut = |(from, to): (f64, f64)| (from.max(low), to.min(high));
        Some(Measured {
            interval: measured.interval.map(cut),
            ..measured
        })
    }

    /// The best possible value as a dashed line, where the axis reaches it.
    pub(super) fn best_line(&self, x: &Axis, y: &Axis) -> Option<Series> {
        let best = self
            .best()
            .filter(|best| y.reach()[0] <= *best && *best <= y.reach()[1])?;
        let point = |x: f64| point(x, exactly(best));
        Some(Series {
            label: "best possible".to_owned(),
            look: Look {
                color: AXIS,
                marker: Marker::Circle,
            },
            points: x.reach().map(point).to_vec(),
            shape: Shape::Dashed,
        })
    }

    /// What the caption says where it does not.
    pub(super) fn best_note(&self, y: &Axis) -> Option<String> {
        let best = self.best()?;
        let [low, high] = y.reach();
        let outside = best < low || best > high;
        let value = self.measure().unit.format(best, 3, true);
        outside.then(|| format!("best possible in {}: {value}, beyond the axis", self.title))
    }
}

/// A share is between none and all, whatever the interval around its mean says.
pub(crate) fn possible(measure: &Measure, measured: Measured) -> Measured {
    let (least, most) = measure.range;
    let cut = |(low, high): (f64, f64)| {
        (
            low.max(least).min(measured.value),
            high.min(most).max(measured.value),
        )
    };
    Measured {
        interval: measured.interval.map(cut),
        ..measured
    }
}

pub(super) fn exactly(value: f64) -> Measured {
    Measured {
        value,
        interval: None,
        grade: Grade::Clean,
    }
}

pub(super) fn point(x: f64, y: Measured) -> Point {
    Point {
        x,
        x_interval: None,
        y,
        look: None,
    }
}

/// Single seeds, each in the colour of its series.
pub(super) fn dots(places: Vec<(f64, f64, Look)>) -> Option<Series> {
    let dot = |(x, value, look): (f64, f64, Look)| Point {
        look: Some(look),
        ..point(x, exactly(value))
    };
    (!places.is_empty()).then(|| Series {
        label: "single seeds (a little to the left)".to_owned(),
        look: Look {
            color: GREY,
            marker: Marker::Circle,
        },
        points: places.into_iter().map(dot).collect(),
        shape: Shape::Dots,
    })
}

/// The best value for each cost, as steps: what is under them is worse than something that costs no more.
pub(super) fn front(places: &[(f64, f64)], is_higher_better: Option<bool>, end: f64) -> Option<Series> {
    let sign = if is_higher_better? { 1.0 } else { -1.0 };
    let mut sorted = places.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then((sign * b.1).total_cmp(&(sign * a.1))));
    let mut best: Vec<(f64, f64)> = Vec::new();
    for place in sorted {
        if best.last().is_none_or(|last| sign * place.1 > sign * last.1) {
            best.push(place);
        }
    }
    let last = best.last()?.1;
    best.push((end, last));
    (places.len() > 1).then(|| Series {
        label: "Pareto front".to_owned(),
        look: Look {
            color: AXIS,
            marker: Marker::Circle,
        },
        points: best.into_iter().map(|(x, y)| point(x, exactly(y))).collect(),
        shape: Shape::Steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_cheaper_beats() {
        let places = [(4.0, 0.9), (1.0, 0.5), (2.0, 0.4), (2.0, 0.7), (8.0, 0.9)];
        let drawn = |higher| {
            let series = front(&places, Some(higher), 16.0).unwrap();
            series
                .points
                .iter()
                .map(|point| (point.x, point.y.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(drawn(true), [(1.0, 0.5), (2.0, 0.7), (4.0, 0.9), (16.0, 0.9)]);
        assert_eq!(drawn(false), [(1.0, 0.5), (2.0, 0.4), (16.0, 0.4)]);
        assert!(front(&places, None, 16.0).is_none());
        assert!(front(&places[..1], Some(true), 16.0).is_none());
    }

    #[test]
    fn an_interval_ends_where_its_measure_does() {
        let row = Row {
            quality: Some(0.98),
            quality_ci_low: Some(0.94),
            quality_ci_high: Some(1.02),
            quality_measure: Some("token_accuracy".into()),
            ..Row::default()
        };
        let measure = Task::of(&row).measure();
        assert_eq!(
            possible(&measure, quality(&row).unwrap()).interval,
            Some((0.94, 1.0))
        );
        let bleu = Row {
            quality_measure: Some("bleu".into()),
            quality_ci_low: Some(-0.5),
            ..row.clone()
        };
        assert_eq!(
            possible(&Task::of(&bleu).measure(), quality(&bleu).unwrap()).interval,
            Some((0.0, 1.02))
        );
    }

    #[test]
    fn many_names_are_cut_short() {
        let names = |n: u32| (0..n).map(|i| format!("v{i}"));
        assert_eq!(named("few", names(2)).unwrap(), "few: v0 and v1");
        assert_eq!(
            named("few", names(9)).unwrap(),
            "few: v0, v1, v2, v3, v4 and 4 more"
        );
        assert_eq!(named("few", names(0)), None);
    }
}
