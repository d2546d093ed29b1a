//! Figures from stored rows: one SVG and one PNG for each, drawn the same on every machine.
//!
//! ```
//! use attn_figures::{Frame, Outcome, Row, draw_all, figures};
//!
//! let row = |label: &str, context: u64, seconds: f64| Row {
//!     variant: label.to_lowercase(),
//!     label: label.into(),
//!     workload: "decode".into(),
//!     status: "ok".into(),
//!     batch: Some(1),
//!     context: Some(context),
//!     time_median_s: Some(seconds),
//!     ..Row::default()
//! };
//! let rows = vec![row("MHA", 512, 2e-4), row("MHA", 1024, 4e-4), row("MLA", 512, 1e-4), row("MLA", 1024, 2e-4)];
//! let out = std::env::temp_dir().join(format!("attn-figures-doc-{}", std::process::id()));
//! let drawn = draw_all(&Frame::from_rows(rows), &["latency-vs-context".to_owned()], &out)?;
//! assert!(matches!(&drawn[0], Outcome::Drawn(figure) if figure.svg.ends_with("latency-vs-context.svg")));
//! assert!(figures().iter().any(|figure| figure.name == "quality-vs-cache"));
//! # std::fs::remove_dir_all(&out).ok();
//! # Ok::<(), attn_figures::Error>(())
//! ```
//!
//! The way through: [`Frame`] (typed rows) -> slices (rows that may share an axis) -> a figure's sheet (what
//! is shown) -> a page (where it stands) -> SVG -> PNG. A [`report`] has all of it, with what the rows say, in one file.

mod axis;
mod bars;
mod blocks;
mod canvas;
mod columns;
mod csv;
mod details;
mod error;
mod figures;
mod fit;
mod fits;
mod font;
mod frame;
mod grid;
mod habits;
mod heats;
mod labels;
mod legend;
mod lines;
mod marker;
mod names;
mod output;
mod page;
mod paper;
mod png;
pub mod report;
mod row;
mod seedlike;
mod shapley;
mod sheet;
mod slice;
mod stacks;
mod style;
mod table;
mod tags;
mod tasks;
mod ticks;
mod units;
mod waterfalls;

pub use error::Error;
pub use figures::{FigureSpec, figures, find};
pub use frame::{CurvePoint, Frame, Position, Probe, Row, Training};
pub use output::{Drawn, Outcome, Rendered, Skipped, draw_all, render};
pub use png::to_png;
