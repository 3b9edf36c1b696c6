//! A network of many providers, and all that its members can sign.

use std::sync::Arc;

use bkss_ledger::{
    Chain, Change, Evidence, Genesis, Limits, OpeningBatch, RequestBatch, Revocation, Rounds,
    State, Terms, Transaction, Vote,
    change::Body as Changed,
    evidence::{Offence, SignedVote},
    genesis::Charter,
    revocation::Reason,
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, ProviderIdentity, RootMessage, SdiId,
    SdiIdentity, SecretKey, Signature, Slot,
    certificate::{VoteContent, VoteKey},
    codec, hash,
    hash_chain::{self, Blocks, MAX_SLOTS},
    identity::{Name, SdiMode},
    request,
    root_message::{self, Registration, SaltNonce},
    seal::{Body, KeyId, OpeningKey},
    slot::Schedule,
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

use super::super::SetupError;
use crate::parallel;

/// Shortest slots of a default network.
const SLOT_S: u32 = 900;
/// `W`.
pub(super) const WINDOW_S: u32 = 300;
const FIRST: Slot = Slot(2_000_000);
/// Steps of a short gap: so many meters of one block use up its steps.
pub(super) const GAP: u32 = 64;
/// Steps of the longest gap: a whole chain.
pub(super) const LONGEST: u32 = MAX_SLOTS;
/// Bytes of the ciphertext of one interval.
const CIPHERTEXT: usize = 48;

/// Ledger time so many seconds after the start of slot `index`.
pub(super) fn at(index: u32, seconds: u64) -> LedgerTime {
    LedgerTime::from_seconds((FIRST.0 + u64::from(index) - 1) * u64::from(SLOT_S) + seconds)
}

/// Members with their keys, and the ledger.
pub(super) struct Network {
    /// The ledger so far.
    pub(super) state: State,
    genesis: Arc<Genesis>,
    keys: Vec<SecretKey>,
    voters: Vec<SigningKey>,
    sdi: SecretKey,
    rng: ChaCha8Rng,
}

/// A meter and its chain.
pub(super) struct Meter {
    row: Row,
    message: RootMessage,
    last: Link,
}

impl Network {
    /// So many founding providers and one SDI, under the default terms and limits.
    pub(super) fn new(providers: u16) -> Result<Self, SetupError> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let agreement = hash::hash(hash::Tag::Agreement, &[b"bench"]);
        let (mut keys, mut voters, mut identities) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..providers {
            let mut secret = [0; 32];
            rng.fill_bytes(&mut secret);
            let (key, voter) = (SecretKey::generate(&mut rng), SigningKey::from(secret));
            identities.push(ProviderIdentity {
                id: ProviderId(id),
                name: Name::new(),
                key: key.public(),
                agreement,
                sealing_key: OpeningKey::generate(KeyId(1), &mut rng).public(),
                vote_key: public(&voter),
                address: Name::new(),
            });
            keys.push(key);
            voters.push(voter);
        }
        let sdi = SecretKey::generate(&mut rng);
        let sdis = vec![SdiIdentity {
            id: SdiId(0),
            name: Name::new(),
            key: sdi.public(),
            mode: SdiMode::Shared,
        }];
        let charter = Charter {
            name: Name::new(),
            agreement,
            start: at(0, 0),
            time_scale: 1,
            terms: Terms::default(),
            rounds: Rounds::default(),
            limits: Limits::default(),
            providers: identities,
            sdis,
        };
        let genesis = Arc::new(Genesis::found(charter, &keys, std::slice::from_ref(&sdi))?);
        Ok(Self { state: State::new(genesis.clone()), genesis, keys, voters, sdi, rng })
    }

    fn providers(&self) -> u16 {
        u16::try_from(self.keys.len()).unwrap_or(u16::MAX)
    }

    fn gateway(&self, number: usize) -> (ProviderId, &SecretKey) {
        let at = number % self.keys.len();
        (ProviderId(u16::try_from(at).unwrap_or_default()), &self.keys[at])
    }

    /// SDIs that join, each by its own signature and the approvals of all providers.
    pub(super) fn changes(&mut self, count: u16) -> Vec<Transaction> {
        let network = self.genesis.network();
        let joining: Vec<_> =
            (1..=count).map(|id| (SdiId(id), SecretKey::generate(&mut self.rng))).collect();
        parallel::map(&joining, |(id, key)| {
            let mode = SdiMode::Shared;
            let sdi = SdiIdentity { id: *id, name: Name::new(), key: key.public(), mode };
            let mut change = Change::new(Changed::AddSdi(sdi), 0);
            change.sign(network, key);
            for (provider, key) in (0..).zip(&self.keys) {
                change.approve(network, ProviderId(provider), key);
            }
            Transaction::Change(change)
        })
    }

    /// The votes of all providers, each for all others.
    pub(super) fn votes(&self) -> Vec<Transaction> {
        let vote = |voter: u16| {
            let others = (0..self.providers()).filter(|other| *other != voter);
            let picks = others.map(ProviderId).collect();
            let key = &self.keys[usize::from(voter)];
            let network = self.genesis.network();
            Transaction::Vote(Vote::sign(network, ProviderId(voter), key, 0, picks))
        };
        (0..self.providers()).map(vote).collect()
    }

    /// Double votes of all providers, each in so many views.
    pub(super) fn evidence(&self, views: u16) -> Result<Vec<Transaction>, SetupError> {
        let network = self.genesis.network();
        let mut evidence = Vec::new();
        for (provider, key) in (0..).map(ProviderId).zip(&self.voters) {
            for view in 0..u64::from(views) {
                let sign = |byte| {
                    let content =
                        VoteContent::Notarize { parent_view: 0, block: Digest([byte; 32]) };
                    let message = content.message(network, 0, view).ok_or(SetupError::Shape)?;
                    let signature = Signature(key.sign(&message).into());
                    Ok::<_, SetupError>(SignedVote { content, signature })
                };
                let offence = Offence { provider, epoch: 0, view };
                let votes = [sign(1)?, sign(2)?];
                let vote_key = public(key);
                evidence.push(Transaction::Evidence(Evidence { offence, vote_key, votes }));
            }
        }
        Ok(evidence)
    }

    /// Meters with chains of as many slots as a short gap has steps, and one with a long chain.
    pub(super) fn meters(&mut self, count: u32, longest: u32) -> Result<Vec<Meter>, SetupError> {
        let mut chain = |row, slots| {
            let (mut last, mut nonce) = ([0; 32], SaltNonce([0; 16]));
            self.rng.fill_bytes(&mut last);
            self.rng.fill_bytes(&mut nonce.0);
            let (meter, last) = (MeterId(row), Link::from_bytes(last));
            let owner = ProviderId(u16::try_from(row as usize % self.keys.len()).unwrap_or(0));
            let salt = root_message::salt(owner, SdiId(0), meter, nonce);
            let blocks = Blocks::usual(slots).ok_or(SetupError::Shape)?;
            let ends = hash_chain::build(salt, blocks, &last, |_| ());
            let message = RootMessage {
                meter,
                owner,
                sdi: SdiId(0),
                nonce,
                anchor: ends.anchor,
                root: ends.root,
                schedule: Schedule { first: FIRST, slot_s: SLOT_S, window_s: WINDOW_S, slots },
                device: Digest([7; 32]),
                revocation_lock: None,
            };
            Ok(Meter { row, message, last })
        };
        let mut meters: Vec<_> =
            (0..count).map(|row| chain(row, GAP)).collect::<Result<_, SetupError>>()?;
        meters.push(chain(count, longest)?);
        Ok(meters)
    }

    /// Their registrations.
    pub(super) fn registrations(&self, meters: &[Meter]) -> Vec<Transaction> {
        let network = self.genesis.network();
        parallel::map(meters, |meter| {
            let message = meter.message.clone();
            let owner = &self.keys[usize::from(message.owner.0)];
            Transaction::Registration(Registration::sign(message, network, &self.sdi, owner))
        })
    }

    /// Their ends, by SDI and owner.
    pub(super) fn revocations(&self, meters: &[Meter]) -> Vec<Transaction> {
        let network = self.genesis.network();
        parallel::map(meters, |Meter { message, .. }| {
            let chain = Chain::new(message, message.id(network));
            let owner = &self.keys[usize::from(message.owner.0)];
            let sdi = (SdiId(0), &self.sdi);
            Transaction::Revocation(Revocation::sign(network, &chain, Reason(0), sdi, owner))
        })
    }

    /// Requests of all for a slot, so many in a batch.
    pub(super) fn requests(&self, meters: &[Meter], slot: u32, batch: usize) -> Vec<Transaction> {
        let network = self.genesis.network();
        let batches: Vec<_> = meters.chunks(batch).enumerate().collect();
        parallel::map(&batches, |(number, meters)| {
            let (gateway, key) = self.gateway(*number);
            let value = |meter: &Meter| {
                let id = meter.message.id(network);
                let index = index(meter, slot)?;
                let commitment = request::commitment(&id, index, &hash::plain(&body()));
                Some((meter.row, request::request_value(&commitment, &meter.link(slot))))
            };
            let items: Vec<_> = meters.iter().filter_map(value).collect();
            Transaction::Requests(RequestBatch::sign(network, gateway, key, number_of(slot), items))
        })
    }

    /// Openings of these requests, so many in a batch.
    pub(super) fn openings(
        &self,
        meters: &[Meter],
        slot: u32,
        batch: usize,
    ) -> Result<Vec<Transaction>, SetupError> {
        let network = self.genesis.network();
        let batches: Vec<_> = meters.chunks(batch).enumerate().collect();
        let made = parallel::map(&batches, |(number, meters)| {
            let (gateway, key) = self.gateway(*number);
            let encoded = body();
            let body: Body<'_> = codec::decode("body", &encoded)?;
            let mut bodies = Bodies::new(Shape::of(&body).ok_or(SetupError::Shape)?);
            if !meters.iter().all(|_| bodies.push(&body)) {
                return Err(SetupError::Shape);
            }
            let items: Vec<_> = meters.iter().map(|meter| (meter.row, meter.link(slot))).collect();
            let slot = number_of(slot);
            let batch = OpeningBatch::sign(network, gateway, key, slot, items, bodies);
            Ok(Transaction::Openings(batch))
        });
        made.into_iter().collect()
    }
}

impl Meter {
    fn link(&self, index: u32) -> Link {
        let Self { message, last, .. } = self;
        hash_chain::walk(message.salt(), message.schedule.slots, index, last)
    }
}

fn index(meter: &Meter, slot: u32) -> Option<LinkIndex> {
    LinkIndex::new(slot, meter.message.schedule.slots)
}

const fn number_of(slot: u32) -> Slot {
    Slot(FIRST.0 + slot as u64 - 1)
}

/// A body as long as one of one interval; nobody but its owner sees that nothing is in it.
fn body() -> Vec<u8> {
    let body = Body { key: KeyId(1), encapsulated: None, ciphertext: &[0; CIPHERTEXT] };
    let mut bytes = Vec::new();
    codec::encode_infallible(&body, &mut bytes);
    bytes
}

fn public(key: &SigningKey) -> VoteKey {
    VoteKey(VerificationKeyBytes::from(key).into())
}
