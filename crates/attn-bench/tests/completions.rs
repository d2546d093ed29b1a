//! What shells complete.
#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod common;

use common::Place;

#[test]
fn completions_name_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Place::with("").prints(&["completions", shell]);
        for command in [
            "run", "plan", "plot", "report", "show", "export", "verify", "list", "doctor", "schema",
        ] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

/// The script in bash itself, which calls the function that it registers.
#[test]
fn bash_completes_commands_and_their_options() {
    let place = Place::with("");
    let script = place.prints(&["completions", "bash"]);
    std::fs::write(place.path().join("completions"), script).unwrap();
    let complete = |words: &[&str]| {
        let line = "source ./completions; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
                    _attn__bench \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[*]}\"";
        let output = std::process::Command::new("bash")
            .args(["--norc", "-c", line, "bash", "attn-bench"])
            .args(words)
            .current_dir(place.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    };
    assert_eq!(complete(&["rep"]), "report");
    assert_eq!(complete(&["work"]), ""); // hidden
    assert_eq!(complete(&["submit", "--a"]), "--array --at-once --account");
}
