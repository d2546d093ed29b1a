//! Warm-up, interleaving and stopping, apart from what is timed: tasks and clock are traits, so that every rule is
//! tested exactly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Failure;
use crate::stats::{Stop, StopRule};
use crate::sweep::Measure;

/// What is timed.
pub trait Task {
    /// Does the work once and returns its time in seconds, setup not counted.
    ///
    /// # Errors
    /// The text of whatever went wrong.
    fn sample(&mut self) -> Result<f64, String>;
}

/// Where time comes from.
pub trait Clock {
    /// Seconds since some fixed moment.
    fn now_s(&self) -> f64;
}

/// The wall clock, from its creation.
#[derive(Debug)]
pub struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn now_s(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// What was measured of one task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Times of the samples, in the order they were taken.
    pub times_s: Vec<f64>,
    /// When each began.
    pub started_at_s: Vec<f64>,
    /// The round each was taken in: within a round every task has its turn.
    pub rounds: Vec<u64>,
    /// Time spent warming up.
    pub warmup_s: f64,
    /// What ended the sampling; `None` where it failed or was interrupted.
    pub stop: Option<StopRule>,
    /// What went wrong.
    pub failure: Option<String>,
}

/// Warms every task for at least `warmup_ms`, then lets them take turns in random order until each has enough.
///
/// All are warm before any is timed, and drift of the machine falls on all alike. The order depends on `seed` alone.
pub fn measure(
    tasks: &mut [&mut dyn Task],
    settings: &Measure,
    seed: u64,
    clock: &dyn Clock,
    interrupted: &AtomicBool,
    phase: &mut dyn FnMut(&str),
) -> Vec<Measured> {
    let mut results = vec![Measured::default(); tasks.len()];
    phase("warming up");
    for (task, result) in tasks.iter_mut().zip(&mut results) {
        let began = clock.now_s();
        loop {
            if let Err(text) = sample(*task) {
                result.failure = Some(text);
                break;
            }
            result.warmup_s = clock.now_s() - began;
            if result.warmup_s * 1e3 >= settings.warmup_ms as f64 || interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    phase("measuring");
    let mut stops: Vec<Stop> = tasks
        .iter()
        .map(|_| {
            Stop::new(
                settings.min_samples,
                settings.max_samples,
                settings.target_ci,
                settings.max_s,
                settings.seed.unwrap_or(0),
            )
        })
        .collect();
    let mut spent_s = vec![0.0; tasks.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for round in 0.. {
        let mut turns: Vec<usize> = (0..tasks.len())
            .filter(|&i| results[i].failure.is_none() && results[i].stop.is_none())
            .collect();
        if turns.is_empty() {
            break;
        }
        turns.shuffle(&mut rng);
        for i in turns {
            if interrupted.load(Ordering::Relaxed) {
                return results;
            }
            let began = clock.now_s();
            let result = &mut results[i];
            match sample(tasks[i]) {
                Err(text) => result.failure = Some(text),
                Ok(time_s) => {
                    result.times_s.push(time_s);
                    result.started_at_s.push(began);
                    result.rounds.push(round);
                    spent_s[i] += clock.now_s() - began;
                    result.stop = stops[i].check(&result.times_s, spent_s[i]);
                }
            }
        }
    }
    results
}

fn sample(task: &mut dyn Task) -> Result<f64, String> {
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
        fn sample(&mut self) -> Result<f64, String> {
            let time = self.times[self.calls % self.times.len()];
            self.calls += 1;
            self.bench.log.borrow_mut().push(self.name);
            self.bench.now.set(self.bench.now.get() + time);
            if time.is_nan() {
                Err("broken".to_string())
            } else {
                Ok(time)
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

    fn run(times: &[&[f64]], settings: &Measure, seed: u64) -> (Vec<Measured>, Vec<usize>) {
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
        let results = measure(
            &mut tasks,
            settings,
            seed,
            &bench,
            &AtomicBool::new(false),
            &mut |_| {},
        );
        let log = bench.log.borrow().clone();
        (results, log)
    }

    #[test]
    fn every_task_is_warm_before_any_is_timed() {
        let (results, log) = run(&[&[0.03], &[0.06]], &settings(), 7);
        // 4 x 30 ms and 2 x 60 ms reach 100 ms.
        assert_eq!(log[..6], [0, 0, 0, 0, 1, 1]);
        assert!((results[0].warmup_s - 0.12).abs() < 1e-9 && (results[1].warmup_s - 0.12).abs() < 1e-9);
    }

    #[test]
    fn steady_tasks_stop_at_the_smallest_number_of_samples() {
        let (results, _) = run(&[&[0.2], &[0.3]], &settings(), 7);
        for result in &results {
            assert_eq!((result.times_s.len(), result.stop), (4, Some(StopRule::TargetCi)));
            assert_eq!(result.rounds, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn noisy_tasks_stop_at_the_largest_number_or_at_the_wall_limit() {
        let noisy: &[f64] = &[0.1, 0.5, 0.2, 0.9, 0.15];
        let (results, _) = run(&[noisy], &settings(), 7);
        assert_eq!(
            (results[0].times_s.len(), results[0].stop),
            (20, Some(StopRule::MaxSamples))
        );
        let (results, _) = run(
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
        let (_, a) = run(&times, &settings(), 7);
        let (_, b) = run(&times, &settings(), 7);
        let (_, c) = run(&times, &settings(), 8);
        assert_eq!(a, b);
        assert_ne!(a, c);
        for round in a[4..].chunks(4) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_task_that_fails_leaves_the_others_alone() {
        let (results, _) = run(&[&[0.2, 0.2, f64::NAN], &[0.3]], &settings(), 7);
        assert_eq!(
            (results[0].failure.as_deref(), results[0].stop),
            (Some("broken"), None)
        );
        assert_eq!(results[1].stop, Some(StopRule::TargetCi));
    }
}
