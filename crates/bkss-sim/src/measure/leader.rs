//! The leader's work on the readings of one slot (Table 8, Figure 11): real batches, executed and
//! checked by the ledger's own rules, and the certificates of both blocks.
//!
//! Every provider is a gateway with one batch of requests and one of openings; the accounting nodes
//! are at most 21 of them, so above that only the number of batches grows.

use std::hint::black_box;

use bkss_ledger::{State, Transaction, propose};
use bkss_meter::signer::Signed;
use bkss_scheme::Header;

use super::{Pass, Timer};
use crate::{
    Broken,
    scene::{Home, Opened, Scene, Votes, WINDOW_S, at, reading},
};

/// Gateways that share the readings where their number is not what is measured.
const GATEWAYS: u32 = 4;
/// The slot that is measured.
const SLOT: u32 = 2;
/// Most accounting nodes of a round.
const SEATS: u32 = 21;

/// What a leader pays for one reading of each meter.
#[derive(Clone, Copy, Debug)]
pub struct LeaderCost {
    /// `Num_SM`.
    pub meters: u32,
    /// `Num_SP`.
    pub providers: u32,
    /// The block of requests and the block of openings, milliseconds.
    pub blocks_ms: f64,
    /// The certificates of both, milliseconds.
    pub certificates_ms: f64,
}

impl LeaderCost {
    /// All of it, milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.blocks_ms + self.certificates_ms
    }
}

/// What one reading comes to on the ledger, in the largest setting.
#[derive(Clone, Copy, Debug)]
pub struct ReadingCost {
    /// Work of a validator, request and opening, certificates aside, microseconds.
    pub verify_us: f64,
    /// Bytes in both blocks.
    pub ledger_bytes: f64,
    /// Bytes of these that are the sealed body.
    pub body_bytes: f64,
    /// Votes of 15 of 21 members on one block, checked, microseconds.
    pub certificate_us: f64,
}

/// A ledger with so many meters, and a signed reading of each.
pub struct Town {
    scene: Scene,
    homes: Vec<Home>,
    signed: Vec<Signed>,
    /// The ledger with all requests of the slot.
    requested: State,
}

impl Town {
    /// Meters of a town, all of which sign in slot 2: their sessions are known from slot 1.
    ///
    /// # Errors
    ///
    /// [`Broken`] if the town cannot be built.
    pub fn new(meters: u32, providers: u16) -> Result<Self, Broken> {
        let mut scene = Scene::new(8, providers)?;
        let mut homes = Vec::new();
        for number in 0..meters {
            homes.push(scene.provision(number)?);
        }
        for chunk in homes.chunks(512) {
            scene.register(chunk)?;
        }
        let mut signed = Vec::new();
        for home in &mut homes {
            let first = home.meter.sign(at(1, 0), &reading(41), &mut scene.rng)?;
            home.meter.confirmed(first.index());
            signed.push(home.meter.sign(at(SLOT, 0), &reading(42), &mut scene.rng)?);
        }
        let mut town = Self { requested: scene.state.clone(), scene, homes, signed };
        let everybody = town.requests(meters, providers.into());
        let block = propose(&town.scene.state.view(), at(SLOT, 1), everybody)?;
        town.requested.apply(&block)?;
        Ok(town)
    }

    fn requests(&self, meters: u32, gateways: u32) -> Vec<Transaction> {
        let batches = shares(meters, gateways).map(|(gateway, rows)| {
            let values = rows.map(|row| (row, self.signed[row as usize].message().value));
            self.scene.requests(gateway, SLOT, values)
        });
        batches.collect()
    }

    fn openings(&self, meters: u32, gateways: u32) -> Result<Vec<Transaction>, Broken> {
        let batches = shares(meters, gateways).map(|(gateway, rows)| {
            let items: Vec<Opened> = rows
                .map(|row| {
                    let (home, signed) = (&self.homes[row as usize], &self.signed[row as usize]);
                    (row, home.link(SLOT), signed.message().body.to_vec())
                })
                .collect();
            self.scene.openings(gateway, SLOT, &items)
        });
        batches.collect()
    }

    /// Measures the leader for each setting of meters and providers.
    ///
    /// # Errors
    ///
    /// [`Broken`] if a block is not what it should be.
    pub fn leader(
        &self,
        timer: Timer<'_>,
        settings: &[(u32, u32)],
    ) -> Result<Vec<LeaderCost>, Broken> {
        let mut committees = Vec::new();
        for (_, providers) in settings {
            committees.push(Certified::new(*providers)?);
        }
        let mut passes = Vec::new();
        for ((meters, providers), committee) in settings.iter().zip(&committees) {
            passes.push(self.blocks(*meters, *providers)?);
            passes.push(Box::new(|| committee.check()));
        }
        let seconds = timer.seconds_per_item(passes)?;
        let (pairs, _) = seconds.as_chunks::<2>();
        let costs = settings.iter().zip(pairs).map(|((meters, providers), [blocks, check])| {
            let (meters, providers) = (*meters, *providers);
            LeaderCost {
                meters,
                providers,
                blocks_ms: blocks * f64::from(meters) * 1e3,
                certificates_ms: check * 2.0 * 1e3,
            }
        });
        Ok(costs.collect())
    }

    /// Executes both blocks; items are meters.
    fn blocks(&self, meters: u32, providers: u32) -> Result<Pass<'_>, Broken> {
        let requests = self.requests(meters, providers);
        let openings = self.openings(meters, providers)?;
        Ok(Box::new(move || {
            let view = self.scene.state.view();
            let block = propose(&view, at(SLOT, 1), black_box(requests.clone()))?;
            let view = self.requested.view();
            let later = at(SLOT, WINDOW_S.into());
            let opened = propose(&view, later, black_box(openings.clone()))?;
            let done = (block.requests().len(), opened.openings().len());
            if done == (meters as usize, meters as usize) {
                Ok(done.0)
            } else {
                Err(Broken::DoesNotHold("a block of all readings"))
            }
        }))
    }

    /// Checking readings, request and opening, as a validator does.
    pub(crate) fn validator(&self) -> Result<Pass<'_>, Broken> {
        let meters = u32::try_from(self.homes.len()).unwrap_or(u32::MAX);
        self.blocks(meters, GATEWAYS)
    }

    /// What one reading costs a validator and the ledger.
    ///
    /// # Errors
    ///
    /// As [`Self::leader`].
    pub fn reading(&self, timer: Timer<'_>) -> Result<ReadingCost, Broken> {
        let meters = u32::try_from(self.homes.len()).unwrap_or(u32::MAX);
        let gateways = GATEWAYS;
        let committee = Certified::new(SEATS)?;
        let passes =
            vec![self.blocks(meters, gateways)?, Box::new(|| committee.check()) as Pass<'_>];
        let seconds = timer.seconds_per_item(passes)?;
        let blocks = [self.requests(meters, gateways), self.openings(meters, gateways)?];
        let bytes: usize =
            blocks.concat().iter().map(|transaction| transaction.encode().len()).sum();
        let bodies: usize = self.signed.iter().map(|signed| signed.message().body.len()).sum();
        Ok(ReadingCost {
            verify_us: seconds[0] * 1e6,
            ledger_bytes: per(bytes, meters),
            body_bytes: per(bodies, meters),
            certificate_us: seconds[1] * 1e6,
        })
    }
}

fn per(bytes: usize, meters: u32) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / f64::from(meters)
}

/// Rows of the meters each gateway serves.
fn shares(meters: u32, gateways: u32) -> impl Iterator<Item = (usize, std::ops::Range<u32>)> {
    let share = move |number| meters * number / gateways;
    (0..gateways).map(move |number| (number as usize, share(number)..share(number + 1)))
}

/// A block with the votes of a quorum of as many members as a round of so many providers has.
struct Certified {
    scene: Scene,
    header: Header,
    votes: Votes,
}

impl Certified {
    fn new(providers: u32) -> Result<Self, Broken> {
        let members = u16::try_from(providers.min(SEATS)).unwrap_or(u16::MAX);
        let scene = Scene::new(9, members.max(4))?;
        let header = scene.header(at(1, 1))?;
        let quorum: Vec<_> = (0..scene.committee().quorum()).collect();
        let votes = scene.votes_of(&quorum, scene.network(), header.id());
        Ok(Self { scene, header, votes })
    }

    fn check(&self) -> Result<usize, Broken> {
        self.scene.certified(&self.votes.finality(), black_box(&self.header))?;
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::with_timer;

    #[test]
    fn every_meter_is_in_one_batch() {
        for (meters, gateways) in [(40, 4), (41, 5), (100, 50)] {
            let rows: Vec<_> = shares(meters, gateways).flat_map(|(_, rows)| rows).collect();
            assert_eq!(rows, (0..meters).collect::<Vec<_>>());
        }
    }

    #[test]
    fn blocks_of_all_gateways_are_executed_and_bytes_counted() {
        let town = Town::new(40, 5).unwrap();
        let costs = with_timer(|timer| town.leader(timer, &[(20, 4), (40, 5)])).unwrap();
        assert!(costs.iter().all(|cost| cost.blocks_ms > 0.0 && cost.certificates_ms > 0.0));
        let reading = with_timer(|timer| town.reading(timer)).unwrap();
        // Batches of ten: q, v, body and their share of two signatures.
        assert!(reading.ledger_bytes > 32.0 + 32.0 + reading.body_bytes - 5.0);
        assert!(reading.ledger_bytes < 250.0, "{reading:?}");
    }
}
