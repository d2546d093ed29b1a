//! `--shard I/N`: a plan in N parts that together are the whole.
//!
//! Every task of a job array makes the same parts by itself, on whatever machine it runs. So nothing here goes by what
//! this machine has: neither its memory nor its devices.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Case, Plan};
use crate::error::Error;

/// Part `index` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// What is known of a part before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Cases.
    pub cases: usize,
    /// Estimated time, in seconds.
    pub predicted_time_s: f64,
}

impl Shard {
    /// Part `index` of `count`; `None` where there is no such part.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        (1..=count).contains(&index).then_some(Self { index, count })
    }

    /// Which part, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// Of how many.
    pub fn count(self) -> usize {
        self.count
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let shard = parts.and_then(|(index, count)| Self::new(index, count));
        shard.ok_or_else(|| format!("`{text}` is no shard, expected I/N with 1 <= I <= N, for example 1/4"))
    }
}

impl Plan {
    /// Keeps one part. Groups stay whole, since their variants are compared with each other; the parts take
    /// about the same time.
    ///
    /// # Errors
    /// [`Error::Option`] where there are fewer groups than parts.
    pub fn shard(mut self, shard: Shard) -> Result<Self, Error> {
        let Shard { index, count } = shard;
        let parts = self.assign(count, &format!("--shard {index}/{count}"))?;
        let of_cases = self
            .units()
            .zip(parts)
            .flat_map(|(unit, part)| unit.iter().map(move |_| part));
        let of_cases: Vec<usize> = of_cases.collect();
        let mut of_cases = of_cases.into_iter();
        self.cases.retain(|_| of_cases.next() == Some(index - 1));
        Ok(self)
    }

    /// The parts that [`shard`](Self::shard) makes of the plan; `option` asked for them.
    ///
    /// # Errors
    /// As [`shard`](Self::shard).
    pub fn parts(&self, count: usize, option: &str) -> Result<Vec<Part>, Error> {
        let mut parts = vec![Part::default(); count];
        for (unit, part) in self.units().zip(self.assign(count, option)?) {
            parts[part].cases += unit.len();
            parts[part].predicted_time_s += self.time_s(unit);
        }
        Ok(parts)
    }

    /// Each case's shard of so many; none where there are fewer groups than shards.
    pub fn shard_of_cases(&self, count: usize) -> Option<impl Iterator<Item = (&str, usize)>> {
        let parts = self.assign(count, "").ok()?;
        let of_unit = |(unit, part): (_, usize)| {
            let unit: &[Case] = unit;
            unit.iter().map(move |case| (case.id.as_str(), part + 1))
        };
        Some(self.units().zip(parts).flat_map(of_unit))
    }

    /// In how many parts the plan can be cut at most.
    pub fn most_parts(&self) -> usize {
        self.units().count()
    }

    /// Cases that stay together: groups, and with them those that are their neighbours on a machine with more memory.
    fn units(&self) -> impl Iterator<Item = &[Case]> {
        self.cases.chunk_by(|a, b| a.unit == b.unit)
    }

    /// Estimated time of some cases on a machine that can run them all.
    fn time_s(&self, cases: &[Case]) -> f64 {
        let has_limit = self.measure.memory_limit.is_some();
        let takes_time = |case: &&Case| case.is_defined && !(has_limit && case.predicted_oom);
        let times = cases.iter().filter(takes_time).map(|case| case.predicted_time_s);
        times.fold(0.0, |sum, time_s| sum + time_s)
    }

    /// The part of each unit.
    fn assign(&self, count: usize, option: &str) -> Result<Vec<usize>, Error> {
        let times: Vec<f64> = self.units().map(|unit| self.time_s(unit)).collect();
        if times.len() < count {
            let message = format!(
                "the plan has {} groups of comparable cases, which stay together",
                times.len()
            );
            let help = format!("ask for at most {} shards", times.len());
            return Err(Error::option(option, message, help));
        }
        // The longest first, each to the part with the least so far: within a third of the best split.
        let mut order: Vec<usize> = (0..times.len()).collect();
        order.sort_by(|&a, &b| times[b].total_cmp(&times[a]).then(a.cmp(&b)));
        let mut queue: BinaryHeap<Reverse<Load>> = (0..count)
            .map(|part| {
                Reverse(Load {
                    time_s: 0.0,
                    units: 0,
                    part,
                })
            })
            .collect();
        let mut parts = vec![0; times.len()];
        for unit in order {
            if let Some(Reverse(mut load)) = queue.pop() {
                parts[unit] = load.part;
                load.time_s += times[unit];
                load.units += 1;
                queue.push(Reverse(load));
            }
        }
        Ok(parts)
    }
}

/// What a part has so far.
struct Load {
    time_s: f64,
    units: usize,
    part: usize,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        let times = self.time_s.total_cmp(&other.time_s);
        times
            .then(self.units.cmp(&other.units))
            .then(self.part.cmp(&other.part))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}
