//! What stands in for the kernels of GPUs in a build without them: nothing is on a GPU, and so nothing is missed.

use candle_core::Tensor;

use crate::error::Result;
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::ops::native::LatentsInput;
use crate::ops::{AttendInput, DecodeInput};
use crate::rope::Rope;

pub(super) fn decode(_: &DecodeInput) -> Result<Option<Tensor>> {
    Ok(None)
}

pub(super) fn attend(_: &AttendInput) -> Result<Option<Tensor>> {
    Ok(None)
}

pub(crate) fn gated_sums(_: &Tensor, _: &GateTable) -> Option<Tensor> {
    None
}

/// A kernel that there is none of.
pub(crate) enum CacheUpdate {}

impl CacheUpdate {
    pub(crate) fn of(_: &Tensor, _: &Norm, _: &Rope, _: Option<&GateTable>, _: &Tensor) -> Option<Self> {
        None
    }

    pub(crate) fn run(&self, _: &LatentsInput, _: &Tensor) -> Result<Option<Option<Tensor>>> {
        match *self {}
    }
}
