//! Accepted messages until they are settled: the gateway's memory of its journal.
//!
//! A body is held per meter, link and request value, so that nobody's message displaces another's.
//! What can no longer become final is dropped when its deadline passes: of all that is held, only
//! what a block or its time concerns is looked at.

use std::collections::{BTreeMap, BTreeSet};

use bkss_ledger::{Transaction, View, state::Live};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId,
    codec::{self, MAX_BODY},
    hash, hash_chain, request,
    root_message::Registered,
    seal::Body,
    slot::Schedule,
    transaction::Release,
};

use super::{outgoing::Outgoing, sections::Sections};
use crate::message::{Message, Reason};

/// Most readings a gateway holds.
pub const MAX_HELD: usize = 1 << 20;
/// Most bytes of bodies a gateway holds.
pub const MAX_HELD_BYTES: usize = 256 << 20;
/// Most readings it holds of one meter: a week of quarter hours, and some.
pub const MAX_PER_METER: usize = 1024;
/// Most request values of one link.
pub const MAX_VALUES: usize = 4;
/// Most links of a gap that are walked to check a release; a longer gap is left to the ledger.
const MAX_WALK: u32 = 4096;

type Key = (MeterId, LinkIndex);

/// What is held of one link of a meter.
#[derive(Debug, Default)]
struct Entry {
    values: Vec<Value>,
    release: Option<Opener>,
    /// Whether the first value has been given to a batch in this life of the node.
    requested: bool,
}

/// A submitted body.
#[derive(Debug)]
struct Value {
    value: Digest,
    body: Box<[u8]>,
    section: u64,
}

/// A released link and the value that it opens.
#[derive(Debug)]
struct Opener {
    link: Link,
    /// `None` until the ledger is read in.
    value: Option<Digest>,
    section: u64,
}

/// Whether a message has to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admitted {
    /// It is new.
    New,
    /// It is held, or final, already.
    Known,
}

/// All that is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    entries: BTreeMap<Key, Entry>,
    deadlines: BTreeSet<(LedgerTime, MeterId, LinkIndex)>,
    /// Registrations and changes by digest.
    transactions: BTreeMap<Digest, (u64, Transaction)>,
    items: usize,
    bytes: usize,
    /// Where in the journal everything is.
    pub(super) sections: Sections,
}

/// A meter's link as the ledger has it.
struct Place<'a> {
    registered: &'a Registered,
    live: Option<&'a Live>,
    row: u32,
    schedule: Schedule,
    time: LedgerTime,
    reveal_s: u32,
    index: LinkIndex,
}

impl<'a> Place<'a> {
    fn find(view: &'a View<'_>, meter: MeterId, index: LinkIndex) -> Result<Self, Reason> {
        let row = view.row(meter).ok_or(Reason::UnknownMeter(meter))?;
        let registered = view.registered(row).ok_or(Reason::UnknownMeter(meter))?;
        let schedule = registered.message().schedule;
        if index.get() > schedule.slots {
            return Err(Reason::OutsideChain { index, slots: schedule.slots });
        }
        let (time, reveal_s) = (view.head().time, view.genesis().charter().terms.reveal_s);
        Ok(Self { registered, live: view.live(row), row, schedule, time, reveal_s, index })
    }

    fn has_closed(&self) -> bool {
        self.schedule.closes(self.index) <= self.time
    }

    fn is_over(&self) -> bool {
        self.has_closed() && !self.schedule.accepts_opening(self.index, self.time, self.reveal_s)
    }

    fn over(&self) -> Result<(), Reason> {
        if self.is_over() { Err(Reason::OpeningsOver { reveal_s: self.reveal_s }) } else { Ok(()) }
    }

    fn pending(&self, value: &Digest) -> bool {
        self.live.is_some_and(|live| {
            live.pending.iter().any(|p| p.index == self.index && p.value == *value)
        })
    }

    fn pending_through(&self, gateway: ProviderId) -> bool {
        self.live.is_some_and(|live| {
            live.pending.iter().any(|p| p.index == self.index && p.submitter == gateway)
        })
    }

    fn too_early(&self) -> Reason {
        let begins = self.schedule.opens(self.index).0;
        Reason::TooEarly { begins, ledger: self.time.0 }
    }

    /// When this link has to be looked at again.
    fn deadline(&self) -> LedgerTime {
        if !self.has_closed() {
            return self.schedule.closes(self.index);
        }
        let start = self.schedule.opens(self.index).seconds();
        LedgerTime::from_seconds(start.saturating_add(self.reveal_s.into()))
    }

    /// Whether the link belongs to the meter's chain, as far as that is cheap to say.
    fn is_of_chain(&self, link: &Link) -> bool {
        let Some(live) = self.live else { return true };
        let (index, salt) = (self.index.get(), self.registered.message().salt);
        if index.abs_diff(live.last_index) > MAX_WALK {
            return true;
        }
        if index > live.last_index {
            hash_chain::walk(salt, index, live.last_index, link) == live.last_link
        } else {
            hash_chain::walk(salt, live.last_index, index, &live.last_link) == *link
        }
    }
}

/// The request value of a body that a link opens.
fn value_of(registered: &Registered, index: LinkIndex, body: &[u8], link: &Link) -> Digest {
    let commitment = request::commitment(registered.id(), index, &hash::plain(body));
    request::request_value(&commitment, link)
}

impl Held {
    /// Readings held.
    pub(super) const fn items(&self) -> usize {
        self.items
    }

    /// Bytes of their bodies.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no room for a body of this length.
    pub(super) const fn is_full(&self, body: usize) -> bool {
        self.items >= MAX_HELD || self.bytes + body > MAX_HELD_BYTES
    }

    /// Takes a submitted reading and has its value requested.
    pub(super) fn submit(
        &mut self,
        view: &View<'_>,
        gateway: ProviderId,
        (meter, index): Key,
        value: Digest,
        body: &[u8],
        outgoing: &mut Outgoing,
    ) -> Result<Admitted, Reason> {
        if body.len() > MAX_BODY || codec::decode::<Body<'_>>("body", body).is_err() {
            return Err(Reason::Body);
        }
        let place = Place::find(view, meter, index)?;
        let entry = self.entries.get(&(meter, index));
        if entry.is_some_and(|entry| entry.values.iter().any(|held| held.value == value)) {
            return Ok(Admitted::Known);
        }
        let on_ledger = place.pending(&value);
        if place.has_closed() && !on_ledger {
            let closed = place.schedule.closes(index).0;
            return Err(Reason::WindowClosed { closed, ledger: place.time.0 });
        }
        place.over()?;
        if place.schedule.slot(index).0 > place.schedule.slot_at(place.time).0 + 1 {
            return Err(place.too_early());
        }
        let values = entry.map_or(0, |entry| entry.values.len());
        let taken = values > 0 || place.pending_through(gateway);
        if values == MAX_VALUES || (taken && !on_ledger) {
            return Err(Reason::SecondRequest);
        }
        let held = self.entries.range(all_of(meter)).count();
        if held >= MAX_PER_METER {
            return Err(Reason::MeterFull { held });
        }
        let request = !place.has_closed() && !taken;
        if request {
            outgoing.request(place.schedule.slot(index), place.row, value);
        }
        let (deadline, section) = (place.deadline(), self.sections.current());
        let entry = self.keep(deadline, (meter, index), value, body.into(), section);
        entry.requested |= request;
        Ok(Admitted::New)
    }

    /// Takes a released link and has the body opened whose value it fits.
    pub(super) fn release(
        &mut self,
        view: &View<'_>,
        release: &Release,
        outgoing: &mut Outgoing,
    ) -> Result<Admitted, Reason> {
        let Release { meter, index, link } = release;
        let place = Place::find(view, *meter, *index)?;
        if place.time < place.schedule.opens(*index) {
            return Err(place.too_early());
        }
        let opened = |live: &Live| live.last_index == index.get() && live.last_link == *link;
        if place.live.is_some_and(opened) {
            return Ok(Admitted::Known);
        }
        place.over()?;
        let entry = self.entries.get_mut(&(*meter, *index)).ok_or(Reason::NoBody)?;
        if entry.release.as_ref().is_some_and(|held| held.link == *link) {
            return Ok(Admitted::Known);
        }
        let fits =
            |held: &&Value| value_of(place.registered, *index, &held.body, link) == held.value;
        let value = entry.values.iter().find(fits).ok_or(Reason::NoBody)?;
        if place.has_closed() && !place.pending(&value.value) {
            return Err(Reason::NoRequest);
        }
        if !place.is_of_chain(link) {
            return Err(Reason::ForeignLink);
        }
        let section = self.sections.current();
        if place.has_closed() {
            outgoing.opening(place.schedule.slot(*index), place.row, link, &value.body);
        }
        let before =
            entry.release.replace(Opener { link: link.clone(), value: Some(value.value), section });
        self.sections.add(section);
        if let Some(before) = before {
            self.sections.remove(before.section);
        }
        Ok(Admitted::New)
    }

    /// Takes a registration or a change, which the ledger's rules allow.
    pub(super) fn transaction(
        &mut self,
        digest: Digest,
        transaction: &Transaction,
        outgoing: &mut Outgoing,
    ) -> Admitted {
        if self.transactions.contains_key(&digest) {
            return Admitted::Known;
        }
        outgoing.transaction(transaction.clone());
        self.hold_transaction(self.sections.current(), digest, transaction.clone());
        Admitted::New
    }

    /// Takes back a message from the journal; what has become of it, [`Self::resume`] finds.
    pub(super) fn restore(
        &mut self,
        section: u64,
        message: Message,
        digest: impl Fn(&Transaction) -> Digest,
    ) {
        match message {
            Message::Submit { meter, index, value, body } => {
                let known = self
                    .entries
                    .get_mut(&(meter, index))
                    .and_then(|entry| entry.values.iter_mut().find(|held| held.value == value));
                match known {
                    Some(held) => {
                        let before = std::mem::replace(&mut held.section, section);
                        self.sections.add(section);
                        self.sections.remove(before);
                    }
                    None => {
                        self.keep(LedgerTime(0), (meter, index), value, body, section);
                    }
                }
            }
            Message::Release(Release { meter, index, link }) => {
                // Its body may have been carried into a later section.
                let entry = self.entries.entry((meter, index)).or_default();
                self.deadlines.insert((LedgerTime(0), meter, index));
                self.sections.add(section);
                if let Some(before) = entry.release.replace(Opener { link, value: None, section }) {
                    self.sections.remove(before.section);
                }
            }
            Message::Transaction(transaction) => {
                let digest = digest(&transaction);
                self.hold_transaction(section, digest, *transaction);
            }
        }
    }

    /// Takes up again what was restored, on the ledger as it is now.
    pub(super) fn resume(&mut self, view: &View<'_>, gateway: ProviderId, outgoing: &mut Outgoing) {
        for (_, transaction) in self.transactions.values() {
            outgoing.transaction(transaction.clone());
        }
        self.advance(view, gateway, outgoing);
    }

    /// Forgets what has been opened.
    pub(super) fn opened(&mut self, opened: impl IntoIterator<Item = Key>) {
        for key in opened {
            self.drop_entry(key);
        }
    }

    /// Looks at what has reached its deadline.
    pub(super) fn advance(
        &mut self,
        view: &View<'_>,
        gateway: ProviderId,
        outgoing: &mut Outgoing,
    ) {
        let time = view.head().time;
        let mut due = std::mem::take(&mut self.deadlines);
        // Behind the last key of this time.
        let later = due.split_off(&(LedgerTime(time.0 + 1), MeterId(0), FIRST));
        self.deadlines = later;
        for (_, meter, index) in due {
            self.look(view, gateway, (meter, index), outgoing);
        }
    }

    /// A registration or change has become final, or never can.
    pub(super) fn drop_transaction(&mut self, digest: &Digest) {
        if let Some((section, _)) = self.transactions.remove(digest) {
            self.sections.remove(section);
            self.items -= 1;
        }
    }

    /// Everything in sections below a bound, to be written again in the current one.
    pub(super) fn carry(&mut self, below: u64) -> Vec<Message> {
        let to = self.sections.current();
        let mut messages = Vec::new();
        let moved = |section: &mut u64, sections: &mut Sections| {
            let old = *section < below;
            if old {
                sections.add(to);
                sections.remove(*section);
                *section = to;
            }
            old
        };
        for (section, transaction) in self.transactions.values_mut() {
            if moved(section, &mut self.sections) {
                messages.push(transaction.clone().into());
            }
        }
        for ((meter, index), entry) in &mut self.entries {
            for held in &mut entry.values {
                if moved(&mut held.section, &mut self.sections) {
                    let (value, body) = (held.value, held.body.clone());
                    messages.push(Message::Submit { meter: *meter, index: *index, value, body });
                }
            }
            if let Some(opener) = &mut entry.release
                && moved(&mut opener.section, &mut self.sections)
            {
                let link = opener.link.clone();
                messages.push(Release { meter: *meter, index: *index, link }.into());
            }
        }
        messages
    }

    /// Decides about a link whose deadline has passed.
    fn look(&mut self, view: &View<'_>, gateway: ProviderId, key: Key, outgoing: &mut Outgoing) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (meter, index) = key;
        let Ok(place) = Place::find(view, meter, index) else {
            // It was known when the message was taken: the ledger is still being read in.
            self.deadlines.insert((LedgerTime(view.head().time.0 + 1), meter, index));
            return;
        };
        if place.is_over() {
            self.drop_entry(key);
            return;
        }
        let slot = place.schedule.slot(index);
        if let Some(opener) = &mut entry.release
            && opener.value.is_none()
        {
            let fits = |held: &&Value| {
                value_of(place.registered, index, &held.body, &opener.link) == held.value
            };
            opener.value = entry.values.iter().find(fits).map(|held| held.value);
        }
        if place.has_closed() {
            let (bytes, items, sections) = (&mut self.bytes, &mut self.items, &mut self.sections);
            entry.values.retain(|held| {
                let keep = place.pending(&held.value);
                if !keep {
                    *bytes -= held.body.len();
                    *items -= 1;
                    sections.remove(held.section);
                }
                keep
            });
            if entry.values.is_empty() {
                self.drop_entry(key);
                return;
            }
            if let Some(opener) = &entry.release
                && let Some(held) =
                    entry.values.iter().find(|held| Some(held.value) == opener.value)
            {
                outgoing.opening(slot, place.row, &opener.link, &held.body);
            }
        } else if let Some(first) = entry.values.first()
            && !std::mem::replace(&mut entry.requested, true)
            && !place.pending_through(gateway)
        {
            outgoing.request(slot, place.row, first.value);
        }
        self.deadlines.insert((place.deadline(), meter, index));
    }

    fn keep(
        &mut self,
        deadline: LedgerTime,
        key: Key,
        value: Digest,
        body: Box<[u8]>,
        section: u64,
    ) -> &mut Entry {
        self.items += 1;
        self.bytes += body.len();
        self.sections.add(section);
        self.deadlines.insert((deadline, key.0, key.1));
        let entry = self.entries.entry(key).or_default();
        entry.values.push(Value { value, body, section });
        entry
    }

    fn hold_transaction(&mut self, section: u64, digest: Digest, transaction: Transaction) {
        self.sections.add(section);
        match self.transactions.insert(digest, (section, transaction)) {
            Some((before, _)) => self.sections.remove(before),
            None => self.items += 1,
        }
    }

    fn drop_entry(&mut self, key: Key) {
        let Some(entry) = self.entries.remove(&key) else { return };
        for held in entry.values {
            self.bytes -= held.body.len();
            self.items -= 1;
            self.sections.remove(held.section);
        }
        if let Some(opener) = entry.release {
            self.sections.remove(opener.section);
        }
    }
}

/// The first link there is.
const FIRST: LinkIndex = match LinkIndex::new(1, 1) {
    Some(first) => first,
    None => unreachable!(),
};
/// The last link there can be.
const LAST: LinkIndex = match LinkIndex::new(hash_chain::MAX_SLOTS, hash_chain::MAX_SLOTS) {
    Some(last) => last,
    None => unreachable!(),
};

fn all_of(meter: MeterId) -> std::ops::RangeInclusive<Key> {
    (meter, FIRST)..=(meter, LAST)
}
