//! Blocks that follow by the rules of the ledger (Algorithm 2 as repaired: scheme s4.5).
//!
//! A block is executed on top of a view; what its header commits to must be what came out: its
//! trees, and at the end of a round the committee of the next.

use std::collections::{BTreeMap, BTreeSet};

use bkss_scheme::{Digest, Header, LedgerTime, ProviderId, TreeHead, root_message::Registered};

use crate::{
    Block, Limits, Transaction, View,
    candidate::{Candidate, Checked, Share, share_of},
    execute::{AcceptedOpening, AcceptedRequest, Draft, Outcome, Skipped, TransactionRefusal},
    members::MembersChange,
    state::Delta,
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

    /// What it changes about the members, if it does.
    pub fn members_change(&self) -> Option<&MembersChange> {
        self.outcome.members_change.as_deref()
    }

    /// Meters it registers.
    pub fn registered(&self) -> &[Registered] {
        &self.outcome.delta.registered
    }

    pub(crate) const fn delta(&self) -> &Delta {
        &self.outcome.delta
    }
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
    #[error("block {height} hands over {what} {expected:?}, its header says {found:?}")]
    Handover { height: u64, what: &'static str, expected: Option<Digest>, found: Option<Digest> },
    #[error("block {height} ends a round, and the end of the round before is not known here")]
    NotSealed { height: u64 },
    #[error("block {height} is {found} bytes long, at most {limit} are allowed")]
    TooLong { height: u64, found: usize, limit: usize },
    #[error("block {height}: accepted {tree} are {expected:?}, its header says {found:?}")]
    Tree { height: u64, tree: &'static str, expected: Option<TreeHead>, found: Option<TreeHead> },
    #[error("transaction {position}: {reason}")]
    Transaction { position: u32, reason: TransactionRefusal },
}

/// Checks a block on top of a view.
///
/// # Errors
///
/// [`Refusal`]: the first rule that does not hold, with what was expected and found.
pub fn verify(view: &View<'_>, block: Block) -> Result<Verified, Refusal> {
    verify_with(view, block, &Checked::default())
}

/// [`verify()`] of a block some of whose signatures are known to hold: these are not checked again.
///
/// # Errors
///
/// [`Refusal`].
pub fn verify_with(view: &View<'_>, block: Block, checked: &Checked) -> Result<Verified, Refusal> {
    let (head, header) = (view.head(), block.header());
    let (height, next) = (header.height, head.height.saturating_add(1));
    if height != next {
        return Err(Refusal::Height { expected: next, found: height });
    }
    if header.previous != head.id {
        return Err(Refusal::Previous { height, expected: head.id, found: header.previous });
    }
    if header.time <= head.time {
        return Err(Refusal::Time { height, before: head.time, found: header.time });
    }
    let expected = view.round().committee.digest();
    if header.committee != expected {
        return Err(Refusal::Committee { height, expected, found: header.committee });
    }
    let limit = view.genesis().charter().limits.block_bytes as usize;
    let found = block.encoded_length();
    if found > limit {
        return Err(Refusal::TooLong { height, found, limit });
    }
    let mut draft = Draft::new(view, header.time);
    for (transaction, digest) in block.transactions().iter().zip(block.digests()) {
        draft.execute(transaction, digest, checked.signed(&transaction.leaf(digest)))?;
    }
    let (outcome, handed_over) = draft.finish()?;
    let found = HandedOver {
        next_committee: header.next_committee,
        members: header.members,
        state: header.state,
    };
    for (what, expected, found) in [
        ("to committee", handed_over.next_committee, found.next_committee),
        ("to members", handed_over.members, found.members),
        ("state", handed_over.state, found.state),
    ] {
        if expected != found {
            return Err(Refusal::Handover { height, what, expected, found });
        }
    }
    for (tree, expected, found) in [
        ("requests", outcome.request_tree(), header.requests),
        ("openings", outcome.opening_tree(), header.openings),
    ] {
        if expected != found {
            return Err(Refusal::Tree { height, tree, expected, found });
        }
    }
    let outcome = outcome.named(block.id());
    Ok(Verified { block, outcome })
}

/// A block that was built, and what was learned on the way.
#[derive(Clone, Debug)]
pub struct Built {
    /// The block.
    pub verified: Verified,
    /// Candidates that no block can ever contain, by leaf, and the gateways that signed them: of each
    /// gateway the first, and nothing behind it was looked at.
    pub invalid: Vec<(ProviderId, Digest)>,
    /// Steps that were walked for it, in vain or not.
    pub steps: u32,
}

/// Builds a block of this time on top of a view from candidates.
///
/// Left out are candidates that break a rule, that would contribute nothing, that lack bodies, or
/// that no longer fit the block: what is built passes [`verify()`] as it travels. Bytes and steps are
/// shared among those who have brought something: each has its share before anybody has more, so
/// that nobody keeps the others' openings out. Candidates keep their order but for openings, which
/// come last, those with short gaps first. Of whoever brings much that comes to nothing, the rest is
/// not looked at.
///
/// # Errors
///
/// [`Refusal::Time`] unless `time` is after the view's, [`Refusal::NotSealed`] at the end of a round
/// as long as the end of the round before is not finalized here.
pub fn build(
    view: &View<'_>,
    time: LedgerTime,
    candidates: impl IntoIterator<Item = Candidate>,
) -> Result<Built, Refusal> {
    let head = view.head();
    let height = head.height + 1;
    if time <= head.time {
        return Err(Refusal::Time { height, before: head.time, found: time });
    }
    let turns = in_turn(view, time, candidates);
    let mut assembly = Assembly::new(view, time, &turns);
    let mut later = Vec::new();
    for turn in &turns {
        let steps = assembly.draft.steps_of(turn.candidate.transaction());
        if assembly.is_within_share(turn, steps) {
            assembly.take(turn, steps);
        } else {
            later.push(turn);
        }
    }
    for turn in later {
        let steps = assembly.draft.steps_of(turn.candidate.transaction());
        assembly.take(turn, steps);
    }
    let Assembly { draft, transactions, invalid, .. } = assembly;
    let steps = draft.walked();
    let (outcome, handed_over) = draft.finish()?;
    let header = Header {
        height,
        previous: head.id,
        time,
        committee: view.round().committee.digest(),
        next_committee: handed_over.next_committee,
        members: handed_over.members,
        state: handed_over.state,
        transactions: None,
        requests: outcome.request_tree(),
        openings: outcome.opening_tree(),
    };
    let block = Block::new(view.genesis().network(), header, transactions);
    let outcome = outcome.named(block.id());
    Ok(Built { verified: Verified { block, outcome }, invalid, steps })
}

/// [`build`] from transactions of which nothing is known.
///
/// # Errors
///
/// [`Refusal`], see there.
pub fn propose(
    view: &View<'_>,
    time: LedgerTime,
    candidates: impl IntoIterator<Item = Transaction>,
) -> Result<Verified, Refusal> {
    let network = view.genesis().network();
    let candidates =
        candidates.into_iter().map(|transaction| Candidate::unchecked(network, transaction));
    Ok(build(view, time, candidates)?.verified)
}

/// A candidate, whose share it counts against, and what it takes.
struct Turn {
    candidate: Candidate,
    share: Share,
    bytes: usize,
    /// Items that are looked at.
    items: u32,
}

/// Items that a transaction which is no batch counts as, where it comes to nothing.
const ITEMS: u32 = 64;

/// Candidates in the order in which a leader tries them: openings last, those with short gaps first.
fn in_turn(
    view: &View<'_>,
    time: LedgerTime,
    candidates: impl IntoIterator<Item = Candidate>,
) -> Vec<Turn> {
    let turn = |candidate: Candidate| {
        let transaction = candidate.transaction();
        let share = share_of(view, transaction);
        let items = match &**transaction {
            Transaction::Requests(batch) => batch.rows.len(),
            Transaction::Openings(batch) => batch.rows.len(),
            _ => ITEMS as usize,
        };
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let bytes = bkss_scheme::codec::length(&**transaction);
        Turn { candidate, share, bytes, items }
    };
    let candidates = candidates.into_iter().filter(Candidate::is_complete);
    let candidates = candidates.filter(|candidate| !is_early(view, time, candidate.transaction()));
    let (mut openings, mut turns): (Vec<_>, Vec<_>) =
        candidates.map(turn).partition(|turn| turn.candidate.openings_of().is_some());
    // Stable: of gaps that are as short, the oldest first.
    let draft = Draft::new(view, time);
    openings.sort_by_cached_key(|turn| {
        draft.steps_of(turn.candidate.transaction()).checked_ilog2().unwrap_or(0)
    });
    turns.extend(openings);
    turns
}

/// Whether a batch of requests is for a slot that has not begun, of its first chain.
fn is_early(view: &View<'_>, time: LedgerTime, transaction: &Transaction) -> bool {
    let Transaction::Requests(batch) = transaction else { return false };
    let opens = batch.rows.first().and_then(|row| {
        let schedule = view.chain(*row)?.schedule;
        Some(schedule.opens(schedule.index(batch.slot)?))
    });
    opens.is_some_and(|opens| time < opens)
}

/// A block on the way.
struct Assembly<'a> {
    draft: Draft<'a>,
    limits: Limits,
    transactions: Vec<Transaction>,
    invalid: Vec<(ProviderId, Digest)>,
    length: usize,
    /// What each share has at least: bytes, and steps of a gateway with openings.
    least: (usize, u32),
    used: BTreeMap<Share, Used>,
}

/// What somebody's transactions have taken.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: usize,
    steps: u32,
    /// Items that were looked at in vain: in openings, and in all else.
    wasted: [u32; 2],
}

impl<'a> Assembly<'a> {
    fn new(view: &View<'a>, time: LedgerTime, turns: &[Turn]) -> Self {
        let limits = view.genesis().charter().limits;
        let shares: BTreeSet<_> = turns.iter().map(|turn| turn.share).collect();
        let gateways: BTreeSet<_> =
            turns.iter().filter_map(|turn| turn.candidate.openings_of()).collect();
        let room = (limits.block_bytes as usize).saturating_sub(MAX_FRAMING);
        let steps = limits.steps / u32::try_from(gateways.len().max(1)).unwrap_or(u32::MAX);
        Self {
            draft: Draft::new(view, time),
            limits,
            transactions: Vec::new(),
            invalid: Vec::new(),
            length: MAX_FRAMING,
            least: (room / shares.len().max(1), steps),
            used: shares.into_iter().map(|share| (share, Used::default())).collect(),
        }
    }

    fn used(&self, turn: &Turn) -> Used {
        self.used.get(&turn.share).copied().unwrap_or_default()
    }

    /// Whether a turn of so many steps needs no more than what whoever brings it has for himself.
    fn is_within_share(&self, turn: &Turn, steps: u32) -> bool {
        let used = self.used(turn);
        let bytes = used.bytes.saturating_add(turn.bytes);
        let steps = used.steps.saturating_add(steps);
        bytes <= self.least.0 && steps <= self.least.1
    }

    /// Puts a candidate of so many steps into the block if it fits and contributes something.
    fn take(&mut self, turn: &Turn, steps: u32) {
        let Turn { candidate, bytes, items, .. } = turn;
        let opens = candidate.openings_of();
        let wasted = usize::from(opens.is_none());
        // One false batch of a gateway is walked, whatever else it has signed.
        let of_liar = self.invalid.iter().any(|(liar, _)| Some(*liar) == opens);
        if of_liar || self.used(turn).wasted[wasted] > self.limits.batch_items.saturating_mul(2) {
            return;
        }
        // A batch that would find the steps used up half way waits for the next block. Where half of
        // them are left it begins in this one: the next might have no more for it. What was walked in
        // vain counts: this is about the leader's time.
        let left = self.limits.steps.saturating_sub(self.draft.walked());
        if steps > left && left < self.limits.steps / 2 {
            return;
        }
        let longer = self.length.saturating_add(*bytes);
        if longer > self.limits.block_bytes as usize
            || self.transactions.len() == crate::block::MAX_TRANSACTIONS
        {
            return;
        }
        let transaction = candidate.transaction();
        let walked = self.draft.walked();
        let executed = self.draft.execute(transaction, candidate.digest(), candidate.signed());
        let used = self.used.entry(turn.share).or_default();
        used.steps = used.steps.saturating_add(self.draft.walked().saturating_sub(walked));
        match executed {
            Ok(accepted) if accepted > 0 => {
                self.transactions.push(Transaction::clone(transaction));
                self.length = longer;
                used.bytes = used.bytes.saturating_add(*bytes);
                return;
            }
            Err(Refusal::Transaction {
                reason: TransactionRefusal::ForeignLink { gateway, .. },
                ..
            }) => self.invalid.push((gateway, candidate.leaf())),
            _ => {}
        }
        used.wasted[wasted] = used.wasted[wasted].saturating_add(*items);
        self.draft.forget();
    }
}

/// What a header says about those who come after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) next_committee: Option<Digest>,
    pub(crate) members: Option<Digest>,
    pub(crate) state: Option<Digest>,
}

/// Header and framing of a block are shorter than this.
pub(crate) const MAX_FRAMING: usize = 640;
