//! What the seed's habits cost each variant, one by one, and what is left of its advantage without them.

use super::FigureSpec;
use super::points::{is_baseline, listed, replaced_note, time};
use super::ways::{Prefix, Way, by_way, habits};
use crate::frame::Row;
use crate::habits::{HABITS, Habits, N_SETS};
use crate::shapley::{Gain, gains};
use crate::sheet::{Body, Measured, Sheet, Step, WaterfallPanel, Waterfalls};
use crate::slice::{Slice, WAYS, sizes};
use crate::style::{SeriesKey, series_key};
use crate::units::Unit;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "speedup-waterfall",
    summary: "Time of a whole decoder from the seed's way to ours, one habit at a time",
    needs: "whole-model",
    uses: |row| row.is_timed_model(),
    dimensions: WAYS,
    sheet,
};

/// The times of one variant.
struct Times {
    key: SeriesKey,
    /// By the index of the set of habits; none where it was not measured.
    seedlike: Vec<Option<Measured>>,
    /// By prefix.
    fused: BTreeMap<Prefix, Measured>,
}

impl Times {
    fn at(&self, set: Habits) -> Option<Measured> {
        self.seedlike[set.index()]
    }

    fn n_measured(&self) -> usize {
        self.seedlike.iter().flatten().count()
    }

    /// The cost of every set, where all were measured.
    fn costs(&self) -> Option<Vec<f64>> {
        let costs = self.seedlike.iter().map(|time| time.map(|time| time.value));
        costs.collect()
    }
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let (ways, n_replaced) = by_way(slice, time);
    let all_seedlike = ways.iter().filter(|(way, _)| way.habits().is_some());
    // The prefix is no habit of the waterfall: where the seed-like path ran with several, the seed's.
    let prefix = all_seedlike.clone().map(|(way, _)| way.prefix().clone()).min();
    let prefix = prefix.ok_or("no seed-like row that names its habits")?;
    let seedlike: Vec<&Row> = all_seedlike
        .filter(|(way, _)| *way.prefix() == prefix)
        .flat_map(|(_, rows)| rows.iter().copied())
        .collect();
    let bare: Vec<&Row> = seedlike
        .iter()
        .copied()
        .filter(|row| habits(row) == Some(Habits::NONE))
        .collect();
    let (fused_dtype, fused) = fused_rows(&ways, &bare);

    let of_variant = |key: SeriesKey| Times {
        seedlike: (0..N_SETS)
            .map(|set| {
                let own = seedlike
                    .iter()
                    .find(|row| series_key(row) == key && habits(row).map(Habits::index) == Some(set));
                own.and_then(|row| time(row))
            })
            .collect(),
        fused: fused
            .iter()
            .filter(|row| series_key(row) == key)
            .filter_map(|row| Some((Prefix::of(row), time(row)?)))
            .collect(),
        key,
    };
    let series = slice.series(&seedlike);
    let times: Vec<Times> = series.iter().map(|(key, _)| of_variant(key.clone())).collect();
    let has_ends = |times: &&Times| times.at(Habits::ALL).is_some() && times.at(Habits::NONE).is_some();
    let (drawn, without): (Vec<&Times>, Vec<&Times>) = times.iter().partition(has_ends);
    if drawn.is_empty() {
        return Err("no variant was measured both with all habits and with none".to_owned());
    }
    let base = drawn.iter().copied().find(|times| times.key.0 == "mha");

    let prefixes: Vec<Prefix> = drawn
        .iter()
        .flat_map(|times| times.fused.keys().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let panel = |times: &&Times| WaterfallPanel {
        title: times.key.1.clone(),
        lines: lines(times, base),
        look: slice.frame.palette().look(&times.key),
        steps: steps(times, base, &prefixes),
    };
    let panels: Vec<WaterfallPanel> = drawn.iter().map(panel).collect();
    let of_figure = notes(&Told {
        drawn: &drawn,
        without: &without,
        base,
        seedlike: &seedlike,
        fused_dtype: fused_dtype.as_deref(),
    });
    let mut notes = of_figure;
    notes.extend(replaced_note(n_replaced));
    Ok(Sheet {
        title: "What the seed's habits cost, one by one".to_owned(),
        subtitle: format!(
            "{}. Each habit's bar is its Shapley value, the mean over all orders of removing the habits, so that bars add up; \
             whisker: from removed first to removed last; percentages are of the whole gain, times stand where little of it is left; in brackets: times as fast as MHA",
            slice.rows.first().map(|row| sizes(row)).unwrap_or_default()
        ),
        notes,
        reservations: slice.reservations(),
        body: Body::Waterfalls(Waterfalls {
            axis_title: "Time".to_owned(),
            unit: Unit::Seconds,
            labels: labels(&prefixes, fused_dtype.as_deref()),
            panels,
        }),
    })
}

/// The fused rows to go on with: those of the element type that the seed-like path without habits ran in, else of
/// another, which the figure says.
fn fused_rows<'a>(ways: &[(Way, Vec<&'a Row>)], bare: &[&Row]) -> (Option<String>, Vec<&'a Row>) {
    let wanted: Option<String> = bare.first().map(|row| Way::of(row).dtype().to_owned());
    let fused = || ways.iter().filter(|(way, _)| !way.is_seedlike());
    let dtypes: BTreeSet<&str> = fused().map(|(way, _)| way.dtype()).collect();
    let dtype = wanted
        .filter(|dtype| dtypes.contains(dtype.as_str()))
        .or_else(|| dtypes.first().map(|dtype| (*dtype).to_owned()));
    let of_dtype = fused().filter(|(way, _)| Some(way.dtype()) == dtype.as_deref());
    let rows = of_dtype.flat_map(|(_, rows)| rows.iter().copied()).collect();
    (dtype, rows)
}

fn labels(prefixes: &[Prefix], fused_dtype: Option<&str>) -> Vec<String> {
    let mut labels = vec!["all habits".to_owned()];
    labels.extend(HABITS.map(|habit| format!("− {habit}")));
    labels.push("no habits".to_owned());
    labels.extend(prefixes.iter().map(|prefix| {
        let dtype = fused_dtype.unwrap_or_default();
        format!("fused {dtype}, {}", prefix.name())
            .trim_end_matches([',', ' '])
            .to_owned()
    }));
    labels
}

/// From all habits to none and on to the fused path.
fn steps(times: &Times, base: Option<&Times>, prefixes: &[Prefix]) -> Vec<Step> {
    let base = base.filter(|base| base.key != times.key);
    let whole = |of: &dyn Fn(&Times) -> Option<Measured>| {
        let Some(value) = of(times) else {
            return Step::Missing;
        };
        let seconds = Unit::Seconds.format(value.value, 3, false);
        let text = match base.and_then(of) {
            Some(base) => format!("{seconds}\u{a0}({})", ratio_text(base.value / value.value)),
            None => seconds,
        };
        Step::Whole { value, text }
    };
    let mut steps = vec![whole(&|times| times.at(Habits::ALL))];
    match times.costs() {
        Some(costs) => steps.extend(changes(costs[Habits::ALL.index()], &gains(&costs))),
        None => steps.extend(HABITS.map(|_| Step::Missing)),
    }
    steps.push(whole(&|times| times.at(Habits::NONE)));
    let fused = |prefix: &Prefix| whole(&|times| times.fused.get(prefix).copied());
    steps.extend(prefixes.iter().map(fused));
    steps
}

fn ratio_text(ratio: f64) -> String {
    Unit::Ratio.format(ratio, 3, false)
}

/// One step below the other, as long as the gains are.
fn changes(start: f64, gains: &[Gain]) -> Vec<Step> {
    let whole: f64 = gains.iter().map(|gain| gain.mean).sum();
    let moved: f64 = gains.iter().map(|gain| gain.mean.abs()).sum();
    let mut from = start;
    let mut steps = Vec::with_capacity(gains.len());
    for gain in gains {
        let to = from - gain.mean;
        let (least, most) = (gain.first.min(gain.last), gain.first.max(gain.last));
        steps.push(Step::Change {
            from,
            to,
            ends: (from - most, from - least),
            text: share(gain.mean, whole, moved),
        });
        from = to;
    }
    steps
}

/// Gains and losses together over the whole gain, up to which shares of it are told.
const MOST_MOVED: f64 = 2.0;

/// A gain as a share of the whole one. Where that is no gain, shares would say the opposite of what happened; where little
/// is left of the `moved`, gains and losses without their signs, they would be of hundreds of percent.
fn share(gain: f64, whole: f64, moved: f64) -> String {
    if whole <= 0.0 || moved > MOST_MOVED * whole {
        let sign = if gain < 0.0 { "+" } else { "−" };
        return format!("{sign}{}", Unit::Seconds.format(gain.abs(), 2, false));
    }
    let percent = (100.0 * gain / whole).round();
    let sign = if percent < 0.0 { "−" } else { "" };
    format!("{sign}{}\u{a0}%", percent.abs())
}

/// Under a panel's title: what the habits make in all, and how much faster than MHA the variant is at every whole.
fn lines(times: &Times, base: Option<&Times>) -> Vec<String> {
    let ratio = |a: Option<Measured>, b: Option<Measured>| Some(a?.value / b?.value);
    let mut lines = Vec::new();
    if let Some(whole) = ratio(times.at(Habits::ALL), times.at(Habits::NONE)) {
        lines.push(format!("all habits / none: {}", ratio_text(whole)));
    }
    let Some(base) = base.filter(|base| base.key != times.key) else {
        return lines;
    };
    let against = |set: Habits| ratio(base.at(set), times.at(set));
    let ends = against(Habits::ALL).zip(against(Habits::NONE));
    if let Some((with, without)) = ends {
        lines.push(format!(
            "MHA / this: {} with all, {} with none",
            ratio_text(with),
            ratio_text(without)
        ));
    }
    lines
}

/// What the caption tells of.
struct Told<'a> {
    drawn: &'a [&'a Times],
    without: &'a [&'a Times],
    base: Option<&'a Times>,
    seedlike: &'a [&'a Row],
    fused_dtype: Option<&'a str>,
}

fn notes(told: &Told<'_>) -> Vec<String> {
    let names = |all: &[&Times]| listed(&all.iter().map(|times| times.key.1.clone()).collect::<Vec<_>>());
    let mut notes = vec!["wholes: median of a run and its 95\u{a0}% bootstrap interval".to_owned()];
    if told.base.is_none() {
        let has_mha = told.seedlike.iter().any(|row| is_baseline(row));
        let why = if has_mha {
            "MHA lacks an end"
        } else {
            "MHA was not measured"
        };
        notes.push(format!("{why}: nothing to compare with"));
    }
    let partial = told.drawn.iter().filter(|times| times.costs().is_none());
    notes.extend(partial.map(|times| {
        let n = times.n_measured();
        format!(
            "{}: {n} of {N_SETS} combinations measured, so the ends only",
            times.key.1
        )
    }));
    if !told.without.is_empty() {
        notes.push(format!("no ends, so not drawn: {}", names(told.without)));
    }
    let inner = |row: &&&Row| !matches!(habits(row), Some(Habits::ALL | Habits::NONE));
    let weak = told.seedlike.iter().filter(inner).filter(|row| !row.is_clean());
    let (n_weak, n) = (weak.count(), told.seedlike.iter().filter(inner).count());
    if n_weak > 0 {
        notes.push(format!(
            "of the {n} combinations between the ends {n_weak} have a trust that is not clean"
        ));
    }
    let bare = told.seedlike.iter().find(|row| habits(row) == Some(Habits::NONE));
    let bare = bare.map(|row| Way::of(row).dtype().to_owned());
    if let Some(bare) = bare.filter(|dtype| !dtype.is_empty()) {
        notes.push(format!("without the habit f32 in {bare}"));
        if let Some(fused) = told.fused_dtype.filter(|fused| **fused != *bare) {
            notes.push(format!("the fused path ran in {fused}, not in {bare}"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_from_one_end_to_the_other_also_upwards() {
        let gain = |mean: f64, first: f64, last: f64| Gain { mean, first, last };
        let steps = changes(10.0, &[gain(6.0, 8.0, 5.0), gain(-1.0, -2.0, 1.0)]);
        let change = |from, to, ends, text: &str| Step::Change {
            from,
            to,
            ends,
            text: text.to_owned(),
        };
        assert_eq!(
            steps,
            [
                change(10.0, 4.0, (2.0, 5.0), "120\u{a0}%"),
                change(4.0, 5.0, (3.0, 6.0), "−20\u{a0}%"),
            ]
        );
    }

    #[test]
    fn where_removing_habits_does_not_help_there_are_no_shares() {
        assert_eq!(share(-0.5, -1.0, 2.0).replace('\u{a0}', " "), "+500 ms");
        assert_eq!(share(0.25, -1.0, 2.0).replace('\u{a0}', " "), "−250 ms");
        assert_eq!(share(-0.001, 1.0, 1.0).replace('\u{a0}', " "), "0 %");
        assert_eq!(share(0.25, 0.1, 2.0).replace('\u{a0}', " "), "−250 ms");
    }
}
