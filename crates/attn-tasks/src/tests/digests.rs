//! The same examples on every machine: digests of the first ones of every part.

use super::{build, defaults};
use crate::rng::hash;
use crate::task::{Example, Part, Source};

/// Digests as this crate has made them since its first version. Another one means that results are no longer comparable.
const DIGESTS: [(&str, u64); 8] = [
    ("entropy", 0xa274_0948_417a_e23a),
    ("copy", 0x2fc8_cafb_4787_4817),
    ("recall", 0x6285_85a0_0741_ac05),
    ("needle", 0xd38a_1e76_978f_6358),
    ("speech_translation", 0xb4f4_db53_73c5_31f2),
    ("speech_recognition", 0x852d_8126_c42f_4c68),
    ("spoken_understanding", 0x948c_ca47_650a_3feb),
    ("summarisation", 0x2145_a42e_51c7_d4a9),
];

fn words(example: &Example) -> Vec<u32> {
    let mut words: Vec<u32> = match &example.source {
        Source::None => Vec::new(),
        Source::Frames { features, .. } => features.iter().map(|x| x.to_bits()).collect(),
        Source::Tokens(tokens) => tokens.clone(),
    };
    words.extend(&example.text);
    words.extend(example.is_answer.iter().map(|is_answer| u32::from(*is_answer)));
    words.extend(
        example
            .probes
            .iter()
            .flat_map(|probe| [probe.distance as u32, probe.load as u32]),
    );
    words
}

#[test]
fn first_examples_are_what_they_always_were() {
    let digests: Vec<(&str, u64)> = defaults()
        .iter()
        .map(|config| {
            let task = build(config);
            let first = Part::ALL
                .iter()
                .flat_map(|part| (0..4).map(|index| task.example(*part, index)));
            (config.name(), hash(first.flat_map(|example| words(&example))))
        })
        .collect();
    assert_eq!(digests, DIGESTS, "{digests:#x?}");
}

#[test]
fn an_example_does_not_depend_on_what_was_read_before() {
    for config in defaults() {
        let (a, b) = (build(&config), build(&config));
        let backwards: Vec<Example> = (0..5).rev().map(|index| a.example(Part::Test, index)).collect();
        for (index, example) in (0..5).rev().zip(backwards) {
            assert_eq!(b.example(Part::Test, index), example);
        }
    }
}

#[test]
fn seeds_parts_and_numbers_give_different_examples() {
    let task = |seed: u64| build(&super::from_json(&format!("{{\"copy\": {{\"seed\": {seed}}}}}")));
    let mut texts: Vec<Vec<u32>> = Vec::new();
    for seed in 0..3 {
        for part in Part::ALL {
            texts.extend(
                super::examples(task(seed).as_ref(), part, 20)
                    .into_iter()
                    .map(|example| example.text),
            );
        }
    }
    let n = texts.len();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), n);
}
