//! Who used the processors: /proc/stat for the machine, /proc/PID for ours.

use std::fs;
use std::path::Path;
use std::time::Instant;

/// A tick of /proc/stat and /proc/PID/stat: 100 a second, whatever the kernel's own timer does.
pub(super) const TICK_S: f64 = 0.01;

/// Times of all processors together, in seconds since the system began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CpuTimes {
    /// In processes, niced ones and the kernel on their behalf.
    busy_s: f64,
    /// Given to other machines by the hypervisor.
    stolen_s: f64,
    processors: usize,
    at: Instant,
}

impl CpuTimes {
    /// The times now; `None` where the system does not tell.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        let total = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = total
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guest times are part of user and nice.
        let [user, nice, system, _, _, _, _, stolen, ..] = ticks[..] else {
            return None;
        };
        let processors = stat.lines().filter(|line| {
            let number = line.strip_prefix("cpu").and_then(|rest| rest.split(' ').next());
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        });
        Some(Self {
            busy_s: (user + nice + system) as f64 * TICK_S,
            stolen_s: stolen as f64 * TICK_S,
            processors: processors.count().max(1),
            at: Instant::now(),
        })
    }

    /// The parts of the time since `before` that other processes and other machines took, where ours took
    /// `own_s`.
    pub(super) fn since(&self, before: &Self, own_s: f64) -> (f64, f64) {
        let window_s = self.at.duration_since(before.at).as_secs_f64();
        fractions(
            self.busy_s - before.busy_s,
            self.stolen_s - before.stolen_s,
            own_s,
            window_s * self.processors as f64,
        )
    }
}

fn fractions(busy_s: f64, stolen_s: f64, own_s: f64, available_s: f64) -> (f64, f64) {
    let part = |seconds: f64| (seconds / available_s).clamp(0.0, 1.0);
    (part(busy_s - own_s), part(stolen_s))
}

/// Seconds of processor time that this process, its children that ended and the processes used so far. One that is
/// not there used none; a child that ends meanwhile is counted all the same.
pub(super) fn own_s(pids: &[u32]) -> f64 {
    let own = std::process::id();
    let others = pids.iter().filter(|pid| **pid != own);
    let all = others.chain(std::iter::once(&own));
    all.filter_map(|pid| process_s(Path::new(&format!("/proc/{pid}"))))
        .sum::<f64>()
        + ended_children_s().unwrap_or(0.0)
}

/// That of the children of this process that it waited for, with those they waited for.
fn ended_children_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    // The state is field 3, cutime 16 and cstime 17.
    let mut fields = after_name.split_whitespace().skip(13);
    let (user, system) = (fields.next()?, fields.next()?);
    let ticks = user.parse::<u64>().ok()? + system.parse::<u64>().ok()?;
    Some(ticks as f64 * TICK_S)
}

/// The threads' own nanoseconds where the kernel keeps them, else ticks of the whole process. Threads that ended
/// are missing from the former, but the process's ticks have them: the larger is nearer.
fn process_s(folder: &Path) -> Option<f64> {
    let ticks = process_ticks(&fs::read_to_string(folder.join("stat")).ok()?)?;
    let threads = fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    let nanoseconds: u64 = threads
        .filter_map(|thread| run_ns(&fs::read_to_string(thread.path().join("schedstat")).ok()?))
        .sum();
    Some((ticks as f64 * TICK_S).max(nanoseconds as f64 * 1e-9))
}

/// utime and stime of /proc/PID/stat. The name before them may hold blanks and brackets.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    // The state is field 3, utime 14 and stime 15.
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

/// The first number of a thread's schedstat: nanoseconds on a processor.
fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  260652 111447 14333 78114 369 0 85 189 0 0\n\
                        cpu0 129706 52799 6722 43126 116 0 3 83 0 0\n\
                        cpu1 130945 58648 7611 34988 253 0 81 106 0 0\n\
                        intr 1311298 0 0\nctxt 911328\nbtime 1795263171\nprocesses 25972\nprocs_running 6\n";

    #[test]
    fn the_machine_is_read_from_linux() {
        let times = CpuTimes::parse(STAT).unwrap();
        assert_eq!(times.processors, 2);
        assert!((times.busy_s - (260_652 + 111_447 + 14_333) as f64 / 100.0).abs() < 1e-6);
        assert!((times.stolen_s - 1.89).abs() < 1e-9);
        assert_eq!(
            CpuTimes::parse("cpu  1 2 3\n"),
            None,
            "a kernel that tells no steal"
        );
        assert_eq!(CpuTimes::parse(""), None);
    }

    #[test]
    fn a_process_is_read_from_linux_whatever_its_name() {
        let stat = "25972 (cat) R 25966 25966 12661 0 -1 4194304 98 0 0 0 7 5 0 0 20 0 1 0 232903 3133440";
        assert_eq!(process_ticks(stat), Some(12));
        let stat = "4 (a) b) (c) S 1 1 1 0 -1 4194304 98 0 0 0 70 50 1 1 20 0 1 0 232903 3133440";
        assert_eq!(process_ticks(stat), Some(120));
        assert_eq!(process_ticks("4 (cut"), None);
        assert_eq!(run_ns("168281060 13553022 386\n"), Some(168_281_060));
    }

    #[test]
    fn what_is_not_ours_is_the_others() {
        // Two processors for a second: 1.5 s busy, of which ours had 1.2 s; 0.1 s stolen.
        let (other, stolen) = fractions(1.5, 0.1, 1.2, 2.0);
        assert!((other - 0.15).abs() < 1e-12 && (stolen - 0.05).abs() < 1e-12);
        // Ticks are coarser than nanoseconds: less than nothing is nothing.
        assert_eq!(fractions(1.0, 0.0, 1.01, 2.0), (0.0, 0.0));
    }

    #[test]
    fn our_own_work_is_ours() {
        let ours = [std::process::id()];
        let before = own_s(&ours);
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < 0.1 {
            std::hint::black_box(before);
        }
        assert!(own_s(&ours) > before || !cfg!(target_os = "linux"));
        assert_eq!(
            process_s(Path::new("/proc/4294967295")),
            None,
            "a process that is not there"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_work_of_a_child_that_ended_stays_ours() {
        let before = ended_children_s().unwrap();
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", busy]).status();
        assert!(status.unwrap().success());
        let after = ended_children_s().unwrap();
        assert!(after > before, "{before} {after}");
    }
}
