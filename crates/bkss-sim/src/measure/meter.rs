//! The meter's own work on one reading: derive `v_i`, then `p` and `q` (Table 7), and what it
//! stores for that (Tables 5, 6).

use std::hint::black_box;

use bkss_meter::{KeyStore, journal::RECORD};
use bkss_scheme::{Digest, Link, LinkIndex, Salt, hash, hash_chain::Blocks, request};

use super::{Pass, Timer};
use crate::{Broken, formulas};

/// A sealed body of one interval, its session known: bytes.
const BODY: usize = 53;

/// What a meter of one setting costs.
#[derive(Clone, Copy, Debug)]
pub struct MeterCost {
    /// `T_certi`, years.
    pub chain_years: u32,
    /// `T_inter`, minutes.
    pub interval_min: u32,
    /// `n`.
    pub links: u32,
    /// Write-once flash for checkpoints, bytes.
    pub checkpoint_bytes: u64,
    /// What is rewritten per slot: one journal record, bytes.
    pub record_bytes: usize,
    /// `H(body)`, `p`, `q` and `v_i`, on average over all slots, microseconds.
    pub average_us: f64,
    /// The same in the slot whose link is furthest from its checkpoint, microseconds.
    pub worst_us: f64,
}

/// Measures the settings of the paper that are asked for.
///
/// # Errors
///
/// [`Broken`] if a chain cannot be made.
pub fn measure(timer: Timer<'_>, settings: &[(u32, u32)]) -> Result<Vec<MeterCost>, Broken> {
    let mut meters = Vec::new();
    for (years, minutes) in settings {
        meters.push(Setting::new(*years, *minutes)?);
    }
    let passes = meters.iter().flat_map(|meter| [meter.average(), meter.worst()]).collect();
    let seconds = timer.seconds_per_item(passes)?;
    let (pairs, _) = seconds.as_chunks::<2>();
    Ok(meters.iter().zip(pairs).map(|(meter, pair)| meter.cost(*pair)).collect())
}

/// A meter with a whole chain.
pub(crate) struct Setting {
    chain_years: u32,
    interval_min: u32,
    keys: KeyStore<Vec<Link>>,
    first: LinkIndex,
    /// Slots in which every distance to a checkpoint is met alike.
    spread: Vec<LinkIndex>,
}

impl Setting {
    /// Makes the chain.
    pub(crate) fn new(chain_years: u32, interval_min: u32) -> Result<Self, Broken> {
        let links = formulas::links(chain_years, interval_min);
        let blocks = Blocks::usual(links).ok_or(Broken::DoesNotHold("chain"))?;
        let (salt, last) = (Salt([7; 16]), Link::from_bytes([8; 32]));
        let blank = vec![Link::from_bytes([0; 32]); blocks.count() as usize];
        let (keys, _) = KeyStore::make(salt, blocks, &last, blank, |_, _| ())?;
        // The step is prime to the block length.
        let spread = (0..257_u32).map(|step| 1 + step * 4_099 % links);
        let spread = spread.filter_map(|index| LinkIndex::new(index, links)).collect();
        let first = LinkIndex::new(1, links).ok_or(Broken::DoesNotHold("chain"))?;
        Ok(Self { chain_years, interval_min, keys, first, spread })
    }

    fn sign(&self, index: LinkIndex) {
        let link = self.keys.derive(black_box(index));
        let body = black_box([0x5A; BODY]);
        let commitment = request::commitment(&Digest([9; 32]), index, &hash::plain(&body));
        black_box(request::request_value(&commitment, &link));
    }

    /// Signing, over all distances to a checkpoint alike.
    pub(crate) fn average(&self) -> Pass<'_> {
        Box::new(|| {
            self.spread.iter().for_each(|index| self.sign(*index));
            Ok(self.spread.len())
        })
    }

    fn worst(&self) -> Pass<'_> {
        Box::new(|| {
            (0..16).for_each(|_| self.sign(self.first));
            Ok(16)
        })
    }

    fn cost(&self, [average, worst]: [f64; 2]) -> MeterCost {
        let blocks = self.keys.blocks();
        MeterCost {
            chain_years: self.chain_years,
            interval_min: self.interval_min,
            links: blocks.slots(),
            checkpoint_bytes: 32 * u64::from(blocks.count()),
            record_bytes: RECORD,
            average_us: average * 1e6,
            worst_us: worst * 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::with_timer;

    #[test]
    fn a_meter_stores_kilobytes() {
        let costs = with_timer(|timer| measure(timer, &[(1, 50), (1, 30)])).unwrap();
        // Scheme s5.2: 128 and 256 links per checkpoint.
        assert_eq!((costs[0].links, costs[0].checkpoint_bytes), (10_512, 2_656));
        assert_eq!((costs[1].links, costs[1].checkpoint_bytes), (17_520, 2_208));
        assert_eq!(costs[0].record_bytes, 16);
    }
}
