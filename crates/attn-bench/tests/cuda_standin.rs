//! The whole way to a GPU and back, from a worker through candle and the launchers to the kernels, where the GPU is a
//! stand-in of the tests.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod common;
mod standin;

use std::process::Output;

use attn_harness::row::Row;
use attn_harness::status::{Status, Trust};
use attn_harness::store::Run;
use common::Place;

const SWEEP: &str = "\
name: stand-in
model: {d_model: 32, n_heads: 4}
dtype: DTYPE
variants:
  - mha
  - gqa: {n_kv_heads: 2}
  - mqa
  - mla: {kv_rank: 16, rope_dim: 8}
  - mtla: {kv_rank: 16, rope_dim: 8, stride: [2, 3]}
workloads:
  - decode: {context: 20, batch: 2}
  - prefill: {tokens: 13}
  - generate: {tokens: 9, new_tokens: 4}
  - train_step: {tokens: 13}
measure: {warmup_ms: 1, min_samples: 1, max_samples: 2, max_s: 0.1, ceilings: false}
";

/// One case of a kernel that goes wrong, and one that it does not concern.
const TWO: &str = "\
name: two
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - mla: {kv_rank: 16, rope_dim: 4}
workloads:
  - decode: {context: 20}
measure: {warmup_ms: 1, min_samples: 1, max_samples: 2, max_s: 0.1, ceilings: false}
";

/// Steps in every way in which they are launched and begin; MHA's projections have biases.
const STEPS: &str = "\
name: steps
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - mtla: {kv_rank: 16, rope_dim: 4, stride: [1, 2, 3]}
launches: [graph, eager]
regimes: [hot, cold]
scopes: [layer, op]
workloads:
  - decode: {context: 16, batch: 2}
measure: {warmup_ms: 1, min_samples: 1, max_samples: 2, max_s: 0.1, ceilings: false}
";

const MEMORY: &str = "\
name: memory
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - mtla: {kv_rank: 16, rope_dim: 4, stride: 2}
regimes: [hot, cold]
workloads:
  - decode: {context: 20, batch: 2}
  - prefill: {tokens: 9}
measure: {warmup_ms: 1, min_samples: 1, max_samples: 2, max_s: 0.1}
";

fn run(place: &Place, device: &str, settings: &[(&str, &str)]) -> Option<(Output, Vec<Row>)> {
    let mut command = standin::command()?;
    let output = command
        .current_dir(place.path())
        .envs(settings.iter().copied())
        .args(["run", "sweep.yaml", "--out", "r", "--device", device])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let rows = Run::open(&place.path().join("r"))
        .unwrap_or_else(|_| panic!("{said}"))
        .rows;
    Some((output, rows))
}

/// The rows of two cases, of which kernels go wrong as planted: MHA's, then MLA's.
fn planted(plant: &str) -> Option<(Output, Row, Row)> {
    let (output, mut rows) = run(&Place::with(TWO), "cuda:0", &[("ATTN_STANDIN_PLANT", plant)])?;
    assert_eq!(rows.len(), 2);
    rows.sort_by_key(|row| row.variant.clone());
    let (mla, mha) = (rows.pop().unwrap(), rows.pop().unwrap());
    Some((output, mha, mla))
}

fn is_by_kernels(row: &Row) -> bool {
    row.status == Status::Ok
        && row.path_resolved.as_deref() == Some("fused")
        && row.trust != Some(Trust::Fallback)
}

fn is_composed(row: &Row, why: &str) -> bool {
    row.status == Status::Ok
        && row.path_resolved.as_deref() == Some("fused (composite)")
        && row.trust == Some(Trust::Fallback)
        && row
            .trust_reason
            .as_ref()
            .is_some_and(|reason| reason.contains(why))
}

#[test]
fn doctor_sees_the_gpus() {
    let Some(mut command) = standin::command() else {
        return;
    };
    let output = command
        .env("ATTN_STANDIN_DEVICES", "2")
        .arg("doctor")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in [
        "cuda:0 ok Stand-in GPU 0, compute capability 9.0",
        "cuda:1 ok Stand-in GPU 1",
    ] {
        let found = text.lines().any(|found| {
            let words: Vec<&str> = found.split_whitespace().collect();
            words.join(" ").starts_with(line)
        });
        assert!(found, "{line}: {text}");
    }
}

/// Kernels are used where there are any, and agree with the reference; nothing is asked of the driver that it refuses.
fn a_sweep_measures_everything(dtype: &str) {
    let place = Place::with(&SWEEP.replace("DTYPE", dtype));
    let log = place.path().join("refused");
    let Some((output, rows)) = run(&place, "cuda:0", &[("ATTN_STANDIN_LOG", log.to_str().unwrap())]) else {
        return;
    };
    let refused = std::fs::read_to_string(log).unwrap_or_default();
    assert!(refused.is_empty(), "{refused}");
    assert_eq!(rows.len(), 24);
    for row in &rows {
        let case = format!(
            "{} {}: {:?} {:?}",
            row.label, row.workload, row.reason, row.trust_reason
        );
        assert_eq!(row.device_resolved.as_deref(), Some("cuda:0"), "{case}");
        assert!(is_by_kernels(row), "{case}");
        assert_eq!(row.time_clock.as_deref(), Some("event"), "{case}");
        let launch = (row.workload == "decode").then_some("graph");
        assert_eq!(row.launch_resolved.as_deref(), launch, "{case}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_sweep_in_f32_measures_everything() {
    a_sweep_measures_everything("f32");
}

#[test]
fn a_sweep_in_bf16_measures_everything() {
    a_sweep_measures_everything("bf16");
}

#[test]
fn steps_are_replayed_or_launched_and_begin_hot_or_cold() {
    let place = Place::with(STEPS);
    let Some((output, rows)) = run(&place, "cuda:0", &[]) else {
        return;
    };
    assert_eq!((output.status.code(), rows.len()), (Some(0), 32));
    for row in &rows {
        let case = format!("{} {}: {:?} {:?}", row.label, row.scope, row.reason, row.notes);
        assert!(is_by_kernels(row), "{case}");
        assert_eq!(row.launch_resolved, row.launch_requested, "{case}");
        let bytes = row.flush_bytes.unwrap_or(0);
        let is_cold = row.cache_regime.as_deref() == Some("cold");
        // Copies are more than twice the stand-in's cache of 1 MiB together.
        assert_eq!(bytes >= 2 << 20, is_cold, "{case}: {bytes}");
    }
}

#[test]
fn rows_of_a_gpu_have_its_ceilings_its_flushes_and_its_memory() {
    let place = Place::with(MEMORY);
    let Some((_, rows)) = run(&place, "cuda:0", &[]) else {
        return;
    };
    assert_eq!(rows.len(), 8);
    for row in &rows {
        assert_eq!(row.status, Status::Ok, "{:?}", row.reason);
        let nulls = row.null_reasons();
        // The stand-in's L2 cache is 1 MiB.
        assert_eq!(row.llc_bytes, Some(1 << 20));
        let is_cold = row.cache_regime.as_deref() == Some("cold");
        match row.workload.as_str() {
            // Copies take turns, and are more than twice the cache together.
            "decode" => assert_eq!(row.flush_bytes.is_some_and(|bytes| bytes >= 2 << 20), is_cold),
            _ => assert_eq!(row.flush_bytes, is_cold.then_some(2 << 20)),
        }
        assert!(
            row.ceiling_bytes_per_s
                .is_some_and(|rate| rate > 1e6 && rate < 1e14),
            "{nulls:?}"
        );
        assert!(
            row.ceiling_flops_per_s.is_some_and(|rate| rate > 1e5),
            "{nulls:?}"
        );
        assert!(row.launch_overhead_s.is_some() && row.time_over_floor.is_some());
        // What the case needs is counted, and of what its siblings need only what the pool keeps for all.
        let peak = row.peak_bytes.unwrap();
        let least = row.weights_bytes.unwrap() + row.kv_allocated_bytes.unwrap_or(0);
        assert!(peak >= least && peak < least + (1 << 20), "{peak} for {least}");
        assert!(row.peak_build_bytes.unwrap() >= least);
        assert!(row.peak_verify_bytes.unwrap() >= least);
        for reserved in [
            row.reserved_peak_bytes,
            row.reserved_peak_build_bytes,
            row.reserved_peak_verify_bytes,
        ] {
            assert!(reserved.unwrap() >= least, "{nulls:?}");
        }
        assert!(row.graph_peak_bytes.is_some() && row.graph_reserved_peak_bytes.is_some());
        assert!(!nulls.contains_key("peak_bytes") && !nulls.contains_key("graph_peak_bytes"));
    }
    // No case ran on the processor, so nobody measured it.
    let run = Run::open(&place.path().join("r")).unwrap();
    let ceilings = run.environment["sessions"][0]["ceilings"].as_object().unwrap();
    assert_eq!(ceilings.keys().collect::<Vec<_>>(), ["cuda:0"]);
    assert_eq!(ceilings["cuda:0"]["buffer_bytes"], 10 << 20);
}

#[test]
fn the_suite_passes() {
    let Some(mut command) = standin::command() else {
        return;
    };
    let output = command
        .args([
            "verify", "--device", "cuda:0", "--dtype", "f32", "--path", "fused",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" passed, 0 failed"), "{text}");
    // Slots that no kernel reads are composed; all others have one.
    let mut composed = text.lines().filter(|line| line.contains(": decode: "));
    assert!(composed.all(|line| line.contains("a tail or factors")), "{text}");
}

#[test]
fn the_second_gpu_has_memory_and_kernels_of_its_own() {
    let Some((_, rows)) = run(&Place::with(TWO), "cuda:1", &[("ATTN_STANDIN_DEVICES", "2")]) else {
        return;
    };
    assert!(rows.iter().all(is_by_kernels), "{rows:?}");
    assert!(
        rows.iter()
            .all(|row| row.device_resolved.as_deref() == Some("cuda:1"))
    );
}

#[test]
fn a_kernel_that_is_wrong_is_found_and_not_used() {
    for plant in [
        "spoil:latent_decode",
        "spoil:cache_update",
        "refuse:latent_decode",
    ] {
        let Some((output, mha, mla)) = planted(plant) else {
            return;
        };
        assert_eq!(output.status.code(), Some(0), "{plant}");
        assert!(is_by_kernels(&mha), "{plant}: {:?}", mha.trust_reason);
        let why = match plant {
            "spoil:latent_decode" => "decode step is composed: it ",
            "spoil:cache_update" => "decode step is composed: it differs from another implementation",
            _ => "decode step is composed: latent_decode: ",
        };
        assert!(is_composed(&mla, why), "{plant}: {:?}", mla.trust_reason);
    }
}

#[test]
fn a_kernel_that_breaks_the_gpu_costs_its_own_case_alone() {
    // While it is tried, while its case is verified or measured, and one that takes the process with it.
    for (plant, reason) in [
        ("fault:latent_decode", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("fault:latent_decode@4", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("die:latent_decode", "signal 6"),
    ] {
        let Some((output, mha, mla)) = planted(plant) else {
            return;
        };
        assert_eq!(output.status.code(), Some(3), "{plant}");
        assert!(is_by_kernels(&mha), "{plant}: {:?}", mha.trust_reason);
        assert_eq!(mla.status, Status::Crash, "{plant}");
        assert!(
            mla.reason.as_ref().unwrap().contains(reason),
            "{plant}: {:?}",
            mla.reason
        );
    }
}
