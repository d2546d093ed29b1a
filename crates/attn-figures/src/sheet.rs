//! What a figure shows, before anyone thinks of pixels. Figures build sheets; [`page`](crate::page) draws them.

use crate::axis::Axis;
use crate::style::Look;

/// A figure's content.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// Used where the sweep asks no question.
    pub(crate) title: String,
    /// What is drawn, with units and choices.
    pub(crate) subtitle: String,
    /// Sentences for the caption, after the provenance.
    pub(crate) notes: Vec<String>,
    /// What is missing or weak among the places drawn.
    pub(crate) reservations: Vec<String>,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Lines(Vec<LinePanel>),
    Bars(Vec<BarPanel>),
}

/// Curves over one pair of axes.
#[derive(Debug)]
pub(crate) struct LinePanel {
    pub(crate) title: Option<String>,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Whether the axis on the left is that of the panel before this one, and need not be written again.
    pub(crate) same_y_as_previous: bool,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) look: Look,
    pub(crate) points: Vec<Point>,
    /// Whether this is one value for comparison, drawn as a dashed line across the panel.
    pub(crate) is_reference: bool,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) clean: bool,
}

impl Measured {
    /// What an axis must reach.
    pub(crate) fn ends(self) -> [f64; 2] {
        let (low, high) = self.interval.unwrap_or((self.value, self.value));
        [low.min(self.value), high.max(self.value)]
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: Measured,
    /// Its own look where a curve runs through several series.
    pub(crate) look: Option<Look>,
}

/// Horizontal bars from zero.
#[derive(Debug)]
pub(crate) struct BarPanel {
    pub(crate) title: String,
    pub(crate) axis_title: String,
    pub(crate) unit: crate::units::Unit,
    /// A value that divides better from worse, drawn as a line.
    pub(crate) divide: Option<f64>,
    pub(crate) bars: Vec<Bar>,
}

#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) look: Look,
    /// `None` where the case has no result.
    pub(crate) value: Option<Measured>,
    /// What is written at the bar's end.
    pub(crate) text: String,
}
