//! Sweep files, plans, the runner, statistics and the result store.

pub mod ceilings;
pub mod columns;
pub mod compare;
pub mod conditions;
pub mod device;
pub mod digest;
pub mod doctor;
pub mod environment;
pub mod error;
pub mod flush;
pub mod locate;
pub mod memory;
pub mod nvml;
pub mod plan;
pub mod predicted;
pub mod progress;
pub mod row;
pub mod run;
pub mod schema;
pub mod stats;
pub mod status;
pub mod store;
pub mod sweep;
pub mod table;
pub mod trust;
pub mod units;
pub mod worker;

pub use error::{BadSweep, Error, Label, Problem};
pub use plan::{Case, Plan};
pub use sweep::{DeviceRequest, Dtype, Override, Sweep, SweepFile};
