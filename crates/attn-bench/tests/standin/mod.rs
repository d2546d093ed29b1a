//! A stand-in for a GPU and its driver; `crates/attn-testkit/standin` says what it is and what it is not.

#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::common::root;

/// Where the stand-in's libraries and its compiled kernels are, built if need be. `None`, and said so, where it cannot
/// be built.
fn folder() -> Option<&'static PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let output = Command::new(root().join("scripts/cuda-standin.sh"))
                .arg(concat!(env!("CARGO_TARGET_TMPDIR"), "/cuda-standin"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => Some(PathBuf::from(
                    String::from_utf8(output.stdout).unwrap().trim_end(),
                )),
                Some(3) => {
                    eprintln!("nothing was run on a stand-in for a GPU: {said}");
                    None
                }
                _ => panic!("{said}"),
            }
        })
        .as_ref()
}

/// What a process has to have in its environment; `None` where it cannot be had.
pub fn variables() -> Option<[(&'static str, OsString); 2]> {
    let folder = folder()?;
    let mut libraries = folder.join("lib").into_os_string();
    if let Some(others) = std::env::var_os("LD_LIBRARY_PATH") {
        libraries.push(":");
        libraries.push(others);
    }
    Some([
        ("LD_LIBRARY_PATH", libraries),
        ("ATTN_KERNEL_CACHE", folder.join("kernels").into_os_string()),
    ])
}

/// The binary where there is a GPU that is none.
pub fn command() -> Option<assert_cmd::Command> {
    let mut command = crate::common::command();
    command.envs(variables()?).env_remove("CUDA_VISIBLE_DEVICES");
    Some(command)
}
