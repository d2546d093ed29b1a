//! What was checked, and how it went.

/// How a check went.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The largest difference is within the tolerance.
    Passed,
    /// It is not, or the layer failed.
    Failed(String),
    /// The path is not defined for the dtype.
    NotDefined,
}

/// One check of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The file, or `built-in`.
    pub source: String,
    /// Registry key of the variant.
    pub variant: String,
    /// Formulation.
    pub path: &'static str,
    /// Element type.
    pub dtype: &'static str,
    /// What was compared.
    pub name: String,
    /// Largest difference over the scale of what was expected; `None` where nothing was compared.
    pub error: Option<f64>,
    /// What the difference may be.
    pub tolerance: f64,
    /// How it went.
    pub outcome: Outcome,
}

/// A list of checks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// In the order they were run.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether something was compared and nothing failed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none() && self.checks.iter().any(|check| check.outcome == Outcome::Passed)
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Failed(_)))
    }

    /// Appends another report.
    pub fn extend(&mut self, other: Self) {
        self.checks.extend(other.checks);
    }

    /// For tests: the report itself, if it passed.
    ///
    /// # Panics
    /// With every failed check, if there is one, or if nothing was checked.
    #[allow(clippy::panic)]
    pub fn assert(self) -> Self {
        if !self.passed() {
            panic!("{}", self.account());
        }
        self
    }

    /// Every reason once, below it the checks that failed for it.
    fn account(&self) -> String {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for check in &self.checks {
            let Outcome::Failed(reason) = &check.outcome else {
                continue;
            };
            let name = format!("{} {}: {}, {}", check.path, check.dtype, check.name, check.source);
            match reasons.iter_mut().find(|(other, _)| other == reason) {
                Some((_, names)) => names.push(name),
                None => reasons.push((reason, vec![name])),
            }
        }
        let mut account = format!(
            "{} of {} checks failed",
            self.failures().count(),
            self.checks.len()
        );
        for (reason, names) in reasons {
            account.push_str(&format!("\n{reason}"));
            for name in names {
                account.push_str(&format!("\n    {name}"));
            }
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, outcome: Outcome) -> Check {
        Check {
            source: "built-in, Toy".into(),
            variant: "toy".into(),
            path: "fused",
            dtype: "f32",
            name: name.into(),
            error: None,
            tolerance: 1e-4,
            outcome,
        }
    }

    #[test]
    fn a_reason_is_given_once_for_all_that_failed_for_it() {
        let report = Report {
            checks: vec![
                check("causality", Outcome::Failed("not written".into())),
                check("gradients", Outcome::Passed),
                check("rewind", Outcome::Failed("not written".into())),
            ],
        };
        assert_eq!(
            report.account(),
            "2 of 3 checks failed\n\
             not written\n    \
             fused f32: causality, built-in, Toy\n    \
             fused f32: rewind, built-in, Toy"
        );
    }
}
