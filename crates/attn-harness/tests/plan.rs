//! From a sweep to cases: how many, which, in what order, with which predictions.

mod fake;

use attn_core::Workload;
use attn_harness::plan::{Rates, Shard, dominates};
use attn_harness::{Plan, Sweep};
use fake::{SWEEP, plan, plan_with, with};

#[test]
fn every_variant_meets_every_workload_point() {
    let plan = plan(SWEEP);
    assert_eq!((plan.cases.len(), plan.groups().count()), (20, 5));
    assert!(plan.groups().all(|group| group.len() == 4));
    let labels: Vec<&str> = plan.cases[..4].iter().map(|case| case.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "Full n_kv_heads=4",
            "Full n_kv_heads=2",
            "Merged s=2",
            "Merged s=3"
        ]
    );
    assert_eq!(
        plan.cases[4].workload,
        Workload::Decode {
            batch: 2,
            context: 16
        }
    );
    assert_eq!(
        plan.cases[16].workload,
        Workload::Prefill { batch: 1, tokens: 32 }
    );
    assert_eq!(plan.figures, ["latency", "cache"]);
    assert_eq!(plan.cases[0].dims.head_dim, 16);
}

#[test]
fn a_decode_sample_closes_whole_slots_of_every_variant() {
    let plan = plan(SWEEP);
    let decode = &plan.cases[3];
    assert_eq!((decode.steps_per_sample, decode.cache_capacity), (6, 21));
    assert!(plan.cases[..16].iter().all(|case| case.steps_per_sample == 6));
    let prefill = &plan.cases[16];
    assert_eq!((prefill.steps_per_sample, prefill.cache_capacity), (1, 32));
}

#[test]
fn cache_bytes_follow_the_formula() {
    let case = &plan(SWEEP).cases[3];
    // ceil(16 / 3) slots of 32 + 8 elements of 4 bytes; ceil(21 / 3) at the capacity.
    assert_eq!(case.kv_bytes, 6 * 40 * 4);
    assert_eq!(case.kv_capacity_bytes, 7 * 40 * 4);
    assert_eq!(case.weights_bytes, 40_000);
}

#[test]
fn a_trajectory_fills_its_cache_and_counts_the_sum_of_its_steps() {
    let plan = plan(&with(
        "prefill: {tokens: 32}",
        "trajectory: {tokens: [7, 16], new_tokens: 5, batch: 2}",
    ));
    let case = &plan.cases[16 + 3];
    let (batch, tokens, new_tokens) = (2, 7, 5);
    let workload = Workload::Trajectory {
        batch,
        tokens,
        new_tokens,
    };
    assert_eq!((case.workload, case.steps_per_sample), (workload, 1));
    // ceil(12 / 3) slots of 32 + 8 elements of 4 bytes in two sequences.
    assert_eq!((case.cache_capacity, case.kv_bytes), (12, 2 * 4 * 40 * 4));
    let step = |context| case.geometry.step_cost(2, context, case.scope, 4).flops;
    assert_eq!(case.cost.flops, (8..=12).map(step).sum::<u64>());
    let kept = plan.filter("tokens=16,new_tokens=5", &fake::VARIANTS).unwrap();
    assert_eq!(kept.cases.len(), 4);
}

#[test]
fn regimes_multiply_and_leave_the_ids_of_hot_cases_alone() {
    let both = plan(&with("name: test", "name: test\nregimes: [hot, cold]"));
    let hot = plan(SWEEP);
    assert_eq!(both.cases.len(), 2 * hot.cases.len());
    let kept = both.filter("cache_regime=hot", &fake::VARIANTS).unwrap();
    let ids = |plan: &Plan| plan.cases.iter().map(|case| case.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&kept), ids(&hot));
}

#[test]
fn launches_multiply_decode_on_a_gpu_alone() {
    let on = |device: &str, launches: &str| {
        let keys = format!("name: test\ndevice: {device}\nlaunches: {launches}");
        plan(&with("name: test", &keys))
    };
    let count = |plan: &Plan, decode: bool| {
        let is = |workload: &Workload| matches!(workload, Workload::Decode { .. }) == decode;
        plan.cases.iter().filter(|case| is(&case.workload)).count()
    };
    let (one, both) = (on("cuda", "graph"), on("cuda", "[graph, eager]"));
    assert_eq!(count(&both, true), 2 * count(&one, true));
    assert_eq!(count(&both, false), count(&one, false));
    assert!(count(&both, false) > 0 && both.groups().count() > one.groups().count());
    let graphs = both.filter("launch_requested=graph", &fake::VARIANTS).unwrap();
    let ids = |plan: &Plan| plan.cases.iter().map(|case| case.id.clone()).collect::<Vec<_>>();
    let decode = one.filter("workload=decode", &fake::VARIANTS).unwrap();
    assert_eq!(ids(&graphs), ids(&decode));
    // The processor is not handed its work.
    let cpu = on("cpu", "[eager, graph]");
    assert_eq!(ids(&cpu), ids(&plan(SWEEP)));
    assert!(cpu.cases.iter().all(|case| case.launch.is_none()));
}

#[test]
fn ids_depend_on_what_defines_a_case_and_on_nothing_else() {
    let ids = |yaml: &str| {
        plan(yaml)
            .cases
            .into_iter()
            .map(|case| case.id)
            .collect::<Vec<_>>()
    };
    let base = ids(SWEEP);
    let mut distinct = base.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), base.len());
    assert!(
        base.iter()
            .all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    );

    assert_eq!(
        base,
        ids(&with(
            "name: test",
            "name: other\nmeasure: {max_s: 1, seed: 9}\nfigures: [cache]"
        ))
    );
    for changed in [
        "seed: 7",
        "dtype: bf16",
        "device: auto",
        "scopes: [op]",
        "paths: [seedlike]",
        "regimes: [cold]",
    ] {
        let other = ids(&with("name: test", &format!("name: test\n{changed}")));
        assert!(base.iter().all(|id| !other.contains(id)), "{changed}");
    }
    let narrower = ids(&with(
        "d_model: 64, n_heads: 4",
        "d_model: 64, n_heads: 4, head_dim: 8",
    ));
    assert!(base.iter().all(|id| !narrower.contains(id)));
}

#[test]
fn ids_stay_what_they_were() {
    // Stored runs are compared by id: a change here breaks every comparison with them.
    let plan = plan(SWEEP);
    insta::assert_snapshot!(plan.cases[0].id, @r#"e5a1b846f0d512e5"#);
}

#[test]
fn the_grid_multiplies_workloads_and_leaves_scenarios_alone() {
    let plan = plan(
        "name: a
model: {d_model: 64, n_heads: 4}
variants: [full]
grid: {batch: [1, 4], context: [8, 16], dtype: [f32, bf16]}
workloads: [decode, prefill: {tokens: 8}]
scenarios:
  - {workload: decode, context: 999, batch: 3}
",
    );
    let points = |name: &str| {
        plan.cases
            .iter()
            .filter(|case| case.workload.name() == name)
            .count()
    };
    assert_eq!((points("decode"), points("prefill")), ((4 + 1) * 2, 2 * 2));
    assert!(plan.cases.iter().any(|case| case.workload
        == Workload::Decode {
            batch: 3,
            context: 999
        }));
}

#[test]
fn anchors_and_merges_are_plain_yaml() {
    let yaml = with(
        "  - merged: {kv_rank: 32, stride: [2, 3]}",
        "  - merged: &latent {kv_rank: 32}\n  - merged: {<<: *latent, stride: 4}",
    );
    assert_eq!(plan(&yaml).cases.len(), 20);
}

#[test]
fn overrides_replace_values_and_are_part_of_the_sweep_as_run() {
    let plan = plan_with(SWEEP, &["variants.merged.stride=4", "measure.max_s=1"]).unwrap();
    assert_eq!(plan.cases.len(), 15);
    assert_eq!(plan.measure.max_s, 1.0);
    assert_eq!(fake::plan(&plan.sweep_yaml).cases.len(), 15);
    assert!(plan.sweep_yaml.contains("stride: 4"));
    assert_eq!(fake::plan(SWEEP).sweep_yaml, SWEEP);
}

#[test]
fn what_cannot_run_here_stays_in_the_plan_with_its_reason() {
    let cuda = plan(&with("name: test", "name: test\ndevice: cuda:1"));
    assert!(cuda.cases.iter().all(|case| {
        case.unsupported
            .as_deref()
            .unwrap()
            .contains("CUDA is not compiled into this build")
    }));
    let half = plan(&with(
        "name: test",
        "name: test\ndtype: [f32, bf16]\npaths: [fused, seedlike]",
    ));
    let reasons: Vec<&str> = half
        .cases
        .iter()
        .filter_map(|case| case.unsupported.as_deref())
        .collect();
    assert_eq!(
        (reasons.len(), reasons[0]),
        (20, "seedlike is not defined for bf16")
    );
    assert_eq!(cuda.predicted_time_s(), 0.0);
    let large = plan(&with("context: [16, 64]", "context: [16, 100000000]"));
    assert!(large.cases.iter().any(|case| case.predicted_oom) && !large.cases[0].predicted_oom);
}

#[test]
fn scenarios_on_the_grid_are_removed_and_counted() {
    let yaml = SWEEP.to_string()
        + "scenarios:\n  - {workload: decode, context: 64, batch: 2}\n  - {workload: decode, context: 65}\n";
    let plan = plan(&yaml);
    assert_eq!((plan.cases.len(), plan.duplicates_removed), (24, 1));
    assert_eq!(fake::plan(SWEEP).duplicates_removed, 0);
}

#[test]
fn what_does_not_fit_names_the_smaller_case_that_does_not_fit_either() {
    let plan = plan(
        &with(
            "context: [16, 64], batch: [1, 2]",
            "context: [1000, 2000, 4000], batch: [1, 2]",
        )
        .replace(
            "question:",
            "measure: {memory_limit: 1.2 MB}\nregimes: [hot, cold]\nquestion:",
        ),
    );
    let point = |batch, context| Workload::Decode { batch, context };
    let case = |workload, regime: &str| {
        let found = plan.cases.iter().find(|case| {
            case.workload == workload && case.variant.key == "full" && case.regime.name() == regime
        });
        found.unwrap()
    };
    // Cache, weights and scores of two heads of 16: 512 bytes a token and sequence beside 40 kB.
    assert!(!case(point(1, 1000), "hot").predicted_oom);
    let (small, wide, large) = (
        case(point(1, 4000), "hot"),
        case(point(2, 2000), "hot"),
        case(point(2, 4000), "cold"),
    );
    assert!(small.predicted_oom && wide.predicted_oom && large.predicted_oom);
    assert_eq!((&small.dominated_by, &wide.dominated_by), (&None, &None));
    let named = large.dominated_by.as_ref().unwrap();
    assert!(*named == small.id || *named == wide.id);
    // Equal but for the regime: the first one is tried.
    assert_eq!(
        case(point(1, 4000), "cold").dominated_by.as_ref(),
        Some(&small.id)
    );
}

#[test]
fn a_case_dominates_what_needs_at_least_as_much_and_nothing_else() {
    let cases = plan(&with(
        "name: test",
        "name: test\ndtype: [f32, bf16]\nscopes: [layer, op]",
    ))
    .cases;
    let first = &cases[0];
    for other in &cases {
        let (a, b) = (first.workload, other.workload);
        let expected = other.label == first.label
            && (other.dtype, other.scope) == (first.dtype, first.scope)
            && a.name() == b.name()
            && b.batch() >= a.batch()
            && b.cached_tokens() >= a.cached_tokens();
        assert_eq!(dominates(first, other), expected, "{} {b:?}", other.label);
    }
    assert!(dominates(first, first) && !dominates(&cases[16], first));
}

#[test]
fn the_memory_limit_goes_before_the_memory_of_the_machine() {
    let n_oom = |limit: &str| {
        let plan = plan(&with("question:", &format!("{limit}\nquestion:")));
        plan.cases.iter().filter(|case| case.predicted_oom).count()
    };
    assert_eq!(n_oom(""), 0);
    assert_eq!(n_oom("measure: {memory_limit: 8 GiB}"), 0);
    let large = with("context: [16, 64]", "context: [16, 4000000]");
    assert!(plan(&large).cases[8].predicted_oom);
    let more = large.replace("question:", "measure: {memory_limit: 1 TiB}\nquestion:");
    assert!(!plan(&more).cases[8].predicted_oom);
}

#[test]
fn time_is_verification_once_warm_up_in_every_replica_pauses_and_samples() {
    let yaml = with(
        "question:",
        "measure: {warmup_ms: 500, max_samples: 100, max_s: 4, replicas: 3, cooldown_ms: 250}\nquestion:",
    );
    let mut setup = fake::setup();
    setup.rates = Rates {
        bytes_per_s: 1e4,
        flops_per_s: 1e12,
    };
    let sweep = Sweep::parse(std::path::Path::new("sweep.yaml"), yaml, &[]).unwrap();
    let case = &Plan::build(&sweep, &setup).unwrap().cases[0];
    let floor_s = case.cost.bytes_moved as f64 / 1e4;
    assert_eq!(case.predicted_floor_s, floor_s);
    // One sample is more than the limit of four seconds, and each replica takes one.
    let sample_s = 6.0 * floor_s;
    assert!(sample_s > 4.0, "{sample_s}");
    // Warm-up takes two samples at least.
    let expected = 6.0 * sample_s + 3.0 * 2.0 * sample_s + 2.0 * 0.25 + 3.0 * sample_s;
    assert!((case.predicted_time_s / expected - 1.0).abs() < 1e-12);
    setup.rates = Rates::default();
    let case = &Plan::build(&sweep, &setup).unwrap().cases[0];
    let sample_s = 6.0 * case.predicted_floor_s;
    let expected = 6.0 * sample_s + 3.0 * 0.167 + 0.5 + 100.0 * sample_s;
    assert!((case.predicted_time_s / expected - 1.0).abs() < 1e-12);
}

#[test]
fn filters_compare_words_and_numbers() {
    for (expression, cases) in [
        ("variant=merged", 10),
        ("variant!=merged", 10),
        ("stride=3", 5),
        ("stride!=3", 15),
        ("stride>=2, workload=decode", 8),
        ("context<64", 8),
        ("context>16,batch=1,variant=full", 2),
        ("n_kv_heads<=2", 5),
        ("label=Merged s=2", 5),
        ("workload=prefill,scope=layer,path=fused,dtype=f32,tokens=32", 4),
    ] {
        let filtered = plan(SWEEP).filter(expression, &fake::VARIANTS).unwrap();
        assert_eq!(filtered.cases.len(), cases, "{expression}");
        assert!(
            filtered
                .cases
                .iter()
                .all(|case| case.workload.name() != "decode" || case.steps_per_sample == 6)
        );
    }
    for (expression, part) in [
        ("varient=mha", "unknown column `varient`"),
        ("batch", "`batch` is no condition"),
        ("=1", "`=1` is no condition"),
        ("batch=1,", "`` is no condition"),
        ("batch>few", "expected a number"),
        ("batch=", "expected a value"),
        ("variant=mlta", "none of the 20 cases is left"),
    ] {
        let error = plan(SWEEP)
            .filter(expression, &fake::VARIANTS)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{expression}: {error}");
    }
}

#[test]
fn shards_are_whole_groups_and_together_the_plan() {
    let whole: Vec<String> = plan(SWEEP).cases.into_iter().map(|case| case.id).collect();
    let mut parts = Vec::new();
    for index in 1..=3 {
        let part = plan(SWEEP).shard(Shard::new(index, 3).unwrap()).unwrap();
        assert!(!part.cases.is_empty() && part.groups().all(|group| group.len() == 4));
        parts.extend(part.cases.into_iter().map(|case| case.id));
    }
    parts.sort();
    let mut sorted = whole;
    sorted.sort();
    assert_eq!(parts, sorted);
    assert!(
        plan(SWEEP)
            .shard(Shard::new(1, 6).unwrap())
            .unwrap_err()
            .to_string()
            .contains("5 groups")
    );
    for bad in ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"] {
        assert!(bad.parse::<Shard>().is_err(), "{bad}");
    }
}

#[test]
fn a_hundred_thousand_cases_are_planned_quickly() {
    let list = (1..=250).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let yaml = with(
        "{context: [16, 64], batch: [1, 2]}",
        &format!("{{context: [{list}], batch: [{}]}}", &list[..391]),
    );
    let start = std::time::Instant::now();
    let n_cases = plan(&yaml).cases.len();
    assert!(n_cases >= 100_000, "{n_cases}");
    // Two seconds are the promise of an optimised build; this one is not.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
