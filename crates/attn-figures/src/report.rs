//! One page of HTML about stored runs, with everything in it: findings, figures, rows, doubts, environment, and the way to
//! make it again. It asks nothing of the network, and every text of a file is escaped by the template.
//!
//! **Ratios.** Whatever is divided by whatever, the interval of the quotient is the quotient of the ends of both 95 %
//! intervals, as in the figures (`points`): at least as wide as an interval of the quotient
//! itself, so it calls nothing shown that a sharper one would leave open.

mod cells;
mod compared;
mod data;
mod doubts;
mod drawings;
mod environment;
mod findings;
mod held;
mod learned;
mod published;
mod rows;
mod template;
mod timed;
mod ways;

use crate::Error;
use crate::frame::Frame;
use polars::prelude::DataFrame;
use serde_json::Value;

use cells::Cells;
pub use compared::{Compared, ComparedCase, ComparedQuality, OnlyInOne};

/// What a page is made of.
#[derive(Debug, Clone)]
pub struct Report {
    /// The runs, in the order in which they stand beside each other.
    pub runs: Vec<ReportRun>,
    /// Every run but the first against the first, in their order.
    pub compared: Vec<Compared>,
    /// What every column of the rows means: its name, and a sentence.
    pub columns: Vec<(String, String)>,
    /// Mean and 95 % interval over seeds of single differences: the half width's rule is the caller's.
    pub interval_of_mean: fn(&[f64]) -> Option<(f64, f64)>,
}

/// A stored run.
#[derive(Debug, Clone)]
pub struct ReportRun {
    /// The name of its folder.
    pub name: String,
    /// All columns of its rows.
    pub rows: DataFrame,
    /// The same, typed, with what belongs to them.
    pub frame: Frame,
    /// The figures its sweep asks for; none means all.
    pub figures: Vec<String>,
    /// The machine, the build, the sessions: `environment.json`.
    pub environment: Value,
    /// The sweep as it ran.
    pub sweep_yaml: String,
    /// The commands that wrote the run.
    pub commands: Vec<String>,
    /// What had to be left out when it was read.
    pub warnings: Vec<String>,
    /// Hash of the stored rows, and of which file.
    pub data_hash: Option<(String, String)>,
}

/// What tells a page of ours from any other file: it stands within its first kilobyte.
pub const REPORT_MARK: &str = "<meta name=\"generator\" content=\"attn-bench report\">";

impl Report {
    /// The page. The same runs give the same bytes.
    ///
    /// # Errors
    /// [`Error::Draw`] where a figure cannot be drawn, [`Error::UnknownFigure`] where a sweep names one that does not
    /// exist, [`Error::Table`] where a column cannot be read, [`Error::Page`] where the template fails.
    pub fn to_html(&self) -> Result<String, Error> {
        let cells: Vec<Cells> = self
            .runs
            .iter()
            .map(|run| Cells::new(&run.rows))
            .collect::<Result<_, _>>()?;
        template::page(self, &cells)
    }

    /// Whether several runs stand beside each other.
    fn is_many(&self) -> bool {
        self.runs.len() > 1
    }
}
