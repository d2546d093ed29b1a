//! Time of a decode step against the batch.

use super::FigureSpec;
use super::curves::{self, BATCH, CONTEXT, Curves};
use super::points::{INTERVAL, is_decode, time};
use crate::slice::TIMED;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "latency-vs-batch",
    summary: "Time of a decode step against the batch",
    needs: "decode",
    uses: is_decode,
    dimensions: TIMED,
    sheet: |slice| curves::sheet(slice, &CURVES),
};

const CURVES: Curves = Curves {
    title: "Time of a decode step",
    subtitle: "Decode, time of one step against the number of sequences",
    x: BATCH,
    x_title: "Batch (sequences)",
    y: time,
    y_title: "Time per step",
    y_unit: Unit::Seconds,
    panels: CONTEXT,
    notes: &[INTERVAL],
};
