//! The statistics against numbers committed from numpy 2.4.6.
//!
//! The samples are two seeded gamma draws (`numpy.random.default_rng(7)`, shape 2, rounded to 3 digits), one
//! value of the first replaced by an outlier. Quantiles are `numpy.quantile`; the bootstrap intervals are
//! `numpy.quantile(medians, [.025, .975])` of 1,000,000 resamples by `numpy.random.default_rng(1)`.

use attn_harness::stats::{
    Interval, RESAMPLES, Stop, StopRule, Summary, iqr, median, median_interval, outliers, quantile,
    ratio_of_intervals, ratio_of_medians,
};

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

    let wide: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i % 10)).collect();
    let mut stop = Stop::new(5, 100, 0.02, 10.0, 1);
    for n in 0..100 {
        assert_eq!(stop.check(&wide[..n], 1.0), None, "{n} samples");
    }
    assert_eq!(stop.check(&wide, 1.0), Some(StopRule::MaxSamples));

    let mut stop = Stop::new(5, 100, 0.02, 10.0, 1);
    assert_eq!(stop.check(&[], 11.0), None, "a row needs a sample");
    assert_eq!(stop.check(&[1.0], 11.0), Some(StopRule::MaxTime));
    assert_eq!(StopRule::MaxTime.name(), "max_s");
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
