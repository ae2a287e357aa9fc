//! Files below the root over HTTP: reading, listing, deleting, and paths that try to leave.

use crate::binary::{IDLE, Response, Server, unused_port};
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn idle(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), flags)
}

fn with_files(files: &[(&str, &str)]) -> Server {
    let server = idle(&[]);
    for (name, contents) in files {
        let path = server.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    server
}

/// Every name below a directory, with a file's contents or a link's target.
fn tree(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.insert(format!("{name}/"), String::new());
            found.extend(tree(&path).into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
        } else if kind.is_symlink() {
            found.insert(name, path.read_link().unwrap().to_string_lossy().into_owned());
        } else if kind.is_file() {
            found.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    found
}

/// GET, POST to upload and DELETE of one path, in this order: what a hostile path must survive.
fn touch(server: &Server, path: &str) -> [(&'static str, Response); 4] {
    let file = format!("/_frag/files/{path}");
    [
        ("get", server.get(&file, "")),
        ("post", server.send("POST", &format!("/_frag/upload/{path}"), "", b"evil")),
        ("put", server.send("PUT", &format!("/_frag/upload/{path}?mode=777"), "If-Match: *\r\n", b"evil")),
        ("delete", server.send("DELETE", &file, "", b"")),
    ]
}

#[test]
fn a_file_is_served_with_what_caches_and_browsers_need() {
    let server = with_files(&[("a b.html", "<b>hello</b>")]);
    for method in ["GET", "HEAD"] {
        let answer = server.send(method, "/_frag/files/a%20b.html?download=1", "", b"");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("content-length").as_deref(), Some("12"));
        assert_eq!(answer.body_text(), if method == "GET" { "<b>hello</b>" } else { "" });
        // Never as a page of this origin, whatever the name says.
        assert_eq!(answer.field("content-type").as_deref(), Some("application/octet-stream"));
        assert_eq!(answer.field("x-content-type-options").as_deref(), Some("nosniff"));
        assert_eq!(answer.field("accept-ranges").as_deref(), Some("bytes"));
        assert!(answer.field("last-modified").unwrap().ends_with(" GMT"));
        assert_eq!(answer.field("etag").unwrap().len(), 66);
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    }
}

#[test]
fn a_client_with_the_same_version_gets_304() {
    let server = with_files(&[("f", "contents")]);
    let tag = server.get("/_frag/files/f", "").field("etag").unwrap();
    for (tags, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"x\", {tag}"), 304),
        (format!("\"x\"\r\nIf-None-Match: {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
        (tag.replace('"', ""), 200),
    ] {
        let answer = server.get("/_frag/files/f", &format!("If-None-Match: {tags}\r\n"));
        assert_eq!(answer.status, status, "{tags}");
        assert_eq!(answer.field("etag").as_ref(), Some(&tag), "{tags}");
        assert!(answer.rest.is_empty());
    }
    std::fs::write(server.root().join("f"), "CONTENTS").unwrap();
    assert_eq!(server.get("/_frag/files/f", &format!("If-None-Match: {tag}\r\n")).status, 200);
}

#[test]
fn ranges_of_a_file() {
    let server = with_files(&[("f", "0123456789"), ("empty", "")]);
    let tag = server.get("/_frag/files/f", "").field("etag").unwrap();
    let modified = server.get("/_frag/files/f", "").field("last-modified").unwrap();
    let whole = (200, "0123456789", None);
    for (fields, expected) in [
        ("Range: bytes=0-0", (206, "0", Some("bytes 0-0/10"))),
        ("Range: bytes=2-4", (206, "234", Some("bytes 2-4/10"))),
        ("Range: bytes=7-", (206, "789", Some("bytes 7-9/10"))),
        ("Range: bytes=7-99", (206, "789", Some("bytes 7-9/10"))),
        ("Range: bytes=-3", (206, "789", Some("bytes 7-9/10"))),
        ("Range: bytes=-99", (206, "0123456789", Some("bytes 0-9/10"))),
        ("Range: bytes=10-", (416, "", Some("bytes */10"))),
        ("Range: bytes=-0", (416, "", Some("bytes */10"))),
        ("Range: bytes=4-2", whole),
        ("Range: bytes=0-1,3-4", whole),
        ("Range: lines=0-1", whole),
        (&format!("Range: bytes=2-4\r\nIf-Range: {tag}"), (206, "234", Some("bytes 2-4/10"))),
        (&format!("Range: bytes=2-4\r\nIf-Range: W/{tag}"), whole),
        ("Range: bytes=2-4\r\nIf-Range: \"x\"", whole),
        ("Range: bytes=99-\r\nIf-Range: \"x\"", whole),
        ("Range: bytes=2-4\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT", whole),
        // Another version may have that date.
        (&format!("Range: bytes=2-4\r\nIf-Range: {modified}"), whole),
    ] {
        let answer = server.get("/_frag/files/f", &format!("{fields}\r\n"));
        let body = if answer.status == 416 { String::new() } else { answer.body_text() };
        let range = answer.field("content-range");
        assert_eq!((answer.status, body.as_str(), range.as_deref()), expected, "{fields}");
    }
    assert_eq!(server.get("/_frag/files/f", "Range: bytes=10-\r\n").code(), "range_not_satisfiable");
    let head = server.send("HEAD", "/_frag/files/f", "Range: bytes=2-4\r\n", b"");
    assert_eq!((head.status, head.field("content-length").as_deref()), (200, Some("10")));
    assert_eq!(server.get("/_frag/files/empty", "Range: bytes=0-\r\n").status, 416);
    assert_eq!(server.get("/_frag/files/empty", "Range: bytes=-1\r\n").status, 200);
}

#[test]
fn a_directory_is_listed_as_json() {
    let server = with_files(&[("b.txt", "four"), ("a/inner", ""), (".frag-upload-1-1-0123456789abcdef", "")]);
    std::fs::set_permissions(server.root().join("b.txt"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("nowhere", server.root().join("c")).unwrap();
    nix::unistd::mkfifo(&server.root().join("d"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in ["", "/"] {
        let answer = server.get(&format!("/_frag/files{path}"), "");
        let mut json = answer.json();
        assert_eq!((&json["path"], &json["truncated"]), (&".".into(), &false.into()));
        let entries = json["entries"].as_array_mut().unwrap();
        let kinds: Vec<_> = entries.iter().map(|e| (e["name"].clone(), e["type"].clone())).collect();
        let expected = [("a", "directory"), ("b.txt", "file"), ("c", "symlink"), ("d", "other")];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.into(), kind.into())));
        let file = entries[1].as_object().unwrap();
        assert_eq!(file.keys().collect::<Vec<_>>(), ["bytes", "mode", "modified_ms", "name", "type"]);
        assert_eq!((&file["bytes"], &file["mode"]), (&4.into(), &"640".into()));
        assert!(file["modified_ms"].as_u64().unwrap() > 1_600_000_000_000);
    }
    for path in ["a", "a/"] {
        let json = server.get(&format!("/_frag/files/{path}"), "").json();
        assert_eq!((&json["path"], &json["entries"][0]["name"]), (&"a".into(), &"inner".into()));
    }
    let head = server.send("HEAD", "/_frag/files/", "", b"");
    assert!(head.status == 200 && head.field("content-length").unwrap() != "0");
}

#[test]
fn deleting_takes_files_links_and_empty_directories() {
    let server = with_files(&[("f", ""), ("full/inner", "kept"), ("target", "kept")]);
    std::fs::create_dir(server.root().join("empty")).unwrap();
    symlink("target", server.root().join("link")).unwrap();
    for (path, status, code) in [
        ("f", 204, ""),
        ("f", 404, "not_found"),
        ("link", 204, ""),
        ("empty/", 204, ""),
        ("full", 409, "not_empty"),
        ("target/below", 409, "not_a_directory"),
        ("", 400, "path_invalid"),
    ] {
        let answer = server.send("DELETE", &format!("/_frag/files/{path}"), "", b"");
        assert_eq!(answer.status, status, "{path}");
        if status == 204 {
            assert!(answer.body.is_empty() && answer.rest.is_empty());
        } else {
            assert_eq!(answer.code(), code, "{path}");
        }
    }
    let left = [("full/", ""), ("full/inner", "kept"), ("target", "kept")];
    assert_eq!(tree(server.root()), left.map(|(n, t)| (n.to_owned(), t.to_owned())).into());
}

#[test]
fn paths_that_are_no_plain_names_are_refused_and_touch_nothing() {
    let server = with_files(&[("a/b", "inside")]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "theirs").unwrap();
    let absolute = outside.path().join("secret").to_str().unwrap().to_owned();
    let climb = format!("{}{}", "..%2f".repeat(20), &absolute[1..]);
    let before = tree(server.root());
    for path in [
        "..",
        "../secret",
        "a/../../secret",
        "a/../b",
        "./a",
        "a/.",
        "%2e%2e/secret",
        ".%2E/secret",
        "%2e%2e%2fsecret",
        "..%2fsecret",
        "a%2fb",
        &absolute,
        &absolute.replace('/', "%2f"),
        &climb,
        "/a/b",
        "a//b",
        "..\\secret",
        "..%5csecret",
        "a%5cb",
        "a%00",
        "%00",
        "a/b%00.txt",
        "a%",
        "a%2",
        "a%zz",
        "a/%252e%252e/..",
        "%252e%252e/secret",
        "%252e%252e%252fx",
        "..%25252fsecret",
        "a%255cb",
        &format!("{}x", "d/".repeat(64)),
        &"n".repeat(256),
        &"n".repeat(4096),
        &"nnnnnnn/".repeat(512)[..4095],
        ".frag-upload-1-1-1",
        "a/%2efrag-upload-x",
    ] {
        for (what, answer) in touch(&server, path) {
            assert_eq!(answer.status, 400, "{what} {path}");
            assert_eq!(answer.code(), "path_invalid", "{what} {path}");
            assert!(answer.body.len() < 300, "{what} {path}");
        }
    }
    assert_eq!(tree(server.root()), before);
    assert_eq!(std::fs::read(&absolute).unwrap(), b"theirs");
}

#[test]
fn odd_names_are_decoded_once_and_stay_inside() {
    let server = idle(&[]);
    for (path, name) in [
        ("a%2520b", "a%20b"),
        ("100%25", "100%"),
        ("...", "..."),
        ("..a", "..a"),
        ("a;b=c", "a;b=c"),
        ("%3Fq%23h", "?q#h"),
        ("a+b", "a+b"),
        ("~", "~"),
        ("-rf", "-rf"),
    ] {
        let answer = server.send("POST", &format!("/_frag/upload/{path}"), "", b"x");
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some(name)), "{path}");
        assert!(server.root().join(name).is_file(), "{path}");
        assert_eq!(server.get(&format!("/_frag/files/{path}"), "").body, b"x", "{path}");
        assert_eq!(server.send("DELETE", &format!("/_frag/files/{path}"), "", b"").status, 204, "{path}");
    }
    assert!(tree(server.root()).is_empty());
}

#[test]
fn links_out_of_the_root_are_not_followed() {
    let server = with_files(&[("a/b", "inside")]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "theirs").unwrap();
    let link = |target: &Path, name: &str| symlink(target, server.root().join(name)).unwrap();
    link(outside.path(), "out");
    link(Path::new("/"), "slash");
    link(Path::new(".."), "up");
    link(Path::new("loop"), "loop");
    link(Path::new("a"), "inside");
    link(&server.root().join("a"), "absolute");
    for path in ["out/secret", "out/new", "out/new/deep", "slash/etc/passwd", "up/x", "loop/x", "absolute/b"]
    {
        for (what, answer) in touch(&server, path) {
            let expected = (403, "outside_root".to_owned());
            assert_eq!((answer.status, answer.code()), expected, "{what} {path}");
        }
    }
    let root_list = server.get("/_frag/files/out/", "");
    assert_eq!((root_list.status, root_list.code()), (403, "outside_root".into()));
    assert_eq!(server.get("/_frag/files/inside/b", "").body, b"inside", "one that stays inside is followed");
    assert_eq!(tree(outside.path()), BTreeMap::from([("secret".to_owned(), "theirs".to_owned())]));
}

#[test]
fn what_stands_in_the_way_has_its_own_error() {
    let server = with_files(&[("dir/inner", "kept"), ("file", "kept")]);
    nix::unistd::mkfifo(&server.root().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let before = tree(server.root());
    for (method, target, status, code) in [
        ("POST", "upload/dir", 409, "is_directory"),
        ("POST", "upload/dir/", 400, "path_invalid"),
        ("POST", "upload/", 400, "path_invalid"),
        ("POST", "upload/file/", 400, "path_invalid"),
        ("POST", "upload/file/below", 409, "not_a_directory"),
        ("POST", "upload/file/deep/below", 409, "not_a_directory"),
        ("POST", "upload/fifo", 409, "not_a_file"),
        ("GET", "files/fifo", 409, "not_a_file"),
        ("GET", "files/file/", 409, "not_a_directory"),
        ("GET", "files/file/below", 409, "not_a_directory"),
        ("GET", "files/gone", 404, "not_found"),
        ("GET", "files/gone/", 404, "not_found"),
        ("DELETE", "files/dir", 409, "not_empty"),
        ("POST", "upload", 404, "not_found"),
    ] {
        let answer = server.send(method, &format!("/_frag/{target}"), "", b"x");
        assert_eq!((answer.status, answer.code()), (status, code.into()), "{method} {target}");
    }
    assert_eq!(tree(server.root()), before);
}

/// What is mounted somewhere, unmounted on drop.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// None when we may not mount.
    pub(crate) fn at(place: &Path, words: &[&str]) -> Option<Mounted> {
        let mut mount = Command::new("mount");
        mount.args(words).arg(place);
        let mounted = nix::unistd::geteuid().is_root() && mount.output().is_ok_and(|o| o.status.success());
        if !mounted {
            println!("skipped: only root may mount");
        }
        mounted.then(|| Mounted(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A small tmpfs.
struct Tmpfs {
    _mounted: Mounted,
    directory: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(options: &str) -> Option<Tmpfs> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Mounted::at(directory.path(), &["-t", "tmpfs", "-o", options, "none"])?;
        Some(Tmpfs { _mounted: mounted, directory })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A server whose root this is.
    fn serve(&self) -> Server {
        Server::start_with(IDLE, unused_port(), &[], |binary| {
            let flags: Vec<_> = binary.get_args().map(ToOwned::to_owned).collect();
            let at = flags.iter().position(|flag| flag == "--root").unwrap();
            let mut other = Command::new(binary.get_program());
            other.args(&flags[..=at]).arg(self.path()).args(&flags[at + 2..]);
            other.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            *binary = other;
        })
    }
}

#[test]
fn a_full_disk_is_507_and_leaves_nothing() {
    let Some(disk) = Tmpfs::mount("size=64k") else { return };
    let server = disk.serve();
    assert_eq!(server.send("POST", "/_frag/upload/small", "", b"fits").status, 200);
    for path in ["big", "small", "new/big"] {
        let answer = server.send("POST", &format!("/_frag/upload/{path}"), "", &[b'x'; 60_000].repeat(2));
        assert_eq!((answer.status, answer.code()), (507, "no_space".into()), "{path}");
    }
    assert_eq!(tree(disk.path()), BTreeMap::from([("small".to_owned(), "fits".to_owned())]));
    assert_eq!(server.send("POST", "/_frag/upload/small", "", b"again").status, 200, "room again");
}

#[test]
fn a_read_only_file_system_is_said_to_be_one() {
    let Some(disk) = Tmpfs::mount("size=64k") else { return };
    std::fs::write(disk.path().join("f"), "kept").unwrap();
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap();
    assert!(remount.success());
    let server = disk.serve();
    for (method, target) in
        [("POST", "upload/f"), ("PUT", "upload/new"), ("POST", "upload/d/e"), ("DELETE", "files/f")]
    {
        let answer = server.send(method, &format!("/_frag/{target}"), "", b"x");
        assert_eq!(
            (answer.status, answer.code()),
            (409, "read_only_file_system".into()),
            "{method} {target}"
        );
    }
    assert_eq!(server.get("/_frag/files/f", "").body, b"kept");
}
