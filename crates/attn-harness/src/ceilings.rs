//! What the machine, or a GPU of it, can do here and now: the ceilings that times are held against.
//!
//! They are measured, not read off a datasheet: a share of a virtual machine has a share of its host's memory,
//! and its clock is whatever the host leaves. The best of several passes counts, because a ceiling is what the
//! machine can do and not what it did while something else ran.

mod bandwidth;
mod compute;
#[cfg(feature = "cuda")]
mod gpu;

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::row::Row;
use crate::sweep::Dtype;

pub(crate) use self::bandwidth::allocate;
#[cfg(feature = "cuda")]
pub(crate) use self::gpu::reader;

/// Passes over memory; a matrix product is repeated at least as often.
pub const PASSES: usize = 5;

/// No buffer is larger: ten times the caches that virtual machines report would not fit their memory.
pub const BUFFER_LIMIT_BYTES: u64 = 1 << 30;

/// The buffer where nobody knows how large the caches are: more than most have.
const BUFFER_BYTES_UNKNOWN: u64 = 256 << 20;

/// No buffer is smaller: a pass must take longer than waking the threads.
const BUFFER_BYTES_MIN: u64 = 4 << 20;

/// What a device reached, at its best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Size of the last-level cache, of a GPU its L2, that the buffer was chosen by; `None` where it is not known.
    pub llc_bytes: Option<u64>,
    /// Size of the buffer.
    pub buffer_bytes: u64,
    /// Bytes per second that all threads read from the device's memory.
    pub read_bytes_per_s: f64,
    /// Bytes per second read and written together while one half of the buffer is copied to the other: a copy of n
    /// bytes counts 2 n. On a GPU the driver copies.
    pub copy_bytes_per_s: f64,
    /// Operations per second of a matrix product, by element type.
    pub flops_per_s: BTreeMap<String, f64>,
    /// Median time in which all threads take up empty work and report back, in seconds; on a GPU from launching a
    /// kernel that does next to nothing until the host knows that it is done.
    pub launch_overhead_s: f64,
    /// Passes over the buffer, the best of which counts.
    pub passes: usize,
    /// Threads; multiprocessors of a GPU.
    pub threads: usize,
    /// Time that measuring took, in seconds.
    pub elapsed_s: f64,
}

impl Ceilings {
    /// [`measure`](Self::measure) on a device; of a GPU with its own clock, in a second or two for each dtype.
    ///
    /// # Errors
    /// The reason, with its remedy where there is one.
    pub fn measure_on(device: &Device, dtypes: &[Dtype], llc_bytes: Option<u64>) -> Result<Self, String> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => gpu::measure(device, dtypes, llc_bytes),
            _ => Self::measure(dtypes, llc_bytes),
        }
    }

    /// Measures bandwidth, the matrix product in each of `dtypes`, and the cost of handing out work. Takes a few
    /// seconds, most of them for touching and reading a buffer of ten last-level caches, at most 1 GiB.
    ///
    /// # Errors
    /// The reason, with its remedy, where there is no memory for the buffer or no matrix product in a type.
    pub fn measure(dtypes: &[Dtype], llc_bytes: Option<u64>) -> Result<Self, String> {
        let began = Instant::now();
        let buffer_bytes = buffer_bytes(llc_bytes);
        let bandwidth = bandwidth::measure(buffer_bytes, PASSES)?;
        let mut flops_per_s = BTreeMap::new();
        for dtype in dtypes {
            let rate = compute::matmul_flops_per_s(*dtype, PASSES)
                .map_err(|error| format!("no matrix product in {dtype}: {error}"))?;
            flops_per_s.insert(dtype.to_string(), rate);
        }
        Ok(Self {
            llc_bytes,
            buffer_bytes,
            read_bytes_per_s: bandwidth.read_bytes_per_s,
            copy_bytes_per_s: bandwidth.copy_bytes_per_s,
            flops_per_s,
            launch_overhead_s: compute::launch_overhead_s(),
            passes: PASSES,
            threads: rayon::current_num_threads(),
            elapsed_s: began.elapsed().as_secs_f64(),
        })
    }

    /// Fills the columns of the ceilings and, where the row has a time, how far it is from them.
    ///
    /// Reading bounds a row's bytes: attention reads a cache and writes next to nothing.
    pub fn describe(&self, row: &mut Row) {
        row.llc_bytes = self.llc_bytes;
        row.launch_overhead_s = Some(self.launch_overhead_s);
        row.ceiling_bytes_per_s = Some(self.read_bytes_per_s);
        let dtype = row.dtype_resolved.as_ref().unwrap_or(&row.dtype_requested);
        row.ceiling_flops_per_s = self.flops_per_s.get(dtype).copied();
        if row.ceiling_flops_per_s.is_none() {
            let reason = format!("not measured: no matrix product was timed in {dtype}");
            row.explain_null("ceiling_flops_per_s", reason);
        }
        let (Some(bytes_moved), Some(flops), Some(flops_per_s)) =
            (row.bytes_moved, row.flops, row.ceiling_flops_per_s)
        else {
            return;
        };
        let floor_s = (bytes_moved as f64 / self.read_bytes_per_s).max(flops as f64 / flops_per_s);
        row.floor_s = Some(floor_s);
        if let Some(time_s) = row.time_median_s {
            row.bandwidth_fraction = Some(bytes_moved as f64 / time_s / self.read_bytes_per_s);
            row.flops_fraction = Some(flops as f64 / time_s / flops_per_s);
            row.time_over_floor = Some(time_s / floor_s);
        }
    }
}

/// Ten last-level caches, at most 1 GiB: most of a pass then comes from memory, whatever a pass before left.
fn buffer_bytes(llc_bytes: Option<u64>) -> u64 {
    llc_bytes
        .map_or(BUFFER_BYTES_UNKNOWN, |bytes| bytes.saturating_mul(10))
        .clamp(BUFFER_BYTES_MIN, BUFFER_LIMIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings() -> Ceilings {
        Ceilings {
            llc_bytes: Some(1 << 20),
            buffer_bytes: 10 << 20,
            read_bytes_per_s: 10e9,
            copy_bytes_per_s: 12e9,
            flops_per_s: BTreeMap::from([("f32".to_string(), 100e9)]),
            launch_overhead_s: 5e-6,
            passes: PASSES,
            threads: 2,
            elapsed_s: 1.0,
        }
    }

    #[test]
    fn the_buffer_is_ten_caches_and_at_most_a_gibibyte() {
        assert_eq!(buffer_bytes(Some(8 << 20)), 80 << 20);
        assert_eq!(buffer_bytes(Some(260 << 20)), 1 << 30);
        assert_eq!(buffer_bytes(Some(u64::MAX)), 1 << 30);
        assert_eq!(buffer_bytes(Some(1)), BUFFER_BYTES_MIN);
        assert_eq!(buffer_bytes(None), 256 << 20);
    }

    #[test]
    fn a_row_is_held_against_the_ceiling_that_binds() {
        // Reading takes 1 ms, computing 0.2 ms: the floor is memory's.
        let mut row = Row {
            dtype_requested: "f32".to_string(),
            bytes_moved: Some(10_000_000),
            flops: Some(20_000_000),
            time_median_s: Some(4e-3),
            ..Row::default()
        };
        ceilings().describe(&mut row);
        assert_eq!(row.ceiling_bytes_per_s, Some(10e9));
        assert_eq!(row.ceiling_flops_per_s, Some(100e9));
        assert_eq!(row.floor_s, Some(1e-3));
        assert_eq!(row.time_over_floor, Some(4.0));
        assert_eq!(row.bandwidth_fraction, Some(0.25));
        assert_eq!(row.flops_fraction, Some(0.05));
        assert_eq!(
            (row.llc_bytes, row.launch_overhead_s),
            (Some(1 << 20), Some(5e-6))
        );

        row.flops = Some(400_000_000);
        ceilings().describe(&mut row);
        assert_eq!(row.floor_s, Some(4e-3), "now computing takes 4 ms");
        assert_eq!(row.time_over_floor, Some(1.0));
    }

    #[test]
    fn a_row_without_a_time_has_a_floor_and_no_fractions() {
        let mut row = Row {
            dtype_requested: "f32".to_string(),
            bytes_moved: Some(10_000_000),
            flops: Some(1),
            ..Row::default()
        };
        ceilings().describe(&mut row);
        assert_eq!(row.floor_s, Some(1e-3));
        assert_eq!((row.bandwidth_fraction, row.time_over_floor), (None, None));
    }

    #[test]
    fn a_type_that_was_not_measured_has_no_ceiling_and_says_so() {
        let mut row = Row {
            dtype_requested: "f32".to_string(),
            dtype_resolved: Some("f16".to_string()),
            bytes_moved: Some(1),
            flops: Some(1),
            time_median_s: Some(1.0),
            ..Row::default()
        };
        ceilings().describe(&mut row);
        assert_eq!((row.ceiling_flops_per_s, row.floor_s), (None, None));
        assert!(row.null_reasons()["ceiling_flops_per_s"].ends_with("in f16"));
    }

    #[test]
    fn ceilings_of_this_machine_are_positive_and_survive_json() {
        let measured = Ceilings::measure(&[Dtype::F32, Dtype::BF16], Some(1 << 20)).unwrap();
        assert_eq!(measured.buffer_bytes, 10 << 20);
        assert_eq!(measured.flops_per_s.keys().collect::<Vec<_>>(), ["bf16", "f32"]);
        // No machine reads faster than 100 TB/s: a loop that was optimised away would.
        for bytes_per_s in [measured.read_bytes_per_s, measured.copy_bytes_per_s] {
            assert!(bytes_per_s > 1e6 && bytes_per_s < 1e14, "{measured:?}");
        }
        assert!(
            measured.flops_per_s.values().all(|rate| *rate > 1e6),
            "{measured:?}"
        );
        assert!(measured.launch_overhead_s > 0.0 && measured.launch_overhead_s < 1.0);
        let json = serde_json::to_string(&measured).unwrap();
        assert_eq!(serde_json::from_str::<Ceilings>(&json).unwrap(), measured);
    }
}
