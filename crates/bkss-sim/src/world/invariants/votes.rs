//! Votes: what an honest provider sends is overheard, so that a second vote is seen even where it
//! reaches nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bkss_node::simulated::{Channel, Tap};
use commonware_codec::DecodeExt;
use commonware_consensus::{
    Epochable, Viewable,
    simplex::{scheme::ed25519::Scheme, types::Vote},
};
use commonware_cryptography::sha256::Digest;
use commonware_p2p::utils::mux;

use super::Violation;

/// What a provider has voted in a view.
#[derive(Clone, Copy, Debug, Default)]
struct Cast {
    notarized: Option<(u64, Digest)>,
    finalized: Option<(u64, Digest)>,
    nullified: bool,
}

/// An honest provider casts one vote of a kind in a view, and none to end a view that it votes to
/// finalize.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct OneVote(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    cast: BTreeMap<(usize, u64, u64), Cast>,
    second: Option<(usize, u64, u64)>,
    /// Providers whose operator has let them vote without their memory.
    excused: BTreeSet<usize>,
    /// The last round of which somebody's disk may have been put back without its votes.
    images: BTreeMap<usize, u64>,
}

impl OneVote {
    /// Overhears what a provider says.
    pub(in super::super) fn tap(&self, provider: usize) -> Arc<Tap> {
        let votes = self.clone();
        Arc::new(move |channel, recipients: &_, message: &_| {
            if channel == Channel::Votes
                && let Ok((_, payload)) = mux::parse(message.clone())
                && let Ok(vote) = Vote::<Scheme, Digest>::decode(payload)
            {
                votes.seen().hear(provider, &vote);
            }
            Some(recipients.clone())
        })
    }

    /// This provider may have forgotten what it had voted.
    pub(in super::super) fn excuse(&self, provider: usize) {
        self.seen().excused.insert(provider);
    }

    /// This provider's disk was put back to an image of this round: it may vote again in that one,
    /// which is over, while it catches up.
    pub(in super::super) fn put_back(&self, provider: usize, round: u64) {
        self.seen().images.insert(provider, round);
    }

    /// Whether a provider is excused.
    pub(in super::super) fn is_excused(&self, provider: usize) -> bool {
        self.seen().excused.contains(&provider)
    }

    /// Whether all have kept to it.
    pub(in super::super) fn check(&self) -> Result<(), Violation> {
        let second = self.seen().second;
        second.map_or(Ok(()), |(provider, round, view)| {
            Err(Violation::SecondVote { provider, round, view })
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn hear(&mut self, provider: usize, vote: &Vote<Scheme, Digest>) {
        let place = (provider, vote.epoch().get(), vote.view().get());
        let of_image = self.images.get(&provider).is_some_and(|round| place.1 <= *round);
        if of_image || self.excused.contains(&provider) {
            return;
        }
        let cast = self.cast.entry(place).or_default();
        let holds = match vote {
            Vote::Notarize(vote) => {
                same(&mut cast.notarized, (vote.proposal.parent.get(), vote.proposal.payload))
            }
            Vote::Finalize(vote) => {
                let content = (vote.proposal.parent.get(), vote.proposal.payload);
                same(&mut cast.finalized, content) && !cast.nullified
            }
            Vote::Nullify(_) => {
                cast.nullified = true;
                cast.finalized.is_none()
            }
        };
        if !holds {
            self.second = self.second.or(Some(place));
        }
    }
}

/// Whether it is the first of its kind, or the same again.
fn same(first: &mut Option<(u64, Digest)>, found: (u64, Digest)) -> bool {
    *first.get_or_insert(found) == found
}

#[cfg(test)]
mod tests {
    use commonware_consensus::{
        simplex::types::{Finalize, Notarize, Nullify, Proposal},
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::Signer;
    use commonware_utils::ordered::Set;

    use super::*;

    /// Votes of one provider: `n` to notarize, `f` to finalize, `0` to end the view; then the view
    /// and the block.
    fn cast(votes: &[(char, u64, u8)]) -> Result<(), Violation> {
        let key = bkss_node::config::vote_key(&[3; 32]).0;
        let committee = Set::from_iter_dedup([key.public_key()]);
        let scheme = Scheme::signer(b"world", committee, key).unwrap();
        let heard = OneVote::default();
        for (kind, view, block) in votes {
            let round = Round::new(Epoch::new(2), View::new(*view));
            let proposal = Proposal::new(round, View::new(0), Digest::from([*block; 32]));
            let vote = match kind {
                'n' => Notarize::sign(&scheme, proposal).map(Vote::Notarize),
                'f' => Finalize::sign(&scheme, proposal).map(Vote::Finalize),
                _ => Nullify::sign::<Digest>(&scheme, round).map(Vote::Nullify),
            };
            heard.seen().hear(1, &vote.unwrap());
        }
        heard.check()
    }

    #[test]
    fn two_votes_that_contradict_each_other_are_seen() {
        for (votes, holds) in [
            (&[('n', 5, 1), ('f', 5, 1), ('n', 6, 2), ('0', 7, 0)][..], true),
            (&[('n', 5, 1), ('n', 5, 1), ('0', 5, 0)], true),
            (&[('n', 5, 1), ('n', 5, 2)], false),
            (&[('f', 5, 1), ('f', 5, 2)], false),
            (&[('f', 5, 1), ('0', 5, 0)], false),
            (&[('0', 5, 0), ('f', 5, 1)], false),
        ] {
            let seen = cast(votes);
            assert_eq!(seen.is_ok(), holds, "{votes:?}");
            if let Err(second) = seen {
                assert_eq!(second.invariant(), "one-vote");
            }
        }
    }
}
