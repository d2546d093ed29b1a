//! Tokens decoded per second against the context.

use super::FigureSpec;
use super::curves::{self, BATCH, CONTEXT, Curves};
use super::points::{INTERVAL, is_decode, throughput};
use crate::slice::TIMED;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "tokens-vs-context",
    summary: "Tokens decoded per second against the context",
    needs: "decode",
    uses: is_decode,
    dimensions: TIMED,
    sheet: |slice| curves::sheet(slice, &CURVES),
};

const CURVES: Curves = Curves {
    title: "Decode throughput",
    subtitle: "Decode, tokens per second against the context a step reads",
    x: CONTEXT,
    x_title: "Context (tokens)",
    y: throughput,
    y_title: "Tokens per second",
    y_unit: Unit::PerSecond,
    panels: BATCH,
    notes: &[INTERVAL],
};
