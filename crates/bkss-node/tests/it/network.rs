//! Providers on a simulated network.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bkss_node::{
    Config, LedgerClock, Pacing, config, node,
    plan::{self, Peer},
};
use bkss_scheme::ProviderId;
use commonware_actor::Feedback;
use commonware_cryptography::{Signer, ed25519::PublicKey};
use commonware_p2p::{
    BlockedSubscription, Blocker, Manager as _, PeerSetSubscription, Provider, Sender,
    TrackedPeers,
    simulated::{self, Link, Network, Oracle, SplitForwarder, SplitTarget},
};
use commonware_runtime::{Clock, Handle, Quota, Spawner, Supervisor, deterministic::Context};
use commonware_utils::{NZU32, NZUsize, channel::oneshot, ordered::Set, probability};

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

impl plan::Network for Peers {
    fn track(&mut self, height: u64, committee: &Set<PublicKey>, peers: &[Peer]) {
        let others = peers.iter().map(|peer| peer.key.clone());
        let others = others.filter(|key| committee.position(key).is_none());
        let others = Set::from_iter_dedup(others);
        self.manager.track(height, TrackedPeers::new(committee.clone(), others));
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
                rekey: None,
                clock: clock.clone(),
                pacing: Pacing::default(),
                trust: None,
                addresses: BTreeMap::new(),
                snapshot_rounds: 0,
                keep_bodies_days: None,
                events_from: 1,
                vote_without_memory: false,
                partition: format!("provider-{i}"),
            }
        })
        .collect()
}

/// A way between two providers.
pub(crate) const fn link() -> Link {
    Link {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        success_rate: probability!(1.0),
    }
}

/// A network of 20 ms links.
pub(crate) struct Net {
    pub(crate) oracle: Oracle<PublicKey, Context>,
    pub(crate) keys: Vec<PublicKey>,
}

impl Net {
    /// With a place for each of these providers, the first of whom know each other.
    pub(crate) async fn new(ctx: &Context, configs: &[Config], first: usize) -> Self {
        let keys: Vec<_> = configs.iter().map(|config| config.vote_key.public_key()).collect();
        let simulation = simulated::Config {
            max_size: 8 << 20,
            max_peers_per_set: NZUsize!(16),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(4),
        };
        let known = keys[..first].to_vec();
        let (network, oracle) =
            Network::new_with_peers(ctx.child("network"), simulation, known).await;
        network.start();
        for from in &keys {
            for to in keys.iter().filter(|to| *to != from) {
                oracle.add_link(from.clone(), to.clone(), link()).await.unwrap();
            }
        }
        Self { oracle, keys }
    }

    /// The channels of one provider.
    pub(crate) async fn channels(&self, index: usize) -> (SimulatedChannels, Peers) {
        let control = self.oracle.control(self.keys[index].clone());
        let quota = Quota::per_second(NZU32!(10_000));
        let channels = node::Channels {
            votes: control.register(0, quota).await.unwrap(),
            certificates: control.register(1, quota).await.unwrap(),
            resolver: control.register(2, quota).await.unwrap(),
            backfill: control.register(3, quota).await.unwrap(),
            broadcast: control.register(4, quota).await.unwrap(),
            batches: control.register(5, quota).await.unwrap(),
        };
        (channels, Peers { control, manager: self.oracle.manager() })
    }

    /// Starts one provider; all of it ends with the handle.
    pub(crate) async fn run(&self, ctx: &Context, index: usize, config: Config) -> Running {
        let (channels, peers) = self.channels(index).await;
        let ctx = ctx.child("provider").with_attribute("index", index);
        launch(ctx, config, channels, peers).await
    }

    /// Another way between one provider and all others, in both directions.
    pub(crate) async fn relink(&self, index: usize, link: &Link) {
        for other in (0..self.keys.len()).filter(|other| *other != index) {
            for (from, to) in [(index, other), (other, index)] {
                let (from, to) = (&self.keys[from], &self.keys[to]);
                self.oracle.remove_link(from.clone(), to.clone()).await.unwrap();
                self.oracle.add_link(from.clone(), to.clone(), link.clone()).await.unwrap();
            }
        }
    }
}

/// Starts a provider on these channels.
pub(crate) async fn launch<S: Sender<PublicKey = PublicKey>>(
    ctx: Context,
    config: Config,
    channels: node::Channels<S, simulated::Receiver<PublicKey>>,
    peers: Peers,
) -> Running {
    let (started, node) = oneshot::channel();
    let handle = ctx.spawn(move |ctx| async move {
        let node = node::start(ctx, config, channels, peers).await;
        assert!(started.send(node.unwrap()).is_ok());
        futures::future::pending::<()>().await;
    });
    Running { node: node.await.unwrap(), handle }
}

type SimulatedChannels =
    node::Channels<simulated::Sender<PublicKey, Context>, simulated::Receiver<PublicKey>>;
type SplitChannels<F> =
    node::Channels<simulated::SplitSender<PublicKey, Context, F>, simulated::Receiver<PublicKey>>;

/// The channels of one key for two nodes: `forward` says, by the channel's number, whom a message
/// of either reaches; both hear everything.
pub(crate) fn split<F: SplitForwarder<PublicKey>>(
    ctx: &Context,
    channels: SimulatedChannels,
    forward: impl Fn(usize) -> F,
) -> [SplitChannels<F>; 2] {
    let node::Channels { votes, certificates, resolver, backfill, broadcast, batches } = channels;
    let all = [votes, certificates, resolver, backfill, broadcast, batches];
    let halves = all.into_iter().enumerate().map(|(number, (sender, receiver))| {
        let ctx = ctx.child("split").with_attribute("channel", number);
        let (one, two) = sender.split_with(forward(number));
        let (first, second) = receiver.split_with(ctx, |_: &_| SplitTarget::Both);
        ((one, first), (two, second))
    });
    let (first, second): (Vec<_>, Vec<_>) = halves.unzip();
    [first, second].map(|halves| {
        let halves: [_; 6] = halves.try_into().ok().unwrap();
        let [votes, certificates, resolver, backfill, broadcast, batches] = halves;
        node::Channels { votes, certificates, resolver, backfill, broadcast, batches }
    })
}

/// A provider that can be killed.
pub(crate) struct Running {
    pub(crate) node: node::Node,
    pub(crate) handle: Handle<()>,
}

/// Starts these providers on a network of 20 ms links.
pub(crate) async fn start(ctx: &Context, configs: Vec<Config>) -> Vec<node::Node> {
    let net = Net::new(ctx, &configs, configs.len()).await;
    let mut nodes = Vec::new();
    for (index, config) in configs.into_iter().enumerate() {
        nodes.push(net.run(ctx, index, config).await.node);
    }
    nodes
}

/// Virtual time now.
pub(crate) fn now(ctx: &Context) -> std::time::SystemTime {
    ctx.current()
}
