//! Downloads, listings and deletion.
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

#[test]
fn an_open_file_tells_what_a_response_needs() {
    let host = Host::new();
    for root in host.roots() {
        let uploaded = put(&root, "d/f", b"hello").unwrap();
        fs::set_permissions(host.inside("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
        let mut open = root.open_file(&path("d/f")).unwrap();
        assert_eq!((open.bytes, open.mode), (5, 0o640));
        assert_eq!(open.modified, fs::metadata(host.inside("d/f")).unwrap().modified().unwrap());
        assert_eq!(open.etag, Etag::Strong(uploaded.sha256));
        put(&root, "d/f", b"other").unwrap();
        let mut contents = String::new();
        open.file.read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "hello", "an open file outlives its name");
        assert_ne!(root.open_file(&path("d/f")).unwrap().etag, open.etag);
    }
}

#[test]
fn a_long_upload_keeps_its_strong_tag() {
    let host = Host::new();
    let root = host.root();
    let long = HASHED_UP_TO_BYTES + 1;
    let uploaded = root.upload(&path("f"), &mut io::repeat(0).take(long), &options()).unwrap();
    assert_eq!(root.open_file(&path("f")).unwrap().etag, Etag::Strong(uploaded.sha256.clone()));
    // Another life knows only size and time, but still honours If-Match.
    let other = host.root();
    assert_eq!(other.open_file(&path("f")).unwrap().etag.sha256(), None);
    let conditional =
        UploadOptions { conditions: matching(Some(Versions::Tags(vec![uploaded.sha256]))), ..options() };
    other.upload(&path("f"), &mut &b"short"[..], &conditional).unwrap();
}

#[test]
fn only_regular_files_open() {
    let host = Host::new();
    fs::create_dir(host.inside("d")).unwrap();
    fs::write(host.inside("file"), "x").unwrap();
    mkfifo(&host.inside("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.inside("socket")).unwrap();
    for root in host.roots() {
        for (name, expected) in [
            ("d", "is_directory"),
            ("fifo", "not_a_file"),
            ("socket", "not_a_file"),
            ("absent", "not_found"),
            ("absent/f", "not_found"),
            ("file/f", "not_a_directory"),
        ] {
            assert_eq!(code(root.open_file(&path(name))), expected, "{name}");
        }
        assert_eq!(code(root.open_file(&RelativePath::root())), "is_directory");
        // No reader came and went: a writer that does not wait still finds nobody.
        let writer =
            fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(host.inside("fifo"));
        assert_eq!(writer.unwrap_err().raw_os_error(), Some(nix::libc::ENXIO));
    }
}

#[test]
fn lists_in_order_and_survives_odd_entries() {
    let host = Host::new();
    fs::create_dir(host.inside("b")).unwrap();
    fs::write(host.inside("c"), "12345").unwrap();
    fs::set_permissions(host.inside("c"), fs::Permissions::from_mode(0o604)).unwrap();
    symlink("nowhere", host.inside("a")).unwrap();
    symlink("../outside", host.inside("out")).unwrap();
    mkfifo(&host.inside("fifo"), Mode::S_IRWXU).unwrap();
    fs::write(host.inside(".frag-upload-1-1-1"), "hidden").unwrap();
    let not_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"z\xff");
    fs::write(host.inside("").join(not_utf8), "").unwrap();
    for root in host.roots() {
        let listing = root.list(&RelativePath::root(), 100).unwrap();
        let found: Vec<_> = listing.entries.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
        let expected = [
            ("a", Kind::Symlink),
            ("b", Kind::Directory),
            ("c", Kind::File),
            ("fifo", Kind::Other),
            ("out", Kind::Symlink),
            ("z\u{fffd}", Kind::File),
        ];
        assert_eq!(found, expected);
        assert!(!listing.truncated);
        let file = &listing.entries[2];
        let modified = fs::metadata(host.inside("c")).unwrap().modified().unwrap();
        assert_eq!((file.bytes, file.mode), (5, 0o604));
        assert_eq!(file.modified_ms, crate::base::time::unix_ms(modified));

        assert_eq!(root.list(&RelativePath::root(), 6).unwrap(), listing);
        let first = root.list(&RelativePath::root(), 2).unwrap();
        assert_eq!(first, Listing { entries: listing.entries[..2].to_vec(), truncated: true });
        assert_eq!(
            root.list(&RelativePath::root(), 0).unwrap(),
            Listing { entries: vec![], truncated: true }
        );

        assert_eq!(root.list(&path("b"), 0).unwrap(), Listing { entries: vec![], truncated: false });
        assert_eq!(code(root.list(&path("c"), 9)), "not_a_directory");
        assert_eq!(code(root.list(&path("absent"), 9)), "not_found");
    }
}

#[test]
fn deletes_names_not_what_they_point_to() {
    let host = Host::new();
    for root in host.roots() {
        fs::create_dir_all(host.inside("d/empty")).unwrap();
        fs::write(host.inside("file"), "x").unwrap();
        symlink("file", host.inside("link")).unwrap();
        symlink("d", host.inside("to-directory")).unwrap();
        mkfifo(&host.inside("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(code(root.delete(&path("d"), &Conditions::default())), "not_empty");
        assert_eq!(code(root.delete(&path("absent"), &Conditions::default())), "not_found");
        assert_eq!(code(root.delete(&path("absent/x"), &Conditions::default())), "not_found");
        assert_eq!(code(root.delete(&path("file/x"), &Conditions::default())), "not_a_directory");
        assert_eq!(code(root.delete(&RelativePath::root(), &Conditions::default())), "path_invalid");
        root.delete(&path("link"), &Conditions::default()).unwrap();
        root.delete(&path("to-directory"), &Conditions::default()).unwrap();
        assert_eq!(names(&host.inside("")), ["d", "fifo", "file"]);
        for name in ["d/empty", "d", "file", "fifo"] {
            root.delete(&path(name), &Conditions::default()).unwrap();
        }
        assert_eq!(names(&host.inside("")).len(), 0);
    }
}
