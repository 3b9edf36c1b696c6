//! Ledger time as a provider's clock shows it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use bkss_scheme::LedgerTime;

/// Relates a wall clock to ledger time: `scale` ledger seconds per second while it runs.
///
/// In production `scale` is 1, both origins are 1970 and the clock always runs. A demonstration
/// lets a day pass in a minute, which its genesis says, and holds the clock where the machine
/// cannot keep up. Clones show the same time.
#[derive(Clone, Debug)]
pub struct LedgerClock {
    origin: Arc<RwLock<Origin>>,
    scale: u32,
}

/// What the clock shows, and since when it has been running from there.
#[derive(Clone, Copy, Debug)]
struct Origin {
    shows: LedgerTime,
    since: Option<SystemTime>,
}

impl LedgerClock {
    /// A clock that shows `origin` until it is started.
    pub fn stopped(origin: LedgerTime, scale: u32) -> Self {
        let origin = Origin { shows: origin, since: None };
        Self { origin: Arc::new(RwLock::new(origin)), scale }
    }

    /// A clock that shows `origin` when the wall clock shows `wall`, and runs.
    pub fn new(wall: SystemTime, origin: LedgerTime, scale: u32) -> Self {
        let clock = Self::stopped(origin, scale);
        clock.start(wall);
        clock
    }

    /// Lets the clock run from what it shows; nothing happens to a running clock.
    pub fn start(&self, wall: SystemTime) {
        let mut origin = self.origin.write().unwrap_or_else(PoisonError::into_inner);
        origin.since.get_or_insert(wall);
    }

    /// Holds the clock at what it shows; nothing happens to a stopped clock.
    pub fn hold(&self, wall: SystemTime) {
        self.stop_at(self.at(wall));
    }

    /// Stands still at a time, which is to be no earlier than what it has shown.
    pub fn stop_at(&self, shows: LedgerTime) {
        *self.origin.write().unwrap_or_else(PoisonError::into_inner) =
            Origin { shows, since: None };
    }

    /// Ledger time at a wall-clock time; not before the origin.
    pub fn at(&self, wall: SystemTime) -> LedgerTime {
        let Origin { shows, since } = self.origin();
        let passed = since.and_then(|since| wall.duration_since(since).ok());
        LedgerTime(shows.0.saturating_add(self.ledger_ms(passed.unwrap_or_default())))
    }

    /// Wall-clock time at which this clock shows `time`, not before the origin; `None` while it is
    /// stopped.
    pub fn when(&self, time: LedgerTime) -> Option<SystemTime> {
        let Origin { shows, since } = self.origin();
        let passed = Duration::from_millis(time.0.saturating_sub(shows.0));
        since?.checked_add(passed / self.scale)
    }

    fn origin(&self) -> Origin {
        *self.origin.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ledger milliseconds in a wall-clock duration.
    pub fn ledger_ms(&self, wall: Duration) -> u64 {
        let scaled = wall.as_micros().saturating_mul(u128::from(self.scale)) / 1000;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_time_runs_by_the_scale_and_back() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for scale in [1, 900] {
            let clock = LedgerClock::new(wall, LedgerTime(5000), scale);
            let later = wall + Duration::from_millis(20);
            let shown = clock.at(later);
            assert_eq!(shown, LedgerTime(5000 + 20 * u64::from(scale)));
            assert_eq!(clock.when(shown), Some(later));
            assert_eq!(clock.at(wall - Duration::from_secs(1)), LedgerTime(5000));
        }
    }

    #[test]
    fn a_clock_goes_on_where_it_was_held() {
        let wall = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let clock = LedgerClock::stopped(LedgerTime(5000), 10);
        let copy = clock.clone();
        assert_eq!((clock.at(wall(9)), clock.when(LedgerTime(6000))), (LedgerTime(5000), None));
        copy.start(wall(10));
        copy.start(wall(19));
        assert_eq!(clock.at(wall(11)), LedgerTime(15_000), "it is started once");
        copy.hold(wall(12));
        copy.hold(wall(15));
        assert_eq!(clock.at(wall(20)), LedgerTime(25_000));
        copy.start(wall(30));
        assert_eq!(clock.at(wall(31)), LedgerTime(35_000));
        copy.stop_at(LedgerTime(90_000));
        assert_eq!(clock.at(wall(40)), LedgerTime(90_000), "by steps");
    }
}
