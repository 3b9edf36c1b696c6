//! A meter with one of its chains: production firmware and its journal, and what it has under way.

use bkss_meter::{
    Journal, KeyStore, Meter, Parameters,
    signer::{RegistrationMismatch, SignError, Signed},
};
use bkss_scheme::{
    Link, LinkIndex, MeterId, Reading, codec, handover::HandoverError, root_message::Registration,
    slot::Schedule, transaction::Release,
};
use rand_chacha::ChaCha8Rng;

use super::{
    Failure,
    faults::Ms,
    flash::{CutFlash, Power, PowerLost},
    home::{Around, Letter, Post, Progress},
    invariants::{Kept, Violation},
    link_of::LinkOf,
};
use crate::{Broken, scene::Provisioned};

/// A request that is not final after this goes to another gateway as well.
const ANOTHER_GATEWAY_MS: Ms = 600;
/// What is not final after this is sent again.
const AGAIN_MS: Ms = 1000;

type Firmware = Meter<CutFlash, Vec<Link>>;

/// A meter with one chain.
pub(super) struct Instrument {
    home: usize,
    /// Which of the meter's chains.
    chain: u32,
    parameters: Parameters,
    pub(super) registration: Registration,
    /// When its registration is brought to the ledger first.
    registers: Ms,
    meter: Option<Firmware>,
    /// What outlives a loss of power, while there is none.
    dark: Option<(Journal<CutFlash>, KeyStore<Vec<Link>>)>,
    power: Power,
    waiting: Vec<Waiting>,
    confirmed: bool,
    /// Handovers that the meter has followed.
    followed: usize,
    released: Option<(LinkIndex, Ms)>,
    registering: Option<Ms>,
    tries: usize,
    /// Gateways that have let it down, one after the other: it begins behind them.
    let_down: usize,
}

/// A message under way.
struct Waiting {
    signed: Signed,
    /// Readings up to the last one in it.
    upto: usize,
    stamped: bool,
    sent: Ms,
    /// Which gateway it goes to first, and to how many it has gone.
    first: usize,
    tries: usize,
    /// The honest gateways that have the request and the release in their hands.
    accepted: [Option<usize>; 2],
}

impl Instrument {
    /// Switched on, with a chain; its registration is brought to the ledger from `registers` on.
    pub(super) fn new(
        (home, chain): (usize, u32),
        provisioned: Provisioned,
        registers: Ms,
    ) -> Result<Self, Broken> {
        let flash = CutFlash::default();
        let power = flash.power();
        let journal = Journal::open(flash).map_err(dead_flash)?;
        let Provisioned { parameters, registration, keys, .. } = provisioned;
        Ok(Self {
            home,
            chain,
            meter: Some(Meter::new(parameters.clone(), journal, keys)),
            dark: None,
            power,
            waiting: Vec::new(),
            confirmed: false,
            followed: 0,
            released: None,
            registering: None,
            tries: 0,
            let_down: 0,
            registers,
            parameters,
            registration,
        })
    }

    const fn id(&self) -> MeterId {
        self.registration.message.meter
    }

    /// The slots of its chain.
    pub(super) const fn schedule(&self) -> Schedule {
        self.registration.message.schedule
    }

    /// A link of its chain.
    const fn link(&self, index: LinkIndex) -> LinkOf {
        LinkOf { meter: self.id(), chain: self.chain, index }
    }

    /// Whether it is on.
    pub(super) const fn is_on(&self) -> bool {
        self.meter.is_some()
    }

    /// Readings that its messages under way reach up to.
    pub(super) fn upto(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.upto).max().unwrap_or(0)
    }

    /// Whether one of its requests is on the ledger and not opened.
    pub(super) fn has_stamped(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.stamped)
    }

    /// What it waits for.
    pub(super) fn standing(&self) -> String {
        let mut text = String::new();
        if !self.confirmed {
            text.push_str(&format!(", chain {} not confirmed", self.chain));
        }
        for waiting in &self.waiting {
            let (link, [request, release]) = (self.link(waiting.signed.index()), waiting.accepted);
            let stamped = if waiting.stamped { "on the ledger" } else { "sent" };
            text.push_str(&format!(
                ", {link} {stamped} (accepted: request {request:?}, release {release:?})"
            ));
        }
        text
    }

    /// The power will go after so many bytes of its next record.
    pub(super) fn cut_after(&self, bytes: usize) {
        self.power.cut_after(bytes);
    }

    /// The power is gone: what was in memory is, too.
    pub(super) fn go_dark(&mut self) {
        if let Some(meter) = self.meter.take() {
            self.dark = Some(meter.switch_off());
        }
        self.waiting.clear();
        self.confirmed = false;
        self.followed = 0;
        self.released = None;
    }

    /// The power is back.
    pub(super) fn restore_power(&mut self) -> Result<(), Failure> {
        self.power.restore();
        if let Some((journal, keys)) = self.dark.take() {
            let journal = Journal::open(journal.into_flash()).map_err(dead_flash)?;
            self.meter = Some(Meter::new(self.parameters.clone(), journal, keys));
        }
        Ok(())
    }

    /// An honest gateway has answered "accepted".
    pub(super) fn accepted(&mut self, letter: &Letter, by: usize) {
        let place = usize::from(letter.what == Kept::RELEASE);
        for waiting in &mut self.waiting {
            if waiting.signed.index() == letter.link.index {
                waiting.accepted[place] = Some(by);
            }
        }
    }

    /// What a gateway had accepted is not to be relied on any more.
    pub(super) fn forget(&mut self, gateway: usize) {
        let accepted = self.waiting.iter_mut().flat_map(|waiting| &mut waiting.accepted);
        accepted.filter(|by| **by == Some(gateway)).for_each(|by| *by = None);
    }

    /// Takes in what the ledger says, and what is brought to it as if the ledger had said so.
    pub(super) fn learn(
        &mut self,
        around: &Around<'_>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        self.follow(around)?;
        let (id, chain) = (self.id(), &around.chain);
        let (meter_id, chain_number) = (id, self.chain);
        let link = |index| LinkOf { meter: meter_id, chain: chain_number, index };
        let Some(meter) = &mut self.meter else { return Ok(()) };
        for waiting in &mut self.waiting {
            let index = waiting.signed.index();
            let value = waiting.signed.message().value;
            let requested = chain.requested.get(&link(index));
            if requested.is_some_and(|values| values.contains(&value)) {
                waiting.stamped = true;
                progress.stamped = progress.stamped.max(waiting.upto);
            }
            if chain.is_opened(link(index)) {
                meter.acknowledged(index);
                progress.opened = progress.opened.max(waiting.upto);
            }
        }
        self.waiting.retain(|waiting| !chain.is_opened(link(waiting.signed.index())));
        let schedule = self.registration.message.schedule;
        let known = meter.certified_time().map_or(0, |time| time.0);
        let behind = |waiting: &Waiting| {
            let closes = schedule.closes(waiting.signed.index());
            known < closes.0 && closes <= chain.newest().time
        };
        if self.waiting.iter().any(behind)
            && let Some((_, proof)) = &chain.time_proof
        {
            // The last block of an era proves nothing to who has left it; the next one will.
            let proof = codec::decode("time", proof).map_err(Broken::from)?;
            let _ = meter.on_time(around.clock, &proof);
        }
        Ok(())
    }

    /// Walks from committee to committee, and sees its own registration on the way.
    fn follow(&mut self, around: &Around<'_>) -> Result<(), Failure> {
        let (id, mr, chain) = (self.id(), self.mr(), &around.chain);
        let Some(meter) = &mut self.meter else { return Ok(()) };
        // What a stranger has registered comes first.
        let proofs = chain.impostors.get(&id).into_iter().flatten().chain(chain.proofs.get(&mr));
        let proofs = proofs.filter(|_| !self.confirmed).map(|proof| codec::decode("proof", proof));
        let proofs = proofs.collect::<Result<Vec<_>, _>>().map_err(Broken::from)?;
        let own = chain.proofs.contains_key(&mr);
        let mut confirmed = self.confirmed;
        let mut confirm = |meter: &mut Firmware| -> Result<(), Violation> {
            for (place, proof) in proofs.iter().enumerate() {
                match meter.confirm_registration(proof) {
                    Ok(()) => confirmed |= own && place + 1 == proofs.len(),
                    Err(RegistrationMismatch::Locked(_)) => return Err(Violation::Locked(id)),
                    Err(_) => {}
                }
            }
            Ok(())
        };
        confirm(meter)?;
        for handover in &chain.handovers[self.followed..] {
            let handover = codec::decode("handover", handover).map_err(Broken::from)?;
            match meter.on_handover(&handover) {
                Ok(()) | Err(HandoverError::Past { .. }) => confirm(meter)?,
                Err(_) => return Err(Broken::DoesNotHold("a handover").into()),
            }
        }
        self.followed = chain.handovers.len();
        self.confirmed = confirmed;
        Ok(())
    }

    fn mr(&self) -> bkss_scheme::Digest {
        self.registration.message.id(self.parameters.network)
    }

    /// Has itself registered, at one gateway after the other.
    pub(super) fn register(&mut self, around: &Around<'_>, post: &mut Post) {
        let registered = around.chain.is_registered(&self.mr());
        let again = self.registering.is_none_or(|sent| sent + AGAIN_MS <= around.now);
        if registered || !again || around.now < self.registers {
            return;
        }
        self.registering = Some(around.now);
        let registration = self.registration.clone();
        let message = bkss_ledger::Transaction::Registration(registration).into();
        let Some(index) = LinkIndex::new(1, self.schedule().slots) else { return };
        let letter =
            Letter { home: self.home, link: self.link(index), what: "registration", message };
        post.entry(around.gateway(self.tries)).or_default().push(letter);
        self.tries += 1;
    }

    /// Signs a reading in the slot of the clock; false if its power goes meanwhile.
    pub(super) fn sign(
        &mut self,
        around: &mut Around<'_>,
        (reading, upto): (&Reading, usize),
        rng: &mut ChaCha8Rng,
    ) -> Result<bool, Failure> {
        let Some(meter) = &mut self.meter else { return Ok(true) };
        match meter.sign(around.clock, reading, rng) {
            Ok(signed) => {
                let (index, value) = (signed.index(), signed.message().value);
                self.waiting.push(Waiting {
                    signed,
                    upto,
                    stamped: false,
                    sent: 0,
                    first: self.let_down,
                    tries: 0,
                    accepted: [None; 2],
                });
                around.values.see(self.link(index), value)?;
                Ok(true)
            }
            Err(SignError::WindowClosed { .. } | SignError::Used { .. }) => Ok(true),
            Err(SignError::Journal(_)) => Ok(false),
            Err(SignError::Locked(_)) => Err(Violation::Locked(self.id()).into()),
            Err(_) => Err(Broken::DoesNotHold("a meter that signs").into()),
        }
    }

    /// Gives up what was not stamped in its window; its readings go into the next message.
    pub(super) fn miss(&mut self, around: &Around<'_>) {
        let schedule = self.schedule();
        let Some(meter) = &mut self.meter else { return };
        self.waiting.retain(|waiting| {
            let index = waiting.signed.index();
            let missed = !waiting.stamped && schedule.slot_at(around.clock) > schedule.slot(index);
            if missed {
                meter.give_up(index);
                self.let_down += waiting.tries;
            }
            !missed
        });
    }

    /// Sends requests that are not final, to one gateway after the other.
    pub(super) fn send(&mut self, around: &Around<'_>, post: &mut Post) {
        let (schedule, home, chain, meter) = (self.schedule(), self.home, self.chain, self.id());
        for waiting in &mut self.waiting {
            let index = waiting.signed.index();
            let open = schedule.accepts_request(index, around.clock);
            let due = waiting.tries == 0 || waiting.sent + ANOTHER_GATEWAY_MS <= around.now;
            if waiting.stamped || !open || !due || waiting.accepted[0].is_some() {
                continue;
            }
            let gateway = around.gateway(waiting.first + waiting.tries);
            waiting.tries += 1;
            waiting.sent = around.now;
            let message = waiting.signed.message().into();
            let link = LinkOf { meter, chain, index };
            let letter = Letter { home, link, what: Kept::REQUEST, message };
            post.entry(gateway).or_default().push(letter);
        }
    }

    /// Releases what certified time allows, to every gateway that has its body.
    pub(super) fn release(
        &mut self,
        around: &mut Around<'_>,
        post: &mut Post,
    ) -> Result<(), Failure> {
        let Some(release) = self.meter.as_ref().and_then(Meter::release) else { return Ok(()) };
        let index = release.index;
        let (home, link) = (self.home, self.link(index));
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
        if waiting.accepted[1].is_some() || self.released.as_ref().is_some_and(|last| !again(last))
        {
            return Ok(());
        }
        let first = self.released.as_ref().is_none_or(|(last, _)| *last != index);
        self.released = Some((index, around.now));
        if !first {
            // A gateway that keeps the link to itself is passed by: another one gets the body.
            let message = waiting.signed.message().into();
            let letter = Letter { home, link, what: Kept::BODY, message };
            let gateway = around.gateway(waiting.first + waiting.tries);
            post.entry(gateway).or_default().push(letter);
            waiting.tries += 1;
        }
        let closes = self.registration.message.schedule.closes(index);
        let newest = around.chain.newest();
        around.chain.windows.shown(link, closes, newest)?;
        around.shown.push(Shown {
            link,
            release: release.clone(),
            body: waiting.signed.message().body.to_vec(),
        });
        for offset in 0..waiting.tries.min(around.gateways.len()) {
            let message = release.clone().into();
            let letter = Letter { home, link, what: Kept::RELEASE, message };
            let gateway = around.gateway(waiting.first + offset);
            post.entry(gateway).or_default().push(letter);
        }
        Ok(())
    }
}

/// A link that has become public, with its body.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) link: LinkOf,
    pub(super) release: Release,
    pub(super) body: Vec<u8>,
}

fn dead_flash(_: PowerLost) -> Broken {
    Broken::DoesNotHold("flash that can be read")
}
