//! The cost of a ledger at the scale of countries, on paper: what one reading costs, multiplied.
//!
//! Measured are a validator's work and the bytes of a reading. Assumed is what a provider has
//! ([`Provider`]) and how fast words travel; both are named beside the results. Nothing here was
//! checked by simulation.

use crate::measure::leader::ReadingCost;

const YEAR_S: f64 = 31_536_000.0;
/// State of a meter in memory with a request that waits for its opening, bytes, rounded up
/// (docs/performance.md).
const STATE_BYTES: f64 = 300.0;

/// What a provider has.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Cores that execute blocks: the ledger executes a block on one.
    pub cores: f64,
    /// Its line, bit per second, each way.
    pub line_bit_s: f64,
    /// Disk it adds in a year, bytes.
    pub disk_bytes_year: f64,
    /// Memory, bytes.
    pub memory_bytes: f64,
    /// One way between two providers, seconds.
    pub hop_s: f64,
}

/// A large server on a good line.
pub const PROVIDER: Provider = Provider {
    cores: 1.0,
    line_bit_s: 10e9,
    disk_bytes_year: 100e12,
    memory_bytes: 512e9,
    hop_s: 0.05,
};

/// A world of meters.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Meters.
    pub meters: f64,
    /// Seconds between readings, `L`.
    pub slot_s: f64,
    /// Seconds in which all requests of a slot arrive, `W`.
    pub window_s: f64,
    /// Providers.
    pub providers: f64,
}

/// What ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "name() says what each is")]
pub enum Resource {
    Cores,
    Line,
    Disk,
    Memory,
}

impl Resource {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Line => "the leader's line",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// What a world costs each provider.
#[derive(Clone, Copy, Debug)]
pub struct Burden {
    /// Cores at the peak.
    pub cores: f64,
    /// The leader's line at the peak: a block to every other provider, bit per second.
    pub line_bit_s: f64,
    /// Disk of a year, bytes.
    pub disk_bytes_year: f64,
    /// Memory of the state, bytes.
    pub memory_bytes: f64,
    /// From a block's proposal to its finality at the peak, blocks of one second, seconds; `None`
    /// if it cannot keep up.
    pub finality_s: Option<f64>,
    /// What ends first.
    pub first: Resource,
    /// With how many meters.
    pub ends_at: f64,
}

/// What a world costs, by what one reading costs.
///
/// Requests of a slot arrive in its window, so the peak is `1 / W` of all meters per second; openings
/// are counted into the same seconds, which is more than they are.
pub fn burden(world: World, reading: &ReadingCost, provider: Provider) -> Burden {
    let peak = world.meters / world.window_s;
    let cores = peak * reading.verify_us * 1e-6;
    let line_bit_s = peak * reading.ledger_bytes * 8.0 * (world.providers - 1.0);
    let disk_bytes_year = world.meters / world.slot_s * YEAR_S * reading.ledger_bytes;
    let memory_bytes = world.meters * STATE_BYTES;
    let used = [
        (Resource::Cores, cores / provider.cores),
        (Resource::Line, line_bit_s / provider.line_bit_s),
        (Resource::Disk, disk_bytes_year / provider.disk_bytes_year),
        (Resource::Memory, memory_bytes / provider.memory_bytes),
    ];
    let most = used.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let (first, share) = most.unwrap_or((Resource::Cores, 0.0));
    let keeps_up = cores <= provider.cores && line_bit_s <= provider.line_bit_s;
    // Proposed, sent, executed by the others, two rounds of votes, a certificate checked.
    let finality = 2.0 * cores / provider.cores
        + line_bit_s / provider.line_bit_s
        + 3.0 * provider.hop_s
        + reading.certificate_us * 1e-6;
    Burden {
        cores,
        line_bit_s,
        disk_bytes_year,
        memory_bytes,
        finality_s: keeps_up.then_some(finality),
        first,
        ends_at: world.meters / share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: ReadingCost = ReadingCost {
        verify_us: 2.0,
        ledger_bytes: 120.0,
        body_bytes: 53.0,
        certificate_us: 1_000.0,
    };

    #[test]
    fn a_hundred_thousand_meters_are_little_and_a_thousand_million_too_many() {
        let world = |meters| World { meters, slot_s: 900.0, window_s: 300.0, providers: 21.0 };
        let small = burden(world(1e5), &READING, PROVIDER);
        assert!(small.cores < 0.001 && small.finality_s.is_some_and(|s| s < 0.2), "{small:?}");
        let large = burden(world(1e9), &READING, PROVIDER);
        assert_eq!((large.first, large.finality_s), (Resource::Disk, None));
        // 1e9 / 300 * 120 bytes * 8 * 20.
        assert!((large.line_bit_s / 64e9 - 1.0).abs() < 1e-9, "{large:?}");
        assert!((large.ends_at / (1e9 * 100e12 / 4.2048e15) - 1.0).abs() < 1e-9, "{large:?}");
        // 120 bytes each 900 seconds for a year.
        assert!((large.disk_bytes_year / 4.2048e15 - 1.0).abs() < 1e-9, "{large:?}");
    }

    #[test]
    fn what_is_scarce_ends_first() {
        let world = World { meters: 1e6, slot_s: 86_400.0, window_s: 3_600.0, providers: 4.0 };
        let tight = Provider { memory_bytes: 1e6, ..PROVIDER };
        let burden = burden(world, &READING, tight);
        assert_eq!(burden.first, Resource::Memory);
        assert!((burden.ends_at - 1e6 / 300.0).abs() < 1e-6);
    }
}
