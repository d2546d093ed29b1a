//! The binary in a folder of its own, with output that does not depend on the terminal.

#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

pub mod markdown;

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// A folder with a sweep in it.
pub struct Place {
    pub folder: TempDir,
}

pub const SWEEP: &str = "\
name: small
question: What is what?
model: {d_model: 64, n_heads: 4}
variants:
  - mha
  - gqa: {n_kv_heads: 2}
  - mtla: {kv_rank: 32, rope_dim: 8, stride: [2, 3]}
workloads:
  - decode: {context: [64, 256], batch: 2}
  - prefill: {tokens: 64}
measure: {warmup_ms: 50, max_s: 1}
";

impl Place {
    /// With `text` as `sweep.yaml`.
    pub fn with(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("sweep.yaml"), text).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn run(&self, args: &[&str]) -> Output {
        command().current_dir(self.path()).args(args).output().unwrap()
    }

    /// Exit code and standard error.
    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(
            output.stdout.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        (output.status.code().unwrap(), trimmed(&output.stderr))
    }

    /// Standard output of a command that must succeed.
    pub fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        trimmed(&output.stdout)
    }
}

pub fn command() -> Command {
    let mut command = Command::cargo_bin("attn-bench").unwrap();
    command
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm")
        .env("COLUMNS", "100");
    command
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn trimmed(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
