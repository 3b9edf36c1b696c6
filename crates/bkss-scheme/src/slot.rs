//! Slots of ledger time: which link belongs to which moment (`t = t_0 + i - 1`; scheme s4.2).
//!
//! Time is cut into slots of `L` seconds since 1970 UTC. A chain that starts in slot `g_0` signs
//! with link `i` in slot `g = g_0 + i - 1` and in no other. Requests are accepted in the first `W`
//! seconds of the slot, openings from then on and at most `R` seconds after its start.

use minicbor::{Decoder, Encoder, decode, encode};

use crate::{
    LinkIndex,
    codec::{Encoded, number},
    hash_chain::MAX_SLOTS,
};

/// Ledger time: milliseconds since 1970 UTC, the time stamp of a block header.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LedgerTime(pub u64);
number!(LedgerTime, u64);

impl LedgerTime {
    /// The start of a second; saturates at the end of time.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since 1970 UTC.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Number of a slot on the grid, `g = floor(time / L)`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u64);
number!(Slot, u64);

/// The slots of one chain: registered with it and never changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// `g_0`: the slot of link 1.
    pub first: Slot,
    /// `L`: slot length in seconds, at least 1.
    pub slot_s: u32,
    /// `W`: request window in seconds, `0 < W < L`.
    pub window_s: u32,
    /// `n`: number of slots.
    pub slots: u32,
}

impl Schedule {
    /// The slot a time lies in.
    pub const fn slot_at(&self, time: LedgerTime) -> Slot {
        Slot(time.seconds() / self.slot_s as u64)
    }

    /// The link of a slot, `i = g - g_0 + 1`; `None` before the first and after the last slot.
    pub fn index(&self, slot: Slot) -> Option<LinkIndex> {
        let index = slot.0.checked_sub(self.first.0)?.checked_add(1)?;
        LinkIndex::new(u32::try_from(index).ok()?, self.slots)
    }

    /// The slot of a link, `g = g_0 + i - 1`.
    pub const fn slot(&self, index: LinkIndex) -> Slot {
        Slot(self.first.0.saturating_add(index.get() as u64 - 1))
    }

    /// Start of the first slot.
    pub const fn begins(&self) -> LedgerTime {
        LedgerTime::from_seconds(self.first.0.saturating_mul(self.slot_s as u64))
    }

    /// End of a link's slot.
    pub const fn ends(&self, index: LinkIndex) -> LedgerTime {
        let slot = self.slot(index).0.saturating_add(1);
        LedgerTime::from_seconds(slot.saturating_mul(self.slot_s as u64))
    }

    /// Start of a link's slot: from here requests are accepted.
    pub const fn opens(&self, index: LinkIndex) -> LedgerTime {
        LedgerTime::from_seconds(self.slot(index).0.saturating_mul(self.slot_s as u64))
    }

    /// End of a link's window, `start + W`: no request is accepted from here on, openings are.
    pub const fn closes(&self, index: LinkIndex) -> LedgerTime {
        let start = self.slot(index).0.saturating_mul(self.slot_s as u64);
        LedgerTime::from_seconds(start.saturating_add(self.window_s as u64))
    }

    /// Whether a request with this link may be accepted in a block of this time.
    pub fn accepts_request(&self, index: LinkIndex, time: LedgerTime) -> bool {
        self.opens(index) <= time && time < self.closes(index)
    }

    /// Whether an opening with this link may be accepted in a block of this time: the window has
    /// closed and `reveal_s` seconds (`R`) since the slot's start have not passed.
    pub fn accepts_opening(&self, index: LinkIndex, time: LedgerTime, reveal_s: u32) -> bool {
        let start = self.slot(index).0.saturating_mul(u64::from(self.slot_s));
        let end = LedgerTime::from_seconds(start.saturating_add(u64::from(reveal_s)));
        self.closes(index) <= time && time < end
    }

    /// The first link whose slot began less than `reveal_s` seconds (`R`) before a time: openings of
    /// the links before it are accepted no more.
    pub fn first_openable(&self, time: LedgerTime, reveal_s: u32) -> u32 {
        let length = u64::from(self.slot_s).saturating_mul(1000).max(1);
        let Some(past) = time.0.checked_sub(u64::from(reveal_s) * 1000) else { return 1 };
        let slot = past / length + 1;
        let before = slot.saturating_sub(self.first.0);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Encodes `g_0, L, n, W`, as they stand in `M_r`.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn encode_fields<W: encode::Write>(&self, encoder: &mut Encoder<W>) -> Encoded<W> {
        let Self { first, slot_s, window_s, slots } = self;
        encoder.encode(first)?.u32(*slot_s)?.u32(*slots)?.u32(*window_s)?.ok()
    }

    /// Decodes what [`Schedule::encode_fields`] encodes.
    ///
    /// # Errors
    ///
    /// If these are not slots of a chain: `1 <= n <= 2^20` and `0 < W < L`.
    pub fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        let at = decoder.position();
        let first = decoder.decode()?;
        let (slot_s, slots, window_s) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
        if !(1..=MAX_SLOTS).contains(&slots) || window_s == 0 || window_s >= slot_s {
            return Err(decode::Error::message("1 <= n <= 2^20 and 0 < W < L do not hold").at(at));
        }
        Ok(Self { first, slot_s, window_s, slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule =
        Schedule { first: Slot(1_000_000), slot_s: 1800, window_s: 1500, slots: 11 };

    #[test]
    fn link_and_slot_are_one_equation() {
        for (slot, index) in
            [(999_999, None), (1_000_000, Some(1)), (1_000_010, Some(11)), (1_000_011, None)]
        {
            let found = SCHEDULE.index(Slot(slot));
            assert_eq!(found.map(LinkIndex::get), index, "slot {slot}");
            if let Some(found) = found {
                assert_eq!(SCHEDULE.slot(found), Slot(slot));
            }
        }
        assert_eq!(SCHEDULE.index(Slot(u64::MAX)), None);
    }

    proptest::proptest! {
        #[test]
        fn links_before_the_first_openable_are_those_whose_time_is_over(
            first in 0..5000_u64, slot_s in 2..2000_u32, reveal_s in 1..100_000_u32,
            time in 0..20_000_000_000_u64, index in 1..=MAX_SLOTS, near in 0..4_u32,
        ) {
            let schedule =
                Schedule { first: Slot(first), slot_s, window_s: 1, slots: MAX_SLOTS };
            let time = LedgerTime(time);
            let least = schedule.first_openable(time, reveal_s);
            for index in [index, least.saturating_add(near).saturating_sub(2)] {
                let Some(index) = LinkIndex::new(index, MAX_SLOTS) else { continue };
                let end = schedule.opens(index).0 + 1000 * u64::from(reveal_s);
                proptest::prop_assert_eq!(index.get() < least, end <= time.0, "{}", index);
            }
        }
    }

    #[test]
    fn requests_and_openings_of_a_slot_never_share_a_block() {
        let index = LinkIndex::new(3, 11).unwrap();
        let start = (1_000_000 + 2) * 1800 * 1000;
        for (time, request, opening) in [
            (start - 1, false, false),
            (start, true, false),
            (start + 1_499_999, true, false),
            (start + 1_500_000, false, true),
            (start + 604_799_999, false, true),
            (start + 604_800_000, false, false),
        ] {
            let time = LedgerTime(time);
            assert_eq!(SCHEDULE.accepts_request(index, time), request, "request at {time}");
            assert_eq!(
                SCHEDULE.accepts_opening(index, time, 604_800),
                opening,
                "opening at {time}"
            );
        }
    }
}
