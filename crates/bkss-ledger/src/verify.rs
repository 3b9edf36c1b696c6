//! The rules of the ledger (Algorithm 2 as repaired: scheme s4.5).
//!
//! A block is executed on top of a view; what its header commits to must be what came out. Invalid
//! registrations and unsigned batches make a block invalid. Single items of a batch that break a
//! rule are skipped, with the reason: a gateway must not be able to spoil a block, and inclusion in
//! the trees of accepted items proves that the rules held.

use std::collections::btree_map::Entry;

use bkss_scheme::{
    Digest, Header, LedgerTime, Link, LinkIndex, MeterId, Opening, ProviderId, TreeHead,
    identity::SignatureError, merkle::RootBuilder, request, root_message::Registered,
    timestamp::request_leaf,
};

use crate::{
    Block, Head, OpeningBatch, RequestBatch, Transaction, View,
    membership::{RegistrationRefusal, check_registration},
    state::{Delta, Live, Pending},
    transaction_batch::Row,
};

/// A block that follows its parent by all rules. Only [`verify()`] and [`propose`] make one; only it
/// can be applied.
#[derive(Clone, Debug)]
pub struct Verified {
    block: Block,
    outcome: Outcome,
}

impl Verified {
    /// The block.
    pub const fn block(&self) -> &Block {
        &self.block
    }

    /// Requests it accepts, in the order of their tree.
    pub fn requests(&self) -> &[AcceptedRequest] {
        &self.outcome.requests
    }

    /// Openings it accepts, in the order of their tree.
    pub fn openings(&self) -> &[AcceptedOpening] {
        &self.outcome.openings
    }

    /// Items it skips.
    pub fn skipped(&self) -> &[Skipped] {
        &self.outcome.skipped
    }

    /// Meters it registers.
    pub fn registered(&self) -> &[Registered] {
        &self.outcome.delta.registered
    }

    pub(crate) const fn delta(&self) -> &Delta {
        &self.outcome.delta
    }
}

/// An item of a request batch that the rules accept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AcceptedRequest {
    /// The meter's number in the registry.
    pub row: Row,
    /// The meter.
    pub meter: MeterId,
    /// Its link.
    pub index: LinkIndex,
    /// The gateway.
    pub submitter: ProviderId,
    /// `q`.
    pub value: Digest,
    /// Its leaf.
    pub leaf: Digest,
}

/// An item of an opening batch that the rules accept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcceptedOpening {
    /// The meter's number in the registry.
    pub row: Row,
    /// What was opened.
    pub opening: Opening,
    /// `q`, and the gateway whose request it opens.
    pub request: (Digest, ProviderId),
    /// Its transaction in the block and its position there.
    pub place: (u32, u32),
    /// Its leaf.
    pub leaf: Digest,
}

/// An item of a batch that was skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// Its transaction in the block and its position there.
    pub place: (u32, u32),
    /// Why.
    pub reason: SkipReason,
}

/// The rule that an item of a batch breaks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum SkipReason {
    /// No meter has this number.
    #[error("no meter has this registry number")]
    UnknownMeter,
    /// The slot is before the first or after the last of the chain.
    #[error("slot is outside the meter's chain")]
    OutsideChain,
    /// REQ: the block's time is not in the slot's window. REV: the window is still open, or the
    /// time for openings is over.
    #[error("block's time is not the time for this")]
    WrongTime,
    /// This gateway has a request for this link.
    #[error("a second request of this gateway for this slot")]
    SecondRequest,
    /// No pending request has this value: another body, link or slot, or it was opened before.
    #[error("no pending request has this value")]
    NoRequest,
    /// The link does not lead to the last accepted one.
    #[error("link is not of this chain")]
    ForeignLink,
}

/// Why a block is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Refusal {
    #[error("block {found} follows {expected}")]
    Height { expected: u64, found: u64 },
    #[error("block {height} names {found} as the block before, expected {expected}")]
    Previous { height: u64, expected: Digest, found: Digest },
    #[error("block {height} is of {found} ms, the one before of {before} ms")]
    Time { height: u64, before: LedgerTime, found: LedgerTime },
    #[error("block {height} names committee {found}, expected {expected}")]
    Committee { height: u64, expected: Digest, found: Digest },
    #[error("block {height} changes the committee")]
    CommitteeChange { height: u64 },
    #[error("block {height} is {found} bytes long, at most {limit} are allowed")]
    TooLong { height: u64, found: usize, limit: usize },
    #[error("block {height}: accepted {tree} are {expected:?}, its header says {found:?}")]
    Tree { height: u64, tree: &'static str, expected: Option<TreeHead>, found: Option<TreeHead> },
    #[error("transaction {position}: {reason}")]
    Transaction { position: u32, reason: TransactionRefusal },
}

/// Why a transaction makes its block invalid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TransactionRefusal {
    #[error("registration: {0}")]
    Registration(#[from] RegistrationRefusal),
    #[error("gateway {0} is no provider")]
    UnknownGateway(ProviderId),
    #[error("signature of gateway {gateway}: {reason}")]
    Signature { gateway: ProviderId, reason: SignatureError },
    #[error("batch of {found} items, at most {limit} are allowed")]
    TooMany { found: usize, limit: u32 },
}

/// Checks a block on top of a view.
///
/// # Errors
///
/// [`Refusal`]: the first rule that does not hold, with what was expected and found.
pub fn verify(view: &View<'_>, block: Block) -> Result<Verified, Refusal> {
    let (head, header) = (view.head(), block.header());
    let height = header.height;
    if height != head.height + 1 {
        return Err(Refusal::Height { expected: head.height + 1, found: height });
    }
    if header.previous != head.id {
        return Err(Refusal::Previous { height, expected: head.id, found: header.previous });
    }
    if header.time <= head.time {
        return Err(Refusal::Time { height, before: head.time, found: header.time });
    }
    let expected = view.genesis().committee().digest();
    if header.committee != expected {
        return Err(Refusal::Committee { height, expected, found: header.committee });
    }
    if header.next_committee.is_some() {
        return Err(Refusal::CommitteeChange { height });
    }
    let limit = view.genesis().charter().limits.block_bytes as usize;
    let found = block.encoded_length();
    if found > limit {
        return Err(Refusal::TooLong { height, found, limit });
    }
    let mut draft = Draft::new(view, header.time);
    for (transaction, digest) in block.transactions().iter().zip(block.digests()) {
        draft.execute(transaction, digest)?;
    }
    let outcome = draft.finish(block.id());
    for (tree, expected, found) in [
        ("requests", outcome.request_tree(), header.requests),
        ("openings", outcome.opening_tree(), header.openings),
    ] {
        if expected != found {
            return Err(Refusal::Tree { height, tree, expected, found });
        }
    }
    Ok(Verified { block, outcome })
}

/// Builds a block of this time on top of a view from candidates, in their order.
///
/// Left out are candidates that break a rule, that would contribute nothing, or that no longer fit
/// the block.
///
/// # Errors
///
/// [`Refusal::Time`] unless `time` is after the view's.
pub fn propose(
    view: &View<'_>,
    time: LedgerTime,
    candidates: impl IntoIterator<Item = Transaction>,
) -> Result<Verified, Refusal> {
    let head = view.head();
    let height = head.height + 1;
    if time <= head.time {
        return Err(Refusal::Time { height, before: head.time, found: time });
    }
    let network = view.genesis().network();
    let limit = view.genesis().charter().limits.block_bytes as usize;
    let mut draft = Draft::new(view, time);
    let mut transactions = Vec::new();
    let mut length = MAX_FRAMING;
    for transaction in candidates {
        let longer = length + bkss_scheme::codec::length(&transaction);
        if longer > limit || transactions.len() == crate::block::MAX_TRANSACTIONS {
            continue;
        }
        let digest = transaction.digest(network);
        if draft.execute(&transaction, &digest).is_ok_and(|accepted| accepted > 0) {
            transactions.push(transaction);
            length = longer;
        } else {
            draft.forget();
        }
    }
    let mut outcome = draft.finish(Digest::ZERO);
    let header = Header {
        height,
        previous: head.id,
        time,
        committee: view.genesis().committee().digest(),
        next_committee: None,
        transactions: None,
        requests: outcome.request_tree(),
        openings: outcome.opening_tree(),
    };
    let block = Block::new(network, header, transactions);
    outcome.delta.head.id = block.id();
    Ok(Verified { block, outcome })
}

/// Header and framing of a block are shorter than this.
const MAX_FRAMING: usize = 512;

/// What executing a block comes to.
#[derive(Clone, Debug)]
struct Outcome {
    delta: Delta,
    requests: Vec<AcceptedRequest>,
    openings: Vec<AcceptedOpening>,
    skipped: Vec<Skipped>,
}

impl Outcome {
    fn request_tree(&self) -> Option<TreeHead> {
        tree_head(self.requests.iter().map(|request| request.leaf))
    }

    fn opening_tree(&self) -> Option<TreeHead> {
        tree_head(self.openings.iter().map(|opening| opening.leaf))
    }
}

fn tree_head(leaves: impl Iterator<Item = Digest>) -> Option<TreeHead> {
    let mut tree = RootBuilder::default();
    for leaf in leaves {
        tree.push(leaf);
    }
    tree.root().map(|root| TreeHead { count: tree.count(), root })
}

/// A block while it is executed.
struct Draft<'a> {
    view: View<'a>,
    time: LedgerTime,
    reveal_s: u32,
    outcome: Outcome,
    position: u32,
}

impl<'a> Draft<'a> {
    fn new(view: &View<'a>, time: LedgerTime) -> Self {
        let head = view.head();
        let delta = Delta {
            parent: head.id,
            head: Head { height: head.height + 1, id: Digest::ZERO, time },
            first_row: view.meters(),
            registered: Vec::new(),
            live: std::collections::BTreeMap::new(),
        };
        Self {
            time,
            reveal_s: view.genesis().charter().terms.reveal_s,
            view: view.clone(),
            outcome: Outcome {
                delta,
                requests: Vec::new(),
                openings: Vec::new(),
                skipped: Vec::new(),
            },
            position: 0,
        }
    }

    fn finish(mut self, id: Digest) -> Outcome {
        self.outcome.delta.head.id = id;
        self.outcome
    }

    /// Executes the next transaction and returns how many items it contributed. An error leaves no
    /// trace.
    fn execute(&mut self, transaction: &Transaction, digest: &Digest) -> Result<usize, Refusal> {
        let result = match transaction {
            Transaction::Registration(registration) => self.register(registration),
            Transaction::Requests(batch) => self
                .check_batch(batch.submitter, &batch.signature, digest, batch.rows.len())
                .map(|()| self.request_batch(batch)),
            Transaction::Openings(batch) => self
                .check_batch(batch.submitter, &batch.signature, digest, batch.rows.len())
                .map(|()| self.opening_batch(batch)),
        };
        let position = self.position;
        self.position += 1;
        result.map_err(|reason| Refusal::Transaction { position, reason })
    }

    /// Takes back the last transaction, which contributed nothing.
    fn forget(&mut self) {
        self.position -= 1;
        let position = self.position;
        self.outcome.skipped.retain(|skipped| skipped.place.0 != position);
    }

    fn register(
        &mut self,
        registration: &bkss_scheme::root_message::Registration,
    ) -> Result<usize, TransactionRefusal> {
        let message = &registration.message;
        // The view does not know what this block has registered so far.
        for registered in &self.outcome.delta.registered {
            if registered.message().meter == message.meter {
                return Err(RegistrationRefusal::MeterTaken(message.meter).into());
            }
            if registered.message().salt == message.salt {
                return Err(RegistrationRefusal::SaltTaken.into());
            }
        }
        let registered = check_registration(&self.view, self.time, registration)?;
        let limit = self.view.genesis().charter().limits.meters;
        if self.meters() >= limit {
            return Err(RegistrationRefusal::Full { limit }.into());
        }
        self.outcome.delta.registered.push(registered);
        Ok(1)
    }

    fn check_batch(
        &self,
        gateway: ProviderId,
        signature: &bkss_scheme::Signature,
        digest: &Digest,
        found: usize,
    ) -> Result<(), TransactionRefusal> {
        let genesis = self.view.genesis();
        let limit = genesis.charter().limits.batch_items;
        if found > limit as usize {
            return Err(TransactionRefusal::TooMany { found, limit });
        }
        let provider =
            genesis.provider(gateway).ok_or(TransactionRefusal::UnknownGateway(gateway))?;
        provider
            .key
            .verify(digest, signature)
            .map_err(|reason| TransactionRefusal::Signature { gateway, reason })
    }

    fn request_batch(&mut self, batch: &RequestBatch) -> usize {
        let before = self.outcome.requests.len();
        self.outcome.requests.reserve(batch.rows.len());
        for (item, (row, value)) in (0..).zip(batch.rows.iter().zip(&batch.values)) {
            match self.request(batch, *row, value) {
                Ok(accepted) => self.outcome.requests.push(accepted),
                Err(reason) => self.skip(item, reason),
            }
        }
        self.outcome.requests.len() - before
    }

    /// Rule REQ.
    fn request(
        &mut self,
        batch: &RequestBatch,
        row: Row,
        value: &Digest,
    ) -> Result<AcceptedRequest, SkipReason> {
        let (time, reveal_s, submitter) = (self.time, self.reveal_s, batch.submitter);
        let message = self.registered(row).ok_or(SkipReason::UnknownMeter)?.message();
        let (meter, schedule) = (message.meter, message.schedule);
        let index = schedule.index(batch.slot).ok_or(SkipReason::OutsideChain)?;
        if !schedule.accepts_request(index, time) {
            return Err(SkipReason::WrongTime);
        }
        let live = self.live(row).ok_or(SkipReason::UnknownMeter)?;
        let same = |pending: &Pending| pending.index == index && pending.submitter == submitter;
        if live.pending.iter().any(same) {
            return Err(SkipReason::SecondRequest);
        }
        // What can no longer be opened makes room.
        let open = |pending: &Pending| {
            time < schedule.closes(pending.index)
                || schedule.accepts_opening(pending.index, time, reveal_s)
        };
        live.pending.retain(open);
        live.pending.push(Pending { index, submitter, value: *value });
        let leaf = request_leaf(meter, index, submitter, value);
        Ok(AcceptedRequest { row, meter, index, submitter, value: *value, leaf })
    }

    fn opening_batch(&mut self, batch: &OpeningBatch) -> usize {
        let before = self.outcome.openings.len();
        self.outcome.openings.reserve(batch.rows.len());
        let items = batch.rows.iter().zip(&batch.links).zip(batch.body_hashes());
        for (item, ((row, link), body_hash)) in (0..).zip(items) {
            match self.opening(batch, item, *row, link, body_hash) {
                Ok(accepted) => self.outcome.openings.push(accepted),
                Err(reason) => self.skip(item, reason),
            }
        }
        self.outcome.openings.len() - before
    }

    /// Rule REV. The request is looked for before the chain is walked: the work of a gap can only
    /// be caused by who had a request accepted.
    fn opening(
        &mut self,
        batch: &OpeningBatch,
        item: u32,
        row: Row,
        link: &Link,
        body_hash: &Digest,
    ) -> Result<AcceptedOpening, SkipReason> {
        let registered = self.registered(row).ok_or(SkipReason::UnknownMeter)?;
        let message = registered.message();
        let (meter, salt) = (message.meter, message.salt);
        let index = message.schedule.index(batch.slot).ok_or(SkipReason::OutsideChain)?;
        if !message.schedule.accepts_opening(index, self.time, self.reveal_s) {
            return Err(SkipReason::WrongTime);
        }
        let commitment = request::commitment(registered.id(), index, body_hash);
        let value = request::request_value(&commitment, link);
        let changed = self.outcome.delta.live.entry(row);
        let live = match &changed {
            Entry::Occupied(live) => Some(live.get()),
            Entry::Vacant(_) => self.view.live(row),
        };
        // A meter that nothing has happened to has no request.
        let live = live.ok_or(SkipReason::NoRequest)?;
        let same = |pending: &&Pending| pending.index == index && pending.value == value;
        let submitter = live.pending.iter().find(same).ok_or(SkipReason::NoRequest)?.submitter;
        let opened = live.open(salt, index, link).ok_or(SkipReason::ForeignLink)?;
        changed.insert_entry(opened);
        let opening = Opening { meter, index, link: link.clone(), body_hash: *body_hash };
        let (leaf, place) = (opening.leaf(), (self.position, item));
        Ok(AcceptedOpening { row, opening, request: (value, submitter), place, leaf })
    }

    fn skip(&mut self, item: u32, reason: SkipReason) {
        self.outcome.skipped.push(Skipped { place: (self.position, item), reason });
    }

    fn meters(&self) -> u32 {
        let delta = &self.outcome.delta;
        delta.first_row + u32::try_from(delta.registered.len()).unwrap_or(u32::MAX)
    }

    /// A meter's registration, in the view or in this block.
    fn registered(&self, row: Row) -> Option<&Registered> {
        let delta = &self.outcome.delta;
        match row.checked_sub(delta.first_row) {
            Some(offset) => delta.registered.get(offset as usize),
            None => self.view.registered(row),
        }
    }

    /// A meter as it is now, to be changed.
    fn live(&mut self, row: Row) -> Option<&mut Live> {
        let Delta { first_row, registered, live, .. } = &mut self.outcome.delta;
        let unchanged = match live.entry(row) {
            Entry::Occupied(live) => return Some(live.into_mut()),
            Entry::Vacant(unchanged) => unchanged,
        };
        let live = match self.view.live(row) {
            Some(live) => live.clone(),
            None => Live::new(match row.checked_sub(*first_row) {
                Some(offset) => registered.get(offset as usize)?,
                None => self.view.registered(row)?,
            }),
        };
        Some(unchanged.insert(live))
    }
}
