//! The MTLA layer at the seed's geometry, timed on request: our side of `scripts/peers/compare_mtla.py`.
//!
//! Reads `forward`, `decode512` or `quit` from standard input, runs that once, answers with one line of JSON.

use std::io::{BufRead, Write};
use std::time::Instant;

use attn_core::{Build, Capacity, ModelDims, ParamValue, Params, Path, Queries, Weights, random_tensor};
use candle_core::{DType, Device};

const STEPS: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stride = std::env::args()
        .skip_while(|arg| arg != "--stride")
        .nth(1)
        .map_or(Ok(2), |s| s.parse())?;
    let path = match std::env::args().any(|arg| arg == "--seedlike") {
        true => Path::Seedlike,
        false => Path::Fused,
    };
    let dims = ModelDims {
        d_model: 512,
        n_heads: 8,
        head_dim: 64,
    };
    let int = ParamValue::Int;
    let params = Params::default()
        .with("kv_rank", int(256))
        .with("rope_dim", int(32))
        .with("stride", int(stride));
    let config = attn_mtla::VARIANT.configure(&dims, &params)?;
    let weights = Weights::seeded(&config.weight_specs(), 42)?;
    let layer = config.build(&weights, &Build::cpu(path, DType::F32))?;

    let prompt = random_tensor(&[1, 2048, 512], 42, 1, DType::F32, &Device::Cpu)?;
    let token = random_tensor(&[8, 1, 512], 42, 2, DType::F32, &Device::Cpu)?;
    let run = |case: &str| -> Result<f64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        match case {
            "forward" => {
                layer.forward(&prompt, Queries::All)?;
            }
            "decode512" => {
                let mut cache = layer.new_cache(8, Capacity::Exact(STEPS))?;
                for _ in 0..STEPS {
                    layer.decode(&token, &mut cache)?;
                }
            }
            other => return Err(format!("unknown case `{other}`, expected forward or decode512").into()),
        }
        Ok(start.elapsed().as_secs_f64())
    };
    run("forward")?;
    run("decode512")?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        r#"{{"ready": true, "versions": "attn-bench {}"}}"#,
        env!("CARGO_PKG_VERSION")
    )?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.trim() {
            "quit" => break,
            case => writeln!(out, r#"{{"case": "{case}", "time_s": {}}}"#, run(case)?)?,
        }
    }
    Ok(())
}
