//! Drives the demonstration: meters sign as ledger time passes, providers do the rest.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use bkss_ledger::{FinalBlock, Transaction, Witness, receipts::PathError};
use bkss_node::{Consortium, Event, LedgerClock};
use bkss_scheme::{
    LedgerTime, Link, LinkIndex, MeterId, codec,
    seal::Body,
    timestamp::{RegistrationProof, TimeProof},
};

use super::{
    DemoError, LEAD_S,
    founding::{Founding, Provisioned, provider_dir},
    records::{Archive, Receipts, write_whole},
    software_meter::SoftwareMeter,
};
use crate::{clock, output, parallel, provider::Sessions};

/// How often the driver looks at the clock and at the providers.
const TICK: Duration = Duration::from_millis(2);
/// A request that is not final after this goes to another provider as well.
const RETRY: Duration = Duration::from_millis(200);
/// Ledger milliseconds before the end of a window from which on time waits for requests.
const HOLD_BEFORE_MS: u64 = 150_000;
/// How long time waits; then the window is missed and its readings go into the next message.
const HOLD_AT_MOST: Duration = Duration::from_secs(10);
/// Without any final block for this long the providers are stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A demonstration under way.
pub(super) struct Drive<'a> {
    founding: &'a Founding,
    consortium: Consortium,
    clock: LedgerClock,
    dir: PathBuf,
    meters: Vec<SoftwareMeter>,
    numbers: BTreeMap<MeterId, usize>,
    witnesses: Vec<Witness>,
    sessions: Vec<Sessions>,
    receipts: Receipts,
    archive: Archive,
    progress: output::Progress,
    run: Run,
    registered: usize,
    /// Newest ledger time that meters have proof of.
    proven: LedgerTime,
    submitted: BTreeMap<MeterId, (Instant, usize)>,
    newest: Instant,
    progressed: Instant,
    /// Since when ledger time waits for late requests.
    held: Option<Instant>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Accepted requests.
    pub(super) requests_final: u64,
    /// Accepted openings.
    pub(super) openings_final: u64,
    /// Readings in them.
    pub(super) readings_final: u64,
    /// Final blocks.
    pub(super) blocks: u64,
    /// Time from a block's time stamp to its finality, milliseconds, of each block with
    /// transactions.
    pub(super) finality_ms: Vec<f64>,
    /// Bytes that meters sent.
    pub(super) uplink_bytes: u64,
    /// Receipts on disk.
    pub(super) receipts: u64,
    /// Those among them that carry `C_i`.
    pub(super) with_path: u64,
    /// Length of the archive.
    pub(super) archive_bytes: u64,
    /// Newest public link of each meter.
    public: BTreeMap<MeterId, (u32, Link)>,
}

impl<'a> Drive<'a> {
    /// Takes over running providers.
    pub(super) fn new(
        founding: &'a Founding,
        consortium: Consortium,
        clock: LedgerClock,
        dir: &Path,
        slots: usize,
    ) -> Result<Self, DemoError> {
        let first = LedgerTime::from_seconds(founding.genesis_time().seconds() + LEAD_S);
        let start_s = first.seconds() - u64::from(super::SLOT_S);
        let meters = founding.software_meters(start_s)?;
        let sessions = founding.keys.iter().map(|keys| {
            Sessions::open(&provider_dir(dir, keys.id)).map_err(DemoError::step("sessions"))
        });
        let readings = meters.len() * slots;
        Ok(Self {
            numbers: meters.iter().enumerate().map(|(at, meter)| (meter.id(), at)).collect(),
            witnesses: founding
                .keys
                .iter()
                .map(|keys| Witness::new(founding.genesis.clone(), Some(keys.id)))
                .collect(),
            sessions: sessions.collect::<Result<_, _>>()?,
            receipts: Receipts::new(dir),
            archive: Archive::create(dir, &founding.genesis)?,
            progress: output::Progress::new(readings as u64),
            run: Run::default(),
            registered: 0,
            proven: LedgerTime(0),
            submitted: BTreeMap::new(),
            newest: clock::now(),
            progressed: clock::now(),
            held: None,
            dir: dir.to_owned(),
            founding,
            consortium,
            clock,
            meters,
        })
    }

    /// Runs until every reading is final.
    pub(super) fn run(&mut self, stop: &AtomicBool) -> Result<(), DemoError> {
        for meter in &self.founding.meters {
            let owner = usize::from(meter.registration.message.owner.0);
            let mailbox = &self.consortium.members[owner].mailbox;
            mailbox
                .post(Transaction::Registration(meter.registration.clone()))
                .map_err(DemoError::step("registration"))?;
        }
        while !self.done() {
            if stop.load(Ordering::SeqCst) {
                return Err(DemoError::Stopped(self.dir.clone()));
            }
            self.check_progress()?;
            self.read_events()?;
            self.sign()?;
            self.keep_time();
            self.release();
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Fails if nothing has become final for long.
    fn check_progress(&self) -> Result<(), DemoError> {
        let stuck = if self.newest.elapsed() > STUCK {
            "no final block"
        } else if self.progressed.elapsed() > STUCK {
            "no registration, request or opening became final"
        } else {
            return Ok(());
        };
        Err(DemoError::Step("providers", format!("{stuck} for {} s", STUCK.as_secs())))
    }

    /// Whether all readings are final and every owner has issued its receipts.
    fn done(&self) -> bool {
        self.run.receipts == self.run.openings_final && self.meters.iter().all(SoftwareMeter::done)
    }

    /// Stops the providers, ends the archive, adds `C_i` where it has become possible.
    pub(super) fn finish(mut self, outcome: Result<(), DemoError>) -> Result<Run, DemoError> {
        self.progress.finish();
        self.consortium.stop();
        outcome?;
        self.run.archive_bytes = self.archive.finish()?;
        let counts = parallel::map(&self.founding.meters, |meter| {
            complete_receipts(&self.receipts, meter, &self.run.public)
        });
        for count in counts {
            self.run.with_path += count?;
        }
        Ok(self.run)
    }

    fn read_events(&mut self) -> Result<(), DemoError> {
        for provider in 0..self.consortium.members.len() {
            while let Ok(Event::Final { block, seen }) =
                self.consortium.members[provider].events.try_recv()
            {
                self.owner_follows(provider, &block)?;
                if provider == 0 {
                    self.everybody_follows(&block, seen)?;
                }
            }
        }
        Ok(())
    }

    /// What an owner SP does with a final block: sessions and receipts of its meters.
    fn owner_follows(&mut self, provider: usize, block: &FinalBlock) -> Result<(), DemoError> {
        for issued in self.witnesses[provider].follow(block.clone()) {
            let receipt: bkss_scheme::receipt::Receipt<'_> =
                codec::decode("receipt", &issued.receipt).map_err(DemoError::step("receipt"))?;
            let body: Body<'_> =
                codec::decode("body", receipt.body).map_err(DemoError::step("body"))?;
            if let Some(key) = body.encapsulated {
                self.sessions[provider]
                    .append(issued.meter, issued.index, body.key, &key)
                    .map_err(DemoError::step("sessions"))?;
            }
            self.receipts.write(&issued)?;
            self.run.receipts += 1;
        }
        for registered in block.verified().registered() {
            let id = registered.message().meter;
            if let Some(bytes) = self.witnesses[provider].registration_proof(id)
                && let Some(at) = self.numbers.get(&id)
            {
                let proof: RegistrationProof<'_> = codec::decode("registration", &bytes)
                    .map_err(DemoError::step("proof of registration"))?;
                self.meters[*at]
                    .confirm_registration(&proof)
                    .map_err(DemoError::step("registration"))?;
                self.registered += 1;
            }
        }
        Ok(())
    }

    /// What everybody sees: acceptance and time.
    fn everybody_follows(&mut self, block: &FinalBlock, seen: SystemTime) -> Result<(), DemoError> {
        let verified = block.verified();
        self.archive.append(block)?;
        self.newest = clock::now();
        if !verified.block().transactions().is_empty() {
            self.progressed = self.newest;
        }
        self.run.blocks += 1;
        self.run.requests_final += verified.requests().len() as u64;
        self.run.openings_final += verified.openings().len() as u64;
        let proposed = self.clock.when(block.header().time);
        if let Some(proposed) = proposed.filter(|_| !verified.block().transactions().is_empty()) {
            let finality = seen.duration_since(proposed).unwrap_or_default();
            self.run.finality_ms.push(finality.as_secs_f64() * 1000.0);
        }
        for request in verified.requests() {
            if let Some(at) = self.numbers.get(&request.meter) {
                self.meters[*at].stamped(request.index);
            }
        }
        for accepted in verified.openings() {
            let opening = &accepted.opening;
            if let Some(at) = self.numbers.get(&opening.meter) {
                let opened = self.meters[*at].acknowledged(opening.index) as u64;
                self.run.readings_final += opened;
            }
            let public = (opening.index.get(), opening.link.clone());
            let newest = self.run.public.entry(opening.meter).or_insert_with(|| public.clone());
            if newest.0 < public.0 {
                *newest = public;
            }
        }
        self.prove_time(block)?;
        let line = self.run_line(block);
        self.progress.update(self.run.readings_final, &line);
        Ok(())
    }

    /// Gives meters a proof of time when it closes a window.
    fn prove_time(&mut self, block: &FinalBlock) -> Result<(), DemoError> {
        let time = block.header().time;
        let window = |time: LedgerTime| {
            let seconds = time.seconds();
            let slot = u64::from(super::SLOT_S);
            (seconds / slot, seconds % slot >= u64::from(super::WINDOW_S))
        };
        if window(time) != window(self.proven) {
            let bytes = block.time_proof();
            let proof: TimeProof<'_> =
                codec::decode("time", &bytes).map_err(DemoError::step("proof of time"))?;
            for meter in &mut self.meters {
                meter.on_time(&proof).map_err(DemoError::step("proof of time"))?;
            }
            self.proven = time;
        }
        Ok(())
    }

    /// Lets each meter sign in its slot, and tries another provider where that takes long.
    fn sign(&mut self) -> Result<(), DemoError> {
        if self.registered < self.meters.len() {
            return Ok(());
        }
        let now = self.clock.at(clock::wall());
        let members = &self.consortium.members;
        for meter in &mut self.meters {
            let (id, owner) = (meter.id(), usize::from(meter.owner().0));
            let signed = meter.sign(now).map_err(DemoError::step("meter"))?;
            if let Some(signed) = signed {
                let message = signed.message();
                self.run.uplink_bytes += codec::length(&message) as u64;
                // What is not taken is tried again below.
                let _ = members[owner].mailbox.post(message);
                self.submitted.insert(id, (clock::now(), 0));
                continue;
            }
            let Some((sent, tries)) = self.submitted.get_mut(&id) else { continue };
            if sent.elapsed() < RETRY {
                continue;
            }
            for signed in meter.unstamped() {
                if meter.schedule().accepts_request(signed.index(), now) {
                    *tries += 1;
                    let message = signed.message();
                    self.run.uplink_bytes += codec::length(&message) as u64;
                    let gateway = (owner + *tries) % members.len();
                    let _ = members[gateway].mailbox.post(message);
                }
            }
            *sent = clock::now();
        }
        Ok(())
    }

    /// Lets ledger time run once all meters are registered, and holds it while the end of a window
    /// is near and requests are not final: the machine may be slower than the demonstration.
    fn keep_time(&mut self) {
        if self.registered < self.meters.len() {
            return;
        }
        let wall = clock::wall();
        let limit = LedgerTime(self.clock.at(wall).0 + HOLD_BEFORE_MS);
        let late = self.meters.iter().any(|meter| {
            let schedule = meter.schedule();
            meter.unstamped().any(|signed| schedule.closes(signed.index()) <= limit)
        });
        let held = self.held.filter(|_| late);
        if late && held.is_none_or(|since| since.elapsed() < HOLD_AT_MOST) {
            self.held = held.or_else(|| Some(clock::now()));
            self.clock.hold(wall);
        } else {
            self.held = held;
            self.clock.start(wall);
        }
    }

    /// Lets each meter release what certified time allows, to every gateway that has its body.
    fn release(&mut self) {
        let members = &self.consortium.members;
        for meter in &mut self.meters {
            let Some(release) = meter.release(clock::now()) else { continue };
            let owner = usize::from(meter.owner().0);
            let tries = self.submitted.get(&meter.id()).map_or(0, |(_, tries)| *tries);
            for offset in 0..=tries.min(members.len() - 1) {
                self.run.uplink_bytes += codec::length(&release) as u64;
                let gateway = (owner + offset) % members.len();
                let _ = members[gateway].mailbox.post(release.clone());
            }
        }
    }

    fn run_line(&self, block: &FinalBlock) -> String {
        let finality = self.run.finality_ms.last().copied().unwrap_or_default();
        let slot = self.meters.first().map_or(0, SoftwareMeter::opened);
        format!(
            "slot {slot}, {} requests final, {} openings final, block {}, finality {finality:.0} ms",
            self.run.requests_final,
            self.run.openings_final,
            block.header().height,
        )
    }
}

/// Adds `C_i` to the receipts of a meter whose blocks of links are public; returns how many.
fn complete_receipts(
    receipts: &Receipts,
    meter: &Provisioned,
    public: &BTreeMap<MeterId, (u32, Link)>,
) -> Result<u64, DemoError> {
    let message = &meter.registration.message;
    let Some((newest, link)) = public.get(&message.meter) else { return Ok(0) };
    let mut completed = 0;
    for index in 1..=*newest {
        let slots = message.schedule.slots;
        let Some(index) = LinkIndex::new(index, slots) else { break };
        let path = receipts.path(message.meter, index);
        let Ok(receipt) = std::fs::read(&path) else { continue }; // a slot without a message
        match meter.paths.complete(&receipt, (*newest, link)) {
            Ok(receipt) => write_whole(&path, &receipt)?,
            // Its block has links that are still secret; so have all that follow.
            Err(PathError::NotPublic { .. }) => break,
            Err(error) => return Err(DemoError::Step("tree path of a link", error.to_string())),
        }
        completed += 1;
    }
    Ok(completed)
}
