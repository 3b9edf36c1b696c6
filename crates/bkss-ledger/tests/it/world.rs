//! A ledger that runs: its rounds, votes and handovers, without engine or network.

use std::collections::BTreeSet;

use bkss_ledger::{FinalBlock, State, Transaction, Trust, Vote, propose, verify};
use bkss_scheme::{LedgerTime, ProviderId};

use crate::consortium::{Consortium, SHORT};

pub(crate) struct World {
    pub(crate) consortium: Consortium,
    pub(crate) state: State,
    /// All blocks from the first on.
    pub(crate) blocks: Vec<FinalBlock>,
}

impl World {
    pub(crate) fn of(consortium: Consortium) -> Self {
        Self { state: consortium.state(), consortium, blocks: Vec::new() }
    }

    /// So many providers, in rounds of four blocks and four accounting nodes.
    pub(crate) fn short(seed: u64, count: u16) -> Self {
        Self::of(Consortium::with(seed, count, SHORT))
    }

    /// Three rounds whose committees differ from one to the next.
    pub(crate) fn with_three_handovers(seed: u64) -> Self {
        let mut world = Self::short(seed, 7);
        for picks in [[3, 4, 5, 6], [0, 1, 2, 3], [3, 4, 5, 6]] {
            let votes = world.everybody_for(&picks);
            world.round(&votes);
        }
        assert_eq!((world.blocks.len(), world.handovers().len()), (11, 3));
        world
    }

    /// A second after the newest block.
    pub(crate) fn next_time(&self) -> LedgerTime {
        LedgerTime(self.state.head().time.0 + 1000)
    }

    pub(crate) fn vote(&self, voter: u16, picks: impl IntoIterator<Item = u16>) -> Transaction {
        let network = self.consortium.genesis.network();
        let key = &self.consortium.keys[usize::from(voter)];
        let picks = picks.into_iter().map(ProviderId).collect();
        let round = self.state.round().number;
        Transaction::Vote(Vote::sign(network, ProviderId(voter), key, round, picks))
    }

    /// Votes of all for these, but for themselves.
    pub(crate) fn everybody_for(&self, picks: &[u16]) -> Vec<Transaction> {
        let for_others = |voter| picks.iter().copied().filter(move |pick| *pick != voter);
        let all = 0..u16::try_from(self.consortium.keys.len()).unwrap();
        all.map(|voter| self.vote(voter, for_others(voter))).collect()
    }

    /// A block of all of these, verified by another node.
    pub(crate) fn block_at(
        &mut self,
        time: LedgerTime,
        transactions: &[Transaction],
    ) -> FinalBlock {
        let round = self.state.round().clone();
        let proposed = propose(&self.state.view(), time, transactions.to_vec()).unwrap();
        assert_eq!(proposed.block().transactions(), transactions);
        let verified = verify(&self.state.view(), proposed.block().clone()).unwrap();
        self.state.apply(&verified).unwrap();
        let block = self.consortium.finalize_in(round.number, &round.committee, verified);
        self.blocks.push(block.clone());
        block
    }

    pub(crate) fn block(&mut self, transactions: &[Transaction]) -> FinalBlock {
        self.block_at(self.next_time(), transactions)
    }

    /// The rest of a round, its first block with these transactions; its last block.
    pub(crate) fn round(&mut self, transactions: &[Transaction]) -> FinalBlock {
        let number = self.state.round().number;
        let mut last = self.block(transactions);
        while self.state.round().number == number {
            last = self.block(&[]);
        }
        last
    }

    /// The accounting nodes of the round.
    pub(crate) fn nodes(&self) -> BTreeSet<u16> {
        self.state.round().nodes.iter().map(|(id, _)| id.0).collect()
    }

    /// What its blocks hand over, each encoded.
    pub(crate) fn handovers(&self) -> Vec<Vec<u8>> {
        self.blocks.iter().filter_map(FinalBlock::handover).collect()
    }

    /// The genesis file: genesis, then each handover.
    pub(crate) fn file(&self) -> Vec<u8> {
        [vec![self.consortium.genesis.encode()], self.handovers()].concat().concat()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::decode(&self.file()).unwrap()
    }
}
