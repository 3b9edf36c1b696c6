//! Four providers, an SDI and meters, all from one seed, without engine or network.

use std::sync::Arc;

use bkss_ledger::{
    Block, Chain, FinalBlock, Genesis, Limits, OpeningBatch, RequestBatch, Revocation, Rounds,
    State, Terms, Transaction, Verified,
    genesis::{Charter, Weighing},
    revocation::Reason,
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{
    Certificate, Committee, Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId,
    ProviderIdentity, Reading, RootMessage, SdiId, SdiIdentity, SecretKey, Slot,
    certificate::{VoteContent, VoteKey},
    codec,
    finality::Finality,
    hash,
    hash_chain::{self, Blocks},
    identity::SdiMode,
    reading::{Channel, Interval},
    request,
    root_message::{Registration, SaltNonce},
    seal::{Body, BodyBytes, KeyId, OpeningKey, Session},
    slot::Schedule,
};
use ed25519_zebra::SigningKey;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

pub(crate) const SLOT_S: u32 = 900;
pub(crate) const WINDOW_S: u32 = 300;
pub(crate) const FIRST: Slot = Slot(2_000_000);
pub(crate) const SLOTS: u32 = 13;
pub(crate) const BLOCK_LOG2: u8 = 2;
/// Slots of the longest chain that gets its tree: the ledger does not look at it.
const MOST_WITH_TREE: u32 = 1000;

/// Rounds of four blocks and of four accounting nodes.
pub(crate) const SHORT: Rounds =
    Rounds { blocks: 4, committee: 4, alternates: 2, tenure_views: 1, votes: Weighing::Members };

pub(crate) struct Consortium {
    pub(crate) rng: ChaCha8Rng,
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) keys: Vec<SecretKey>,
    pub(crate) votes: Vec<SigningKey>,
    pub(crate) sdi: SecretKey,
}

pub(crate) struct Meter {
    pub(crate) registration: Registration,
    pub(crate) id: Digest,
    pub(crate) last: Link,
    pub(crate) roots: Vec<Digest>,
    pub(crate) session: Session,
}

/// What a meter sends for one slot.
pub(crate) struct Signed {
    pub(crate) slot: Slot,
    pub(crate) index: LinkIndex,
    pub(crate) body: BodyBytes,
    pub(crate) value: Digest,
    pub(crate) link: Link,
}

impl Consortium {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, 4, Rounds::default())
    }

    pub(crate) fn with(seed: u64, count: u16, rounds: Rounds) -> Self {
        Self::founded(seed, count, |charter| charter.rounds = rounds)
    }

    /// So many providers on a charter that differs from the usual one.
    pub(crate) fn founded(seed: u64, count: u16, change: impl FnOnce(&mut Charter)) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let keys: Vec<_> = (0..count).map(|_| SecretKey::generate(&mut rng)).collect();
        let votes: Vec<_> = (0..count).map(|_| SigningKey::new(&mut rng)).collect();
        let opening_keys: Vec<_> =
            (0..count).map(|_| OpeningKey::generate(KeyId(1), &mut rng)).collect();
        let sdi = SecretKey::generate(&mut rng);
        let agreement = hash::hash(hash::Tag::Agreement, &[b"we agree"]);
        let providers = (0..count)
            .map(|i| ProviderIdentity {
                id: ProviderId(i),
                name: "provider".try_into().unwrap(),
                key: keys[usize::from(i)].public(),
                agreement,
                sealing_key: opening_keys[usize::from(i)].public(),
                vote_key: vote_key(&votes[usize::from(i)]),
                address: bkss_scheme::identity::Name::new(),
            })
            .collect();
        let name = "sdi".try_into().unwrap();
        let sdi_identity =
            SdiIdentity { id: SdiId(0), name, key: sdi.public(), mode: SdiMode::Shared };
        let mut charter = Charter {
            name: "test".try_into().unwrap(),
            agreement,
            start: LedgerTime::from_seconds((FIRST.0 - 1) * u64::from(SLOT_S)),
            time_scale: 1,
            terms: Terms { min_slot_s: 1, ..Terms::default() },
            rounds: Rounds::default(),
            limits: Limits::default(),
            providers,
            sdis: vec![sdi_identity],
        };
        change(&mut charter);
        let genesis = Genesis::found(charter, &keys, std::slice::from_ref(&sdi)).unwrap();
        Self { rng, genesis: Arc::new(genesis), keys, votes, sdi }
    }

    pub(crate) fn state(&self) -> State {
        State::new(self.genesis.clone())
    }

    pub(crate) fn meter(&mut self, number: u32) -> Meter {
        self.meter_with(number, |_| ())
    }

    /// A meter whose root message differs from the usual one; anchor and root follow from it.
    pub(crate) fn meter_with(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut RootMessage),
    ) -> Meter {
        let mut entropy = [[0; 32]; 2];
        entropy.iter_mut().for_each(|bytes| self.rng.fill_bytes(bytes));
        let mut nonce = [0; 16];
        self.rng.fill_bytes(&mut nonce);
        let founders = u32::try_from(self.genesis.charter().providers.len()).unwrap();
        let mut message = RootMessage {
            meter: MeterId(number),
            owner: ProviderId(u16::try_from(number % founders).unwrap()),
            sdi: SdiId(0),
            nonce: SaltNonce(nonce),
            anchor: Link::from_bytes([0; 32]),
            root: Digest::ZERO,
            schedule: Schedule { first: FIRST, slot_s: SLOT_S, window_s: WINDOW_S, slots: SLOTS },
            device: Digest([7; 32]),
            revocation_lock: None,
        };
        change(&mut message);
        let (salt, network) = (message.salt(), self.genesis.network());
        let last = hash_chain::last_link(salt, &entropy[0], &entropy[1], network, 0);
        let (slots, mut roots) = (message.schedule.slots, Vec::new());
        if slots > MOST_WITH_TREE {
            message.anchor = hash_chain::walk(salt, slots, 0, &last);
        } else {
            let blocks = Blocks::new(slots, BLOCK_LOG2).unwrap();
            let ends = hash_chain::build(salt, blocks, &last, |block| roots.push(block.root));
            roots.reverse();
            (message.anchor, message.root) = (ends.anchor, ends.root);
        }
        let id = message.id(network);
        let owner = usize::from(message.owner.0);
        let registration = Registration::sign(message, network, &self.sdi, &self.keys[owner]);
        let sealing = self.genesis.charter().providers[owner].sealing_key;
        let session = Session::start(network, &sealing, &mut self.rng).unwrap();
        Meter { registration, id, last, roots, session }
    }

    /// The meter's next chain.
    pub(crate) fn next_chain(&mut self, meter: &Meter, schedule: Schedule) -> Meter {
        let RootMessage { owner, device, revocation_lock, .. } = meter.registration.message;
        self.meter_with(meter.number(), |message| {
            *message = RootMessage { owner, device, schedule, revocation_lock, ..message.clone() };
        })
    }

    /// A revocation of a chain by its owner and the SDI.
    pub(crate) fn revocation(&self, chain: &Chain) -> Transaction {
        let (sdi, owner) = ((SdiId(0), &self.sdi), &self.keys[usize::from(chain.owner.0)]);
        let network = self.genesis.network();
        Transaction::Revocation(Revocation::sign(network, chain, Reason(1), sdi, owner))
    }

    pub(crate) fn requests(
        &self,
        gateway: usize,
        index: u32,
        items: &[(Row, Digest)],
    ) -> Transaction {
        let slot = Slot(FIRST.0 + u64::from(index) - 1);
        Transaction::Requests(RequestBatch::sign(
            self.genesis.network(),
            ProviderId(u16::try_from(gateway).unwrap()),
            &self.keys[gateway],
            slot,
            items.iter().copied(),
        ))
    }

    pub(crate) fn openings(&self, gateway: usize, items: &[(Row, &Signed)]) -> Transaction {
        let body = |signed: &Signed| codec::decode::<Body<'_>>("body", &signed.body).is_ok();
        assert!(items.iter().all(|(_, signed)| body(signed)));
        let first: Body<'_> = codec::decode("body", &items[0].1.body).unwrap();
        let mut bodies = Bodies::new(Shape::of(&first).unwrap());
        for (_, signed) in items {
            assert!(bodies.push(&codec::decode("body", &signed.body).unwrap()));
        }
        Transaction::Openings(OpeningBatch::sign(
            self.genesis.network(),
            ProviderId(u16::try_from(gateway).unwrap()),
            &self.keys[gateway],
            items[0].1.slot,
            items.iter().map(|(row, signed)| (*row, signed.link.clone())),
            bodies,
        ))
    }

    /// Signatures of the first three members of the first committee.
    pub(crate) fn certify(&self, block: Digest, view: u8) -> (u32, Vec<u8>) {
        self.certify_in(0, self.genesis.committee(), block, view)
    }

    /// Signatures of the first members of a committee that make a quorum.
    pub(crate) fn certify_in(
        &self,
        epoch: u64,
        committee: &Committee,
        block: Digest,
        view: u8,
    ) -> (u32, Vec<u8>) {
        let (view, parent_view) = (u64::from(view), u64::from(view) - 1);
        let content = VoteContent::Finalize { parent_view, block };
        let message = content.message(self.genesis.network(), epoch, view).unwrap();
        let signer = |key: &VoteKey| self.votes.iter().find(|vote| vote_key(vote) == *key);
        let signatures = committee.keys()[..committee.quorum()].iter().flat_map(|key| {
            let signature: [u8; 64] = signer(key).unwrap().sign(&message).into();
            signature
        });
        ((1 << committee.quorum()) - 1, signatures.collect())
    }

    pub(crate) fn finalize(&self, verified: Verified) -> FinalBlock {
        self.finalize_in(0, self.genesis.committee(), verified)
    }

    pub(crate) fn finalize_in(
        &self,
        epoch: u64,
        committee: &Committee,
        verified: Verified,
    ) -> FinalBlock {
        let block: &Block = verified.block();
        let (signers, signatures) = self.certify_in(epoch, committee, block.id(), 7);
        let certificate =
            Certificate { epoch, view: 7, parent_view: 6, signers, signatures: &signatures };
        let finality = Finality { descendants: &[], certificate };
        FinalBlock::new(Arc::new(verified), &finality)
    }
}

impl Meter {
    pub(crate) fn number(&self) -> u32 {
        self.registration.message.meter.0
    }

    /// Its registration as a transaction.
    pub(crate) fn registers(&self) -> Transaction {
        Transaction::Registration(self.registration.clone())
    }

    pub(crate) fn sign(&self, index: u32, value: i32) -> Signed {
        let schedule = self.registration.message.schedule;
        let index = LinkIndex::new(index, schedule.slots).unwrap();
        let start_s = schedule.opens(index).seconds();
        let reading =
            Reading::single(Channel::net_energy(SLOT_S), start_s, 1, Interval::measured(value));
        let body = self.session.seal(&self.id, index, &reading.to_bytes().unwrap(), true).unwrap();
        let link = self.link(index.get());
        let commitment = request::commitment(&self.id, index, &hash::plain(&body));
        let value = request::request_value(&commitment, &link);
        Signed { slot: schedule.slot(index), index, body, value, link }
    }

    pub(crate) fn link(&self, index: u32) -> Link {
        let message = &self.registration.message;
        hash_chain::walk(message.salt(), message.schedule.slots, index, &self.last)
    }
}

/// Ledger time so many seconds after the start of slot `index`.
pub(crate) fn at(index: u32, seconds: u64) -> LedgerTime {
    LedgerTime::from_seconds((FIRST.0 + u64::from(index) - 1) * u64::from(SLOT_S) + seconds)
}

/// Slots like those of all meters, from one on.
pub(crate) const fn slots_from(first: u64) -> Schedule {
    Schedule { first: Slot(first), slot_s: SLOT_S, window_s: WINDOW_S, slots: SLOTS }
}

pub(crate) fn vote_key(key: &SigningKey) -> VoteKey {
    VoteKey(ed25519_zebra::VerificationKeyBytes::from(key).into())
}
