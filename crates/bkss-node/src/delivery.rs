//! From the engine's finalized blocks to the node's state and to those who wait for them.
//!
//! The engine delivers each block in order and at least once, also after a crash; it is applied
//! exactly once. A block that has no certificate of its own waits for the next one that has.

use std::{sync::Arc, time::SystemTime};

use bkss_ledger::{FinalBlock, Verified};
use bkss_scheme::{
    Certificate,
    certificate::{Finality, MAX_DESCENDANTS},
    codec,
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
use commonware_cryptography::Digested;
use commonware_runtime::{Clock, Spawner};
use commonware_utils::{Acknowledgement, acknowledgement::Exact, channel::mpsc};

use crate::{
    chain::{Broken, Shared},
    engine_block::EngineBlock,
};

/// The engine's mailbox for finalized blocks.
pub type Marshal = marshal::core::Mailbox<Scheme, Standard<EngineBlock>>;

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

/// Receives finalized blocks from the engine.
#[derive(Clone)]
pub struct Inbox(mpsc::UnboundedSender<(Digested<EngineBlock>, Exact)>);

/// The other end of an [`Inbox`]. The engine sends no more than a few blocks before it waits for
/// their acknowledgement, so the channel stays short.
pub type Outbox = mpsc::UnboundedReceiver<(Digested<EngineBlock>, Exact)>;

/// A channel for finalized blocks.
pub fn inbox() -> (Inbox, Outbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inbox(sender), receiver)
}

impl Reporter for Inbox {
    type Activity = Update<EngineBlock>;

    fn report(&mut self, update: Self::Activity) -> Feedback {
        if let Update::Block(block, acknowledgement) = update
            && self.0.send((block, acknowledgement)).is_err()
        {
            return Feedback::Closed;
        }
        Feedback::Ok
    }
}

/// Applies finalized blocks and passes them on once their finality can be proven.
pub struct Delivery {
    shared: Shared,
    marshal: Marshal,
    listeners: Vec<mpsc::Sender<Event>>,
    /// Applied blocks that no certificate covers yet.
    unproven: Vec<Arc<Verified>>,
}

impl Delivery {
    /// Delivers to these listeners; the slowest sets the pace.
    pub const fn new(
        shared: Shared,
        marshal: Marshal,
        listeners: Vec<mpsc::Sender<Event>>,
    ) -> Self {
        Self { shared, marshal, listeners, unproven: Vec::new() }
    }

    /// Applies again, from the first block, what was acknowledged before a restart.
    ///
    /// # Errors
    ///
    /// [`Broken`] if a stored block does not follow.
    pub async fn replay<E: Clock + Spawner>(
        &mut self,
        ctx: &E,
        processed: Height,
    ) -> Result<(), Broken> {
        for height in 1..=processed.get() {
            let Some(block) = self.marshal.get_block(Height::new(height)).await else {
                return Err(Broken::NotNext { height });
            };
            self.apply(ctx, block.inner()).await?;
        }
        Ok(())
    }

    /// Applies blocks as they come, until the engine stops or one cannot be applied.
    ///
    /// # Errors
    ///
    /// [`Broken`]: the block is not acknowledged, the node must stop.
    pub async fn run<E: Clock + Spawner>(
        &mut self,
        ctx: &E,
        mut outbox: Outbox,
    ) -> Result<(), Broken> {
        while let Some((block, acknowledgement)) = outbox.recv().await {
            if block.height() > Height::zero() {
                self.apply(ctx, block.inner()).await?;
            }
            acknowledgement.acknowledge();
        }
        Ok(())
    }

    async fn apply<E: Clock + Spawner>(
        &mut self,
        ctx: &E,
        block: &EngineBlock,
    ) -> Result<(), Broken> {
        let (shared, job) = (self.shared.clone(), block.block().clone());
        let applied = ctx
            .child("apply")
            .shared(true)
            .spawn(move |_| async move { shared.finalize(&job) })
            .await;
        let height = block.block().header().height;
        let Ok(applied) = applied else { return Err(Broken::NotNext { height }) };
        let Some(verified) = applied? else { return Ok(()) };
        self.unproven.push(verified);
        let finalization = self.marshal.get_finalization(Height::new(height)).await;
        if let Some(finalization) = finalization {
            self.prove(&finalization.encode(), ctx.current()).await;
        }
        Ok(())
    }

    /// Passes on all unproven blocks, given the certificate of the newest.
    async fn prove(&mut self, finalization: &Bytes, seen: SystemTime) {
        let genesis = self.shared.chain().state().genesis().clone();
        let Ok((certificate, _)) = Certificate::from_engine(finalization, genesis.committee())
        else {
            tracing::error!("the engine's finalization has an unknown layout");
            return;
        };
        let unproven = std::mem::take(&mut self.unproven);
        let mut finals: Vec<FinalBlock> = Vec::new();
        let mut descendants = Vec::new();
        for verified in unproven.into_iter().rev() {
            let finality = Finality { descendants: &descendants, certificate };
            finals.push(FinalBlock::new(verified.clone(), &finality));
            let mut header = Vec::new();
            codec::encode_infallible(verified.block().header(), &mut header);
            header.append(&mut descendants);
            descendants = header;
            if descendants.len() > MAX_DESCENDANTS {
                tracing::error!("blocks too far from a certificate have no proof of finality");
                break;
            }
        }
        for block in finals.into_iter().rev() {
            for listener in &self.listeners {
                // A listener that has gone needs nothing more.
                let _ = listener.send(Event::Final { block: block.clone(), seen }).await;
            }
        }
    }
}
