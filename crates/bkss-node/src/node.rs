//! Wiring of one provider: network channels, store, marshal, consensus, delivery and gateway.
//!
//! Generic over the engine's runtime and network, so that the same node runs on tokio with
//! authenticated TCP and in deterministic simulation.

use std::{num::NonZeroU64, time::Duration};

use bkss_scheme::certificate::MAX_COMMITTEE;
use bytes::Bytes;
use commonware_broadcast::buffered;
use commonware_codec::DecodeExt;
use commonware_consensus::{
    marshal::{
        self,
        core::Actor as MarshalActor,
        resolver::p2p as backfill,
        standard::{Inline, Standard},
    },
    simplex::{
        self, Floor, ForwardPolicy, SkipBudget, SkipPolicy, elector::RoundRobin,
        scheme::ed25519::Scheme,
    },
    types::{Epoch, FixedEpocher, Height, ViewDelta},
};
use commonware_cryptography::{
    Digested, Digestible, Sha256, Signer,
    certificate::{Provider as SchemeProvider, Scoped},
    ed25519::PublicKey,
    sha256::Digest,
};
use commonware_p2p::{Blocker, Provider, Receiver, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Clock, Handle, Metrics, Spawner, Storage, Supervisor, buffer::paged::CacheRef,
};
use commonware_storage::archive::prunable;
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize, channel::mpsc, ordered::Set};
use rand_core::CryptoRng;

use crate::{
    Config, Event,
    application::LedgerApplication,
    chain::Shared,
    delivery::{self, Delivery},
    engine_block::{BlockLimits, EngineBlock},
    gateway::{Gateway, Mailbox},
    store::{BlockStore, archive_config},
};

/// One epoch for ever: the committee is that of the genesis.
const EPOCH_LENGTH: NonZeroU64 = NonZeroU64::MAX;
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
    /// Ends when the node does.
    pub task: Handle<()>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("store: {0}")]
    Store(#[from] commonware_storage::archive::Error),
    /// The vote key is not one of the committee's.
    #[error("vote key of provider {0} is not in the committee")]
    NotInCommittee(bkss_scheme::ProviderId),
    /// A vote key of the genesis is no key.
    #[error("a vote key of the genesis is no ed25519 key")]
    VoteKey,
    /// The stored blocks do not follow each other.
    #[error("stored ledger: {0}")]
    Broken(#[from] crate::chain::Broken),
}

/// The committee as the engine knows it.
///
/// # Errors
///
/// [`StartError::VoteKey`].
pub fn participants(config: &Config) -> Result<Set<PublicKey>, StartError> {
    let keys = config.genesis.committee().keys().iter();
    let keys = keys.map(|key| {
        PublicKey::decode(Bytes::copy_from_slice(&key.0)).map_err(|_| StartError::VoteKey)
    });
    Ok(Set::from_iter_dedup(keys.collect::<Result<Vec<_>, _>>()?))
}

/// Longest message of a node, for the network's limit.
pub fn max_message_size(config: &Config) -> u32 {
    let limits = BlockLimits::of(&config.genesis);
    let members = u32::try_from(config.genesis.committee().keys().len()).unwrap_or(u32::MAX);
    let votes = simplex::max_payload_size::<Scheme, Digest>(members);
    let blocks = marshal::max_payload_size::<Standard<EngineBlock>, Scheme>(members, &limits);
    commonware_p2p::max_message_size(&[votes, blocks, limits.bytes])
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
    N: Blocker<PublicKey = PublicKey> + Provider<PublicKey = PublicKey> + Clone + Sync,
{
    let committee = participants(&config)?;
    let scheme = Scheme::signer(&config.namespace(), committee, config.vote_key.clone())
        .ok_or(StartError::NotInCommittee(config.provider))?;
    let cache = CacheRef::new(NZU16!(4096), NZUsize!(1024));
    let limits = BlockLimits::of(&config.genesis);
    let genesis = EngineBlock::genesis(&config.genesis);
    let genesis_digest = genesis.digest();
    let epocher = FixedEpocher::new(EPOCH_LENGTH);
    let me = config.vote_key.public_key();

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
        channels.backfill,
    );
    let (broadcast, buffer) = buffered::Engine::new(
        ctx.child("broadcast"),
        buffered::Config {
            public_key: me,
            mailbox_size: MAILBOX,
            deque_size: 16,
            priority: false,
            codec_config: limits,
            peer_provider: network.clone(),
            strategy: Sequential,
        },
    );
    broadcast.start(channels.broadcast);

    let partition = &config.partition;
    let finalizations = prunable::Archive::init(
        ctx.child("finalizations"),
        archive_config(partition, "finalizations", cache.clone(), MAX_COMMITTEE),
    )
    .await?;
    let blocks = BlockStore::open(&ctx, partition, cache.clone(), limits).await?;
    let (actor, marshal, _) = MarshalActor::init(
        ctx.child("marshal"),
        finalizations,
        blocks,
        marshal::Config {
            provider: OneScheme(scheme.clone().into()),
            epocher: epocher.clone(),
            start: marshal::Start::Genesis(Digested::precomputed(genesis, genesis_digest)),
            partition_prefix: format!("{partition}-marshal"),
            mailbox_size: MAILBOX,
            view_retention: ViewDelta::new(64),
            prunable_items_per_section: NZU64!(1024),
            page_cache: cache.clone(),
            replay_buffer: NZUsize!(1024 * 1024),
            key_write_buffer: NZUsize!(64 * 1024),
            value_write_buffer: NZUsize!(1024 * 1024),
            block_codec_config: limits,
            max_repair: NZUsize!(16),
            max_pending_acks: NZUsize!(16),
            strategy: Sequential,
        },
    )
    .await;

    let shared = Shared::new(config.genesis.clone());
    let application = LedgerApplication::new(shared.clone(), config.clock.clone(), config.pacing);
    let inline = Inline::new(ctx.child("inline"), application, marshal.clone(), epocher);
    let (gateway, mailbox) =
        Gateway::new(config.provider, config.identity.clone(), shared.clone(), config.pacing);
    let (settled, settling) = mpsc::channel(EVENTS);
    let (followed, events) = mpsc::channel(EVENTS);
    let (inbox, outbox) = delivery::inbox();
    let processed = marshal.get_processed();
    actor.start(inbox, buffer, resolver);
    let processed = processed.await.map_or(Height::zero(), |processed| processed.height());

    let timeout = config.pacing.leader_timeout;
    let engine = simplex::Engine::new(
        ctx.child("simplex"),
        simplex::Config {
            scheme,
            elector: RoundRobin::<Sha256>::default(),
            blocker: network,
            automaton: inline.clone(),
            relay: inline.clone(),
            reporter: inline,
            strategy: Sequential,
            partition: format!("{partition}-simplex"),
            mailbox_size: MAILBOX,
            epoch: Epoch::zero(),
            floor: Floor::Genesis(genesis_digest),
            replay_buffer: NZUsize!(1024 * 1024),
            write_buffer: NZUsize!(64 * 1024),
            page_cache: cache,
            leader_timeout: timeout,
            certification_timeout: timeout * 2,
            timeout_retry: timeout * 2,
            fetch_timeout: NZDuration!(Duration::from_secs(1)),
            fetch_retry_delay: Duration::from_millis(100),
            view_retention: ViewDelta::new(64),
            skip: SkipPolicy::Enabled { timeout: timeout * 5, budget: SkipBudget::Participants },
            forward: ForwardPolicy::SilentVoters,
            track_historical_votes: false,
        },
    );
    let mut delivery = Delivery::new(shared, marshal, vec![settled, followed]);
    let task = ctx.child("node").spawn(move |ctx| async move {
        let (batches_out, batches_in) = channels.batches;
        ctx.child("gateway").spawn(move |ctx| gateway.run(ctx, batches_out, batches_in, settling));
        if let Err(broken) = delivery.replay(&ctx, processed).await {
            tracing::error!(%broken, "stored ledger");
            return;
        }
        engine.start(channels.votes, channels.certificates, channels.resolver);
        if let Err(broken) = delivery.run(&ctx, outbox).await {
            tracing::error!(%broken, "the node stops");
        }
    });
    Ok(Node { mailbox, events, task })
}

/// The certificate scheme of every epoch, since there is one committee.
#[derive(Clone)]
struct OneScheme(std::sync::Arc<Scheme>);

impl SchemeProvider for OneScheme {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, _: Epoch) -> Option<Scoped<Scheme>> {
        Some(Scoped::scheme(self.0.clone()))
    }
}
