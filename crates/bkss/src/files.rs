//! Files: read with a bound, written whole, and with errors that name file, expectation and finding.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bkss_ledger::TrustError;
use bkss_scheme::{Digest, Malformed, hash};

use crate::{
    explain::{Details, Explain},
    text::shown_path,
};

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{}: {source}", shown_path(path))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {found} bytes, at most {limit} are expected", shown_path(path))]
    TooLong { path: PathBuf, found: u64, limit: u64 },
    #[error("{}: {}", shown_path(path), not_written(source))]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{}: {source}", shown_path(path))]
    Malformed { path: PathBuf, source: Box<Malformed> },
    #[error(
        "{}: empty, expected content and its checksum: the file was altered or cut",
        shown_path(path)
    )]
    Empty { path: PathBuf },
    #[error(
        "{}: expected checksum {expected}, found {found}: the file was altered or cut",
        shown_path(path)
    )]
    Checksum { path: PathBuf, expected: Digest, found: Digest },
    #[error("{}: {source}", shown_path(path))]
    Genesis { path: PathBuf, source: Box<TrustError> },
    #[error("{}: directory is not empty", shown_path(.0))]
    NotEmpty(PathBuf),
    #[error("{}: expected files *.receipt in this directory, found none", shown_path(path))]
    NoReceipt { path: PathBuf },
}

impl Explain for FileError {
    fn explain(&self) -> Details {
        let malformed = |path| Details::new("malformed").file(path);
        match self {
            Self::Unreadable { path, .. } | Self::NoReceipt { path } => {
                Details::new("unreadable").file(path)
            }
            Self::TooLong { path, found, limit } => {
                malformed(path).expected(format!("at most {limit} bytes"), format!("{found} bytes"))
            }
            Self::Unwritable { path, .. } | Self::NotEmpty(path) => {
                Details::new("unwritable").file(path)
            }
            Self::Malformed { path, .. } | Self::Empty { path } | Self::Genesis { path, .. } => {
                malformed(path)
            }
            Self::Checksum { path, expected, found } => malformed(path).expected(expected, found),
        }
    }
}

fn not_written(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AlreadyExists => "exists and is not overwritten".into(),
        _ => source.to_string(),
    }
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

/// Names the file that cannot be written.
pub(crate) fn unwritable(path: &Path) -> impl Fn(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError::Unwritable { path: path.clone(), source }
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readers {
    /// Whoever may enter the directory.
    All,
    /// Its owner: it holds secrets.
    Owner,
}

/// The permissions of a file that holds secrets, if others than its owner may read or write it.
pub(crate) fn open_to_others(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Writes a file that must not exist yet; it is on the disk when this returns.
///
/// # Errors
///
/// [`FileError::Unwritable`], also if there is a file: it is not overwritten.
pub(crate) fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let written = open(&mut options, path, readers).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| sync_parent(path)).map_err(unwritable(path))
}

/// Writes a file under a temporary name and then gives it its own: a crash leaves the file as it
/// was or as it is to be.
///
/// # Errors
///
/// [`FileError::Unwritable`].
pub(crate) fn replace(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), FileError> {
    let partial = path.with_extension("partial");
    // What a crash left there; its permissions may be others.
    let _ = std::fs::remove_file(&partial);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let written = open(&mut options, &partial, readers).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    });
    written.and_then(|()| sync_parent(path)).map_err(unwritable(path))
}

fn open(options: &mut OpenOptions, path: &Path, readers: Readers) -> io::Result<File> {
    #[cfg(unix)]
    if readers == Readers::Owner {
        std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    }
    options.open(path)
}

/// A new name is on the disk once its directory is.
///
/// # Errors
///
/// Those of the directory.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Makes a directory, or takes it if it is empty, and fills it. Where that fails nothing is left of it
/// that was not there before, so that the same command can be tried again.
///
/// # Errors
///
/// [`FileError::NotEmpty`] or [`FileError::Unwritable`], and those of `fill`.
pub(crate) fn fill_directory<T, E: From<FileError>>(
    path: &Path,
    readers: Readers,
    fill: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let was_there = path.exists();
    empty_directory(path, readers)?;
    // Another command that fills it meanwhile must not find its files gone.
    let lock = File::open(path).map_err(unreadable(path))?;
    lock.try_lock().map_err(|error| unwritable(path)(error.into()))?;
    empty_directory(path, readers)?;
    let filled = fill();
    if filled.is_err() {
        clear(path, was_there);
    }
    filled
}

/// Removes what is in a directory that was empty, and the directory unless it was there.
fn clear(path: &Path, was_there: bool) {
    // What cannot be removed stays, and the next try says that the directory is not empty.
    if !was_there {
        let _ = std::fs::remove_dir_all(path);
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
}

/// Makes a directory, or takes it if it is empty.
///
/// # Errors
///
/// [`FileError::NotEmpty`] or [`FileError::Unwritable`].
pub(crate) fn empty_directory(path: &Path, readers: Readers) -> Result<(), FileError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(FileError::NotEmpty(path.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(unwritable(path))?;
        }
        Err(source) => return Err(unreadable(path)(source)),
    }
    #[cfg(unix)]
    if readers == Readers::Owner {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, mode).map_err(unwritable(path))?;
    }
    Ok(())
}

/// Appends the digest of what is in a file, so that a change of it is noticed.
pub(crate) fn add_checksum(bytes: &mut Vec<u8>) {
    let digest = hash::plain(bytes);
    bytes.extend(digest.0);
}

/// What is in front of the checksum of a file.
///
/// # Errors
///
/// [`FileError::Checksum`].
pub(crate) fn check<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], FileError> {
    if bytes.is_empty() {
        return Err(FileError::Empty { path: path.to_owned() });
    }
    let (content, found) = bytes.split_at(bytes.len().saturating_sub(32));
    let expected = hash::plain(content);
    if expected.0 == *found {
        return Ok(content);
    }
    let mut digest = [0; 32];
    digest[..found.len()].copy_from_slice(found);
    Err(FileError::Checksum { path: path.to_owned(), expected, found: Digest(digest) })
}

/// Names the file whose content is not what it should be.
pub(crate) fn malformed(path: &Path) -> impl FnOnce(Malformed) -> FileError + '_ {
    |source| FileError::Malformed { path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_fill_one_directory_at_once_leave_one_anothers_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let second =
            || fill_directory(&path, Readers::All, || -> Result<(), FileError> { panic!() });
        let first = fill_directory(&path, Readers::All, || {
            assert!(second().is_err(), "the directory is empty still");
            write_new(&path.join("a"), b"1", Readers::All)?;
            assert!(second().is_err(), "it is not empty any more");
            write_new(&path.join("b"), b"2", Readers::All)
        });
        assert!(first.is_ok());
        let mut names: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_fails_leaves_a_directory_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        for was_there in [false, true] {
            let path = dir.path().join(was_there.to_string());
            if was_there {
                std::fs::create_dir(&path).unwrap();
            }
            let failed = fill_directory(&path, Readers::All, || {
                write_new(&path.join("a"), b"1", Readers::All)?;
                std::fs::create_dir(path.join("b")).unwrap();
                Err::<(), _>(FileError::NotEmpty(path.clone()))
            });
            assert!(failed.is_err());
            assert_eq!(path.exists(), was_there);
            assert!(!was_there || path.read_dir().unwrap().next().is_none());
        }
    }
}
