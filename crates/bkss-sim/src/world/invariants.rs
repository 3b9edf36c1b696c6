//! What must never happen in a world, whatever goes wrong.
//!
//! Each invariant sees what providers, meters and the ledger show, and says at once when it does
//! not hold. They know nothing of faults but who is Byzantine.

use std::collections::{BTreeMap, BTreeSet};

use bkss_ledger::{Head, Members, evidence::Offence};
use bkss_scheme::{Digest, LedgerTime, LinkIndex, MeterId, ProviderId, Slot};

/// An invariant that does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Violation {
    #[error("one-chain: provider {provider} has {found} at height {height}, others {expected}")]
    Fork { provider: usize, height: u64, expected: Digest, found: Digest },
    #[error("in-order: provider {provider} shows block {found}, at most {expected} is next")]
    Order { provider: usize, expected: u64, found: u64 },
    #[error("later-time: block {height} is of {found} ms, the one before of {before} ms")]
    Time { height: u64, before: LedgerTime, found: LedgerTime },
    #[error("same-state: provider {provider} at {height} has {found}, others {expected}")]
    State { provider: usize, height: u64, expected: Digest, found: Digest },
    #[error("one-opening: meter {meter} is opened twice in slot {slot}, second in block {height}")]
    SecondOpening { meter: MeterId, slot: Slot, height: u64 },
    #[error(
        "closed-window: meter {meter} shows link {index} at {known} ms, its window closes at {closes} ms"
    )]
    EarlyLink { meter: MeterId, index: LinkIndex, closes: LedgerTime, known: LedgerTime },
    #[error(
        "closed-window: a request of meter {meter} with link {index} entered block {height}, the link was public at {public}"
    )]
    LateRequest { meter: MeterId, index: LinkIndex, height: u64, public: u64 },
    #[error("one-value: meter {meter} signs twice with link {index}")]
    SecondValue { meter: MeterId, index: LinkIndex },
    #[error(
        "kept: {what} of meter {meter} for link {index} was accepted by provider {by} and is lost"
    )]
    Lost { what: &'static str, meter: MeterId, index: LinkIndex, by: usize },
    #[error("approved-members: provider {0} is a member, no quorum has approved it")]
    Member(ProviderId),
    #[error("true-offences: honest provider {} is on record for view {} of round {}", .0.provider, .0.view, .0.epoch)]
    FalseOffence(Offence),
    #[error("no-quarrel: honest provider {by} has blocked {whom}, who is honest")]
    Quarrel { by: usize, whom: usize },
    #[error("clean-archive: archive of provider {provider}: {finding}")]
    Archive { provider: usize, finding: String },
    #[error("every-receipt: meter {meter} has no receipt for link {index}, which is opened")]
    NoReceipt { meter: MeterId, index: LinkIndex },
    #[error("valid-receipts: receipt of meter {meter} for link {index}: {finding}")]
    Receipt { meter: MeterId, index: LinkIndex, finding: String },
    #[error("no-forgery: {0} takes a certificate of less than a quorum")]
    Forgery(&'static str),
    #[error("progress: {0}")]
    Stuck(String),
}

impl Violation {
    /// The invariant's name.
    pub fn invariant(&self) -> String {
        self.to_string().split(':').next().unwrap_or_default().to_owned()
    }
}

/// What the first provider shows at a height, all others show.
#[derive(Debug, Default)]
struct Agreed(BTreeMap<u64, Digest>);

impl Agreed {
    /// What is expected, if another digest is found.
    fn see(&mut self, height: u64, found: Digest) -> Result<(), Digest> {
        let expected = *self.0.entry(height).or_insert(found);
        if expected == found { Ok(()) } else { Err(expected) }
    }
}

/// No two honest providers have different blocks at one height.
#[derive(Debug, Default)]
pub(super) struct OneChain(Agreed);

impl OneChain {
    pub(super) fn see(
        &mut self,
        provider: usize,
        height: u64,
        found: Digest,
    ) -> Result<(), Violation> {
        let seen = self.0.see(height, found);
        seen.map_err(|expected| Violation::Fork { provider, height, expected, found })
    }
}

/// A provider applies each block once, in order; after a restart it begins no later than where it
/// was.
#[derive(Debug, Default)]
pub(super) struct InOrder(BTreeMap<usize, Place>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    newest: u64,
    /// What it shows next; `None` right after a start.
    next: Option<u64>,
}

impl InOrder {
    pub(super) fn started(&mut self, provider: usize) {
        self.0.entry(provider).or_default().next = None;
    }

    pub(super) fn see(&mut self, provider: usize, found: u64) -> Result<(), Violation> {
        let place = self.0.entry(provider).or_default();
        let expected = place.next.unwrap_or(place.newest + 1);
        let holds = if place.next.is_some() { found == expected } else { found <= expected };
        if !holds {
            return Err(Violation::Order { provider, expected, found });
        }
        place.next = Some(found + 1);
        place.newest = place.newest.max(found);
        Ok(())
    }
}

/// Honest providers have the same state at the same height.
#[derive(Debug, Default)]
pub(super) struct SameState(Agreed);

impl SameState {
    pub(super) fn see(
        &mut self,
        provider: usize,
        height: u64,
        found: Digest,
    ) -> Result<(), Violation> {
        let seen = self.0.see(height, found);
        seen.map_err(|expected| Violation::State { provider, height, expected, found })
    }
}

/// A meter has one opening per slot, whatever chains it has.
#[derive(Debug, Default)]
pub(super) struct OneOpening(BTreeSet<(MeterId, Slot)>);

impl OneOpening {
    pub(super) fn see(&mut self, meter: MeterId, slot: Slot, height: u64) -> Result<(), Violation> {
        if self.0.insert((meter, slot)) {
            return Ok(());
        }
        Err(Violation::SecondOpening { meter, slot, height })
    }
}

/// No link is public while a request with it can still be accepted, and none is accepted after.
#[derive(Debug, Default)]
pub(super) struct ClosedWindow {
    /// The newest final height when a link left its meter.
    public: BTreeMap<(MeterId, LinkIndex), u64>,
}

impl ClosedWindow {
    /// A meter shows a link; `newest` is the newest block that is final anywhere.
    pub(super) fn shown(
        &mut self,
        (meter, index): (MeterId, LinkIndex),
        closes: LedgerTime,
        newest: Head,
    ) -> Result<(), Violation> {
        self.public.entry((meter, index)).or_insert(newest.height);
        if closes <= newest.time {
            return Ok(());
        }
        Err(Violation::EarlyLink { meter, index, closes, known: newest.time })
    }

    /// A request is accepted in a block.
    pub(super) fn requested(
        &self,
        (meter, index): (MeterId, LinkIndex),
        height: u64,
    ) -> Result<(), Violation> {
        match self.public.get(&(meter, index)) {
            Some(public) if *public < height => {
                Err(Violation::LateRequest { meter, index, height, public: *public })
            }
            _ => Ok(()),
        }
    }
}

/// A meter signs one value per link, also after it has lost its power.
#[derive(Debug, Default)]
pub(super) struct OneValue(BTreeMap<(MeterId, LinkIndex), Digest>);

impl OneValue {
    pub(super) fn see(
        &mut self,
        meter: MeterId,
        index: LinkIndex,
        value: Digest,
    ) -> Result<(), Violation> {
        if *self.0.entry((meter, index)).or_insert(value) == value {
            return Ok(());
        }
        Err(Violation::SecondValue { meter, index })
    }
}

/// What an honest gateway has answered "accepted" gets onto the ledger: a release whose request is
/// there always, a request if it came early enough while all was well.
#[derive(Debug, Default)]
pub(super) struct Kept {
    owed: BTreeMap<(MeterId, LinkIndex, &'static str), usize>,
}

impl Kept {
    /// The name of a request that must be accepted.
    pub(super) const REQUEST: &'static str = "request";
    /// The name of a body whose request is there already.
    pub(super) const BODY: &'static str = "body";
    /// The name of a release that must be opened.
    pub(super) const RELEASE: &'static str = "release";

    pub(super) fn accepted(
        &mut self,
        what: &'static str,
        (meter, index): (MeterId, LinkIndex),
        by: usize,
    ) {
        self.owed.entry((meter, index, what)).or_insert(by);
    }

    /// At the end; `done` says what is on the ledger.
    pub(super) fn check(
        &self,
        done: impl Fn(&'static str, MeterId, LinkIndex) -> bool,
    ) -> Result<(), Violation> {
        let lost = self.owed.iter().find(|((meter, index, what), _)| !done(what, *meter, *index));
        match lost {
            None => Ok(()),
            Some(((meter, index, what), by)) => {
                Err(Violation::Lost { what, meter: *meter, index: *index, by: *by })
            }
        }
    }
}

/// A block is of a later time than the one before.
pub(super) fn later_time(before: Head, height: u64, found: LedgerTime) -> Result<(), Violation> {
    if before.time < found {
        return Ok(());
    }
    Err(Violation::Time { height, before: before.time, found })
}

/// Every opening has its receipt: its body was there.
pub(super) fn every_receipt(
    opened: &BTreeSet<(MeterId, LinkIndex)>,
    receipts: &BTreeSet<(MeterId, LinkIndex)>,
) -> Result<(), Violation> {
    let missing = opened.difference(receipts).next();
    missing
        .map_or(Ok(()), |(meter, index)| Err(Violation::NoReceipt { meter: *meter, index: *index }))
}

/// Only founders are members: nobody else was approved by a quorum.
pub(super) fn approved_members(members: &Members, founders: usize) -> Result<(), Violation> {
    let stranger = members.present().find(|member| usize::from(member.id.0) >= founders);
    stranger.map_or(Ok(()), |member| Err(Violation::Member(member.id)))
}

/// Only Byzantine providers are on record for having voted twice.
pub(super) fn true_offences<'a>(
    mut offences: impl Iterator<Item = &'a Offence>,
    byzantine: impl Fn(usize) -> bool,
) -> Result<(), Violation> {
    let false_one = offences.find(|offence| !byzantine(offence.provider.0.into()));
    false_one.map_or(Ok(()), |offence| Err(Violation::FalseOffence(*offence)))
}

/// No honest provider has blocked another.
pub(super) fn no_quarrel(
    blocked: &[(usize, usize)],
    byzantine: impl Fn(usize) -> bool,
) -> Result<(), Violation> {
    let honest = |pair: &&(usize, usize)| !byzantine(pair.0) && !byzantine(pair.1);
    let quarrel = blocked.iter().find(honest);
    quarrel.map_or(Ok(()), |(by, whom)| Err(Violation::Quarrel { by: *by, whom: *whom }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METER: MeterId = MeterId(3);

    fn link(index: u32) -> LinkIndex {
        LinkIndex::new(index, 99).unwrap()
    }

    const fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn head(height: u64, time: u64) -> Head {
        Head { height, id: digest(0), time: LedgerTime(time) }
    }

    #[test]
    fn a_fork_is_seen() {
        let mut chain = OneChain::default();
        chain.see(0, 1, digest(1)).unwrap();
        chain.see(1, 1, digest(1)).unwrap();
        chain.see(1, 2, digest(2)).unwrap();
        let fork = chain.see(2, 1, digest(9)).unwrap_err();
        assert_eq!(fork.invariant(), "one-chain");
    }

    #[test]
    fn a_block_that_is_skipped_or_applied_again_is_seen() {
        for (shown, holds) in
            [(vec![1, 2, 3], true), (vec![1, 3], false), (vec![1, 2, 2], false), (vec![2], false)]
        {
            let mut order = InOrder::default();
            order.started(0);
            let seen = shown.iter().try_for_each(|height| order.see(0, *height));
            assert_eq!(seen.is_ok(), holds, "{shown:?}");
        }
        let mut order = InOrder::default();
        for (first, holds) in [(1, true), (2, true), (3, true), (5, false)] {
            order.started(0);
            assert_eq!(order.see(0, first).is_ok(), holds, "restarted at {first}");
        }
    }

    #[test]
    fn states_that_differ_at_one_height_are_seen() {
        let mut states = SameState::default();
        states.see(0, 5, digest(1)).unwrap();
        states.see(1, 6, digest(2)).unwrap();
        assert_eq!(states.see(1, 5, digest(3)).unwrap_err().invariant(), "same-state");
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
    fn a_link_before_its_time_and_a_request_after_it_are_seen() {
        let mut windows = ClosedWindow::default();
        let early = windows.shown((METER, link(1)), LedgerTime(100), head(5, 99));
        assert!(matches!(early, Err(Violation::EarlyLink { .. })), "{early:?}");
        windows.shown((METER, link(2)), LedgerTime(100), head(6, 100)).unwrap();
        windows.requested((METER, link(2)), 6).unwrap();
        windows.requested((METER, link(3)), 7).unwrap();
        let late = windows.requested((METER, link(2)), 7);
        assert!(matches!(late, Err(Violation::LateRequest { .. })), "{late:?}");
    }

    #[test]
    fn a_second_value_for_a_link_is_seen() {
        let mut values = OneValue::default();
        values.see(METER, link(1), digest(1)).unwrap();
        values.see(METER, link(1), digest(1)).unwrap();
        values.see(METER, link(2), digest(2)).unwrap();
        assert_eq!(values.see(METER, link(1), digest(3)).unwrap_err().invariant(), "one-value");
    }

    #[test]
    fn what_was_accepted_and_is_not_there_is_seen() {
        let mut kept = Kept::default();
        kept.accepted(Kept::REQUEST, (METER, link(1)), 0);
        kept.accepted(Kept::RELEASE, (METER, link(1)), 1);
        kept.check(|_, _, _| true).unwrap();
        let lost = kept.check(|what, _, _| what == Kept::REQUEST).unwrap_err();
        assert_eq!(lost.invariant(), "kept");
        assert!(lost.to_string().contains("provider 1"), "{lost}");
    }

    #[test]
    fn a_time_that_does_not_pass_and_a_receipt_that_is_missing_are_seen() {
        later_time(head(5, 100), 6, LedgerTime(101)).unwrap();
        let same = later_time(head(5, 100), 6, LedgerTime(100)).unwrap_err();
        assert_eq!(same.invariant(), "later-time");
        let (all, one) = ([(METER, link(1)), (METER, link(2))].into(), [(METER, link(1))].into());
        every_receipt(&one, &all).unwrap();
        let missing = Violation::NoReceipt { meter: METER, index: link(2) };
        assert_eq!(every_receipt(&all, &one), Err(missing));
    }

    #[test]
    fn a_member_too_many_is_seen() {
        let scene = crate::scene::Scene::new(5, 4).unwrap();
        let members = scene.state.members();
        approved_members(members, 4).unwrap();
        assert_eq!(approved_members(members, 3), Err(Violation::Member(ProviderId(3))));
    }

    #[test]
    fn offences_and_quarrels_of_honest_providers_are_seen() {
        let offence = Offence { provider: ProviderId(2), epoch: 0, view: 9 };
        true_offences([offence].iter(), |place| place == 2).unwrap();
        assert_eq!(
            true_offences([offence].iter(), |place| place == 1),
            Err(Violation::FalseOffence(offence))
        );
        no_quarrel(&[(0, 2), (2, 1)], |place| place == 2).unwrap();
        assert!(no_quarrel(&[(0, 2), (0, 1)], |place| place == 2).is_err());
    }
}
