//! A law of pools: whatever one takes, an honest leader can propose and honest validators vote for,
//! and what the honest have put into it is on the ledger soon.

use std::collections::{BTreeMap, BTreeSet};

use bkss_ledger::{
    OpeningBatch, Pool, RequestBatch, State, Transaction, Vote, pool::PoolError,
    transaction_batch::Row,
};
use bkss_scheme::{Digest, LedgerTime, Link, ProviderId, Signature, hash, request};
use proptest::prelude::*;

use crate::{
    blocks::turn,
    consortium::{Consortium, FIRST, Meter, SHORT, Signed, WINDOW_S, at, slots_from},
};

/// The gateway and owner that is hostile.
const HOSTILE: usize = 3;
/// Meters that all gateways serve.
const METERS: Row = 6;
/// Items of a batch.
const MOST: u32 = 8;
/// Blocks in which what the honest have put into a pool gets onto the ledger.
const SOON: usize = 3;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// An honest gateway requests the slot for these meters, a bit each.
    Requests(usize, u8),
    /// An honest gateway opens what it has requested, as far as its windows have closed.
    Openings(usize),
    /// An honest provider votes.
    Vote(u16),
    /// An honest owner registers one more meter.
    Registration,
    /// The last batch of an honest gateway comes again, with a false signature ...
    Forged,
    /// ... without a body ...
    Bare(u32),
    /// ... or signed by the hostile one.
    Resigned,
    /// The hostile gateway requests what it has made up for these meters.
    Invented(u8),
    /// It opens all that it has made up and requested, a batch each or all of a slot in one.
    Lies { apart: bool },
    /// It requests a slot so many behind or ahead.
    WrongSlot(i8),
    /// It opens links of earlier slots once more, or for other meters.
    Replayed { row: Row },
    /// It requests for a number that nobody has, alone or behind others.
    Unknown { row: Row, alone: bool },
    /// It sends a batch of so many items more than allowed.
    Long(u32),
    /// The hostile owner registers, replaces and revokes a meter, in some order.
    Meter { order: usize },
    /// The hostile provider votes, twice.
    Votes,
    /// A leader has its turn.
    Turn,
    /// The window closes, or the next slot begins.
    Later,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..HOSTILE, any::<u8>()).prop_map(|(gateway, rows)| Event::Requests(gateway, rows)),
        6 => (0..HOSTILE).prop_map(Event::Openings),
        1 => (0..3_u16).prop_map(Event::Vote),
        1 => Just(Event::Registration),
        2 => Just(Event::Forged),
        2 => (0..4_u32).prop_map(Event::Bare),
        2 => Just(Event::Resigned),
        4 => any::<u8>().prop_map(Event::Invented),
        4 => any::<bool>().prop_map(|apart| Event::Lies { apart }),
        1 => (-2..3_i8).prop_map(Event::WrongSlot),
        1 => (0..METERS).prop_map(|row| Event::Replayed { row }),
        1 => (any::<u32>(), any::<bool>()).prop_map(|(row, alone)| Event::Unknown { row, alone }),
        1 => (0..3_u32).prop_map(Event::Long),
        1 => (0..6_usize).prop_map(|order| Event::Meter { order }),
        1 => Just(Event::Votes),
        4 => Just(Event::Turn),
        6 => Just(Event::Later),
    ]
}

/// What the honest have put into the pool.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Honest {
    Request(usize, u32, Row),
    Opening(u32, Row),
    Vote(u16, u64),
    Registration(u32),
}

struct Run {
    consortium: Consortium,
    state: State,
    pool: Pool,
    meters: Vec<Meter>,
    /// The slot, and whether its window has closed.
    slot: u32,
    closed: bool,
    /// Number of the next meter.
    next: u32,
    /// The last batch of an honest gateway.
    last: Option<Transaction>,
    /// What the hostile gateway has made up, by slot and number.
    invented: BTreeMap<(u32, Row), Signed>,
    /// What is to be on the ledger, and what is.
    wanted: BTreeSet<Honest>,
    found: BTreeSet<Honest>,
}

impl Run {
    fn new() -> Self {
        let mut consortium = Consortium::founded(1, 4, |charter| {
            charter.rounds = SHORT;
            charter.limits.batch_items = MOST;
            charter.limits.block_bytes = 65_536;
        });
        let meters: Vec<_> = (0..METERS).map(|number| consortium.meter(number)).collect();
        let (mut state, mut pool) = (consortium.state(), Pool::default());
        for meter in &meters {
            assert_eq!(pool.add(&state.view(), meter.registers()), Ok(true));
        }
        turn(&mut state, &mut pool, at(0, 1));
        assert_eq!(state.chain_count(), METERS);
        Self {
            consortium,
            state,
            pool,
            meters,
            slot: 1,
            closed: false,
            next: 100,
            last: None,
            invented: BTreeMap::new(),
            wanted: BTreeSet::new(),
            found: BTreeSet::new(),
        }
    }

    /// A second after the newest block, in this part of this slot.
    fn time(&self) -> LedgerTime {
        let part = at(self.slot, if self.closed { u64::from(WINDOW_S) } else { 0 });
        part.max(LedgerTime(self.state.head().time.0 + 1000))
    }

    fn add(&mut self, transaction: Transaction) -> Result<bool, PoolError> {
        self.pool.add(&self.state.view(), transaction)
    }

    /// What an honest party adds is taken.
    fn honest(&mut self, transaction: Transaction, wanted: impl IntoIterator<Item = Honest>) {
        if matches!(transaction, Transaction::Requests(_) | Transaction::Openings(_)) {
            self.last = Some(transaction.clone());
        }
        assert_eq!(self.add(transaction), Ok(true), "{:?}", self.last);
        self.wanted.extend(wanted);
    }

    /// What the hostile one adds is taken or not.
    fn hostile(&mut self, transaction: Transaction) {
        let bare = matches!(&transaction, Transaction::Openings(batch) if !batch.is_complete());
        let taken = self.add(transaction);
        assert!(!bare || taken != Ok(true), "nothing without its bodies");
    }

    fn rows(bits: u8) -> impl Iterator<Item = Row> {
        (0..METERS).filter(move |row| bits >> row & 1 == 1)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Requests(gateway, bits) => self.requests(gateway, bits),
            Event::Openings(gateway) => self.openings(gateway),
            Event::Vote(voter) => self.vote(voter),
            Event::Registration => self.registration(),
            Event::Turn => self.turn(),
            Event::Later => {
                self.settle();
                self.slot += u32::from(self.closed);
                self.closed = !self.closed;
            }
            Event::Forged | Event::Bare(_) | Event::Resigned => self.copy(event),
            Event::Invented(bits) => self.invent(bits),
            Event::Lies { apart } => self.lie(apart),
            Event::WrongSlot(by) => {
                let slot = self.slot.saturating_add_signed(by.into()).max(1);
                self.hostile(self.consortium.requests(HOSTILE, slot, &[(0, Digest([9; 32]))]));
            }
            Event::Replayed { row } => {
                let signed = self.meters[0].sign(self.slot.saturating_sub(1).max(1), 5);
                self.hostile(self.consortium.openings(HOSTILE, &[(row, &signed)]));
            }
            Event::Unknown { row, alone } => {
                let junk = Digest([8; 32]);
                let items = [(0, junk), (row.max(1), junk)];
                let items = &items[usize::from(alone)..];
                self.hostile(self.consortium.requests(HOSTILE, self.slot, items));
            }
            Event::Long(more) => {
                let items: Vec<_> = (0..MOST + more).map(|row| (row, Digest([7; 32]))).collect();
                self.hostile(self.consortium.requests(HOSTILE, self.slot, &items));
            }
            Event::Meter { order } => self.meter(order),
            Event::Votes => {
                for pick in 0..2 {
                    self.hostile(self.signed_vote(3, pick));
                }
            }
        }
    }

    fn requests(&mut self, gateway: usize, bits: u8) {
        let slot = self.slot;
        let new = |row: &Row| !self.wanted.contains(&Honest::Request(gateway, slot, *row));
        let rows: Vec<_> = Self::rows(bits).filter(new).collect();
        if rows.is_empty() || self.closed {
            return;
        }
        let value = |row: &Row| (*row, self.meters[*row as usize].sign(slot, 5).value);
        let items: Vec<_> = rows.iter().map(value).collect();
        let batch = self.consortium.requests(gateway, slot, &items);
        self.honest(batch, rows.into_iter().map(|row| Honest::Request(gateway, slot, row)));
    }

    fn openings(&mut self, gateway: usize) {
        let ended = |slot: u32| slot < self.slot || self.closed;
        let mut by_slot: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        for wish in &self.found {
            if let Honest::Request(of, slot, row) = *wish
                && of == gateway
                && ended(slot)
                && !self.wanted.contains(&Honest::Opening(slot, row))
                && !self.found.contains(&Honest::Opening(slot, row))
            {
                by_slot.entry(slot).or_default().push(row);
            }
        }
        for (slot, rows) in by_slot {
            let signed: Vec<_> =
                rows.iter().map(|row| self.meters[*row as usize].sign(slot, 5)).collect();
            let items: Vec<_> = rows.iter().copied().zip(&signed).collect();
            let batch = self.consortium.openings(gateway, &items);
            self.honest(batch, rows.into_iter().map(|row| Honest::Opening(slot, row)));
        }
    }

    fn signed_vote(&self, voter: u16, pick: u16) -> Transaction {
        let (network, round) = (self.consortium.genesis.network(), self.state.round().number);
        let key = &self.consortium.keys[usize::from(voter)];
        Transaction::Vote(Vote::sign(
            network,
            ProviderId(voter),
            key,
            round,
            vec![ProviderId(pick)],
        ))
    }

    fn vote(&mut self, voter: u16) {
        let wish = Honest::Vote(voter, self.state.round().number);
        if !self.wanted.contains(&wish) {
            self.honest(self.signed_vote(voter, 3), [wish]);
        }
    }

    fn fresh(&mut self, owner: u16) -> Meter {
        let (number, first) = (self.next, FIRST.0 + u64::from(self.slot) + 1);
        self.next += 1;
        self.consortium.meter_with(number, |message| {
            (message.owner, message.schedule) = (ProviderId(owner), slots_from(first));
        })
    }

    fn registration(&mut self) {
        let meter = self.fresh(0);
        self.honest(meter.registers(), [Honest::Registration(meter.number())]);
    }

    fn copy(&mut self, event: Event) {
        let (network, key) = (self.consortium.genesis.network(), &self.consortium.keys[HOSTILE]);
        let hostile = ProviderId(3);
        let Some(mut copy) = self.last.clone() else { return };
        match (&mut copy, event) {
            (Transaction::Requests(batch), Event::Forged) => batch.signature = Signature([1; 64]),
            (Transaction::Openings(batch), Event::Forged) => batch.signature = Signature([1; 64]),
            (Transaction::Openings(batch), Event::Bare(position)) => {
                batch.erase(position % u32::try_from(batch.rows.len()).unwrap());
            }
            (Transaction::Requests(batch), Event::Resigned) => {
                let items = batch.rows.iter().copied().zip(batch.values.iter().copied());
                *batch = RequestBatch::sign(network, hostile, key, batch.slot, items);
            }
            (Transaction::Openings(batch), Event::Resigned) => {
                let items = batch.rows.iter().copied().zip(batch.links.iter().cloned());
                let bodies = batch.bodies().clone();
                *batch = OpeningBatch::sign(network, hostile, key, batch.slot, items, bodies);
            }
            _ => return,
        }
        self.hostile(copy);
    }

    fn invent(&mut self, bits: u8) {
        let mut items = Vec::new();
        for row in Self::rows(bits) {
            let meter = &self.meters[row as usize];
            let genuine = meter.sign(self.slot, 5);
            let link = Link::from_bytes([u8::try_from(row).unwrap() + 1; 32]);
            let body_hash = hash::plain(&genuine.body);
            let commitment = request::commitment(&meter.id, genuine.index, &body_hash);
            let value = request::request_value(&commitment, &link);
            items.push((row, value));
            self.invented.insert((self.slot, row), Signed { value, link, ..genuine });
        }
        if !items.is_empty() {
            self.hostile(self.consortium.requests(HOSTILE, self.slot, &items));
        }
    }

    fn lie(&mut self, apart: bool) {
        let slots: BTreeSet<_> = self.invented.keys().map(|(slot, _)| *slot).collect();
        for slot in slots {
            let of_slot = self.invented.iter().filter(|((of, _), _)| *of == slot);
            let items: Vec<_> = of_slot.map(|((_, row), signed)| (*row, signed)).collect();
            let batches: Vec<_> = if apart {
                items.chunks(1).map(|item| self.consortium.openings(HOSTILE, item)).collect()
            } else {
                vec![self.consortium.openings(HOSTILE, &items)]
            };
            batches.into_iter().for_each(|batch| self.hostile(batch));
        }
    }

    fn meter(&mut self, order: usize) {
        let meter = self.fresh(3);
        let first = meter.registration.message.schedule.first.0;
        let next = self.consortium.next_chain(&meter, slots_from(first + 1));
        let chain = bkss_ledger::Chain::new(&meter.registration.message, meter.id);
        let all = [meter.registers(), next.registers(), self.consortium.revocation(&chain)];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        orders[order].into_iter().for_each(|at: usize| self.hostile(all[at].clone()));
    }

    /// A leader's turn: `turn` sees that validators vote for what it builds.
    fn turn(&mut self) {
        let (round, time) = (self.state.round().number, self.time());
        let built = turn(&mut self.state, &mut self.pool, time);
        assert!(built.steps <= self.state.genesis().charter().limits.steps);
        for request in built.verified.requests() {
            let gateway = usize::from(request.submitter.0);
            self.found.insert(Honest::Request(gateway, self.slot, request.row));
        }
        for opened in built.verified.openings() {
            self.found.insert(Honest::Opening(opened.opening.index.get(), opened.row));
        }
        for registered in built.verified.registered() {
            self.found.insert(Honest::Registration(registered.message().meter.0));
        }
        for transaction in built.verified.block().transactions() {
            if let Transaction::Vote(vote) = transaction {
                self.found.insert(Honest::Vote(vote.voter.0, vote.round));
            }
        }
        let hostile = ProviderId(3);
        let liars: BTreeSet<_> = built.invalid.iter().map(|(gateway, _)| *gateway).collect();
        assert!(liars.iter().all(|liar| *liar == hostile), "{liars:?}");
        assert_eq!(built.invalid.len(), liars.len(), "one false batch of a gateway is walked");
        if !liars.is_empty() {
            assert!(self.pool.passed_over(round).any(|gateway| gateway == hostile));
            let of_liar = |candidate: &bkss_ledger::Candidate| match &**candidate.transaction() {
                Transaction::Requests(batch) => batch.submitter == hostile,
                Transaction::Openings(batch) => batch.submitter == hostile,
                _ => false,
            };
            assert!(!self.pool.candidates().iter().any(of_liar));
        }
    }

    /// What the honest want is on the ledger after a few blocks.
    fn settle(&mut self) {
        for _ in 0..SOON {
            if self.wanted.is_subset(&self.found) {
                return;
            }
            self.turn();
        }
        let missing: Vec<_> = self.wanted.difference(&self.found).collect();
        assert!(missing.is_empty(), "after {SOON} blocks {missing:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_a_pool_takes_can_be_proposed_and_the_honest_are_served(
        events in prop::collection::vec(event(), 10..50),
    ) {
        let mut run = Run::new();
        for event in events {
            // The chains end with slot 13.
            if run.slot < 12 {
                run.event(event);
            }
        }
        run.settle();
    }
}
