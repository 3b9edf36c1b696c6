//! Blocks as printed: the leader counts `Validated` and says `Committed` (Algorithm 2, step 4).

use super::{scheme::Transaction, validation::validate};

/// A block: its height, and its transactions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Block {
    /// Its height.
    pub(crate) height: usize,
    /// What it contains.
    pub(crate) transactions: Vec<Transaction>,
}

/// An accounting node that follows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Follower {
    /// Its copy of the chain.
    pub(crate) chain: Vec<Block>,
    /// `ID_SDI` it compares with.
    pub(crate) sdi: u16,
}

impl Follower {
    /// Answers `Validated` to a proposed block whose transactions pass; unsigned, and to as many
    /// blocks of one height as are proposed.
    pub(crate) fn validated(&self, block: &Block) -> bool {
        block.height == self.chain.len()
            && block.transactions.iter().all(|transaction| validate(transaction, self.sdi).is_ok())
    }

    /// Adds the block the leader calls `Committed`: "all followers which receive it add the block".
    pub(crate) fn committed(&mut self, block: &Block) {
        self.chain.push(block.clone());
    }
}

/// `f = floor((n - 1) / 3)`.
pub(crate) const fn faults(nodes: usize) -> usize {
    (nodes - 1) / 3
}

/// The printed rule, `V > 2f + 1`, with `V` counted over the followers: with the leader, 15 of 21. Two
/// blocks never have so many; where `n` is `3f + 1` or `3f + 2`, neither has one if `f` are silent.
pub(crate) const fn commits(validated: usize, nodes: usize) -> bool {
    validated > 2 * faults(nodes) + 1
}
