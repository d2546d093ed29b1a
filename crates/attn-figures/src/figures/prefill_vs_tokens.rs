//! Time of a prefill against the prompt's length.

use super::FigureSpec;
use super::curves::{self, BATCH, Curves, TOKENS};
use super::points::{INTERVAL, is_of, time};
use crate::slice::TIMED;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "prefill-vs-tokens",
    summary: "Time of a prefill against the prompt's length",
    needs: "prefill",
    uses: |row| is_of(row, "prefill"),
    dimensions: TIMED,
    sheet: |slice| curves::sheet(slice, &CURVES),
};

const CURVES: Curves = Curves {
    title: "Time of a prefill",
    subtitle: "Prefill, time of one call against the prompt's length",
    x: TOKENS,
    x_title: "Prompt (tokens)",
    y: time,
    y_title: "Time per call",
    y_unit: Unit::Seconds,
    panels: BATCH,
    notes: &[INTERVAL],
};
