//! What weakens a measurement: a pure judgement of what was seen while it was taken.

use crate::conditions::Conditions;
use crate::nvml::{GpuConditions, Reason};
use crate::stats::StopRule;
use crate::status::Trust;

/// Part of the processors' time above which other work counts: at half of it already, an A/A comparison of two
/// cores shows differences of the size that comparisons call real.
pub const SHARED_FRACTION: f64 = 0.05;

/// The least that one half of a measurement may have of the clock of the other: a change within it does not fall on
/// all of its samples alike.
pub const CLOCK_RATIO_MIN: f64 = 0.9;

/// The least of the best clock of the run. A server's turbo differs by a fifth between one busy core and all of
/// them, or with wide vector instructions; that is how it runs and no fault. Thermal and power limits go lower.
pub const BEST_CLOCK_RATIO_MIN: f64 = 0.75;

/// Samples below which no interval is believed: even the whole range of four covers the median in less than
/// 90 % of all cases, whatever the bootstrap says.
pub const SAMPLES_MIN: usize = 5;

/// What was asked for and what was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'a> {
    /// As asked for; `auto` leaves the choice.
    pub requested: &'a str,
    /// As it was.
    pub resolved: &'a str,
}

/// All that is known of how a case was measured.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Half of the interval of the median, relative to it.
    pub half_width: f64,
    /// The half width that was asked for.
    pub target_ci: f64,
    /// Samples.
    pub n_samples: usize,
    /// What ended the sampling.
    pub stop_rule: Option<StopRule>,
    /// What the machine did meanwhile.
    pub conditions: &'a Conditions,
    /// What the GPU did meanwhile, where the case ran on one that was watched.
    pub gpu: Option<&'a GpuConditions>,
    /// The highest clock rate that was seen in the run; 0 where none was.
    pub best_clock_rate: f64,
    /// The device.
    pub device: Choice<'a>,
    /// The element type.
    pub dtype: Choice<'a>,
    /// The path.
    pub path: Choice<'a>,
    /// What was composed in place of a kernel, and why.
    pub composed: &'a [String],
}

/// The gravest of all that weakens the measurement, with the reasons of everything that does.
pub fn grade(evidence: &Evidence) -> (Trust, Option<String>) {
    let mut found = Vec::new();
    for (what, choice) in [
        ("device", evidence.device),
        ("dtype", evidence.dtype),
        ("path", evidence.path),
    ] {
        found.extend(fallback(what, choice).map(|reason| (Trust::Fallback, reason)));
    }
    let composed = evidence.composed.iter().cloned();
    found.extend(composed.map(|reason| (Trust::Fallback, reason)));
    found.extend(
        throttled(evidence)
            .into_iter()
            .chain(evidence.gpu.and_then(gpu_throttled))
            .map(|reason| (Trust::Throttled, reason)),
    );
    found.extend(unconverged(evidence).map(|reason| (Trust::Unconverged, reason)));
    found.extend(
        shared(evidence.conditions)
            .into_iter()
            .chain(evidence.gpu.and_then(gpu_shared))
            .map(|reason| (Trust::Shared, reason)),
    );
    let gravest = found
        .iter()
        .map(|(trust, _)| *trust)
        .max()
        .unwrap_or(Trust::Clean);
    let reasons: Vec<String> = found.into_iter().map(|(_, reason)| reason).collect();
    (gravest, (!reasons.is_empty()).then(|| reasons.join("; ")))
}

fn fallback(what: &str, Choice { requested, resolved }: Choice) -> Option<String> {
    // `cuda` is the first GPU, which resolves to its number.
    let is_as_asked = requested == resolved
        || requested == "auto"
        || resolved
            .strip_prefix(requested)
            .is_some_and(|rest| rest.starts_with(':'));
    (!is_as_asked).then(|| format!("{what} {requested} was asked for, it ran with {resolved}"))
}

fn throttled(evidence: &Evidence) -> Vec<String> {
    let conditions = evidence.conditions;
    let mut reasons = Vec::new();
    if let Some(events @ 1..) = conditions.throttle_events {
        reasons.push(format!("the processor throttled itself {events} times"));
    }
    if let (Some(start), Some(end)) = (conditions.mhz_start, conditions.mhz_end)
        && end < CLOCK_RATIO_MIN * start
    {
        reasons.push(format!("the clock fell from {start:.0} to {end:.0} MHz"));
    }
    if let Some(steadiness) = conditions.clock_steadiness
        && steadiness < CLOCK_RATIO_MIN
    {
        reasons.push(format!(
            "in half of the measurement a fixed chain of operations ran at {:.0} % of its speed in the other",
            steadiness * 100.0
        ));
    }
    let ratio = conditions.clock_ratio(evidence.best_clock_rate);
    if ratio < BEST_CLOCK_RATIO_MIN {
        reasons.push(format!(
            "a fixed chain of operations usually ran at {:.0} % of its best speed in this run",
            ratio * 100.0
        ));
    }
    reasons
}

/// Every reading counts: between two of them a sample may have been taken at the lower clock. Clocks that someone set
/// on purpose are no fault.
fn gpu_throttled(gpu: &GpuConditions) -> Option<String> {
    let reasons = gpu.throttle.iter().flatten();
    let reasons = reasons.filter(|(name, _)| Reason::weakens(name));
    let reasons: Vec<String> = reasons
        .map(|(name, part)| format!("{name} in {:.0} % of the readings", (part * 100.0).max(1.0)))
        .collect();
    (!reasons.is_empty()).then(|| format!("the GPU lowered its clocks: {}", reasons.join(", ")))
}

fn gpu_shared(gpu: &GpuConditions) -> Option<String> {
    let foreign = gpu.foreign.as_deref().unwrap_or_default();
    let pids: Vec<String> = foreign.iter().map(|process| process.pid.to_string()).collect();
    (!pids.is_empty()).then(|| format!("other processes had work on the GPU: {}", pids.join(", ")))
}

fn unconverged(evidence: &Evidence) -> Option<String> {
    let Evidence {
        half_width,
        target_ci,
        n_samples,
        stop_rule,
        ..
    } = *evidence;
    if n_samples < SAMPLES_MIN {
        return Some(format!(
            "{n_samples} samples are too few for an interval, it takes {SAMPLES_MIN}"
        ));
    }
    // Not the other way round: a width that is no number has not converged.
    if half_width <= target_ci {
        return None;
    }
    let ended = stop_rule.map_or(String::new(), |rule| format!(" (ended by {})", rule.name()));
    Some(format!(
        "the interval of the median is ±{:.1} % after {n_samples} samples{ended}, ±{:.1} % was asked for",
        half_width * 100.0,
        target_ci * 100.0
    ))
}

/// Other processes and other machines are judged together: to the case it is the same which of them it was. The
/// resolution is allowed for, so that a single tick does not make a short window a shared one.
fn shared(conditions: &Conditions) -> Option<String> {
    let (other, stolen) = (conditions.other_cpu_fraction, conditions.stolen_cpu_fraction);
    let taken = other.unwrap_or(0.0) + stolen.unwrap_or(0.0);
    let percent = |part: Option<f64>| part.unwrap_or(0.0) * 100.0;
    (taken > SHARED_FRACTION + conditions.cpu_resolution).then(|| {
        format!(
            "other processes took {:.0} % of the processors and other machines {:.0} %",
            percent(other),
            percent(stolen)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::Process;

    fn quiet() -> Conditions {
        Conditions {
            window_s: 1.0,
            other_cpu_fraction: Some(0.01),
            stolen_cpu_fraction: Some(0.0),
            cpu_resolution: 0.01,
            mhz_start: Some(3000.0),
            mhz_end: Some(2990.0),
            throttle_events: Some(0),
            clock_rate: Some(98.0),
            clock_steadiness: Some(0.99),
            ..Conditions::default()
        }
    }

    fn evidence(conditions: &Conditions) -> Evidence<'_> {
        let same = |word| Choice {
            requested: word,
            resolved: word,
        };
        Evidence {
            half_width: 0.01,
            target_ci: 0.02,
            n_samples: 20,
            stop_rule: Some(StopRule::TargetCi),
            conditions,
            gpu: None,
            best_clock_rate: 100.0,
            device: same("cpu"),
            dtype: same("f32"),
            path: same("fused"),
            composed: &[],
        }
    }

    #[test]
    fn nothing_to_say_is_clean() {
        assert_eq!(grade(&evidence(&quiet())), (Trust::Clean, None));
        // What the system does not tell is no reason against a row.
        let unknown = Conditions {
            other_cpu_fraction: None,
            stolen_cpu_fraction: None,
            mhz_start: None,
            mhz_end: None,
            throttle_events: None,
            ..quiet()
        };
        assert_eq!(grade(&evidence(&unknown)), (Trust::Clean, None));
    }

    #[test]
    fn every_condition_has_its_grade_and_its_reason() {
        let table = [
            (
                Conditions {
                    throttle_events: Some(2),
                    ..quiet()
                },
                Trust::Throttled,
                "throttled itself 2 times",
            ),
            (
                Conditions {
                    mhz_end: Some(2600.0),
                    ..quiet()
                },
                Trust::Throttled,
                "from 3000 to 2600 MHz",
            ),
            (
                Conditions {
                    clock_steadiness: Some(0.8),
                    ..quiet()
                },
                Trust::Throttled,
                "at 80 % of its speed in the other",
            ),
            (
                Conditions {
                    clock_rate: Some(70.0),
                    ..quiet()
                },
                Trust::Throttled,
                "at 70 % of its best",
            ),
            (
                Conditions {
                    other_cpu_fraction: Some(0.2),
                    ..quiet()
                },
                Trust::Shared,
                "took 20 %",
            ),
            (
                Conditions {
                    stolen_cpu_fraction: Some(0.08),
                    ..quiet()
                },
                Trust::Shared,
                "machines 8 %",
            ),
            (
                Conditions {
                    other_cpu_fraction: Some(0.04),
                    stolen_cpu_fraction: Some(0.03),
                    ..quiet()
                },
                Trust::Shared,
                "took 4 % of the processors and other machines 3 %",
            ),
        ];
        for (conditions, trust, words) in table {
            let (graded, reason) = grade(&evidence(&conditions));
            assert_eq!(graded, trust, "{conditions:?}");
            assert!(reason.unwrap().contains(words), "{words}");
        }
    }

    #[test]
    fn a_gpu_is_throttled_by_heat_and_power_and_shared_with_processes() {
        let conditions = quiet();
        let of = |throttle: &[(&str, f64)], foreign: &[u32]| {
            let throttle = throttle.iter().map(|(name, part)| (name.to_string(), *part));
            let process = |pid: &u32| Process {
                pid: *pid,
                used_bytes: None,
            };
            let gpu = GpuConditions {
                throttle: Some(throttle.collect()),
                foreign: Some(foreign.iter().map(process).collect()),
                ..GpuConditions::default()
            };
            grade(&Evidence {
                gpu: Some(&gpu),
                ..evidence(&conditions)
            })
        };
        // Clocks that someone locked are how it runs.
        let set = [("application_clocks", 1.0), ("display_clocks", 0.5)];
        for throttle in [&[][..], &set] {
            assert_eq!(of(throttle, &[]), (Trust::Clean, None));
        }
        for name in ["power_cap", "thermal", "hardware_thermal", "hardware_slowdown"] {
            assert_eq!(of(&[(name, 0.001)], &[]).0, Trust::Throttled, "{name}");
        }
        let (trust, reason) = of(&[("power_cap", 0.4), ("thermal", 0.001)], &[7, 9]);
        assert_eq!(trust, Trust::Throttled);
        assert_eq!(
            reason.unwrap(),
            "the GPU lowered its clocks: power_cap in 40 % of the readings, thermal in 1 % of the readings; \
             other processes had work on the GPU: 7, 9"
        );
        assert_eq!(of(&[], &[7]).0, Trust::Shared);
        // What the driver does not tell is no reason against a row.
        let unknown = GpuConditions::default();
        let unknown = Evidence {
            gpu: Some(&unknown),
            ..evidence(&conditions)
        };
        assert_eq!(grade(&unknown), (Trust::Clean, None));
    }

    #[test]
    fn limits_themselves_are_still_clean() {
        let table = [
            Conditions {
                mhz_end: Some(2700.0),
                ..quiet()
            },
            Conditions {
                clock_steadiness: Some(0.9),
                ..quiet()
            },
            Conditions {
                clock_rate: Some(75.0),
                ..quiet()
            },
            Conditions {
                other_cpu_fraction: Some(0.05),
                ..quiet()
            },
            // One tick of two processors in a tenth of a second.
            Conditions {
                other_cpu_fraction: Some(0.1),
                cpu_resolution: 0.1,
                ..quiet()
            },
        ];
        for conditions in table {
            assert_eq!(
                grade(&evidence(&conditions)),
                (Trust::Clean, None),
                "{conditions:?}"
            );
        }
    }

    #[test]
    fn an_interval_must_be_as_narrow_as_asked_and_of_enough_samples() {
        let conditions = quiet();
        let of = |half_width, n_samples, stop_rule| {
            grade(&Evidence {
                half_width,
                n_samples,
                stop_rule,
                ..evidence(&conditions)
            })
        };
        assert_eq!(of(0.02, SAMPLES_MIN, None), (Trust::Clean, None));
        let wide =
            "the interval of the median is ±3.0 % after 7 samples (ended by max_s), ±2.0 % was asked for";
        assert_eq!(
            of(0.03, 7, Some(StopRule::MaxTime)),
            (Trust::Unconverged, Some(wide.to_string()))
        );
        let few = "4 samples are too few for an interval, it takes 5";
        assert_eq!(
            of(0.0, 4, Some(StopRule::MaxTime)),
            (Trust::Unconverged, Some(few.to_string()))
        );
        assert_eq!(of(f64::NAN, 7, None).0, Trust::Unconverged);
    }

    #[test]
    fn another_device_dtype_or_path_is_a_fallback_unless_it_was_left_open() {
        let conditions = quiet();
        let of = |requested, resolved| {
            grade(&Evidence {
                device: Choice { requested, resolved },
                ..evidence(&conditions)
            })
        };
        assert_eq!(of("auto", "cpu").0, Trust::Clean);
        assert_eq!(of("cuda", "cuda:0").0, Trust::Clean);
        assert_eq!(of("cuda:0", "cuda:1").0, Trust::Fallback);
        let reason = "device cuda was asked for, it ran with cpu";
        assert_eq!(of("cuda", "cpu"), (Trust::Fallback, Some(reason.to_string())));
        let choice = |requested, resolved| Choice { requested, resolved };
        let dtype = Evidence {
            dtype: choice("bf16", "f32"),
            ..evidence(&conditions)
        };
        assert_eq!(grade(&dtype).0, Trust::Fallback);
        let path = Evidence {
            path: choice("fused", "seedlike"),
            ..evidence(&conditions)
        };
        assert_eq!(grade(&path).0, Trust::Fallback);
    }

    #[test]
    fn what_was_composed_in_place_of_a_kernel_is_a_fallback_with_its_reason() {
        let conditions = quiet();
        let composed = ["decode is composed: it does not agree".to_string()];
        let (trust, reason) = grade(&Evidence {
            path: Choice {
                requested: "fused",
                resolved: "fused (composite)",
            },
            composed: &composed,
            ..evidence(&conditions)
        });
        assert_eq!(trust, Trust::Fallback);
        assert_eq!(
            reason.unwrap(),
            "path fused was asked for, it ran with fused (composite); decode is composed: it does not agree"
        );
    }

    #[test]
    fn the_gravest_wins_and_every_reason_is_told() {
        let conditions = Conditions {
            throttle_events: Some(1),
            stolen_cpu_fraction: Some(0.5),
            ..quiet()
        };
        let all = Evidence {
            half_width: 0.5,
            path: Choice {
                requested: "fused",
                resolved: "seedlike",
            },
            ..evidence(&conditions)
        };
        let (trust, reason) = grade(&all);
        let reason = reason.unwrap();
        assert_eq!(trust, Trust::Fallback);
        assert_eq!(reason.split("; ").count(), 4, "{reason}");
        let without_path = Evidence {
            path: all.device,
            ..all
        };
        assert_eq!(grade(&without_path).0, Trust::Throttled);
        let calm = Conditions {
            throttle_events: Some(0),
            ..conditions.clone()
        };
        assert_eq!(
            grade(&Evidence {
                conditions: &calm,
                ..without_path
            })
            .0,
            Trust::Unconverged
        );
    }
}
