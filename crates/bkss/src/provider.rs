//! A provider's directory: its keys, and the sessions its meters sealed their readings in.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bkss_node::config::vote_key;
use bkss_scheme::{
    LinkIndex, Malformed, MeterId, ProviderId, ProviderIdentity, SecretKey,
    certificate::VoteKey,
    codec::{self, Encoded},
    seal::{KeyId, OpeningKey},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::files::{self, FileError, Readers};

/// File of keys in a provider's directory.
const KEYS: &str = "keys.bkss";
/// Most bytes of a file of keys.
const MAX_KEYS: u64 = 1 << 20;
/// Most keys of one kind: a replacement a day for years.
const MAX_KEYS_OF_A_KIND: usize = 4096;
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

/// A provider's secret keys: `[2, sp, identity key, [+ vote key], [+ [kid, sealing key]]]` and a
/// checksum; erased when dropped.
///
/// The last one of a kind is the newest. Former ones stay: a vote key counts until the end of the
/// round in which it was replaced, and older readings are sealed to older sealing keys.
pub(crate) struct Keys {
    /// Which provider.
    pub(crate) id: ProviderId,
    /// Signs batches, registrations and changes of membership.
    pub(crate) identity: SecretKey,
    votes: Vec<Zeroizing<[u8; 32]>>,
    openings: Vec<OpeningKey>,
}

impl Keys {
    /// Fresh keys.
    pub(crate) fn generate(id: ProviderId, rng: &mut impl CryptoRng) -> Self {
        let mut keys = Self {
            id,
            identity: SecretKey::generate(rng),
            votes: Vec::new(),
            openings: vec![OpeningKey::generate(KeyId(1), rng)],
        };
        keys.add_vote(rng);
        keys
    }

    /// Secret ed25519 key of its votes, the newest.
    ///
    /// # Panics
    ///
    /// Never: there is always one.
    pub(crate) fn vote(&self) -> &[u8; 32] {
        self.votes.last().expect("there is a vote key")
    }

    /// All vote keys, oldest first.
    pub(crate) fn votes(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.votes.iter().map(|key| &**key)
    }

    /// Opens what its meters seal now: the newest sealing key.
    ///
    /// # Panics
    ///
    /// Never: there is always one.
    pub(crate) fn opening(&self) -> &OpeningKey {
        self.openings.last().expect("there is a sealing key")
    }

    /// The sealing key with this number.
    pub(crate) fn opening_of(&self, id: KeyId) -> Option<&OpeningKey> {
        self.openings.iter().find(|key| key.id() == id)
    }

    /// Makes another vote key, the newest from now on.
    pub(crate) fn add_vote(&mut self, rng: &mut impl CryptoRng) {
        let mut vote = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *vote);
        self.votes.push(vote);
    }

    /// Makes the sealing key with the next number, the newest from now on.
    pub(crate) fn add_opening(&mut self, rng: &mut impl CryptoRng) {
        let next = KeyId(self.opening().id().0.saturating_add(1));
        self.openings.push(OpeningKey::generate(next, rng));
    }

    /// Forgets the vote keys that are older than the one before `registered`. That one may have to
    /// vote until its round ends; with those before it nobody shall ever sign another past.
    pub(crate) fn forget_votes_before(&mut self, registered: &VoteKey) {
        let at = self.votes.iter().position(|key| vote_key(key).1 == *registered);
        self.votes.drain(..at.unwrap_or(0).saturating_sub(1));
    }

    /// Whether these are the keys of a provider as the ledger or a genesis names it.
    pub(crate) fn fit(&self, identity: &ProviderIdentity) -> bool {
        self.id == identity.id
            && self.identity.public() == identity.key
            && self.openings.iter().any(|key| key.public() == identity.sealing_key)
            && self.votes().any(|key| vote_key(key).1 == identity.vote_key)
    }

    /// Writes the keys to the disk, readable by their owner only.
    ///
    /// # Errors
    ///
    /// [`ProviderError::File`], also if there are keys: they are not overwritten.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), ProviderError> {
        let path = dir.join(KEYS);
        Ok(files::write_new(&path, &self.bytes(), Readers::Owner)?)
    }

    /// Replaces the keys on the disk by these.
    ///
    /// # Errors
    ///
    /// [`ProviderError::File`]; the old ones are still there then.
    pub(crate) fn replace(&self, dir: &Path) -> Result<(), ProviderError> {
        Ok(files::replace(&dir.join(KEYS), &self.bytes(), Readers::Owner)?)
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        // Long enough never to move, so that no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(codec::length(self) + 32));
        codec::encode_infallible(self, &mut *bytes);
        files::add_checksum(&mut bytes);
        bytes
    }

    /// Reads the keys of a provider's directory.
    ///
    /// # Errors
    ///
    /// [`ProviderError::File`] or [`ProviderError::Malformed`].
    pub(crate) fn load(dir: &Path) -> Result<Self, ProviderError> {
        let path = dir.join(KEYS);
        let bytes = Zeroizing::new(files::read(&path, MAX_KEYS)?);
        let content = files::check(&path, &bytes)?;
        codec::decode("keys of a provider", content)
            .map_err(|source| ProviderError::Malformed { path, source })
    }
}

impl<C> Encode<C> for Keys {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(2)?.encode(self.id)?;
        encoder.bytes(&*Zeroizing::new(self.identity.to_bytes()))?;
        encoder.array(self.votes.len() as u64)?;
        for vote in &self.votes {
            encoder.bytes(&**vote)?;
        }
        encoder.array(self.openings.len() as u64)?;
        for opening in &self.openings {
            encoder.array(2)?.encode(opening.id())?.bytes(opening.secret())?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Keys {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 2)?;
        let id = decoder.decode()?;
        let at = decoder.position();
        let identity = Zeroizing::new(codec::bytes(decoder)?);
        let identity = SecretKey::from_bytes(&identity)
            .ok_or_else(|| decode::Error::message("not a secp256k1 key").at(at))?;
        let at = decoder.position();
        let count = codec::array_of_at_most(decoder, MAX_KEYS_OF_A_KIND)?;
        let votes = (0..count).map(|_| codec::bytes(decoder).map(Zeroizing::new));
        let votes: Vec<_> = votes.collect::<Result<_, _>>()?;
        let count = codec::array_of_at_most(decoder, MAX_KEYS_OF_A_KIND)?;
        let opening = |_| {
            codec::array(decoder, 2)?;
            Ok(OpeningKey::from_bytes(decoder.decode()?, codec::bytes(decoder)?))
        };
        let openings: Vec<_> = (0..count).map(opening).collect::<Result<_, decode::Error>>()?;
        if votes.is_empty() || openings.is_empty() {
            return Err(decode::Error::message("no vote key or no sealing key").at(at));
        }
        Ok(Self { id, identity, votes, openings })
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

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Write`].
    pub(crate) fn sync(&self) -> Result<(), ProviderError> {
        let synced = self.file.sync_data();
        synced.map_err(|source| ProviderError::Write { path: self.path.clone(), source })
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
        Keys::generate(ProviderId(3), &mut ChaCha8Rng::seed_from_u64(1))
    }

    #[test]
    fn keys_come_back_and_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys();
        keys.save(dir.path()).unwrap();
        let loaded = Keys::load(dir.path()).unwrap();
        assert_eq!(loaded.id, keys.id);
        assert_eq!(loaded.identity.to_bytes(), keys.identity.to_bytes());
        assert_eq!(loaded.vote(), keys.vote());
        assert_eq!(loaded.opening().public(), keys.opening().public());
        assert!(matches!(keys.save(dir.path()), Err(ProviderError::File(_))));
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
        let mut flipped = bytes.clone();
        flipped[20] ^= 1;
        for broken in [&bytes[..0], &bytes[..60], &[&bytes[..], &[0]].concat(), &flipped] {
            std::fs::write(&path, broken).unwrap();
            let error = Keys::load(dir.path()).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("altered or cut")));
        }
        let mut other = vec![0x81, 2];
        files::add_checksum(&mut other);
        std::fs::write(&path, other).unwrap();
        assert!(matches!(Keys::load(dir.path()), Err(ProviderError::Malformed { .. })));
    }

    #[test]
    fn former_keys_stay_until_they_are_not_needed() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = keys();
        let (vote, opening) = (*keys.vote(), keys.opening().public());
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        keys.add_vote(&mut rng);
        keys.add_opening(&mut rng);
        keys.save(dir.path()).unwrap();
        let mut keys = Keys::load(dir.path()).unwrap();
        assert_eq!(keys.votes().count(), 2);
        assert_ne!(*keys.vote(), vote);
        assert_eq!(keys.opening().id(), KeyId(2));
        assert_eq!(keys.opening_of(KeyId(1)).map(OpeningKey::public), Some(opening));
        let newest = vote_key(keys.vote()).1;
        keys.forget_votes_before(&newest);
        assert_eq!(keys.votes().count(), 2, "the one before votes until its round ends");
        keys.add_vote(&mut rng);
        let newest = vote_key(keys.vote()).1;
        keys.forget_votes_before(&newest);
        assert_eq!(keys.votes().count(), 2);
        assert!(keys.votes().all(|key| *key != vote));
        keys.replace(dir.path()).unwrap();
        assert_eq!(Keys::load(dir.path()).unwrap().vote(), keys.vote());
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
