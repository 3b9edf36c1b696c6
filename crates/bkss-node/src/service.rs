//! What a node does beside agreeing on blocks: records, sessions, metrics, the HTTP interface and
//! a watch on its progress.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bkss_ledger::{FinalBlock, Transaction, Trust};
use bkss_scheme::{LinkIndex, MeterId, ProviderId, seal::KeyId};
use commonware_runtime::{
    Clock, Handle, Spawner, Supervisor, buffer::paged::CacheRef, tokio::Context,
};
use commonware_utils::{NZU16, NZUsize};
use tokio::net::TcpListener;

use crate::{
    Event, LedgerClock, Mailbox,
    api::{self, Api, Listed, Shares},
    chain::Shared,
    metrics::Metrics,
    node::Node,
    receipts::{Prover, silent_meters},
    records::{Records, first_row},
};

/// How often the head's age is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How often sizes and silent meters are counted.
const COUNT: Duration = Duration::from_secs(30);

/// A session that a meter of this provider introduced in an accepted body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Introduced {
    /// The meter.
    pub meter: MeterId,
    /// The link whose body carries the encapsulated key.
    pub index: LinkIndex,
    /// The provider's key it is for.
    pub key: KeyId,
    /// The encapsulated key.
    pub encapsulated: [u8; 32],
}

/// Keeps sessions, durably once it returns. After a crash the newest may come again.
pub type KeepSessions = Box<dyn FnMut(&[Introduced]) -> std::io::Result<()> + Send>;

/// Keeps the genesis file, durably once it returns.
pub type KeepGenesis = Box<dyn FnMut(&[u8]) -> std::io::Result<()> + Send>;

/// What a service is started with.
pub struct Settings {
    /// Which provider this is.
    pub provider: ProviderId,
    /// Where the HTTP interface listens.
    pub http: SocketAddr,
    /// Proxies and head-ends before the HTTP interface.
    pub listed: Listed,
    /// A head older than this is not healthy.
    pub stale_after: Duration,
    /// The directory of the store, to be measured.
    pub storage: PathBuf,
    /// Names this node's part of the storage.
    pub partition: String,
    /// The genesis.
    pub trust: Trust,
    /// The node's clock.
    pub clock: LedgerClock,
    /// Keeps the sessions of this provider's meters.
    pub sessions: KeepSessions,
    /// Keeps the genesis file when a handover is added to it.
    pub genesis: KeepGenesis,
}

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ServiceError {
    #[error("records: {0}")]
    Records(#[from] commonware_storage::archive::Error),
    #[error("genesis file: {0}")]
    Genesis(std::io::Error),
    #[error("http = {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// A running service.
pub struct Service {
    /// Where the HTTP interface listens.
    pub http: SocketAddr,
    /// Ends with the reason when the node or its service cannot go on.
    pub ended: Handle<String>,
}

/// Starts the service of a node.
///
/// # Errors
///
/// [`ServiceError`].
pub async fn start(
    ctx: Context,
    node: Node,
    mut settings: Settings,
) -> Result<Service, ServiceError> {
    let cache = CacheRef::new(NZU16!(4096), NZUsize!(1024));
    let records = Records::open(&ctx, &settings.partition, cache, settings.trust.clone()).await?;
    let known = records.directory().trust().encode();
    if known != settings.trust.encode() {
        // The node stopped between a handover's record and the file.
        (settings.genesis)(&known).map_err(ServiceError::Genesis)?;
    }
    let records = Arc::new(records);
    let address = settings.http;
    let listening = TcpListener::bind(address).await;
    let listener = listening.map_err(|source| ServiceError::Listen { address, source })?;
    let http = listener.local_addr().map_err(|source| ServiceError::Listen { address, source })?;
    let clock = ctx.child("clock");
    let shares = Shares::new(settings.listed.clone());
    let api = Api::new(api::Parts {
        provider: settings.provider,
        mailbox: node.mailbox.clone(),
        shared: node.shared.clone(),
        prover: Prover::new(node.shared.clone(), node.marshal, records.clone()),
        snapshots: (ctx.child("snapshots"), node.snapshots),
        metrics: node.metrics.clone(),
        now: Box::new(move || clock.current()),
        status: node.status,
        stale_after: settings.stale_after,
        shares: shares.clone(),
    });
    let router = api::router(api.clone());
    let counted = node.metrics.clone();
    ctx.child("api").dedicated().spawn(move |_| api::serve(listener, router, shares, counted));
    let (shared, metrics) = (node.shared.clone(), node.metrics.clone());
    let (provider, storage) = (settings.provider, settings.storage.clone());
    ctx.child("count").spawn(move |ctx| count(ctx, shared, metrics, provider, storage));
    let (shared, provider) = (node.shared.clone(), settings.provider);
    ctx.child("watch").spawn(move |ctx| watch(ctx, api, shared, provider));
    let follower = Follower {
        shared: node.shared,
        metrics: node.metrics,
        records,
        sessions: settings.sessions,
        genesis: settings.genesis,
        provider: settings.provider,
        clock: settings.clock,
    };
    let (mut events, task, mailbox) = (node.events, node.task, node.mailbox);
    let ended = ctx.child("follow").spawn(move |ctx| async move {
        let mut follower = follower;
        let following = async {
            while let Some(Event::Final { block, seen }) = events.recv().await {
                if let Err(reason) = follower.follow(&block, seen, ctx.current()).await {
                    return reason;
                }
            }
            // The ledger's task says why there are no more.
            std::future::pending().await
        };
        tokio::select! {
            reason = following => reason,
            () = stopped(&ctx, &mailbox) => "the gateway has ended; the log says why".to_owned(),
            ended = task => ended.unwrap_or_else(|error| format!("the ledger's task: {error}")),
        }
    });
    Ok(Service { http, ended })
}

/// Takes in final blocks.
struct Follower {
    shared: Shared,
    metrics: Metrics,
    records: Arc<Records<Context>>,
    sessions: KeepSessions,
    genesis: KeepGenesis,
    provider: ProviderId,
    clock: LedgerClock,
}

impl Follower {
    async fn follow(
        &mut self,
        block: &FinalBlock,
        seen: SystemTime,
        now: SystemTime,
    ) -> Result<(), String> {
        // After a restart blocks come again.
        if block.header().height < self.records.next_height() {
            return Ok(());
        }
        let introduced = self.introduced(block);
        if !introduced.is_empty() {
            (self.sessions)(&introduced).map_err(|error| format!("sessions: {error}"))?;
        }
        self.measure(block, seen);
        let first = first_row(&self.shared.chain().state().view(), block);
        let followed =
            self.records.follow(block, |record| record.first_row = first.unwrap_or_default(), now);
        followed.await.map_err(|error| format!("records: {error}"))?;
        let header = block.header();
        if header.next_committee.is_some() || header.members.is_some() {
            let file = self.records.directory().genesis_file();
            (self.genesis)(&file).map_err(|error| format!("genesis file: {error}"))?;
        }
        Ok(())
    }

    /// Sessions in accepted bodies of own meters.
    fn introduced(&self, block: &FinalBlock) -> Vec<Introduced> {
        let verified = block.verified();
        let chain = self.shared.chain();
        let view = chain.state().view();
        let transactions = verified.block().transactions();
        // Few bodies introduce a session: only those are looked at.
        let keys: Vec<Vec<_>> = transactions
            .iter()
            .map(|transaction| match transaction {
                Transaction::Openings(batch) => batch
                    .bodies()
                    .iter()
                    .map(|body| body.ok().and_then(|body| Some((body.key, body.encapsulated?))))
                    .collect(),
                _ => Vec::new(),
            })
            .collect();
        let own = |row| view.chain(row).is_some_and(|chain| chain.owner == self.provider);
        let openings = verified.openings().iter().filter_map(|accepted| {
            let (transaction, item) = accepted.place;
            let (key, encapsulated) = (*keys.get(transaction as usize)?.get(item as usize)?)?;
            let (meter, index) = (accepted.opening.meter, accepted.opening.index);
            own(accepted.row).then_some(Introduced { meter, index, key, encapsulated })
        });
        openings.collect()
    }

    fn measure(&self, block: &FinalBlock, seen: SystemTime) {
        let verified = block.verified();
        self.metrics.readings.inc_by(verified.openings().len() as u64);
        self.metrics.block_bytes.inc_by(verified.block().encoded_length() as u64);
        if verified.block().transactions().is_empty() {
            return;
        }
        if let Some(proposed) = self.clock.when(block.header().time) {
            let took = seen.duration_since(proposed).unwrap_or_default();
            self.metrics.finality_s.observe(took.as_secs_f64());
        }
    }
}

/// Ends when the gateway has.
async fn stopped(ctx: &Context, mailbox: &Mailbox) {
    while !mailbox.is_stopped() {
        ctx.sleep(WATCH).await;
    }
}

/// Says so, again and again, while no block becomes final; and what there is to do about it where
/// this provider is no member.
async fn watch(ctx: Context, api: Arc<Api>, shared: Shared, provider: ProviderId) {
    let (mut told, mut told_of_seat) = (Duration::ZERO, false);
    loop {
        ctx.sleep(WATCH).await;
        let seat_until = seat_of_leaver(&shared, provider);
        if let Some(until) = seat_until.filter(|_| !told_of_seat) {
            tracing::warn!(
                until,
                "this provider has left and still has its seat: its vote is needed until that block is \
                 final, so the node should run until then"
            );
        }
        told_of_seat = seat_until.is_some();
        if api.is_healthy() {
            told = Duration::ZERO;
            continue;
        }
        let age = api.head_age();
        if age >= told * 2 {
            told = age;
            let (member, seated) = {
                let chain = shared.chain();
                let state = chain.state();
                let seated = state.round().nodes.iter().any(|(id, _)| *id == provider);
                (state.members().provider(provider).is_some(), seated)
            };
            if member || seated {
                tracing::error!(seconds = age.as_secs(), "no block has become final");
            } else {
                tracing::warn!(
                    "this provider is no member (any more), the others tell it nothing: the node may be stopped"
                );
            }
        }
    }
}

/// The last block of the round, if a provider that is no member any more has a seat in it.
fn seat_of_leaver(shared: &Shared, provider: ProviderId) -> Option<u64> {
    let chain = shared.chain();
    let state = chain.state();
    let (round, rounds) = (state.round(), state.genesis().charter().rounds);
    let seated = round.nodes.iter().any(|(id, _)| *id == provider);
    let left = seated && state.members().provider(provider).is_none();
    let end = round.number.saturating_add(1).saturating_mul(u64::from(rounds.blocks));
    left.then(|| end.saturating_sub(1))
}

/// Counts now and then what cannot be counted as it happens.
async fn count(
    ctx: Context,
    shared: Shared,
    metrics: Metrics,
    provider: ProviderId,
    storage: PathBuf,
) {
    loop {
        let (shared, storage) = (shared.clone(), storage.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let chain = shared.chain();
            let (_, silent) = silent_meters(&chain.state().view(), provider);
            drop(chain);
            (silent, bytes_below(&storage, 8))
        });
        if let Ok((silent, bytes)) = counted.await {
            metrics.meters_silent.set(silent.into());
            metrics.stored_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        ctx.sleep(COUNT).await;
    }
}

/// Bytes of the files below a directory; what cannot be read counts nothing.
fn bytes_below(directory: &Path, depth: u8) -> u64 {
    let Some(depth) = depth.checked_sub(1) else { return 0 };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path(), depth),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
