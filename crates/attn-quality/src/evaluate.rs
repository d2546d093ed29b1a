//! How good a model is at its task.

use std::collections::BTreeMap;

use attn_core::in_pool;
use attn_tasks::{Batch, Example, Order, Part, Probe, Task};
use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::TaskModel;

/// How a model reads what is before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All of a text at once, as in training.
    Whole,
    /// Token by token through its caches, as it is used.
    Cached,
}

/// What a model does given the right tokens before each answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Loss in nats an answer.
    pub nats: f64,
    /// Share of answers that are the most likely token.
    pub accuracy: f64,
    /// Answers.
    pub answers: usize,
    /// Share of answers of which the most likely token is the same for both ways of [`Reading`]; none where it was read
    /// one way.
    pub agreement: Option<f64>,
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
    /// Answers alike in both ways.
    alike: usize,
    probes: BTreeMap<(usize, usize), [usize; 2]>,
}

/// Judges a model on the first `n` examples of a part, `batch` at a time. Read through the caches, they are read whole as
/// well, for [`Evaluation::agreement`].
///
/// # Errors
/// [`Error::Input`] where there is no answer among them.
pub fn evaluate(
    model: &TaskModel,
    task: &dyn Task,
    part: Part,
    n: u64,
    batch: usize,
    reading: Reading,
) -> Result<Evaluation> {
    let n = task.len(part).map_or(n, |len| len.min(n));
    let order = Order::once(batch, n)?;
    let mut tally = Tally::default();
    for step in 0..order.steps().unwrap_or(0) {
        let examples: Vec<Example> = order
            .indices(step)
            .iter()
            .map(|i| task.example(part, *i))
            .collect();
        in_pool(|| tally.take(model, &examples, reading))?;
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
        agreement: (reading == Reading::Cached).then(|| tally.alike as f64 / answers),
        probes: tally.probes.into_iter().map(cell).collect(),
    })
}

impl Tally {
    fn take(&mut self, model: &TaskModel, examples: &[Example], reading: Reading) -> Result<()> {
        let batch = Batch::new(examples)?;
        let whole = on_processor(&model.logits(&batch)?)?;
        // What is before the first answer of all texts may be read at once.
        let first = |example: &Example| example.is_answer.iter().position(|is_answer| *is_answer);
        let before = examples.iter().filter_map(first).min().unwrap_or(0);
        let (rows, from) = match reading {
            Reading::Whole => (whole.clone(), 0),
            Reading::Cached => {
                let steps = model.logits_through_caches(&batch, before + 1)?;
                (on_processor(&Tensor::stack(&steps, 1)?)?, before)
            }
        };
        let likely = most_likely(&rows)?;
        let likely_whole = match reading {
            Reading::Whole => likely.clone(),
            Reading::Cached => most_likely(&whole)?,
        };
        let rows: Vec<Vec<Vec<f64>>> = rows.to_vec3()?;
        for (b, example) in examples.iter().enumerate() {
            let mut probes = example.probes.iter();
            for (i, is_answer) in example.is_answer.iter().enumerate() {
                if !is_answer {
                    continue;
                }
                let target = example.text[i + 1];
                let (row, chosen) = (&rows[b][i - from], likely[b][i - from]);
                let is_right = chosen == target;
                self.nats += nats(row, target);
                self.answers += 1;
                self.alike += usize::from(chosen == likely_whole[b][i]);
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

fn on_processor(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
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
