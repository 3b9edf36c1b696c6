//! Many worlds: a range of seeds, shared by threads, that can be stopped and gone on with.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{Failure, Options, Summary, Violation, run};

/// Stack of a world's thread, bytes.
const STACK: usize = 16 << 20;

/// A seed whose world has not kept to its rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// The invariant that does not hold; "panic" if some code gave up, "world" if the world itself
    /// does not stand.
    pub invariant: String,
    /// What was expected and found.
    pub finding: String,
}

impl Failed {
    fn new(seed: u64, failure: &Failure) -> Self {
        let invariant = match failure {
            Failure::Violation(violation) => Violation::invariant(violation),
            Failure::Panic(_) => "panic".to_owned(),
            Failure::Broken(_) | Failure::Simulation(_) => "world".to_owned(),
        };
        Self { seed, invariant, finding: failure.to_string() }
    }
}

/// What the worlds of a campaign came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// The first seed that is not counted yet.
    pub next: u64,
    /// Worlds that were run to their end.
    pub worlds: u64,
    /// Blocks of their ledgers.
    pub blocks: u64,
    /// Accepted openings.
    pub openings: u64,
    /// Faults of their plans.
    pub faults: u64,
    /// Worlds with a Byzantine provider at least.
    pub byzantine: u64,
    /// Worlds in which nothing was opened: they show less than the others.
    pub unopened: u64,
    /// Worlds in which the disk of a provider was put back to an older image.
    pub restored: u64,
    /// Worlds in which a provider was let vote without its memory.
    pub without_memory: u64,
    /// Chains of meters that were registered.
    pub chains: u64,
    /// Meters that were revoked.
    pub revoked: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Those that failed, by seed.
    pub failed: BTreeMap<u64, Failed>,
}

impl Tally {
    /// Nothing is counted yet; this is the first seed.
    pub fn from(seed: u64) -> Self {
        Self { next: seed, ..Self::default() }
    }

    /// Counts a world.
    fn add(&mut self, seed: u64, outcome: &Result<Summary, Failure>) {
        self.next = seed + 1;
        self.worlds += 1;
        match outcome {
            Ok(summary) => {
                self.blocks += summary.height;
                self.openings += summary.openings as u64;
                self.faults += summary.faults as u64;
                self.byzantine += u64::from(summary.byzantine > 0);
                self.unopened += u64::from(summary.openings == 0);
                self.restored += u64::from(summary.restored > 0);
                self.without_memory += u64::from(summary.without_memory > 0);
                self.chains += summary.chains as u64;
                self.revoked += summary.revoked as u64;
                self.virtual_ms += summary.virtual_ms;
            }
            Err(failure) => {
                self.failed.insert(seed, Failed::new(seed, failure));
            }
        }
    }
}

/// Hears of each world that has ended: its seed, what it came to, and the tally with it.
pub type Tell<'a> = dyn Fn(u64, &Result<Summary, Failure>, &Tally) + Sync + 'a;

/// Runs worlds of one size, see [`campaign_of`].
pub fn campaign(
    options: &Options,
    until: u64,
    jobs: usize,
    stop: &AtomicBool,
    tally: &mut Tally,
    tell: &Tell<'_>,
) {
    campaign_of(&|_| *options, until, jobs, stop, tally, tell);
}

/// Runs the worlds of these seeds, in order, on so many threads, until `stop`; tells of each that
/// has ended. `sizes` says how large the world of a seed is. The tally counts those that have no
/// unfinished one before them, so that a campaign which was stopped goes on at [`Tally::next`] as if
/// it had not been.
pub fn campaign_of(
    sizes: &(dyn Fn(u64) -> Options + Sync),
    until: u64,
    jobs: usize,
    stop: &AtomicBool,
    tally: &mut Tally,
    tell: &Tell<'_>,
) {
    let next = AtomicU64::new(tally.next);
    let shared = Mutex::new((tally, BTreeMap::new()));
    let work = || {
        while !stop.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= until {
                return;
            }
            let outcome = alone(seed, &sizes(seed));
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let (tally, waiting) = &mut *shared;
            waiting.insert(seed, outcome);
            while let Some(outcome) = waiting.remove(&tally.next) {
                let seed = tally.next;
                tally.add(seed, &outcome);
                tell(seed, &outcome, tally);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
}

/// A world on a thread that is named after its seed, so that a panic says which it was.
fn alone(seed: u64, options: &Options) -> Result<Summary, Failure> {
    let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK);
    thread::scope(|scope| {
        let world = thread
            .spawn_scoped(scope, || run(seed, options))
            .map_err(|error| Failure::Panic(format!("no thread: {error}")))?;
        world.join().unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Failure::Panic(text.unwrap_or_default()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Options =
        Options { providers: 4, committee: 4, round_blocks: 20, meters: 1, slots: 1 };

    #[test]
    fn a_campaign_that_is_stopped_goes_on_as_if_it_had_not_been() {
        let go = |tally: &mut Tally, until, stops_at: Option<u64>| {
            let stop = AtomicBool::new(false);
            campaign(&TINY, until, 2, &stop, tally, &|seed, _, _| {
                stop.fetch_or(stops_at == Some(seed), Ordering::SeqCst);
            });
        };
        let mut whole = Tally::from(3);
        go(&mut whole, 7, None);
        assert_eq!((whole.worlds, whole.next), (4, 7));
        let mut parts = Tally::from(3);
        go(&mut parts, 7, Some(4));
        assert!((2..=4).contains(&parts.worlds), "{parts:?}");
        go(&mut parts, 7, None);
        assert_eq!(parts, whole);
    }

    #[test]
    fn a_seed_that_fails_is_counted_with_its_invariant() {
        let mut tally = Tally::from(5);
        tally.add(5, &Err(Violation::Stuck("no block".into()).into()));
        assert_eq!(tally.failed[&5].invariant, "progress");
        assert_eq!((tally.worlds, tally.next), (1, 6));
    }
}
