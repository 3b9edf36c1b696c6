//! Accepted messages until they are settled: the gateway's memory of its journal.
//!
//! A body is held per chain, link and request value, so that nobody's message displaces another's.
//! What can no longer become final is dropped when its deadline passes: of all that is held, only
//! what a block or its time concerns is looked at.

use std::collections::{BTreeMap, BTreeSet};

use bkss_ledger::{Transaction, View, transaction_batch::Row};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId,
    codec::{self, MAX_BODY},
    seal::Body,
    transaction::Release,
};

use super::{kept::Kept, outgoing::Outgoing, place::Place, sections::Sections, walks::LongWalk};
use crate::message::{Message, Reason};

/// Most messages a gateway holds.
pub const MAX_HELD: usize = 1 << 20;
/// Most bytes of bodies a gateway holds.
pub const MAX_HELD_BYTES: usize = 256 << 20;
/// Most readings it holds of one meter: a week of quarter hours, and some.
pub const MAX_PER_METER: usize = 1024;
/// Most request values of one link.
pub const MAX_VALUES: usize = 4;
/// Most bodies of one link: a value that is public says nothing about its body, so that others may
/// have left something else under it.
pub const MAX_BODIES: usize = 16;
/// Links that fit no body and are walked between two flushes, so that what others have left under a
/// value can be told from what is its meter's.
const MAX_DOUBTS: u32 = 64;

/// Most links that are looked at together.
const MAX_LOOKED: usize = 4096;
/// Blocks behind the time of the start until the ledger is certainly where it was when a message was
/// taken.
const PATIENCE: u64 = 64;
/// Blocks after which what was restored is looked at again while the ledger is read in.
const STRIDE: u64 = 16;

type Key = (Row, LinkIndex);

/// Where a released link comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// From a meter, or a stranger.
    Sender,
    /// From this gateway's journal, where it is since it was found to be of this chain.
    Journal(Row),
}

impl Source {
    /// The chains that it may be for, newest first.
    fn places<'v>(
        self,
        view: &'v View<'_>,
        meter: MeterId,
        index: LinkIndex,
    ) -> Result<Vec<Place<'v>>, Reason> {
        let places = Place::all(view, meter, index)?;
        let Self::Journal(row) = self else { return Ok(places) };
        // Until the ledger is read in it may be that the chain is not there yet.
        let own: Vec<_> = places.into_iter().filter(|place| place.row == row).collect();
        if own.is_empty() { Err(Reason::UnknownMeter(meter)) } else { Ok(own) }
    }
}

/// What is held of one link of a chain.
#[derive(Debug)]
struct Entry {
    meter: MeterId,
    values: Vec<Value>,
    release: Option<Opener>,
}

/// A submitted body.
#[derive(Debug)]
struct Value {
    value: Digest,
    body: Box<[u8]>,
    section: u64,
    link: Fitting,
}

/// What is known of the link that fits a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fitting {
    /// Nobody has shown it, or it leads a short way.
    Unknown,
    /// It is being walked.
    Walked,
    /// It is of the chain.
    Own,
    /// It is not, so this value can never be opened.
    Foreign,
}

/// A released link and the value that it opens.
#[derive(Debug)]
struct Opener {
    link: Link,
    value: Digest,
    section: u64,
}

/// What has to be done about a message.
#[derive(Debug)]
pub(super) enum Admitted {
    /// It is new, and has to be written, with the chain that it is for.
    New(Option<Row>),
    /// It is held, or final, already.
    Known,
    /// Its link has to be walked first.
    Walk(LongWalk),
    /// Its link is being walked for somebody else.
    Walking,
}

/// All that is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    entries: BTreeMap<Key, Entry>,
    deadlines: BTreeSet<(LedgerTime, Row, LinkIndex)>,
    /// Registrations and changes by digest.
    transactions: BTreeMap<Digest, (u64, Transaction)>,
    /// What was read from the journal and waits for the ledger to be read in.
    restored: Vec<(u64, Kept)>,
    /// Sections below this are being carried forward, and from where on.
    carrying: Option<(u64, Key)>,
    /// Ledger time of the start, by this node's clock: a message of the journal was taken before.
    started: Option<LedgerTime>,
    /// Height at which what still waits then is given up, once the ledger is behind the start.
    patience: Option<u64>,
    /// Height at which what was restored has been looked at last.
    looked: Option<u64>,
    items: usize,
    bytes: usize,
    /// How many links that fit nothing may still be walked.
    doubts: u32,
    /// Where in the journal everything is.
    pub(super) sections: Sections,
}

impl Held {
    /// Messages held.
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
        (meter, index): (MeterId, LinkIndex),
        (value, body): (Digest, &[u8]),
        source: Source,
        outgoing: &mut Outgoing,
    ) -> Result<Admitted, Reason> {
        if body.len() > MAX_BODY || codec::decode::<Body<'_>>("body", body).is_err() {
            return Err(Reason::Body);
        }
        let places = source.places(view, meter, index)?;
        // A new chain may have been registered ahead of its time: the one this is for is the one
        // that can take it.
        let fits = |place: &&Place<'_>| place.pending(&value) || place.check_request().is_ok();
        let place = places.iter().find(fits).unwrap_or(&places[0]);
        let held = self.entries.get(&place.key()).map_or(&[][..], |entry| &entry.values);
        let of_value = |held: &&Value| held.value == value;
        if held.iter().filter(of_value).any(|held| *held.body == *body) {
            return Ok(Admitted::Known);
        }
        let requested = place.pending(&value);
        if requested {
            place.check_opening()?;
        } else {
            place.check_request()?;
        }
        let known = held.iter().any(|held| of_value(&held));
        let taken = !held.is_empty() || place.pending_through(gateway);
        let values = held.iter().map(|held| held.value).collect::<BTreeSet<_>>().len();
        let full = if known { held.len() >= MAX_BODIES } else { values >= MAX_VALUES };
        if full || (taken && !requested && !known) {
            return Err(Reason::SecondRequest);
        }
        if !taken && !requested {
            place.check_room(gateway)?;
        }
        let links = self.entries.range(all_of(place.row)).count();
        if links >= MAX_PER_METER {
            return Err(Reason::MeterFull { held: links });
        }
        if !place.has_closed() && !taken {
            outgoing.request(place.begins(), place.slot(), place.row, value);
        }
        let section = self.sections.current();
        let value = Value { value, body: body.into(), section, link: Fitting::Unknown };
        self.keep(meter, place, value);
        Ok(Admitted::New(Some(place.row)))
    }

    /// Takes a released link and has the body opened whose value it fits.
    pub(super) fn release(
        &mut self,
        view: &View<'_>,
        release: &Release,
        source: Source,
        outgoing: &mut Outgoing,
    ) -> Result<Admitted, Reason> {
        let Release { meter, index, link } = release;
        let places = source.places(view, *meter, *index)?;
        let has = |place: &&Place<'_>| self.entries.contains_key(&place.key());
        let place = places.iter().find(has).unwrap_or(&places[0]);
        if places.iter().any(|place| place.is_opened(link)) {
            return Ok(Admitted::Known);
        }
        place.check_opening()?;
        let key = place.key();
        let entry = self.entries.get_mut(&key).ok_or(Reason::NoBody)?;
        if entry.release.as_ref().is_some_and(|held| held.link == *link) {
            return Ok(Admitted::Known);
        }
        let fits = |held: &&mut Value| place.value_of(&held.body, link) == held.value;
        let Some(value) = entry.values.iter_mut().find(fits) else {
            // Whoever has the link may say what belongs to it: the rest was left by others.
            let walk = place.walk(link);
            if entry.values.len() >= MAX_BODIES && self.doubts > 0 && walk.is_short() {
                self.doubts -= 1;
                if walk.holds() {
                    self.drop_entry(key);
                }
            }
            return Err(Reason::NoBody);
        };
        if place.has_closed() && !place.pending(&value.value) {
            return Err(Reason::NoRequest);
        }
        let walk = place.walk(link);
        if value.link == Fitting::Unknown && source == Source::Sender {
            if !walk.is_short() {
                value.link = Fitting::Walked;
                let value = value.value;
                return Ok(Admitted::Walk(LongWalk { key, value, walk }));
            }
            value.link = if walk.holds() { Fitting::Own } else { Fitting::Foreign };
        }
        match value.link {
            Fitting::Foreign => return Err(Reason::ForeignLink),
            Fitting::Walked => return Ok(Admitted::Walking),
            Fitting::Unknown | Fitting::Own => {}
        }
        if place.has_closed() {
            outgoing.opening(place.slot(), place.row, link, &value.body);
        }
        let section = self.sections.current();
        let opener = Opener { link: link.clone(), value: value.value, section };
        self.sections.add(section);
        if let Some(before) = entry.release.replace(opener) {
            self.sections.remove(before.section);
        }
        Ok(Admitted::New(Some(key.0)))
    }

    /// The link that fits a value has been walked.
    pub(super) fn walked(&mut self, key: Key, value: Digest, holds: bool) {
        let values = self.entries.get_mut(&key).into_iter().flat_map(|entry| &mut entry.values);
        let link = if holds { Fitting::Own } else { Fitting::Foreign };
        values.filter(|held| held.value == value).for_each(|held| held.link = link);
    }

    /// The link that fits a value is not walked now.
    pub(super) fn not_walked(&mut self, key: Key, value: Digest) {
        let values = self.entries.get_mut(&key).into_iter().flat_map(|entry| &mut entry.values);
        values.filter(|held| held.value == value).for_each(|held| held.link = Fitting::Unknown);
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
        Admitted::New(None)
    }

    /// Takes back a message from the journal; [`Self::resume`] finds what has become of it.
    pub(super) fn restore(&mut self, section: u64, kept: Kept) {
        self.sections.add(section);
        self.restored.push((section, kept));
    }

    /// Notes the ledger time of the start, by this node's clock.
    pub(super) const fn start(&mut self, time: LedgerTime) {
        self.started = Some(time);
    }

    /// Takes up again what was restored, on the ledger as it is now. What the ledger does not know
    /// yet waits for the next block.
    pub(super) fn resume(&mut self, view: &View<'_>, gateway: ProviderId, outgoing: &mut Outgoing) {
        let height = view.head().height;
        // A store that was damaged may be read in from far back: until the ledger is as late as the start
        // it may not know yet what it knew when a message was taken.
        let behind = self.started.is_some_and(|started| view.head().time < started);
        if behind && self.looked.is_some_and(|looked| height < looked.saturating_add(STRIDE)) {
            return;
        }
        self.looked = Some(height);
        if behind || self.patience.is_none() {
            self.patience = Some(height.saturating_add(PATIENCE));
        }
        let patient = self.patience.is_some_and(|patience| height <= patience);
        let (submits, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.restored)
            .into_iter()
            .partition(|(_, kept)| matches!(kept.message, Message::Submit { .. }));
        // A body may have been carried behind the link that opens it.
        for (section, kept) in submits.into_iter().chain(others) {
            let source = kept.row.map_or(Source::Sender, Source::Journal);
            let admitted = match &kept.message {
                Message::Submit { meter, index, value, body } => {
                    let (link, reading) = ((*meter, *index), (*value, &**body));
                    self.submit(view, gateway, link, reading, source, outgoing)
                }
                // It was walked before it was written.
                Message::Release(release) => self.release(view, release, source, outgoing),
                Message::Transaction(transaction) => {
                    let digest = transaction.digest(view.genesis().network());
                    Ok(self.transaction(digest, transaction, outgoing))
                }
            };
            match admitted {
                // It stands in the section it was written to.
                Ok(Admitted::New(row)) => self.stands_in(section, row, &kept.message, view),
                Err(reason) if patient && self.may_wait(reason) => {
                    self.restored.push((section, kept));
                }
                Ok(_) => self.sections.remove(section),
                Err(reason) => {
                    self.sections.remove(section);
                    tracing::debug!(%reason, "message of the journal is settled");
                }
            }
        }
    }

    /// Whether the ledger, once it is where it was before a crash, may say otherwise.
    const fn may_wait(&self, reason: Reason) -> bool {
        match reason {
            Reason::UnknownMeter(_) | Reason::OutsideChain { .. } | Reason::TooEarly { .. } => true,
            Reason::NoBody => !self.restored.is_empty(),
            _ => false,
        }
    }

    /// Forgets what has been opened.
    pub(super) fn opened(&mut self, opened: impl IntoIterator<Item = Key>) {
        for key in opened {
            self.drop_entry(key);
        }
    }

    /// Looks at what has reached its deadline, some at a time: a window closes for many meters at
    /// once, and the ledger must not wait for all of them.
    pub(super) fn advance(
        &mut self,
        view: &View<'_>,
        gateway: ProviderId,
        outgoing: &mut Outgoing,
    ) {
        self.doubts = MAX_DOUBTS;
        if !self.restored.is_empty() {
            self.resume(view, gateway, outgoing);
        }
        let time = view.head().time;
        for _ in 0..MAX_LOOKED {
            let Some((deadline, row, index)) = self.deadlines.first().copied() else { return };
            if deadline > time {
                return;
            }
            self.deadlines.pop_first();
            self.look(view, (row, index), outgoing);
        }
    }

    /// A registration or change has become final, or never can.
    pub(super) fn drop_transaction(&mut self, digest: &Digest) {
        if let Some((section, _)) = self.transactions.remove(digest) {
            self.sections.remove(section);
            self.items -= 1;
        }
    }

    /// Messages of old sections, some at a time, to be written again in the current one: what is
    /// left of many sections fits into few.
    pub(super) fn carry(&mut self) -> Vec<Kept> {
        let to = self.sections.current();
        let mut messages = Vec::new();
        let (below, from) = match self.carrying.take() {
            Some(carrying) => carrying,
            None => match self.sections.crowded() {
                Some(below) => (below, (0, FIRST)),
                None => return messages,
            },
        };
        let moved = |section: &mut u64, sections: &mut Sections| {
            let old = *section < below;
            if old {
                sections.add(to);
                sections.remove(*section);
                *section = to;
            }
            old
        };
        if from == (0, FIRST) {
            for (section, transaction) in self.transactions.values_mut() {
                if moved(section, &mut self.sections) {
                    messages.push(Kept { row: None, message: transaction.clone().into() });
                }
            }
        }
        for (looked, (key, entry)) in self.entries.range_mut(from..).enumerate() {
            if looked == MAX_LOOKED {
                self.carrying = Some((below, *key));
                break;
            }
            let (meter, (row, index)) = (entry.meter, *key);
            let row = Some(row);
            for held in &mut entry.values {
                if moved(&mut held.section, &mut self.sections) {
                    let (value, body) = (held.value, held.body.clone());
                    let message = Message::Submit { meter, index, value, body };
                    messages.push(Kept { row, message });
                }
            }
            if let Some(opener) = &mut entry.release
                && moved(&mut opener.section, &mut self.sections)
            {
                let release = Release { meter, index, link: opener.link.clone() };
                messages.push(Kept { row, message: release.into() });
            }
        }
        messages
    }

    /// Decides about a link whose deadline has passed.
    fn look(&mut self, view: &View<'_>, key: Key, outgoing: &mut Outgoing) {
        let Some(place) = Place::of_row(view, key.0, key.1) else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if place.is_over() {
            self.drop_entry(key);
            return;
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
            // Others may have left something else under the same value.
            let fits = |opener: &Opener, held: &Value| {
                held.value == opener.value && place.value_of(&held.body, &opener.link) == held.value
            };
            if let Some(opener) = &entry.release
                && let Some(held) = entry.values.iter().find(|held| fits(opener, held))
            {
                outgoing.opening(place.slot(), place.row, &opener.link, &held.body);
            }
        }
        self.deadlines.insert((place.deadline(), key.0, key.1));
    }

    /// Counts a restored message in the section of the journal where it is.
    fn stands_in(&mut self, section: u64, row: Option<Row>, message: &Message, view: &View<'_>) {
        // It was just taken into the current one; the journal's own count is there already.
        self.sections.remove(self.sections.current());
        let (index, row) = match message {
            Message::Submit { index, .. } | Message::Release(Release { index, .. }) => {
                (*index, row)
            }
            Message::Transaction(_) => (FIRST, None),
        };
        let entry = row.and_then(|row| self.entries.get_mut(&(row, index)));
        match message {
            Message::Submit { value, body, .. } => {
                let values = entry.into_iter().flat_map(|entry| &mut entry.values);
                let same = |held: &&mut Value| held.value == *value && held.body == *body;
                values.filter(same).for_each(|held| held.section = section);
            }
            Message::Release(Release { link, .. }) => {
                let opener = entry.and_then(|entry| entry.release.as_mut());
                if let Some(opener) = opener.filter(|opener| opener.link == *link) {
                    opener.section = section;
                }
            }
            Message::Transaction(transaction) => {
                let digest = transaction.digest(view.genesis().network());
                if let Some((place, _)) = self.transactions.get_mut(&digest) {
                    *place = section;
                }
            }
        }
    }

    fn keep(&mut self, meter: MeterId, place: &Place<'_>, value: Value) {
        self.items += 1;
        self.bytes += value.body.len();
        self.sections.add(value.section);
        self.deadlines.insert((place.deadline(), place.key().0, place.key().1));
        let empty = || Entry { meter, values: Vec::new(), release: None };
        self.entries.entry(place.key()).or_insert_with(empty).values.push(value);
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
const FIRST: LinkIndex = LinkIndex::new(1, 1).expect("1 is a link");

fn all_of(row: Row) -> std::ops::Range<Key> {
    (row, FIRST)..(row.saturating_add(1), FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        blocks::block,
        fixture::{Consortium, at},
    };

    /// A release is written before the submit that it opens has been carried behind it.
    #[test]
    fn what_is_left_of_many_sections_is_carried_forward_and_found_again() {
        let mut consortium = Consortium::new(1);
        let meters: Vec<_> = (0..3).map(|number| consortium.meter(number)).collect();
        let mut state = consortium.state();
        let registrations = meters.iter().map(|meter| meter.registration.clone());
        block(&mut state, at(0, 1), registrations.map(Transaction::Registration));
        let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 26)).collect();
        let gateway = ProviderId(0);
        let (mut held, mut outgoing) = (Held::default(), Outgoing::default());
        for (meter, signed) in meters.iter().zip(&signed) {
            let key = (meter.registration.message.meter, signed.index);
            let reading = (signed.value, &*signed.body);
            let admitted =
                held.submit(&state.view(), gateway, key, reading, Source::Sender, &mut outgoing);
            assert!(matches!(admitted, Ok(Admitted::New(Some(_)))));
        }
        assert!(held.carry().is_empty(), "one section is not too many");
        for _ in 0..=super::super::sections::MAX_SECTIONS {
            held.sections.wrote(super::super::sections::SECTION_BYTES);
            let current = held.sections.current();
            held.sections.add(current); // something else that is not settled
        }
        let carried = held.carry();
        assert_eq!(carried.len(), 3);
        assert!(held.carry().is_empty(), "and only once");
        assert_eq!(held.sections.prunable(), Some(1), "nothing is left in the first section");

        let requests = signed.iter().zip(0..).map(|(signed, row)| (row, signed.value));
        let requests = consortium.requests(0, 1, &requests.collect::<Vec<_>>());
        block(&mut state, at(1, 1), [requests]);
        block(&mut state, at(1, 300), []);
        let release = Release {
            meter: meters[1].registration.message.meter,
            index: signed[1].index,
            link: signed[1].link.clone(),
        };
        let (mut held, mut outgoing) = (Held::default(), Outgoing::default());
        held.restore(40, Kept { row: Some(1), message: release.into() });
        carried.into_iter().for_each(|kept| held.restore(70, kept));
        held.resume(&state.view(), gateway, &mut outgoing);
        assert_eq!((held.items(), held.sections.count()), (3, 2));
        let signer = super::super::outgoing::Signer {
            provider: gateway,
            key: consortium.keys[0].clone(),
            network: consortium.genesis.network(),
            limit: 16,
            bytes: 1 << 20,
        };
        let sent = outgoing.flush(&signer, state.head().time);
        let [Transaction::Openings(batch)] = &sent[..] else { unreachable!("{sent:?}") };
        assert_eq!((&batch.rows[..], &batch.links[..]), (&[1][..], &[signed[1].link.clone()][..]));
    }
}
