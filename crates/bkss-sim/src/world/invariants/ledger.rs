//! Blocks: the same for all, in order, of later times.

use std::collections::BTreeMap;

use bkss_ledger::Head;
use bkss_scheme::{Digest, LedgerTime};

use super::Violation;

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
pub(in super::super) struct OneChain(Agreed);

impl OneChain {
    pub(in super::super) fn see(
        &mut self,
        provider: usize,
        height: u64,
        found: Digest,
    ) -> Result<(), Violation> {
        let seen = self.0.see(height, found);
        seen.map_err(|expected| Violation::Fork { provider, height, expected, found })
    }
}

/// Honest providers have the same state at the same height.
#[derive(Debug, Default)]
pub(in super::super) struct SameState(Agreed);

impl SameState {
    pub(in super::super) fn see(
        &mut self,
        provider: usize,
        height: u64,
        found: Digest,
    ) -> Result<(), Violation> {
        let seen = self.0.see(height, found);
        seen.map_err(|expected| Violation::State { provider, height, expected, found })
    }
}

/// A provider applies each block once, in order; after a restart it begins no later than where it
/// was.
#[derive(Debug, Default)]
pub(in super::super) struct InOrder(BTreeMap<usize, Place>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    newest: u64,
    /// What it shows next; `None` right after a start.
    next: Option<u64>,
}

impl InOrder {
    pub(in super::super) fn started(&mut self, provider: usize) {
        self.0.entry(provider).or_default().next = None;
    }

    pub(in super::super) fn see(&mut self, provider: usize, found: u64) -> Result<(), Violation> {
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

/// A block is of a later time than the one before.
pub(in super::super) fn later_time(
    before: Head,
    height: u64,
    found: LedgerTime,
) -> Result<(), Violation> {
    if before.time < found {
        return Ok(());
    }
    Err(Violation::Time { height, before: before.time, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
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
    fn a_time_that_does_not_pass_is_seen() {
        let head = Head { height: 5, id: digest(0), time: LedgerTime(100) };
        later_time(head, 6, LedgerTime(101)).unwrap();
        let same = later_time(head, 6, LedgerTime(100)).unwrap_err();
        assert_eq!(same.invariant(), "later-time");
    }
}
