//! What one provider's node is started with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bkss_ledger::Genesis;
use bkss_scheme::{
    Era, ProviderId, ProviderIdentity, SecretKey,
    certificate::{VoteKey, vote_namespace},
};
use bytes::Bytes;
use commonware_codec::DecodeExt;
use commonware_cryptography::{Signer, ed25519};

use crate::LedgerClock;

/// Asked when a round begins in which the ledger knows another vote key of this provider: true if
/// the node will be stopped and started with that key. It does not enter the round then.
pub type Rekey = Arc<dyn Fn(&VoteKey) -> bool + Send + Sync>;

/// The providers as a genesis file knows them. A node that is far behind it would call the others with
/// keys that they have given up since, and be a stranger to all.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    /// Height of the block up to which the file knows them.
    pub height: u64,
    /// Those who are present there.
    pub providers: Vec<ProviderIdentity>,
}

/// A provider's keys and how its node keeps time.
#[derive(Clone)]
pub struct Config {
    /// The network.
    pub genesis: Arc<Genesis>,
    /// The committees so far, as the genesis file knows them.
    pub eras: Vec<Era>,
    /// The providers, as the genesis file knows them.
    pub latest: Latest,
    /// Which provider this is.
    pub provider: ProviderId,
    /// Signs batches.
    pub identity: SecretKey,
    /// Signs votes and authenticates connections.
    pub vote_key: ed25519::PrivateKey,
    /// Who may have the provider's next vote key, if anybody.
    pub rekey: Option<Rekey>,
    /// The node's clock.
    pub clock: LedgerClock,
    /// How fast blocks follow each other.
    pub pacing: Pacing,
    /// Whom this provider trusts to keep the ledger (Algorithm 3); `None` for all others.
    pub trust: Option<Vec<ProviderId>>,
    /// Addresses (`host:port`) of providers that stand for those of the ledger.
    pub addresses: BTreeMap<ProviderId, String>,
    /// A snapshot is written after every so many rounds; 0 for never.
    pub snapshot_rounds: u32,
    /// Sealed bodies are erased after so many days of ledger time; `None` for never.
    pub keep_bodies_days: Option<u32>,
    /// First height whose block those who listen to events have not on disk yet: a restart begins
    /// no later. 1 for listeners without a disk.
    pub events_from: u64,
    /// Votes although the record of earlier votes is lost (see [`crate::memory`]). For operators
    /// who know that no other node has this key, when too many disks are lost at once.
    pub vote_without_memory: bool,
    /// Names this node's part of the storage.
    pub partition: String,
}

/// Wall-clock durations of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pacing {
    /// How long a gateway collects messages into one batch.
    pub gather: Duration,
    /// Least time from the receipt of a parent to a proposal on it.
    pub interval: Duration,
    /// A leader without transactions proposes an empty block at the latest after this.
    pub idle: Duration,
    /// A batch that is not final after this is sent again.
    pub resend: Duration,
    /// A leader that has not proposed by then is voted out of its view; longer than `idle`.
    pub leader_timeout: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(10),
            interval: Duration::from_millis(20),
            idle: Duration::from_secs(1),
            resend: Duration::from_secs(1),
            leader_timeout: Duration::from_millis(1500),
        }
    }
}

impl Config {
    /// The namespace of the engine's votes in this network.
    pub fn namespace(&self) -> Vec<u8> {
        vote_namespace(self.genesis.network()).to_vec()
    }
}

/// A vote key from its 32 secret bytes, and its public half.
///
/// # Panics
///
/// Never: every 32 bytes are an ed25519 key.
pub fn vote_key(secret: &[u8; 32]) -> (ed25519::PrivateKey, VoteKey) {
    let key = ed25519::PrivateKey::decode(Bytes::copy_from_slice(secret))
        .expect("every 32 bytes are a key");
    let public = public_half(&key);
    (key, public)
}

/// The public half of a vote key.
pub fn public_half(key: &ed25519::PrivateKey) -> VoteKey {
    let mut public = [0; 32];
    public.copy_from_slice(&key.public_key());
    VoteKey(public)
}
