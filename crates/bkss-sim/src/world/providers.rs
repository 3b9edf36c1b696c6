//! The providers of a world: started, killed, started again, each with what stands before it.

use bkss_node::{
    Config, Event, LedgerClock, Mailbox,
    node::Node,
    simulated::{Net, Running, SimulationError},
};
use commonware_cryptography::{Signer, ed25519::PublicKey};
use commonware_runtime::{Clock, deterministic::Context};

use super::{
    Failure,
    chain::Chain,
    faults::{Dice, Fault, Line, Ms, Plan},
    founding,
    invariants::{SameState, approved_members, no_quarrel, true_offences},
    liar::{Deed, Liar},
};

/// How long the tasks of a killed node take to notice.
const DYING_MS: Ms = 100;

/// The providers in one life of the world: from power on to power off.
pub(super) struct Providers<'a> {
    ctx: &'a Context,
    plan: &'a Plan,
    net: Net,
    configs: &'a [Config],
    keys: Vec<PublicKey>,
    running: Vec<Option<Running>>,
    /// The clock of each, and whether it stands still.
    clocks: Vec<(LedgerClock, bool)>,
    /// When each was killed.
    killed: Vec<Ms>,
    /// How often each was started, in all lives.
    starts: &'a mut [u64],
    /// The links as they are, by sender and receiver.
    lines: Vec<Vec<Option<Line>>>,
    seed: u64,
}

impl<'a> Providers<'a> {
    /// All of them, on a network as the plan has it now.
    pub(super) async fn start(
        ctx: &'a Context,
        (seed, now): (u64, Ms),
        plan: &'a Plan,
        configs: &'a [Config],
        starts: &'a mut [u64],
        chain: &mut Chain,
    ) -> Result<Self, Failure> {
        let keys: Vec<_> = configs.iter().map(|config| config.vote_key.public_key()).collect();
        let net = Net::new(ctx, keys.clone(), plan.disconnects).await;
        let count = configs.len();
        let mut providers = Self {
            ctx,
            plan,
            net,
            configs,
            keys,
            running: (0..count).map(|_| None).collect(),
            clocks: configs.iter().map(|config| (config.clock.clone(), false)).collect(),
            killed: vec![Ms::MIN; count],
            starts,
            lines: vec![vec![None; count]; count],
            seed,
        };
        providers.follow(now, chain).await?;
        Ok(providers)
    }

    /// Brings links and lives to what the plan has for now.
    pub(super) async fn follow(&mut self, now: Ms, chain: &mut Chain) -> Result<(), Failure> {
        self.rewire(now).await?;
        for place in 0..self.configs.len() {
            let dead = self.plan.at(now).any(|fault| *fault == Fault::Dead(place));
            let stands = self.plan.at(now).any(|fault| *fault == Fault::ClockStops(place));
            let (clock, stood) = &mut self.clocks[place];
            // Who finds that its clock had stopped sets it and starts again.
            let again = *stood && !stands;
            if stands && !*stood {
                clock.hold(self.ctx.current());
            }
            *stood = stands;
            if (dead || again)
                && let Some(Running { handle, .. }) = self.running[place].take()
            {
                handle.abort();
                let _ = handle.await;
                self.killed[place] = now;
            } else if !dead
                && self.running[place].is_none()
                && (self.killed[place] + DYING_MS <= now || self.killed[place] == 0)
            {
                match self.begin(place, chain).await {
                    // It is tried again.
                    Err(Failure::Simulation(_)) if self.plan.has_bad_disks(now) => {}
                    begun => begun?,
                }
            }
        }
        Ok(())
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
        Ok(())
    }

    /// Who an honest provider thinks are members and have voted twice, and what its state is.
    fn check(&self, place: usize, states: &mut SameState) -> Result<(), Failure> {
        let Some(Running { node, .. }) = &self.running[place] else { return Ok(()) };
        let chain = node.shared.chain();
        let state = chain.state();
        approved_members(state.members(), self.configs.len())?;
        true_offences(state.offences().iter(), |place| self.plan.is_byzantine(place))?;
        let digest = state.clone().seal();
        Ok(states.see(place, state.head().height, digest)?)
    }

    /// No honest provider has hung up on another.
    pub(super) async fn no_quarrel(&self) -> Result<(), Failure> {
        let blocked = self.net.blocked().await.map_err(SimulationError::from)?;
        Ok(no_quarrel(&blocked, |place| self.plan.is_byzantine(place))?)
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
        let mut config = self.configs[place].clone();
        config.events_from = chain.missing(place);
        config.clock = founding::clock(&config.genesis, self.ahead(place, deeds));
        self.clocks[place] = (config.clock.clone(), false);
        let running = if deeds.is_empty() {
            self.net.run(self.ctx, place, config, None).await?.0
        } else {
            let others = self.keys.iter().filter(|key| **key != self.keys[place]).cloned();
            let dice = Dice::new(self.seed, 1000 + 100 * place as u64 + self.starts[place]);
            let (liar, lies) = Liar::new(config.clone(), deeds, dice, others.collect());
            let tap = Some(liar.tap());
            let (running, voice) = self.net.run(self.ctx, place, config, tap).await?;
            liar.speak(self.ctx, running.node.shared.clone(), voice, lies);
            running
        };
        self.running[place] = Some(running);
        self.starts[place] += 1;
        chain.started(place);
        Ok(())
    }

    /// How far a provider's clock is ahead: it jumps when it starts again.
    fn ahead(&self, place: usize, deeds: &[Deed]) -> i64 {
        let wrong = deeds.iter().find_map(|deed| match deed {
            Deed::WrongClock(seconds) => Some(i64::from(*seconds) * 1000),
            _ => None,
        });
        let jump = if self.starts[place] > 0 { self.plan.jump_ms } else { 0 };
        wrong.unwrap_or(self.plan.skews[place] + jump)
    }

    async fn rewire(&mut self, now: Ms) -> Result<(), Failure> {
        let count = self.configs.len();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let line = self.plan.link(now, from, to);
                if self.lines[from][to] == line {
                    continue;
                }
                self.lines[from][to] = line;
                let link = line.map(|line| self.plan.as_link(line));
                self.net.link(from, to, link.as_ref()).await.map_err(SimulationError::from)?;
            }
        }
        Ok(())
    }
}
