//! The files of `--viewer-dir`: a front end that was built to be served as it lies there.
use super::fault::Fault;
use super::page::policy;
use crate::api::files::whole_or_part;
use crate::api::html::HTML;
use crate::artifacts::viewer::Page;
use crate::base::hex::hex;
use crate::base::lock::lock;
use crate::files::{FileError, OpenFile, Place, RelativePath, Root, Version};
use crate::http::{Head, Method, Response};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex};

/// Bytes of a page whose scripts we look for; a longer one gets a policy without them.
const PAGE_BYTES: u64 = 8 << 20;
/// Pages we remember; over it all are forgotten.
const PAGES: usize = 32;
const INDEX: &[u8] = b"index.html";
const CATALOG: &str = "/.well-known/api-catalog";

/// A directory of files, each read anew, and of pages, each looked at once.
#[derive(Debug)]
pub(super) struct Folder {
    place: Place,
    /// By the SHA-256 of their content.
    pages: Mutex<HashMap<String, Arc<Page>>>,
    /// The page that shows artifacts, as it was last seen.
    index: Mutex<Option<(Version, Arc<Page>)>>,
}

impl Folder {
    pub(super) fn new(place: Place) -> Folder {
        Folder { place, pages: Mutex::default(), index: Mutex::default() }
    }

    /// The page that shows artifacts, as it is now.
    pub(super) fn index(&self) -> Result<Arc<Page>, Fault> {
        let unreadable = |error: &dyn std::fmt::Display| {
            log::warn!("index.html of the viewer's directory: {error}");
            Fault::Viewer
        };
        let path = RelativePath::parse_file(INDEX).map_err(|error| unreadable(&error))?;
        let root = self.place.root();
        let version = root.version(&path).map_err(|error| unreadable(&error))?;
        if let Some((seen, page)) = &*lock(&self.index)
            && *seen == version
        {
            return Ok(Arc::clone(page));
        }
        let open = root.open_file(&path).map_err(|error| unreadable(&error))?;
        match self.page(&open) {
            Ok(Some(page)) => {
                if version.is_settled() {
                    *lock(&self.index) = Some((version, Arc::clone(&page)));
                }
                Ok(page)
            }
            Ok(None) => Err(unreadable(&format_args!("it is longer than {PAGE_BYTES} bytes"))),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// The page in an open file; none if it is too long to be one.
    fn page(&self, open: &OpenFile) -> std::io::Result<Option<Arc<Page>>> {
        let Some(sha256) = open.etag.sha256().filter(|_| open.bytes <= PAGE_BYTES) else { return Ok(None) };
        if let Some(page) = lock(&self.pages).get(sha256) {
            return Ok(Some(Arc::clone(page)));
        }
        // A second handle on the same file would share its position, hence `&`.
        let mut html = Vec::new();
        let mut from: &File = &open.file;
        from.by_ref().take(PAGE_BYTES).read_to_end(&mut html)?;
        std::io::Seek::rewind(&mut from)?;
        let is_same = hex(&Sha256::digest(&html)) == sha256;
        let page = Arc::new(Page::new(html));
        if !page.takes_payload() {
            log::debug!("a page without </head> takes no payload");
        }
        // Else it changed while we read it.
        if is_same {
            let mut pages = lock(&self.pages);
            if pages.len() >= PAGES {
                pages.clear();
            }
            pages.insert(sha256.to_owned(), Arc::clone(&page));
        }
        Ok(Some(page))
    }

    /// The file of a path without dot segments.
    pub(super) fn serve(&self, head: &Head, path: &str) -> Result<Response, Fault> {
        let (open, name) = find(&self.place.root(), path)?;
        if !matches!(head.method(), Method::Get | Method::Head) {
            return Err(Fault::FileMethod);
        }
        let kind = Kind::of(path, &name);
        let page = if kind.is_page { self.page(&open).map_err(|error| failed(&error))? } else { None };
        let mut response = whole_or_part(head, open, kind.content_type).map_err(Fault::Range)?;
        response = response.with("cache-control", kind.caching);
        if kind.is_page {
            let hashes = page.as_ref().map_or(&[][..], |page| page.script_hashes());
            response = response.with("content-security-policy", policy(None, hashes));
        }
        if kind.is_brotli {
            response = response.with("content-encoding", "br").with("vary", "Accept-Encoding");
        }
        if path == CATALOG {
            let link = "</.well-known/api-catalog>; rel=\"api-catalog\"; type=\"application/linkset+json\"";
            response = response.with("link", link);
        }
        Ok(response)
    }
}

/// The file itself, or the index of the directory, with the name it has.
fn find(root: &Root, path: &str) -> Result<(OpenFile, String), Fault> {
    // No browser sends these as they are, and nothing is decoded.
    if path.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(Fault::NotFound);
    }
    let relative = path.trim_start_matches('/');
    let index = || format!("{relative}/index.html").trim_start_matches('/').to_owned();
    let open = |relative: &str| root.open_file(&as_it_stands(relative)?);
    let open_index = || Ok((open(&index()).map_err(|error| refused(&error))?, index()));
    if path == "/" {
        return open_index();
    }
    if path.starts_with("//") {
        return Err(Fault::NotFound);
    }
    match open(relative) {
        Err(FileError::IsDirectory(_)) => open_index(),
        opened => Ok((opened.map_err(|error| refused(&error))?, relative.to_owned())),
    }
}

/// A path in which `%` is a character like any other.
fn as_it_stands(relative: &str) -> Result<RelativePath, FileError> {
    RelativePath::parse_file(relative.replace('%', "%25").as_bytes())
}

fn failed(error: &dyn std::fmt::Display) -> Fault {
    log::warn!("a file of the viewer's directory: {error}");
    Fault::File
}

fn refused(error: &FileError) -> Fault {
    match error {
        FileError::OutsideRoot(_) | FileError::Denied(_) => Fault::Forbidden,
        FileError::Io { source, .. } => failed(source),
        _ => Fault::NotFound,
    }
}

/// What follows from a file's name.
struct Kind {
    content_type: &'static str,
    caching: &'static str,
    is_page: bool,
    is_brotli: bool,
}

impl Kind {
    fn of(path: &str, name: &str) -> Kind {
        let plain = name.strip_suffix(".br").unwrap_or(name);
        let is_brotli = plain.len() < name.len();
        let extension = plain.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, end)| end);
        let content_type = match extension.map(str::to_ascii_lowercase).as_deref() {
            _ if path == CATALOG => {
                "application/linkset+json; profile=\"https://www.rfc-editor.org/info/rfc9727\""
            }
            Some("html") => HTML,
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("json") => "application/json; charset=utf-8",
            Some("txt") => "text/plain; charset=utf-8",
            Some("yaml" | "yml") => "application/yaml; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("jpg" | "jpeg") => "image/jpeg",
            Some("woff") => "font/woff",
            Some("woff2") => "font/woff2",
            Some("wasm") => "application/wasm",
            _ => "application/octet-stream",
        };
        // Names in there contain a hash of the content; everything else is asked for again.
        let is_lasting = path.starts_with("/_next/static/");
        Kind {
            content_type,
            caching: if is_lasting { "public, max-age=31536000, immutable" } else { "no-cache" },
            is_page: content_type == HTML,
            is_brotli,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pages_are_bounded_in_number_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(Place::open(dir.path().to_owned()).unwrap());
        let index = dir.path().join("index.html");
        for n in 0..2 * PAGES {
            // Another file each time, as a build makes them.
            fs::write(dir.path().join("part"), format!("<script>{n}</script></head>")).unwrap();
            fs::rename(dir.path().join("part"), &index).unwrap();
            let page = folder.index().unwrap();
            assert_eq!(page.script_hashes().len(), 1);
            assert!(String::from_utf8(page.with_payload("x", "n")).unwrap().contains(&format!(">{n}<")));
            assert!(lock(&folder.pages).len() <= PAGES);
        }
        fs::write(&index, vec![b' '; PAGE_BYTES as usize]).unwrap();
        assert!(folder.index().is_ok());
        fs::write(&index, vec![b' '; PAGE_BYTES as usize + 1]).unwrap();
        assert!(matches!(folder.index(), Err(Fault::Viewer)));
        let head = Head::parse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()).unwrap();
        assert_eq!(
            folder.serve(&head, "/").unwrap().status,
            200,
            "as a file it is served, whatever its length"
        );
    }
}
