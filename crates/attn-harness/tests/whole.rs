//! Sweeps that ask for whole decoders: which cases, in which groups, with which predictions, and what is refused.

#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

mod fake;

use attn_core::{DecoderKind, Habit, Habits, ModelShape, Prefix, Scope, Workload};
use attn_harness::{Case, Dtype, Plan};
use fake::{SWEEP, plan, plan_with, problems, with};

const BEAM: &str = "\
name: search
model: {d_model: 64, n_heads: 4, n_layers: 2, vocab: 100}
variants:
  - full
  - merged: {kv_rank: 32, stride: 3}
scopes: [model]
paths: [seedlike, fused]
workloads:
  - beam: {tokens: 10, new_tokens: 4, beam: 3, batch: 2}
";

fn beam_with(from: &str, to: &str) -> String {
    assert!(BEAM.contains(from), "{from}");
    BEAM.replace(from, to)
}

fn ways(plan: &Plan) -> Vec<String> {
    let of = |case: &Case| {
        let habits = case.habits.map_or("-".to_string(), |habits| habits.to_string());
        let prefix = case.prefix.map_or("-", Prefix::name);
        format!("{} {} {} {habits} {prefix}", case.group, case.path, case.dtype)
    };
    plan.cases
        .iter()
        .filter(|case| case.variant.key == "full")
        .map(of)
        .collect()
}

#[test]
fn a_beam_runs_as_the_seed_does_it_and_as_we_do() {
    let plan = plan(BEAM);
    assert_eq!(
        ways(&plan),
        [
            "0 seedlike f32 cat+expand+reorder-copy+dense-mask+f32 replicated",
            "1 fused f32 - copied"
        ]
    );
    let case = &plan.cases[1];
    assert_eq!((case.variant.key, case.scope), ("merged", Scope::Model));
    let shape = ModelShape {
        n_layers: 2,
        d_ff: 256,
        vocab: 100,
        decoder: DecoderKind::Prefix,
    };
    assert_eq!(case.model, Some(shape));
    // ceil(14 / 3) slots of 32 + 8 elements of 4 bytes, of 2 x 3 hypotheses in 2 layers.
    assert_eq!(case.kv_bytes, 2 * 6 * 5 * 40 * 4);
    assert_eq!(case.weights_bytes, 4 * shape.parameters(&case.geometry));
    assert_eq!(Some(case.cost), shape.cost(&case.geometry, &case.workload, 4));
    assert!(case.predicted_peak_bytes > case.kv_bytes + case.weights_bytes);
}

#[test]
fn prefixes_multiply_beams_of_path_fused_alone_and_share_a_group() {
    let yaml = beam_with("paths:", "prefixes: [replicated, copied, shared]\npaths:")
        .replace("scopes: [model]", "scopes: [layer, model]")
        + "  - generate: {tokens: 10, new_tokens: 4}\n  - decode: {context: 8}\n";
    assert_eq!(
        ways(&plan(&yaml)),
        [
            "0 seedlike f32 cat+expand+reorder-copy+dense-mask+f32 replicated",
            "1 fused f32 - replicated",
            "1 fused f32 - copied",
            "1 fused f32 - shared",
            "2 seedlike f32 cat+expand+reorder-copy+dense-mask+f32 -",
            "3 fused f32 - -",
            "4 seedlike f32 cat+expand+reorder-copy+dense-mask+f32 -",
            "5 fused f32 - -",
            "6 seedlike f32 cat+expand+reorder-copy+dense-mask+f32 -",
            "7 fused f32 - -",
        ]
    );
    let all = plan(&yaml);
    let kept = |filter: &str| all.clone().filter(filter, &fake::VARIANTS).unwrap();
    let shared = kept("prefix=shared,variant=merged");
    // floor(11 / 3) slots a sentence, ceil(14 / 3) - 3 a hypothesis.
    assert_eq!(shared.cases[0].kv_bytes, 2 * (2 * 3 + 6 * 2) * 40 * 4);
    assert_eq!(kept("beam=3").cases.len(), 8);
    assert_eq!(kept("n_layers=2,decoder=prefix,workload=generate").cases.len(), 4);
    assert_eq!(kept("scope=layer").cases.len(), 8);
}

#[test]
fn sets_of_habits_choose_their_dtype_and_take_turns() {
    let yaml = beam_with("paths:", "dtype: [f32, bf16]\nhabits: combinations\npaths:");
    let all = plan(&yaml);
    let seedlike = all
        .clone()
        .filter("path=seedlike,variant=full", &fake::VARIANTS)
        .unwrap();
    assert_eq!(seedlike.cases.len(), 32);
    assert!(seedlike.cases.iter().all(|case| case.group == 0));
    for case in &seedlike.cases {
        let is_f32 = case.habits.unwrap().contains(Habit::F32);
        assert_eq!(case.dtype == Dtype::F32, is_f32);
        assert_eq!(case.unsupported, None);
    }
    assert_eq!(all.cases.len(), 2 * (32 + 2));
    let ids: std::collections::BTreeSet<&str> = all.cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.len(), all.cases.len());
    let one = all.filter("habits=cat+f32", &fake::VARIANTS).unwrap();
    assert_eq!(one.cases.len(), 2);

    // Where half of the memory does not hold them all, each set has a group of its own.
    let apart = plan_with(&yaml, &["measure.memory_limit=20 MiB"]).unwrap();
    let groups: std::collections::BTreeSet<usize> = apart.cases.iter().map(|case| case.group).collect();
    assert_eq!(groups.len(), 32 + 2);
    assert!(apart.groups().all(|group| group.len() == 2));
}

#[test]
fn one_layers_ids_are_those_of_before() {
    let ids = |plan: Plan| plan.cases.into_iter().map(|case| case.id).collect::<Vec<_>>();
    let seedlike = with("name: test", "name: test\npaths: [seedlike]");
    let with_habits = with("name: test", "name: test\npaths: [seedlike]\nhabits: all");
    assert_eq!(ids(plan(&seedlike)), ids(plan(&with_habits)));
    // From before there were decoders, habits and prefixes.
    assert_eq!(ids(plan(SWEEP))[0], "e5a1b846f0d512e5");
    assert_eq!(ids(plan(&seedlike))[0], "5fe61dfd174153bc");
    let none = with("name: test", "name: test\npaths: [seedlike]\nhabits: none");
    let none = plan(&none);
    assert!(
        none.cases
            .iter()
            .all(|case| case.dtype == Dtype::BF16 && case.habits == Some(Habits::NONE))
    );
    assert_eq!(none.groups().count(), plan(&seedlike).groups().count());
    // Without the key, another type than the seed's is unsupported as before.
    let half = plan(&with("name: test", "name: test\npaths: [seedlike]\ndtype: bf16"));
    assert!(half.cases.iter().all(|case| case.unsupported.is_some()));
}

#[test]
fn a_wider_beam_dominates_a_narrow_one_of_the_same_way() {
    let yaml = beam_with("beam: 3", "beam: [3, 50000]").replace("50000", "1000");
    let yaml = yaml.replace("vocab: 100", "vocab: 2000") + "measure: {memory_limit: 1 MiB}\n";
    let plan = plan(&yaml);
    let case = |path: &str, beam: usize| {
        let is = |case: &&Case| {
            case.path.name() == path && case.workload.beam() == beam && case.variant.key == "full"
        };
        plan.cases.iter().find(is).unwrap()
    };
    let (narrow, wide) = (case("fused", 3), case("fused", 1000));
    assert!(narrow.predicted_oom && wide.predicted_oom);
    assert_eq!(wide.dominated_by.as_ref(), Some(&narrow.id));
    assert_eq!(case("seedlike", 3).dominated_by, None);
    assert!(matches!(wide.workload, Workload::Beam { .. }));
}

/// What is said of a sweep: as many problems as there are `parts`, each with its words in that order.
fn refused(yaml: &str, parts: &[&[&str]]) {
    let found = problems(yaml, &[]);
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    for (problem, words) in found.iter().zip(parts) {
        for word in *words {
            assert!(problem.contains(word), "`{word}` is not in: {problem}");
        }
    }
}

#[test]
fn a_workload_needs_one_of_its_scopes_and_a_scope_a_workload() {
    let no_scope = beam_with("scopes: [model]\n", "").replace(", n_layers: 2, vocab: 100", "");
    let words = [
        "`workloads[0].beam` has no scope to run in: beam exists in scope model, and `scopes` has layer",
        "(beam)",
    ];
    refused(&no_scope, &[&words]);
    let decode = BEAM.to_string() + "  - decode: {context: 8}\n";
    let words = [
        "`workloads[1].decode` has no scope to run in: decode exists in scope layer, op, and `scopes` has model",
        "(decode)",
        "(scopes)",
    ];
    refused(&decode, &[&words]);
    let unused = with("name: test", "name: test\nscopes: [layer, model]");
    let words = ["`scopes[1]` is model, and no workload of this sweep exists in that scope"];
    refused(&unused, &[&words]);
}

#[test]
fn keys_that_would_do_nothing_are_refused() {
    let layers = with("n_heads: 4}", "n_heads: 4, n_layers: 2, decoder: llama}");
    let words = ["no case of this sweep is a whole decoder: `scopes` has no model"];
    let of = |key: &'static str| [key, words[0]];
    refused(&layers, &[&of("`model.n_layers`"), &of("`model.decoder`")]);
    let axes = with("name: test", "name: test\nhabits: none\nprefixes: shared");
    refused(
        &axes,
        &[
            &["`habits` is given, but `paths` has no seedlike", "(habits)"],
            &[
                "`prefixes` is given, but `workloads` has no beam",
                "(prefixes)",
                "(workloads)",
            ],
        ],
    );
    let seedlike = beam_with("paths: [seedlike, fused]", "paths: seedlike\nprefixes: shared");
    let words = [
        "`prefixes` is given, but `paths` has no fused",
        "(prefixes)",
        "(paths)",
    ];
    refused(&seedlike, &[&words]);
    refused(
        &(BEAM.to_string() + "grid: {context: 8}\n"),
        &[&["no workload of this sweep has the size `grid.context`"]],
    );
}

#[test]
fn sizes_and_words_of_decoders_have_limits() {
    refused(
        &beam_with("n_layers: 2, vocab: 100", "n_layers: 0, d_ff: 99999999, vocab: 1"),
        &[
            &["`model.n_layers` is 0, expected an integer from 1 to 1024"],
            &["`model.d_ff` is 99999999, expected an integer from 1 to"],
            &["`model.vocab` is 1, expected an integer from 2 to"],
        ],
    );
    refused(
        &beam_with("vocab: 100", "vocab: 100, decoder: bart"),
        &[&["unknown value of `model.decoder`: `bart`, expected one of: prefix, llama"]],
    );
    refused(
        &beam_with("vocab: 100", "vocab: 5"),
        &[&[
            "searches with beam 3 over a `model.vocab` of 5, expected at least 6",
            "(beam)",
            "(vocab)",
        ]],
    );
    refused(
        &beam_with("beam: 3", "beam: 1025").replace("new_tokens: 4, ", ""),
        &[
            &["`workloads[0].beam.new_tokens` is missing"],
            &["`workloads[0].beam.beam` is 1025, expected an integer from 1 to 1024"],
        ],
    );
    let unknown = beam_with("paths:", "habits: [cat+expnd, all]\npaths:");
    refused(&unknown, &[&["`expnd` is no habit", "did you mean expand?"]]);
    let twice = beam_with("paths:", "habits: [all, none, all]\nprefixes: []\npaths:");
    refused(
        &twice,
        &[
            &["`habits` lists cat+expand+reorder-copy+dense-mask+f32 twice"],
            &["`prefixes` is an empty list"],
        ],
    );
    let both = beam_with("paths:", "habits: [combinations, none]\npaths:");
    refused(
        &both,
        &[&["`habits` lists combinations, which are all sets, and others beside it"]],
    );
    let huge = beam_with("batch: 2", "batch: 1000000")
        .replace("tokens: 10", "tokens: 1000000")
        .replace("beam: 3", "beam: 50");
    refused(
        &huge,
        &[&["`workloads[0].beam` is too large to count in 64 bits"]],
    );
}
