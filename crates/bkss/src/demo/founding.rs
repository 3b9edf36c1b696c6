//! Founding the demonstration's network: keys, genesis, chains of all meters.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bkss_ledger::{Genesis, Limits, Rounds, Terms, genesis::Charter};
use bkss_node::config::vote_key;
use bkss_scheme::{
    LedgerTime, MeterId, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey, Slot,
    hash::{Tag, hash},
    identity::SdiMode,
    reading::Decimal,
    slot::Schedule,
};
use bkss_sdi::{Order, Sdi};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::Rng;

use super::{CHAIN_SLOTS, GRID_S, LEAD_S, SLOT_S, TIME_SCALE, WINDOW_S};
use crate::{
    files,
    households::Household,
    meters::{
        CHAIN_BLOCK_LOG2, Plan, Progress, Provisioned, RunError, SoftwareFlash, SoftwareMeter,
        provision, write_whole,
    },
    provider::Keys,
    sessions::Sessions,
};

/// A network before its first block.
pub(super) struct Founding {
    /// The genesis.
    pub(super) genesis: Arc<Genesis>,
    /// Keys of each provider.
    pub(super) keys: Vec<Keys>,
    /// The meters, in the order of the households.
    pub(super) meters: Vec<Provisioned>,
    /// What each measured, and a seed of its randomness.
    readings: Vec<(Vec<Decimal>, [u8; 32])>,
}

impl Founding {
    /// Makes all keys and chains from a seed; the first interval starts at `start_s`.
    pub(super) fn new(
        seed: u64,
        providers: u16,
        start_s: u64,
        households: &[Household],
    ) -> Result<Self, RunError> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let keys: Vec<_> =
            (0..providers).map(|id| Keys::generate(ProviderId(id), &mut rng)).collect();
        let sdi_key = SecretKey::generate(&mut rng);
        let sdi = SdiIdentity {
            id: SdiId(0),
            name: name("demonstration SDI")?,
            key: sdi_key.public(),
            mode: SdiMode::Shared,
        };
        let charter = charter(&keys, sdi.clone(), first_slot(start_s))?;
        let signing: Vec<_> = keys.iter().map(|keys| keys.identity.clone()).collect();
        let genesis = Genesis::found(charter, &signing, std::slice::from_ref(&sdi_key))
            .map_err(RunError::step("genesis"))?;
        let genesis = Arc::new(genesis);
        let mut sdi = Sdi::new(sdi, sdi_key, genesis.network());
        let (mut meters, mut readings) = (Vec::new(), Vec::new());
        for (number, household) in households.iter().enumerate() {
            let owner = &keys[number % keys.len()];
            let order = order(household.meter, owner.id, start_s);
            let sealing_key = owner.opening().public();
            let plan = Plan { eras: genesis.anchors().eras, sealing_key, order, instead: None };
            // Nothing of a demonstration outlives it.
            let mut commit = |sdi: &mut Sdi| {
                drop(sdi.take_records());
                Ok(())
            };
            meters.push(provision(&mut sdi, &mut commit, plan, owner, &mut rng)?);
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            readings.push((household.readings.clone(), seed));
        }
        Ok(Self { genesis, keys, meters, readings })
    }

    /// Ledger time of the genesis block.
    pub(super) fn genesis_time(&self) -> LedgerTime {
        self.genesis.charter().start
    }

    /// Writes the genesis and one directory per provider.
    pub(super) fn write(&self, dir: &Path) -> Result<(), RunError> {
        let genesis = self.genesis.encode();
        write_whole(&dir.join("genesis.bkss"), &genesis)?;
        for keys in &self.keys {
            let dir = provider_dir(dir, keys.id);
            std::fs::create_dir_all(&dir).map_err(files::unwritable(&dir))?;
            keys.save(&dir).map_err(RunError::step("keys of a provider"))?;
            write_whole(&dir.join("genesis.bkss"), &genesis)?;
            Sessions::open(&dir).map_err(RunError::step("sessions of a provider"))?;
        }
        Ok(())
    }

    /// The meters with their readings, switched on.
    pub(super) fn software_meters(&self, start_s: u64) -> Result<Vec<SoftwareMeter>, RunError> {
        let switch_on = |(meter, (readings, seed)): (&Provisioned, &(Vec<Decimal>, _))| {
            let (flash, progress) = (SoftwareFlash::memory(), Progress::default());
            meter.switch_on(flash, readings.clone(), start_s, *seed, progress)
        };
        self.meters.iter().zip(&self.readings).map(switch_on).collect()
    }
}

/// Directory of a provider.
pub(super) fn provider_dir(dir: &Path, provider: ProviderId) -> PathBuf {
    dir.join("providers").join(provider.to_string())
}

/// A reading is signed in the slot after its interval.
const fn first_slot(start_s: u64) -> Slot {
    Slot(start_s / SLOT_S as u64 + 1)
}

fn charter(keys: &[Keys], sdi: SdiIdentity, first: Slot) -> Result<Charter, RunError> {
    let agreement = hash(Tag::Agreement, &[b"Agreement of the demonstration's providers."]);
    let provider = |keys: &Keys| {
        Ok(ProviderIdentity {
            id: keys.id,
            name: name(&format!("provider {}", keys.id))?,
            key: keys.identity.public(),
            agreement,
            sealing_key: keys.opening().public(),
            vote_key: vote_key(keys.vote()).1,
            address: bkss_scheme::identity::Name::new(),
        })
    };
    let terms = Terms { min_slot_s: 300, grid_s: GRID_S, ..Terms::default() };
    Ok(Charter {
        name: name("bkss demonstration")?,
        agreement,
        start: LedgerTime::from_seconds(first.0 * u64::from(SLOT_S) - LEAD_S),
        time_scale: TIME_SCALE,
        terms,
        rounds: Rounds::default(),
        limits: Limits::default(),
        providers: keys.iter().map(provider).collect::<Result<_, RunError>>()?,
        sdis: vec![sdi],
    })
}

fn name(text: &str) -> Result<bkss_scheme::identity::Name, RunError> {
    text.try_into().map_err(|_| RunError::Step("name", format!("{text} is too long")))
}

/// What an owner orders for a household.
fn order(meter: MeterId, owner: ProviderId, start_s: u64) -> Order {
    Order {
        meter,
        owner,
        schedule: Schedule {
            first: first_slot(start_s),
            slot_s: SLOT_S,
            window_s: WINDOW_S,
            slots: CHAIN_SLOTS,
        },
        serial: meter.to_string().into_bytes(),
        block_log2: CHAIN_BLOCK_LOG2,
        revocable_by_secret: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::households;

    #[test]
    fn a_seed_makes_the_same_network_chains_and_registrations() {
        let found = |seed| {
            let homes = households::model(seed, 2, 3);
            let homes = homes.households(|id| id.parse().map(MeterId)).unwrap();
            let founding = Founding::new(seed, 4, 1_800_000_000, &homes).unwrap();
            let registrations: Vec<_> =
                founding.meters.iter().map(|meter| meter.registration().clone()).collect();
            (founding.genesis.encode(), registrations)
        };
        let first = found(1);
        assert_eq!(first, found(1));
        let second = found(2);
        assert_ne!(first.0, second.0);
        assert_ne!(first.1[0].message.anchor, second.1[0].message.anchor);
    }
}
