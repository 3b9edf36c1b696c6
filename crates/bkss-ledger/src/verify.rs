//! Blocks that follow by the rules of the ledger (Algorithm 2 as repaired: scheme s4.5).
//!
//! A block is executed on top of a view; what its header commits to must be what came out: its
//! trees, and at the end of a round the committee of the next.

use bkss_scheme::{Digest, Header, LedgerTime, TreeHead, root_message::Registered};

use crate::{
    Block, Transaction, View,
    execute::{AcceptedOpening, AcceptedRequest, Draft, Outcome, Skipped, TransactionRefusal},
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
        draft.execute(transaction, digest)?;
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

/// Builds a block of this time on top of a view from candidates, in their order.
///
/// Left out are candidates that break a rule, that would contribute nothing, or that no longer fit
/// the block.
///
/// # Errors
///
/// [`Refusal::Time`] unless `time` is after the view's, [`Refusal::NotSealed`] at the end of a round
/// as long as the end of the round before is not finalized here.
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
    let block = Block::new(network, header, transactions);
    let outcome = outcome.named(block.id());
    Ok(Verified { block, outcome })
}

/// What a header says about those who come after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) next_committee: Option<Digest>,
    pub(crate) members: Option<Digest>,
    pub(crate) state: Option<Digest>,
}

/// Header and framing of a block are shorter than this.
const MAX_FRAMING: usize = 640;
