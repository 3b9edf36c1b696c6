//! A link of a meter's chain as the ledger has it.

use bkss_ledger::{Chain, Live, View, transaction_batch::Row};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, Salt, hash, hash_chain, request,
    slot::Slot,
};

use crate::message::Reason;

/// Most steps that are walked on the spot; for longer gaps see [`super::walks`].
const AT_ONCE: u32 = 1024;

/// A link of a chain, at the time of the newest final block.
pub(super) struct Place<'a> {
    chain: &'a Chain,
    live: &'a Live,
    pub(super) row: Row,
    pub(super) time: LedgerTime,
    reveal_s: u32,
    /// Requests of one gateway that may wait for this chain.
    most: u32,
    index: LinkIndex,
}

impl<'a> Place<'a> {
    /// The link of the chain with this number.
    pub(super) fn of_row(view: &'a View<'_>, row: Row, index: LinkIndex) -> Option<Self> {
        let (chain, live) = (view.chain(row)?, view.live(row)?);
        let charter = view.genesis().charter();
        let (time, reveal_s, most) =
            (view.head().time, charter.terms.reveal_s, charter.limits.pending);
        let place = Self { chain, live, row, time, reveal_s, most, index };
        (index.get() <= chain.schedule.slots).then_some(place)
    }

    /// The chains of a meter that have this link, newest first.
    pub(super) fn all(
        view: &'a View<'_>,
        meter: MeterId,
        index: LinkIndex,
    ) -> Result<Vec<Self>, Reason> {
        let rows = view.chains(meter);
        let newest = rows.first().and_then(|row| view.chain(*row));
        let slots = newest.ok_or(Reason::UnknownMeter(meter))?.schedule.slots;
        let places: Vec<_> =
            rows.into_iter().filter_map(|row| Self::of_row(view, row, index)).collect();
        if places.is_empty() { Err(Reason::OutsideChain { index, slots }) } else { Ok(places) }
    }

    pub(super) const fn slot(&self) -> Slot {
        self.chain.schedule.slot(self.index)
    }

    pub(super) const fn key(&self) -> (Row, LinkIndex) {
        (self.row, self.index)
    }

    pub(super) fn has_closed(&self) -> bool {
        self.chain.schedule.closes(self.index) <= self.time
    }

    /// Whether no opening can be accepted any more.
    pub(super) fn is_over(&self) -> bool {
        self.has_closed()
            && !self.chain.schedule.accepts_opening(self.index, self.time, self.reveal_s)
    }

    /// When the slot begins.
    pub(super) fn begins(&self) -> LedgerTime {
        self.chain.schedule.opens(self.index)
    }

    /// Whether a value is requested and not opened.
    pub(super) fn pending(&self, value: &Digest) -> bool {
        self.live.pending_of(self.index).iter().any(|p| p.value == *value)
    }

    /// Whether a gateway has a request for this link.
    pub(super) fn pending_through(&self, gateway: ProviderId) -> bool {
        self.live.pending_of(self.index).iter().any(|p| p.submitter == gateway)
    }

    /// Whether the ledger has room for one more request of this chain through a gateway.
    pub(super) fn check_room(&self, gateway: ProviderId) -> Result<(), Reason> {
        let least = self.chain.schedule.first_openable(self.time, self.reveal_s);
        let (waiting, most) = (self.live.pending_from(least), self.most as usize);
        let own = || waiting.iter().filter(|p| p.submitter == gateway).count();
        let full = waiting.len() >= most && own() >= most;
        if full { Err(Reason::PendingFull { most: self.most }) } else { Ok(()) }
    }

    /// Whether this very link was the newest to be opened.
    pub(super) fn is_opened(&self, link: &Link) -> bool {
        self.live.last_index == self.index.get() && self.live.last_link == *link
    }

    /// Whether a request may be brought to the ledger now; also shortly before the slot.
    pub(super) fn check_request(&self) -> Result<(), Reason> {
        let ledger = self.time.0;
        if self.has_closed() {
            return Err(Reason::WindowClosed {
                closed: self.chain.schedule.closes(self.index).0,
                ledger,
            });
        }
        if !self.live.has(&self.chain.schedule, self.index) {
            return Err(Reason::Ended);
        }
        if self.slot().0 > self.chain.schedule.slot_at(self.time).0 + 1 {
            return Err(Reason::TooEarly {
                begins: self.chain.schedule.opens(self.index).0,
                ledger,
            });
        }
        Ok(())
    }

    /// Whether a link may be shown already, and still.
    pub(super) fn check_opening(&self) -> Result<(), Reason> {
        if self.is_over() {
            return Err(Reason::OpeningsOver { reveal_s: self.reveal_s });
        }
        let opens = self.chain.schedule.opens(self.index);
        if self.time < opens {
            return Err(Reason::TooEarly { begins: opens.0, ledger: self.time.0 });
        }
        Ok(())
    }

    /// When this link has to be looked at again.
    pub(super) fn deadline(&self) -> LedgerTime {
        if !self.has_closed() {
            return self.chain.schedule.closes(self.index);
        }
        let start = self.chain.schedule.opens(self.index).seconds();
        LedgerTime::from_seconds(start.saturating_add(self.reveal_s.into()))
    }

    /// The request value of a body that a link opens.
    pub(super) fn value_of(&self, body: &[u8], link: &Link) -> Digest {
        let hash = hash::plain(body);
        let commitment = request::commitment(&self.chain.id, self.index, &hash);
        request::request_value(&commitment, link)
    }

    /// What has to be walked to know whether a link belongs to the chain.
    pub(super) fn walk(&self, link: &Link) -> Walk {
        let (index, salt, live) = (self.index.get(), self.chain.salt, self.live);
        let (own, newest) = ((index, link.clone()), (live.last_index, live.last_link.clone()));
        let (upper, lower) = if own.0 > newest.0 { (own, newest) } else { (newest, own) };
        Walk { salt, upper, lower }
    }
}

/// Two links that are of one chain if the upper one leads to the lower one.
#[derive(Debug)]
pub(super) struct Walk {
    salt: Salt,
    upper: (u32, Link),
    lower: (u32, Link),
}

impl Walk {
    /// Whether it is short enough to be walked on the spot.
    pub(super) const fn is_short(&self) -> bool {
        self.upper.0 - self.lower.0 <= AT_ONCE
    }

    /// Walks: at most a whole chain, some tenth of a second.
    pub(super) fn holds(&self) -> bool {
        let (from, link) = &self.upper;
        let (to, expected) = &self.lower;
        hash_chain::walk(self.salt, *from, *to, link) == *expected
    }
}
