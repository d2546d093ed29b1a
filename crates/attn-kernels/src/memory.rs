//! What the allocator does with memory that is freed.

/// Makes the process keep memory that is freed instead of giving it back to the system, up to 32 MiB a piece. Without
/// it glibc gives back what a call's intermediate tensors occupied and asks for it again in the next call, where the
/// system clears every page anew: a sixth of a training step, on two cores and two megabytes a tensor. False where
/// there is no such setting (another allocator or system), and nothing changes.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // What glibc takes at most for blocks of its heap (HEAP_MAX_SIZE / 2); larger ones are mappings of their own.
        const LARGEST_BLOCK: libc::c_int = 32 << 20;
        // SAFETY: both only change numbers that later calls of the allocator compare sizes with.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_BLOCK) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
