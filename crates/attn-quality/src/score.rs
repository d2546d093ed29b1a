//! The value of a task's measure.

use attn_metrics::{RougeKind, Tokenizer, bleu, exact_match, rouge, single, wer};
use attn_tasks::{Batch, Example, Measure, Order, Part, Task};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, Reading, evaluate};
use crate::model::TaskModel;

/// How good a model is at a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// In what.
    pub measure: Measure,
    /// How much.
    pub value: f64,
    /// What it does given the right tokens before each answer.
    pub given: Evaluation,
}

/// Judges a model on the first `n` examples of a part by the task's measure, as it is used: token by token through its
/// caches. Texts are written greedily.
///
/// # Errors
/// [`Error::Input`] where there is no answer among them.
pub fn score(model: &TaskModel, task: &dyn Task, part: Part, n: u64, batch: usize) -> Result<Score> {
    let measure = task.spec().measure;
    let given = evaluate(model, task, part, n, batch, Reading::Cached)?;
    let value = match measure {
        Measure::ExcessLoss => given.nats - law_nats(task, part, n, given.answers)?,
        Measure::Perplexity => given.nats.exp(),
        Measure::TokenAccuracy => given.accuracy,
        Measure::ExactMatch | Measure::Bleu | Measure::Wer | Measure::RougeL => {
            let (written, right) = texts(model, task, part, n, batch)?;
            match measure {
                Measure::Bleu => bleu(&written, &single(&right), Tokenizer::None)?.score,
                Measure::Wer => 100.0 * wer(&written, &right)?.rate(),
                Measure::RougeL => 100.0 * rouge(&written, &right, RougeKind::L, false)?.f1,
                _ => exact_match(&written, &right)?,
            }
        }
    };
    Ok(Score {
        measure,
        value,
        given,
    })
}

/// Nats an answer under the law that made the examples.
fn law_nats(task: &dyn Task, part: Part, n: u64, answers: usize) -> Result<f64> {
    let n = task.len(part).map_or(n, |len| len.min(n));
    let nats = (0..n).map(|index| task.true_nats(&task.example(part, index)));
    let total: Option<f64> = nats.sum();
    let total = total.ok_or_else(|| Error::input("the law of a task", "unknown", "known for excess loss"))?;
    Ok(total / answers as f64)
}

/// What a model writes, and what it should have.
fn texts(
    model: &TaskModel,
    task: &dyn Task,
    part: Part,
    n: u64,
    batch: usize,
) -> Result<(Vec<String>, Vec<String>)> {
    let spec = task.spec();
    let n = task.len(part).map_or(n, |len| len.min(n));
    let order = Order::once(batch, n)?;
    let (mut written, mut right) = (Vec::new(), Vec::new());
    for step in 0..order.steps().unwrap_or(0) {
        let examples: Vec<Example> = order
            .indices(step)
            .iter()
            .map(|i| task.example(part, *i))
            .collect();
        let packed = Batch::new(&examples)?;
        let prompts = vec![vec![spec.bos]; examples.len()];
        let longest = spec.max_text.saturating_sub(1).max(1);
        for (tokens, example) in model
            .greedy(&packed, prompts, longest, spec.eos)?
            .iter()
            .zip(&examples)
        {
            let whole: Vec<u32> = std::iter::once(spec.bos).chain(tokens.iter().copied()).collect();
            written.push(task.words(&whole).join(" "));
            right.push(task.words(&example.text).join(" "));
        }
    }
    Ok((written, right))
}
