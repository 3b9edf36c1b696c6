//! A small network and its files: four providers and one meter that signs five slots. The unit tests
//! of the command line have it too.

use std::sync::Arc;

use bkss_ledger::{
    Change, FinalBlock, Genesis, Limits, OpeningBatch, RequestBatch, Rounds, State, Terms,
    Transaction, Witness,
    archive::Writer,
    change,
    genesis::Charter,
    propose,
    receipts::LinkPaths,
    transaction_batch::{Bodies, Shape},
};
use bkss_scheme::{
    Certificate, Committee, Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId,
    ProviderIdentity, Reading, RootMessage, Salt, SdiId, SdiIdentity, SecretKey, Slot,
    certificate::{VoteKey, possess, vote_namespace},
    codec,
    finality::Finality,
    hash,
    hash_chain::{self, Blocks},
    identity::SdiMode,
    reading::{Channel, Decimal, Interval},
    request,
    root_message::{self, Registration, SaltNonce},
    seal::{Body, BodyBytes, KeyId, OpeningKey, Session},
    slot::Schedule,
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use minicbor::Encoder;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub(crate) const METER: MeterId = MeterId(7);
/// The meter's owner.
pub(crate) const OWNER: u16 = 3;
/// What the meter measures in its first slots, kWh.
pub(crate) const VALUES: [&str; 5] = ["0.01", "-0.003", "115.232", "0", "12.50"];

const SLOT_S: u32 = 900;
/// 2024-10-28T00:00:00Z.
const FIRST: Slot = Slot(1_730_073_600 / 900);
const SLOTS: u32 = 13;
const LAST: Link = Link::from_bytes([9; 32]);
const NONCE: SaltNonce = SaltNonce([4; 16]);

/// The files of the network.
pub(crate) struct Made {
    pub(crate) genesis: Vec<u8>,
    pub(crate) archive: Vec<u8>,
    /// By slot, from the first.
    pub(crate) receipts: Vec<Vec<u8>>,
    /// Keys and sessions of each provider. The owner knows the session of the first body.
    pub(crate) providers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Runs the network until the fifth slot is opened. Links are public up to there, so that all
/// receipts but the last can carry their `C_i`.
pub(crate) fn make() -> Made {
    let founders = Founders::new(Rounds::default());
    let (registration, roots) = founders.register();
    let session = Session::start(
        founders.genesis.network(),
        &founders.opening_keys[usize::from(OWNER)].public(),
        &mut ChaCha8Rng::seed_from_u64(2),
    );
    let session = session.unwrap();
    let id = registration.message.id(founders.genesis.network());
    let mut run = Run::new(&founders);
    run.block(at(0, 1), [Transaction::Registration(registration)], true);
    let mut providers = Vec::new();
    for (slot, kwh) in (1..).zip(VALUES) {
        let (body, value) = sign(&session, &id, slot, kwh);
        run.block(at(slot, 1), [founders.request(slot, value)], true);
        run.block(at(slot, 300), [founders.opening(slot, &body)], true);
        if slot == 1 {
            providers = founders.providers(&body);
        }
    }
    let (receipts, archive) = run.finish();
    let blocks = Blocks::new(SLOTS, 2).unwrap();
    let paths = LinkPaths::new(blocks, roots).unwrap();
    let complete = |(slot, receipt): (usize, Vec<u8>)| {
        let completed = paths.complete(&receipt, (5, &link(5)));
        assert_eq!(completed.is_ok(), slot < 5);
        completed.unwrap_or(receipt)
    };
    let receipts = (1..).zip(receipts).map(complete).collect();
    Made { genesis: founders.genesis.encode(), archive, receipts, providers }
}

/// The genesis file of a network in which addresses and vote keys have changed: with handovers.
pub(crate) fn make_with_handovers() -> Vec<u8> {
    let founders = Founders::new(Rounds { blocks: 4, ..Rounds::default() });
    let mut run = Run::new(&founders);
    let change = |provider: u16, body| {
        let mut change = Change::new(body, 9);
        change.sign(founders.genesis.network(), &founders.keys[usize::from(provider)]);
        Transaction::Change(change)
    };
    let address = "elsewhere:1".try_into().unwrap();
    let moves = change(0, change::Body::Address(ProviderId(0), address));
    let secret: [u8; 32] = founders.votes[4].into();
    let (key, signature) = possess(&secret, founders.genesis.network(), ProviderId(1));
    let renews = change(1, change::Body::VoteKey(ProviderId(1), key, signature));
    run.block(at(0, 1), [moves], true);
    run.block(at(0, 2), [renews], true);
    (3..12).for_each(|second| run.block(at(0, second), [], true));
    assert!(run.handovers.len() > 2);
    [founders.genesis.encode(), run.handovers.concat()].concat()
}

/// Link `v_i` of the meter.
pub(crate) fn link(index: u32) -> Link {
    hash_chain::walk(salt(), SLOTS, index, &LAST)
}

fn salt() -> Salt {
    root_message::salt(ProviderId(OWNER), SdiId(0), METER, NONCE)
}

/// Ledger time so many seconds after the start of a slot.
pub(crate) fn at(slot: u32, seconds: u64) -> LedgerTime {
    LedgerTime::from_seconds((FIRST.0 + u64::from(slot) - 1) * u64::from(SLOT_S) + seconds)
}

/// The body of a slot and its `q`; the first introduces the session.
fn sign(session: &Session, id: &Digest, slot: u32, kwh: &str) -> (BodyBytes, Digest) {
    let index = LinkIndex::new(slot, SLOTS).unwrap();
    let kwh = Decimal::parse(kwh).unwrap();
    let (channel, value) = (Channel::net_energy(SLOT_S), Interval::measured(kwh.value));
    let reading = Reading::single(channel, at(slot, 0).seconds(), kwh.exponent + 3, value);
    let body = session.seal(id, index, &reading.to_bytes().unwrap(), slot == 1).unwrap();
    let commitment = request::commitment(id, index, &hash::plain(&body));
    (body, request::request_value(&commitment, &link(slot)))
}

/// Four providers and an SDI with their keys.
pub(crate) struct Founders {
    pub(crate) genesis: Arc<Genesis>,
    keys: Vec<SecretKey>,
    votes: Vec<SigningKey>,
    opening_keys: Vec<OpeningKey>,
    sdi: SecretKey,
}

impl Founders {
    pub(crate) fn new(rounds: Rounds) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let keys: Vec<_> = (0..4).map(|_| SecretKey::generate(&mut rng)).collect();
        // One more than there are providers.
        let votes: Vec<_> = (0..5).map(|byte| SigningKey::from([byte; 32])).collect();
        let opening_keys: Vec<_> =
            (0..4).map(|_| OpeningKey::generate(KeyId(1), &mut rng)).collect();
        let sdi = SecretKey::generate(&mut rng);
        let agreement = Digest([1; 32]);
        let provider = |id: u16| ProviderIdentity {
            id: ProviderId(id),
            name: "provider".try_into().unwrap(),
            key: keys[usize::from(id)].public(),
            agreement,
            sealing_key: opening_keys[usize::from(id)].public(),
            vote_key: vote_key(&votes[usize::from(id)]),
            address: bkss_scheme::identity::Name::new(),
        };
        let name = "sdi".try_into().unwrap();
        let charter = Charter {
            name: "test".try_into().unwrap(),
            agreement,
            start: at(0, 0),
            time_scale: 900,
            terms: Terms { min_slot_s: 1, ..Terms::default() },
            rounds,
            limits: Limits::default(),
            providers: (0..4).map(provider).collect(),
            sdis: vec![SdiIdentity {
                id: SdiId(0),
                name,
                key: sdi.public(),
                mode: SdiMode::Shared,
            }],
        };
        let genesis = Genesis::found(charter, &keys, std::slice::from_ref(&sdi)).unwrap();
        Self { genesis: Arc::new(genesis), keys, votes, opening_keys, sdi }
    }

    /// The meter's registration and the roots of the blocks of its chain.
    fn register(&self) -> (Registration, Vec<Digest>) {
        let mut roots = Vec::new();
        let blocks = Blocks::new(SLOTS, 2).unwrap();
        let ends = hash_chain::build(salt(), blocks, &LAST, |block| roots.push(block.root));
        roots.reverse();
        let message = RootMessage {
            meter: METER,
            owner: ProviderId(OWNER),
            sdi: SdiId(0),
            nonce: NONCE,
            anchor: ends.anchor,
            root: ends.root,
            schedule: Schedule { first: FIRST, slot_s: SLOT_S, window_s: 300, slots: SLOTS },
            device: Digest([7; 32]),
            revocation_lock: None,
        };
        let owner = &self.keys[usize::from(OWNER)];
        (Registration::sign(message, self.genesis.network(), &self.sdi, owner), roots)
    }

    fn request(&self, slot: u32, value: Digest) -> Transaction {
        let (network, slot) = (self.genesis.network(), Slot(FIRST.0 + u64::from(slot) - 1));
        let items = [(0, value)];
        let batch = RequestBatch::sign(network, ProviderId(0), &self.keys[0], slot, items);
        Transaction::Requests(batch)
    }

    fn opening(&self, slot: u32, body: &[u8]) -> Transaction {
        let items = [(0, link(slot))];
        let (network, slot) = (self.genesis.network(), Slot(FIRST.0 + u64::from(slot) - 1));
        let body: Body<'_> = codec::decode("body", body).unwrap();
        let mut bodies = Bodies::new(Shape::of(&body).unwrap());
        assert!(bodies.push(&body));
        let batch = OpeningBatch::sign(network, ProviderId(1), &self.keys[1], slot, items, bodies);
        Transaction::Openings(batch)
    }

    /// Signatures of the first three members of a committee, in view 7 of an epoch.
    fn certify(&self, committee: &Committee, epoch: u8, block: Digest) -> Vec<u8> {
        let mut message = vec![30];
        message.extend_from_slice(&vote_namespace(self.genesis.network()));
        message.extend_from_slice(b"_FINALIZE");
        message.extend_from_slice(&[epoch, 7, 6]);
        message.extend_from_slice(&block.0);
        let signer = |key| self.votes.iter().find(|vote| vote_key(vote) == key).unwrap();
        let sign = |key: &VoteKey| <[u8; 64]>::from(signer(*key).sign(&message));
        committee.keys()[..3].iter().flat_map(sign).collect()
    }

    /// Keys and sessions of all providers; the owner's knows the session of the first body.
    fn providers(&self, first: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let body: Body<'_> = codec::decode("body", first).unwrap();
        let mut providers = Vec::new();
        for (id, (identity, opening)) in (0..).zip(self.keys.iter().zip(&self.opening_keys)) {
            let mut keys = Encoder::new(Vec::new());
            keys.array(5).unwrap().u8(2).unwrap().u16(id).unwrap();
            keys.bytes(&identity.to_bytes()).unwrap().array(1).unwrap();
            keys.bytes(self.votes[usize::from(id)].as_ref()).unwrap().array(1).unwrap();
            keys.array(2).unwrap().u16(1).unwrap().bytes(opening.secret()).unwrap();
            let mut keys = keys.into_writer();
            keys.extend(hash::plain(&keys).0);
            let mut session = Encoder::new(Vec::new());
            session.array(4).unwrap().u32(METER.0).unwrap().u32(1).unwrap().u16(1).unwrap();
            session.bytes(&body.encapsulated.unwrap()).unwrap();
            let session = session.into_writer();
            let mut record = Encoder::new([&[0x82], &session[..]].concat());
            record.bytes(&hash::plain(&session).0[..8]).unwrap();
            let sessions = if id == OWNER { record.into_writer() } else { Vec::new() };
            providers.push((keys, sessions));
        }
        providers
    }
}

fn vote_key(key: &SigningKey) -> VoteKey {
    VoteKey(VerificationKeyBytes::from(key).into())
}

/// Final blocks on their way to receipts and archive.
pub(crate) struct Run<'a> {
    founders: &'a Founders,
    state: State,
    witness: Witness,
    archive: Writer<Vec<u8>>,
    receipts: Vec<Vec<u8>>,
    handovers: Vec<Vec<u8>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(founders: &'a Founders) -> Self {
        let genesis = &founders.genesis;
        Self {
            founders,
            state: State::new(genesis.clone()),
            witness: Witness::new(genesis.clone(), None),
            archive: Writer::new(Vec::new(), genesis.network()).unwrap(),
            receipts: Vec::new(),
            handovers: Vec::new(),
        }
    }

    /// The next block; if it is not certified, the archive has it without a certificate.
    pub(crate) fn block<const N: usize>(
        &mut self,
        time: LedgerTime,
        transactions: [Transaction; N],
        certified: bool,
    ) {
        let verified = propose(&self.state.view(), time, transactions).unwrap();
        let committee = self.state.round().committee.clone();
        self.state.apply(&verified).unwrap();
        let rounds = self.founders.genesis.charter().rounds;
        let epoch = rounds.of(verified.block().header().height);
        let (short, id) = (epoch.try_into().unwrap(), verified.block().id());
        let signatures = self.founders.certify(&committee, short, id);
        let certificate =
            Certificate { epoch, view: 7, parent_view: 6, signers: 0b111, signatures: &signatures };
        self.archive.block(verified.block(), certified.then_some(certificate)).unwrap();
        let finality = Finality { descendants: &[], certificate };
        let block = FinalBlock::new(Arc::new(verified), &finality);
        self.handovers.extend(block.handover());
        let issued = self.witness.follow(block);
        self.receipts.extend(issued.into_iter().map(|issued| issued.receipt));
    }

    /// The receipts and the archive.
    pub(crate) fn finish(self) -> (Vec<Vec<u8>>, Vec<u8>) {
        (self.receipts, self.archive.finish().unwrap())
    }
}
