//! `plot`: the figures of stored runs, drawn again.

use std::path::{Path, PathBuf};

use attn_figures::{Outcome, draw_all};

use super::runs;
use crate::cli::PlotArgs;
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Draws the figures and prints where they are.
pub fn execute(args: &PlotArgs) -> Result<Exit, Failure> {
    let out = match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [run]) => runs::plots_dir(run),
        (None, _) => {
            return Err(Failure::input(
                "several runs have no folder of their own, name one with --out",
            ));
        }
    };
    writable(&out)?;
    print(&draw(&args.runs, &out)?)?;
    Ok(Exit::Done)
}

/// Draws what the sweeps of `runs` ask for into `out`; returns a line a figure.
pub fn draw(runs: &[PathBuf], out: &Path) -> Result<String, Failure> {
    let frame = runs::drawable(runs)?;
    let outcomes = draw_all(&frame, &runs::figures(runs)?, out).map_err(|error| match error {
        attn_figures::Error::Write { .. } => Failure::machine(error),
        _ => Failure::input(error),
    })?;
    let lines = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Drawn(drawn) => Some(format!("{}\n", drawn.svg.display())),
        Outcome::Skipped(skipped) => Some(format!("no {}: {}\n", skipped.name, skipped.reason)),
        _ => None,
    });
    Ok(lines.collect())
}

/// A folder that is a file, or lies below one, is bad input: said before any work.
fn writable(out: &Path) -> Result<(), Failure> {
    let blocked: Option<PathBuf> = out.ancestors().find(|part| part.is_file()).map(Path::to_path_buf);
    match blocked {
        Some(file) => Err(Failure::input(format!(
            "--out {}: {} is a file",
            out.display(),
            file.display()
        ))),
        None => Ok(()),
    }
}
