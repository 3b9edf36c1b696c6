//! Gateways that are called over HTTP.
//!
//! Messages go out in batches; what has become of them is asked for now and then. A node that does
//! not answer is passed over for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, BufWriter},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use bkss_ledger::{
    Genesis, Trust,
    archive::{ArchiveError, Reader},
    receipts::Issued,
};
use bkss_node::{LedgerClock, Message, api::SlotBody};
use bkss_scheme::{
    Handover, LedgerTime, LinkIndex, MeterId, ProviderId, codec,
    receipt::Receipt,
    timestamp::{RegistrationProof, TimeProof},
};

use super::meter_dir;
use crate::{
    changes::hex,
    client::{Client, ClientError, Reply},
    clock, files,
    meters::{Gateways, News, RunError, SoftwareMeter, write_whole},
    output,
};

/// How often nodes are asked.
const POLL: Duration = Duration::from_millis(200);
/// How long a node that did not answer is passed over.
const PASS_OVER: Duration = Duration::from_secs(2);
/// Without any news for so many slots, and at least this long, nothing will come any more.
const STUCK: Duration = Duration::from_secs(120);

/// Ledger time as a provider's clock shows it.
pub(super) fn ledger_clock(genesis: &Genesis) -> LedgerClock {
    let charter = genesis.charter();
    let origin = SystemTime::UNIX_EPOCH + Duration::from_millis(charter.start.0);
    LedgerClock::new(origin, charter.start, charter.time_scale)
}

/// Where it is noted how far a meter has got.
pub(super) fn progress_path(dir: &Path) -> PathBuf {
    dir.join("progress.bkss")
}

/// Where in an archive the blocks behind this height begin.
fn offset_behind(path: &Path, genesis: &Genesis, height: u64) -> Result<u64, RunError> {
    let (network, limit) = (genesis.network(), genesis.charter().limits.block_bytes as usize);
    let file = BufReader::new(File::open(path).map_err(files::unreadable(path))?);
    let first = genesis.header().id();
    let read = || {
        let mut archive = Reader::new(file, network, first, limit)?;
        for _ in 0..height {
            if archive.next_block()?.is_none() {
                break;
            }
        }
        Ok::<_, ArchiveError>(archive.offset())
    };
    read().map_err(RunError::step("archive of a node"))
}

/// Nodes.
pub(super) struct Remote {
    clients: Vec<Client>,
    /// Since when a node has not answered.
    silent: Vec<Option<Instant>>,
    clock: LedgerClock,
    trust: Trust,
    /// Handovers that meters have not seen, oldest first, with their epochs.
    handovers: Vec<(u64, Vec<u8>)>,
    /// Bytes of the genesis file that have been looked at.
    followed: usize,
    owners: Vec<ProviderId>,
    out: PathBuf,
    outbox: Vec<Vec<Message>>,
    polled: Option<Instant>,
    /// How often the progress of each meter had changed when it was noted last.
    noted: BTreeMap<MeterId, u64>,
    heard: Instant,
    /// Height of the ledger when the run began.
    began: u64,
    /// What a node has refused, once each.
    told: BTreeSet<String>,
}

impl Remote {
    /// Nodes of a network.
    pub(super) fn new(
        clients: Vec<Client>,
        clock: LedgerClock,
        trust: Trust,
        owners: Vec<ProviderId>,
        out: &Path,
        began: u64,
    ) -> Self {
        Self {
            silent: vec![None; clients.len()],
            outbox: vec![Vec::new(); clients.len()],
            followed: 0,
            handovers: Vec::new(),
            polled: None,
            noted: BTreeMap::new(),
            heard: clock::now(),
            began,
            told: BTreeSet::new(),
            out: out.to_owned(),
            clients,
            clock,
            trust,
            owners,
        }
    }

    /// Fetches the archive and the newest genesis file; returns how many bytes of the archive and how
    /// many blocks have come since the run began, and what to check receipts with.
    pub(super) fn finish(mut self, dir: &Path) -> Result<(u64, u64, Trust), RunError> {
        let path = dir.join("archive.bkss");
        let file = File::create(&path).map_err(files::unwritable(&path))?;
        let mut sink = BufWriter::new(file);
        let bytes = self.ask(0, |client| client.archive(&mut sink).map(Some))?.unwrap_or(0);
        sink.into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(files::unwritable(&path))?;
        let genesis = self.ask(0, |client| client.genesis().map(Some))?.unwrap_or_default();
        self.trust = Trust::decode(&genesis).map_err(RunError::step("genesis of a node"))?;
        write_whole(&dir.join("genesis.bkss"), &genesis)?;
        let status = self.ask(0, |client| client.status().map(Some))?;
        let before = offset_behind(&path, self.trust.genesis(), self.began)?;
        let blocks = status.map_or(0, |status| status.height.saturating_sub(self.began));
        Ok((bytes.saturating_sub(before), blocks, self.trust))
    }

    /// Asks one node after the other, from `first` on, until one answers. What is not there yet is
    /// no answer, and none of the others is asked.
    fn ask<T>(
        &mut self,
        first: usize,
        mut question: impl FnMut(&Client) -> Result<Option<T>, ClientError>,
    ) -> Result<Option<T>, ClientError> {
        let count = self.clients.len();
        let mut refused = None;
        for offset in 0..count {
            let at = (first + offset) % count;
            if self.silent[at].is_some_and(|since| since.elapsed() < PASS_OVER) {
                continue;
            }
            match question(&self.clients[at]) {
                Ok(answer) => return Ok(answer),
                Err(ClientError::Refused { status: 404, .. }) => return Ok(None),
                Err(error @ ClientError::Unreachable { .. }) => {
                    self.silent[at] = Some(clock::now());
                    refused = Some(error);
                }
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            // Somebody may answer later; whether nobody does is seen by the lack of news.
            Some(ClientError::Unreachable { .. } | ClientError::Busy { .. }) | None => Ok(None),
            Some(error) => Err(error),
        }
    }

    fn flush(&mut self, news: &mut Vec<News>) {
        for at in 0..self.clients.len() {
            let messages = std::mem::take(&mut self.outbox[at]);
            if messages.is_empty() {
                continue;
            }
            let silent = self.silent[at].is_some_and(|since| since.elapsed() < PASS_OVER);
            let replies = if silent { None } else { self.leave(at, &messages) };
            let Some(replies) = replies else {
                news.extend(messages.iter().filter_map(meter_of).map(News::NotTaken));
                continue;
            };
            for (message, reply) in messages.iter().zip(replies) {
                match reply {
                    Reply::Accepted => continue,
                    Reply::Refused { message: reason, .. } => self.tell(at, &reason),
                    Reply::Overloaded { .. } => {}
                }
                news.extend(meter_of(message).map(News::NotTaken));
            }
        }
    }

    fn leave(&mut self, at: usize, messages: &[Message]) -> Option<Vec<Reply>> {
        match self.clients[at].submit_many(messages) {
            Ok(replies) => Some(replies),
            Err(error) => {
                self.silent[at] = Some(clock::now());
                self.tell(at, &error.to_string());
                None
            }
        }
    }

    /// Says once what a node refuses.
    fn tell(&mut self, at: usize, reason: &str) {
        let line = format!("{}: {reason}", self.clients[at].url());
        if self.told.len() < 20 && self.told.insert(line.clone()) {
            output::note(&line);
        }
    }

    /// New changes of the committee.
    fn follow(&mut self) -> Result<(), RunError> {
        let Some(bytes) = self.ask(0, |client| client.genesis().map(Some))? else { return Ok(()) };
        if bytes.len() <= self.followed {
            return Ok(());
        }
        let trust = Trust::decode(&bytes).map_err(RunError::step("genesis of a node"))?;
        if trust.genesis().network() != self.trust.genesis().network() {
            return Err(RunError::Step("genesis of a node", "of another network".into()));
        }
        let (_, mut rest) =
            Genesis::decode_first(&bytes).map_err(RunError::step("genesis of a node"))?;
        while !rest.is_empty() {
            let start = bytes.len() - rest.len();
            let handover: Handover<'_> = codec::decode_first("handover", &mut rest)
                .map_err(RunError::step("genesis of a node"))?;
            if start >= self.followed && handover.committee.is_some() {
                let epoch = handover.finality.certificate.epoch;
                self.handovers.push((epoch, bytes[start..bytes.len() - rest.len()].to_vec()));
            }
        }
        self.followed = bytes.len();
        self.trust = trust;
        Ok(())
    }

    /// Hands over to the committee that is in office in an epoch.
    fn hand_over(&mut self, epoch: u64, news: &mut Vec<News>) {
        let due = self.handovers.iter().take_while(|(from, _)| *from < epoch).count();
        news.extend(self.handovers.drain(..due).map(|(_, bytes)| News::Handover(bytes)));
    }

    fn ask_registrations(
        &mut self,
        meters: &[SoftwareMeter],
        registered: &BTreeSet<MeterId>,
        news: &mut Vec<News>,
    ) -> Result<(), RunError> {
        let mut proofs = Vec::new();
        for meter in meters.iter().filter(|meter| !registered.contains(&meter.id())) {
            let (id, home) = (meter.id(), self.home(meter.owner()));
            let found = self.ask(home, |client| client.registration_proof(id).map(Some))?;
            let Some(bytes) = found else { continue };
            let proof: RegistrationProof<'_> = codec::decode("registration", &bytes)
                .map_err(RunError::step("proof of registration"))?;
            let epoch = proof.inclusion.finality.certificate.epoch;
            proofs.push((epoch, id, bytes));
        }
        // A meter follows committees forwards only, so the oldest proof comes first.
        proofs.sort_by_key(|(epoch, ..)| *epoch);
        for (epoch, id, bytes) in proofs {
            self.hand_over(epoch, news);
            news.push(News::Registered(id, bytes));
        }
        Ok(())
    }

    /// Proof that the oldest window is over which a meter waits for.
    fn ask_time(&mut self, meters: &[SoftwareMeter], news: &mut Vec<News>) -> Result<(), RunError> {
        let waits = meters.iter().flat_map(|meter| {
            let certified = meter.certified_time().unwrap_or(LedgerTime(0));
            let closes = meter.unopened().map(|index| meter.schedule().closes(index));
            closes.filter(move |closes| certified < *closes)
        });
        let Some(closes) = waits.min() else { return Ok(()) };
        if self.now() < closes {
            return Ok(());
        }
        let found = self.ask(0, |client| client.time_proof(Some(closes)).map(Some))?;
        let Some(bytes) = found else { return Ok(()) };
        let proof: TimeProof<'_> =
            codec::decode("time", &bytes).map_err(RunError::step("proof of time"))?;
        self.hand_over(proof.finality.certificate.epoch, news);
        news.push(News::Time(bytes));
        Ok(())
    }

    fn ask_slots(
        &mut self,
        meters: &[SoftwareMeter],
        news: &mut Vec<News>,
    ) -> Result<(), RunError> {
        for meter in meters {
            let (id, home) = (meter.id(), self.home(meter.owner()));
            for signed in meter.unstamped() {
                let index = signed.index();
                let found = self.ask(home, |client| client.slot(id, index).map(Some))?;
                // Whoever knows the meter may have had something else requested.
                let value = hex(&signed.message().value.0);
                let own = |slot: SlotBody| slot.requested.iter().any(|one| one.value == value);
                if found.is_some_and(own) {
                    news.push(News::Stamped(id, index));
                }
            }
            let certified = meter.certified_time().unwrap_or(LedgerTime(0));
            let closed = |index: &LinkIndex| meter.schedule().closes(*index) <= certified;
            for index in meter.unopened().filter(closed) {
                let found = self.ask(home, |client| client.receipt(id, index).map(Some))?;
                let Some(receipt) = found else { continue };
                // It may be of an earlier chain of this meter.
                let Some(took) = self.took(&receipt, meter)? else { continue };
                news.push(News::Final(took));
                news.push(News::Opened(id, index));
                news.push(News::Receipt(Issued { meter: id, index, receipt }));
            }
        }
        Ok(())
    }

    /// Milliseconds from the time stamp of an opening's block until now; `None` if it is not of the
    /// meter's chain.
    fn took(&self, receipt: &[u8], meter: &SoftwareMeter) -> Result<Option<f64>, RunError> {
        let receipt: Receipt<'_> =
            codec::decode("receipt", receipt).map_err(RunError::step("receipt of a node"))?;
        if receipt.registration.message.salt() != meter.message().salt() {
            return Ok(None);
        }
        let proposed = self.clock.when(receipt.opened.header.time);
        let took = proposed.and_then(|proposed| clock::wall().duration_since(proposed).ok());
        Ok(Some(took.unwrap_or_default().as_secs_f64() * 1000.0))
    }
}

/// The meter that has to send it again elsewhere.
fn meter_of(message: &Message) -> Option<MeterId> {
    match message {
        Message::Submit { meter, .. } => Some(*meter),
        _ => None,
    }
}

impl Gateways for Remote {
    fn now(&self) -> LedgerTime {
        self.clock.at(clock::wall())
    }

    fn count(&self) -> usize {
        self.clients.len()
    }

    fn home(&self, owner: ProviderId) -> usize {
        let at = self.owners.iter().position(|id| *id == owner).unwrap_or(0);
        at % self.clients.len()
    }

    fn send(&mut self, gateway: usize, message: Message) {
        self.outbox[gateway].push(message);
    }

    fn retry(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn outlives_process(&self) -> bool {
        true
    }

    fn note(&mut self, meters: &[SoftwareMeter]) -> Result<(), RunError> {
        for meter in meters {
            let (progress, changes) = meter.progress();
            let noted = self.noted.entry(meter.id()).or_default();
            if *noted != changes {
                progress.save(&progress_path(&meter_dir(&self.out, meter.id())))?;
                *noted = changes;
            }
        }
        Ok(())
    }

    fn news(
        &mut self,
        meters: &[SoftwareMeter],
        registered: &BTreeSet<MeterId>,
    ) -> Result<Vec<News>, RunError> {
        let mut news = Vec::new();
        self.flush(&mut news);
        if self.polled.is_some_and(|polled| polled.elapsed() < POLL) {
            return Ok(news);
        }
        self.follow()?;
        if let Some(head) = self.ask(0, |client| client.head().map(Some))? {
            news.push(News::Blocks(head.height.saturating_sub(self.began)));
        }
        if registered.len() < meters.len() {
            self.ask_registrations(meters, registered, &mut news)?;
        } else {
            self.ask_time(meters, &mut news)?;
        }
        // Also before the first reading is signed: what a run before this one has sent may be final.
        self.ask_slots(meters, &mut news)?;
        self.polled = Some(clock::now());
        let waits = meters.iter().any(|meter| {
            let certified = meter.certified_time().unwrap_or(LedgerTime(0));
            let closed = |index: &LinkIndex| meter.schedule().closes(*index) <= certified;
            meter.unstamped().next().is_some() || meter.unopened().any(|index| closed(&index))
        });
        // Time passes on a ledger on which nothing else happens.
        let moves = news
            .iter()
            .any(|news| !matches!(news, News::Time(_) | News::NotTaken(_) | News::Blocks(_)));
        if moves || !waits && registered.len() == meters.len() {
            self.heard = clock::now();
        } else if self.heard.elapsed() > STUCK {
            let seconds = STUCK.as_secs();
            let reason = format!("nothing became final for {seconds} s, see above");
            return Err(RunError::Step("nodes", reason));
        }
        Ok(news)
    }

    /// Nobody holds time on a network.
    fn keep_time(&mut self, _: &[SoftwareMeter], _: bool) {}
}
