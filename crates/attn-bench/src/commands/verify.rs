//! `verify`: every variant against independent implementations, or against what must hold of any layer.

use std::path::{Path, PathBuf};

use attn_core::ops::{self, Fallback};
use attn_core::{ModelDims, ParamKind, ParamValue, Params, Variant};
use attn_harness::device;
use attn_testkit::{Check, ConformanceFile, Outcome, Pair, Report};
use candle_core::{DType, Device};
use serde_json::json;

use crate::cli::{Format, VerifyArgs};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json, table};
use crate::registry::VARIANTS;

/// Runs the conformance files, or the built-in suite.
pub fn execute(args: &VerifyArgs) -> Result<Exit, Failure> {
    let resolved = device::require(args.device)?;
    let device = resolved.open().map_err(|error| attn_harness::Error::Device {
        device: args.device,
        error,
    })?;
    let pairs = pairs(args);
    let report = if args.files.is_empty() {
        suite(&pairs, &device)?
    } else {
        files(&args.files, &pairs, &device)?
    };
    // Only a GPU has any: there the suite says nothing of a kernel that did not take part.
    let composed = ops::fallbacks();
    if args.format.format == Format::Json {
        let mut record = json!({ "passed": report.passed(), "checks": report.checks.iter().map(record).collect::<Vec<_>>() });
        if !composed.is_empty() {
            record["composed"] = composed.iter().map(fallback_record).collect();
        }
        print_json(&record)?;
    } else {
        print(&(show(&report) + &show_fallbacks(&composed)))?;
    }
    Ok(if report.passed() {
        Exit::Done
    } else {
        Exit::CheckFailed
    })
}

/// The paths and dtypes asked for. f64 serves the built-in suite alone, so it is part of none that was asked for.
fn pairs(args: &VerifyArgs) -> Vec<Pair> {
    let path = args.path.map(attn_core::Path::from);
    let dtype = args.dtype.map(DType::from);
    let mut pairs = attn_testkit::pairs();
    pairs.retain(|pair| {
        path.is_none_or(|path| pair.path == path) && dtype.is_none_or(|dtype| pair.dtype == dtype)
    });
    pairs
}

fn files(given: &[PathBuf], pairs: &[Pair], device: &Device) -> Result<Report, Failure> {
    let mut report = Report::default();
    let mut layers = Vec::new();
    for path in given {
        if !path.is_dir() {
            layers.push(path.clone());
        } else if attn_testkit::is_model_dir(path) {
            report.extend(model(path, pairs, device)?);
        } else {
            layers.extend(safetensors_in(path)?);
        }
    }
    for path in layers {
        let file = ConformanceFile::read(&path, VARIANTS).map_err(Failure::input)?;
        report.extend(attn_testkit::verify_file(&file, pairs, device).map_err(Failure::input)?);
    }
    Ok(report)
}

/// A folder that holds a whole model.
fn model(dir: &Path, pairs: &[Pair], device: &Device) -> Result<Report, Failure> {
    let found = attn_model::verify_folder(dir, VARIANTS, pairs, device).map_err(Failure::input)?;
    if found.report.checks.is_empty() {
        return Err(Failure::input(format!(
            "{}: loaded a {}, but there is nothing to compare it with: no expected.safetensors beside it",
            dir.display(),
            found.model
        )));
    }
    Ok(found.report)
}

fn safetensors_in(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::input(format!("cannot read {}: {error}", dir.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::input(format!("no *.safetensors in {}", dir.display())));
    }
    Ok(files)
}

/// The built-in suite on every variant, at small sizes and, where a variant merges along time, several strides.
fn suite(pairs: &[Pair], device: &Device) -> Result<Report, Failure> {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    let mut report = Report::default();
    for variant in VARIANTS {
        for params in examples(variant) {
            let found =
                attn_testkit::suite_on(variant, &dims, &params, pairs, device).map_err(Failure::input)?;
            report.extend(found);
        }
    }
    Ok(report)
}

/// Settings to try: small sizes for what must be given, and each of the first strides where there is one.
fn examples(variant: &Variant) -> Vec<Params> {
    let sizes = [("n_kv_heads", 2), ("kv_rank", 16), ("rope_dim", 6)];
    let mut base = Params::default();
    for spec in variant.params.iter().filter(|spec| spec.is_required()) {
        let known = sizes
            .iter()
            .find(|(name, _)| *name == spec.name)
            .map(|(_, size)| *size);
        let value = match spec.kind {
            ParamKind::Int { min } => ParamValue::Int(known.unwrap_or(min.max(2))),
            ParamKind::Float => ParamValue::Float(1.0),
            ParamKind::Bool => ParamValue::Bool(true),
            ParamKind::Choice(words) => {
                ParamValue::Text(words.first().copied().unwrap_or_default().to_string())
            }
        };
        base = base.with(spec.name, value);
    }
    if variant.param("stride").is_err() {
        return vec![base];
    }
    (1..=5)
        .map(|stride| base.clone().with("stride", ParamValue::Int(stride)))
        .collect()
}

fn show(report: &Report) -> String {
    let header = [
        "source", "variant", "path", "dtype", "check", ">error", ">allowed", "result",
    ];
    let lines = report.checks.iter().map(|check| {
        vec![
            check.source.clone(),
            check.variant.clone(),
            check.path.to_string(),
            check.dtype.to_string(),
            check.name.clone(),
            check.error.map_or(String::new(), |error| format!("{error:.1e}")),
            format!("{:.1e}", check.tolerance),
            result(check),
        ]
    });
    let count = |of: fn(&Outcome) -> bool| report.checks.iter().filter(|check| of(&check.outcome)).count();
    let (passed, failed) = (
        count(|o| *o == Outcome::Passed),
        count(|o| matches!(o, Outcome::Failed(_))),
    );
    let undefined = count(|o| *o == Outcome::NotDefined);
    format!(
        "{}{passed} passed, {failed} failed, {undefined} not defined; errors are relative to the output's scale\n",
        table(&header, lines.collect())
    )
}

/// What was composed of candle's operations, a line for each reason.
fn show_fallbacks(composed: &[Fallback]) -> String {
    let line = |Fallback { op, reason, uses }: &Fallback| {
        format!("composed in place of a kernel, {uses} times: {op}: {reason}\n")
    };
    composed.iter().map(line).collect()
}

fn fallback_record(Fallback { op, reason, uses }: &Fallback) -> serde_json::Value {
    json!({ "op": op, "reason": reason, "uses": uses })
}

fn result(check: &Check) -> String {
    match &check.outcome {
        Outcome::Passed => "ok".to_string(),
        Outcome::Failed(reason) => format!("FAILED: {reason}"),
        Outcome::NotDefined => "not defined".to_string(),
    }
}

fn record(check: &Check) -> serde_json::Value {
    let (result, reason) = match &check.outcome {
        Outcome::Passed => ("ok", None),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::NotDefined => ("not defined", None),
    };
    json!({
        "source": check.source, "variant": check.variant, "path": check.path, "dtype": check.dtype,
        "check": check.name, "error": check.error, "tolerance": check.tolerance, "result": result, "reason": reason,
    })
}
