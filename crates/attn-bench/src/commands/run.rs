//! `run`: a sweep from its file to its figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use attn_harness::Plan;
use attn_harness::environment::Environment;
use attn_harness::progress::observer;
use attn_harness::row::Row;
use attn_harness::run;
use attn_harness::store::{Run, RunDir, StoreError, default_name};
use attn_harness::table::{TableFormat, summary_table};

use super::{plot, runs};
use crate::cli::RunArgs;
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Runs the sweep.
pub fn execute(args: &RunArgs) -> Result<Exit, Failure> {
    let mut plan = super::plan::load(&args.sweep)?;
    let environment = Environment::probe();
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("results").join(default_name(
            &plan.name,
            SystemTime::now(),
            &environment.cpu.model,
        )),
    };
    let interrupted = on_interrupt()?;
    let (mut dir, mut rows) = if args.resume {
        resume(&out, &mut plan, &environment)?
    } else {
        (create(&out, &plan, &environment)?, Vec::new())
    };

    let mut observer = observer(false);
    let (outcome, measured) = run::run(&plan, &mut dir, &environment, observer.as_mut(), &interrupted)
        .map_err(|error| lost(error, &out))?;
    rows.extend(measured);
    dir.finish(&summary_table(&rows, TableFormat::Markdown))
        .map_err(|error| lost(error, &out))?;

    print(&summary_table(&rows, TableFormat::Table))?;
    let plots = match &args.out {
        Some(out) => out.join("plots"),
        None => runs::plots_dir(&out),
    };
    let stored = Run::open(&out).map_err(store_failure)?;
    let figures = if rows.iter().any(|row| row.is_ok()) {
        plot::draw(&[stored], &plots)?
    } else {
        String::new()
    };
    print(&format!(
        "\nrows: {}\n{figures}",
        out.join("rows.parquet").display()
    ))?;
    if outcome.interrupted {
        eprintln!(
            "interrupted: {} of {} cases are stored in {out}; to continue: attn-bench run {} --out {out} --resume",
            rows.len(),
            rows.len() + plan.cases.len() - outcome.cases,
            args.sweep.file.display(),
            out = out.display(),
        );
        return Ok(Exit::Interrupted);
    }
    let failed = rows.iter().filter(|row| !row.is_ok()).count();
    if failed > 0 {
        eprintln!("{failed} of {} cases failed, their rows say why", rows.len());
        return Ok(Exit::CasesFailed);
    }
    Ok(Exit::Done)
}

/// A new run's folder.
fn create(out: &Path, plan: &Plan, environment: &Environment) -> Result<RunDir, Failure> {
    check_out(out)?;
    let described = serde_json::to_value(environment).map_err(Failure::machine)?;
    RunDir::create(out, &plan.sweep_yaml, &described, &command_line()).map_err(store_failure)
}

/// An earlier run's folder and rows; `plan` keeps the cases that have none. What was measured before must be
/// comparable with what will be: the same sweep on the same kind of machine.
fn resume(out: &Path, plan: &mut Plan, environment: &Environment) -> Result<(RunDir, Vec<Row>), Failure> {
    let refuse = |message: &str, help: &str| -> Result<(), Failure> {
        Err(attn_harness::Error::option(format!("--resume {}", out.display()), message, help).into())
    };
    let stored = Run::open(out).map_err(store_failure)?;
    if stored.sweep_yaml != plan.sweep_yaml {
        refuse(
            "the sweep is not the one that was begun here",
            "name another folder with --out",
        )?;
    }
    if stored.environment["fingerprint"].as_str() != Some(environment.fingerprint.as_str()) {
        refuse(
            "it was begun on another machine",
            "run the sweep anew with another --out",
        )?;
    }
    let (dir, stored) = RunDir::resume(out, &command_line()).map_err(store_failure)?;
    for warning in &stored.warnings {
        eprintln!("warning: {}: {warning}", out.display());
    }
    plan.cases
        .retain(|case| stored.rows.iter().all(|row| row.case_id != case.id));
    Ok((dir, stored.rows))
}

/// Set by the first Ctrl-C, so that what was measured is stored; the second one ends the process.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(Exit::Interrupted as i32);
        }
        eprintln!("interrupted: storing what was measured (again to stop at once)");
    })
    .map_err(|error| Failure::machine(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(flag)
}

/// The command as it was typed, the program by its name alone: a run tells no one where it was made.
fn command_line() -> String {
    let quote = |arg: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,%+@".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    };
    let args = std::env::args().skip(1).map(quote);
    std::iter::once("attn-bench".to_string())
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

fn store_failure(error: StoreError) -> Failure {
    if error.is_machine_fault() {
        Failure::machine(error)
    } else {
        Failure::input(error)
    }
}

/// A run that the machine ended: what is stored, and where.
fn lost(error: StoreError, out: &Path) -> Failure {
    let text = format!("{error}; the cases before it are stored in {}", out.display());
    Failure::machine(text)
}

/// The run's folder must be new, and its place one where folders can be made: said before anything runs.
pub fn check_out(out: &Path) -> Result<(), Failure> {
    let option = || format!("--out {}", out.display());
    let error =
        |message: String, help: &str| Err(attn_harness::Error::option(option(), message, help).into());
    if out.symlink_metadata().is_ok() {
        return error(
            "this exists already".to_string(),
            "a run has its own folder: name one that does not exist",
        );
    }
    let Some(above) = out
        .ancestors()
        .skip(1)
        .find(|part| part.exists() || part.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let above = if above.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        above.to_path_buf()
    };
    if !above.is_dir() {
        return error(
            format!("{} is a file", above.display()),
            "name a folder below a folder",
        );
    }
    // Permission bits do not tell (root, read-only mounts): making something does.
    match tempfile_in(&above) {
        Ok(()) => Ok(()),
        Err(reason) => error(
            format!("cannot write in {}: {reason}", above.display()),
            "name a writable folder",
        ),
    }
}

fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".attn-bench-{}", std::process::id()));
    std::fs::create_dir(&probe)?;
    std::fs::remove_dir(&probe)
}
