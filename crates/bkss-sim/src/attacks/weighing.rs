//! What votes weigh, and which way to buy seats each of both kinds withstands (Algorithm 3).
//!
//! Seven providers elect four. Two of them, 5 and 6, are one buyer: they vote for each other alone,
//! and one seat is their share.

use bkss_ledger::{Rounds, Transaction, Vote, genesis::Weighing};
use bkss_meter::signer::Signed;
use bkss_scheme::ProviderId;

use crate::{
    Broken,
    scene::{Home, Scene, at, reading},
};

/// Blocks of a round.
const BLOCKS: u32 = 4;
/// The providers that are one buyer.
const BUYER: [u16; 2] = [5, 6];
/// The seats that are their share.
pub(crate) const SHARE: usize = 1;

/// What meters that nobody installed do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ghosts {
    /// They are registered, and that is all.
    Silent,
    /// Somebody keeps their chains, and signs in their names.
    Report,
}

/// How a way to buy seats ends for votes of each kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bought {
    /// What the buyer does.
    pub what: &'static str,
    /// Seats of four, where every provider's vote weighs the same.
    pub members: usize,
    /// Seats of four, where votes weigh by meters that report.
    pub meters: usize,
}

impl Bought {
    /// Whether a number of seats is no more than the buyer's share.
    pub const fn withstands(seats: usize) -> bool {
        seats <= SHARE
    }
}

/// A way to buy seats: how many of four it comes to.
type Way = fn(Weighing) -> Result<usize, Broken>;

/// Tries every way to buy seats on votes of both kinds.
///
/// # Errors
///
/// [`Broken`] if a scene does not stand.
pub fn table() -> Result<[Bought; 3], Broken> {
    let ways: [(_, Way); 3] = [
        ("meters that nobody installed, which never report", |votes| {
            bought(votes, 100, Ghosts::Silent)
        }),
        ("openings held back until the others' have been", held_back),
        ("meters that nobody installed, which report: an SDI helps", |votes| {
            bought(votes, 100, Ghosts::Report)
        }),
    ];
    let mut rows = [Bought { what: "", members: 0, meters: 0 }; 3];
    for (row, (what, way)) in rows.iter_mut().zip(ways) {
        *row = Bought { what, members: way(Weighing::Members)?, meters: way(Weighing::Meters)? };
    }
    Ok(rows)
}

/// The seats of four that the buyer has who has so many meters that do not exist.
pub(crate) fn bought(votes: Weighing, count: u32, ghosts: Ghosts) -> Result<usize, Broken> {
    let mut scene = founded(votes)?;
    let mut homes = provisioned(&mut scene, (0..5).map(|owner| (owner, 1)))?;
    let owners = BUYER.map(|owner| (owner, count / 2));
    let mut unreal = provisioned(&mut scene, owners)?;
    register(&mut scene, &[&homes, &unreal])?;
    if ghosts == Ghosts::Report {
        homes.append(&mut unreal);
    }
    let signed = request(&mut scene, &mut homes)?;
    let all: Vec<_> = homes.iter().zip(&signed).collect();
    open(&mut scene, 400, &all)?;
    elected(&mut scene)
}

/// The seats of four that the buyer has who has as many meters as any other, and opens what they
/// have reported a round after the others.
fn held_back(votes: Weighing) -> Result<usize, Broken> {
    let mut scene = founded(votes)?;
    let mut homes = provisioned(&mut scene, (0..7).map(|owner| (owner, 2)))?;
    register(&mut scene, &[&homes])?;
    let signed = request(&mut scene, &mut homes)?;
    let all: Vec<_> = homes.iter().zip(&signed).collect();
    // Those of one honest provider come late, too: a weight without anything beside it would be cut.
    let late = |(home, _): &&(&Home, &Signed)| {
        let owner = home.registration.message.owner.0;
        owner == 0 || BUYER.contains(&owner)
    };
    let (late, early): (Vec<_>, Vec<_>) = all.into_iter().partition(|pair| late(&pair));
    open(&mut scene, 400, &early)?;
    open(&mut scene, 500, &late)?;
    end_round(&mut scene)?;
    elected(&mut scene)
}

fn founded(votes: Weighing) -> Result<Scene, Broken> {
    let rounds = Rounds { blocks: BLOCKS, committee: 4, alternates: 0, tenure_views: 1, votes };
    Scene::founded(31, 7, "", rounds)
}

/// So many meters of each owner.
fn provisioned(
    scene: &mut Scene,
    owners: impl IntoIterator<Item = (u16, u32)>,
) -> Result<Vec<Home>, Broken> {
    let mut homes = Vec::new();
    for (owner, count) in owners {
        for nth in 0..count {
            homes.push(scene.provision(7 * nth + u32::from(owner))?);
        }
    }
    Ok(homes)
}

/// Registers them in the first block.
fn register(scene: &mut Scene, homes: &[&[Home]]) -> Result<(), Broken> {
    let registration = |home: &Home| Transaction::Registration(home.registration.clone());
    let all: Vec<_> = homes.iter().copied().flatten().map(registration).collect();
    scene.block(at(0, 1), &all)?;
    Ok(())
}

/// A reading of each is signed and requested in the second block.
fn request(scene: &mut Scene, homes: &mut [Home]) -> Result<Vec<Signed>, Broken> {
    let mut signed = Vec::new();
    for home in &mut *homes {
        signed.push(home.meter.sign(at(1, 0), &reading(42), &mut scene.rng)?);
    }
    let mut values = Vec::new();
    for (home, signed) in homes.iter().zip(&signed) {
        values.push((row(scene, home)?, signed.message().value));
    }
    values.sort_unstable_by_key(|(row, _)| *row);
    let request = scene.requests(0, 1, values);
    scene.block(at(1, 1), &[request])?;
    Ok(signed)
}

/// They are opened in a block of their own.
fn open(scene: &mut Scene, second: u64, all: &[(&Home, &Signed)]) -> Result<(), Broken> {
    let mut items = Vec::new();
    for (home, signed) in all {
        items.push((row(scene, home)?, home.link(1), signed.message().body.to_vec()));
    }
    items.sort_unstable_by_key(|(row, ..)| *row);
    let opening = scene.openings(0, 1, &items)?;
    let verified = scene.block(at(1, second), &[opening])?;
    if verified.openings().len() != items.len() {
        return Err(Broken::DoesNotHold("an opening of each meter"));
    }
    Ok(())
}

/// The chain's number in the registry.
fn row(scene: &Scene, home: &Home) -> Result<u32, Broken> {
    let meter = home.registration.message.meter;
    scene.state.view().row(meter).ok_or(Broken::DoesNotHold("a registered meter"))
}

/// Empty blocks to the end of the round.
fn end_round(scene: &mut Scene) -> Result<(), Broken> {
    let round = scene.state.round().number;
    while scene.state.round().number == round {
        let time = bkss_scheme::LedgerTime(scene.state.head().time.0 + 1000);
        scene.block(time, &[])?;
    }
    Ok(())
}

/// All vote in the round that is to come, and the buyer's seats in the one after that are counted.
fn elected(scene: &mut Scene) -> Result<usize, Broken> {
    if !scene.state.head().height.is_multiple_of(BLOCKS.into()) {
        end_round(scene)?;
    }
    let votes: Vec<_> = (0..7).map(|voter| ballot(scene, voter)).collect();
    let time = bkss_scheme::LedgerTime(scene.state.head().time.0 + 1000);
    scene.block(time, &votes)?;
    end_round(scene)?;
    let nodes = scene.state.round().nodes.iter();
    Ok(nodes.filter(|(node, _)| BUYER.contains(&node.0)).count())
}

/// Honest providers vote for the first four but themselves, 5 and 6 for each other.
fn ballot(scene: &Scene, voter: u16) -> Transaction {
    let picks = match voter {
        5 => vec![ProviderId(6)],
        6 => vec![ProviderId(5)],
        honest => (0..4).filter(|pick| *pick != honest).map(ProviderId).collect(),
    };
    let (network, round) = (scene.network(), scene.state.round().number);
    let key = &scene.keys[usize::from(voter)];
    Transaction::Vote(Vote::sign(network, ProviderId(voter), key, round, picks))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default withstands all of it; the paper's rule does not withstand SDIs that can be bought.
    #[test]
    fn seats_are_for_sale_by_meters_that_report_where_votes_weigh_by_meters_alone() {
        let seats = table().unwrap().map(|row| (row.members, row.meters));
        assert_eq!(seats, [(0, 0), (0, 0), (0, 2)]);
    }
}
