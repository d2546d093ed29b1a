//! Time of a decode step against the context.

use super::FigureSpec;
use super::curves::{self, BATCH, CONTEXT, Curves};
use super::points::{INTERVAL, is_decode, time};
use crate::slice::TIMED;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "latency-vs-context",
    summary: "Time of a decode step against the context",
    needs: "decode",
    uses: is_decode,
    dimensions: TIMED,
    sheet: |slice| curves::sheet(slice, &CURVES),
};

const CURVES: Curves = Curves {
    title: "Time of a decode step",
    subtitle: "Decode, time of one step against the context it reads",
    x: CONTEXT,
    x_title: "Context (tokens)",
    y: time,
    y_title: "Time per step",
    y_unit: Unit::Seconds,
    panels: BATCH,
    notes: &[INTERVAL],
};
