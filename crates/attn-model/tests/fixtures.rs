//! Beam searches of an independent implementation (`scripts/reference`): its logits, hypotheses and scores.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use attn_core::{Build, Capacity};
use attn_model::{BeamOptions, Prefix, Prompts, beam};
use candle_core::{DType, Tensor};
use common::*;
use serde_json::Value;

/// One file of format `attn-beam-1`.
struct File {
    model: FixtureModel,
    cases: Vec<Value>,
}

impl File {
    fn read(path: &Path) -> Self {
        let model = FixtureModel::read(path, "attn-beam-1");
        Self {
            cases: serde_json::from_str(&model.metadata["cases"]).unwrap(),
            model,
        }
    }

    fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        self.model.tensors[name].to_vec2().unwrap()
    }
}

#[test]
fn searches_find_what_the_reference_found() {
    let files = fixtures("beam-");
    assert!(!files.is_empty());
    for path in &files {
        let file = File::read(path);
        let states = &file.model.tensors["prefix"];
        let lens: Vec<usize> = file.model.tensors["prefix_lens"]
            .to_vec1::<i64>()
            .unwrap()
            .iter()
            .map(|&len| len as usize)
            .collect();
        let token = |name: &str| file.model.settings[name].as_u64().unwrap() as u32;
        let prompts = |tokens: Vec<Vec<u32>>| {
            Prompts::new(tokens)
                .with_prefix(states.clone())
                .with_prefix_lens(lens.clone())
        };
        for compute in PATHS {
            for dtype in [DType::F32, DType::F64] {
                let what = format!("{} {compute} {dtype:?}", path.display());
                let decoder = file
                    .model
                    .config
                    .build(&file.model.weights, &Build::cpu(compute, dtype))
                    .unwrap();
                // Teacher-forced, whole and step by step.
                let expected = &file.model.tensors["expected.logits"];
                let forced: Vec<Vec<u32>> = file
                    .rows("tokens")
                    .iter()
                    .map(|row| row.iter().map(|&t| t as u32).collect())
                    .collect();
                for (b, tokens) in forced.iter().enumerate() {
                    let own = states.narrow(0, b, 1).unwrap().narrow(1, 0, lens[b]).unwrap();
                    let got = whole(&decoder, Some(&own), tokens);
                    assert_close(&got, &expected.get(b).unwrap(), 1e-5, &what);
                }
                let mut state = decoder.new_state(lens.len(), Capacity::Growing(8)).unwrap();
                let first = forced.iter().map(|tokens| tokens[..1].to_vec()).collect();
                let mut rows = vec![decoder.prefill(&prompts(first), &mut state).unwrap()];
                for i in 1..forced[0].len() {
                    let next: Vec<u32> = forced.iter().map(|tokens| tokens[i]).collect();
                    rows.push(decoder.step(&next, &mut state).unwrap());
                }
                assert_close(&Tensor::stack(&rows, 1).unwrap(), expected, 1e-5, &what);

                let start = prompts(vec![vec![token("start")]; lens.len()]);
                for case in &file.cases {
                    let beam_size = case["beam"].as_u64().unwrap() as usize;
                    let max_len = case["max_len"].as_u64().unwrap() as usize;
                    let name = case["name"].as_str().unwrap();
                    for prefix in [Prefix::Replicated, Prefix::Copied, Prefix::Shared] {
                        // The seed's way takes sentences of other lengths one by one, which is slow, and is f32's.
                        let is_seedlike = compute == attn_core::Path::Seedlike;
                        if is_seedlike
                            && (prefix != Prefix::Replicated || beam_size > 8 || dtype == DType::F64)
                        {
                            continue;
                        }
                        if dtype == DType::F64 && prefix != Prefix::Copied {
                            continue;
                        }
                        let options = BeamOptions {
                            length_penalty: case["length_penalty"].as_f64().unwrap(),
                            forced_len: case["forced"].as_bool().unwrap().then_some(max_len),
                            prefix,
                            ..BeamOptions::new(beam_size, max_len, token("eos"))
                        };
                        let found = beam(&decoder, &start, &options).unwrap();
                        let tokens: Vec<Vec<Vec<i64>>> = file.model.tensors
                            [&format!("expected.{name}.tokens")]
                            .to_vec3()
                            .unwrap();
                        let scores: Vec<Vec<f64>> = file.model.tensors[&format!("expected.{name}.scores")]
                            .to_dtype(DType::F64)
                            .unwrap()
                            .to_vec2()
                            .unwrap();
                        for (b, found) in found.iter().enumerate() {
                            assert_eq!(found.len(), beam_size, "{what} {name}");
                            for (i, found) in found.iter().enumerate() {
                                let tokens = tokens[b][i].iter().filter(|&&t| t >= 0);
                                let tokens: Vec<u32> = tokens.map(|&t| t as u32).collect();
                                assert_eq!(found.tokens, tokens, "{what} {name} {b} {i}");
                                let gap = (found.score - scores[b][i]).abs();
                                assert!(gap < 1e-4, "{what} {name} {b} {i}: {gap}");
                            }
                        }
                    }
                }
            }
        }
    }
}
