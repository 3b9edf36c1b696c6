//! Files from outside: bounded, and with errors that name file, expectation and finding.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bkss_ledger::GenesisError;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path}: {found} bytes, at most {limit} are expected")]
    TooLong { path: PathBuf, found: u64, limit: u64 },
    #[error("{path}: {source}")]
    Genesis { path: PathBuf, source: GenesisError },
    #[error("{path}: expected files *.receipt in this directory, found none")]
    NoReceipt { path: PathBuf },
}

/// Reads a file of at most `limit` bytes; a longer one is refused without being read.
///
/// # Errors
///
/// [`FileError::Unreadable`] or [`FileError::TooLong`].
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let too_long = |found| FileError::TooLong { path: path.to_owned(), found, limit };
    let file = File::open(path).map_err(unreadable(path))?;
    let length = file.metadata().map_err(unreadable(path))?.len();
    if length > limit {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    // A file may grow while it is read, and a pipe has no length.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable(path))?;
    let length = bytes.len() as u64;
    if length > limit { Err(too_long(length)) } else { Ok(bytes) }
}

/// Names the file that cannot be read.
pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> FileError + '_ {
    |source| FileError::Unreadable { path: path.to_owned(), source }
}
