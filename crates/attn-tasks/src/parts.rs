//! How many examples each part has, and what keeps parts apart.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::error::Result;
use crate::rng::Rng;
use crate::task::Part;

/// Examples of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parts {
    /// What a model is trained on, null where every step has new examples. Default: null.
    pub train: Option<u64>,
    /// What chooses checkpoints. Default: 256.
    pub valid: u64,
    /// What results are reported of. Default: 1024.
    pub test: u64,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            train: None,
            valid: 256,
            test: 1024,
        }
    }
}

impl Parts {
    /// Examples of a part, `None` where there is no end to them.
    pub fn len(&self, part: Part) -> Option<u64> {
        match part {
            Part::Train => self.train,
            Part::Valid => Some(self.valid),
            Part::Test => Some(self.test),
        }
    }

    /// Whether no part has an example.
    pub fn is_empty(&self) -> bool {
        Part::ALL.iter().all(|part| self.len(*part) == Some(0))
    }

    pub(crate) fn check(&self, check: Check) -> Result<()> {
        let keys = ["parts.train", "parts.valid", "parts.test"];
        for (key, part) in keys.into_iter().zip(Part::ALL) {
            if self.len(part) == Some(0) {
                return check.fail(key, 0, "at least 1");
            }
        }
        Ok(())
    }
}

impl Part {
    /// The part that whatever has this hash belongs to: three quarters are for training, an eighth for each other part.
    fn of(hash: u64) -> Self {
        match hash >> 61 {
            0 => Self::Test,
            1 => Self::Valid,
            _ => Self::Train,
        }
    }
}

/// The first draw that belongs to `part`. Where it belongs its content alone says, so that nothing is in two parts.
pub(crate) fn draw_in<T>(
    part: Part,
    rng: &mut Rng,
    mut draw: impl FnMut(&mut Rng) -> T,
    content: impl Fn(&T) -> u64,
) -> T {
    loop {
        let drawn = draw(rng);
        if Part::of(content(&drawn)) == part {
            return drawn;
        }
    }
}
