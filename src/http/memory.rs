//! What the allocator keeps.
#![allow(unsafe_code)]

/// Gives free memory back to the kernel. glibc keeps what a crowd of requests had, for the next one (`malloc_trim(3)`);
/// other C libraries have no such call.
pub(super) fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
