//! The attn-bench binary: parse, dispatch, print the error once, exit.

mod cli;
mod commands;
mod failure;
mod output;
mod registry;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::failure::{Exit, Failure};

/// Peak memory is a column of every row: the allocator counts.
#[global_allocator]
static ALLOCATOR: attn_harness::memory::CountingAllocator = attn_harness::memory::CountingAllocator;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Run(args) => commands::run::execute(&args),
        Command::Plan(args) => commands::plan::execute(&args),
        Command::Capacity(args) => commands::capacity::execute(&args),
        Command::Plot(args) => commands::plot::execute(&args),
        Command::Show(args) => commands::show::execute(&args),
        Command::Export(args) => commands::export::execute(&args),
        Command::Compare(args) => commands::compare::execute(&args),
        Command::Verify(args) => commands::verify::execute(&args),
        Command::List(args) => commands::list::execute(&args),
        Command::Doctor(args) => commands::doctor::execute(&args),
        Command::Schema => commands::schema::execute(),
        Command::Completions(args) => commands::completions::execute(&args),
        Command::Man(args) => commands::man::execute(&args),
        Command::Worker(args) => commands::worker::execute(&args),
    }
}
