//! What a figure shows, before anyone thinks of pixels. Figures build sheets; [`page`](crate::page) draws them.

use crate::axis::Axis;
use crate::frame::Row;
use crate::style::Look;
use crate::units::Unit;
use plotters::style::RGBColor;

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
    Grid(Grid),
    Bars(Vec<BarPanel>),
    Tables(Vec<Table>),
    Stacks(Stacks),
    Waterfalls(Waterfalls),
    Fits(Vec<Fit>),
    Blocks(Vec<BlockPanel>),
    Heats(Heats),
}

/// Small panels in rows, each with axes of its own.
#[derive(Debug)]
pub(crate) struct Grid {
    pub(crate) panels: Vec<LinePanel>,
    /// Whether curves are named at their ends, in every panel; otherwise there is a legend.
    pub(crate) is_named: bool,
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
    pub(crate) shape: Shape,
}

impl Series {
    /// Whether this is one value for comparison, drawn as a dashed line across the panel.
    pub(crate) fn is_reference(&self) -> bool {
        matches!(self.shape, Shape::Reference | Shape::Level)
    }
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Markers with their intervals, joined by a line.
    Curve,
    /// Markers with their intervals, because nothing lies between them.
    Scatter,
    /// A line in a band of its intervals, for points too many for markers.
    Band,
    /// A line that keeps its value until the next point.
    Steps,
    /// What cannot be exceeded, or what others are held against: a line without markers.
    Limit,
    /// The same, dashed.
    Dashed,
    /// One value for comparison, dashed across the panel.
    Reference,
    /// The same in a band of its interval.
    Level,
    /// Markers with their intervals and the series' name beside them.
    Tagged,
    /// Small faint dots behind everything else.
    Dots,
}

impl Shape {
    /// Whether its points have markers with intervals.
    pub(crate) fn is_marked(self) -> bool {
        matches!(self, Self::Curve | Self::Scatter | Self::Tagged)
    }
}

/// What weakens a value, from the lightest to the gravest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    Clean,
    Shared,
    Unconverged,
    Throttled,
    Fallback,
    /// A word this crate has never heard of.
    Other,
}

impl Grade {
    pub(crate) fn of(row: &Row) -> Self {
        match row.trust.as_deref() {
            _ if row.is_clean() => Self::Clean,
            Some("shared") => Self::Shared,
            Some("unconverged") => Self::Unconverged,
            Some("throttled") => Self::Throttled,
            Some("fallback") => Self::Fallback,
            _ => Self::Other,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Shared => "shared",
            Self::Unconverged => "unconverged",
            Self::Throttled => "throttled",
            Self::Fallback => "fallback",
            Self::Other => "other",
        }
    }
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) grade: Grade,
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
    /// Of x, where that was measured too.
    pub(crate) x_interval: Option<(f64, f64)>,
    pub(crate) y: Measured,
    /// Its own look where a curve runs through several series.
    pub(crate) look: Option<Look>,
}

/// Horizontal bars from zero.
#[derive(Debug)]
pub(crate) struct BarPanel {
    pub(crate) title: String,
    pub(crate) axis_title: String,
    pub(crate) unit: Unit,
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

/// Text in columns.
#[derive(Debug)]
pub(crate) struct Table {
    /// Titles over neighbouring columns, and how many each is over; a title may be empty.
    pub(crate) groups: Vec<(String, usize)>,
    /// Two lines over each column.
    pub(crate) heads: Vec<[String; 2]>,
    pub(crate) rows: Vec<TableRow>,
}

#[derive(Debug)]
pub(crate) struct TableRow {
    pub(crate) label: String,
    /// One for each head.
    pub(crate) cells: Vec<Cell>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// A second, smaller line.
    pub(crate) detail: String,
    /// Whether to doubt it: marked with a star.
    pub(crate) is_weak: bool,
    /// Of the number in the text, where it is in the detail.
    pub(crate) interval: Option<(f64, f64)>,
}

/// Bars of parts on one scale, a panel under the other.
#[derive(Debug)]
pub(crate) struct Stacks {
    pub(crate) segments: Vec<(&'static str, RGBColor)>,
    pub(crate) axis_title: String,
    pub(crate) unit: Unit,
    pub(crate) panels: Vec<StackPanel>,
}

#[derive(Debug)]
pub(crate) struct StackPanel {
    pub(crate) title: String,
    pub(crate) bars: Vec<StackBar>,
}

#[derive(Debug)]
pub(crate) struct StackBar {
    pub(crate) label: String,
    /// One for each segment, none below zero; none at all where there is nothing to draw.
    pub(crate) parts: Vec<f64>,
    /// What is written at the bar's end.
    pub(crate) text: String,
}

/// Times that shrink step by step, a panel a series, on one scale.
#[derive(Debug)]
pub(crate) struct Waterfalls {
    pub(crate) axis_title: String,
    pub(crate) unit: Unit,
    /// The names of the steps, which are the same in every panel.
    pub(crate) labels: Vec<String>,
    pub(crate) panels: Vec<WaterfallPanel>,
}

#[derive(Debug)]
pub(crate) struct WaterfallPanel {
    pub(crate) title: String,
    /// Under the title.
    pub(crate) lines: Vec<String>,
    pub(crate) look: Look,
    /// One for each label.
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A whole, from zero.
    Whole { value: Measured, text: String },
    /// What lies between two wholes: where it begins and ends, and the range of ends it might have had.
    Change {
        from: f64,
        to: f64,
        ends: (f64, f64),
        text: String,
    },
    /// There is none.
    Missing,
}

/// Points with lines through them, and under them what the lines leave unexplained.
#[derive(Debug)]
pub(crate) struct Fit {
    pub(crate) panel: LinePanel,
    pub(crate) equations: Vec<String>,
    pub(crate) residuals: Table,
}

/// Bars of settings against a base, in blocks that have a base each, on one scale.
#[derive(Debug)]
pub(crate) struct BlockPanel {
    pub(crate) title: String,
    pub(crate) axis: Axis,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) title: String,
    /// After the title, in small print.
    pub(crate) detail: String,
    /// Where its bars begin.
    pub(crate) base: f64,
    pub(crate) bars: Vec<Bar>,
}

/// Shares in cells, a small panel a series, all on one scale of colours.
#[derive(Debug)]
pub(crate) struct Heats {
    pub(crate) x_title: String,
    pub(crate) y_title: String,
    pub(crate) scale_title: String,
    /// Names of columns, from left to right.
    pub(crate) columns: Vec<String>,
    /// Names of rows, from the bottom.
    pub(crate) rows: Vec<String>,
    pub(crate) panels: Vec<HeatPanel>,
}

#[derive(Debug)]
pub(crate) struct HeatPanel {
    pub(crate) title: String,
    pub(crate) look: Look,
    /// Under each other as the rows are; `None` where nothing was asked.
    pub(crate) cells: Vec<Vec<Option<f64>>>,
}
