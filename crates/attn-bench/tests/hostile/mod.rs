//! What every input must leave whole: no panic, and memory within the input's size class.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use attn_harness::memory::CountingAllocator;
use proptest::test_runner::{Config, RngSeed, TestCaseError};

/// The variants, as the binary's registry has them.
pub const VARIANTS: [&attn_core::Variant; 5] = [
    &attn_mha::VARIANT,
    &attn_gqa::VARIANT,
    &attn_mqa::VARIANT,
    &attn_mla::VARIANT,
    &attn_mtla::VARIANT,
];

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Held by the one test that is measured: peaks are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

const SMALL_BYTES: u64 = 64 << 20;
const BYTES_PER_INPUT_BYTE: u64 = 1000;
/// A hang, and not a busy machine.
const LONGEST: Duration = Duration::from_secs(120);

/// `PROPTEST_CASES` cases, or `n`; every run tries other ones unless `PROPTEST_RNG_SEED` says which.
pub fn cases(n: u32) -> Config {
    let given = std::env::var("PROPTEST_CASES").is_ok();
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    match (given, config.rng_seed) {
        (true, _) => config,
        // Without a wish the cases are the same ones every time: a red test is a change, not luck.
        (false, RngSeed::Random) => Config {
            cases: n,
            rng_seed: RngSeed::Fixed(1),
            ..config
        },
        (false, RngSeed::Fixed(_)) => Config { cases: n, ..config },
    }
}

/// Runs `work` on an input of `input_bytes`; `extra_bytes` says what its answer may take beside that.
pub fn bounded<T>(
    input_bytes: usize,
    work: impl FnOnce() -> T,
    extra_bytes: impl FnOnce(&T) -> u64,
) -> Result<T, TestCaseError> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = CountingAllocator::snapshot().live_bytes;
    CountingAllocator::reset_peak();
    let began = Instant::now();
    let answer = work();
    let elapsed = began.elapsed();
    let taken = CountingAllocator::snapshot().peak_bytes.saturating_sub(before);
    let most = SMALL_BYTES + BYTES_PER_INPUT_BYTE * input_bytes as u64 + extra_bytes(&answer);
    if taken > most {
        let reason = format!("{input_bytes} bytes of input took {taken} bytes of memory, {most} at most");
        return Err(TestCaseError::fail(reason));
    }
    if elapsed > LONGEST {
        return Err(TestCaseError::fail(format!(
            "{input_bytes} bytes of input took {elapsed:?}"
        )));
    }
    Ok(answer)
}
