//! Warm-up, interleaving and stopping, apart from what is timed: tasks and clock are traits, so that every rule is
//! tested exactly.

use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::stats::{Stop, StopRule};
use crate::sweep::Measure;

/// What is timed.
pub trait Task {
    /// Does the work once and returns its time in seconds, setup not counted.
    ///
    /// # Errors
    /// The text of whatever went wrong.
    fn sample(&mut self) -> Result<Taken, String>;
}

/// A sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Time of the sample in its own unit of work (one step, for `decode`), in seconds.
    pub time_s: f64,
    /// The same by the host's clock, which is the only one where the device has none.
    pub wall_s: f64,
    /// Time spent around it on rewinding and flushing, in seconds.
    pub around_s: f64,
}

/// Where time comes from.
pub trait Clock {
    /// Seconds since some fixed moment.
    fn now_s(&self) -> f64;
}

/// The wall clock, from its creation.
#[derive(Debug)]
pub struct WallClock {
    began: Instant,
    offset_s: f64,
}

impl WallClock {
    /// A clock that shows `now_s` now.
    pub fn starting_at(now_s: f64) -> Self {
        Self {
            began: Instant::now(),
            offset_s: now_s,
        }
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::starting_at(0.0)
    }
}

impl Clock for WallClock {
    fn now_s(&self) -> f64 {
        self.offset_s + self.began.elapsed().as_secs_f64()
    }
}

/// What was measured of one task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Times of the samples, in the order they were taken.
    pub times_s: Vec<f64>,
    /// The same by the host's clock.
    pub walls_s: Vec<f64>,
    /// When each began.
    pub started_at_s: Vec<f64>,
    /// The round each was taken in: within a round every task has its turn.
    pub rounds: Vec<u64>,
    /// What ended the sampling; `None` where it failed.
    pub stop: Option<StopRule>,
    /// What went wrong.
    pub failure: Option<String>,
    /// Time spent in turns, without what `around_s` has, in seconds.
    pub sampling_s: f64,
    /// Time spent around samples on rewinding and flushing, in seconds.
    pub around_s: f64,
    /// Time spent on deciding whether to go on, in seconds.
    pub deciding_s: f64,
}

/// Fewest samples of a warm-up: the first touches every page for the first time, and what it frees settles how the
/// next ones get theirs.
pub(crate) const WARM_SAMPLES: usize = 2;

/// Warms every task for at least `warmup_ms` and two samples. Returns the seconds spent on each, or what went wrong.
pub fn warm(tasks: &mut [&mut dyn Task], warmup_ms: u64, clock: &dyn Clock) -> Vec<Result<f64, String>> {
    let warm_one = |task: &mut &mut dyn Task| {
        let began = clock.now_s();
        for samples in 1.. {
            caught(*task)?;
            if samples >= WARM_SAMPLES && (clock.now_s() - began) * 1e3 >= warmup_ms as f64 {
                break;
            }
        }
        Ok(clock.now_s() - began)
    };
    tasks.iter_mut().map(warm_one).collect()
}

/// Lets tasks take turns in random order until each has enough; they should all be warm.
///
/// `turns` lists who goes one after the other: usually every task by itself, and for two builds the same case of both,
/// so that their samples are neighbours in time. The order of turns, and within a turn, is random and depends on
/// `seed` alone; those of a turn stop together. Drift of the machine then falls on all alike. `between` is called
/// before every round and after the last, where it disturbs no sample.
pub fn measure(
    tasks: &mut [&mut dyn Task],
    turns: &[Vec<usize>],
    settings: &Measure,
    seed: u64,
    clock: &dyn Clock,
    between: &mut dyn FnMut(),
) -> Vec<Measured> {
    let mut results = vec![Measured::default(); tasks.len()];
    let new_stop = |_: &&mut dyn Task| Stop::of(settings);
    let mut stops: Vec<Stop> = tasks.iter().map(new_stop).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut open: Vec<Vec<usize>> = turns.to_vec();
    for round in 0.. {
        open.retain(|turn| {
            turn.iter()
                .any(|&i| results[i].stop.is_none() && results[i].failure.is_none())
        });
        between();
        if open.is_empty() {
            break;
        }
        let mut order = open.clone();
        order.shuffle(&mut rng);
        for mut turn in order {
            turn.shuffle(&mut rng);
            for i in turn {
                if results[i].failure.is_some() {
                    continue;
                }
                let began = clock.now_s();
                let result = &mut results[i];
                match caught(tasks[i]) {
                    Err(text) => result.failure = Some(text),
                    Ok(taken) => {
                        result.times_s.push(taken.time_s);
                        result.walls_s.push(taken.wall_s);
                        result.started_at_s.push(began);
                        result.rounds.push(round);
                        let ended = clock.now_s();
                        result.around_s += taken.around_s;
                        result.sampling_s += ended - began - taken.around_s;
                        let spent_s = result.sampling_s + result.around_s;
                        result.stop = stops[i].check(&result.times_s, spent_s);
                        result.deciding_s += clock.now_s() - ended;
                    }
                }
            }
        }
    }
    results
}

/// A sample; a panic is a failure like any other.
pub(crate) fn caught(task: &mut dyn Task) -> Result<Taken, String> {
    super::caught(|| task.sample().map_err(Failure::Failed)).map_err(|failure| match failure {
        Failure::Failed(text) | Failure::Unsupported(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    /// A machine in which work takes the time it is told to.
    #[derive(Default)]
    struct Bench {
        now: Cell<f64>,
        log: RefCell<Vec<usize>>,
    }

    struct Fixed {
        bench: Rc<Bench>,
        name: usize,
        times: Vec<f64>,
        calls: usize,
    }

    impl Task for Fixed {
        fn sample(&mut self) -> Result<Taken, String> {
            let time = self.times[self.calls % self.times.len()];
            self.calls += 1;
            self.bench.log.borrow_mut().push(self.name);
            self.bench.now.set(self.bench.now.get() + time);
            if time.is_nan() {
                Err("broken".to_string())
            } else {
                Ok(Taken {
                    time_s: time,
                    wall_s: 2.0 * time,
                    around_s: 0.0,
                })
            }
        }
    }

    impl Clock for Rc<Bench> {
        fn now_s(&self) -> f64 {
            self.now.get()
        }
    }

    fn settings() -> Measure {
        Measure {
            warmup_ms: 100,
            min_samples: 4,
            max_samples: 20,
            target_ci: 0.01,
            max_s: 50.0,
            seed: Some(1),
            ..Measure::default()
        }
    }

    fn run_turns(
        times: &[&[f64]],
        turns: &[Vec<usize>],
        settings: &Measure,
        seed: u64,
    ) -> (Vec<Measured>, Vec<f64>, Vec<usize>) {
        let bench = Rc::new(Bench::default());
        let mut tasks: Vec<Fixed> = times
            .iter()
            .enumerate()
            .map(|(name, times)| Fixed {
                bench: bench.clone(),
                name,
                times: times.to_vec(),
                calls: 0,
            })
            .collect();
        let mut tasks: Vec<&mut dyn Task> = tasks.iter_mut().map(|task| task as &mut dyn Task).collect();
        let warmed = warm(&mut tasks, settings.warmup_ms, &bench);
        let spent: Vec<f64> = warmed
            .into_iter()
            .map(|spent| spent.unwrap_or(f64::NAN))
            .collect();
        let results = measure(&mut tasks, turns, settings, seed, &bench, &mut || ());
        let log = bench.log.borrow().clone();
        (results, spent, log)
    }

    fn run(times: &[&[f64]], settings: &Measure, seed: u64) -> (Vec<Measured>, Vec<f64>, Vec<usize>) {
        let alone: Vec<Vec<usize>> = (0..times.len()).map(|i| vec![i]).collect();
        run_turns(times, &alone, settings, seed)
    }

    #[test]
    fn every_task_is_warm_before_any_is_timed() {
        let (_, spent, log) = run(&[&[0.03], &[0.06], &[0.5]], &settings(), 7);
        // 4 x 30 ms and 2 x 60 ms reach 100 ms, and so does 500 ms, but the second sample is the first of its kind.
        assert_eq!(log[..8], [0, 0, 0, 0, 1, 1, 2, 2]);
        for (spent, expected) in spent.iter().zip([0.12, 0.12, 1.0]) {
            assert!((spent - expected).abs() < 1e-9, "{spent}");
        }
    }

    #[test]
    fn steady_tasks_stop_at_the_smallest_number_of_samples() {
        let (results, ..) = run(&[&[0.2], &[0.3]], &settings(), 7);
        for result in &results {
            assert_eq!((result.times_s.len(), result.stop), (4, Some(StopRule::TargetCi)));
            assert_eq!(result.rounds, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn noisy_tasks_stop_at_stable_noise_the_largest_number_or_the_wall_limit() {
        let noisy: &[f64] = &[0.1, 0.5, 0.2, 0.9, 0.15];
        let (results, ..) = run(&[noisy], &settings(), 7);
        assert_eq!(
            (results[0].times_s.len(), results[0].stop),
            (17, Some(StopRule::StableNoise))
        );
        let (results, ..) = run(
            &[noisy],
            &Measure {
                max_samples: 12,
                ..settings()
            },
            7,
        );
        assert_eq!(
            (results[0].times_s.len(), results[0].stop),
            (12, Some(StopRule::MaxSamples))
        );
        let (results, ..) = run(
            &[noisy],
            &Measure {
                max_s: 1.0,
                ..settings()
            },
            7,
        );
        assert_eq!(results[0].stop, Some(StopRule::MaxTime));
        assert!(results[0].times_s.len() < 20);
    }

    #[test]
    fn turns_are_random_within_a_round_and_reproducible() {
        // An eighth: its multiples are exact, so every task warms alike.
        let times: [&[f64]; 4] = [&[0.125]; 4];
        let (.., a) = run(&times, &settings(), 7);
        let (.., b) = run(&times, &settings(), 7);
        let (.., c) = run(&times, &settings(), 8);
        assert_eq!(a, b);
        assert_ne!(a, c);
        for round in a[8..].chunks(4) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn tasks_of_one_turn_are_neighbours_and_stop_together() {
        // 2 is noisy and needs more samples than its partner 0; 1 and 3 are steady.
        // Multiples of a sixteenth add up exactly, so every task warms with two samples.
        let noisy: &[f64] = &[0.125, 0.5, 0.25, 0.875, 0.1875];
        let turns = [vec![0, 2], vec![1, 3]];
        let (results, _, log) = run_turns(&[&[0.25], &[0.25], noisy, &[0.25]], &turns, &settings(), 7);
        assert_eq!(results[0].times_s.len(), results[2].times_s.len());
        assert_eq!(results[0].rounds, results[2].rounds);
        assert!(results[2].times_s.len() > 4 && results[1].times_s.len() == 4);
        let sampled = &log[8..];
        for turn in sampled.chunks(2) {
            assert_eq!((turn[0] + turn[1]) % 2, 0, "{sampled:?}");
        }
    }

    #[test]
    fn a_task_that_fails_leaves_the_others_alone() {
        let (results, ..) = run(&[&[0.2, 0.2, f64::NAN], &[0.3]], &settings(), 7);
        assert_eq!(
            (results[0].failure.as_deref(), results[0].stop),
            (Some("broken"), None)
        );
        assert_eq!(results[1].stop, Some(StopRule::TargetCi));
    }
}
