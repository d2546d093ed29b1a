//! Whether the times of two runs may be compared at all.

use std::path::PathBuf;

use super::Rules;
use crate::row::Row;
use crate::store::Run;

/// Why two runs are not compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Their times mean different things.
    #[error(
        "the runs do not compare: {what} (`{column}`) is {base} in the base and {new} in the new run; measure \
         both alike, best with `run --against`, or compare all the same with --other-hardware"
    )]
    Differs {
        /// The column that differs.
        column: &'static str,
        /// What it says, in words.
        what: &'static str,
        /// Its value in the base.
        base: String,
        /// Its value in the new run.
        new: String,
    },
    /// No case is in both.
    #[error(
        "{} and {} have no case in common; cases match by `case_id`, which changes with sweep settings, seed, \
         dtype and device: run the same sweep for both",
        base.display(),
        new.display()
    )]
    NothingInCommon {
        /// The folder of the base.
        base: PathBuf,
        /// The folder of the new run.
        new: PathBuf,
    },
}

impl CompareError {
    pub(super) fn nothing_in_common(base: &Run, new: &Run) -> Self {
        Self::NothingInCommon {
            base: base.dir.clone(),
            new: new.dir.clone(),
        }
    }
}

/// What must be equal for times to compare, and how it is called.
type Identity = (&'static str, &'static str, fn(&Row) -> Option<String>);

/// An identical binary on another machine of the same kind was 12 % slower, with p = 0.
const IDENTITY: [Identity; 6] = [
    ("fingerprint", "the machine", |row| row.fingerprint.clone()),
    ("gpu", "the GPU", |row| row.gpu.clone()),
    ("build_profile", "the build profile", |row| {
        row.build_profile.clone()
    }),
    ("threads", "the number of threads", |row| {
        row.threads.map(|threads| threads.to_string())
    }),
    ("device_resolved", "the device", |row| row.device_resolved.clone()),
    ("time_clock", "the clock", |row| row.time_clock.clone()),
];

/// Refuses pairs of rows whose times do not compare; where that was allowed, says so once a column.
pub(super) fn check(matched: &[(&Row, &Row)], rules: &Rules) -> Result<Vec<String>, CompareError> {
    let mut notes = Vec::new();
    for (column, what, value) in IDENTITY {
        // What one side does not know cannot be told to differ.
        let differing = matched.iter().find_map(|(base, new)| {
            let (base, new) = (value(base)?, value(new)?);
            (base != new).then_some((base, new))
        });
        let Some((base, new)) = differing else { continue };
        if !rules.other_hardware {
            return Err(CompareError::Differs {
                column,
                what,
                base,
                new,
            });
        }
        notes.push(format!(
            "{what} differs: {base} in the base, {new} in the new run"
        ));
    }
    Ok(notes)
}

/// What a reader should know of two runs that do compare.
pub(super) fn warnings(matched: &[(&Row, &Row)]) -> Vec<String> {
    let mut notes = Vec::new();
    let any = |test: &dyn Fn(&Row, &Row) -> bool| matched.iter().any(|(base, new)| test(base, new));
    if any(&|base, new| base.fingerprint.is_none() || new.fingerprint.is_none()) {
        notes.push("a run does not say which machine it was measured on".to_string());
    }
    if let Some((base, _)) = matched
        .iter()
        .find(|(base, new)| base.commit.is_some() && base.commit == new.commit)
    {
        let commit = base.commit.as_deref().unwrap_or_default();
        notes.push(format!("both runs are of commit {commit}"));
    }
    if any(&|base, _| base.dirty == Some(true)) {
        notes.push("the base was built from sources that differ from its commit".to_string());
    }
    if any(&|_, new| new.dirty == Some(true)) {
        notes.push("the new run was built from sources that differ from its commit".to_string());
    }
    if any(&|base, new| base.measure.is_some() && new.measure.is_some() && base.measure != new.measure) {
        notes.push("the runs were measured with different settings".to_string());
    }
    notes
}
