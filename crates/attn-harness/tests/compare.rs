//! The rules of comparing two runs, on rows and samples made up for each.
#![allow(clippy::unwrap_used)] // in helpers too

use attn_harness::compare::{
    Case, Change, CompareError, Comparison, Lost, QualityCase, Regression, Rules, Verdict,
    benjamini_hochberg, compare,
};
use attn_harness::row::{Row, Sample, Training};
use attn_harness::status::{Status, Trust};
use attn_harness::store::Run;
use serde_json::Value;

/// Multipliers of a time: a little noise, none on average.
const NOISE: [f64; 8] = [1.0, 1.01, 0.99, 1.005, 0.995, 1.002, 0.998, 1.0];

fn row(id: &str) -> Row {
    Row {
        case_id: id.into(),
        variant: "mha".into(),
        label: format!("MHA {id}"),
        workload: "decode".into(),
        batch: Some(1),
        context: Some(512),
        status: Status::Ok,
        trust: Some(Trust::Clean),
        fingerprint: Some("machine".into()),
        build_profile: Some("release".into()),
        threads: Some(2),
        ..Row::default()
    }
}

fn samples(id: &str, times_s: impl IntoIterator<Item = f64>) -> Vec<Sample> {
    let sample = |(i, time_s): (usize, f64)| Sample {
        case_id: id.into(),
        index: i as u64,
        time_s,
        round: i as u64,
        replica: Some(0),
        ..Sample::default()
    };
    times_s.into_iter().enumerate().map(sample).collect()
}

fn run(cases: impl IntoIterator<Item = (Row, Vec<Sample>)>) -> Run {
    let mut run = Run::default();
    for (row, samples) in cases {
        run.rows.push(row);
        run.details.samples.extend(samples);
    }
    run
}

/// A run of one case `a` with these times.
fn one(times_s: impl IntoIterator<Item = f64>) -> Run {
    run([(row("a"), samples("a", times_s))])
}

fn around(time_s: f64) -> [f64; 8] {
    NOISE.map(|noise| noise * time_s)
}

fn paired(mut run: Run) -> Run {
    for row in &mut run.rows {
        row.pair = Some("both".into());
    }
    run
}

fn with_rows(mut run: Run, change: impl Fn(&mut Row)) -> Run {
    run.rows.iter_mut().for_each(change);
    run
}

fn compared(base: &Run, new: &Run) -> Comparison {
    compare(base, new, &Rules::default()).unwrap()
}

fn only(comparison: &Comparison) -> &Case {
    assert_eq!(comparison.cases.len(), 1);
    &comparison.cases[0]
}

#[track_caller]
fn assert_verdict(base: &Run, new: &Run, expected: Verdict) -> Case {
    let comparison = compared(base, new);
    let case = only(&comparison);
    assert_eq!(case.verdict, expected, "{case:?}");
    case.clone()
}

#[test]
fn a_clear_difference_above_the_least_is_slower_or_faster() {
    let case = assert_verdict(&one(around(1.0)), &one(around(1.15)), Verdict::Slower);
    assert!((case.ratio.unwrap() - 1.15).abs() < 1e-12);
    assert!(case.ratio_ci_low.unwrap() > 1.05 && case.ratio_ci_high.unwrap() < 1.25);
    assert_eq!((case.n_base, case.n_new, case.paired), (8, 8, false));
    assert_eq!((case.time_base_s, case.why), (Some(1.0), None));

    let mirrored = assert_verdict(&one(around(1.15)), &one(around(1.0)), Verdict::Faster);
    assert!((mirrored.ratio.unwrap() * 1.15 - 1.0).abs() < 1e-12);
}

#[test]
fn no_difference_that_matters_is_same_and_noise_leaves_it_unclear() {
    assert_verdict(&one(around(1.0)), &one(around(1.0)), Verdict::Same);
    assert_verdict(&one(around(1.0)), &one(around(1.01)), Verdict::Same);

    let noisy = |time_s: f64| one([0.7, 1.3, 0.9, 1.2, 0.8, 1.0].map(|noise| noise * time_s));
    let case = assert_verdict(&noisy(1.0), &noisy(1.1), Verdict::Unclear);
    assert!(case.why.unwrap().contains("too wide"));

    // Certainly slower, though perhaps by less than 5 %.
    let case = assert_verdict(&one(around(1.0)), &one(around(1.045)), Verdict::Unclear);
    assert!(case.why.unwrap().contains("not that it is above 5 %"));
    let rules = Rules {
        min_effect: 0.02,
        ..Rules::default()
    };
    let comparison = compare(&one(around(1.0)), &one(around(1.045)), &rules).unwrap();
    assert_eq!(only(&comparison).verdict, Verdict::Slower);
}

#[test]
fn the_least_difference_counts_on_the_log_scale() {
    // Constant times have an interval of no width: the limits are exact.
    let constant = |time_s: f64| one([time_s; 5]);
    assert_verdict(&constant(1.0), &constant(1.0501), Verdict::Slower);
    assert_verdict(&constant(1.0), &constant(1.0499), Verdict::Same);
    assert_verdict(&constant(1.0501), &constant(1.0), Verdict::Faster);
    assert_verdict(&constant(1.0499), &constant(1.0), Verdict::Same);
}

#[test]
fn fewer_than_four_samples_tell_nothing() {
    let case = assert_verdict(&one([1.0; 3]), &one([2.0; 9]), Verdict::Unclear);
    assert_eq!((case.ratio, case.p), (None, None));
    assert!(case.why.unwrap().contains("3 samples of a side are too few"));

    // Nine samples, of which three met in the same round.
    let mut new = paired(one([2.0; 9]));
    new.details
        .samples
        .iter_mut()
        .for_each(|sample| sample.round += 6);
    let case = assert_verdict(&paired(one([1.0; 9])), &new, Verdict::Unclear);
    assert!(case.why.unwrap().contains("3 pairs are too few"));

    let mut without = one([1.0; 5]);
    without.details.samples.clear();
    let case = assert_verdict(&without, &one([1.0; 5]), Verdict::Unclear);
    assert_eq!((case.n_base, case.n_new), (0, 5));
}

#[test]
fn pairs_cancel_the_drift_that_both_sides_share() {
    let drift = [1.0, 1.1, 1.25, 1.4, 1.3, 1.15, 1.0, 0.9];
    let side = |time_s: f64, turn: usize| {
        let times = (0..8).map(|i| drift[i] * NOISE[(i + turn) % 8] * time_s);
        one(times.collect::<Vec<_>>())
    };
    let (base, new) = (side(1.0, 0), side(1.15, 3));
    let alone = assert_verdict(&base, &new, Verdict::Unclear);
    let together = assert_verdict(&paired(base.clone()), &paired(new.clone()), Verdict::Slower);
    assert!(together.paired && !alone.paired);
    assert!((together.ratio.unwrap() - 1.15).abs() < 0.01);

    // Of different pairs, samples of one round are no neighbours.
    let other = with_rows(paired(new), |row| row.pair = Some("another".into()));
    assert!(!only(&compared(&paired(base), &other)).paired);
}

#[test]
fn pairs_match_by_replica_and_round_in_any_order() {
    let mut base = paired(one(around(1.0)));
    let mut new = paired(one((0..8).map(|i| NOISE[i] * 1.2).collect::<Vec<_>>()));
    let expected = only(&compared(&base, &new)).clone();
    assert!(
        (expected.ratio_ci_high.unwrap() - 1.2).abs() < 1e-12,
        "no noise is left"
    );
    new.details.samples.reverse();
    assert_eq!(*only(&compared(&base, &new)), expected);
    // A turn that one side lost leaves its partner out.
    base.details.samples.remove(2);
    let case = only(&compared(&base, &new)).clone();
    assert_eq!((case.n_base, case.n_new, case.verdict), (7, 8, Verdict::Slower));
    // In another replica nothing meets.
    base.details
        .samples
        .iter_mut()
        .for_each(|sample| sample.replica = Some(1));
    assert_eq!(only(&compared(&base, &new)).verdict, Verdict::Unclear);
}

#[test]
fn replicas_that_differ_widen_the_interval() {
    // Two processes 10 % apart, with little noise in each.
    let replicas = |scale: [f64; 2]| {
        let mut run = one((0..16).map(|i| NOISE[i % 8] * scale[i / 8]).collect::<Vec<_>>());
        for (i, sample) in run.details.samples.iter_mut().enumerate() {
            sample.replica = Some(i as u64 / 8);
        }
        run
    };
    let alike = assert_verdict(&replicas([1.0, 1.0]), &replicas([1.15, 1.15]), Verdict::Slower);
    let apart = assert_verdict(&replicas([0.95, 1.05]), &replicas([1.1, 1.2]), Verdict::Unclear);
    let width = |case: &Case| case.ratio_ci_high.unwrap() - case.ratio_ci_low.unwrap();
    assert!(width(&apart) > 10.0 * width(&alike), "{apart:?} {alike:?}");
}

#[test]
fn p_values_are_adjusted_over_all_cases() {
    // One case of a weak difference among equal ones: alone it would count.
    let weak = || {
        let base = [1.0, 1.05, 0.95, 1.03, 0.97, 1.02];
        (
            samples("weak", base),
            samples("weak", base.map(|time| time * 1.08)),
        )
    };
    let equal = |i: usize, shift: usize| {
        let times: Vec<f64> = (0..6)
            .map(|k| 1.0 + 0.05 * ((k * 5 + i + shift) % 7) as f64)
            .collect();
        samples(&format!("equal {i}"), times)
    };
    let side = |first: Vec<Sample>, n: usize, shift: usize| {
        let others = (0..n).map(|i| (row(&format!("equal {i}")), equal(i, shift)));
        run(std::iter::once((row("weak"), first)).chain(others))
    };
    let alone = compared(&side(weak().0, 0, 0), &side(weak().1, 0, 1));
    assert_eq!(alone.cases[0].p, alone.cases[0].p_adjusted);
    let many = compared(&side(weak().0, 9, 0), &side(weak().1, 9, 1));
    let p: Vec<f64> = many.cases.iter().map(|case| case.p.unwrap()).collect();
    let adjusted: Vec<f64> = many.cases.iter().map(|case| case.p_adjusted.unwrap()).collect();
    assert_eq!(adjusted, benjamini_hochberg(&p));
    assert!(adjusted[0] > p[0]);
}

#[test]
fn a_case_that_is_not_clean_is_flagged_and_no_regression_unless_asked_for() {
    let base = one(around(1.0));
    let shared = with_rows(one(around(1.2)), |row| {
        row.trust = Some(Trust::Shared);
        row.trust_reason = Some("others took 40 % of the processors".into());
    });
    let comparison = compared(&base, &shared);
    let case = only(&comparison);
    assert_eq!((case.verdict, case.trusted), (Verdict::Slower, false));
    assert_eq!(
        case.untrusted_because.as_deref(),
        Some("new is shared: others took 40 % of the processors")
    );
    assert!(comparison.regressions().is_empty());
    let rules = Rules {
        include_untrusted: true,
        ..Rules::default()
    };
    let comparison = compare(&base, &shared, &rules).unwrap();
    assert!(matches!(comparison.regressions()[..], [Regression::Slower(_)]));
}

#[test]
fn cases_that_are_missing_or_end_otherwise_are_listed_and_lost_ones_are_regressions() {
    let ok = |id: &str| (row(id), samples(id, around(1.0)));
    let failed = |id: &str| {
        let row = Row {
            status: Status::Oom,
            reason: Some("4 GiB are too few".into()),
            ..row(id)
        };
        (row, Vec::new())
    };
    let base = run([
        ok("both"),
        ok("gone"),
        failed("failed and gone"),
        ok("lost"),
        failed("mended"),
        failed("never"),
    ]);
    let new = run([
        ok("both"),
        failed("lost"),
        ok("mended"),
        failed("never"),
        ok("added"),
    ]);
    let comparison = compared(&base, &new);
    let ids = |list: &[attn_harness::compare::Named]| -> Vec<String> {
        list.iter().map(|named| named.case_id.clone()).collect()
    };
    assert_eq!(only(&comparison).case_id, "both");
    assert_eq!(ids(&comparison.missing_in_new), ["gone", "failed and gone"]);
    assert_eq!(ids(&comparison.missing_in_base), ["added"]);
    let changes: Vec<_> = comparison
        .status_changed
        .iter()
        .map(|change| (change.case_id.as_str(), change.status_base, change.status_new))
        .collect();
    assert_eq!(
        changes,
        [
            ("lost", Status::Ok, Status::Oom),
            ("mended", Status::Oom, Status::Ok)
        ]
    );
    assert_eq!(
        comparison.status_changed[0].reason.as_deref(),
        Some("4 GiB are too few")
    );
    let regressions = comparison.regressions();
    assert!(
        matches!(&regressions[..], [
            Regression::Lost(Lost::Status(change)),
            Regression::Lost(Lost::Missing(named)),
        ] if change.case_id == "lost" && named.case_id == "gone"),
        "{regressions:?}"
    );
    let table = comparison.table();
    assert!(
        table.contains("lost: MHA lost at decode B=1 L=512 was ok and is oom: 4 GiB are too few"),
        "{table}"
    );
    assert!(
        table.contains("lost: MHA gone at decode B=1 L=512 has no row in the new run"),
        "{table}"
    );
}

#[test]
fn runs_of_another_machine_profile_or_thread_count_are_refused_unless_told() {
    let base = one(around(1.0));
    type Change = fn(&mut Row);
    let changes: [(&str, Change); 3] = [
        ("fingerprint", |row| row.fingerprint = Some("other".into())),
        ("build_profile", |row| row.build_profile = Some("debug".into())),
        ("threads", |row| row.threads = Some(1)),
    ];
    for (expected, change) in changes {
        let new = with_rows(base.clone(), change);
        let error = compare(&base, &new, &Rules::default()).unwrap_err();
        assert!(
            matches!(&error, CompareError::Differs { column, .. } if *column == expected),
            "{error}"
        );
        assert!(error.to_string().contains("--other-hardware"));
        let rules = Rules {
            other_hardware: true,
            ..Rules::default()
        };
        let comparison = compare(&base, &new, &rules).unwrap();
        assert_eq!(only(&comparison).verdict, Verdict::Same);
        assert!(
            comparison
                .warnings
                .iter()
                .any(|warning| warning.contains("differs"))
        );
    }
}

#[test]
fn runs_without_a_common_case_are_refused() {
    let (base, new) = (one(around(1.0)), run([(row("b"), samples("b", around(1.0)))]));
    for (base, new) in [(&base, &new), (&base, &Run::default()), (&Run::default(), &new)] {
        let error = compare(base, new, &Rules::default()).unwrap_err();
        assert!(matches!(error, CompareError::NothingInCommon { .. }), "{error}");
    }
}

#[test]
fn equal_commits_changed_sources_and_other_settings_are_warned_of() {
    let base = one(around(1.0));
    assert_eq!(compared(&base, &base).warnings, Vec::<String>::new());
    let built = with_rows(base, |row| {
        row.commit = Some("abc".into());
        row.measure = Some("{}".into());
    });
    let dirty = with_rows(built.clone(), |row| {
        row.dirty = Some(true);
        row.measure = Some("{\"max_s\":1}".into());
    });
    assert_eq!(
        compared(&built, &dirty).warnings,
        [
            "both runs are of commit abc",
            "the new run was built from sources that differ from its commit",
            "the runs were measured with different settings",
        ]
    );
}

/// Three cases that say three things, one of them not trusted, and one that is lost.
/// A run of one training whose seeds have these qualities.
fn trained(id: &str, measure: &str, qualities: &[f64]) -> Run {
    let higher = measure != "wer";
    let row = Row {
        workload: "quality".into(),
        task: Some("copy".into()),
        quality: Some(qualities.iter().sum::<f64>() / qualities.len() as f64),
        quality_measure: Some(measure.into()),
        quality_higher_is_better: Some(higher),
        ..row(id)
    };
    let mut run = run([(row, Vec::new())]);
    run.details.trainings = (42..)
        .zip(qualities)
        .map(|(seed, quality)| Training {
            case_id: id.into(),
            seed,
            quality: Some(*quality),
            ..Training::default()
        })
        .collect();
    run
}

fn quality(base: &Run, new: &Run) -> QualityCase {
    let comparison = compared(base, new);
    assert!(comparison.cases.is_empty());
    assert_eq!(comparison.qualities.len(), 1);
    comparison.qualities[0].clone()
}

#[test]
fn trainings_are_compared_by_the_qualities_of_the_same_seeds() {
    let base = trained("a", "token_accuracy", &[0.5, 0.7, 0.9]);
    // Seeds differ by far more than the builds do, but each by the same.
    let better = quality(&base, &trained("a", "token_accuracy", &[0.52, 0.722, 0.918]));
    assert_eq!((better.change, better.n_seeds), (Change::Better, 3));
    assert!((better.difference.unwrap() - 0.02).abs() < 1e-12);
    // Of 0.02, 0.022 and 0.018: Student's t with two degrees of freedom.
    let half = better.difference_ci_high.unwrap() - 0.02;
    assert!(
        (half - 4.302_652_73 * 0.002 / 3_f64.sqrt()).abs() < 1e-9,
        "{half}"
    );

    let worse = quality(
        &trained("a", "wer", &[5.0, 7.0, 9.0]),
        &trained("a", "wer", &[6.0, 8.01, 10.0]),
    );
    assert_eq!(worse.change, Change::Worse);
    let same = quality(&base, &base);
    assert_eq!((same.change, same.p_adjusted), (Change::Equal, None));
    let noise = quality(&base, &trained("a", "token_accuracy", &[0.6, 0.65, 0.9]));
    assert_eq!(noise.change, Change::Open);
    let single = quality(&trained("a", "wer", &[5.0]), &trained("a", "wer", &[9.0]));
    assert_eq!((single.change, single.difference_ci_low), (Change::Open, None));
}

#[test]
fn a_quality_that_is_worse_is_a_regression_on_any_machine() {
    let base = trained("a", "wer", &[5.0, 7.0, 9.0]);
    let mut new = trained("a", "wer", &[6.0, 8.01, 10.0]);
    new.rows[0].fingerprint = Some("another".into());
    let comparison = compared(&base, &new);
    let regressions = comparison.regressions();
    assert!(matches!(regressions[..], [Regression::Worse(case)] if case.case_id == "a"));
    assert_eq!(
        comparison.table().lines().next().unwrap(),
        "1 training compared: 1 worse, 0 better, 0 equal, 0 open."
    );
    assert!(
        comparison.table().contains("wer 7.0000 "),
        "{}",
        comparison.table()
    );
    assert!(
        comparison
            .markdown()
            .starts_with("**attn-bench: 1 regression.** 1 training")
    );
    let json: Value = serde_json::from_str(&comparison.json()).unwrap();
    assert_eq!(json["qualities"][0]["change"], "worse");
    assert_eq!(
        (&json["summary"]["worse"], &json["summary"]["compared"]),
        (&1.into(), &0.into())
    );

    let doubted = with_rows(new, |row| row.trust = Some(Trust::Unconverged));
    let comparison = compared(&base, &doubted);
    assert!(comparison.regressions().is_empty());
    // The star in the table has its note.
    assert!(
        comparison
            .table()
            .contains("1 not trusted (*): new is unconverged")
    );
}

fn mixed() -> Comparison {
    let side = |times: [f64; 3], trust: Trust| {
        let ids = ["a", "b", "c"];
        let mut run = run(ids
            .iter()
            .zip(times)
            .map(|(id, time)| (row(id), samples(id, around(time)))));
        run.rows[1].trust = Some(trust);
        run
    };
    let mut base = side([1.0, 2.0, 3.0], Trust::Clean);
    base.rows.push(row("d"));
    compared(&base, &side([1.15, 1.6, 3.0], Trust::Throttled))
}

#[test]
fn the_json_has_verdicts_under_verdict_alone() {
    let comparison = mixed();
    let json: Value = serde_json::from_str(&comparison.json()).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "cases",
            "qualities",
            "missing_in_new",
            "missing_in_base",
            "status_changed",
            "summary"
        ]
    );
    let case = &json["cases"][0];
    for key in [
        "case_id",
        "verdict",
        "ratio",
        "ratio_ci_low",
        "ratio_ci_high",
        "p",
        "p_adjusted",
        "n_base",
        "n_new",
        "paired",
        "trusted",
        "variant",
        "label",
        "workload",
    ] {
        assert!(!case[key].is_null(), "{key}: {case}");
    }
    let verdicts: Vec<&str> = (0..3)
        .map(|i| json["cases"][i]["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["SLOWER", "FASTER", "SAME"]);
    assert_eq!(json["cases"][1]["trusted"], false);
    let summary = &json["summary"];
    let counts = [
        "compared",
        "slower",
        "faster",
        "same",
        "unclear",
        "untrusted",
        "missing_in_new",
        "regressions",
    ];
    assert_eq!(
        counts.map(|key| summary[key].as_u64().unwrap()),
        [3, 1, 1, 1, 0, 1, 1, 2]
    );
    let text = comparison.json();
    for word in ["SAME", "FASTER", "SLOWER", "UNCLEAR"] {
        let with_key = text.matches(&format!("\"verdict\": \"{word}\"")).count();
        assert_eq!(text.matches(word).count(), with_key, "{word}");
    }
}

#[test]
fn the_table_shows_what_matters_first() {
    insta::assert_snapshot!(mixed().table());
}

#[test]
fn the_markdown_has_counts_then_regressions_then_everything_folded() {
    insta::assert_snapshot!(mixed().markdown());
}
