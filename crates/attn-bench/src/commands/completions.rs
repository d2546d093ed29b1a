//! `completions`: what a shell needs to complete our command line.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Prints the shell's script.
pub fn execute(args: &CompletionsArgs) -> Result<Exit, Failure> {
    // Into memory first: the generator panics where its output is closed early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "attn-bench", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
