//! `--shard I/N`: a plan in N parts that together are the whole.

use std::fmt;
use std::str::FromStr;

use super::Plan;
use crate::error::Error;

/// Part `index` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Part `index` of `count`; `None` where there is no such part.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        (1..=count).contains(&index).then_some(Self { index, count })
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
        let mut groups: Vec<(usize, f64)> = self
            .groups()
            .filter_map(|cases| {
                let time = cases
                    .iter()
                    .filter(|c| c.runs_here())
                    .map(|c| c.predicted_time_s)
                    .sum();
                Some((cases.first()?.group, time))
            })
            .collect();
        let Shard { index, count } = shard;
        if groups.len() < count {
            let message = format!(
                "the plan has {} groups of comparable cases, which stay together",
                groups.len()
            );
            let help = format!("ask for at most {} shards", groups.len());
            return Err(Error::option(format!("--shard {index}/{count}"), message, help));
        }
        // The longest first, each to the part with the least so far: within a third of the best split.
        groups.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut parts = vec![(0.0_f64, Vec::new()); count];
        for (group, time) in groups {
            let least = parts
                .iter_mut()
                .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.len().cmp(&b.1.len())));
            if let Some(part) = least {
                part.0 += time;
                part.1.push(group);
            }
        }
        let own = parts.swap_remove(index - 1).1;
        let own: std::collections::HashSet<usize> = own.into_iter().collect();
        self.cases.retain(|case| own.contains(&case.group));
        Ok(self)
    }
}
