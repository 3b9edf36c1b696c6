//! From the engine's finalized blocks to the node's state and to those who wait for them.
//!
//! The engine delivers each block in order and at least once, also after a crash; it is applied
//! exactly once. A block that has no certificate of its own waits for the next of its round that
//! has; the last block of a round always has one, since nothing is built on it before; a
//! node that has lost it asks the others for half a minute, then goes on without and says so. After that
//! block the next round starts, and only then is the block acknowledged. What lies too far from a
//! certificate to be proven is passed on all the same, without a proof.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bkss_ledger::{Block, Boundary, FinalBlock, Rounds as Lengths, Verified};
use bkss_scheme::{
    Certificate, Committee, LedgerTime, codec,
    finality::{Finality, MAX_DESCENDANTS},
};
use bytes::Bytes;
use commonware_actor::Feedback;
use commonware_codec::Encode;
use commonware_consensus::{
    Heightable, Reporter,
    marshal::{self, Update, standard::Standard},
    simplex::scheme::ed25519::Scheme,
    types::Height,
};
use commonware_cryptography::{Digested, ed25519::PublicKey};
use commonware_runtime::{Clock, Metrics, Spawner, Storage, Supervisor};
use commonware_utils::{Acknowledgement, acknowledgement::Exact, channel::mpsc, vec::NonEmptyVec};

use crate::{
    chain::{Broken, Shared},
    config::Latest,
    engine_block::EngineBlock,
    plan::{Plan, Schemes, participants},
    retention::Retention,
    snapshots::Snapshots,
    status::Status,
    turns::Turns,
};

/// The engine's mailbox for finalized blocks.
pub type Marshal = marshal::core::Mailbox<Scheme, Standard<EngineBlock>>;

/// A node that is behind asks for a certificate every so many blocks: the blocks between are then
/// fetched from many places at once, and none is far from a certificate.
const STRIDE: usize = 8;
/// Most certificates that are asked for at once.
const MAX_STRIDES: usize = 256;

/// What a node tells those who follow it.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next block that is final, in order; after a restart from the first again.
    Final {
        /// The block.
        block: FinalBlock,
        /// When this node had it applied and proven final.
        seen: SystemTime,
    },
}

/// How often it is looked for the certificate of the end of a round, how soon again, and how often in
/// vain until peers are asked again.
const CERTIFICATE_TRIES: u32 = 3000;
const CERTIFICATE_AGAIN: Duration = Duration::from_millis(10);
const CERTIFICATE_ASKS: u32 = 50;

/// What the engine says about finality.
pub enum Delivered {
    /// A block is final; those before it may still be missing.
    Tip(Height),
    /// The next block.
    Block(Digested<EngineBlock>, Exact),
}

/// Receives finalized blocks from the engine.
#[derive(Clone)]
pub struct Inbox(mpsc::UnboundedSender<Delivered>);

/// The other end of an [`Inbox`]. The engine sends no more than a few blocks before it waits for
/// their acknowledgement, and one tip per block, so the channel stays short.
pub type Outbox = mpsc::UnboundedReceiver<Delivered>;

/// A channel for finalized blocks.
pub fn inbox() -> (Inbox, Outbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inbox(sender), receiver)
}

impl Reporter for Inbox {
    type Activity = Update<EngineBlock>;

    fn report(&mut self, update: Self::Activity) -> Feedback {
        let delivered = match update {
            Update::Tip(_, height, _) => Delivered::Tip(height),
            Update::Block(block, acknowledgement) => Delivered::Block(block, acknowledgement),
        };
        match self.0.send(delivered) {
            Ok(()) => Feedback::Ok,
            Err(_) => Feedback::Closed,
        }
    }
}

/// Asks peers for certificates between two heights, the later included.
pub fn catch_up(marshal: &Marshal, from: u64, to: u64, peers: &NonEmptyVec<PublicKey>) {
    let strides = (from + 1..to).step_by(STRIDE).skip(1).take(MAX_STRIDES);
    for height in strides.chain([to]) {
        marshal.hint_finalized(Height::new(height), peers.clone());
    }
}

/// The first of these heights whose block is not before a time; the end of them if there is none.
/// Blocks that are not there are taken for the oldest.
pub async fn first_from(marshal: &Marshal, heights: Range<u64>, time: LedgerTime) -> u64 {
    let Range { start: mut low, end: mut high } = heights;
    while low < high {
        let middle = low.midpoint(high);
        let block = marshal.get_block(Height::new(middle)).await;
        let earlier = block.is_none_or(|block| block.inner().block().header().time < time);
        if earlier { low = middle + 1 } else { high = middle }
    }
    low
}

/// An applied block that no certificate covers yet, and the committee it waits for.
struct Unproven {
    block: Arc<Verified>,
    committee: Committee,
}

/// Applies finalized blocks and passes them on once their finality can be proven.
pub struct Delivery {
    schemes: Option<(Schemes, Vec<u8>)>,
    shared: Shared,
    lengths: Lengths,
    status: Status,
    me: PublicKey,
    turns: Turns,
    /// The round that runs.
    round: Option<u64>,
    /// Up to where certificates have been asked for.
    asked: u64,
    listeners: Vec<mpsc::Sender<Event>>,
    applied: mpsc::Sender<()>,
    unproven: VecDeque<Unproven>,
    /// Where snapshots go, and after how many rounds.
    snapshots: Option<(Snapshots, u64)>,
    /// The committee of the round whose last block was applied last.
    ended: Option<Committee>,
    retention: Retention,
    /// The providers as the genesis file knows them.
    latest: Latest,
}

impl Delivery {
    /// Delivers to these listeners; the slowest sets the pace. `applied` is told of every block.
    pub fn new(
        shared: Shared,
        status: Status,
        me: PublicKey,
        turns: Turns,
        listeners: Vec<mpsc::Sender<Event>>,
        applied: mpsc::Sender<()>,
    ) -> Self {
        let lengths = shared.chain().state().genesis().charter().rounds;
        let unproven = VecDeque::new();
        let (round, asked) = (None, 0);
        let (snapshots, schemes) = (None, None);
        Self {
            schemes,
            shared,
            lengths,
            status,
            me,
            turns,
            round,
            asked,
            listeners,
            applied,
            unproven,
            snapshots,
            ended: None,
            retention: Retention::default(),
            latest: Latest::default(),
        }
    }

    /// Writes a snapshot after every so many rounds, unless that is 0.
    pub fn with_snapshots(mut self, snapshots: Snapshots, rounds: u32) -> Self {
        self.snapshots = (rounds > 0).then(|| (snapshots, rounds.into()));
        self
    }

    /// Lets the engine check certificates of the rounds that have ended, which it may have to fetch.
    pub fn with_schemes(mut self, schemes: Schemes, namespace: Vec<u8>) -> Self {
        self.schemes = Some((schemes, namespace));
        self
    }

    /// Erases sealed bodies that are too old at the end of each round.
    pub const fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Talks to the providers that a genesis file knows as well, while it is behind the file.
    pub fn with_latest(mut self, latest: Latest) -> Self {
        self.latest = latest;
        self
    }

    /// Applies again what is stored, up to the first block that is not.
    ///
    /// # Errors
    ///
    /// [`Broken`] if a stored block does not follow.
    pub async fn replay<E: Clock + Spawner>(
        &mut self,
        ctx: &E,
        marshal: &Marshal,
    ) -> Result<(), Broken> {
        let mut height = self.shared.chain().state().head().height + 1;
        while let Some(block) = marshal.get_block(Height::new(height)).await {
            self.apply(ctx, block.inner()).await?;
            self.prove(ctx, marshal, height).await;
            height += 1;
        }
        Ok(())
    }

    /// Applies blocks as they come, until the engine stops or one cannot be applied.
    ///
    /// # Errors
    ///
    /// [`Broken`]: the block is not acknowledged, the node must stop.
    pub async fn run<E>(
        &mut self,
        ctx: &E,
        marshal: &Marshal,
        mut outbox: Outbox,
    ) -> Result<(), Broken>
    where
        E: Clock + Spawner + Storage + Metrics + Supervisor,
    {
        self.turn().await?;
        while let Some(delivered) = outbox.recv().await {
            match delivered {
                Delivered::Tip(tip) => self.reach(marshal, tip.get()),
                Delivered::Block(block, acknowledgement) => {
                    if block.height() > Height::zero() {
                        self.take(ctx, marshal, block.inner()).await?;
                    }
                    acknowledgement.acknowledge();
                }
            }
        }
        Ok(())
    }

    /// Applies a block and, where it ends a round, starts the next.
    async fn take<E>(
        &mut self,
        ctx: &E,
        marshal: &Marshal,
        block: &EngineBlock,
    ) -> Result<(), Broken>
    where
        E: Clock + Spawner + Storage + Metrics + Supervisor,
    {
        self.apply(ctx, block).await?;
        let height = block.block().header().height;
        if self.lengths.ends(height) {
            self.certify(ctx, marshal, height).await;
        }
        self.prove(ctx, marshal, height).await;
        if self.lengths.ends(height) {
            self.snapshot(ctx, marshal, block.block()).await;
            let head = self.shared.chain().state().head();
            self.retention.erase(marshal, head).await;
            self.turn().await?;
        } else if block.block().header().members.is_some() {
            // Whoever joins is talked to at once, so that it has the ledger when its round begins.
            let plan = Plan::of(self.shared.chain().state()).with(&self.latest);
            self.follow(plan).await?;
        }
        Ok(())
    }

    /// Waits for the certificate of the end of a round, which no later one replaces. A disk may have
    /// lost it, and the engine asks for nothing that is behind it.
    async fn certify<E: Clock>(&self, ctx: &E, marshal: &Marshal, height: u64) {
        for attempt in 0..CERTIFICATE_TRIES {
            if marshal.get_finalization(Height::new(height)).await.is_some() {
                return;
            }
            if attempt % CERTIFICATE_ASKS == 0
                && let Some(peers) = self.peers()
            {
                marshal.hint_finalized(Height::new(height), peers);
            }
            ctx.sleep(CERTIFICATE_AGAIN).await;
        }
        tracing::error!(height, "no peer has the certificate of the end of this round");
    }

    /// Everybody it talks to.
    fn peers(&self) -> Option<NonEmptyVec<PublicKey>> {
        let plan = Plan::of(self.shared.chain().state()).with(&self.latest);
        let peers = plan.peers().iter().map(|peer| peer.key.clone());
        let peers: Vec<_> = peers.filter(|key| *key != self.me).collect();
        NonEmptyVec::try_from(peers).ok()
    }

    /// Keeps a copy of the state at the end of a round, if it is one of those.
    async fn snapshot<E>(&mut self, ctx: &E, marshal: &Marshal, block: &Block)
    where
        E: Clock + Spawner + Storage + Metrics + Supervisor,
    {
        let height = block.header().height;
        // A block that comes again after a restart is behind the state, and then its committee may
        // be another.
        if self.shared.chain().state().head().height != height {
            return;
        }
        let Some(committee) = self.ended.take() else { return };
        let Some((snapshots, rounds)) = &self.snapshots else { return };
        if !(self.lengths.of(height) + 1).is_multiple_of(*rounds) {
            return;
        }
        let finalization = marshal.get_finalization(Height::new(height)).await;
        let finalization = finalization.map(|finalization| finalization.encode());
        let certificate = finalization
            .as_ref()
            .and_then(|bytes| Certificate::from_engine(bytes, &committee).ok());
        let Some((certificate, _)) = certificate else {
            tracing::error!(height, "the end of a round has no certificate: no snapshot");
            return;
        };
        let finality = Finality { descendants: &[], certificate };
        let boundary = Boundary { header: block.header().clone(), finality, committee };
        let state = self.shared.chain().state().clone();
        snapshots.write(ctx, state, &boundary);
    }

    /// Starts the round of the next block unless it runs.
    async fn turn(&mut self) -> Result<(), Broken> {
        let plan = Plan::of(self.shared.chain().state()).with(&self.latest);
        if self.round.is_none_or(|round| round < plan.number()) {
            self.follow(plan).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, plan: Plan) -> Result<(), Broken> {
        let number = plan.number();
        if !self.turns.follow(plan).await {
            return Err(Broken::Round { number });
        }
        self.round = Some(number);
        Ok(())
    }

    /// Something far ahead is final: asks for what is between.
    fn reach(&mut self, marshal: &Marshal, tip: u64) {
        let from = self.shared.chain().state().head().height.max(self.asked);
        if tip < from + 2 * STRIDE as u64 {
            return;
        }
        if let Some(peers) = self.peers() {
            catch_up(marshal, from, tip, &peers);
            self.asked = tip;
        }
    }

    async fn apply<E: Clock + Spawner>(
        &mut self,
        ctx: &E,
        block: &EngineBlock,
    ) -> Result<(), Broken> {
        let committee = self.shared.chain().state().round().committee.clone();
        let (shared, job) = (self.shared.clone(), block.block().clone());
        let applied = ctx
            .child("apply")
            .shared(true)
            .spawn(move |_| async move { shared.finalize(&job) })
            .await;
        let height = block.block().header().height;
        let Ok(applied) = applied else { return Err(Broken::NotNext { height }) };
        let Some(block) = applied? else { return Ok(()) };
        self.ended = self.lengths.ends(height).then(|| committee.clone());
        if self.ended.is_some()
            && let Some((schemes, namespace)) = &self.schemes
            && let Some(members) = participants(&committee)
        {
            schemes.register(self.lengths.of(height), Scheme::verifier(namespace, members));
        }
        self.unproven.push_back(Unproven { block, committee });
        self.status.applied(self.shared.chain().state().head(), ctx.current());
        // One message that waits says it all.
        let _ = self.applied.try_send(());
        Ok(())
    }

    /// Passes on the unproven blocks up to a height, if that height has a certificate.
    async fn prove<E: Clock>(&mut self, ctx: &E, marshal: &Marshal, height: u64) {
        let covers = |waiting: &Unproven| waiting.block.block().header().height <= height;
        if !self.unproven.front().is_some_and(covers) {
            return;
        }
        let finalization = marshal.get_finalization(Height::new(height)).await;
        let Some(finalization) = finalization.map(|finalization| finalization.encode()) else {
            return;
        };
        let count = self.unproven.iter().take_while(|waiting| covers(waiting)).count();
        let covered: Vec<_> = self.unproven.drain(..count).collect();
        self.pass_on(covered, &finalization, ctx.current()).await;
    }

    /// Passes on blocks, given the certificate of the last.
    async fn pass_on(&self, covered: Vec<Unproven>, finalization: &Bytes, seen: SystemTime) {
        let Some(newest) = covered.last() else { return };
        let height = newest.block.block().header().height;
        let Ok((certificate, _)) = Certificate::from_engine(finalization, &newest.committee) else {
            tracing::error!(height, "the engine's finalization has an unknown layout");
            return;
        };
        let mut finals: Vec<FinalBlock> = Vec::new();
        let mut descendants = Vec::new();
        let mut unproven = 0;
        for Unproven { block, .. } in covered.into_iter().rev() {
            let header = block.block().header();
            // A certificate makes blocks of its own round final.
            let round = self.lengths.of(header.height);
            if descendants.len() > MAX_DESCENDANTS || round != certificate.epoch {
                unproven += 1;
                finals.push(FinalBlock::unproven(block));
                continue;
            }
            let finality = Finality { descendants: &descendants, certificate };
            finals.push(FinalBlock::new(block.clone(), &finality));
            let mut bytes = Vec::new();
            codec::encode_infallible(header, &mut bytes);
            bytes.append(&mut descendants);
            descendants = bytes;
        }
        if unproven > 0 {
            tracing::error!(
                height,
                blocks = unproven,
                "blocks before this one are too far from a certificate: they have no proof, and no \
                 receipt can be given of them"
            );
        }
        for block in finals.into_iter().rev() {
            for listener in &self.listeners {
                // A listener that has gone needs nothing more.
                let _ = listener.send(Event::Final { block: block.clone(), seen }).await;
            }
        }
    }
}
