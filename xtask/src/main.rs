//! Chores of the project.

mod new_variant;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of attn-bench
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo run -p xtask --")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Make the crate of a new attention variant, and register it
    #[command(after_help = "\
Examples:
  cargo run -p xtask -- new-variant toy        crates/attn-toy, which compiles, and tests that say what is missing

The sixth step of CONTRIBUTING.md, the registry, is done with it.")]
    NewVariant {
        /// Its key in sweeps and rows: lower case letters and digits
        name: String,
    },
}

fn main() -> ExitCode {
    let Chore::NewVariant { name } = Cli::parse().chore;
    // The manifest's folder is that of this crate, in the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match new_variant::create(&root, &name) {
        Ok(next) => {
            println!("{next}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
