//! The founding of a world: a consortium, its nodes' configurations, its meters, from one seed.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bkss_ledger::{
    Genesis, Rounds, Terms,
    genesis::{Charter, Weighing},
};
use bkss_node::{
    Config, LedgerClock,
    config::{self, Latest},
};
use bkss_scheme::{
    Digest, Era, LedgerTime, LinkIndex, MeterId, Network, ProviderId, ProviderIdentity, SdiId,
    SdiIdentity, SecretKey, Slot,
    identity::{Name, SdiMode},
    seal::{KeyId, OpeningKey},
    slot::Schedule,
};
use bkss_sdi::issue::{Order, Sdi};
use commonware_cryptography::ed25519::PrivateKey;
use ed25519_zebra::SigningKey;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    Options, SETTLING_SLOTS,
    events::{Reform, Renewal},
    link_of::LinkOf,
    plan::Plan,
};
use crate::{
    Broken,
    scene::{Founders, Provisioned, identity, provision, vote_key},
};

/// Length of a slot, seconds.
pub(super) const SLOT_S: u32 = 4;
/// Length of a window, seconds.
pub(super) const WINDOW_S: u32 = 2;
/// Ledger seconds from the genesis to the first slot, in which meters are registered.
pub(super) const LEAD_S: u64 = 6;
/// Slots of a UTC day. The first slots of a world are the last of a day: sessions change.
const SLOTS_PER_DAY: u64 = 86_400 / SLOT_S as u64;
/// Links per block of a chain, as a power of two.
const BLOCK_LOG2: u8 = 3;
/// Views that a committee member leads in a row.
const TENURE_VIEWS: u32 = 1;
/// The SDI that helps who pays for it.
pub(super) const BRIBED: SdiId = SdiId(1);

/// A chain that a meter was issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfMeter {
    pub(super) meter: MeterId,
    /// Which of the meter's.
    pub(super) chain: u32,
    pub(super) schedule: Schedule,
    /// `v_0`.
    pub(super) anchor: [u8; 32],
}

impl OfMeter {
    /// A link of it.
    pub(super) const fn link(&self, index: LinkIndex) -> LinkOf {
        LinkOf { meter: self.meter, chain: self.chain, index }
    }
}

/// A key that a provider votes with, and whose place on the network it is.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) place: usize,
    pub(super) secret: [u8; 32],
    pub(super) key: PrivateKey,
}

/// What a world begins with.
pub(super) struct Founding {
    pub(super) genesis: Arc<Genesis>,
    /// Identity keys, by the providers' places: founders, then those that will join.
    pub(super) keys: Vec<SecretKey>,
    /// Configurations by place, each with the provider's first vote key.
    pub(super) configs: Vec<Config>,
    /// Vote keys: the first of each place, then those that will be taken.
    pub(super) seats: Vec<Seat>,
    /// What those that will join say of themselves.
    pub(super) joining: BTreeMap<usize, ProviderIdentity>,
    /// The chains of each meter.
    pub(super) meters: Vec<Vec<Provisioned>>,
    /// Whose chain a root message's id is.
    pub(super) issued: BTreeMap<Digest, OfMeter>,
    /// Key of the SDI.
    pub(super) sdi_key: SecretKey,
    /// Key of the one that can be bribed.
    pub(super) bribed: SecretKey,
}

impl Founding {
    /// Draws all keys and chains.
    pub(super) fn new(seed: u64, options: &Options, plan: &Plan) -> Result<Self, Broken> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut founders = Founders::draw(&mut rng, options.providers);
        let schedule = schedule(options);
        let bribed = SecretKey::generate(&mut rng);
        let charter = charter(options, plan.votes, &founders, (&schedule, &bribed));
        let sdi_keys = [founders.sdi_key.clone(), bribed.clone()];
        let sdi = charter.sdis[0].clone();
        let genesis = Arc::new(Genesis::found(charter, &founders.keys, &sdi_keys)?);
        let mut sdi = Sdi::new(sdi, founders.sdi_key.clone(), genesis.network());

        let mut votes: Vec<[u8; 32]> = founders.votes.iter().map(|vote| *vote.as_bytes()).collect();
        let mut joining = BTreeMap::new();
        for place in plan.founders..plan.places() {
            let (key, vote) = (SecretKey::generate(&mut rng), SigningKey::new(&mut rng));
            let sealing = OpeningKey::generate(KeyId(1), &mut rng);
            joining.insert(place, identity(place_id(place), &key, &sealing, vote_key(&vote)));
            founders.keys.push(key);
            votes.push(*vote.as_bytes());
        }
        let places = 0..votes.len();
        let mut seats: Vec<_> = places.zip(&votes).map(|(place, vote)| seat(place, vote)).collect();
        for (_, reform) in &plan.events.reforms {
            if let Reform::VoteKey(place) = reform {
                seats.push(seat(*place, SigningKey::new(&mut rng).as_bytes()));
            }
        }
        let mut issued = BTreeMap::new();
        let mut meters = Vec::new();
        for number in 0..options.meters {
            let mut next = plan.events.renewals.iter().filter(|renewal| renewal.meter == number);
            let renewed = next.next().copied();
            let chains = [Some(0), renewed.map(|Renewal { begins, .. }| begins)];
            let mut of_meter = Vec::new();
            for begins in chains.into_iter().flatten() {
                let order = order(number, plan.founders, &schedule, begins);
                let owner = usize::from(order.owner.0);
                let keys = (&founders.keys[owner], &founders.opening_keys[owner]);
                let rounds = genesis.charter().rounds.length();
                let era = (rounds, Era::new(0, genesis.committee().clone()));
                let made = provision(&mut sdi, order, keys, era, &mut rng)?;
                note(&mut issued, genesis.network(), &made, of_meter.len());
                of_meter.push(made);
            }
            meters.push(of_meter);
        }
        let members = founders.keys.iter().zip(&seats).enumerate();
        let configs = members.map(|(place, (key, seat))| config_of(&genesis, place, key, seat));
        Ok(Self {
            configs: configs.collect(),
            keys: founders.keys.clone(),
            sdi_key: founders.sdi_key,
            genesis,
            seats,
            joining,
            meters,
            issued,
            bribed,
        })
    }
}

fn charter(
    options: &Options,
    votes: Weighing,
    founders: &Founders,
    (schedule, bribed): (&Schedule, &SecretKey),
) -> Charter {
    let rounds = Rounds {
        blocks: options.round_blocks,
        committee: options.committee,
        alternates: 2,
        tenure_views: TENURE_VIEWS,
        votes,
    };
    let start = LedgerTime(schedule.begins().0 - 1000 * LEAD_S);
    let terms =
        Terms { min_slot_s: 1, reveal_s: 3600, keep_s: 3600, grid_s: WINDOW_S, ..Terms::default() };
    let mut charter = Charter { start, terms, ..founders.charter("world", rounds) };
    let (key, mode) = (bribed.public(), SdiMode::Shared);
    charter.sdis.push(SdiIdentity { id: BRIBED, name: Name::new(), key, mode });
    charter
}

fn order(number: u32, founders: usize, schedule: &Schedule, begins: u32) -> Order {
    let (first, slots) = (Slot(schedule.first.0 + u64::from(begins)), schedule.slots - begins);
    Order {
        meter: MeterId(number),
        owner: place_id(number as usize % founders),
        schedule: Schedule { first, slots, ..*schedule },
        serial: number.to_be_bytes().to_vec(),
        block_log2: BLOCK_LOG2,
        revocable_by_secret: true,
    }
}

fn note(
    issued: &mut BTreeMap<Digest, OfMeter>,
    network: Network,
    made: &Provisioned,
    before: usize,
) {
    let message = &made.registration.message;
    let of_meter = OfMeter {
        meter: message.meter,
        chain: u32::try_from(before).unwrap_or(u32::MAX),
        schedule: message.schedule,
        anchor: *message.anchor.as_bytes(),
    };
    issued.insert(message.id(network), of_meter);
}

/// The slots of a world, and of every meter's first chain.
pub(super) fn schedule(options: &Options) -> Schedule {
    let early = u64::from(options.slots / 2);
    let first = Slot(1000 * SLOTS_PER_DAY - early);
    let slots = options.slots + SETTLING_SLOTS;
    Schedule { first, slot_s: SLOT_S, window_s: WINDOW_S, slots }
}

/// The clock of a provider that is ahead of the world's by so many milliseconds.
pub(super) fn clock(genesis: &Genesis, ahead_ms: i64) -> LedgerClock {
    let start = genesis.charter().start.0.saturating_add_signed(ahead_ms);
    LedgerClock::new(SystemTime::UNIX_EPOCH, LedgerTime(start), 1)
}

/// The provider with a place among founders and those that join.
pub(super) fn place_id(place: usize) -> ProviderId {
    ProviderId(u16::try_from(place).unwrap_or(u16::MAX))
}

fn seat(place: usize, secret: &[u8; 32]) -> Seat {
    Seat { place, secret: *secret, key: config::vote_key(secret).0 }
}

fn config_of(genesis: &Arc<Genesis>, place: usize, key: &SecretKey, seat: &Seat) -> Config {
    Config {
        genesis: genesis.clone(),
        provider: place_id(place),
        identity: key.clone(),
        vote_key: seat.key.clone(),
        clock: clock(genesis, 0),
        pacing: super::PACING,
        trust: None,
        addresses: BTreeMap::new(),
        snapshot_rounds: 1,
        keep_bodies_days: None,
        rekey: None,
        eras: Vec::new(),
        latest: Latest::default(),
        events_from: 1,
        vote_without_memory: false,
        partition: format!("provider-{place}"),
    }
}
