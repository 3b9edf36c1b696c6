//! Directories of members: a provider's, and that of a signing device infrastructure.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bkss_node::{config::vote_key, settings::template};
use bkss_scheme::{
    Digest, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey,
    codec::{self, Encoded},
    identity::SdiMode,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    command::CommandError,
    documents::{Identity, title},
    files::{self, Readers, malformed},
    provider::{Keys, ProviderError},
    sessions::Sessions,
    terms,
};

/// Most bytes of an SDI's file of keys.
const MAX_KEYS: u64 = 4096;
const TITLE: &str = "bkss keys of an SDI";

/// Directory of the SDI that `bkss init` founds.
pub(crate) fn sdi_directory(out: &Path) -> PathBuf {
    out.join("sdi")
}

/// A new provider: keys, what the others see of them, and where it listens.
pub(crate) struct ProviderDirectory {
    /// Its keys.
    pub(crate) keys: Keys,
    /// `M_ident`.
    pub(crate) identity: ProviderIdentity,
    http: String,
}

impl ProviderDirectory {
    /// Makes the keys.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`] if name or addresses cannot be used.
    pub(crate) fn make(
        id: ProviderId,
        name: &str,
        address: &str,
        http: &str,
        agreement: Digest,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CommandError> {
        check_address(address)?;
        if http.parse::<SocketAddr>().is_err() {
            return Err(CommandError::Usage(format!("--http {http}: expected IP address:port")));
        }
        let keys = Keys::generate(id, rng);
        let identity = ProviderIdentity {
            id,
            name: terms::name(name)?,
            key: keys.identity.public(),
            agreement,
            sealing_key: keys.opening().public(),
            vote_key: vote_key(keys.vote()).1,
            address: terms::name(address)?,
        };
        Ok(Self { keys, identity, http: http.into() })
    }

    /// Writes the directory, which must be empty or absent.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn save(&self, dir: &Path) -> Result<(), CommandError> {
        files::fill_directory(dir, Readers::Owner, || self.fill(dir))
    }

    fn fill(&self, dir: &Path) -> Result<(), CommandError> {
        self.keys.save(dir)?;
        Identity::Provider(self.identity.clone()).save(dir, &self.keys.identity)?;
        let port = self.identity.address.rsplit(':').next().unwrap_or_default();
        let p2p = match self.identity.address.parse::<SocketAddr>() {
            Ok(address) => address.to_string(),
            // A name is for the others; this machine listens on all its addresses.
            Err(_) => format!("0.0.0.0:{port}"),
        };
        let settings = template(&self.http, &p2p);
        files::write_new(&dir.join("node.toml"), settings.as_bytes(), Readers::All)?;
        Sessions::open(dir).map_err(ProviderError::from)?;
        Ok(())
    }
}

/// Checks `host:port`, as others dial it.
///
/// # Errors
///
/// [`CommandError::Usage`].
pub(crate) fn check_address(address: &str) -> Result<(), CommandError> {
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let good = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if good && (address.parse::<SocketAddr>().is_ok() || is_name(host)) {
        return Ok(());
    }
    Err(CommandError::Usage(format!("--address {address}: expected host:port")))
}

fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label)
}

/// An SDI's identity and key.
pub(crate) struct SdiKeys {
    /// As the ledger knows it.
    pub(crate) identity: SdiIdentity,
    /// Signs registrations.
    pub(crate) key: SecretKey,
}

impl SdiKeys {
    /// Makes the key.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`] if the name is too long.
    pub(crate) fn make(
        id: SdiId,
        name: &str,
        sdi_made: bool,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CommandError> {
        let key = SecretKey::generate(rng);
        let mode = if sdi_made { SdiMode::SdiMade } else { SdiMode::Shared };
        let identity = SdiIdentity { id, name: terms::name(name)?, key: key.public(), mode };
        Ok(Self { identity, key })
    }

    /// Writes the directory, which must be empty or absent.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn save(&self, dir: &Path) -> Result<(), CommandError> {
        files::fill_directory(dir, Readers::Owner, || self.fill(dir))
    }

    fn fill(&self, dir: &Path) -> Result<(), CommandError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(codec::length(self) + 32));
        codec::encode_infallible(self, &mut *bytes);
        files::add_checksum(&mut bytes);
        files::write_new(&dir.join("keys.bkss"), &bytes, Readers::Owner)?;
        Identity::Sdi(self.identity.clone()).save(dir, &self.key)
    }

    /// Reads the keys of an SDI's directory.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`], or `Refused` if the key is not that of the identity.
    pub(crate) fn load(dir: &Path) -> Result<Self, CommandError> {
        let path = dir.join("keys.bkss");
        Self::parse(&path, &Zeroizing::new(files::read(&path, MAX_KEYS)?))
    }

    /// Takes the bytes of an SDI's file of keys.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`].
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CommandError> {
        let content = files::check(path, bytes)?;
        Ok(codec::decode("keys of an SDI", content).map_err(malformed(path))?)
    }
}

impl<C> Encode<C> for SdiKeys {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.str(TITLE)?.encode(&self.identity)?;
        encoder.bytes(&*Zeroizing::new(self.key.to_bytes()))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SdiKeys {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        title(decoder, TITLE)?;
        let identity: SdiIdentity = decoder.decode()?;
        let at = decoder.position();
        let key = Zeroizing::new(codec::bytes(decoder)?);
        let key = SecretKey::from_bytes(&key).filter(|key| key.public() == identity.key);
        let key = key.ok_or_else(|| decode::Error::message("not the identity's key").at(at))?;
        Ok(Self { identity, key })
    }
}
