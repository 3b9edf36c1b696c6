//! Wiring of one provider: network channels, store, marshal, consensus, delivery and gateway.
//!
//! Generic over the engine's runtime and network, so that the same node runs on tokio with
//! authenticated TCP and in deterministic simulation.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bkss_scheme::LedgerTime;
use commonware_broadcast::buffered;
use commonware_consensus::{
    marshal::{
        self,
        core::Actor as MarshalActor,
        resolver::p2p as backfill,
        standard::{Inline, Standard},
    },
    simplex::{self, scheme::ed25519::Scheme},
    types::{FixedEpocher, Height, ViewDelta},
};
use commonware_cryptography::{Digested, Digestible, Signer, ed25519::PublicKey, sha256::Digest};
use commonware_p2p::{Receiver, Sender, utils::mux::prefixed};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Clock, Handle, Metrics, Spawner, Storage, Supervisor, buffer::paged::CacheRef,
};
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize, channel::mpsc};
use rand_core::CryptoRng;

use crate::{
    Config, Event, LedgerClock,
    application::LedgerApplication,
    chain::Shared,
    delivery::{self, Delivery, Marshal, Outbox},
    duties::Duties,
    engine_block::{BlockLimits, EngineBlock},
    evidence::Accusations,
    gateway::{self, Gateway, Mailbox},
    lanes::Lanes,
    memory::Memory,
    metrics::Metrics as NodeMetrics,
    origin::{Floor, Origin},
    plan::{MOST_MEMBERS, Network, Schemes},
    repair,
    retention::Retention,
    rounds::{Rounds, Seat},
    snapshots::Snapshots,
    status::Status,
    store::{BlockStore, CertificateStore},
    turns::Turns,
};

/// Messages that wait for an engine's actor.
const MAILBOX: std::num::NonZeroUsize = NZUsize!(1024);
/// Final blocks that wait for a listener.
const EVENTS: usize = 64;

/// The network channels of a node, each a sender and a receiver.
pub struct Channels<S, R> {
    /// Votes.
    pub votes: (S, R),
    /// Certificates.
    pub certificates: (S, R),
    /// Missing certificates.
    pub resolver: (S, R),
    /// Missing blocks.
    pub backfill: (S, R),
    /// Proposed blocks.
    pub broadcast: (S, R),
    /// Batches of gateways.
    pub batches: (S, R),
}

/// A running node.
pub struct Node {
    /// Where meters leave their messages.
    pub mailbox: Mailbox,
    /// Final blocks, in order. A follower that does not read them stops the node.
    pub events: mpsc::Receiver<Event>,
    /// The node's condition.
    pub status: Status,
    /// The ledger and the pool.
    pub shared: Shared,
    /// The engine's stored blocks.
    pub marshal: Marshal,
    /// The node's snapshots.
    pub snapshots: Snapshots,
    /// What the node counts.
    pub metrics: NodeMetrics,
    /// Ends when the node does, with the reason.
    pub task: Handle<String>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The snapshots cannot be read.
    #[error("snapshots: {0}")]
    Snapshots(#[from] commonware_runtime::Error),
    /// The store cannot be opened.
    #[error("store: {0}")]
    Store(#[from] commonware_storage::archive::Error),
    /// The gateway's journal cannot be opened.
    #[error("gateway's journal: {0}")]
    Journal(#[from] commonware_storage::journal::Error),
    /// The record of votes cannot be opened.
    #[error("record of votes: {0}")]
    Memory(#[from] commonware_storage::metadata::Error),
    /// A vote key of the genesis is no key.
    #[error("a vote key of the genesis is no ed25519 key")]
    VoteKey,
    /// The stored blocks do not follow each other.
    #[error("stored ledger: {0}")]
    Broken(#[from] crate::chain::Broken),
}

/// Longest message of a node, for the network's limit; the same in every round.
pub fn max_message_size(config: &Config) -> u32 {
    let limits = BlockLimits::of(&config.genesis);
    let votes = simplex::max_payload_size::<Scheme, Digest>(MOST_MEMBERS);
    let blocks = marshal::max_payload_size::<Standard<EngineBlock>, Scheme>(MOST_MEMBERS, &limits);
    commonware_p2p::max_message_size(&[prefixed(votes), blocks, limits.bytes])
}

/// Starts a node. It has applied all stored blocks when this returns.
///
/// # Errors
///
/// [`StartError`].
pub async fn start<E, S, R, N>(
    ctx: E,
    config: Config,
    channels: Channels<S, R>,
    network: N,
) -> Result<Node, StartError>
where
    E: Clock + CryptoRng + Spawner + Storage + Metrics + Supervisor,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    N: Network,
{
    let cache = CacheRef::new(NZU16!(4096), NZUsize!(1024));
    let blocks = config.genesis.charter().rounds.blocks;
    let blocks = NonZeroU64::new(blocks.into()).unwrap_or(NonZeroU64::MIN);
    let epocher = FixedEpocher::new(blocks);
    let snapshots = Snapshots::new(&config.partition);
    let origin = Origin::find(&ctx, &config.genesis, &snapshots, config.events_from).await?;
    let origin = origin.ok_or(StartError::VoteKey)?;
    let schemes = Schemes::of(&origin.state, &config.eras, &config.namespace());
    if let Some((round, scheme)) = &origin.ended {
        schemes.register(*round, scheme.clone());
    }
    let store = Store {
        schemes: schemes.clone(),
        epocher: epocher.clone(),
        cache: cache.clone(),
        first: origin.first(),
        floor: origin.floor,
    };
    let transport = (channels.backfill, channels.broadcast);
    let (marshal, outbox) = store.start(&ctx, &config, network.clone(), transport).await?;
    let shared = Shared::at(origin.state);
    let status = Status::new(shared.chain().state());
    let metrics = NodeMetrics::default();
    let owner = gateway::Owner {
        provider: config.provider,
        key: config.identity.clone(),
        partition: config.partition.clone(),
        clock: config.clock.clone(),
    };
    let (gateway, mailbox) = Gateway::open(
        &ctx.child("gateway"),
        owner,
        shared.clone(),
        config.pacing,
        metrics.clone(),
        cache.clone(),
    )
    .await?;
    let (settled, settling) = mpsc::channel(EVENTS);
    let (followed, events) = mpsc::channel(EVENTS);
    let (turns, turning) = Turns::channel();
    let (accusations, accused) = Accusations::channel();
    let (applied, applying) = mpsc::channel(1);

    let application = LedgerApplication::new(shared.clone(), config.clock.clone(), config.pacing);
    let automaton = Inline::new(ctx.child("inline"), application, marshal.clone(), epocher.clone());
    let seat = Seat {
        provider: config.provider,
        vote_key: config.vote_key.clone(),
        rekey: config.rekey.clone(),
        namespace: config.namespace(),
        partition: config.partition.clone(),
        pacing: config.pacing,
        cache,
        vote_without_memory: config.vote_without_memory,
        network,
    };
    // A genesis file that has grown is of a network that has blocks.
    let has_ledger = shared.chain().state().head().height > 0
        || config.latest.height > 0
        || marshal.get_block(Height::new(1)).await.is_some();
    let newest = newest_possible(&config, ctx.current());
    let memory = Memory::open(&ctx, &config.partition, has_ledger, newest).await?;
    status.started(if config.vote_without_memory { LedgerTime(0) } else { newest });
    let lanes = Lanes::split(&ctx, channels.votes, channels.certificates, channels.resolver);
    let rounds = Rounds::new(
        ctx.child("rounds"),
        seat,
        memory,
        lanes,
        schemes.clone(),
        automaton,
        marshal.clone(),
        epocher,
        status.clone(),
        accusations,
    );
    let me = config.vote_key.public_key();
    let listeners = vec![settled, followed];
    let mut delivery = Delivery::new(shared.clone(), status.clone(), me, turns, listeners, applied)
        .with_schemes(schemes.clone(), config.namespace().to_vec())
        .with_snapshots(snapshots.clone(), config.snapshot_rounds)
        .with_retention(Retention::days(config.keep_bodies_days))
        .with_latest(config.latest.clone());
    let duties = Duties::new(config, shared.clone(), status.clone());
    let (blocks, ready) = (marshal.clone(), mailbox.clone());
    let task = ctx.child("node").spawn(move |ctx| async move {
        let (batches_out, batches_in) = channels.batches;
        let gossip = batches_out.clone();
        ctx.child("gateway").spawn(move |ctx| gateway.run(ctx, batches_out, batches_in, settling));
        if let Err(broken) = delivery.replay(&ctx, &blocks).await {
            tracing::error!(%broken, "stored ledger");
            return format!("stored ledger: {broken}");
        }
        ready.open();
        ctx.child("rounds").spawn(move |_| rounds.run(turning));
        ctx.child("duties").spawn(move |ctx| duties.run(ctx, gossip, accused, applying));
        match delivery.run(&ctx, &blocks, outbox).await {
            Ok(()) => "the engine's blocks have ended".to_owned(),
            Err(broken) => {
                tracing::error!(%broken, "the node stops");
                broken.to_string()
            }
        }
    });
    Ok(Node { mailbox, events, status, shared, marshal, snapshots, metrics, task })
}

/// The newest ledger time that a block can be of which is there already: this clock and those of
/// the others differ by no more than the precision.
fn newest_possible(config: &Config, now: SystemTime) -> LedgerTime {
    let precision = config.genesis.charter().terms.precision_ms;
    let precision = config.clock.ledger_ms(Duration::from_millis(precision.into()));
    LedgerTime(config.clock.at(now).0.saturating_add(precision))
}

/// Blocks that are fetched from peers have their bodies unless they are this old: nobody erases them
/// before (see [`crate::retention`]), with room for clocks that differ.
const BODIES_DUE: Duration = Duration::from_hours(12);
/// How often it is looked which blocks those are.
const DUE_EVERY: Duration = Duration::from_secs(1);

/// Keeps the ledger time from which on bodies are due.
fn keep_due<E: Clock + Spawner + Supervisor>(ctx: &E, clock: LedgerClock, from: Arc<AtomicU64>) {
    let due = u64::try_from(BODIES_DUE.as_millis()).unwrap_or(u64::MAX);
    let now = move |ctx: &E| clock.at(ctx.current()).0.saturating_sub(due);
    from.store(now(ctx), Ordering::Relaxed);
    ctx.child("due").spawn(move |ctx| async move {
        loop {
            ctx.sleep(DUE_EVERY).await;
            from.store(now(&ctx), Ordering::Relaxed);
        }
    });
}

/// What the engine's store of finalized blocks is opened with.
struct Store {
    schemes: Schemes,
    epocher: FixedEpocher,
    cache: CacheRef,
    /// From where on it has to have all blocks.
    first: u64,
    /// Where the engine begins, if not at the genesis.
    floor: Option<Floor>,
}

impl Store {
    /// Opens the store and starts what keeps it: it fetches missing blocks from peers, and tells
    /// of final ones in order.
    async fn start<E, S, R, N>(
        self,
        ctx: &E,
        config: &Config,
        network: N,
        (backfill, broadcast): ((S, R), (S, R)),
    ) -> Result<(Marshal, Outbox), StartError>
    where
        E: Clock + CryptoRng + Spawner + Storage + Metrics + Supervisor,
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
        N: Network,
    {
        let Self { schemes, epocher, cache, first, floor } = self;
        let me = config.vote_key.public_key();
        let limits = BlockLimits::of(&config.genesis);
        let genesis = EngineBlock::genesis(&config.genesis);
        let genesis_digest = genesis.digest();
        let resolver = backfill::init(
            ctx.child("backfill"),
            backfill::Config {
                public_key: me.clone(),
                peer_provider: network.clone(),
                blocker: network.clone(),
                mailbox_size: MAILBOX,
                fetch_timeout: NZDuration!(Duration::from_secs(2)),
                fetch_retry_delay: Duration::from_millis(100),
                priority_requests: false,
                priority_responses: false,
            },
            backfill,
        );
        let (engine, buffer) = buffered::Engine::new(
            ctx.child("broadcast"),
            buffered::Config {
                public_key: me,
                mailbox_size: MAILBOX,
                deque_size: 16,
                priority: false,
                // What is shown to be voted on has its bodies.
                codec_config: limits.with_bodies_from(LedgerTime(0)),
                peer_provider: network,
                strategy: Sequential,
            },
        );
        engine.start(broadcast);

        let partition = &config.partition;
        let rounds = config.genesis.charter().rounds.length();
        repair::check(ctx, partition, &cache, limits.clone(), rounds, first).await?;
        let finalizations = CertificateStore::open(ctx, partition, cache.clone()).await?;
        let blocks = BlockStore::open(ctx, partition, cache.clone(), limits.clone()).await?;
        let fetched = limits.with_bodies_from(LedgerTime(u64::MAX));
        keep_due(ctx, config.clock.clone(), fetched.bodies_from.clone());
        let start = match floor {
            None => marshal::Start::Genesis(Digested::precomputed(genesis, genesis_digest)),
            Some(floor) => {
                schemes.register(floor.round, floor.scheme);
                marshal::Start::Floor(floor.certificate)
            }
        };
        let (actor, marshal, _) = MarshalActor::init(
            ctx.child("marshal"),
            finalizations,
            blocks,
            marshal::Config {
                provider: schemes,
                epocher,
                start,
                partition_prefix: format!("{partition}-marshal"),
                mailbox_size: MAILBOX,
                view_retention: ViewDelta::new(64),
                prunable_items_per_section: NZU64!(1024),
                page_cache: cache,
                replay_buffer: NZUsize!(1024 * 1024),
                key_write_buffer: NZUsize!(64 * 1024),
                value_write_buffer: NZUsize!(1024 * 1024),
                block_codec_config: fetched,
                max_repair: NZUsize!(16),
                max_pending_acks: NZUsize!(16),
                strategy: Sequential,
            },
        )
        .await;
        let (inbox, outbox) = delivery::inbox();
        actor.start(inbox, buffer, resolver);
        Ok((marshal, outbox))
    }
}
