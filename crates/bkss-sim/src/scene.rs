//! A consortium with meters, all real, from one seed: what attacks and measurements run on.
//!
//! Providers, SDI, meters and ledger are the production code; what is left out is the engine. Blocks
//! are agreed on by calling [`bkss_ledger::verify`] as each validator would, and certified by signing
//! with the committee's keys, so that an adversary can be given any of them.

mod broken;
mod founding;
mod provisioned;
mod votes;
mod walk;

use std::{slice, sync::Arc};

use bkss_ledger::{
    Block, FinalBlock, Genesis, OpeningBatch, Refusal, RequestBatch, Rounds, State, Transaction,
    Verified, Witness,
    genesis::Weighing,
    propose,
    receipts::Issued,
    transaction_batch::{Bodies, Row, Shape},
    verify,
};
use bkss_meter::{Journal, Meter, Parameters, journal::MemoryFlash};
use bkss_scheme::{
    Certified, Committee, Digest, Era, Eras, Header, LedgerTime, Link, LinkIndex, MeterId, Network,
    ProviderId, Reading, SecretKey, Slot,
    certificate::{NotFinal, VoteKey},
    codec,
    finality::Finality,
    hash_chain::Blocks,
    reading::{Channel, Interval},
    root_message::Registration,
    seal::{Body, OpeningKey},
    slot::Schedule,
};
use bkss_sdi::issue::{Order, Sdi};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub use broken::Broken;
pub(crate) use founding::{Founders, identity};
pub(crate) use provisioned::{Provisioned, provision};
pub(crate) use votes::Votes;

/// Slot length `L`, seconds.
pub(crate) const SLOT_S: u32 = 900;
/// Request window `W`, seconds.
pub(crate) const WINDOW_S: u32 = 300;
/// `g_0` of all chains.
pub(crate) const FIRST: Slot = Slot(2_000_000);
/// Slots of a chain.
pub(crate) const SLOTS: u32 = 64;
/// Links per block of a chain, as a power of two.
const BLOCK_LOG2: u8 = 3;

/// Rounds so long that a scene stays in its first one.
pub(crate) const LONG_ROUND: Rounds = Rounds {
    blocks: 1 << 20,
    committee: 21,
    alternates: 10,
    tenure_views: 1,
    votes: Weighing::Members,
};

/// A meter in software.
pub(crate) type SoftwareMeter = Meter<MemoryFlash<256>, Vec<Link>>;

/// A provisioned meter with its journal, and what only the scene knows of it.
pub(crate) struct Home {
    /// Its number in the registry.
    pub(crate) row: Row,
    /// The meter.
    pub(crate) meter: SoftwareMeter,
    /// What it was provisioned with.
    pub(crate) parameters: Parameters,
    /// `[M_r, sdi_sig, sp_sig]`.
    pub(crate) registration: Registration,
    /// Shape of its chain, and the public root of each block.
    pub(crate) blocks: (Blocks, Vec<Digest>),
    /// `v_n`: everything. Attacks use it where the adversary is given the meter's memory.
    pub(crate) last: Link,
}

impl Home {
    /// `mr`.
    pub(crate) fn id(&self) -> Digest {
        self.registration.message.id(self.parameters.network)
    }

    /// `v_i`, as the meter itself would derive it.
    pub(crate) fn link(&self, index: u32) -> Link {
        bkss_scheme::hash_chain::walk(self.registration.message.salt(), SLOTS, index, &self.last)
    }
}

/// An item of an opening batch: row, `v_i`, encoded body.
pub(crate) type Opened = (Row, Link, Vec<u8>);

/// Providers, SDI, ledger and what was issued.
pub(crate) struct Scene {
    /// The only source of randomness.
    pub(crate) rng: ChaCha8Rng,
    /// What the network is founded on.
    pub(crate) genesis: Arc<Genesis>,
    /// Identity keys of the providers.
    pub(crate) keys: Vec<SecretKey>,
    /// Secret sealing keys of the providers.
    pub(crate) opening_keys: Vec<OpeningKey>,
    /// Vote keys in the committee's order.
    votes: Vec<SigningKey>,
    /// The SDI; `None` once it is gone.
    pub(crate) sdi: Option<Sdi>,
    /// The SDI's key, for attacks by a corrupted one.
    pub(crate) sdi_key: SecretKey,
    /// The finalized ledger.
    pub(crate) state: State,
    /// Final blocks, first one first.
    pub(crate) blocks: Vec<FinalBlock>,
    /// Receipts, as they were issued.
    pub(crate) receipts: Vec<Issued>,
    witness: Witness,
}

impl Scene {
    /// So many founding providers, one SDI, no meter yet.
    pub(crate) fn new(seed: u64, providers: u16) -> Result<Self, Broken> {
        Self::founded(seed, providers, "", LONG_ROUND)
    }

    /// As [`Self::new`], with the same keys for the same seed, under another name and with rounds of
    /// another kind.
    pub(crate) fn founded(
        seed: u64,
        providers: u16,
        name: &str,
        rounds: Rounds,
    ) -> Result<Self, Broken> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let founders = Founders::draw(&mut rng, providers);
        let (genesis, sdi) = founders.found(founders.charter(name, rounds))?;
        let Founders { keys, opening_keys, votes, sdi_key } = founders;
        Ok(Self {
            sdi: Some(sdi),
            sdi_key,
            state: State::new(genesis.clone()),
            witness: Witness::new(genesis.clone(), None),
            blocks: Vec::new(),
            receipts: Vec::new(),
            rng,
            genesis,
            keys,
            opening_keys,
            votes,
        })
    }

    /// Four providers and so many registered meters that know it.
    pub(crate) fn with_meters(seed: u64, meters: u32) -> Result<(Self, Vec<Home>), Broken> {
        let mut scene = Self::new(seed, 4)?;
        let mut homes = Vec::new();
        for number in 0..meters {
            let home = scene.provision(number)?;
            homes.push(home);
        }
        scene.register(&homes)?;
        for home in &mut homes {
            let proof = scene.registration_proof(home)?;
            home.meter.confirm_registration(&codec::decode("proof", &proof)?)?;
        }
        Ok((scene, homes))
    }

    /// The network.
    pub(crate) fn network(&self) -> Network {
        self.genesis.network()
    }

    /// The committee.
    pub(crate) fn committee(&self) -> Committee {
        self.state.round().committee.clone()
    }

    /// Whether a header is final under the committee in office.
    pub(crate) fn certified(
        &self,
        finality: &Finality<'_>,
        header: &Header,
    ) -> Result<Certified, NotFinal> {
        let era = era(&self.state);
        let (network, rounds) = (self.network(), self.genesis.charter().rounds.length());
        Eras { network, rounds, eras: slice::from_ref(&era) }.certified(finality, header)
    }

    /// Provisions a meter of provider `number mod n`; it is not registered yet.
    pub(crate) fn provision(&mut self, number: u32) -> Result<Home, Broken> {
        let owner = number as usize % self.keys.len();
        let schedule = Schedule { first: FIRST, slot_s: SLOT_S, window_s: WINDOW_S, slots: SLOTS };
        let order = Order {
            meter: MeterId(number),
            owner: provider(owner),
            schedule,
            serial: number.to_be_bytes().to_vec(),
            block_log2: BLOCK_LOG2,
            revocable_by_secret: false,
        };
        let sdi = self.sdi.as_mut().ok_or(Broken::DoesNotHold("the SDI"))?;
        let keys = (&self.keys[owner], &self.opening_keys[owner]);
        let era = era(&self.state);
        let rounds = self.genesis.charter().rounds.length();
        let provisioned = provision(sdi, order, keys, (rounds, era), &mut self.rng)?;
        let Provisioned { parameters, registration, keys, blocks, last, .. } = provisioned;
        let Ok(journal) = Journal::open(MemoryFlash::default());
        let meter = Meter::new(parameters.clone(), journal, keys);
        Ok(Home { row: number, meter, parameters, registration, blocks, last })
    }

    /// Registers meters in a block before their first slot.
    pub(crate) fn register(&mut self, homes: &[Home]) -> Result<(), Broken> {
        let registration = |home: &Home| Transaction::Registration(home.registration.clone());
        let registrations: Vec<_> = homes.iter().map(registration).collect();
        let time = LedgerTime(self.state.head().time.0 + 1000);
        self.block(time, &registrations)?;
        Ok(())
    }

    /// Proof for a meter that it is registered.
    pub(crate) fn registration_proof(&self, home: &Home) -> Result<Vec<u8>, Broken> {
        let meter = home.registration.message.meter;
        self.witness.registration_proof(meter).ok_or(Broken::DoesNotHold("registration"))
    }

    /// Request values of one slot, signed by a gateway.
    pub(crate) fn requests(
        &self,
        gateway: usize,
        index: u32,
        items: impl IntoIterator<Item = (Row, Digest)>,
    ) -> Transaction {
        let key = &self.keys[gateway];
        let batch = RequestBatch::sign(self.network(), provider(gateway), key, slot(index), items);
        Transaction::Requests(batch)
    }

    /// Openings of one slot, signed by a gateway.
    pub(crate) fn openings(
        &self,
        gateway: usize,
        index: u32,
        items: &[Opened],
    ) -> Result<Transaction, Broken> {
        let decoded: Result<Vec<Body<'_>>, _> =
            items.iter().map(|(_, _, body)| codec::decode("body", body)).collect();
        let decoded = decoded?;
        let shape = decoded.first().and_then(Shape::of).ok_or(Broken::DoesNotHold("body"))?;
        let mut bodies = Bodies::new(shape);
        if !decoded.iter().all(|body| bodies.push(body)) {
            return Err(Broken::DoesNotHold("one shape of all bodies"));
        }
        let links = items.iter().map(|(row, link, _)| (*row, link.clone()));
        let key = &self.keys[gateway];
        let (network, gateway) = (self.network(), provider(gateway));
        let batch = OpeningBatch::sign(network, gateway, key, slot(index), links, bodies);
        Ok(Transaction::Openings(batch))
    }

    /// A block as a leader who tries everything offers it: each transaction as it is, with the trees
    /// a validator would compute.
    pub(crate) fn offered(
        &self,
        time: LedgerTime,
        transactions: &[Transaction],
    ) -> Result<Verified, Refusal> {
        let view = self.state.view();
        let mut header = self.header(time)?;
        loop {
            let block = Block::new(self.network(), header.clone(), transactions.to_vec());
            match verify(&view, block) {
                Err(Refusal::Tree { tree: "requests", expected, .. }) => header.requests = expected,
                Err(Refusal::Tree { tree: "openings", expected, .. }) => header.openings = expected,
                Err(Refusal::Handover { what: "to members", expected, .. }) => {
                    header.members = expected;
                }
                Err(Refusal::Handover { what: "to committee", expected, .. }) => {
                    header.next_committee = expected;
                }
                verdict => return verdict,
            }
        }
    }

    /// The header of an empty next block.
    pub(crate) fn header(&self, time: LedgerTime) -> Result<Header, Refusal> {
        Ok(propose(&self.state.view(), time, [])?.block().header().clone())
    }

    /// A block that is agreed on: verified, certified by a quorum, applied, followed.
    pub(crate) fn block(
        &mut self,
        time: LedgerTime,
        transactions: &[Transaction],
    ) -> Result<Arc<Verified>, Broken> {
        let verified = Arc::new(self.offered(time, transactions)?);
        let votes = self.quorum_votes(verified.block().id());
        self.state.apply(&verified)?;
        let block = FinalBlock::new(verified.clone(), &votes.finality());
        self.blocks.push(block.clone());
        self.receipts.extend(self.witness.follow(block));
        Ok(verified)
    }
}

/// The committee in office, and since when.
fn era(state: &State) -> Era {
    Era::new(state.round().number, state.round().committee.clone())
}

/// Ledger time so many seconds after the start of slot `index`.
pub(crate) fn at(index: u32, seconds: u64) -> LedgerTime {
    LedgerTime::from_seconds(slot(index).0 * u64::from(SLOT_S) + seconds)
}

/// The slot of a link.
pub(crate) fn slot(index: u32) -> Slot {
    Slot(FIRST.0 + u64::from(index) - 1)
}

/// A link's index in a chain of the scene.
pub(crate) fn link_index(index: u32) -> Result<LinkIndex, Broken> {
    LinkIndex::new(index, SLOTS).ok_or(Broken::DoesNotHold("link index"))
}

/// A reading of one interval.
pub(crate) fn reading(value: i32) -> Reading {
    let start_s = FIRST.0 * u64::from(SLOT_S);
    Reading::single(Channel::net_energy(SLOT_S), start_s, 0, Interval::measured(value))
}

/// Canonical bytes.
pub(crate) fn encoded(value: &impl minicbor::Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    bytes
}

fn provider(number: usize) -> ProviderId {
    ProviderId(u16::try_from(number).unwrap_or(u16::MAX))
}

/// The public half of a vote key.
pub(crate) fn vote_key(key: &SigningKey) -> VoteKey {
    VoteKey(VerificationKeyBytes::from(key).into())
}
