//! A network to measure on: real chains, bodies, batches and blocks, made from one seed.
//!
//! Some meters have chains of a year of quarter hours, all others short ones that are made quickly.
//! Every meter signs in every slot, so that each block is as full as that of a town.

use std::sync::Arc;

use bkss_ledger::{
    FinalBlock, Genesis, Limits, OpeningBatch, RequestBatch, Rounds, State, Terms, Transaction,
    Verified, Witness,
    genesis::Charter,
    propose,
    receipts::{Issued, LinkPaths},
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{
    Certificate, Digest, LedgerTime, Link, LinkIndex, MeterId, Network, ProviderId,
    ProviderIdentity, Reading, RootMessage, SdiId, SdiIdentity, SecretKey, Slot, codec,
    finality::Finality,
    hash,
    hash_chain::{self, Blocks},
    identity::SdiMode,
    reading::{Channel, Interval},
    request,
    root_message::{self, Registration, SaltNonce},
    seal::{Body, BodyBytes, KeyId, OpeningKey, Session},
    slot::Schedule,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

use super::SetupError;

const SLOT_S: u32 = 900;
const WINDOW_S: u32 = 300;
const FIRST: Slot = Slot(2_000_000);
/// Slots that are signed before the measured one.
pub(super) const HISTORY: u32 = 4;
/// A year of quarter hours.
const YEAR: u32 = 365 * 96;
/// Items of a batch.
const BATCH: usize = 2048;

/// How many meters take part.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// All of them.
    pub(super) meters: u32,
    /// Those with chains of a year, all of provider 0.
    pub(super) year_meters: u32,
}

/// What is measured on.
pub(super) struct Bench {
    /// The ledger with the requests of the measured slot, not yet its openings.
    pub(super) state: State,
    /// The block of those openings, encoded.
    pub(super) block: Vec<u8>,
    /// How many openings it has.
    pub(super) openings: usize,
    /// Receipts of the meters with long chains, each with its `C_i`.
    pub(super) receipts: Vec<Vec<u8>>,
}

/// Makes the network and runs it up to the measured block.
pub(super) fn build(size: Size) -> Result<Bench, SetupError> {
    let mut founders = Founders::new()?;
    let meters: Vec<_> =
        (0..size.meters).map(|number| founders.meter(number, size)).collect::<Result<_, _>>()?;
    let mut state = State::new(founders.genesis.clone());
    let mut witness = Witness::new(founders.genesis.clone(), Some(ProviderId(0)));
    let mut issued = Vec::new();
    let mut step = |state: &mut State, time, transactions: Vec<Transaction>| {
        let verified = apply(state, time, transactions)?;
        issued.extend(witness.follow(uncertified(verified)));
        Ok::<_, SetupError>(())
    };
    for (second, chunk) in (1..).zip(meters.chunks(512)) {
        let registrations = chunk.iter().map(|m| Transaction::Registration(m.registration.clone()));
        step(&mut state, at(0, second), registrations.collect())?;
    }
    for index in 1..=HISTORY {
        let signed = sign_all(&meters, index)?;
        step(&mut state, at(index, 1), founders.requests(index, &signed))?;
        step(&mut state, at(index, WINDOW_S.into()), founders.openings(index, &signed)?)?;
    }
    let measured = HISTORY + 1;
    let signed = sign_all(&meters, measured)?;
    step(&mut state, at(measured, 1), founders.requests(measured, &signed))?;
    let openings = founders.openings(measured, &signed)?;
    let block = propose(&state.view(), at(measured, WINDOW_S.into()), openings)?;
    let receipts = issued.iter().map(|one| complete(&meters, one)).collect::<Result<_, _>>()?;
    Ok(Bench { state, openings: block.openings().len(), block: block.block().encode(), receipts })
}

/// Builds a block and applies it.
fn apply(
    state: &mut State,
    time: LedgerTime,
    transactions: Vec<Transaction>,
) -> Result<Verified, SetupError> {
    let verified = propose(&state.view(), time, transactions)?;
    state.apply(&verified)?;
    Ok(verified)
}

/// Certificates count as checked before the measurement: these have the right size only.
fn uncertified(verified: Verified) -> FinalBlock {
    let signatures = &[0; 3 * 64];
    let certificate = Certificate { epoch: 0, view: 7, parent_view: 6, signers: 0b111, signatures };
    FinalBlock::new(Arc::new(verified), &Finality { descendants: &[], certificate })
}

/// Ledger time so many seconds after the start of slot `index`.
fn at(index: u32, seconds: u64) -> LedgerTime {
    LedgerTime::from_seconds((FIRST.0 + u64::from(index) - 1) * u64::from(SLOT_S) + seconds)
}

/// Adds `C_i` to a receipt, as its owner does once the links of its block are public.
fn complete(meters: &[Meter], issued: &Issued) -> Result<Vec<u8>, SetupError> {
    let meter = &meters[issued.meter.0 as usize];
    let paths = LinkPaths::new(meter.blocks, meter.roots.clone())?;
    Ok(paths.complete(&issued.receipt, (meter.blocks.last(0), &meter.checkpoint))?)
}

struct Founders {
    genesis: Arc<Genesis>,
    keys: Vec<SecretKey>,
    sdi: SecretKey,
    rng: ChaCha8Rng,
}

struct Meter {
    registration: Registration,
    id: Digest,
    blocks: Blocks,
    /// Last link of the first block of links.
    checkpoint: Link,
    roots: Vec<Digest>,
    session: Session,
}

/// What a meter sends for one slot.
struct Signed {
    body: BodyBytes,
    value: Digest,
    link: Link,
}

impl Founders {
    fn new() -> Result<Self, SetupError> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let keys: Vec<_> = (0..4).map(|_| SecretKey::generate(&mut rng)).collect();
        let sdi = SecretKey::generate(&mut rng);
        let agreement = hash::hash(hash::Tag::Agreement, &[b"bench"]);
        let mut providers = Vec::new();
        for (id, key) in (0..).zip(&keys) {
            let mut vote_key = [0; 32];
            rng.fill_bytes(&mut vote_key);
            providers.push(ProviderIdentity {
                id: ProviderId(id),
                name: bkss_scheme::identity::Name::new(),
                key: key.public(),
                agreement,
                sealing_key: OpeningKey::generate(KeyId(1), &mut rng).public(),
                vote_key: bkss_node::config::vote_key(&vote_key).1,
                address: bkss_scheme::identity::Name::new(),
            });
        }
        let name = bkss_scheme::identity::Name::new();
        let sdis =
            vec![SdiIdentity { id: SdiId(0), name, key: sdi.public(), mode: SdiMode::Shared }];
        let charter = Charter {
            name: bkss_scheme::identity::Name::new(),
            agreement,
            start: LedgerTime::from_seconds((FIRST.0 - 1) * u64::from(SLOT_S)),
            time_scale: 1,
            terms: Terms { min_slot_s: 1, ..Terms::default() },
            rounds: Rounds::default(),
            limits: Limits::default(),
            providers,
            sdis,
        };
        let genesis = Arc::new(Genesis::found(charter, &keys, std::slice::from_ref(&sdi))?);
        Ok(Self { genesis, keys, sdi, rng })
    }

    fn network(&self) -> Network {
        self.genesis.network()
    }

    fn meter(&mut self, number: u32, size: Size) -> Result<Meter, SetupError> {
        let long = number < size.year_meters;
        let slots = if long { YEAR } else { HISTORY + 1 };
        let owner = if long { 0 } else { number % 3 + 1 };
        let blocks = if long { Blocks::usual(slots) } else { Blocks::new(slots, 3) };
        let blocks = blocks.ok_or(SetupError::Shape)?;
        let (mut last, mut nonce) = ([0; 32], SaltNonce([0; 16]));
        self.rng.fill_bytes(&mut last);
        self.rng.fill_bytes(&mut nonce.0);
        let (meter, last) = (MeterId(number), Link::from_bytes(last));
        let owner_id = ProviderId(u16::try_from(owner).unwrap_or_default());
        let salt = root_message::salt(owner_id, SdiId(0), meter, nonce);
        let mut roots = Vec::new();
        let mut checkpoint = last.clone();
        let ends = hash_chain::build(salt, blocks, &last, |block| {
            roots.push(block.root);
            checkpoint.clone_from(&block.checkpoint);
        });
        roots.reverse();
        let owner_key = &self.keys[owner as usize];
        let message = RootMessage {
            meter,
            owner: owner_id,
            sdi: SdiId(0),
            nonce,
            anchor: ends.anchor,
            root: ends.root,
            schedule: Schedule { first: FIRST, slot_s: SLOT_S, window_s: WINDOW_S, slots },
            device: Digest([7; 32]),
            revocation_lock: None,
        };
        let (id, network) = (message.id(self.network()), self.network());
        let registration = Registration::sign(message, network, &self.sdi, owner_key);
        let sealing = self.genesis.charter().providers[owner as usize].sealing_key;
        let session = Session::start(network, &sealing, &mut self.rng)?;
        Ok(Meter { registration, id, blocks, checkpoint, roots, session })
    }

    fn requests(&self, index: u32, signed: &[Signed]) -> Vec<Transaction> {
        let batches = rows(signed).map(|(gateway, row, chunk)| {
            let items = (row..).zip(chunk.iter().map(|signed| signed.value));
            let key = &self.keys[usize::from(gateway.0)];
            let batch = RequestBatch::sign(self.network(), gateway, key, slot(index), items);
            Transaction::Requests(batch)
        });
        batches.collect()
    }

    fn openings(&self, index: u32, signed: &[Signed]) -> Result<Vec<Transaction>, SetupError> {
        let batches = rows(signed).map(|(gateway, row, chunk)| {
            let body = |signed| codec::decode::<Body<'_>>("body", signed);
            let mut bodies =
                Bodies::new(Shape::of(&body(&chunk[0].body)?).ok_or(SetupError::Shape)?);
            for signed in chunk {
                if !bodies.push(&body(&signed.body)?) {
                    return Err(SetupError::Shape);
                }
            }
            let items = (row..).zip(chunk.iter().map(|signed| signed.link.clone()));
            let key = &self.keys[usize::from(gateway.0)];
            let batch =
                OpeningBatch::sign(self.network(), gateway, key, slot(index), items, bodies);
            Ok(Transaction::Openings(batch))
        });
        batches.collect()
    }
}

/// Batches with their gateway, in turn, and the registry number of their first meter.
fn rows(signed: &[Signed]) -> impl Iterator<Item = (ProviderId, Row, &[Signed])> {
    let gateways = (0..4).map(ProviderId).cycle();
    let firsts = (0..).step_by(BATCH);
    gateways.zip(firsts).zip(signed.chunks(BATCH)).map(|((gateway, row), c)| (gateway, row, c))
}

const fn slot(index: u32) -> Slot {
    Slot(FIRST.0 + index as u64 - 1)
}

fn sign_all(meters: &[Meter], index: u32) -> Result<Vec<Signed>, SetupError> {
    meters.iter().map(|meter| meter.sign(index)).collect()
}

impl Meter {
    /// One interval, sealed without the session's key, as all but the first of a day are.
    fn sign(&self, index: u32) -> Result<Signed, SetupError> {
        let message = &self.registration.message;
        let index = LinkIndex::new(index, message.schedule.slots).ok_or(SetupError::Shape)?;
        let start_s = message.schedule.opens(index).seconds();
        let channel = Channel::net_energy(SLOT_S);
        let reading = Reading::single(channel, start_s, 1, Interval::measured(26));
        let plaintext = reading.to_bytes().ok_or(SetupError::Shape)?;
        let body = self.session.seal(&self.id, index, &plaintext, false)?;
        // All slots of the measurement are in the first block of links.
        let last = self.blocks.last(0);
        let link = hash_chain::walk(message.salt(), last, index.get(), &self.checkpoint);
        let commitment = request::commitment(&self.id, index, &hash::plain(&body));
        let value = request::request_value(&commitment, &link);
        Ok(Signed { body, value, link })
    }
}
