//! The counting allocator, installed. One test alone: others in the same process would be counted too.

use attn_harness::memory::{CountingAllocator, peak_rss_bytes, reset_peak_rss, rss_bytes};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: u64 = 1 << 20;
/// What the test harness itself may allocate meanwhile.
const NOISE: u64 = MIB;

#[test]
fn counts_follow_what_is_allocated_grown_and_freed() {
    assert!(CountingAllocator::is_installed());
    CountingAllocator::reset_peak();
    let start = CountingAllocator::snapshot();

    let mut block = vec![1u8; 64 << 20];
    let held = CountingAllocator::snapshot();
    assert!(
        (held.live_bytes - start.live_bytes).abs_diff(64 * MIB) < NOISE,
        "{held:?}"
    );
    assert!(held.allocations > start.allocations);

    block.reserve_exact(32 << 20);
    let grown = CountingAllocator::snapshot();
    assert!(
        (grown.live_bytes - start.live_bytes).abs_diff(96 * MIB) < NOISE,
        "{grown:?}"
    );

    drop(block);
    let freed = CountingAllocator::snapshot();
    assert!(freed.live_bytes.abs_diff(start.live_bytes) < NOISE, "{freed:?}");
    assert!(
        (freed.peak_bytes - start.live_bytes).abs_diff(96 * MIB) < NOISE,
        "{freed:?}"
    );

    CountingAllocator::reset_peak();
    let reset = CountingAllocator::snapshot();
    assert!(reset.peak_bytes - start.live_bytes < NOISE, "{reset:?}");

    // Threads count into the same numbers.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| std::hint::black_box(vec![0u8; 8 << 20]).len());
        }
    });
    let joined = CountingAllocator::snapshot();
    assert!(joined.live_bytes.abs_diff(start.live_bytes) < NOISE, "{joined:?}");
    assert!(joined.peak_bytes - start.live_bytes >= 8 * MIB, "{joined:?}");

    resident_memory_has_a_peak_that_can_be_reset();
}

fn resident_memory_has_a_peak_that_can_be_reset() {
    // Elsewhere than on Linux there is nothing to read.
    let Some(before) = peak_rss_bytes() else { return };
    let block = std::hint::black_box(vec![1u8; 128 << 20]);
    let Some(held) = peak_rss_bytes() else {
        panic!("the peak was there before")
    };
    assert!(held >= before.max(128 * MIB), "{before} {held}");
    drop(block);
    // Some containers forbid the reset.
    if let (Some(()), Some(peak), Some(now)) = (reset_peak_rss(), peak_rss_bytes(), rss_bytes()) {
        assert!(
            peak < held - 64 * MIB && peak + 16 * MIB >= now,
            "{held} {peak} {now}"
        );
    }
}
