//! A training, step by step.

use std::path::Path;

use attn_core::{Build, Weights, in_pool};
use attn_model::train::{AdamW, AdamWOptions, Decay, Schedule, cross_entropy};
use attn_tasks::{Batch, Order, Part, Task};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, Reading, evaluate};
use crate::model::{TaskModel, TaskModelConfig};

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingOptions {
    /// Updates.
    pub steps: u64,
    /// Examples of an update.
    pub batch: usize,
    /// The highest learning rate.
    pub lr: f64,
    /// Steps in which it rises.
    pub warmup: u64,
    /// How it falls.
    pub decay: Decay,
    /// Share of a target that is spread over the vocabulary.
    pub label_smoothing: f64,
    /// The optimiser.
    pub adamw: AdamWOptions,
    /// Steps between two evaluations on the validation part.
    pub eval_every: u64,
    /// Examples of such an evaluation.
    pub eval_examples: u64,
    /// The best checkpoints whose weights are averaged at the end, as the paper averages ten; 1 takes the best, 0 the last.
    pub average: usize,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch: 16,
            lr: 2e-3,
            warmup: 50,
            decay: Decay::Cosine,
            label_smoothing: 0.0,
            adamw: AdamWOptions::default(),
            eval_every: 100,
            eval_examples: 64,
            average: 0,
        }
    }
}

impl TrainingOptions {
    /// Checks them by themselves.
    ///
    /// # Errors
    /// [`Error::Input`] names the first one that is out of range.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [
            ("steps", self.steps),
            ("batch", self.batch as u64),
            ("eval_every", self.eval_every),
            ("eval_examples", self.eval_examples),
        ];
        if let Some((what, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::input(what, 0, "at least 1"));
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(Error::input("lr", self.lr, "a positive number"));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(Error::input(
                "label_smoothing",
                self.label_smoothing,
                "0 to below 1",
            ));
        }
        Ok(())
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            lr: self.lr,
            warmup: self.warmup,
            steps: self.steps,
            decay: self.decay,
        }
    }
}

/// What an evaluation found on the way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Updates before it.
    pub step: u64,
    /// Mean training loss of the updates since the point before, in nats a token, smoothing included.
    pub train_loss: f64,
    /// Loss on the validation part, in nats a token.
    pub valid_nats: f64,
    /// Share of its answers that are the most likely token.
    pub valid_accuracy: f64,
    /// Largest norm of the gradients since the point before.
    pub grad_norm: f64,
}

/// How a training stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All steps are done.
    Done,
    /// A loss or a gradient was not finite at a step.
    Diverged(u64),
}

/// What is kept of a training beside its tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    seed: u64,
    options: TrainingOptions,
    step: u64,
    /// Sum and number of losses since the last point, and their largest gradient.
    since: (f64, u64, f64),
    curve: Vec<CurvePoint>,
    diverged: Option<u64>,
    /// Seconds spent, as its caller counts them.
    spent_s: f64,
    /// Losses of the best checkpoints, whose weights are `best.<i>.<name>`.
    best: Vec<f64>,
}

/// A training that can be left and taken up anywhere: what a step does is a function of the seed, the step and the weights.
pub struct Trainer<'a> {
    task: &'a dyn Task,
    config: TaskModelConfig,
    build: Build,
    order: Order,
    weights: Weights,
    /// Over the variables: it sees every update.
    model: TaskModel,
    optimiser: AdamW,
    state: State,
    best: Vec<Weights>,
}

impl<'a> Trainer<'a> {
    /// A training from its beginning. `seed` draws the weights and the order of the data.
    ///
    /// # Errors
    /// [`Error::Input`] where options are out of range or the task has no examples.
    pub fn new(
        task: &'a dyn Task,
        config: TaskModelConfig,
        options: TrainingOptions,
        seed: u64,
        build: &Build,
    ) -> Result<Self> {
        options.check()?;
        let weights = Weights::seeded(&config.weight_specs(), seed)?;
        let state = State {
            seed,
            options,
            step: 0,
            since: (0.0, 0, 0.0),
            curve: Vec::new(),
            diverged: None,
            spent_s: 0.0,
            best: Vec::new(),
        };
        Self::over(
            task,
            config,
            build,
            &weights,
            AdamW::new(options.adamw),
            state,
            Vec::new(),
        )
    }

    /// The training that was kept in a folder, or a new one where there is none.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it cannot be read; [`Error::Input`] where it is another training.
    pub fn resume(
        dir: &Path,
        task: &'a dyn Task,
        config: TaskModelConfig,
        options: TrainingOptions,
        seed: u64,
        build: &Build,
    ) -> Result<Self> {
        let Some(Checkpoint {
            weights,
            optimiser,
            state,
        }) = Checkpoint::<State>::load(dir)?
        else {
            return Self::new(task, config, options, seed, build);
        };
        if (state.options, state.seed) != (options, seed) {
            return Err(Error::input(
                "the checkpoint",
                "of other options or another seed",
                "one of this training, or an empty folder",
            ));
        }
        let part = |prefix: &str, of: &Weights| -> Weights {
            of.iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())))
                .collect()
        };
        let best = (0..state.best.len()).map(|i| part(&format!("best.{i}."), &weights));
        let best = best.collect();
        let last = part("last.", &weights);
        let optimiser = AdamW::resume(options.adamw, state.step, &optimiser)?;
        Self::over(task, config, build, &last, optimiser, state, best)
    }

    fn over(
        task: &'a dyn Task,
        config: TaskModelConfig,
        build: &Build,
        weights: &Weights,
        optimiser: AdamW,
        state: State,
        best: Vec<Weights>,
    ) -> Result<Self> {
        // Kept in f32 (f64) whatever the layers compute in: a small update is lost in half precision.
        let kept = match build.dtype {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let weights = weights.to_vars(kept)?;
        Ok(Self {
            order: Order::new(state.seed, state.options.batch, task.len(Part::Train))?,
            model: config.build(&weights, build)?,
            build: build.clone(),
            task,
            config,
            weights,
            optimiser,
            state,
            best,
        })
    }

    /// Keeps the training as it stands.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        let named = |prefix: String, weights: &Weights| -> Vec<(String, Tensor)> {
            let named = |(name, tensor): (&str, &Tensor)| (format!("{prefix}{name}"), tensor.clone());
            weights.iter().map(named).collect()
        };
        let best = self.best.iter().enumerate();
        let best = best.flat_map(|(i, weights)| named(format!("best.{i}."), weights));
        Checkpoint {
            weights: named("last.".to_string(), &self.weights)
                .into_iter()
                .chain(best)
                .collect(),
            optimiser: self.optimiser.state(),
            state: self.state.clone(),
        }
        .save(dir)
    }

    /// Trains until `step` updates are done, or it diverges, and evaluates on the way.
    ///
    /// # Errors
    /// Those of the model and the data.
    pub fn train_to(&mut self, step: u64) -> Result<Option<End>> {
        let last = step.min(self.state.options.steps);
        while self.state.step < last && self.state.diverged.is_none() {
            in_pool(|| self.update())?;
        }
        Ok(self.end())
    }

    /// How it ended, where it has.
    pub fn end(&self) -> Option<End> {
        match self.state.diverged {
            Some(step) => Some(End::Diverged(step)),
            None if self.state.step == self.state.options.steps => Some(End::Done),
            None => None,
        }
    }

    /// Whether the next update is followed by an evaluation.
    pub fn evaluates_next(&self) -> bool {
        let (next, options) = (self.state.step + 1, &self.state.options);
        next % options.eval_every == 0 || next == options.steps
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Counts seconds that were spent on it, over all the processes that it went through.
    pub fn spend(&mut self, seconds: f64) {
        self.state.spent_s += seconds;
    }

    /// All of those.
    pub fn spent_s(&self) -> f64 {
        self.state.spent_s
    }

    /// What evaluations found so far.
    pub fn curve(&self) -> &[CurvePoint] {
        &self.state.curve
    }

    /// The trained weights: the last ones, or the mean of the best.
    ///
    /// # Errors
    /// [`attn_core::Error::Candle`] where memory runs out.
    pub fn trained(&self) -> Result<Weights> {
        if self.best.is_empty() {
            return Ok(detached(&self.weights));
        }
        let n = self.best.len() as f64;
        let mean = |(name, last): (&str, &Tensor)| -> Result<(String, Tensor)> {
            let mut sum = last.zeros_like()?.detach();
            for weights in &self.best {
                sum = (sum + weights.get(name, last.dims())?)?;
            }
            Ok((name.to_string(), (sum / n)?))
        };
        self.weights.iter().map(mean).collect()
    }

    /// A model with the trained weights, as it would be used.
    ///
    /// # Errors
    /// As of [`trained`](Self::trained).
    pub fn model(&self) -> Result<TaskModel> {
        self.config.build(&self.trained()?, &self.build)
    }

    fn update(&mut self) -> Result<()> {
        let options = self.state.options;
        let step = self.state.step;
        let batch = Batch::of(self.task, Part::Train, &self.order.indices(step))?;
        let shape = (batch.batch, batch.tokens);
        let logits = self.model.logits(&batch)?;
        let targets = Tensor::from_slice(&batch.targets, shape, &Device::Cpu)?.to_device(logits.device())?;
        let weights = Tensor::from_slice(&batch.weights, shape, &Device::Cpu)?.to_device(logits.device())?;
        let loss = cross_entropy(&logits, &targets, &weights, options.label_smoothing)?;
        let mean: f64 = loss.mean.to_dtype(DType::F64)?.to_scalar()?;
        let grads = loss.mean.backward()?;
        let norm = self
            .optimiser
            .step(&self.weights, &grads, options.schedule().at(step))?;
        if !(mean.is_finite() && norm.is_finite()) {
            self.state.diverged = Some(step);
            return Ok(());
        }
        let (sum, n, most) = self.state.since;
        self.state.since = (sum + mean, n + 1, most.max(norm));
        let is_due = self.evaluates_next();
        self.state.step += 1;
        if is_due {
            self.look()?;
        }
        Ok(())
    }

    /// Evaluates on the validation part, and keeps the weights where they are among the best.
    fn look(&mut self) -> Result<()> {
        let options = self.state.options;
        let now = detached(&self.weights);
        let model = self.config.build(&now, &self.build)?;
        let Evaluation { nats, accuracy, .. } = evaluate(
            &model,
            self.task,
            Part::Valid,
            options.eval_examples,
            options.batch,
            Reading::Whole,
        )?;
        let (sum, n, grad_norm) = std::mem::take(&mut self.state.since);
        // No point of the curve: JSON has no word for such a loss.
        if !nats.is_finite() {
            self.state.diverged = Some(self.state.step);
            return Ok(());
        }
        self.state.curve.push(CurvePoint {
            step: self.state.step,
            train_loss: sum / n.max(1) as f64,
            valid_nats: nats,
            valid_accuracy: accuracy,
            grad_norm,
        });
        if options.average == 0 {
            return Ok(());
        }
        let place = self.state.best.partition_point(|best| *best <= nats);
        if place < options.average {
            // A copy: variables change where they are.
            let copies = now
                .iter()
                .map(|(name, tensor)| Ok((name.to_string(), tensor.copy()?)));
            self.best.insert(place, copies.collect::<Result<_>>()?);
            self.state.best.insert(place, nats);
            self.best.truncate(options.average);
            self.state.best.truncate(options.average);
        }
        Ok(())
    }
}

/// The same values, without gradients: layers may then keep what they make of them.
fn detached(weights: &Weights) -> Weights {
    weights
        .iter()
        .map(|(name, tensor)| (name.to_string(), tensor.detach()))
        .collect()
}
