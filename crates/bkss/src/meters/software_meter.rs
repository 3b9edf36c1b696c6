//! A meter in software: the firmware's code with a household behind it.

use std::time::{Duration, Instant};

use bkss_meter::{
    Meter,
    ledger_time::TimeRefusal,
    signer::{RegistrationMismatch, SignError},
};
use bkss_scheme::{
    Handover, LedgerTime, Link, LinkIndex, MeterId, ProviderId, Reading, RootMessage,
    handover::HandoverError,
    reading::{Channel, Decimal},
    slot::Schedule,
    timestamp::{RegistrationProof, TimeProof},
    transaction::Release,
};
use rand_chacha::ChaCha20Rng;

use super::{
    flash::SoftwareFlash,
    progress::{Progress, Sent},
};

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
    progress: Progress,
    /// How often the progress has changed.
    changes: u64,
    /// The last release and when it was sent.
    released: Option<(LinkIndex, Instant)>,
}

impl SoftwareMeter {
    /// A meter that has measured `readings` one after the other from `start_s` on, and had got that
    /// far before it was switched on.
    pub(crate) const fn new(
        meter: Firmware,
        message: RootMessage,
        readings: Vec<Decimal>,
        start_s: u64,
        rng: ChaCha20Rng,
        progress: Progress,
    ) -> Self {
        Self { meter, message, readings, start_s, rng, progress, changes: 0, released: None }
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
    pub(crate) fn opened(&self) -> usize {
        self.progress.opened().min(self.readings.len())
    }

    /// Whether all its readings are final.
    pub(crate) fn done(&self) -> bool {
        self.unsigned() == 0 && self.progress.under_way().is_empty()
    }

    /// How far it has got, and how often that has changed.
    pub(crate) const fn progress(&self) -> (&Progress, u64) {
        (&self.progress, self.changes)
    }

    /// Readings that have to be signed still.
    fn unsigned(&self) -> usize {
        self.readings.len().saturating_sub(self.progress.signed())
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
    ///
    /// # Errors
    ///
    /// In words: also if its chain has ended before all was signed.
    pub(crate) fn sign(&mut self, now: LedgerTime) -> Result<Option<&Sent>, String> {
        let schedule = self.message.schedule;
        let Some(index) = schedule.index(schedule.slot_at(now)) else {
            let (left, meter) = (self.unsigned(), self.id());
            if left == 0 || now < schedule.begins() {
                return Ok(None);
            }
            return Err(format!("the chain of meter {meter} has ended before {left} readings"));
        };
        self.miss(now);
        let first = self.progress.signed();
        let measured = self.readings.len().min(index.get() as usize);
        if first >= measured {
            return Ok(None);
        }
        let reading = self.reading(first, measured);
        let reading = reading.ok_or("a value has an exponent that no reading can hold")?;
        let count = reading.intervals.len();
        match self.meter.sign(now, &reading, &mut self.rng) {
            Ok(signed) => {
                self.changes += 1;
                Ok(Some(self.progress.sign(&signed.message(), count)))
            }
            Err(SignError::WindowClosed { .. } | SignError::Used { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What waits for its time-stamp.
    pub(crate) fn unstamped(&self) -> impl Iterator<Item = &Sent> {
        self.progress.under_way().iter().filter(|sent| !sent.is_stamped())
    }

    /// The request of a link is final.
    pub(crate) fn stamped(&mut self, index: LinkIndex) {
        self.changes += 1;
        self.progress.stamp(index);
    }

    /// The opening of a link is final; returns how many readings that completes.
    pub(crate) fn acknowledged(&mut self, index: LinkIndex) -> usize {
        self.meter.acknowledged(index);
        self.changes += 1;
        self.progress.open(index)
    }

    /// What waits for its opening.
    pub(crate) fn unopened(&self) -> impl Iterator<Item = LinkIndex> {
        self.progress.under_way().iter().filter(|sent| sent.is_stamped()).map(Sent::index)
    }

    /// A message that is not opened yet.
    pub(crate) fn sent(&self, index: LinkIndex) -> Option<&Sent> {
        self.progress.under_way().iter().find(|sent| sent.index() == index)
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
        // After a start, or of so many that some were dropped.
        for sent in self.progress.under_way().iter().filter(|sent| sent.is_stamped()) {
            self.meter.resume(sent.index());
        }
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
        let over = |index: LinkIndex| schedule.slot_at(now) > schedule.slot(index);
        if let Some(index) = self.progress.give_up(over) {
            self.meter.give_up(index);
            self.changes += 1;
        }
    }

    /// As many of the intervals `first..upto` as one block holds.
    fn reading(&self, first: usize, upto: usize) -> Option<Reading> {
        let slot_s = self.message.schedule.slot_s;
        let start_s = self.start_s + first as u64 * u64::from(slot_s);
        let channel = Channel::net_energy(slot_s);
        Reading::of_measured(channel, start_s, KWH_TO_WH, &self.readings[first..upto])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        meters::{Plan, provision},
        provider::Keys,
    };
    use bkss_node::config::vote_key;
    use bkss_scheme::{
        Committee, Era, Eras, Network, SdiId, SdiIdentity, SecretKey, Slot, finality::RoundLength,
        identity::SdiMode,
    };
    use bkss_sdi::{Order, Sdi};
    use rand_chacha::rand_core::SeedableRng;

    const SCHEDULE: Schedule = Schedule { first: Slot(1000), slot_s: 900, window_s: 300, slots: 6 };

    fn meter(readings: &[&str]) -> SoftwareMeter {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let owner = Keys::generate(ProviderId(3), &mut rng);
        let key = SecretKey::generate(&mut rng);
        let (name, public) = ("sdi".try_into().unwrap(), key.public());
        let sdi = SdiIdentity { id: SdiId(0), name, key: public, mode: SdiMode::SdiMade };
        let network = Network([7; 16]);
        let mut sdi = Sdi::new(sdi, key, network);
        let committee = Committee::new(vec![vote_key(owner.vote()).1]).unwrap();
        let eras = [Era::new(0, committee)];
        let rounds = RoundLength::new(12);
        let order = Order {
            meter: MeterId(7),
            owner: ProviderId(3),
            schedule: SCHEDULE,
            serial: b"7".to_vec(),
            block_log2: 1,
            revocable_by_secret: false,
        };
        let sealing_key = owner.opening().public();
        let eras = Eras { network, rounds, eras: &eras };
        let plan = Plan { eras, sealing_key, order, instead: None };
        let mut commit = |sdi: &mut Sdi| {
            drop(sdi.take_records());
            Ok(())
        };
        let meter = provision(&mut sdi, &mut commit, plan, &owner, &mut rng).unwrap();
        let readings = readings.iter().map(|text| Decimal::parse(text).unwrap()).collect();
        let flash = SoftwareFlash::memory();
        meter.switch_on(flash, readings, 0, [1; 32], Progress::default()).unwrap()
    }

    /// A time in the window of a slot.
    fn at(slot: u64) -> LedgerTime {
        LedgerTime::from_seconds((999 + slot) * 900 + 10)
    }

    /// Signs in a slot; how many readings are signed then.
    fn signed(meter: &mut SoftwareMeter, slot: u64) -> Option<usize> {
        meter.sign(at(slot)).unwrap().map(Sent::index).map(|_| meter.progress().0.signed())
    }

    #[test]
    fn of_a_backlog_a_message_takes_what_fits_its_exponent_and_nothing_becomes_missing() {
        let mut meter = meter(&["251.75", "251.75", "0.12345678", "251.75"]);
        assert_eq!(signed(&mut meter, 4), Some(2), "the third does not fit the exponent of two");
        for (slot, total) in [(5, 3), (6, 4)] {
            let index = meter.unstamped().next().unwrap().index();
            meter.stamped(index);
            assert_eq!(signed(&mut meter, slot), Some(total));
        }
    }

    #[test]
    fn a_missed_window_is_made_up_for_and_a_stamp_is_not_signed_again() {
        let mut meter = meter(&["1", "2", "3"]);
        assert_eq!((signed(&mut meter, 1), signed(&mut meter, 1)), (Some(1), None));
        assert_eq!(signed(&mut meter, 2), Some(2), "the first was missed and is in this one");
        assert_eq!(meter.unstamped().count(), 1);
        let index = meter.unstamped().next().unwrap().index();
        meter.stamped(index);
        assert_eq!(signed(&mut meter, 4), Some(3));
        assert_eq!((meter.unopened().count(), meter.unstamped().count()), (1, 1));
        assert_eq!((meter.acknowledged(index), meter.opened(), meter.done()), (2, 2, false));
    }

    #[test]
    fn a_chain_that_ends_too_early_says_so() {
        let mut meter = meter(&["1", "2"]);
        assert_eq!(meter.sign(at(0)).map(|sent| sent.is_some()), Ok(false), "not begun");
        let error = meter.sign(at(7)).map(|sent| sent.is_some()).unwrap_err();
        assert_eq!(error, "the chain of meter 7 has ended before 2 readings");
    }
}
