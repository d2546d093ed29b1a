//! Faults that tests plant in workers, to see that the runner survives them and that a slowdown is found.
//!
//! `ATTN_BENCH_PLANT` holds them, each `CONDITIONS:FAULT` and several joined by `;`, with the conditions of `--filter`
//! or `*` for every case: `variant=mtla,context=64:oom;*:slow=0.15`. Rows whose case had one say so.

use std::fmt;
use std::str::FromStr;

use attn_core::Variant;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::plan::{Case, Filter};

/// The environment variable.
pub const PLANT: &str = "ATTN_BENCH_PLANT";

const GRAMMAR: &str = "expected CONDITIONS:FAULT, several joined by `;`, with the conditions of --filter or `*`, and a \
                       fault of oom, abort, kill, panic, hang, wrong, misordered, prefix, slow=FRACTION";

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The first sample allocates more than there is.
    Oom,
    /// The first sample aborts the process.
    Abort,
    /// The first sample kills the process as the kernel would.
    Kill,
    /// The first sample panics.
    Panic,
    /// The first sample never ends.
    Hang,
    /// The reference has other weights.
    Wrong,
    /// Caches of a whole decoder follow the wrong hypotheses.
    Misordered,
    /// A whole decoder is given other sentences than the reference.
    Prefix,
    /// Every sample spins for this fraction of its time, inside the clock.
    Slow(f64),
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Ok(match word {
            "oom" => Self::Oom,
            "abort" => Self::Abort,
            "kill" => Self::Kill,
            "panic" => Self::Panic,
            "hang" => Self::Hang,
            "wrong" => Self::Wrong,
            "misordered" => Self::Misordered,
            "prefix" => Self::Prefix,
            _ => {
                let fraction: f64 = word.strip_prefix("slow=").ok_or(())?.parse().map_err(|_| ())?;
                if !(0.0..=100.0).contains(&fraction) {
                    return Err(());
                }
                Self::Slow(fraction)
            }
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oom => f.write_str("oom"),
            Self::Abort => f.write_str("abort"),
            Self::Kill => f.write_str("kill"),
            Self::Panic => f.write_str("panic"),
            Self::Hang => f.write_str("hang"),
            Self::Wrong => f.write_str("wrong"),
            Self::Misordered => f.write_str("misordered"),
            Self::Prefix => f.write_str("prefix"),
            Self::Slow(fraction) => write!(f, "slow={fraction}"),
        }
    }
}

/// Which cases get which fault.
#[derive(Debug, Clone, Default)]
pub struct Plants(Vec<(Option<Filter>, Fault)>);

impl Plants {
    /// Those of the environment.
    ///
    /// # Errors
    /// [`Error::Option`] where they cannot be read.
    pub fn from_env(variants: &[&'static Variant]) -> Result<Self, Error> {
        std::env::var(PLANT).map_or(Ok(Self::default()), |text| Self::parse(&text, variants))
    }

    /// Those of a text.
    ///
    /// # Errors
    /// [`Error::Option`] where they cannot be read.
    pub fn parse(text: &str, variants: &[&'static Variant]) -> Result<Self, Error> {
        let plants = text.split(';').filter(|plant| !plant.trim().is_empty());
        let plants = plants.map(|plant| {
            let wrong = || {
                Error::option(
                    format!("{PLANT}={text}"),
                    format!("`{plant}` is no fault"),
                    GRAMMAR,
                )
            };
            let (conditions, fault) = plant.trim().rsplit_once(':').ok_or_else(wrong)?;
            let filter = match conditions {
                "*" => None,
                conditions => Some(Filter::of_cases(conditions, variants)?),
            };
            Ok((filter, fault.parse().map_err(|()| wrong())?))
        });
        Ok(Self(plants.collect::<Result<_, Error>>()?))
    }

    /// The fault of a case, the first one whose conditions hold.
    pub fn of(&self, case: &Case) -> Option<Fault> {
        let holds = |filter: &Option<Filter>| {
            filter
                .as_ref()
                .is_none_or(|filter| filter.accepts(|column| case.cell(column)))
        };
        self.0
            .iter()
            .find(|(filter, _)| holds(filter))
            .map(|(_, fault)| *fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_shown() {
        for text in [
            "oom",
            "abort",
            "kill",
            "panic",
            "hang",
            "wrong",
            "misordered",
            "prefix",
            "slow=0.15",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for text in ["", "slow", "slow=-1", "slow=x", "OOM"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
        assert_eq!(
            Plants::parse("variant=mha,batch=1:oom; *:slow=0.5", &[])
                .unwrap()
                .0
                .len(),
            2
        );
        for text in ["oom", "*:", "*:slow", "x=1:oom"] {
            assert!(Plants::parse(text, &[]).is_err(), "{text}");
        }
    }
}
