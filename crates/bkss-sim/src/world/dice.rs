//! Numbers drawn from a seed.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

/// A source of small numbers.
pub(super) struct Dice(pub(super) ChaCha8Rng);

impl Dice {
    /// Independent of other dice of the same seed with another name.
    pub(super) fn new(seed: u64, name: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(name);
        Self(rng)
    }

    /// Any number.
    pub(super) fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `0..below`; 0 if there is none.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.any() % below.max(1)
    }

    /// A number from a range, its end included.
    pub(super) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times of a thousand.
    pub(super) fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    /// A place from `0..below`; 0 if there is none.
    pub(super) fn place(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).unwrap_or(0)
    }

    /// A number below `below`; 0 if there is none.
    pub(super) fn small(&mut self, below: u32) -> u32 {
        u32::try_from(self.below(below.into())).unwrap_or(0)
    }

    /// Milliseconds that a clock is wrong by, up to a tenth of a second either way.
    pub(super) fn skew(&mut self) -> i64 {
        i64::try_from(self.below(201)).unwrap_or(0) - 100
    }
}
