//! A stored block with its proof trees.

use std::{collections::BTreeSet, sync::Arc};

use bkss_ledger::{Block, Transaction, View, proof_tree::ProofTree, transaction_batch::Row};
use bkss_scheme::{
    Digest, ProviderId, Slot, TreeHead, codec,
    finality::Finality,
    request,
    timestamp::{Inclusion, request_leaf},
    transaction::opening_leaf,
};

use crate::records::Record;

/// A stored block with the trees its proofs are taken from.
pub(super) struct Provable {
    pub(super) block: Arc<Block>,
    record: Record,
    pub(super) transactions: ProofTree,
    pub(super) requests: ProofTree,
    pub(super) openings: ProofTree,
}

impl Provable {
    /// With its trees; `None` if block and record do not fit each other.
    pub(super) fn new(view: &View<'_>, block: Arc<Block>, record: Record) -> Option<Self> {
        let (requests, openings) = leaves(view, &block, &record)?;
        let header = block.header();
        let count = |tree: Option<TreeHead>| tree.map_or(0, |tree| tree.count) as usize;
        let counts = (count(header.requests), count(header.openings));
        if counts != (requests.len(), openings.len()) {
            return None;
        }
        let transactions = ProofTree::new(block.leaves());
        let (requests, openings) = (ProofTree::new(requests), ProofTree::new(openings));
        Some(Self { block, record, transactions, requests, openings })
    }

    /// Place of a leaf in a tree of this block.
    pub(super) fn inclusion(&self, tree: &ProofTree, index: u32) -> Option<Inclusion<'_>> {
        let finality: Finality<'_> = codec::decode("finality", &self.record.finality).ok()?;
        let header = self.block.header().clone();
        Some(Inclusion { index, path: tree.path(index)?, header, finality })
    }

    /// An item of the block's batches and its position among the accepted of its kind.
    pub(super) fn item<'a, T>(
        &'a self,
        mut find: impl FnMut(&'a Transaction, u32) -> (u32, Option<(u32, T)>),
    ) -> Option<(u32, T)> {
        let mut before = 0;
        for (position, transaction) in (0..).zip(self.block.transactions()) {
            let (count, found) = find(transaction, position);
            if let Some((item, value)) = found {
                let place = before + item - self.skipped(position, 0..item);
                return Some((place, value));
            }
            before += count - self.skipped(position, 0..count);
        }
        None
    }

    /// Accepted requests of a chain for a slot: their gateways and values.
    pub(super) fn requests_of(
        &self,
        row: Row,
        slot: Slot,
    ) -> impl Iterator<Item = (ProviderId, Digest)> + '_ {
        let batches = (0..).zip(self.block.transactions());
        batches.filter_map(move |(position, transaction)| {
            let Transaction::Requests(batch) = transaction else { return None };
            let at = (batch.slot == slot).then(|| batch.rows.binary_search(&row).ok()).flatten()?;
            let item = u32::try_from(at).ok()?;
            (!self.is_skipped(position, item)).then(|| (batch.submitter, batch.values[at]))
        })
    }

    fn skipped(&self, transaction: u32, items: std::ops::Range<u32>) -> u32 {
        let first =
            self.record.skipped.partition_point(|place| *place < (transaction, items.start));
        let last = self.record.skipped.partition_point(|place| *place < (transaction, items.end));
        u32::try_from(last - first).unwrap_or(u32::MAX)
    }

    /// Whether an item was skipped.
    pub(super) fn is_skipped(&self, transaction: u32, item: u32) -> bool {
        self.record.skipped.binary_search(&(transaction, item)).is_ok()
    }
}

/// Leaves of the accepted items of a block.
fn leaves(view: &View<'_>, block: &Block, record: &Record) -> Option<(Vec<Digest>, Vec<Digest>)> {
    let skipped: BTreeSet<_> = record.skipped.iter().copied().collect();
    let (mut requests, mut openings) = (Vec::new(), Vec::new());
    let place = |row: Row, slot: Slot| {
        let chain = view.chain(row)?;
        Some((chain.meter, chain.schedule.index(slot)?, chain.id))
    };
    for (position, transaction) in (0..).zip(block.transactions()) {
        let taken = |item: u32| !skipped.contains(&(position, item));
        match transaction {
            Transaction::Requests(batch) => {
                let items = (0..).zip(batch.rows.iter().zip(&batch.values));
                for (_, (row, value)) in items.filter(|(item, _)| taken(*item)) {
                    let (meter, index, _) = place(*row, batch.slot)?;
                    requests.push(request_leaf(meter, index, batch.submitter, value));
                }
            }
            Transaction::Openings(batch) => {
                let columns = batch.rows.iter().zip(&batch.links).zip(batch.body_hashes());
                for (_, ((row, link), body_hash)) in (0..).zip(columns).filter(|(i, _)| taken(*i)) {
                    let (meter, index, chain) = place(*row, batch.slot)?;
                    let commitment = request::commitment(&chain, index, body_hash);
                    let value = request::request_value(&commitment, link);
                    openings.push(opening_leaf(meter, index, &value));
                }
            }
            _ => {}
        }
    }
    Some((requests, openings))
}
