//! A worker as a process, from the runner's side.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::protocol::{Ended, Hired, PROTOCOL, Received, Reply, Request, Settings, Worker, Workshop};
use super::share::{Share, THREADS};
use super::slate::{Note, Slate};
use crate::conditions::oom_kills;
use crate::environment::Build;

/// Bytes of standard error that are kept.
const LAST_WORDS: usize = 4096;
/// How long a worker may take to start.
const START: Duration = Duration::from_secs(60);

/// An executable of attn-bench that is started with `worker` for every worker.
#[derive(Debug, Clone)]
pub struct Executable {
    /// Its path.
    pub path: PathBuf,
    /// What its workers are told first.
    pub settings: Settings,
}

impl Executable {
    /// This very executable.
    ///
    /// # Errors
    /// The system's, where it does not say which that is.
    pub fn this(settings: Settings) -> io::Result<Self> {
        let path = std::env::current_exe()?;
        Ok(Self { path, settings })
    }

    /// What build it is, by its own account.
    ///
    /// # Errors
    /// The system's, and where it is no attn-bench that this one can talk to.
    pub fn build(&mut self) -> io::Result<Build> {
        let mut worker = self.hire(Share::default())?;
        worker.send(&Request::Describe);
        match worker.receive(START) {
            Received::Reply(reply) => match *reply {
                Reply::Build(build) => Ok(build),
                other => Err(io::Error::other(format!(
                    "it said {other:?} when asked what it is"
                ))),
            },
            Received::Nothing => Err(io::Error::other("it does not say what it is")),
            Received::Ended(ended) => Err(io::Error::other(ended.describe())),
        }
    }
}

impl Workshop for Executable {
    fn hire(&mut self, share: Share) -> io::Result<Hired> {
        let mut process = Process::start(self, share)?;
        let settings = Settings {
            share,
            ..self.settings.clone()
        };
        process.send(&Request::Settings(settings));
        let wrong = |text: String| {
            Err(io::Error::other(format!(
                "a worker of {} {text}",
                self.path.display()
            )))
        };
        match process.receive(START) {
            Received::Reply(reply) => match *reply {
                Reply::Ready { protocol } if protocol == PROTOCOL => Ok(Box::new(process)),
                Reply::Ready { protocol } => wrong(format!(
                    "speaks version {protocol}, this build {PROTOCOL}: build both from near commits"
                )),
                other => wrong(format!("said {other:?} before it was ready")),
            },
            Received::Nothing => wrong(format!("said nothing in {} s", START.as_secs())),
            Received::Ended(ended) => wrong(format!("ended at once: {}", ended.describe())),
        }
    }
}

impl Ended {
    /// In words: `killed by signal 11 (segmentation fault)`, then its last words.
    pub fn describe(&self) -> String {
        let how = match (self.signal, self.code) {
            (Some(signal), _) => format!("ended by signal {signal}{}", signal_name(signal)),
            (None, Some(code)) => format!("exited with code {code}"),
            (None, None) => "ended".to_string(),
        };
        match self.last_words.trim() {
            "" => how,
            words => format!("{how}: {words}"),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        8 => " (arithmetic fault)",
        9 => " (killed)",
        11 => " (segmentation fault)",
        15 => " (terminated)",
        _ => "",
    }
}

struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<Reply>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    slate: Slate,
    oom_kills: Option<u64>,
    killed: bool,
}

impl Process {
    fn start(executable: &Executable, share: Share) -> io::Result<Self> {
        let slate = Slate::new()?;
        let mut command = Command::new(&executable.path);
        command
            .arg("worker")
            .arg(slate.path())
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // candle has a thread for every core there is, whatever part of them a process may use.
        if share.of > 1 && std::env::var_os(THREADS).is_none() {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            command.env(THREADS, share.part(processors).len().to_string());
        }
        // Ctrl-C in a terminal is for the runner alone.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (sender, replies) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // What cannot be read is no reply; its absence ends the worker in time.
                    let Ok(reply) = serde_json::from_str(&line) else {
                        break;
                    };
                    if sender.send(reply).is_err() {
                        break;
                    }
                }
            });
        }
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let last_words = last_words.clone();
            thread::spawn(move || {
                let mut chunk = [0; 1024];
                while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                    let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
                    words.extend(&chunk[..n]);
                    let excess = words.len().saturating_sub(LAST_WORDS);
                    words.drain(..excess);
                }
            });
        }
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            replies,
            last_words,
            slate,
            oom_kills: oom_kills(),
            killed: false,
        })
    }

    /// The end of a worker whose standard output is closed.
    fn bury(&mut self) -> Ended {
        // It may have closed its output and live on: it is of no use.
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if began.elapsed() < Duration::from_secs(2) => {
                    thread::sleep(Duration::from_millis(1))
                }
                Ok(None) => {
                    self.kill();
                }
                Ok(Some(status)) => break Some(status),
                Err(_) => break None,
            }
        };
        // The thread that listens to standard error may still be reading.
        thread::sleep(Duration::from_millis(5));
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let last_words =
            String::from_utf8_lossy(words.iter().copied().collect::<Vec<_>>().as_slice()).into_owned();
        #[cfg(unix)]
        let signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
        #[cfg(not(unix))]
        let signal = None;
        Ended {
            code: status.and_then(|status| status.code()),
            signal,
            by_oom_killer: signal == Some(9) && !self.killed && oom_kills() > self.oom_kills,
            last_words,
        }
    }
}

impl Worker for Process {
    fn send(&mut self, request: &Request) {
        let Some(stdin) = &mut self.stdin else { return };
        // Requests are plain data, so writing them as JSON cannot fail; a worker that died is found by `receive`.
        let line = serde_json::to_string(request).unwrap_or_default();
        let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
    }

    fn receive(&mut self, patience: Duration) -> Received {
        match self.replies.recv_timeout(patience) {
            Ok(reply) => Received::Reply(Box::new(reply)),
            Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Ended(self.bury()),
        }
    }

    fn note(&self) -> Note {
        self.slate.read()
    }

    fn kill(&mut self) {
        self.killed = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        self.kill();
    }
}
