//! One axis: what it measures, its range, and a value's way to a place.

use crate::ticks::{self, Tick};
use crate::units::Unit;

/// How values are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

impl Scale {
    /// The number that is proportional to the distance on paper.
    pub(crate) fn project(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    pub(crate) fn unproject(self, place: f64) -> f64 {
        match self {
            Scale::Linear => place,
            Scale::Log => 10f64.powf(place),
        }
    }
}

/// An axis that is ready to be drawn.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) scale: Scale,
    /// Projected ends, padding included.
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<Tick>,
}

impl Axis {
    /// A logarithmic axis around positive values.
    pub(crate) fn logarithmic(title: &str, unit: Unit, values: impl Iterator<Item = f64>) -> Self {
        let range = padded(Scale::Log, values, 0.07, 0.1);
        let ticks = ticks::logarithmic(Scale::Log.unproject(range.0), Scale::Log.unproject(range.1), unit);
        Self {
            title: title.to_owned(),
            unit,
            scale: Scale::Log,
            range,
            ticks,
        }
    }

    /// A horizontal axis whose ticks are the values measured, sorted and without repeats.
    pub(crate) fn at_values(title: &str, scale: Scale, unit: Unit, values: &[f64]) -> Self {
        let range = padded(scale, values.iter().copied(), 0.04, 1e-9);
        Self {
            title: title.to_owned(),
            unit,
            scale,
            range,
            ticks: ticks::at_values(values, unit),
        }
    }

    /// A linear axis around values, with round ticks.
    pub(crate) fn linear(title: &str, unit: Unit, values: impl Iterator<Item = f64>) -> Self {
        let range = padded(Scale::Linear, values, 0.02, 1e-9);
        Self {
            title: title.to_owned(),
            unit,
            scale: Scale::Linear,
            range,
            ticks: ticks::linear(range.0, range.1, unit),
        }
    }

    /// A linear axis with room for text around the values; `least` is the narrowest range they may have.
    pub(crate) fn around(title: &str, unit: Unit, values: impl Iterator<Item = f64>, least: f64) -> Self {
        let (low, high) = ends(Scale::Linear, values);
        let half = (high - low).max(least) / 2.0;
        let middle = f64::midpoint(low, high);
        let range = (middle - 1.2 * half, middle + 1.2 * half);
        Self {
            title: title.to_owned(),
            unit,
            scale: Scale::Linear,
            range,
            ticks: ticks::linear(range.0, range.1, unit),
        }
    }

    /// The values at both ends.
    pub(crate) fn reach(&self) -> [f64; 2] {
        [self.range.0, self.range.1].map(|place| self.scale.unproject(place))
    }

    /// A linear axis from zero.
    pub(crate) fn from_zero(title: &str, unit: Unit, high: f64) -> Self {
        let high = if high > 0.0 && high.is_finite() { high } else { 1.0 };
        let ticks = ticks::linear(0.0, high, unit);
        Self {
            title: title.to_owned(),
            unit,
            scale: Scale::Linear,
            range: (0.0, high),
            ticks,
        }
    }
}

/// The projected range of the values with a share of it added at both ends. One narrower than `least` is
/// widened: noise must not fill a panel.
fn padded(scale: Scale, values: impl Iterator<Item = f64>, share: f64, least: f64) -> (f64, f64) {
    let (mut low, mut high) = ends(scale, values);
    if high - low < least {
        let middle = f64::midpoint(low, high);
        let half = least.max(0.1) / 2.0;
        (low, high) = (middle - half, middle + half);
    }
    let pad = (high - low) * share;
    (low - pad, high + pad)
}

/// The least and the largest projected value; zero and one where there is none.
fn ends(scale: Scale, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for place in values.map(|value| scale.project(value)) {
        low = low.min(place);
        high = high.max(place);
    }
    if low > high { (0.0, 1.0) } else { (low, high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_holds_every_value() {
        let axis = Axis::logarithmic("time", Unit::Seconds, [1e-5, 3e-3].into_iter());
        assert!(axis.range.0 < -5.0 && axis.range.1 > (3e-3f64).log10());
    }

    #[test]
    fn equal_values_do_not_give_an_empty_range() {
        for scale in [Scale::Linear, Scale::Log] {
            let axis = Axis::at_values("n", scale, Unit::Integer, &[4.0]);
            assert!(axis.range.1 - axis.range.0 > 0.09);
        }
        assert!(Axis::logarithmic("n", Unit::Bytes, std::iter::empty()).range.1 > 0.0);
    }
}
