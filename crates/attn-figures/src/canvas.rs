//! A thin layer over plotters' SVG backend: pixels with fractions, and text whose size is known.
//!
//! plotters counts in whole pixels, which shows on a curve. The drawing is therefore made ten times as large
//! and the finished document says, through its view box, that it is meant ten times smaller.

use crate::font::Weight;
use crate::marker::{self, Marker};
use crate::style::{FONT_FAMILY, Look};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Circle, Color, DrawingArea, FontStyle, IntoDrawingArea, PathElement, Polygon, RGBColor, Rectangle,
    SVGBackend, ShapeStyle, TextStyle, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Units of the drawing in a pixel.
const UNITS: f64 = 10.0;

/// What plotters says when it cannot draw.
pub(crate) type Drawn = Result<(), String>;

/// A plotters area whose coordinates are projected values.
pub(crate) type PlotArea<'a> = DrawingArea<SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

impl Rect {
    pub(crate) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(crate) fn overlaps(&self, other: &Rect) -> bool {
        let beside = self.right <= other.left || other.right <= self.left;
        !beside && self.bottom > other.top && other.bottom > self.top
    }
}

/// How a text is set; its position is the middle of its capitals, at the side given.
#[derive(Clone, Copy)]
pub(crate) struct Type {
    pub(crate) size: f64,
    pub(crate) weight: Weight,
    pub(crate) color: RGBColor,
    pub(crate) side: HPos,
}

impl Type {
    pub(crate) fn left(size: f64, color: RGBColor) -> Self {
        Self {
            size,
            weight: Weight::Regular,
            color,
            side: HPos::Left,
        }
    }

    pub(crate) fn right(size: f64, color: RGBColor) -> Self {
        Self {
            side: HPos::Right,
            ..Self::left(size, color)
        }
    }

    pub(crate) fn center(size: f64, color: RGBColor) -> Self {
        Self {
            side: HPos::Center,
            ..Self::left(size, color)
        }
    }

    pub(crate) fn bold(self) -> Self {
        Self {
            weight: Weight::Bold,
            ..self
        }
    }
}

pub(crate) struct Canvas<'a> {
    root: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Draws on a white page of the given size and returns the SVG document.
pub(crate) fn document(
    size: (f64, f64),
    title: &str,
    draw: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Result<String, String> {
    let units = ((size.0 * UNITS).round() as u32, (size.1 * UNITS).round() as u32);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, units).into_drawing_area();
        root.fill(&WHITE).map_err(|e| e.to_string())?;
        let canvas = Canvas { root };
        draw(&canvas)?;
        canvas.root.present().map_err(|e| e.to_string())?;
    }
    let shown = (f64::from(units.0) / UNITS, f64::from(units.1) / UNITS);
    let from = format!("width=\"{}\" height=\"{}\" ", units.0, units.1);
    let to = format!("width=\"{}\" height=\"{}\" role=\"img\" ", shown.0, shown.1);
    let svg = svg.replacen(&from, &to, 1);
    let Some(head) = svg.find('>') else {
        return Err("the document has no root".to_owned());
    };
    let (head, rest) = svg.split_at(head + 1);
    Ok(format!(
        "{head}\n<title>{}</title>{rest}",
        escaped(&printable(title))
    ))
}

impl<'a> Canvas<'a> {
    pub(crate) fn text(&self, text: &str, (x, y): (f64, f64), kind: Type) -> Drawn {
        if text.is_empty() {
            return Ok(());
        }
        // plotters puts the baseline a quarter of an em below; capitals are 0.71 em high.
        let style = self.style(kind);
        self.put_text(text, (x, y + 0.105 * kind.size), &style)
    }

    /// Text that reads upwards, centred at a point.
    pub(crate) fn text_upwards(&self, text: &str, (x, y): (f64, f64), kind: Type) -> Drawn {
        let style = self.style(kind);
        let style = style.transform(plotters::style::FontTransform::Rotate270);
        self.put_text(text, (x + 0.105 * kind.size, y), &style)
    }

    fn style(&self, kind: Type) -> TextStyle<'static> {
        let weight = match kind.weight {
            Weight::Regular => FontStyle::Normal,
            Weight::Bold => FontStyle::Bold,
        };
        // The backend divides by 1.24, its guess of the line height.
        let wanted = kind.size * UNITS;
        let size = wanted * 1.24;
        // To the last bit, so that the document says 120 and not 120.00000000000001.
        let sizes = [size, size.next_down(), size.next_up()];
        let size = sizes
            .into_iter()
            .find(|size| size / 1.24 == wanted)
            .unwrap_or(size);
        let font = (FONT_FAMILY, size, weight);
        let style = TextStyle::from(font).pos(Pos::new(kind.side, VPos::Center));
        TextStyle {
            color: kind.color.to_backend_color(),
            ..style
        }
    }

    fn put_text(&self, text: &str, at: (f64, f64), style: &TextStyle<'_>) -> Drawn {
        self.root
            .draw_text(&printable(text), style, units(at))
            .map_err(|e| e.to_string())
    }

    pub(crate) fn line(&self, points: &[(f64, f64)], color: RGBColor, width: f64) -> Drawn {
        let path: Vec<_> = points.iter().map(|p| units(*p)).collect();
        self.root
            .draw(&PathElement::new(path, stroke(color, width)))
            .map_err(|e| e.to_string())
    }

    pub(crate) fn fill(&self, rect: Rect, color: RGBColor) -> Drawn {
        let corners = [units((rect.left, rect.top)), units((rect.right, rect.bottom))];
        let style = ShapeStyle {
            color: color.into(),
            filled: true,
            stroke_width: 0,
        };
        self.root
            .draw(&Rectangle::new(corners, style))
            .map_err(|e| e.to_string())
    }

    /// A rectangle of which only the border is seen; the border lies inside.
    pub(crate) fn outline(&self, rect: Rect, color: RGBColor, width: f64) -> Drawn {
        let half = width / 2.0;
        let (l, t) = (rect.left + half, rect.top + half);
        let (r, b) = (rect.right - half, rect.bottom - half);
        self.line(&[(l, t), (r, t), (r, b), (l, b), (l, t - half)], color, width)
    }

    /// A point of a series; hollow where the measurement is not clean.
    pub(crate) fn marker(&self, (x, y): (f64, f64), look: Look, hollow: bool) -> Drawn {
        let fill = ShapeStyle {
            color: if hollow { WHITE.into() } else { look.color.into() },
            filled: true,
            stroke_width: 0,
        };
        let rim = stroke(
            if hollow { look.color } else { WHITE },
            if hollow { 1.6 } else { 0.8 },
        );
        if look.marker == Marker::Circle {
            let radius = (4.0 * UNITS) as i32;
            self.root
                .draw(&Circle::new(units((x, y)), radius, fill))
                .map_err(|e| e.to_string())?;
            return self
                .root
                .draw(&Circle::new(units((x, y)), radius, rim))
                .map_err(|e| e.to_string());
        }
        let mut corners: Vec<_> = marker::corners(look.marker)
            .into_iter()
            .map(|(dx, dy)| units((x + dx, y + dy)))
            .collect();
        self.root
            .draw(&Polygon::new(corners.clone(), fill))
            .map_err(|e| e.to_string())?;
        // Around past the first corner, so that it is mitred like the others.
        corners.extend_from_within(..2);
        self.root
            .draw(&PathElement::new(corners, rim))
            .map_err(|e| e.to_string())
    }

    /// A small faint point.
    pub(crate) fn dot(&self, at: (f64, f64), color: RGBColor) -> Drawn {
        let style = ShapeStyle {
            color: color.mix(0.45),
            filled: true,
            stroke_width: 0,
        };
        let radius = (1.9 * UNITS) as i32;
        self.root
            .draw(&Circle::new(units(at), radius, style))
            .map_err(|e| e.to_string())
    }

    /// plotters' own coordinates on a part of the page.
    pub(crate) fn plot(&self, rect: Rect, x: (f64, f64), y: (f64, f64)) -> PlotArea<'a> {
        let (left, top) = units((rect.left, rect.top));
        let (right, bottom) = units((rect.right, rect.bottom));
        self.root
            .apply_coord_spec(Cartesian2d::new(x.0..x.1, y.0..y.1, (left..right, bottom..top)))
    }
}

/// A point of a plot in pixels of the page.
pub(crate) fn pixel(area: &PlotArea<'_>, point: (f64, f64)) -> (f64, f64) {
    let (x, y) = area.map_coordinate(&point);
    (f64::from(x) / UNITS, f64::from(y) / UNITS)
}

/// A line of the given width in pixels.
pub(crate) fn stroke(color: RGBColor, width: f64) -> ShapeStyle {
    ShapeStyle {
        color: color.into(),
        filled: false,
        stroke_width: (width * UNITS).round() as u32,
    }
}

fn units((x, y): (f64, f64)) -> (i32, i32) {
    ((x * UNITS).round() as i32, (y * UNITS).round() as i32)
}

/// Without what XML forbids or what would move text around: control characters and direction overrides.
fn printable(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' | '\t' | '\r' => Some(' '),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        '\u{fffe}' | '\u{ffff}' => None,
        c if c.is_control() => None,
        c => Some(c),
    };
    text.chars().filter_map(visible).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
