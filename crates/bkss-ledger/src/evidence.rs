//! Evidence of double voting (scheme s4.5 L7): two signed votes of one provider that no honest node
//! both casts.
//!
//! `[12, sp, vote key, epoch, view, vote, vote]`, a vote being `[0, parent view, block, sig]` to
//! notarize, `[1, sig]` to nullify, `[2, parent view, block, sig]` to finalize. Anybody may put it
//! on the ledger: the votes are signed. It is recorded once per provider and view, and auditors
//! report it; whether the provider is expelled is the others' decision.

use bkss_scheme::{
    Digest, Network, ProviderId, Signature,
    certificate::{VoteContent, VoteKey, accepts},
    codec::{self, Encoded},
    identity::signed_digest,
    merkle,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::Members;

/// Number of this transaction.
pub(crate) const NUMBER: u8 = 12;
/// Most records of one provider; more change nothing about what is known of it.
pub const MAX_RECORDS: usize = 64;

/// Two conflicting votes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Evidence {
    /// Where and by whom they were cast.
    pub offence: Offence,
    /// The key that signed both.
    pub vote_key: VoteKey,
    /// The votes.
    pub votes: [SignedVote; 2],
}

/// Who voted twice, and where.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Offence {
    /// The provider.
    pub provider: ProviderId,
    /// The engine's epoch: the round.
    pub epoch: u64,
    /// The view.
    pub view: u64,
}

/// A vote with its signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SignedVote {
    /// What it says.
    pub content: VoteContent,
    /// The ed25519 signature.
    pub signature: Signature,
}

/// Why two votes prove nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum EvidenceRefusal {
    #[error("the vote key is not one that provider {0} has or had")]
    OtherKey(ProviderId),
    #[error("an honest node may cast both votes")]
    NoConflict,
    #[error("signature of vote {0} does not hold")]
    Signature(usize),
    #[error("provider {} is recorded for view {} of round {}", .0.provider, .0.view, .0.epoch)]
    Known(Offence),
    #[error("{MAX_RECORDS} offences of provider {0} are recorded")]
    Full(ProviderId),
}

impl Evidence {
    /// Digest of all of it, under the network's name.
    pub fn digest(&self, network: Network) -> Digest {
        signed_digest(network, self)
    }

    pub(crate) fn leaf(&self, digest: &Digest) -> Digest {
        merkle::leaf(&[&digest.0])
    }

    /// Checks that the votes conflict and that one key of the provider signed both.
    ///
    /// # Errors
    ///
    /// [`EvidenceRefusal`]: the first thing that does not hold.
    pub fn check(&self, members: &Members, network: Network) -> Result<(), EvidenceRefusal> {
        self.check_claim(members)?;
        let Offence { epoch, view, .. } = self.offence;
        for (position, vote) in self.votes.iter().enumerate() {
            let message = vote.content.message(network, epoch, view);
            let holds =
                message.is_some_and(|message| accepts(&self.vote_key, &message, &vote.signature.0));
            if !holds {
                return Err(EvidenceRefusal::Signature(position));
            }
        }
        Ok(())
    }

    /// Checks that the key is the provider's and that the votes conflict.
    pub(crate) fn check_claim(&self, members: &Members) -> Result<(), EvidenceRefusal> {
        let provider = self.offence.provider;
        if members.voter(&self.vote_key) != Some(provider) {
            return Err(EvidenceRefusal::OtherKey(provider));
        }
        let [one, other] = &self.votes;
        let conflicts = conflict(&one.content, &other.content);
        if conflicts { Ok(()) } else { Err(EvidenceRefusal::NoConflict) }
    }
}

/// Whether no honest node casts both in one view: two proposals notarized, two finalized, or one
/// finalized in a view that the same node wants to end.
fn conflict(one: &VoteContent, other: &VoteContent) -> bool {
    use VoteContent::{Finalize, Notarize, Nullify};

    match (one, other) {
        (Notarize { .. }, Notarize { .. }) | (Finalize { .. }, Finalize { .. }) => one != other,
        (Nullify, Finalize { .. }) => true,
        _ => false,
    }
}

impl<C> Encode<C> for Evidence {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let Offence { provider, epoch, view } = self.offence;
        encoder.array(7)?.u8(NUMBER)?.encode(provider)?.encode(self.vote_key)?;
        encoder.u64(epoch)?.u64(view)?.encode(self.votes[0])?.encode(self.votes[1])?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Evidence {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 7)?;
        codec::constant(decoder, NUMBER)?;
        let (provider, vote_key) = (decoder.decode()?, decoder.decode()?);
        let offence = Offence { provider, epoch: decoder.u64()?, view: decoder.u64()? };
        Ok(Self { offence, vote_key, votes: [decoder.decode()?, decoder.decode()?] })
    }
}

impl<C> Encode<C> for SignedVote {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        match &self.content {
            VoteContent::Notarize { parent_view, block } => {
                encoder.array(4)?.u8(0)?.u64(*parent_view)?.encode(block)?;
            }
            VoteContent::Nullify => {
                encoder.array(2)?.u8(1)?;
            }
            VoteContent::Finalize { parent_view, block } => {
                encoder.array(4)?.u8(2)?.u64(*parent_view)?.encode(block)?;
            }
        }
        encoder.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SignedVote {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = decoder.position();
        let parts = decoder.array()?;
        let content = match (parts, decoder.u8()?) {
            (Some(4), 0) => {
                VoteContent::Notarize { parent_view: decoder.u64()?, block: decoder.decode()? }
            }
            (Some(2), 1) => VoteContent::Nullify,
            (Some(4), 2) => {
                VoteContent::Finalize { parent_view: decoder.u64()?, block: decoder.decode()? }
            }
            _ => return Err(decode::Error::message("unknown kind of vote").at(at)),
        };
        Ok(Self { content, signature: decoder.decode()? })
    }
}
