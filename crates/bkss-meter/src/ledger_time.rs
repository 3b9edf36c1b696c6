//! Which ledger time is certified: what a meter may rely on before it shows a link (profile V of
//! scheme s4.6).
//!
//! Not the meter's own clock: whoever pushes that ahead would get links before their slots are over
//! (A19). Once a block of a time is final, no block of an earlier time can be added.

use bkss_scheme::{Committee, LedgerTime, Network, certificate::NotFinal, timestamp::TimeProof};

/// The newest certified ledger time, under the committee the meter was provisioned with.
#[derive(Clone, Debug)]
pub struct LedgerWatch {
    network: Network,
    committee: Committee,
    certified: Option<LedgerTime>,
}

impl LedgerWatch {
    /// Knows nothing yet.
    pub const fn new(network: Network, committee: Committee) -> Self {
        Self { network, committee, certified: None }
    }

    /// Takes in a proof of time; an older one than the newest changes nothing.
    ///
    /// # Errors
    ///
    /// [`NotFinal`] if it proves nothing under this committee.
    pub fn advance(&mut self, proof: &TimeProof<'_>) -> Result<LedgerTime, NotFinal> {
        let certified = proof.finality.verify(self.network, &self.committee, &proof.header)?;
        let time = certified.header().time;
        let newest = self.certified.map_or(time, |before| before.max(time));
        self.certified = Some(newest);
        Ok(newest)
    }

    /// The newest certified time.
    pub const fn certified(&self) -> Option<LedgerTime> {
        self.certified
    }

    /// The network.
    pub const fn network(&self) -> Network {
        self.network
    }

    /// The committee.
    pub const fn committee(&self) -> &Committee {
        &self.committee
    }
}
