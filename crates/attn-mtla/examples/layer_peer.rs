//! The MTLA layer at the seed's geometry, timed on request: our side of `scripts/peers/compare_mtla.py`.
//!
//! Reads cases (`forward f32 2 2048`: workload, dtype, stride, length; `mtla_layer.py` says what they are) or `quit`
//! from standard input, runs each once, answers with one line of JSON. `--seedlike` takes the seed's formulation.

use std::io::{BufRead, Write};
use std::time::Instant;

use attn_core::{
    Attention, Build, Cache, Capacity, ModelDims, ParamValue, Params, Path, Queries, Weights, in_pool,
    keep_freed_memory, random_tensor,
};
use candle_core::{DType, Device, Tensor};

type Error = Box<dyn std::error::Error>;

const DECODE_BATCH: usize = 8;
const DECODE_STEPS: usize = 64;
const D_MODEL: usize = 512;

/// The layer and the operands of a case.
struct Case {
    workload: String,
    layer: Box<dyn Attention>,
    weights: Weights,
    prompt: Tensor,
    token: Tensor,
    cache: Cache,
    length: usize,
}

impl Case {
    fn new(case: &str, path: Path) -> Result<Self, Error> {
        let (workload, dtype, stride, length, batch) = match case.split_whitespace().collect::<Vec<_>>()[..] {
            [workload, dtype, stride, length] => (workload, dtype, stride, length, DECODE_BATCH),
            [workload, dtype, stride, length, batch] => (workload, dtype, stride, length, batch.parse()?),
            _ => return Err(format!("`{case}` is not a case such as `forward f32 2 2048`").into()),
        };
        let dtype = match dtype {
            "bf16" => DType::BF16,
            _ => DType::F32,
        };
        let length = length.parse()?;
        let dims = ModelDims {
            d_model: D_MODEL,
            n_heads: 8,
            head_dim: 64,
        };
        let int = ParamValue::Int;
        let params = Params::default()
            .with("kv_rank", int(256))
            .with("rope_dim", int(32))
            .with("stride", int(stride.parse()?));
        let config = attn_mtla::VARIANT.configure(&dims, &params)?;
        let mut weights = Weights::seeded(&config.weight_specs(), 42)?;
        if workload == "train" {
            weights = weights.to_vars(dtype)?;
        }
        let layer = config.build(&weights, &Build::cpu(path, dtype))?;
        let random = |shape: &[usize], stream| random_tensor(shape, 42, stream, dtype, &Device::Cpu);
        let mut cache = layer.new_cache(batch, Capacity::Exact(length + DECODE_STEPS))?;
        if workload == "decode" {
            cache.fill(length, 42)?;
        }
        let mut case = Self {
            workload: workload.to_string(),
            prompt: random(&[1, length, D_MODEL], 1)?,
            token: random(&[batch, 1, D_MODEL], 2)?,
            layer,
            weights,
            cache,
            length,
        };
        case.run()?;
        Ok(case)
    }

    /// Seconds of one run.
    fn run(&mut self) -> Result<f64, Error> {
        let start = Instant::now();
        match self.workload.as_str() {
            "forward" => {
                self.layer.forward(&self.prompt, Queries::All)?;
            }
            "train" => {
                let grads = self
                    .layer
                    .forward(&self.prompt, Queries::All)?
                    .sum_all()?
                    .backward()?;
                if self.weights.iter().any(|(_, weight)| grads.get(weight).is_none()) {
                    return Err("a weight has no gradient".into());
                }
            }
            "decode" => {
                for _ in 0..DECODE_STEPS {
                    self.layer.decode(&self.token, &mut self.cache)?;
                }
                let elapsed = start.elapsed().as_secs_f64() / DECODE_STEPS as f64;
                self.cache.rewind(self.length)?;
                return Ok(elapsed);
            }
            other => {
                return Err(format!("unknown workload `{other}`, expected forward, train or decode").into());
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn main() -> Result<(), Error> {
    // On a thread of the pool, as a worker's samples: PyTorch's main thread too is one of those that compute.
    in_pool(|| serve().map_err(|error| error.to_string()))?;
    Ok(())
}

/// A line of `/proc/self/status` in bytes, as JSON: `null` where there is none.
fn status_bytes(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or("null".to_string(), |kib| (1024 * kib).to_string())
}

fn serve() -> Result<(), Error> {
    let path = match std::env::args().any(|arg| arg == "--seedlike") {
        true => Path::Seedlike,
        false => Path::Fused,
    };
    keep_freed_memory(); // as a worker of attn-bench does
    let mut out = std::io::stdout();
    writeln!(
        out,
        r#"{{"ready": true, "versions": "attn-bench {}", "rss_bytes": {}}}"#,
        env!("CARGO_PKG_VERSION"),
        status_bytes("VmRSS")
    )?;
    let mut known: Option<(String, Case)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let name = line.trim();
        if name == "quit" {
            break;
        }
        let mut case = match known.take() {
            Some((of, case)) if of == name => case,
            _ => Case::new(name, path)?,
        };
        let time_s = case.run()?;
        let rss_peak_bytes = status_bytes("VmHWM");
        writeln!(
            out,
            r#"{{"case": "{name}", "time_s": {time_s}, "rss_peak_bytes": {rss_peak_bytes}}}"#
        )?;
        known = Some((name.to_string(), case));
    }
    Ok(())
}
