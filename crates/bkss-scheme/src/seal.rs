//! Sealing a reading to the meter's own SP (`En(m)`; scheme s4.4).
//!
//! HPKE (RFC 9180) base mode with X25519, HKDF-SHA256 and no AEAD of its own ("export-only"): one
//! public-key operation starts a session, and each slot exports a key of its own from it. The
//! reading is sealed with ChaCha20-Poly1305 under that key, with a zero nonce since the key is used
//! once. Nobody but the owner SP can open it, whoever leads the ledger; a single slot key can be
//! shown to an auditor to open that one reading.

use chacha20poly1305::{
    AeadInOut, ChaCha20Poly1305, KeyInit,
    aead::{Nonce, Tag},
};
use heapless::Vec;
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    aead::{AeadCtxR, AeadCtxS, ExportOnlyAead},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    Digest, LinkIndex, Network,
    codec::{self, Encoded, MAX_BODY, number},
};

/// Plaintexts are padded to a multiple of this, so that their length says little.
pub const PADDING: usize = 32;
/// Most bytes of a padded plaintext: a body of 1 KiB less its tag and framing.
pub const MAX_PLAINTEXT: usize = 928;

const TAG: usize = 16;

/// Number of a provider's sealing key (`kid`); 0 is reserved for bodies that are not sealed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(pub u16);
number!(KeyId, u16);

/// A provider's public sealing key: `[kid, suite, key]`, suite 1 (X25519).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SealingKey {
    /// Its number.
    pub id: KeyId,
    /// X25519 public key, 32 bytes.
    pub public: [u8; 32],
}

impl<C> Encode<C> for SealingKey {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.encode(self.id)?.u8(1)?.bytes(&self.public)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SealingKey {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        let id = decoder.decode()?;
        codec::constant(decoder, 1)?;
        Ok(Self { id, public: codec::bytes(decoder)? })
    }
}

/// The secret half of a sealing key; erased when dropped.
#[derive(Clone)]
pub struct OpeningKey {
    id: KeyId,
    secret: Zeroizing<[u8; 32]>,
}

impl OpeningKey {
    /// A fresh key.
    pub fn generate(id: KeyId, rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self { id, secret }
    }

    /// From 32 bytes; X25519 clamps them.
    pub fn from_bytes(id: KeyId, secret: [u8; 32]) -> Self {
        Self { id, secret: Zeroizing::new(secret) }
    }

    /// The secret bytes, to be kept by the owner.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Number of the key.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The public half.
    ///
    /// # Panics
    ///
    /// Never: every 32 bytes are an X25519 key.
    pub fn public(&self) -> SealingKey {
        let public = X25519HkdfSha256::sk_to_pk(&self.private());
        let mut bytes = [0; 32];
        public.write_exact(&mut bytes);
        SealingKey { id: self.id, public: bytes }
    }

    fn private(&self) -> <X25519HkdfSha256 as hpke::Kem>::PrivateKey {
        Deserializable::from_bytes(&*self.secret).expect("every 32 bytes are an X25519 key")
    }
}

/// A sealed reading as it is hashed into `p`: `[kid, enc / null, ct]`, at most 1 KiB encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Body<'a> {
    /// Which sealing key of the owner.
    pub key: KeyId,
    /// Encapsulated key of the session; `None` repeats the session of an earlier body.
    pub encapsulated: Option<[u8; 32]>,
    /// Ciphertext and tag: a multiple of 32, plus 16 bytes.
    pub ciphertext: &'a [u8],
}

impl<C> Encode<C> for Body<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.encode(self.key)?;
        match &self.encapsulated {
            Some(key) => encoder.bytes(key)?,
            None => encoder.null()?,
        };
        encoder.bytes(self.ciphertext)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Body<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        let at = decoder.position();
        let key: KeyId = decoder.decode()?;
        let encapsulated = codec::optional(decoder, codec::bytes)?;
        let ciphertext = codec::bytes_of_at_most(decoder, MAX_PLAINTEXT + TAG)?;
        let sealed = ciphertext.len().checked_sub(TAG);
        if key.0 == 0 || !sealed.is_some_and(|n| n > 0 && n.is_multiple_of(PADDING)) {
            return Err(decode::Error::message("not a sealed body").at(at));
        }
        Ok(Self { key, encapsulated, ciphertext })
    }
}

/// Encoded body, at most 1 KiB: the bytes that are hashed and travel.
pub type BodyBytes = Vec<u8, MAX_BODY>;

/// Why a reading cannot be sealed or opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// Empty or more than 928 bytes after padding.
    #[error("plaintext is empty or longer than 928 bytes")]
    Length,
    /// The public or encapsulated key is no usable point.
    #[error("public key is not usable")]
    Key,
    /// Wrong key, meter, slot or an altered ciphertext.
    #[error("does not open with this key, meter and slot")]
    Closed,
}

/// A meter's sealing session with its owner: kept in memory, made anew each day and after a
/// restart.
pub struct Session {
    key: KeyId,
    encapsulated: [u8; 32],
    context: AeadCtxS<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>,
}

impl Session {
    /// One public-key operation; the randomness makes the session unique.
    ///
    /// # Errors
    ///
    /// [`SealError::Key`] if the owner's key is a point of small order.
    pub fn start(
        network: Network,
        owner: &SealingKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        let public = Deserializable::from_bytes(&owner.public).map_err(|_| SealError::Key)?;
        let (encapsulated, context) = hpke::setup_sender_with_rng::<_, _, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            &info(network, owner.id),
            rng,
        )
        .map_err(|_| SealError::Key)?;
        let mut bytes = [0; 32];
        encapsulated.write_exact(&mut bytes);
        Ok(Self { key: owner.id, encapsulated: bytes, context })
    }

    /// Seals a plaintext for link `index` of the chain `root_message` (`mr`).
    ///
    /// `introduce` puts the encapsulated key into the body: until a body containing it is final.
    ///
    /// # Errors
    ///
    /// [`SealError::Length`].
    pub fn seal(
        &self,
        root_message: &Digest,
        index: LinkIndex,
        plaintext: &[u8],
        introduce: bool,
    ) -> Result<BodyBytes, SealError> {
        let mut slot_key = Zeroizing::new([0; 32]);
        self.context.export(&slot_label(index), &mut *slot_key).map_err(|_| SealError::Length)?;
        let mut buffer = Vec::<u8, { MAX_PLAINTEXT + TAG }>::new();
        let padded = plaintext.len().next_multiple_of(PADDING);
        if plaintext.is_empty() || padded > MAX_PLAINTEXT {
            return Err(SealError::Length);
        }
        buffer.extend_from_slice(plaintext).map_err(|_| SealError::Length)?;
        buffer.resize(padded, 0).map_err(|_| SealError::Length)?;
        let tag = ChaCha20Poly1305::new((&*slot_key).into())
            .encrypt_inout_detached(
                &Nonce::<ChaCha20Poly1305>::default(),
                &associated(root_message, index),
                buffer.as_mut_slice().into(),
            )
            .map_err(|_| SealError::Length)?;
        buffer.extend_from_slice(&tag).map_err(|_| SealError::Length)?;
        let body = Body {
            key: self.key,
            encapsulated: introduce.then_some(self.encapsulated),
            ciphertext: &buffer,
        };
        let mut encoded = [0; MAX_BODY];
        let encoded = codec::encode_into(&body, &mut encoded).ok_or(SealError::Length)?;
        Vec::from_slice(encoded).map_err(|_| SealError::Length)
    }
}

/// The owner's side of a session: opens what the meter sealed in it.
pub struct OpeningSession(AeadCtxR<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>);

impl OpeningSession {
    /// One public-key operation with the encapsulated key of the session.
    ///
    /// # Errors
    ///
    /// [`SealError::Key`] if the encapsulated key is a point of small order.
    pub fn start(
        network: Network,
        key: &OpeningKey,
        encapsulated: &[u8; 32],
    ) -> Result<Self, SealError> {
        let encapsulated = Deserializable::from_bytes(encapsulated).map_err(|_| SealError::Key)?;
        hpke::setup_receiver(&OpModeR::Base, &key.private(), &encapsulated, &info(network, key.id))
            .map(Self)
            .map_err(|_| SealError::Key)
    }

    /// The key of one slot, 32 bytes: opens one reading and no other.
    pub fn slot_key(&self, index: LinkIndex) -> SlotKey {
        let mut key = Zeroizing::new([0; 32]);
        let exported = self.0.export(&slot_label(index), &mut *key);
        debug_assert!(exported.is_ok(), "32 bytes can always be exported");
        SlotKey(key)
    }
}

/// Opens the reading of one slot.
pub struct SlotKey(Zeroizing<[u8; 32]>);

impl SlotKey {
    /// The 32 bytes, to be shown to an auditor.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Opens a ciphertext; the plaintext is still padded.
    ///
    /// # Errors
    ///
    /// [`SealError::Closed`] for another key, meter or slot, or if a bit was altered.
    pub fn open(
        &self,
        root_message: &Digest,
        index: LinkIndex,
        ciphertext: &[u8],
    ) -> Result<Vec<u8, MAX_PLAINTEXT>, SealError> {
        let split = ciphertext.len().checked_sub(TAG).ok_or(SealError::Closed)?;
        let (sealed, tag) = ciphertext.split_at(split);
        let mut plaintext = Vec::from_slice(sealed).map_err(|_| SealError::Closed)?;
        let tag = Tag::<ChaCha20Poly1305>::try_from(tag).map_err(|_| SealError::Closed)?;
        ChaCha20Poly1305::new((&*self.0).into())
            .decrypt_inout_detached(
                &Nonce::<ChaCha20Poly1305>::default(),
                &associated(root_message, index),
                plaintext.as_mut_slice().into(),
                &tag,
            )
            .map_err(|_| SealError::Closed)?;
        Ok(plaintext)
    }
}

/// HPKE info: `"BKSS-v1 reading" | net | kid`.
fn info(network: Network, key: KeyId) -> [u8; 33] {
    let mut info = *b"BKSS-v1 reading                  ";
    info[15..31].copy_from_slice(&network.0);
    info[31..].copy_from_slice(&key.0.to_be_bytes());
    info
}

/// Exporter context of a slot: `"bkss slot" | i`.
fn slot_label(index: LinkIndex) -> [u8; 13] {
    let mut label = *b"bkss slot    ";
    label[9..].copy_from_slice(&index.get().to_be_bytes());
    label
}

/// Associated data: `mr | i`.
fn associated(root_message: &Digest, index: LinkIndex) -> [u8; 36] {
    let mut associated = [0; 36];
    associated[..32].copy_from_slice(&root_message.0);
    associated[32..].copy_from_slice(&index.get().to_be_bytes());
    associated
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    const NETWORK: Network = Network([3; 16]);

    #[test]
    fn only_the_owner_opens_and_only_what_was_sealed() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let owner = OpeningKey::generate(KeyId(1), &mut rng);
        let stranger = OpeningKey::generate(KeyId(1), &mut rng);
        let (mr, index) = (Digest([1; 32]), LinkIndex::new(3, 9).unwrap());
        let session = Session::start(NETWORK, &owner.public(), &mut rng).unwrap();
        let bytes = session.seal(&mr, index, b"reading", true).unwrap();
        let body: Body<'_> = codec::decode("body", &bytes).unwrap();
        assert_eq!(body.ciphertext.len(), 48);
        let enc = body.encapsulated.unwrap();

        let open = |network, key: &OpeningKey, mr: &Digest, index: LinkIndex, ct: &[u8]| {
            OpeningSession::start(network, key, &enc)?.slot_key(index).open(mr, index, ct)
        };
        let opened = open(NETWORK, &owner, &mr, index, body.ciphertext).unwrap();
        assert_eq!(&opened[..7], b"reading");
        assert_eq!(&opened[7..], [0; 25]);

        let renumbered = OpeningKey::from_bytes(KeyId(2), *owner.secret());
        let other_index = LinkIndex::new(4, 9).unwrap();
        let mut altered = Vec::<u8, 48>::from_slice(body.ciphertext).unwrap();
        altered[0] ^= 1;
        for (what, result) in [
            ("stranger", open(NETWORK, &stranger, &mr, index, body.ciphertext)),
            ("other kid", open(NETWORK, &renumbered, &mr, index, body.ciphertext)),
            ("other network", open(Network([4; 16]), &owner, &mr, index, body.ciphertext)),
            ("other meter", open(NETWORK, &owner, &Digest([2; 32]), index, body.ciphertext)),
            ("other slot", open(NETWORK, &owner, &mr, other_index, body.ciphertext)),
            ("altered", open(NETWORK, &owner, &mr, index, &altered)),
            ("cut", open(NETWORK, &owner, &mr, index, &body.ciphertext[..10])),
        ] {
            assert_eq!(result, Err(SealError::Closed), "{what}");
        }
    }

    #[test]
    fn a_plaintext_has_bounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let owner = OpeningKey::generate(KeyId(1), &mut rng).public();
        let session = Session::start(NETWORK, &owner, &mut rng).unwrap();
        let index = LinkIndex::new(1, 9).unwrap();
        for (length, fits) in [(0, false), (1, true), (928, true), (929, false)] {
            let sealed = session.seal(&Digest::ZERO, index, &[7; 929][..length], true);
            assert_eq!(sealed.is_ok(), fits, "{length} bytes");
        }
    }
}
