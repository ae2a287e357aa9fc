//! Failing spawns beside a storm of orphans: std waits for the pid of a failed exec itself, so a
//! reaper without the table's lock would take it away. Alone in its binary, as it measures CPU time.
//! `FRAG_SPAWN_STRESS=10000/1000` is the full run.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
mod common;

use std::time::{Duration, Instant};

use common::{LONG, eventually, processes, sh, spawn};
use nix::sys::resource::{UsageWho, getrusage};
use simple_artifact_server::process::{Exit, SpawnError};

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time =
        |t: nix::sys::time::TimeVal| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64);
    time(usage.user_time()) + time(usage.system_time())
}

#[test]
fn failed_spawns_beside_orphans_leave_no_zombie_and_no_spin() {
    let setting = std::env::var("FRAG_SPAWN_STRESS").unwrap_or_else(|_| "500/50".into());
    let (failing, orphans) = setting.split_once('/').unwrap();
    let (failing, orphans): (usize, usize) = (failing.parse().unwrap(), orphans.parse().unwrap());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..failing / 4 {
                    let error = processes().spawn(spawn(&["/no/such/program"])).unwrap_err();
                    assert!(matches!(error, SpawnError::NotFound(_)), "{error:?}");
                }
            });
        }
        for _ in 0..orphans / 10 {
            // Ten times a child whose parent is gone before it ends.
            let mut spawn = sh("for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.01 & ) ; done");
            spawn.kill_group_on_exit = false;
            let spawned = processes().spawn(spawn).unwrap();
            assert_eq!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Code(0));
        }
    });
    let (elapsed, busy) = (started.elapsed(), cpu());
    eventually("every orphan is reaped", || common::zombies() == 0);
    assert!(processes().kill_all_adopted(LONG));
    eventually("every killed orphan is reaped", || common::zombies() == 0);
    let before = cpu();
    // Nothing ever comes: half a second of idleness.
    let _ = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(500));
    let idle = cpu() - before;
    assert!(idle < Duration::from_millis(50), "spins without children: {idle:?} of CPU in 500 ms");
    println!("{failing} failed spawns beside {orphans} orphans: {elapsed:?}, {busy:?} CPU, idle {idle:?}");
}
