//! What our real code costs, on this machine, in this run.
//!
//! The clock is given: only the command line has one. Measurements that are compared are made in
//! turns, so that a change of clock speed meets all of them; what is reported is the median.

pub mod leader;
pub mod meter;
pub mod schemes;

use std::time::Duration;

use crate::Broken;

/// Reads a clock that never goes back: time since any fixed moment.
pub type Clock<'a> = &'a dyn Fn() -> Duration;

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub struct Timer<'a> {
    /// The clock.
    pub clock: Clock<'a>,
    /// Least time of one measurement.
    pub slice: Duration,
    /// Measurements of which the median is taken; odd.
    pub rounds: usize,
}

/// Work that is measured: does it once and says on how many items.
pub type Pass<'a> = Box<dyn FnMut() -> Result<usize, Broken> + 'a>;

impl Timer<'_> {
    /// Seconds per item of each pass: one warm-up, then all in turns, medians.
    pub(crate) fn seconds_per_item(&self, mut passes: Vec<Pass<'_>>) -> Result<Vec<f64>, Broken> {
        let mut seconds = vec![Vec::new(); passes.len()];
        for pass in &mut passes {
            pass()?;
        }
        for _ in 0..self.rounds {
            for (pass, seconds) in passes.iter_mut().zip(&mut seconds) {
                seconds.push(self.once(pass)?);
            }
        }
        Ok(seconds.into_iter().map(median).collect())
    }

    /// Repeats a pass for at least a slice.
    fn once(&self, pass: &mut Pass<'_>) -> Result<f64, Broken> {
        let began = (self.clock)();
        let mut items = 0.0;
        loop {
            items += f64::from(u32::try_from(pass()?).unwrap_or(u32::MAX));
            let elapsed = (self.clock)().saturating_sub(began);
            if elapsed >= self.slice && !elapsed.is_zero() {
                return Ok(elapsed.as_secs_f64() / items);
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    /// A clock that goes a microsecond further each time it is read.
    pub(crate) fn with_timer<T>(work: impl FnOnce(Timer<'_>) -> T) -> T {
        let ticks = Cell::new(0);
        let clock = || {
            ticks.set(ticks.get() + 1);
            Duration::from_micros(ticks.get())
        };
        work(Timer { clock: &clock, slice: Duration::ZERO, rounds: 1 })
    }

    #[test]
    fn an_item_costs_its_share_of_a_pass() {
        let seconds = with_timer(|timer| {
            let passes: Vec<Pass<'_>> = vec![Box::new(|| Ok(4)), Box::new(|| Ok(1))];
            timer.seconds_per_item(passes)
        });
        // One tick between the two readings of the clock.
        assert_eq!(seconds.unwrap(), [0.25e-6, 1e-6]);
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }
}
