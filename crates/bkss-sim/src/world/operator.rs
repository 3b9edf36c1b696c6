//! Whoever looks after nodes: acts where nothing has become final for a long time.

use super::faults::Ms;

/// How long nothing may become final until somebody acts, once all is well.
const LONG_MS: Ms = 20_000;

/// Watches how blocks come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Operator {
    /// The newest block and since when it is that.
    newest: (u64, Ms),
    /// The longest wait for a block.
    pub(super) longest_pause: Ms,
    /// When it has acted last.
    acted: Option<Ms>,
}

impl Operator {
    /// Looks at the newest block; true if it is time to act.
    pub(super) fn look(&mut self, now: Ms, height: u64, healed: Ms) -> bool {
        let (newest, since) = self.newest;
        self.longest_pause = self.longest_pause.max(now - since);
        if height > newest {
            self.newest = (height, now);
            return false;
        }
        let since = since.max(healed).max(self.acted.unwrap_or(0));
        let acts = since + LONG_MS <= now;
        if acts {
            self.acted = Some(now);
        }
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_acts_once_all_is_well_and_nothing_becomes_final() {
        let mut operator = Operator::default();
        for (now, height, acts) in [
            (1_000, 1, false),
            (30_000, 1, false),
            (69_000, 1, false),
            (70_000, 1, true),
            (70_100, 1, false),
            (90_000, 1, true),
            (90_100, 2, false),
            (95_000, 2, false),
        ] {
            assert_eq!(operator.look(now, height, 50_000), acts, "at {now} ms");
        }
        assert_eq!(operator.longest_pause, 89_100);
    }
}
