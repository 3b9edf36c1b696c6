//! What a Byzantine gateway tries on the ledger itself: nothing of it may get there.
//!
//! It sees every link that a meter shows, and has its own keys. Its transactions reach the pools
//! of all providers, which is more than its network could do for it.

use std::collections::BTreeSet;

use bkss_ledger::{
    Change, Evidence, Genesis, OpeningBatch, RequestBatch, Transaction, change,
    evidence::{Offence, SignedVote},
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{
    Digest, Link, MeterId, ProviderId, SecretKey, Signature,
    certificate::VoteContent,
    codec, hash, request,
    seal::{Body, KeyId},
    transaction::Release,
};

use super::{chain::Chain, faults::Dice};
use crate::scene::{encoded, identity};

/// Of how many links of a thousand it makes something.
const TRIES: u64 = 250;

/// A Byzantine gateway.
pub(super) struct Forger {
    pub(super) provider: ProviderId,
    key: SecretKey,
    dice: Dice,
    /// What it has seen opened or will: link and body.
    seen: Vec<(Release, Vec<u8>)>,
    again: BTreeSet<(MeterId, u32)>,
}

impl Forger {
    /// With its keys.
    pub(super) const fn new(provider: ProviderId, key: SecretKey, dice: Dice) -> Self {
        Self { provider, key, dice, seen: Vec::new(), again: BTreeSet::new() }
    }

    /// What it makes of links that have just become public.
    pub(super) fn forge(
        &mut self,
        genesis: &Genesis,
        chain: &Chain,
        shown: &[(Release, Vec<u8>)],
    ) -> Vec<Transaction> {
        let mut forged: Vec<Transaction> = Vec::new();
        for (release, body) in shown {
            if self.dice.chance(TRIES) {
                forged.extend(self.another_reading(genesis, chain, release).into_iter().flatten());
                self.seen.push((release.clone(), body.clone()));
            }
        }
        let opened: Vec<_> = self
            .seen
            .iter()
            .filter(|(release, _)| {
                chain.is_opened((release.meter, release.index))
                    && !self.again.contains(&(release.meter, release.index.get()))
            })
            .cloned()
            .collect();
        for (release, body) in opened {
            self.again.insert((release.meter, release.index.get()));
            forged.extend(self.opening(genesis, chain, &release, &body));
        }
        if self.dice.chance(20) {
            forged.push(self.stranger(genesis));
            forged.push(self.accusation(genesis));
        }
        forged
    }

    /// Another reading of a meter whose link is public: request and opening (T1.2).
    fn another_reading(
        &self,
        genesis: &Genesis,
        chain: &Chain,
        release: &Release,
    ) -> Option<[Transaction; 2]> {
        let Release { meter, index, link } = release;
        let (row, id) = chain.registration(*meter)?;
        let body = encoded(&Body { key: KeyId(1), encapsulated: None, ciphertext: &[7; 48] });
        let commitment = request::commitment(&id, *index, &hash::plain(&body));
        let value = request::request_value(&commitment, link);
        let slot = chain.schedule.slot(*index);
        let (network, provider) = (genesis.network(), self.provider);
        let requests = RequestBatch::sign(network, provider, &self.key, slot, [(row, value)]);
        let opening = self.opening(genesis, chain, release, &body)?;
        Some([Transaction::Requests(requests), opening])
    }

    /// An opening with a link, signed by itself.
    fn opening(
        &self,
        genesis: &Genesis,
        chain: &Chain,
        release: &Release,
        body: &[u8],
    ) -> Option<Transaction> {
        let (row, _) = chain.registration(release.meter)?;
        let body: Body<'_> = codec::decode("body", body).ok()?;
        let mut bodies = Bodies::new(Shape::of(&body)?);
        let pushed = bodies.push(&body);
        let links: [(Row, Link); 1] = [(row, release.link.clone())];
        let slot = chain.schedule.slot(release.index);
        let (network, provider) = (genesis.network(), self.provider);
        let batch = OpeningBatch::sign(network, provider, &self.key, slot, links, bodies);
        pushed.then_some(Transaction::Openings(batch))
    }

    /// Somebody joins whom it alone approves.
    fn stranger(&mut self, genesis: &Genesis) -> Transaction {
        let charter = genesis.charter();
        let mut stranger = identity(
            ProviderId(u16::try_from(charter.providers.len()).unwrap_or(u16::MAX)),
            &self.key,
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
        change.approve(genesis.network(), self.provider, &self.key);
        Transaction::Change(change)
    }

    /// Two votes of an honest provider that it never cast.
    fn accusation(&self, genesis: &Genesis) -> Transaction {
        let accused = genesis
            .charter()
            .providers
            .iter()
            .find(|other| other.id != self.provider)
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
