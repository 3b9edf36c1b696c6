//! Which ledger time is certified: what a meter may rely on before it shows a link (profile V of
//! scheme s4.6).
//!
//! Not the meter's own clock: whoever pushes that ahead would get links before their slots are over
//! (A19). Once a block of a time is final, no block of an earlier time can be added.

use core::slice;

use bkss_scheme::{
    Certified, Committee, Era, Handover, Header, LedgerTime, Network, certificate::NotFinal,
    finality::Finality, handover::HandoverError, timestamp::TimeProof,
};

/// The newest certified ledger time, under the committee the meter was provisioned with and those
/// that were handed over to since.
#[derive(Clone, Debug)]
pub struct LedgerWatch {
    network: Network,
    era: Era,
    certified: Option<LedgerTime>,
}

impl LedgerWatch {
    /// Knows nothing yet; `committee` certifies from `from_epoch` on.
    pub const fn new(network: Network, committee: Committee, from_epoch: u64) -> Self {
        Self { network, era: Era { from_epoch, committee }, certified: None }
    }

    /// Takes in a proof of time; an older one than the newest changes nothing.
    ///
    /// # Errors
    ///
    /// [`NotFinal`] if it proves nothing under this committee.
    pub fn advance(&mut self, proof: &TimeProof<'_>) -> Result<LedgerTime, NotFinal> {
        let time = self.check(&proof.finality, &proof.header)?.header().time;
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
        if let Some(next) = handover.verify(self.network, &self.era)? {
            self.era = next;
        }
        Ok(())
    }

    /// Checks that a header is final under the committee in office.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], also for certificates of earlier epochs: their committee is out of office.
    pub fn check(&self, finality: &Finality<'_>, header: &Header) -> Result<Certified, NotFinal> {
        Era::certified(slice::from_ref(&self.era), self.network, finality, header)
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
