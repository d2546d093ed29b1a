//! The processor's kernels, on every level that runs here: one program, since each would compile all of them anew.
#![allow(clippy::unwrap_used)] // in helpers too

#[path = "../cases/mod.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;

mod attend;
mod backward;
mod decode;
mod formulas;
#[cfg(unix)]
mod guard;
mod latents;
mod project;
