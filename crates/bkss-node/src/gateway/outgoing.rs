//! What a gateway is bringing to the ledger: items being gathered and batches under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bkss_ledger::{
    OpeningBatch, RequestBatch, Transaction, Verified, View,
    execute::SkipReason,
    pool::may_contribute,
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{Digest, Link, Network, ProviderId, SecretKey, Slot, codec};

/// A batch on its way.
#[derive(Debug)]
struct Sent {
    transaction: Transaction,
    made: SystemTime,
    again: SystemTime,
}

/// A released link and the encoded body it opens.
type Opened = (Link, Box<[u8]>);

/// Items that wait for a batch, and batches that wait for a block.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    requests: BTreeMap<Slot, BTreeMap<Row, Digest>>,
    openings: BTreeMap<(Slot, Shape), BTreeMap<Row, Opened>>,
    transactions: Vec<Transaction>,
    sent: BTreeMap<Digest, Sent>,
    due: BTreeSet<(SystemTime, Digest)>,
}

/// Who signs batches, for which network, and how long they may be.
pub(super) struct Signer {
    pub(super) provider: ProviderId,
    pub(super) key: SecretKey,
    pub(super) network: Network,
    pub(super) limit: usize,
}

impl Outgoing {
    /// Has a value requested.
    pub(super) fn request(&mut self, slot: Slot, row: Row, value: Digest) {
        self.requests.entry(slot).or_default().insert(row, value);
    }

    /// Has a body opened.
    pub(super) fn opening(&mut self, slot: Slot, row: Row, link: &Link, body: &[u8]) {
        let shape = codec::decode("body", body).ok().and_then(|body| Shape::of(&body));
        let Some(shape) = shape else { return };
        let opened = (link.clone(), body.into());
        self.openings.entry((slot, shape)).or_default().insert(row, opened);
    }

    /// Has a registration or change brought to the ledger as it is.
    pub(super) fn transaction(&mut self, transaction: Transaction) {
        self.transactions.push(transaction);
    }

    /// When the oldest batch that is not final was made.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.sent.values().map(|sent| sent.made).min()
    }

    /// Signs what was gathered into transactions.
    pub(super) fn flush(&mut self, signer: &Signer) -> Vec<Transaction> {
        let Signer { provider, key, network, limit } = signer;
        let mut transactions = std::mem::take(&mut self.transactions);
        for (slot, items) in std::mem::take(&mut self.requests) {
            for items in chunks(items, *limit) {
                let batch = RequestBatch::sign(*network, *provider, key, slot, items);
                transactions.push(Transaction::Requests(batch));
            }
        }
        for ((slot, shape), items) in std::mem::take(&mut self.openings) {
            for items in chunks(items, *limit) {
                let mut bodies = Bodies::new(shape);
                let mut links = Vec::new();
                for (row, (link, body)) in items {
                    if codec::decode("body", &body).is_ok_and(|body| bodies.push(&body)) {
                        links.push((row, link));
                    }
                }
                let batch = OpeningBatch::sign(*network, *provider, key, slot, links, bodies);
                transactions.push(Transaction::Openings(batch));
            }
        }
        transactions
    }

    /// Remembers a transaction until it is in a block or of no use.
    pub(super) fn sent(
        &mut self,
        digest: Digest,
        transaction: Transaction,
        now: SystemTime,
        resend: Duration,
    ) {
        let again = now + resend;
        self.due.insert((again, digest));
        if let Some(before) = self.sent.insert(digest, Sent { transaction, made: now, again }) {
            self.due.remove(&(before.again, digest));
        }
    }

    /// Transactions that should be final by now: those that still can be, to be sent again, and
    /// the digests of those that cannot.
    pub(super) fn overdue(
        &mut self,
        view: &View<'_>,
        now: SystemTime,
        resend: Duration,
    ) -> (Vec<Transaction>, Vec<Digest>) {
        let (mut again, mut useless) = (Vec::new(), Vec::new());
        while let Some((when, digest)) = self.due.first().copied().filter(|(when, _)| *when <= now)
        {
            self.due.remove(&(when, digest));
            let Some(sent) = self.sent.get_mut(&digest) else { continue };
            if may_contribute(view, &sent.transaction) {
                sent.again = now + resend;
                self.due.insert((sent.again, digest));
                again.push(sent.transaction.clone());
            } else {
                self.sent.remove(&digest);
                useless.push(digest);
            }
        }
        (again, useless)
    }

    /// Forgets what is in a final block, and gathers again what it skipped too early. Returns the
    /// digests of own transactions in the block.
    pub(super) fn settle(&mut self, view: &View<'_>, verified: &Verified) -> Vec<Digest> {
        let block = verified.block();
        let mut included = Vec::new();
        for (position, digest) in (0..).zip(block.digests()) {
            let Some(sent) = self.sent.remove(digest) else { continue };
            self.due.remove(&(sent.again, *digest));
            included.push(*digest);
            let Transaction::Requests(batch) = &sent.transaction else { continue };
            let skipped = verified.skipped().iter().filter(|skipped| {
                skipped.place.0 == position && skipped.reason == SkipReason::WrongTime
            });
            for skipped in skipped {
                let item = skipped.place.1 as usize;
                let Some((row, value)) = batch.rows.get(item).zip(batch.values.get(item)) else {
                    continue;
                };
                let schedule = view.registered(*row).map(|meter| meter.message().schedule);
                let still = |index| {
                    schedule.is_some_and(|schedule| view.head().time < schedule.closes(index))
                };
                if schedule.and_then(|schedule| schedule.index(batch.slot)).is_some_and(still) {
                    self.request(batch.slot, *row, *value);
                }
            }
        }
        included
    }
}

/// Cuts ordered items into pieces of at most `limit`.
fn chunks<V>(items: BTreeMap<Row, V>, limit: usize) -> Vec<Vec<(Row, V)>> {
    let mut pieces = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        pieces.push(items.by_ref().take(limit).collect());
    }
    pieces
}
