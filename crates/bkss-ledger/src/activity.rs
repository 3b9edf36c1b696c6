//! Which meters report: what a vote weighs where votes weigh by meters (Algorithm 3).
//!
//! A meter counts for its owner from an accepted opening on for as long as `R` or its slot lasts,
//! whichever is longer, so that it makes no difference in which round it is opened. Time is counted
//! in steps of an eighth of `R`, a part of a step as a whole one. No meter counts longer than five
//! times `R`: a chain with slots of years would otherwise count for years.
//!
//! This module knows nothing of votes or chains.

use std::collections::BTreeMap;

use bkss_scheme::{
    LedgerTime, ProviderId,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::members::MAX_MEMBERS;

/// Steps of `R`.
const STEPS: u64 = 8;
/// A meter counts at most so many times `R`.
const LONGEST: u64 = 5;
/// Ends that can be ahead at any time: a step for each part of the longest time, and one.
const MAX_ENDS: usize = 42;
const _: () = assert!(MAX_ENDS as u64 == STEPS * LONGEST + 2);

/// The end of a meter's count, in steps of an eighth of `R` since 1970; 0 for one that does not
/// count.
pub type Until = u32;

/// Meters that count, by owner, and when they cease to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Activity {
    /// By the step in which they cease to count.
    ends: BTreeMap<Until, BTreeMap<ProviderId, u32>>,
}

/// Milliseconds of a step.
fn step_ms(reveal_s: u32) -> u64 {
    (u64::from(reveal_s) * 1000).div_ceil(STEPS).max(1)
}

impl Activity {
    /// A meter of this owner is opened at `time` in a slot of `slot_s` seconds; it counted until
    /// `before`. Returns until when it counts now.
    pub fn report(
        &mut self,
        owner: ProviderId,
        before: Until,
        (time, slot_s): (LedgerTime, u32),
        reveal_s: u32,
    ) -> Until {
        self.forget(time, reveal_s);
        let reveal = u64::from(reveal_s);
        let lasts_s = u64::from(slot_s).clamp(reveal, LONGEST * reveal);
        let end = time.0.saturating_add(lasts_s * 1000).div_ceil(step_ms(reveal_s));
        let then = Until::try_from(end).unwrap_or(Until::MAX);
        if then <= before {
            return before;
        }
        if let Some(counts) = self.ends.get_mut(&before)
            && let Some(count) = counts.get_mut(&owner)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&owner);
            }
            if counts.is_empty() {
                self.ends.remove(&before);
            }
        }
        let count = self.ends.entry(then).or_default().entry(owner).or_default();
        *count = count.saturating_add(1);
        then
    }

    /// Forgets what has ceased by a time, and returns how many meters of each owner count then.
    pub fn advance(&mut self, time: LedgerTime, reveal_s: u32) -> BTreeMap<ProviderId, u32> {
        self.forget(time, reveal_s);
        let mut weights: BTreeMap<ProviderId, u32> = BTreeMap::new();
        for (owner, count) in self.ends.values().flatten() {
            let weight = weights.entry(*owner).or_default();
            *weight = weight.saturating_add(*count);
        }
        weights
    }

    fn forget(&mut self, time: LedgerTime, reveal_s: u32) {
        let now = Until::try_from(time.0 / step_ms(reveal_s)).unwrap_or(Until::MAX);
        if self.ends.first_key_value().is_some_and(|(first, _)| *first <= now) {
            self.ends = self.ends.split_off(&now.saturating_add(1));
        }
    }
}

/// `[* [until, [* [sp, meters]]]]`.
impl<C> Encode<C> for Activity {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(self.ends.len() as u64)?;
        for (until, counts) in &self.ends {
            encoder.array(2)?.u32(*until)?.array(counts.len() as u64)?;
            for (owner, count) in counts {
                encoder.array(2)?.encode(owner)?.u32(*count)?;
            }
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Activity {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let mut ends = BTreeMap::new();
        for _ in 0..codec::array_of_at_most(decoder, MAX_ENDS)? {
            codec::array(decoder, 2)?;
            let until = decoder.u32()?;
            let mut counts = BTreeMap::new();
            for _ in 0..codec::array_of_at_most(decoder, MAX_MEMBERS)? {
                codec::array(decoder, 2)?;
                counts.insert(decoder.decode()?, decoder.u32()?);
            }
            ends.insert(until, counts);
        }
        Ok(Self { ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK_S: u32 = 604_800;

    fn at_hours(hours: u64) -> LedgerTime {
        LedgerTime::from_seconds(2_000 * u64::from(WEEK_S) + 3600 * hours)
    }

    #[test]
    fn a_meter_counts_for_its_time_and_no_longer_than_a_step_more() {
        let day = 86_400;
        for (slot_s, counts_h) in [(900, 168), (WEEK_S, 168), (20 * day, 480), (u32::MAX, 5 * 168)]
        {
            let mut activity = Activity::default();
            activity.report(ProviderId(3), 0, (at_hours(1), slot_s), WEEK_S);
            for (hours, expected) in [(1, 1), (counts_h, 1), (counts_h + 1 + 21, 0)] {
                let weights = activity.clone().advance(at_hours(hours), WEEK_S);
                let found = weights.get(&ProviderId(3)).copied().unwrap_or(0);
                assert_eq!(found, expected, "slots of {slot_s} s, after {hours} h");
            }
        }
    }

    #[test]
    fn a_meter_counts_once_however_often_it_is_opened() {
        let mut activity = Activity::default();
        let mut until = 0;
        for hours in (0..2000).step_by(7) {
            until = activity.report(ProviderId(1), until, (at_hours(hours), 900), WEEK_S);
            let weights = activity.clone().advance(at_hours(hours), WEEK_S);
            assert_eq!(weights, BTreeMap::from([(ProviderId(1), 1)]));
            assert_eq!(activity.ends.len(), 1);
        }
        assert!(activity.advance(at_hours(3000), WEEK_S).is_empty());
    }

    /// However the lengths of slots are chosen, and however long a round lasts.
    #[test]
    fn there_are_no_more_ends_than_its_reader_takes() {
        for reveal_s in [1, 7, 900, WEEK_S, u32::MAX] {
            let mut activity = Activity::default();
            for tenth in 0..1000 {
                let time = LedgerTime(at_hours(0).0 + tenth * step_ms(reveal_s).div_ceil(10));
                for eighth in 0..48_u32 {
                    let slot_s = (reveal_s / 8).saturating_mul(eighth).max(1);
                    activity.report(ProviderId(0), 0, (time, slot_s), reveal_s);
                }
                activity.report(ProviderId(0), 0, (time, u32::MAX), reveal_s);
                let found = activity.ends.len();
                assert!(found <= MAX_ENDS, "{found} for R = {reveal_s}");
            }
        }
    }
}
