//! The world by seed: meters, gateways, providers and their network, all production code, in
//! virtual time.
//!
//! A seed draws the world and all that goes wrong in it: faults of networks, disks, power and
//! clocks, and Byzantine providers, at most a third. While anything may be wrong, safety must hold;
//! once all is well but the liars, what was promised must come true. The same seed is the same
//! world, event by event.

mod band;
mod campaign;
mod chain;
mod clerk;
mod counterfeits;
mod deed;
mod dice;
mod disk;
mod events;
mod faults;
mod flash;
mod forger;
mod founding;
mod home;
mod instrument;
mod invariants;
mod liar;
mod life;
mod link_of;
mod lives;
mod operator;
mod pen;
mod plan;
mod plan_summary;
mod providers;
mod rogue;
mod shape;
pub(crate) mod stories;

use std::time::Duration;

use bkss_node::{Pacing, simulated::SimulationError};
use bkss_scheme::Digest;
use commonware_runtime::deterministic::{Config, Runner};

use faults::disks;
use life::World;
use plan::Plan;

pub use campaign::{Failed, Tally, Tell, campaign, campaign_of};
pub use invariants::Violation;
pub use link_of::LinkOf;
pub use plan_summary::{Happening, Liar, PlanSummary, describe};
pub use shape::mixed;

use crate::Broken;

/// Slots behind the plan in which all that is left must become final.
const SETTLING_SLOTS: u32 = 24;
/// Pacing of nodes whose network has real latencies and whose ledger has seconds for a slot.
const PACING: Pacing = Pacing {
    gather: Duration::from_millis(50),
    interval: Duration::from_millis(50),
    idle: Duration::from_millis(1000),
    resend: Duration::from_millis(1000),
    leader_timeout: Duration::from_millis(1500),
};

/// The size of a world.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// Providers, at least four.
    pub providers: u16,
    /// Seats of the committee.
    pub committee: u16,
    /// Blocks of a round.
    pub round_blocks: u32,
    /// Meters.
    pub meters: u32,
    /// Slots in which each has something to say.
    pub slots: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { providers: 4, committee: 4, round_blocks: 40, meters: 20, slots: 20 }
    }
}

/// How a world ends that has not kept to its rules.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An invariant does not hold.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The world does not stand: an error of this program.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A provider does not start.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// Some code gave up.
    #[error("panic: {0}")]
    Panic(String),
}

/// What a world came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// Height of the newest block.
    pub height: u64,
    /// Accepted openings.
    pub openings: usize,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// The longest time without a new block, virtual milliseconds.
    pub longest_pause_ms: u64,
    /// Views that ended without a block, as the provider saw it that saw most.
    pub view_changes: u64,
    /// Faults of the plan.
    pub faults: usize,
    /// Byzantine providers.
    pub byzantine: usize,
    /// Providers whose disk was put back to an older image.
    pub restored: usize,
    /// Providers that were let vote without their memory.
    pub without_memory: usize,
    /// Members at the end.
    pub members: usize,
    /// Batches with links that are not of their chains, as the provider found them that found most.
    pub invalid_batches: u64,
    /// Registered chains.
    pub chains: usize,
    /// Revoked meters.
    pub revoked: usize,
    /// Digest of everything that happened, in its order, and of the ledger.
    pub digest: Digest,
}

/// Runs the world of a seed to its end.
///
/// # Errors
///
/// [`Failure`]: the first invariant that does not hold.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Failure> {
    run_plan(seed, options, Plan::draw(seed, options))
}

fn run_plan(seed: u64, options: &Options, plan: Plan) -> Result<Summary, Failure> {
    let mut world = World::new(seed, options, plan)?;
    // A provider that cannot go on without its disk ends its process; here a task of it ends, and
    // the world goes on.
    let survives = world.plan.bad_disks.is_some();
    let config = Config::default()
        .with_seed(seed)
        .with_catch_panics(survives)
        .with_storage_fault_config(disks(0));
    let mut runner = Runner::new(config);
    let mut cuts = world.plan.power_cuts.clone().into_iter();
    loop {
        let cut = cuts.next();
        let (lived, checkpoint) = runner.start_and_recover(|ctx| Box::pin(world.live(ctx, cut)));
        if lived? {
            let events = checkpoint.auditor().state();
            return Ok(world.summary(&events));
        }
        runner = Runner::from(checkpoint);
    }
}

#[cfg(test)]
mod tests;
