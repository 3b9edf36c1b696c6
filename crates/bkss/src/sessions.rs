//! The log of the sessions that a provider's meters sealed their readings in.
//!
//! `sessions/000001.bkss`, `000002.bkss`, ..: segments of bounded length, one session after the
//! other, in the order in which their bodies became final. Only the newest is appended to; the ones
//! before it were on the disk, whole, before the next began. The log follows from the final blocks
//! and can be written again. A session holds no secret: its bytes are on the ledger.

mod segment;

#[cfg(test)]
pub(crate) use segment::parse;
pub(crate) use segment::{End, Session};

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bkss_scheme::{LinkIndex, MeterId, codec, seal::KeyId};

use crate::{
    explain::{Details, Explain},
    files::{self, FileError, unreadable, unwritable},
};
use segment::{MAX_RECORD, Record, read};

/// Most bytes of a segment: over a million sessions.
const SEGMENT: u64 = 64 << 20;

/// Why sessions cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: expected a session at byte {offset}, found something else")]
    Damaged { path: PathBuf, offset: u64 },
    #[error("{path}: made by an older version, which this one does not read; expected sessions/")]
    Older { path: PathBuf },
}

impl Explain for SessionsError {
    fn explain(&self) -> Details {
        match self {
            Self::File(error) => error.explain(),
            Self::Damaged { path, .. } | Self::Older { path } => {
                Details::new("malformed").file(path)
            }
        }
    }
}

/// The log, opened to be appended to.
pub(crate) struct Sessions {
    dir: PathBuf,
    /// Number, path and length of the newest segment.
    number: u32,
    path: PathBuf,
    length: u64,
    file: File,
    /// Most bytes of a segment.
    limit: u64,
}

impl Sessions {
    /// Opens the log of a provider's directory, or starts it. Of the segments the newest is read; a
    /// session that a power cut tore is cut off.
    ///
    /// # Errors
    ///
    /// [`SessionsError`], also if there is something else than sessions in it.
    pub(crate) fn open(dir: &Path) -> Result<Self, SessionsError> {
        Self::open_with(dir, SEGMENT)
    }

    fn open_with(dir: &Path, limit: u64) -> Result<Self, SessionsError> {
        let segments = segments(dir)?;
        let dir = dir.join("sessions");
        let (number, path) = match segments.last() {
            Some((number, path)) => (*number, path.clone()),
            None => {
                fs::create_dir_all(&dir).map_err(unwritable(&dir))?;
                (1, segment(&dir, 1))
            }
        };
        let file = append_to(&path)?;
        let length = whole_length(&path, limit)?;
        let found = file.metadata().map_err(unreadable(&path))?.len();
        if length < found {
            file.set_len(length).and_then(|()| file.sync_all()).map_err(unwritable(&path))?;
        }
        Ok(Self { dir, number, path, length, file, limit })
    }

    /// Appends the session of `meter` that the body with link `index` introduces.
    ///
    /// # Errors
    ///
    /// [`SessionsError::File`].
    pub(crate) fn append(
        &mut self,
        meter: MeterId,
        index: LinkIndex,
        key: KeyId,
        encapsulated: &[u8; 32],
    ) -> Result<(), SessionsError> {
        let session = Session { meter, index: index.get(), key, encapsulated: *encapsulated };
        let mut bytes = Vec::with_capacity(MAX_RECORD);
        codec::encode_infallible(&Record::of(session), &mut bytes);
        if self.length + bytes.len() as u64 > self.limit {
            self.begin_next()?;
        }
        self.file.write_all(&bytes).map_err(unwritable(&self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins the next segment. The one before is on the disk first: only the newest may be torn.
    fn begin_next(&mut self) -> Result<(), SessionsError> {
        self.file.sync_all().map_err(unwritable(&self.path))?;
        self.number += 1;
        self.path = segment(&self.dir, self.number);
        self.file = append_to(&self.path)?;
        self.length = 0;
        Ok(())
    }

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    ///
    /// [`SessionsError::File`].
    pub(crate) fn sync(&self) -> Result<(), SessionsError> {
        Ok(self.file.sync_data().map_err(unwritable(&self.path))?)
    }
}

/// Shows all sessions of a directory, in the order in which their bodies became final, one segment
/// after the other. The node may be appending meanwhile.
///
/// # Errors
///
/// [`SessionsError`], the first; what can be read of the other segments is shown nevertheless. A
/// torn last session of the newest is none, it is left out.
pub(crate) fn each(dir: &Path, visit: impl FnMut(Session)) -> Result<(), SessionsError> {
    each_with(dir, SEGMENT, visit)
}

fn each_with(dir: &Path, limit: u64, mut visit: impl FnMut(Session)) -> Result<(), SessionsError> {
    let segments = segments(dir)?;
    let mut outcome = Ok(());
    for (age, (_, path)) in (0..segments.len()).rev().zip(&segments) {
        let shown = show(path, age == 0, limit, &mut visit);
        outcome = outcome.and(shown);
    }
    outcome
}

/// The newest sessions of a directory, at most `count` of the two newest segments, oldest first.
///
/// # Errors
///
/// [`SessionsError`], as for [`each`].
pub(crate) fn newest(dir: &Path, count: usize) -> Result<VecDeque<Session>, SessionsError> {
    newest_with(dir, SEGMENT, count)
}

fn newest_with(dir: &Path, limit: u64, count: usize) -> Result<VecDeque<Session>, SessionsError> {
    let mut found = VecDeque::new();
    for (age, (_, path)) in segments(dir)?.into_iter().rev().take(2).enumerate() {
        let (mut sessions, room) = (VecDeque::new(), count - found.len());
        show(&path, age == 0, limit, |session| {
            sessions.push_back(session);
            if sessions.len() > room {
                sessions.pop_front();
            }
        })?;
        sessions.append(&mut found);
        found = sessions;
    }
    Ok(found)
}

/// Shows the sessions of a segment; of the newest one the last may be torn.
fn show(
    path: &Path,
    newest: bool,
    limit: u64,
    visit: impl FnMut(Session),
) -> Result<(), SessionsError> {
    match read(path, limit, visit)? {
        End::Whole(_) => Ok(()),
        End::Torn(_) if newest => Ok(()),
        End::Torn(offset) | End::Damaged(offset) => {
            Err(SessionsError::Damaged { path: path.to_owned(), offset })
        }
    }
}

/// The segments of a provider's directory by ascending number; other files are passed over.
fn segments(dir: &Path) -> Result<Vec<(u32, PathBuf)>, SessionsError> {
    let older = dir.join("sessions.bkss");
    if older.exists() {
        return Err(SessionsError::Older { path: older });
    }
    let dir = dir.join("sessions");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&dir)(error).into()),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable(&dir))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        segments.extend(number.filter(|number| segment(&dir, *number) == path).map(|n| (n, path)));
    }
    segments.sort_unstable();
    Ok(segments)
}

fn segment(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:06}.bkss"))
}

fn append_to(path: &Path) -> Result<File, SessionsError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(unwritable(path))?;
    files::sync_parent(path).map_err(unwritable(path))?;
    Ok(file)
}

/// How long the whole sessions at the front of the newest segment are.
fn whole_length(path: &Path, limit: u64) -> Result<u64, SessionsError> {
    match read(path, limit, |_| ())? {
        End::Whole(length) | End::Torn(length) => Ok(length),
        End::Damaged(offset) => Err(SessionsError::Damaged { path: path.to_owned(), offset }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for three sessions of one byte numbers each.
    const LIMIT: u64 = 3 * LENGTH as u64 + 40;
    const LENGTH: usize = 48;

    fn append(dir: &Path, byte: u8) {
        let mut sessions = Sessions::open_with(dir, LIMIT).unwrap();
        let index = LinkIndex::new(3, 9).unwrap();
        sessions.append(MeterId(7), index, KeyId(1), &[byte; 32]).unwrap();
        sessions.sync().unwrap();
    }

    fn all(dir: &Path) -> Result<Vec<u8>, SessionsError> {
        let mut found = Vec::new();
        each_with(dir, LIMIT, |session| found.push(session.encapsulated[0]))?;
        Ok(found)
    }

    fn path(dir: &Path, number: u32) -> PathBuf {
        segment(&dir.join("sessions"), number)
    }

    #[test]
    fn no_segment_grows_beyond_its_bound_and_all_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(all(dir).unwrap(), [0; 0], "there is no log yet");
        (1..=10).for_each(|byte| append(dir, byte));
        assert_eq!(all(dir).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let lengths = (1..=4).map(|number| fs::metadata(path(dir, number)).unwrap().len());
        assert_eq!(lengths.collect::<Vec<_>>(), [3, 3, 3, 1].map(|count| count * LENGTH as u64));
        fs::write(dir.join("sessions/notes.txt"), "not a segment").unwrap();
        for (count, expected) in [(0, &[][..]), (1, &[10]), (3, &[8, 9, 10]), (99, &[7, 8, 9, 10])]
        {
            let newest = newest_with(dir, LIMIT, count).unwrap();
            let newest: Vec<_> = newest.iter().map(|session| session.encapsulated[0]).collect();
            assert_eq!(newest, expected, "the newest {count} of two segments");
        }
        let mut sessions = Sessions::open_with(dir, LIMIT).unwrap();
        let index = LinkIndex::new(3, 9).unwrap();
        for byte in 11..=30 {
            sessions.append(MeterId(7), index, KeyId(1), &[byte; 32]).unwrap();
        }
        assert_eq!(all(dir).unwrap(), (1..=30).collect::<Vec<_>>());
    }

    #[test]
    fn a_torn_session_is_cut_off_the_newest_segment() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        (1..=5).for_each(|byte| append(dir, byte));
        let newest = path(dir, 2);
        let whole = fs::read(&newest).unwrap();
        for cut in LENGTH..whole.len() {
            for zeros in [0, 1, 60, 70_000] {
                let torn = [&whole[..cut], &vec![0; zeros]].concat();
                if torn.len() as u64 > LIMIT {
                    continue;
                }
                fs::write(&newest, torn).unwrap();
                let found = all(dir).unwrap();
                assert_eq!(found, [1, 2, 3, 4], "cut at byte {cut}, {zeros} zeros behind it");
            }
        }
        fs::write(&newest, [&whole[..], &[0; 20]].concat()).unwrap();
        append(dir, 6);
        assert_eq!(all(dir).unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(fs::metadata(&newest).unwrap().len(), 3 * LENGTH as u64);
    }

    #[test]
    fn what_is_no_session_is_named_with_its_segment_and_byte() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        (1..=5).for_each(|byte| append(dir, byte));
        let (older, newest) = (path(dir, 1), path(dir, 2));
        let said = |error: Option<SessionsError>, path: &Path, offset: usize| {
            let expected = format!("{}: expected a session at byte {offset}, ", path.display());
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(&expected), "{error:?}");
        };
        let whole = fs::read(&older).unwrap();
        for byte in 0..LENGTH {
            let mut altered = whole.clone();
            altered[LENGTH + byte] ^= 1;
            fs::write(&older, altered).unwrap();
            said(all(dir).err(), &older, LENGTH);
            assert!(Sessions::open_with(dir, LIMIT).is_ok(), "the newest alone is read");
        }
        fs::write(&older, &whole[..whole.len() - 1]).unwrap();
        said(all(dir).err(), &older, 2 * LENGTH);
        said(newest_with(dir, LIMIT, 9).err(), &older, 2 * LENGTH);
        fs::write(&older, &whole).unwrap();

        let whole = fs::read(&newest).unwrap();
        // A length in more bytes than it needs is a second spelling.
        let respelled = [0x82, 0x98, 4, 7, 3, 1, 0x58, 32].into_iter().chain([9; 41]);
        let other_checksum = [&whole[..LENGTH - 1], &[whole[LENGTH - 1] ^ 1]];
        for record in [vec![3; 70], respelled.collect(), other_checksum.concat()] {
            fs::write(&newest, [&record[..], &whole].concat()).unwrap();
            said(all(dir).err(), &newest, 0);
            said(Sessions::open_with(dir, LIMIT).err(), &newest, 0);
        }
        fs::write(&newest, [7; 4 * LENGTH]).unwrap();
        let error = all(dir).unwrap_err().to_string();
        assert!(error.ends_with(&format!("at most {LIMIT} are expected")), "{error}");
    }

    #[test]
    fn the_log_of_an_older_version_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sessions.bkss"), "").unwrap();
        for error in [Sessions::open(dir.path()).err(), each(dir.path(), |_| ()).err()] {
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("sessions.bkss: made by an older version"), "{error}");
        }
    }
}
