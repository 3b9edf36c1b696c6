//! How a software meter gets its chain: order, offer, the meter's answer, both signatures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bkss_ledger::receipts::LinkPaths;
use bkss_meter::{Journal, KeyStore, Meter, Parameters};
use bkss_scheme::{
    Digest, Eras, LedgerTime, Link, RootMessage, Signature, hash_chain::Blocks, identity::SdiMode,
    reading::Decimal, root_message::Registration, seal::SealingKey,
};
use bkss_sdi::{Answer, Bundle, IssueError, Order, Sdi, Shipment, countersign};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::Rng;
use zeroize::Zeroizing;

use super::{RunError, flash::SoftwareFlash, progress::Progress, software_meter::SoftwareMeter};
use crate::{
    files::{self, FileError, Readers, malformed},
    provider::Keys,
};

/// Most bytes of a file of a meter.
const MAX_FILE: u64 = 64 << 20;

/// What a meter is provisioned for.
pub(crate) struct Plan<'a> {
    /// The network and its committees.
    pub(crate) eras: Eras<'a>,
    /// What the owner's meters seal to.
    pub(crate) sealing_key: SealingKey,
    /// What the owner orders.
    pub(crate) order: Order,
    /// In place of a chain that was issued and is not on the ledger: where the newest chain of the meter
    /// begins that is there, if there is one.
    pub(crate) instead: Option<Option<LedgerTime>>,
}

/// A chain that the SDI has signed and the owner has not.
pub(crate) struct Issued {
    /// The SDI's signature of the root message.
    pub(crate) signature: Signature,
    /// Root of each block of the chain.
    pub(crate) block_roots: Vec<Digest>,
    /// What the meter has.
    pub(crate) made: Made,
}

/// What a meter has: its parameters and its secret.
pub(crate) struct Made {
    /// From the SDI.
    pub(crate) bundle: Bundle,
    checkpoints: Box<[Link]>,
    checksum: u32,
}

/// A meter with its chain, switched off.
pub(crate) struct Provisioned {
    /// What the owner has.
    shipment: Shipment,
    made: Made,
}

/// Provisions a meter, as [`issue`] and the owner's signature do.
///
/// # Errors
///
/// [`RunError`].
pub(crate) fn provision(
    sdi: &mut Sdi,
    commit: &mut impl FnMut(&mut Sdi) -> Result<(), RunError>,
    plan: Plan<'_>,
    owner: &Keys,
    rng: &mut ChaCha20Rng,
) -> Result<Provisioned, RunError> {
    let network = plan.eras.network;
    let Issued { signature, block_roots, made } = issue(sdi, commit, plan, rng)?;
    let (message, public) = (made.bundle.root_message.clone(), sdi.identity().key);
    let owner = (owner.id, &owner.identity);
    let registration = countersign(network, message, signature, &public, owner)
        .map_err(RunError::step("registration"))?;
    let shipment = Shipment { registration, block_log2: made.bundle.block_log2, block_roots };
    Ok(Provisioned { shipment, made })
}

/// Issues a meter's chain; of a device that had a chain before, the next one. `commit` writes down
/// what the SDI has done, before anything leaves it.
///
/// # Errors
///
/// [`RunError`].
pub(crate) fn issue(
    sdi: &mut Sdi,
    commit: &mut impl FnMut(&mut Sdi) -> Result<(), RunError>,
    plan: Plan<'_>,
    rng: &mut ChaCha20Rng,
) -> Result<Issued, RunError> {
    let failed = |what| move |error: IssueError| RunError::Step(what, error.to_string());
    let Plan { eras: Eras { network, rounds, eras }, sealing_key, order, instead } = plan;
    let no_committee = || RunError::Step("offer of the SDI", "no committee is in office".into());
    let era = eras.last().ok_or_else(no_committee)?;
    let meter = order.meter;
    let block_log2 = order.block_log2;
    let offer = if sdi.device(meter).is_none() {
        sdi.offer(order, rng)
    } else {
        // An offer of a run that was stopped: nobody has its secrets any more.
        match sdi.withdraw(meter) {
            Ok(()) | Err(IssueError::NotOffered(_)) => {}
            Err(error) => return Err(failed("offer of the SDI")(error)),
        }
        match instead.map_or(Ok(()), |begins| sdi.miss(meter, begins)) {
            Ok(()) | Err(IssueError::NotMissing(_)) => sdi.renew(order, rng),
            Err(error) => Err(error),
        }
    };
    let offer = offer.map_err(failed("offer of the SDI"))?;
    commit(sdi)?;
    let handed_over = match sdi.identity().mode {
        SdiMode::SdiMade => Some(sdi.make(&offer, rng).map_err(failed("chain of the SDI"))?.last),
        SdiMode::Shared => None,
    };
    // From here to the answer the meter is at work.
    let last = handed_over.clone().unwrap_or_else(|| {
        let mut entropy = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *entropy);
        offer.last_link(&entropy)
    });
    let blank = vec![Link::from_bytes([0; 32]); offer.blocks.count() as usize];
    let mut block_roots = vec![Digest::ZERO; offer.blocks.count() as usize];
    let (store, ends) =
        KeyStore::make(offer.salt, offer.blocks, &last, blank.into_boxed_slice(), |block, root| {
            block_roots[block as usize] = root;
        })
        .map_err(RunError::step("chain of a meter"))?;
    let answer = Answer { ends, block_roots };
    let (message, signature) = sdi.register(&offer, &answer).map_err(failed("registration"))?;
    commit(sdi)?;
    let bundle = Bundle {
        network,
        rounds,
        committee: era.committee.clone(),
        from_epoch: era.from_epoch,
        owner: sealing_key,
        root_message: message,
        block_log2,
        last_link: handed_over,
    };
    let checksum = store.checksum();
    let made = Made { bundle, checkpoints: store.into_checkpoints(), checksum };
    Ok(Issued { signature, block_roots: answer.block_roots, made })
}

impl Made {
    /// Writes into a directory what the meter has, readable by its owner only.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub(crate) fn save(&self, dir: &Path) -> Result<(), FileError> {
        files::replace(&bundle(dir), &self.bundle.encode(), Readers::Owner)?;
        let mut links = Zeroizing::new(Vec::with_capacity(32 * self.checkpoints.len() + 36));
        links.extend(self.checksum.to_be_bytes());
        self.checkpoints.iter().for_each(|link| links.extend(link.as_bytes()));
        files::add_checksum(&mut links);
        // The last one: a meter is there when its secret is.
        files::replace(&checkpoints(dir), &links, Readers::Owner)
    }
}

impl Provisioned {
    /// What is to be registered.
    pub(crate) const fn registration(&self) -> &Registration {
        &self.shipment.registration
    }

    /// Its root message.
    pub(crate) const fn message(&self) -> &RootMessage {
        &self.shipment.registration.message
    }

    /// With these `C_i` can be built.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the block roots are not those of the chain.
    pub(crate) fn paths(&self) -> Result<LinkPaths, RunError> {
        LinkPaths::new(self.blocks()?, self.shipment.block_roots.clone())
            .map_err(RunError::step("block roots of a meter"))
    }

    fn blocks(&self) -> Result<Blocks, RunError> {
        let blocks = Blocks::new(self.message().schedule.slots, self.shipment.block_log2);
        blocks.ok_or_else(|| RunError::Step("meter", "no chain has this shape".into()))
    }

    /// The meter with what it measured from `start_s` on, switched on.
    ///
    /// # Errors
    ///
    /// [`RunError`] if flash or checkpoints cannot be used.
    pub(crate) fn switch_on(
        &self,
        flash: SoftwareFlash,
        readings: Vec<Decimal>,
        start_s: u64,
        seed: [u8; 32],
        progress: Progress,
    ) -> Result<SoftwareMeter, RunError> {
        let Made { bundle, checkpoints, checksum } = &self.made;
        let message = &bundle.root_message;
        let keys = KeyStore::load(
            message.salt(),
            self.blocks()?,
            &message.anchor,
            checkpoints.clone(),
            *checksum,
        );
        let keys = keys.map_err(RunError::step("checkpoints of a meter"))?;
        let journal = Journal::open(flash).map_err(RunError::step("flash of a meter"))?;
        let parameters = Parameters {
            network: bundle.network,
            rounds: bundle.rounds,
            committee: bundle.committee.clone(),
            from_epoch: bundle.from_epoch,
            owner: bundle.owner,
            root_message: message.clone(),
        };
        Ok(SoftwareMeter::new(
            Meter::new(parameters, journal, keys),
            message.clone(),
            readings,
            start_s,
            ChaCha20Rng::from_seed(seed),
            progress,
        ))
    }

    /// Writes the meter into a directory: what it has, readable by its owner only.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub(crate) fn save(&self, dir: &Path) -> Result<(), RunError> {
        fs::create_dir_all(dir).map_err(files::unwritable(dir))?;
        files::replace(&shipment(dir), &self.shipment.encode(), Readers::All)?;
        Ok(self.made.save(dir)?)
    }

    /// Reads a meter from its directory; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a file of it was altered.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, RunError> {
        let path = checkpoints(dir);
        if !path.exists() {
            return Ok(None);
        }
        let checkpoints = Zeroizing::new(files::read(&path, MAX_FILE)?);
        let shipment = files::read(&shipment(dir), MAX_FILE)?;
        let bundle = Zeroizing::new(files::read(&bundle(dir), MAX_FILE)?);
        Self::parse(dir, [&shipment, &bundle, &checkpoints]).map(Some)
    }

    /// Takes the bytes of a meter's files: shipment, bundle, checkpoints.
    ///
    /// # Errors
    ///
    /// [`RunError`] if one was altered, or they are not of one meter.
    pub(crate) fn parse(
        dir: &Path,
        [shipped, bundled, checked]: [&[u8]; 3],
    ) -> Result<Self, RunError> {
        let links = files::check(&checkpoints(dir), checked)?;
        let (checksum, links) = links.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let links = links.as_chunks::<32>().0.iter().map(|link| Link::from_bytes(*link));
        let shipment = Shipment::decode(shipped).map_err(malformed(&shipment(dir)))?;
        let bundle = Bundle::decode(bundled).map_err(malformed(&bundle(dir)))?;
        if bundle.root_message != shipment.registration.message {
            let reason = format!("{}: shipment and bundle are of two meters", dir.display());
            return Err(RunError::Step("meter", reason));
        }
        let checksum = u32::from_be_bytes(*checksum);
        let made = Made { bundle, checkpoints: links.collect(), checksum };
        Ok(Self { shipment, made })
    }
}

fn shipment(dir: &Path) -> PathBuf {
    dir.join("shipment.bkss")
}

fn bundle(dir: &Path) -> PathBuf {
    dir.join("bundle.bkss")
}

fn checkpoints(dir: &Path) -> PathBuf {
    dir.join("checkpoints.bkss")
}
