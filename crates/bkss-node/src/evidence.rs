//! What the consensus of a round shows beside blocks: views that pass, and members that vote twice.
//!
//! The engine reports two conflicting votes before it has checked their signatures; the ledger's
//! rule checks them when they are put together here, so a forged vote accuses nobody.

use std::sync::{Arc, Mutex, PoisonError};

use bkss_ledger::{
    Evidence,
    evidence::{Offence, SignedVote},
};
use bkss_scheme::{
    Digest, ProviderId, Signature,
    certificate::{VoteContent, VoteKey},
};
use commonware_actor::Feedback;
use commonware_codec::{Buf, Encode, ReadExt};
use commonware_consensus::{
    Epochable, Reporter, Viewable,
    simplex::{
        scheme::ed25519::Scheme,
        types::{Activity, Attributable, Finalize, Notarize, Nullify, Proposal},
    },
    types::{Participant, View},
};
use commonware_cryptography::{certificate::Attestation, sha256};
use commonware_utils::channel::mpsc;

use crate::{memory::Votes, plan::Plan, status::Status};

/// Accusations that wait for the node; more of the same moment add nothing.
const WAITING: usize = 64;

type Vote = (VoteContent, Attestation<Scheme>);

/// What this node has voted in a round.
pub type OwnVotes = Arc<Mutex<Votes>>;

/// Where accusations go.
#[derive(Clone, Debug)]
pub struct Accusations(mpsc::Sender<Evidence>);

impl Accusations {
    /// A channel for accusations.
    pub fn channel() -> (Self, mpsc::Receiver<Evidence>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }
}

/// Watches the consensus of one round.
#[derive(Clone)]
pub struct Watch {
    plan: Plan,
    status: Status,
    accusations: Accusations,
    /// This node's seat, if it has one.
    me: Option<Participant>,
    /// What this node has voted.
    voted: OwnVotes,
}

impl Watch {
    /// For a round in which this node has the seat `me`.
    pub const fn new(
        plan: Plan,
        status: Status,
        accusations: Accusations,
        me: Option<Participant>,
        voted: OwnVotes,
    ) -> Self {
        Self { plan, status, accusations, me, voted }
    }

    /// The round has come to a view.
    fn decided(&self, next: View, without_block: bool) {
        self.status.decided(self.plan.number(), next.get(), without_block);
    }

    fn vote(&self, signer: Participant, view: View, kind: u64) {
        let key = self.plan.committee().keys().get(usize::from(signer));
        if let Some(member) = key.and_then(|key| self.plan.provider(key)) {
            self.status.heard(member);
        }
        if Some(signer) == self.me {
            let mut voted = self.voted.lock().unwrap_or_else(PoisonError::into_inner);
            voted.add(view.get(), kind);
        }
    }

    fn accuse(&self, votes: Option<[Vote; 2]>, epoch: u64, view: u64) {
        self.status.fault();
        let evidence = votes.and_then(|votes| self.evidence(votes, epoch, view));
        match evidence {
            Some(evidence) => {
                let Offence { provider, epoch, view } = evidence.offence;
                tracing::warn!(%provider, round = epoch, view, "two conflicting votes");
                // If many wait, the ledger will know soon.
                let _ = self.accusations.0.try_send(evidence);
            }
            None => tracing::error!(epoch, view, "conflicting votes of an unknown layout"),
        }
    }

    fn evidence(&self, votes: [Vote; 2], epoch: u64, view: u64) -> Option<Evidence> {
        let index = usize::from(votes[0].1.signer);
        let vote_key = *self.plan.committee().keys().get(index)?;
        let provider = self.plan.provider(&vote_key)?;
        evidence(provider, vote_key, epoch, view, votes)
    }
}

impl Reporter for Watch {
    type Activity = Activity<Scheme, sha256::Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        use Activity as Seen;

        let (epoch, view) = (activity.epoch().get(), activity.view());
        match &activity {
            Seen::Notarize(vote) => self.vote(vote.signer(), view, Votes::NOTARIZE),
            Seen::Nullify(vote) => self.vote(vote.signer(), view, Votes::NULLIFY),
            Seen::Finalize(vote) => self.vote(vote.signer(), view, Votes::FINALIZE),
            Seen::Certification(_) | Seen::Finalization(_) => self.decided(view.next(), false),
            Seen::Nullification(_) => {
                let tenure = self.plan.tenure_length();
                self.decided(view.next_term_start(tenure), true);
            }
            Seen::ConflictingNotarize(_) | Seen::ConflictingFinalize(_) => {
                self.accuse(conflicting(&activity), epoch, view.get());
            }
            Seen::NullifyFinalize(_) => self.accuse(conflicting(&activity), epoch, view.get()),
            Seen::Notarization(_) => {}
        }
        Feedback::Ok
    }
}

/// The two votes of a conflict; the engine shows them in its encoding only.
fn conflicting(activity: &Activity<Scheme, sha256::Digest>) -> Option<[Vote; 2]> {
    match activity {
        Activity::ConflictingNotarize(pair) => {
            let mut bytes = pair.encode();
            Some([notarize(&mut bytes)?, notarize(&mut bytes)?])
        }
        Activity::ConflictingFinalize(pair) => {
            let mut bytes = pair.encode();
            Some([finalize(&mut bytes)?, finalize(&mut bytes)?])
        }
        Activity::NullifyFinalize(pair) => {
            let mut bytes = pair.encode();
            let nullify = Nullify::<Scheme>::read(&mut bytes).ok()?;
            Some([(VoteContent::Nullify, nullify.attestation), finalize(&mut bytes)?])
        }
        _ => None,
    }
}

fn notarize(bytes: &mut impl Buf) -> Option<Vote> {
    let vote = Notarize::<Scheme, sha256::Digest>::read(bytes).ok()?;
    let (parent_view, block) = proposal(&vote.proposal);
    Some((VoteContent::Notarize { parent_view, block }, vote.attestation))
}

fn finalize(bytes: &mut impl Buf) -> Option<Vote> {
    let vote = Finalize::<Scheme, sha256::Digest>::read(bytes).ok()?;
    let (parent_view, block) = proposal(&vote.proposal);
    Some((VoteContent::Finalize { parent_view, block }, vote.attestation))
}

fn proposal(proposal: &Proposal<sha256::Digest>) -> (u64, Digest) {
    let mut block = Digest([0; 32]);
    block.0.copy_from_slice(&proposal.payload);
    (proposal.parent.get(), block)
}

/// Puts two votes of one member together, in an order that does not depend on who saw them.
fn evidence(
    provider: ProviderId,
    vote_key: VoteKey,
    epoch: u64,
    view: u64,
    votes: [Vote; 2],
) -> Option<Evidence> {
    let [one, other] = votes.map(|(content, attestation)| {
        let mut signature = [0; 64];
        signature.copy_from_slice(attestation.signature.get()?);
        Some(SignedVote { content, signature: Signature(signature) })
    });
    let (mut one, mut other) = (one?, other?);
    if rank(&other.content) < rank(&one.content) {
        std::mem::swap(&mut one, &mut other);
    }
    let offence = Offence { provider, epoch, view };
    Some(Evidence { offence, vote_key, votes: [one, other] })
}

fn rank(content: &VoteContent) -> (u8, u64, [u8; 32]) {
    match content {
        VoteContent::Notarize { parent_view, block } => (0, *parent_view, block.0),
        VoteContent::Nullify => (1, 0, [0; 32]),
        VoteContent::Finalize { parent_view, block } => (2, *parent_view, block.0),
    }
}
