//! Who keeps a round, and whom a node talks to in it: from the ledger's state to the engine's terms.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use bkss_ledger::{Round, State, leader::leader_of};
use bkss_scheme::{
    Committee, Digest, Era, LedgerTime, ProviderId,
    certificate::{MAX_COMMITTEE, VoteKey},
};
use bytes::Bytes;
use commonware_codec::DecodeExt;
use commonware_consensus::{
    simplex::scheme::ed25519::Scheme,
    types::{Epoch, TermLength},
};
use commonware_cryptography::{
    certificate::{Provider as SchemeProvider, Scoped},
    ed25519::PublicKey,
};
use commonware_p2p::{Blocker, Provider};
use commonware_utils::ordered::Set;

use crate::{config::Latest, status::Schedule};

/// Most members of a committee, for the limits of messages.
#[expect(clippy::cast_possible_truncation, reason = "32")]
pub const MOST_MEMBERS: u32 = MAX_COMMITTEE as u32;
/// Rounds whose certificates can still be checked: blocks that are fetched late belong to them.
const KEPT_SCHEMES: usize = 8;

/// A provider as a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The provider.
    pub provider: ProviderId,
    /// It authenticates with its vote key.
    pub key: PublicKey,
    /// Where it listens, `host:port`; from the ledger.
    pub address: String,
}

/// Who keeps a round, and whom a node talks to in it.
#[derive(Clone)]
pub struct Plan {
    round: Arc<Round>,
    peers: Arc<Vec<Peer>>,
    height: u64,
    tenure_views: u32,
    began: LedgerTime,
}

impl Plan {
    /// The round of the next block on a state. A vote key that is no ed25519 key has no peer.
    pub fn of(state: &State) -> Self {
        let round = state.round().clone();
        let peers = state.members().present().flat_map(|identity| {
            let id = identity.id;
            let seat = round.nodes.iter().find(|(node, _)| *node == id).map(|(_, key)| *key);
            let later = seat.is_none_or(|key| key != identity.vote_key);
            let keys = seat.into_iter().chain(later.then_some(identity.vote_key));
            let address = identity.address.to_string();
            keys.filter_map(|key| public_key(&key)).map(move |key| Peer {
                provider: id,
                key,
                address: address.clone(),
            })
        });
        // Whoever has left keeps its seat until the round ends, also for a node that has not seen it
        // leave because it was started again since.
        let gone = round.nodes.iter().filter(|(id, _)| state.members().provider(*id).is_none());
        let gone = gone.filter_map(|(id, key)| {
            let address = state.members().provider_ever(*id)?.address.to_string();
            Some(Peer { provider: *id, key: public_key(key)?, address })
        });
        let peers = Arc::new(peers.chain(gone).collect());
        let tenure_views = state.genesis().charter().rounds.tenure_views;
        let (height, began) = (state.head().height, state.head().time);
        Self { round, peers, height, tenure_views, began }
    }

    /// Talks to those as well that a genesis file knows, on a state that is older than the file.
    pub fn with(mut self, latest: &Latest) -> Self {
        if self.height < latest.height {
            let peers = Arc::make_mut(&mut self.peers);
            for identity in &latest.providers {
                let Some(key) = public_key(&identity.vote_key) else { continue };
                let (provider, address) = (identity.id, identity.address.to_string());
                match peers.iter_mut().find(|peer| peer.key == key) {
                    Some(known) => known.address = address,
                    None => peers.push(Peer { provider, key, address }),
                }
            }
        }
        self
    }

    /// The key that a provider has in this round.
    pub fn key_of(&self, provider: ProviderId) -> Option<VoteKey> {
        // Where there are two, the one of the seat comes first.
        let peer = self.peers.iter().find(|peer| peer.provider == provider)?;
        peer.key.as_ref().try_into().ok().map(VoteKey)
    }

    /// Keeps the peers from before a change of members in the middle of the round: whoever has left
    /// or has another key stays what it was until the round ends.
    pub fn keep(&mut self, before: &[Peer]) {
        let peers = Arc::make_mut(&mut self.peers);
        for peer in before {
            if peers.iter().any(|now| now.key == peer.key) {
                continue;
            }
            let now = peers.iter().find(|now| now.provider == peer.provider);
            let address = now.map_or(&peer.address, |now| &now.address).clone();
            peers.push(Peer { address, ..peer.clone() });
        }
    }

    /// Height of the block that it follows.
    pub const fn height(&self) -> u64 {
        self.height
    }

    /// Time of the block before the round's first, or of a later one of a round that is under way.
    pub const fn began(&self) -> LedgerTime {
        self.began
    }

    /// Number of the round.
    pub fn number(&self) -> u64 {
        self.round.number
    }

    /// The vote keys that decide.
    pub fn committee(&self) -> &Committee {
        &self.round.committee
    }

    /// The providers that keep the round, ascending.
    pub fn members(&self) -> Vec<ProviderId> {
        let mut members: Vec<_> = self.round.nodes.iter().map(|(id, _)| *id).collect();
        members.sort_unstable();
        members
    }

    /// The block that the round builds on: the last of the round before.
    pub fn floor(&self) -> Digest {
        self.round.seed
    }

    /// The present providers, and those that have left and still have a seat. One that takes another
    /// key with the next round has both.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Views of a tenure.
    pub fn tenure_length(&self) -> TermLength {
        NonZeroU32::new(self.tenure_views).map_or(TermLength::ONE, TermLength::new)
    }

    /// The key of a view's leader.
    pub fn leader(&self, view: u64) -> Option<VoteKey> {
        leader_of(&self.round, view, self.tenure_views).map(|(_, key)| key)
    }

    /// Whose seat in the committee a vote key has.
    pub fn provider(&self, key: &VoteKey) -> Option<ProviderId> {
        self.round.nodes.iter().find(|(_, seat)| seat == key).map(|(id, _)| *id)
    }

    pub(crate) fn schedule(&self) -> Schedule {
        let (round, tenure_views) = (self.round.clone(), self.tenure_views);
        Schedule::new(move |view| leader_of(&round, view, tenure_views).map(|(id, _)| id))
    }
}

/// The engine's form of a vote key; `None` if it is no ed25519 key.
pub fn public_key(key: &VoteKey) -> Option<PublicKey> {
    PublicKey::decode(Bytes::copy_from_slice(&key.0)).ok()
}

/// A committee as the engine knows it; `None` if a key is no ed25519 key.
pub fn participants(committee: &Committee) -> Option<Set<PublicKey>> {
    let keys: Option<Vec<_>> = committee.keys().iter().map(public_key).collect();
    Some(Set::from_iter_dedup(keys?))
}

/// The network as a node needs it: who may talk to it.
pub trait Network:
    Blocker<PublicKey = PublicKey> + Provider<PublicKey = PublicKey> + Clone + Sync
{
    /// Connects to the peers that a block leads to; those of the committee come first.
    fn track(&mut self, height: u64, committee: &Set<PublicKey>, peers: &[Peer]);
}

/// The certificate schemes of the newest rounds, and of all that were over when the node started.
#[derive(Clone, Default)]
pub struct Schemes {
    newest: Arc<Mutex<BTreeMap<Epoch, Arc<Scheme>>>>,
    earlier: Option<Arc<Earlier>>,
}

/// The committees of the rounds that were over when a node started: it may have to fetch their
/// certificates again, although it begins at a snapshot behind them.
struct Earlier {
    namespace: Vec<u8>,
    eras: Vec<Era>,
    /// The round of the state that it started with: of later ones it may not know all.
    round: u64,
}

impl Earlier {
    /// The scheme of a round.
    fn scheme(&self, round: u64) -> Option<Arc<Scheme>> {
        if round > self.round {
            return None;
        }
        let era = self.eras.iter().rev().find(|era| era.from_epoch <= round)?;
        Some(Scheme::verifier(&self.namespace, participants(&era.committee)?).into())
    }
}

impl Schemes {
    /// Knows those of all rounds up to that of a state, from the committees of a genesis file; none, if
    /// the file has another committee for that round: it is older than the state.
    pub fn of(state: &State, eras: &[Era], namespace: &[u8]) -> Self {
        let round = state.round().number;
        let era = eras.iter().rev().find(|era| era.from_epoch <= round);
        let same = era.is_some_and(|era| era.committee == state.round().committee);
        let earlier = Earlier { namespace: namespace.to_vec(), eras: eras.to_vec(), round };
        Self { newest: Arc::default(), earlier: same.then(|| earlier.into()) }
    }

    /// Knows the scheme of a round from now on.
    pub fn register(&self, round: u64, scheme: Scheme) {
        let mut schemes = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        schemes.insert(Epoch::new(round), Arc::new(scheme));
        while schemes.len() > KEPT_SCHEMES {
            schemes.pop_first();
        }
    }
}

impl SchemeProvider for Schemes {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest.get(&epoch).cloned();
        drop(newest);
        let earlier = || self.earlier.as_ref()?.scheme(epoch.get());
        known.or_else(earlier).map(Scoped::scheme)
    }
}
