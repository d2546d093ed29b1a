//! The names of single points beside them, where they cover neither each other nor the points.

use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel};
use crate::font::{self, Weight};
use crate::lines::{self, DOTS_LEFT};
use crate::sheet::{LinePanel, Series, Shape};
use crate::style::{LEADER, TICK_SIZE};

const HEIGHT: f64 = TICK_SIZE + 3.0;
const LONGEST: f64 = 150.0;
/// From the middle of a marker to a name right beside it.
const CLOSE: f64 = 8.0;
/// How much further away a name may be, tied by a thin line.
const FURTHER: [f64; 6] = [0.0, 10.0, 20.0, 34.0, 50.0, 70.0];
/// How bad it is to cover a square pixel of a name or marker, of a line, and of a dot.
const HARD: f64 = 10.0;
const SOFT: f64 = 2.5;
const FAINT: f64 = 3.0;
/// Times that every name may move once the others have their places.
const ROUNDS: usize = 4;

/// A name and the point it is for, in pixels.
struct Tag {
    name: String,
    kind: Type,
    point: (f64, f64),
    width: f64,
}

/// Names the tagged points of a panel.
pub(crate) fn draw(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &LinePanel, plot: Rect) -> Drawn {
    let longest = LONGEST.min(0.55 * plot.width());
    let tagged = || panel.series.iter().filter(|series| series.shape == Shape::Tagged);
    let tag = |series: &Series| {
        let name = font::fit(&series.label, TICK_SIZE, Weight::Regular, longest);
        let width = font::width(&name, TICK_SIZE, Weight::Regular);
        Some(Tag {
            name,
            kind: Type::left(TICK_SIZE, series.look.ink()),
            point: pixel(area, lines::project(panel, series.points.first()?)),
            width,
        })
    };
    let tags: Vec<Tag> = tagged().filter_map(tag).collect();
    let places = arrange(&tags, &obstacles(area, panel), plot);
    for (tag, place) in tags.iter().zip(&places) {
        let (x, y) = tag.point;
        let end = (
            x.clamp(place.left, place.right),
            y.clamp(place.top + 2.0, place.bottom - 2.0),
        );
        let length = (end.0 - x).hypot(end.1 - y);
        if length > CLOSE + 4.0 {
            let share = 6.0 / length;
            let start = (x + (end.0 - x) * share, y + (end.1 - y) * share);
            canvas.line(&[start, end], LEADER, 0.8)?;
        }
    }
    for (tag, place) in tags.iter().zip(&places) {
        let at = (place.left, f64::midpoint(place.top, place.bottom));
        canvas.text(&tag.name, at, tag.kind)?;
    }
    Ok(())
}

/// What names should not cover, and how bad it is where they do.
fn obstacles(area: &PlotArea<'_>, panel: &LinePanel) -> Vec<(Rect, f64)> {
    let around = |(x, y): (f64, f64), half: f64| Rect {
        left: x - half,
        right: x + half,
        top: y - half,
        bottom: y + half,
    };
    let mut all = Vec::new();
    for series in &panel.series {
        let places = series
            .points
            .iter()
            .map(|point| pixel(area, lines::project(panel, point)));
        match series.shape {
            Shape::Dots => all.extend(places.map(|(x, y)| (around((x - DOTS_LEFT, y), 2.0), FAINT))),
            shape if shape.is_marked() => {
                all.extend(places.map(|place| (around(place, 6.0), HARD)));
                for point in &series.points {
                    let (x, y) = pixel(area, lines::project(panel, point));
                    let [bottom, top] = point.y.ends().map(|end| {
                        pixel(area, (panel.x.scale.project(point.x), panel.y.scale.project(end))).1
                    });
                    let bar = Rect {
                        left: x - 3.5,
                        right: x + 3.5,
                        top,
                        bottom,
                    };
                    all.push((bar, 0.5 * HARD));
                    let (from, to) = point.x_interval.unwrap_or((point.x, point.x));
                    let [left, right] =
                        [from, to].map(|end| pixel(area, (panel.x.scale.project(end), panel.y.range.0)).0);
                    let bar = Rect {
                        left,
                        right,
                        top: y - 3.5,
                        bottom: y + 3.5,
                    };
                    all.push((bar, 0.5 * HARD));
                }
            }
            _ => {
                let path: Vec<(f64, f64)> = lines::path(panel, series)
                    .into_iter()
                    .map(|place| pixel(area, place))
                    .collect();
                // Lines of these panels run along or upwards.
                all.extend(path.windows(2).map(|pair| {
                    let (a, b) = (pair[0], pair[1]);
                    let piece = Rect {
                        left: a.0.min(b.0) - 1.0,
                        right: a.0.max(b.0) + 1.0,
                        top: a.1.min(b.1) - 1.0,
                        bottom: a.1.max(b.1) + 1.0,
                    };
                    (piece, SOFT)
                }));
            }
        }
    }
    all
}

/// The best places for all names that looking at one after the other finds.
fn arrange(tags: &[Tag], obstacles: &[(Rect, f64)], plot: Rect) -> Vec<Rect> {
    let mut places: Vec<Option<Rect>> = vec![None; tags.len()];
    for _ in 0..ROUNDS {
        for (at, tag) in tags.iter().enumerate() {
            let others = || places.iter().enumerate().filter(move |(other, _)| *other != at);
            let cost = |place: &Rect, far: f64| {
                let covered = obstacles
                    .iter()
                    .map(|(rect, weight)| weight * shared(place, rect));
                let names = others().filter_map(|(_, rect)| rect.as_ref());
                let names = names.map(|rect| HARD * shared(place, rect));
                let outside = place.width() * HEIGHT - shared(place, &plot);
                covered.sum::<f64>() + names.sum::<f64>() + 100.0 * outside + 1.2 * far
            };
            let best = candidates(tag)
                .into_iter()
                .map(|(place, far)| (cost(&place, far), place))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            places[at] = best.map(|(_, place)| place);
        }
    }
    places.into_iter().flatten().collect()
}

/// Places around a point, the best first, and how far they are from the best one.
fn candidates(tag: &Tag) -> Vec<(Rect, f64)> {
    let (x, y) = tag.point;
    let mut all = Vec::new();
    for further in FURTHER {
        let out = CLOSE + further;
        let slant = 0.8 * out;
        let (right, left) = (x + out, x - out - tag.width);
        let middle = x - tag.width / 2.0;
        let (above, below) = (y - out - HEIGHT / 2.0, y + out + HEIGHT / 2.0);
        let corners = [
            (right, y),
            (x + slant, y - slant - 2.0),
            (x + slant, y + slant + 2.0),
            (left, y),
            (middle, above),
            (middle, below),
            (x - slant - tag.width, y - slant - 2.0),
            (x - slant - tag.width, y + slant + 2.0),
        ];
        all.extend(corners.into_iter().enumerate().map(|(order, (left, middle))| {
            let place = Rect {
                left,
                right: left + tag.width,
                top: middle - HEIGHT / 2.0,
                bottom: middle + HEIGHT / 2.0,
            };
            (place, further + order as f64)
        }));
    }
    all
}

/// The area that two rectangles have in common.
fn shared(a: &Rect, b: &Rect) -> f64 {
    let along = (a.right.min(b.right) - a.left.max(b.left)).max(0.0);
    let down = (a.bottom.min(b.bottom) - a.top.max(b.top)).max(0.0);
    along * down
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::INK;

    const PLOT: Rect = Rect {
        left: 0.0,
        right: 300.0,
        top: 0.0,
        bottom: 200.0,
    };

    fn arranged(points: &[(f64, f64)]) -> Vec<Rect> {
        let tag = |point: &(f64, f64)| Tag {
            name: String::new(),
            kind: Type::left(TICK_SIZE, INK),
            point: *point,
            width: 60.0,
        };
        let tags: Vec<Tag> = points.iter().map(tag).collect();
        let markers = points.iter().map(|(x, y)| Rect {
            left: x - 6.0,
            right: x + 6.0,
            top: y - 6.0,
            bottom: y + 6.0,
        });
        let obstacles: Vec<(Rect, f64)> = markers.map(|rect| (rect, HARD)).collect();
        arrange(&tags, &obstacles, PLOT)
    }

    #[test]
    fn a_name_alone_stands_to_the_right_and_at_the_border_to_the_left() {
        let places = arranged(&[(100.0, 100.0), (280.0, 50.0)]);
        assert_eq!(places[0].left, 108.0);
        assert_eq!(places[1].right, 272.0);
    }

    #[test]
    fn names_in_a_crowd_cover_neither_each_other_nor_a_point() {
        let points: Vec<(f64, f64)> = (0..8)
            .map(|i| (150.0 + 5.0 * f64::from(i % 3), 90.0 + 4.0 * f64::from(i)))
            .collect();
        let places = arranged(&points);
        for (at, place) in places.iter().enumerate() {
            assert!(
                places[..at].iter().all(|other| shared(place, other) < 1e-9),
                "{places:?}"
            );
            assert!(points.iter().all(
                |(x, y)| !(place.left..place.right).contains(x) || !(place.top..place.bottom).contains(y)
            ));
            assert!(place.left >= 0.0 && place.right <= 300.0);
        }
    }
}
