//! A meter in software: the firmware's code with a household behind it.

use std::time::{Duration, Instant};

use bkss_meter::{
    Meter,
    ledger_time::TimeRefusal,
    signer::{RegistrationMismatch, SignError, Signed},
};
use bkss_scheme::{
    Handover, LedgerTime, Link, LinkIndex, MeterId, ProviderId, Reading, RootMessage,
    handover::HandoverError,
    reading::{Channel, Decimal, Interval, MAX_INTERVALS},
    slot::Schedule,
    timestamp::{RegistrationProof, TimeProof},
    transaction::Release,
};
use rand_chacha::ChaCha20Rng;

use super::flash::SoftwareFlash;

/// Watt-hours have a decimal exponent three above that of kilowatt-hours.
const KWH_TO_WH: i8 = 3;

/// A release that is not acknowledged after this is sent again.
const RELEASE_AGAIN: Duration = Duration::from_secs(1);

/// The firmware as it runs here.
pub(crate) type Firmware = Meter<SoftwareFlash, Box<[Link]>>;

/// A meter and what it measured.
pub(crate) struct SoftwareMeter {
    meter: Firmware,
    message: RootMessage,
    readings: Vec<Decimal>,
    start_s: u64,
    rng: ChaCha20Rng,
    /// Readings whose commitment is final.
    stamped: usize,
    /// Readings whose opening is final.
    opened: usize,
    /// Sent and not yet opened, with the number of readings up to and including it.
    outstanding: Vec<Outstanding>,
    /// The last release and when it was sent.
    released: Option<(LinkIndex, Instant)>,
}

/// A reading on its way.
struct Outstanding {
    signed: Signed,
    /// Whether its request is final.
    stamped: bool,
    /// Readings up to the last one in it.
    upto: usize,
}

impl SoftwareMeter {
    /// A meter that has measured `readings` one after the other from `start_s` on, and has had the
    /// first `opened` of them opened before it was switched on.
    pub(crate) const fn new(
        meter: Firmware,
        message: RootMessage,
        readings: Vec<Decimal>,
        start_s: u64,
        rng: ChaCha20Rng,
        opened: usize,
    ) -> Self {
        Self {
            meter,
            message,
            readings,
            start_s,
            rng,
            stamped: opened,
            opened,
            outstanding: Vec::new(),
            released: None,
        }
    }

    /// Its number.
    pub(crate) const fn id(&self) -> MeterId {
        self.message.meter
    }

    /// Its owner.
    pub(crate) const fn owner(&self) -> ProviderId {
        self.message.owner
    }

    /// Its root message.
    pub(crate) const fn message(&self) -> &RootMessage {
        &self.message
    }

    /// Its slots.
    pub(crate) const fn schedule(&self) -> &Schedule {
        &self.message.schedule
    }

    /// Readings that are final.
    pub(crate) const fn opened(&self) -> usize {
        self.opened
    }

    /// Whether all its readings are final.
    pub(crate) const fn done(&self) -> bool {
        self.opened == self.readings.len()
    }

    /// Checks its registration (A29).
    pub(crate) fn confirm_registration(
        &mut self,
        proof: &RegistrationProof<'_>,
    ) -> Result<(), RegistrationMismatch> {
        self.meter.confirm_registration(proof)
    }

    /// Signs what has been measured and is not on the ledger yet: usually one interval, more after
    /// a window that was missed. `None` if there is nothing, or it is signed already.
    pub(crate) fn sign(&mut self, now: LedgerTime) -> Result<Option<&Signed>, String> {
        let schedule = self.message.schedule;
        let Some(index) = schedule.index(schedule.slot_at(now)) else { return Ok(None) };
        self.miss(now);
        let first = self.outstanding.last().map_or(self.stamped, |last| last.upto);
        let upto = self.readings.len().min(index.get() as usize).min(first + MAX_INTERVALS);
        if first >= upto {
            return Ok(None);
        }
        let reading = self.reading(first, upto);
        match self.meter.sign(now, &reading, &mut self.rng) {
            Ok(signed) => {
                self.outstanding.push(Outstanding { signed, stamped: false, upto });
                Ok(self.outstanding.last().map(|sent| &sent.signed))
            }
            Err(SignError::WindowClosed { .. } | SignError::Used { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What waits for its time-stamp.
    pub(crate) fn unstamped(&self) -> impl Iterator<Item = &Signed> {
        self.outstanding.iter().filter(|sent| !sent.stamped).map(|sent| &sent.signed)
    }

    /// The request of a link is final.
    pub(crate) fn stamped(&mut self, index: LinkIndex) {
        for sent in &mut self.outstanding {
            if sent.signed.index() == index {
                sent.stamped = true;
                self.stamped = self.stamped.max(sent.upto);
            }
        }
    }

    /// The opening of a link is final; returns how many readings that completes.
    pub(crate) fn acknowledged(&mut self, index: LinkIndex) -> usize {
        self.meter.acknowledged(index);
        let before = self.opened;
        if let Some(at) = self.outstanding.iter().position(|sent| sent.signed.index() == index) {
            let sent = self.outstanding.remove(at);
            self.opened = self.opened.max(sent.upto);
        }
        self.opened - before
    }

    /// What waits for its opening.
    pub(crate) fn unopened(&self) -> impl Iterator<Item = LinkIndex> {
        self.outstanding.iter().filter(|sent| sent.stamped).map(|sent| sent.signed.index())
    }

    /// Its readings, final or not.
    pub(crate) fn readings(&self) -> usize {
        self.readings.len()
    }

    /// The newest ledger time that it has proof of.
    pub(crate) const fn certified_time(&self) -> Option<LedgerTime> {
        self.meter.certified_time()
    }

    /// Follows the ledger to the next committee; one that it has followed changes nothing.
    pub(crate) fn on_handover(&mut self, handover: &Handover<'_>) -> Result<(), HandoverError> {
        match self.meter.on_handover(handover) {
            Ok(()) | Err(HandoverError::Past { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes in a proof of ledger time; `now` is the meter's clock.
    pub(crate) fn on_time(
        &mut self,
        now: LedgerTime,
        proof: &TimeProof<'_>,
    ) -> Result<LedgerTime, TimeRefusal> {
        self.meter.on_time(now, proof)
    }

    /// What is to be released now: something new, or the same again after a while.
    pub(crate) fn release(&mut self, now: Instant) -> Option<Release> {
        let release = self.meter.release()?;
        let again = |(index, sent): &(LinkIndex, Instant)| {
            *index != release.index || now.duration_since(*sent) >= RELEASE_AGAIN
        };
        if self.released.as_ref().is_some_and(|released| !again(released)) {
            return None;
        }
        self.released = Some((release.index, now));
        Some(release)
    }

    /// Gives up what was not stamped in its window; its readings go into the next message.
    fn miss(&mut self, now: LedgerTime) {
        let schedule = self.message.schedule;
        let (meter, outstanding) = (&mut self.meter, &mut self.outstanding);
        outstanding.retain(|sent| {
            let index = sent.signed.index();
            let missed = !sent.stamped && schedule.slot_at(now) > schedule.slot(index);
            if missed {
                meter.give_up(index);
            }
            !missed
        });
    }

    /// Intervals `first..upto` as one block, with the decimals of the finest of them.
    fn reading(&self, first: usize, upto: usize) -> Reading {
        let values = &self.readings[first..upto];
        let finest = values.iter().map(|value| value.exponent).min().unwrap_or(0);
        let scaled = |value: &Decimal| {
            let digits = u32::from(value.exponent.abs_diff(finest));
            let scaled = 10_i32.checked_pow(digits).and_then(|by| value.value.checked_mul(by));
            scaled.map_or_else(Interval::missing, Interval::measured)
        };
        Reading {
            channel: Channel::net_energy(self.message.schedule.slot_s),
            start_s: self.start_s + first as u64 * u64::from(self.message.schedule.slot_s),
            scaler: finest + KWH_TO_WH,
            intervals: values.iter().map(scaled).collect(),
        }
    }
}
