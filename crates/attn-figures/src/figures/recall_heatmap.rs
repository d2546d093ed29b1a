//! What is remembered, by how long ago it was and how much there was to remember.

use super::FigureSpec;
use super::quality::Tasks;
use crate::frame::{Probe, Row};
use crate::sheet::{Body, HeatPanel, Heats, Sheet};
use crate::slice::{Slice, TRAINED_ON_ONE};
use crate::style::series_key;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "recall-heatmap",
    summary: "Accuracy of recall by distance and load, a panel a variant",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED_ON_ONE,
    sheet,
};

/// More loads are put together like distances.
const MOST_LOADS: usize = 8;
const MOST_PANELS: usize = 20;

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let tasks = Tasks::of(slice)?;
    let rows = tasks.all.iter().flat_map(|trained| trained.rows.iter().copied());
    let asked = |row: &&Row| !probes(slice, row).is_empty();
    let mut rows: Vec<&Row> = rows.filter(asked).collect();
    if rows.is_empty() {
        return Err("no training of this task has probes".to_owned());
    }
    let n_rows = rows.len();
    rows.truncate(MOST_PANELS);

    let all: Vec<&Probe> = rows.iter().flat_map(|row| probes(slice, row)).collect();
    let distances = Bins::of(all.iter().map(|probe| probe.distance), 0);
    let loads = Bins::of(all.iter().map(|probe| probe.load), MOST_LOADS);
    let panel = |row: &&Row| {
        let key = series_key(row);
        HeatPanel {
            look: slice.frame.palette().look(&key),
            title: key.1,
            cells: cells(&probes(slice, row), &distances, &loads),
        }
    };
    let mut notes =
        vec!["mean over seeds of the share of right answers, each place by its answers".to_owned()];
    if n_rows > MOST_PANELS {
        notes.push(format!("the first {MOST_PANELS} of {n_rows} variants"));
    }
    notes.extend(tasks.notes());
    let name = &tasks.all[0].title;
    Ok(Sheet {
        title: format!("What is remembered in {name}"),
        subtitle: format!(
            "Answers that are right in {name}, in per cent, by tokens from fact to question{} and facts to remember",
            if distances.are_exact() {
                ""
            } else {
                " (in powers of two)"
            }
        ),
        notes,
        reservations: tasks.reservations(slice),
        body: Body::Heats(Heats {
            x_title: "Distance (tokens)".to_owned(),
            y_title: "Load (facts)".to_owned(),
            scale_title: "right".to_owned(),
            columns: distances.names(),
            rows: loads.names(),
            panels: rows.iter().map(panel).collect(),
        }),
    })
}

/// Places with an accuracy and answers.
fn probes<'a>(slice: &Slice<'a>, row: &Row) -> Vec<&'a Probe> {
    let Some(case_id) = row.case_id.as_deref() else {
        return Vec::new();
    };
    let mut all = slice.frame.probes(case_id);
    let has_answers = |probe: &Probe| probe.answers.unwrap_or(1) > 0;
    all.retain(|probe| probe.accuracy.is_some_and(f64::is_finite) && has_answers(probe));
    all
}

/// Values put together by powers of two, or each by itself where there are few.
struct Bins {
    /// The values in each, ascending.
    values: Vec<BTreeSet<u64>>,
}

impl Bins {
    fn of(values: impl Iterator<Item = u64>, most: usize) -> Self {
        let values: BTreeSet<u64> = values.collect();
        let power = |value: u64| {
            if values.len() <= most {
                value
            } else {
                u64::from(value.max(1).ilog2())
            }
        };
        let mut bins: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for value in &values {
            bins.entry(power(*value)).or_default().insert(*value);
        }
        Self {
            values: bins.into_values().collect(),
        }
    }

    fn at(&self, value: u64) -> Option<usize> {
        self.values.iter().position(|bin| bin.contains(&value))
    }

    /// Whether each has one value.
    fn are_exact(&self) -> bool {
        self.values.iter().all(|bin| bin.len() == 1)
    }

    /// `4`, or `4–7` where there are several.
    fn names(&self) -> Vec<String> {
        let name = |bin: &BTreeSet<u64>| match (bin.first(), bin.last()) {
            (Some(first), Some(last)) if first != last => format!("{first}–{last}"),
            (Some(first), _) => first.to_string(),
            _ => String::new(),
        };
        self.values.iter().map(name).collect()
    }
}

/// In each bin the mean over seeds of a seed's right answers by its answers.
fn cells(probes: &[&Probe], distances: &Bins, loads: &Bins) -> Vec<Vec<Option<f64>>> {
    let mut sums: BTreeMap<(usize, usize), BTreeMap<u64, (f64, f64)>> = BTreeMap::new();
    for probe in probes {
        let (Some(column), Some(row)) = (distances.at(probe.distance), loads.at(probe.load)) else {
            continue;
        };
        let answers = probe.answers.unwrap_or(1) as f64;
        let seeds = sums.entry((row, column)).or_default();
        let (right, asked) = seeds.entry(probe.seed).or_default();
        *right += probe.accuracy.unwrap_or(0.0) * answers;
        *asked += answers;
    }
    let mean = |row: usize, column: usize| {
        let seeds = sums.get(&(row, column))?;
        let all = seeds.values().map(|(right, asked)| right / asked);
        Some(all.sum::<f64>() / seeds.len() as f64)
    };
    let rows = 0..loads.values.len();
    rows.map(|row| {
        (0..distances.values.len())
            .map(|column| mean(row, column))
            .collect()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(seed: u64, distance: u64, accuracy: f64, answers: u64) -> Probe {
        Probe {
            seed,
            distance,
            load: 2,
            accuracy: Some(accuracy),
            answers: Some(answers),
            ..Probe::default()
        }
    }

    #[test]
    fn bins_are_powers_of_two_and_say_what_is_in_them() {
        let bins = Bins::of([1, 4, 5, 7, 8, 300].into_iter(), 0);
        assert_eq!(bins.names(), ["1", "4–7", "8", "300"]);
        assert_eq!((bins.at(5), bins.at(300), bins.at(9)), (Some(1), Some(3), None));
        assert!(!bins.are_exact());
        assert_eq!(Bins::of([2, 3].into_iter(), 8).names(), ["2", "3"]);
    }

    #[test]
    fn a_seed_is_weighed_by_answers_and_seeds_alike() {
        let all = [
            probe(1, 4, 1.0, 30),
            probe(1, 5, 0.0, 10),
            probe(2, 4, 0.25, 1000),
        ];
        let refs: Vec<&Probe> = all.iter().collect();
        let distances = Bins::of(all.iter().map(|p| p.distance), 0);
        let loads = Bins::of(all.iter().map(|p| p.load), MOST_LOADS);
        assert_eq!(cells(&refs, &distances, &loads), [[Some(0.5)]]);
    }
}
