//! Providers on a simulated network.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bkss_node::{
    Config, LedgerClock, Pacing, config, node,
    rounds::{self, Peer},
};
use bkss_scheme::ProviderId;
use commonware_actor::Feedback;
use commonware_cryptography::{Signer, ed25519::PublicKey};
use commonware_p2p::{
    BlockedSubscription, Blocker, Manager as _, PeerSetSubscription, Provider, TrackedPeers,
    simulated::{self, Link, Network, Oracle},
};
use commonware_runtime::{Clock, Quota, Supervisor, deterministic::Context};
use commonware_utils::{NZU32, NZUsize, ordered::Set, probability};

use crate::consortium::Consortium;

/// Ledger seconds per second of virtual time.
pub(crate) const SCALE: u32 = 60;

#[derive(Clone)]
pub(crate) struct Peers {
    control: simulated::Control<PublicKey, Context>,
    manager: simulated::Manager<PublicKey, Context>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

impl Blocker for Peers {
    type PublicKey = PublicKey;
    fn block(&mut self, key: PublicKey) -> Feedback {
        self.control.block(key)
    }
    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.control.blocked()
    }
}

impl rounds::Network for Peers {
    fn track(&mut self, round: u64, committee: &Set<PublicKey>, peers: &[Peer]) {
        let others = peers.iter().map(|peer| peer.key.clone());
        let others = others.filter(|key| committee.position(key).is_none());
        let others = Set::from_iter_dedup(others);
        self.manager.track(round, TrackedPeers::new(committee.clone(), others));
    }
}

impl Provider for Peers {
    type PublicKey = PublicKey;
    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.manager.peer_set(id).await
    }
    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.manager.subscribe().await
    }
}

/// The configuration of each provider; the clocks show the genesis time at `start`.
pub(crate) fn configs(consortium: &Consortium, start: std::time::SystemTime) -> Vec<Config> {
    let clock = LedgerClock::new(start, consortium.genesis.charter().start, SCALE);
    let members = u16::try_from(consortium.keys.len()).unwrap();
    (0..members)
        .map(|i| {
            let secret = consortium.votes[usize::from(i)].as_bytes();
            Config {
                genesis: Arc::clone(&consortium.genesis),
                provider: ProviderId(i),
                identity: consortium.keys[usize::from(i)].clone(),
                vote_key: config::vote_key(secret).0,
                clock: clock.clone(),
                pacing: Pacing::default(),
                trust: None,
                addresses: BTreeMap::new(),
                partition: format!("provider-{i}"),
            }
        })
        .collect()
}

/// Starts these providers on a network of 20 ms links.
pub(crate) async fn start(ctx: &Context, configs: Vec<Config>) -> Vec<node::Node> {
    let keys: Vec<_> = configs.iter().map(|config| config.vote_key.public_key()).collect();
    let simulation = simulated::Config {
        max_size: 8 << 20,
        max_peers_per_set: NZUsize!(16),
        disconnect_on_block: true,
        tracked_peer_sets: NZUsize!(4),
    };
    let (network, oracle) =
        Network::new_with_peers(ctx.child("network"), simulation, keys.clone()).await;
    network.start();
    connect(&oracle, &keys).await;
    let mut nodes = Vec::new();
    for (index, (config, key)) in configs.into_iter().zip(keys).enumerate() {
        let control = oracle.control(key);
        let quota = Quota::per_second(NZU32!(10_000));
        let channels = node::Channels {
            votes: control.register(0, quota).await.unwrap(),
            certificates: control.register(1, quota).await.unwrap(),
            resolver: control.register(2, quota).await.unwrap(),
            backfill: control.register(3, quota).await.unwrap(),
            broadcast: control.register(4, quota).await.unwrap(),
            batches: control.register(5, quota).await.unwrap(),
        };
        let peers = Peers { control, manager: oracle.manager() };
        let ctx = ctx.child("provider").with_attribute("index", index);
        nodes.push(node::start(ctx, config, channels, peers).await.unwrap());
    }
    nodes
}

async fn connect(oracle: &Oracle<PublicKey, Context>, keys: &[PublicKey]) {
    let link = Link {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        success_rate: probability!(1.0),
    };
    for from in keys {
        for to in keys.iter().filter(|to| *to != from) {
            oracle.add_link(from.clone(), to.clone(), link.clone()).await.unwrap();
        }
    }
}

/// Virtual time now.
pub(crate) fn now(ctx: &Context) -> std::time::SystemTime {
    ctx.current()
}
