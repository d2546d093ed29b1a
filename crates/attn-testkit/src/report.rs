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
        let failures: Vec<String> = self.failures().map(|check| format!("{check:?}")).collect();
        if !self.passed() {
            panic!(
                "{} of {} checks failed:\n{}",
                failures.len(),
                self.checks.len(),
                failures.join("\n")
            );
        }
        self
    }
}
