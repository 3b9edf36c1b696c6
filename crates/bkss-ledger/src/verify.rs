//! Blocks that follow by the rules of the ledger (Algorithm 2 as repaired: scheme s4.5).
//!
//! A block is executed on top of a view; what its header commits to must be what came out: its
//! trees, and at the end of a round the committee of the next.

use std::collections::{BTreeMap, BTreeSet};

use bkss_scheme::{Digest, Header, LedgerTime, ProviderId, TreeHead, root_message::Registered};

use crate::{
    Block, Limits, Transaction, View,
    candidate::{Candidate, Checked, Kind, Share, share_of},
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
    /// Items that were looked at for it, each as often as it was, in vain or not.
    pub items: u64,
}

/// Builds a block of this time on top of a view from candidates.
///
/// Left out are candidates that break a rule, that would contribute nothing, that lack bodies, or
/// that no longer fit the block: what is built passes [`verify()`] as it travels. Bytes, places and
/// steps are shared among those who have brought something: each has its share before anybody has
/// more, so that nobody keeps the others' openings out. Candidates keep their order but for openings,
/// which come last, those with short gaps first. Of whoever brings much that comes to nothing, the rest
/// is not looked at.
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
    let turns = turns(view, time, candidates);
    let mut assembly = Assembly::new(view, time, &turns);
    let (first, rest) = assembly.in_turn(turns);
    let mut later = Vec::new();
    for turn in first {
        if assembly.is_spent(&turn) {
            continue;
        }
        let steps = assembly.steps_of(&turn);
        if assembly.is_within_share(&turn, steps) {
            assembly.take(&turn, steps);
        } else {
            later.push(turn);
        }
    }
    for turn in later.into_iter().chain(rest) {
        if !assembly.is_spent(&turn) {
            let steps = assembly.steps_of(&turn);
            assembly.take(&turn, steps);
        }
    }
    let Assembly { draft, transactions, invalid, items, .. } = assembly;
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
    Ok(Built { verified: Verified { block, outcome }, invalid, steps, items })
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

/// Looks at requests that wait, that count as an item.
const LOOKS: usize = 64;

/// Candidates that may be tried in a block of this time.
fn turns(
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
    candidates.map(turn).collect()
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
    /// What each share has at least.
    least: Least,
    used: BTreeMap<Share, Used>,
    /// That were looked at so far.
    items: u64,
}

/// What whoever has brought something has for himself.
#[derive(Clone, Copy, Debug)]
struct Least {
    bytes: usize,
    places: usize,
    /// Items that are looked at in vain.
    items: u32,
    /// Of a gateway with openings.
    steps: u32,
    /// Bytes of a gateway's openings among which those with short gaps come first.
    sorted: usize,
}

/// What somebody's transactions have taken.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: usize,
    places: usize,
    steps: u32,
    /// Items that were looked at in vain, by [`Kind`].
    wasted: [u32; 3],
}

impl<'a> Assembly<'a> {
    fn new(view: &View<'a>, time: LedgerTime, turns: &[Turn]) -> Self {
        let limits = view.genesis().charter().limits;
        let shares: BTreeSet<_> = turns.iter().map(|turn| turn.share).collect();
        let gateways: BTreeSet<_> =
            turns.iter().filter_map(|turn| turn.candidate.openings_of()).collect();
        let room = (limits.block_bytes as usize).saturating_sub(MAX_FRAMING);
        let number = |count: usize| u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let least = Least {
            bytes: room / shares.len().max(1),
            places: crate::block::MAX_TRANSACTIONS / shares.len().max(1),
            items: (limits.batch_items / number(shares.len()))
                .max(limits.batch_items / 16)
                .saturating_mul(2),
            steps: limits.steps / number(gateways.len()),
            sorted: 2 * (room / gateways.len().max(1)),
        };
        Self {
            draft: Draft::new(view, time),
            limits,
            transactions: Vec::new(),
            invalid: Vec::new(),
            length: MAX_FRAMING,
            least,
            items: 0,
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
        bytes <= self.least.bytes && steps <= self.least.steps && used.places < self.least.places
    }

    /// In which order a leader tries what there is: openings last, those with short gaps first. What a
    /// gateway has beyond what it may hope for comes behind all of that, as it came: nobody makes a
    /// leader look at much that no block has room for.
    fn in_turn(&mut self, turns: Vec<Turn>) -> (Vec<Turn>, Vec<Turn>) {
        let (openings, mut first): (Vec<_>, Vec<_>) =
            turns.into_iter().partition(|turn| turn.candidate.openings_of().is_some());
        let mut bytes: BTreeMap<Share, usize> = BTreeMap::new();
        let (mut sorted, rest): (Vec<_>, Vec<_>) = openings.into_iter().partition(|turn| {
            let bytes = bytes.entry(turn.share).or_default();
            let has = *bytes < self.least.sorted;
            *bytes = bytes.saturating_add(turn.bytes);
            has
        });
        // Stable: of gaps that are as short, the oldest first.
        sorted.sort_by_cached_key(|turn| self.steps_of(turn).checked_ilog2().unwrap_or(0));
        first.extend(sorted);
        (first, rest)
    }

    /// Steps that a turn would be walked, behind what the block has already.
    fn steps_of(&mut self, turn: &Turn) -> u32 {
        let transaction = turn.candidate.transaction();
        if matches!(&**transaction, Transaction::Openings(_)) {
            self.items += u64::from(turn.items);
        }
        self.draft.steps_of(transaction)
    }

    /// Whether a turn is not looked at any more: there is no room for it, or whoever brings it has
    /// brought much that came to nothing. Of a gateway one false batch is walked, whatever else it has
    /// signed.
    fn is_spent(&self, turn: &Turn) -> bool {
        let opens = turn.candidate.openings_of();
        let of_liar = self.invalid.iter().any(|(liar, _)| Some(*liar) == opens);
        let wasted = self.used(turn).wasted[Kind::of(turn.candidate.transaction()) as usize];
        of_liar
            || wasted > self.least.items
            || self.length.saturating_add(turn.bytes) > self.limits.block_bytes as usize
            || self.transactions.len() == crate::block::MAX_TRANSACTIONS
    }

    /// Puts a candidate of so many steps into the block if it fits and contributes something.
    fn take(&mut self, turn: &Turn, steps: u32) {
        let Turn { candidate, bytes, items, .. } = turn;
        let wasted = Kind::of(candidate.transaction()) as usize;
        // A batch that would find the steps used up half way waits for the next block. Where half of
        // them are left it begins in this one: the next might have no more for it. What was walked in
        // vain counts: this is about the leader's time.
        let left = self.limits.steps.saturating_sub(self.draft.walked());
        if steps > left && left < self.limits.steps / 2 {
            return;
        }
        let transaction = candidate.transaction();
        let (walked, looks) = (self.draft.walked(), self.draft.looks());
        let executed = self.draft.execute(transaction, candidate.digest(), candidate.signed());
        let looks = self.draft.looks().saturating_sub(looks) / LOOKS;
        let items = u32::try_from(looks).unwrap_or(u32::MAX).max(*items);
        self.items += u64::from(items);
        let used = self.used.entry(turn.share).or_default();
        used.steps = used.steps.saturating_add(self.draft.walked().saturating_sub(walked));
        match executed {
            Ok(accepted) if accepted > 0 => {
                self.transactions.push(Transaction::clone(transaction));
                self.length = self.length.saturating_add(*bytes);
                used.bytes = used.bytes.saturating_add(*bytes);
                used.places += 1;
                return;
            }
            Err(Refusal::Transaction {
                reason: TransactionRefusal::ForeignLink { gateway, .. },
                ..
            }) => self.invalid.push((gateway, candidate.leaf())),
            _ => {}
        }
        used.wasted[wasted] = used.wasted[wasted].saturating_add(items);
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
