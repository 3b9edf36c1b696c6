//! The gateways of the demonstration: providers in this process, and the clock they share.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use bkss_ledger::{FinalBlock, Witness};
use bkss_node::{Consortium, Event, LedgerClock, Message};
use bkss_scheme::{LedgerTime, MeterId, ProviderId, codec, receipt::Receipt, seal::Body};

use super::founding::{Founding, provider_dir};
use crate::{
    clock,
    meters::{Archive, Gateways, News, RunError, SoftwareMeter},
    sessions::Sessions,
};

/// Ledger milliseconds before the end of a window from which on time waits for requests.
const HOLD_BEFORE_MS: u64 = 150_000;
/// How long time waits; then the window is missed and its readings go into the next message.
const HOLD_AT_MOST: Duration = Duration::from_secs(10);
/// How long the end of a run waits for the certificate of its newest block.
const CERTIFIED_WITHIN: Duration = Duration::from_secs(10);
/// Without any final block for this long the providers are stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Running providers with the owners behind them.
pub(super) struct InProcess {
    consortium: Consortium,
    clock: LedgerClock,
    witnesses: Vec<Witness>,
    sessions: Vec<Sessions>,
    archive: Archive,
    /// Newest ledger time that meters have proof of.
    proven: LedgerTime,
    newest: Instant,
    progressed: Instant,
    /// Since when ledger time waits for late requests.
    held: Option<Instant>,
}

impl InProcess {
    /// Takes over running providers.
    pub(super) fn new(
        founding: &Founding,
        consortium: Consortium,
        clock: LedgerClock,
        dir: &Path,
    ) -> Result<Self, RunError> {
        let witness = |id| Witness::new(founding.genesis.clone(), Some(id));
        let sessions = founding.keys.iter().map(|keys| {
            Sessions::open(&provider_dir(dir, keys.id)).map_err(RunError::step("sessions"))
        });
        Ok(Self {
            witnesses: founding.keys.iter().map(|keys| witness(keys.id)).collect(),
            sessions: sessions.collect::<Result<_, _>>()?,
            archive: Archive::create(dir, &founding.genesis)?,
            proven: LedgerTime(0),
            newest: clock::now(),
            progressed: clock::now(),
            held: None,
            consortium,
            clock,
        })
    }

    /// Stops the providers and ends the archive; returns its length.
    pub(super) fn finish(mut self) -> Result<u64, RunError> {
        self.complete_archive()?;
        self.consortium.stop();
        self.archive.finish()
    }

    /// Waits a little for a certificate that makes the newest blocks final to auditors.
    fn complete_archive(&mut self) -> Result<(), RunError> {
        let began = clock::now();
        while !self.archive.is_whole() && began.elapsed() < CERTIFIED_WITHIN {
            while let Ok(Event::Final { block, .. }) = self.consortium.members[0].events.try_recv()
            {
                self.archive.append(&block)?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Stops the providers of a run that has failed.
    pub(super) fn stop(self) {
        self.consortium.stop();
    }

    /// Fails if nothing has become final for long.
    fn check_progress(&self) -> Result<(), RunError> {
        let stuck = if self.newest.elapsed() > STUCK {
            "no final block"
        } else if self.progressed.elapsed() > STUCK {
            "no registration, request or opening became final"
        } else {
            return Ok(());
        };
        Err(RunError::Step("providers", format!("{stuck} for {} s", STUCK.as_secs())))
    }

    /// What an owner SP does with a final block: sessions and receipts of its meters.
    fn owner_follows(
        &mut self,
        provider: usize,
        block: &FinalBlock,
        news: &mut Vec<News>,
    ) -> Result<(), RunError> {
        for issued in self.witnesses[provider].follow(block.clone()) {
            let receipt: Receipt<'_> =
                codec::decode("receipt", &issued.receipt).map_err(RunError::step("receipt"))?;
            let body: Body<'_> =
                codec::decode("body", receipt.body).map_err(RunError::step("body"))?;
            if let Some(key) = body.encapsulated {
                self.sessions[provider]
                    .append(issued.meter, issued.index, body.key, &key)
                    .map_err(RunError::step("sessions"))?;
            }
            news.push(News::Receipt(issued));
        }
        for registered in block.verified().registered() {
            let id = registered.message().meter;
            let proof = self.witnesses[provider].registration_proof(id);
            news.extend(proof.map(|proof| News::Registered(id, proof)));
        }
        Ok(())
    }

    /// What everybody sees: acceptance and time.
    fn everybody_follows(
        &mut self,
        block: &FinalBlock,
        seen: SystemTime,
        news: &mut Vec<News>,
    ) -> Result<(), RunError> {
        let verified = block.verified();
        self.archive.append(block)?;
        self.newest = clock::now();
        let busy = !verified.block().transactions().is_empty();
        if busy {
            self.progressed = self.newest;
        }
        let proposed = self.clock.when(block.header().time).filter(|_| busy);
        news.push(News::Block(proposed.map(|proposed| {
            let finality = seen.duration_since(proposed).unwrap_or_default();
            finality.as_secs_f64() * 1000.0
        })));
        let stamped = verified.requests().iter().map(|one| News::Stamped(one.meter, one.index));
        news.extend(stamped);
        let opened = verified.openings().iter().map(|accepted| &accepted.opening);
        news.extend(opened.map(|one| News::Opened(one.meter, one.index)));
        let time = block.header().time;
        if window(time) != window(self.proven)
            && let Some(proof) = block.time_proof()
        {
            news.push(News::Time(proof));
            self.proven = time;
        }
        Ok(())
    }
}

/// The slot of a time, and whether its window has closed.
const fn window(time: LedgerTime) -> (u64, bool) {
    let (seconds, slot) = (time.seconds(), super::SLOT_S as u64);
    (seconds / slot, seconds % slot >= super::WINDOW_S as u64)
}

impl Gateways for InProcess {
    fn now(&self) -> LedgerTime {
        self.clock.at(clock::wall())
    }

    fn count(&self) -> usize {
        self.consortium.members.len()
    }

    fn home(&self, owner: ProviderId) -> usize {
        usize::from(owner.0)
    }

    fn send(&mut self, gateway: usize, message: Message) {
        // What is not taken is sent again.
        let _ = self.consortium.members[gateway].mailbox.post(message);
    }

    fn retry(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn news(&mut self, _: &[SoftwareMeter], _: &BTreeSet<MeterId>) -> Result<Vec<News>, RunError> {
        self.check_progress()?;
        let mut news = Vec::new();
        for provider in 0..self.consortium.members.len() {
            while let Ok(Event::Final { block, seen }) =
                self.consortium.members[provider].events.try_recv()
            {
                self.owner_follows(provider, &block, &mut news)?;
                if provider == 0 {
                    self.everybody_follows(&block, seen, &mut news)?;
                }
            }
        }
        Ok(news)
    }

    /// Nobody goes on with a demonstration.
    fn outlives_process(&self) -> bool {
        false
    }

    fn note(&mut self, _: &[SoftwareMeter]) -> Result<(), RunError> {
        Ok(())
    }

    /// Lets ledger time run once all meters are registered, and holds it while the end of a window
    /// is near and requests are not final: the machine may be slower than the demonstration.
    fn keep_time(&mut self, meters: &[SoftwareMeter], begun: bool) {
        if !begun {
            return;
        }
        let wall = clock::wall();
        let limit = LedgerTime(self.clock.at(wall).0 + HOLD_BEFORE_MS);
        let late = meters.iter().any(|meter| {
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
}
