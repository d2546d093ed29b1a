//! A layer against the outputs of an independent implementation.

use std::path::Path;

use attn_core::{Build, Cache, Capacity, Queries, SlotRows, Variant, latent};
use candle_core::{DType, Device, Tensor};

use crate::compare::{Difference, compare};
use crate::file::{ConformanceFile, Error};
use crate::report::{Check, Outcome, Report};

/// A formulation and an element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Formulation.
    pub path: attn_core::Path,
    /// Element type.
    pub dtype: DType,
}

/// Every path with every dtype; those a path is not defined for are reported as such.
pub fn pairs() -> Vec<Pair> {
    let paths = [attn_core::Path::Fused, attn_core::Path::Seedlike];
    let dtypes = [DType::F32, DType::BF16, DType::F16];
    paths
        .iter()
        .flat_map(|&path| dtypes.iter().map(move |&dtype| Pair { path, dtype }))
        .collect()
}

/// How far a result may be from a reference in f64, over the reference's scale (its largest absolute value).
///
/// f32: 1e-5, some eighty units in the last place; sums of a few hundred terms stay an order below.
/// Half precision: sixteen units in the last place (16 x 2^-8 = 6.3e-2 in bf16, 16 x 2^-11 = 7.8e-3 in f16). Inputs,
/// weights, latents or keys, values, head outputs and results are each rounded once, to half a unit; scores and sums
/// are f32. What makes the difference larger than one rounding is the softmax: a score of size z inherits an error of
/// about z half units from its query and key, and passes it on to its weight in full. Over fifty files of packages
/// (scores up to some ten) the largest difference was 2.9e-2 in bf16 and 4.1e-3 in f16, half of what is allowed.
/// f64: expected values are stored in f32.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 16.0 / 256.0,
        DType::F16 => 16.0 / 2048.0,
        DType::F64 => 1e-6,
        _ => 1e-5,
    }
}

/// Checks every file in a folder, in the order of their names.
///
/// # Errors
/// [`Error`] where a file cannot be used, or there is none.
pub fn verify_dir(dir: &Path, variants: &[&'static Variant]) -> Result<Report, Error> {
    let read = |err: std::io::Error| Error::Read {
        path: dir.to_path_buf(),
        reason: err.to_string(),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::Empty {
            path: dir.to_path_buf(),
        });
    }
    files.sort();
    let mut report = Report::default();
    for path in files {
        report.extend(verify_file(
            &ConformanceFile::read(&path, variants)?,
            &pairs(),
            &Device::Cpu,
        )?);
    }
    Ok(report)
}

/// Checks a file on the given paths and dtypes and on a device: parallel, incremental, and the cache at the end.
///
/// # Errors
/// [`Error`] where the file lacks an expected tensor; a layer that fails is a failed check.
pub fn verify_file(file: &ConformanceFile, pairs: &[Pair], device: &Device) -> Result<Report, Error> {
    let mut report = Report::default();
    for &pair in pairs {
        let check = |name: &str, outcome: Outcome, error: Option<f64>| Check {
            source: file
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            variant: file.variant.to_string(),
            path: pair.path.name(),
            dtype: pair.dtype.as_str(),
            name: name.to_string(),
            error,
            tolerance: tolerance(pair.dtype),
            outcome,
        };
        if !pair.path.supports(pair.dtype) {
            report.checks.push(check("all", Outcome::NotDefined, None));
            continue;
        }
        match run(file, pair, device) {
            Ok(results) => {
                for (name, expected, got) in results {
                    let expected = file.expected(&expected)?;
                    let (outcome, error) = judge(compare(&got, expected), tolerance(pair.dtype));
                    report.checks.push(check(name, outcome, error));
                }
            }
            Err(err) => report
                .checks
                .push(check("all", Outcome::Failed(err.to_string()), None)),
        }
    }
    Ok(report)
}

/// Passed or failed, and the error that says so.
pub(crate) fn judge(difference: attn_core::Result<Difference>, tolerance: f64) -> (Outcome, Option<f64>) {
    match difference {
        Ok(difference) if difference.within(tolerance) => (Outcome::Passed, Some(difference.max)),
        Ok(difference) if !difference.same_non_finite => (
            Outcome::Failed("NaN or infinity where none was expected".to_string()),
            Some(difference.max),
        ),
        Ok(difference) => (
            Outcome::Failed(format!(
                "differs by {:.1e} of the scale, {tolerance:.1e} allowed",
                difference.max
            )),
            Some(difference.max),
        ),
        Err(err) => (Outcome::Failed(err.to_string()), None),
    }
}

/// The slots of sequences of `t` tokens, slot n of a window at n modulo its size whatever the path.
fn in_places(cache: &Cache, t: usize) -> attn_core::Result<SlotRows> {
    let rows = cache.chronological()?;
    let Some(window) = cache.window().filter(|&window| window < t) else {
        return Ok(rows);
    };
    let turned = |rows: &Tensor| -> attn_core::Result<Tensor> {
        let (oldest, turn) = (window - t % window, t % window);
        Ok(Tensor::cat(
            &[rows.narrow(2, oldest, turn)?, rows.narrow(2, 0, oldest)?],
            2,
        )?)
    };
    Ok(SlotRows {
        keys: turned(&rows.keys)?,
        values: rows.values.as_ref().map(turned).transpose()?,
        tail: rows.tail.as_ref().map(turned).transpose()?,
    })
}

type Results = Vec<(&'static str, String, Tensor)>;

/// What the layer computes: (check, name of the expected tensor, result).
fn run(file: &ConformanceFile, pair: Pair, device: &Device) -> attn_core::Result<Results> {
    let build = Build::new(pair.path, pair.dtype, device.clone());
    let layer = file.config.build(&file.weights, &build)?;
    let input = file.input.to_dtype(pair.dtype)?.to_device(device)?;
    let (b, t, _) = input.dims3()?;
    let mut results = vec![(
        "parallel",
        "parallel".to_string(),
        layer.forward(&input, Queries::All)?,
    )];

    let mut cache = layer.new_cache(b, Capacity::Exact(t))?;
    let mut outputs = Vec::new();
    if file.prefill > 0 {
        outputs.push(layer.prefill(&input.narrow(1, 0, file.prefill)?, &mut cache, Queries::All)?);
    }
    for i in file.prefill..t {
        outputs.push(layer.decode(&input.narrow(1, i, 1)?, &mut cache)?);
    }
    results.push((
        "incremental",
        "incremental".to_string(),
        Tensor::cat(&outputs, 1)?,
    ));

    match in_places(&cache, t)? {
        SlotRows {
            keys,
            values: None,
            tail: None,
        } => {
            let width = layer.geometry().entry.values.width();
            let (latent, rope) = latent::split_entries(&keys, width)?;
            results.push(("cache latent", "cache.latent".to_string(), latent));
            results.push(("cache rope", "cache.rope".to_string(), rope));
        }
        SlotRows { keys, values, tail } => {
            results.push(("cache k", "cache.k".to_string(), keys));
            results.extend(values.map(|values| ("cache v", "cache.v".to_string(), values)));
            results.extend(tail.map(|tail| ("cache tail", "cache.tail".to_string(), tail)));
        }
    }
    Ok(results)
}
