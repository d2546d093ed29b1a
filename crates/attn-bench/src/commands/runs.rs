//! Stored runs, as the commands that read them need them.

use std::path::{Path, PathBuf};

use attn_figures::Frame;
use attn_harness::Sweep;
use attn_harness::row::{CurvePoint, Position, Probe, Row, Training};
use attn_harness::store::{self, Run, StoreError};
use polars::prelude::DataFrame;

use crate::failure::Failure;

/// Opens every run; what a run had to leave out is said on standard error.
pub fn open(folders: &[PathBuf]) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    for folder in folders {
        let run = Run::open(folder).map_err(Failure::input)?;
        for warning in &run.warnings {
            eprintln!("warning: {}: {warning}", folder.display());
        }
        runs.push(run);
    }
    Ok(runs)
}

/// The rows of all runs.
pub fn rows(runs: &[Run]) -> Vec<Row> {
    runs.iter().flat_map(|run| run.rows.iter().cloned()).collect()
}

/// Rows as a table of polars.
pub fn frame(rows: &[Row]) -> Result<DataFrame, Failure> {
    Row::to_frame(rows).map_err(Failure::input)
}

/// What figures are drawn from: of large runs a small part.
pub fn drawable(folders: &[PathBuf]) -> Result<Frame, Failure> {
    let mut frames = Vec::new();
    for folder in folders {
        let rows = store::columns_of(folder, Frame::COLUMNS).map_err(Failure::input)?;
        let details = store::details_of(folder).map_err(Failure::input)?;
        let table = |frame: Result<DataFrame, StoreError>| frame.map_err(Failure::input);
        let positions = table(Position::to_frame(&details.positions))?;
        let trainings = table(Training::to_frame(&details.trainings))?;
        let curves = table(CurvePoint::to_frame(&details.curves))?;
        let probes = table(Probe::to_frame(&details.probes))?;
        let frame = Frame::from_polars(&rows)
            .and_then(|frame| frame.with_positions(&positions))
            .and_then(|frame| frame.with_trainings(&trainings))
            .and_then(|frame| frame.with_curves(&curves))
            .and_then(|frame| frame.with_probes(&probes));
        frames.push(frame.map_err(Failure::input)?);
    }
    Ok(Frame::joined(frames))
}

/// The figures the sweeps of these runs ask for; none means all of them.
pub fn figures(folders: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for folder in folders {
        let run = Run::describe(folder).map_err(Failure::input)?;
        let sweep = Sweep::parse(Path::new("sweep.yaml"), run.sweep_yaml.clone(), &[]);
        let Some(figures) = sweep.ok().and_then(|sweep| sweep.file.figures) else {
            return Ok(Vec::new());
        };
        for name in figures {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Where the figures of a run go: `plots/<run>` beside a run in `results/`, else `plots` in its folder.
pub fn plots_dir(run: &Path) -> PathBuf {
    match (run.parent(), run.file_name()) {
        (Some(parent), Some(name)) if parent.file_name().is_some_and(|folder| folder == "results") => {
            parent.with_file_name("plots").join(name)
        }
        _ => run.join("plots"),
    }
}

#[cfg(test)]
mod tests {
    use super::plots_dir;
    use std::path::Path;

    #[test]
    fn committed_runs_have_their_figures_in_plots() {
        for (run, plots) in [
            ("results/quick-a", "plots/quick-a"),
            ("results/quick-a/", "plots/quick-a"),
            ("/x/results/a", "/x/plots/a"),
            ("mine", "mine/plots"),
            ("/tmp/mine", "/tmp/mine/plots"),
        ] {
            assert_eq!(plots_dir(Path::new(run)), Path::new(plots));
        }
    }
}
