//! Decode and attend, timed on request: our side of `scripts/peers/compare_sdpa.py`.
//!
//! Reads `decode f32 mha 8 4096` or `quit` from standard input, runs that for a moment, answers with one line of JSON.

use std::io::{BufRead, Write};
use std::time::Instant;

use attn_kernels::{Attend, Decode, Element, Entries, Level, Rows, attend, decode};
use half::bf16;

/// Query heads, KV heads, key size, value size, whether values are the first columns of the keys.
const GEOMETRIES: [(&str, [usize; 4], bool); 7] = [
    ("mha", [8, 8, 64, 64], false),
    ("gqa", [8, 2, 64, 64], false),
    ("mqa", [8, 1, 64, 64], false),
    ("mla", [8, 1, 288, 256], true),
    ("mla-prefill", [8, 8, 96, 64], false),
    ("large-gqa", [32, 8, 128, 128], false),
    ("large-mla", [32, 1, 576, 512], true),
];

/// A run is calls one after the other for so many seconds, as a model decodes token by token.
const RUN_S: f64 = 0.002;

type Failure = Box<dyn std::error::Error>;

/// Operands of one case.
struct Operands<E> {
    is_decode: bool,
    sizes: [usize; 4],
    is_prefix: bool,
    batch: usize,
    length: usize,
    q: FromLine<E>,
    k: FromLine<E>,
    v: FromLine<E>,
    out: Vec<E>,
}

/// Elements from the begin of a cache line on, where layers keep their caches, and PyTorch its tensors.
struct FromLine<E> {
    elements: Vec<E>,
    first: usize,
}

impl<E: Element> FromLine<E> {
    fn new(n: usize, next: impl FnMut() -> E) -> Self {
        const LINE: usize = 64;
        let spare = LINE / size_of::<E>();
        let mut elements: Vec<E> = Vec::with_capacity(n + spare);
        let first = elements.as_ptr().align_offset(LINE).min(spare);
        elements.resize(first, E::default());
        elements.extend(std::iter::repeat_with(next).take(n));
        Self { elements, first }
    }

    fn get(&self) -> &[E] {
        &self.elements[self.first..]
    }
}

impl<E: Element> Operands<E> {
    fn new(words: &[&str]) -> Result<Self, Failure> {
        let &[workload, _, geometry, batch, length] = words else {
            return Err("expected workload, dtype, geometry, batch and length".into());
        };
        let known = GEOMETRIES.iter().find(|(name, ..)| *name == geometry);
        let (_, sizes, is_prefix) = *known.ok_or("unknown geometry")?;
        let [h, h_kv, key_dim, value_dim] = sizes;
        let (batch, length): (usize, usize) = (batch.parse()?, length.parse()?);
        let queries = if workload == "decode" { 1 } else { length };
        let mut state = 42_u32;
        let mut fill = |n: usize| {
            FromLine::new(n, || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                E::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
            })
        };
        Ok(Self {
            is_decode: workload == "decode",
            sizes,
            is_prefix,
            batch,
            length,
            q: fill(batch * h * queries * key_dim),
            k: fill(batch * h_kv * length * key_dim),
            v: fill(if is_prefix {
                0
            } else {
                batch * h_kv * length * value_dim
            }),
            out: vec![E::default(); batch * h * queries * value_dim],
        })
    }

    fn run(&mut self, level: Level) -> Result<(), Failure> {
        let [n_heads, n_kv_heads, key_dim, value_dim] = self.sizes;
        let scale = (key_dim as f32).powf(-0.5);
        if !self.is_decode {
            let keys = |data, dim| Rows::head_major(data, n_kv_heads, self.length, dim);
            let input = Attend {
                q: Rows::head_major(self.q.get(), n_heads, self.length, key_dim),
                closed: Some(Entries {
                    k: keys(self.k.get(), key_dim),
                    shared: None,
                    v: keys(self.v.get(), value_dim),
                }),
                own: None,
                shared_dim: 0,
                batch: self.batch,
                n_heads,
                n_kv_heads,
                tokens: self.length,
                n_keys: self.length,
                key_dim,
                value_dim,
                start: 0,
                stride: 1,
                window: usize::MAX,
                scale,
            };
            return Ok(attend(&input, level, &mut self.out, None)?);
        }
        let (length, slots) = (self.length, vec![self.length; self.batch]);
        let rows = |data, dim| Rows::head_major(data, n_kv_heads, length, dim);
        let input = Decode {
            q: self.q.get(),
            keys: rows(self.k.get(), key_dim),
            values: (!self.is_prefix).then(|| rows(self.v.get(), value_dim)),
            tail: None,
            factors: None,
            n_heads,
            n_kv_heads,
            key_dim,
            value_dim,
            slots: &slots,
            scale,
        };
        Ok(decode(&input, level, &mut self.out)?)
    }

    /// Seconds of a call.
    fn time_s(&mut self, level: Level) -> Result<f64, Failure> {
        let (mut calls, began) = (0, Instant::now());
        while calls == 0 || began.elapsed().as_secs_f64() < RUN_S {
            self.run(level)?;
            calls += 1;
        }
        Ok(began.elapsed().as_secs_f64() / f64::from(calls))
    }
}

/// The operands at hand.
enum Known {
    F32(Operands<f32>),
    Bf16(Operands<bf16>),
}

impl Known {
    fn new(case: &str) -> Result<Self, Failure> {
        let words: Vec<&str> = case.split_whitespace().collect();
        match words.get(1) {
            Some(&"f32") => Ok(Self::F32(Operands::new(&words)?)),
            Some(&"bf16") => Ok(Self::Bf16(Operands::new(&words)?)),
            _ => Err(format!("unknown case `{case}`").into()),
        }
    }

    fn time_s(&mut self, level: Level) -> Result<f64, Failure> {
        match self {
            Self::F32(operands) => operands.time_s(level),
            Self::Bf16(operands) => operands.time_s(level),
        }
    }
}

fn main() -> Result<(), Failure> {
    // On a thread of the pool, as layers call kernels: PyTorch's main thread too is one of those that compute.
    rayon::scope(|_| serve().map_err(|error| error.to_string()))?;
    Ok(())
}

fn serve() -> Result<(), Failure> {
    let level = Level::current()?;
    let mut out = std::io::stdout();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        out,
        r#"{{"ready": true, "versions": "attn-bench {version}, level {level}"}}"#
    )?;
    let mut at_hand: Option<(String, Known)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let case = line.trim();
        if case == "quit" {
            break;
        }
        if at_hand.as_ref().is_none_or(|(known, _)| known != case) {
            // One case's operands at a time; the first run warms them.
            drop(at_hand.take());
            let mut operands = Known::new(case)?;
            operands.time_s(level)?;
            at_hand = Some((case.to_string(), operands));
        }
        if let Some((_, operands)) = &mut at_hand {
            writeln!(
                out,
                r#"{{"case": "{case}", "time_s": {}}}"#,
                operands.time_s(level)?
            )?;
        }
        out.flush()?;
    }
    Ok(())
}
