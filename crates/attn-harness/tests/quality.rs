//! The workload `quality` from its words to its cases: what is trained, and what is wrong before anything is.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod fake;

use attn_harness::{Plan, Sweep};
use fake::setup;

const MODEL: &str = "name: q\nmodel: {d_model: 32, n_heads: 2, n_layers: 2}\n\
                     variants: [full: {}, merged: {kv_rank: 16, rope_dim: 4}]\n";

fn plan(rest: &str) -> Plan {
    fake::plan(&format!("{MODEL}{rest}"))
}

#[test]
fn a_case_for_each_variant_task_and_setting() {
    let plan = plan(
        "workloads:\n  - quality: {task: [copy, hard], steps: 20, downsample: 1}\n  - decode: {context: 64}\n\
         tasks: {hard: {recall: {pairs: {min: 8, max: 10}, tokens: 96}}}\ntraining: {seeds: 2, average: 3}\nseed: 7\n",
    );
    let trained: Vec<_> = plan.cases.iter().filter(|case| case.quality.is_some()).collect();
    assert_eq!((plan.cases.len(), trained.len()), (6, 4));
    let names: Vec<_> = trained
        .iter()
        .map(|case| case.cell("task").unwrap().into_owned())
        .collect();
    assert_eq!(names, ["copy", "copy", "hard", "hard"]);
    let quality = trained[3].quality.as_ref().unwrap();
    assert_eq!(quality.training.seeds, [7, 8]);
    assert_eq!(
        (quality.training.options.average, quality.training.options.steps),
        (3, 20)
    );
    assert_eq!(trained[3].workload_name(), "quality");
    // 97 tokens of which the last enters no cache: 48 slots of rank 16 and 4 in two layers.
    assert_eq!(trained[3].kv_bytes, 2 * 48 * (16 + 4) * 4);
    let groups: Vec<usize> = plan.cases.iter().map(|case| case.group).collect();
    assert_eq!(groups, [0, 0, 1, 2, 3, 4]);
}

#[test]
fn every_model_is_trained_at_every_learning_rate() {
    let plan = plan("workloads: [quality: {task: copy, steps: 20}]\ntraining: {lr: [0.001, 0.003, 0.01]}\n");
    let rates: Vec<(&str, f64)> = plan
        .cases
        .iter()
        .map(|case| {
            (
                case.variant.key,
                case.quality.as_ref().unwrap().training.options.lr,
            )
        })
        .collect();
    assert_eq!(
        rates,
        [
            ("full", 0.001),
            ("merged", 0.001),
            ("full", 0.003),
            ("merged", 0.003),
            ("full", 0.01),
            ("merged", 0.01)
        ]
    );
    assert_eq!(plan.totals(&Default::default()).points, 3);
    let mut ids: Vec<_> = plan.cases.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn what_defines_a_training_is_in_its_id() {
    let id = |rest: &str| {
        plan(&format!(
            "workloads: [quality: {{task: copy, steps: 20}}]\n{rest}"
        ))
        .cases[0]
            .id
            .clone()
    };
    let usual = id("");
    assert_eq!(id("training: {threads: 2}\n"), usual);
    for other in [
        "training: {lr: 0.5}\n",
        "training: {seeds: 4}\n",
        "tasks: {copy: {copy: {symbols: 9}}}\n",
        "seed: 1\n",
    ] {
        assert_ne!(id(other), usual, "{other}");
    }
}

#[test]
fn what_cannot_be_trained_is_bad_input() {
    for (rest, expected) in [
        (
            "workloads: [quality: {steps: 5}]\n",
            "`workloads[0].quality.task` is missing",
        ),
        ("workloads: [quality: {task: recal}]\n", "unknown task `recal`"),
        (
            "workloads: [quality: {task: copy, steps: 0}]\n",
            "`workloads[0].quality.steps` is 0",
        ),
        (
            "workloads: [quality: {task: copy, epochs: 1}]\n",
            "unknown setting of quality: `epochs`",
        ),
        (
            "workloads: [quality: {task: copy, downsample: 2}]\n",
            "has no source",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {lr: -1}\n",
            "`training.lr` is -1",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {lr: [0.001, 0, 0.003]}\n",
            "`training.lr[1]` is 0, expected a positive number",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {lr: [0.001, 0.002, 0.001]}\n",
            "`training.lr` lists 0.001 twice",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {lr: []}\n",
            "`training.lr` is an empty list",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {lr: fast}\n",
            "`training.lr` is the word \"fast\", expected a number",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {seeds: 0}\n",
            "`training.seeds` is 0",
        ),
        (
            "workloads: [quality: {task: copy}]\ntraining: {label_smoothing: 1.0}\n",
            "`training.label_smoothing` is 1",
        ),
        (
            "workloads: [quality: {task: recall}]\ntasks: {recall: {recall: {pairs: {min: 30, max: 30}}}}\n",
            "task `recall` cannot be used",
        ),
        (
            "workloads: [quality: {task: mine}]\ntasks: {mine: {text: {train: no.txt, valid: no.txt, test: no.txt, tokenizer: {train: 300}}}}\n",
            "no.txt",
        ),
        (
            "workloads: [decode: {context: 8}]\ntraining: {lr: 0.1}\n",
            "`workloads` has no quality",
        ),
        (
            "workloads: [quality: {task: copy}, quality: {task: copy}]\n",
            "both give quality of copy",
        ),
    ] {
        let found = fake::problems(&format!("{MODEL}{rest}"), &[]).join("\n");
        assert!(found.contains(expected), "{rest}: {found}");
    }
}

#[test]
fn a_vocabulary_larger_than_the_models_is_named_with_both_keys() {
    let model = MODEL.replace("n_layers: 2", "n_layers: 2, vocab: 5");
    let found = fake::problems(&format!("{model}workloads: [quality: {{task: copy}}]\n"), &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`model.vocab` is 5"), "{found:?}");
    assert!(
        found[0].contains("(vocab)") && found[0].contains("(task)"),
        "{found:?}"
    );
}

#[test]
fn paths_of_data_begin_beside_the_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..60)
        .map(|i| format!("line {i} of a text that repeats\n"))
        .collect();
    for part in ["train", "valid", "test"] {
        std::fs::write(folder.path().join(format!("{part}.txt")), &lines).unwrap();
    }
    let rest = "workloads: [quality: {task: mine, steps: 5}]\n\
                tasks: {mine: {text: {train: train.txt, valid: valid.txt, test: test.txt, tokenizer: {train: 280}, block: 16}}}\n";
    let path = folder.path().join("sweep.yaml");
    let sweep = Sweep::parse(&path, format!("{MODEL}{rest}"), &[]).unwrap();
    let plan = Plan::build(&sweep, &setup()).unwrap();
    assert_eq!(plan.base, folder.path());
    assert_eq!(
        plan.cases[0].quality.as_ref().unwrap().training.vocab,
        plan.cases[0].model.unwrap().vocab
    );
}
