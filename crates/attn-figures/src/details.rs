//! What belongs to a row and has a table of its own.

use crate::Error;
use crate::columns::{count, fill, flag, real, required_count, required_text};
use polars::prelude::DataFrame;

/// One position of a trajectory. Field names are the columns of `positions.parquet`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Position {
    /// The case's hash.
    pub case_id: String,
    /// Tokens in the cache once this one is.
    pub position: u64,
    /// Median seconds of the step.
    pub time_median_s: Option<f64>,
    /// Lower end of the 95 % bootstrap interval of the median.
    pub time_ci_low_s: Option<f64>,
    /// Upper end of it.
    pub time_ci_high_s: Option<f64>,
    /// Bytes of the cache after the step, in closed form.
    pub kv_bytes: Option<f64>,
    /// Whether the step completes a slot of the cache.
    pub closes_slot: Option<bool>,
}

/// One training of a case. Field names are the columns of `trainings.parquet`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Training {
    /// The case's hash.
    pub case_id: String,
    /// Seed of weights and order of the data.
    pub seed: u64,
    /// Updates done.
    pub steps: Option<u64>,
    /// The update at which a loss or gradient was not finite.
    pub diverged_at: Option<u64>,
    /// The task's measure on the test, through the cache.
    pub quality: Option<f64>,
    /// Loss of the test in nats an answer.
    pub test_nats: Option<f64>,
    /// Share of the test's answers that are the most likely token.
    pub test_accuracy: Option<f64>,
    /// Share of them that are chosen alike through the cache and in one pass.
    pub cache_agreement: Option<f64>,
    /// Seconds with evaluations.
    pub train_time_s: Option<f64>,
    /// Median seconds of an update.
    pub train_step_s: Option<f64>,
    /// Most bytes held at once during an update.
    pub peak_bytes: Option<f64>,
}

/// A point of a training's curve. Field names are the columns of `curves.parquet`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CurvePoint {
    /// The case's hash.
    pub case_id: String,
    /// Seed of the training.
    pub seed: u64,
    /// Updates before it.
    pub step: u64,
    /// Mean loss of the updates since the point before, in nats an answer.
    pub train_loss: Option<f64>,
    /// Loss on the validation part, in nats an answer.
    pub valid_nats: Option<f64>,
    /// Share of its answers that are the most likely token.
    pub valid_accuracy: Option<f64>,
    /// Largest norm of the gradients since the point before.
    pub grad_norm: Option<f64>,
}

/// Answers of a test at one place of the task's own axes. Field names are the columns of `probes.parquet`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probe {
    /// The case's hash.
    pub case_id: String,
    /// Seed of the training.
    pub seed: u64,
    /// Tokens from what is asked for to the question.
    pub distance: u64,
    /// Things that were to be remembered meanwhile.
    pub load: u64,
    /// Share of the answers that are the most likely token.
    pub accuracy: Option<f64>,
    /// Answers.
    pub answers: Option<u64>,
}

impl Position {
    /// Reads a table such as `positions.parquet`.
    pub(crate) fn read(table: &DataFrame) -> Result<Vec<Self>, Error> {
        let case_id = required_text(table, "case_id")?;
        let number = required_count(table, "position")?;
        let mut all: Vec<Self> = (case_id.into_iter().zip(number))
            .map(|(case_id, position)| Self {
                case_id,
                position,
                ..Self::default()
            })
            .collect();
        fill!(all, table, real: time_median_s, time_ci_low_s, time_ci_high_s, kv_bytes);
        fill!(all, table, flag: closes_slot);
        Ok(all)
    }
}

impl Training {
    /// Reads a table such as `trainings.parquet`.
    pub(crate) fn read(table: &DataFrame) -> Result<Vec<Self>, Error> {
        let case_id = required_text(table, "case_id")?;
        let seed = required_count(table, "seed")?;
        let mut all: Vec<Self> = (case_id.into_iter().zip(seed))
            .map(|(case_id, seed)| Self {
                case_id,
                seed,
                ..Self::default()
            })
            .collect();
        fill!(all, table, count: steps, diverged_at);
        fill!(all, table, real: quality, test_nats, test_accuracy, cache_agreement);
        fill!(all, table, real: train_time_s, train_step_s, peak_bytes);
        Ok(all)
    }
}

impl CurvePoint {
    /// Reads a table such as `curves.parquet`.
    pub(crate) fn read(table: &DataFrame) -> Result<Vec<Self>, Error> {
        let case_id = required_text(table, "case_id")?;
        let seed = required_count(table, "seed")?;
        let step = required_count(table, "step")?;
        let mut all: Vec<Self> = (case_id.into_iter().zip(seed).zip(step))
            .map(|((case_id, seed), step)| Self {
                case_id,
                seed,
                step,
                ..Self::default()
            })
            .collect();
        fill!(all, table, real: train_loss, valid_nats, valid_accuracy, grad_norm);
        Ok(all)
    }
}

impl Probe {
    /// Reads a table such as `probes.parquet`.
    pub(crate) fn read(table: &DataFrame) -> Result<Vec<Self>, Error> {
        let case_id = required_text(table, "case_id")?;
        let seed = required_count(table, "seed")?;
        let distance = required_count(table, "distance")?;
        let load = required_count(table, "load")?;
        let mut all: Vec<Self> = (case_id.into_iter().zip(seed).zip(distance).zip(load))
            .map(|(((case_id, seed), distance), load)| Self {
                case_id,
                seed,
                distance,
                load,
                ..Self::default()
            })
            .collect();
        fill!(all, table, real: accuracy);
        fill!(all, table, count: answers);
        Ok(all)
    }
}
