//! One of something for each part.

use attn_tasks::Part;
use serde::Serialize;

use crate::error::Result;

/// One of something for each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Parts<T> {
    /// Of what a model is trained on.
    pub train: T,
    /// Of what chooses checkpoints.
    pub valid: T,
    /// Of what results are reported of.
    pub test: T,
}

impl<T> Parts<T> {
    /// That of a part.
    pub fn get(&self, part: Part) -> &T {
        match part {
            Part::Train => &self.train,
            Part::Valid => &self.valid,
            Part::Test => &self.test,
        }
    }

    /// All three, the first that fails ends it. The order is train, valid, test.
    pub(crate) fn try_from_fn(mut make: impl FnMut(Part) -> Result<T>) -> Result<Self> {
        Ok(Self {
            train: make(Part::Train)?,
            valid: make(Part::Valid)?,
            test: make(Part::Test)?,
        })
    }

    /// All three with their parts.
    pub fn iter(&self) -> impl Iterator<Item = (Part, &T)> {
        [
            (Part::Train, &self.train),
            (Part::Valid, &self.valid),
            (Part::Test, &self.test),
        ]
        .into_iter()
    }
}
