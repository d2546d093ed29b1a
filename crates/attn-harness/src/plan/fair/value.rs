//! The free value of a point: what it may be, which one is nearest to a target, and the point with it.

use attn_core::{Geometry, ParamKind, ParamValue};

use super::super::variants::{MAX_HEADS, MAX_SIZE, VariantPoint};

/// The integer in `first..=last` whose amount is nearest to `target`, the smaller of two equally near. `amount` does
/// not fall, and is `None` for values that make no layer.
pub(super) fn nearest_value(
    first: u64,
    last: u64,
    target: f64,
    amount: &mut impl FnMut(u64) -> Option<f64>,
) -> Option<u64> {
    // The smallest value from which on the next layer has more than the target.
    let (mut low, mut high) = (first, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let beyond = (middle..=last).find_map(&mut *amount).is_none_or(|a| a > target);
        if beyond {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let above = (low..=last).find(|&value| amount(value).is_some());
    let below = (first..low).rev().find(|&value| amount(value).is_some());
    let distance = |value: &u64, amount: &mut dyn FnMut(u64) -> Option<f64>| {
        amount(*value).map_or(f64::INFINITY, |a| (a - target).abs())
    };
    match (below, above) {
        (Some(below), Some(above)) => {
            let (to_below, to_above) = (distance(&below, amount), distance(&above, amount));
            Some(if to_below <= to_above { below } else { above })
        }
        (one, other) => one.or(other),
    }
}

/// The smallest and the largest value to try.
pub(super) fn range(point: &VariantPoint, name: &str) -> (u64, u64) {
    let sizes = [point.dims.d_model, point.dims.n_heads, point.dims.head_dim];
    let largest = sizes.into_iter().max().unwrap_or(1) as u64;
    match point.variant.param(name).map(|spec| spec.kind) {
        // A setting far beyond all sizes of the model is none that a layer would have.
        Ok(ParamKind::Int { min }) => (min, MAX_SIZE.min(16 * largest)),
        _ if name == "d_model" => (1, MAX_SIZE),
        _ => (1, MAX_HEADS.min(16 * largest)),
    }
}

/// A point with another value of what is free; its label names it.
pub(super) fn with_value(point: &VariantPoint, name: &'static str, value: u64) -> VariantPoint {
    let mut point = point.clone();
    set(&mut point, name, value);
    if let Ok(config) = point.variant.configure(&point.dims, &point.given) {
        point.geometry = config.geometry();
    }
    point.params = point.variant.complete(&point.dims, &point.given);
    let symbol = match (name, point.variant.param(name)) {
        ("n_heads", _) => "H",
        ("head_dim", _) => "D",
        ("d_model", _) => "M",
        (_, Ok(spec)) if !spec.symbol.is_empty() => spec.symbol,
        _ => name,
    };
    let shown = format!(" {symbol}={value}");
    // A symbol stands in every label, with the value that was there before.
    let others: Vec<&str> = point
        .label
        .split(' ')
        .filter(|word| !word.starts_with(&format!("{symbol}=")))
        .collect();
    point.label = others.join(" ") + &shown;
    point
}

fn set(point: &mut VariantPoint, name: &str, value: u64) {
    match name {
        "n_heads" => point.dims.n_heads = value as usize,
        "head_dim" => point.dims.head_dim = value as usize,
        "d_model" => point.dims.d_model = value as usize,
        setting => {
            point.given.0.insert(setting.to_string(), ParamValue::Int(value));
        }
    }
}

/// The sizes of a point with another value of what is free; `None` where it makes no layer.
pub(super) fn geometry_with(point: &VariantPoint, name: &str, value: u64) -> Option<Geometry> {
    let mut point = point.clone();
    set(&mut point, name, value);
    let config = point.variant.configure(&point.dims, &point.given).ok()?;
    Some(config.geometry())
}

#[cfg(test)]
mod tests {
    use super::nearest_value;

    #[test]
    fn the_nearest_value_is_that_of_trying_all() {
        for step in [1, 3, 4, 7] {
            for slope in [1.0, 2.5] {
                let of = |value: u64| {
                    (value % step == 0 && value > 0).then_some(10.0 + slope * (value / 3) as f64)
                };
                for target in (0..150).map(f64::from) {
                    let all = (0..=40).filter_map(|value| Some((value, (of(value)? - target).abs())));
                    let least = all.clone().map(|(_, d)| d).fold(f64::INFINITY, f64::min);
                    let got = nearest_value(0, 40, target, &mut |value| of(value)).unwrap();
                    let distance = (of(got).unwrap() - target).abs();
                    assert_eq!(
                        distance, least,
                        "step {step} slope {slope} target {target} got {got}"
                    );
                }
            }
        }
        assert_eq!(nearest_value(1, 9, 5.0, &mut |_| None), None);
    }
}
