//! `completions`: what a shell needs to complete our command line.

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::{Cli, CompletionsArgs};
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Prints the shell's script.
pub fn execute(args: &CompletionsArgs) -> Result<Exit, Failure> {
    // Into memory first: the generator panics where its output is closed early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "attn-bench", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        // Its branches have another name for the program than what chooses among them (clap issue 6421).
        script = script.replace("attn__subcmd__bench", "attn__bench");
    }
    print(&script)?;
    Ok(Exit::Done)
}

/// The command line without what is hidden, which clap_complete would offer.
fn shown() -> Command {
    let all = Cli::command();
    let mut shown = Command::new("attn-bench").version(env!("CARGO_PKG_VERSION"));
    for arg in all.get_arguments() {
        shown = shown.arg(arg.clone());
    }
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set());
    shown.subcommands(commands.cloned())
}
