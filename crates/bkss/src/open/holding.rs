//! Which reading of an interval holds.
//!
//! A meter that lost its memory may sign an interval again, and a file may have been corrected in
//! between. Of the readings of one interval that of the earliest slot holds: not the one that was
//! opened first, since gateways and leaders choose the order of openings. Equal ones count once;
//! where they differ the interval is contested, and all are shown.

use std::collections::BTreeMap;

use bkss_scheme::{
    LedgerTime, MeterId,
    reading::{Channel, Quality},
};

use super::owner::Opened;

/// What is measured, and when: meter, OBIS code, unit, length, start.
type Key = (MeterId, [u8; 6], u8, u32, u64);

/// Place of an interval: which receipt, and which interval in it.
type Place = (usize, usize);

/// How a reading stands among all of its interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It holds.
    Holds {
        /// Whether another reading of its interval differs.
        contested: bool,
    },
    /// The one that holds says the same.
    Repeats,
    /// Another one holds, which was signed in a slot that begins then.
    Overruled(LedgerTime),
}

/// The reading that holds of an interval.
struct Holder {
    signed: LedgerTime,
    place: Place,
    value: (Option<(i32, i16)>, Quality),
    contested: bool,
}

/// The readings that hold among those at hand.
#[derive(Default)]
pub(super) struct Holding {
    holders: BTreeMap<Key, Holder>,
    /// Readings that say again what another has said.
    repeated: usize,
}

impl Holding {
    /// Judges all intervals of receipts that opened, in their order.
    pub(super) fn of<'a>(opened: impl Iterator<Item = (usize, &'a Opened)>) -> Self {
        let mut holding = Self::default();
        for (receipt, opened) in opened {
            for at in 0..opened.intervals.len() {
                holding.add(opened, (receipt, at));
            }
        }
        holding
    }

    fn add(&mut self, opened: &Opened, place: Place) {
        let (value, signed) = (value(opened, place.1), opened.signed);
        let new = Holder { signed, place, value, contested: false };
        let Some(holder) = self.holders.get_mut(&key(opened, place.1)) else {
            self.holders.insert(key(opened, place.1), new);
            return;
        };
        self.repeated += usize::from(holder.value == value);
        let contested = holder.contested || holder.value != value;
        if signed < holder.signed {
            *holder = new;
        }
        holder.contested = contested;
    }

    /// How an interval of a receipt stands.
    pub(super) fn standing(&self, opened: &Opened, place: Place) -> Standing {
        match self.holders.get(&key(opened, place.1)) {
            Some(holder) if holder.place != place && holder.value == value(opened, place.1) => {
                Standing::Repeats
            }
            Some(holder) if holder.place != place => Standing::Overruled(holder.signed),
            holder => Standing::Holds { contested: holder.is_some_and(|holder| holder.contested) },
        }
    }

    /// Intervals, those among them that are contested, and readings that repeat another.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let contested = self.holders.values().filter(|holder| holder.contested).count();
        (self.holders.len(), contested, self.repeated)
    }
}

fn key(opened: &Opened, at: usize) -> Key {
    let Channel { obis, unit, interval_s } = opened.channel;
    (opened.meter, obis, unit, interval_s, opened.start_s(at))
}

/// Value and quality, the same for the same number however many decimals it was written with.
fn value(opened: &Opened, at: usize) -> (Option<(i32, i16)>, Quality) {
    let interval = &opened.intervals[at];
    let number = interval.value().map(|value| {
        let (mut value, mut exponent) = (value, i16::from(opened.scaler));
        while value != 0 && value % 10 == 0 {
            (value, exponent) = (value / 10, exponent + 1);
        }
        (value, if value == 0 { 0 } else { exponent })
    });
    (number, interval.quality())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_scheme::{LinkIndex, reading::Interval};

    /// Intervals of meter 7 from `start` on, signed in a slot that begins at `signed`.
    fn opened(signed: u64, start: u64, scaler: i8, values: &[i32]) -> Opened {
        Opened {
            meter: MeterId(7),
            slot: LinkIndex::new(1, 1).unwrap(),
            signed: LedgerTime(signed),
            channel: Channel::net_energy(900),
            start_s: start,
            scaler,
            intervals: values.iter().map(|value| Interval::measured(*value)).collect(),
            verified: true,
        }
    }

    fn standings(all: &[Opened]) -> Vec<Standing> {
        let holding = Holding::of(all.iter().enumerate());
        let places = all.iter().enumerate().flat_map(|(number, opened)| {
            (0..opened.intervals.len()).map(move |at| (opened, (number, at)))
        });
        places.map(|(opened, place)| holding.standing(opened, place)).collect()
    }

    const HOLDS: Standing = Standing::Holds { contested: false };
    const CONTESTED: Standing = Standing::Holds { contested: true };

    #[test]
    fn the_reading_of_the_earliest_slot_holds_in_whatever_order_they_come() {
        let (early, late) = (opened(10, 0, 0, &[5]), opened(20, 0, 0, &[6]));
        let overruled = Standing::Overruled(LedgerTime(10));
        assert_eq!(standings(&[early, late]), [CONTESTED, overruled]);
        let (early, late) = (opened(10, 0, 0, &[5]), opened(20, 0, 0, &[6]));
        assert_eq!(standings(&[late, early]), [overruled, CONTESTED]);
    }

    #[test]
    fn equal_readings_count_once_however_they_are_written() {
        let all = [opened(10, 0, 0, &[50, 0]), opened(20, 0, 1, &[5, 0]), opened(5, 900, -2, &[0])];
        let repeats = Standing::Repeats;
        assert_eq!(standings(&all), [HOLDS, repeats, repeats, repeats, HOLDS]);
        assert_eq!(Holding::of(all.iter().enumerate()).counts(), (2, 0, 3));
        let copies = [opened(10, 0, 0, &[5]), opened(10, 0, 0, &[5])];
        assert_eq!(standings(&copies), [HOLDS, repeats], "the same receipt twice");
    }

    #[test]
    fn a_third_reading_is_contested_also_if_it_repeats_one_of_two() {
        let all = [opened(30, 0, 0, &[5]), opened(20, 0, 0, &[6]), opened(10, 0, 0, &[5])];
        let overruled = Standing::Overruled(LedgerTime(10));
        assert_eq!(standings(&all), [Standing::Repeats, overruled, CONTESTED]);
        assert_eq!(Holding::of(all.iter().enumerate()).counts().1, 1);
    }

    #[test]
    fn other_meters_channels_and_times_have_intervals_of_their_own() {
        let mut all = vec![opened(10, 0, 0, &[5]), opened(20, 900, 0, &[6])];
        all.push(Opened { meter: MeterId(8), ..opened(20, 0, 0, &[6]) });
        all.push(Opened { channel: Channel::net_energy(1800), ..opened(20, 0, 0, &[6]) });
        all.push(Opened {
            channel: Channel { unit: 31, ..Channel::net_energy(900) },
            ..opened(20, 0, 0, &[6])
        });
        assert_eq!(standings(&all), [HOLDS; 5]);
        let missing = Opened { intervals: [Interval::missing()].into(), ..opened(20, 0, 0, &[]) };
        assert_eq!(standings(&[opened(10, 0, 0, &[0]), missing])[0], CONTESTED, "zero is a value");
    }
}
