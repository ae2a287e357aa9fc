//! How a copy from the wrapped server, or a file, to the client failed.
use std::io;

/// Which side of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// The source.
    Read(io::Error),
    /// The client.
    Write(io::Error),
}

impl CopyError {
    /// The error, whichever side it came from.
    pub fn into_io(self) -> io::Error {
        match self {
            CopyError::Read(error) | CopyError::Write(error) => error,
        }
    }
}
