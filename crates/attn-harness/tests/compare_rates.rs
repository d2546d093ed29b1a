//! How often a comparison is wrong: made-up runs of 84 cases with a known truth, many times over.
//!
//! The method was chosen by these rates, and never by what the product measured.
#![allow(clippy::unwrap_used)] // in helpers too

use attn_harness::compare::{Rules, Verdict, compare};
use attn_harness::row::{Row, Sample};
use attn_harness::status::{Status, Trust};
use attn_harness::store::Run;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CASES: usize = 84;

/// What the times of a sweep look like.
#[derive(Clone, Copy)]
struct World {
    /// Samples of a case: as many as this for each, drawn evenly.
    samples: (u64, u64),
    /// Relative noise of a sample: likewise.
    noise: (f64, f64),
    /// Part of the samples that something hits, which then take up to half as long again.
    hits: f64,
    /// How much longer every other sample takes, by chance: the two modes of a turbo clock.
    modes: f64,
    /// Whether the machine drifts by a fifth within the run.
    drift: bool,
    /// Whether samples of one round are neighbours in time.
    paired: bool,
    /// Processes the samples come from, and how far these differ.
    replicas: (u64, f64),
}

const PLAIN: World = World {
    samples: (5, 10),
    noise: (0.02, 0.04),
    hits: 0.0,
    modes: 0.0,
    drift: false,
    paired: true,
    replicas: (1, 0.0),
};

/// Close to a normal deviate: twelve uniform ones (the variance of each is a twelfth).
fn deviate(rng: &mut impl RngCore) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// Both sides of a sweep, the new one `slowdown` times slower.
fn sides(world: World, slowdown: f64, rng: &mut ChaCha8Rng) -> [Run; 2] {
    let mut runs = [Run::default(), Run::default()];
    for case in 0..CASES {
        let n = rng.random_range(world.samples.0..=world.samples.1);
        let noise = rng.random_range(world.noise.0..=world.noise.1);
        let time_s = 10_f64.powf(rng.random_range(-4.0..0.0));
        let phase = rng.random_range(0.0..6.0);
        for (side, run) in runs.iter_mut().enumerate() {
            let case_id = format!("{case}");
            run.rows.push(Row {
                case_id: case_id.clone(),
                status: Status::Ok,
                trust: Some(Trust::Clean),
                fingerprint: Some("machine".into()),
                pair: world.paired.then(|| "pair".into()),
                ..Row::default()
            });
            let (replicas, apart) = world.replicas;
            let processes: Vec<f64> = (0..replicas).map(|_| apart * deviate(rng)).collect();
            for round in 0..n {
                // Without pairs both runs see the same weather, but not at the same time.
                let moment = if world.paired {
                    round as f64
                } else {
                    rng.random_range(0.0..n as f64)
                };
                let drift = if world.drift {
                    0.1 * (phase + moment / 2.0).sin()
                } else {
                    0.0
                };
                let hit = if rng.random::<f64>() < world.hits {
                    rng.random_range(0.0..0.5)
                } else {
                    0.0
                };
                let mode = if rng.random() { world.modes } else { 0.0 };
                let replica = round % replicas;
                let log = drift + noise * deviate(rng) + hit + mode + processes[replica as usize];
                run.details.samples.push(Sample {
                    case_id: case_id.clone(),
                    index: round,
                    time_s: time_s * log.exp() * if side == 1 { slowdown } else { 1.0 },
                    round,
                    replica: Some(replica),
                    ..Sample::default()
                });
            }
        }
    }
    runs
}

/// The parts of all cases called SLOWER and FASTER, over `sweeps` sweeps.
fn rates(world: World, slowdown: f64, sweeps: usize) -> (f64, f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (mut slower, mut faster) = (0, 0);
    for _ in 0..sweeps {
        let [base, new] = sides(world, slowdown, &mut rng);
        let comparison = compare(&base, &new, &Rules::default()).unwrap();
        let with = |verdict| {
            comparison
                .cases
                .iter()
                .filter(|case| case.verdict == verdict)
                .count()
        };
        slower += with(Verdict::Slower);
        faster += with(Verdict::Faster);
    }
    let cases = (sweeps * CASES) as f64;
    (slower as f64 / cases, faster as f64 / cases)
}

/// Under 1 % of equal cases are said to differ.
#[track_caller]
fn check_equal(world: World) {
    let (slower, faster) = rates(world, 1.0, 24);
    assert!(slower + faster < 0.01, "equal: {slower} slower, {faster} faster");
}

/// That, and over `power` of those that are 15 % slower are found, and none the other way.
#[track_caller]
fn check(world: World, power: f64) {
    check_equal(world);
    let (slower, faster) = rates(world, 1.15, 24);
    assert!(
        slower > power && faster == 0.0,
        "15 % slower: {slower} slower, {faster} faster"
    );
}

#[test]
fn a_slowdown_of_15_percent_is_found_and_equal_runs_are_equal() {
    check(PLAIN, 0.95);
}

#[test]
fn pairs_find_it_while_the_machine_drifts() {
    check(World { drift: true, ..PLAIN }, 0.95);
}

#[test]
fn heavy_tails_do_not_hide_it_from_ten_samples_on() {
    let world = World {
        samples: (10, 20),
        hits: 0.1,
        ..PLAIN
    };
    check(world, 0.95);
}

#[test]
fn fewer_samples_with_heavy_tails_leave_some_unclear_rather_than_wrong() {
    // In pairs, one in five is hit: of five pairs the middle one may well be. A deviation that ignores the hits
    // would find more here (95 %), but calls up to a quarter of equal cases different where times have two modes.
    check(World { hits: 0.1, ..PLAIN }, 0.75);
}

#[test]
fn two_modes_are_not_taken_for_a_difference() {
    for samples in [(5, 10), (11, 20), (40, 60)] {
        for paired in [true, false] {
            check_equal(World {
                samples,
                modes: 0.2,
                paired,
                ..PLAIN
            });
        }
    }
}

#[test]
fn more_samples_find_it_in_more_noise() {
    let world = World {
        samples: (20, 40),
        noise: (0.05, 0.08),
        hits: 0.1,
        drift: true,
        ..PLAIN
    };
    check(world, 0.95);
}

#[test]
fn runs_made_apart_find_it_on_a_steady_machine() {
    check(
        World {
            paired: false,
            ..PLAIN
        },
        0.95,
    );
}

#[test]
fn replicas_that_differ_are_no_difference_between_builds() {
    for (apart, power) in [(0.01, 0.95), (0.03, 0.95), (0.05, 0.9)] {
        for paired in [true, false] {
            let world = World {
                samples: (12, 24),
                replicas: (4, apart),
                paired,
                ..PLAIN
            };
            check(world, power);
        }
    }
}

#[test]
fn one_process_a_side_would_be_taken_for_a_build() {
    // Why two builds are measured in several replicas: this is how often one is wrong where processes differ by 3 %.
    let world = World {
        replicas: (1, 0.03),
        ..PLAIN
    };
    let (slower, faster) = rates(world, 1.0, 24);
    assert!(slower + faster > 0.05, "{slower} {faster}");
}
