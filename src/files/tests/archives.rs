//! Archives: every member appears, or none does, whatever the archive is made of.
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo, setfsuid};
use tar::{Builder, EntryType, Header};

use super::*;

const LIMITS: ArchiveOptions = ArchiveOptions { max_bytes: 1 << 20, max_members: 1000 };

/// A header of a member, with its name in raw bytes of at most 100.
fn header(name: &[u8], kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_size(bytes);
    header.set_cksum();
    header
}

/// A member as it stands in an archive.
fn member(name: impl AsRef<[u8]>, kind: EntryType, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(name.as_ref(), kind, data.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    member(name, EntryType::Regular, data)
}

fn directory(name: impl AsRef<[u8]>) -> Vec<u8> {
    member(name, EntryType::Directory, b"")
}

/// Members with the archive's end behind them.
fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

fn unpack_with(root: &Root, base: &str, bytes: &[u8], limits: ArchiveOptions) -> Result<Unpacked, FileError> {
    let base = RelativePath::parse_directory(base.as_bytes()).unwrap();
    root.upload_archive(&base, &mut { bytes }, limits)
}

fn unpack(root: &Root, base: &str, bytes: &[u8]) -> Result<Unpacked, FileError> {
    unpack_with(root, base, bytes, LIMITS)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn members_become_files_with_their_modes() {
    let host = Host::new();
    for (number, root) in host.roots().iter().enumerate() {
        let base = format!("d{number}");
        let mut tool = header(b"./bin//tool", EntryType::Regular, 2);
        tool.set_mode(0o106755);
        tool.set_cksum();
        let mut closed = header(b"closed/", EntryType::Directory, 0);
        closed.set_mode(0o1500);
        closed.set_cksum();
        let tool = [tool.as_bytes().to_vec(), b"#!".to_vec(), vec![0; 510]].concat();
        let long = vec![b'x'; 70_000];
        let all = [
            directory("./"),
            closed.as_bytes().to_vec(),
            tool,
            file("closed/f", b"in"),
            file(b"not-\xff-utf8", b""),
            file("long", &long),
            directory("empty"),
            directory("empty/"),
        ];
        let unpacked = unpack(root, &base, &archive(&all)).unwrap();
        assert_eq!(unpacked, Unpacked { files: 4, bytes: 70_004 });
        let at = |name: &str| host.inside(&base).join(name);
        assert_eq!((fs::read(at("bin/tool")).unwrap(), mode(&at("bin/tool"))), (b"#!".to_vec(), 0o755));
        assert_eq!(fs::read(at("closed/f")).unwrap(), b"in");
        assert_eq!((mode(&at("closed")), mode(&at("closed/f"))), (0o500, 0o640), "set when it was full");
        assert_eq!(fs::read(at("long")).unwrap(), long);
        assert!(at("empty").is_dir());
        assert_eq!(names(&at("")).len(), 5);
        // Once more, over it: files are replaced, directories keep their modes.
        fs::set_permissions(at("empty"), fs::Permissions::from_mode(0o700)).unwrap();
        unpack(root, &base, &archive(&[directory("empty"), file("long", b"short")])).unwrap();
        assert_eq!((fs::read(at("long")).unwrap(), mode(&at("empty"))), (b"short".to_vec(), 0o700));
        assert_eq!(names(&at("")).len(), 5, "nothing hidden stays");
    }
    host.assert_outside_untouched();
}

#[test]
fn only_directories_that_change_have_to_be_writable() {
    let host = Host::new();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root becomes somebody else");
        return;
    }
    fs::create_dir(host.inside("data")).unwrap();
    chown(host.inside("data"), Some(12345), Some(12345)).unwrap();
    fs::set_permissions(host.inside(""), fs::Permissions::from_mode(0o755)).unwrap();
    let members = [directory("data"), file("data/a", b"1"), file("data/new/b", b"2")];
    for root in host.roots() {
        std::thread::scope(|scope| {
            // Of this thread alone.
            scope.spawn(|| {
                setfsuid(Uid::from_raw(12345));
                unpack(&root, "", &archive(&members)).unwrap();
                let both = [file("data/a", b"3"), file("a", b"3")];
                assert_eq!(code(unpack(&root, "", &archive(&both))), "denied");
            });
        });
        assert_eq!(fs::read(host.inside("data/a")).unwrap(), b"1");
        assert_eq!(fs::read(host.inside("data/new/b")).unwrap(), b"2");
        assert_eq!((names(&host.inside("")).len(), names(&host.inside("data")).len()), (1, 2));
        fs::remove_dir_all(host.inside("data/new")).unwrap();
        fs::remove_file(host.inside("data/a")).unwrap();
    }
}

#[test]
fn long_names_come_by_gnu_pax_and_ustar() {
    let host = Host::new();
    let root = host.root();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let gnu =
        [member("././@LongLink", EntryType::GNULongName, format!("{long}\0").as_bytes()), file("cut", b"1")];
    unpack(&root, "gnu", &archive(&gnu)).unwrap();
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        format!("{length}{rest}")
    };
    // A value may hold anything, line ends and what looks like a record included.
    let odd = record("SCHILY.xattr.user.x", "one\n\n9 path=x\ntwo=\n");
    let records = format!("{}{odd}{}{}", record("mtime", "1.5"), record("path", &long), record("size", "1"));
    let global = member("g", EntryType::XGlobalHeader, record("comment", "0123").as_bytes());
    let pax = [global, member("x", EntryType::XHeader, records.as_bytes()), file("cut", b"2")];
    unpack(&root, "pax", &archive(&pax)).unwrap();
    let mut builder = Builder::new(Vec::new());
    let mut ustar = Header::new_ustar();
    let shorter = format!("{}/{}", "d".repeat(120), "f".repeat(90));
    ustar.set_path(&shorter).unwrap();
    ustar.set_size(1);
    ustar.set_mode(0o644);
    ustar.set_cksum();
    builder.append(&ustar, &b"3"[..]).unwrap();
    unpack(&root, "ustar", &builder.into_inner().unwrap()).unwrap();
    for (base, name, contents) in [("gnu", &long, "1"), ("pax", &long, "2"), ("ustar", &shorter, "3")] {
        assert_eq!(fs::read_to_string(host.inside(base).join(name)).unwrap(), contents, "{base}");
    }
    for (records, what) in [
        (record("size", "2"), "two sizes"),
        (record("size", "-1"), "no number"),
        (record("GNU.sparse.major", "1"), "sparse"),
        ("7 path=x\n".to_owned(), "malformed"),
        ("\n".to_owned(), "malformed"),
        ("9 path=x".to_owned(), "malformed"),
        ("11 path=x\n".to_owned(), "malformed"),
        ("3 \n".to_owned(), "malformed"),
        ("5 =x\n".to_owned(), "malformed"),
        ("7 path\n".to_owned(), "malformed"),
        ("+9 path=x\n".to_owned(), "malformed"),
        ("99999999999999999999 path=x\n".to_owned(), "malformed"),
        (format!("{}\n{}", record("path", "a"), record("path", "b")), "malformed"),
        (format!("{}{}", record("path", "a"), record("path", "b")), "two pax names"),
    ] {
        let bad = [member("x", EntryType::XHeader, records.as_bytes()), file("f", b"2")];
        let error = unpack(&root, "bad", &archive(&bad)).unwrap_err();
        assert!(error.to_string().contains(what), "{records}: {error}");
    }
    let global = member("g", EntryType::XGlobalHeader, record("path", "everywhere").as_bytes());
    assert_eq!(code(unpack(&root, "bad", &archive(&[global, file("f", b"")]))), "archive_invalid");
    assert!(!host.inside("bad").exists());
}

#[test]
fn nothing_is_left_of_an_archive_with_one_bad_member() {
    use EntryType as T;
    let host = Host::new();
    fs::write(host.inside("kept"), "before").unwrap();
    fs::write(host.inside("other"), "").unwrap();
    fs::create_dir(host.inside("dir")).unwrap();
    mkfifo(&host.inside("fifo"), Mode::S_IRUSR).unwrap();
    symlink("../outside", host.inside("out")).unwrap();
    let deep = "a/".repeat(MAX_DEPTH) + "f";
    let longname = |name: &str| member("././@LongLink", T::GNULongName, name.as_bytes());
    let huge = |kind| header(b"x", kind, 4 << 30).as_bytes().to_vec();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("a hard link", "member_refused", member("l", T::Link, b"")),
        ("a symbolic link", "member_refused", member("l", T::Symlink, b"")),
        ("a character device", "member_refused", member("l", T::Char, b"")),
        ("a block device", "member_refused", member("l", T::Block, b"")),
        ("a FIFO", "member_refused", member("l", T::Fifo, b"")),
        ("a sparse file", "member_refused", member("l", T::GNUSparse, b"")),
        ("a contiguous file", "member_refused", member("l", T::Continuous, b"")),
        ("a volume label", "member_refused", member("l", T::new(b'V'), b"")),
        ("a piece of a file", "member_refused", member("l", T::new(b'M'), b"")),
        ("an unknown type", "member_refused", member("l", T::new(b'Z'), b"")),
        ("an absolute name", "member_refused", file("/etc/passwd", b"")),
        ("the way up", "member_refused", file("../outside/f", b"")),
        ("the way up, further down", "member_refused", file("a/../../outside/f", b"")),
        ("no name", "member_refused", file("", b"")),
        ("only dots", "member_refused", file("./.", b"")),
        ("a backslash", "member_refused", file("a\\b", b"")),
        ("a hidden name", "member_refused", file("a/.frag-upload-1", b"")),
        ("an encoded way up", "member_refused", file("%2e%2e/x", b"")),
        ("a file called a directory", "member_refused", file("a/", b"")),
        ("a directory with data", "member_refused", member("a/", T::Directory, b"x")),
        ("a name twice", "member_refused", [file("a", b"1"), file("./a", b"2")].concat()),
        ("a file, then below it", "member_refused", [file("a", b"1"), file("a/b", b"2")].concat()),
        ("a directory, then a file", "member_refused", [file("a/b", b"1"), file("a", b"2")].concat()),
        ("a file, then a directory", "member_refused", [file("a", b"1"), directory("a")].concat()),
        ("too deep", "member_refused", [longname(&deep), file("x", b"")].concat()),
        ("a long name", "member_refused", [longname(&"n".repeat(256)), file("x", b"")].concat()),
        ("NUL inside a name", "member_refused", [longname("a\0b"), file("x", b"")].concat()),
        ("two long names", "archive_invalid", [longname("a"), longname("b"), file("x", b"")].concat()),
        ("a 4 GiB long name", "archive_invalid", huge(T::GNULongName)),
        ("a 4 GiB link name", "archive_invalid", huge(T::GNULongLink)),
        ("4 GiB of pax records", "archive_invalid", huge(T::XHeader)),
        ("4 GiB of global records", "archive_invalid", huge(T::XGlobalHeader)),
        ("a 4 GiB file", "too_large", huge(T::Regular)),
        ("a 4 GiB directory", "member_refused", huge(T::Directory)),
        ("headers without end", "archive_invalid", member("g", T::XGlobalHeader, b"").repeat(100)),
        ("no archive", "archive_invalid", vec![b'x'; 1024]),
        ("a wrong sum", "archive_invalid", {
            let mut wrong = file("a", b"");
            wrong[0] = b'b';
            wrong
        }),
        ("a directory in the way", "is_directory", file("dir", b"")),
        ("a file in the way", "not_a_directory", file("other/f", b"")),
        ("a directory over a file", "not_a_directory", directory("other")),
        ("a FIFO in the way", "not_a_file", file("fifo", b"")),
        ("a link that leads out", "outside_root", file("out/f", b"")),
        ("a directory over such a link", "outside_root", directory("out")),
    ];
    for root in host.roots() {
        for (what, expected, bad) in &cases {
            let bytes = archive(&[file("first", b"1"), file("kept", b"after"), bad.clone(), file("z", b"")]);
            let error = unpack(&root, "", &bytes).unwrap_err();
            assert_eq!(error.code(), *expected, "{what}: {error}");
            assert_eq!(names(&host.inside("")), ["dir", "fifo", "kept", "other", "out"], "{what}");
            assert_eq!(fs::read(host.inside("kept")).unwrap(), b"before", "{what}");
        }
    }
    assert!(fs::metadata(host.inside("fifo")).unwrap().file_type().is_fifo());
    host.assert_outside_untouched();
}

#[test]
fn an_archive_that_ends_early_leaves_nothing_wherever_it_is_cut() {
    let host = Host::new();
    let root = host.root();
    let whole = archive(&[file("a", &[b'x'; 1000]), directory("d"), file("d/b", b"y")]);
    let members = whole.len() - 1024;
    for cut in 0..=members {
        if cut % 512 < 2 {
            assert_eq!(code(unpack(&root, "new", &whole[..cut])), "archive_invalid", "cut at {cut}");
            let broken = &mut whole[..cut].chain(CutBody { left: 0 });
            let base = path("new");
            let error = root.upload_archive(&base, broken, LIMITS).unwrap_err();
            assert_eq!(error.code(), "body_incomplete", "broken at {cut}");
            assert_eq!(names(&host.inside("")).len(), 0, "cut at {cut}");
        }
    }
    assert_eq!(code(unpack(&root, "new", &[&whole[..], b"x"].concat())), "archive_invalid");
    assert_eq!(code(unpack(&root, "new", &[whole.clone(), vec![0; 1 << 20]].concat())), "archive_invalid");
    assert_eq!(names(&host.inside("")).len(), 0);
    let nobody = member("././@LongLink", EntryType::GNULongName, b"a");
    assert_eq!(code(unpack(&root, "new", &archive(&[nobody]))), "archive_invalid", "a name for nobody");
    unpack(&root, "new", &[&whole[..], &[0; 9000]].concat()).unwrap();
    assert_eq!(names(&host.inside("new")), ["a", "d"]);
    assert_eq!(unpack(&root, "empty", &archive(&[])).unwrap(), Unpacked { files: 0, bytes: 0 });
    assert!(host.inside("empty").is_dir(), "an empty archive is an empty directory");
}

#[test]
fn every_limit_of_an_archive_holds_on_both_sides() {
    let host = Host::new();
    let root = host.root();
    let files = |count: usize| (0..count).map(|n| file(format!("f{n}"), b"xy")).collect::<Vec<_>>();
    let limits = ArchiveOptions { max_bytes: 20, max_members: 10 };
    let roomy = ArchiveOptions { max_bytes: 100, ..limits };
    assert_eq!(code(unpack_with(&root, "a", &archive(&files(11)), roomy)), "too_many_members");
    let bytes = ArchiveOptions { max_bytes: 19, ..limits };
    assert_eq!(code(unpack_with(&root, "a", &archive(&files(10)), bytes)), "too_large");
    // Directories count, told or implied.
    let implied = |depth: usize| archive(&[file("d/".repeat(depth) + "f", b"")]);
    assert_eq!(code(unpack_with(&root, "a", &implied(10), limits)), "too_many_members");
    let told: Vec<_> = (0..11).map(|n| directory(format!("d{n}"))).collect();
    assert_eq!(code(unpack_with(&root, "a", &archive(&told), limits)), "too_many_members");
    // 256 bytes a path on average.
    let long = |length: usize| {
        let name = format!("{}/{}", "d".repeat(255), "n".repeat(length - 256));
        let longname = member("././@LongLink", EntryType::GNULongName, name.as_bytes());
        archive(&[longname, file("x", b"")])
    };
    let two = ArchiveOptions { max_bytes: 0, max_members: 2 };
    assert_eq!(code(unpack_with(&root, "", &long(258), two)), "too_many_members");
    assert!(!host.inside("a").exists());
    unpack_with(&root, "a", &archive(&files(10)), limits).unwrap();
    unpack_with(&root, "b", &implied(9), limits).unwrap();
    unpack_with(&root, "", &long(257), two).unwrap();
}

#[test]
fn more_members_than_descriptors_leave_nothing_hidden() {
    let host = Host::new();
    for (number, root) in host.roots().iter().enumerate() {
        let base = format!("d{number}");
        let files: Vec<_> =
            (0..300).map(|n| file(format!("d{}/f{n}", n % 7), n.to_string().as_bytes())).collect();
        for _ in 0..2 {
            assert_eq!(unpack(root, &base, &archive(&files)).unwrap().files, 300);
        }
        assert_eq!(names(&host.inside(&base)).len(), 7);
        let all = (0..300).all(|n| {
            let name = host.inside(&base).join(format!("d{}/f{n}", n % 7));
            fs::read_to_string(name).unwrap() == n.to_string()
        });
        assert!(all);
        let inside: usize = (0..7).map(|n| names(&host.inside(&base).join(format!("d{n}"))).len()).sum();
        assert_eq!(inside, 300);
        // A failure at the end removes them, too.
        let bad = [files.concat(), file("..", b"")].concat();
        assert_eq!(code(unpack(root, "bad", &archive(&[bad]))), "member_refused");
        assert!(!host.inside("bad").exists());
    }
    assert_eq!(names(&host.inside("")), ["d0", "d1", "d2", "d3"]);
}

#[test]
fn a_tree_is_listed_with_its_sums() {
    let host = Host::new();
    let root = host.root();
    fs::create_dir_all(host.inside("top/a/b")).unwrap();
    fs::create_dir_all(host.inside("top/skip/below")).unwrap();
    for name in ["top/f", "top/a/f", "top/a/b/f", "top/skip/f", "top/.frag-upload-1"] {
        fs::write(host.inside(name), "abc").unwrap();
    }
    symlink("../../outside", host.inside("top/link")).unwrap();
    let tree = |limit, sums| root.tree(&path("top"), limit, &["skip"], sums).unwrap();
    let all = tree(6, true);
    let paths: Vec<&str> = all.entries.iter().map(|found| &*found.path).collect();
    assert_eq!(paths, ["a", "a/b", "a/b/f", "a/f", "f", "link"]);
    assert!(!all.truncated);
    let sums = |tree: &Tree| tree.entries.iter().filter(|found| found.sha256.is_some()).count();
    assert_eq!((sums(&all), sums(&tree(6, false))), (3, 0));
    assert_eq!(all.entries[5].entry.kind, Kind::Symlink);
    let cut = tree(5, false);
    assert_eq!((cut.entries.len(), cut.truncated), (5, true));
    // What is left out takes no place, however much of it there is.
    let left_out: Vec<String> = (0..50).map(|n| format!("x{n}")).collect();
    for name in ["f0", "f1", "f2"].into_iter().chain(left_out.iter().map(String::as_str)) {
        fs::create_dir_all(host.inside("many")).unwrap();
        fs::write(host.inside("many").join(name), "").unwrap();
    }
    let except: Vec<&str> = left_out.iter().map(String::as_str).collect();
    for (limit, truncated) in [(2, true), (3, false)] {
        let tree = root.tree(&path("many"), limit, &except, false).unwrap();
        assert_eq!((tree.entries.len(), tree.truncated), (limit, truncated));
    }
    assert_eq!(code(root.tree(&path("absent"), 9, &[], true)), "not_found");
    assert_eq!(code(root.tree(&path("top/f"), 9, &[], true)), "not_a_directory");
}
