//! What goes wrong by itself: networks, power, disks, clocks, meters that cannot be reached.

use std::time::Duration;

use commonware_p2p::simulated::Link;
use commonware_runtime::deterministic::{FaultConfig, PartialWriteMode, ResizeConfig, WriteConfig};
use commonware_utils::{Probability, probability};

use super::dice::Dice;

/// Milliseconds of virtual time from the start of a world.
pub(super) type Ms = u64;

/// Something that is wrong for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Every link loses so many messages of a thousand.
    Loss(u64),
    /// Links between the providers of these two sets (bits) are cut, both ways.
    Split(u64),
    /// What one provider says does not reach another.
    OneWay(usize, usize),
    /// What a provider says and hears is late by so many milliseconds more.
    Slow(usize, u64),
    /// Nothing reaches or leaves a provider. Several of these that overlap swizzle the network.
    Clogged(usize),
    /// A provider is dead.
    Dead(usize),
    /// A provider's clock stands still.
    ClockStops(usize),
    /// Meters lose so many messages of a thousand and send some twice.
    Mail(u64),
    /// These meters (every so many-th, from a first one) cannot be reached and reach nobody.
    Away(u32, u32),
}

impl Fault {
    /// Any of them, among so many providers and meters.
    pub(super) fn draw(dice: &mut Dice, providers: usize, meters: u32) -> Self {
        let place = dice.place(providers);
        match dice.below(10) {
            0 => Self::Loss(dice.within(10, 400)),
            1 => Self::Split(dice.any()),
            2 => Self::OneWay(place, (place + 1 + dice.place(providers - 1)) % providers),
            3 => Self::Slow(place, dice.within(50, 1500)),
            4 => Self::Clogged(place),
            5 | 6 => Self::Dead(place),
            7 => Self::ClockStops(place),
            8 => Self::Mail(dice.within(50, 700)),
            _ => {
                let every = dice.within(1, 4);
                let first = dice.below(every);
                let small = |number: u64| u32::try_from(number).unwrap_or(0).min(meters);
                Self::Away(small(every).max(1), small(first))
            }
        }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Loss(_) => "loss",
            Self::Split(_) => "split",
            Self::OneWay(..) => "one-way cut",
            Self::Slow(..) => "slow provider",
            Self::Clogged(_) => "provider cut off",
            Self::Dead(_) => "dead provider",
            Self::ClockStops(_) => "clock that stands still",
            Self::Mail(_) => "lost mail",
            Self::Away(..) => "meters out of reach",
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Episode {
    pub(super) from: Ms,
    pub(super) to: Ms,
    pub(super) fault: Fault,
}

/// Disks that fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BadDisks {
    pub(super) from: Ms,
    /// One of the plan's power cuts: whoever has a bad disk is switched off.
    pub(super) to: Ms,
    /// So many of a thousand operations fail.
    pub(super) of_thousand: u64,
}

impl BadDisks {
    /// Whether disks fail at a time.
    pub(super) const fn at(&self, now: Ms) -> bool {
        self.from <= now && now < self.to
    }
}

/// How disks behave where so many of a thousand operations fail; what is left of the bytes that were
/// not flushed when the power goes: any of them.
pub(super) fn disks(of_thousand: u64) -> FaultConfig {
    let rate = Probability::new(of_thousand.min(1000), 1000).unwrap_or(probability!(0.0));
    let (retention_rate, mode) = (probability!(0.5), PartialWriteMode::Subset);
    FaultConfig::default()
        .write(WriteConfig { failure_rate: rate, retention_rate, mode })
        .resize(ResizeConfig { failure_rate: rate, partial_rate: probability!(0.5) })
        .open(rate)
        .read(rate)
        .sync(rate)
        .remove(rate)
        .scan(rate)
}

/// How a link is at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Line {
    pub(super) latency_ms: u64,
    /// Messages lost, of a thousand.
    pub(super) loss: u64,
}

impl Line {
    /// A link from one provider to another while these faults last; `None` if it is cut.
    pub(super) fn with<'a>(
        latency_ms: u64,
        (from, to): (usize, usize),
        faults: impl Iterator<Item = &'a Fault>,
    ) -> Option<Self> {
        let mut line = Self { latency_ms, loss: 0 };
        for fault in faults {
            match fault {
                Fault::Loss(of_thousand) => line.loss = line.loss.max(*of_thousand),
                Fault::Split(side) if (side >> from & 1) != (side >> to & 1) => return None,
                Fault::OneWay(one, other) if (*one, *other) == (from, to) => return None,
                Fault::Clogged(place) if *place == from || *place == to => return None,
                Fault::Slow(place, more) if *place == from || *place == to => {
                    line.latency_ms += more;
                }
                _ => {}
            }
        }
        Some(line)
    }

    /// As the network takes it.
    pub(super) fn as_link(self, jitter_ms: u64) -> Link {
        Link {
            latency: Duration::from_millis(self.latency_ms),
            jitter: Duration::from_millis(jitter_ms),
            success_rate: Probability::new(1000 - self.loss.min(1000), 1000)
                .unwrap_or(probability!(1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_cuts_links_between_its_sides_alone() {
        let split = [Fault::Split(0b0011)];
        for (faults, from, to, whole) in
            [(&[][..], 0, 2, true), (&split, 0, 2, false), (&split, 0, 1, true)]
        {
            let line = Line::with(20, (from, to), faults.iter());
            assert_eq!(line.is_some(), whole, "{from} to {to} with {faults:?}");
        }
    }
}
