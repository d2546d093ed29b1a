//! `submit`: a sweep as a job array of the scheduler that is there.

mod hyperqueue;
mod slurm;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use attn_harness::plan::Part;
use attn_harness::store::{Submission, default_name};
use attn_harness::units::format_time;
use attn_harness::{Plan, Sweep};

use super::plan::{counted, duration};
use super::run::{check_out, store_failure};
use crate::cli::{SubmitArgs, SweepArgs};
use crate::failure::{Exit, Failure};
use crate::output::print;
use crate::shell::{command_line, quote};

/// Predicted time of a shard, in seconds, where nobody says how many there are: it takes a task some seconds to begin.
const SHARD_S: f64 = 600.0;
/// Shards where nobody says how many; Slurm takes no more than 1000 tasks as it comes.
const MOST_SHARDS: usize = 256;

const SWEEP: &str = "sweep.yaml";

/// Everything a script needs to know.
struct Job<'a> {
    args: &'a SubmitArgs,
    /// Name of the sweep.
    name: &'a str,
    /// The run's folder, from the root.
    run: String,
    /// The program, from the root.
    program: String,
    /// The sweep and what is kept of it, as words of a shell.
    sweep: String,
    parts: &'a [Part],
    /// The command that submits.
    command: String,
}

/// A file of the run's folder.
struct Script {
    name: &'static str,
    text: String,
}

/// Checks, writes, submits, and says how to follow.
pub fn execute(args: &SubmitArgs) -> Result<Exit, Failure> {
    let plan = super::plan::load(&SweepArgs {
        file: args.file.clone(),
        device: args.device,
        filter: args.filter.clone(),
        set: args.set.clone(),
        shard: None,
    })?;
    let (count, why) = shards(args, &plan);
    let parts = plan.parts(count, &format!("--array {count}"))?;
    let scheduler = if args.slurm { "slurm" } else { "hyperqueue" };
    let program = if args.slurm { "sbatch" } else { "hq" };
    if !args.dry_run && !is_there(program) {
        return Err(attn_harness::Error::option(
            if args.slurm { "--slurm" } else { "--hq" },
            format!("there is no `{program}` here"),
            "submit where the scheduler's programs are in PATH, a login node for one; --dry-run shows what would be submitted",
        )
        .into());
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("results").join(default_name(&plan.name, SystemTime::now(), scheduler)),
    };
    check_out(&out)?;
    let run = std::path::absolute(&out).map_err(Failure::machine)?;
    let (sweep, is_copied) = sweep_words(args, &plan, &run)?;
    let job = Job {
        args,
        name: &plan.name,
        run: text(&run)?,
        program: text(&std::env::current_exe().map_err(Failure::machine)?)?,
        sweep,
        parts: &parts,
        command: command_line(),
    };
    check_words(args)?;
    let scripts = if args.slurm {
        slurm::scripts(&job)
    } else {
        hyperqueue::scripts(&job)?
    };
    let times = format!("{}: {why}\n{}\n", counted(count, "shard"), balance(&parts));
    if args.dry_run {
        print(&times)?;
        for script in &scripts {
            print(&format!(
                "\n== {}\n{}",
                out.join(script.name).display(),
                script.text
            ))?;
        }
        return Ok(Exit::Done);
    }
    let mut submission = Submission {
        scheduler: scheduler.to_string(),
        name: plan.name.clone(),
        command: job.command.clone(),
        filter: args.filter.clone(),
        job: None,
        merge_job: None,
        shards: parts.clone(),
    };
    let folders = NewFolders::of(&out);
    if let Err(failure) = write(&out, &plan, is_copied, &scripts, &submission) {
        folders.remove();
        return Err(failure);
    }
    let submitted = if args.slurm {
        slurm::submit(&run)
    } else {
        hyperqueue::submit(&run)
    };
    let Submitted {
        job: number,
        merge_job,
        failed,
    } = match submitted {
        Ok(submitted) => submitted,
        Err(message) => {
            // Nothing runs, so nothing is lost with it, and the same command can be tried again.
            folders.remove();
            return Err(Failure::machine(format!(
                "{program} did not take the job: {message}"
            )));
        }
    };
    submission.job = Some(number.clone());
    submission.merge_job = merge_job;
    submission.write(&out).map_err(store_failure)?;
    print(&times)?;
    let follow = if args.slurm {
        slurm::follow(&submission, &out)
    } else {
        hyperqueue::follow(&submission, &out)
    };
    print(&follow)?;
    if let Some(message) = failed {
        return Err(Failure::machine(format!(
            "{program} took the array (job {number}) and not the job that merges: {message}; once the array has ended: \
             attn-bench merge {} --out {}",
            quote(&out.to_string_lossy()),
            quote(&out.join("merged").to_string_lossy())
        )));
    }
    Ok(Exit::Done)
}

/// What a scheduler took.
struct Submitted {
    /// Number of the array.
    job: String,
    /// Number of the job that merges, where it is one of its own.
    merge_job: Option<String>,
    /// Why it did not take that one.
    failed: Option<String>,
}

/// How many shards, and why as many.
fn shards(args: &SubmitArgs, plan: &Plan) -> (usize, String) {
    if let Some(count) = args.array {
        return (count as usize, "as asked for".to_string());
    }
    let most = plan.most_parts().min(MOST_SHARDS);
    let time_s: f64 = plan.cases.iter().map(|case| case.predicted_time_s).sum();
    let count = ((time_s / SHARD_S).ceil() as usize).clamp(1, most.max(1));
    let mut why = format!(
        "one for every 10 min of the {} that are predicted",
        duration(time_s)
    );
    if count == most && time_s / SHARD_S > most as f64 {
        why += &format!(", at most {most} (the plan has {} groups)", plan.most_parts());
    }
    (count, why + "; --array N asks for another number")
}

/// How evenly the work is dealt.
fn balance(parts: &[Part]) -> String {
    let times = || parts.iter().map(|part| part.predicted_time_s);
    let duration = |time_s: f64| {
        if time_s < 10.0 {
            format_time(time_s)
        } else {
            duration(time_s)
        }
    };
    let cases: usize = parts.iter().map(|part| part.cases).sum();
    format!(
        "{}, {} to {} a shard as predicted",
        counted(cases, "case"),
        duration(times().fold(f64::INFINITY, f64::min)),
        duration(times().fold(0.0, f64::max))
    )
}

/// The sweep as words of a shell: the copy in the run's folder, which nobody edits while tasks wait. One that names
/// files beside it stays where it is.
fn sweep_words(args: &SubmitArgs, plan: &Plan, run: &Path) -> Result<(String, bool), Failure> {
    let copy = run.join(SWEEP);
    let is_copied = Sweep::parse(&copy, plan.sweep_yaml.clone(), &[])
        .and_then(|sweep| super::plan::of_sweep(&sweep, None))
        .is_ok();
    let mut words = if is_copied {
        "\"$run\"/sweep.yaml".to_string()
    } else {
        let file = std::path::absolute(&args.file).map_err(Failure::machine)?;
        let mut words = quote(&text(&file)?);
        args.set
            .iter()
            .for_each(|set| words += &format!(" --set {}", quote(set)));
        if let Some(device) = args.device {
            words += &format!(" --device {device}");
        }
        words
    };
    if let Some(filter) = &args.filter {
        words += &format!(" --filter {}", quote(filter));
    }
    Ok((words, is_copied))
}

/// A path as text that scripts can hold.
fn text(path: &Path) -> Result<String, Failure> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => Ok(text.to_string()),
        _ => Err(Failure::input(format!(
            "{} cannot be written into a script, name a path that is plain text",
            path.display()
        ))),
    }
}

/// Words that go into lines of a script must be no more than one line.
fn check_words(args: &SubmitArgs) -> Result<(), Failure> {
    let options = [
        ("--gres", &args.gres),
        ("--time", &args.time),
        ("--mem", &args.mem),
        ("--partition", &args.partition),
        ("--account", &args.account),
    ];
    let given = options
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_ref()?)));
    let more = args
        .sbatch_option
        .iter()
        .map(|option| ("--sbatch-option", option));
    for (name, value) in given.chain(more) {
        let refuse = |message: &str, help: &str| {
            Err(attn_harness::Error::option(format!("{name} {}", value.escape_debug()), message, help).into())
        };
        if value.trim().is_empty() || value.contains(['\n', '\r']) {
            return refuse(
                "this is no single line of text",
                "leave it out, or say what the scheduler shall have",
            );
        }
        if name == "--sbatch-option" && !value.starts_with('-') {
            return refuse(
                "options of sbatch begin with a dash",
                "for example --sbatch-option=--constraint=h100",
            );
        }
    }
    Ok(())
}

/// Whether a program is in PATH.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn write(
    out: &Path,
    plan: &Plan,
    is_copied: bool,
    scripts: &[Script],
    submission: &Submission,
) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::machine(format!("cannot write {}: {error}", path.display()))
    };
    let folders: [PathBuf; 3] = [out.to_path_buf(), out.join("shards"), out.join("output")];
    for folder in &folders {
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    }
    let mut files = vec![];
    if is_copied {
        files.push((SWEEP, plan.sweep_yaml.as_str()));
    }
    files.extend(scripts.iter().map(|script| (script.name, script.text.as_str())));
    for (name, text) in files {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    submission.write(out).map_err(store_failure)
}

/// What is not there yet of a folder and those above it.
struct NewFolders {
    out: PathBuf,
    /// Those above it, the nearest first.
    above: Vec<PathBuf>,
}

impl NewFolders {
    fn of(out: &Path) -> Self {
        let above = out.ancestors().skip(1);
        let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        Self {
            out: out.to_path_buf(),
            above: above.take_while(is_new).map(Path::to_path_buf).collect(),
        }
    }

    /// Removes them again; those above only where nobody else has put something there.
    fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.out);
        for folder in &self.above {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Runs a scheduler's program; its answer, or what it said instead.
fn ask(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    let words = [said(&output.stderr), said(&output.stdout)];
    let words: Vec<String> = words.into_iter().filter(|text| !text.is_empty()).collect();
    Err(if words.is_empty() {
        output.status.to_string()
    } else {
        words.join("; ")
    })
}

/// The line that begins a shard or goes on with it.
fn task_line(job: &Job<'_>) -> String {
    let count = job.parts.len();
    let accept = if job.args.same_machine {
        ""
    } else {
        " --accept-changes=machine"
    };
    format!(
        "\"$attn_bench\" run {} --shard auto/{count} --out \"$shard\" --resume --or-begin{accept} --no-figures",
        job.sweep
    )
}

/// What is said of the machine that a shard goes on on.
fn machine_words(job: &Job<'_>) -> &'static str {
    if job.args.same_machine {
        "# A shard that was begun on one kind of machine is not continued on another."
    } else {
        "# A task that starts again may be on another machine: every row says which it was measured on."
    }
}
