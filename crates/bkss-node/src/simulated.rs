//! Nodes on the engine's simulated network and deterministic runtime: the same node, in virtual
//! time, from one seed.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use commonware_actor::Feedback;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    BlockedSubscription, Blocker, Manager as _, PeerSetSubscription, Provider, Recipients, Sender,
    TrackedPeers,
    simulated::{self, Link, Network, Oracle, Receiver, SplitForwarder, SplitOrigin},
};
use commonware_runtime::{Handle, IoBuf, Quota, Spawner, Supervisor, deterministic::Context};
use commonware_utils::{NZU32, NZUsize, channel::oneshot, ordered::Set};

use crate::{
    Config,
    node::{self, Channels, Node, StartError},
    plan::{self, Peer},
};

/// Peers without a place that the ledger may name.
const STRANGERS: usize = 8;
/// Longest message, bytes.
const MAX_MESSAGE: u32 = 8 << 20;
/// Messages a second that a provider sends to another on a channel.
const RATE: NonZeroU32 = NZU32!(512);

/// What a simulated provider sends by.
pub type SimulatedSender = simulated::Sender<PublicKey, Context>;

/// Stands between a node and its network: sees what the node says, and says whom it reaches.
pub type Tap =
    dyn Fn(Channel, &Recipients<PublicKey>, &IoBuf) -> Option<Recipients<PublicKey>> + Send + Sync;

/// The channels of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the fields of Channels say what they are for")]
pub enum Channel {
    Votes,
    Certificates,
    Resolver,
    Backfill,
    Broadcast,
    Batches,
}

/// A simulated network with a place for each of some providers.
pub struct Net {
    oracle: Oracle<PublicKey, Context>,
    keys: Vec<PublicKey>,
}

/// Why a provider does not run in simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The network has ended or has no such place.
    #[error("simulated network: {0}")]
    Network(#[from] simulated::Error),
    /// The node does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node ended while it started.
    #[error("provider ended while it started")]
    Ended,
}

/// A provider that can be killed: all of it ends with the handle.
pub struct Running {
    /// The node.
    pub node: Node,
    /// Aborting it ends the node without notice.
    pub handle: Handle<()>,
}

/// Whoever has it speaks for a node, past its tap.
pub struct Voice([SimulatedSender; 6]);

impl Voice {
    fn of(channels: &Channels<SimulatedSender, Receiver<PublicKey>>) -> Self {
        Self([
            channels.votes.0.clone(),
            channels.certificates.0.clone(),
            channels.resolver.0.clone(),
            channels.backfill.0.clone(),
            channels.broadcast.0.clone(),
            channels.batches.0.clone(),
        ])
    }

    /// Sends a message.
    pub fn say(&mut self, channel: Channel, recipients: Recipients<PublicKey>, bytes: Vec<u8>) {
        self.0[channel as usize].send(recipients, bytes, true);
    }
}

/// Whom a simulated provider may talk to.
#[derive(Clone)]
pub struct Peers {
    control: simulated::Control<PublicKey, Context>,
    manager: simulated::Manager<PublicKey, Context>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl Net {
    /// A network of providers with these vote keys; nobody is linked yet. With `disconnects`, who
    /// is blocked by a peer hears no more of it, and the peer nothing of him.
    pub async fn new(ctx: &Context, keys: Vec<PublicKey>, disconnects: bool) -> Self {
        let known = keys.len();
        Self::with_strangers(ctx, keys, known, disconnects).await
    }

    /// The same, but only the first of them know each other from the beginning.
    pub async fn with_strangers(
        ctx: &Context,
        keys: Vec<PublicKey>,
        known: usize,
        disconnects: bool,
    ) -> Self {
        let simulation = simulated::Config {
            max_size: MAX_MESSAGE,
            // Queues have room for a burst of each, and of some who should not be there.
            max_peers_per_set: NonZeroUsize::MIN.saturating_add(keys.len() + STRANGERS),
            disconnect_on_block: disconnects,
            tracked_peer_sets: NZUsize!(4),
        };
        let (network, oracle) =
            Network::new_with_peers(ctx.child("network"), simulation, keys[..known].to_vec()).await;
        network.start();
        Self { oracle, keys }
    }

    /// The providers' keys, by their places.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Links one provider to another, in this direction, instead of the link there was; `None` cuts
    /// it. What is on its way by the old link is lost.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn link(
        &self,
        from: usize,
        to: usize,
        link: Option<&Link>,
    ) -> Result<(), simulated::Error> {
        let (from, to) = (self.keys[from].clone(), self.keys[to].clone());
        match self.oracle.remove_link(from.clone(), to.clone()).await {
            Ok(()) | Err(simulated::Error::LinkMissing) => {}
            Err(error) => return Err(error),
        }
        let Some(link) = link else { return Ok(()) };
        self.oracle.add_link(from, to, link.clone()).await
    }

    /// Links all providers with each other.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn link_all(&self, link: &Link) -> Result<(), simulated::Error> {
        for from in 0..self.keys.len() {
            for to in (0..self.keys.len()).filter(|to| *to != from) {
                self.link(from, to, Some(link)).await?;
            }
        }
        Ok(())
    }

    /// Who has blocked whom, by their places.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn blocked(&self) -> Result<Vec<(usize, usize)>, simulated::Error> {
        let place = |key: &PublicKey| self.keys.iter().position(|known| known == key);
        let blocked = self.oracle.blocked().await?;
        let pairs = blocked.iter().filter_map(|(by, whom)| Some((place(by)?, place(whom)?)));
        Ok(pairs.collect())
    }

    /// The channels of one provider.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn channels(
        &self,
        index: usize,
    ) -> Result<(Channels<SimulatedSender, Receiver<PublicKey>>, Peers), simulated::Error> {
        let control = self.oracle.control(self.keys[index].clone());
        let quota = Quota::per_second(RATE);
        let channels = Channels {
            votes: control.register(0, quota).await?,
            certificates: control.register(1, quota).await?,
            resolver: control.register(2, quota).await?,
            backfill: control.register(3, quota).await?,
            broadcast: control.register(4, quota).await?,
            batches: control.register(5, quota).await?,
        };
        Ok((channels, Peers { control, manager: self.oracle.manager() }))
    }

    /// Starts a provider, with a tap on what it says if there is one.
    ///
    /// # Errors
    ///
    /// [`SimulationError`].
    pub async fn run(
        &self,
        ctx: &Context,
        index: usize,
        config: Config,
        tap: Option<Arc<Tap>>,
    ) -> Result<(Running, Voice), SimulationError> {
        let (channels, peers) = self.channels(index).await?;
        let voice = Voice::of(&channels);
        let channels = tapped(channels, tap.as_ref());
        let ctx = ctx.child("provider").with_attribute("index", index);
        Ok((launch(ctx, config, channels, peers).await?, voice))
    }
}

/// Starts a provider on these channels.
///
/// # Errors
///
/// [`SimulationError`].
pub async fn launch<S: Sender<PublicKey = PublicKey>>(
    ctx: Context,
    config: Config,
    channels: Channels<S, Receiver<PublicKey>>,
    peers: Peers,
) -> Result<Running, SimulationError> {
    let (started, node) = oneshot::channel();
    let handle = ctx.spawn(move |ctx| async move {
        let node = node::start(ctx, config, channels, peers).await;
        // Who does not wait for it has ended.
        if started.send(node).is_ok() {
            futures::future::pending::<()>().await;
        }
    });
    let node = node.await.map_err(|_| SimulationError::Ended)??;
    Ok(Running { node, handle })
}

/// The channels of a node, with a tap on each.
fn tapped(
    channels: Channels<SimulatedSender, Receiver<PublicKey>>,
    tap: Option<&Arc<Tap>>,
) -> Channels<impl Sender<PublicKey = PublicKey> + use<>, Receiver<PublicKey>> {
    let Channels { votes, certificates, resolver, backfill, broadcast, batches } = channels;
    let with = |(sender, receiver): (SimulatedSender, _), channel| {
        (sender.split_with(forwarder(tap.cloned(), channel)).0, receiver)
    };
    Channels {
        votes: with(votes, Channel::Votes),
        certificates: with(certificates, Channel::Certificates),
        resolver: with(resolver, Channel::Resolver),
        backfill: with(backfill, Channel::Backfill),
        broadcast: with(broadcast, Channel::Broadcast),
        batches: with(batches, Channel::Batches),
    }
}

fn forwarder(tap: Option<Arc<Tap>>, channel: Channel) -> impl SplitForwarder<PublicKey> {
    move |_: SplitOrigin, recipients: &Recipients<PublicKey>, message: &IoBuf| match &tap {
        Some(tap) => tap(channel, recipients, message),
        None => Some(recipients.clone()),
    }
}
