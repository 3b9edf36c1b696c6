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
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, Network, ProviderId, SecretKey, Slot,
    codec::{self, MAX_BODY},
};

/// A batch on its way.
#[derive(Debug)]
struct Sent {
    transaction: Transaction,
    made: SystemTime,
    again: SystemTime,
    tries: u32,
}

/// So many batches of requests, and as many of openings, are under way at most: what comes meanwhile
/// is gathered into fewer and longer ones. It is a part of the gateway's share of the pools.
const UNDER_WAY: usize = 256;

/// The wait before a batch is sent again doubles so many times: what is late because there is much
/// of it must not become more by being repeated.
const MOST_DOUBLINGS: u32 = 4;

/// A released link and the encoded body it opens.
type Opened = (Link, Box<[u8]>);

/// Items that wait for a batch, and batches that wait for a block.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Values by when their slots begin: no block takes them before.
    early: BTreeMap<LedgerTime, BTreeMap<(Slot, Row), Digest>>,
    requests: BTreeMap<Slot, BTreeMap<Row, Digest>>,
    openings: BTreeMap<(Slot, Shape), BTreeMap<Row, Opened>>,
    transactions: Vec<Transaction>,
    sent: BTreeMap<Digest, Sent>,
    due: BTreeSet<(SystemTime, Digest)>,
}

/// Who signs batches, for which network, and how many items and bytes they have at most.
pub(super) struct Signer {
    pub(super) provider: ProviderId,
    pub(super) key: SecretKey,
    pub(super) network: Network,
    pub(super) limit: usize,
    pub(super) bytes: usize,
}

impl Outgoing {
    /// Has a value requested, once its slot begins.
    pub(super) fn request(&mut self, begins: LedgerTime, slot: Slot, row: Row, value: Digest) {
        self.early.entry(begins).or_default().insert((slot, row), value);
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

    /// Signs what was gathered up to a ledger time into transactions.
    pub(super) fn flush(&mut self, signer: &Signer, time: LedgerTime) -> Vec<Transaction> {
        let Signer { provider, key, network, limit, bytes } = signer;
        let mut transactions = std::mem::take(&mut self.transactions);
        let later = self.early.split_off(&LedgerTime(time.0.saturating_add(1)));
        for ((slot, row), value) in
            std::mem::replace(&mut self.early, later).into_values().flatten()
        {
            self.requests.entry(slot).or_default().insert(row, value);
        }
        let [mut requests, mut openings] = self.under_way();
        while requests < UNDER_WAY
            && let Some((slot, items)) = self.requests.pop_first()
        {
            for items in chunks(items, (*limit, *bytes), |_| 32) {
                let batch = RequestBatch::sign(*network, *provider, key, slot, items);
                transactions.push(Transaction::Requests(batch));
                requests += 1;
            }
        }
        while openings < UNDER_WAY
            && let Some(((slot, shape), items)) = self.openings.pop_first()
        {
            for items in chunks(items, (*limit, *bytes), |(_, body)| 32 + body.len()) {
                let mut bodies = Bodies::new(shape);
                let mut links = Vec::new();
                for (row, (link, body)) in items {
                    if codec::decode("body", &body).is_ok_and(|body| bodies.push(&body)) {
                        links.push((row, link));
                    }
                }
                let batch = OpeningBatch::sign(*network, *provider, key, slot, links, bodies);
                transactions.push(Transaction::Openings(batch));
                openings += 1;
            }
        }
        transactions
    }

    /// How many batches of requests and of openings are on their way; of those that have been sent many
    /// times something else than a block is the matter.
    fn under_way(&self) -> [usize; 2] {
        let fresh = || self.sent.values().filter(|sent| sent.tries <= MOST_DOUBLINGS);
        let is_request = |sent: &&Sent| matches!(sent.transaction, Transaction::Requests(_));
        let is_opening = |sent: &&Sent| matches!(sent.transaction, Transaction::Openings(_));
        [fresh().filter(is_request).count(), fresh().filter(is_opening).count()]
    }

    /// Remembers a transaction until it is in a block or of no use; it is due at once.
    pub(super) fn keep(&mut self, digest: Digest, transaction: Transaction, now: SystemTime) {
        let sent = Sent { transaction, made: now, again: now, tries: 0 };
        self.due.insert((now, digest));
        if let Some(before) = self.sent.insert(digest, sent)
            && before.again != now
        {
            self.due.remove(&(before.again, digest));
        }
    }

    /// Transactions that are due, to be sent; and the digests of those that cannot become final any
    /// more.
    pub(super) fn due(
        &mut self,
        view: &View<'_>,
        now: SystemTime,
    ) -> (Vec<(Digest, Transaction)>, Vec<Digest>) {
        let (mut due, mut useless) = (Vec::new(), Vec::new());
        while let Some((when, digest)) = self.due.first().copied().filter(|(when, _)| *when <= now)
        {
            self.due.remove(&(when, digest));
            let Some(sent) = self.sent.get(&digest) else { continue };
            if may_contribute(view, &sent.transaction) {
                due.push((digest, sent.transaction.clone()));
            } else {
                self.sent.remove(&digest);
                useless.push(digest);
            }
        }
        (due, useless)
    }

    /// A transaction that was due is on its way: it is due again after a while, each time a longer
    /// one. One that did not fit into its share is due again after the shortest.
    pub(super) fn sent(&mut self, digest: Digest, fits: bool, now: SystemTime, resend: Duration) {
        let Some(sent) = self.sent.get_mut(&digest) else { return };
        sent.again = now + resend * (1 << sent.tries.min(MOST_DOUBLINGS));
        sent.tries += u32::from(fits);
        self.due.insert((sent.again, digest));
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
            let skipped_for = |reason| {
                verified
                    .skipped()
                    .iter()
                    .filter(move |skipped| skipped.place.0 == position && skipped.reason == reason)
            };
            let batch = match &sent.transaction {
                Transaction::Requests(batch) => batch,
                Transaction::Openings(batch) => {
                    for skipped in skipped_for(SkipReason::OverBudget) {
                        self.open_again(batch, skipped.place.1 as usize);
                    }
                    continue;
                }
                _ => continue,
            };
            for skipped in skipped_for(SkipReason::WrongTime) {
                let item = skipped.place.1 as usize;
                let Some((row, value)) = batch.rows.get(item).zip(batch.values.get(item)) else {
                    continue;
                };
                let Some(schedule) = view.chain(*row).map(|chain| chain.schedule) else { continue };
                let index = schedule.index(batch.slot);
                let still = |index: &LinkIndex| view.head().time < schedule.closes(*index);
                if let Some(index) = index.filter(still) {
                    self.request(schedule.opens(index), batch.slot, *row, *value);
                }
            }
        }
        included
    }

    /// An item of a batch that found the steps of its block used up goes into another batch.
    fn open_again(&mut self, batch: &OpeningBatch, item: usize) {
        let (Some(row), Some(link)) = (batch.rows.get(item), batch.links.get(item)) else { return };
        let Some(Ok(body)) = batch.bodies().iter().nth(item) else { return };
        let mut buffer = [0; MAX_BODY];
        if let Some(body) = codec::encode_into(&body, &mut buffer) {
            self.opening(batch.slot, *row, link, body);
        }
    }
}

/// Cuts ordered items into pieces of at most so many, and of about so many bytes.
fn chunks<V>(
    items: BTreeMap<Row, V>,
    (most, most_bytes): (usize, usize),
    bytes_of: impl Fn(&V) -> usize,
) -> Vec<Vec<(Row, V)>> {
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for (row, value) in items {
        let more = size_of::<Row>() + bytes_of(&value);
        if piece.len() == most || (bytes + more > most_bytes && !piece.is_empty()) {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        piece.push((row, value));
        bytes += more;
    }
    pieces.extend(Some(piece).filter(|piece| !piece.is_empty()));
    pieces
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        blocks::block,
        fixture::{Consortium, at},
    };

    #[test]
    fn a_batch_is_short_however_long_its_bodies_are() {
        let lengths = |count: u32, most, bytes: usize| -> Vec<usize> {
            let items = (0..count).map(|row| (row, vec![0; bytes])).collect();
            let pieces = chunks(items, (most, 100_000), Vec::len);
            let rows = pieces.iter().flatten().map(|(row, _)| *row);
            assert!(rows.eq(0..count), "each once, in order");
            pieces.iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(200, 16_384, 996), [100, 100]);
        assert_eq!(lengths(10, 4, 32), [4, 4, 2]);
        assert_eq!(lengths(2, 4, 100_001), [1, 1], "one item is a batch at least");
        assert_eq!(lengths(0, 4, 32), [0; 0]);
    }

    #[test]
    fn what_stays_out_is_sent_again_each_time_later() {
        let mut consortium = Consortium::new(1);
        let meter = consortium.meter(0);
        let mut state = consortium.state();
        block(&mut state, at(0, 1), [Transaction::Registration(meter.registration)]);
        let transaction = consortium.requests(0, 1, &[(0, Digest([7; 32]))]);
        let digest = transaction.digest(consortium.genesis.network());
        let (mut outgoing, resend) = (Outgoing::default(), Duration::from_secs(1));
        outgoing.keep(digest, transaction, UNIX_EPOCH);
        let mut sent = Vec::new();
        // For the first three seconds its share of the pool is full.
        for second in 0..100 {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            let (due, useless) = outgoing.due(&state.view(), now);
            assert_eq!(useless, []);
            for (digest, _) in due {
                sent.push(second);
                outgoing.sent(digest, second >= 3, now, resend);
            }
        }
        assert_eq!(sent, [0, 1, 2, 3, 4, 6, 10, 18, 34, 50, 66, 82, 98]);
        assert_eq!(outgoing.oldest(), Some(UNIX_EPOCH));
    }
}
