//! Time of a training step against the sequence's length.

use super::FigureSpec;
use super::curves::{self, BATCH, Curves, TOKENS};
use super::points::{INTERVAL, is_of, time};
use crate::slice::TIMED;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "train-vs-tokens",
    summary: "Time of a training step against the sequence's length",
    needs: "train_step",
    uses: |row| is_of(row, "train_step"),
    dimensions: TIMED,
    sheet: |slice| curves::sheet(slice, &CURVES),
};

const CURVES: Curves = Curves {
    title: "Time of a training step",
    subtitle: "Training, time of one step (forward and backward) against the sequence's length",
    x: TOKENS,
    x_title: "Sequence (tokens)",
    y: time,
    y_title: "Time per step",
    y_unit: Unit::Seconds,
    panels: BATCH,
    notes: &[INTERVAL],
};
