//! The figures: one file each, a function from rows that may share an axis to what is shown.

mod ablation_bars;
mod cache_vs_context;
mod compression_rate;
mod curves;
mod decode_trajectory;
mod generate_bars;
mod latency_vs_batch;
mod latency_vs_context;
mod learning_curves;
mod memory_bars;
mod memory_breakdown;
pub(crate) mod paper_table;
pub(crate) mod points;
mod prefill_vs_tokens;
mod published;
pub(crate) mod quality;
mod quality_vs_cache;
mod quality_vs_lr;
mod quality_vs_stride;
mod quality_vs_time;
mod rates;
mod recall_heatmap;
mod roofline;
pub(crate) mod speedup_bars;
mod speedup_waterfall;
mod time_breakdown;
mod time_vs_cache;
mod tokens_vs_batch;
mod tokens_vs_context;
mod train_vs_tokens;
pub(crate) mod ways;

use crate::frame::Row;
use crate::sheet::Sheet;
use crate::slice::{Dimension, Slice};

/// A figure that can be asked for by name.
#[derive(Debug)]
pub struct FigureSpec {
    /// Its name, which is its file's too.
    pub name: &'static str,
    /// What it shows, in one line.
    pub summary: &'static str,
    /// The rows it uses, in a word, for the reason why there is no figure.
    pub(crate) needs: &'static str,
    /// Which rows it uses.
    pub(crate) uses: fn(&Row) -> bool,
    /// What its quantity depends on.
    pub(crate) dimensions: &'static [Dimension],
    /// What it shows of them, or why it shows nothing.
    pub(crate) sheet: fn(&Slice<'_>) -> Result<Sheet, String>,
}

static FIGURES: [FigureSpec; 25] = [
    latency_vs_context::SPEC,
    tokens_vs_context::SPEC,
    latency_vs_batch::SPEC,
    tokens_vs_batch::SPEC,
    cache_vs_context::SPEC,
    prefill_vs_tokens::SPEC,
    train_vs_tokens::SPEC,
    compression_rate::SPEC,
    speedup_bars::SPEC,
    memory_bars::SPEC,
    generate_bars::SPEC,
    decode_trajectory::SPEC,
    roofline::SPEC,
    paper_table::SPEC,
    speedup_waterfall::SPEC,
    time_breakdown::SPEC,
    memory_breakdown::SPEC,
    time_vs_cache::SPEC,
    quality_vs_cache::SPEC,
    quality_vs_time::SPEC,
    quality_vs_stride::SPEC,
    quality_vs_lr::SPEC,
    ablation_bars::SPEC,
    recall_heatmap::SPEC,
    learning_curves::SPEC,
];

/// Every figure, in the order of the report.
pub fn figures() -> &'static [FigureSpec] {
    &FIGURES
}

/// The figure of that name.
pub fn find(name: &str) -> Option<&'static FigureSpec> {
    FIGURES.iter().find(|figure| figure.name == name)
}
