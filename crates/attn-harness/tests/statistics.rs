//! The statistics against numbers committed from numpy 2.4.6, and against scipy's on the data of
//! `fixtures/statistics.json` (`scripts/reference/harness_statistics.py` writes it).
//!
//! The samples below are two seeded gamma draws (`numpy.random.default_rng(7)`, shape 2, rounded to 3 digits), one
//! value of the first replaced by an outlier. Quantiles are `numpy.quantile`; the bootstrap intervals are
//! `numpy.quantile(medians, [.025, .975])` of 1,000,000 resamples by `numpy.random.default_rng(1)`.
#![allow(clippy::unwrap_used)] // in helpers too

use attn_harness::stats::{
    Interval, RESAMPLES, Stop, StopRule, Summary, iqr, median, median_interval, median_rank_interval,
    outliers, quantile, ratio_of_intervals, ratio_of_medians, resamples_of,
};
use serde::Deserialize;

#[rustfmt::skip]
const A: [f64; 25] = [
    116.683, 113.372, 111.459, 117.455, 111.086, 123.824, 118.065, 260.5, 104.639, 102.404, 105.075, 118.773,
    116.048, 103.689, 118.634, 108.254, 108.264, 130.89, 115.266, 117.504, 117.669, 103.61, 118.255, 158.127,
    105.483,
];
#[rustfmt::skip]
const B: [f64; 20] = [
    90.22, 91.703, 91.48, 77.502, 79.098, 74.446, 81.408, 99.003, 76.695, 71.526, 82.354, 91.796, 79.877, 106.07,
    80.436, 82.125, 74.82, 79.257, 91.28, 91.496,
];

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!(
        (got - expected).abs() <= 1e-12 * expected.abs(),
        "got {got}, expected {expected}"
    );
}

/// Numbers of scipy.
#[derive(Deserialize)]
struct Fixture {
    sets: Vec<Set>,
    ratios: Vec<Pair>,
    paired: Vec<Pair>,
    order_statistics: Vec<(usize, usize)>,
}

/// Samples with their statistics.
#[derive(Deserialize)]
struct Set {
    name: String,
    samples: Vec<f64>,
    median: f64,
    iqr: f64,
    ci: [f64; 2],
    monte_carlo_error: [f64; 2],
}

/// Two sides with the ratio of their medians.
#[derive(Deserialize)]
struct Pair {
    name: String,
    above: Vec<f64>,
    below: Vec<f64>,
    ratio: f64,
    ci: [f64; 2],
    monte_carlo_error: [f64; 2],
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap()
}

/// Ends within 4 Monte-Carlo errors of scipy's, plus half the distance between neighbouring values there.
///
/// A bootstrap median takes few values (the samples, and middles of two), so the end of an interval jumps from
/// one to the next. Where all of scipy's repetitions met the same value, their deviation is 0 although another
/// seed may rarely interpolate towards the next one: half the spacing allows for that, but not for the value
/// beyond.
#[track_caller]
fn agrees(name: &str, got: Interval, ci: [f64; 2], error: [f64; 2], spacing: impl Fn(f64) -> f64) {
    for ((got, expected), error) in [got.low, got.high].into_iter().zip(ci).zip(error) {
        let allowed = 4.0 * error + spacing(expected) / 2.0 + 1e-12 * expected.abs();
        assert!(
            (got - expected).abs() <= allowed,
            "{name}: got {got}, scipy has {expected} +- {allowed}"
        );
    }
}

/// The smaller distance of `end` to a different sample on either side.
fn spacing(samples: &[f64], end: f64) -> f64 {
    let distances = samples.iter().map(|sample| (sample - end).abs());
    distances
        .filter(|distance| *distance > 1e-9 * end.abs())
        .fold(f64::INFINITY, f64::min)
}

#[test]
fn median_iqr_and_interval_are_scipys() {
    for set in fixture().sets {
        let summary = Summary::of(&set.samples, 1).unwrap();
        close(summary.median, set.median);
        close(summary.iqr, set.iqr);
        agrees(&set.name, summary.ci, set.ci, set.monte_carlo_error, |end| {
            spacing(&set.samples, end)
        });
    }
}

#[test]
fn intervals_of_ratios_are_scipys() {
    for pair in fixture().ratios {
        let n = pair.above.len().max(pair.below.len());
        let ratio = ratio_of_medians(&pair.above, &pair.below, 1, resamples_of(n)).unwrap();
        close(ratio.value, pair.ratio);
        // A step of either side moves the ratio.
        agrees(&pair.name, ratio.ci, pair.ci, pair.monte_carlo_error, |_| {
            let (above, below) = (median(&pair.above), median(&pair.below));
            let steps = [
                spacing(&pair.above, above) / above,
                spacing(&pair.below, below) / below,
            ];
            pair.ratio * steps[0].min(steps[1])
        });
    }
}

#[test]
fn intervals_of_paired_ratios_are_scipys() {
    for pair in fixture().paired {
        let logs = pair.above.iter().zip(&pair.below);
        let logs: Vec<f64> = logs.map(|(above, below)| above.ln() - below.ln()).collect();
        close(median(&logs).exp(), pair.ratio);
        let interval = median_interval(&logs, 1, resamples_of(logs.len())).unwrap();
        let ratios: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
        let interval = Interval {
            low: interval.low.exp(),
            high: interval.high.exp(),
        };
        agrees(&pair.name, interval, pair.ci, pair.monte_carlo_error, |end| {
            spacing(&ratios, end)
        });
    }
}

#[test]
fn the_interval_between_ranks_has_scipys_ranks_and_is_near_the_bootstrap() {
    for (n, rank) in fixture().order_statistics {
        let samples: Vec<f64> = (1..=n).rev().map(|i| i as f64).collect();
        let interval = median_rank_interval(&samples).unwrap();
        assert_eq!(interval.low, rank as f64, "{n}");
        assert_eq!(interval.high, (n + 1 - rank) as f64, "{n}");
    }
    for set in fixture().sets.iter().filter(|set| set.samples.len() >= 37) {
        let interval = median_rank_interval(&set.samples).unwrap();
        // At most one order statistic wider at either end.
        let mut sorted = set.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let inside = |low: f64, high: f64| sorted.iter().filter(|x| (low..=high).contains(*x)).count();
        let (ours, theirs) = (inside(interval.low, interval.high), inside(set.ci[0], set.ci[1]));
        assert!(
            ours.abs_diff(theirs) <= 4,
            "{}: {ours} and {theirs} samples",
            set.name
        );
    }
    assert_eq!(median_rank_interval(&[]), None);
    assert_eq!(
        median_rank_interval(&[3.0, 1.0, 2.0]),
        Some(Interval { low: 1.0, high: 3.0 })
    );
}

#[test]
fn many_samples_get_fewer_resamples() {
    let counts: Vec<usize> = [0, 5, 2_000, 4_000, 8_000, 1_000_000].map(resamples_of).to_vec();
    assert_eq!(counts, [2_000, 2_000, 2_000, 1_000, 500, 500]);
}

#[test]
fn quantiles_are_numpys() {
    let expected = [
        (0.0, 102.404, 71.526),
        (0.025, 103.1276, 72.913),
        (0.25, 108.254, 78.699),
        (0.5, 116.048, 81.76650000000001),
        (0.75, 118.255, 91.48400000000001),
        (0.9, 128.0636, 92.51670000000001),
        (1.0, 260.5, 106.07),
    ];
    for (q, a, b) in expected {
        close(quantile(&A, q), a);
        close(quantile(&B, q), b);
    }
    close(median(&B), 81.76650000000001);
    close(iqr(&A), 10.00099999999999);
    assert!(median(&[]).is_nan());
    assert_eq!(quantile(&[3.0], 0.9), 3.0);
}

#[test]
fn outliers_are_labelled_beyond_three_interquartile_ranges() {
    let labelled: Vec<_> = outliers(&A)
        .into_iter()
        .enumerate()
        .filter(|(_, out)| *out)
        .map(|(i, _)| i)
        .collect();
    assert_eq!(labelled, [7, 23]);
    assert!(outliers(&[]).is_empty());
    assert_eq!(outliers(&[1.0; 9]), [false; 9]);
}

#[test]
fn bootstrap_intervals_of_the_median_are_those_of_numpy() {
    // An odd number of samples makes the ends order statistics, so enough resamples meet the limit exactly.
    let interval = median_interval(&A, 1, 200_000).unwrap();
    assert_eq!(
        interval,
        Interval {
            low: 108.264,
            high: 118.065
        }
    );
    // The default number is at most one order statistic off.
    for seed in 0..20 {
        let Interval { low, high } = median_interval(&A, seed, RESAMPLES).unwrap();
        assert!(
            (108.254..=111.086).contains(&low) && (117.669..=118.255).contains(&high),
            "{seed}: {low} {high}"
        );
    }
    let interval = median_interval(&B, 1, 200_000).unwrap();
    close(interval.low, 79.17750000000001);
    close(interval.high, 91.38);
    assert_eq!(median_interval(&[], 0, RESAMPLES), None);
    assert_eq!(
        median_interval(&[2.0], 0, RESAMPLES),
        Some(Interval { low: 2.0, high: 2.0 })
    );
}

#[test]
fn the_same_seed_gives_the_same_interval() {
    assert_eq!(
        median_interval(&B, 9, RESAMPLES),
        median_interval(&B, 9, RESAMPLES)
    );
}

#[test]
fn a_ratio_of_medians_has_numpys_interval() {
    let ratio = ratio_of_medians(&A, &B, 3, RESAMPLES).unwrap();
    close(ratio.value, 1.4192609442742443);
    // Three standard deviations of the ends over sets of 2,000 resamples, as numpy measured them.
    assert!(
        (ratio.ci.low - 1.2420245398773007).abs() < 3.0 * 0.0049,
        "{ratio:?}"
    );
    assert!(
        (ratio.ci.high - 1.4776537191382293).abs() < 3.0 * 0.0018,
        "{ratio:?}"
    );
    assert_eq!(ratio_of_medians(&A, &[], 3, RESAMPLES), None);
}

#[test]
fn a_ratio_of_intervals_is_near_the_bootstrap_and_exact_against_a_constant() {
    let side = |samples: &[f64]| (median(samples), median_interval(samples, 1, RESAMPLES).unwrap());
    let ratio = ratio_of_intervals(side(&A), side(&B));
    assert!(
        (ratio.ci.low / 1.2420245398773007 - 1.0).abs() < 0.02,
        "{ratio:?}"
    );
    assert!(
        (ratio.ci.high / 1.4776537191382293 - 1.0).abs() < 0.02,
        "{ratio:?}"
    );
    let constant = (2.0, Interval { low: 2.0, high: 2.0 });
    let ratio = ratio_of_intervals((8.0, Interval { low: 6.0, high: 12.0 }), constant);
    close(ratio.ci.low, 3.0);
    close(ratio.ci.high, 6.0);
}

#[test]
fn a_summary_holds_every_statistic() {
    let summary = Summary::of(&A, 1).unwrap();
    assert_eq!((summary.n, summary.n_outliers), (25, 2));
    close(summary.median, 116.048);
    close(summary.mean, 121.00112000000001);
    close(summary.min, 102.404);
    close(summary.iqr, 10.00099999999999);
    assert_eq!(summary.ci, median_interval(&A, 1, RESAMPLES).unwrap());
    assert_eq!(Summary::of(&[], 1), None);
}

#[test]
fn sampling_stops_at_the_target_the_count_or_the_clock() {
    let mut stop = Stop::new(5, 100, 0.02, 10.0, 1);
    assert_eq!(stop.check(&[1.0; 4], 0.0), None, "below the minimum");
    assert_eq!(stop.check(&[1.0; 5], 0.0), Some(StopRule::TargetCi));

    // Within reach of a million samples: they would narrow the interval enough.
    let wide: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i % 10)).collect();
    let mut stop = Stop::new(5, 1_000_000, 0.02, 1e6, 1);
    for n in 0..100 {
        assert_eq!(stop.check(&wide[..n], 1.0), None, "{n} samples");
    }
    // Its noise has not been looked at often enough to be called stable.
    let mut stop = Stop::new(97, 100, 0.02, 10.0, 1);
    for n in 0..100 {
        assert_eq!(stop.check(&wide[..n], 1.0), None, "{n} samples");
    }
    assert_eq!(stop.check(&wide, 1.0), Some(StopRule::MaxSamples));

    let mut stop = Stop::new(5, 100, 0.02, 10.0, 1);
    assert_eq!(stop.check(&[], 11.0), None, "a row needs a sample");
    assert_eq!(stop.check(&[1.0], 11.0), Some(StopRule::MaxTime));
    assert_eq!(StopRule::MaxTime.name(), "max_s");
}

/// When sampling of `sample(0)`, `sample(1)`, ... ends, a second each, and what ends it.
fn ends(mut stop: Stop, sample: impl Fn(usize) -> f64) -> (usize, StopRule) {
    let mut samples = Vec::new();
    loop {
        samples.push(sample(samples.len()));
        if let Some(rule) = stop.check(&samples, samples.len() as f64) {
            return (samples.len(), rule);
        }
    }
}

#[test]
fn stable_noise_stops_when_the_target_is_out_of_reach() {
    // As many low as high around two in the middle: from 8 samples on, the relative interquartile range is the
    // same at every look, and the interval is nowhere near narrow.
    let two = |i: usize| match i {
        2 | 3 => 1.5,
        _ => 1.0 + (i % 2) as f64,
    };
    let stop = |min_samples, max_samples, max_s| Stop::new(min_samples, max_samples, 0.01, max_s, 1);
    // Looks at 10, 11, 12, 13 and 14 samples are the first five.
    assert_eq!(ends(stop(10, 1_000, 1e9), two), (14, StopRule::StableNoise));
    assert_eq!(ends(stop(20, 1_000, 1e9), two), (28, StopRule::StableNoise));
    // Looks at 8 to 12 are the first that agree.
    assert_eq!(ends(stop(3, 1_000, 1e9), two), (12, StopRule::StableNoise));
    // Out of reach by time and not by number.
    assert_eq!(
        ends(stop(10, usize::MAX, 100.0), two),
        (14, StopRule::StableNoise)
    );
    // The clock comes first where it runs out before five looks.
    assert_eq!(ends(stop(10, 1_000, 12.0), two), (12, StopRule::MaxTime));
    assert_eq!(StopRule::StableNoise.name(), "stable_noise");
}

#[test]
fn noise_is_not_called_stable_below_ten_samples() {
    // Looks at 4 to 8 agree already, within the 5 % by which the middle moves.
    let two = |i: usize| if i % 2 == 0 { 1.0 } else { 1.05 };
    assert_eq!(
        ends(Stop::new(4, 40, 0.01, 1e9, 1), two),
        (10, StopRule::StableNoise)
    );
}

#[test]
fn noise_that_still_grows_does_not_stop() {
    // Every sample is farther out than the one before.
    let growing = |i: usize| 100.0 + (i as f64) * (i as f64) * if i % 2 == 0 { 1.0 } else { -0.5 };
    assert_eq!(
        ends(Stop::new(5, 60, 0.001, 1e9, 1), growing),
        (60, StopRule::MaxSamples)
    );
}

#[test]
fn a_target_within_reach_is_waited_for() {
    // Even noise of 20 %: the interval halves with four times the samples, and 2 % need a few hundred.
    let even = |i: usize| 1.0 + (i * 37 % 101) as f64 / 505.0;
    let (n, rule) = ends(Stop::new(10, 5_000, 0.02, 1e9, 1), even);
    assert_eq!(rule, StopRule::TargetCi);
    assert!(n > 20, "{n}");
}

#[test]
fn a_look_at_thousands_of_samples_takes_no_resampling() {
    let samples: Vec<f64> = (0..20_000).map(|i| 1.0 + f64::from(i * 37 % 101)).collect();
    let start = std::time::Instant::now();
    assert_eq!(
        Stop::new(20_000, 1_000_000, 1e-9, 1e9, 1).check(&samples, 1.0),
        None
    );
    // Sorting alone; the bootstrap's forty million draws take a hundred times as long.
    assert!(start.elapsed().as_millis() < 100, "{:?}", start.elapsed());
}

#[test]
fn an_interval_of_200_samples_takes_no_more_than_milliseconds() {
    let samples: Vec<f64> = (0..200).map(|i| 1.0 + f64::from(i * 37 % 101) / 1e3).collect();
    let start = std::time::Instant::now();
    for seed in 0..10 {
        std::hint::black_box(median_interval(&samples, seed, RESAMPLES));
    }
    let each = start.elapsed() / 10;
    // 2 ms is the budget of an optimised build; a busy machine and an unoptimised one get more.
    assert!(each.as_millis() < 60, "{each:?}");
}
