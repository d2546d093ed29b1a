//! From rows to measured values: what the figures share.

use crate::frame::Row;
use crate::sheet::{Grade, Measured};
use crate::style::series_key;
use std::collections::{BTreeMap, BTreeSet};

/// Said once on every figure of times.
pub(super) const INTERVAL: &str = "median, bars: 95\u{a0}% bootstrap interval";

pub(super) fn is_decode(row: &Row) -> bool {
    is_of(row, "decode")
}

/// Whether the row is of this workload, for a layer or an operation.
pub(super) fn is_of(row: &Row, workload: &str) -> bool {
    row.workload == workload && !row.is_model()
}

/// What everything is compared with.
pub(crate) fn is_baseline(row: &Row) -> bool {
    row.variant == "mha"
}

/// Seconds of a sample.
pub(crate) fn time(row: &Row) -> Option<Measured> {
    let value = positive(row.time_median_s)?;
    let interval = positive(row.time_ci_low_s).zip(positive(row.time_ci_high_s));
    let interval = interval.filter(|(low, high)| *low <= value && value <= *high);
    Some(Measured {
        value,
        interval,
        grade: Grade::of(row),
    })
}

/// Tokens per second; the interval is that of the time, turned over.
pub(super) fn throughput(row: &Row) -> Option<Measured> {
    let value = positive(row.tokens_per_s)?;
    let time = time(row);
    let interval = time.and_then(|time| {
        let (low, high) = time.interval?;
        Some((value * time.value / high, value * time.value / low))
    });
    Some(Measured {
        value,
        interval,
        grade: Grade::of(row),
    })
}

/// Cache bytes: a closed form, so it has no interval and nothing weakens it.
pub(crate) fn cache(row: &Row) -> Option<Measured> {
    Some(Measured {
        value: positive(row.kv_bytes)?,
        interval: None,
        grade: Grade::Clean,
    })
}

/// How many times `base` is larger than `other`. The interval is the quotient of the interval's ends, which
/// is at least as wide as the one of the quotient.
pub(crate) fn quotient(base: Measured, other: Measured) -> Measured {
    let interval = base
        .interval
        .zip(other.interval)
        .map(|(b, o)| (b.0 / o.1, b.1 / o.0));
    Measured {
        value: base.value / other.value,
        interval,
        grade: base.grade.max(other.grade),
    }
}

pub(crate) fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite() && *v > 0.0)
}

/// The sorted values a field takes.
pub(super) fn values(rows: &[&Row], field: fn(&Row) -> Option<u64>) -> Vec<u64> {
    rows.iter()
        .filter_map(|row| field(row))
        .collect::<BTreeSet<u64>>()
        .into_iter()
        .collect()
}

/// Keeps the last row of each series and place, and counts the ones it replaced by another value.
pub(crate) fn latest<'a, K: Ord>(
    rows: &[&'a Row],
    place: impl Fn(&Row) -> K,
    value: fn(&Row) -> Option<Measured>,
) -> (Vec<&'a Row>, usize) {
    let mut last: BTreeMap<_, &'a Row> = BTreeMap::new();
    let mut n_replaced = 0;
    for row in rows {
        if let Some(earlier) = last.insert((series_key(row), place(row)), row)
            && value(earlier) != value(row)
        {
            n_replaced += 1;
        }
    }
    (last.into_values().collect(), n_replaced)
}

/// What the caption says about replaced rows.
pub(super) fn replaced_note(n_replaced: usize) -> Option<String> {
    let points = if n_replaced == 1 {
        "point was"
    } else {
        "points were"
    };
    (n_replaced > 0).then(|| format!("{n_replaced} {points} measured again, the last is drawn"))
}

/// At most four values to give a panel each: all, or the smallest, the middle and the largest.
pub(super) fn choose(values: &[u64]) -> Vec<u64> {
    match values {
        [first, .., last] if values.len() > 4 => vec![*first, values[values.len() / 2], *last],
        _ => values.to_vec(),
    }
}

/// `1, 4 and 16`.
pub(crate) fn listed(values: &[String]) -> String {
    match values {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Where a compressed cache is larger than one that is not compressed in time, the figure says so: a reader
/// would take the opposite for granted. At the shortest context, where a window holds as much as others do.
pub(super) fn larger_than_rivals(rows: &[&Row]) -> Option<String> {
    let size = |row: &&Row| cache(row).map(|c| c.value);
    let shortest = rows.iter().filter_map(|row| row.context).min();
    let there = rows.iter().copied().filter(|row| row.context == shortest);
    let (merged, others): (Vec<&Row>, Vec<&Row>) =
        there.partition(|row| row.stride.is_some_and(|stride| stride > 1));
    let smallest = others
        .iter()
        .filter(|row| size(row).is_some())
        .min_by(|a, b| size(a).partial_cmp(&size(b)).unwrap_or(std::cmp::Ordering::Equal))?;
    let mut larger: Vec<&Row> = merged
        .into_iter()
        .filter(|row| size(row) > size(smallest))
        .collect();
    larger.sort_by_key(|row| (row.stride, row.label.clone()));
    larger.dedup_by_key(|row| &row.label);
    let name = |row: &Row| row.label.replace(' ', "\u{a0}");
    let names: Vec<String> = larger.iter().map(|row| name(row)).collect();
    let verb = if names.len() == 1 { "has" } else { "have" };
    (!names.is_empty()).then(|| {
        format!(
            "{} {verb} a larger cache than {} at this geometry",
            listed(&names),
            name(smallest)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_is_never_surer_than_its_parts() {
        let base = Measured {
            value: 4.0,
            interval: Some((3.8, 4.2)),
            grade: Grade::Clean,
        };
        let other = Measured {
            value: 2.0,
            interval: Some((1.9, 2.1)),
            grade: Grade::Shared,
        };
        let q = quotient(base, other);
        assert_eq!(q.value, 2.0);
        assert_eq!(q.interval, Some((3.8 / 2.1, 4.2 / 1.9)));
        assert_eq!(q.grade, Grade::Shared);
    }

    #[test]
    fn impossible_numbers_are_no_values() {
        let row = |t: f64| Row {
            time_median_s: Some(t),
            ..Row::default()
        };
        for t in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert_eq!(time(&row(t)), None);
        }
        let odd = Row {
            time_ci_low_s: Some(2.0),
            time_ci_high_s: Some(3.0),
            ..row(1.0)
        };
        assert_eq!(time(&odd).unwrap().interval, None);
    }

    #[test]
    fn many_values_leave_the_smallest_the_middle_and_the_largest() {
        assert_eq!(choose(&[1, 2, 4, 8]), [1, 2, 4, 8]);
        assert_eq!(choose(&[1, 2, 4, 8, 16, 32]), [1, 8, 32]);
    }

    #[test]
    fn a_repeated_point_is_counted_unless_it_says_the_same() {
        let row = |t: f64| Row {
            time_median_s: Some(t),
            ..Row::default()
        };
        let rows = [row(1.0), row(2.0), row(2.0)];
        let refs: Vec<&Row> = rows.iter().collect();
        let (kept, n_replaced) = latest(&refs, |_| 0, time);
        assert_eq!((kept.len(), kept[0].time_median_s, n_replaced), (1, Some(2.0), 1));
    }

    #[test]
    fn a_compressed_cache_that_is_larger_is_named() {
        let row = |label: &str, stride: Option<u64>, context: u64, bytes: f64| Row {
            label: label.into(),
            stride,
            context: Some(context),
            kv_bytes: Some(bytes),
            ..Row::default()
        };
        let rows = [
            row("MQA", None, 512, 128.0),
            row("MTLA s=2", Some(2), 512, 144.0),
            row("MTLA s=2", Some(2), 512, 144.0), // in another scope
            row("MTLA s=3", Some(3), 512, 96.0),
            row("SWA W=512", None, 512, 256.0),
            // Longer than the window, where any cache would be larger.
            row("SWA W=512", None, 8192, 256.0),
            row("MTLA s=3", Some(3), 8192, 1536.0),
        ];
        let refs: Vec<&Row> = rows.iter().collect();
        let note = larger_than_rivals(&refs).unwrap();
        assert_eq!(note, "MTLA\u{a0}s=2 has a larger cache than MQA at this geometry");
        assert_eq!(larger_than_rivals(&refs[..1]), None);
    }
}
