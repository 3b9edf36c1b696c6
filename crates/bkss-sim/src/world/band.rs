//! A band of liars: they share their keys, and what one of them proposes all of them vote for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bkss_node::simulated::Channel;
use commonware_codec::{Encode, varint::UInt};
use commonware_consensus::simplex::{
    scheme::ed25519::Scheme,
    types::{Finalize, Notarize, Proposal, Vote},
};
use commonware_cryptography::{
    ed25519::{PrivateKey, PublicKey},
    sha256::Digest,
};
use commonware_p2p::Recipients;
use commonware_utils::{channel::mpsc, ordered::Set};

/// What a liar says beside its node.
pub(super) struct Lie {
    pub(super) channel: Channel,
    pub(super) recipients: Recipients<PublicKey>,
    pub(super) bytes: Vec<u8>,
}

impl Lie {
    /// A vote in a round.
    pub(super) fn vote(
        epoch: u64,
        vote: &Vote<Scheme, Digest>,
        recipients: Recipients<PublicKey>,
    ) -> Self {
        let mut bytes = UInt(epoch).encode().to_vec();
        bytes.extend_from_slice(&vote.encode());
        Self { channel: Channel::Votes, recipients, bytes }
    }
}

/// The liars that have one plan.
#[derive(Clone, Default)]
pub(super) struct Band(Arc<Mutex<Vec<Member>>>);

struct Member {
    place: usize,
    key: PrivateKey,
    lies: mpsc::UnboundedSender<Lie>,
}

impl Band {
    /// A liar is there, again perhaps, with the key it votes with and its own voice.
    pub(super) fn join(&self, place: usize, key: PrivateKey, lies: mpsc::UnboundedSender<Lie>) {
        let mut members = self.members();
        members.retain(|member| member.place != place);
        members.push(Member { place, key, lies });
    }

    /// All but the one that proposes vote for a proposal, to notarize and to finalize, and tell these.
    pub(super) fn vouch(
        &self,
        proposer: usize,
        (epoch, namespace): (u64, &[u8]),
        committee: &Set<PublicKey>,
        proposal: &Proposal<Digest>,
        told: &[PublicKey],
    ) {
        for Member { key, lies, .. } in
            self.members().iter().filter(|member| member.place != proposer)
        {
            let scheme = Scheme::signer(namespace, committee.clone(), key.clone());
            let Some(scheme) = scheme else { continue };
            let notarize = Notarize::sign(&scheme, proposal.clone()).map(Vote::Notarize);
            let finalize = Finalize::sign(&scheme, proposal.clone()).map(Vote::Finalize);
            for vote in [notarize, finalize].into_iter().flatten() {
                // Who has gone hears nothing.
                let _ = lies.send(Lie::vote(epoch, &vote, Recipients::Some(told.to_vec())));
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
