//! The providers of a world: started, killed, started again, each with what stands before it.

use bkss_node::{
    Config, Event, LedgerClock, Mailbox,
    config::public_half,
    node::Node,
    simulated::{Net, Running, SimulationError},
};
use commonware_cryptography::{Signer, ed25519::PublicKey};
use commonware_runtime::{Clock, deterministic::Context};

use super::{
    Failure,
    band::Band,
    chain::Chain,
    deed::Deed,
    dice::Dice,
    events::Reform,
    faults::{Fault, Line, Ms},
    founding::{self, Founding, Seat, place_id},
    invariants::{OneVote, SameState, no_quarrel, true_offences},
    liar::Liar,
    lives::Lives,
    plan::Plan,
};

/// How long the tasks of a killed node take to notice.
const DYING_MS: Ms = 100;

/// The providers in one life of the world: from power on to power off.
pub(super) struct Providers<'a> {
    ctx: &'a Context,
    plan: &'a Plan,
    founding: &'a Founding,
    net: Net,
    running: Vec<Option<Running>>,
    /// The clock of each, and whether it stands still.
    clocks: Vec<(LedgerClock, bool)>,
    /// When each was killed.
    killed: Vec<Option<Ms>>,
    lives: &'a mut Lives,
    votes: OneVote,
    band: Band,
    /// The links as they are, by the seats of sender and receiver.
    lines: Vec<Vec<Option<Line>>>,
    seed: u64,
}

impl<'a> Providers<'a> {
    /// All of them, on a network without links.
    pub(super) async fn new(
        ctx: &'a Context,
        seed: u64,
        (plan, founding): (&'a Plan, &'a Founding),
        lives: &'a mut Lives,
        votes: OneVote,
    ) -> Self {
        let keys: Vec<_> = founding.seats.iter().map(|seat| seat.key.public_key()).collect();
        let seats = keys.len();
        let net = Net::with_strangers(ctx, keys, plan.founders, plan.disconnects).await;
        let configs = &founding.configs;
        Self {
            ctx,
            plan,
            founding,
            net,
            running: configs.iter().map(|_| None).collect(),
            clocks: configs.iter().map(|config| (config.clock.clone(), false)).collect(),
            killed: vec![None; configs.len()],
            lives,
            votes,
            band: Band::default(),
            lines: vec![vec![None; seats]; seats],
            seed,
        }
    }

    /// Brings links and lives to what the plan has for now; tells whose disk was put back.
    pub(super) async fn follow(
        &mut self,
        now: Ms,
        chain: &mut Chain,
    ) -> Result<Vec<usize>, Failure> {
        self.rewire(now).await?;
        let mut restored = Vec::new();
        for place in 0..self.running.len() {
            if self.must_die(place, now, chain) {
                self.kill(place, now).await;
            } else if self.may_live(place, now, chain) {
                let (prefix, round) =
                    (&self.founding.configs[place].partition, chain.state.round().number);
                let work = self.lives.work_on_disk(self.ctx, (place, now), (prefix, round));
                if let Some(put_back) = work.await? {
                    restored.push(place);
                    if let Some(last) = put_back.forgets {
                        self.votes.put_back(place, last);
                    }
                }
                match self.begin(place, chain).await {
                    // It is tried again.
                    Err(Failure::Simulation(_)) if self.plan.has_bad_disks(now) => {}
                    begun => begun?,
                }
            }
        }
        Ok(restored)
    }

    /// Whether a provider that runs has to be switched off now.
    fn must_die(&mut self, place: usize, now: Ms, chain: &Chain) -> bool {
        let stands = self.plan.at(now).any(|fault| *fault == Fault::ClockStops(place));
        let (clock, stood) = &mut self.clocks[place];
        // Who finds that its clock had stopped sets it and starts again.
        let again = *stood && !stands;
        if stands && !*stood {
            clock.hold(self.ctx.current());
        }
        *stood = stands;
        let Some(Running { node, .. }) = &self.running[place] else { return false };
        if self.lives.takes_next_key(place) {
            let seats = &self.founding.seats;
            let current = self.lives.seats[place];
            let next = (current + 1..seats.len()).find(|seat| seats[*seat].place == place);
            self.lives.seats[place] = next.unwrap_or(current);
            return true;
        }
        let rounds = self.founding.genesis.charter().rounds.length();
        self.lives.see(place, &node.status.read(), rounds);
        let stops = !self.plan.is_byzantine(place) && self.has_gone(place, chain);
        if stops {
            self.lives.stopped.insert(place);
        }
        again || stops || self.is_dead(place, now) || self.lives.is_due(place, now)
    }

    /// Whether a provider that does not run may be switched on now.
    fn may_live(&self, place: usize, now: Ms, chain: &Chain) -> bool {
        let off = self.killed[place].is_none_or(|killed| killed + DYING_MS <= now);
        self.running[place].is_none()
            && off
            && !self.is_dead(place, now)
            && !self.lives.stopped.contains(&place)
            && self.has_come(place, now)
            && !self.has_gone(place, chain)
            && self.lives.is_ready((place, now), self.killed[place])
    }

    fn is_dead(&self, place: usize, now: Ms) -> bool {
        self.plan.at(now).any(|fault| *fault == Fault::Dead(place))
    }

    /// Whether a provider has been set up.
    fn has_come(&self, place: usize, now: Ms) -> bool {
        let reforms = &self.plan.events.reforms;
        let joined = reforms.iter().find(|(_, reform)| *reform == Reform::Join(place));
        joined.is_none_or(|(at, _)| *at <= now)
    }

    /// Whether a provider is no member any more and has no seat in this round.
    fn has_gone(&self, place: usize, chain: &Chain) -> bool {
        let (id, state) = (place_id(place), &chain.state);
        let was = state.members().provider_ever(id).is_some();
        was && state.members().provider(id).is_none() && !state.round().has_node(id)
    }

    /// Switches a provider off without notice.
    async fn kill(&mut self, place: usize, now: Ms) {
        if let Some(Running { handle, .. }) = self.running[place].take() {
            handle.abort();
            let _ = handle.await;
            self.killed[place] = Some(now);
        }
    }

    /// Starts nodes again that must not vote by what they remember: their operators know that their
    /// disks are their own.
    pub(super) async fn vote_without_memory(&mut self, now: Ms, chain: &Chain) {
        for place in 0..self.running.len() {
            let Some(Running { node, .. }) = &self.running[place] else { continue };
            let seated = chain.state.round().has_node(place_id(place));
            let silent = seated && !node.status.read().votes;
            if silent && !self.lives.restored.contains(&place) && !self.plan.is_byzantine(place) {
                self.lives.without_memory.insert(place);
                self.votes.excuse(place);
                self.kill(place, now).await;
            }
        }
    }

    /// Reads what the providers show.
    pub(super) fn read(
        &mut self,
        chain: &mut Chain,
        states: &mut SameState,
    ) -> Result<(), Failure> {
        for place in 0..self.running.len() {
            let honest = !self.plan.is_byzantine(place);
            let Some(Running { node, .. }) = &mut self.running[place] else { continue };
            let mut shown = false;
            while let Ok(Event::Final { block, .. }) = node.events.try_recv() {
                if honest {
                    chain.show(place, block)?;
                    shown = true;
                }
            }
            if shown {
                self.check(place, states)?;
            }
        }
        Ok(self.votes.check()?)
    }

    /// Who an honest provider thinks has voted twice, and what its state is.
    fn check(&self, place: usize, states: &mut SameState) -> Result<(), Failure> {
        let Some(Running { node, .. }) = &self.running[place] else { return Ok(()) };
        let chain = node.shared.chain();
        let state = chain.state();
        true_offences(state.offences().iter(), |place| {
            self.plan.is_byzantine(place) || self.votes.is_excused(place)
        })?;
        let digest = state.clone().seal();
        Ok(states.see(place, state.head().height, digest)?)
    }

    /// No honest provider has hung up on another.
    pub(super) async fn no_quarrel(&self) -> Result<(), Failure> {
        let blocked = self.net.blocked().await.map_err(SimulationError::from)?;
        let place = |seat: usize| self.founding.seats[seat].place;
        let blocked: Vec<_> =
            blocked.into_iter().map(|(by, whom)| (place(by), place(whom))).collect();
        Ok(no_quarrel(&blocked, |place| {
            self.plan.is_byzantine(place) || self.votes.is_excused(place)
        })?)
    }

    /// Where meters of a provider leave their messages; `None` while it is down.
    pub(super) fn mailbox(&self, place: usize) -> Option<Mailbox> {
        self.running[place].as_ref().map(|running| running.node.mailbox.clone())
    }

    /// The nodes of honest providers that run.
    pub(super) fn honest(&self) -> impl Iterator<Item = (usize, &Node)> {
        let nodes = self.running.iter().enumerate();
        let honest = nodes.filter(|(place, _)| !self.plan.is_byzantine(*place));
        honest.filter_map(|(place, running)| Some((place, &running.as_ref()?.node)))
    }

    async fn begin(&mut self, place: usize, chain: &mut Chain) -> Result<(), Failure> {
        let deeds = self.plan.deeds(place);
        let seat = self.lives.seats[place];
        let config = self.config(place, chain);
        self.clocks[place] = (config.clock.clone(), false);
        let running = if deeds.is_empty() {
            let tap = Some(self.votes.tap(place));
            self.net.run(self.ctx, seat, config, tap).await?.0
        } else {
            let own = config.vote_key.public_key();
            let others = self.founding.seats.iter().map(|seat| seat.key.public_key());
            let others: Vec<PublicKey> = others.filter(|key| *key != own).collect();
            let dice = Dice::new(self.seed, 1000 + 100 * place as u64 + self.lives.starts[place]);
            let alone = Band::default();
            let band = if self.plan.band { &self.band } else { &alone };
            let (liar, lies) = Liar::new(config.clone(), deeds, dice, others, (place, band));
            let tap = Some(liar.tap());
            let (running, voice) = self.net.run(self.ctx, seat, config, tap).await?;
            liar.speak(self.ctx, running.node.shared.clone(), voice, lies);
            running
        };
        self.running[place] = Some(running);
        self.killed[place] = None;
        self.lives.starts[place] += 1;
        chain.started(place);
        Ok(())
    }

    /// What a provider is started with now.
    fn config(&self, place: usize, chain: &Chain) -> Config {
        let (deeds, seats) = (self.plan.deeds(place), &self.founding.seats);
        let current = self.lives.seats[place];
        let next = seats[current + 1..].iter().find(|seat| seat.place == place);
        let next = next.map(|Seat { key, .. }| public_half(key));
        let mut config = self.founding.configs[place].clone();
        config.vote_key = seats[current].key.clone();
        config.rekey = Some(self.lives.rekey(place, next));
        config.eras = chain.trust.eras().eras.to_vec();
        config.events_from = chain.missing(place);
        config.clock = founding::clock(&config.genesis, self.ahead(place, deeds));
        config.vote_without_memory = self.lives.without_memory.contains(&place);
        if deeds.contains(&Deed::VotesForItsBand) {
            let band = self.plan.byzantine.iter().map(|(liar, _)| place_id(*liar));
            config.trust = Some(band.collect());
        }
        config
    }

    /// How far a provider's clock is ahead: it jumps when it starts again.
    fn ahead(&self, place: usize, deeds: &[Deed]) -> i64 {
        let wrong = deeds.iter().find_map(|deed| match deed {
            Deed::WrongClock(seconds) => Some(i64::from(*seconds) * 1000),
            _ => None,
        });
        let jump = if self.lives.starts[place] > 0 { self.plan.jump_ms } else { 0 };
        wrong.unwrap_or(self.plan.skews[place] + jump)
    }

    async fn rewire(&mut self, now: Ms) -> Result<(), Failure> {
        let seats = &self.founding.seats;
        for (from, one) in seats.iter().enumerate() {
            for (to, other) in seats.iter().enumerate() {
                if one.place == other.place {
                    continue;
                }
                let line = self.plan.link(now, one.place, other.place);
                if self.lines[from][to] == line {
                    continue;
                }
                self.lines[from][to] = line;
                let link = line.map(|line| line.as_link(self.plan.jitter_ms));
                self.net.link(from, to, link.as_ref()).await.map_err(SimulationError::from)?;
            }
        }
        Ok(())
    }
}
