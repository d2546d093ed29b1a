//! Where an axis has ticks, and which of them are labelled.

use crate::font::{self, Weight};
use crate::style::TICK_SIZE;
use crate::units::{Unit, in_steps};

/// A place on an axis; one without a label is a minor tick.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    pub(crate) value: f64,
    pub(crate) label: Option<String>,
}

fn labelled(value: f64, unit: Unit) -> Tick {
    Tick {
        value,
        label: Some(unit.format(value, 3, true)),
    }
}

fn minor(value: f64) -> Tick {
    Tick { value, label: None }
}

/// Ticks of a logarithmic axis from `low` to `high` (both positive): powers of two for bytes, else of ten
/// with as many steps between as it takes to label three of them.
pub(crate) fn logarithmic(low: f64, high: f64, unit: Unit) -> Vec<Tick> {
    let ticks = if unit == Unit::Bytes {
        binary(low, high)
    } else {
        decimal(low, high, unit)
    };
    if ticks.iter().filter(|tick| tick.label.is_some()).count() >= 2 {
        ticks
    } else {
        linear(low, high, unit)
    }
}

fn decimal(low: f64, high: f64, unit: Unit) -> Vec<Tick> {
    let inside = |v: f64| v >= low * (1.0 - 1e-9) && v <= high * (1.0 + 1e-9);
    let decades = low.log10().floor() as i32..=high.log10().floor() as i32;
    let at = |decade: i32, digit: u32| {
        // Through text, so that the value is the nearest double to `5e-6` and not to a product.
        format!("{digit}e{decade}").parse::<f64>().unwrap_or(f64::NAN)
    };
    let major_digits: [&[u32]; 4] = [&[1], &[1, 3], &[1, 2, 5], &[1, 2, 3, 4, 5, 6, 8]];
    let count = |digits: &[u32]| {
        decades
            .clone()
            .flat_map(|d| digits.iter().map(move |m| at(d, *m)))
            .filter(|v| inside(*v))
            .count()
    };
    let majors = major_digits
        .into_iter()
        .find(|digits| count(digits) >= 3)
        .unwrap_or(major_digits[3]);
    // Ten decades at most a label each seven or so.
    let every = (count(majors) / 8 + 1) as i32;
    let mut ticks = Vec::new();
    for decade in decades {
        for digit in 1..=9 {
            let value = at(decade, digit);
            if !inside(value) {
                continue;
            }
            let is_major = majors.contains(&digit) && (majors.len() > 1 || decade.rem_euclid(every) == 0);
            if is_major {
                ticks.push(labelled(value, unit));
            } else if every == 1 || digit == 1 {
                ticks.push(minor(value));
            }
        }
    }
    ticks
}

fn binary(low: f64, high: f64) -> Vec<Tick> {
    let first = low.log2().floor() as i32;
    let last = high.log2().floor() as i32;
    // Five powers and ten meet the names of the units, three do not.
    let every = [1, 2, 5, 10, 20]
        .into_iter()
        .find(|step| (last - first) / step < 9)
        .unwrap_or(40);
    let halves = if last - first < 3 {
        &[1.0, 1.25, 1.5, 1.75][..]
    } else {
        &[1.0][..]
    };
    let mut ticks = Vec::new();
    for exponent in first..=last {
        for half in halves {
            let value = half * f64::from(exponent).exp2();
            if value < low * (1.0 - 1e-9) || value > high * (1.0 + 1e-9) {
                continue;
            }
            let is_major = exponent.rem_euclid(every) == 0 && (*half == 1.0 || *half == 1.5);
            ticks.push(if is_major {
                labelled(value, Unit::Bytes)
            } else {
                minor(value)
            });
        }
    }
    ticks
}

/// About six round ticks of a linear axis.
pub(crate) fn linear(low: f64, high: f64, unit: Unit) -> Vec<Tick> {
    let rough = (high - low).max(f64::MIN_POSITIVE) / 6.0;
    let mut step = if unit == Unit::Bytes {
        rough.log2().ceil().exp2()
    } else {
        let power = 10f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0]
            .into_iter()
            .map(|f| f * power)
            .find(|s| *s >= rough * 0.9)
            .unwrap_or(10.0 * power)
    };
    if unit == Unit::Integer {
        step = step.max(1.0).round();
    }
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let tick = |value: f64| match unit {
        Unit::Score => Some(in_steps(value, step)),
        Unit::Share => Some(format!("{}\u{a0}%", in_steps(100.0 * value, 100.0 * step))),
        _ => labelled(value, unit).label,
    };
    // No share is below none or above all, however far the axis reaches for its padding.
    let possible = |value: &f64| unit != Unit::Share || (-1e-9..=1.0 + 1e-9).contains(value);
    (first..=last.min(first.saturating_add(50)))
        .map(|i| i as f64 * step)
        .filter(possible)
        .map(|value| Tick {
            value,
            label: tick(value),
        })
        .collect()
}

/// A tick at each value that was measured.
pub(crate) fn at_values(values: &[f64], unit: Unit) -> Vec<Tick> {
    values.iter().map(|value| labelled(*value, unit)).collect()
}

/// Takes the labels away that would touch another one, the outermost ones last. `place` gives a tick's
/// position in pixels along a horizontal axis.
pub(crate) fn thin(ticks: &mut [Tick], place: impl Fn(f64) -> f64) {
    let span = |tick: &Tick| {
        let half = font::width(tick.label.as_deref().unwrap_or(""), TICK_SIZE, Weight::Regular) / 2.0 + 4.0;
        (place(tick.value) - half, place(tick.value) + half)
    };
    let n = ticks.len();
    // Last, first, then every power of two steps away from the last, coarse to fine.
    let mut order: Vec<usize> = vec![n.wrapping_sub(1), 0];
    let mut stride = n.next_power_of_two();
    while stride >= 1 {
        order.extend((0..n).rev().step_by(stride));
        stride /= 2;
    }
    let mut kept: Vec<(usize, (f64, f64))> = Vec::new();
    // A tick without a label needs no room.
    for at in order
        .into_iter()
        .filter(|at| *at < n && ticks[*at].label.is_some())
    {
        let (left, right) = span(&ticks[at]);
        let free = kept.iter().all(|(_, (l, r))| right <= *l || left >= *r);
        if free {
            kept.push((at, (left, right)));
        }
    }
    for (at, tick) in ticks.iter_mut().enumerate() {
        if kept.iter().all(|(other, _)| *other != at) {
            tick.label = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<String> {
        let plain = |label: &String| label.replace(['\u{a0}', '\u{2009}'], " ");
        ticks
            .iter()
            .filter_map(|tick| tick.label.as_ref().map(plain))
            .collect()
    }

    #[test]
    fn decades_are_labelled_and_their_steps_are_not() {
        let ticks = logarithmic(0.8e-5, 1.2e-3, Unit::Seconds);
        assert_eq!(labels(&ticks), ["10 µs", "100 µs", "1 ms"]);
        assert!(
            ticks
                .iter()
                .any(|tick| tick.label.is_none() && (tick.value - 2e-4).abs() < 1e-12)
        );
    }

    #[test]
    fn a_short_range_gets_labels_between_its_decades() {
        assert_eq!(
            labels(&logarithmic(0.9e-3, 6e-3, Unit::Seconds)),
            ["1 ms", "2 ms", "5 ms"]
        );
        assert_eq!(
            labels(&logarithmic(0.4e-3, 11e-3, Unit::Seconds)),
            ["1 ms", "3 ms", "10 ms"]
        );
        assert!(labels(&logarithmic(1.02e-3, 1.2e-3, Unit::Seconds)).len() >= 2);
        assert!(labels(&logarithmic(21.0, 29.0, Unit::PerSecond)).len() >= 2);
    }

    #[test]
    fn many_decades_are_thinned() {
        let ticks = logarithmic(1e-9, 1e9, Unit::Ratio);
        assert!((3..=9).contains(&labels(&ticks).len()), "{:?}", labels(&ticks));
    }

    #[test]
    fn bytes_are_powers_of_two() {
        let ticks = logarithmic(300.0 * 1024.0, 5.0 * 1024.0 * 1024.0, Unit::Bytes);
        assert_eq!(labels(&ticks), ["512 KiB", "1 MiB", "2 MiB", "4 MiB"]);
        let narrow = logarithmic(60.0 * 1024.0, 200.0 * 1024.0, Unit::Bytes);
        assert_eq!(labels(&narrow), ["64 KiB", "96 KiB", "128 KiB", "192 KiB"]);
        let wide = logarithmic(1024.0, 1024.0 * 1024.0 * 1024.0, Unit::Bytes);
        assert!(
            labels(&wide).len() <= 8 && labels(&wide).contains(&"1 MiB".to_owned()),
            "{:?}",
            labels(&wide)
        );
    }

    #[test]
    fn a_linear_axis_is_round() {
        assert_eq!(
            labels(&linear(0.0, 4.3, Unit::Ratio)),
            ["0×", "1×", "2×", "3×", "4×"]
        );
        assert_eq!(labels(&linear(1.0, 4.0, Unit::Integer)), ["1", "2", "3", "4"]);
        assert_eq!(
            labels(&linear(0.93, 1.03, Unit::Share)),
            ["94 %", "96 %", "98 %", "100 %"]
        );
        assert_eq!(
            labels(&linear(34.9, 35.12, Unit::Score)),
            ["34.90", "34.95", "35.00", "35.05", "35.10"]
        );
    }

    #[test]
    fn thinning_keeps_the_ends() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        let mut ticks = at_values(&values, Unit::Integer);
        thin(&mut ticks, |v| v * 6.0);
        let kept = labels(&ticks);
        assert!(
            kept.first().unwrap() == "1" && kept.last().unwrap() == "20" && kept.len() < 10,
            "{kept:?}"
        );
        let mut decades = logarithmic(0.5, 3e3, Unit::Intensity);
        thin(&mut decades, |v| v.log10() * 100.0);
        assert_eq!(
            labels(&decades),
            ["1", "10", "100", "1000"],
            "minor ticks take no room"
        );
        let mut few = at_values(&[512.0, 1024.0, 2048.0], Unit::Tokens);
        thin(&mut few, |v| v);
        assert_eq!(labels(&few), ["512", "1k", "2k"]);
    }
}
