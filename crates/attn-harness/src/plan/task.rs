//! `--shard auto`: which part of a plan a task of a job array is, by what its scheduler says.

use std::fmt;
use std::str::FromStr;

use super::Shard;
use crate::error::Error;

/// A shard as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardRequest {
    /// That one.
    Given(Shard),
    /// What the scheduler's environment says, of so many where that is given.
    Auto(Option<usize>),
}

/// A shard, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Which {
    /// The part.
    pub shard: Shard,
    /// The variables that it was read from, with their values; empty where it was given.
    pub by: String,
}

const SLURM: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";
const SLURM_MIN: &str = "SLURM_ARRAY_TASK_MIN";
const SLURM_STEP: &str = "SLURM_ARRAY_TASK_STEP";
const HYPERQUEUE: &str = "HQ_TASK_ID";
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";

impl FromStr for ShardRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(count) = text.strip_prefix("auto") else {
            return text.parse().map(Self::Given);
        };
        if count.is_empty() {
            return Ok(Self::Auto(None));
        }
        let count = count.strip_prefix('/').and_then(|count| count.parse().ok());
        match count.filter(|count| *count > 0) {
            Some(count) => Ok(Self::Auto(Some(count))),
            None => Err(format!(
                "`{text}` is no shard, expected auto or auto/N, for example auto/4"
            )),
        }
    }
}

impl fmt::Display for ShardRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(shard) => shard.fmt(f),
            Self::Auto(None) => f.write_str("auto"),
            Self::Auto(Some(count)) => write!(f, "auto/{count}"),
        }
    }
}

impl ShardRequest {
    /// The shard that is meant, where `variable` looks up the environment. Schedulers run within each other:
    /// HyperQueue's workers are jobs of Slurm, so its task is the smaller one and is looked at first.
    ///
    /// # Errors
    /// [`Error::Option`] where no scheduler says which task this is, or what it says is no part of the whole.
    pub fn resolve(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Which, Error> {
        let count = match self {
            Self::Given(shard) => {
                return Ok(Which {
                    shard,
                    by: String::new(),
                });
            }
            Self::Auto(count) => count,
        };
        let look = Look {
            request: self,
            variable,
        };
        if let Some(id) = look.number(HYPERQUEUE)? {
            let by = format!("{HYPERQUEUE}={id}, tasks counted from 1");
            return look.part(id, count, &by);
        }
        if let Some(id) = look.number(SLURM)? {
            return look.of_slurm(id, count);
        }
        if let Some(id) = look.number(KUBERNETES)? {
            let by = format!("{KUBERNETES}={id}, tasks counted from 0");
            return look.part(id.saturating_add(1), count, &by);
        }
        Err(Error::option(
            format!("--shard {self}"),
            format!(
                "no scheduler says which task this is: none of {SLURM} (Slurm), {HYPERQUEUE} (HyperQueue) and \
                 {KUBERNETES} (an indexed job of Kubernetes) is set"
            ),
            "run it as a task of a job array, or name the part, for example --shard 1/4",
        ))
    }
}

/// An environment, and what is looked for in it.
struct Look<'a> {
    request: ShardRequest,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Look<'_> {
    fn refuse(&self, message: String, help: &str) -> Error {
        Error::option(format!("--shard {}", self.request), message, help)
    }

    fn number(&self, name: &str) -> Result<Option<usize>, Error> {
        let Some(text) = (self.variable)(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.refuse(
                format!("{name}={text} is no number of a task"),
                "name the part, for example --shard 1/4",
            )),
        }
    }

    fn part(&self, index: usize, count: Option<usize>, by: &str) -> Result<Which, Error> {
        let Some(count) = count else {
            return Err(self.refuse(
                format!("the scheduler ({by}) does not say how many tasks there are"),
                "say it: --shard auto/N",
            ));
        };
        match Shard::new(index, count) {
            Some(shard) => Ok(Which {
                shard,
                by: by.to_string(),
            }),
            None => Err(self.refuse(
                format!("there is no shard {index} of {count} ({by})"),
                "make an array of as many tasks as there are shards, or name the part, for example --shard 1/4",
            )),
        }
    }

    /// Slurm says the first number, the step and how many; where that is not how many are asked for, some tasks of an
    /// array were submitted again, and only their own number says which.
    fn of_slurm(&self, id: usize, count: Option<usize>) -> Result<Which, Error> {
        let known = self.number(SLURM_COUNT)?;
        let (min, step) = (
            self.number(SLURM_MIN)?.unwrap_or(1),
            self.number(SLURM_STEP)?.unwrap_or(1),
        );
        if count.is_some() && known != count {
            let by = format!("{SLURM}={id} of a part of an array, tasks counted from 1");
            return self.part(id, count, &by);
        }
        let by = format!(
            "{SLURM}={id}, {SLURM_COUNT}={}, {SLURM_MIN}={min}, {SLURM_STEP}={step}",
            known.map_or("not set".to_string(), |count| count.to_string())
        );
        if id < min || !(id - min).is_multiple_of(step.max(1)) {
            return Err(self.refuse(
                format!("the numbers of the array do not fit each other ({by})"),
                "name the part, for example --shard 1/4",
            ));
        }
        self.part((id - min) / step.max(1) + 1, known, &by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(request: &str, environment: &[(&str, &str)]) -> Result<String, String> {
        let request: ShardRequest = request.parse()?;
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        };
        let which = request.resolve(&variable).map_err(|error| error.to_string())?;
        Ok(which.shard.to_string())
    }

    fn slurm<'a>(id: &'a str, count: &'a str, min: &'a str, step: &'a str) -> [(&'a str, &'a str); 4] {
        [
            (SLURM, id),
            (SLURM_COUNT, count),
            (SLURM_MIN, min),
            (SLURM_STEP, step),
        ]
    }

    #[test]
    fn every_scheduler_is_understood() {
        let is = |request, environment: &[_], shard: &str| {
            assert_eq!(
                resolve(request, environment).as_deref(),
                Ok(shard),
                "{request} {environment:?}"
            );
        };
        is("2/3", &slurm("1", "9", "1", "1"), "2/3");
        is("auto", &slurm("1", "4", "1", "1"), "1/4");
        is("auto", &slurm("0", "4", "0", "1"), "1/4");
        is("auto", &slurm("7", "4", "1", "2"), "4/4");
        is("auto/4", &slurm("7", "4", "1", "2"), "4/4");
        // `--array=3` of an array that had eight tasks.
        is("auto/8", &slurm("3", "1", "3", "1"), "3/8");
        is("auto/8", &[(HYPERQUEUE, "8")], "8/8");
        is("auto/8", &[(KUBERNETES, "0")], "1/8");
        is("auto/8", &[(KUBERNETES, "7")], "8/8");
        // A worker of HyperQueue in a job of Slurm.
        let mut both = slurm("1", "2", "1", "1").to_vec();
        both.push((HYPERQUEUE, "5"));
        is("auto/8", &both, "5/8");
    }

    #[test]
    fn what_no_scheduler_says_is_refused() {
        let fails = |request, environment: &[_], words: &str| {
            let error = resolve(request, environment).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        for name in [SLURM, HYPERQUEUE, KUBERNETES] {
            fails("auto", &[], name);
        }
        fails("auto", &[(HYPERQUEUE, "1")], "how many tasks");
        fails("auto", &[(KUBERNETES, "1")], "how many tasks");
        fails("auto/4", &[(KUBERNETES, "4")], "no shard 5 of 4");
        fails("auto/4", &[(HYPERQUEUE, "0")], "no shard 0 of 4");
        fails("auto", &slurm("9", "2", "1", "1"), "no shard 9 of 2");
        fails("auto", &slurm("2", "2", "1", "3"), "do not fit");
        fails("auto", &[(SLURM, "x")], "no number");
        for bad in ["auto/0", "auto/", "auto/x", "autos", "auto4"] {
            assert!(bad.parse::<ShardRequest>().is_err(), "{bad}");
        }
    }
}
