//! How our seed-like layer compares with the `mtla` package's own (`data/seedlike-ratio.csv`, measured side by
//! side). Every figure of seed-like times says it, since they must stand for the seed fairly.

use crate::csv::{self, Record};
use crate::units::Unit;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Our time over the package's, at one shape.
#[derive(Debug, Clone, PartialEq)]
struct Compared {
    workload: String,
    ratio: f64,
    interval: (f64, f64),
    machine: String,
}

const HEADER: [&str; 8] = [
    "workload", "stride", "length", "batch", "ratio", "ci_low", "ci_high", "machine",
];

static NOTE: LazyLock<Result<String, String>> =
    LazyLock::new(|| parse(include_str!("../data/seedlike-ratio.csv")).map(|rows| sentence(&rows)));

/// The sentence for captions.
pub(crate) fn note() -> String {
    match &*NOTE {
        Ok(note) => note.clone(),
        Err(problem) => format!("data/seedlike-ratio.csv cannot be read, {problem}"),
    }
}

fn parse(text: &str) -> Result<Vec<Compared>, String> {
    csv::read(text, &HEADER)?.iter().map(row).collect()
}

fn row(record: &Record) -> Result<Compared, String> {
    let required = |at: usize| {
        let missing = || format!("line {}: `{}` is empty", record.line, HEADER[at]);
        record.text(at).ok_or_else(missing)
    };
    // Sizes are for who reads the file, but they are checked.
    for size in 1..=3 {
        record.number::<u64>(size)?;
    }
    let (ratio, low, high) = (record.positive(4)?, record.positive(5)?, record.positive(6)?);
    if !(low <= ratio && ratio <= high) {
        return Err(format!(
            "line {}: the interval does not hold the ratio",
            record.line
        ));
    }
    Ok(Compared {
        workload: required(0)?,
        ratio,
        interval: (low, high),
        machine: required(7)?,
    })
}

/// `our seed-like layer against the mtla package's own: 1.2× its time in decode, 1.3× to 1.5× in forward (2 cores)`.
fn sentence(rows: &[Compared]) -> String {
    if rows.is_empty() {
        return "seed-like path not yet compared with the mtla package".to_owned();
    }
    let mut machines: Vec<&str> = Vec::new();
    for row in rows {
        if !machines.contains(&row.machine.as_str()) {
            machines.push(&row.machine);
        }
    }
    let on_machine = |machine: &&str| {
        let own: Vec<&Compared> = rows.iter().filter(|row| row.machine == *machine).collect();
        let workloads: BTreeSet<&str> = own.iter().map(|row| row.workload.as_str()).collect();
        let each: Vec<String> = workloads
            .iter()
            .enumerate()
            .map(|(at, workload)| {
                let of_workload: Vec<&Compared> = own
                    .iter()
                    .copied()
                    .filter(|row| row.workload == *workload)
                    .collect();
                let its_time = if at == 0 { " its time" } else { "" };
                format!(
                    "{}{its_time} in {}",
                    amount(&of_workload),
                    workload.replace('_', " ")
                )
            })
            .collect();
        format!("{} ({machine})", each.join(", "))
    };
    let each: Vec<String> = machines.iter().map(on_machine).collect();
    format!(
        "our seed-like layer against the mtla package's own: {}",
        each.join("; ")
    )
}

/// A ratio with its interval, or the range of several.
fn amount(rows: &[&Compared]) -> String {
    let times = |value: f64| Unit::Ratio.format(value, 3, false);
    if let [one] = rows {
        let (low, high) = one.interval;
        return format!("{} ({} to {})", times(one.ratio), times(low), times(high));
    }
    let ratios = || rows.iter().map(|row| row.ratio);
    let (low, high) = (
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
    );
    if times(low) == times(high) {
        times(low)
    } else {
        format!("{} to {}", times(low), times(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &str) -> Result<String, String> {
        parse(&format!("{}\n{lines}", HEADER.join(","))).map(|rows| sentence(&rows))
    }

    #[test]
    fn the_file_can_be_read() {
        assert!(!note().contains("cannot be read"), "{}", note());
    }

    #[test]
    fn without_rows_it_says_so() {
        assert_eq!(
            of("").unwrap(),
            "seed-like path not yet compared with the mtla package"
        );
    }

    #[test]
    fn one_row_has_its_interval_and_several_their_range() {
        let lines = "decode,2,512,8,1.2,1.15,1.25,\"CPU, 2 cores\"\nforward,2,512,1,1.4,1.3,1.5,\"CPU, 2 cores\"\n\
                     forward,4,512,1,1.3,1.2,1.4,\"CPU, 2 cores\"\n";
        assert_eq!(
            of(lines).unwrap(),
            "our seed-like layer against the mtla package's own: \
             1.20× (1.15× to 1.25×) its time in decode, 1.30× to 1.40× in forward (CPU, 2 cores)"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            of("decode,2,512,8,1.2,1.3,1.4,x\n").unwrap_err(),
            "line 2: the interval does not hold the ratio"
        );
        assert_eq!(
            of("decode,2,512,8,-1,1,2,x\n").unwrap_err(),
            "line 2: `-1` should be a positive number"
        );
        assert_eq!(
            of("decode,2,512,8,1.2,1,2,\n").unwrap_err(),
            "line 2: `machine` is empty"
        );
        assert_eq!(
            of("decode,two,512,8,1.2,1,2,x\n").unwrap_err(),
            "line 2: `two` is no number of its kind"
        );
    }
}
