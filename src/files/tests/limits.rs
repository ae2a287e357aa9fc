//! Full, read-only and forbidden disks. They need mounts or another user: where those cannot be
//! had, a line says that the test was skipped.
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// A tmpfs that goes away with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: PathBuf, options: &str) -> Option<Mounted> {
        let mounted = run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"], &at);
        if !mounted {
            eprintln!("skipped: may not mount a tmpfs");
        }
        mounted.then_some(Mounted(at))
    }

    fn make_read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro"], &self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) -> bool {
    let status = Command::new(program).args(arguments).arg(at).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_says_so_and_keeps_the_old_file() {
    let host = Host::new();
    let Some(mounted) = Mounted::tmpfs(host.inside(""), "size=1m") else { return };
    for root in host.roots() {
        put(&root, "f", b"old").unwrap();
        for name in ["f", "new/f"] {
            let full = root.upload(&path(name), &mut io::repeat(1).take(2 << 20), &options());
            assert_eq!(code(full), "no_space");
        }
        assert_eq!(names(&mounted.0), ["f"]);
        assert_eq!(get(&root, "f").unwrap(), b"old");
        // A process that another test forks meanwhile holds the refused file, and its blocks, until its exec.
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = put(&root, "f", &vec![2; 512 * 1024]) {
            assert!(Instant::now() < until, "{error}");
        }
        root.delete(&path("f"), &Conditions::default()).unwrap();
    }
}

#[test]
fn a_read_only_disk_says_so() {
    let host = Host::new();
    let Some(mounted) = Mounted::tmpfs(host.inside(""), "size=1m") else { return };
    put(&host.root(), "f", b"old").unwrap();
    mounted.make_read_only();
    for root in host.roots() {
        assert_eq!(code(put(&root, "f", b"new")), "read_only_file_system");
        assert_eq!(code(put(&root, "d/new", b"new")), "read_only_file_system");
        assert_eq!(code(root.delete(&path("f"), &Conditions::default())), "read_only_file_system");
        assert_eq!(get(&root, "f").unwrap(), b"old");
    }
}

#[test]
fn the_longest_path_works_or_is_named_as_the_reason() {
    let host = Host::new();
    let longest = vec!["x".repeat(MAX_NAME_BYTES); 16].join("/");
    assert_eq!(longest.len(), MAX_PATH_BYTES);
    for root in host.roots() {
        match put(&root, &longest, b"x") {
            Ok(_) => assert_eq!(get(&root, &longest).unwrap(), b"x"),
            // An encrypting file system allows shorter names.
            Err(error) => assert_eq!(error.code(), "name_too_long"),
        }
    }
}

#[test]
fn a_forbidden_directory_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    if nix::unistd::geteuid().is_root() {
        eprintln!("skipped: permissions do not bind root");
        return;
    }
    fs::write(host.inside("f"), "old").unwrap();
    fs::set_permissions(host.inside(""), fs::Permissions::from_mode(0o555)).unwrap();
    for root in host.roots() {
        assert_eq!(code(put(&root, "f", b"new")), "denied");
        assert_eq!(code(put(&root, "d/f", b"new")), "denied");
        assert_eq!(code(root.delete(&path("f"), &Conditions::default())), "denied");
    }
    fs::set_permissions(host.inside(""), fs::Permissions::from_mode(0o755)).unwrap();
}
