//! Records what the binary is built from and with, for the provenance of every row.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    record("TOOLCHAIN", run(&rustc, &["--version"]));
    record("PROFILE", env::var("PROFILE").ok());
    record("TARGET", env::var("TARGET").ok());
    // A tarball unpacked inside another repository must not take that one's commit.
    let in_git = Path::new("../../.git").exists();
    let git = |args: &[&str]| if in_git { run("git", args) } else { None };
    record("COMMIT", git(&["rev-parse", "HEAD"]));
    let changes = git(&[
        "status",
        "--porcelain",
        "--",
        "../../crates",
        "../../Cargo.toml",
        "../../Cargo.lock",
    ]);
    record("DIRTY", changes.map(|changes| (!changes.is_empty()).to_string()));
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn record(name: &str, value: Option<String>) {
    println!(
        "cargo::rustc-env=ATTN_BENCH_{name}={}",
        value.as_deref().unwrap_or("unknown")
    );
}

/// What a command prints, `None` where it is missing or fails.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
