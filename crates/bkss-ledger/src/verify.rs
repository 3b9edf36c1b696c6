//! Blocks that follow by the rules of the ledger (Algorithm 2 as repaired: scheme s4.5).
//!
//! A block is executed on top of a view; what its header commits to must be what came out: its
//! trees, and at the end of a round the committee of the next.

use std::collections::{BTreeMap, BTreeSet};

use bkss_scheme::{Digest, Header, LedgerTime, ProviderId, TreeHead, root_message::Registered};

use crate::{
    Block, Transaction, View,
    candidate::{Candidate, Checked},
    execute::{AcceptedOpening, AcceptedRequest, Draft, Outcome, Skipped, TransactionRefusal},
    members::MembersChange,
    state::Delta,
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
    /// Steps that were walked for it.
    pub steps: u32,
}

/// Builds a block of this time on top of a view from candidates.
///
/// Left out are candidates that break a rule, that would contribute nothing, that lack bodies, or
/// that no longer fit the block: what is built passes [`verify()`] as it travels. Candidates keep
/// their order but for openings, which come last: those with short gaps first, and no gateway takes
/// steps from the others.
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
    let limits = &view.genesis().charter().limits;
    let mut draft = Draft::new(view, time);
    let (mut transactions, mut invalid) = (Vec::new(), Vec::new());
    let mut length = MAX_FRAMING;
    let candidates = candidates.into_iter().filter(Candidate::is_complete).collect();
    for Turn { candidate, steps } in in_turn(view, candidates) {
        // One false batch of a gateway is walked, whatever else it has signed.
        if invalid.iter().any(|(liar, _)| Some(*liar) == candidate.openings_of()) {
            continue;
        }
        // A batch that would find the steps used up half way waits for the next block. Where half of
        // them are left it begins in this one: the next might have no more for it.
        if steps > draft.steps() && draft.steps() < limits.steps / 2 {
            continue;
        }
        let transaction = candidate.transaction();
        let longer = length.saturating_add(bkss_scheme::codec::length(&**transaction));
        if longer > limits.block_bytes as usize
            || transactions.len() == crate::block::MAX_TRANSACTIONS
        {
            continue;
        }
        match draft.execute(transaction, candidate.digest(), candidate.signed()) {
            Ok(accepted) if accepted > 0 => {
                transactions.push(Transaction::clone(transaction));
                length = longer;
                continue;
            }
            Err(Refusal::Transaction {
                reason: TransactionRefusal::ForeignLink { gateway, .. },
                ..
            }) => invalid.push((gateway, candidate.leaf())),
            _ => {}
        }
        draft.forget();
    }
    let steps = limits.steps - draft.steps();
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

/// A candidate, and the steps that it would be walked.
struct Turn {
    candidate: Candidate,
    steps: u32,
}

/// Candidates in the order in which a leader tries them: first all but openings, then of each gateway
/// what fits its share of the steps, then the rest; openings with short gaps first.
fn in_turn(view: &View<'_>, candidates: Vec<Candidate>) -> Vec<Turn> {
    let (openings, mut turns): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .map(|candidate| Turn { steps: steps(view, candidate.transaction()), candidate })
        .partition(|turn| turn.candidate.openings_of().is_some());
    let gateways: BTreeSet<_> =
        openings.iter().filter_map(|turn| turn.candidate.openings_of()).collect();
    let all = view.genesis().charter().limits.steps;
    let share = all / u32::try_from(gateways.len().max(1)).unwrap_or(u32::MAX);
    let mut openings = openings;
    // Stable: of gaps that are as short, the oldest first.
    openings.sort_by_key(|turn| turn.steps.checked_ilog2().unwrap_or(0));
    let mut taken: BTreeMap<ProviderId, u32> = BTreeMap::new();
    let mut later = Vec::new();
    for turn in openings {
        let gateway = turn.candidate.openings_of().unwrap_or(ProviderId(u16::MAX));
        let so_far = taken.entry(gateway).or_default();
        let with = so_far.saturating_add(turn.steps);
        if with <= share {
            *so_far = with;
            turns.push(turn);
        } else {
            later.push(turn);
        }
    }
    turns.extend(later);
    turns
}

/// Steps that the openings of a transaction would be walked on top of a view.
fn steps(view: &View<'_>, transaction: &Transaction) -> u32 {
    let Transaction::Openings(batch) = transaction else { return 0 };
    let of_row = |row: &Row| {
        let index = view.chain(*row)?.schedule.index(batch.slot)?;
        let live = view.live(*row)?;
        let waits = live.pending.iter().any(|pending| pending.index == index);
        waits.then(|| live.steps(index))
    };
    batch.rows.iter().filter_map(of_row).fold(0, u32::saturating_add)
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
