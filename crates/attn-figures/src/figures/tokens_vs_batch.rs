//! Tokens decoded per second against the batch.

use super::FigureSpec;
use super::curves::{self, BATCH, CONTEXT, Curves};
use super::points::{INTERVAL, is_decode, throughput};
use crate::slice::TIMED;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "tokens-vs-batch",
    summary: "Tokens decoded per second against the batch",
    needs: "decode",
    uses: is_decode,
    dimensions: TIMED,
    sheet: |slice| curves::sheet(slice, &CURVES),
};

const CURVES: Curves = Curves {
    title: "Decode throughput",
    subtitle: "Decode, tokens per second against the number of sequences",
    x: BATCH,
    x_title: "Batch (sequences)",
    y: throughput,
    y_title: "Tokens per second",
    y_unit: Unit::PerSecond,
    panels: CONTEXT,
    notes: &[INTERVAL],
};
