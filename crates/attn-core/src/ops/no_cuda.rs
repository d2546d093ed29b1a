//! What stands in for the kernels of GPUs in a build without them: nothing is on a GPU, and so nothing is missed.

use candle_core::{Device, Tensor};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::latent::GateTable;
use crate::norm::Norm;
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

/// Lengths on a GPU, which nothing has.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ends(());

impl Ends {
    pub(crate) fn send(&mut self, _: &Device, _: &[usize]) -> Result<()> {
        Ok(())
    }

    pub(crate) fn stand_for(&mut self, _: &[usize]) {}
}

/// Kernels that there are none of.
pub(crate) enum LatentStep {}

/// What they would be given.
#[allow(dead_code, reason = "nobody reads it here")]
pub(crate) struct LatentToken<'a> {
    pub(crate) q: &'a Tensor,
    pub(crate) x: &'a Tensor,
    pub(crate) norm: &'a Norm,
    pub(crate) rope: &'a Rope,
    pub(crate) gate: Option<&'a GateTable>,
    pub(crate) up: [&'a Tensor; 2],
    pub(crate) scale: f64,
}

impl LatentStep {
    pub(crate) fn of(
        _: &Tensor,
        _: usize,
        _: &Norm,
        _: &Rope,
        _: Option<&GateTable>,
        _: &mut Cache,
    ) -> Option<Self> {
        None
    }

    pub(crate) fn run(&self, _: &LatentToken, _: &mut Cache) -> Result<Option<Tensor>> {
        match *self {}
    }
}

/// Kernels that there are none of.
pub(crate) enum GroupedStep {}

/// What they would be given.
#[allow(dead_code, reason = "nobody reads it here")]
pub(crate) struct GroupedToken<'a> {
    pub(crate) qkv: [&'a Tensor; 3],
    pub(crate) rope: &'a Rope,
    pub(crate) scale: f64,
}

impl GroupedStep {
    pub(crate) fn of(_: &Tensor, _: usize, _: &Rope, _: &mut Cache) -> Option<Self> {
        None
    }

    pub(crate) fn run(&self, _: &GroupedToken, _: &mut Cache) -> Result<Option<Tensor>> {
        match *self {}
    }
}

/// A graph that nothing was recorded in.
pub(crate) enum Graph {}

impl Graph {
    /// # Safety
    /// Nothing is done.
    pub(crate) unsafe fn record<S>(
        _: &Device,
        _: &mut S,
        _: impl FnMut(&mut S) -> Result<Tensor>,
        _: impl FnOnce(&mut S) -> Result<()>,
        _: impl FnOnce(&mut S),
    ) -> Result<Self> {
        Err(Error::Unsupported {
            what: "a graph of this work".to_string(),
            remedy: "it was built without the feature cuda".to_string(),
        })
    }

    pub(crate) fn launch(&self) -> Result<()> {
        match *self {}
    }

    pub(crate) fn output(&self) -> Option<&Tensor> {
        match *self {}
    }
}
