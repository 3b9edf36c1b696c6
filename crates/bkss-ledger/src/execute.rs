//! Executing a block, transaction by transaction.
//!
//! Invalid registrations, changes, votes, evidence and revocations, and batches that are not signed,
//! make a block invalid: inclusion proves that they are valid. Single items of a batch that break a
//! rule are skipped, with the reason: a gateway must not be able to spoil a block, and inclusion in
//! the trees of accepted items proves that the rules held.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, Opening, ProviderId, TreeHead,
    identity::SignatureError, merkle::RootBuilder, request, timestamp::request_leaf,
};

use crate::{
    Chain, Change, Evidence, Head, Live, OpeningBatch, Refusal, RequestBatch, Revocation,
    Transaction, View, Vote,
    accounting_nodes::VoteRefusal,
    chain::{End, Pending},
    change::{ChangeRefusal, MAX_OWN_CHANGES},
    evidence::EvidenceRefusal,
    membership::{RegistrationRefusal, check_registration},
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
    /// The link does not lead to the last accepted one.
    #[error("link is not of this chain")]
    ForeignLink,
}

/// Why a transaction makes its block invalid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TransactionRefusal {
    #[error("registration: {0}")]
    Registration(#[from] RegistrationRefusal),
    #[error("gateway {0} is no provider")]
    UnknownGateway(ProviderId),
    #[error("signature of gateway {gateway}: {reason}")]
    Signature { gateway: ProviderId, reason: SignatureError },
    #[error("batch of {found} items, at most {limit} are allowed")]
    TooMany { found: usize, limit: u32 },
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
}

impl<'a> Draft<'a> {
    pub(crate) fn new(view: &View<'a>, time: LedgerTime) -> Self {
        let head = view.head();
        let height = head.height + 1;
        let delta = Delta {
            parent: head.id,
            head: Head { height, id: Digest::ZERO, time },
            registered: Vec::new(),
            new: Registry::from(view.meters()),
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
            },
            position: 0,
        }
    }

    /// Ends the block, and the round if it is its last: who comes after it.
    pub(crate) fn finish(self) -> Result<(Outcome, HandedOver), Refusal> {
        let Self { view, mut outcome, .. } = self;
        let delta = &mut outcome.delta;
        let members = (delta.members != *view.members()).then(|| delta.members.digest());
        let mut handed_over = HandedOver { next_committee: None, members, state: None };
        if delta.ends_round {
            let rounds = &view.genesis().charter().rounds;
            let next = delta.round.next(&delta.members, rounds, Digest::ZERO);
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
    /// trace.
    pub(crate) fn execute(
        &mut self,
        transaction: &Transaction,
        digest: &Digest,
    ) -> Result<usize, Refusal> {
        let result = match transaction {
            Transaction::Registration(registration) => self.register(registration),
            Transaction::Change(change) => self.change(change),
            Transaction::Vote(vote) => self.vote(vote),
            Transaction::Evidence(evidence) => self.record(evidence),
            Transaction::Revocation(revocation) => self.revoke(revocation),
            Transaction::Requests(batch) => self
                .check_batch(batch.submitter, &batch.signature, digest, batch.rows.len())
                .map(|()| self.request_batch(batch)),
            Transaction::Openings(batch) => self
                .check_batch(batch.submitter, &batch.signature, digest, batch.rows.len())
                .map(|()| self.opening_batch(batch)),
        };
        let position = self.position;
        self.position += 1;
        result.map_err(|reason| Refusal::Transaction { position, reason })
    }

    /// Takes back the last transaction, which contributed nothing.
    pub(crate) fn forget(&mut self) {
        self.position -= 1;
        let position = self.position;
        self.outcome.skipped.retain(|skipped| skipped.place.0 != position);
    }

    fn register(
        &mut self,
        registration: &bkss_scheme::root_message::Registration,
    ) -> Result<usize, TransactionRefusal> {
        let message = &registration.message;
        // The view does not know what this block has registered so far.
        let new = &self.outcome.delta.new;
        if new.newest(message.meter).is_some() {
            return Err(RegistrationRefusal::MeterTaken(message.meter).into());
        }
        if new.has_salt(message.salt) {
            return Err(RegistrationRefusal::SaltTaken.into());
        }
        let members = &self.outcome.delta.members;
        let registered = check_registration(&self.view, members, self.time, registration)?;
        let limit = self.view.genesis().charter().limits.meters;
        if self.outcome.delta.new.next() >= limit {
            return Err(RegistrationRefusal::Full { limit }.into());
        }
        if let Some(row) = self.view.row(message.meter) {
            let begins = message.schedule.begins();
            if let Some(replaced) = self.live(row) {
                replaced.end = Some(End::Replaced(begins));
            }
        }
        let delta = &mut self.outcome.delta;
        let row = delta.new.push(Chain::new(registered.message(), *registered.id()));
        delta.live.insert(row, Live::new(registered.message()));
        delta.registered.push(registered);
        Ok(1)
    }

    fn change(&mut self, change: &Change) -> Result<usize, TransactionRefusal> {
        let genesis = self.view.genesis();
        let (network, agreement) = (genesis.network(), genesis.charter().agreement);
        let delta = &mut self.outcome.delta;
        change.check_rules(&delta.members, agreement, delta.round.number)?;
        change.check_signatures(&delta.members, network)?;
        if let Some(provider) = change.made_by() {
            let made = Arc::make_mut(&mut delta.round).changes.entry(provider).or_default();
            if *made >= MAX_OWN_CHANGES {
                return Err(ChangeRefusal::TooManyInRound(provider).into());
            }
            *made += 1;
        }
        change.apply(Arc::make_mut(&mut delta.members));
        Ok(1)
    }

    fn vote(&mut self, vote: &Vote) -> Result<usize, TransactionRefusal> {
        let genesis = self.view.genesis();
        let (network, seats) = (genesis.network(), genesis.charter().rounds.committee);
        let delta = &mut self.outcome.delta;
        vote.check_rules(&delta.members, &delta.round, seats)?;
        vote.check_signature(&delta.members, network)?;
        let round = Arc::make_mut(&mut delta.round);
        round.votes.insert(vote.voter, vote.picks.clone());
        Ok(1)
    }

    fn record(&mut self, evidence: &Evidence) -> Result<usize, TransactionRefusal> {
        let offence = evidence.offence;
        let delta = &mut self.outcome.delta;
        self.view.check_offence(&offence, &delta.offences)?;
        evidence.check(&delta.members, self.view.genesis().network())?;
        delta.offences.push(offence);
        Ok(1)
    }

    fn revoke(&mut self, revocation: &Revocation) -> Result<usize, TransactionRefusal> {
        let unknown = RevocationRefusal::UnknownChain(revocation.meter);
        // A chain that this block registers has no row in the view: it can be revoked later.
        let row = self.view.row(revocation.meter).ok_or(unknown)?;
        let chain = self.view.chain(row).filter(|chain| chain.id == revocation.chain);
        let chain = chain.ok_or(unknown)?;
        let members = &self.outcome.delta.members;
        revocation.check(members, self.view.genesis().network(), chain)?;
        let time = self.time;
        let live = self.live(row).ok_or(unknown)?;
        if matches!(live.end, Some(End::Revoked(_))) {
            return Err(RevocationRefusal::Ended(revocation.meter).into());
        }
        live.end = Some(End::Revoked(time));
        // While the newest chain waits for its first slot, those before it still have theirs.
        for before in self.view.chains(revocation.meter) {
            let runs = |end: &End| matches!(end, End::Replaced(then) if time < *then);
            if let Some(end) = self.live(before).and_then(|live| live.end.as_mut())
                && runs(end)
            {
                *end = End::Revoked(time);
            }
        }
        Ok(1)
    }

    fn check_batch(
        &self,
        gateway: ProviderId,
        signature: &bkss_scheme::Signature,
        digest: &Digest,
        found: usize,
    ) -> Result<(), TransactionRefusal> {
        let limit = self.view.genesis().charter().limits.batch_items;
        if found > limit as usize {
            return Err(TransactionRefusal::TooMany { found, limit });
        }
        let provider = self.outcome.delta.members.provider(gateway);
        let provider = provider.ok_or(TransactionRefusal::UnknownGateway(gateway))?;
        provider
            .key
            .verify(digest, signature)
            .map_err(|reason| TransactionRefusal::Signature { gateway, reason })
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
        let live = self.live(row).ok_or(SkipReason::UnknownMeter)?;
        if !live.has(&schedule, index) {
            return Err(SkipReason::Ended);
        }
        let same = |pending: &Pending| pending.index == index && pending.submitter == submitter;
        if live.pending.iter().any(same) {
            return Err(SkipReason::SecondRequest);
        }
        // What can no longer be opened makes room.
        let open = |pending: &Pending| {
            time < schedule.closes(pending.index)
                || schedule.accepts_opening(pending.index, time, reveal_s)
        };
        let new = Pending { index, submitter, value: *value };
        let left = live.pending.iter().copied().filter(open);
        live.pending = left.chain([new]).collect();
        let leaf = request_leaf(meter, index, submitter, value);
        Ok(AcceptedRequest { row, meter, index, submitter, value: *value, leaf })
    }

    fn opening_batch(&mut self, batch: &OpeningBatch) -> usize {
        let before = self.outcome.openings.len();
        self.outcome.openings.reserve(batch.rows.len());
        let items = batch.rows.iter().zip(&batch.links).zip(batch.body_hashes());
        for (item, ((row, link), body_hash)) in (0..).zip(items) {
            match self.opening(batch, item, *row, link, body_hash) {
                Ok(accepted) => self.outcome.openings.push(accepted),
                Err(reason) => self.skip(item, reason),
            }
        }
        self.outcome.openings.len() - before
    }

    /// Rule REV. The request is looked for before the chain is walked: the work of a gap can only
    /// be caused by who had a request accepted.
    fn opening(
        &mut self,
        batch: &OpeningBatch,
        item: u32,
        row: Row,
        link: &Link,
        body_hash: &Digest,
    ) -> Result<AcceptedOpening, SkipReason> {
        let chain = self.chain(row).ok_or(SkipReason::UnknownMeter)?;
        let (meter, owner, salt) = (chain.meter, chain.owner, chain.salt);
        let index = chain.schedule.index(batch.slot).ok_or(SkipReason::OutsideChain)?;
        if !chain.schedule.accepts_opening(index, self.time, self.reveal_s) {
            return Err(SkipReason::WrongTime);
        }
        let commitment = request::commitment(&chain.id, index, body_hash);
        let value = request::request_value(&commitment, link);
        let changed = self.outcome.delta.live.entry(row);
        let live = match &changed {
            Entry::Occupied(live) => Some(live.get()),
            Entry::Vacant(_) => self.view.live(row),
        };
        let live = live.ok_or(SkipReason::UnknownMeter)?;
        let same = |pending: &&Pending| pending.index == index && pending.value == value;
        let submitter = live.pending.iter().find(same).ok_or(SkipReason::NoRequest)?.submitter;
        let mut opened = live.open(salt, index, link).ok_or(SkipReason::ForeignLink)?;
        let round = u32::try_from(self.outcome.delta.round.number + 1).unwrap_or(u32::MAX);
        let first = std::mem::replace(&mut opened.active, round) != round;
        changed.insert_entry(opened);
        if first {
            // It weighs in the vote of its owner in the next round.
            let round = Arc::make_mut(&mut self.outcome.delta.round);
            *round.active.entry(owner).or_default() += 1;
        }
        let opening = Opening { meter, index, link: link.clone(), body_hash: *body_hash };
        let (leaf, place) = (opening.leaf(), (self.position, item));
        Ok(AcceptedOpening { row, opening, request: (value, submitter), place, leaf })
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
