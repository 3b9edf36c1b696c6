//! Propose and verify: the ledger's rules as the engine's application.
//!
//! Blocks are paced: a leader proposes when transactions wait, or when its time without any is
//! over. Verification comes before the vote (the paper's `Validated`) and runs off the runtime's
//! workers. Beyond the ledger's rules, which hold for ever, a validator votes only for blocks whose
//! time is near its own clock and whose bodies are all there.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bkss_ledger::{Block, Refusal, Rounds, Verified};
use bkss_scheme::{Digest, LedgerTime};
use commonware_consensus::{Application, marshal::ancestry::Ancestry, simplex::types::Context};
use commonware_cryptography::{Digested, ed25519, sha256};
use commonware_runtime::{Clock, Metrics, Spawner, Supervisor};
use futures::StreamExt;

use crate::{
    LedgerClock, Pacing,
    chain::{Shared, Standing},
    engine_block::{EngineBlock, engine_digest},
};

/// How often a waiting leader looks whether transactions have come.
const POLL: Duration = Duration::from_millis(2);
/// Most unfinalized ancestors that are verified to reach a proposal.
const MAX_ANCESTORS: usize = 128;

/// The ledger as the engine sees it.
#[derive(Clone)]
pub struct LedgerApplication {
    shared: Shared,
    clock: LedgerClock,
    pacing: Pacing,
    grid_s: u32,
    precision: Duration,
    rounds: Rounds,
    /// When this node saw first that a quorum had voted: for the ledger's first block.
    begun: Arc<OnceLock<SystemTime>>,
}

impl LedgerApplication {
    /// For a node that shares `shared`.
    pub fn new(shared: Shared, clock: LedgerClock, pacing: Pacing) -> Self {
        let (terms, rounds) = {
            let chain = shared.chain();
            let charter = chain.state().genesis().charter();
            (charter.terms, charter.rounds)
        };
        let (precision, begun) = (Duration::from_millis(terms.precision_ms.into()), Arc::default());
        Self { shared, clock, pacing, grid_s: terms.grid_s, precision, rounds, begun }
    }

    /// Notes when the ledger begins: a second block is proposed on a first that is certified, so a
    /// quorum has started by then. The first one may be proposed long before.
    fn see(&self, height: u64, now: SystemTime) {
        if height == 2 {
            self.begun.get_or_init(|| now);
        }
    }

    /// When this block may be proposed. The first round does not end before those who have begun
    /// with it may vote in the next: by their clocks it has to begin after they did (see
    /// [`crate::memory`]).
    fn earliest(&self, height: u64) -> SystemTime {
        let waits = self.rounds.of(height) == 0 && self.rounds.ends(height);
        let begun = self.begun.get().filter(|_| waits);
        begun.map_or(SystemTime::UNIX_EPOCH, |begun| *begun + 2 * self.precision)
    }

    /// The first multiple of the grid after a time: there is a block for it even without
    /// transactions.
    fn next_tick(&self, time: LedgerTime) -> LedgerTime {
        let grid = u64::from(self.grid_s);
        LedgerTime::from_seconds((time.seconds() / grid + 1) * grid)
    }

    fn is_timely<E: Clock>(&self, ctx: &E, time: LedgerTime) -> bool {
        let now = self.clock.at(ctx.current());
        now.0.abs_diff(time.0) <= self.clock.ledger_ms(self.precision)
    }

    /// Verifies the ancestors this node has not verified, oldest first; false if that leads
    /// nowhere.
    async fn reach<E: Spawner>(
        &self,
        ctx: &E,
        block: &Block,
        mut ancestry: impl Ancestry<EngineBlock>,
    ) -> bool {
        let mut missing: Vec<Arc<Block>> = Vec::new();
        loop {
            let newest = missing.last().map_or(block, Arc::as_ref);
            let standing = self.shared.chain().standing(newest);
            match standing {
                Standing::Ready | Standing::Final => break,
                Standing::Orphan => return false,
                Standing::ParentUnknown if missing.len() == MAX_ANCESTORS => return false,
                Standing::ParentUnknown => match ancestry.next().await {
                    Some(ancestor) => missing.push(ancestor.inner().block().clone()),
                    None => return false,
                },
            }
        }
        while let Some(ancestor) = missing.pop() {
            if self.shared.chain().standing(&ancestor) == Standing::Final {
                continue;
            }
            if !matches!(self.check(ctx, ancestor).await, Some(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// [`Shared::verify`] off the runtime's workers.
    async fn check<E: Spawner>(
        &self,
        ctx: &E,
        block: Arc<Block>,
    ) -> Option<Result<Arc<Verified>, Refusal>> {
        let shared = self.shared.clone();
        let job = ctx.child("verify").shared(true);
        job.spawn(move |_| async move { shared.verify(&block) }).await.ok().flatten()
    }
}

impl<E> Application<E> for LedgerApplication
where
    E: Clock + Spawner + Metrics + Supervisor,
{
    type SigningScheme = commonware_consensus::simplex::scheme::ed25519::Scheme;
    type Context = Context<sha256::Digest, ed25519::PublicKey>;
    type Block = EngineBlock;
    type Input = ();

    async fn propose(
        &mut self,
        (ctx, context): (E, Self::Context),
        mut ancestry: impl Ancestry<EngineBlock>,
        (): (),
    ) -> Option<Digested<EngineBlock>> {
        let parent = ancestry.next().await?.inner().block().clone();
        let (before, height) = (parent.header().time, parent.header().height + 1);
        self.see(height, ctx.current());
        if !self.reach_parent(&ctx, &parent, ancestry).await {
            return None;
        }
        let asked = ctx.current();
        let earliest = asked + self.pacing.interval;
        // After views without a block, everybody has waited long enough for the next one.
        let held_up = context.round.view() > context.parent.0.next();
        let latest = if held_up { earliest } else { asked + self.pacing.idle };
        // A tick makes meters and gateways act: what they send fits into the block that follows it.
        let tick = self.clock.when(self.next_tick(before));
        let latest = tick.map_or(latest, |tick| latest.min(tick + 2 * self.pacing.gather));
        ctx.sleep_until(earliest.max(self.earliest(height))).await;
        let (mut gathered, mut looked_at) = (false, None);
        loop {
            let now = ctx.current();
            let last_call = now >= latest;
            let arrivals = self.shared.arrivals();
            // What has come to nothing does so again until something else comes, or a tick passes.
            let waiting = arrivals.is_some() && arrivals != looked_at;
            if waiting && !gathered && !last_call {
                // Where one gateway has sent something, the others are about to.
                gathered = true;
                ctx.sleep(self.pacing.gather).await;
                continue;
            }
            if last_call || waiting {
                let time = LedgerTime(self.clock.at(now).0.max(before.0 + 1));
                let built = self.build(&ctx, parent.id(), time).await?;
                if last_call || !built.block().transactions().is_empty() {
                    self.shared.keep(&built);
                    let block = EngineBlock::new(Arc::new(built.block().clone()));
                    let digest = engine_digest(block.block().id());
                    return Some(Digested::precomputed(block, digest));
                }
                looked_at = arrivals;
            }
            ctx.sleep(POLL).await;
        }
    }

    async fn verify(
        &mut self,
        (ctx, _): (E, Self::Context),
        mut ancestry: impl Ancestry<EngineBlock>,
    ) -> bool {
        let Some(proposal) = ancestry.next().await else { return false };
        let block = proposal.inner().block().clone();
        let height = block.header().height;
        self.see(height, ctx.current());
        if self.shared.chain().standing(&block) == Standing::Final {
            return true;
        }
        if !self.is_timely(&ctx, block.header().time) {
            tracing::warn!(height, "proposal's time is outside the precision of this clock");
            return false;
        }
        if !block.has_all_bodies() {
            tracing::warn!(height, "proposal withholds bodies");
            return false;
        }
        if !self.reach(&ctx, &block, ancestry).await {
            let chain = self.shared.chain();
            let is_final = chain.standing(&block) == Standing::Final;
            if !is_final {
                let head = chain.state().head().height;
                tracing::info!(
                    height,
                    head,
                    "proposal does not follow on this node's blocks: it may be behind"
                );
            }
            return is_final;
        }
        match self.check(&ctx, block.clone()).await {
            Some(Ok(_)) => true,
            Some(Err(refusal)) => {
                tracing::warn!(height, %refusal, "proposal breaks a rule");
                false
            }
            // The chain has moved on meanwhile.
            None => self.shared.chain().standing(&block) == Standing::Final,
        }
    }
}

impl LedgerApplication {
    /// Makes sure a proposal can be built on `parent`.
    async fn reach_parent<E: Spawner>(
        &self,
        ctx: &E,
        parent: &Arc<Block>,
        ancestry: impl Ancestry<EngineBlock>,
    ) -> bool {
        if self.shared.chain().standing(parent) == Standing::Final {
            return true;
        }
        self.reach(ctx, parent, ancestry).await
            && matches!(self.check(ctx, parent.clone()).await, Some(Ok(_)))
    }

    /// [`Shared::propose`] off the runtime's workers.
    async fn build<E: Spawner>(
        &self,
        ctx: &E,
        parent: Digest,
        time: LedgerTime,
    ) -> Option<Arc<Verified>> {
        let shared = self.shared.clone();
        let job = ctx.child("propose").shared(true);
        job.spawn(move |_| async move { shared.propose(parent, time) }).await.ok().flatten()
    }
}
