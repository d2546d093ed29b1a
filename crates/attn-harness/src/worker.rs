//! Workers: the same executable started again, so that nothing that happens to a case reaches the runner.
//!
//! The runner speaks and the worker answers, a line of JSON each ([`Request`], [`Reply`]). A worker serves one group
//! of comparable cases; after any failure a fresh one takes over. It ends when its runner does: its standard input is
//! then closed, and on Linux the kernel kills it even before it looks.

pub(crate) mod job;
mod plant;
mod process;
mod protocol;
mod serve;
mod share;
pub(crate) mod slate;
pub(crate) mod train;

pub use job::JobSpec;
pub use plant::{Fault, PLANT, Plants};
pub use process::Executable;
pub use protocol::{
    Built, CaseMeasured, Ended, Hired, Memory, PROTOCOL, Received, Reply, Request, Settings, Verdict, Worker,
    Workshop,
};
pub use serve::serve;
pub use share::Share;
pub(crate) use share::thread_count;
pub use slate::{Note, Phase};
pub use train::{Progress, Trained, TrainingJob};
