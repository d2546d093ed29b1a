//! Trainings of every variant on small tasks: left and taken up, diverged, and used through their caches.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use attn_core::{Build, LayerConfig, ModelDims, ParamValue, Params, Path, Variant};
use attn_model::train::AdamWOptions;
use attn_quality::{
    End, ModelSizes, Reading, TaskModelConfig, Trainer, TrainingOptions, check, evaluate, score,
};
use attn_tasks::{Batch, Part, Task, TaskConfig};
use candle_core::{D, DType};

const DIMS: ModelDims = ModelDims {
    d_model: 32,
    n_heads: 4,
    head_dim: 8,
};
const SIZES: ModelSizes = ModelSizes {
    n_layers: 2,
    d_ff: 64,
    encoder_layers: 1,
    encoder_kernel: 3,
    downsample: 1,
};
static VARIANTS: [&Variant; 5] = [
    &attn_mha::VARIANT,
    &attn_gqa::VARIANT,
    &attn_mqa::VARIANT,
    &attn_mla::VARIANT,
    &attn_mtla::VARIANT,
];

fn attention(variant: &Variant) -> Arc<dyn LayerConfig> {
    let mut params = Params::default();
    for (name, value) in [("n_kv_heads", 2), ("kv_rank", 16), ("rope_dim", 4), ("stride", 2)] {
        if variant.param(name).is_ok() {
            params = params.with(name, ParamValue::Int(value));
        }
    }
    variant.configure(&DIMS, &params).unwrap().into()
}

fn task(text: &str) -> Box<dyn Task> {
    serde_json::from_str::<TaskConfig>(text).unwrap().build().unwrap()
}

fn small() -> [Box<dyn Task>; 2] {
    [
        task(r#"{"copy": {"symbols": 8, "tokens": {"min": 6, "max": 7}}}"#),
        task(r#"{"summarisation": {}}"#),
    ]
}

fn options(steps: u64) -> TrainingOptions {
    TrainingOptions {
        steps,
        batch: 4,
        warmup: 5,
        eval_every: 10,
        eval_examples: 8,
        average: 2,
        ..TrainingOptions::default()
    }
}

fn build() -> Build {
    Build::cpu(Path::Fused, DType::F32)
}

#[test]
fn a_training_that_is_left_goes_on_bit_by_bit() {
    for task in small() {
        let config = TaskModelConfig::new(&task.spec(), attention(&attn_mtla::VARIANT), &SIZES);
        let new = || Trainer::new(task.as_ref(), config.clone(), options(30), 7, &build()).unwrap();
        let mut whole = new();
        assert_eq!(whole.train_to(u64::MAX).unwrap(), Some(End::Done));
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("checkpoint");
        let mut first = new();
        assert_eq!(first.train_to(13).unwrap(), None);
        first.save(&dir).unwrap();
        first.train_to(17).unwrap(); // lost
        drop(first);
        let taken_up = || Trainer::resume(&dir, task.as_ref(), config.clone(), options(30), 7, &build());
        let mut rest = taken_up().unwrap();
        assert_eq!(rest.step(), 13);
        rest.train_to(u64::MAX).unwrap();
        assert_eq!(rest.curve(), whole.curve());
        // Left once more, at its end: there is nothing to do.
        rest.save(&dir).unwrap();
        let ended = taken_up().unwrap();
        assert_eq!((ended.end(), ended.step()), (Some(End::Done), 30));
        let values = |trainer: &Trainer| -> Vec<(String, Vec<f32>)> {
            let trained = trainer.trained().unwrap();
            let flat = trained
                .iter()
                .map(|(name, t)| (name.to_string(), t.flatten_all().unwrap().to_vec1().unwrap()));
            flat.collect()
        };
        assert_eq!(values(&rest), values(&whole));
        let other = Trainer::resume(&dir, task.as_ref(), config.clone(), options(31), 7, &build());
        assert!(other.err().unwrap().to_string().contains("other options"));
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_a_training() {
    let [task, _] = small();
    let config = TaskModelConfig::new(&task.spec(), attention(&attn_mha::VARIANT), &SIZES);
    // In an update, or in the evaluation after it.
    for eval_every in [10, 1] {
        let options = TrainingOptions {
            lr: 1e30,
            warmup: 0,
            eval_every,
            adamw: AdamWOptions {
                clip_norm: 0.0,
                ..AdamWOptions::default()
            },
            ..options(50)
        };
        let mut trainer = Trainer::new(task.as_ref(), config.clone(), options, 7, &build()).unwrap();
        let end = trainer.train_to(u64::MAX).unwrap();
        assert!(matches!(end, Some(End::Diverged(step)) if step < 10), "{end:?}");
        assert_eq!(trainer.train_to(u64::MAX).unwrap(), end);
        // Logs are JSON, which has no other numbers.
        assert!(trainer.curve().iter().all(|point| point.valid_nats.is_finite()));
    }
}

/// Every variant learns, and writes token by token through its cache what one pass over the whole text says.
#[test]
fn trained_models_write_through_their_caches_what_they_were_trained_to() {
    for task in small() {
        let spec = task.spec();
        for variant in VARIANTS {
            let config = TaskModelConfig::new(&spec, attention(variant), &SIZES);
            let mut trainer = Trainer::new(task.as_ref(), config, options(150), 3, &build()).unwrap();
            let before = evaluate(
                &trainer.model().unwrap(),
                task.as_ref(),
                Part::Valid,
                8,
                4,
                Reading::Whole,
            )
            .unwrap();
            trainer.train_to(u64::MAX).unwrap();
            let model = trainer.model().unwrap();
            let after = evaluate(&model, task.as_ref(), Part::Valid, 8, 4, Reading::Whole).unwrap();
            assert!(
                after.nats < 0.9 * before.nats,
                "{}: {} to {}",
                variant.key,
                before.nats,
                after.nats
            );
            let tested = score(&model, task.as_ref(), Part::Test, 8, 4).unwrap();
            assert!(tested.value.is_finite());
            assert_eq!(tested.given.agreement, Some(1.0), "{}", variant.key);
            let batch = Batch::of(task.as_ref(), Part::Test, &[0, 1, 2]).unwrap();
            let new_tokens = 9;
            let begin = |b: usize| vec![batch.inputs[b * batch.tokens]];
            let prompts: Vec<Vec<u32>> = (0..batch.batch).map(begin).collect();
            let written = model.greedy(&batch, prompts.clone(), new_tokens, None).unwrap();
            // The same texts in one pass.
            let texts: Vec<Vec<u32>> = prompts
                .iter()
                .zip(&written)
                .map(|(p, w)| [p.clone(), w.clone()].concat())
                .collect();
            let whole = Batch {
                tokens: new_tokens,
                inputs: texts
                    .iter()
                    .flat_map(|text| text[..new_tokens].to_vec())
                    .collect(),
                targets: texts.iter().flat_map(|text| text[1..].to_vec()).collect(),
                weights: vec![1.0; batch.batch * new_tokens],
                text_lens: vec![new_tokens; batch.batch],
                ..batch.clone()
            };
            let likely: Vec<Vec<u32>> = model
                .logits(&whole)
                .unwrap()
                .argmax(D::Minus1)
                .unwrap()
                .to_vec2()
                .unwrap();
            assert_eq!(likely, written, "{}", variant.key);
        }
    }
}

/// What training computes is what a plain formulation computes in f64, gradients included, for every variant.
#[test]
fn models_and_their_gradients_agree_with_a_plain_formulation() {
    for task in small() {
        for variant in VARIANTS {
            let config = TaskModelConfig::new(&task.spec(), attention(variant), &SIZES);
            for path in [Path::Fused, Path::Seedlike] {
                let found = check(task.as_ref(), &config, 3, &Build::cpu(path, DType::F32)).unwrap();
                let key = variant.key;
                assert!(found.rows > 0);
                assert!(
                    found.logits < 1e-5 && found.gradients < 1e-4,
                    "{key} {path}: {found:?}"
                );
            }
            let exact = check(task.as_ref(), &config, 3, &Build::cpu(Path::Fused, DType::F64)).unwrap();
            assert!(
                exact.logits < 1e-12 && exact.gradients < 1e-10,
                "{}: {exact:?}",
                variant.key
            );
        }
    }
}
