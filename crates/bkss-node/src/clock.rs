//! Ledger time as a provider's clock shows it.

use std::time::{Duration, SystemTime};

use bkss_scheme::LedgerTime;

/// Relates a wall clock to ledger time: `scale` ledger seconds per second since `wall`.
///
/// In production `scale` is 1 and both origins are 1970. A demonstration lets a day pass in a
/// minute; its genesis says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerClock {
    wall: SystemTime,
    ledger: LedgerTime,
    scale: u32,
}

impl LedgerClock {
    /// A clock that shows `ledger` when the wall clock shows `wall`.
    pub const fn new(wall: SystemTime, ledger: LedgerTime, scale: u32) -> Self {
        Self { wall, ledger, scale }
    }

    /// Ledger time at a wall-clock time; not before the origin.
    pub fn at(&self, wall: SystemTime) -> LedgerTime {
        let passed = wall.duration_since(self.wall).unwrap_or_default();
        LedgerTime(self.ledger.0.saturating_add(self.ledger_ms(passed)))
    }

    /// Wall-clock time at which this clock shows `time`; not before the origin.
    pub fn when(&self, time: LedgerTime) -> SystemTime {
        let passed = time.0.saturating_sub(self.ledger.0);
        self.wall + Duration::from_millis(passed).div_f64(f64::from(self.scale))
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
            assert_eq!(clock.when(shown), later);
            assert_eq!(clock.at(wall - Duration::from_secs(1)), LedgerTime(5000));
        }
    }
}
