//! `compare`: whether a run got slower than another, with an exit code for gates.

use attn_harness::compare::{Rules, compare};

use super::{runs, show};
use crate::cli::{CompareArgs, CompareFormat};
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Prints the comparison; with `--gate` a regression is a failed check.
pub fn execute(args: &CompareArgs) -> Result<Exit, Failure> {
    if !(args.min_effect.is_finite() && args.min_effect >= 0.0) {
        return Err(attn_harness::Error::option(
            format!("--min-effect {}", args.min_effect),
            "a difference that matters is zero or more",
            "give it as a part of the time: 0.05 is 5 %",
        )
        .into());
    }
    let filter = show::row_filter(args.filter.as_deref())?;
    let mut runs = runs::open(&[args.base.clone(), args.new.clone()])?;
    for run in &mut runs {
        run.rows = show::select(&run.rows, filter.as_ref(), None);
    }
    if let (Some(expression), true) = (&args.filter, runs.iter().all(|run| run.rows.is_empty())) {
        return Err(attn_harness::Error::option(
            format!("--filter {expression}"),
            "no row is left in either run",
            "`attn-bench show` lists them",
        )
        .into());
    }
    let rules = Rules {
        min_effect: args.min_effect,
        other_hardware: args.other_hardware,
        include_untrusted: args.include_untrusted,
        ..Rules::default()
    };
    let comparison = compare(&runs[0], &runs[1], &rules).map_err(Failure::input)?;
    let text = match args.format {
        CompareFormat::Table => comparison.table(),
        CompareFormat::Markdown => comparison.markdown(),
        CompareFormat::Json => {
            // The other formats hold them.
            for warning in &comparison.warnings {
                eprintln!("warning: {warning}");
            }
            comparison.json()
        }
    };
    print(&text)?;
    Ok(if args.gate && !comparison.regressions().is_empty() {
        Exit::CheckFailed
    } else {
        Exit::Done
    })
}
