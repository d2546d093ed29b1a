//! The words with which a row says how its case ended and what weakens it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::columns::Cell;

/// Declares an enum of words that rows store as text.
macro_rules! words {
    ($(#[$attribute:meta])* pub enum $Name:ident { $($(#[$note:meta])* $Word:ident = $word:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $Name { $($(#[$note])* #[serde(rename = $word)] $Word,)+ }

        impl $Name {
            /// Every word.
            pub const ALL: &[Self] = &[$(Self::$Word),+];

            /// The word in rows.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Word => $word,)+ }
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl Cell for $Name {
            type Stored = String;
            const NULLABLE: bool = false;

            fn to_stored(&self) -> Option<String> {
                Some(self.name().to_string())
            }

            fn from_stored(cell: Option<String>) -> Option<Self> {
                let cell = cell?;
                Self::ALL.iter().copied().find(|word| word.name() == cell)
            }
        }
    };
}

words! {
    /// How a case ended.
    pub enum Status {
        /// Measured.
        Ok = "ok",
        /// Memory ran out.
        Oom = "oom",
        /// Not run, because a smaller case ran out of memory.
        SkippedOom = "skipped_oom",
        /// The worker died. Also what a row says until somebody knows better.
        #[default]
        Crash = "crash",
        /// The wall limit passed.
        Timeout = "timeout",
        /// The output disagrees with the reference, so nothing was timed.
        Wrong = "wrong",
        /// Possible in principle, but not here.
        Unsupported = "unsupported",
        /// Training left the finite numbers.
        Diverged = "diverged",
    }
}

words! {
    /// What weakens the times of a row, from the lightest to the gravest: the maximum of several is what a
    /// row says.
    pub enum Trust {
        /// Nothing known.
        #[default]
        Clean = "clean",
        /// Other work ran on the machine.
        Shared = "shared",
        /// Sampling ended before the interval was narrow enough.
        Unconverged = "unconverged",
        /// The clock was lowered.
        Throttled = "throttled",
        /// It ran on another device, dtype or path than asked for.
        Fallback = "fallback",
    }
}
