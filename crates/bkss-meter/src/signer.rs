//! The meter: a reading becomes a `Submit`, and a `Release` once its window has closed (s4.4, s5.3).
//!
//! The index is reserved before anything leaves. A link leaves only against certified ledger time
//! behind its window, and only after the meter has seen its own registration on the ledger with
//! every field as it knows it (A29): an SDI that registers other windows than it writes into the
//! meter gets no link.

use bkss_scheme::{
    Committee, Digest, LedgerTime, Link, LinkIndex, Network, Reading, RootMessage,
    certificate::NotFinal,
    hash, request,
    seal::{BodyBytes, SealError, SealingKey, Session},
    timestamp::{RegistrationProof, TimeProof},
    transaction::{Release, Submit},
};
use rand_core::CryptoRng;

use crate::{Flash, Journal, KeyStore, LedgerWatch};

/// Readings that wait for the end of their window; one more takes the place of the oldest.
pub const MAX_PENDING: usize = 8;

/// What a meter is provisioned with.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The network, from the signed firmware.
    pub network: Network,
    /// The committee, from the signed firmware.
    pub committee: Committee,
    /// The owner SP's sealing key.
    pub owner: SealingKey,
    /// What must be registered.
    pub root_message: RootMessage,
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
    #[error("flash")]
    Flash(E),
}

/// Why a proof of registration does not satisfy the meter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RegistrationMismatch {
    #[error(transparent)]
    NotFinal(#[from] NotFinal),
    #[error("the registration is not in the block")]
    NotIncluded,
    #[error("the registration is of another meter")]
    OtherMeter,
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
    first: LinkIndex,
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
    /// A meter at start: what was pending in memory is gone, what was reserved is not.
    pub fn new(parameters: Parameters, journal: Journal<F>, keys: KeyStore<S>) -> Self {
        Self {
            id: parameters.root_message.id(parameters.network),
            watch: LedgerWatch::new(parameters.network, parameters.committee.clone()),
            parameters,
            journal,
            keys,
            registration: Registration::Unseen,
            session: None,
            pending: [None; MAX_PENDING],
        }
    }

    /// Signs a reading in the slot of `now`, the meter's best clock; a wrong clock costs the slot,
    /// never a key.
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
        if !schedule.accepts_request(index, now) {
            return Err(SignError::WindowClosed { index });
        }
        let reserved = self.journal.reserved();
        if index.get() <= reserved {
            return Err(SignError::Used { index, reserved });
        }
        let plaintext = reading.to_bytes().ok_or(SealError::Length)?;
        let body = self.seal(now, index, &plaintext, rng)?;
        // Before anything leaves: a meter that loses power here must not sign twice with one link.
        self.journal.reserve(index.get()).map_err(SignError::Flash)?;
        let link = self.keys.derive(index);
        let commitment = request::commitment(&self.id, index, &hash::plain(&body));
        let value = request::request_value(&commitment, &link);
        self.remember(index);
        Ok(Signed { meter: self.parameters.root_message.meter, index, value, body })
    }

    /// Takes in a proof of ledger time.
    ///
    /// # Errors
    ///
    /// [`NotFinal`] if it proves nothing under the meter's committee.
    pub fn on_time(&mut self, proof: &TimeProof<'_>) -> Result<LedgerTime, NotFinal> {
        self.watch.advance(proof)
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
        for place in &mut self.pending {
            if *place == Some(index) {
                *place = None;
            }
        }
        if let Some(current) = &mut self.session {
            // Each body since the session's first carries its key until one of them is final.
            current.introduced |= index >= current.first;
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

    /// Checks the meter's own registration on the ledger against its memory (A29).
    ///
    /// # Errors
    ///
    /// [`RegistrationMismatch`]; after `Locked` the meter signs and releases nothing any more.
    pub fn confirm_registration(
        &mut self,
        proof: &RegistrationProof<'_>,
    ) -> Result<(), RegistrationMismatch> {
        let RegistrationProof { registration, inclusion } = proof;
        let (network, committee) = (self.watch.network(), self.watch.committee());
        inclusion.finality.verify(network, committee, &inclusion.header)?;
        if !inclusion.contains(inclusion.header.transactions, registration.leaf(network)) {
            return Err(RegistrationMismatch::NotIncluded);
        }
        let expected = &self.parameters.root_message;
        if registration.message.meter != expected.meter {
            return Err(RegistrationMismatch::OtherMeter);
        }
        if let Some(field) = difference(expected, &registration.message) {
            self.registration = Registration::Locked(field);
            return Err(RegistrationMismatch::Locked(field));
        }
        if self.registration == Registration::Unseen {
            self.registration = Registration::Confirmed;
        }
        Ok(())
    }

    /// The newest certified ledger time.
    pub const fn certified_time(&self) -> Option<LedgerTime> {
        self.watch.certified()
    }

    /// Seals under the session of the day.
    fn seal(
        &mut self,
        now: LedgerTime,
        index: LinkIndex,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<BodyBytes, SealError> {
        let day = now.seconds() / 86_400;
        let current = match &mut self.session {
            Some(current) if current.day == day => current,
            session => {
                let Parameters { network, owner, .. } = &self.parameters;
                let fresh = Session::start(*network, owner, rng)?;
                session.insert(Current { session: fresh, day, first: index, introduced: false })
            }
        };
        current.session.seal(&self.id, index, plaintext, !current.introduced)
    }

    fn remember(&mut self, index: LinkIndex) {
        let oldest = |place: &Option<LinkIndex>| place.map_or(0, LinkIndex::get);
        if let Some(place) = self.pending.iter_mut().min_by_key(|place| oldest(place)) {
            *place = Some(index);
        }
    }
}

/// The first field in which two root messages of one meter differ.
fn difference(expected: &RootMessage, found: &RootMessage) -> Option<&'static str> {
    let (own, their) = (&expected.schedule, &found.schedule);
    [
        (expected.owner != found.owner, "owner"),
        (expected.sdi != found.sdi, "SDI"),
        (expected.salt != found.salt, "salt"),
        (expected.anchor != found.anchor, "v_0"),
        (expected.root != found.root, "r"),
        (own.first != their.first, "g_0"),
        (own.slot_s != their.slot_s, "L"),
        (own.window_s != their.window_s, "W"),
        (own.slots != their.slots, "n"),
        (expected.device != found.device, "device"),
        (expected.revocation_lock != found.revocation_lock, "revocation lock"),
    ]
    .into_iter()
    .find_map(|(differs, field)| differs.then_some(field))
}
