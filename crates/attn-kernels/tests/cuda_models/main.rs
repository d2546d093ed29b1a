//! Models of the CUDA kernels against the formulas. They share the kernels' plans and say nothing of speed.
#![allow(clippy::unwrap_used)] // in helpers too

#[path = "../cases/mod.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../models/mod.rs"]
mod models;

mod attend;
mod decode;
mod merge;
mod refused;
mod update;
