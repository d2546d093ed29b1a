//! Sweep files that nobody means: whatever they hold, they are planned or refused, within bounded memory.

mod hostile;

use std::path::Path;

use attn_harness::plan::{Rates, Setup};
use attn_harness::{Error, Plan, Sweep};
use hostile::VARIANTS;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

/// A case and what belongs to it.
const BYTES_PER_CASE: u64 = 4096;

/// Sweeps that are planned, to begin from.
const VALID: [&str; 3] = [
    "name: a\nmodel: {d_model: 64, n_heads: 4}\nvariants: [mha, gqa: {n_kv_heads: [1, 2]}, mqa]\n\
     workloads: [decode: {context: [16, 64], batch: [1, 2]}, prefill: {tokens: 32}]\n",
    "name: b\nquestion: What?\ndtype: [f32, bf16]\npaths: [fused, seedlike]\nregimes: [hot, cold]\nseed: 7\n\
     model: {d_model: 64, n_heads: 4, head_dim: 16}\nvariants:\n  - mla: &latent {kv_rank: 32, rope_dim: 8}\n  \
     - mtla: {<<: *latent, stride: [2, 3, 4]}\ngrid: {batch: [1, 4], tokens: [8]}\nworkloads:\n  - train_step\n  \
     - generate: {new_tokens: 5}\nscenarios:\n  - {workload: decode, context: 99}\nfigures: [latency]\n\
     measure: {warmup_ms: 1, max_s: 0.5, memory_limit: 8 GiB, replicas: 2}\n",
    "name: c\nfair: {hold: flops, reference: mha}\nmodel: {d_model: 64, n_heads: 4}\n\
     variants: [mha, mqa, gqa: {n_kv_heads: 2}, mla: {rope_dim: 8}, mtla: {rope_dim: 8, stride: [2, 3]}]\n\
     workloads: [trajectory: {tokens: 100, new_tokens: [1, 9]}, decode: {context: [16, 64]}]\n",
];

/// Pieces of YAML and of sweeps.
const TOKENS: [&str; 81] = [
    "name",
    "question",
    "device",
    "dtype",
    "seed",
    "model",
    "variants",
    "paths",
    "scopes",
    "regimes",
    "launches",
    "workloads",
    "grid",
    "scenarios",
    "measure",
    "figures",
    "fair",
    "hold",
    "reference",
    "d_model",
    "n_heads",
    "head_dim",
    "mha",
    "gqa",
    "mqa",
    "mla",
    "mtla",
    "kv_rank",
    "rope_dim",
    "stride",
    "n_kv_heads",
    "decode",
    "prefill",
    "train_step",
    "generate",
    "trajectory",
    "context",
    "tokens",
    "new_tokens",
    "batch",
    "workload",
    "params",
    "kv_bytes",
    "flops",
    "width",
    "memory_limit",
    "target_ci",
    ": ",
    "\n",
    "\n  - ",
    "\n    ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "0",
    "1",
    "2",
    "3",
    "64",
    "-1",
    "1048576",
    "1073741824",
    "18446744073709551615",
    "99999999999999999999",
    "1e308",
    ".inf",
    ".nan",
    "0.5",
    "true",
    "null",
    "~",
    "'",
    "\"",
    "!!int ",
    "8 GiB",
    "\u{0}",
];

fn setup() -> Setup<'static> {
    Setup {
        variants: &VARIANTS,
        figures: &["latency", "cache"],
        memory_bytes: Some(8 << 30),
        rates: Rates::default(),
        device: attn_harness::device::resolve,
    }
}

/// Plans `text`; whether it could be.
fn planned(text: &str) -> Result<bool, TestCaseError> {
    let plan = || {
        let sweep = Sweep::parse(Path::new("sweep.yaml"), text.to_string(), &[])?;
        Plan::build(&sweep, &setup())
    };
    let answer = hostile::bounded(text.len(), plan, |answer| match answer {
        Ok(plan) => BYTES_PER_CASE * plan.cases.len() as u64,
        Err(_) => 0,
    })?;
    match answer {
        Ok(plan) => {
            prop_assert!(!plan.cases.is_empty());
            for case in &plan.cases {
                prop_assert!(case.predicted_time_s.is_finite() && case.predicted_floor_s >= 0.0);
            }
            Ok(true)
        }
        Err(Error::Sweep(bad)) => {
            prop_assert!(!bad.problems.is_empty());
            // What a terminal would be shown.
            prop_assert!(!bad.to_string().is_empty());
            for label in bad.problems.iter().flat_map(|problem| &problem.labels) {
                prop_assert!(text.get(label.span.clone()).is_some(), "{:?}", label);
            }
            Ok(false)
        }
        Err(_) => Ok(false),
    }
}

/// A scalar as it may stand in a sweep.
fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(&TOKENS[..46]).prop_map(str::to_string),
        4 => (0_u64..300).prop_map(|n| n.to_string()),
        2 => select(vec![
            "0", "-1", "1048576", "1048577", "1073741824", "9223372036854775807", "9223372036854775808",
            "18446744073709551615", "18446744073709551616", "0.5", "1e308", "-0.0", ".inf", "-.inf", ".nan", "true",
            "null", "~", "''", "\"\\0\"", "8 GiB", "1e400 GiB", "0x7fffffffffffffff", "0o17", "1_000", "2001-01-01",
        ]).prop_map(str::to_string),
        1 => any::<f64>().prop_map(|x| format!("{x:e}")),
        1 => any::<i64>().prop_map(|n| n.to_string()),
    ]
}

/// A tree in flow style, whose keys and values are mostly those of sweeps.
fn tree() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(", "))),
            btree_map(select(&TOKENS[..46]), inner, 0..6).prop_map(|entries| {
                let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("{{{}}}", entries.join(", "))
            }),
        ]
    })
}

/// A whole sweep: its keys in order, each with what belongs there or with any tree.
fn sweep() -> impl Strategy<Value = String> {
    let keys = [
        ("name", "a"),
        ("device", "cpu"),
        ("dtype", "[f32, f16]"),
        ("seed", "1"),
        ("fair", "params"),
        ("model", "{d_model: 64, n_heads: 4}"),
        ("variants", "[mha, mqa]"),
        ("paths", "[fused]"),
        ("scopes", "[op]"),
        ("regimes", "[cold]"),
        ("launches", "[eager]"),
        ("workloads", "[decode: {context: [1, 2, 3]}]"),
        ("grid", "{batch: [1, 2]}"),
        ("scenarios", "[{workload: prefill, tokens: 4}]"),
        ("measure", "{replicas: 3}"),
        ("figures", "[latency]"),
    ];
    let needed = ["name", "model", "variants", "workloads"];
    let lines = keys.map(|(key, usual)| {
        let absent = if needed.contains(&key) { 0 } else { 4 };
        prop_oneof![
            12 => Just(format!("{key}: {usual}\n")),
            absent => Just(String::new()),
            2 => tree().prop_map(move |tree| format!("{key}: {tree}\n")),
        ]
    });
    lines.to_vec().prop_map(|lines| lines.concat())
}

/// A sweep that is planned, with pieces replaced, removed, doubled or put in.
fn mutated() -> impl Strategy<Value = String> {
    let change = (
        any::<prop::sample::Index>(),
        0..12_usize,
        0..4_u8,
        select(&TOKENS[..]),
    );
    (select(&VALID[..]), vec(change, 1..6)).prop_map(|(text, changes)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, len, kind, token) in changes {
            let start = at.index(text.len() + 1);
            let end = (start + len).min(text.len());
            let piece: Vec<char> = match kind {
                0 => token.chars().collect(),
                1 => Vec::new(),
                2 => [&text[start..end], &text[start..end]].concat(),
                _ => [&text[start..end], &token.chars().collect::<Vec<_>>()[..]].concat(),
            };
            text.splice(start..end, piece);
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(hostile::cases(400))]

    #[test]
    fn any_bytes_are_planned_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        planned(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_pieces_of_yaml_are_planned_or_refused(pieces in vec(select(&TOKENS[..]), 0..120)) {
        planned(&pieces.concat())?;
    }

    #[test]
    fn any_tree_is_planned_or_refused(text in tree()) {
        planned(&text)?;
    }

    #[test]
    fn any_values_of_known_keys_are_planned_or_refused(text in sweep()) {
        planned(&text)?;
    }

    #[test]
    fn sweeps_with_slips_are_planned_or_refused(text in mutated()) {
        planned(&text)?;
    }
}

proptest! {
    #![proptest_config(hostile::cases(40))]

    #[test]
    fn depth_is_refused(n in 1..30_000_usize, open in select(vec!["[", "{a: ", "- ", "? ", "{? ", "[{", "!!a ", "&a "])) {
        planned(&open.repeat(n))?;
        planned(&format!("name: {}\n", open.repeat(n)))?;
        let close: String = open.chars().rev().filter_map(|c| match c {
            '[' => Some(']'),
            '{' => Some('}'),
            _ => None,
        }).collect();
        planned(&format!("name: {}{}\n", open.repeat(n), close.repeat(n)))?;
    }

    #[test]
    fn aliases_of_aliases_are_refused(levels in 1..40_usize, width in 1..20_usize, valid in select(&VALID[..])) {
        let mut bomb = "a0: &a0 [x, x]\n".to_string();
        for i in 1..levels {
            let items = vec![format!("*a{}", i - 1); width].join(", ");
            bomb += &format!("a{i}: &a{i} [{items}]\n");
        }
        planned(&bomb)?;
        planned(&(bomb + valid))?;
    }
}

proptest! {
    // Up to a million cases each.
    #![proptest_config(hostile::cases(8))]

    #[test]
    fn long_axes_are_counted_before_they_are_multiplied(
        n in 1..2_000_usize,
        m in 1..2_000_usize,
        strides in 1..40_usize,
    ) {
        let list = |n: usize| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        planned(&format!(
            "name: a\nmodel: {{d_model: 64, n_heads: 4}}\nvariants:\n  - mtla: {{kv_rank: 32, rope_dim: 8, stride: \
             [{}]}}\nworkloads:\n  - prefill: {{tokens: [{}], batch: [{}]}}\n",
            list(strides), list(n), list(m)
        ))?;
    }
}

#[test]
fn the_sweeps_to_begin_from_are_planned() {
    for text in VALID {
        assert!(matches!(planned(text), Ok(true)), "{text}");
    }
}
