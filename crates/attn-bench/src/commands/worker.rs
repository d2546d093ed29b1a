//! `worker`: the process in which cases run.

use crate::cli::WorkerArgs;
use crate::failure::{Exit, Failure};
use crate::registry::VARIANTS;

/// Serves a runner until it is gone.
pub fn execute(args: &WorkerArgs) -> Result<Exit, Failure> {
    attn_harness::worker::serve(VARIANTS, &args.slate, args.runner).map_err(Failure::machine)?;
    Ok(Exit::Done)
}
