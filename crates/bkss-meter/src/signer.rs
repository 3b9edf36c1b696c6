//! The meter: a reading becomes a `Submit`, and a `Release` once its window has closed (s4.4, s5.3).
//!
//! The index is reserved before anything leaves. A link leaves only against certified ledger time
//! behind its window, and only after the meter has seen its own registration on the ledger with
//! every field as it knows it (A29): an SDI that registers other windows than it writes into the
//! meter gets no link.

use bkss_scheme::{
    Committee, Digest, Era, Handover, LedgerTime, Link, LinkIndex, Network, Reading, RootMessage,
    certificate::NotFinal,
    finality::RoundLength,
    handover::HandoverError,
    hash, request,
    seal::{BodyBytes, SealError, SealingKey, Session},
    slot::Schedule,
    timestamp::{RegistrationProof, TimeProof},
    transaction::{Release, Submit},
};
use rand_core::CryptoRng;

use crate::{
    Flash, Journal, KeyStore, LedgerWatch, journal::JournalError, ledger_time::TimeRefusal,
};

/// Readings that wait for the end of their window; one more takes the place of the oldest.
pub const MAX_PENDING: usize = 8;

/// What a meter is provisioned with.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The network, from the signed firmware.
    pub network: Network,
    /// How long the network's rounds are, from the signed firmware.
    pub rounds: RoundLength,
    /// The committee, from the signed firmware.
    pub committee: Committee,
    /// The first epoch that this committee certifies: 0 for that of the genesis.
    pub from_epoch: u64,
    /// The owner SP's sealing key.
    pub owner: SealingKey,
    /// What must be registered.
    pub root_message: RootMessage,
}

impl Parameters {
    fn era(&self) -> Era {
        Era::new(self.from_epoch, self.committee.clone())
    }
}

/// A sealed reading and its request value: what leaves in step 1.
#[derive(Clone, Debug)]
pub struct Signed {
    meter: bkss_scheme::MeterId,
    index: LinkIndex,
    value: Digest,
    body: BodyBytes,
}

impl Signed {
    /// The message.
    pub fn message(&self) -> Submit<'_> {
        Submit { meter: self.meter, index: self.index, value: self.value, body: &self.body }
    }

    /// The link it will be opened with.
    pub const fn index(&self) -> LinkIndex {
        self.index
    }
}

/// Why a meter does not sign.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SignError<E> {
    #[error("the meter is locked: {0}")]
    Locked(&'static str),
    #[error("the slot is outside the chain")]
    OutsideChain,
    #[error("the window of link {index} has closed")]
    WindowClosed { index: LinkIndex },
    #[error("link {index} is used, {reserved} is the newest")]
    Used { index: LinkIndex, reserved: u32 },
    #[error("reading: {0}")]
    Seal(#[from] SealError),
    #[error("journal: {0}")]
    Journal(#[from] JournalError<E>),
}

/// Why a proof of registration does not satisfy the meter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RegistrationMismatch {
    #[error(transparent)]
    NotFinal(#[from] NotFinal),
    #[error("the registration is not in the block")]
    NotIncluded,
    /// It is not of this meter's chain: no harm done, and nothing confirmed.
    #[error("the registration is of another chain")]
    OtherChain,
    #[error("registered {0} is not what the meter knows; the meter is locked")]
    Locked(&'static str),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Registration {
    Unseen,
    Confirmed,
    Locked(&'static str),
}

/// The sealing session of a day.
struct Current {
    session: Session,
    day: u64,
    /// The newest index that was signed before this session.
    after: u32,
    /// Whether a body with the session's key is final.
    introduced: bool,
}

/// A meter with its journal and keys.
pub struct Meter<F, S> {
    parameters: Parameters,
    id: Digest,
    journal: Journal<F>,
    keys: KeyStore<S>,
    watch: LedgerWatch,
    registration: Registration,
    session: Option<Current>,
    pending: [Option<LinkIndex>; MAX_PENDING],
}

impl<F: Flash, S: AsRef<[Link]>> Meter<F, S> {
    /// A meter at start: what was pending in memory is gone, what was reserved is not, and the
    /// registration has to be seen again.
    ///
    /// A meter that was locked stays so; one whose keys are of another chain than its root message,
    /// or whose root message has no valid slots, is locked until it is provisioned anew.
    pub fn new(parameters: Parameters, journal: Journal<F>, keys: KeyStore<S>) -> Self {
        let noted = journal.locked().map(|field| usize::from(field).min(FIELDS.len() - 1));
        let field = noted.or_else(|| contradiction(&parameters.root_message, &keys));
        let locked = field.map(|field| Registration::Locked(FIELDS[field]));
        Self {
            id: parameters.root_message.id(parameters.network),
            watch: LedgerWatch::new(parameters.network, parameters.rounds, parameters.era()),
            parameters,
            journal,
            keys,
            registration: locked.unwrap_or(Registration::Unseen),
            session: None,
            pending: [None; MAX_PENDING],
        }
    }

    /// Signs a reading in the slot of `now`, the meter's best clock.
    ///
    /// A clock that is wrong never costs a key, but readings: one that is ahead uses up all slots
    /// until the one it shows.
    ///
    /// # Errors
    ///
    /// [`SignError`]; nothing has left then.
    pub fn sign(
        &mut self,
        now: LedgerTime,
        reading: &Reading,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, SignError<F::Error>> {
        if let Registration::Locked(field) = self.registration {
            return Err(SignError::Locked(field));
        }
        let schedule = self.parameters.root_message.schedule;
        let index = schedule.index(schedule.slot_at(now)).ok_or(SignError::OutsideChain)?;
        let over =
            self.watch.certified().is_some_and(|certified| schedule.closes(index) <= certified);
        if over || !schedule.accepts_request(index, now) {
            return Err(SignError::WindowClosed { index });
        }
        let reserved = self.journal.reserved();
        if index.get() <= reserved {
            return Err(SignError::Used { index, reserved });
        }
        let plaintext = reading.to_bytes().ok_or(SealError::Length)?;
        let body = self.seal(now, index, &plaintext, rng)?;
        // Before anything leaves: a meter that loses power here must not sign twice with one link.
        self.journal.reserve(index.get())?;
        let link = self.keys.derive(index);
        let commitment = request::commitment(&self.id, index, &hash::plain(&body));
        let value = request::request_value(&commitment, &link);
        self.remember(index);
        Ok(Signed { meter: self.parameters.root_message.meter, index, value, body })
    }

    /// Takes in a proof of ledger time; `now` is the meter's best clock.
    ///
    /// # Errors
    ///
    /// [`TimeRefusal`] if it proves nothing under the meter's committee, or more than the clock
    /// allows.
    pub fn on_time(
        &mut self,
        now: LedgerTime,
        proof: &TimeProof<'_>,
    ) -> Result<LedgerTime, TimeRefusal> {
        self.watch.advance(proof, now)
    }

    /// The oldest reading whose window has closed by certified time, the same one until it is
    /// acknowledged; `None` while there is none, or the registration is not confirmed.
    pub fn release(&self) -> Option<Release> {
        if self.registration != Registration::Confirmed {
            return None;
        }
        let certified = self.watch.certified()?;
        let message = &self.parameters.root_message;
        let closed = |index: &LinkIndex| message.schedule.closes(*index) <= certified;
        let index = self.pending.iter().flatten().copied().filter(closed).min()?;
        Some(Release { meter: message.meter, index, link: self.keys.derive(index) })
    }

    /// The opening of a link is final: it need not be released again.
    pub fn acknowledged(&mut self, index: LinkIndex) {
        self.give_up(index);
        self.confirmed(index);
    }

    /// The body of a link is final: the session's key that it carries need not be sent again.
    ///
    /// The word of a gateway; if it is a lie, the owner cannot open the readings of this session.
    pub fn confirmed(&mut self, index: LinkIndex) {
        let signed = index.get() <= self.journal.reserved();
        if let Some(current) = &mut self.session {
            // Each body since the session's first carries its key until one of them is final.
            current.introduced |= signed && index.get() > current.after;
        }
    }

    /// A reading that will never be opened, since its request did not become final in its window.
    pub fn give_up(&mut self, index: LinkIndex) {
        for place in &mut self.pending {
            if *place == Some(index) {
                *place = None;
            }
        }
    }

    /// Takes up a reading that was signed before the last start, or dropped for
    /// [`MAX_PENDING`] others, and whose body is still at a gateway: its link is released as if the
    /// power had not gone. Says whether it is pending now: not if its link was never reserved, or if
    /// too many others are.
    ///
    /// Only links whose window has closed are ever released, so that nothing is lost by an index
    /// that was not signed.
    pub fn resume(&mut self, index: LinkIndex) -> bool {
        if self.pending.contains(&Some(index)) {
            return true;
        }
        let free = self.pending.iter_mut().find(|place| place.is_none());
        match free.filter(|_| index.get() <= self.journal.reserved()) {
            Some(place) => *place = Some(index),
            None => return false,
        }
        true
    }

    /// Starts a new sealing session, as each UTC day does; its key goes into every body until
    /// one of them is final.
    ///
    /// # Errors
    ///
    /// [`SealError::Key`] if the owner's key is a point of small order.
    pub fn start_session(
        &mut self,
        now: LedgerTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(), SealError> {
        let Parameters { network, owner, .. } = &self.parameters;
        let session = Session::start(*network, owner, rng)?;
        let after = self.journal.reserved();
        self.session = Some(Current { session, day: day(now), after, introduced: false });
        Ok(())
    }

    /// Checks the meter's own registration on the ledger against its memory (A29).
    ///
    /// # Errors
    ///
    /// [`RegistrationMismatch`]; after `Locked` the meter signs and releases nothing any more, also
    /// after a restart.
    pub fn confirm_registration(
        &mut self,
        proof: &RegistrationProof<'_>,
    ) -> Result<(), RegistrationMismatch> {
        let RegistrationProof { registration, inclusion } = proof;
        let network = self.watch.network();
        self.watch.check(&inclusion.finality, &inclusion.header)?;
        if !inclusion.contains(inclusion.header.transactions, registration.leaf(network)) {
            return Err(RegistrationMismatch::NotIncluded);
        }
        let (expected, found) = (&self.parameters.root_message, &registration.message);
        // Only a registration that could make one of this meter's links usable is its own: links
        // walk down to `v_0` under the salt, which names owner, SDI and number. A stranger's entry
        // that repeats the anchor has another salt, one that repeats the nonce too.
        let own = expected.salt() == found.salt() && expected.anchor == found.anchor;
        if !own {
            return Err(RegistrationMismatch::OtherChain);
        }
        if let Some(field) = difference(expected, found) {
            return Err(RegistrationMismatch::Locked(self.lock(field)));
        }
        if self.registration == Registration::Unseen {
            self.registration = Registration::Confirmed;
        }
        Ok(())
    }

    /// Follows the ledger from one committee to the next.
    ///
    /// # Errors
    ///
    /// [`HandoverError`] if the committee in office has not certified it.
    pub fn on_handover(&mut self, handover: &Handover<'_>) -> Result<(), HandoverError> {
        self.watch.follow(handover)
    }

    /// Goes back to the committee that it was provisioned with, as after a start, as long as its
    /// registration is not confirmed; says whether it has.
    ///
    /// Whoever shows handovers beyond the registration's committee before the registration itself
    /// could keep the meter from releasing anything: it would no longer know that committee. Where
    /// [`Self::confirm_registration`] says so ([`NotFinal::Epoch`](bkss_scheme::certificate::NotFinal)),
    /// the meter is shown the handovers up to the registration once more.
    pub fn follow_again(&mut self) -> bool {
        let again = self.registration == Registration::Unseen;
        if again {
            self.watch.follow_from(self.parameters.era());
        }
        again
    }

    /// The committee in office as this meter knows it, and since when.
    pub const fn era(&self) -> &Era {
        self.watch.era()
    }

    /// The newest certified ledger time.
    pub const fn certified_time(&self) -> Option<LedgerTime> {
        self.watch.certified()
    }

    /// The field in which the registration or the key store differs from what the meter knows; it
    /// is locked then.
    pub const fn locked(&self) -> Option<&'static str> {
        if let Registration::Locked(field) = self.registration { Some(field) } else { None }
    }

    /// What outlives a loss of power.
    pub fn switch_off(self) -> (Journal<F>, KeyStore<S>) {
        (self.journal, self.keys)
    }

    fn lock(&mut self, field: usize) -> &'static str {
        let number = u8::try_from(field).unwrap_or(u8::MAX);
        // If flash fails, the lock lasts until the power goes. No link can leave after that either:
        // no second registration of this salt can be on the ledger.
        let _ = self.journal.lock(number);
        self.registration = Registration::Locked(FIELDS[field]);
        FIELDS[field]
    }

    /// Seals under the session of the day.
    fn seal(
        &mut self,
        now: LedgerTime,
        index: LinkIndex,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<BodyBytes, SealError> {
        let running = self.session.as_ref().is_some_and(|current| current.day == day(now));
        if !running {
            self.start_session(now, rng)?;
        }
        let current = self.session.as_ref().ok_or(SealError::Key)?;
        current.session.seal(&self.id, index, plaintext, !current.introduced)
    }

    fn remember(&mut self, index: LinkIndex) {
        let oldest = |place: &Option<LinkIndex>| place.map_or(0, LinkIndex::get);
        if let Some(place) = self.pending.iter_mut().min_by_key(|place| oldest(place)) {
            *place = Some(index);
        }
    }
}

/// Number of the UTC day.
const fn day(time: LedgerTime) -> u64 {
    time.seconds() / 86_400
}

/// Names of what a meter compares; their positions are on flash.
const FIELDS: [&str; 12] = [
    "ID_SM",
    "owner",
    "SDI",
    "salt",
    "v_0",
    "r",
    "g_0",
    "L",
    "W",
    "n",
    "device",
    "revocation lock",
];

/// The first field in which two root messages differ.
fn difference(expected: &RootMessage, found: &RootMessage) -> Option<usize> {
    let (own, their) = (&expected.schedule, &found.schedule);
    let equal: [bool; FIELDS.len()] = [
        expected.meter == found.meter,
        expected.owner == found.owner,
        expected.sdi == found.sdi,
        expected.nonce == found.nonce,
        expected.anchor == found.anchor,
        expected.root == found.root,
        own.first == their.first,
        own.slot_s == their.slot_s,
        own.window_s == their.window_s,
        own.slots == their.slots,
        expected.device == found.device,
        expected.revocation_lock == found.revocation_lock,
    ];
    equal.iter().position(|equal| !equal)
}

/// The first field in which a root message is not of these keys, or has no valid slots.
fn contradiction<S: AsRef<[Link]>>(message: &RootMessage, keys: &KeyStore<S>) -> Option<usize> {
    let Schedule { slot_s, window_s, slots, .. } = message.schedule;
    let field = if message.salt() != keys.salt() {
        "salt"
    } else if slot_s == 0 {
        "L"
    } else if window_s == 0 || window_s >= slot_s {
        "W"
    } else if slots != keys.blocks().slots() {
        "n"
    } else if message.anchor != keys.anchor() {
        "v_0"
    } else {
        return None;
    };
    FIELDS.iter().position(|name| *name == field)
}
