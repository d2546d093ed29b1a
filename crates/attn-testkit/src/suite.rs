//! The built-in suite: what must hold of any layer, whatever it computes.
//!
//! Sizes are small and odd, on purpose. Exact properties are checked in f64, where a wrong formula cannot hide
//! behind rounding; f32 and half precision then only have to agree with themselves within their tolerance.

use attn_core::{
    Attention, Build, Cache, Capacity, Habit, Habits, LayerConfig, ModelDims, Params, Path, Queries, Result,
    Variant, Weights, random_tensor,
};
use candle_core::{DType, Device, Tensor};

use crate::compare::{Difference, compare};
use crate::report::{Check, Outcome, Report};
use crate::verify::{Pair, judge, pairs};

/// Tokens of the longest sequence: blocks of 2, 3, 4 and 5 all end inside and at the end of some prefix.
const TOKENS: usize = 13;
const BATCH: usize = 3;
const SEED: u64 = 42;

/// Runs the suite on every path and dtype.
///
/// # Errors
/// The configuration is impossible, or weights cannot be made; a layer that fails is a failed check.
pub fn suite(variant: &'static Variant, dims: &ModelDims, params: &Params) -> Result<Report> {
    let f64_pairs = [Path::Fused, Path::Seedlike].map(|path| Pair {
        path,
        dtype: DType::F64,
    });
    suite_on(
        variant,
        dims,
        params,
        &[&f64_pairs[..], &pairs()].concat(),
        &Device::Cpu,
    )
}

/// Runs the suite on the given paths and dtypes, on a device.
///
/// # Errors
/// As [`suite()`].
pub fn suite_on(
    variant: &'static Variant,
    dims: &ModelDims,
    params: &Params,
    pairs: &[Pair],
    device: &Device,
) -> Result<Report> {
    let config = variant.configure(dims, params)?;
    let weights = Weights::seeded(&config.weight_specs(), SEED)?;
    let mut report = Report::default();
    for &pair in pairs {
        let check = |name: &str, outcome: Outcome, error: Option<f64>| Check {
            source: format!("built-in, {}", variant.label(params, &[])),
            variant: variant.key.to_string(),
            path: pair.path.name(),
            dtype: pair.dtype.as_str(),
            name: name.to_string(),
            error,
            tolerance: own_tolerance(pair.dtype),
            outcome,
        };
        if !pair.path.supports(pair.dtype) {
            report.checks.push(check("all", Outcome::NotDefined, None));
            continue;
        }
        let build = Build::new(pair.path, pair.dtype, device.clone());
        let layer = config.build(&weights, &build)?;
        let x = random_tensor(&[BATCH, TOKENS, dims.d_model], SEED, 7, pair.dtype, device)?;
        let subject = Subject {
            config: config.as_ref(),
            weights: &weights,
            layer: layer.as_ref(),
            x,
        };
        for (name, property) in PROPERTIES {
            let result = property(&subject);
            match result {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    let (outcome, error) = judge(Ok(difference), own_tolerance(pair.dtype));
                    report.checks.push(check(name, outcome, error));
                }
                Err(err) => report
                    .checks
                    .push(check(name, Outcome::Failed(err.to_string()), None)),
            }
        }
    }
    Ok(report)
}

/// How far two ways through one layer may differ, over the output's scale.
fn own_tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-11,
        other => crate::verify::tolerance(other),
    }
}

struct Subject<'a> {
    config: &'a dyn LayerConfig,
    weights: &'a Weights,
    layer: &'a dyn Attention,
    /// `[BATCH, TOKENS, M]`.
    x: Tensor,
}

impl Subject<'_> {
    fn all(&self) -> Result<Tensor> {
        self.layer.forward(&self.x, Queries::All)
    }

    fn tokens(&self, first: usize, n: usize) -> Result<Tensor> {
        Ok(self.x.narrow(1, first, n)?)
    }

    /// Prompt of `prefill` tokens in chunks, the rest token by token.
    fn incremental(&self, chunks: &[usize], capacity: Capacity) -> Result<Tensor> {
        let mut cache = self.layer.new_cache(BATCH, capacity)?;
        let (mut at, mut outputs) = (0, Vec::new());
        for &n in chunks {
            outputs.push(
                self.layer
                    .prefill(&self.tokens(at, n)?, &mut cache, Queries::All)?,
            );
            at += n;
        }
        for i in at..TOKENS {
            outputs.push(self.layer.decode(&self.tokens(i, 1)?, &mut cache)?);
        }
        Ok(Tensor::cat(&outputs, 1)?)
    }
}

type Property = fn(&Subject) -> Result<Option<Difference>>;

const PROPERTIES: [(&str, Property); 16] = [
    ("token by token = parallel", |s| {
        compare(&s.incremental(&[], Capacity::Exact(TOKENS))?, &s.all()?).map(Some)
    }),
    ("prompt + tokens = parallel", prompt_and_tokens),
    ("prompt in chunks = parallel", chunks),
    ("every prefix = parallel", prefixes),
    ("last queries = end of all", last_queries),
    ("nothing reads the future", causality),
    ("a batch is its sequences", batch_invariance),
    ("ragged = each sequence alone", ragged),
    ("reordered beams continue their own past", reorder),
    ("a shared prefix = a copied one", shared_prefix),
    ("rewound steps repeat", rewind),
    ("a filled cache continues alike", fill),
    ("cache bytes are the formula", kv_audit),
    ("fused = seedlike", fused_is_seedlike),
    ("the seed's habits change nothing", habits),
    ("gradients = finite differences", gradients),
];

fn worst(differences: impl IntoIterator<Item = Result<Difference>>) -> Result<Option<Difference>> {
    let mut worst: Option<Difference> = None;
    for difference in differences {
        let difference = difference?;
        let so_far = worst.get_or_insert(difference);
        so_far.same_non_finite &= difference.same_non_finite;
        if difference.max > so_far.max {
            *so_far = Difference {
                same_non_finite: so_far.same_non_finite,
                ..difference
            };
        }
    }
    Ok(worst)
}

fn prompt_and_tokens(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    worst((1..=TOKENS).map(|n| compare(&s.incremental(&[n], Capacity::Growing(1))?, &all)))
}

fn chunks(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    let splits: [&[usize]; 5] = [&[1, 1, 1], &[2, 3, 5], &[4, 4, 4], &[5, 1, 7], &[6, 7]];
    worst(
        splits
            .into_iter()
            .map(|split| compare(&s.incremental(split, Capacity::Exact(TOKENS + 3))?, &all)),
    )
}

fn prefixes(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    worst((1..=TOKENS).map(|n| {
        compare(
            &s.layer.forward(&s.tokens(0, n)?, Queries::All)?,
            &all.narrow(1, 0, n)?,
        )
    }))
}

fn last_queries(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    let tail = |n: usize| all.narrow(1, TOKENS - n, n);
    let forward = (1..=TOKENS).map(|n| compare(&s.layer.forward(&s.x, Queries::Last(n))?, &tail(n)?));
    let onto_cache = (1..TOKENS).map(|past| {
        let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
        s.layer
            .prefill(&s.tokens(0, past)?, &mut cache, Queries::Last(1))?;
        let n = (TOKENS - past).div_ceil(2);
        let y = s
            .layer
            .prefill(&s.tokens(past, TOKENS - past)?, &mut cache, Queries::Last(n))?;
        compare(&y, &tail(n)?)
    });
    worst(forward.chain(onto_cache))
}

fn causality(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    worst((1..TOKENS).map(|n| {
        // Other tokens from n on, and larger ones. Not NaN: a weight of zero times NaN is NaN in any dense product.
        let (b, t, m) = s.x.dims3()?;
        let other = random_tensor(&[b, t - n, m], SEED, 300 + n as u64, s.x.dtype(), s.x.device())?;
        let x = Tensor::cat(&[&s.tokens(0, n)?, &(other * 8.0)?], 1)?;
        compare(
            &s.layer.forward(&x, Queries::All)?.narrow(1, 0, n)?,
            &all.narrow(1, 0, n)?,
        )
    }))
}

fn batch_invariance(s: &Subject) -> Result<Option<Difference>> {
    let (all, steps) = (s.all()?, s.incremental(&[5], Capacity::Exact(TOKENS))?);
    worst((0..BATCH).flat_map(|b| {
        let alone = || -> Result<_> {
            let one = Subject {
                x: s.x.narrow(0, b, 1)?.contiguous()?,
                ..*s
            };
            let mut cache = s.layer.new_cache(1, Capacity::Exact(TOKENS))?;
            let mut outputs = vec![s.layer.prefill(&one.tokens(0, 5)?, &mut cache, Queries::All)?];
            for i in 5..TOKENS {
                outputs.push(s.layer.decode(&one.tokens(i, 1)?, &mut cache)?);
            }
            Ok((one.all()?, Tensor::cat(&outputs, 1)?))
        };
        let row = |t: &Tensor| t.narrow(0, b, 1);
        match alone() {
            Ok((forward, stepped)) => {
                [(forward, row(&all)), (stepped, row(&steps))].map(|(a, b)| compare(&a, &b?))
            }
            Err(err) => [Err(err), compare(&all, &all)],
        }
    }))
}

fn ragged(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    let lens = [4usize, 7, 1];
    let (more, extra) = (4, 2);
    let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
    // Padding is NaN: it must not reach any output.
    let padded = |first: &[usize], n: &[usize]| -> Result<Tensor> {
        let width = n.iter().max().copied().unwrap_or(1);
        let rows = (0..BATCH).map(|b| {
            let (m, given) = (s.x.dim(2)?, s.x.narrow(0, b, 1)?.narrow(1, first[b], n[b])?);
            if n[b] == width {
                return Ok(given); // a GPU fills no empty tensors
            }
            let nan = Tensor::full(f32::NAN, (1, width - n[b], m), s.x.device())?.to_dtype(s.x.dtype())?;
            Tensor::cat(&[&given, &nan], 1)
        });
        Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    };
    let mut differences = Vec::new();
    let prompts = s
        .layer
        .prefill_ragged(&padded(&[0; BATCH], &lens)?, &lens, &mut cache)?;
    let expect = |b: usize, first: usize, n: usize| all.narrow(0, b, 1)?.narrow(1, first, n);
    for (b, &len) in lens.iter().enumerate() {
        differences.push(compare(
            &prompts.narrow(0, b, 1)?.narrow(1, 0, len)?,
            &expect(b, 0, len)?,
        ));
    }
    for step in 0..more {
        let at = lens.map(|len| len + step);
        let y = s.layer.decode(&padded(&at, &[1; BATCH])?, &mut cache)?;
        for (b, &i) in at.iter().enumerate() {
            differences.push(compare(&y.narrow(0, b, 1)?, &expect(b, i, 1)?));
        }
    }
    let at = lens.map(|len| len + more);
    let y = s
        .layer
        .prefill(&padded(&at, &[extra; BATCH])?, &mut cache, Queries::All)?;
    for (b, &i) in at.iter().enumerate() {
        differences.push(compare(&y.narrow(0, b, 1)?, &expect(b, i, extra)?));
    }
    worst(differences)
}

fn reorder(s: &Subject) -> Result<Option<Difference>> {
    let all = s.all()?;
    let orders: [&[usize]; 4] = [&[2, 0, 1], &[1, 1, 0], &[2], &[0, 1, 2, 2, 1]];
    worst(orders.into_iter().flat_map(|beams| {
        [3, 4].map(|past| -> Result<Difference> {
            let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
            s.layer.prefill(&s.tokens(0, past)?, &mut cache, Queries::All)?;
            s.layer.reorder(&mut cache, beams)?;
            let pick = |t: &Tensor| -> Result<Tensor> {
                let rows = beams.iter().map(|&b| t.narrow(0, b, 1));
                Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
            };
            let x = pick(&s.x)?;
            let steps = (past..TOKENS).map(|i| s.layer.decode(&x.narrow(1, i, 1)?, &mut cache));
            let y = Tensor::cat(&steps.collect::<Result<Vec<_>>>()?, 1)?;
            compare(&y, &pick(&all)?.narrow(1, past, TOKENS - past)?)
        })
    }))
}

/// Two hypotheses of every sequence over one prefix that is stored once, changing places and losing a sentence, against
/// the same over copies.
fn shared_prefix(s: &Subject) -> Result<Option<Difference>> {
    const BEAM: usize = 2;
    let build = s.layer.build();
    if build.has(Habit::DenseMask) || build.has(Habit::Expand) {
        return Ok(None);
    }
    let g = s.layer.geometry();
    let orders: [&[usize]; 3] = [&[1, 0, 2, 2, 5, 4], &[3, 2, 5, 5], &[0, 1, 3, 3]];
    let audit = |cache: &Cache, past: usize| -> Result<()> {
        let element = build.dtype.size_in_bytes();
        // Hypotheses write over what is in a window, and so share none of it.
        let closed = if g.window.is_some() { 0 } else { past / g.stride };
        let own = g.slots(past) - closed;
        let slots = (BATCH * closed + BATCH * BEAM * own) as u64;
        let expected = slots * (g.entry.elements() * element) as u64;
        if cache.kv_bytes() == expected {
            return Ok(());
        }
        Err(attn_core::Error::Shape {
            op: "kv_bytes",
            expected: expected.to_string(),
            got: vec![cache.kv_bytes() as usize],
        })
    };
    let pasts = [g.stride, g.stride + 1, 7]
        .into_iter()
        .filter(|past| past + orders.len() <= TOKENS);
    worst(pasts.map(|past| {
        let run = |is_shared: bool| -> Result<Tensor> {
            let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
            s.layer
                .prefill(&s.tokens(0, past)?, &mut cache, Queries::Last(1))?;
            if is_shared {
                cache.share(BEAM)?;
                audit(&cache, past)?;
            } else {
                let beams: Vec<usize> = (0..BATCH * BEAM).map(|i| i / BEAM).collect();
                cache.reorder(&beams)?;
            }
            let mut outputs = Vec::new();
            for (i, order) in (past..).zip(orders) {
                // Hypotheses of a sentence have tokens of their own.
                let x = random_tensor(
                    &[cache.batch(), 1, g.d_model],
                    SEED,
                    300 + i as u64,
                    build.dtype,
                    &build.device,
                )?;
                outputs.push(s.layer.decode(&x, &mut cache)?);
                s.layer.reorder(&mut cache, order)?;
            }
            Ok(Tensor::cat(&outputs, 0)?)
        };
        compare(&run(true)?, &run(false)?)
    }))
}

/// Every set of the seed's habits that is defined for the element type, decoding after a prompt with beams that change
/// places, against the parallel form.
fn habits(s: &Subject) -> Result<Option<Difference>> {
    const PAST: usize = 4;
    let build = s.layer.build();
    let is_half = matches!(build.dtype, DType::BF16 | DType::F16);
    // Once for each type: the seed-like path itself is of no half type.
    if is_half == (build.path == Path::Seedlike) {
        return Ok(None);
    }
    let all = s.all()?;
    let beams = [2, 0, 1];
    let pick = |t: &Tensor| -> Result<Tensor> {
        let rows = beams.iter().map(|&b| t.narrow(0, b, 1));
        Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    };
    let (x, expected) = (pick(&s.x)?, pick(&all)?);
    let sets = Habits::combinations().filter(|set| set.contains(Habit::F32) != is_half);
    worst(sets.map(|set| {
        let build = Build::new(Path::Seedlike, build.dtype, build.device.clone()).with_habits(set);
        let layer = s.config.build(s.weights, &build)?;
        let mut cache = layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
        let first = layer.prefill(&s.tokens(0, PAST)?, &mut cache, Queries::All)?;
        let mut outputs = vec![pick(&first)?];
        layer.reorder(&mut cache, &beams)?;
        for i in PAST..TOKENS {
            outputs.push(layer.decode(&x.narrow(1, i, 1)?, &mut cache)?);
        }
        compare(&Tensor::cat(&outputs, 1)?, &expected)
    }))
}

fn rewind(s: &Subject) -> Result<Option<Difference>> {
    worst((1..7).map(|past| {
        let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
        s.layer.prefill(&s.tokens(0, past)?, &mut cache, Queries::All)?;
        cache.mark()?;
        let mut run = || -> Result<Tensor> {
            let steps = (past..TOKENS).map(|i| s.layer.decode(&s.tokens(i, 1)?, &mut cache));
            let y = Tensor::cat(&steps.collect::<Result<Vec<_>>>()?, 1)?;
            s.layer.rewind(&mut cache, past)?;
            Ok(y)
        };
        let first = run()?;
        compare(&run()?, &first)
    }))
}

fn fill(s: &Subject) -> Result<Option<Difference>> {
    worst((1..7).map(|past| {
        let run = || -> Result<Tensor> {
            let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
            s.layer.fill(&mut cache, past, SEED)?;
            if cache.lens() != [past; BATCH] {
                return Err(attn_core::Error::Shape {
                    op: "fill",
                    expected: format!("{past} tokens a sequence"),
                    got: cache.lens().to_vec(),
                });
            }
            let steps = (past..TOKENS).map(|i| s.layer.decode(&s.tokens(i, 1)?, &mut cache));
            Ok(Tensor::cat(&steps.collect::<Result<Vec<_>>>()?, 1)?)
        };
        let first = run()?;
        compare(&run()?, &first)
    }))
}

/// `kv_bytes` is the formula at the length; on the fused path `kv_allocated_bytes` is the formula at the capacity,
/// and neither bytes nor state move while tokens come. A released "MLA" that caches full keys fails here.
fn kv_audit(s: &Subject) -> Result<Option<Difference>> {
    let (geometry, element) = (s.layer.geometry(), s.x.dtype().size_in_bytes());
    let accumulator = if s.x.dtype() == DType::F64 { 8 } else { 4 };
    let state = (BATCH * (geometry.state_elements * accumulator + 8)) as u64;
    let mut cache = s.layer.new_cache(BATCH, Capacity::Exact(TOKENS))?;
    for len in 1..=TOKENS {
        s.layer.decode(&s.tokens(len - 1, 1)?, &mut cache)?;
        let capacity = match s.layer.build().path {
            Path::Fused => TOKENS,
            Path::Seedlike => len,
        };
        let expected = [
            geometry.kv_bytes(BATCH, len, element),
            geometry.kv_bytes(BATCH, capacity, element),
            state,
        ];
        let got = [
            cache.kv_bytes(),
            cache.kv_allocated_bytes(),
            cache.kv_state_bytes(),
        ];
        if got != expected {
            return Err(attn_core::Error::Shape {
                op: "kv audit",
                expected: format!("{expected:?} bytes (length, capacity, state) at {len} tokens"),
                got: got.iter().map(|&bytes| bytes as usize).collect(),
            });
        }
    }
    let overfull = s.layer.decode(&s.tokens(0, 1)?, &mut cache);
    // The last slot may take more tokens, and a window any number of them.
    let is_full = geometry.slots(TOKENS + 1) > geometry.slots(TOKENS);
    if s.layer.build().path == Path::Fused && is_full && overfull.is_ok() {
        return Err(attn_core::Error::Shape {
            op: "kv audit",
            expected: "an error where a cache of exact capacity is full".to_string(),
            got: vec![TOKENS + 1],
        });
    }
    Ok(Some(Difference {
        max: 0.0,
        cosine: 0.0,
        same_non_finite: true,
    }))
}

fn fused_is_seedlike(s: &Subject) -> Result<Option<Difference>> {
    let build = s.layer.build();
    if build.path == Path::Seedlike || !Path::Seedlike.supports(build.dtype) {
        return Ok(None);
    }
    let seedlike = s.config.build(
        s.weights,
        &Build::new(Path::Seedlike, build.dtype, build.device.clone()),
    )?;
    compare(&s.all()?, &seedlike.forward(&s.x, Queries::All)?).map(Some)
}

/// Directional derivatives of a random projection of the output, for every weight and the input.
fn gradients(s: &Subject) -> Result<Option<Difference>> {
    let build = s.layer.build();
    if build.dtype != DType::F64 {
        return Ok(None);
    }
    let device = &Device::Cpu;
    let random = |shape: &[usize], stream: u64| random_tensor(shape, SEED, stream, DType::F64, device);
    let projection = random(s.x.dims(), 100)?;
    let loss = |weights: &Weights, x: &Tensor| -> Result<Tensor> {
        let y = s.config.build(weights, build)?.forward(x, Queries::All)?;
        Ok((y * &projection)?.sum_all()?)
    };
    let vars = s.weights.to_vars(DType::F64)?;
    let x = candle_core::Var::from_tensor(&s.x)?;
    let grads = loss(&vars, &x)?.backward()?;
    let mut differences = Vec::new();
    let mut names: Vec<String> = vars.iter().map(|(name, _)| name.to_string()).collect();
    names.push("input".to_string());
    for (stream, name) in names.iter().enumerate() {
        let value = vars
            .iter()
            .find(|(known, _)| known == name)
            .map_or(x.as_tensor(), |(_, t)| t);
        // No gradient means zero (a query that sees only itself does not depend on its scores): a weight that was
        // lost from the graph shows as a finite difference that is not.
        let grad = match grads.get(value) {
            Some(grad) => grad.clone(),
            None => value.zeros_like()?,
        };
        let direction = random(value.dims(), 200 + stream as u64)?;
        let analytic = (&grad * &direction)?.sum_all()?;
        let step = 1e-5;
        let shifted = |sign: f64| -> Result<Tensor> {
            let moved = (value.detach() + (&direction * (sign * step))?)?;
            let mut weights = s.weights.to_vars(DType::F64)?;
            if name == "input" {
                return loss(&weights, &moved);
            }
            weights.insert(name.clone(), moved);
            loss(&weights, &s.x)
        };
        let numeric = ((shifted(1.0)? - shifted(-1.0)?)? * (0.5 / step))?;
        let mut difference = compare(&analytic.reshape(1)?, &numeric.reshape(1)?)?;
        // Central differences leave an error of the order of step^2 and of rounding / step.
        difference.max *= own_tolerance(DType::F64) / 1e-6;
        differences.push(Ok(difference));
    }
    worst(differences)
}
