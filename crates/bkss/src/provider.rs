//! A provider's directory: its keys, and the sessions its meters sealed their readings in.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bkss_scheme::{
    LinkIndex, Malformed, MeterId, ProviderId, SecretKey,
    codec::{self, Encoded},
    seal::{KeyId, OpeningKey},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use zeroize::{Zeroize, Zeroizing};

use crate::files::{self, FileError};

/// Most bytes of a file of keys.
const MAX_KEYS: u64 = 4096;
/// Most bytes of a file of sessions: one per meter and day, some 45 bytes each.
const MAX_SESSIONS: u64 = 1 << 30;

/// Most bytes of a session.
const MAX_SESSION: usize = 64;

/// What goes wrong with a provider's directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {source}")]
    Malformed { path: PathBuf, source: Malformed },
    #[error("{path}: expected a session at byte {offset}, found something else")]
    Session { path: PathBuf, offset: usize },
    #[error("{path}: expected the keys of provider {id} of this network, found others")]
    OtherKeys { path: PathBuf, id: ProviderId },
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// A provider's secret keys: `[1, sp, identity key, vote key, [kid, sealing key]]`; erased when
/// dropped.
pub(crate) struct Keys {
    /// Which provider.
    pub(crate) id: ProviderId,
    /// Signs batches and registrations.
    pub(crate) identity: SecretKey,
    /// Secret ed25519 key of its votes.
    pub(crate) vote: [u8; 32],
    /// Opens what its meters sealed.
    pub(crate) opening: OpeningKey,
}

impl Keys {
    /// Writes the keys to the disk, readable by their owner only.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Write`], also if there are keys: they are not overwritten.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), ProviderError> {
        let path = dir.join("keys.bkss");
        // Long enough never to move, so that no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        codec::encode_infallible(self, &mut *bytes);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|source| ProviderError::Write { path, source })
    }

    /// Reads the keys of a provider's directory.
    ///
    /// # Errors
    ///
    /// [`ProviderError::File`] or [`ProviderError::Malformed`].
    pub(crate) fn load(dir: &Path) -> Result<Self, ProviderError> {
        let path = dir.join("keys.bkss");
        let bytes = Zeroizing::new(files::read(&path, MAX_KEYS)?);
        codec::decode("keys of a provider", &bytes)
            .map_err(|source| ProviderError::Malformed { path, source })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.vote.zeroize(); // the other two erase themselves
    }
}

impl<C> Encode<C> for Keys {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(1)?.encode(self.id)?;
        encoder.bytes(&*Zeroizing::new(self.identity.to_bytes()))?.bytes(&self.vote)?;
        encoder.array(2)?.encode(self.opening.id())?.bytes(self.opening.secret())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Keys {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 1)?;
        let id = decoder.decode()?;
        let at = decoder.position();
        let identity = Zeroizing::new(codec::bytes(decoder)?);
        let identity = SecretKey::from_bytes(&identity)
            .ok_or_else(|| decode::Error::message("not a secp256k1 key").at(at))?;
        let vote = codec::bytes(decoder)?;
        codec::array(decoder, 2)?;
        let (key, secret) = (decoder.decode()?, codec::bytes(decoder)?);
        Ok(Self { id, identity, vote, opening: OpeningKey::from_bytes(key, secret) })
    }
}

/// A session that a meter introduced with link `index`: `[mid, i, kid, enc]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Session {
    /// The meter.
    pub(crate) meter: MeterId,
    /// The link whose body carries the encapsulated key.
    pub(crate) index: u32,
    /// The provider's key it is for.
    pub(crate) key: KeyId,
    /// The encapsulated key.
    pub(crate) encapsulated: [u8; 32],
}

impl<C> Encode<C> for Session {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.encode(self.meter)?.u32(self.index)?;
        encoder.encode(self.key)?.bytes(&self.encapsulated)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Session {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        Ok(Self {
            meter: decoder.decode()?,
            index: decoder.u32()?,
            key: decoder.decode()?,
            encapsulated: codec::bytes(decoder)?,
        })
    }
}

/// The log of sessions, append only. It follows from the final blocks and can be written again.
pub(crate) struct Sessions {
    path: PathBuf,
    file: File,
}

impl Sessions {
    /// Opens the log of a directory, or starts it; a record that a power cut tore is cut off.
    ///
    /// # Errors
    ///
    /// [`ProviderError`], also if there is something else than sessions in the file.
    pub(crate) fn open(dir: &Path) -> Result<Self, ProviderError> {
        let path = dir.join("sessions.bkss");
        let failed = |source| ProviderError::Write { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).append(true).open(&path).map_err(failed)?;
        let bytes = files::read(&path, MAX_SESSIONS)?;
        let (_, whole) = parse(&path, &bytes)?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        Ok(Self { path, file })
    }

    /// Appends the session of `meter` that the body with link `index` introduces.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Write`].
    pub(crate) fn append(
        &mut self,
        meter: MeterId,
        index: LinkIndex,
        key: KeyId,
        encapsulated: &[u8; 32],
    ) -> Result<(), ProviderError> {
        let session = Session { meter, index: index.get(), key, encapsulated: *encapsulated };
        let mut bytes = Vec::new();
        codec::encode_infallible(&session, &mut bytes);
        let written = self.file.write_all(&bytes);
        written.map_err(|source| ProviderError::Write { path: self.path.clone(), source })
    }

    /// All sessions of a directory, in the order in which their bodies became final.
    ///
    /// # Errors
    ///
    /// [`ProviderError`]; a torn last record is none, it is left out.
    pub(crate) fn load(dir: &Path) -> Result<Vec<Session>, ProviderError> {
        let path = dir.join("sessions.bkss");
        Ok(parse(&path, &files::read(&path, MAX_SESSIONS)?)?.0)
    }
}

/// Whole records and where they end; a torn last record is not an error.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Session>, usize), ProviderError> {
    let mut sessions = Vec::new();
    let mut decoder = Decoder::new(bytes);
    loop {
        let start = decoder.position();
        let session: Session = match decoder.decode() {
            Ok(session) => session,
            Err(error) if error.is_end_of_input() => return Ok((sessions, start)),
            Err(_) => return Err(ProviderError::Session { path: path.to_owned(), offset: start }),
        };
        let record = &bytes[start..decoder.position()];
        if codec::encode_into(&session, &mut [0; MAX_SESSION]) != Some(record) {
            return Err(ProviderError::Session { path: path.to_owned(), offset: start });
        }
        sessions.push(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    fn keys() -> Keys {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        Keys {
            id: ProviderId(3),
            identity: SecretKey::generate(&mut rng),
            vote: [5; 32],
            opening: OpeningKey::generate(KeyId(1), &mut rng),
        }
    }

    #[test]
    fn keys_come_back_and_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys();
        keys.save(dir.path()).unwrap();
        let loaded = Keys::load(dir.path()).unwrap();
        assert_eq!(loaded.id, keys.id);
        assert_eq!(loaded.identity.to_bytes(), keys.identity.to_bytes());
        assert_eq!(loaded.vote, keys.vote);
        assert_eq!(loaded.opening.public(), keys.opening.public());
        assert!(matches!(keys.save(dir.path()), Err(ProviderError::Write { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join("keys.bkss")).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn altered_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        keys().save(dir.path()).unwrap();
        let path = dir.path().join("keys.bkss");
        let bytes = std::fs::read(&path).unwrap();
        for broken in [&bytes[..0], &bytes[..60], &[&bytes[..], &[0]].concat()] {
            std::fs::write(&path, broken).unwrap();
            assert!(matches!(Keys::load(dir.path()), Err(ProviderError::Malformed { .. })));
        }
    }

    #[test]
    fn a_torn_session_is_cut_off_and_a_false_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.bkss");
        let index = LinkIndex::new(3, 9).unwrap();
        let append = |byte| {
            let mut sessions = Sessions::open(dir.path()).unwrap();
            sessions.append(MeterId(7), index, KeyId(1), &[byte; 32]).unwrap();
        };
        let loaded = || {
            let sessions = Sessions::load(dir.path()).unwrap();
            sessions.iter().map(|session| session.encapsulated[0]).collect::<Vec<_>>()
        };
        (1..=2).for_each(append);
        let whole = std::fs::read(&path).unwrap();
        for cut in whole.len() / 2..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(loaded(), [1], "cut at byte {cut}");
        }
        append(3);
        assert_eq!(loaded(), [1, 3]);
        // A length in more bytes than it needs is a second spelling.
        let respelled = [0x98, 4, 7, 3, 1, 0x58, 32].into_iter().chain([9; 32]);
        for record in [vec![0x83, 1, 2], vec![0], respelled.collect()] {
            std::fs::write(&path, [&whole[..], &record].concat()).unwrap();
            let expected = format!("expected a session at byte {}", whole.len());
            let error = Sessions::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
            assert!(Sessions::open(dir.path()).is_err(), "and nothing is cut off");
        }
    }
}
