//! The shapes of points.

/// The shape of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Marker {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Left,
    Right,
    Pentagon,
    Hexagon,
    Star,
}

/// The corners of a marker around its centre, in pixels; areas are about that of the circle.
pub(crate) fn corners(marker: Marker) -> Vec<(f64, f64)> {
    let regular = |corners: u32, radius: f64, turn: f64| -> Vec<(f64, f64)> {
        let angle = |i: u32| (f64::from(i) / f64::from(corners) + turn) * std::f64::consts::TAU;
        (0..corners)
            .map(|i| (radius * angle(i).sin(), -radius * angle(i).cos()))
            .collect()
    };
    match marker {
        Marker::Circle => regular(24, 4.0, 0.0),
        Marker::Square => regular(4, 5.0, 0.125),
        Marker::Diamond => regular(4, 5.4, 0.0),
        Marker::Up => regular(3, 5.6, 0.0),
        Marker::Down => regular(3, 5.6, 0.5),
        Marker::Left => regular(3, 5.6, 0.75),
        Marker::Right => regular(3, 5.6, 0.25),
        Marker::Pentagon => regular(5, 4.8, 0.0),
        Marker::Hexagon => regular(6, 4.6, 0.0),
        Marker::Star => {
            let tips = regular(5, 6.0, 0.0);
            let dents = regular(5, 2.8, 0.1);
            tips.into_iter()
                .zip(dents)
                .flat_map(|(tip, dent)| [tip, dent])
                .collect()
        }
    }
}
