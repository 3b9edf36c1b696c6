//! Providers on a simulated network.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bkss_node::{
    Config, LedgerClock, Pacing,
    config::{self, Latest},
    node,
    simulated::{self, Running, SimulatedSender},
};
use bkss_scheme::{Era, ProviderId};
use commonware_cryptography::{Signer, ed25519::PublicKey};
use commonware_p2p::simulated::{Link, Receiver, SplitForwarder, SplitSender, SplitTarget};
use commonware_runtime::{Clock, Supervisor, deterministic::Context};
use commonware_utils::probability;

use crate::consortium::Consortium;

/// Ledger seconds per second of virtual time.
pub(crate) const SCALE: u32 = 60;

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
                eras: vec![Era::new(0, consortium.genesis.committee().clone())],
                latest: Latest::default(),
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
pub(crate) struct Net(pub(crate) simulated::Net);

impl Net {
    /// With a place for each of these providers, the first of whom know each other.
    pub(crate) async fn new(ctx: &Context, configs: &[Config], first: usize) -> Self {
        let keys = configs.iter().map(|config| config.vote_key.public_key()).collect();
        let net = simulated::Net::with_strangers(ctx, keys, first, true).await;
        net.link_all(&link()).await.unwrap();
        Self(net)
    }

    /// The channels of one provider.
    pub(crate) async fn channels(&self, index: usize) -> (SimulatedChannels, simulated::Peers) {
        self.0.channels(index).await.unwrap()
    }

    /// Starts one provider; all of it ends with the handle.
    pub(crate) async fn run(&self, ctx: &Context, index: usize, config: Config) -> Running {
        self.0.run(ctx, index, config, None).await.unwrap().0
    }

    /// Another way between one provider and all others, in both directions.
    pub(crate) async fn relink(&self, index: usize, link: &Link) {
        for other in (0..self.0.keys().len()).filter(|other| *other != index) {
            self.0.link(index, other, Some(link)).await.unwrap();
            self.0.link(other, index, Some(link)).await.unwrap();
        }
    }
}

type SimulatedChannels = node::Channels<SimulatedSender, Receiver<PublicKey>>;
type SplitChannels<F> = node::Channels<SplitSender<PublicKey, Context, F>, Receiver<PublicKey>>;

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
