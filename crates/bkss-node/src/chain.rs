//! A node's view of the ledger: finalized state, and verified blocks that are not final yet.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bkss_ledger::{
    Block, Candidate, Genesis, Pool, Refusal, State, Transaction, Verified, build,
    candidate::Admitted, execute::TransactionRefusal, membership::repeats_newest, pool::PoolError,
    state::NotNext, verify::Built, verify_with,
};
use bkss_scheme::{Digest, LedgerTime, Network, ProviderId};

/// Most verified blocks that are kept while they are not final.
const MAX_UNFINALIZED: usize = 256;
/// How many finalized ids are remembered, for votes that come late.
const MAX_RECENT: usize = 256;

/// What the tasks of a node share: the chain and the pool.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    network: Network,
    chain: RwLock<Chain>,
    pool: Mutex<Pool>,
    /// Batches that no block can contain, found since the start.
    invalid: AtomicU64,
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
        let network = state.genesis().network();
        let chain = Chain {
            recent: VecDeque::from([state.head().id]),
            state,
            unfinalized: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            network,
            chain: RwLock::new(chain),
            pool: Mutex::default(),
            invalid: AtomicU64::new(0),
        }))
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

    /// Adds a transaction to the pool; false if it was there, or if it registers what is on the ledger
    /// as its meter's newest chain. No lock is held while its signatures are checked.
    ///
    /// # Errors
    ///
    /// [`PoolError`].
    pub fn add(&self, transaction: Transaction) -> Result<bool, PoolError> {
        if let Transaction::Registration(registration) = &transaction {
            let vouchers = repeats_newest(&self.chain().state().view(), registration);
            if let Some(vouchers) = vouchers {
                let registered = vouchers.check(self.0.network, registration);
                registered.map_err(TransactionRefusal::from)?;
                return Ok(false);
            }
        }
        let candidate = Candidate::unchecked(self.0.network, transaction);
        let Some(admitted) = self.look(candidate)? else { return Ok(false) };
        let (candidate, share) = admitted.check()?;
        self.pool().take(candidate, share)
    }

    /// The cheap half of [`Self::add`]: `None` if the transaction is in the pool.
    ///
    /// # Errors
    ///
    /// [`PoolError`].
    pub fn look(&self, candidate: Candidate) -> Result<Option<Admitted>, PoolError> {
        let chain = self.chain();
        self.pool().look(&chain.state.view(), candidate)
    }

    /// The network whose transactions these are.
    pub fn network(&self) -> Network {
        self.0.network
    }

    /// Batches that no block can contain, found since the start, and how many gateways are passed
    /// over for theirs in this round.
    pub fn invalid_batches(&self) -> (u64, usize) {
        let round = self.chain().state.round().number;
        let passed_over = self.pool().passed_over(round).count();
        (self.0.invalid.load(Ordering::Relaxed), passed_over)
    }

    /// A gateway has signed a batch with this leaf that no block can contain.
    fn pass_over(&self, gateway: ProviderId, round: u64, leaf: Digest) {
        self.0.invalid.fetch_add(1, Ordering::Relaxed);
        if self.pool().pass_over(gateway, round, leaf) {
            tracing::warn!(
                gateway = gateway.0,
                round,
                "has signed a batch with a link that is not of its chain: its batches are passed \
                 over for the rest of the round"
            );
        }
    }

    /// How many transactions have come so far, if any waits.
    pub fn arrivals(&self) -> Option<u64> {
        let pool = self.pool();
        (!pool.is_empty()).then(|| pool.taken())
    }

    /// How many transactions wait.
    pub fn candidates(&self) -> usize {
        self.pool().len()
    }

    /// Builds a block on `parent`, a verified block or the finalized head, and keeps it as
    /// verified; `None` if the parent is neither any more, or the time is not after its time.
    pub fn propose(&self, parent: Digest, time: LedgerTime) -> Option<Arc<Verified>> {
        let path = self.chain().path(parent)?;
        let mut candidates = self.pool().candidates();
        // What the blocks have that are not final yet comes to nothing.
        let mut taken = BTreeSet::new();
        for block in path.iter().map(|verified| verified.block()) {
            let transactions = block.transactions().iter().zip(block.digests());
            taken.extend(transactions.map(|(transaction, digest)| transaction.leaf(digest)));
        }
        candidates.retain(|candidate| !taken.contains(&candidate.leaf()));
        let (Built { verified, invalid, .. }, round) = {
            let chain = self.chain();
            let path = chain.path(parent)?;
            let view = chain.state.view_with(path.iter().map(Arc::as_ref)).ok()?;
            (build(&view, time, candidates).ok()?, view.round().number)
        };
        invalid.into_iter().for_each(|(gateway, leaf)| self.pass_over(gateway, round, leaf));
        Some(Arc::new(verified))
    }

    /// Checks a block on top of its parent and keeps it as verified; `None` if the parent is not
    /// known (any more).
    pub fn verify(&self, block: &Block) -> Option<Result<Arc<Verified>, Refusal>> {
        // Signatures first, without a lock: what waits in the pool was checked when it came.
        let mut checked = self.pool().checked(block);
        let missing = {
            let chain = self.chain();
            if let Some(known) = chain.unfinalized.get(&block.id()) {
                return Some(Ok(known.clone()));
            }
            let path = chain.path(block.header().previous)?;
            let view = chain.state.view_with(path.iter().map(Arc::as_ref)).ok()?;
            checked.missing(&view, block)
        };
        for admitted in missing {
            // Executing the block says which one does not hold.
            let Ok((candidate, _)) = admitted.check() else { break };
            checked.remember(&candidate);
        }
        let (verified, round) = {
            let chain = self.chain();
            let path = chain.path(block.header().previous)?;
            let view = chain.state.view_with(path.iter().map(Arc::as_ref)).ok()?;
            (verify_with(&view, block.clone(), &checked).map(Arc::new), view.round().number)
        };
        match &verified {
            Ok(verified) => self.keep(verified),
            Err(Refusal::Transaction {
                position,
                reason: TransactionRefusal::ForeignLink { gateway, .. },
            }) => {
                let at = *position as usize;
                let found = block.transactions().get(at).zip(block.digests().get(at));
                if let Some((transaction, digest)) = found {
                    self.pass_over(*gateway, round, transaction.leaf(digest));
                }
            }
            Err(_) => {}
        }
        Some(verified)
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
        let ends_round = chain.state.apply_unsealed(&verified).map_err(Broken::State)?;
        chain.unfinalized.retain(|_, kept| kept.block().header().height > height);
        chain.recent.push_back(block.id());
        if chain.recent.len() > MAX_RECENT {
            chain.recent.pop_front();
        }
        drop(chain);
        if ends_round {
            self.seal();
        }
        // While others read.
        let chain = self.chain();
        let mut pool = self.pool();
        pool.drop_those_of(block);
        pool.prune(&chain.state.view());
        Ok(Some(verified))
    }
}

impl Shared {
    /// Makes the digest of the state at the end of a round. Others read and add blocks between its
    /// pages; the state itself is changed by whoever calls this only.
    fn seal(&self) {
        let mut sealing = self.chain().state.sealing();
        loop {
            let sealed = sealing.step(&self.chain().state);
            if let Some(sealed) = sealed {
                self.chain_mut().state.keep_sealed(sealed);
                return;
            }
        }
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
