//! Executing a block, transaction by transaction.
//!
//! Invalid registrations, changes, votes, evidence and revocations, and batches that are not signed,
//! make a block invalid: inclusion proves that they are valid. So does a batch with a link that is
//! not of its chain: it never will be, and the gateway that signed it has walked before. Other items
//! of a batch that break a rule are skipped, with the reason, since time or other gateways may be
//! the cause; inclusion in the trees of accepted items proves that the rules held.
//!
//! The links that a block opens are walked at most `limits.steps` steps together, counted before each
//! walk; an item that would pass that is skipped and may come again.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, Opening, ProviderId, PublicKey, Signature,
    TreeHead,
    identity::SignatureError,
    merkle::RootBuilder,
    request,
    root_message::{Registered, Registration},
    timestamp::request_leaf,
    transaction::opening_leaf,
};

use crate::{
    Chain, Change, Evidence, Head, Live, OpeningBatch, Refusal, RequestBatch, Revocation,
    Transaction, View, Vote,
    accounting_nodes::VoteRefusal,
    candidate::Signed,
    chain::{End, Pending},
    change::{Body, ChangeRefusal},
    evidence::EvidenceRefusal,
    genesis::Weighing,
    members::MembersChange,
    membership::{RegistrationRefusal, check_room, check_rules},
    registry::Registry,
    revocation::RevocationRefusal,
    state::Delta,
    transaction_batch::Row,
    verify::HandedOver,
};

/// An item of a request batch that the rules accept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AcceptedRequest {
    /// The meter's number in the registry.
    pub row: Row,
    /// The meter.
    pub meter: MeterId,
    /// Its link.
    pub index: LinkIndex,
    /// The gateway.
    pub submitter: ProviderId,
    /// `q`.
    pub value: Digest,
    /// Its leaf.
    pub leaf: Digest,
}

/// An item of an opening batch that the rules accept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcceptedOpening {
    /// The meter's number in the registry.
    pub row: Row,
    /// What was opened.
    pub opening: Opening,
    /// `q`, and the gateway whose request it opens.
    pub request: (Digest, ProviderId),
    /// Its transaction in the block and its position there.
    pub place: (u32, u32),
    /// Its leaf.
    pub leaf: Digest,
}

/// An item of a batch that was skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// Its transaction in the block and its position there.
    pub place: (u32, u32),
    /// Why.
    pub reason: SkipReason,
}

/// The rule that an item of a batch breaks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum SkipReason {
    /// No meter has this number.
    #[error("no meter has this registry number")]
    UnknownMeter,
    /// The slot is before the first or after the last of the chain.
    #[error("slot is outside the meter's chain")]
    OutsideChain,
    /// The chain was replaced or revoked before the end of the slot.
    #[error("the meter's chain has ended")]
    Ended,
    /// REQ: the block's time is not in the slot's window. REV: the window is still open, or the
    /// time for openings is over.
    #[error("block's time is not the time for this")]
    WrongTime,
    /// This gateway has a request for this link.
    #[error("a second request of this gateway for this slot")]
    SecondRequest,
    /// No pending request has this value: another body, link or slot, or it was opened before.
    #[error("no pending request has this value")]
    NoRequest,
    /// This gateway has as many requests of this chain waiting as are allowed.
    #[error("too many requests of this gateway for this chain wait")]
    TooManyPending,
    /// The steps of a block are used up.
    #[error("the steps of this block are used up")]
    OverBudget,
}

/// Why a transaction makes its block invalid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TransactionRefusal {
    #[error("registration: {0}")]
    Registration(#[from] RegistrationRefusal),
    #[error("gateway {0} is no provider")]
    UnknownGateway(ProviderId),
    #[error("there are no keys to check its signatures with")]
    NoKeys,
    #[error("signature of gateway {gateway}: {reason}")]
    Signature { gateway: ProviderId, reason: SignatureError },
    #[error("batch of {found} items, at most {limit} are allowed")]
    TooMany { found: usize, limit: u32 },
    #[error("transaction of {found} bytes, a block has room for {limit}")]
    TooLong { found: usize, limit: usize },
    #[error("batch of gateway {gateway}: link of item {item} is not of its chain, for ever")]
    ForeignLink { gateway: ProviderId, item: u32 },
    #[error("batch of gateway {gateway} comes without all of its bodies")]
    Incomplete { gateway: ProviderId },
    #[error("batch of gateway {gateway} names number {row}, {registered} chains are registered")]
    UnknownRow { gateway: ProviderId, row: Row, registered: u32 },
    #[error("change of membership: {0}")]
    Change(#[from] ChangeRefusal),
    #[error("vote for accounting nodes: {0}")]
    Vote(#[from] VoteRefusal),
    #[error("evidence: {0}")]
    Evidence(#[from] EvidenceRefusal),
    #[error("revocation: {0}")]
    Revocation(#[from] RevocationRefusal),
}

/// What executing a block comes to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) delta: Delta,
    pub(crate) requests: Vec<AcceptedRequest>,
    pub(crate) openings: Vec<AcceptedOpening>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) members_change: Option<Arc<MembersChange>>,
}

impl Outcome {
    /// The same, of the block with this id.
    pub(crate) fn named(mut self, id: Digest) -> Self {
        let delta = &mut self.delta;
        delta.head.id = id;
        if delta.ends_round {
            // The seed of the next round is the block that ends this one.
            Arc::make_mut(&mut delta.round).seed = id;
        }
        self
    }

    pub(crate) fn request_tree(&self) -> Option<TreeHead> {
        tree_head(self.requests.iter().map(|request| request.leaf))
    }

    pub(crate) fn opening_tree(&self) -> Option<TreeHead> {
        tree_head(self.openings.iter().map(|opening| opening.leaf))
    }
}

fn tree_head(leaves: impl Iterator<Item = Digest>) -> Option<TreeHead> {
    let mut tree = RootBuilder::default();
    for leaf in leaves {
        tree.push(leaf);
    }
    tree.root().map(|root| TreeHead { count: tree.count(), root })
}

/// A block while it is executed.
pub(crate) struct Draft<'a> {
    view: View<'a>,
    time: LedgerTime,
    reveal_s: u32,
    outcome: Outcome,
    position: u32,
    /// Meters that this block has registered, or revoked: nothing of the kind may follow.
    changed: BTreeSet<MeterId>,
    /// Steps that the block may still be walked: what is left out of it takes none of them, as whoever
    /// verifies the block knows nothing of it.
    steps: u32,
    /// Steps that were walked, of what is left out too.
    walked: u32,
    /// Looks at requests that wait, to find room for others.
    looks: usize,
}

/// An opening that the rules accept, and what it makes of its chain.
struct Opened {
    accepted: AcceptedOpening,
    live: Live,
    owner: ProviderId,
    slot_s: u32,
}

/// Why an item of an opening batch is not accepted.
enum NotOpened {
    Skipped(SkipReason),
    Foreign,
}

impl From<SkipReason> for NotOpened {
    fn from(reason: SkipReason) -> Self {
        Self::Skipped(reason)
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(view: &View<'a>, time: LedgerTime) -> Self {
        let head = view.head();
        let height = head.height + 1;
        let delta = Delta {
            parent: head.id,
            head: Head { height, id: Digest::ZERO, time },
            registered: Vec::new(),
            new: Registry::from(view.chain_count()),
            live: BTreeMap::new(),
            members: view.members().clone(),
            round: view.round().clone(),
            ends_round: view.genesis().charter().rounds.ends(height),
            offences: Vec::new(),
        };
        Self {
            time,
            reveal_s: view.genesis().charter().terms.reveal_s,
            view: view.clone(),
            outcome: Outcome {
                delta,
                requests: Vec::new(),
                openings: Vec::new(),
                skipped: Vec::new(),
                members_change: None,
            },
            position: 0,
            changed: BTreeSet::new(),
            steps: view.genesis().charter().limits.steps,
            walked: 0,
            looks: 0,
        }
    }

    /// Looks at requests that wait, of what is left out too.
    pub(crate) const fn looks(&self) -> usize {
        self.looks
    }

    /// Steps that were walked, of what is left out too.
    pub(crate) const fn walked(&self) -> u32 {
        self.walked
    }

    /// Steps that the openings of a transaction would be walked, behind what the block has already.
    pub(crate) fn steps_of(&self, transaction: &Transaction) -> u32 {
        let Transaction::Openings(batch) = transaction else { return 0 };
        let of_row = |row: &Row| {
            let index = self.chain(*row)?.schedule.index(batch.slot)?;
            let live = self.outcome.delta.live.get(row).or_else(|| self.view.live(*row))?;
            (!live.pending_of(index).is_empty()).then(|| live.steps(index))
        };
        batch.rows.iter().filter_map(of_row).fold(0, u32::saturating_add)
    }

    /// Ends the block, and the round if it is its last: who comes after it.
    pub(crate) fn finish(self) -> Result<(Outcome, HandedOver), Refusal> {
        let Self { view, mut outcome, .. } = self;
        let delta = &mut outcome.delta;
        let mut handed_over = HandedOver { next_committee: None, members: None, state: None };
        if delta.members != *view.members() {
            handed_over.members = Some(delta.members.digest());
            let change = MembersChange::between(view.members(), &delta.members);
            outcome.members_change = Some(change.into());
        }
        if delta.ends_round {
            let charter = view.genesis().charter();
            let end = (Digest::ZERO, delta.head.time);
            let next = delta.round.next(&delta.members, charter, end);
            handed_over.next_committee =
                (next.committee != delta.round.committee).then(|| next.committee.digest());
            handed_over.state = view.sealed();
            if handed_over.state.is_none() && delta.round.number > 0 {
                return Err(Refusal::NotSealed { height: delta.head.height });
            }
            delta.round = next.into();
        }
        Ok((outcome, handed_over))
    }

    /// Executes the next transaction and returns how many items it contributed. An error leaves no
    /// trace but in [`Self::walked`].
    pub(crate) fn execute(
        &mut self,
        transaction: &Transaction,
        digest: &Digest,
        signed: &Signed,
    ) -> Result<usize, Refusal> {
        let result = match transaction {
            Transaction::Registration(registration) => self.register(registration, signed),
            Transaction::Change(change) => self.change(change, signed),
            Transaction::Vote(vote) => self.vote(vote, signed),
            Transaction::Evidence(evidence) => self.record(evidence, signed),
            Transaction::Revocation(revocation) => self.revoke(revocation, signed),
            Transaction::Requests(batch) => self
                .gateway(batch.submitter, batch.rows.len())
                .and_then(|key| check_batch(batch.submitter, key, digest, &batch.signature, signed))
                .map(|()| self.request_batch(batch)),
            Transaction::Openings(batch) => self
                .gateway(batch.submitter, batch.rows.len())
                .and_then(|key| check_batch(batch.submitter, key, digest, &batch.signature, signed))
                .and_then(|()| self.opening_batch(batch)),
        };
        let position = self.position;
        self.position += 1;
        result.map_err(|reason| Refusal::Transaction { position, reason })
    }

    /// Takes back the last transaction, which contributed nothing.
    pub(crate) fn forget(&mut self) {
        self.position -= 1;
        let position = self.position;
        // They are the last ones.
        let skipped = &mut self.outcome.skipped;
        let kept = skipped.iter().rposition(|skipped| skipped.place.0 != position);
        skipped.truncate(kept.map_or(0, |last| last + 1));
    }

    fn register(
        &mut self,
        registration: &Registration,
        signed: &Signed,
    ) -> Result<usize, TransactionRefusal> {
        let message = &registration.message;
        let (meter, owner) = (message.meter, message.owner);
        if self.changed.contains(&meter) {
            return Err(RegistrationRefusal::SecondInBlock(meter).into());
        }
        let delta = &self.outcome.delta;
        // The view does not know what this block has registered so far.
        if delta.new.has_salt(message.salt()) {
            return Err(RegistrationRefusal::SaltTaken.into());
        }
        let under_way = |row| delta.live.get(&row).or_else(|| self.view.live(row));
        let vouchers = check_rules(&self.view, &delta.members, self.time, message, under_way)?;
        let of_owner = self.view.chains_of(owner).saturating_add(delta.new.count_of(owner));
        let limits = &self.view.genesis().charter().limits;
        check_room(limits, owner, (delta.new.next(), of_owner))?;
        let network = self.view.genesis().network();
        let registered = match signed {
            Signed::Registration(registered) => Registered::clone(registered),
            _ => vouchers.check(network, registration)?,
        };
        let mut live = Live::new(message);
        if let Some(row) = self.view.row(meter) {
            let begins = message.schedule.begins();
            if let Some(replaced) = self.live(row) {
                replaced.end = Some(End::Replaced(begins));
                // The meter goes on counting, once, in its newest chain.
                live.counts_until = std::mem::take(&mut replaced.counts_until);
            }
        }
        let delta = &mut self.outcome.delta;
        let row = delta.new.push(Chain::new(registered.message(), *registered.id()));
        delta.live.insert(row, live);
        delta.registered.push(registered);
        self.changed.insert(meter);
        Ok(1)
    }

    fn change(&mut self, change: &Change, signed: &Signed) -> Result<usize, TransactionRefusal> {
        let genesis = self.view.genesis();
        let (network, agreement) = (genesis.network(), genesis.charter().agreement);
        let delta = &mut self.outcome.delta;
        // Before all that costs something: a provider may have many of them waiting in every pool.
        delta.round.check_own(change, self.time)?;
        change.check_rules(&delta.members, agreement, delta.round.number)?;
        // Whoever came and went in one block would be in no handover.
        match change.body {
            Body::Leave(id) | Body::Expel(id) if self.view.members().provider(id).is_none() => {
                return Err(ChangeRefusal::NotPresent(id).into());
            }
            Body::RemoveSdi(id) if self.view.members().sdi(id).is_none() => {
                return Err(ChangeRefusal::SdiNotPresent(id).into());
            }
            _ => {}
        }
        match signed {
            Signed::Other => change.check_standing(&delta.members)?,
            _ => change.check_signatures(&delta.members, network)?,
        }
        if let Some(provider) = change.made_by() {
            Arc::make_mut(&mut delta.round).count_change(provider, self.time);
        }
        change.apply(Arc::make_mut(&mut delta.members));
        Ok(1)
    }

    fn vote(&mut self, vote: &Vote, signed: &Signed) -> Result<usize, TransactionRefusal> {
        let network = self.view.genesis().network();
        let delta = &mut self.outcome.delta;
        vote.check_rules(&delta.members, &delta.round)?;
        if !matches!(signed, Signed::Other) {
            vote.check_signature(&delta.members, network)?;
        }
        let round = Arc::make_mut(&mut delta.round);
        round.votes.insert(vote.voter, vote.picks.clone());
        Ok(1)
    }

    fn record(
        &mut self,
        evidence: &Evidence,
        signed: &Signed,
    ) -> Result<usize, TransactionRefusal> {
        let offence = evidence.offence;
        let delta = &mut self.outcome.delta;
        self.view.check_offence(&offence, &delta.offences)?;
        match signed {
            Signed::Other => evidence.check_claim(&delta.members)?,
            _ => evidence.check(&delta.members, self.view.genesis().network())?,
        }
        delta.offences.push(offence);
        Ok(1)
    }

    fn revoke(
        &mut self,
        revocation: &Revocation,
        signed: &Signed,
    ) -> Result<usize, TransactionRefusal> {
        let meter = revocation.meter;
        if self.changed.contains(&meter) {
            return Err(RevocationRefusal::SecondInBlock(meter).into());
        }
        let row = check_revocation(&self.view, revocation)?;
        let chain = self.view.chain(row).ok_or(RevocationRefusal::UnknownChain(meter))?;
        let members = &self.outcome.delta.members;
        match signed {
            Signed::Other => revocation.check_standing(members)?,
            _ => revocation.check(members, self.view.genesis().network(), chain)?,
        }
        let time = self.time;
        if let Some(live) = self.live(row) {
            live.end = Some(End::Revoked(time));
        }
        // While the newest chain waits for its first slot, those before it still have theirs.
        let runs = |end: Option<End>| matches!(end, Some(End::Replaced(then)) if time < then);
        for before in self.view.chains(meter) {
            if !self.view.live(before).is_some_and(|live| runs(live.end)) {
                continue;
            }
            if let Some(live) = self.live(before) {
                live.end = Some(End::Revoked(time));
            }
        }
        self.changed.insert(meter);
        Ok(1)
    }

    /// The key of a gateway that may put a batch of so many items on the ledger.
    fn gateway(&self, gateway: ProviderId, items: usize) -> Result<PublicKey, TransactionRefusal> {
        let limit = self.view.genesis().charter().limits.batch_items;
        check_items(items, limit)?;
        let provider = self.outcome.delta.members.provider(gateway);
        Ok(provider.ok_or(TransactionRefusal::UnknownGateway(gateway))?.key)
    }

    fn request_batch(&mut self, batch: &RequestBatch) -> usize {
        let before = self.outcome.requests.len();
        self.outcome.requests.reserve(batch.rows.len());
        for (item, (row, value)) in (0..).zip(batch.rows.iter().zip(&batch.values)) {
            match self.request(batch, *row, value) {
                Ok(accepted) => self.outcome.requests.push(accepted),
                Err(reason) => self.skip(item, reason),
            }
        }
        self.outcome.requests.len() - before
    }

    /// Rule REQ.
    fn request(
        &mut self,
        batch: &RequestBatch,
        row: Row,
        value: &Digest,
    ) -> Result<AcceptedRequest, SkipReason> {
        let (time, reveal_s, submitter) = (self.time, self.reveal_s, batch.submitter);
        let chain = self.chain(row).ok_or(SkipReason::UnknownMeter)?;
        let (meter, schedule) = (chain.meter, chain.schedule);
        let index = schedule.index(batch.slot).ok_or(SkipReason::OutsideChain)?;
        if !schedule.accepts_request(index, time) {
            return Err(SkipReason::WrongTime);
        }
        let most = self.view.genesis().charter().limits.pending as usize;
        // It is changed only once all rules hold: a copy of what waits is not made in vain.
        let live = self.outcome.delta.live.get(&row).or_else(|| self.view.live(row));
        let live = live.ok_or(SkipReason::UnknownMeter)?;
        if !live.has(&schedule, index) {
            return Err(SkipReason::Ended);
        }
        let own = |pending: &&Pending| pending.submitter == submitter;
        if live.pending_of(index).iter().any(|pending| own(&pending)) {
            return Err(SkipReason::SecondRequest);
        }
        // What can no longer be opened makes room. There may be many others: one look at each, and none
        // is copied in vain.
        let openable = live.pending_from(schedule.first_openable(time, reveal_s));
        self.looks = self.looks.saturating_add(openable.len());
        if openable.len() >= most && openable.iter().filter(own).count() >= most {
            return Err(SkipReason::TooManyPending);
        }
        let mut left = Vec::with_capacity(openable.len() + 1);
        left.extend_from_slice(openable);
        left.push(Pending { index, submitter, value: *value });
        if let Some(live) = self.live(row) {
            live.pending = left.into();
        }
        let leaf = request_leaf(meter, index, submitter, value);
        Ok(AcceptedRequest { row, meter, index, submitter, value: *value, leaf })
    }

    fn opening_batch(&mut self, batch: &OpeningBatch) -> Result<usize, TransactionRefusal> {
        let mut steps = self.steps;
        let (mut opened, mut skipped) = (Vec::with_capacity(batch.rows.len()), Vec::new());
        let items = batch.rows.iter().zip(&batch.links).zip(batch.body_hashes());
        for (item, ((row, link), body_hash)) in (0..).zip(items) {
            match self.opening(batch, item, (*row, link, body_hash), &mut steps) {
                Ok(accepted) => opened.push(accepted),
                Err(NotOpened::Skipped(reason)) => skipped.push((item, reason)),
                Err(NotOpened::Foreign) => {
                    // A leader leaves the batch out, and has walked all the same.
                    self.walk(steps);
                    let gateway = batch.submitter;
                    return Err(TransactionRefusal::ForeignLink { gateway, item });
                }
            }
        }
        // The items of a batch are of different chains, so that none has waited for another.
        self.walk(steps);
        self.steps = steps;
        let count = opened.len();
        self.outcome.openings.reserve(count);
        for opened in opened {
            self.open(opened);
        }
        skipped.into_iter().for_each(|(item, reason)| self.skip(item, reason));
        Ok(count)
    }

    /// Counts what was walked until so many steps were left.
    const fn walk(&mut self, left: u32) {
        self.walked = self.walked.saturating_add(self.steps.saturating_sub(left));
    }

    /// Rule REV. The request is looked for before the chain is walked: the work of a gap can only
    /// be caused by who had a request accepted.
    fn opening(
        &self,
        batch: &OpeningBatch,
        item: u32,
        (row, link, body_hash): (Row, &Link, &Digest),
        steps: &mut u32,
    ) -> Result<Opened, NotOpened> {
        let chain = self.chain(row).ok_or(SkipReason::UnknownMeter)?;
        let Chain { meter, owner, salt, schedule, .. } = *chain;
        let index = schedule.index(batch.slot).ok_or(SkipReason::OutsideChain)?;
        if !schedule.accepts_opening(index, self.time, self.reveal_s) {
            return Err(SkipReason::WrongTime.into());
        }
        let live = self.outcome.delta.live.get(&row).or_else(|| self.view.live(row));
        let live = live.ok_or(SkipReason::UnknownMeter)?;
        let waits = live.pending_of(index);
        if waits.is_empty() {
            return Err(SkipReason::NoRequest.into());
        }
        let commitment = request::commitment(&chain.id, index, body_hash);
        let value = request::request_value(&commitment, link);
        let same = |pending: &&Pending| pending.value == value;
        let submitter = waits.iter().find(same).ok_or(SkipReason::NoRequest)?.submitter;
        *steps = steps.checked_sub(live.steps(index)).ok_or(SkipReason::OverBudget)?;
        let live = live.open(salt, index, link).ok_or(NotOpened::Foreign)?;
        let opening = Opening { meter, index, link: link.clone(), body_hash: *body_hash };
        let (leaf, place) = (opening_leaf(meter, index, &value), (self.position, item));
        let accepted = AcceptedOpening { row, opening, request: (value, submitter), place, leaf };
        Ok(Opened { accepted, live, owner, slot_s: schedule.slot_s })
    }

    fn open(&mut self, opened: Opened) {
        let Opened { accepted, live, owner, slot_s } = opened;
        let (row, meter) = (accepted.row, accepted.opening.meter);
        self.outcome.delta.live.insert(row, live);
        self.outcome.openings.push(accepted);
        if self.view.genesis().charter().rounds.votes != Weighing::Meters {
            return;
        }
        // It weighs in the votes of its owner for a while, once for all chains of the meter.
        let newest = self.outcome.delta.new.newest(meter).or_else(|| self.view.row(meter));
        let (time, reveal_s) = (self.time, self.reveal_s);
        let Some(before) = newest.and_then(|row| self.live(row)).map(|live| live.counts_until)
        else {
            return;
        };
        let activity = &mut Arc::make_mut(&mut self.outcome.delta.round).activity;
        let until = activity.report(owner, before, (time, slot_s), reveal_s);
        if let Some(live) = newest.and_then(|row| self.live(row)) {
            live.counts_until = until;
        }
    }

    fn skip(&mut self, item: u32, reason: SkipReason) {
        self.outcome.skipped.push(Skipped { place: (self.position, item), reason });
    }

    /// A chain of the view or of this block.
    fn chain(&self, row: Row) -> Option<&Chain> {
        self.outcome.delta.new.get(row).or_else(|| self.view.chain(row))
    }

    /// A chain as it is now, to be changed.
    fn live(&mut self, row: Row) -> Option<&mut Live> {
        match self.outcome.delta.live.entry(row) {
            Entry::Occupied(live) => Some(live.into_mut()),
            Entry::Vacant(unchanged) => Some(unchanged.insert(self.view.live(row)?.clone())),
        }
    }
}

/// Checks that a batch is not longer than allowed.
///
/// # Errors
///
/// [`TransactionRefusal::TooMany`].
pub(crate) const fn check_items(found: usize, limit: u32) -> Result<(), TransactionRefusal> {
    if found > limit as usize {
        return Err(TransactionRefusal::TooMany { found, limit });
    }
    Ok(())
}

/// Checks that a gateway has signed a batch, unless that is known.
pub(crate) fn check_batch(
    gateway: ProviderId,
    key: PublicKey,
    digest: &Digest,
    signature: &Signature,
    signed: &Signed,
) -> Result<(), TransactionRefusal> {
    if matches!(signed, Signed::Batch) {
        return Ok(());
    }
    key.verify(digest, signature)
        .map_err(|reason| TransactionRefusal::Signature { gateway, reason })
}

/// Checks that a revocation is of a meter's newest chain, and that this has not ended; returns the
/// chain's number. A chain that a block registers can be revoked in the next.
///
/// # Errors
///
/// [`RevocationRefusal`].
pub(crate) fn check_revocation(
    view: &View<'_>,
    revocation: &Revocation,
) -> Result<Row, RevocationRefusal> {
    let unknown = RevocationRefusal::UnknownChain(revocation.meter);
    let row = view.row(revocation.meter).ok_or(unknown)?;
    view.chain(row).filter(|chain| chain.id == revocation.chain).ok_or(unknown)?;
    if view.live(row).is_some_and(|live| matches!(live.end, Some(End::Revoked(_)))) {
        return Err(RevocationRefusal::Ended(revocation.meter));
    }
    Ok(row)
}
