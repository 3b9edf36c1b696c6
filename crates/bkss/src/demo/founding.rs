//! Founding the demonstration's network: keys, genesis, chains of all meters.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bkss_ledger::{Genesis, Limits, Rounds, Terms, genesis::Charter, receipts::LinkPaths};
use bkss_meter::{Journal, KeyStore, Meter, Parameters, journal::MemoryFlash};
use bkss_node::config::vote_key;
use bkss_scheme::{
    Digest, LedgerTime, Link, MeterId, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey,
    Slot,
    hash::{Tag, hash},
    hash_chain::Blocks,
    identity::SdiMode,
    root_message::Registration,
    slot::Schedule,
};
use bkss_sdi::{Answer, Order, Sdi, countersign};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::Rng;

use super::{
    CHAIN_BLOCK_LOG2, CHAIN_SLOTS, DemoError, GRID_S, LEAD_S, SLOT_S, TIME_SCALE, WINDOW_S,
    records::{failed, write_whole},
    software_meter::SoftwareMeter,
};
use crate::{
    households::Household,
    provider::{Keys, Sessions},
};

/// Bytes of a sector of a software meter's flash.
pub(super) const SECTOR: usize = 4096;
/// A meter as it runs here.
pub(super) type DemoMeter = Meter<MemoryFlash<SECTOR>, Box<[Link]>>;

/// A network before its first block.
pub(super) struct Founding {
    /// The genesis.
    pub(super) genesis: Arc<Genesis>,
    /// Keys of each provider.
    pub(super) keys: Vec<Keys>,
    /// The meters, in the order of the households.
    pub(super) meters: Vec<Provisioned>,
}

/// A meter with its registration and the public roots of its chain.
pub(super) struct Provisioned {
    /// What is to be registered.
    pub(super) registration: Registration,
    /// With these `C_i` can be built.
    pub(super) paths: LinkPaths,
    parameters: Parameters,
    checkpoints: Box<[Link]>,
    checksum: u32,
    blocks: Blocks,
    readings: Vec<bkss_scheme::reading::Decimal>,
    seed: [u8; 32],
}

impl Founding {
    /// Makes all keys and chains from a seed; the first interval starts at `start_s`.
    pub(super) fn new(
        seed: u64,
        providers: u16,
        start_s: u64,
        households: &[Household],
    ) -> Result<Self, DemoError> {
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
            .map_err(DemoError::step("genesis"))?;
        let genesis = Arc::new(genesis);
        let mut sdi = Sdi::new(sdi, sdi_key, genesis.network());
        let meters = households
            .iter()
            .enumerate()
            .map(|(number, household)| {
                let owner = &keys[number % keys.len()];
                provision(&mut sdi, &genesis, owner, household, start_s, &mut rng)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { genesis, keys, meters })
    }

    /// Ledger time of the genesis block.
    pub(super) fn genesis_time(&self) -> LedgerTime {
        self.genesis.charter().start
    }

    /// Writes the genesis and one directory per provider.
    pub(super) fn write(&self, dir: &Path) -> Result<(), DemoError> {
        let genesis = self.genesis.encode();
        write_whole(&dir.join("genesis.bkss"), &genesis)?;
        for keys in &self.keys {
            let dir = provider_dir(dir, keys.id);
            std::fs::create_dir_all(&dir).map_err(failed(&dir))?;
            keys.save(&dir).map_err(DemoError::step("keys of a provider"))?;
            write_whole(&dir.join("genesis.bkss"), &genesis)?;
            Sessions::open(&dir).map_err(DemoError::step("sessions of a provider"))?;
        }
        Ok(())
    }

    /// The meters with their readings, switched on.
    pub(super) fn software_meters(&self, start_s: u64) -> Result<Vec<SoftwareMeter>, DemoError> {
        self.meters.iter().map(|provisioned| provisioned.switch_on(start_s)).collect()
    }
}

impl Provisioned {
    fn switch_on(&self, start_s: u64) -> Result<SoftwareMeter, DemoError> {
        let message = &self.parameters.root_message;
        let keys = KeyStore::load(
            message.salt,
            self.blocks,
            &message.anchor,
            self.checkpoints.clone(),
            self.checksum,
        );
        let keys = keys.map_err(DemoError::step("checkpoints of a meter"))?;
        let journal = Journal::open(MemoryFlash::default()).unwrap_or_else(|never| match never {});
        Ok(SoftwareMeter::new(
            Meter::new(self.parameters.clone(), journal, keys),
            message.clone(),
            self.readings.clone(),
            start_s,
            ChaCha20Rng::from_seed(self.seed),
        ))
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

fn charter(keys: &[Keys], sdi: SdiIdentity, first: Slot) -> Result<Charter, DemoError> {
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
    let terms = Terms { min_slot_s: 300, reveal_s: 604_800, grid_s: GRID_S, precision_ms: 500 };
    Ok(Charter {
        name: name("bkss demonstration")?,
        agreement,
        start: LedgerTime::from_seconds(first.0 * u64::from(SLOT_S) - LEAD_S),
        time_scale: TIME_SCALE,
        terms,
        rounds: Rounds::default(),
        limits: Limits::default(),
        providers: keys.iter().map(provider).collect::<Result<_, DemoError>>()?,
        sdis: vec![sdi],
    })
}

fn name(text: &str) -> Result<bkss_scheme::identity::Name, DemoError> {
    text.try_into().map_err(|_| DemoError::Step("name", format!("{text} is too long")))
}

/// Order, offer, the meter's answer, registration by SDI and owner.
fn provision(
    sdi: &mut Sdi,
    genesis: &Genesis,
    owner: &Keys,
    household: &Household,
    start_s: u64,
    rng: &mut ChaCha20Rng,
) -> Result<Provisioned, DemoError> {
    let failed = |what| move |error: bkss_sdi::IssueError| DemoError::Step(what, error.to_string());
    let MeterId(number) = household.meter;
    let order = Order {
        meter: household.meter,
        owner: owner.id,
        schedule: Schedule {
            first: first_slot(start_s),
            slot_s: SLOT_S,
            window_s: WINDOW_S,
            slots: CHAIN_SLOTS,
        },
        serial: number.to_string().into_bytes(),
        block_log2: CHAIN_BLOCK_LOG2,
        revocable_by_secret: false,
    };
    let offer = sdi.offer(order, rng).map_err(failed("offer of the SDI"))?;
    // From here to the answer the meter is at work.
    let (mut entropy, mut seed) = ([0; 32], [0; 32]);
    rng.fill_bytes(&mut entropy);
    rng.fill_bytes(&mut seed);
    let blank = vec![Link::from_bytes([0; 32]); offer.blocks.count() as usize];
    let mut block_roots = vec![Digest::ZERO; offer.blocks.count() as usize];
    let last = offer.last_link(&entropy);
    let (store, ends) =
        KeyStore::make(offer.salt, offer.blocks, &last, blank.into_boxed_slice(), |block, root| {
            block_roots[block as usize] = root;
        })
        .map_err(DemoError::step("chain of a meter"))?;
    let answer = Answer { ends, block_roots };
    let (message, signature) = sdi.register(&offer, &answer).map_err(failed("registration"))?;
    let parameters = Parameters {
        network: genesis.network(),
        committee: genesis.committee().clone(),
        from_epoch: 0,
        owner: owner.opening().public(),
        root_message: message.clone(),
    };
    let registration = countersign(
        genesis.network(),
        message,
        signature,
        &sdi.identity().key,
        (owner.id, &owner.identity),
    )
    .map_err(failed("registration"))?;
    let paths = LinkPaths::new(offer.blocks, answer.block_roots)
        .map_err(DemoError::step("block roots of a meter"))?;
    let checksum = store.checksum();
    Ok(Provisioned {
        registration,
        paths,
        parameters,
        checkpoints: store.into_checkpoints(),
        checksum,
        blocks: offer.blocks,
        readings: household.readings.clone(),
        seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::households;

    #[test]
    fn a_seed_makes_the_same_network_chains_and_registrations() {
        let found = |seed| {
            let homes = households::model(seed, 2, 3);
            let founding = Founding::new(seed, 4, 1_800_000_000, &homes).unwrap();
            let registrations: Vec<_> =
                founding.meters.iter().map(|meter| meter.registration.clone()).collect();
            (founding.genesis.encode(), registrations)
        };
        let first = found(1);
        assert_eq!(first, found(1));
        let second = found(2);
        assert_ne!(first.0, second.0);
        assert_ne!(first.1[0].message.anchor, second.1[0].message.anchor);
    }
}
