//! Receipts and proofs built on demand from stored blocks and their records.

mod provable;
mod silence;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bkss_ledger::{Block, Chain, Transaction, transaction_batch::Row};
use bkss_scheme::{
    Certificate, Digest, Head, LedgerTime, LinkIndex, MeterId, ProviderId, Slot, Timestamp, codec,
    finality::{Finality, MAX_DESCENDANTS},
    hash,
    receipt::Receipt,
    request,
    root_message::Registration,
    timestamp::{RegistrationProof, TimeProof},
};
use commonware_codec::Encode as _;
use commonware_consensus::types::Height;
use commonware_runtime::{Clock, Metrics, Storage, Supervisor};

use crate::{
    chain::Shared,
    delivery::{Marshal, first_from},
    records::{Record, Records},
};

use provable::Provable;

pub use silence::silent_meters;

/// Blocks whose proof trees are kept.
const MAX_CACHED: usize = 16;
/// Blocks behind one without a certificate that are looked at for one.
const MAX_BEHIND: u64 = 128;

/// Builds proofs from what a node has stored.
pub struct Prover<E: Storage + Metrics + Clock> {
    shared: Shared,
    marshal: Marshal,
    records: Arc<Records<E>>,
    cache: Mutex<VecDeque<(u64, Arc<Provable>)>>,
}

/// Why there is no proof.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum NoProof {
    #[error("meter {0} is not registered")]
    UnknownMeter(MeterId),
    #[error("registration of meter {0} is not in this node's records, or not yet")]
    NotRecorded(MeterId),
    #[error("link {0} is outside the meter's chain")]
    OutsideChain(LinkIndex),
    #[error("no opening of link {0} is final")]
    NotOpened(LinkIndex),
    #[error("the body was erased")]
    Erased,
    #[error("block {0} is not kept here")]
    NotKept(u64),
    #[error("no certificate that makes block {0} final is kept here")]
    Uncertified(u64),
    #[error("this node has records of the blocks after {0} only")]
    RecordsAfter(u64),
    #[error("no block from {0} ms on is final")]
    NotYet(u64),
    #[error("stored block {0} and its record do not fit")]
    Broken(u64),
}

/// What has become of a link.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SlotStatus {
    /// The chain that has this link: the newest of which anything is known.
    pub chain: Option<Digest>,
    /// Accepted requests, in their order.
    pub requested: Vec<RequestOf>,
    /// Height of the block that accepted the opening.
    pub opened: Option<u64>,
}

/// An accepted request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestOf {
    /// Height of its block.
    pub height: u64,
    /// The gateway that submitted it.
    pub gateway: ProviderId,
    /// `q`.
    pub value: Digest,
}

/// Blocks that are looked at for one page of openings, and openings.
const MAX_LOOKED: u64 = 256;
/// See [`MAX_LOOKED`].
const MAX_OPENINGS_LOOKED: u32 = 16_384;

/// An accepted opening.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Height of the block that accepted it.
    pub height: u64,
    /// The meter.
    pub meter: MeterId,
    /// The link.
    pub index: LinkIndex,
    /// The chain, `mr`.
    pub chain: Digest,
}

/// Some of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenedPage {
    /// They.
    pub opened: Vec<Opened>,
    /// Where to go on: a height, and how many openings of that block are left out.
    pub next: (u64, u32),
}

impl<E: Storage + Metrics + Clock + Supervisor> Prover<E> {
    /// From what a node has stored.
    pub const fn new(shared: Shared, marshal: Marshal, records: Arc<Records<E>>) -> Self {
        Self { shared, marshal, records, cache: Mutex::new(VecDeque::new()) }
    }

    /// The records it reads.
    pub const fn records(&self) -> &Arc<Records<E>> {
        &self.records
    }

    /// A final block; `None` if it is not kept, or not final yet.
    pub async fn block(&self, height: u64) -> Option<Arc<Block>> {
        let block = self.marshal.get_block(Height::new(height)).await?;
        Some(block.inner().block().clone())
    }

    /// Why a block is final, encoded.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn finality(&self, height: u64) -> Result<Vec<u8>, NoProof> {
        let mut descendants = Vec::new();
        let rounds = self.shared.chain().state().genesis().charter().rounds;
        // A certificate makes blocks of its own round final.
        let in_round = |next: &u64| rounds.of(*next) == rounds.of(height);
        for next in (height..=u64::MAX).take_while(in_round) {
            if next > height {
                let block = self.block(next).await.ok_or(NoProof::NotKept(next))?;
                codec::encode_infallible(block.header(), &mut descendants);
            }
            if descendants.len() > MAX_DESCENDANTS {
                break;
            }
            if let Some(bytes) = self.certificate(next).await {
                let certificate: Certificate<'_> =
                    codec::decode("certificate", &bytes).map_err(|_| NoProof::Broken(next))?;
                let finality = Finality { descendants: &descendants, certificate };
                return Ok(encode(&finality));
            }
        }
        Err(NoProof::Uncertified(height))
    }

    /// A block's own certificate, encoded; most blocks have one.
    pub async fn certificate(&self, height: u64) -> Option<Vec<u8>> {
        let bytes = self.marshal.get_finalization(Height::new(height)).await?.encode();
        let directory = self.records.directory();
        let mut sizes = directory.trust().eras().eras.iter().rev().map(|era| &era.committee);
        // The number of members is all that is asked of the committee.
        sizes.find_map(|committee| {
            let (certificate, _) = Certificate::from_engine(&bytes, committee).ok()?;
            Some(encode(&certificate))
        })
    }

    /// The newest block that has a certificate of its own, encoded as a head.
    ///
    /// # Errors
    ///
    /// [`NoProof::NotKept`] if there is none.
    pub async fn head(&self) -> Result<Vec<u8>, NoProof> {
        let (network, newest) = {
            let chain = self.shared.chain();
            (chain.state().genesis().network(), chain.state().head().height)
        };
        for height in (newest.saturating_sub(MAX_BEHIND).max(1)..=newest).rev() {
            let Some(bytes) = self.certificate(height).await else { continue };
            let block = self.block(height).await.ok_or(NoProof::NotKept(height))?;
            let certificate =
                codec::decode("certificate", &bytes).map_err(|_| NoProof::Broken(height))?;
            return Ok(encode(&Head { network, header: block.header().clone(), certificate }));
        }
        Err(NoProof::NotKept(newest))
    }

    /// What a meter takes as proof of ledger time: of the newest block, or of the first from
    /// `after` on.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn time_proof(&self, after: Option<LedgerTime>) -> Result<Vec<u8>, NoProof> {
        let head = self.shared.chain().state().head().height;
        let Some(after) = after else {
            // The newest that has a certificate.
            for height in (head.saturating_sub(MAX_BEHIND)..=head).rev() {
                if self.certificate(height).await.is_some() {
                    return self.time_proof_of(height).await;
                }
            }
            return Err(NoProof::NotKept(head));
        };
        let low = first_from(&self.marshal, 1..head + 1, after).await;
        if low > head { Err(NoProof::NotYet(after.0)) } else { self.time_proof_of(low).await }
    }

    /// A block's header and why it is final, encoded.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn time_proof_of(&self, height: u64) -> Result<Vec<u8>, NoProof> {
        let block = self.block(height).await.ok_or(NoProof::NotKept(height))?;
        let finality = self.finality(height).await?;
        let finality = codec::decode("finality", &finality).map_err(|_| NoProof::Broken(height))?;
        Ok(encode(&TimeProof { header: block.header().clone(), finality }))
    }

    /// What has become of a link, by all chains of a meter.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn slot(&self, meter: MeterId, index: LinkIndex) -> Result<SlotStatus, NoProof> {
        let mut status = SlotStatus::default();
        for (row, chain) in self.chains(meter, index)? {
            let slot = chain.schedule.slot(index);
            for height in self.heights(|directory| directory.requests(slot)) {
                if self.record(height).await?.requests(slot, row) {
                    let provable = self.provable(height).await?;
                    let requests = provable.requests_of(row, slot);
                    let request = |(gateway, value)| RequestOf { height, gateway, value };
                    status.requested.extend(requests.map(request));
                }
            }
            status.chain = Some(chain.id);
            status.opened = self.opened(row, slot).await?;
            if status.opened.is_some() || !status.requested.is_empty() {
                break;
            }
        }
        if status.opened.is_none() {
            // Where a request is known, the opening came later.
            let known = !status.requested.is_empty();
            self.reaches_back(meter, index, known).await?;
        }
        Ok(status)
    }

    /// Accepted openings, all or those of an owner's meters, in the order of their blocks: from a block
    /// on, of which so many are left out. At most `most`, of at most 256 blocks and
    /// 16 384 openings that are looked at.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn openings(
        &self,
        (from, skip): (u64, u32),
        owner: Option<ProviderId>,
        most: usize,
    ) -> Result<OpenedPage, NoProof> {
        let begins = self.records.directory().begins();
        if begins > 0 && from <= begins {
            return Err(NoProof::RecordsAfter(begins));
        }
        let recorded = self.records.next_height().saturating_sub(1);
        let last = self.shared.chain().state().head().height.min(recorded);
        let mut page = OpenedPage { opened: Vec::new(), next: (from, skip) };
        let mut looks = MAX_OPENINGS_LOOKED;
        for height in from..=last.min(from.saturating_add(MAX_LOOKED - 1)) {
            let left_out = if height == from { skip } else { 0 };
            let record = self.records.get(height).await.map_err(|_| NoProof::Broken(height))?;
            // Of a block without a record nothing is to be said.
            let opened: Vec<_> = record.iter().flat_map(Record::opened).collect();
            for (place, (slot, row)) in (0..).zip(opened).skip(left_out as usize) {
                if page.opened.len() == most || looks == 0 {
                    page.next = (height, place);
                    return Ok(page);
                }
                looks -= 1;
                page.opened.extend(self.opened_in(height, slot, row, owner));
            }
            page.next = (height + 1, 0);
        }
        Ok(page)
    }

    fn opened_in(
        &self,
        height: u64,
        slot: Slot,
        row: Row,
        owner: Option<ProviderId>,
    ) -> Option<Opened> {
        let shared = self.shared.chain();
        let view = shared.state().view();
        let chain = view.chain(row)?;
        let index = chain.schedule.index(slot)?;
        let asked = owner.is_none_or(|owner| chain.owner == owner);
        asked.then_some(Opened { height, meter: chain.meter, index, chain: chain.id })
    }

    /// Whether what is not recorded of a link did not happen.
    async fn reaches_back(
        &self,
        meter: MeterId,
        index: LinkIndex,
        known: bool,
    ) -> Result<(), NoProof> {
        let begins = self.records.directory().begins();
        if begins == 0 || known {
            return Ok(());
        }
        let since = self.block(begins).await.map(|block| block.header().time);
        let chains = self.chains(meter, index)?;
        let later = |(_, chain): &(Row, Chain)| {
            since.is_some_and(|since| since <= chain.schedule.opens(index))
        };
        if chains.iter().all(later) { Ok(()) } else { Err(NoProof::RecordsAfter(begins)) }
    }

    /// The receipt of an opened reading: of this chain of the meter, or of the newest that has opened
    /// the link.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn receipt(
        &self,
        meter: MeterId,
        index: LinkIndex,
        of: Option<Digest>,
    ) -> Result<Vec<u8>, NoProof> {
        let asked = |(_, chain): &(Row, Chain)| of.is_none_or(|id| chain.id == id);
        for (row, chain) in self.chains(meter, index)?.into_iter().filter(asked) {
            let slot = chain.schedule.slot(index);
            if let Some(height) = self.opened(row, slot).await? {
                return self.receipt_of((row, &chain), index, height).await;
            }
        }
        self.reaches_back(meter, index, false).await?;
        Err(NoProof::NotOpened(index))
    }

    /// What a meter checks before its first release, of its newest chain.
    ///
    /// # Errors
    ///
    /// [`NoProof`].
    pub async fn registration(&self, meter: MeterId) -> Result<Vec<u8>, NoProof> {
        let chains = self.shared.chain().state().view().chains(meter);
        if chains.is_empty() {
            return Err(NoProof::UnknownMeter(meter));
        }
        // The records may be some blocks behind the state, or begin behind the registration.
        let recorded = |row: &Row| self.records.directory().registration(*row).is_some();
        let begins = self.records.directory().begins();
        let missing =
            if begins == 0 { NoProof::NotRecorded(meter) } else { NoProof::RecordsAfter(begins) };
        let row = chains.into_iter().find(recorded).ok_or(missing)?;
        let (provable, position, registration) = self.registered(row).await?;
        let height = provable.block.header().height;
        let inclusion =
            provable.inclusion(&provable.transactions, position).ok_or(NoProof::Broken(height))?;
        Ok(encode(&RegistrationProof { registration, inclusion }))
    }

    async fn receipt_of(
        &self,
        (row, chain): (Row, &Chain),
        index: LinkIndex,
        height: u64,
    ) -> Result<Vec<u8>, NoProof> {
        let broken = |height| move || NoProof::Broken(height);
        let slot = chain.schedule.slot(index);
        let opened = self.provable(height).await?;
        let found = opened.item(|transaction, position| {
            let Transaction::Openings(batch) = transaction else { return (0, None) };
            let found = (batch.slot == slot).then(|| batch.rows.binary_search(&row).ok());
            let item = found.flatten().map(|item| (number(item), (batch, item)));
            (number(batch.rows.len()), item.filter(|(i, _)| !opened.is_skipped(position, *i)))
        });
        let (opened_at, (batch, item)) = found.ok_or_else(broken(height))?;
        let body = batch.bodies().iter().nth(item).ok_or_else(broken(height))?;
        let body = encode(&body.map_err(|_| NoProof::Erased)?);
        let link = batch.links[item].clone();
        let commitment = request::commitment(&chain.id, index, &hash::plain(&body));
        let value = request::request_value(&commitment, &link);
        let (requested, requested_at, submitter) = self.requested(row, slot, value).await?;
        let (registered, registered_at, registration) = self.registered(row).await?;
        let inclusion = requested
            .inclusion(&requested.requests, requested_at)
            .ok_or_else(broken(requested.block.header().height))?;
        let receipt = Receipt {
            network: self.shared.chain().state().genesis().network(),
            registration,
            registered: registered
                .inclusion(&registered.transactions, registered_at)
                .ok_or_else(broken(registered.block.header().height))?,
            index,
            link,
            link_path: None,
            body: &body,
            timestamp: Timestamp { submitter, value, inclusion },
            opened: opened.inclusion(&opened.openings, opened_at).ok_or_else(broken(height))?,
        };
        Ok(encode(&receipt))
    }

    /// The block that accepted a request, the request's place in it and its submitter.
    async fn requested(
        &self,
        row: Row,
        slot: Slot,
        value: Digest,
    ) -> Result<(Arc<Provable>, u32, ProviderId), NoProof> {
        for height in self.heights(|directory| directory.requests(slot)) {
            if !self.record(height).await?.requests(slot, row) {
                continue;
            }
            let provable = self.provable(height).await?;
            let found = provable.item(|transaction, position| {
                let Transaction::Requests(batch) = transaction else { return (0, None) };
                let found = (batch.slot == slot).then(|| batch.rows.binary_search(&row).ok());
                let item = found.flatten().filter(|item| batch.values[*item] == value);
                let item = item.map(|item| (number(item), batch.submitter));
                (number(batch.rows.len()), item.filter(|(i, _)| !provable.is_skipped(position, *i)))
            });
            if let Some((place, submitter)) = found {
                return Ok((provable, place, submitter));
            }
        }
        Err(NoProof::Broken(0))
    }

    /// The block that registered a chain, the registration's place in it and the registration.
    async fn registered(&self, row: Row) -> Result<(Arc<Provable>, u32, Registration), NoProof> {
        let place = self.records.directory().registration(row);
        let (height, nth) = place.ok_or(NoProof::NotKept(0))?;
        let provable = self.provable(height).await?;
        let mut registrations = (0..).zip(provable.block.transactions()).filter_map(|(at, tx)| {
            if let Transaction::Registration(registration) = tx {
                Some((at, registration.clone()))
            } else {
                None
            }
        });
        let found = registrations.nth(nth as usize);
        let (position, registration) = found.ok_or(NoProof::Broken(height))?;
        Ok((provable, position, registration))
    }

    /// The height at which a chain's slot was opened.
    async fn opened(&self, row: Row, slot: Slot) -> Result<Option<u64>, NoProof> {
        for height in self.heights(|directory| directory.openings(slot)) {
            if self.record(height).await?.opens(slot, row) {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    fn heights(&self, of: impl FnOnce(&crate::records::Directory) -> Vec<u64>) -> Vec<u64> {
        of(&self.records.directory())
    }

    async fn record(&self, height: u64) -> Result<Record, NoProof> {
        let record = self.records.get(height).await.map_err(|_| NoProof::Broken(height))?;
        record.ok_or(NoProof::NotKept(height))
    }

    /// The chains of a meter that have a link, newest first.
    fn chains(&self, meter: MeterId, index: LinkIndex) -> Result<Vec<(Row, Chain)>, NoProof> {
        let state = self.shared.chain();
        let view = state.state().view();
        let rows = view.chains(meter);
        if rows.is_empty() {
            return Err(NoProof::UnknownMeter(meter));
        }
        let chains = rows.into_iter().filter_map(|row| {
            let chain = view.chain(row).filter(|chain| index.get() <= chain.schedule.slots)?;
            Some((row, chain.clone()))
        });
        let chains: Vec<_> = chains.collect();
        if chains.is_empty() { Err(NoProof::OutsideChain(index)) } else { Ok(chains) }
    }

    async fn provable(&self, height: u64) -> Result<Arc<Provable>, NoProof> {
        if let Some(known) = self.cached(height) {
            return Ok(known);
        }
        let block = self.block(height).await.ok_or(NoProof::NotKept(height))?;
        let record = self.record(height).await?;
        let provable = Provable::new(&self.shared.chain().state().view(), block, record);
        let provable = Arc::new(provable.ok_or(NoProof::Broken(height))?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() == MAX_CACHED {
            cache.pop_front();
        }
        cache.push_back((height, provable.clone()));
        Ok(provable)
    }

    fn cached(&self, height: u64) -> Option<Arc<Provable>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let place = cache.iter().position(|(known, _)| *known == height)?;
        let known = cache.remove(place)?;
        let provable = known.1.clone();
        cache.push_back(known);
        Some(provable)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn encode(value: &impl minicbor::Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    bytes
}
