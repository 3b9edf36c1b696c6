//! The founding of a world: a consortium, its nodes' configurations, its meters, from one seed.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bkss_ledger::{
    Genesis, Rounds, Terms,
    genesis::{Charter, Weighing},
};
use bkss_node::{Config, LedgerClock, config};
use bkss_scheme::{Era, LedgerTime, MeterId, ProviderId, SecretKey, Slot, slot::Schedule};
use bkss_sdi::issue::Order;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{Options, SETTLING_SLOTS};
use crate::{
    Broken,
    scene::{Founders, Provisioned, provision},
};

/// Length of a slot, seconds.
pub(super) const SLOT_S: u32 = 4;
/// Length of a window, seconds.
pub(super) const WINDOW_S: u32 = 2;
/// Ledger seconds from the genesis to the first slot, in which meters are registered.
pub(super) const LEAD_S: u64 = 4;
/// Slots of a UTC day. The first slots of a world are the last of a day: sessions change.
const SLOTS_PER_DAY: u64 = 86_400 / SLOT_S as u64;
/// Links per block of a chain, as a power of two.
const BLOCK_LOG2: u8 = 3;
/// Views that a committee member leads in a row.
const TENURE_VIEWS: u32 = 1;

/// What a world begins with.
pub(super) struct Founding {
    pub(super) genesis: Arc<Genesis>,
    pub(super) keys: Vec<SecretKey>,
    pub(super) configs: Vec<Config>,
    pub(super) meters: Vec<Provisioned>,
}

impl Founding {
    /// Draws all keys and chains.
    pub(super) fn new(seed: u64, options: &Options) -> Result<Self, Broken> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let founders = Founders::draw(&mut rng, options.providers);
        let rounds = Rounds {
            blocks: options.round_blocks,
            committee: options.committee,
            alternates: 2,
            tenure_views: TENURE_VIEWS,
            votes: Weighing::Members,
        };
        let schedule = schedule(options);
        let start = LedgerTime(schedule.begins().0 - 1000 * LEAD_S);
        let grid_s = WINDOW_S;
        let terms =
            Terms { min_slot_s: 1, reveal_s: 3600, keep_s: 3600, grid_s, ..Terms::default() };
        let charter = Charter { start, terms, ..founders.charter("world", rounds) };
        let (genesis, mut sdi) = founders.found(charter)?;
        let mut meters = Vec::new();
        for number in 0..options.meters {
            let owner = number as usize % founders.keys.len();
            let order = Order {
                meter: MeterId(number),
                owner: place_id(owner),
                schedule,
                serial: number.to_be_bytes().to_vec(),
                block_log2: BLOCK_LOG2,
                revocable_by_secret: false,
            };
            let keys = (&founders.keys[owner], &founders.opening_keys[owner]);
            let era = (rounds.length(), Era::new(0, genesis.committee().clone()));
            meters.push(provision(&mut sdi, order, keys, era, &mut rng)?);
        }
        let votes = founders.votes.iter().map(|vote| *vote.as_bytes());
        let members = votes.zip(&founders.keys).enumerate();
        let configs = members.map(|(place, (vote, key))| config_of(&genesis, place, key, vote));
        Ok(Self { configs: configs.collect(), genesis, keys: founders.keys, meters })
    }
}

/// The slots of every meter's chain.
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

/// The provider with a place among the founders.
pub(super) fn place_id(place: usize) -> ProviderId {
    ProviderId(u16::try_from(place).unwrap_or(u16::MAX))
}

fn config_of(genesis: &Arc<Genesis>, place: usize, key: &SecretKey, vote: [u8; 32]) -> Config {
    Config {
        genesis: genesis.clone(),
        provider: place_id(place),
        identity: key.clone(),
        vote_key: config::vote_key(&vote).0,
        clock: clock(genesis, 0),
        pacing: super::PACING,
        trust: None,
        addresses: BTreeMap::new(),
        snapshot_rounds: 1,
        keep_bodies_days: None,
        rekey: None,
        events_from: 1,
        vote_without_memory: false,
        partition: format!("provider-{place}"),
    }
}
