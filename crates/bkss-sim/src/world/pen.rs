//! What a Byzantine gateway signs with: batches of one item, whatever that is.

use bkss_ledger::{
    OpeningBatch, RequestBatch, Transaction,
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{
    Digest, Link, LinkIndex, ProviderId, SecretKey, Slot, codec, hash, request, seal::Body,
};

use super::{chain::Chain, instrument::Shown, link_of::LinkOf};

/// A gateway's key.
#[derive(Clone)]
pub(super) struct Pen {
    pub(super) provider: ProviderId,
    pub(super) key: SecretKey,
}

impl Pen {
    /// A request for the value that a link and a body come to.
    pub(super) fn request(
        &self,
        chain: &Chain,
        link: LinkOf,
        public: &Link,
        body: &[u8],
    ) -> Option<Transaction> {
        let (row, id, of_meter) = chain.row_of(link)?;
        let slot = of_meter.schedule.slot(link.index);
        Some(self.requests(chain, slot, [(row, value(&id, link.index, public, body))]))
    }

    /// Requests of one slot.
    pub(super) fn requests(
        &self,
        chain: &Chain,
        slot: Slot,
        items: impl IntoIterator<Item = (Row, Digest)>,
    ) -> Transaction {
        let network = chain.genesis.network();
        let batch = RequestBatch::sign(network, self.provider, &self.key, slot, items);
        Transaction::Requests(batch)
    }

    /// An opening with a link and a body.
    pub(super) fn opening(&self, chain: &Chain, shown: &Shown) -> Option<Transaction> {
        self.openings(chain, &[shown])
    }

    /// Openings of one slot, if their bodies have one shape.
    pub(super) fn openings(&self, chain: &Chain, all: &[&Shown]) -> Option<Transaction> {
        let mut rows: Vec<(Row, &Shown)> = Vec::new();
        let mut slot = None;
        for shown in all {
            let (row, _, of_meter) = chain.row_of(shown.link)?;
            let of = of_meter.schedule.slot(shown.link.index);
            if *slot.get_or_insert(of) != of {
                return None;
            }
            rows.push((row, shown));
        }
        rows.sort_unstable_by_key(|(row, _)| *row);
        let decoded = rows.iter().map(|(_, shown)| codec::decode("body", &shown.body).ok());
        let decoded: Vec<Body<'_>> = decoded.collect::<Option<_>>()?;
        let mut bodies = Bodies::new(Shape::of(decoded.first()?)?);
        if !decoded.iter().all(|body| bodies.push(body)) {
            return None;
        }
        let links = rows.into_iter().map(|(row, shown)| (row, shown.release.link.clone()));
        let network = chain.genesis.network();
        let batch = OpeningBatch::sign(network, self.provider, &self.key, slot?, links, bodies);
        Some(Transaction::Openings(batch))
    }
}

/// What is requested for a link and a body.
fn value(chain: &Digest, index: LinkIndex, link: &Link, body: &[u8]) -> Digest {
    let commitment = request::commitment(chain, index, &hash::plain(body));
    request::request_value(&commitment, link)
}
