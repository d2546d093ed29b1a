//! How a command ends, and how an error is shown: once, with its place in the file where it has one.

use std::error::Error as StdError;
use std::fmt;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use attn_harness::{BadSweep, Problem};
use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, NamedSource, Report, SourceCode};

/// How a command ended that was able to do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "every exit code of the design has its name, used or not")]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A check failed.
    CheckFailed = 1,
    /// Bad input: nothing was done.
    BadInput = 2,
    /// Some cases failed.
    CasesFailed = 3,
    /// The machine failed the run.
    MachineFailed = 4,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// A sweep or an option beside it.
    Harness(attn_harness::Error),
    /// Other input.
    Input(Box<dyn StdError + Send + Sync>),
    /// The machine: disk full, no worker.
    #[allow(dead_code, reason = "for commands that run or write")]
    Machine(Box<dyn StdError + Send + Sync>),
    /// Whoever read our output has read enough (`| head`): nothing to say, and nothing went wrong.
    ClosedPipe,
}

impl From<attn_harness::Error> for Failure {
    fn from(error: attn_harness::Error) -> Self {
        Self::Harness(error)
    }
}

impl Failure {
    /// Bad input.
    pub fn input(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Input(error.into())
    }

    /// The machine's fault.
    #[allow(dead_code, reason = "for commands that run or write")]
    pub fn machine(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Machine(error.into())
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Harness(_) | Self::Input(_) => Exit::BadInput,
            Self::Machine(_) => Exit::MachineFailed,
            Self::ClosedPipe => Exit::Done,
        }
    }

    /// Writes it to standard error.
    pub fn print(&self) {
        // Whoever reads a log or searches it wants whole lines; only a terminal has a width.
        if !std::io::stderr().is_terminal() {
            // It can only be set once, and this is the one place that does.
            let _ = miette::set_hook(Box::new(|_| {
                Box::new(MietteHandlerOpts::new().wrap_lines(false).build())
            }));
        }
        match self {
            Self::Harness(attn_harness::Error::Sweep(bad)) => print_sweep(bad),
            Self::Harness(error) => {
                print_plain(error, error.help());
            }
            Self::Input(error) | Self::Machine(error) => print_plain(error.as_ref(), None),
            Self::ClosedPipe => {}
        }
    }
}

fn print_plain(error: &dyn StdError, help: Option<String>) {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some texts hold their cause already.
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    show(Shown {
        message,
        source: None,
        labels: Vec::new(),
        help,
    });
}

fn print_sweep(bad: &BadSweep) {
    for problem in &bad.problems {
        let labels = problem.labels.iter();
        let labels =
            labels.map(|label| LabeledSpan::new_with_span(Some(label.text.clone()), label.span.clone()));
        let name = bad.path.display().to_string();
        show(Shown {
            message: header(bad, problem),
            source: Some(NamedSource::new(name, bad.source_text.clone())),
            labels: labels.collect(),
            help: problem.help.clone(),
        });
    }
    if bad.problems.len() > 1 {
        eprintln_quietly(&format!(
            "{} problems in {}",
            bad.problems.len(),
            bad.path.display()
        ));
    }
}

/// The message, with the file where no label names it.
fn header(bad: &BadSweep, problem: &Problem) -> String {
    let message = problem.full_message();
    if problem.labels.is_empty() {
        format!("{}: {message}", bad.path.display())
    } else {
        message
    }
}

fn show(shown: Shown) {
    eprintln_quietly(&format!("{:?}", Report::new(shown)));
}

/// Standard error may be closed too; there is no one left to tell.
fn eprintln_quietly(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error as miette wants it.
#[derive(Debug)]
struct Shown {
    message: String,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Shown {}

impl Diagnostic for Shown {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty())
            .then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = _>>)
    }
}
