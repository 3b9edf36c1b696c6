//! Several providers in one process, connected by authenticated TCP on loopback.
//!
//! They share a process, nothing else: each has its keys, its runtime, its store and its
//! connections. The caller stays synchronous.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use commonware_actor::Feedback;
use commonware_codec::DecodeExt;
use commonware_cryptography::{ChaCha20Poly1305, ed25519::PublicKey};
use commonware_p2p::{
    Address, AddressableManager, AddressableTrackedPeers, BlockedSubscription, Blocker,
    PeerSetSubscription, Provider, TrackedPeers, authenticated::lookup,
};
use commonware_runtime::{Quota, Runner, Spawner, Supervisor, tokio};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{
    NZU32, NZUsize,
    channel::{mpsc, oneshot},
    ordered::{Map, Set},
};

use crate::{
    Config, Event, Mailbox,
    node::{self, Channels, Node, StartError, max_message_size, participants},
};

/// Threads of a provider's runtime.
const WORKERS: usize = 2;
/// How long a provider may take to write out what it has.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages per second and peer on each channel; more would cost memory, not gain speed.
const RATE: Quota = Quota::per_second(NZU32!(256));

/// Running providers; dropping it stops them.
pub struct Consortium {
    /// Each provider, in the order of the configurations.
    pub members: Vec<Member>,
    runtimes: Vec<Runtime>,
}

/// One running provider.
pub struct Member {
    /// Where its meters leave their messages.
    pub mailbox: Mailbox,
    /// Its final blocks, in order. They must be read, or the provider waits.
    pub events: mpsc::Receiver<Event>,
}

/// Why a consortium does not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ConsortiumError {
    #[error("no free port on loopback: {0}")]
    Port(std::io::Error),
    #[error("no thread for the runtime: {0}")]
    Thread(std::io::Error),
    #[error("provider {index}: {reason}")]
    Start { index: usize, reason: StartError },
    #[error("the runtime of provider {index} has stopped")]
    Stopped { index: usize },
}

impl Consortium {
    /// Starts providers, each with the directory of its store; returns when all have started.
    ///
    /// # Errors
    ///
    /// [`ConsortiumError`].
    pub fn start(configs: Vec<(Config, PathBuf)>) -> Result<Self, ConsortiumError> {
        let ports = free_ports(configs.len()).map_err(ConsortiumError::Port)?;
        let mut consortium = Self { members: Vec::new(), runtimes: Vec::new() };
        for (index, (config, storage)) in configs.into_iter().enumerate() {
            let (runtime, member) = Runtime::start(index, config, storage, ports.clone())?;
            consortium.runtimes.push(runtime);
            consortium.members.push(member);
        }
        Ok(consortium)
    }

    /// Stops all providers and waits until they have.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Consortium {
    fn drop(&mut self) {
        // Senders that wait for a reader would hold up the stop.
        self.members.clear();
        for runtime in &mut self.runtimes {
            drop(runtime.stop.take());
        }
        for runtime in &mut self.runtimes {
            if let Some(thread) = runtime.thread.take() {
                // A panic of the runtime has been reported on its own thread.
                let _ = thread.join();
            }
        }
    }
}

/// The thread and runtime of one provider.
struct Runtime {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    fn start(
        index: usize,
        config: Config,
        storage: PathBuf,
        ports: Vec<u16>,
    ) -> Result<(Self, Member), ConsortiumError> {
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            let runtime =
                tokio::Config::new().with_storage_directory(storage).with_worker_threads(WORKERS);
            tokio::Runner::new(runtime).start(async move |ctx| {
                match start(ctx.child("provider"), config, &ports, index).await {
                    Ok(Node { mailbox, events, task: _ }) => {
                        let _ = ready.send(Ok(Member { mailbox, events }));
                    }
                    Err(reason) => {
                        let _ = ready.send(Err(ConsortiumError::Start { index, reason }));
                        return;
                    }
                }
                let _ = stopped.await;
                let _ = ctx.stop(0, Some(STOP_TIMEOUT)).await;
            });
        };
        let thread = std::thread::Builder::new()
            .name(format!("provider-{index}"))
            .spawn(run)
            .map_err(ConsortiumError::Thread)?;
        let member = started.recv().map_err(|_| ConsortiumError::Stopped { index })??;
        Ok((Self { stop: Some(stop), thread: Some(thread) }, member))
    }
}

async fn start(
    ctx: tokio::Context,
    config: Config,
    ports: &[u16],
    index: usize,
) -> Result<Node, StartError> {
    let committee = participants(&config)?;
    let mut directory = BTreeMap::new();
    let providers = &config.genesis.charter().providers;
    for (provider, port) in providers.iter().zip(ports) {
        let key = bytes::Bytes::copy_from_slice(&provider.vote_key.0);
        let key = PublicKey::decode(key).map_err(|_| StartError::VoteKey)?;
        directory.insert(key, loopback(*port).into());
    }
    let handshake = Sake {
        signer: config.vote_key.clone(),
        synchrony_bound: Duration::from_secs(5),
        max_handshake_age: Duration::from_secs(10),
        version: sake::Version::V1,
    };
    let mut network = lookup::Config::local(
        Cups::<_, ChaCha20Poly1305>::new(handshake, cups::Version::V1),
        &[&config.namespace()[..], b"_P2P"].concat(),
        loopback(ports[index]),
        NZUsize!(64),
        max_message_size(&config),
        NZUsize!(1024),
    );
    // All peers share one address here.
    network.allowed_handshake_rate_per_ip = Quota::per_second(NZU32!(1024));
    network.allowed_handshake_rate_per_subnet = Quota::per_second(NZU32!(1024));
    network.dial_frequency = Duration::from_millis(100);
    network.peer_connection_cooldown = Duration::from_secs(1);
    let (mut network, oracle) = lookup::Network::new(ctx.child("network"), network);
    let channels = Channels {
        votes: network.register(0, RATE),
        certificates: network.register(1, RATE),
        resolver: network.register(2, RATE),
        backfill: network.register(3, RATE),
        broadcast: network.register(4, RATE),
        batches: network.register(5, RATE),
    };
    network.start();
    let mut peers = Peers { oracle, directory: Arc::new(directory) };
    peers.track(committee);
    node::start(ctx, config, channels, peers).await
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Ports that are free now, below those that outgoing connections are given.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    // Where to look first differs between processes that start together.
    let first = 20_000 + u16::try_from(std::process::id() % 1000).unwrap_or(0) * 12;
    let mut held = Vec::new();
    for port in first..32_000 {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind(loopback(port)) {
            held.push(listener);
        }
    }
    if held.len() < count {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The network's peers and where they listen.
#[derive(Clone, Debug)]
struct Peers {
    oracle: lookup::Oracle<PublicKey>,
    directory: Arc<BTreeMap<PublicKey, Address>>,
}

impl Peers {
    fn track(&mut self, committee: Set<PublicKey>) {
        let known = |key: PublicKey| {
            let address = self.directory.get(&key).cloned()?;
            Some((key, address))
        };
        let primary = Map::from_iter_dedup(committee.into_iter().filter_map(known));
        let secondary = Map::from_iter_dedup([]);
        let _ = self.oracle.track(0, AddressableTrackedPeers::new(primary, secondary));
    }
}

impl Blocker for Peers {
    type PublicKey = PublicKey;

    fn block(&mut self, key: PublicKey) -> Feedback {
        tracing::warn!(%key, "peer is blocked: it sent what no honest peer sends");
        self.oracle.block(key)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.oracle.blocked()
    }
}

impl Provider for Peers {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.oracle.peer_set(id).await
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.oracle.subscribe().await
    }
}
