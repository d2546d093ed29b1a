//! The costly habits of the seed's code, as rows name them: `cat+expand+reorder-copy+dense-mask+f32`, `none`.

/// Their names, in the order that waterfalls remove them.
pub(crate) const HABITS: [&str; 5] = ["cat", "reorder-copy", "expand", "dense-mask", "f32"];
/// How many sets there are.
pub(crate) const N_SETS: usize = 1 << HABITS.len();

/// A set of habits: bit `i` is that of `HABITS[i]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Habits(usize);

impl Habits {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(N_SETS - 1);

    /// `None` where a name is unknown or there twice.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::NONE);
        }
        text.split('+').try_fold(Self::NONE, |set, name| {
            let bit = 1 << HABITS.iter().position(|known| *known == name)?;
            (set.0 & bit == 0).then_some(Self(set.0 | bit))
        })
    }

    /// Its place among all sets.
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// `all habits`, `no habits`, `habits cat+f32`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::ALL => "all habits".to_owned(),
            Self::NONE => "no habits".to_owned(),
            Self(bits) => {
                let has = |at: &usize| bits & (1 << at) != 0;
                let names: Vec<&str> = (0..HABITS.len()).filter(has).map(|at| HABITS[at]).collect();
                format!("habits {}", names.join("+"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_sets_agree() {
        assert_eq!(
            Habits::parse("cat+expand+reorder-copy+dense-mask+f32"),
            Some(Habits::ALL)
        );
        assert_eq!(Habits::parse("none"), Some(Habits::NONE));
        let some = Habits::parse("expand+f32").unwrap();
        assert_eq!(
            (some.index(), some.name().as_str()),
            (0b1_0100, "habits expand+f32")
        );
        for wrong in ["", "cat+cat", "cat+dog", "none+cat"] {
            assert_eq!(Habits::parse(wrong), None, "{wrong}");
        }
    }
}
