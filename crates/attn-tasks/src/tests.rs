//! What holds of every task: the same examples everywhere, parts that share none, a best score that is reached, and no way
//! to it but by reading.

mod digests;
mod hearing;
mod listener;
mod priors;
mod settings;
mod solvers;
mod splits;

use crate::task::{Example, Part, Task};
use crate::{TaskConfig, names};

fn build(config: &TaskConfig) -> Box<dyn Task> {
    config.build().unwrap()
}

fn defaults() -> Vec<TaskConfig> {
    names()
        .iter()
        .map(|(name, _)| TaskConfig::named(name).unwrap())
        .collect()
}

fn from_json(json: &str) -> TaskConfig {
    serde_json::from_str(json).unwrap()
}

fn examples(task: &dyn Task, part: Part, n: u64) -> Vec<Example> {
    (0..n).map(|index| task.example(part, index)).collect()
}
