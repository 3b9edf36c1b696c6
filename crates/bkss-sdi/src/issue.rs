//! Issuing a chain: order, offer, answer, registration.

use bkss_scheme::{
    Digest, Link, MeterId, Network, ProviderId, PublicKey, RootMessage, Salt, SdiIdentity,
    SecretKey, Signature,
    hash::{Tag, hash},
    hash_chain::{self, Blocks, Ends},
    identity::{SdiMode, SignatureError, signed_digest},
    merkle,
    root_message::{Registration, SaltNonce, salt},
    slot::{LedgerTime, Schedule},
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::fleet::{Device, Fleet, MAX_SERIAL, Open, Record};

/// What an owner SP orders for one of its meters.
#[derive(Clone, Debug)]
pub struct Order {
    /// Number of the meter, chosen by the owner.
    pub meter: MeterId,
    /// The owner.
    pub owner: ProviderId,
    /// Slots of the chain.
    pub schedule: Schedule,
    /// Serial number; the ledger sees only a commitment to it.
    pub serial: Vec<u8>,
    /// Links per block of the chain, as a power of two.
    pub block_log2: u8,
    /// Whether whoever knows a secret may revoke the meter.
    pub revocable_by_secret: bool,
}

/// What a meter gets to make its chain from; it goes to the meter by hand.
#[derive(Clone)]
pub struct Offer {
    /// The network.
    pub network: Network,
    /// What the salt of the chain is made with.
    pub salt_nonce: SaltNonce,
    /// Salt of the chain.
    pub salt: Salt,
    /// The SDI's share of the chain's secret: worthless without the meter's.
    pub entropy: Zeroizing<[u8; 32]>,
    /// Shape of the chain.
    pub blocks: Blocks,
    order: Order,
    chain: u32,
    device_nonce: [u8; 16],
    revocation_secret: Option<Zeroizing<[u8; 32]>>,
}

impl Offer {
    /// What the owner must keep to show which device is registered: the nonce in
    /// `H(07 | nonce | serial)`.
    pub const fn device_nonce(&self) -> &[u8; 16] {
        &self.device_nonce
    }

    /// What whoever may revoke the meter by secret must keep (`rho`).
    pub fn revocation_secret(&self) -> Option<&[u8; 32]> {
        self.revocation_secret.as_deref()
    }

    /// The last link (Eq 1), as the meter computes it with its own entropy.
    pub fn last_link(&self, meter_entropy: &[u8; 32]) -> Link {
        hash_chain::last_link(self.salt, meter_entropy, &self.entropy, self.network, self.chain)
    }
}

impl core::fmt::Debug for Offer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Offer(meter {}, ..)", self.order.meter) // the rest is secret or hides a device
    }
}

/// What a meter answers: the public ends of its chain. There is no place for a secret in it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `v_0` and `r`.
    pub ends: Ends,
    /// Root of each block, first block first.
    pub block_roots: Vec<Digest>,
}

impl Answer {
    /// Makes a chain and keeps its public part, as a meter does; `keep` is given the checkpoints,
    /// last block first.
    pub fn make(salt: Salt, blocks: Blocks, last: &Link, mut keep: impl FnMut(Link)) -> Self {
        let mut block_roots = Vec::new();
        let ends = hash_chain::build(salt, blocks, last, |block| {
            block_roots.push(block.root);
            keep(block.checkpoint);
        });
        block_roots.reverse();
        Self { ends, block_roots }
    }
}

/// A chain that the SDI made itself: to be handed over, erased when dropped.
#[derive(Clone)]
pub struct MadeChain {
    /// `v_n`.
    pub last: Link,
    /// What the meter would have answered.
    pub answer: Answer,
}

/// Why nothing is issued.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum IssueError {
    #[error("meter {0} has a chain already")]
    MeterIssued(MeterId),
    #[error("the device has a chain already")]
    DeviceIssued,
    #[error("1 <= n <= 2^20, 0 < W < L and blocks of at most 2^20 links do not hold")]
    Schedule,
    #[error("salt drawn twice; the generator is not random")]
    SaltIssued,
    #[error("block roots do not lead to r")]
    BlockRoots,
    #[error("meter {0} has an offer that is neither registered nor withdrawn")]
    OfferOpen(MeterId),
    #[error("the chain does not begin behind the last one of meter {meter}, at {before} ms")]
    BeforeLast {
        /// The meter.
        meter: MeterId,
        /// Where the last one begins.
        before: LedgerTime,
    },
    #[error("meter {0} was issued no chain that begins later than the ledger's newest")]
    NotMissing(MeterId),
    #[error("serial number of more than {MAX_SERIAL} bytes")]
    Serial,
    #[error("nothing was offered to meter {0}")]
    NotOffered(MeterId),
    #[error("this SDI does not make chains; its mode on the ledger is that meters do")]
    NotSdiMade,
    #[error("registration is for owner {found}, not {expected}")]
    Owner { expected: ProviderId, found: ProviderId },
    #[error("signature of the SDI: {0}")]
    Signature(SignatureError),
}

/// A signing device infrastructure with its key and what it has issued.
pub struct Sdi {
    identity: SdiIdentity,
    key: SecretKey,
    network: Network,
    fleet: Fleet,
    /// What has happened and is not yet written down.
    records: Vec<Record>,
}

impl Sdi {
    /// An SDI that has issued nothing.
    pub fn new(identity: SdiIdentity, key: SecretKey, network: Network) -> Self {
        Self { identity, key, network, fleet: Fleet::default(), records: Vec::new() }
    }

    /// Takes in a record that was written down before a restart, in their order.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if it does not follow from those before it.
    pub fn restore(&mut self, record: &Record) -> Result<(), IssueError> {
        self.fleet.apply(record)
    }

    /// What has happened since the last call. It must be on the disk before an offer or a
    /// registration leaves the SDI.
    #[must_use]
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// A device by its meter's number.
    pub fn device(&self, meter: MeterId) -> Option<&Device> {
        self.fleet.devices.get(&meter)
    }

    /// All devices, by the numbers of their meters.
    pub fn devices(&self) -> impl Iterator<Item = (MeterId, &Device)> {
        self.fleet.devices.iter().map(|(meter, device)| (*meter, device))
    }

    /// Its entry in the genesis.
    pub const fn identity(&self) -> &SdiIdentity {
        &self.identity
    }

    /// Starts the provisioning of a meter.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if the meter or device has a chain, or no chain has this shape.
    pub fn offer(&mut self, order: Order, rng: &mut impl CryptoRng) -> Result<Offer, IssueError> {
        if self.fleet.devices.contains_key(&order.meter) {
            return Err(IssueError::MeterIssued(order.meter));
        }
        if self.fleet.serials.contains(&order.serial) {
            return Err(IssueError::DeviceIssued);
        }
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        self.open(order, 0, nonce, rng)
    }

    /// Starts the next chain of a device: another registration of the same meter, whose slots begin
    /// behind the start of the last one. The order names the same owner and device.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if the device is another or unknown, or an offer is under way.
    pub fn renew(&mut self, order: Order, rng: &mut impl CryptoRng) -> Result<Offer, IssueError> {
        let device = self.device(order.meter).ok_or(IssueError::NotOffered(order.meter))?;
        let (chain, nonce) = (device.offered, device.nonce);
        self.open(order, chain, nonce, rng)
    }

    /// Gives up an offer whose meter did not answer, or whose answer was lost. Its number is spent.
    ///
    /// # Errors
    ///
    /// [`IssueError::NotOffered`] if there is none.
    pub fn withdraw(&mut self, meter: MeterId) -> Result<(), IssueError> {
        let open = self.device(meter).and_then(|device| device.open);
        let chain = open.ok_or(IssueError::NotOffered(meter))?.chain;
        self.note(Record::Withdrawn { meter, chain })
    }

    /// Issues the next chain in the place of those that did not get onto the ledger, where the newest
    /// chain of the meter begins at `begins`, if it has one. Whether they are there is for the caller to
    /// find out. If one of them gets there after all, the ledger's rules decide which chain has which
    /// slots.
    ///
    /// # Errors
    ///
    /// [`IssueError::NotMissing`] if no chain was issued that begins later.
    pub fn miss(&mut self, meter: MeterId, begins: Option<LedgerTime>) -> Result<(), IssueError> {
        self.note(Record::Missing { meter, begins })
    }

    fn open(
        &mut self,
        order: Order,
        chain: u32,
        device_nonce: [u8; 16],
        rng: &mut impl CryptoRng,
    ) -> Result<Offer, IssueError> {
        let Schedule { slot_s, window_s, slots, .. } = order.schedule;
        let blocks = Blocks::new(slots, order.block_log2);
        let blocks = blocks.filter(|_| 0 < window_s && window_s < slot_s);
        let blocks = blocks.ok_or(IssueError::Schedule)?;
        if order.serial.len() > MAX_SERIAL {
            return Err(IssueError::Serial);
        }
        let mut salt_nonce = SaltNonce([0; 16]);
        rng.fill_bytes(&mut salt_nonce.0);
        let salt = salt(order.owner, self.identity.id, order.meter, salt_nonce);
        self.note(Record::Offered {
            meter: order.meter,
            owner: order.owner,
            chain,
            salt_nonce,
            blocks: (slots, order.block_log2),
            begins: order.schedule.begins(),
            nonce: device_nonce,
            serial: order.serial.clone(),
        })?;
        let mut entropy = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *entropy);
        let revocation_secret = order.revocable_by_secret.then(|| {
            let mut secret = Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut *secret);
            secret
        });
        let network = self.network;
        Ok(Offer {
            network,
            salt_nonce,
            salt,
            entropy,
            blocks,
            order,
            chain,
            device_nonce,
            revocation_secret,
        })
    }

    fn note(&mut self, record: Record) -> Result<(), IssueError> {
        self.fleet.apply(&record)?;
        self.records.push(record);
        Ok(())
    }

    /// Makes the chain in place of the meter (sdi-made mode).
    ///
    /// # Errors
    ///
    /// [`IssueError::NotSdiMade`] unless the ledger says that this SDI does so.
    pub fn make(&self, offer: &Offer, rng: &mut impl CryptoRng) -> Result<MadeChain, IssueError> {
        if self.identity.mode != SdiMode::SdiMade {
            return Err(IssueError::NotSdiMade);
        }
        let mut entropy = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *entropy);
        let last = offer.last_link(&entropy);
        let answer = Answer::make(offer.salt, offer.blocks, &last, |_| ());
        Ok(MadeChain { last, answer })
    }

    /// Signs the root message of an offered chain.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if nothing was offered or it is registered, or if the block roots are not
    /// those of `r`.
    pub fn register(
        &mut self,
        offer: &Offer,
        answer: &Answer,
    ) -> Result<(RootMessage, Signature), IssueError> {
        let Order { meter, owner, schedule, .. } = offer.order;
        let device = self.device(meter).ok_or(IssueError::NotOffered(meter))?;
        let same = |open: &Open| {
            (open.chain, open.salt_nonce, open.blocks)
                == (offer.chain, offer.salt_nonce, offer.blocks)
        };
        if !device.open.is_some_and(|open| same(&open)) {
            let registered = device.open.is_none() && device.registered > 0;
            let refused = if registered { IssueError::MeterIssued } else { IssueError::NotOffered };
            return Err(refused(meter));
        }
        let complete = answer.block_roots.len() == offer.blocks.count() as usize;
        if !complete || merkle::root(&answer.block_roots) != Some(answer.ends.root) {
            return Err(IssueError::BlockRoots);
        }
        let device = device.commitment();
        self.note(Record::Registered { meter, chain: offer.chain })?;
        let secret = offer.revocation_secret.as_deref();
        let message = RootMessage {
            meter,
            owner,
            sdi: self.identity.id,
            nonce: offer.salt_nonce,
            anchor: answer.ends.anchor.clone(),
            root: answer.ends.root,
            schedule,
            device,
            revocation_lock: secret.map(|secret| hash(Tag::RevocationLock, &[secret])),
        };
        let signature = self.key.sign(&signed_digest(self.network, &message));
        Ok((message, signature))
    }
}

/// The owner SP's half of a registration.
///
/// # Errors
///
/// [`IssueError`] if the SDI did not sign it or it is for another owner.
pub fn countersign(
    network: Network,
    message: RootMessage,
    sdi_signature: Signature,
    sdi: &PublicKey,
    owner: (ProviderId, &SecretKey),
) -> Result<Registration, IssueError> {
    let (expected, key) = owner;
    if message.owner != expected {
        return Err(IssueError::Owner { expected, found: message.owner });
    }
    let digest = signed_digest(network, &message);
    sdi.verify(&digest, &sdi_signature).map_err(IssueError::Signature)?;
    Ok(Registration { owner_signature: key.sign(&digest), sdi_signature, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_scheme::{SdiId, Slot};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    const NETWORK: Network = Network([5; 16]);

    fn sdi(mode: SdiMode) -> (Sdi, SecretKey) {
        let key = SecretKey::generate(&mut ChaCha8Rng::seed_from_u64(1));
        let owner = SecretKey::generate(&mut ChaCha8Rng::seed_from_u64(2));
        let name = "sdi".try_into().unwrap();
        let identity = SdiIdentity { id: SdiId(0), name, key: key.public(), mode };
        (Sdi::new(identity, key, NETWORK), owner)
    }

    fn order(meter: u32) -> Order {
        Order {
            meter: MeterId(meter),
            owner: ProviderId(1),
            schedule: Schedule { first: Slot(1000), slot_s: 900, window_s: 300, slots: 37 },
            serial: meter.to_be_bytes().to_vec(),
            block_log2: 3,
            revocable_by_secret: true,
        }
    }

    fn registered(seed: u64) -> Registration {
        let (mut sdi, owner) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let offer = sdi.offer(order(7), &mut rng).unwrap();
        let answer = Answer::make(offer.salt, offer.blocks, &offer.last_link(&[8; 32]), |_| ());
        let (message, signature) = sdi.register(&offer, &answer).unwrap();
        let public = sdi.identity().key;
        countersign(NETWORK, message, signature, &public, (ProviderId(1), &owner)).unwrap()
    }

    #[test]
    fn a_registration_is_signed_by_both_and_made_by_the_seed() {
        let registration = registered(3);
        let (sdi, owner) = sdi(SdiMode::Shared);
        let verified = registration.verify(NETWORK, &sdi.identity().key, &owner.public()).unwrap();
        assert_eq!(verified.message().meter, MeterId(7));
        assert_eq!(registered(3), registration);
        assert_ne!(registered(4).message.anchor, registration.message.anchor);
    }

    #[test]
    fn what_the_owner_keeps_opens_what_the_ledger_hides() {
        let (mut sdi, _) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (meter, revocable_by_secret) in [(7, true), (8, false)] {
            let order = Order { revocable_by_secret, ..order(meter) };
            let offer = sdi.offer(order.clone(), &mut rng).unwrap();
            let last = offer.last_link(&[8; 32]);
            let answer = Answer::make(offer.salt, offer.blocks, &last, |_| ());
            let (message, _) = sdi.register(&offer, &answer).unwrap();
            let device = hash(Tag::Device, &[offer.device_nonce(), &order.serial]);
            assert_eq!(message.device, device);
            let lock = offer.revocation_secret().map(|rho| hash(Tag::RevocationLock, &[rho]));
            assert_eq!(message.revocation_lock, lock);
            assert_eq!(lock.is_some(), revocable_by_secret);
            assert_eq!(format!("{offer:?}"), format!("Offer(meter {meter}, ..)"));
        }
    }

    #[test]
    fn an_sdi_registers_what_it_offered_and_nothing_else() {
        let (mut sdi, _) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let offer = sdi.offer(order(7), &mut rng).unwrap();
        let register = |sdi: &mut Sdi, offer: &Offer| {
            let last = offer.last_link(&[8; 32]);
            let answer = Answer::make(offer.salt, offer.blocks, &last, |_| ());
            sdi.register(offer, &answer).err()
        };
        let mut other_salt = offer.clone();
        other_salt.salt_nonce = SaltNonce([1; 16]);
        let mut other_blocks = offer.clone();
        other_blocks.blocks = Blocks::new(38, 3).unwrap();
        let (mut stranger, _) = self::sdi(SdiMode::Shared);
        let foreign = stranger.offer(order(7), &mut rng).unwrap();
        let unknown = stranger.offer(order(8), &mut rng).unwrap();
        for (offer, meter) in [(other_salt, 7), (other_blocks, 7), (foreign, 7), (unknown, 8)] {
            let refused = register(&mut sdi, &offer);
            assert_eq!(refused, Some(IssueError::NotOffered(MeterId(meter))));
        }
        assert_eq!(register(&mut sdi, &offer), None);
    }

    #[test]
    fn a_chain_takes_the_entropy_of_both() {
        let (mut sdi, _) = sdi(SdiMode::Shared);
        let offer = sdi.offer(order(7), &mut ChaCha8Rng::seed_from_u64(3)).unwrap();
        let link = offer.last_link(&[8; 32]);
        assert!(link != offer.last_link(&[9; 32]), "the meter's entropy");
        let mut other = offer.clone();
        *other.entropy = [1; 32];
        assert!(link != other.last_link(&[8; 32]), "the SDI's entropy");
        assert_eq!(
            sdi.make(&offer, &mut ChaCha8Rng::seed_from_u64(4)).err(),
            Some(IssueError::NotSdiMade),
            "this SDI learns no chain"
        );
    }

    #[test]
    fn an_sdi_made_chain_is_registered_like_any_other() {
        let (mut sdi, _) = sdi(SdiMode::SdiMade);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let offer = sdi.offer(order(7), &mut rng).unwrap();
        let made = sdi.make(&offer, &mut rng).unwrap();
        let (message, _) = sdi.register(&offer, &made.answer).unwrap();
        let slots = message.schedule.slots;
        assert!(hash_chain::walk(message.salt(), slots, 0, &made.last) == message.anchor);
    }

    #[test]
    fn what_an_sdi_refuses() {
        let (mut sdi, owner) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let offer = sdi.offer(order(7), &mut rng).unwrap();
        assert_eq!(sdi.offer(order(7), &mut rng).err(), Some(IssueError::MeterIssued(MeterId(7))));
        let same_device = Order { meter: MeterId(8), ..order(7) };
        assert_eq!(sdi.offer(same_device, &mut rng).err(), Some(IssueError::DeviceIssued));
        let same_rng = &mut ChaCha8Rng::seed_from_u64(3);
        assert_eq!(sdi.offer(order(8), same_rng).err(), Some(IssueError::SaltIssued));
        let mut endless = order(9);
        endless.schedule.window_s = 900;
        assert_eq!(sdi.offer(endless, &mut rng).err(), Some(IssueError::Schedule));

        let answer = Answer::make(offer.salt, offer.blocks, &offer.last_link(&[8; 32]), |_| ());
        let mut lie = answer.clone();
        lie.block_roots[2].0[0] ^= 1;
        assert_eq!(sdi.register(&offer, &lie).err(), Some(IssueError::BlockRoots));
        lie.block_roots = vec![lie.ends.root];
        assert_eq!(sdi.register(&offer, &lie).err(), Some(IssueError::BlockRoots), "r itself");
        let (message, signature) = sdi.register(&offer, &answer).unwrap();
        let again = sdi.register(&offer, &answer).err();
        assert_eq!(again, Some(IssueError::MeterIssued(MeterId(7))));

        let public = sdi.identity().key;
        let countersign = |message: &RootMessage, signature, owner_id| {
            countersign(NETWORK, message.clone(), signature, &public, (owner_id, &owner)).err()
        };
        let (expected, found) = (ProviderId(2), ProviderId(1));
        let refused = countersign(&message, signature, ProviderId(2));
        assert_eq!(refused, Some(IssueError::Owner { expected, found }));
        let mut changed = message;
        changed.schedule.window_s = 200;
        let refused = countersign(&changed, signature, ProviderId(1));
        assert_eq!(refused, Some(IssueError::Signature(SignatureError::Mismatch)));
    }

    fn chain(sdi: &mut Sdi, offer: &Offer) -> Result<RootMessage, IssueError> {
        let answer = Answer::make(offer.salt, offer.blocks, &offer.last_link(&[8; 32]), |_| ());
        sdi.register(offer, &answer).map(|(message, _)| message)
    }

    fn later(order: Order, slots: u64) -> Order {
        let first = Slot(order.schedule.first.0 + slots);
        Order { schedule: Schedule { first, ..order.schedule }, ..order }
    }

    #[test]
    fn the_next_chain_of_a_device_is_of_the_same_device_and_begins_later() {
        let (mut sdi, _) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let unknown = sdi.renew(order(7), &mut rng).err();
        assert_eq!(unknown, Some(IssueError::NotOffered(MeterId(7))));
        let offer = sdi.offer(order(7), &mut rng).unwrap();
        let open = sdi.renew(later(order(7), 9), &mut rng).err();
        assert_eq!(open, Some(IssueError::OfferOpen(MeterId(7))));
        let first = chain(&mut sdi, &offer).unwrap();
        let early = sdi.renew(order(7), &mut rng).err();
        let before = first.schedule.begins();
        assert_eq!(early, Some(IssueError::BeforeLast { meter: MeterId(7), before }));
        let other = Order { serial: vec![1], ..later(order(7), 9) };
        let other = sdi.renew(other, &mut rng).err();
        assert_eq!(other, Some(IssueError::MeterIssued(MeterId(7))));
        let offer = sdi.renew(later(order(7), 9), &mut rng).unwrap();
        let second = chain(&mut sdi, &offer).unwrap();
        assert_eq!(second.device, first.device);
        assert_ne!(second.salt(), first.salt());
        assert!(second.anchor != first.anchor);
    }

    #[test]
    fn another_chain_takes_the_place_of_one_that_is_not_on_the_ledger() {
        let (mut sdi, identity) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        assert_eq!(sdi.miss(MeterId(7), None), Err(IssueError::NotOffered(MeterId(7))));
        let offer = sdi.offer(later(order(7), 9), &mut rng).unwrap();
        let far = chain(&mut sdi, &offer).unwrap();
        let begins = Some(far.schedule.begins());
        assert_eq!(sdi.miss(MeterId(7), begins), Err(IssueError::NotMissing(MeterId(7))));
        assert!(sdi.renew(order(7), &mut rng).is_err());
        sdi.miss(MeterId(7), None).unwrap();
        let offer = sdi.renew(order(7), &mut rng).unwrap();
        let near = chain(&mut sdi, &offer).unwrap();
        assert_ne!(near.salt(), far.salt());
        // The same after a restart.
        let records = sdi.take_records();
        let mut again = Sdi::new(sdi.identity().clone(), identity, NETWORK);
        records.iter().for_each(|record| again.restore(record).unwrap());
        assert_eq!(again.device(MeterId(7)), sdi.device(MeterId(7)));
        assert!(again.renew(order(7), &mut rng).is_err(), "it begins no later");
    }

    #[test]
    fn a_fleet_comes_back_from_its_records_and_issues_nothing_twice() {
        let (mut sdi, _) = sdi(SdiMode::Shared);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let registered = sdi.offer(order(7), &mut rng).unwrap();
        chain(&mut sdi, &registered).unwrap();
        let lost = sdi.offer(order(8), &mut rng).unwrap();
        let records = sdi.take_records();
        assert_eq!((records.len(), sdi.take_records().len()), (3, 0));
        for record in &records {
            let mut bytes = Vec::new();
            bkss_scheme::codec::encode_infallible(record, &mut bytes);
            let again = bkss_scheme::codec::decode::<Record>("record", &bytes);
            assert_eq!(again.as_ref(), Ok(record));
        }

        let (mut again, _) = self::sdi(SdiMode::Shared);
        records.iter().for_each(|record| again.restore(record).unwrap());
        assert_eq!(again.device(MeterId(7)), sdi.device(MeterId(7)));
        assert!(again.restore(&records[0]).is_err(), "records come once");
        assert_eq!(
            again.offer(order(7), &mut rng).err(),
            Some(IssueError::MeterIssued(MeterId(7)))
        );
        let same_device = Order { meter: MeterId(9), ..order(8) };
        assert_eq!(again.offer(same_device, &mut rng).err(), Some(IssueError::DeviceIssued));
        // The offer of before the crash is withdrawn; its number is spent, its answer worthless.
        again.withdraw(MeterId(8)).unwrap();
        assert_eq!(chain(&mut again, &lost).err(), Some(IssueError::NotOffered(MeterId(8))));
        let offer = again.renew(order(8), &mut rng).unwrap();
        assert!(offer.last_link(&[8; 32]) != lost.last_link(&[8; 32]));
        let numbers = |record: &Record| match record {
            Record::Offered { meter: MeterId(8), chain, .. } => Some(*chain),
            _ => None,
        };
        let later = again.take_records();
        let numbers: Vec<_> = records.iter().chain(&later).filter_map(numbers).collect();
        assert_eq!(numbers, [0, 1]);
    }
}
