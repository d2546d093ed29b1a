//! Slurm: an array, and a job that depends on it.

use std::path::Path;
use std::process::Command;

use attn_harness::store::Submission;

use super::{Job, Script, Submitted, ask, machine_words, task_line};
use crate::shell::quote;

const ARRAY: &str = "array.sbatch";
const MERGE: &str = "merge.sbatch";

/// Both scripts.
pub fn scripts(job: &Job<'_>) -> Vec<Script> {
    vec![
        Script {
            name: ARRAY,
            text: array(job),
        },
        Script {
            name: MERGE,
            text: merge(job),
        },
    ]
}

fn array(job: &Job<'_>) -> String {
    let (args, count) = (job.args, job.parts.len());
    let at_once = args.at_once.map_or(String::new(), |n| format!("%{n}"));
    let mut head = format!(
        "#!/usr/bin/env bash\n\
         # Sweep {name} in {count} shards, one a task of this array. Written by:\n\
         #   {command}\n\
         # To run some tasks again: sbatch --array=3,7 {script}\n\
         #SBATCH --job-name={word}\n\
         #SBATCH --array=1-{count}{at_once}\n\
         #SBATCH --chdir={run}\n\
         #SBATCH --output=output/%A_%a.out\n\
         # A task that starts again goes on with its shard, and with its output.\n\
         #SBATCH --requeue\n\
         #SBATCH --open-mode=append\n\
         # A minute before its time limit a task is told to store what it has.\n\
         #SBATCH --signal=B:INT@60\n",
        name = job.name,
        command = one_line(&job.command),
        script = quote(&format!("{}/{ARRAY}", job.run)),
        word = word(&format!("attn-{}", job.name)),
        run = word(&job.run),
    );
    let resources = [
        ("gres", args.gres.clone()),
        ("time", args.time.clone()),
        ("cpus-per-task", args.cpus_per_task.map(|n| n.to_string())),
        ("mem", args.mem.clone()),
    ];
    for (name, value) in resources {
        if let Some(value) = value {
            head += &format!("#SBATCH --{name}={}\n", word(&value));
        }
    }
    head += &both(job);
    head + &format!(
        r#"
attn_bench={program}
run={run}
shard=$run/shards/$SLURM_ARRAY_TASK_ID

rows() {{ if [[ -e $shard/log.jsonl ]]; then wc -l <"$shard/log.jsonl"; else echo 0; fi; }}
rows_before=$(rows)
echo "$(date -u +%FT%TZ) task $SLURM_ARRAY_TASK_ID of job $SLURM_ARRAY_JOB_ID on $(hostname): start ${{SLURM_RESTART_COUNT:-0}}, $rows_before rows stored"

# Begins the shard or goes on with it: a case that has a row is not run again.
{machine}
{line} &
runner=$! is_told=
trap 'is_told=1; kill -INT "$runner"' INT
while
    wait "$runner"
    code=$?
    kill -0 "$runner" 2>/dev/null
do :; done

case $code in
0) ;;
3) echo "some cases failed, their rows say why; the task itself is done" && code=0 ;;
130)
    # The time limit is near. What is left is for another start, unless this one got nowhere.
    if [[ -n $is_told && $(rows) -gt $rows_before ]]; then
        echo "requeued at the time limit, $(rows) rows stored"
        scontrol requeue "$SLURM_JOB_ID" && sleep 120
    elif [[ -n $is_told ]]; then
        echo "no case was done within the time limit: submit with a longer --time" >&2
    fi
    ;;
esac
exit "$code"
"#,
        program = quote(&job.program),
        run = quote(&job.run),
        machine = machine_words(job),
        line = task_line(job),
    )
}

fn merge(job: &Job<'_>) -> String {
    let head = format!(
        "#!/usr/bin/env bash\n\
         # Joins the shards once every task of the array has ended, whatever became of it; what is missing is said.\n\
         # Submitted with --dependency=afterany:JOB. Exits with 3 where cases are missing.\n\
         #SBATCH --job-name={word}\n\
         #SBATCH --chdir={run}\n\
         #SBATCH --output=output/merge-%j.out\n\
         #SBATCH --requeue\n\
         #SBATCH --open-mode=append\n",
        word = word(&format!("attn-{}-merge", job.name)),
        run = word(&job.run),
    );
    head + &both(job)
        + &format!(
            "\nrun={run}\nexec {program} merge \"$run\" --out \"$run\"/merged\n",
            run = quote(&job.run),
            program = quote(&job.program)
        )
}

/// Options of both jobs.
fn both(job: &Job<'_>) -> String {
    let args = job.args;
    let mut text = String::new();
    for (name, value) in [("partition", &args.partition), ("account", &args.account)] {
        if let Some(value) = value {
            text += &format!("#SBATCH --{name}={}\n", word(value));
        }
    }
    for option in &args.sbatch_option {
        // `--exclusive`, `--constraint=h100`, or `-C h100`.
        let (name, value) = match option.split_once(['=', ' ']) {
            Some((name, value)) if option.as_bytes().get(name.len()) == Some(&b'=') => {
                (format!("{name}="), value)
            }
            Some((name, value)) => (format!("{name} "), value),
            None => (option.clone(), ""),
        };
        text += &format!("#SBATCH {name}{}\n", word(value));
    }
    text
}

/// A word of a line `#SBATCH`. Spaces need quotes there, and quotes within them a backslash.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,%+@".contains(c) || !c.is_ascii();
    if text.chars().all(is_plain) {
        return text.to_string();
    }
    let mut word = String::from("\"");
    for c in text.chars() {
        if "\"'\\#".contains(c) {
            word.push('\\');
        }
        word.push(c);
    }
    word + "\""
}

fn one_line(command: &str) -> String {
    command.replace(['\n', '\r'], " ")
}

/// Submits both; `run` is from the root.
pub fn submit(run: &Path) -> Result<Submitted, String> {
    let job = number(&ask(Command::new("sbatch")
        .arg("--parsable")
        .arg(run.join(ARRAY)))?)?;
    let merge = ask(Command::new("sbatch")
        .arg("--parsable")
        .arg(format!("--dependency=afterany:{job}"))
        .arg(run.join(MERGE)));
    let merge = merge.and_then(|answer| number(&answer));
    Ok(Submitted {
        job,
        failed: merge.as_ref().err().cloned(),
        merge_job: merge.ok(),
    })
}

/// `12`, or `12;cluster`; warnings may stand before it.
fn number(answer: &str) -> Result<String, String> {
    let last = answer.lines().next_back().unwrap_or_default();
    let number = last.split(';').next().unwrap_or_default().trim();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(number.to_string())
    } else {
        Err(format!("it answered `{answer}` and no number of a job"))
    }
}

/// How to follow it.
pub fn follow(submission: &Submission, out: &Path) -> String {
    let dir = quote(&out.to_string_lossy());
    let job = submission.job.as_deref().unwrap_or_default();
    let jobs: Vec<&str> = [Some(job), submission.merge_job.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let mut text = format!("submitted: job {job}");
    if let Some(merge) = &submission.merge_job {
        text += &format!(", and job {merge} that merges");
    }
    text + &format!(
        "\nfollow:    attn-bench status {dir}\n           squeue --jobs {}\noutput:    {dir}/output\n\
         cancel:    scancel {}\nresult:    {dir}/merged\n",
        jobs.join(","),
        jobs.join(" ")
    )
}
