//! Revocation of a meter (A25): a stolen or broken meter signs nothing any more.
//!
//! `[7, mid, mr, reason, [sdi, sdi_sig, sp_sig] / rho]`. Either the owner SP and an SDI sign
//! `[7, mid, mr, reason]`, or somebody shows the secret `rho` behind the lock in the registration.
//! `mr` names the chain, so that a revocation cannot be used against a later chain of the same
//! meter. Requests of later blocks are refused; what was requested before may still be opened.

use bkss_scheme::{
    Digest, MeterId, Network, SdiId, SecretKey, Signature,
    codec::{self, Encoded},
    hash::{Tag, hash},
    identity::{SignatureError, signed_digest},
    merkle,
};
use minicbor::{Decode, Decoder, Encode, Encoder, data::Type, decode, encode};

use crate::{Chain, Members};

/// Number of this transaction.
pub(crate) const NUMBER: u8 = 7;

/// Why a meter is revoked, for people; the ledger treats all alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reason(pub u8);

/// A meter's chain ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// The meter.
    pub meter: MeterId,
    /// `mr` of the chain.
    pub chain: Digest,
    /// Why.
    pub reason: Reason,
    /// By whose right.
    pub right: Right,
}

/// By whose right a meter is revoked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Right {
    /// Owner SP and an SDI of the consortium together.
    Signed {
        /// The SDI.
        sdi: SdiId,
        /// Its signature.
        sdi_signature: Signature,
        /// The owner's signature.
        owner_signature: Signature,
    },
    /// Whoever knows `rho`, 32 bytes.
    Secret([u8; 32]),
}

/// The rule that a revocation breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RevocationRefusal {
    #[error("meter {0} has no such chain")]
    UnknownChain(MeterId),
    #[error("the chain of meter {0} has ended")]
    Ended(MeterId),
    #[error("meter {0} is registered or revoked in this block already")]
    SecondInBlock(MeterId),
    #[error("SDI {0} is not one of the consortium")]
    UnknownSdi(SdiId),
    #[error("signature of the SDI: {0}")]
    Sdi(SignatureError),
    #[error("signature of the owner: {0}")]
    Owner(SignatureError),
    #[error("the secret does not open the registration's lock")]
    Secret,
}

impl Revocation {
    /// Signed by SDI and owner.
    pub fn sign(
        network: Network,
        chain: &Chain,
        reason: Reason,
        (sdi, sdi_key): (SdiId, &SecretKey),
        owner: &SecretKey,
    ) -> Self {
        let (meter, chain) = (chain.meter, chain.id);
        let digest = digest(network, meter, &chain, reason);
        let right = Right::Signed {
            sdi,
            sdi_signature: sdi_key.sign(&digest),
            owner_signature: owner.sign(&digest),
        };
        Self { meter, chain, reason, right }
    }

    /// What SDI and owner sign.
    pub fn digest(&self, network: Network) -> Digest {
        digest(network, self.meter, &self.chain, self.reason)
    }

    pub(crate) fn leaf(&self, digest: &Digest) -> Digest {
        match &self.right {
            Right::Signed { sdi, sdi_signature, owner_signature } => merkle::leaf(&[
                &digest.0,
                &sdi.0.to_be_bytes(),
                &sdi_signature.0,
                &owner_signature.0,
            ]),
            Right::Secret(secret) => merkle::leaf(&[&digest.0, secret]),
        }
    }

    /// Checks that an SDI that has signed it is one now.
    pub(crate) fn check_standing(&self, members: &Members) -> Result<(), RevocationRefusal> {
        match &self.right {
            Right::Signed { sdi, .. } if members.sdi(*sdi).is_none() => {
                Err(RevocationRefusal::UnknownSdi(*sdi))
            }
            _ => Ok(()),
        }
    }

    /// Checks the right to revoke this chain.
    ///
    /// # Errors
    ///
    /// [`RevocationRefusal`].
    pub fn check(
        &self,
        members: &Members,
        network: Network,
        chain: &Chain,
    ) -> Result<(), RevocationRefusal> {
        use RevocationRefusal as Refused;

        match &self.right {
            Right::Signed { sdi, sdi_signature, owner_signature } => {
                let digest = self.digest(network);
                let sdi = members.sdi(*sdi).ok_or(Refused::UnknownSdi(*sdi))?;
                sdi.key.verify(&digest, sdi_signature).map_err(Refused::Sdi)?;
                // A provider that has left still answers for its meters.
                let owner = members.provider_ever(chain.owner);
                let owner = owner.ok_or(Refused::UnknownChain(self.meter))?;
                owner.key.verify(&digest, owner_signature).map_err(Refused::Owner)
            }
            Right::Secret(secret) => {
                let lock = hash(Tag::RevocationLock, &[secret]);
                if chain.revocation_lock == Some(lock) { Ok(()) } else { Err(Refused::Secret) }
            }
        }
    }
}

/// What SDI and owner sign to end a meter's chain.
pub fn digest(network: Network, meter: MeterId, chain: &Digest, reason: Reason) -> Digest {
    signed_digest(network, &(NUMBER, meter, chain, reason.0))
}

impl<C> Encode<C> for Revocation {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(NUMBER)?.encode(self.meter)?.encode(self.chain)?.u8(self.reason.0)?;
        match &self.right {
            Right::Signed { sdi, sdi_signature, owner_signature } => {
                encoder.array(3)?.encode(sdi)?.encode(sdi_signature)?.encode(owner_signature)?.ok()
            }
            Right::Secret(secret) => encoder.bytes(secret)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Revocation {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, NUMBER)?;
        let (meter, chain) = (decoder.decode()?, decoder.decode()?);
        let reason = Reason(decoder.u8()?);
        let right = if decoder.datatype()? == Type::Bytes {
            Right::Secret(codec::bytes(decoder)?)
        } else {
            codec::array(decoder, 3)?;
            Right::Signed {
                sdi: decoder.decode()?,
                sdi_signature: decoder.decode()?,
                owner_signature: decoder.decode()?,
            }
        };
        Ok(Self { meter, chain, reason, right })
    }
}
