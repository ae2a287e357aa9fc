//! Files below one root directory: uploads, downloads, listings, deletion.
//!
//! `path` turns bytes from a URL into names; `root` is the only place that opens them, and no
//! operation leaves the root, whatever links the workload plants or swaps. Knows nothing of HTTP.
#[cfg(feature = "archive")]
mod archive;
mod condition;
mod directory;
mod download;
mod entered;
mod error;
mod etag;
mod path;
mod place;
mod range;
mod root;
mod sink;
mod stage;
mod sweep;
#[cfg(feature = "archive")]
mod tree;
mod upload;

#[cfg(test)]
mod tests;

#[cfg(feature = "archive")]
pub use archive::{ArchiveOptions, DESCRIPTORS as ARCHIVE_DESCRIPTORS, Unpacked};
pub use condition::{Conditions, Versions};
pub use directory::{Entry, Kind, Listing};
pub use download::{OpenFile, Version};
pub use entered::Entered;
pub use error::FileError;
pub use etag::{Etag, HASHED_UP_TO_BYTES};
pub use path::{MAX_DEPTH, MAX_NAME_BYTES, MAX_PATH_BYTES, RelativePath};
pub use place::Place;
pub use range::{RangeResult, parse_range};
pub use root::{Owner, Root};
#[cfg(feature = "archive")]
pub use tree::{Found, Tree};
pub use upload::{UploadOptions, Uploaded};
