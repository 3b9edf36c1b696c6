//! Who takes part: meters, service providers and signing-device infrastructures (Eq 5).
//!
//! Providers and SDIs are secp256k1 identities, as in the paper. Signatures are ECDSA with RFC
//! 6979 nonces over a tagged digest, 64 bytes `r | s`, low `s` only, so that nobody can respell one.
//! A provider's vote key and sealing key are keys of their own, bound to the identity by its
//! signature.

use heapless::String;
use k256::ecdsa::{
    self, SigningKey, VerifyingKey,
    signature::hazmat::{PrehashSigner, PrehashVerifier},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use rand_core::CryptoRng;

use crate::{
    Digest,
    certificate::VoteKey,
    codec::{self, Encoded, MAX_NAME, byte_string, number},
    hash::{Hasher, Tag},
    seal::SealingKey,
};

/// Names a network: the first 16 bytes of its genesis digest (`net`).
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Network(pub [u8; 16]);
byte_string!(Network, 16);

impl core::fmt::Display for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Number of a meter, given by its owner SP (`ID_SM`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MeterId(pub u32);
number!(MeterId, u32);

/// Number of a service provider.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProviderId(pub u16);
number!(ProviderId, u16);

/// Number of a signing-device infrastructure (`ID_SDI`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SdiId(pub u16);
number!(SdiId, u16);

/// ECDSA signature `r | s`, 64 bytes, low `s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature(pub [u8; 64]);

/// Compressed secp256k1 public key, 33 bytes.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct PublicKey(pub [u8; 33]);
byte_string!(PublicKey, 33);

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A signature that does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// The key's bytes are no point of the curve.
    #[error("public key is no point of secp256k1")]
    NoPoint,
    /// The signature's bytes are out of range or `s` is high.
    #[error("signature is not r | s with low s")]
    NotCanonical,
    /// The signature is another's or of another message.
    #[error("signature does not match key and message")]
    Mismatch,
}

impl PublicKey {
    /// Checks a signature over a digest.
    ///
    /// # Errors
    ///
    /// [`SignatureError`] says whether key, spelling or match is wrong.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        // SEC 1 also has a compact form, 05, which would be a second spelling of half of all keys.
        if !matches!(self.0[0], 2 | 3) {
            return Err(SignatureError::NoPoint);
        }
        let key = VerifyingKey::from_sec1_bytes(&self.0).map_err(|_| SignatureError::NoPoint)?;
        let signature =
            ecdsa::Signature::from_slice(&signature.0).map_err(|_| SignatureError::NotCanonical)?;
        if signature.normalize_s() != signature {
            return Err(SignatureError::NotCanonical);
        }
        key.verify_prehash(&digest.0, &signature).map_err(|_| SignatureError::Mismatch)
    }
}

/// Secret secp256k1 key of an SP or SDI; erased when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Uniform in `1..N` by rejection from 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        loop {
            rng.fill_bytes(&mut bytes);
            if let Some(key) = Self::from_bytes(&bytes) {
                return key;
            }
        }
    }

    /// `None` for zero and for numbers not below the group order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        SigningKey::from_slice(bytes).ok().map(Self)
    }

    /// The 32 bytes, to be kept by the owner.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes().into()
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_sec1_point(true);
        let mut bytes = [0; 33];
        bytes.copy_from_slice(point.as_bytes());
        PublicKey(bytes)
    }

    /// Signs a digest.
    ///
    /// # Panics
    ///
    /// Never: RFC 6979 finds a nonce for every digest of 32 bytes.
    pub fn sign(&self, digest: &Digest) -> Signature {
        let signature: ecdsa::Signature =
            self.0.sign_prehash(&digest.0).expect("a 32-byte digest can be signed");
        Signature(signature.normalize_s().to_bytes().into())
    }
}

/// The digest that SP and SDI keys sign: `H(0A | net | cbor(body))`.
pub fn signed_digest(network: Network, body: &impl Encode<()>) -> Digest {
    let mut hasher = Hasher::new(Tag::Signed);
    hasher.update(&network.0);
    codec::encode_infallible(body, &mut hasher);
    hasher.finish()
}

/// A name of at most 64 bytes.
pub type Name = String<MAX_NAME>;

/// What a provider says of itself when it joins (`M_ident`, Eq 5).
///
/// `[1, sp, name, pk, h(Am), [kid, suite, key], vote key, address]`; the paper's `Sig(Am)` becomes
/// the identity's signature over all of it and the network, so that no part can be taken for
/// another's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProviderIdentity {
    /// Number on the ledger.
    pub id: ProviderId,
    /// Name for people.
    pub name: Name,
    /// Signs batches and registrations.
    pub key: PublicKey,
    /// `h(Am)`: hash of the agreement that all providers signed.
    pub agreement: Digest,
    /// Meters of this provider seal their readings to it.
    pub sealing_key: SealingKey,
    /// Signs votes of the engine (ed25519).
    pub vote_key: VoteKey,
    /// Where the other providers reach it, `host:port`.
    pub address: Name,
}

impl<C> Encode<C> for ProviderIdentity {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(8)?.u8(1)?.encode(self.id)?.str(&self.name)?.encode(self.key)?;
        encoder.encode(self.agreement)?.encode(self.sealing_key)?.encode(self.vote_key)?;
        encoder.str(&self.address)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ProviderIdentity {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 8)?;
        codec::constant(decoder, 1)?;
        Ok(Self {
            id: decoder.decode()?,
            name: name(decoder)?,
            key: decoder.decode()?,
            agreement: decoder.decode()?,
            sealing_key: decoder.decode()?,
            vote_key: decoder.decode()?,
            address: name(decoder)?,
        })
    }
}

/// Who generates the last link of the chains an SDI provisions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SdiMode {
    /// Meter and SDI both give entropy; the SDI does not learn the chain.
    Shared,
    /// The SDI makes the chain, hands it over and erases it, as in the paper. A breach of such an
    /// SDI exposes the meters it made; that is why the mode is on the ledger.
    SdiMade,
}

/// A signing-device infrastructure: `[10, sdi, name, pk, mode]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SdiIdentity {
    /// Number on the ledger.
    pub id: SdiId,
    /// Name for people.
    pub name: Name,
    /// Signs registrations.
    pub key: PublicKey,
    /// Who knows the chains.
    pub mode: SdiMode,
}

impl<C> Encode<C> for SdiIdentity {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(10)?.encode(self.id)?.str(&self.name)?.encode(self.key)?;
        encoder.u8(u8::from(self.mode == SdiMode::SdiMade))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SdiIdentity {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 10)?;
        let (id, name, key) = (decoder.decode()?, name(decoder)?, decoder.decode()?);
        let at = decoder.position();
        let mode = match decoder.u8()? {
            0 => SdiMode::Shared,
            1 => SdiMode::SdiMade,
            _ => return Err(decode::Error::message("unknown SDI mode").at(at)),
        };
        Ok(Self { id, name, key, mode })
    }
}

/// Decodes a name.
///
/// # Errors
///
/// If it is no text or longer than [`MAX_NAME`].
pub fn name(decoder: &mut Decoder<'_>) -> Result<Name, decode::Error> {
    let at = decoder.position();
    let text = decoder.str()?;
    if !is_printable(text) {
        return Err(decode::Error::message("name with a control character").at(at));
    }
    Name::try_from(text).map_err(|_| decode::Error::message("name too long").at(at))
}

/// Whether a text has no control characters and none that turn the direction of what follows it:
/// whoever reads a name reads what is there.
pub fn is_printable(text: &str) -> bool {
    text.chars().all(is_printable_char)
}

/// Whether a character may stand in such a text.
pub fn is_printable_char(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    );
    !c.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    #[test]
    fn a_name_has_no_control_characters() {
        for (text, good) in
            [("Köln 3", true), ("a\nb", false), ("\u{1b}[8m", false), ("a\u{202e}b", false)]
        {
            let mut bytes = [0; 32];
            Encoder::new(&mut bytes[..]).str(text).unwrap();
            assert_eq!(name(&mut Decoder::new(&bytes)).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_digest_in_its_one_spelling() {
        let key = SecretKey::generate(&mut ChaCha8Rng::seed_from_u64(1));
        let other = SecretKey::generate(&mut ChaCha8Rng::seed_from_u64(2));
        let (digest, altered) = (Digest([7; 32]), Digest([8; 32]));
        let signature = key.sign(&digest);
        assert_eq!(key.public().verify(&digest, &signature), Ok(()));
        assert_eq!(key.public().verify(&altered, &signature), Err(SignatureError::Mismatch));
        assert_eq!(other.public().verify(&digest, &signature), Err(SignatureError::Mismatch));

        let high = {
            let (r, s) = ecdsa::Signature::from_slice(&signature.0).unwrap().split_scalars();
            let respelled = ecdsa::Signature::from_scalars(*r, -*s).unwrap();
            Signature(respelled.to_bytes().into())
        };
        assert_eq!(key.public().verify(&digest, &high), Err(SignatureError::NotCanonical));
        assert_eq!(PublicKey([5; 33]).verify(&digest, &signature), Err(SignatureError::NoPoint));
    }
}
