//! How the kernel schedules workers.
#![allow(unsafe_code)]

/// Makes the calling thread a batch thread (`sched(7)`, SCHED_BATCH): waking it does not push the
/// running one aside. Workers wake each other's peers all the time; without those switches 128 busy
/// connections got at least a fifth more requests through. A kernel that refuses is as before.
/// Children are forked elsewhere and do not inherit it.
pub(super) fn become_batch_thread() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one live local; 0 names the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter) };
}
