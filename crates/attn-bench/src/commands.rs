//! One module a command. Each takes its arguments and says how it ended.

pub mod capacity;
pub mod compare;
pub mod completions;
pub mod doctor;
pub mod export;
pub mod list;
pub mod man;
pub mod plan;
pub mod plot;
pub mod run;
pub mod schema;
pub mod show;
pub mod verify;
pub mod worker;

mod runs;
