//! Memory that is freed and asked for again costs no page faults. A process of its own: the setting is the process's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use attn_kernels::keep_freed_memory;

/// Page faults of this process so far.
fn faults() -> i64 {
    // SAFETY: an all-zero `rusage` is one, and the call writes no more than it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage.ru_minflt
    }
}

/// Page faults of writing and freeing 16 MiB.
fn round() -> i64 {
    let before = faults();
    drop(black_box(vec![1u8; 16 << 20]));
    faults() - before
}

#[test]
fn what_is_freed_is_there_for_the_next_call() {
    assert!(keep_freed_memory());
    round();
    let again = round();
    assert!(again < 64, "{again} of 4096 pages were asked for again");
}
