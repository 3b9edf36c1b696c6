//! Homes with meters: they sign what they have measured, and do not rest until all of it is final.
//!
//! The firmware is the production one, with its journal; what is around it here loses messages and
//! power. Some owners take a gateway's word: what an honest one has accepted is not sent again.

use std::collections::BTreeMap;

use bkss_meter::{
    Journal, KeyStore, Meter, Parameters,
    signer::{SignError, Signed},
};
use bkss_node::Message;
use bkss_scheme::{
    LedgerTime, Link, LinkIndex, MeterId, Reading, codec,
    handover::HandoverError,
    reading::{Channel, Interval, MAX_INTERVALS},
    root_message::Registration,
    slot::Schedule,
    transaction::Release,
};
use rand_chacha::ChaCha8Rng;

use super::{
    Failure,
    chain::Chain,
    faults::{Dice, Ms},
    flash::{CutFlash, Power, PowerLost},
    founding::SLOT_S,
    invariants::{Kept, OneValue},
};
use crate::{Broken, scene::Provisioned};

/// A request that is not final after this goes to another gateway as well.
const ANOTHER_GATEWAY_MS: Ms = 600;
/// A release that is not final after this is sent again.
const AGAIN_MS: Ms = 1000;
/// How long a meter is without power.
const DARK_MS: Ms = 700;

type Firmware = Meter<CutFlash, Vec<Link>>;

/// What a meter sends to a gateway.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// The meter's number.
    pub(super) home: usize,
    /// Which link it is about.
    pub(super) index: LinkIndex,
    /// [`Kept::REQUEST`], [`Kept::BODY`], [`Kept::RELEASE`] or a registration.
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
    pub(super) gateways: usize,
    pub(super) chain: &'a mut Chain,
    pub(super) values: &'a mut OneValue,
    /// Whether gateways can be reached.
    pub(super) reachable: bool,
    /// Links that have become public, each with its body.
    pub(super) shown: &'a mut Vec<(Release, Vec<u8>)>,
}

/// A home and its meter.
pub(super) struct Home {
    number: usize,
    parameters: Parameters,
    registration: Registration,
    meter: Option<Firmware>,
    /// What outlives a loss of power, while there is none; and until when.
    dark: Option<(Journal<CutFlash>, KeyStore<Vec<Link>>, Ms)>,
    power: Power,
    rng: ChaCha8Rng,
    /// Milliseconds that its clock is ahead.
    pub(super) skew_ms: i64,
    /// Whether it takes an honest gateway's word.
    trusts: bool,
    gateway: usize,
    /// Readings to measure in all.
    readings: usize,
    stamped: usize,
    opened: usize,
    waiting: Vec<Waiting>,
    confirmed: bool,
    /// Handovers that the meter has followed.
    followed: usize,
    released: Option<(LinkIndex, Ms)>,
    registering: Option<Ms>,
    tries: usize,
}

/// A message under way.
struct Waiting {
    signed: Signed,
    /// Readings up to the last one in it.
    upto: usize,
    stamped: bool,
    sent: Ms,
    tries: usize,
    /// Whether the request and the release are in an honest gateway's hands.
    accepted: [bool; 2],
}

impl Home {
    /// A home whose meter is switched on.
    pub(super) fn new(
        number: usize,
        provisioned: Provisioned,
        readings: u32,
        mut dice: Dice,
    ) -> Result<Self, Broken> {
        let flash = CutFlash::default();
        let power = flash.power();
        let journal = Journal::open(flash).map_err(dead_flash)?;
        let Provisioned { parameters, registration, keys, .. } = provisioned;
        let skew_ms = i64::try_from(dice.below(600)).unwrap_or(0) - 300;
        let gateway = usize::from(registration.message.owner.0);
        Ok(Self {
            number,
            meter: Some(Meter::new(parameters.clone(), journal, keys)),
            dark: None,
            power,
            skew_ms,
            trusts: dice.chance(500),
            rng: dice.0,
            gateway,
            readings: readings as usize,
            stamped: 0,
            opened: 0,
            waiting: Vec::new(),
            confirmed: false,
            followed: 0,
            released: None,
            registering: None,
            tries: 0,
            parameters,
            registration,
        })
    }

    fn id(&self) -> MeterId {
        self.registration.message.meter
    }

    const fn schedule(&self) -> Schedule {
        self.registration.message.schedule
    }

    /// Whether all its readings are final, or it was not registered before its first slot and never
    /// will be.
    pub(super) fn done(&self, chain: &Chain) -> bool {
        let begins = self.schedule().begins();
        let late = !chain.registered.contains_key(&self.id()) && begins <= chain.newest().time;
        late || self.opened == self.readings
    }

    /// How far it is, and what it waits for.
    pub(super) fn standing(&self) -> String {
        let mut text = format!("meter {} has {} of {}", self.number, self.opened, self.readings);
        if !self.confirmed {
            text.push_str(", not registered");
        }
        for waiting in &self.waiting {
            let (index, [request, release]) = (waiting.signed.index(), waiting.accepted);
            let stamped = if waiting.stamped { "on the ledger" } else { "sent" };
            text.push_str(&format!(
                ", link {index} {stamped} (accepted: request {request}, release {release})"
            ));
        }
        text
    }

    /// The power goes, now or while the meter writes its next record.
    pub(super) fn cut_power(&mut self, now: Ms, bytes: Option<usize>) {
        match bytes {
            Some(bytes) => self.power.cut_after(bytes),
            None => self.go_dark(now + DARK_MS),
        }
    }

    /// One look around: learns, signs, sends, releases.
    pub(super) fn step(&mut self, around: &mut Around<'_>, post: &mut Post) -> Result<(), Failure> {
        self.restore_power(around.now)?;
        if self.meter.is_none() {
            return Ok(());
        }
        if around.reachable {
            self.learn(around)?;
        }
        if !self.confirmed {
            self.register(around, post);
        }
        self.sign(around)?;
        if around.reachable {
            self.send(around, post);
            self.release(around, post)?;
        }
        Ok(())
    }

    /// A gateway has answered "accepted".
    pub(super) fn accepted(&mut self, letter: &Letter, honest: bool) {
        if !self.trusts || !honest {
            return;
        }
        let place = usize::from(letter.what == Kept::RELEASE);
        for waiting in &mut self.waiting {
            if waiting.signed.index() == letter.index {
                waiting.accepted[place] = true;
            }
        }
    }

    /// Takes in what the ledger says.
    fn learn(&mut self, around: &Around<'_>) -> Result<(), Failure> {
        let (id, chain) = (self.id(), &around.chain);
        let Some(meter) = &mut self.meter else { return Ok(()) };
        let proof = chain.registration_proof(id).filter(|_| !self.confirmed);
        let proof = proof.as_deref().map(|proof| codec::decode("registration", proof));
        let proof = proof.transpose().map_err(Broken::from)?;
        // Whoever walks from era to era meets its registration in one of them.
        let mut confirm = |meter: &mut Firmware| {
            if let Some(proof) = &proof {
                self.confirmed |= meter.confirm_registration(proof).is_ok();
            }
        };
        confirm(meter);
        for handover in &chain.handovers[self.followed..] {
            let handover = codec::decode("handover", handover).map_err(Broken::from)?;
            match meter.on_handover(&handover) {
                Ok(()) | Err(HandoverError::Past { .. }) => confirm(meter),
                Err(_) => return Err(Broken::DoesNotHold("a handover").into()),
            }
        }
        self.followed = chain.handovers.len();
        for waiting in &mut self.waiting {
            let index = waiting.signed.index();
            let value = waiting.signed.message().value;
            let requested = chain.requested.get(&(id, index));
            if requested.is_some_and(|values| values.contains(&value)) {
                waiting.stamped = true;
                self.stamped = self.stamped.max(waiting.upto);
            }
            if chain.is_opened((id, index)) {
                meter.acknowledged(index);
                self.opened = self.opened.max(waiting.upto);
            }
        }
        self.waiting.retain(|waiting| !chain.is_opened((id, waiting.signed.index())));
        let schedule = self.registration.message.schedule;
        let known = meter.certified_time().unwrap_or(LedgerTime(0));
        let behind = |waiting: &Waiting| {
            let closes = schedule.closes(waiting.signed.index());
            known < closes && closes <= chain.newest().time
        };
        if self.waiting.iter().any(behind)
            && let Some((_, proof)) = &chain.time_proof
        {
            // The last block of an era proves nothing to who has left it; the next one will.
            let _ =
                meter.on_time(around.clock, &codec::decode("time", proof).map_err(Broken::from)?);
        }
        Ok(())
    }

    /// Has itself registered, at one gateway after the other.
    fn register(&mut self, around: &Around<'_>, post: &mut Post) {
        let registered = around.chain.registered.contains_key(&self.id());
        let again = self.registering.is_none_or(|sent| sent + AGAIN_MS <= around.now);
        if registered || !again || !around.reachable {
            return;
        }
        self.registering = Some(around.now);
        let registration = self.registration.clone();
        let message = bkss_ledger::Transaction::Registration(registration).into();
        let Some(index) = LinkIndex::new(1, self.schedule().slots) else { return };
        let letter = Letter { home: self.number, index, what: "registration", message };
        post.entry((self.gateway + self.tries) % around.gateways).or_default().push(letter);
        self.tries += 1;
    }

    /// Signs what has been measured by the slot of its clock and is not on the ledger yet.
    fn sign(&mut self, around: &mut Around<'_>) -> Result<(), Failure> {
        let schedule = self.schedule();
        let Some(index) = schedule.index(schedule.slot_at(around.clock)) else { return Ok(()) };
        self.miss(around.clock);
        let first = self.waiting.last().map_or(self.stamped, |last| last.upto);
        let upto = self.readings.min(index.get() as usize).min(first + MAX_INTERVALS);
        let Some(meter) = self.meter.as_mut().filter(|_| first < upto) else { return Ok(()) };
        let reading = reading(&schedule, self.number, first, upto);
        match meter.sign(around.clock, &reading, &mut self.rng) {
            Ok(signed) => {
                let (tries, accepted) = (0, [false; 2]);
                let value = signed.message().value;
                self.waiting.push(Waiting {
                    signed,
                    upto,
                    stamped: false,
                    sent: 0,
                    tries,
                    accepted,
                });
                Ok(around.values.see(self.id(), index, value)?)
            }
            Err(SignError::WindowClosed { .. } | SignError::Used { .. }) => Ok(()),
            Err(SignError::Journal(_)) => {
                self.go_dark(around.now + DARK_MS);
                Ok(())
            }
            Err(_) => Err(Broken::DoesNotHold("a meter that signs").into()),
        }
    }

    /// Gives up what was not stamped in its window; its readings go into the next message.
    fn miss(&mut self, clock: LedgerTime) {
        let schedule = self.schedule();
        let Some(meter) = &mut self.meter else { return };
        self.waiting.retain(|waiting| {
            let index = waiting.signed.index();
            let missed = !waiting.stamped && schedule.slot_at(clock) > schedule.slot(index);
            if missed {
                meter.give_up(index);
            }
            !missed
        });
    }

    /// Sends requests that are not final, to one gateway after the other.
    fn send(&mut self, around: &Around<'_>, post: &mut Post) {
        let schedule = self.schedule();
        for waiting in &mut self.waiting {
            let index = waiting.signed.index();
            let open = schedule.accepts_request(index, around.clock);
            let due = waiting.tries == 0 || waiting.sent + ANOTHER_GATEWAY_MS <= around.now;
            if waiting.stamped || !open || !due || waiting.accepted[0] {
                continue;
            }
            let gateway = (self.gateway + waiting.tries) % around.gateways;
            waiting.tries += 1;
            waiting.sent = around.now;
            let message = waiting.signed.message().into();
            let letter = Letter { home: self.number, index, what: Kept::REQUEST, message };
            post.entry(gateway).or_default().push(letter);
        }
    }

    /// Releases what certified time allows, to every gateway that has its body.
    fn release(&mut self, around: &mut Around<'_>, post: &mut Post) -> Result<(), Failure> {
        let Some(release) = self.meter.as_ref().and_then(Meter::release) else { return Ok(()) };
        let Release { meter, index, .. } = release;
        let again =
            |(last, sent): &(LinkIndex, Ms)| *last != index || sent + AGAIN_MS <= around.now;
        let waiting = self.waiting.iter_mut().find(|waiting| waiting.signed.index() == index);
        let Some(waiting) = waiting else {
            // Its request was not accepted: nobody needs its link.
            if let Some(meter) = &mut self.meter {
                meter.give_up(index);
            }
            return Ok(());
        };
        if waiting.accepted[1] || self.released.as_ref().is_some_and(|last| !again(last)) {
            return Ok(());
        }
        let first = self.released.as_ref().is_none_or(|(last, _)| *last != index);
        self.released = Some((index, around.now));
        if !first && waiting.tries < around.gateways {
            // A gateway that keeps the link to itself is passed by: another one gets the body.
            let message = waiting.signed.message().into();
            let letter = Letter { home: self.number, index, what: Kept::BODY, message };
            post.entry((self.gateway + waiting.tries) % around.gateways).or_default().push(letter);
            waiting.tries += 1;
        }
        let schedule = self.registration.message.schedule;
        let (closes, newest) = (schedule.closes(index), around.chain.newest());
        around.chain.windows.shown((meter, index), closes, newest)?;
        around.shown.push((release.clone(), waiting.signed.message().body.to_vec()));
        for offset in 0..waiting.tries.min(around.gateways) {
            let message = release.clone().into();
            let letter = Letter { home: self.number, index, what: Kept::RELEASE, message };
            post.entry((self.gateway + offset) % around.gateways).or_default().push(letter);
        }
        Ok(())
    }

    /// The power is gone: what was in memory is, too.
    fn go_dark(&mut self, until: Ms) {
        if let Some(meter) = self.meter.take() {
            let (journal, keys) = meter.switch_off();
            self.dark = Some((journal, keys, until));
        }
        self.waiting.clear();
        self.stamped = self.opened;
        self.confirmed = false;
        self.followed = 0;
        self.released = None;
    }

    fn restore_power(&mut self, now: Ms) -> Result<(), Failure> {
        let Some((journal, keys, _)) = self.dark.take_if(|(_, _, until)| *until <= now) else {
            return Ok(());
        };
        self.power.restore();
        let journal = Journal::open(journal.into_flash()).map_err(dead_flash)?;
        self.meter = Some(Meter::new(self.parameters.clone(), journal, keys));
        Ok(())
    }
}

fn dead_flash(_: PowerLost) -> Broken {
    Broken::DoesNotHold("flash that can be read")
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
