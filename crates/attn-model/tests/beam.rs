//! Beam search against a plain one: a whole forward pass for every hypothesis, sentence by sentence, and a full sort.

mod common;

use attn_core::{Build, Habits, Path};
use attn_model::{
    BeamOptions, BeamSearch, Decoder, DecoderKind, Error, Hypothesis, Prefix, Prompts, beam, greedy,
};
use candle_core::{DType, Device, Tensor};
use common::*;

const EOS: u32 = 2;
const MODES: [Prefix; 3] = [Prefix::Replicated, Prefix::Copied, Prefix::Shared];

/// A sentence: its encoder states `[1, S, M]` and its prompt.
type Sentence = (Option<Tensor>, Vec<u32>);

/// Log-probabilities of what follows each of several hypotheses of one length.
fn log_probs(
    decoder: &Decoder,
    sentence: &Sentence,
    hypotheses: &[Vec<u32>],
    temperature: f64,
) -> Vec<Vec<f64>> {
    let ids: Vec<u32> = hypotheses
        .iter()
        .flat_map(|tokens| [sentence.1.clone(), tokens.clone()].concat())
        .collect();
    let (n, t) = (hypotheses.len(), ids.len() / hypotheses.len());
    let states = sentence
        .0
        .as_ref()
        .map(|states| states.repeat((n, 1, 1)).unwrap());
    let ids = Tensor::from_vec(ids, (n, t), &Device::Cpu).unwrap();
    let logits = decoder.forward(states.as_ref(), &ids).unwrap();
    let rows = logits.narrow(1, t - 1, 1).unwrap().squeeze(1).unwrap();
    rows.to_dtype(DType::F64)
        .unwrap()
        .to_vec2::<f64>()
        .unwrap()
        .into_iter()
        .map(|row| {
            let row: Vec<f64> = row.iter().map(|x| x / temperature).collect();
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total = max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            row.iter().map(|x| x - total).collect()
        })
        .collect()
}

/// What the search is to find, as the documentation has it.
fn plain(decoder: &Decoder, sentence: &Sentence, options: &BeamOptions) -> Vec<Hypothesis> {
    let (width, eos) = (options.beam, options.eos);
    let mut live: Vec<(f64, Vec<u32>)> = vec![(0.0, Vec::new())];
    let mut ended = Vec::new();
    let score = |sum: f64, n: usize| sum / (n as f64).powf(options.length_penalty);
    for step in 0.. {
        let hypotheses: Vec<Vec<u32>> = live.iter().map(|(_, tokens)| tokens.clone()).collect();
        let rows = log_probs(decoder, sentence, &hypotheses, options.temperature);
        let must_end = options.forced_len.is_none() && step == options.max_len;
        let cannot_end = options.forced_len.is_some() || step < options.min_len;
        let mut candidates = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            for (token, log_prob) in row.iter().enumerate() {
                let is_end = token as u32 == eos;
                if (must_end && !is_end) || (cannot_end && !must_end && is_end) {
                    continue;
                }
                candidates.push((live[i].0 + log_prob, i, token as u32));
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        candidates.truncate(2 * width);
        let extended =
            |&(sum, i, token): &(f64, usize, u32)| (sum, [live[i].1.clone(), vec![token]].concat());
        if options.forced_len.is_none() {
            let ends = candidates.iter().take(width).filter(|c| c.2 == eos).map(extended);
            ended.extend(ends.take(width - ended.len()));
        }
        let next: Vec<_> = candidates
            .iter()
            .filter(|c| c.2 != eos)
            .take(width)
            .map(extended)
            .collect();
        live = next;
        if options.forced_len == Some(step + 1) {
            ended = std::mem::take(&mut live);
        }
        if ended.len() == width || live.is_empty() || must_end {
            break;
        }
    }
    let mut found: Vec<Hypothesis> = ended
        .into_iter()
        .map(|(sum, tokens)| Hypothesis {
            score: score(sum, tokens.len()),
            sum_log_prob: sum,
            tokens,
        })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found
}

#[track_caller]
fn assert_same(got: &[Hypothesis], expected: &[Hypothesis], tolerance: f64, what: &str) {
    let tokens = |all: &[Hypothesis]| all.iter().map(|h| h.tokens.clone()).collect::<Vec<_>>();
    assert_eq!(tokens(got), tokens(expected), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        let gap = (got.score - expected.score).abs();
        assert!(gap < tolerance, "{what}: {got:?} {expected:?}");
        let gap = (got.sum_log_prob - expected.sum_log_prob).abs();
        assert!(gap < tolerance * 10.0, "{what}: {got:?} {expected:?}");
    }
}

/// The search, or nothing where caches cannot share a prefix.
fn search(decoder: &Decoder, prompts: &Prompts, options: &BeamOptions) -> Option<Vec<Vec<Hypothesis>>> {
    match beam(decoder, prompts, options) {
        // The seed's way takes ragged sequences one by one, which a shared prefix cannot be taken apart for.
        Err(Error::Layer(attn_core::Error::Unsupported { .. }))
            if options.prefix == Prefix::Shared && decoder.build().path == Path::Seedlike =>
        {
            None
        }
        found => Some(found.unwrap()),
    }
}

/// Three sentences with prefixes of 5, 3 and 4 states and prompts of 1, 2 and 1 tokens, together and each alone.
fn sentences(kind: DecoderKind) -> (Prompts, Vec<Sentence>) {
    let states = prefix(3, 5, 1);
    let lens = [5, 3, 4];
    let tokens = [vec![EOS], vec![EOS, 7], vec![4]];
    let prompts = Prompts::new(tokens.to_vec());
    let alone = |own: Option<Tensor>, b: usize| (own, tokens[b].clone());
    match kind {
        DecoderKind::Llama => (prompts, (0..3).map(|b| alone(None, b)).collect()),
        DecoderKind::Prefix => {
            let own = |b: usize| states.narrow(0, b, 1).unwrap().narrow(1, 0, lens[b]).unwrap();
            (
                prompts
                    .with_prefix(states.clone())
                    .with_prefix_lens(lens.to_vec()),
                (0..3).map(|b| alone(Some(own(b)), b)).collect(),
            )
        }
    }
}

#[test]
fn every_variant_finds_what_a_plain_search_finds() {
    for (name, attention) in attentions() {
        for kind in [DecoderKind::Prefix, DecoderKind::Llama] {
            let config = config(kind, &attention);
            let reference = decoder(&config, Path::Fused, DType::F64);
            let (prompts, alone) = sentences(kind);
            let cases = [
                BeamOptions::new(1, 6, EOS),
                BeamOptions {
                    length_penalty: 0.6,
                    ..BeamOptions::new(2, 6, EOS)
                },
                BeamOptions {
                    min_len: 2,
                    temperature: 1.3,
                    length_penalty: 0.0,
                    ..BeamOptions::new(5, 7, EOS)
                },
                BeamOptions::new(50, 4, EOS),
                BeamOptions::forced(5, 5, EOS, Prefix::Copied),
            ];
            for case in cases {
                let expected: Vec<_> = alone.iter().map(|own| plain(&reference, own, &case)).collect();
                for path in PATHS {
                    for dtype in [DType::F64, DType::F32] {
                        // The seed's way takes ragged hypotheses one by one.
                        if path == Path::Seedlike && (dtype == DType::F32 || kind == DecoderKind::Llama) {
                            continue;
                        }
                        let decoder = decoder(&config, path, dtype);
                        let tolerance = if dtype == DType::F64 { 1e-9 } else { 1e-4 };
                        for prefix in MODES {
                            if case.beam == 50 && (path, dtype) != (Path::Fused, DType::F32) {
                                continue; // the next test has the rest
                            }
                            let options = BeamOptions {
                                prefix,
                                ..case.clone()
                            };
                            let what = format!("{name} {kind:?} {path} {dtype:?} {options:?}");
                            let Some(found) = search(&decoder, &prompts, &options) else {
                                continue;
                            };
                            for (found, expected) in found.iter().zip(&expected) {
                                assert_same(found, expected, tolerance, &what);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One sentence, whose hypotheses are of one length: what the seed's way takes together.
#[test]
fn wide_beams_find_the_same_on_every_path() {
    for (name, attention) in attentions() {
        let config = config(DecoderKind::Prefix, &attention);
        let own = (Some(prefix(1, 5, 8)), vec![EOS]);
        let prompts = Prompts::new(vec![own.1.clone()]).with_prefix(prefix(1, 5, 8));
        let options = BeamOptions::new(50, 5, EOS);
        let expected = plain(&decoder(&config, Path::Fused, DType::F64), &own, &options);
        for path in PATHS {
            let decoder = decoder(&config, path, DType::F64);
            for prefix in MODES {
                let options = BeamOptions {
                    prefix,
                    ..options.clone()
                };
                if let Some(found) = search(&decoder, &prompts, &options) {
                    assert_same(&found[0], &expected, 1e-9, &format!("{name} {path} {prefix:?}"));
                }
            }
        }
    }
}

#[test]
fn a_batch_is_its_sentences() {
    let (_, attention) = attentions().pop().unwrap();
    let decoder = decoder(&config(DecoderKind::Prefix, &attention), Path::Fused, DType::F32);
    let (prompts, alone) = sentences(DecoderKind::Prefix);
    for prefix in MODES {
        let options = BeamOptions {
            prefix,
            ..BeamOptions::new(4, 8, EOS)
        };
        let Some(together) = search(&decoder, &prompts, &options) else {
            continue;
        };
        for (together, (states, tokens)) in together.iter().zip(&alone) {
            let own = Prompts::new(vec![tokens.clone()]).with_prefix(states.clone().unwrap());
            let single = search(&decoder, &own, &options).unwrap();
            assert_same(together, &single[0], 1e-5, &format!("{prefix:?}"));
        }
    }
}

#[test]
fn sentences_end_at_different_times_and_leave() {
    let mut left_early = 0;
    for (name, attention) in attentions() {
        let decoder = decoder(&config(DecoderKind::Prefix, &attention), Path::Fused, DType::F64);
        let (prompts, _) = sentences(DecoderKind::Prefix);
        let options = BeamOptions::new(3, 12, EOS);
        let mut search = BeamSearch::start(&decoder, &prompts, &options).unwrap();
        let mut trace = vec![search.sentences()];
        while search.advance().unwrap() {
            trace.push(search.sentences());
            assert_eq!(search.state().batch(), 3 * search.sentences());
        }
        assert!(
            trace.windows(2).all(|pair| pair[1] <= pair[0]),
            "{name}: {trace:?}"
        );
        left_early += usize::from(trace.iter().any(|&n| n == 1 || n == 2));
        let found = search.finish();
        assert_eq!(found, beam(&decoder, &prompts, &options).unwrap());
        for sentence in &found {
            assert_eq!(sentence.len(), 3);
            for hypothesis in sentence {
                assert_eq!(hypothesis.tokens.iter().filter(|&&token| token == EOS).count(), 1);
                assert_eq!(hypothesis.tokens.last(), Some(&EOS));
            }
        }
    }
    assert!(
        left_early > 2,
        "only {left_early} searches had sentences that ended early"
    );
}

/// The same decoder with an output projection of zeros: all tokens are equally likely.
fn indifferent(path: Path) -> Decoder {
    let (_, attention) = attentions().pop().unwrap();
    let config = config(DecoderKind::Prefix, &attention);
    let mut weights = weights(&config, 42);
    let zeros = Tensor::zeros((VOCAB, DIMS.d_model), DType::F32, &Device::Cpu).unwrap();
    weights.insert("output_projection.weight", zeros);
    config.build(&weights, &Build::cpu(path, DType::F32)).unwrap()
}

#[test]
fn equal_scores_break_ties_the_same_way_every_time() {
    let (prompts, _) = sentences(DecoderKind::Prefix);
    for path in PATHS {
        let decoder = indifferent(path);
        for prefix in MODES {
            // Lower tokens and lower hypotheses first: 0 1 | 3 of the first step, then what follows 0.
            let options = BeamOptions {
                length_penalty: 0.0,
                prefix,
                ..BeamOptions::new(3, 8, EOS)
            };
            let Some(found) = search(&decoder, &prompts, &options) else {
                continue;
            };
            let tokens: Vec<&[u32]> = found[0].iter().map(|h| h.tokens.as_slice()).collect();
            let expected: [&[u32]; 3] = [&[2], &[0, 2], &[0, 0, 2]];
            assert_eq!(tokens, expected);
            assert!(found.iter().all(|sentence| *sentence == found[0]));
            let forced = BeamOptions::forced(4, 3, EOS, prefix);
            let found = search(&decoder, &prompts, &forced).unwrap();
            let tokens: Vec<&[u32]> = found[0].iter().map(|h| h.tokens.as_slice()).collect();
            let expected: [&[u32]; 4] = [&[0, 0, 0], &[0, 0, 1], &[0, 0, 3], &[0, 0, 4]];
            assert_eq!(tokens, expected);
            for _ in 0..3 {
                let options = BeamOptions {
                    prefix,
                    ..BeamOptions::new(50, 5, EOS)
                };
                let first = search(&decoder, &prompts, &options).unwrap();
                assert_eq!(first, search(&decoder, &prompts, &options).unwrap());
                assert_eq!(first[0].len(), 50);
            }
        }
    }
}

#[test]
fn a_beam_of_one_is_greedy() {
    for (name, attention) in attentions() {
        let decoder = decoder(&config(DecoderKind::Prefix, &attention), Path::Fused, DType::F64);
        let (prompts, _) = sentences(DecoderKind::Prefix);
        let found = beam(&decoder, &prompts, &BeamOptions::new(1, 6, EOS)).unwrap();
        let expected = greedy(&decoder, &prompts, 6, Some(EOS)).unwrap();
        for (found, mut expected) in found.into_iter().zip(expected) {
            if expected.last() != Some(&EOS) {
                expected.push(EOS); // the search must end
            }
            assert_eq!(found[0].tokens, expected, "{name}");
        }
    }
}

#[test]
fn forced_searches_have_their_length_and_their_cache() {
    for (name, attention) in attentions() {
        let decoder = decoder(&config(DecoderKind::Prefix, &attention), Path::Fused, DType::F32);
        let (prompts, _) = sentences(DecoderKind::Prefix);
        let options = BeamOptions::forced(4, 6, EOS, Prefix::Copied);
        let mut search = BeamSearch::start(&decoder, &prompts, &options).unwrap();
        assert_eq!(search.len(), 1);
        let mut lens = search.state().lens().to_vec();
        while search.advance().unwrap() {
            assert_eq!(search.sentences(), 3);
            for len in &mut lens {
                *len += 1;
            }
            assert_eq!(search.state().lens(), lens);
        }
        assert_eq!(search.len(), 6);
        let longest = prompts.lens().into_iter().max().unwrap() + 5;
        let g = attention.geometry();
        assert_eq!(
            search.state().kv_allocated_bytes(),
            2 * g.kv_bytes(12, longest, 4),
            "{name}"
        );
        for sentence in search.finish() {
            assert_eq!(sentence.len(), 4);
            for hypothesis in &sentence {
                assert!(hypothesis.tokens.len() == 6 && !hypothesis.tokens.contains(&EOS));
                assert!((hypothesis.score * 6.0 - hypothesis.sum_log_prob).abs() < 1e-12);
            }
            assert!(sentence.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }
}

#[test]
fn scores_that_are_not_finite_are_an_error() {
    let (_, attention) = attentions().swap_remove(0);
    let config = config(DecoderKind::Prefix, &attention);
    let (prompts, _) = sentences(DecoderKind::Prefix);
    let options = BeamOptions::new(3, 8, EOS);
    for bad in [f32::NAN, f32::INFINITY] {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let mut weights = weights(&config, 42);
            let mut row = vec![1f32; VOCAB * DIMS.d_model];
            row[5 * DIMS.d_model] = bad;
            let output = Tensor::from_vec(row, (VOCAB, DIMS.d_model), &Device::Cpu).unwrap();
            weights.insert("output_projection.weight", output);
            let decoder = config.build(&weights, &Build::cpu(Path::Fused, dtype)).unwrap();
            for prefix in [Prefix::Replicated, Prefix::Copied] {
                let options = BeamOptions {
                    prefix,
                    ..options.clone()
                };
                let found = beam(&decoder, &prompts, &options);
                assert!(
                    matches!(
                        found,
                        Err(Error::NonFinite {
                            sentence: 0,
                            tokens: 0
                        })
                    ),
                    "{found:?}"
                );
            }
            let found = greedy(&decoder, &prompts, 3, None);
            assert!(
                matches!(found, Err(Error::NonFinite { tokens: 0, .. })),
                "{found:?}"
            );
        }
    }
    // In one sentence alone: its own index, whatever left the batch before.
    let decoder = decoder(&config, Path::Fused, DType::F32);
    let mut states = prefix(3, 4, 1)
        .to_dtype(DType::F32)
        .unwrap()
        .to_vec3::<f32>()
        .unwrap();
    states[1][2][3] = f32::NAN;
    let states = Tensor::new(states, &Device::Cpu).unwrap();
    let prompts = Prompts::new(vec![vec![EOS]; 3]).with_prefix(states);
    let found = beam(&decoder, &prompts, &options);
    assert!(
        matches!(
            found,
            Err(Error::NonFinite {
                sentence: 1,
                tokens: 0
            })
        ),
        "{found:?}"
    );
}

#[test]
fn impossible_options_are_refused() {
    let (_, attention) = attentions().swap_remove(0);
    let decoder = decoder(&config(DecoderKind::Prefix, &attention), Path::Fused, DType::F32);
    let (prompts, _) = sentences(DecoderKind::Prefix);
    let good = BeamOptions::new(2, 4, EOS);
    let cases = [
        (
            BeamOptions {
                beam: 0,
                ..good.clone()
            },
            "beam",
        ),
        (
            BeamOptions {
                eos: 11,
                ..good.clone()
            },
            "token",
        ),
        (
            BeamOptions {
                min_len: 5,
                ..good.clone()
            },
            "minimum length",
        ),
        (
            BeamOptions {
                temperature: 0.0,
                ..good.clone()
            },
            "temperature",
        ),
        (
            BeamOptions {
                length_penalty: f64::NAN,
                ..good.clone()
            },
            "length penalty",
        ),
        (
            BeamOptions {
                forced_len: Some(0),
                ..good.clone()
            },
            "forced length",
        ),
    ];
    for (options, what) in cases {
        let error = beam(&decoder, &prompts, &options).unwrap_err();
        assert!(
            matches!(error, Error::Input { what: got, .. } if got == what),
            "{error}"
        );
    }
    // Ends at once.
    let found = beam(&decoder, &prompts, &BeamOptions::new(2, 0, EOS)).unwrap();
    assert!(
        found
            .iter()
            .all(|sentence| sentence.len() == 1 && sentence[0].tokens == [EOS])
    );
}

/// The seed's habits change what a search costs, and nothing that it finds.
#[test]
fn every_set_of_habits_finds_the_same() {
    for key in ["gqa s=1", "mla s=1", "mtla s=3"] {
        let (_, attention) = attentions().into_iter().find(|(name, _)| name == key).unwrap();
        let config = config(DecoderKind::Prefix, &attention);
        let (prompts, _) = sentences(DecoderKind::Prefix);
        let fused = decoder(&config, Path::Fused, DType::F64);
        let options = BeamOptions {
            prefix: Prefix::Replicated,
            ..BeamOptions::new(3, 6, EOS)
        };
        let expected = beam(&fused, &prompts, &options).unwrap();
        for habits in Habits::combinations() {
            let build = Build::cpu(Path::Seedlike, DType::F64).with_habits(habits);
            let decoder = config.build(&weights(&config, 42), &build).unwrap();
            for prefix in [Prefix::Replicated, Prefix::Copied] {
                let options = BeamOptions {
                    prefix,
                    ..options.clone()
                };
                let found = beam(&decoder, &prompts, &options).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    assert_same(found, expected, 1e-9, &format!("{key} {habits} {prefix:?}"));
                }
            }
        }
    }
}
