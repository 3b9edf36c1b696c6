//! The clocks of the command line: the only place that reads them.

use std::time::{Instant, SystemTime};

/// Now, on a clock that never goes back.
#[expect(clippy::disallowed_methods, reason = "the clock of the command line")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Now, as the operating system's clock shows it.
#[expect(clippy::disallowed_methods, reason = "the clock of the command line")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
