//! How good a model is at its task.

use std::collections::BTreeMap;

use attn_core::in_pool;
use attn_tasks::{Batch, Example, Order, Part, Probe, Task};
use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::TaskModel;

/// What a model does given the right tokens before each answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Loss in nats an answer.
    pub nats: f64,
    /// Share of answers that are the most likely token.
    pub accuracy: f64,
    /// Answers.
    pub answers: usize,
    /// The share where the task has axes of its own.
    pub probes: Vec<ProbeCell>,
}

/// Answers at one place of a task's own axes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProbeCell {
    /// The place.
    pub probe: Probe,
    /// Share of the answers that are the most likely token.
    pub accuracy: f64,
    /// Answers.
    pub answers: usize,
}

#[derive(Debug, Default)]
struct Tally {
    nats: f64,
    right: usize,
    answers: usize,
    probes: BTreeMap<(usize, usize), [usize; 2]>,
}

/// Judges a model on the first `n` examples of a part, `batch` at a time.
///
/// # Errors
/// [`Error::Input`] where there is no answer among them.
pub fn evaluate(model: &TaskModel, task: &dyn Task, part: Part, n: u64, batch: usize) -> Result<Evaluation> {
    let n = task.len(part).map_or(n, |len| len.min(n));
    let order = Order::once(batch, n)?;
    let mut tally = Tally::default();
    for step in 0..order.steps().unwrap_or(0) {
        let examples: Vec<Example> = order
            .indices(step)
            .iter()
            .map(|i| task.example(part, *i))
            .collect();
        in_pool(|| tally.take(model, &examples))?;
    }
    if tally.answers == 0 {
        return Err(Error::input("answers", 0, "at least 1 among the examples"));
    }
    let answers = tally.answers as f64;
    let cell = |((distance, load), [right, answers]): ((usize, usize), [usize; 2])| ProbeCell {
        probe: Probe { distance, load },
        accuracy: right as f64 / answers as f64,
        answers,
    };
    Ok(Evaluation {
        nats: tally.nats / answers,
        accuracy: tally.right as f64 / answers,
        answers: tally.answers,
        probes: tally.probes.into_iter().map(cell).collect(),
    })
}

impl Tally {
    fn take(&mut self, model: &TaskModel, examples: &[Example]) -> Result<()> {
        let batch = Batch::new(examples)?;
        let logits = model
            .logits(&batch)?
            .to_device(&candle_core::Device::Cpu)?
            .to_dtype(DType::F64)?;
        let rows: Vec<Vec<Vec<f64>>> = logits.to_vec3()?;
        let likely = most_likely(&logits)?;
        for (b, example) in examples.iter().enumerate() {
            let mut probes = example.probes.iter();
            for (i, is_answer) in example.is_answer.iter().enumerate() {
                if !is_answer {
                    continue;
                }
                let target = example.text[i + 1];
                let is_right = likely[b][i] == target;
                self.nats += nats(&rows[b][i], target);
                self.answers += 1;
                self.right += usize::from(is_right);
                // One for each answer, or one for all of them.
                let probe = match example.probes.len() {
                    1 => example.probes.first(),
                    _ => probes.next(),
                };
                if let Some(probe) = probe {
                    let [right, answers] = self.probes.entry((probe.distance, probe.load)).or_default();
                    *right += usize::from(is_right);
                    *answers += 1;
                }
            }
        }
        Ok(())
    }
}

fn most_likely(logits: &Tensor) -> Result<Vec<Vec<u32>>> {
    Ok(logits.argmax(D::Minus1)?.to_dtype(DType::U32)?.to_vec2()?)
}

/// Negative log-likelihood of a token.
fn nats(row: &[f64], token: u32) -> f64 {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|x| (x - most).exp()).sum();
    most + total.ln() - row.get(token as usize).copied().unwrap_or(f64::NAN)
}
