//! The costly habits of the seed's code, each a switch of the seed-like path.
//!
//! MTLA's published speed-up compares whole programs: part of it is attention, part of it what the program does around
//! attention. With one switch for each habit the parts can be told from each other.
//!
//! ```
//! use attn_core::{Build, Habit, Habits, Path};
//! use candle_core::DType;
//!
//! // The seed's way but for its growing caches.
//! let build = Build::cpu(Path::Seedlike, DType::F32).with_habits(Habits::ALL.without(Habit::Cat));
//! assert!(build.has(Habit::Expand) && !build.has(Habit::Cat));
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Something the seed's code does that a layer does not need.
///
/// ```
/// use attn_core::Habit;
///
/// let names = Habit::ALL.map(Habit::name);
/// assert_eq!(names, ["cat", "expand", "reorder-copy", "dense-mask", "f32"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Habit {
    /// Caches grow by concatenation, at every step (MTLA: whenever a block opens), in place of being allocated once.
    Cat,
    /// GQA and MQA repeat keys and values to H heads at every step and layer.
    Expand,
    /// A step of beam search copies every layer's whole cache (`index_select`).
    ReorderCopy,
    /// Scores of all pairs are formed, and masks, encodings and MTLA's merge matrix are made anew by every call,
    /// operation by operation, in place of the two kernels.
    DenseMask,
    /// Everything is f32.
    F32,
}

impl Habit {
    /// Every habit, in the order in which sets are written.
    pub const ALL: [Self; 5] = [
        Self::Cat,
        Self::Expand,
        Self::ReorderCopy,
        Self::DenseMask,
        Self::F32,
    ];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cat => "cat",
            Self::Expand => "expand",
            Self::ReorderCopy => "reorder-copy",
            Self::DenseMask => "dense-mask",
            Self::F32 => "f32",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of habits.
///
/// ```
/// use attn_core::{Habit, Habits};
///
/// let some: Habits = "cat+f32".parse()?;
/// assert!(some.contains(Habit::Cat) && !some.contains(Habit::Expand));
/// assert_eq!(some.without(Habit::Cat).without(Habit::F32).to_string(), "none");
/// assert_eq!(Habits::combinations().count(), 32);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Habits(u8);

impl Habits {
    /// No habit.
    pub const NONE: Self = Self(0);
    /// Every habit: the seed's way.
    pub const ALL: Self = Self((1 << Habit::ALL.len()) - 1);

    /// Whether `habit` is one of them.
    pub fn contains(self, habit: Habit) -> bool {
        self.0 & habit.bit() != 0
    }

    /// These and `habit`.
    #[must_use]
    pub fn with(self, habit: Habit) -> Self {
        Self(self.0 | habit.bit())
    }

    /// These without `habit`.
    #[must_use]
    pub fn without(self, habit: Habit) -> Self {
        Self(self.0 & !habit.bit())
    }

    /// The habits, in the order in which sets are written.
    pub fn iter(self) -> impl Iterator<Item = Habit> {
        Habit::ALL.into_iter().filter(move |&habit| self.contains(habit))
    }

    /// Every set there is, the empty one first.
    pub fn combinations() -> impl Iterator<Item = Self> {
        (0..=Self::ALL.0).map(Self)
    }
}

impl fmt::Display for Habits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let names: Vec<&str> = self.iter().map(Habit::name).collect();
        f.write_str(&names.join("+"))
    }
}

impl FromStr for Habits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::NONE),
            "all" => return Ok(Self::ALL),
            _ => {}
        }
        let mut habits = Self::NONE;
        for name in text.split('+') {
            let habit = Habit::ALL.into_iter().find(|habit| habit.name() == name.trim());
            let Some(habit) = habit else {
                let known = Habit::ALL.map(Habit::name).join(", ");
                return Err(format!(
                    "`{name}` is no habit, expected all, none, or some of {known} joined by +"
                ));
            };
            habits = habits.with(habit);
        }
        Ok(habits)
    }
}

impl From<Habits> for String {
    fn from(habits: Habits) -> Self {
        habits.to_string()
    }
}

impl TryFrom<String> for Habits {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_written_and_read_again() {
        for habits in Habits::combinations() {
            assert_eq!(habits.to_string().parse(), Ok(habits));
        }
        assert_eq!(Habits::ALL.to_string(), "cat+expand+reorder-copy+dense-mask+f32");
        assert_eq!("all".parse(), Ok(Habits::ALL));
        assert_eq!(
            "f32+cat".parse(),
            Ok(Habits::NONE.with(Habit::Cat).with(Habit::F32))
        );
    }

    #[test]
    fn an_unknown_habit_is_named_with_those_there_are() {
        let error = "cat+expnd".parse::<Habits>().unwrap_err();
        assert!(
            error.contains("`expnd`") && error.contains("reorder-copy"),
            "{error}"
        );
    }
}
