//! HyperQueue: one job, whose tasks are the shards and a merge that depends on them.
//!
//! HyperQueue itself runs the tasks in `scripts/cluster/hyperqueue_test.py`; how its command reads the definition was tested
//! against a stand-in only, which records what it is called with.

use std::path::Path;
use std::process::Command;

use attn_harness::store::Submission;

use super::{Job, Script, Submitted, ask, machine_words, task_line};
use crate::failure::Failure;
use crate::shell::quote;

const JOB: &str = "job.toml";
const TASK: &str = "task.sh";
const MERGE: &str = "merge.sh";

/// The job's definition and what its tasks run.
pub fn scripts(job: &Job<'_>) -> Result<Vec<Script>, Failure> {
    Ok(vec![
        Script {
            name: JOB,
            text: definition(job)?,
        },
        Script {
            name: TASK,
            text: task(job),
        },
        Script {
            name: MERGE,
            text: merge(job),
        },
    ])
}

fn definition(job: &Job<'_>) -> Result<String, Failure> {
    let (args, count) = (job.args, job.parts.len());
    let mut resources = vec![("cpus".to_string(), args.cpus_per_task.unwrap_or(1))];
    for gres in args.gres.iter().flat_map(|gres| gres.split(',')) {
        let (name, count) = resource(gres)?;
        // TOML has every key once.
        if resources.iter().any(|(other, _)| *other == name) {
            let reason = format!("{name} is asked for twice");
            return Err(attn_harness::Error::option(
                format!("--gres {gres}"),
                reason,
                "for example gpu:2; processors are --cpus-per-task",
            )
            .into());
        }
        resources.push((name, count));
    }
    let resources: Vec<String> = resources
        .iter()
        .map(|(name, count)| format!("{} = {count}", string(name)))
        .collect();
    let mut text = format!(
        "# Sweep {} in {count} shards, one a task, and task {} that merges them. Written by:\n#   {}\n\
         # How hq reads this file was tested against a stand-in only.\nname = {}\n",
        job.name,
        count + 1,
        job.command.replace(char::is_control, " "),
        string(&format!("attn-{}", job.name))
    );
    let limit = match &args.time {
        None => None,
        Some(time) => Some(format!("time_limit = \"{}s\"\n", limit_s(time)?)),
    };
    for id in 1..=count {
        text += &format!(
            "\n[[task]]\nid = {id}\ncommand = [\"bash\", {}]\n{}{}[[task.request]]\nresources = {{ {} }}\n",
            string(&format!("{}/{TASK}", job.run)),
            output(job, &id.to_string()),
            limit.as_deref().unwrap_or_default(),
            resources.join(", ")
        );
    }
    let shards: Vec<String> = (1..=count).map(|id| id.to_string()).collect();
    text += &format!(
        "\n[[task]]\nid = {}\ncommand = [\"bash\", {}]\n{}deps = [{}]\n",
        count + 1,
        string(&format!("{}/{MERGE}", job.run)),
        output(job, "merge"),
        shards.join(", ")
    );
    Ok(text)
}

fn output(job: &Job<'_>, name: &str) -> String {
    let file = |kind| string(&format!("{}/output/{name}.{kind}", job.run));
    format!("stdout = {}\nstderr = {}\n", file("out"), file("err"))
}

fn task(job: &Job<'_>) -> String {
    format!(
        r#"#!/usr/bin/env bash
# A shard of sweep {name}: the task of HyperQueue says which. A task whose worker is lost is started again by HyperQueue.
attn_bench={program}
run={run}
shard=$run/shards/$HQ_TASK_ID

# Begins the shard or goes on with it: a case that has a row is not run again.
{machine}
{line}
code=$?
if [[ $code -eq 3 ]]; then
    echo "some cases failed, their rows say why; the task itself is done"
    code=0
fi
exit "$code"
"#,
        name = job.name,
        program = quote(&job.program),
        run = quote(&job.run),
        machine = machine_words(job),
        line = task_line(job)
    )
}

fn merge(job: &Job<'_>) -> String {
    format!(
        "#!/usr/bin/env bash\n# Joins the shards once all of them are done; HyperQueue cancels it where one failed, and it can be run by hand.\n\
         # Exits with 3 where cases are missing.\n\
         run={run}\nexec {program} merge \"$run\" --out \"$run\"/merged\n",
        run = quote(&job.run),
        program = quote(&job.program)
    )
}

/// `gpu:2` or `gpu:h100:2` as HyperQueue counts them, which knows GPUs by their maker.
fn resource(gres: &str) -> Result<(String, u32), Failure> {
    let mut parts = gres.split(':');
    let name = parts.next().unwrap_or_default();
    let count = match parts.next_back() {
        None => Some(1),
        Some(count) => count.parse::<u32>().ok(),
    };
    let (Some(count @ 1..), false) = (count, name.is_empty()) else {
        return Err(attn_harness::Error::option(
            format!("--gres {gres}"),
            "this names no resource and how many of it",
            "for example gpu:1",
        )
        .into());
    };
    let name = if name == "gpu" { "gpus/nvidia" } else { name };
    Ok((name.to_string(), count))
}

/// Seconds of a limit in Slurm's words, of which HyperQueue knows none: `90` minutes, `90:00`, `1:30:00`, `1-12`, `1-12:30`
/// or `1-12:30:00`.
fn limit_s(time: &str) -> Result<u64, Failure> {
    let (days, rest) = match time.split_once('-') {
        Some((days, rest)) => (Some(days), rest),
        None => (None, time),
    };
    let parts: Option<Vec<u64>> = days
        .into_iter()
        .chain(rest.split(':'))
        .map(|part| part.parse().ok().filter(|n| *n < 1_000_000))
        .collect();
    let units: &[u64] = match (days.is_some(), rest.split(':').count()) {
        (false, 1) => &[60],
        (false, 2) => &[60, 1],
        (false, 3) => &[3600, 60, 1],
        (true, 1) => &[86_400, 3600],
        (true, 2) => &[86_400, 3600, 60],
        (true, 3) => &[86_400, 3600, 60, 1],
        _ => &[],
    };
    let limit_s = match parts {
        Some(parts) if !units.is_empty() => parts.iter().zip(units).map(|(n, unit)| n * unit).sum(),
        _ => 0,
    };
    if limit_s == 0 {
        return Err(attn_harness::Error::option(
            format!("--time {time}"),
            "this is no time limit",
            "for example 90 (minutes), 02:00:00 or 1-12:00:00",
        )
        .into());
    }
    Ok(limit_s)
}

/// A string of TOML.
fn string(text: &str) -> String {
    let mut string = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => string.extend(['\\', c]),
            c if c.is_control() => string += &format!("\\u{:04X}", u32::from(c)),
            c => string.push(c),
        }
    }
    string.push('"');
    string
}

/// Submits the job; `run` is from the root.
pub fn submit(run: &Path) -> Result<Submitted, String> {
    let answer = ask(Command::new("hq")
        .args(["--output-mode", "quiet", "job", "submit-file"])
        .arg(run.join(JOB)))?;
    let number = answer.split_whitespace().next_back().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("it answered `{answer}` and no number of a job"));
    }
    Ok(Submitted {
        job: number.to_string(),
        merge_job: None,
        failed: None,
    })
}

/// How to follow it.
pub fn follow(submission: &Submission, out: &Path) -> String {
    let dir = quote(&out.to_string_lossy());
    let job = submission.job.as_deref().unwrap_or_default();
    format!(
        "submitted: job {job}, its last task merges unless a shard fails\nfollow:    attn-bench status {dir}\n           hq task list {job}\n\
         output:    {dir}/output\ncancel:    hq job cancel {job}\nresult:    {dir}/merged\n"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_slurm_reads_them() {
        for (time, expected_s) in [
            ("90", 5400),
            ("90:30", 5430),
            ("02:00:00", 7200),
            ("1-12", 129_600),
            ("1-12:30", 131_400),
            ("0-00:00:01", 1),
        ] {
            assert_eq!(limit_s(time).unwrap(), expected_s, "{time}");
        }
        for time in [
            "",
            "0",
            "1h",
            "1:2:3:4",
            "1-",
            "-1",
            "1-2-3",
            "99999999999999999999",
        ] {
            assert!(limit_s(time).is_err(), "{time}");
        }
    }
}
