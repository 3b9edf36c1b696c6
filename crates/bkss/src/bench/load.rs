//! Keeps a consortium as busy as it can be, and watches what becomes final.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bkss_ledger::{FinalBlock, Transaction};
use bkss_node::{Consortium, Event, LedgerClock, Message};
use bkss_scheme::MeterId;

use super::{
    fleet::{Fleet, slot_times},
    usage,
};
use crate::{clock, command::CommandError, output};

/// How often the driver looks at the clock and at the providers.
const TICK: Duration = Duration::from_millis(1);
/// Where none of a slot's messages has become final for this long, those that are not are sent
/// again, to another gateway.
const RETRY: Duration = Duration::from_secs(3);
/// Without any progress for this long the providers are stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Registrations under way at a time.
const REGISTERING: usize = 4096;
/// Messages that are left at a gateway at once.
const CALL: usize = 4096;

/// Meters against providers.
pub(super) struct Load<'a> {
    fleet: &'a Fleet,
    consortium: Consortium,
    clock: LedgerClock,
    /// Providers that take messages and count: the first so many.
    live: usize,
    registered: Vec<u64>,
    /// Progress of each slot, the first at 0.
    slots: Vec<Progress>,
    /// Slots whose requests, and whose openings, have been sent.
    requested: u32,
    opened: u32,
    /// Messages for which a gateway had no room yet, by provider.
    unsent: Vec<VecDeque<Vec<Message>>>,
    /// Blocks, and refused items, on the first provider.
    blocks: u64,
    refused: u64,
    progressed: Instant,
    /// Requests and openings not final on all: when sent, and latencies of those that are.
    latencies: Vec<u32>,
}

/// What is final of a slot, by provider.
struct Progress {
    requests: Phase,
    openings: Phase,
}

/// One of the two messages of a slot, of all meters.
struct Phase {
    sent: Option<Instant>,
    /// When items became final everywhere last, or were sent.
    progressed: Option<Instant>,
    tries: usize,
    /// Accepted items by provider.
    accepted: Vec<u32>,
    /// Meters whose message is final on the first provider.
    done: Vec<bool>,
    /// Items whose latency is known: final on every live provider.
    timed: u32,
}

impl Phase {
    fn new(providers: usize, meters: usize) -> Self {
        Self {
            sent: None,
            progressed: None,
            tries: 0,
            accepted: vec![0; providers],
            done: vec![false; meters],
            timed: 0,
        }
    }

    /// Items that are final on every live provider.
    fn everywhere(&self, live: usize) -> u32 {
        self.accepted[..live].iter().copied().min().unwrap_or(0)
    }

    /// Notes how long items took that have become final everywhere.
    fn time(&mut self, live: usize, now: Instant, latencies: &mut Vec<u32>) -> bool {
        let everywhere = self.everywhere(live);
        let Some(sent) = self.sent.filter(|_| everywhere > self.timed) else { return false };
        let took = u32::try_from(now.duration_since(sent).as_millis()).unwrap_or(u32::MAX);
        latencies.extend((self.timed..everywhere).map(|_| took));
        self.timed = everywhere;
        self.progressed = Some(now);
        true
    }

    fn overdue(&self, now: Instant) -> bool {
        let tries = u32::try_from(self.tries).unwrap_or(u32::MAX);
        let patience = RETRY.saturating_mul(tries.saturating_add(1));
        self.progressed.is_some_and(|progressed| now.duration_since(progressed) > patience)
    }
}

/// What was measured.
pub(super) struct Measured {
    /// Readings that became final on every live provider.
    pub(super) readings: u64,
    /// In this time.
    pub(super) wall: Duration,
    /// Processor time of all providers.
    pub(super) cpu: Duration,
    /// Blocks.
    pub(super) blocks: u64,
    /// Items that blocks carried and the rules skipped.
    pub(super) refused: u64,
    /// Views that a quorum ended without a block.
    pub(super) view_changes: u64,
    /// Of each request and opening, from the gateway to all, milliseconds, ascending.
    latencies: Vec<u32>,
}

impl Measured {
    /// A percentile of the time to finality, milliseconds.
    pub(super) fn finality_ms(&self, percent: usize) -> u32 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl<'a> Load<'a> {
    /// Takes over running providers.
    pub(super) fn new(fleet: &'a Fleet, consortium: Consortium, clock: LedgerClock) -> Self {
        let live = consortium.members.len();
        Self {
            registered: vec![0; live],
            fleet,
            consortium,
            clock,
            live,
            slots: Vec::new(),
            requested: 0,
            opened: 0,
            unsent: vec![VecDeque::new(); live],
            blocks: 0,
            refused: 0,
            progressed: clock::now(),
            latencies: Vec::new(),
        }
    }

    /// Brings all meters to the ledger, while time stands still.
    pub(super) fn register(&mut self) -> Result<(), CommandError> {
        let total = self.fleet.meters.len();
        let mut sent = 0;
        while self.registered.iter().any(|registered| *registered < total as u64) {
            let least = self.registered.iter().copied().min().unwrap_or(0);
            let upto = total.min(usize::try_from(least).unwrap_or(total) + REGISTERING);
            for meter in &self.fleet.meters[sent..upto.max(sent)] {
                let owner = usize::from(meter.registration.message.owner.0);
                let mailbox = &self.consortium.members[owner].mailbox;
                mailbox
                    .post(Transaction::Registration(meter.registration.clone()))
                    .map_err(CommandError::refused("registration"))?;
            }
            sent = sent.max(upto);
            self.watch()?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Kills the last providers.
    pub(super) fn kill(&mut self, dead: usize) {
        self.live -= dead;
        for index in self.live..self.live + dead {
            self.consortium.kill(index);
        }
    }

    /// Measures for so long, or until nothing is left to send.
    pub(super) fn measure(&mut self, wall: Duration) -> Result<Measured, CommandError> {
        let began = clock::now();
        let (cpu, own) = (usage::process_cpu(), usage::thread_cpu());
        let (blocks, refused, views) = (self.blocks, self.refused, self.view_changes());
        self.progressed = began;
        let last = u32::try_from(self.fleet.meters[0].slots()).unwrap_or(u32::MAX);
        while began.elapsed() < wall {
            self.watch()?;
            self.post();
            self.step(last);
            self.send_again();
            if self.opened == last && self.complete(last, |progress| &progress.openings) {
                output::note("all prepared readings are final before the time is over");
                break;
            }
            std::thread::sleep(TICK);
        }
        let elapsed = began.elapsed();
        let cpu = usage::process_cpu() - cpu;
        let own = usage::thread_cpu() - own;
        let openings = self.slots.iter().map(|slot| slot.openings.everywhere(self.live));
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        Ok(Measured {
            readings: openings.map(u64::from).sum(),
            wall: elapsed,
            cpu: cpu.saturating_sub(own),
            blocks: self.blocks - blocks,
            refused: self.refused - refused,
            view_changes: self.view_changes().saturating_sub(views),
            latencies,
        })
    }

    fn view_changes(&self) -> u64 {
        self.consortium.members[0].status.read().view_changes
    }

    /// Stops all providers.
    pub(super) fn stop(self) {
        self.consortium.stop();
    }

    /// Takes in what has become final.
    fn watch(&mut self) -> Result<(), CommandError> {
        for provider in 0..self.live {
            while let Ok(Event::Final { block, .. }) =
                self.consortium.members[provider].events.try_recv()
            {
                self.follow(provider, &block);
            }
        }
        let (now, live) = (clock::now(), self.live);
        for progress in &mut self.slots {
            let latencies = &mut self.latencies;
            if progress.requests.time(live, now, latencies)
                | progress.openings.time(live, now, latencies)
            {
                self.progressed = now;
            }
        }
        if now.duration_since(self.progressed) > STUCK {
            let seconds = STUCK.as_secs();
            let standing: Vec<_> = self.consortium.members[..self.live]
                .iter()
                .map(|member| {
                    let status = member.status.read();
                    format!("{} in view {} of round {}", status.height, status.view, status.round)
                })
                .collect();
            return Err(CommandError::Refused(format!(
                "nothing became final for {seconds} s; providers at {}",
                standing.join(", ")
            )));
        }
        Ok(())
    }

    fn follow(&mut self, provider: usize, block: &FinalBlock) {
        let verified = block.verified();
        let registered = verified.registered().len() as u64;
        self.registered[provider] += registered;
        if registered > 0 {
            self.progressed = clock::now();
        }
        if provider == 0 {
            self.blocks += 1;
            self.refused += verified.skipped().len() as u64;
        }
        let requests = verified.requests().iter().map(|request| (request.meter, request.index));
        for (meter, index) in requests {
            if let Some(slot) = self.slots.get_mut(index.get() as usize - 1) {
                slot.requests.accept(provider, meter);
            }
        }
        for accepted in verified.openings() {
            let opening = &accepted.opening;
            if let Some(slot) = self.slots.get_mut(opening.index.get() as usize - 1) {
                slot.openings.accept(provider, opening.meter);
            }
        }
    }

    /// Goes on to the next slot once the requests of this one are final and the openings before it:
    /// time moves by such steps, so that no window closes on what a slow machine has still to do.
    /// Behind the last slot only its window closes.
    fn step(&mut self, last: u32) {
        let slot = self.requested;
        let requested = slot == 0 || self.complete(slot, |progress| &progress.requests);
        let opened = slot < 2 || self.complete(slot - 1, |progress| &progress.openings);
        if !requested || !opened || self.opened == last {
            return;
        }
        if slot < last {
            let (providers, meters) = (self.consortium.members.len(), self.fleet.meters.len());
            let phase = || Phase::new(providers, meters);
            self.slots.push(Progress { requests: phase(), openings: phase() });
            self.requested = slot + 1;
            self.clock.stop_at(slot_times(slot + 1).0);
            self.send_phase(slot + 1, true);
        } else {
            self.clock.stop_at(slot_times(slot).1);
        }
        if slot > 0 {
            self.opened = slot;
            self.send_phase(slot, false);
        }
    }

    /// Sends again what should have been final by now, unless it has not been sent yet.
    fn send_again(&mut self) {
        if self.unsent.iter().any(|unsent| !unsent.is_empty()) {
            return;
        }
        let now = clock::now();
        for slot in self.opened.saturating_sub(1).max(1)..=self.requested {
            let Progress { requests, openings } = &self.slots[slot as usize - 1];
            let meters = u32::try_from(self.fleet.meters.len()).unwrap_or(u32::MAX);
            let late = |phase: &Phase| phase.overdue(now) && phase.everywhere(self.live) < meters;
            let (requests, openings) = (late(requests), late(openings));
            if requests {
                self.send_phase(slot, true);
            }
            if openings {
                self.send_phase(slot, false);
            }
        }
    }

    /// Sends the messages of a slot that are not final, each to the gateway whose turn it is.
    fn send_phase(&mut self, slot: u32, requests: bool) {
        let progress = &mut self.slots[slot as usize - 1];
        let phase = if requests { &mut progress.requests } else { &mut progress.openings };
        let now = clock::now();
        phase.sent.get_or_insert(now);
        phase.progressed = Some(now);
        let again = phase.tries;
        phase.tries += 1;
        let waiting = phase.done.iter().zip(&self.fleet.meters).filter(|(done, _)| !**done);
        let mut messages: Vec<Vec<Message>> = vec![Vec::new(); self.live];
        for (_, meter) in waiting {
            let owner = usize::from(meter.registration.message.owner.0);
            let messages = &mut messages[(owner + again) % self.live];
            // Another gateway than the first one needs the body before the opening.
            let submit = meter.submit(slot).filter(|_| requests || again > 0);
            messages.extend(submit.map(Message::from));
            let release = meter.release(slot).filter(|_| !requests);
            messages.extend(release.map(Message::from));
        }
        for (unsent, messages) in self.unsent.iter_mut().zip(messages) {
            unsent.extend(messages.chunks(CALL).map(<[_]>::to_vec));
        }
        self.post();
    }

    /// Leaves at each gateway what it has room for.
    fn post(&mut self) {
        for (unsent, member) in self.unsent.iter_mut().zip(&self.consortium.members) {
            while let Some(messages) = unsent.front()
                && member.mailbox.post_all(messages.clone()).is_ok()
            {
                unsent.pop_front();
            }
        }
    }

    fn complete(&self, slot: u32, phase: impl Fn(&Progress) -> &Phase) -> bool {
        let meters = u32::try_from(self.fleet.meters.len()).unwrap_or(u32::MAX);
        let progress = self.slots.get(slot as usize - 1);
        progress.is_some_and(|progress| phase(progress).everywhere(self.live) >= meters)
    }
}

impl Phase {
    fn accept(&mut self, provider: usize, MeterId(meter): MeterId) {
        self.accepted[provider] += 1;
        if provider == 0
            && let Some(done) = self.done.get_mut(meter as usize)
        {
            *done = true;
        }
    }
}
