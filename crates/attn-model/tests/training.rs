//! Trainings of an independent implementation (`scripts/reference/make_training.py`), loss by loss.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use attn_core::{Build, Path, Weights};
use attn_model::train::{AdamW, AdamWOptions, Decay, Schedule, cross_entropy};
use candle_core::{DType, Tensor};
use common::*;
use serde_json::Value;

/// A training as a fixture describes it.
struct Training {
    model: FixtureModel,
    options: Value,
}

impl Training {
    fn read(path: &std::path::Path) -> Self {
        let model = FixtureModel::read(path, "attn-training-1");
        let options = serde_json::from_str(&model.metadata["options"]).unwrap();
        Self { model, options }
    }

    fn option(&self, name: &str) -> f64 {
        self.options[name].as_f64().unwrap()
    }

    fn expected(&self, label: &str) -> Vec<f64> {
        let losses: Value = serde_json::from_str(&self.model.metadata["losses"]).unwrap();
        let losses = losses[label].as_array().unwrap();
        losses.iter().map(|loss| loss.as_f64().unwrap()).collect()
    }

    fn optimiser_options(&self) -> AdamWOptions {
        AdamWOptions {
            beta1: self.option("beta1"),
            beta2: self.option("beta2"),
            eps: self.option("eps"),
            weight_decay: self.option("weight_decay"),
            clip_norm: self.option("clip_norm"),
        }
    }

    /// Losses of steps `from..to`, by variables and an optimiser that are taken up.
    fn train(&self, path: Path, vars: &Weights, optimiser: &mut AdamW, from: u64, to: u64) -> Vec<f64> {
        let dtype = vars.iter().next().unwrap().1.dtype();
        let decoder = self.model.config.build(vars, &Build::cpu(path, dtype)).unwrap();
        let schedule = Schedule {
            lr: self.option("lr"),
            warmup: self.option("warmup") as u64,
            steps: self.option("steps") as u64,
            decay: Decay::Cosine,
        };
        let (prefixes, tokens) = (&self.model.tensors["prefixes"], &self.model.tensors["tokens"]);
        let mut losses = Vec::new();
        for step in from..to {
            let batch = step as usize % prefixes.dim(0).unwrap();
            let prefix = prefixes.get(batch).unwrap().to_dtype(dtype).unwrap();
            let text = tokens.get(batch).unwrap().to_dtype(DType::U32).unwrap();
            let t = text.dim(1).unwrap() - 1;
            let (read, targets) = (text.narrow(1, 0, t).unwrap(), text.narrow(1, 1, t).unwrap());
            let logits = decoder
                .forward(Some(&prefix), &read.contiguous().unwrap())
                .unwrap();
            let weights = Tensor::ones(targets.dims(), dtype, targets.device()).unwrap();
            let loss = cross_entropy(&logits, &targets, &weights, self.option("smoothing")).unwrap();
            losses.push(loss.mean.to_dtype(DType::F64).unwrap().to_scalar().unwrap());
            let grads = loss.mean.backward().unwrap();
            optimiser.step(vars, &grads, schedule.at(step)).unwrap();
        }
        losses
    }

    fn steps(&self) -> u64 {
        self.option("steps") as u64
    }
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn losses_are_those_of_pytorch_for_200_steps() {
    let files = fixtures("training-");
    assert!(files.len() >= 6);
    for file in files {
        let training = Training::read(&file);
        let name = file.file_stem().unwrap().to_string_lossy();
        for (path, dtype, label, tolerance) in [
            (Path::Fused, DType::F64, "f64", 1e-6),
            (Path::Fused, DType::F32, "f32", 1e-3),
            (Path::Seedlike, DType::F64, "f64", 1e-6),
        ] {
            let vars = training.model.weights.to_vars(dtype).unwrap();
            let mut optimiser = AdamW::new(training.optimiser_options());
            let losses = training.train(path, &vars, &mut optimiser, 0, training.steps());
            let expected = training.expected(label);
            let gap = worst(&losses, &expected);
            println!("{name} {path} {label}: {gap:.1e}");
            assert!(gap <= tolerance, "{name} {path} {label}: {gap:.1e}");
            assert!(losses[199] < 0.4 * losses[0], "{name}: nothing was learnt");
        }
    }
}

#[test]
fn a_training_that_is_taken_up_goes_on_bit_by_bit() {
    for file in fixtures("training-mtla-s2") {
        let training = Training::read(&file);
        let options = training.optimiser_options();
        let vars = training.model.weights.to_vars(DType::F32).unwrap();
        let mut optimiser = AdamW::new(options);
        let whole = training.train(Path::Fused, &vars, &mut optimiser, 0, 40);

        let vars = training.model.weights.to_vars(DType::F32).unwrap();
        let mut optimiser = AdamW::new(options);
        let first = training.train(Path::Fused, &vars, &mut optimiser, 0, 17);
        // Through a file, as an interrupted training is.
        let dir = tempfile::tempdir().unwrap();
        let (weights_path, state_path) = (dir.path().join("w.safetensors"), dir.path().join("s.safetensors"));
        let save = |weights: &Weights, path: &std::path::Path| {
            let tensors = weights.iter().map(|(name, t)| (name.to_string(), t.clone()));
            let tensors: std::collections::HashMap<_, _> = tensors.collect();
            candle_core::safetensors::save(&tensors, path).unwrap();
        };
        save(&vars, &weights_path);
        save(&optimiser.state(), &state_path);
        let read = |path| Weights::from_safetensors(path, "", &candle_core::Device::Cpu).unwrap();
        let vars = read(&weights_path).to_vars(DType::F32).unwrap();
        let mut optimiser = AdamW::resume(options, optimiser.steps(), &read(&state_path)).unwrap();
        let rest = training.train(Path::Fused, &vars, &mut optimiser, 17, 40);
        assert_eq!([first, rest].concat(), whole);
    }
}
