//! A node's view of the ledger: finalized state, and verified blocks that are not final yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bkss_ledger::{
    Block, Genesis, Pool, Refusal, State, Transaction, Verified, pool::PoolError, propose,
    state::NotNext, verify,
};
use bkss_scheme::{Digest, LedgerTime};

/// Most verified blocks that are kept while they are not final.
const MAX_UNFINALIZED: usize = 256;
/// How many finalized ids are remembered, for votes that come late.
const MAX_RECENT: usize = 256;

/// What the tasks of a node share: the chain and the pool.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    chain: RwLock<Chain>,
    pool: Mutex<Pool>,
}

/// The finalized state and the blocks on top of it.
pub struct Chain {
    state: State,
    unfinalized: BTreeMap<Digest, Arc<Verified>>,
    recent: VecDeque<Digest>,
}

/// How a block relates to what this node knows.
#[derive(Debug, Eq, PartialEq)]
pub enum Standing {
    /// Its parent is the finalized head or a verified block.
    Ready,
    /// It is finalized.
    Final,
    /// Another block is finalized at its height.
    Orphan,
    /// Its parent is not verified yet.
    ParentUnknown,
}

impl Shared {
    /// A node at genesis.
    pub fn new(genesis: Arc<Genesis>) -> Self {
        Self::at(State::new(genesis))
    }

    /// A node at a state.
    pub fn at(state: State) -> Self {
        let chain = Chain {
            recent: VecDeque::from([state.head().id]),
            state,
            unfinalized: BTreeMap::new(),
        };
        Self(Arc::new(Inner { chain: RwLock::new(chain), pool: Mutex::default() }))
    }

    /// Reads the chain. Not to be held across an await.
    pub fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        // A panic while holding the lock stops the node anyway.
        self.0.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain_mut(&self) -> RwLockWriteGuard<'_, Chain> {
        self.0.chain.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a transaction to the pool; false if it was there.
    ///
    /// # Errors
    ///
    /// [`PoolError`].
    pub fn add(&self, transaction: Transaction) -> Result<bool, PoolError> {
        let chain = self.chain();
        self.pool().add(&chain.state.view(), transaction)
    }

    /// Whether any transaction waits.
    pub fn has_candidates(&self) -> bool {
        !self.pool().is_empty()
    }

    /// How many transactions wait.
    pub fn candidates(&self) -> usize {
        self.pool().len()
    }

    /// Builds a block on `parent`, a verified block or the finalized head, and keeps it as
    /// verified; `None` if the parent is neither any more, or the time is not after its time.
    pub fn propose(&self, parent: Digest, time: LedgerTime) -> Option<Arc<Verified>> {
        let candidates = self.pool().candidates();
        let verified = {
            let chain = self.chain();
            let path = chain.path(parent)?;
            let view = chain.state.view_with(path.iter().map(Arc::as_ref)).ok()?;
            Arc::new(propose(&view, time, candidates).ok()?)
        };
        Some(verified)
    }

    /// Checks a block on top of its parent and keeps it as verified; `None` if the parent is not
    /// known (any more).
    pub fn verify(&self, block: &Block) -> Option<Result<Arc<Verified>, Refusal>> {
        let verified = {
            let chain = self.chain();
            if let Some(known) = chain.unfinalized.get(&block.id()) {
                return Some(Ok(known.clone()));
            }
            let path = chain.path(block.header().previous)?;
            let view = chain.state.view_with(path.iter().map(Arc::as_ref)).ok()?;
            match verify(&view, block.clone()) {
                Ok(verified) => Arc::new(verified),
                Err(refusal) => return Some(Err(refusal)),
            }
        };
        self.keep(&verified);
        Some(Ok(verified))
    }

    /// Keeps a verified block until its height is final.
    pub fn keep(&self, verified: &Arc<Verified>) {
        let mut chain = self.chain_mut();
        if chain.unfinalized.len() < MAX_UNFINALIZED {
            chain.unfinalized.insert(verified.block().id(), verified.clone());
        }
    }

    /// Applies a finalized block, exactly once: `None` for one that was applied before.
    ///
    /// # Errors
    ///
    /// [`Broken`] if a finalized block does not follow: then more than a third of the committee
    /// lies, or this node is not what the others are.
    pub fn finalize(&self, block: &Block) -> Result<Option<Arc<Verified>>, Broken> {
        let height = block.header().height;
        if height <= self.chain().state.head().height {
            return Ok(None);
        }
        let verified = match self.verify(block) {
            Some(Ok(verified)) => verified,
            Some(Err(refusal)) => return Err(Broken::Refused { height, refusal }),
            None => return Err(Broken::NotNext { height }),
        };
        let mut chain = self.chain_mut();
        chain.state.apply(&verified).map_err(Broken::State)?;
        chain.unfinalized.retain(|_, kept| kept.block().header().height > height);
        chain.recent.push_back(block.id());
        if chain.recent.len() > MAX_RECENT {
            chain.recent.pop_front();
        }
        self.pool().prune(&chain.state.view());
        Ok(Some(verified))
    }
}

impl Chain {
    /// The finalized state.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// How a block relates to this chain.
    pub fn standing(&self, block: &Block) -> Standing {
        let header = block.header();
        if header.height <= self.state.head().height {
            let known = self.recent.contains(&block.id());
            return if known { Standing::Final } else { Standing::Orphan };
        }
        match self.path(header.previous) {
            Some(_) => Standing::Ready,
            None => Standing::ParentUnknown,
        }
    }

    /// The verified blocks from the finalized head to `tip`, oldest first.
    fn path(&self, tip: Digest) -> Option<Vec<Arc<Verified>>> {
        let mut path = Vec::new();
        let mut id = tip;
        while id != self.state.head().id {
            let verified = self.unfinalized.get(&id)?;
            id = verified.block().header().previous;
            path.push(verified.clone());
        }
        path.reverse();
        Some(path)
    }
}

/// A finalized block that this node cannot apply: it stops.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Broken {
    #[error("finalized block {height} breaks a rule: {refusal}")]
    Refused { height: u64, refusal: Refusal },
    #[error("finalized block {height} does not follow the finalized head")]
    NotNext { height: u64 },
    #[error("round {number} cannot start")]
    Round { number: u64 },
    #[error(transparent)]
    State(NotNext),
}
