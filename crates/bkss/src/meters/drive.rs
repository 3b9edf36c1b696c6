//! Drives meters: they sign as ledger time passes, gateways do the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bkss_ledger::{
    Transaction,
    receipts::{Issued, PathError},
};
use bkss_node::Message;
use bkss_scheme::{
    LedgerTime, Link, LinkIndex, MeterId, ProviderId, codec,
    receipt::Receipt,
    timestamp::{RegistrationProof, TimeProof},
};

use super::{
    Provisioned, RunError, SoftwareMeter,
    records::{Receipts, write_whole},
};
use crate::{clock, files, output, parallel, verify::MAX_RECEIPT};

/// How often the driver looks at the clock and at the gateways.
const TICK: Duration = Duration::from_millis(2);
/// A registration that is not final after this is sent again.
const REGISTER_AGAIN: Duration = Duration::from_secs(4);

/// The way of meters to the ledger and back.
pub(crate) trait Gateways {
    /// Ledger time, as the meters' clocks show it.
    fn now(&self) -> LedgerTime;

    /// Number of gateways.
    fn count(&self) -> usize;

    /// The gateway of a meter's owner.
    fn home(&self, owner: ProviderId) -> usize;

    /// Leaves a message for a gateway. Whether it was taken is seen when it is final, or not.
    fn send(&mut self, gateway: usize, message: Message);

    /// A request that is not final after this goes to another gateway as well.
    fn retry(&self) -> Duration;

    /// What has happened since the last call.
    ///
    /// # Errors
    ///
    /// [`RunError`] if nothing can happen any more.
    fn news(
        &mut self,
        meters: &[SoftwareMeter],
        registered: &BTreeSet<MeterId>,
    ) -> Result<Vec<News>, RunError>;

    /// Whether a run that was stopped can go on: what is noted and kept has to outlive the process.
    fn outlives_process(&self) -> bool;

    /// Notes how far each meter has got. Nothing that meters have left at gateways since the last
    /// call has gone out yet.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot be written.
    fn note(&mut self, meters: &[SoftwareMeter]) -> Result<(), RunError>;

    /// Whether requests are not final although the end of their window is near, of a run that has
    /// begun; who can, holds time.
    fn keep_time(&mut self, meters: &[SoftwareMeter], begun: bool);
}

/// What meters and their owners learn from gateways.
pub(crate) enum News {
    /// Proof of a meter's registration, encoded.
    Registered(MeterId, Vec<u8>),
    /// A change of the committee, encoded.
    Handover(Vec<u8>),
    /// Proof of ledger time, encoded.
    Time(Vec<u8>),
    /// A request is final.
    Stamped(MeterId, LinkIndex),
    /// An opening is final.
    Opened(MeterId, LinkIndex),
    /// The receipt of an opening.
    Receipt(Issued),
    /// A gateway did not take what was left for this meter.
    NotTaken(MeterId),
    /// How long it took until an opening was seen as final, milliseconds.
    Final(f64),
    /// A block is final, with how long that took if it had transactions.
    Block(Option<f64>),
    /// So many blocks have become final since the run began.
    Blocks(u64),
}

/// Meters under way.
pub(crate) struct Drive<'a, G> {
    provisioned: &'a [Provisioned],
    gateways: G,
    dir: PathBuf,
    meters: Vec<SoftwareMeter>,
    numbers: BTreeMap<MeterId, usize>,
    receipts: Receipts,
    progress: output::Progress,
    run: Run,
    registered: BTreeSet<MeterId>,
    /// When registrations were sent last, and how often.
    asked: Option<(Instant, usize)>,
    /// When each meter's newest body was brought to a gateway last.
    submitted: BTreeMap<MeterId, Instant>,
    /// How many gateways beside the owner's have been brought a body that is not open yet.
    others: BTreeMap<(MeterId, LinkIndex), usize>,
    /// Of what is released and not open yet: since when, or since when it was brought to another
    /// gateway, and to how many.
    released: BTreeMap<(MeterId, LinkIndex), (Instant, usize)>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Accepted requests.
    pub(crate) requests_final: u64,
    /// Accepted openings.
    pub(crate) openings_final: u64,
    /// Readings in them.
    pub(crate) readings_final: u64,
    /// Readings that had become final in runs before this one.
    pub(crate) readings_before: u64,
    /// Final blocks.
    pub(crate) blocks: u64,
    /// Time from a block's time stamp to its finality, milliseconds.
    pub(crate) finality_ms: Vec<f64>,
    /// Bytes that meters sent.
    pub(crate) uplink_bytes: u64,
    /// Receipts that were written, in this run and before.
    pub(crate) receipts: u64,
    /// The links that are opened, by meter: of each there has to be a receipt.
    pub(crate) opened: Vec<(MeterId, LinkIndex)>,
    /// Those among them that carry `C_i`.
    pub(crate) with_path: u64,
    /// Length of the archive.
    pub(crate) archive_bytes: u64,
    /// Newest public link of each meter.
    public: BTreeMap<MeterId, (u32, Link)>,
}

impl<'a, G: Gateways> Drive<'a, G> {
    /// Meters that are switched on, in the order of their provisioning.
    pub(crate) fn new(
        provisioned: &'a [Provisioned],
        meters: Vec<SoftwareMeter>,
        gateways: G,
        dir: &Path,
    ) -> Self {
        let readings: usize = meters.iter().map(SoftwareMeter::readings).sum();
        let opened: usize = meters.iter().map(SoftwareMeter::opened).sum();
        // What a run before this one has left counts.
        let receipts = Receipts::new(dir, gateways.outlives_process());
        let issued = meters.iter().map(|meter| meter.progress().0.opened_links().count() as u64);
        let issued: u64 = issued.sum();
        let stamped = meters.iter().map(|meter| meter.unopened().count() as u64).sum::<u64>();
        // Which gateways were brought a body before this run is not known: all may have been.
        let all = gateways.count().saturating_sub(1);
        let others = meters.iter().flat_map(|meter| {
            let under_way = meter.progress().0.under_way();
            under_way.iter().map(move |sent| ((meter.id(), sent.index()), all))
        });
        let others = others.collect();
        Self {
            numbers: meters.iter().enumerate().map(|(at, meter)| (meter.id(), at)).collect(),
            receipts,
            progress: output::Progress::new(readings as u64),
            run: Run {
                requests_final: issued + stamped,
                openings_final: issued,
                receipts: issued,
                readings_final: opened as u64,
                readings_before: opened as u64,
                ..Run::default()
            },
            registered: BTreeSet::new(),
            asked: None,
            submitted: BTreeMap::new(),
            others,
            released: BTreeMap::new(),
            dir: dir.to_owned(),
            provisioned,
            gateways,
            meters,
        }
    }

    /// Runs until every reading is final.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        while !self.done() {
            if stop.load(Ordering::SeqCst) {
                return Err(RunError::Stopped(self.dir.clone()));
            }
            for news in self.gateways.news(&self.meters, &self.registered)? {
                self.learn(news)?;
            }
            self.register();
            let begun = self.registered.len() == self.meters.len();
            if begun {
                self.sign()?;
            }
            self.gateways.keep_time(&self.meters, begun);
            self.release();
            // Before any of it leaves, and before anybody hears that it is done.
            self.gateways.note(&self.meters)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Whether all readings are final and every owner has issued its receipts.
    fn done(&self) -> bool {
        self.run.receipts == self.run.openings_final && self.meters.iter().all(SoftwareMeter::done)
    }

    /// Adds `C_i` to receipts where it has become possible, and gives the gateways back.
    pub(crate) fn finish(mut self) -> Result<(Run, G), RunError> {
        self.progress.finish();
        output::note("all readings are final; receipts get C_i where it can be built ..");
        let counts = parallel::map(self.provisioned, |meter| {
            complete_receipts(&self.receipts, meter, &self.run.public)
        });
        for count in counts {
            self.run.with_path += count?;
        }
        for meter in &self.meters {
            let links = meter.progress().0.opened_links();
            let links = links.filter_map(|link| LinkIndex::new(link, meter.schedule().slots));
            self.run.opened.extend(links.map(|link| (meter.id(), link)));
        }
        Ok((self.run, self.gateways))
    }

    /// The gateways, of a run that has failed.
    pub(crate) fn into_gateways(self) -> G {
        self.progress.finish();
        self.gateways
    }

    fn learn(&mut self, news: News) -> Result<(), RunError> {
        match news {
            News::Registered(meter, proof) => self.confirm(meter, &proof)?,
            News::Handover(bytes) => {
                let handover = codec::decode("handover", &bytes);
                let handover = handover.map_err(RunError::step("handover"))?;
                for meter in &mut self.meters {
                    meter.on_handover(&handover).map_err(RunError::step("handover"))?;
                }
            }
            News::Time(bytes) => {
                let proof: TimeProof<'_> =
                    codec::decode("time", &bytes).map_err(RunError::step("proof of time"))?;
                let now = self.gateways.now();
                for meter in &mut self.meters {
                    meter.on_time(now, &proof).map_err(RunError::step("proof of time"))?;
                }
            }
            News::Stamped(meter, index) => {
                self.run.requests_final += 1;
                if let Some(at) = self.numbers.get(&meter) {
                    self.meters[*at].stamped(index);
                }
            }
            News::Opened(meter, index) => {
                self.run.openings_final += 1;
                // Those before it have been opened or given up.
                self.others.retain(|(of, link), _| *of != meter || *link > index);
                self.released.retain(|(of, link), _| *of != meter || *link > index);
                if let Some(at) = self.numbers.get(&meter) {
                    let opened = self.meters[*at].acknowledged(index) as u64;
                    self.run.readings_final += opened;
                }
            }
            News::Receipt(issued) => self.keep(&issued)?,
            News::NotTaken(meter) => {
                // Another gateway at once.
                if let Some(sent) = self.submitted.get_mut(&meter) {
                    *sent = sent.checked_sub(self.gateways.retry()).unwrap_or(*sent);
                }
            }
            News::Final(took) => self.run.finality_ms.push(took),
            News::Block(finality) => {
                self.run.blocks += 1;
                self.run.finality_ms.extend(finality);
            }
            News::Blocks(blocks) => self.run.blocks = blocks,
        }
        let line = self.line();
        self.progress.update(self.run.readings_final, &line);
        Ok(())
    }

    fn confirm(&mut self, id: MeterId, bytes: &[u8]) -> Result<(), RunError> {
        let proof: RegistrationProof<'_> = codec::decode("registration", bytes)
            .map_err(RunError::step("proof of registration"))?;
        let Some(at) = self.numbers.get(&id) else { return Ok(()) };
        // The newest on the ledger may still be the meter's chain before; one that begins later has
        // taken the place of this one.
        let message = &proof.registration.message;
        let own = self.provisioned[*at].message();
        if message.salt() != own.salt() {
            if message.schedule.begins() < own.schedule.begins() {
                return Ok(());
            }
            let left = self.meters[*at].readings() - self.meters[*at].opened();
            let reason = format!(
                "another chain of meter {id} is on the ledger, from another run: {left} of its readings \
                 cannot be signed here any more"
            );
            return Err(RunError::Step("registration", reason));
        }
        self.meters[*at].confirm_registration(&proof).map_err(RunError::step("registration"))?;
        self.registered.insert(id);
        Ok(())
    }

    fn keep(&mut self, issued: &Issued) -> Result<(), RunError> {
        let receipt: Receipt<'_> =
            codec::decode("receipt", &issued.receipt).map_err(RunError::step("receipt"))?;
        let public = (issued.index.get(), receipt.link);
        let newest = self.run.public.entry(issued.meter).or_insert_with(|| public.clone());
        if newest.0 < public.0 {
            *newest = public;
        }
        self.receipts.write(issued)?;
        self.run.receipts += 1;
        Ok(())
    }

    /// Brings what is not registered to its owner's gateway, and after a while to the next one.
    fn register(&mut self) {
        let waits = self.registered.len() < self.meters.len();
        let waited = self.asked.is_none_or(|(asked, _)| asked.elapsed() >= REGISTER_AGAIN);
        if !waits || !waited {
            return;
        }
        let tries = self.asked.map_or(0, |(_, tries)| tries);
        for meter in self.provisioned {
            let message = meter.message();
            if !self.registered.contains(&message.meter) {
                let home = self.gateways.home(message.owner);
                let gateway = (home + tries) % self.gateways.count();
                let transaction = Transaction::Registration(meter.registration().clone());
                self.gateways.send(gateway, transaction.into());
            }
        }
        self.asked = Some((clock::now(), tries + 1));
    }

    /// Lets each meter sign in its slot, and tries another gateway where that takes long.
    fn sign(&mut self) -> Result<(), RunError> {
        let now = self.gateways.now();
        let (count, retry) = (self.gateways.count(), self.gateways.retry());
        for meter in &mut self.meters {
            let (id, home) = (meter.id(), self.gateways.home(meter.owner()));
            let signed = meter.sign(now).map_err(RunError::step("meter"))?;
            if let Some(signed) = signed {
                let message = signed.message();
                self.run.uplink_bytes += codec::length(&message) as u64;
                self.gateways.send(home, message.into());
                self.submitted.insert(id, clock::now());
                continue;
            }
            // What was signed in a run before this one is brought again at once.
            let sent = self.submitted.get(&id);
            if sent.is_some_and(|sent| sent.elapsed() < retry) {
                continue;
            }
            for signed in meter.unstamped() {
                if meter.schedule().accepts_request(signed.index(), now) {
                    let tries = self.others.entry((id, signed.index())).or_default();
                    *tries += 1;
                    let message = signed.message();
                    self.run.uplink_bytes += codec::length(&message) as u64;
                    self.gateways.send((home + *tries) % count, message.into());
                }
            }
            self.submitted.insert(id, clock::now());
        }
        Ok(())
    }

    /// Lets each meter release what certified time allows, to every gateway that has its body. Where
    /// that leads to nothing those may be down: the body is brought to one gateway after the other.
    fn release(&mut self) {
        let (count, retry) = (self.gateways.count(), self.gateways.retry());
        for meter in &mut self.meters {
            let Some(release) = meter.release(clock::now()) else { continue };
            let (home, key) = (self.gateways.home(meter.owner()), (meter.id(), release.index));
            let (since, brought) = self.released.entry(key).or_insert_with(|| (clock::now(), 0));
            let others = self.others.entry(key).or_default();
            if since.elapsed() >= retry
                && let Some(sent) = meter.sent(release.index)
            {
                self.run.uplink_bytes += codec::length(&sent.message()) as u64;
                self.gateways.send((home + *brought) % count, sent.message().into());
                *others = (*others).max(*brought);
                (*since, *brought) = (clock::now(), (*brought + 1) % count);
            }
            let others = *others;
            for offset in 0..=others.min(count - 1) {
                self.run.uplink_bytes += codec::length(&release) as u64;
                self.gateways.send((home + offset) % count, release.clone().into());
            }
        }
    }

    fn line(&self) -> String {
        let finality = self.run.finality_ms.last().copied().unwrap_or_default();
        let slot = self.meters.first().map_or(0, SoftwareMeter::opened);
        format!(
            "slot {slot}, {} requests final, {} openings final, {} blocks, finality {finality:.0} ms",
            self.run.requests_final, self.run.openings_final, self.run.blocks,
        )
    }
}

/// Adds `C_i` to the receipts of a meter whose blocks of links are public; returns how many.
fn complete_receipts(
    receipts: &Receipts,
    meter: &Provisioned,
    public: &BTreeMap<MeterId, (u32, Link)>,
) -> Result<u64, RunError> {
    let message = meter.message();
    let Some((newest, link)) = public.get(&message.meter) else { return Ok(0) };
    let paths = meter.paths()?;
    let mut completed = 0;
    for index in 1..=*newest {
        let slots = message.schedule.slots;
        let Some(index) = LinkIndex::new(index, slots) else { break };
        let path = receipts.path(message.meter, index);
        // A slot without a message has none.
        let Ok(receipt) = files::read(&path, MAX_RECEIPT) else { continue };
        match paths.complete(&receipt, (*newest, link)) {
            Ok(receipt) => write_whole(&path, &receipt)?,
            // Its block has links that are still secret; so have all that follow.
            Err(PathError::NotPublic { .. }) => break,
            Err(error) => return Err(RunError::Step("tree path of a link", error.to_string())),
        }
        completed += 1;
    }
    Ok(completed)
}
