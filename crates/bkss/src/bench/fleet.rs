//! Meters that have signed everything before the measurement begins.
//!
//! The network is real: chains, registrations by SDI and owners, sealed bodies. Only that no meter
//! computes while the ledger is measured.

use std::sync::Arc;

use bkss_ledger::{Genesis, Limits, Rounds, Terms, genesis::Charter};
use bkss_node::config::vote_key;
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, ProviderIdentity, Reading,
    RootMessage, SdiId, SdiIdentity, SecretKey, Slot, hash,
    hash_chain::{self, Blocks},
    identity::{Name, SdiMode},
    reading::{Channel, Interval},
    request,
    root_message::{self, Registration, SaltNonce},
    seal::{BodyBytes, Session},
    slot::Schedule,
    transaction::{Release, Submit},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

use super::SetupError;
use crate::{parallel, provider::Keys};

/// Slot length, ledger seconds.
pub(super) const SLOT_S: u32 = 60;
/// `W`, ledger seconds.
pub(super) const WINDOW_S: u32 = 30;
/// Ledger seconds per second, by which the precision of the clocks is meant.
pub(super) const TIME_SCALE: u32 = 600;
/// The first slot of all chains.
pub(super) const FIRST: Slot = Slot(30_000_000);
/// Ledger seconds between the genesis and the first slot; registrations fall into them.
const LEAD_S: u64 = 60;

/// A network before its first block, and its meters.
pub(super) struct Fleet {
    /// The genesis.
    pub(super) genesis: Arc<Genesis>,
    /// Keys of each provider.
    pub(super) keys: Vec<Keys>,
    /// The meters, by ascending number from 0.
    pub(super) meters: Vec<Prepared>,
}

/// A meter with all messages that it will send.
pub(super) struct Prepared {
    /// What is to be registered.
    pub(super) registration: Registration,
    /// By slot, the first at 0.
    signed: Vec<Signed>,
}

struct Signed {
    value: Digest,
    link: Link,
    body: BodyBytes,
}

impl Fleet {
    /// Makes everything; the same seed makes the same.
    pub(super) fn make(
        providers: u16,
        meters: u32,
        slots: u32,
        rounds: Rounds,
    ) -> Result<Self, SetupError> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let keys: Vec<_> =
            (0..providers).map(|id| Keys::generate(ProviderId(id), &mut rng)).collect();
        let sdi = SecretKey::generate(&mut rng);
        let genesis = Arc::new(found(&keys, &sdi, rounds)?);
        let numbers: Vec<u32> = (0..meters).collect();
        let prepare = |number: &u32| {
            let owner = &keys[*number as usize % keys.len()];
            prepare(&genesis, &sdi, owner, *number, slots)
        };
        let meters = parallel::map(&numbers, prepare).into_iter().collect::<Result<_, _>>()?;
        Ok(Self { genesis, keys, meters })
    }

    /// Ledger time of the genesis block.
    pub(super) fn start(&self) -> LedgerTime {
        self.genesis.charter().start
    }
}

impl Prepared {
    /// Slots that are signed.
    pub(super) const fn slots(&self) -> usize {
        self.signed.len()
    }

    fn signed(&self, slot: u32) -> Option<(LinkIndex, &Signed)> {
        let index = LinkIndex::new(slot, self.registration.message.schedule.slots)?;
        Some((index, self.signed.get(slot as usize - 1)?))
    }

    /// Step 1 of slot 1, 2, ..
    pub(super) fn submit(&self, slot: u32) -> Option<Submit<'_>> {
        let (index, Signed { value, body, .. }) = self.signed(slot)?;
        Some(Submit { meter: self.registration.message.meter, index, value: *value, body })
    }

    /// Step 3 of slot 1, 2, ..
    pub(super) fn release(&self, slot: u32) -> Option<Release> {
        let (index, signed) = self.signed(slot)?;
        let meter = self.registration.message.meter;
        Some(Release { meter, index, link: signed.link.clone() })
    }
}

/// Ledger time at which a slot begins, and at which its window closes.
pub(super) const fn slot_times(slot: u32) -> (LedgerTime, LedgerTime) {
    let start = (FIRST.0 + slot as u64 - 1) * SLOT_S as u64;
    (LedgerTime::from_seconds(start), LedgerTime::from_seconds(start + WINDOW_S as u64))
}

fn found(keys: &[Keys], sdi: &SecretKey, rounds: Rounds) -> Result<Genesis, SetupError> {
    let agreement = hash::hash(hash::Tag::Agreement, &[b"bench"]);
    let provider = |keys: &Keys| ProviderIdentity {
        id: keys.id,
        name: Name::new(),
        key: keys.identity.public(),
        agreement,
        sealing_key: keys.opening().public(),
        vote_key: vote_key(keys.vote()).1,
        address: Name::new(),
    };
    let (start, _) = slot_times(1);
    let charter = Charter {
        name: Name::new(),
        agreement,
        start: LedgerTime::from_seconds(start.seconds() - LEAD_S),
        time_scale: TIME_SCALE,
        terms: Terms { min_slot_s: SLOT_S, grid_s: 3600, ..Terms::default() },
        rounds,
        limits: Limits::default(),
        providers: keys.iter().map(provider).collect(),
        sdis: vec![SdiIdentity {
            id: SdiId(0),
            name: Name::new(),
            key: sdi.public(),
            mode: SdiMode::Shared,
        }],
    };
    let signing: Vec<_> = keys.iter().map(|keys| keys.identity.clone()).collect();
    Ok(Genesis::found(charter, &signing, std::slice::from_ref(sdi))?)
}

/// A meter with a chain of just so many slots. Their times are those of quarter hours, so that its
/// bodies are as long as those of real meters.
fn prepare(
    genesis: &Genesis,
    sdi: &SecretKey,
    owner: &Keys,
    number: u32,
    slots: u32,
) -> Result<Prepared, SetupError> {
    let network = genesis.network();
    let mut rng = ChaCha8Rng::seed_from_u64(2 + u64::from(number));
    let (mut last, mut nonce) = ([0; 32], SaltNonce([0; 16]));
    rng.fill_bytes(&mut last);
    rng.fill_bytes(&mut nonce.0);
    let last = Link::from_bytes(last);
    let salt = root_message::salt(owner.id, SdiId(0), MeterId(number), nonce);
    let blocks = Blocks::usual(slots).ok_or(SetupError::Shape)?;
    let ends = hash_chain::build(salt, blocks, &last, |_| ());
    let message = RootMessage {
        meter: MeterId(number),
        owner: owner.id,
        sdi: SdiId(0),
        nonce,
        anchor: ends.anchor,
        root: ends.root,
        schedule: Schedule { first: FIRST, slot_s: SLOT_S, window_s: WINDOW_S, slots },
        device: hash::hash(hash::Tag::Device, &[&salt.0, &number.to_be_bytes()]),
        revocation_lock: None,
    };
    let id = message.id(network);
    let session = Session::start(network, &owner.opening().public(), &mut rng)?;
    let mut link = last;
    let mut signed = Vec::new();
    for slot in (1..=slots).rev() {
        let index = LinkIndex::new(slot, slots).ok_or(SetupError::Shape)?;
        let start_s = u64::from(slot) * 900 + 1_730_073_600;
        let value = i32::from(rng.next_u32().to_be_bytes()[0]);
        let reading =
            Reading::single(Channel::net_energy(900), start_s, 1, Interval::measured(value));
        let plaintext = reading.to_bytes().ok_or(SetupError::Shape)?;
        let body = session.seal(&id, index, &plaintext, slot == 1)?;
        let commitment = request::commitment(&id, index, &hash::plain(&body));
        let value = request::request_value(&commitment, &link);
        let next = hash_chain::walk(salt, slot, slot - 1, &link);
        signed.push(Signed { value, link: std::mem::replace(&mut link, next), body });
    }
    signed.reverse();
    let registration = Registration::sign(message, network, sdi, &owner.identity);
    Ok(Prepared { registration, signed })
}
