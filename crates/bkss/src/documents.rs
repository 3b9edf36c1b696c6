//! Documents that members exchange: identities, a charter, signatures of it.
//!
//! None of them holds a secret. Each says in its first part what it is, so that one is not taken
//! for another, and carries its maker's signature or a checksum. Their names are their contents:
//! `provider-3.identity`, `sdi-0.identity`, `provider-3.signature`, `charter.bkss`.

use std::path::Path;

use bkss_ledger::genesis::Charter;
use bkss_scheme::{
    Network, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey, Signature,
    codec::{self, Encoded},
    identity::signed_digest,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    command::CommandError,
    files::{self, Readers, malformed},
};

/// Most bytes of a paper.
const MAX_PAPER: u64 = 1 << 20;
/// Under no network's name: identities are made before there is one.
const NO_NETWORK: Network = Network([0; 16]);

/// Who signs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum MemberId {
    /// A service provider.
    Provider(ProviderId),
    /// A signing device infrastructure.
    Sdi(SdiId),
}

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Provider(id) => write!(f, "provider-{id}"),
            Self::Sdi(id) => write!(f, "sdi-{id}"),
        }
    }
}

/// What a member says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Identity {
    /// `M_ident` of a provider.
    Provider(ProviderIdentity),
    /// An SDI.
    Sdi(SdiIdentity),
}

impl Identity {
    /// Whose it is.
    pub(crate) const fn member(&self) -> MemberId {
        match self {
            Self::Provider(provider) => MemberId::Provider(provider.id),
            Self::Sdi(sdi) => MemberId::Sdi(sdi.id),
        }
    }

    /// Writes the identity, signed by its key, into a directory; it has not been there before.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn save(&self, dir: &Path, key: &SecretKey) -> Result<(), CommandError> {
        let paper = IdentityPaper { identity: self.clone(), signature: key.sign(&self.digest()) };
        let path = dir.join(format!("{}.identity", self.member()));
        Ok(files::write_new(&path, &bytes(&paper), Readers::All)?)
    }

    /// Reads an identity and checks that whoever made it has its key.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn load(path: &Path) -> Result<Self, CommandError> {
        Self::parse(path, &files::read(path, MAX_PAPER)?)
    }

    /// Takes the bytes of the file of an identity.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CommandError> {
        let paper: IdentityPaper = codec::decode("identity", bytes).map_err(malformed(path))?;
        let key = match &paper.identity {
            Self::Provider(provider) => provider.key,
            Self::Sdi(sdi) => sdi.key,
        };
        let checked = key.verify(&paper.identity.digest(), &paper.signature);
        checked.map_err(CommandError::refused(&path.display().to_string()))?;
        Ok(paper.identity)
    }

    fn digest(&self) -> bkss_scheme::Digest {
        match self {
            Self::Provider(provider) => signed_digest(NO_NETWORK, provider),
            Self::Sdi(sdi) => signed_digest(NO_NETWORK, sdi),
        }
    }
}

/// `["bkss identity", M_ident / SDI, signature]`.
struct IdentityPaper {
    identity: Identity,
    signature: Signature,
}

const IDENTITY: &str = "bkss identity";
const CHARTER: &str = "bkss charter, not yet signed";
const SIGNATURE: &str = "bkss signature of a charter";

impl<C> Encode<C> for IdentityPaper {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.str(IDENTITY)?;
        match &self.identity {
            Identity::Provider(provider) => encoder.encode(provider)?,
            Identity::Sdi(sdi) => encoder.encode(sdi)?,
        };
        encoder.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for IdentityPaper {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        title(decoder, IDENTITY)?;
        let mut probe = decoder.probe();
        probe.array()?;
        let identity = match probe.u8()? {
            1 => Identity::Provider(decoder.decode()?),
            _ => Identity::Sdi(decoder.decode()?),
        };
        Ok(Self { identity, signature: decoder.decode()? })
    }
}

/// A charter that is to be signed: `["bkss charter, not yet signed", charter]` and a checksum.
pub(crate) struct CharterPaper(pub(crate) Charter);

impl CharterPaper {
    /// Writes the charter to a file that has not been there before.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn save(&self, path: &Path) -> Result<(), CommandError> {
        write_new(path, self)
    }

    /// Reads a charter and checks its rules.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn load(path: &Path) -> Result<Charter, CommandError> {
        Self::parse(path, &files::read(path, MAX_PAPER)?)
    }

    /// Takes the bytes of the file of a charter.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Charter, CommandError> {
        let content = files::check(path, bytes)?;
        let Self(charter) = codec::decode("charter", content).map_err(malformed(path))?;
        charter.check().map_err(CommandError::refused(&path.display().to_string()))?;
        Ok(charter)
    }
}

impl<C> Encode<C> for CharterPaper {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(2)?.str(CHARTER)?.encode(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for CharterPaper {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        title(decoder, CHARTER)?;
        decoder.decode().map(Self)
    }
}

/// One founder's signature of a charter: `["bkss signature of a charter", net, kind, id, sig]`.
pub(crate) struct SignaturePaper {
    /// The network that the charter names.
    pub(crate) network: Network,
    /// Who signed.
    pub(crate) member: MemberId,
    /// The signature.
    pub(crate) signature: Signature,
}

impl SignaturePaper {
    /// Writes the signature to a file that has not been there before.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn save(&self, path: &Path) -> Result<(), CommandError> {
        Ok(files::write_new(path, &bytes(self), Readers::All)?)
    }

    /// Reads a signature; whether it holds is seen against a charter.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn load(path: &Path) -> Result<Self, CommandError> {
        Self::parse(path, &files::read(path, MAX_PAPER)?)
    }

    /// Takes the bytes of the file of a signature.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`].
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CommandError> {
        Ok(codec::decode("signature of a charter", bytes).map_err(malformed(path))?)
    }
}

impl<C> Encode<C> for SignaturePaper {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.str(SIGNATURE)?.encode(self.network)?;
        match self.member {
            MemberId::Provider(id) => encoder.u8(1)?.encode(id)?,
            MemberId::Sdi(id) => encoder.u8(10)?.encode(id)?,
        };
        encoder.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SignaturePaper {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        title(decoder, SIGNATURE)?;
        let network = decoder.decode()?;
        let at = decoder.position();
        let member = match decoder.u8()? {
            1 => MemberId::Provider(decoder.decode()?),
            10 => MemberId::Sdi(decoder.decode()?),
            _ => return Err(decode::Error::message("neither provider nor SDI").at(at)),
        };
        Ok(Self { network, member, signature: decoder.decode()? })
    }
}

/// Expects the title of a paper.
///
/// # Errors
///
/// If it is another paper.
pub(crate) fn title(decoder: &mut Decoder<'_>, expected: &str) -> Result<(), decode::Error> {
    let at = decoder.position();
    let found = decoder.str()?;
    if found == expected { Ok(()) } else { Err(decode::Error::message("another paper").at(at)) }
}

/// Writes a paper with a checksum to a file that has not been there before.
///
/// # Errors
///
/// [`CommandError::File`].
pub(crate) fn write_new(path: &Path, paper: &impl Encode<()>) -> Result<(), CommandError> {
    Ok(files::write_new(path, &checked(paper), Readers::All)?)
}

/// Replaces the file of a paper by this one, which has more signatures.
///
/// # Errors
///
/// [`CommandError::File`].
pub(crate) fn replace(path: &Path, paper: &impl Encode<()>) -> Result<(), CommandError> {
    Ok(files::replace(path, &checked(paper), Readers::All)?)
}

fn checked(paper: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = bytes(paper);
    files::add_checksum(&mut bytes);
    bytes
}

fn bytes(paper: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(paper, &mut bytes);
    bytes
}
