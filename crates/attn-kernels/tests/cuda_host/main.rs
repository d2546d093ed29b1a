//! The CUDA sources themselves, on the host: operands as a launcher gives them, threads and blocks in random order,
//! copies as late as they may be. Not a GPU, but the same text.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // in helpers too

#[path = "../cases/mod.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod advance;
mod attend;
mod decode;
mod gradients;
mod merge;
mod read_all;
mod update;

use attn_kernels::cuda::{Arch, Machine};

fn machine() -> Machine {
    Machine::usual(Arch::Sm90a)
}
