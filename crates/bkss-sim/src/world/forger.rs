//! What a Byzantine gateway tries on the ledger itself: nothing of it may get there.
//!
//! It sees every link that a meter shows, and has its own keys. Its transactions reach the pools
//! of all providers, which is more than its network could do for it.

use std::collections::BTreeSet;

use bkss_ledger::{
    Change, Evidence, Genesis, Transaction, change,
    evidence::{Offence, SignedVote},
};
use bkss_scheme::{
    Digest, ProviderId, SecretKey, Signature,
    certificate::VoteContent,
    seal::{Body, KeyId},
};

use super::{chain::Chain, dice::Dice, instrument::Shown, link_of::LinkOf, pen::Pen};
use crate::scene::{encoded, identity};

/// The number of somebody whom nobody knows.
const STRANGER: ProviderId = ProviderId(1000);
/// Of how many links of a thousand it makes something.
const TRIES: u64 = 250;

/// A Byzantine gateway.
pub(super) struct Forger {
    pen: Pen,
    dice: Dice,
    /// What it has seen opened or will.
    seen: Vec<Shown>,
    again: BTreeSet<LinkOf>,
}

impl Forger {
    /// With its keys.
    pub(super) const fn new(pen: Pen, dice: Dice) -> Self {
        Self { pen, dice, seen: Vec::new(), again: BTreeSet::new() }
    }

    /// What it makes of links that have just become public.
    pub(super) fn forge(&mut self, chain: &Chain, shown: &[Shown]) -> Vec<Transaction> {
        let mut forged: Vec<Transaction> = Vec::new();
        for shown in shown {
            if self.dice.chance(TRIES) {
                forged.extend(self.another_reading(chain, shown).into_iter().flatten());
                self.seen.push(shown.clone());
            }
        }
        let opened: Vec<_> = self
            .seen
            .iter()
            .filter(|shown| chain.is_opened(shown.link) && !self.again.contains(&shown.link))
            .cloned()
            .collect();
        for shown in opened {
            self.again.insert(shown.link);
            forged.extend(self.pen.opening(chain, &shown));
        }
        if self.dice.chance(20) {
            forged.push(self.stranger(&chain.genesis));
            forged.push(self.accusation(&chain.genesis));
        }
        forged
    }

    /// Another reading of a meter whose link is public: request and opening (T1.2).
    fn another_reading(&self, chain: &Chain, shown: &Shown) -> Option<[Transaction; 2]> {
        let body = encoded(&Body { key: KeyId(1), encapsulated: None, ciphertext: &[7; 48] });
        let request = self.pen.request(chain, shown.link, &shown.release.link, &body)?;
        Some([request, self.pen.opening(chain, &Shown { body, ..shown.clone() })?])
    }

    /// Somebody joins whom it alone approves.
    fn stranger(&mut self, genesis: &Genesis) -> Transaction {
        let charter = genesis.charter();
        let mut stranger = identity(
            STRANGER,
            &self.pen.key,
            &bkss_scheme::seal::OpeningKey::generate(KeyId(1), &mut self.dice.0),
            charter.providers[0].vote_key,
        );
        let key = SecretKey::generate(&mut self.dice.0);
        let vote = ed25519_zebra::SigningKey::new(&mut self.dice.0);
        stranger.key = key.public();
        stranger.agreement = charter.agreement;
        stranger.vote_key = crate::scene::vote_key(&vote);
        let mut change = Change::new(change::Body::Join(stranger), u64::from(u32::MAX));
        change.sign(genesis.network(), &key);
        change.approve(genesis.network(), self.pen.provider, &self.pen.key);
        Transaction::Change(change)
    }

    /// Two votes of an honest provider that it never cast.
    fn accusation(&self, genesis: &Genesis) -> Transaction {
        let accused = genesis
            .charter()
            .providers
            .iter()
            .find(|other| other.id != self.pen.provider)
            .unwrap_or(&genesis.charter().providers[0]);
        let vote = |byte| SignedVote {
            content: VoteContent::Notarize { parent_view: 1, block: Digest([byte; 32]) },
            signature: Signature([byte; 64]),
        };
        let offence = Offence { provider: accused.id, epoch: 0, view: 2 };
        let votes = [vote(1), vote(2)];
        Transaction::Evidence(Evidence { offence, vote_key: accused.vote_key, votes })
    }
}
