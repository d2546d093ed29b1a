//! Closed forms against the allocator: a cache at the limit, and one that is a step too large.

use std::fmt;

use attn_core::{Build, Cache, Capacity, Path};
use attn_harness::Case;
use attn_harness::environment::Environment;
use attn_harness::memory::CountingAllocator;
use attn_harness::units::format_bytes;
use candle_core::DType;
use serde::Serialize;

use super::{Given, UNLIMITED};

/// What a cache may hold beside slots and state: shapes and handles.
const BOOKKEEPING_BYTES: u64 = 64 << 10;

/// What allocating showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The cache at the limit has the bytes of the formula, and the next one is too large.
    Confirmed,
    /// It was not tried, for this reason.
    Skipped(String),
    /// The formula is wrong, in these words.
    Failed(String),
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed => f.write_str("as predicted"),
            Self::Skipped(reason) => write!(f, "not tried: {reason}"),
            Self::Failed(reason) => write!(f, "WRONG: {reason}"),
        }
    }
}

/// Allocates the cache of `case` at `limit` and one step beyond; both must be what the closed form says, and only the
/// first may fit in `per_layer` bytes with the weights.
pub fn check(case: &Case, given: Given, limit: Option<u64>, per_layer: u64) -> Check {
    let (g, e) = (&case.geometry, case.dtype.size_in_bytes());
    let closed = |limit: u64| {
        let (batch, tokens) = given.with(limit);
        g.kv_bytes(batch, tokens, e) + g.kv_state_bytes(batch)
    };
    // Where there is no limit, a context and a longer one are a window both.
    let is_limited = limit.is_some();
    let limit = limit.unwrap_or(UNLIMITED);
    let needed = closed(limit + 1);
    // One after the other, and the machine must go on.
    let free = Environment::probe().memory_available_bytes;
    if let Some(free) = free.filter(|free| needed > free / 10 * 9) {
        let (needed, free) = (format_bytes(needed as f64), format_bytes(free as f64));
        return Check::Skipped(format!("it takes {needed}, the machine has {free} free"));
    }
    for (limit, fits) in [(limit, true), (limit + 1, !is_limited)] {
        let allocated = match allocated(case, given.with(limit)) {
            Ok(bytes) => bytes,
            Err(reason) => return Check::Failed(reason),
        };
        let expected = closed(limit);
        if allocated != expected {
            return Check::Failed(format!(
                "allocated {allocated} bytes at {limit}, the formula says {expected}"
            ));
        }
        let whole = allocated.saturating_add(case.weights_bytes);
        if limit > 0 && (whole <= per_layer) != fits {
            return Check::Failed(format!("{whole} bytes at {limit}, of {per_layer} for a layer"));
        }
    }
    Check::Confirmed
}

/// Bytes of a new cache, as it says and as the allocator agrees.
fn allocated(case: &Case, (batch, tokens): (usize, usize)) -> Result<u64, String> {
    let build = Build::cpu(Path::Fused, DType::from(case.dtype));
    let before = CountingAllocator::snapshot().live_bytes;
    let cache = Cache::new(&case.geometry, &build, batch, Capacity::Exact(tokens));
    let cache = cache.map_err(|error| error.to_string())?;
    let handed_out = CountingAllocator::snapshot().live_bytes.saturating_sub(before);
    let own = cache.kv_allocated_bytes() + cache.kv_state_bytes();
    if handed_out < own || handed_out > own + BOOKKEEPING_BYTES {
        return Err(format!("the cache says {own} bytes, the allocator {handed_out}"));
    }
    Ok(own)
}
