//! `run`: a sweep from its file to its figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use attn_harness::Plan;
use attn_harness::compare::{Comparison, Rules, compare};
use attn_harness::conditions::memory_budget_bytes;
use attn_harness::device::{self, DeviceList};
use attn_harness::digest::Digest;
use attn_harness::environment::Environment;
use attn_harness::nvml::Gpus;
use attn_harness::progress::observer;
use attn_harness::run::{self, Outcome, RunError, Side};
use attn_harness::store::{Planned, Run, RunDir, StoreError, StoredCase, default_name};
use attn_harness::table::TableFormat;
use attn_harness::worker::{Executable, Plants, Settings, Share};
use serde_json::{Value, json};

use super::{plot, runs};
use crate::cli::{Accepted, RunArgs};
use crate::failure::{Exit, Failure};
use crate::output::print;
use crate::registry::VARIANTS;
use crate::shell::{command_line, quote};

/// Cases of which a run draws its figures by itself: more take minutes, and more memory than a runner should.
pub const FIGURES_UP_TO: usize = 20_000;

/// Longer than the 90 s after which file servers take a lock from a machine that is silent.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(120);

/// Folder of the other build's run, in the run's own.
const BASE: &str = "base";

/// Runs the sweep.
pub fn execute(args: &RunArgs) -> Result<Exit, Failure> {
    attn_core::ops::level().map_err(Failure::input)?;
    let mut plan = super::plan::load_for(&args.sweep, args.devices.as_ref())?;
    let lanes = args.devices.as_ref().map_or(1, DeviceList::count);
    if args.devices.is_none() {
        device::require(plan.device)?;
    }
    if args.against.is_some() {
        plan.measure.prepare_against();
    }
    super::plan::say_which(&args.sweep)?;
    let planned = Planned::of(
        &plan,
        args.sweep.filter.as_deref(),
        super::plan::which(&args.sweep)?.as_ref(),
    );
    let environment = Environment::probe();
    let plants = Plants::from_env(VARIANTS)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("results").join(default_name(
            &plan.name,
            SystemTime::now(),
            &environment.cpu.model,
        )),
    };
    let interrupted = on_interrupt()?;
    let memory_bytes = plan
        .measure
        .memory_limit
        .map(|limit| limit.0)
        // Workers of several GPUs share what there is.
        .or_else(|| Some(memory_budget_bytes()? / lanes as u64));
    let settings = Settings {
        memory_limit_bytes: memory_bytes,
        llc_bytes: plan.measure.llc_bytes.map(|bytes| bytes.0),
        pin: plan.measure.pin,
        share: Share::default(),
    };
    let mut this = Executable::this(settings.clone()).map_err(Failure::machine)?;
    let mut other = args.against.clone().map(|path| Executable { path, settings });

    let (mut dir, stored) = if args.resume && !(args.or_begin && is_not_begun(&out)) {
        resume(&out, &plan, &planned, &environment, args)?
    } else {
        (create(&out, &plan, &planned, &environment)?, Vec::new())
    };
    let mut base_dir = match &args.against {
        Some(_) => Some(create(&out.join(BASE), &plan, &planned, &environment)?),
        None => None,
    };
    let mut sides = vec![Side {
        workshop: &mut this,
        dir: &mut dir,
        environment: environment.clone(),
        stored,
        plants,
    }];
    let mut pair = None;
    if let (Some(workshop), Some(dir), Some(path)) = (&mut other, &mut base_dir, &args.against) {
        pair = Some(default_name(
            "pair",
            SystemTime::now(),
            &std::process::id().to_string(),
        ));
        let unusable =
            |error: std::io::Error| Failure::input(format!("--against {}: {error}", path.display()));
        let build = workshop.build().map_err(unusable)?;
        sides.push(Side {
            workshop,
            dir,
            environment: environment.clone().with_build(build),
            stored: Vec::new(),
            plants: Plants::default(),
        });
    }
    let mut observer = observer(false);
    let request = run::Run {
        plan: &plan,
        observer: observer.as_mut(),
        interrupted: &interrupted,
        pair,
        memory_bytes,
        devices: args.devices.as_ref().map_or(Vec::new(), DeviceList::requests),
        gpus: Gpus::for_device(plan.device),
    };
    let outcome = run::run(request, &mut sides).map_err(|error| ended(error, args, &out))?;
    drop(sides);

    let cases = plan.cases.len();
    // Large plans and the figures of their runs need not be in memory together.
    drop(plan);
    let session = session(&outcome);
    let digest = finish(&mut dir, &outcome, &session).map_err(|error| lost(error, args, &out))?;
    if let Some(dir) = &mut base_dir {
        finish(dir, &outcome, &session).map_err(|error| lost(error, args, &out))?;
    }

    print(&digest.table(TableFormat::Table))?;
    let plots = match &args.out {
        Some(out) => out.join("plots"),
        None => runs::plots_dir(&out),
    };
    let figures = match digest.ok() {
        0 => String::new(),
        _ if args.no_figures => String::new(),
        1..=FIGURES_UP_TO => plot::draw(std::slice::from_ref(&out), &plots)?,
        n => format!("no figures of {n} cases: attn-bench plot {}\n", out.display()),
    };
    print(&format!(
        "\n{}{}\nrows: {}\n{figures}",
        digest.lookback(),
        outcome.ledger.line(),
        out.join("rows.parquet").display()
    ))?;
    if outcome.interrupted {
        eprintln!(
            "interrupted: {} of {cases} cases are stored in {}{}",
            digest.rows(),
            out.display(),
            how_to_go_on(args, &out)
        );
        return Ok(Exit::Interrupted);
    }
    if args.against.is_some() {
        let (base, new) = (Run::open(&out.join(BASE)), Run::open(&out));
        let (base, new) = (base.map_err(store_failure)?, new.map_err(store_failure)?);
        let comparison = compare(&base, &new, &Rules::default()).map_err(Failure::input)?;
        return verdict(&comparison, &out, args.gate);
    }
    let failed = digest.rows() - digest.ok();
    if failed > 0 {
        eprintln!("{failed} of {} cases failed, their rows say why", digest.rows());
        return Ok(Exit::CasesFailed);
    }
    Ok(Exit::Done)
}

/// Builds the tables of a run from its log; returns what a report needs of its rows.
fn finish(dir: &mut RunDir, outcome: &Outcome, session: &Value) -> Result<Digest, StoreError> {
    let mut digest = Digest::default();
    dir.build_tables(&mut |rows| digest.add(rows))?;
    let summary = format!(
        "{}\n{}{}\n",
        digest.table(TableFormat::Markdown),
        digest.lookback(),
        outcome.ledger.line()
    );
    dir.finish(&summary, session)?;
    Ok(digest)
}

/// What is known of a session once it is over, for `environment.json`.
fn session(outcome: &Outcome) -> Value {
    json!({
        "command": command_line(),
        "cases": outcome.cases.iter().sum::<usize>(),
        "interrupted": outcome.interrupted,
        "time_spent": outcome.ledger,
        "ceilings": outcome.ceilings,
    })
}

/// What this build does compared with the other one.
fn verdict(comparison: &Comparison, out: &Path, gate: bool) -> Result<Exit, Failure> {
    print(&format!("\n{}", comparison.table()))?;
    let path = out.join("comparison.md");
    std::fs::write(&path, comparison.markdown())
        .map_err(|error| Failure::machine(format!("cannot write {}: {error}", path.display())))?;
    let regressions = comparison.regressions().len();
    if gate && regressions > 0 {
        eprintln!("{regressions} cases are slower or lost");
        return Ok(Exit::CheckFailed);
    }
    Ok(Exit::Done)
}

/// A new run's folder.
fn create(out: &Path, plan: &Plan, planned: &Planned, environment: &Environment) -> Result<RunDir, Failure> {
    check_out(out)?;
    let mut described = serde_json::to_value(environment).map_err(Failure::machine)?;
    planned.write(&mut described);
    RunDir::create(out, &plan.sweep_yaml, &described, &command_line()).map_err(store_failure)
}

/// An earlier run's folder and cases. What was measured before must be comparable with what will be: the same sweep,
/// the same build, the same kind of machine, unless the user accepts the changes, which are then on record.
fn resume(
    out: &Path,
    plan: &Plan,
    planned: &Planned,
    environment: &Environment,
    args: &RunArgs,
) -> Result<(RunDir, Vec<StoredCase>), Failure> {
    let stored = Run::describe(out).map_err(store_failure)?;
    let (mut changes, mut elsewhere) = (Vec::new(), Vec::new());
    if stored.sweep_yaml != plan.sweep_yaml {
        changes.push("the sweep is not the one that was begun here".to_string());
    }
    let was = |entry: &str| {
        stored
            .environment
            .pointer(entry)
            .and_then(Value::as_str)
            .unwrap_or("unknown")
    };
    let (fingerprint, binary) = (was("/fingerprint"), was("/build/binary"));
    if fingerprint != environment.fingerprint {
        elsewhere.push(format!(
            "it was begun on another machine (fingerprint {fingerprint}, this one has {})",
            environment.fingerprint
        ));
    }
    if Some(binary) != environment.build.binary.as_deref() {
        changes.push(format!(
            "it was begun by another build (commit {}, this one is of {})",
            was("/build/commit"),
            environment.build.commit
        ));
    }
    let is_refused = match args.accept_changes {
        Some(Accepted::All) => false,
        Some(Accepted::Machine) => !changes.is_empty(),
        None => !changes.is_empty() || !elsewhere.is_empty(),
    };
    let is_elsewhere = !elsewhere.is_empty();
    changes.append(&mut elsewhere);
    if is_refused {
        return Err(attn_harness::Error::option(
            format!("--resume {}", out.display()),
            changes.join("; "),
            "run the sweep anew with another --out, or mix the two with --accept-changes, which goes on record",
        )
        .into());
    }
    let open = || RunDir::resume(out, &command_line(), &plan.sweep_yaml, &changes);
    let (mut dir, stored) = open()
        .or_else(|error| wait_for(error, args, open))
        .map_err(store_failure)?;
    dir.note_plan(planned).map_err(store_failure)?;
    if is_elsewhere {
        let machine = serde_json::to_value(environment).map_err(Failure::machine)?;
        dir.note_machine(&machine).map_err(store_failure)?;
    }
    for warning in stored.warnings.iter().chain(&changes) {
        eprintln!("warning: {}: {warning}", out.display());
    }
    Ok((dir, stored.cases))
}

/// Whether there is nothing yet, or the empty folder that a scheduler or a user made for it.
fn is_not_begun(out: &Path) -> bool {
    // Fails on a folder that has something in it, and does nothing then.
    std::fs::remove_dir(out).is_ok() || out.symlink_metadata().is_err()
}

/// A file server keeps the lock of a machine that died for a while; a task that is started again then waits.
fn wait_for<T>(
    error: StoreError,
    args: &RunArgs,
    open: impl Fn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if !args.or_begin || !matches!(error, StoreError::Locked { .. }) {
        return Err(error);
    }
    eprintln!("waiting up to {} s: {error}", WAIT_FOR_LOCK.as_secs());
    let until = Instant::now() + WAIT_FOR_LOCK;
    loop {
        match open() {
            Err(StoreError::Locked { .. }) if Instant::now() < until => {}
            opened => return opened,
        }
    }
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

/// Bad input, or the machine's fault.
pub fn store_failure(error: StoreError) -> Failure {
    if error.is_machine_fault() {
        Failure::machine(error)
    } else {
        Failure::input(error)
    }
}

/// A run that the machine ended: what is stored, where, and how to go on.
fn lost(error: StoreError, args: &RunArgs, out: &Path) -> Failure {
    Failure::machine(format!(
        "{error}; the cases before it are stored in {}{}",
        out.display(),
        how_to_go_on(args, out)
    ))
}

fn ended(error: RunError, args: &RunArgs, out: &Path) -> Failure {
    match error {
        RunError::Store(error) => lost(error, args, out),
        other => Failure::machine(format!(
            "{other}; the cases before it are stored in {}{}",
            out.display(),
            how_to_go_on(args, out)
        )),
    }
}

/// The command that continues the run. Two builds are measured side by side in one go or not at all.
fn how_to_go_on(args: &RunArgs, out: &Path) -> String {
    if args.against.is_some() {
        return String::new();
    }
    let mut command = format!(
        "attn-bench run {} --out {} --resume",
        quote(&args.sweep.file.to_string_lossy()),
        quote(&out.to_string_lossy())
    );
    for set in &args.sweep.set {
        command.push_str(&format!(" --set {}", quote(set)));
    }
    if let Some(device) = &args.sweep.device {
        command.push_str(&format!(" --device {device}"));
    }
    if let Some(devices) = &args.devices {
        command.push_str(&format!(" --devices {devices}"));
    }
    if let Some(filter) = &args.sweep.filter {
        command.push_str(&format!(" --filter {}", quote(filter)));
    }
    if let Ok(Some(which)) = super::plan::which(&args.sweep) {
        command.push_str(&format!(" --shard {}", which.shard));
    }
    format!("; to continue: {command}")
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
