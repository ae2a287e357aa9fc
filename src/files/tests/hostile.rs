//! Nothing a path or a link says leads out of the root, not even while links are being swapped.
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::*;
use crate::files::path::tests::HOSTILE;

#[test]
fn hostile_paths_touch_nothing() {
    let host = Host::new();
    fs::create_dir(host.inside("a")).unwrap();
    for root in host.roots() {
        for raw in HOSTILE {
            // Whoever got past the parser would act on these.
            let parsed = [RelativePath::parse_file(raw), RelativePath::parse_directory(raw)];
            for path in parsed.into_iter().flatten() {
                let _ = root.upload(&path, &mut &b"x"[..], &options());
                let _ = root.delete(&path, &Conditions::default());
            }
        }
    }
    host.assert_outside_untouched();
    assert_eq!(names(&host.inside("")), ["a"]);
    assert_eq!(names(&host.inside("a")).len(), 0);
}

#[test]
fn links_out_of_the_root_are_refused_whatever_the_operation() {
    let host = Host::new();
    let absolute = host.outside("");
    symlink("../outside", host.inside("relative")).unwrap();
    symlink(&absolute, host.inside("absolute")).unwrap();
    symlink("../outside/f", host.inside("file")).unwrap();
    fs::create_dir(host.inside("d")).unwrap();
    symlink("../relative", host.inside("d/indirect")).unwrap();
    for root in host.roots() {
        for link in ["relative", "absolute", "d/indirect"] {
            let (file, new) = (format!("{link}/f"), format!("{link}/new/deep/x"));
            assert_eq!(code(put(&root, &file, b"x")), "outside_root");
            assert_eq!(code(put(&root, &new, b"x")), "outside_root");
            assert_eq!(code(get(&root, &file)), "outside_root");
            assert_eq!(code(root.delete(&path(&file), &Conditions::default())), "outside_root");
            assert_eq!(code(root.list(&path(link), 9)), "outside_root");
        }
        assert_eq!(code(get(&root, "file")), "outside_root");
    }
    host.assert_outside_untouched();
    // The link itself is a name below the root: replacing and deleting it is fine.
    let root = host.root();
    put(&root, "file", b"mine").unwrap();
    assert!(fs::symlink_metadata(host.inside("file")).unwrap().is_file());
    root.delete(&path("relative"), &Conditions::default()).unwrap();
    assert!(fs::symlink_metadata(host.inside("relative")).is_err());
    host.assert_outside_untouched();
}

#[test]
fn links_that_stay_inside_are_followed() {
    let host = Host::new();
    fs::create_dir(host.inside("real")).unwrap();
    symlink("real", host.inside("link")).unwrap();
    let root = host.root();
    if code(root.list(&path("absent"), 1)) == "not_found" && root.list(&path("link"), 1).is_err() {
        eprintln!("skipped: no openat2 here");
        return;
    }
    put(&root, "link/new/f", b"x").unwrap();
    assert_eq!(fs::read(host.inside("real/new/f")).unwrap(), b"x");
    assert_eq!(get(&root, "link/new/f").unwrap(), b"x");
}

/// `FRAG_RACE_SECONDS` makes it longer.
#[test]
fn a_swapped_link_never_leads_outside() {
    race(|host| host.root());
}

#[test]
fn a_swapped_link_never_leads_outside_without_openat2_and_tmpfile() {
    race(|host| Root::open_with(&host.inside(""), Resolver::Walk, false).unwrap());
}

/// One thread exchanges a directory with a link to the outside, without pause, while the operations
/// run; both have a file `f`.
fn race(open: impl Fn(&Host) -> Root) {
    let seconds = std::env::var("FRAG_RACE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let host = Host::new();
    fs::create_dir(host.inside("d")).unwrap();
    symlink("../outside", host.inside("swap")).unwrap();
    let root = open(&host);
    let done = AtomicBool::new(false);
    let (mut worked, mut refused) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(
                    AT_FDCWD,
                    &host.inside("d"),
                    AT_FDCWD,
                    &host.inside("swap"),
                    RenameFlags::RENAME_EXCHANGE,
                )
                .unwrap();
            }
        });
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut round = 0_u64;
        // A failed assertion must not leave the other thread spinning.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < end {
                round += 1;
                let results = [
                    put(&root, "d/f", b"inside").map(drop),
                    get(&root, "d/f").map(|contents| assert_eq!(contents, b"inside")),
                    put(&root, &format!("d/new{}/x", round % 8), b"inside").map(drop),
                    root.list(&path("d"), 100).map(drop),
                    root.delete(&path("d/f"), &Conditions::default()),
                    root.delete(&path(&format!("d/new{}/x", round % 8)), &Conditions::default()),
                    root.delete(&path(&format!("d/new{}", round % 8)), &Conditions::default()),
                ];
                for result in results {
                    match result {
                        Ok(()) => worked += 1,
                        Err(FileError::OutsideRoot(_)) => refused += 1,
                        Err(FileError::NotFound(_) | FileError::NotEmpty(_)) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    host.assert_outside_untouched();
    eprintln!("race: {worked} worked, {refused} were refused");
    assert!(worked > 0 && refused > 0, "the race must have been one");
    let left = [host.inside("d"), host.inside("swap")].map(|directory| names(&directory)).concat();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".frag")), "{left:?}");
}
