//! Homes with meters: they sign what they have measured, and do not rest until all of it is final.
//!
//! The firmware is the production one, with its journal; what is around it here loses messages and
//! power. Some owners take a gateway's word: what an honest one has accepted is not sent again. A
//! meter may get a next chain, and may be revoked.

use std::collections::BTreeMap;

use bkss_node::Message;
use bkss_scheme::{
    LedgerTime, MeterId, Reading,
    reading::{Channel, Interval, MAX_INTERVALS},
    slot::Schedule,
};
use rand_chacha::ChaCha8Rng;

use super::{
    Failure,
    chain::Chain,
    dice::Dice,
    faults::Ms,
    founding::SLOT_S,
    instrument::{Instrument, Shown},
    invariants::OneValue,
    link_of::LinkOf,
};
use crate::{Broken, scene::Provisioned};

/// How long a meter is without power.
const DARK_MS: Ms = 700;

/// What a meter sends to a gateway.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// The meter's number.
    pub(super) home: usize,
    /// Which link it is about.
    pub(super) link: LinkOf,
    /// A kind of [`super::invariants::Kept`] or a registration.
    pub(super) what: &'static str,
    pub(super) message: Message,
}

/// Letters by the gateways they go to.
pub(super) type Post = BTreeMap<usize, Vec<Letter>>;

/// What a home sees of the world around it.
pub(super) struct Around<'a> {
    pub(super) now: Ms,
    /// What the meter's clock shows.
    pub(super) clock: LedgerTime,
    /// The gateways that serve it, its own provider's first.
    pub(super) gateways: Vec<usize>,
    pub(super) chain: &'a mut Chain,
    pub(super) values: &'a mut OneValue,
    /// Whether gateways can be reached.
    pub(super) reachable: bool,
    /// Links that have become public.
    pub(super) shown: &'a mut Vec<Shown>,
}

impl Around<'_> {
    /// The gateway for a try.
    pub(super) fn gateway(&self, tries: usize) -> usize {
        self.gateways.get(tries % self.gateways.len().max(1)).copied().unwrap_or(0)
    }
}

/// How far a home is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Readings whose requests are on the ledger.
    pub(super) stamped: usize,
    /// Readings that are opened.
    pub(super) opened: usize,
}

/// A home and its meter, with a chain or two.
pub(super) struct Home {
    number: usize,
    instruments: Vec<Instrument>,
    /// The slots of the world.
    schedule: Schedule,
    rng: ChaCha8Rng,
    /// Milliseconds that its clock is ahead.
    pub(super) skew_ms: i64,
    /// Whether it takes an honest gateway's word.
    trusts: bool,
    /// Its own provider.
    pub(super) owner: usize,
    /// Readings to measure in all.
    readings: usize,
    progress: Progress,
    /// Until when it is without power.
    dark: Option<Ms>,
}

impl Home {
    /// A home whose meter is switched on, with its chains and when each is registered first.
    pub(super) fn new(
        number: usize,
        chains: Vec<(Provisioned, Ms)>,
        (schedule, readings): (Schedule, u32),
        mut dice: Dice,
    ) -> Result<Self, Broken> {
        let owner = chains.first().map_or(0, |(first, _)| first.registration.message.owner.0);
        let instruments = (0..)
            .zip(chains)
            .map(|(chain, (made, registers))| Instrument::new((number, chain), made, registers));
        let skew_ms = i64::try_from(dice.below(600)).unwrap_or(0) - 300;
        Ok(Self {
            number,
            instruments: instruments.collect::<Result<_, _>>()?,
            schedule,
            skew_ms,
            trusts: dice.chance(500),
            rng: dice.0,
            owner: owner.into(),
            readings: readings as usize,
            progress: Progress::default(),
            dark: None,
        })
    }

    fn id(&self) -> MeterId {
        self.instruments[0].registration.message.meter
    }

    /// Whether all its readings are final, or cannot be: no chain of it is registered and none will
    /// be, or it is revoked and nothing of it waits.
    pub(super) fn done(&self, chain: &Chain) -> bool {
        if chain.ended.is_revoked(self.id()) {
            return !self.instruments.iter().any(Instrument::has_stamped);
        }
        let newest = chain.newest().time;
        let late = |one: &Instrument| one.schedule().begins() <= newest;
        let never = chain.newest_chain(self.id()).is_none() && self.instruments.iter().all(late);
        never || self.progress.opened == self.readings
    }

    /// How far it is, and what it waits for.
    pub(super) fn standing(&self) -> String {
        let (number, opened, readings) = (self.number, self.progress.opened, self.readings);
        let text = format!("meter {number} has {opened} of {readings}");
        self.instruments.iter().fold(text, |text, one| text + &one.standing())
    }

    /// The power goes, now or while the meter writes its next record.
    pub(super) fn cut_power(&mut self, now: Ms, bytes: Option<usize>) {
        match bytes {
            Some(bytes) => self.instruments.iter().for_each(|one| one.cut_after(bytes)),
            None => self.go_dark(now + DARK_MS),
        }
    }

    /// One look around: learns, signs, sends, releases.
    pub(super) fn step(&mut self, around: &mut Around<'_>, post: &mut Post) -> Result<(), Failure> {
        if self.dark.take_if(|until| *until <= around.now).is_some() {
            for one in &mut self.instruments {
                one.restore_power()?;
            }
        }
        if self.instruments.iter().any(|one| !one.is_on()) {
            return Ok(());
        }
        if around.reachable {
            for one in &mut self.instruments {
                one.learn(around, &mut self.progress)?;
                one.register(around, post);
            }
        }
        self.sign(around)?;
        if around.reachable {
            for one in &mut self.instruments {
                one.send(around, post);
                one.release(around, post)?;
            }
        }
        Ok(())
    }

    /// An honest gateway has answered "accepted".
    pub(super) fn accepted(&mut self, letter: &Letter, by: usize) {
        if self.trusts
            && let Some(one) = self.instruments.get_mut(letter.link.chain as usize)
        {
            one.accepted(letter, by);
        }
    }

    /// What a gateway had accepted is not to be relied on any more.
    pub(super) fn forget(&mut self, gateway: usize) {
        self.instruments.iter_mut().for_each(|one| one.forget(gateway));
    }

    /// Signs what has been measured by the slot of its clock and is not on the ledger yet.
    fn sign(&mut self, around: &mut Around<'_>) -> Result<(), Failure> {
        let slot = self.schedule.slot_at(around.clock);
        let Some(index) = self.schedule.index(slot) else { return Ok(()) };
        self.instruments.iter_mut().for_each(|one| one.miss(around));
        if around.chain.ended.is_revoked(self.id()) {
            return Ok(());
        }
        let waiting = self.instruments.iter().map(Instrument::upto).max().unwrap_or(0);
        let first = self.progress.stamped.max(waiting);
        let upto = self.readings.min(index.get() as usize).min(first + MAX_INTERVALS);
        if upto <= first {
            return Ok(());
        }
        let reading = reading(&self.schedule, self.number, first, upto);
        let chain = around.chain.chain_in_charge(self.id(), slot);
        let Some(one) = self.instruments.get_mut(chain as usize) else { return Ok(()) };
        if one.sign(around, (&reading, upto), &mut self.rng)? {
            return Ok(());
        }
        self.go_dark(around.now + DARK_MS);
        Ok(())
    }

    /// The power is gone until then.
    fn go_dark(&mut self, until: Ms) {
        self.instruments.iter_mut().for_each(Instrument::go_dark);
        self.progress.stamped = self.progress.opened;
        self.dark = Some(until);
    }
}

/// What a home measured in these intervals.
fn reading(schedule: &Schedule, home: usize, first: usize, upto: usize) -> Reading {
    let value = |interval: usize| {
        let value = (home * 1000 + interval).try_into().unwrap_or(i32::MAX);
        Interval::measured(value)
    };
    Reading {
        channel: Channel::net_energy(SLOT_S),
        start_s: schedule.begins().seconds() + first as u64 * u64::from(SLOT_S),
        scaler: 0,
        intervals: (first..upto).map(value).collect(),
    }
}
