//! A provider's keys, and what goes wrong with its directory.

use std::path::{Path, PathBuf};

use bkss_node::config::vote_key;
use bkss_scheme::{
    ProviderId, ProviderIdentity, SecretKey,
    certificate::VoteKey,
    codec::{self, Encoded},
    seal::{KeyId, OpeningKey},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    explain::{Details, Explain},
    files::{self, FileError, Readers},
    sessions::SessionsError,
};

/// File of keys in a provider's directory.
const KEYS: &str = "keys.bkss";
/// Most bytes of a file of keys.
const MAX_KEYS: u64 = 1 << 20;
/// Most keys of one kind: a replacement a day for years.
const MAX_KEYS_OF_A_KIND: usize = 4096;

/// What goes wrong with a provider's directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: expected the keys of provider {id} of this network, found others")]
    OtherKeys { path: PathBuf, id: ProviderId },
    #[error(transparent)]
    Sessions(#[from] SessionsError),
}

impl Explain for ProviderError {
    fn explain(&self) -> Details {
        match self {
            Self::File(error) => error.explain(),
            Self::OtherKeys { path, .. } => Details::new("refused").file(path),
            Self::Sessions(error) => error.explain(),
        }
    }
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

    /// Whether there is room for one more key of each kind, in what can be read again.
    pub(crate) const fn has_room(&self) -> bool {
        self.votes.len() < MAX_KEYS_OF_A_KIND && self.openings.len() < MAX_KEYS_OF_A_KIND
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
    /// [`ProviderError::File`].
    pub(crate) fn load(dir: &Path) -> Result<Self, ProviderError> {
        let path = dir.join(KEYS);
        Self::parse(&path, &Zeroizing::new(files::read(&path, MAX_KEYS)?))
    }

    /// Takes the bytes of a file of keys.
    ///
    /// # Errors
    ///
    /// [`ProviderError::File`].
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ProviderError> {
        let content = files::check(path, bytes)?;
        codec::decode("keys of a provider", content)
            .map_err(|source| files::malformed(path)(source).into())
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
        assert!(matches!(
            Keys::load(dir.path()),
            Err(ProviderError::File(FileError::Malformed { .. }))
        ));
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
}
