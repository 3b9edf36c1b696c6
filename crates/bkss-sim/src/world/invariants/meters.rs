//! Meters: each link for one value, in its time, and what was accepted comes true.

use std::collections::{BTreeMap, BTreeSet};

use bkss_ledger::{Head, execute::SkipReason, transaction_batch::Row};
use bkss_scheme::{Digest, LedgerTime, MeterId, Slot};

use super::Violation;
use crate::world::link_of::LinkOf;

/// A meter has one opening per slot, whatever chains it has.
#[derive(Debug, Default)]
pub(in super::super) struct OneOpening(BTreeSet<(MeterId, Slot)>);

impl OneOpening {
    pub(in super::super) fn see(
        &mut self,
        meter: MeterId,
        slot: Slot,
        height: u64,
    ) -> Result<(), Violation> {
        if self.0.insert((meter, slot)) {
            return Ok(());
        }
        Err(Violation::SecondOpening { meter, slot, height })
    }
}

/// A slot of a meter is valid under one of its chains.
#[derive(Debug, Default)]
pub(in super::super) struct OneChainASlot(BTreeMap<(MeterId, Slot), Row>);

impl OneChainASlot {
    /// A request is accepted under a chain.
    pub(in super::super) fn see(
        &mut self,
        meter: MeterId,
        slot: Slot,
        chain: Row,
    ) -> Result<(), Violation> {
        if *self.0.entry((meter, slot)).or_insert(chain) == chain {
            return Ok(());
        }
        Err(Violation::SecondChain { meter, slot })
    }
}

/// No link is public while a request with it can still be accepted, and none is accepted after.
#[derive(Debug, Default)]
pub(in super::super) struct ClosedWindow {
    /// The newest final height when a link left its meter.
    public: BTreeMap<LinkOf, u64>,
}

impl ClosedWindow {
    /// A meter shows a link; `newest` is the newest block that is final anywhere.
    pub(in super::super) fn shown(
        &mut self,
        link: LinkOf,
        closes: LedgerTime,
        newest: Head,
    ) -> Result<(), Violation> {
        self.public.entry(link).or_insert(newest.height);
        if closes <= newest.time {
            return Ok(());
        }
        Err(Violation::EarlyLink { link, closes, known: newest.time })
    }

    /// A request is accepted in a block.
    pub(in super::super) fn requested(&self, link: LinkOf, height: u64) -> Result<(), Violation> {
        match self.public.get(&link) {
            Some(public) if *public < height => {
                Err(Violation::LateRequest { link, height, public: *public })
            }
            _ => Ok(()),
        }
    }
}

/// A meter signs one value per link, also after it has lost its power.
#[derive(Debug, Default)]
pub(in super::super) struct OneValue(BTreeMap<LinkOf, Digest>);

impl OneValue {
    pub(in super::super) fn see(&mut self, link: LinkOf, value: Digest) -> Result<(), Violation> {
        if *self.0.entry(link).or_insert(value) == value {
            return Ok(());
        }
        Err(Violation::SecondValue(link))
    }

    /// What a meter has signed with a link.
    pub(in super::super) fn signed(&self, link: LinkOf) -> Option<&Digest> {
        self.0.get(&link)
    }
}

/// A revoked meter requests nothing more, and gets no further chain.
#[derive(Debug, Default)]
pub(in super::super) struct Ended(BTreeMap<MeterId, u64>);

impl Ended {
    /// A block revokes a meter.
    pub(in super::super) fn revoked(&mut self, meter: MeterId, height: u64) {
        self.0.entry(meter).or_insert(height);
    }

    /// Whether a meter is revoked.
    pub(in super::super) fn is_revoked(&self, meter: MeterId) -> bool {
        self.0.contains_key(&meter)
    }

    /// How many are.
    pub(in super::super) fn count(&self) -> usize {
        self.0.len()
    }

    /// A block accepts something that only a meter in use may have.
    pub(in super::super) fn see(
        &self,
        meter: MeterId,
        height: u64,
        what: &'static str,
    ) -> Result<(), Violation> {
        match self.0.get(&meter) {
            Some(revoked) if *revoked < height => {
                Err(Violation::AfterRevocation { meter, height, what })
            }
            _ => Ok(()),
        }
    }
}

/// A link that a request waits for opens it, or its block is none: nobody walks it again.
///
/// `waits` says whether a request with its value waits, `skipped` why it was passed over.
pub(in super::super) fn walked_once(
    meter: MeterId,
    height: u64,
    waits: bool,
    skipped: Option<SkipReason>,
) -> Result<(), Violation> {
    match skipped {
        // What comes at the wrong time is not looked at.
        None | Some(SkipReason::OverBudget | SkipReason::WrongTime) => Ok(()),
        Some(_) if waits => Err(Violation::ForeignLink { meter, height }),
        Some(_) => Ok(()),
    }
}

/// What an honest gateway has answered "accepted" gets onto the ledger: a release whose request is
/// there always, a request if it came early enough while all was well.
#[derive(Debug, Default)]
pub(in super::super) struct Kept {
    owed: BTreeMap<(LinkOf, &'static str), usize>,
}

impl Kept {
    /// The name of a request that must be accepted.
    pub(in super::super) const REQUEST: &'static str = "request";
    /// The name of a body whose request is there already.
    pub(in super::super) const BODY: &'static str = "body";
    /// The name of a release that must be opened.
    pub(in super::super) const RELEASE: &'static str = "release";

    pub(in super::super) fn accepted(&mut self, what: &'static str, link: LinkOf, by: usize) {
        self.owed.entry((link, what)).or_insert(by);
    }

    /// A gateway that is a member no more, or whose disk was replaced by an older one, owes nothing
    /// of what it had accepted.
    pub(in super::super) fn forgive(&mut self, by: usize) {
        self.owed.retain(|_, gateway| *gateway != by);
    }

    /// At the end; `done` says what is on the ledger.
    pub(in super::super) fn check(
        &self,
        done: impl Fn(&'static str, LinkOf) -> bool,
    ) -> Result<(), Violation> {
        let lost = self.owed.iter().find(|((link, what), _)| !done(what, *link));
        lost.map_or(Ok(()), |((link, what), by)| {
            Err(Violation::Lost { what, link: *link, by: *by })
        })
    }
}

/// Every opening has its receipt: its body was there.
pub(in super::super) fn every_receipt(
    opened: &BTreeSet<LinkOf>,
    receipts: &BTreeSet<LinkOf>,
) -> Result<(), Violation> {
    let missing = opened.difference(receipts).next();
    missing.map_or(Ok(()), |link| Err(Violation::NoReceipt(*link)))
}

#[cfg(test)]
mod tests {
    use bkss_scheme::LinkIndex;

    use super::*;

    const METER: MeterId = MeterId(3);

    fn link(index: u32) -> LinkOf {
        LinkOf { meter: METER, chain: 0, index: LinkIndex::new(index, 99).unwrap() }
    }

    const fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn head(height: u64, time: u64) -> Head {
        Head { height, id: digest(0), time: LedgerTime(time) }
    }

    #[test]
    fn a_second_opening_of_a_slot_is_seen() {
        let mut openings = OneOpening::default();
        openings.see(METER, Slot(7), 1).unwrap();
        openings.see(METER, Slot(8), 1).unwrap();
        openings.see(MeterId(4), Slot(7), 1).unwrap();
        assert_eq!(openings.see(METER, Slot(7), 2).unwrap_err().invariant(), "one-opening");
    }

    #[test]
    fn a_slot_under_two_chains_is_seen() {
        let mut slots = OneChainASlot::default();
        slots.see(METER, Slot(7), 0).unwrap();
        slots.see(METER, Slot(7), 0).unwrap();
        slots.see(METER, Slot(8), 5).unwrap();
        slots.see(MeterId(4), Slot(7), 5).unwrap();
        assert_eq!(slots.see(METER, Slot(8), 0).unwrap_err().invariant(), "one-chain-a-slot");
    }

    #[test]
    fn a_link_before_its_time_and_a_request_after_it_are_seen() {
        let mut windows = ClosedWindow::default();
        let early = windows.shown(link(1), LedgerTime(100), head(5, 99));
        assert!(matches!(early, Err(Violation::EarlyLink { .. })), "{early:?}");
        windows.shown(link(2), LedgerTime(100), head(6, 100)).unwrap();
        windows.requested(link(2), 6).unwrap();
        windows.requested(link(3), 7).unwrap();
        let late = windows.requested(link(2), 7);
        assert!(matches!(late, Err(Violation::LateRequest { .. })), "{late:?}");
        // The same place in the next chain is another link.
        windows.requested(LinkOf { chain: 1, ..link(2) }, 7).unwrap();
    }

    #[test]
    fn a_second_value_for_a_link_is_seen() {
        let mut values = OneValue::default();
        values.see(link(1), digest(1)).unwrap();
        values.see(link(1), digest(1)).unwrap();
        values.see(link(2), digest(2)).unwrap();
        assert_eq!(values.see(link(1), digest(3)).unwrap_err().invariant(), "one-value");
    }

    #[test]
    fn what_a_revoked_meter_still_gets_is_seen() {
        let mut ended = Ended::default();
        ended.revoked(METER, 5);
        ended.see(METER, 5, "a request").unwrap();
        ended.see(MeterId(4), 6, "a request").unwrap();
        let after = ended.see(METER, 6, "a request").unwrap_err();
        assert_eq!(after.invariant(), "revoked-is-over");
    }

    #[test]
    fn a_link_that_is_not_of_its_chain_is_seen_if_a_request_waits_for_it() {
        for (skipped, waits, holds) in [
            (None, true, true),
            (Some(SkipReason::NoRequest), false, true),
            (Some(SkipReason::NoRequest), true, false),
            (Some(SkipReason::OverBudget), true, true),
            (Some(SkipReason::Ended), true, false),
        ] {
            let seen = walked_once(METER, 7, waits, skipped);
            assert_eq!(seen.is_ok(), holds, "{skipped:?}, a request waits: {waits}");
        }
    }

    #[test]
    fn what_was_accepted_and_is_not_there_is_seen() {
        let mut kept = Kept::default();
        kept.accepted(Kept::REQUEST, link(1), 0);
        kept.accepted(Kept::RELEASE, link(1), 1);
        kept.check(|_, _| true).unwrap();
        let lost = kept.check(|what, _| what == Kept::REQUEST).unwrap_err();
        assert_eq!(lost.invariant(), "kept");
        assert!(lost.to_string().contains("provider 1"), "{lost}");
        kept.forgive(1);
        kept.check(|what, _| what == Kept::REQUEST).unwrap();
    }

    #[test]
    fn a_receipt_that_is_missing_is_seen() {
        let (all, one) = ([link(1), link(2)].into(), [link(1)].into());
        every_receipt(&one, &all).unwrap();
        assert_eq!(every_receipt(&all, &one), Err(Violation::NoReceipt(link(2))));
    }
}
