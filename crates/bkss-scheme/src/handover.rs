//! Handovers: how trust walks from the committee of the genesis to that of a later round.
//!
//! A committee certifies the blocks of its epochs, the last of them with the digest of the committee
//! that follows it. Whoever knows one committee can so check the next, and nobody else can name it:
//! a quorum of the old committee certifies the new one (Algorithm 3 as repaired, B9). What a block
//! changes about the members of the consortium is handed over the same way.

use core::slice;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Committee, Digest, Era, Header, Network,
    certificate::NotFinal,
    codec::{self, Encoded},
    finality::{EraEnd, Eras, Finality, RoundLength},
};

/// Most bytes of the members in a handover.
pub const MAX_MEMBERS_BYTES: usize = 1 << 19;

/// The end of a round that changes the committee, or a block that changes the members:
/// `[38, header, finality, [+ vote key] / null, members / null]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handover<'a> {
    /// The block's header.
    pub header: Header,
    /// Why it is final.
    pub finality: Finality<'a>,
    /// The committee from the next epoch on, if another.
    pub committee: Option<Committee>,
    /// What changes about the members with the next block. A meter skips it.
    pub members: Option<&'a [u8]>,
}

/// A handover that proves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum HandoverError {
    #[error(transparent)]
    NotFinal(#[from] NotFinal),
    #[error("block {height} hands over to committee {expected:?}, found {found:?}")]
    OtherCommittee { height: u64, expected: Option<Digest>, found: Option<Digest> },
    #[error("handover of epoch {found} after one of epoch {newest}")]
    Past { newest: u64, found: u64 },
    #[error("block {height} hands over to another committee and does not end its round")]
    InsideRound { height: u64 },
}

impl Handover<'_> {
    /// What follows `era`, the newest that is known: where it ends and who comes next; `None` if only
    /// members change.
    ///
    /// # Errors
    ///
    /// [`HandoverError`] unless a quorum of the era's committee has certified it, in this era.
    pub fn verify(
        &self,
        network: Network,
        rounds: RoundLength,
        era: &Era,
    ) -> Result<Option<(EraEnd, Era)>, HandoverError> {
        let found = self.finality.certificate.epoch;
        if found < era.from_epoch {
            return Err(HandoverError::Past { newest: era.from_epoch, found });
        }
        let eras = Eras { network, rounds, eras: slice::from_ref(era) };
        eras.certified(&self.finality, &self.header)?;
        let Header { height, time, .. } = self.header;
        let (expected, named) =
            (self.header.next_committee, self.committee.as_ref().map(Committee::digest));
        if expected != named {
            return Err(HandoverError::OtherCommittee { height, expected, found: named });
        }
        let Some(committee) = &self.committee else { return Ok(None) };
        if !rounds.ends(height) {
            return Err(HandoverError::InsideRound { height });
        }
        let next = Era::new(found.saturating_add(1), committee.clone());
        Ok(Some((EraEnd { height, time }, next)))
    }
}

impl<C> Encode<C> for Handover<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(38)?.encode(&self.header)?.encode(self.finality)?;
        match &self.committee {
            Some(committee) => encoder.encode(committee)?,
            None => encoder.null()?,
        };
        match self.members {
            Some(members) => encoder.bytes(members)?.ok(),
            None => encoder.null()?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Handover<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 38)?;
        Ok(Self {
            header: decoder.decode()?,
            finality: decoder.decode()?,
            committee: codec::optional(decoder, Decoder::decode)?,
            members: codec::optional(decoder, |decoder| {
                codec::bytes_of_at_most(decoder, MAX_MEMBERS_BYTES)
            })?,
        })
    }
}
