//! What a person sees while a sweep runs.
//!
//! The runner talks to an [`Observer`] and does not know whether there is a terminal. All goes to stderr, so
//! that stdout holds results alone.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::row::Row;
use crate::table::{time_cell, workload_title};

/// Told what the runner does. Every method may do nothing.
pub trait Observer: Send {
    /// The sweep starts.
    fn run_started(&mut self, _name: &str, _n_cases: usize) {}

    /// A group starts: its workload point in words, and its cases.
    fn group_started(&mut self, _title: &str, _n_cases: usize) {}

    /// What the group is doing now: `verifying`, `warming`, `measuring`.
    fn phase(&mut self, _words: &str) {}

    /// A case has a row.
    fn case_finished(&mut self, _row: &Row) {}

    /// Something the user should know that stops nothing.
    fn warning(&mut self, _text: &str) {}

    /// The sweep is over, in so many seconds.
    fn run_finished(&mut self, _elapsed_s: f64) {}
}

/// The observer that fits: a bar on a terminal, lines where stderr is a file or a pipe, nothing where asked.
pub fn observer(quiet: bool) -> Box<dyn Observer> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(Silent),
        (false, true) => Box::new(Bar::new()),
        (false, false) => Box::new(Lines::new(std::io::stderr())),
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// One plain line a case: `[12/85] decode B=1 L=512 MLA 131 µs ±1.2 %`.
#[derive(Debug)]
pub struct Lines<W> {
    output: W,
    done: usize,
    total: usize,
}

impl<W: Write + Send> Lines<W> {
    /// Lines into `output`.
    pub fn new(output: W) -> Self {
        Self {
            output,
            done: 0,
            total: 0,
        }
    }

    fn say(&mut self, text: &str) {
        // A closed pipe must not end a run whose results are safe on the disk.
        let _ = writeln!(self.output, "{text}").and_then(|()| self.output.flush());
    }
}

impl<W: Write + Send> Observer for Lines<W> {
    fn run_started(&mut self, name: &str, n_cases: usize) {
        self.total = n_cases;
        self.say(&format!("{name}: {n_cases} cases"));
    }

    fn case_finished(&mut self, row: &Row) {
        self.done += 1;
        let line = format!("[{}/{}] {}", self.done, self.total, case_line(row));
        self.say(&line);
    }

    fn warning(&mut self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    fn run_finished(&mut self, elapsed_s: f64) {
        let line = format!("{} cases in {}", self.done, format_duration(elapsed_s));
        self.say(&line);
    }
}

/// A bar with the group and the time left; cases scroll by above it.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar on stderr; hidden where that is no terminal.
    pub fn new() -> Self {
        Self::with(ProgressBar::no_length())
    }

    fn with(bar: ProgressBar) -> Self {
        // The template is a constant; were it wrong, the plain bar would do.
        let style =
            ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} elapsed, {eta} left  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Bar {
    fn run_started(&mut self, _name: &str, n_cases: usize) {
        self.bar.set_length(n_cases as u64);
        // Slow on purpose: the bar's thread must not disturb what is being timed.
        self.bar.enable_steady_tick(Duration::from_secs(1));
    }

    fn group_started(&mut self, title: &str, _n_cases: usize) {
        self.bar.set_prefix(title.to_string());
        self.bar.set_message(title.to_string());
    }

    fn phase(&mut self, words: &str) {
        self.bar.set_message(format!("{} ({words})", self.bar.prefix()));
    }

    fn case_finished(&mut self, row: &Row) {
        self.bar.println(case_line(row));
        self.bar.inc(1);
    }

    fn warning(&mut self, text: &str) {
        self.bar.println(format!("warning: {text}"));
    }

    fn run_finished(&mut self, elapsed_s: f64) {
        self.bar.finish_and_clear();
        self.bar.println(format!(
            "{} cases in {}",
            self.bar.position(),
            format_duration(elapsed_s)
        ));
    }
}

/// A case in a line: where, who, how fast, or why not.
fn case_line(row: &Row) -> String {
    let mut line = format!("{} {} {}", workload_title(row), row.label, time_cell(row));
    if let (false, Some(reason)) = (row.is_ok(), &row.reason) {
        line.push_str(&format!(": {reason}"));
    } else if let (false, Some(trust)) = (row.is_clean(), row.trust) {
        line.push_str(&format!(" ({trust})"));
    }
    line
}

fn format_duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        seconds if seconds < 3600.0 => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        seconds => format!(
            "{:.0} h {:.0} min",
            (seconds / 3600.0).floor(),
            (seconds % 3600.0) / 60.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Status, Trust};

    fn mla() -> Row {
        Row {
            workload: "decode".into(),
            label: "MLA".into(),
            batch: Some(1),
            context: Some(512),
            status: Status::Ok,
            time_median_s: Some(131e-6),
            time_ci_low_s: Some(129.43e-6),
            time_ci_high_s: Some(132.57e-6),
            ..Row::default()
        }
    }

    #[test]
    fn lines_tell_one_case_each() {
        let mut output = Vec::new();
        let mut lines = Lines::new(&mut output);
        lines.run_started("quick", 3);
        lines.group_started("decode B=1 L=512", 3);
        lines.phase("warming");
        lines.case_finished(&mla());
        lines.case_finished(&Row {
            trust: Some(Trust::Shared),
            ..mla()
        });
        lines.case_finished(&Row {
            status: Status::Oom,
            reason: Some("needs 3 GiB".into()),
            ..mla()
        });
        lines.warning("the machine is busy");
        lines.run_finished(75.04);
        let expected = "\
quick: 3 cases
[1/3] decode B=1 L=512 MLA 131 µs ±1.2 %
[2/3] decode B=1 L=512 MLA 131 µs ±1.2 % (shared)
[3/3] decode B=1 L=512 MLA oom: needs 3 GiB
warning: the machine is busy
3 cases in 1 min 15 s
";
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }

    #[test]
    fn a_bar_counts_cases_without_a_terminal_too() {
        let mut bar = Bar::with(ProgressBar::hidden());
        bar.run_started("quick", 2);
        bar.group_started("decode B=1 L=512", 2);
        bar.phase("warming");
        assert_eq!(bar.bar.message(), "decode B=1 L=512 (warming)");
        bar.case_finished(&mla());
        assert_eq!(bar.bar.position(), 1);
        bar.run_finished(1.0);
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(format_duration(2.5), "2.5 s");
        assert_eq!(format_duration(3725.0), "1 h 2 min");
    }
}
