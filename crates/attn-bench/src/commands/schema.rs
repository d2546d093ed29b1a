//! `schema`: the JSON schema of sweep files.

use crate::failure::{Exit, Failure};
use crate::output::print_json;
use crate::registry::{VARIANTS, figure_names};

/// Prints the schema.
pub fn execute() -> Result<Exit, Failure> {
    print_json(&attn_harness::schema::sweep_schema(VARIANTS, &figure_names()))?;
    Ok(Exit::Done)
}
