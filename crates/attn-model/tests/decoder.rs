//! What must hold of any decoder, whatever attends in it.

mod common;

use attn_core::{Build, Capacity, Path, Weights};
use attn_model::{DecoderConfig, DecoderKind, Error, Prompts};
use candle_core::{DType, Device, Tensor};
use common::*;

/// Positions at which blocks of 2, 3 and 4 end and do not end.
const TOKENS: usize = 7;

#[test]
fn prompt_and_steps_are_the_whole_sequence() {
    for (name, attention) in attentions() {
        for kind in [DecoderKind::Prefix, DecoderKind::Llama] {
            let config = config(kind, &attention);
            for path in PATHS {
                for dtype in [DType::F64, DType::F32] {
                    let decoder = decoder(&config, path, dtype);
                    let tolerance = if dtype == DType::F64 { 1e-11 } else { 1e-5 };
                    let what = format!("{name} {kind:?} {path} {dtype:?}");
                    let states = (kind == DecoderKind::Prefix).then(|| prefix(2, 5, 1));
                    let all: Vec<Vec<u32>> = (0..2).map(|b| tokens(TOKENS, 10 + b)).collect();
                    let expected: Vec<Tensor> = (0..2)
                        .map(|b| {
                            let own = states.as_ref().map(|states| states.narrow(0, b, 1).unwrap());
                            whole(&decoder, own.as_ref(), &all[b])
                        })
                        .collect();
                    let expected = Tensor::stack(&expected, 0).unwrap();
                    for n in [1, 2, 4] {
                        let first = all.iter().map(|tokens| tokens[..n].to_vec()).collect();
                        let mut prompts = Prompts::new(first);
                        if let Some(states) = &states {
                            prompts = prompts.with_prefix(states.clone());
                        }
                        let room = prompts.lens()[0] + TOKENS - n;
                        let mut state = decoder.new_state(2, Capacity::Exact(room)).unwrap();
                        let mut rows = vec![decoder.prefill(&prompts, &mut state).unwrap()];
                        for i in n..TOKENS {
                            let next: Vec<u32> = all.iter().map(|tokens| tokens[i]).collect();
                            rows.push(decoder.step(&next, &mut state).unwrap());
                        }
                        assert_eq!(state.lens(), [room, room]);
                        let got = Tensor::stack(&rows, 1).unwrap();
                        let expected = expected.narrow(1, n - 1, TOKENS - n + 1).unwrap();
                        assert_close(&got, &expected, tolerance, &what);
                    }
                }
            }
        }
    }
}

/// Prefixes and prompts of other lengths, some equal and side by side.
#[test]
fn ragged_sequences_are_each_alone() {
    let (lens, prompt_lens) = ([3, 3, 0, 5], [2, 2, 1, 3]);
    for (name, attention) in attentions() {
        let config = config(DecoderKind::Prefix, &attention);
        for path in PATHS {
            let decoder = decoder(&config, path, DType::F64);
            // What lies behind a prefix is never read.
            let states = prefix(4, 5, 1);
            let padded: Vec<Tensor> = lens
                .iter()
                .enumerate()
                .map(|(b, &len)| {
                    let own = states.narrow(0, b, 1).unwrap().narrow(1, 0, len).unwrap();
                    let nan = Tensor::full(f64::NAN, (1, 5 - len, DIMS.d_model), &Device::Cpu).unwrap();
                    match len {
                        0 => nan,
                        5 => own,
                        _ => Tensor::cat(&[own, nan], 1).unwrap(),
                    }
                })
                .collect();
            let all: Vec<Vec<u32>> = (0..4).map(|b| tokens(TOKENS, 20 + b)).collect();
            let first = all
                .iter()
                .zip(prompt_lens)
                .map(|(tokens, n)| tokens[..n].to_vec());
            let prompts = Prompts::new(first.collect())
                .with_prefix(Tensor::cat(&padded, 0).unwrap())
                .with_prefix_lens(lens.to_vec());
            let mut state = decoder.new_state(4, Capacity::Growing(4)).unwrap();
            let mut rows = vec![decoder.prefill(&prompts, &mut state).unwrap()];
            for i in 0..3 {
                let next: Vec<u32> = all
                    .iter()
                    .zip(prompt_lens)
                    .map(|(tokens, n)| tokens[n + i])
                    .collect();
                rows.push(decoder.step(&next, &mut state).unwrap());
            }
            let got = Tensor::stack(&rows, 1).unwrap();
            for b in 0..4 {
                let own = states.narrow(0, b, 1).unwrap().narrow(1, 0, lens[b]).unwrap();
                let own = (lens[b] > 0).then_some(&own);
                let expected = whole(&decoder, own, &all[b][..prompt_lens[b] + 3]);
                let expected = expected.narrow(0, prompt_lens[b] - 1, 4).unwrap();
                assert_close(
                    &got.get(b).unwrap(),
                    &expected,
                    1e-11,
                    &format!("{name} {path} {b}"),
                );
            }
        }
    }
}

#[test]
fn prompts_continue_what_a_state_holds() {
    for (name, attention) in attentions() {
        let config = config(DecoderKind::Llama, &attention);
        for path in PATHS {
            let decoder = decoder(&config, path, DType::F64);
            let all: Vec<Vec<u32>> = (0..3).map(|b| tokens(9, 30 + b)).collect();
            let part = |from: [usize; 3], to: [usize; 3]| {
                Prompts::new((0..3).map(|b| all[b][from[b]..to[b]].to_vec()).collect())
            };
            let mut state = decoder.new_state(3, Capacity::Growing(2)).unwrap();
            decoder.prefill(&part([0; 3], [2, 3, 3]), &mut state).unwrap();
            decoder.prefill(&part([2, 3, 3], [4, 5, 5]), &mut state).unwrap();
            let got = decoder.prefill(&part([4, 5, 5], [9, 8, 8]), &mut state).unwrap();
            for (b, len) in [9, 8, 8].into_iter().enumerate() {
                let expected = whole(&decoder, None, &all[b][..len]).get(len - 1).unwrap();
                assert_close(
                    &got.get(b).unwrap(),
                    &expected,
                    1e-11,
                    &format!("{name} {path} {b}"),
                );
            }
        }
    }
}

#[test]
fn reordered_states_continue_their_own_past() {
    for (name, attention) in attentions() {
        let config = config(DecoderKind::Prefix, &attention);
        for path in PATHS {
            let decoder = decoder(&config, path, DType::F64);
            let states = prefix(2, 4, 1);
            let prompts = Prompts::new(vec![vec![1, 2], vec![3, 4]]).with_prefix(states.clone());
            let mut state = decoder.new_state(2, Capacity::Growing(6)).unwrap();
            decoder.prefill(&prompts, &mut state).unwrap();
            state.reorder(&[1, 0, 1, 1]).unwrap();
            let got = decoder.step(&[5, 6, 7, 8], &mut state).unwrap();
            state.reorder(&[2, 1]).unwrap();
            let last = decoder.step(&[9, 10], &mut state).unwrap();
            let expected = |b: usize, tokens: &[u32]| {
                let own = states.narrow(0, b, 1).unwrap();
                whole(&decoder, Some(&own), tokens).get(tokens.len() - 1).unwrap()
            };
            let rows: [(usize, &[u32]); 4] =
                [(1, &[3, 4, 5]), (0, &[1, 2, 6]), (1, &[3, 4, 7]), (1, &[3, 4, 8])];
            for (row, (b, tokens)) in rows.into_iter().enumerate() {
                assert_close(&got.get(row).unwrap(), &expected(b, tokens), 1e-11, &name);
            }
            assert_close(&last.get(0).unwrap(), &expected(1, &[3, 4, 7, 9]), 1e-11, &name);
            assert_close(&last.get(1).unwrap(), &expected(0, &[1, 2, 6, 10]), 1e-11, &name);
        }
    }
}

/// The paper's layer written out, attention apart.
#[test]
fn the_prefix_decoder_is_the_papers() {
    let (_, attention) = attentions().swap_remove(0);
    let config = config(DecoderKind::Prefix, &attention);
    let all = weights(&config, 42);
    let get = |name: &str| {
        let found = all.iter().find(|(known, _)| *known == name);
        found.unwrap().1.to_dtype(DType::F64).unwrap()
    };
    let norm = |x: &Tensor, name: &str| {
        let centred = x.broadcast_sub(&x.mean_keepdim(1).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(1).unwrap();
        let scaled = centred
            .broadcast_div(&(variance + 1e-5).unwrap().sqrt().unwrap())
            .unwrap();
        let weighed = scaled.broadcast_mul(&get(&format!("{name}.weight"))).unwrap();
        weighed.broadcast_add(&get(&format!("{name}.bias"))).unwrap()
    };
    let linear = |x: &Tensor, name: &str| {
        let y = x.matmul(&get(&format!("{name}.weight")).t().unwrap()).unwrap();
        y.broadcast_add(&get(&format!("{name}.bias"))).unwrap()
    };
    let (states, ids) = (prefix(1, 4, 1), tokens(5, 2));
    let build = Build::cpu(Path::Fused, DType::F64);
    let rows = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
    let mut x = (get("embed_tokens.weight").index_select(&rows, 0).unwrap() * 24f64.sqrt()).unwrap();
    for i in 0..2 {
        let prefix = format!("layers.{i}.self_attn.");
        let own: Weights = all
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_string(), t.clone())))
            .collect();
        let layer = attention.build(&own, &build).unwrap();
        let n = norm(&x, &format!("layers.{i}.self_attn_layer_norm"));
        let both = Tensor::cat(&[&states, &n.unsqueeze(0).unwrap()], 1).unwrap();
        let attended = layer.forward(&both, attn_core::Queries::All).unwrap();
        let attended = attended.squeeze(0).unwrap().narrow(0, 4, 5).unwrap();
        let h = norm(
            &(x + attended).unwrap(),
            &format!("layers.{i}.self_attn_layer_norm"),
        );
        let inner = linear(&h, &format!("layers.{i}.fc1")).relu().unwrap();
        let y = (&h + linear(&inner, &format!("layers.{i}.fc2"))).unwrap();
        x = norm(&y, &format!("layers.{i}.final_layer_norm"));
    }
    let expected = norm(&x, "layer_norm")
        .matmul(&get("output_projection.weight").t().unwrap())
        .unwrap();
    for path in PATHS {
        let got = whole(&decoder(&config, path, DType::F64), Some(&states), &ids);
        assert_close(&got, &expected, 1e-11, path.name());
    }
}

#[test]
fn gradients_reach_every_weight() {
    for (name, attention) in attentions() {
        for kind in [DecoderKind::Prefix, DecoderKind::Llama] {
            let config = config(kind, &attention);
            let vars = weights(&config, 42).to_vars(DType::F64).unwrap();
            let build = Build::cpu(Path::Fused, DType::F64);
            let states = (kind == DecoderKind::Prefix).then(|| prefix(2, 3, 1));
            let ids = Tensor::from_vec(tokens(10, 3), (2, 5), &Device::Cpu).unwrap();
            let loss = |weights: &Weights| {
                let decoder = config.build(weights, &build).unwrap();
                let logits = decoder.forward(states.as_ref(), &ids).unwrap();
                logits.sqr().unwrap().mean_all().unwrap()
            };
            let grads = loss(&vars).backward().unwrap();
            for (weight, tensor) in vars.iter() {
                let grad = grads
                    .get(tensor)
                    .unwrap_or_else(|| panic!("{name}: no gradient of {weight}"));
                let shape = tensor.dims().to_vec();
                let direction = common::direction(&shape);
                let slope = (grad * &direction).unwrap().sum_all().unwrap();
                let at = |step: f64| {
                    let mut moved = vars.clone();
                    let tensor = tensor.detach();
                    moved.insert(weight, (tensor + (&direction * step).unwrap()).unwrap());
                    loss(&moved).to_scalar::<f64>().unwrap()
                };
                // A small step: the kinks of ReLU are near.
                let expected = (at(1e-7) - at(-1e-7)) / 2e-7;
                let slope = slope.to_scalar::<f64>().unwrap();
                assert!(
                    (slope - expected).abs() < 1e-5 + 1e-5 * expected.abs(),
                    "{name} {kind:?} {weight}: {slope} and {expected}"
                );
            }
        }
    }
}

#[test]
fn random_models_are_of_one_scale() {
    for (name, attention) in attentions() {
        for (kind, tie) in [
            (DecoderKind::Prefix, false),
            (DecoderKind::Prefix, true),
            (DecoderKind::Llama, false),
            (DecoderKind::Llama, true),
        ] {
            let config = DecoderConfig {
                tie_embeddings: tie,
                ..DecoderConfig::new(kind, attention.clone(), 9)
                    .with_d_ff(96)
                    .with_vocab(200)
            };
            let weights = Weights::seeded(&config.weight_specs(), 7).unwrap();
            assert_eq!(
                config.parameters(),
                weights.iter().map(|(_, t)| t.elem_count()).sum::<usize>()
            );
            assert_eq!(
                weights.contains("lm_head.weight"),
                kind == DecoderKind::Llama && !tie
            );
            let decoder = config
                .build(&weights, &Build::cpu(Path::Fused, DType::F32))
                .unwrap();
            let states = (kind == DecoderKind::Prefix).then(|| prefix(1, 6, 1));
            let logits = whole(&decoder, states.as_ref(), &tokens(8, 4));
            let scale = logits
                .sqr()
                .unwrap()
                .mean_all()
                .unwrap()
                .to_scalar::<f64>()
                .unwrap()
                .sqrt();
            assert!((0.5..2.0).contains(&scale), "{name} {kind:?} {tie}: {scale}");
        }
    }
}

#[test]
fn half_precision_follows() {
    for (name, attention) in attentions() {
        for kind in [DecoderKind::Prefix, DecoderKind::Llama] {
            let config = config(kind, &attention);
            let states = (kind == DecoderKind::Prefix).then(|| prefix(1, 5, 1));
            let ids = tokens(6, 9);
            let expected = whole(&decoder(&config, Path::Fused, DType::F64), states.as_ref(), &ids);
            for dtype in [DType::BF16, DType::F16] {
                let decoder = decoder(&config, Path::Fused, dtype);
                let got = whole(&decoder, states.as_ref(), &ids);
                let tolerance = attn_testkit::tolerance(dtype);
                assert_close(&got, &expected, tolerance, &format!("{name} {kind:?} {dtype:?}"));
                let mut prompts = Prompts::new(vec![ids[..5].to_vec()]);
                if let Some(states) = &states {
                    prompts = prompts.with_prefix(states.clone());
                }
                let mut state = decoder.new_state(1, Capacity::Exact(11)).unwrap();
                decoder.prefill(&prompts, &mut state).unwrap();
                let last = decoder.step(&ids[5..], &mut state).unwrap();
                assert_eq!(last.dtype(), DType::F32);
                let expected = expected.narrow(0, 5, 1).unwrap();
                assert_close(
                    &last,
                    &expected,
                    1.5 * tolerance,
                    &format!("{name} {kind:?} {dtype:?}"),
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_, attention) = attentions().swap_remove(0);
    let config = config(DecoderKind::Prefix, &attention);
    let decoder = decoder(&config, Path::Fused, DType::F32);
    let mut state = decoder.new_state(2, Capacity::Exact(8)).unwrap();
    let mut refuse = |prompts: Prompts, says: &str| {
        let error = decoder.prefill(&prompts, &mut state).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refuse(Prompts::new(vec![]), "at least one token");
    refuse(Prompts::new(vec![vec![1], vec![]]), "at least one token");
    refuse(Prompts::new(vec![vec![1], vec![11]]), "one below 11");
    refuse(Prompts::new(vec![vec![1]]), "expected 1 as in the prompts");
    let two = || Prompts::new(vec![vec![1], vec![2]]);
    refuse(two().with_prefix(prefix(1, 3, 1)), "expected [2, S, 24]");
    refuse(two().with_prefix_lens(vec![1, 1]), "expected encoder states");
    let with = |lens: Vec<usize>| two().with_prefix(prefix(2, 3, 1)).with_prefix_lens(lens);
    refuse(with(vec![1, 4]), "expected 2 of at most 3");
    refuse(with(vec![1]), "expected 2 of at most 3");
    decoder.prefill(&two(), &mut state).unwrap();
    let mut refuse = |prompts: Prompts, says: &str| {
        let error = decoder.prefill(&prompts, &mut state).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refuse(two().with_prefix(prefix(2, 3, 1)), "expected an empty state");
    assert!(matches!(decoder.step(&[1], &mut state), Err(Error::Input { .. })));
    assert!(matches!(
        decoder.step(&[1, 11], &mut state),
        Err(Error::Input { .. })
    ));
    for wrong in [
        Tensor::zeros((2, 0), DType::U32, &Device::Cpu).unwrap(),
        Tensor::zeros((2, 3), DType::I64, &Device::Cpu).unwrap(),
        Tensor::zeros(2, DType::U32, &Device::Cpu).unwrap(),
        Tensor::full(11u32, (1, 1), &Device::Cpu).unwrap(),
    ] {
        assert!(matches!(decoder.forward(None, &wrong), Err(Error::Input { .. })));
    }
    let plain = common::config(DecoderKind::Llama, &attention);
    let plain = common::decoder(&plain, Path::Fused, DType::F32);
    let ids = Tensor::zeros((2, 1), DType::U32, &Device::Cpu).unwrap();
    let error = plain.forward(Some(&prefix(2, 3, 1)), &ids).unwrap_err();
    assert!(error.to_string().contains("prompt it with tokens"), "{error}");
}
