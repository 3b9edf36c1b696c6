//! The root message of a meter's chain and its registration (`M_r`, Eq 6; scheme s4.3).
//!
//! `M_r` is on the ledger once, signed by the SDI that provisioned the meter and by the owner SP.
//! It is the only source of `(v_0, r, t_0, ..)`: messages carry the meter's number alone. The
//! paper sends `M_r` along with every reading, vouched for by nobody.
//!
//! The salt of the chain is not written down: it follows from owner, SDI, number and a nonce, so that
//! nobody can register a chain under a salt that is another meter's.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest, Link, MeterId, Network, ProviderId, PublicKey, Salt, SdiId, SecretKey, Signature,
    codec::{self, Encoded, byte_string},
    hash::{Hasher, Tag, hash},
    identity::{SignatureError, signed_digest},
    merkle,
    slot::Schedule,
};

/// What makes the salts of one meter's chains differ, 16 random bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SaltNonce(pub [u8; 16]);
byte_string!(SaltNonce, 16);

/// Salt of a chain: `H(16 | u16(sp) | u16(sdi) | u32(mid) | nonce)`, its first 16 bytes.
pub fn salt(owner: ProviderId, sdi: SdiId, meter: MeterId, nonce: SaltNonce) -> Salt {
    let [owner, sdi] = [owner.0, sdi.0].map(u16::to_be_bytes);
    let digest = hash(Tag::Salt, &[&owner, &sdi, &meter.0.to_be_bytes(), &nonce.0]);
    let mut salt = [0; 16];
    salt.copy_from_slice(&digest.0[..16]);
    Salt(salt)
}

/// `M_r`: what the ledger knows of a meter's chain (Eq 6).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootMessage {
    /// `ID_SM`, chosen by the owner.
    pub meter: MeterId,
    /// Owner SP: the only one that can read and bills.
    pub owner: ProviderId,
    /// `ID_SDI`: the infrastructure that provisioned the meter.
    pub sdi: SdiId,
    /// What the salt of the chain is made with, see [`Self::salt`].
    pub nonce: SaltNonce,
    /// `v_0`: the public end of the chain.
    pub anchor: Link,
    /// `r`: root of the tree over the links.
    pub root: Digest,
    /// `g_0`, `L`, `W`, `n`.
    pub schedule: Schedule,
    /// `H(07 | nonce | serial)`: the device, without showing its serial number.
    pub device: Digest,
    /// `H(0D | rho)`: whoever shows `rho` revokes the meter; `None` if only SP and SDI may.
    pub revocation_lock: Option<Digest>,
}

impl RootMessage {
    /// Salt of the chain.
    pub fn salt(&self) -> Salt {
        salt(self.owner, self.sdi, self.meter, self.nonce)
    }

    /// `mr = H(06 | net | cbor(M_r))`: what every commitment of this meter contains.
    pub fn id(&self, network: Network) -> Digest {
        let mut hasher = Hasher::new(Tag::RootMessage);
        hasher.update(&network.0);
        codec::encode_infallible(self, &mut hasher);
        hasher.finish()
    }
}

impl<C> Encode<C> for RootMessage {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(13)?.u8(2)?.encode(self.meter)?.encode(self.owner)?.encode(self.sdi)?;
        encoder.encode(self.nonce)?.encode(&self.anchor)?.encode(self.root)?;
        self.schedule.encode_fields(encoder)?;
        encoder.encode(self.device)?.encode(self.revocation_lock)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RootMessage {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 13)?;
        codec::constant(decoder, 2)?;
        let (meter, owner, sdi) = (decoder.decode()?, decoder.decode()?, decoder.decode()?);
        let (nonce, anchor, root) = (decoder.decode()?, decoder.decode()?, decoder.decode()?);
        let schedule = Schedule::decode_fields(decoder)?;
        Ok(Self {
            meter,
            owner,
            sdi,
            nonce,
            anchor,
            root,
            schedule,
            device: decoder.decode()?,
            revocation_lock: codec::optional(decoder, Decoder::decode)?,
        })
    }
}

/// A root message with the signatures that register it: `[M_r, sdi_sig, sp_sig]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// What is registered.
    pub message: RootMessage,
    /// The SDI's signature.
    pub sdi_signature: Signature,
    /// The owner SP's signature.
    pub owner_signature: Signature,
}

impl Registration {
    /// Signs `message` with both keys, as SDI and owner do one after the other.
    pub fn sign(
        message: RootMessage,
        network: Network,
        sdi: &SecretKey,
        owner: &SecretKey,
    ) -> Self {
        let digest = signed_digest(network, &message);
        Self { sdi_signature: sdi.sign(&digest), owner_signature: owner.sign(&digest), message }
    }

    /// Leaf of this registration in its block's tree of transactions:
    /// `H(00 | signed digest | sdi_sig | sp_sig)`.
    pub fn leaf(&self, network: Network) -> Digest {
        let digest = signed_digest(network, &self.message);
        merkle::leaf(&[&digest.0, &self.sdi_signature.0, &self.owner_signature.0])
    }

    /// Checks both signatures; the result is a root message that both vouch for.
    ///
    /// Whether these keys belong to `message.sdi` and `message.owner` is the caller's to look up.
    ///
    /// # Errors
    ///
    /// [`RegistrationError`], naming whose signature fails.
    pub fn verify(
        &self,
        network: Network,
        sdi: &PublicKey,
        owner: &PublicKey,
    ) -> Result<Registered, RegistrationError> {
        let digest = signed_digest(network, &self.message);
        sdi.verify(&digest, &self.sdi_signature).map_err(RegistrationError::Sdi)?;
        owner.verify(&digest, &self.owner_signature).map_err(RegistrationError::Owner)?;
        Ok(Registered { id: self.message.id(network), message: self.message.clone() })
    }
}

impl<C> Encode<C> for Registration {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.encode(&self.message)?;
        encoder.encode(self.sdi_signature)?.encode(self.owner_signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Registration {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        Ok(Self {
            message: decoder.decode()?,
            sdi_signature: decoder.decode()?,
            owner_signature: decoder.decode()?,
        })
    }
}

/// A root message that SDI and owner signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registered {
    message: RootMessage,
    id: Digest,
}

impl Registered {
    /// The root message.
    pub const fn message(&self) -> &RootMessage {
        &self.message
    }

    /// Its id, `mr`.
    pub const fn id(&self) -> &Digest {
        &self.id
    }
}

/// A registration that one of its signers does not vouch for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RegistrationError {
    /// The SDI's signature.
    #[error("signature of the SDI: {0}")]
    Sdi(SignatureError),
    /// The owner SP's signature.
    #[error("signature of the owner SP: {0}")]
    Owner(SignatureError),
}
