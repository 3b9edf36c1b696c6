//! Algorithm 1 as the engine's elector: the ledger says who leads which view.
//!
//! The schedule of a round is a pure function of the finalized ledger, so that every node of a
//! round builds the same. A leader stays for a tenure of views; the engine deposes a silent one by
//! a quorum's vote, which ends its tenure.

use std::{marker::PhantomData, time::Duration};

use bkss_scheme::certificate::VoteKey;
use commonware_consensus::{
    simplex::elector::{Config, Elector, Scheduled, Terms},
    types::{Participant, TermLength, ViewDelta},
};
use commonware_cryptography::{certificate::Scheme, ed25519::PublicKey};
use commonware_utils::ordered::Set;

use crate::plan::Plan;

/// Builds the elector of a round.
#[derive(Clone)]
pub struct Tenures {
    plan: Plan,
    /// A tenure in which nothing becomes final for so long is given up.
    stall: Duration,
}

impl Tenures {
    /// For a round.
    pub const fn new(plan: Plan, stall: Duration) -> Self {
        Self { plan, stall }
    }

    fn terms(&self) -> Terms {
        match self.plan.tenure_length() {
            TermLength::ONE => Terms::rotating(),
            // Voting ahead of what is certified gains nothing where the machine is the bottleneck.
            views => Terms::stable(views, self.stall, ViewDelta::zero()),
        }
    }
}

impl<S: Scheme<PublicKey = PublicKey>> Config<S> for Tenures {
    type Elector = TenureElector<S>;

    fn build(self, participants: &Set<PublicKey>) -> TenureElector<S> {
        assert!(!participants.is_empty(), "a committee has members");
        let terms = self.terms();
        let members = participants.iter().map(|key| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(key);
            VoteKey(bytes)
        });
        TenureElector { plan: self.plan, members: members.collect(), terms, scheme: PhantomData }
    }
}

/// The leaders of one round.
#[derive(Clone)]
pub struct TenureElector<S> {
    plan: Plan,
    members: Vec<VoteKey>,
    terms: Terms,
    scheme: PhantomData<fn() -> S>,
}

impl<S: Scheme<PublicKey = PublicKey>> Elector<S> for TenureElector<S> {
    type Mode = Scheduled;

    fn terms(&self) -> Terms {
        self.terms
    }

    fn elect(&self, round: commonware_consensus::types::Round, (): ()) -> Participant {
        let leader = self.plan.leader(round.view().get());
        // The ledger names members only; the first would be the same answer on every node.
        let index = leader.and_then(|key| self.members.binary_search(&key).ok()).unwrap_or(0);
        Participant::from_usize(index)
    }
}
