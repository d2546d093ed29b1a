//! Greedy and sampled generation.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use attn_core::Path;
use attn_model::{
    Decoder, DecoderKind, Error, GenerateOptions, Generation, Prompts, Sampling, generate, greedy,
};
use candle_core::DType;
use common::*;

fn prompts() -> Prompts {
    Prompts::new(vec![tokens(3, 1), tokens(3, 2), tokens(5, 3), tokens(1, 4)])
}

/// Greedy by whole sequences.
fn plain(decoder: &Decoder, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut all = prompt.to_vec();
    for _ in 0..n {
        let row: Vec<f64> = whole(decoder, None, &all)
            .get(all.len() - 1)
            .unwrap()
            .to_vec1()
            .unwrap();
        let best = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        all.push(best as u32);
    }
    all[prompt.len()..].to_vec()
}

#[test]
fn greedy_takes_the_largest_each_time_and_ends_where_it_ends() {
    let mut lengths = Vec::new();
    for (name, attention) in attentions() {
        for path in PATHS {
            let decoder = decoder(&config(DecoderKind::Llama, &attention), path, DType::F64);
            let prompts = prompts();
            let forced =
                greedy(&decoder, &prompts, 9, None).unwrap_or_else(|error| panic!("{name} {path}: {error}"));
            let tokens = [tokens(3, 1), tokens(3, 2), tokens(5, 3), tokens(1, 4)];
            let expected: Vec<_> = tokens.iter().map(|prompt| plain(&decoder, prompt, 9)).collect();
            assert_eq!(forced, expected, "{name} {path}");
            // A token that occurs: sequences without it go on.
            let eos = forced[0][2];
            let ended = greedy(&decoder, &prompts, 9, Some(eos)).unwrap();
            for (ended, forced) in ended.iter().zip(&forced) {
                let end = forced
                    .iter()
                    .position(|&token| token == eos)
                    .map_or(9, |at| at + 1);
                assert_eq!(ended, &forced[..end], "{name} {path}");
                lengths.push(end);
            }
        }
    }
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 3 && lengths.contains(&9), "{lengths:?}");
}

#[test]
fn forced_lengths_fill_exact_caches() {
    let (_, attention) = attentions().pop().unwrap();
    let decoder = decoder(&config(DecoderKind::Llama, &attention), Path::Fused, DType::F32);
    let mut generation = Generation::start(&decoder, &prompts(), &GenerateOptions::forced(6)).unwrap();
    let mut steps = 1;
    while generation.advance().unwrap() {
        steps += 1;
        assert_eq!(generation.sequences(), 4);
    }
    assert_eq!((steps, generation.sequences()), (5, 0));
    assert_eq!(generation.state().lens(), [8, 8, 10, 6]);
    assert!(generation.finish().iter().all(|tokens| tokens.len() == 6));
}

#[test]
fn samples_do_not_depend_on_the_batch() {
    for (name, attention) in attentions() {
        let decoder = decoder(&config(DecoderKind::Llama, &attention), Path::Fused, DType::F32);
        let all = [
            tokens(3, 1),
            tokens(3, 2),
            tokens(5, 3),
            tokens(1, 4),
            tokens(1, 4),
        ];
        let seeds = [7, 8, 9, 10, 11];
        let options = |order: &[usize]| GenerateOptions {
            max_len: 12,
            eos: Some(4),
            sampling: Some(Sampling {
                top_k: Some(8),
                top_p: Some(0.95),
                ..Sampling::new(0.8, order.iter().map(|&i| seeds[i]).collect())
            }),
        };
        let run = |order: &[usize]| {
            let prompts = Prompts::new(order.iter().map(|&i| all[i].clone()).collect());
            generate(&decoder, &prompts, &options(order)).unwrap()
        };
        let first = run(&[0, 1, 2, 3, 4]);
        assert_eq!(first, run(&[0, 1, 2, 3, 4]), "{name}");
        assert_ne!(first[3], first[4], "{name}: two seeds, one sample");
        let order = [3, 0, 4, 2, 1];
        for (row, tokens) in run(&order).iter().enumerate() {
            assert_eq!(tokens, &first[order[row]], "{name}");
        }
        for (i, tokens) in first.iter().enumerate() {
            assert_eq!(&run(&[i])[0], tokens, "{name}");
        }
    }
}

/// Shares of 6000 draws of a first token beside the probabilities they are drawn with.
#[test]
fn samples_are_drawn_as_likely_as_they_are() {
    let (_, attention) = attentions().swap_remove(0);
    let decoder = decoder(&config(DecoderKind::Llama, &attention), Path::Fused, DType::F64);
    let prompt = tokens(3, 1);
    let logits: Vec<f64> = whole(&decoder, None, &prompt).get(2).unwrap().to_vec1().unwrap();
    let n = 6000;
    let cases = [
        (1.0, None, None),
        (2.0, None, None),
        (1.5, Some(4), None),
        (3.0, None, Some(0.7)),
        (3.0, Some(5), Some(0.6)),
        (1.0, Some(1), None),
    ];
    for (temperature, top_k, top_p) in cases {
        let mut order: Vec<usize> = (0..VOCAB).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(top_k.unwrap_or(VOCAB));
        let weight = |i: usize| (logits[i] / temperature).exp();
        let mut total: f64 = order.iter().map(|&i| weight(i)).sum();
        if let Some(p) = top_p {
            let mut sum = 0.0;
            let needed = order.iter().position(|&i| {
                sum += weight(i) / total;
                sum >= p
            });
            order.truncate(needed.unwrap() + 1);
            total = order.iter().map(|&i| weight(i)).sum();
        }
        let sampling = Sampling {
            top_k,
            top_p,
            ..Sampling::new(temperature, (0..n).collect())
        };
        let options = GenerateOptions {
            max_len: 1,
            eos: None,
            sampling: Some(sampling),
        };
        let prompts = Prompts::new(vec![prompt.clone(); n as usize]);
        let mut counts = [0f64; VOCAB];
        for tokens in generate(&decoder, &prompts, &options).unwrap() {
            counts[tokens[0] as usize] += 1.0;
        }
        for (i, count) in counts.into_iter().enumerate() {
            let share = if order.contains(&i) {
                weight(i) / total
            } else {
                0.0
            };
            // Five standard deviations.
            let allowed = 5.0 * (share * (1.0 - share) / n as f64).sqrt();
            let gap = (count / n as f64 - share).abs();
            assert!(
                gap <= allowed,
                "{i} at {temperature} {top_k:?} {top_p:?}: {count} for {share}"
            );
        }
    }
}

#[test]
fn impossible_options_are_refused() {
    let (_, attention) = attentions().swap_remove(0);
    let decoder = decoder(&config(DecoderKind::Llama, &attention), Path::Fused, DType::F32);
    let sampling = || Sampling::new(1.0, vec![1, 2, 3, 4]);
    let with = |sampling: Sampling| GenerateOptions {
        sampling: Some(sampling),
        ..GenerateOptions::forced(3)
    };
    let cases = [
        (GenerateOptions::forced(0), "maximum length"),
        (
            GenerateOptions {
                eos: Some(11),
                ..GenerateOptions::forced(3)
            },
            "token",
        ),
        (with(Sampling::new(0.0, vec![1, 2, 3, 4])), "temperature"),
        (with(Sampling::new(1.0, vec![1])), "seeds"),
        (
            with(Sampling {
                top_k: Some(0),
                ..sampling()
            }),
            "top k",
        ),
        (
            with(Sampling {
                top_p: Some(1.5),
                ..sampling()
            }),
            "top p",
        ),
    ];
    for (options, what) in cases {
        let error = generate(&decoder, &prompts(), &options).unwrap_err();
        assert!(
            matches!(error, Error::Input { what: got, .. } if got == what),
            "{error}"
        );
    }
}
