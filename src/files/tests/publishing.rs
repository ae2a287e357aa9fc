//! Uploads appear whole, once, with the right permissions, or not at all.
use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::Barrier;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use sha2::{Digest, Sha256};

use super::*;
use crate::base::hex::hex;

fn sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn creates_then_replaces() {
    let host = Host::new();
    for (number, root) in host.roots().iter().enumerate() {
        let name = format!("new{number}/deep/f");
        let long = vec![7; 300_000];
        let first = put(root, &name, &long).unwrap();
        assert_eq!(first, Uploaded { bytes: 300_000, sha256: sha256(&long), created: true });
        assert_eq!(get(root, &name).unwrap(), long);
        let second = put(root, &name, b"").unwrap();
        assert_eq!(second, Uploaded { bytes: 0, sha256: sha256(b""), created: false });
        assert_eq!(get(root, &name).unwrap(), b"");
        assert_eq!(names(&host.inside(&format!("new{number}/deep"))), ["f"]);
    }
}

#[test]
fn permissions_are_asked_for_inherited_or_usual() {
    let host = Host::new();
    // The umask belongs to the whole process: see what it makes of an ordinary file.
    fs::write(host.inside("usual"), "").unwrap();
    let usual = mode(&host.inside("usual"));
    for (number, root) in host.roots().iter().enumerate() {
        let name = format!("f{number}");
        let file = host.inside(&name);
        put(root, &name, b"1").unwrap();
        assert_eq!(mode(&file), usual);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
        put(root, &name, b"2").unwrap();
        assert_eq!(mode(&file), 0o751, "inherited, less set-uid");
        let asked = UploadOptions { mode: Some(0o7640), ..options() };
        root.upload(&path(&name), &mut &b"3"[..], &asked).unwrap();
        assert_eq!(mode(&file), 0o640);
        fs::remove_file(&file).unwrap();
        symlink("usual", &file).unwrap();
        put(root, &name, b"4").unwrap();
        assert_eq!(mode(&file), usual, "a link has no permissions to inherit");
    }
    assert_eq!(fs::read(host.inside("usual")).unwrap(), b"");
}

#[test]
fn files_get_the_owner() {
    let host = Host::new();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    for (number, root) in host.roots().into_iter().enumerate() {
        let root = root.with_owner(Owner { uid: 12345, gid: 54321 });
        put(&root, &format!("d{number}/f"), b"x").unwrap();
        for made in [format!("d{number}"), format!("d{number}/f")] {
            let made = fs::metadata(host.inside(&made)).unwrap();
            assert_eq!((made.uid(), made.gid()), (12345, 54321));
        }
    }
}

#[test]
fn a_cut_upload_leaves_nothing() {
    let host = Host::new();
    for root in host.roots() {
        for name in ["f", "new/deep/f"] {
            let cut = root.upload(&path(name), &mut CutBody { left: 1_000_000 }, &options());
            let Err(FileError::Body(error)) = cut else { panic!("{cut:?}") };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(names(&host.inside("")).len(), 0);
        }
        for (announced, body) in [(5, &b"four"[..]), (3, b"four")] {
            let announced = UploadOptions { expected_bytes: Some(announced), ..options() };
            assert_eq!(code(root.upload(&path("f"), &mut { body }, &announced)), "body_incomplete");
            assert_eq!(names(&host.inside("")).len(), 0);
        }
        put(&root, "f", b"old").unwrap();
        root.upload(&path("f"), &mut CutBody { left: 10 }, &options()).unwrap_err();
        assert_eq!((get(&root, "f").unwrap().as_slice(), names(&host.inside("")).len()), (&b"old"[..], 1));
        root.delete(&path("f"), &Conditions::default()).unwrap();
    }
}

#[test]
fn nothing_is_visible_while_a_body_arrives() {
    struct Looking<'a>(&'a Path, usize);
    impl Read for Looking<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert_eq!(names(self.0).len(), 0);
            self.1 -= 1;
            Ok(if self.1 == 0 { 0 } else { buffer.len() })
        }
    }
    let host = Host::new();
    let inside = host.inside("");
    host.root().upload(&path("a/f"), &mut Looking(&inside, 4), &options()).unwrap();
    assert_eq!(names(&host.inside("a")), ["f"]);
}

#[test]
fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let host = Host::new();
    for root in host.roots() {
        for limit in [0, 10, 128 * 1024, 128 * 1024 + 1] {
            let limited = UploadOptions { max_bytes: limit, ..options() };
            let body = vec![1; limit as usize + 1];
            let fits = root.upload(&path("f"), &mut &body[1..], &limited).unwrap();
            assert_eq!(fits.bytes, limit);
            let over = root.upload(&path("f"), &mut body.as_slice(), &limited);
            assert!(matches!(over, Err(FileError::TooLarge { limit_bytes }) if limit_bytes == limit));
            let announced = UploadOptions { expected_bytes: Some(limit + 1), ..limited };
            assert_eq!(code(root.upload(&path("f"), &mut Unreadable, &announced)), "too_large");
            assert_eq!(get(&root, "f").unwrap().len() as u64, limit);
        }
        let unlimited = UploadOptions { max_bytes: u64::MAX, ..options() };
        root.upload(&path("f"), &mut &b"x"[..], &unlimited).unwrap();
        assert_eq!(names(&host.inside("")), ["f"]);
    }
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let host = Host::new();
    fs::create_dir(host.inside("d")).unwrap();
    fs::write(host.inside("file"), "x").unwrap();
    mkfifo(&host.inside("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.inside("socket")).unwrap();
    for root in host.roots() {
        for (name, expected) in [
            ("d", "is_directory"),
            ("file/x", "not_a_directory"),
            ("file/x/y", "not_a_directory"),
            ("fifo", "not_a_file"),
            ("fifo/x", "not_a_directory"),
            ("socket", "not_a_file"),
        ] {
            let refused = root.upload(&path(name), &mut Unreadable, &options());
            assert_eq!(code(refused), expected, "{name}");
        }
        let refused = root.upload(&RelativePath::root(), &mut Unreadable, &options());
        assert_eq!(code(refused), "is_directory");
    }
    assert!(fs::metadata(host.inside("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(names(&host.inside("")).len(), 4);
}

#[test]
fn fifty_uploads_to_one_name_leave_one_whole_version() {
    let host = Host::new();
    for root in host.roots() {
        let start = Barrier::new(50);
        let created: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..50_u8)
                .map(|number| {
                    let (root, start) = (&root, &start);
                    scope.spawn(move || {
                        start.wait();
                        put(root, "a/b/f", &vec![number; 200_000]).unwrap().created
                    })
                })
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(created, 1);
        let contents = get(&root, "a/b/f").unwrap();
        assert_eq!(contents.len(), 200_000);
        assert_eq!(contents.iter().collect::<HashSet<_>>().len(), 1);
        assert_eq!(names(&host.inside("a/b")), ["f"]);
        fs::remove_dir_all(host.inside("a")).unwrap();
    }
}

#[test]
fn a_link_is_something_that_is_there() {
    let host = Host::new();
    fs::write(host.inside("file"), "x").unwrap();
    for (target, name) in [("nowhere", "dangling"), ("../outside/f", "out"), ("file", "in"), ("loop", "loop")]
    {
        symlink(target, host.inside(name)).unwrap();
        let nothing = Conditions { if_none_match: Some(Versions::Any), ..Conditions::default() };
        let new = UploadOptions { conditions: nothing.clone(), ..options() };
        for root in host.roots() {
            let refused = root.upload(&path(name), &mut Unreadable, &new);
            assert_eq!(code(refused), "precondition_failed", "{name}");
            assert_eq!(code(root.delete(&path(name), &nothing)), "precondition_failed", "{name}");
            root.check(&path(name), &matching(Some(Versions::Any))).unwrap();
            for absent in ["absent", "absent/f"] {
                root.check(&path(absent), &nothing).unwrap();
                assert_eq!(
                    code(root.check(&path(absent), &matching(Some(Versions::Any)))),
                    "precondition_failed"
                );
            }
        }
        assert_eq!(fs::read_link(host.inside(name)).unwrap(), Path::new(target));
    }
    host.assert_outside_untouched();
}

#[test]
fn if_match_decides() {
    let host = Host::new();
    let conditional = |versions| UploadOptions { conditions: matching(Some(versions)), ..options() };
    for root in host.roots() {
        for absent in ["absent", "no/such/directory"] {
            for if_match in [Versions::Any, Versions::Tags(vec![sha256(b"")])] {
                let refused = root.upload(&path(absent), &mut Unreadable, &conditional(if_match));
                assert_eq!(code(refused), "precondition_failed");
            }
        }
        put(&root, "f", b"1").unwrap();
        for wrong in [vec![], vec![sha256(b"0")], vec![sha256(b"1").to_uppercase()], vec!["*".to_owned()]] {
            let refused = root.upload(&path("f"), &mut Unreadable, &conditional(Versions::Tags(wrong)));
            assert_eq!(code(refused), "precondition_failed");
        }
        let right = Versions::Tags(vec![sha256(b"0"), sha256(b"1")]);
        assert!(!root.upload(&path("f"), &mut &b"2"[..], &conditional(right)).unwrap().created);
        root.upload(&path("f"), &mut &b"3"[..], &conditional(Versions::Any)).unwrap();
        assert_eq!(get(&root, "f").unwrap(), b"3");
        // Somebody else writes in place, same length: the remembered digest is void.
        fs::write(host.inside("f"), "4").unwrap();
        let stale = conditional(Versions::Tags(vec![sha256(b"3")]));
        assert_eq!(code(root.upload(&path("f"), &mut Unreadable, &stale)), "precondition_failed");
        root.delete(&path("f"), &Conditions::default()).unwrap();
    }
}

#[test]
fn of_twenty_conditional_uploads_one_wins() {
    let host = Host::new();
    for root in host.roots() {
        put(&root, "f", b"start").unwrap();
        let conditional =
            UploadOptions { conditions: matching(Some(Versions::Tags(vec![sha256(b"start")]))), ..options() };
        let start = Barrier::new(20);
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20_u8)
                .map(|number| {
                    let (root, start, conditional) = (&root, &start, &conditional);
                    scope.spawn(move || {
                        // All have read the whole body before the first may publish.
                        let content = [number];
                        let mut body = content.as_slice().chain(At(start, false));
                        match root.upload(&path("f"), &mut body, conditional) {
                            Ok(_) => Some(number),
                            Err(FileError::PreconditionFailed(_)) => None,
                            Err(other) => panic!("{other}"),
                        }
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1);
        assert_eq!(get(&root, "f").unwrap(), winners);
        assert_eq!(names(&host.inside("")), ["f"]);
    }
}

/// An empty body that ends when all threads are there.
struct At<'a>(&'a Barrier, bool);

impl Read for At<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.1, true) {
            self.0.wait();
        }
        Ok(0)
    }
}
