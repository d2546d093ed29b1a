//! A saved model against the outputs of an independent implementation.

use std::path::Path;

use attn_core::{Build, Variant, Weights};
use attn_testkit::{Check, Outcome, Pair, Report, compare};
use candle_core::{DType, Device, Tensor};

use crate::checkpoint::{SavedModel, load, read_tensors};
use crate::error::{Error, Result};
use crate::generate::greedy;
use crate::prompts::Prompts;

/// Name of the file that holds what is expected of the model beside it.
const EXPECTED: &str = "expected.safetensors";

/// What verifying a folder found.
#[derive(Debug)]
pub struct FolderReport {
    /// What the model is, in words.
    pub model: String,
    /// Comparisons; none where the folder has no `expected.safetensors`.
    pub report: Report,
}

/// How far logits may be from the reference's in f32, over their scale: every layer's sums are in f32.
const TOLERANCE: f64 = 1e-4;
/// How much further than the rounding of its weights alone the rounding of everything may take a model: it took our
/// saved models 0.6 to 2.5 times as far.
const ROUNDING_FACTOR: f64 = 4.0;

/// How far logits may be from the reference's. In half precision that is the model's affair: one whose attention hangs on
/// small differences passes every rounding on, layer by layer. So it is asked first, what rounding its weights changes
/// where everything else is f32, and all other roundings together may do some times that; or what a single layer may.
fn logits_tolerance(model: &SavedModel, dtype: DType, expected: &Expected) -> Result<f64> {
    if !matches!(dtype, DType::BF16 | DType::F16) {
        return Ok(TOLERANCE);
    }
    let single = attn_testkit::tolerance(dtype);
    let round = |(name, tensor): (&str, &Tensor)| -> Result<_> {
        Ok((name.to_string(), tensor.to_dtype(dtype)?.to_dtype(DType::F32)?))
    };
    let rounded = model.weights.iter().map(round).collect::<Result<Weights>>()?;
    let build = Build::cpu(attn_core::Path::Fused, DType::F32);
    // Against the same model and not against what is expected of it: a wrong one must not be forgiven for being wrong.
    let whole = run_logits(model, &model.weights, &build, &expected.ids)?;
    let got = run_logits(model, &rounded, &build, &expected.ids)?;
    Ok((ROUNDING_FACTOR * compare(&got, &whole)?.max).max(single))
}

/// Loads the model in a folder and compares it with the folder's `expected.safetensors`, on every path and dtype of
/// `pairs`: the logits of whole sequences, and, in f32, every token of greedy generation over a cache.
///
/// Logits must agree to 1e-4 of their scale in f32, to what the model makes of rounding in half precision.
/// The file holds `input_ids` `[B, T]`, and `expected.logits` `[B, T, V]`, `expected.greedy` `[B, N]` or both. Half
/// precision may take another token where two are nearly alike, so that its tokens are not compared.
///
/// # Errors
/// Those of [`load`], and [`Error::Weights`] where the file is there and says nothing that can be compared. A model that
/// fails is a failed check.
pub fn verify_folder(
    dir: &Path,
    variants: &[&'static Variant],
    pairs: &[Pair],
    device: &Device,
) -> Result<FolderReport> {
    let model = load(dir, variants)?;
    let path = dir.join(EXPECTED);
    let mut found = FolderReport {
        model: model.summary(),
        report: Report::default(),
    };
    if !path.is_file() {
        return Ok(found);
    }
    let expected = Expected::read(&path, &model)?;
    let source = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    for &pair in pairs {
        let check = |name: &str, error: Option<f64>, tolerance: f64, outcome: Outcome| Check {
            source: source.clone().unwrap_or_default(),
            variant: model.variant.clone(),
            path: pair.path.name(),
            dtype: pair.dtype.as_str(),
            name: name.to_string(),
            error,
            tolerance,
            outcome,
        };
        if !pair.path.supports(pair.dtype) {
            let tolerance = attn_testkit::tolerance(pair.dtype);
            found
                .report
                .checks
                .push(check("all", None, tolerance, Outcome::NotDefined));
            continue;
        }
        let build = Build::new(pair.path, pair.dtype, device.clone());
        if let Some(logits) = &expected.logits {
            let tolerance = logits_tolerance(&model, pair.dtype, &expected)?;
            let difference = run_logits(&model, &model.weights, &build, &expected.ids)
                .and_then(|got| Ok(compare(&got.to_device(&Device::Cpu)?, logits)?));
            let (outcome, error) = match difference {
                Ok(difference) if difference.within(tolerance) => (Outcome::Passed, Some(difference.max)),
                Ok(difference) => {
                    let reason = format!(
                        "differs by {:.1e} of the scale, {tolerance:.1e} allowed",
                        difference.max
                    );
                    (Outcome::Failed(reason), Some(difference.max))
                }
                Err(error) => (Outcome::Failed(error.to_string()), None),
            };
            found
                .report
                .checks
                .push(check("logits", error, tolerance, outcome));
        }
        if let (Some(tokens), DType::F32) = (&expected.greedy, pair.dtype) {
            let outcome = match run_greedy(&model, &build, &expected.ids, tokens) {
                Ok(None) => Outcome::Passed,
                Ok(Some(reason)) => Outcome::Failed(reason),
                Err(error) => Outcome::Failed(error.to_string()),
            };
            found
                .report
                .checks
                .push(check("greedy tokens", None, 0.0, outcome));
        }
    }
    Ok(found)
}

/// What a file expects of a model.
struct Expected {
    /// `[B, T]`.
    ids: Vec<Vec<u32>>,
    /// `[B, T, V]`.
    logits: Option<Tensor>,
    /// `[B, N]`.
    greedy: Option<Vec<Vec<u32>>>,
}

impl Expected {
    fn read(path: &Path, model: &SavedModel) -> Result<Self> {
        let tensors = read_tensors(path)?;
        let get = |name: &str| {
            tensors
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, tensor)| tensor.clone())
        };
        let wrong = |reason: String| Error::Weights {
            path: path.to_path_buf(),
            reason,
        };
        let rows = |name: &str| -> Result<Option<Vec<Vec<u32>>>> {
            let Some(tensor) = get(name) else { return Ok(None) };
            let rows = tensor
                .to_dtype(DType::I64)
                .and_then(|tensor| tensor.to_vec2::<i64>())
                .map_err(|_| wrong(format!("`{name}` is {:?}, expected [B, N] tokens", tensor.dims())))?;
            let token = |&token: &i64| {
                u32::try_from(token)
                    .ok()
                    .filter(|&token| (token as usize) < model.config.vocab)
                    .ok_or_else(|| {
                        let vocab = model.config.vocab;
                        wrong(format!("`{name}` has token {token} of a vocabulary of {vocab}"))
                    })
            };
            let rows = rows.iter().map(|row| row.iter().map(token).collect());
            rows.collect::<Result<_>>().map(Some)
        };
        let missing = || wrong("it has no `input_ids` [B, T] with B, T > 0".to_string());
        let ids = rows("input_ids")?.ok_or_else(missing)?;
        let (b, t) = (ids.len(), ids.first().map_or(0, Vec::len));
        if b * t == 0 {
            return Err(missing());
        }
        let logits = get("expected.logits");
        if let Some(logits) = &logits
            && logits.dims() != [b, t, model.config.vocab]
        {
            let want = [b, t, model.config.vocab];
            return Err(wrong(format!(
                "`expected.logits` is {:?}, expected {want:?}",
                logits.dims()
            )));
        }
        let greedy = rows("expected.greedy")?;
        if let Some(tokens) = &greedy
            && (tokens.len() != b || tokens.iter().any(Vec::is_empty))
        {
            return Err(wrong(format!(
                "`expected.greedy` has {} rows, expected {b} of at least one token",
                tokens.len()
            )));
        }
        if logits.is_none() && greedy.is_none() {
            return Err(wrong(
                "it has neither `expected.logits` nor `expected.greedy`".to_string(),
            ));
        }
        Ok(Self { ids, logits, greedy })
    }
}

fn run_logits(model: &SavedModel, weights: &Weights, build: &Build, ids: &[Vec<u32>]) -> Result<Tensor> {
    let decoder = model.config.build(weights, build)?;
    let shape = (ids.len(), ids.first().map_or(0, Vec::len));
    let ids = Tensor::from_vec(ids.concat(), shape, &build.device)?;
    decoder.forward(None, &ids)
}

/// The first token that differs, in words.
fn run_greedy(
    model: &SavedModel,
    build: &Build,
    ids: &[Vec<u32>],
    expected: &[Vec<u32>],
) -> Result<Option<String>> {
    let decoder = model.config.build(&model.weights, build)?;
    let n = expected.first().map_or(0, Vec::len);
    let got = greedy(&decoder, &Prompts::new(ids.to_vec()), n, None)?;
    for (b, (got, expected)) in got.iter().zip(expected).enumerate() {
        let end = end_of(expected, model.eos, model.pad);
        let differs = |&i: &usize| got[i] != expected[i];
        if let Some(i) = (0..end).find(differs) {
            return Ok(Some(format!(
                "token {i} of sequence {b} is {}, expected {}",
                got[i], expected[i]
            )));
        }
    }
    Ok(None)
}

/// Tokens of a sequence up to its end: what only fills it up behind the ending token is none of the model's.
fn end_of(tokens: &[u32], eos: Option<u32>, pad: Option<u32>) -> usize {
    let Some(at) = eos.and_then(|eos| tokens.iter().position(|&token| token == eos)) else {
        return tokens.len();
    };
    let filler = pad.or(eos);
    match tokens[at + 1..].iter().all(|&token| Some(token) == filler) {
        true => at + 1,
        false => tokens.len(),
    }
}
