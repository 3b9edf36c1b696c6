//! Which ledger time is certified: what a meter may rely on before it shows a link (profile V of
//! scheme s4.6).
//!
//! Not the meter's own clock: whoever pushes that ahead would get links before their slots are over
//! (A19). Once a block of a time is final, no block of an earlier time can be added. The clock is a
//! second bound only: a committee that left office while the meter was cut off still has its keys,
//! and must not move the meter's time far ahead by them.

use core::slice;

use bkss_scheme::{
    Certified, Era, Eras, Handover, Header, LedgerTime, Network,
    certificate::NotFinal,
    finality::{Finality, RoundLength},
    handover::HandoverError,
    timestamp::TimeProof,
};

/// How far certified time may be ahead of the meter's own clock, milliseconds: a day.
pub const MAX_AHEAD_MS: u64 = 86_400_000;

/// Why a proof of time moves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TimeRefusal {
    #[error(transparent)]
    NotFinal(#[from] NotFinal),
    #[error("block of {found} ms, this clock shows {clock} ms: more than a day before")]
    AheadOfClock { clock: LedgerTime, found: LedgerTime },
}

/// The newest certified ledger time, under the committee the meter was provisioned with and those
/// that were handed over to since.
#[derive(Clone, Debug)]
pub struct LedgerWatch {
    network: Network,
    rounds: RoundLength,
    era: Era,
    certified: Option<LedgerTime>,
}

impl LedgerWatch {
    /// Knows nothing yet but who certifies.
    pub const fn new(network: Network, rounds: RoundLength, era: Era) -> Self {
        Self { network, rounds, era, certified: None }
    }

    /// Takes in a proof of time; an older one than the newest changes nothing. `now` is the meter's
    /// own clock.
    ///
    /// # Errors
    ///
    /// [`TimeRefusal`] if it proves nothing under this committee, or a time that is more than a day
    /// ahead of `now`.
    pub fn advance(
        &mut self,
        proof: &TimeProof<'_>,
        now: LedgerTime,
    ) -> Result<LedgerTime, TimeRefusal> {
        let time = self.check(&proof.finality, &proof.header)?.header().time;
        if time.0 > now.0.saturating_add(MAX_AHEAD_MS) {
            return Err(TimeRefusal::AheadOfClock { clock: now, found: time });
        }
        let newest = self.certified.map_or(time, |before| before.max(time));
        self.certified = Some(newest);
        Ok(newest)
    }

    /// Follows from one committee to the next: each handover in order, none left out.
    ///
    /// # Errors
    ///
    /// [`HandoverError`] if the committee in office has not certified it.
    pub fn follow(&mut self, handover: &Handover<'_>) -> Result<(), HandoverError> {
        if let Some((_, next)) = handover.verify(self.network, self.rounds, &self.era)? {
            self.era = next;
        }
        Ok(())
    }

    /// Begins to follow again with another committee; what is certified of time stays.
    pub(crate) fn follow_from(&mut self, era: Era) {
        self.era = era;
    }

    /// Checks that a header is final under the committee in office.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], also for certificates of earlier epochs: their committee is out of office.
    pub fn check(&self, finality: &Finality<'_>, header: &Header) -> Result<Certified, NotFinal> {
        let Self { network, rounds, era, .. } = self;
        let eras = Eras { network: *network, rounds: *rounds, eras: slice::from_ref(era) };
        eras.certified(finality, header)
    }

    /// The newest certified time.
    pub const fn certified(&self) -> Option<LedgerTime> {
        self.certified
    }

    /// The network.
    pub const fn network(&self) -> Network {
        self.network
    }

    /// The committee in office, and since when.
    pub const fn era(&self) -> &Era {
        &self.era
    }
}
