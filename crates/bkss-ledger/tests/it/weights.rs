//! What meters weigh in an election, and what buys no weight.

use bkss_ledger::{Rounds, activity::Activity, genesis::Weighing};
use bkss_scheme::ProviderId;

use crate::{
    consortium::{Consortium, FIRST, Meter, SHORT, Signed, at, slots_from},
    world::World,
};

/// Meters of these owners, registered, with one slot requested.
fn reporting(world: &mut World, owners: &[u32]) -> Vec<Signed> {
    let founders = u32::try_from(world.consortium.keys.len()).unwrap();
    let meters: Vec<_> = (0..)
        .zip(owners)
        .map(|(number, owner): (u32, _)| world.consortium.meter(founders * number + owner))
        .collect();
    world.round(&meters.iter().map(Meter::registers).collect::<Vec<_>>());
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 5)).collect();
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    world.block_at(at(1, 1), &[world.consortium.requests(0, 1, &values)]);
    world.block_at(at(1, 300), &[]);
    signed
}

fn weights(world: &World) -> Vec<(u16, u32)> {
    world.state.round().weights.iter().map(|(id, meters)| (id.0, *meters)).collect()
}

fn world_of_meters(seed: u64, providers: u16) -> World {
    let rounds = Rounds { votes: Weighing::Meters, ..SHORT };
    World::of(Consortium::with(seed, providers, rounds))
}

/// Three of ten providers have a meter each, the other seven have three each.
#[test]
fn openings_that_are_held_back_buy_nothing() {
    let owners: Vec<u32> = (0..7).flat_map(|owner| [owner; 3]).chain(7..10).collect();
    let mut taken = Vec::new();
    for held_back in [false, true] {
        let mut world = world_of_meters(1, 10);
        let signed = reporting(&mut world, &owners);
        let items: Vec<_> = (0..).zip(&signed).collect();
        let (honest, theirs) = items.split_at(21);
        let (first, then) = if held_back { (honest, theirs) } else { (&items[..], theirs) };
        world.round(&[world.consortium.openings(0, first)]);
        // A quiet round: in it nobody but those who have waited opens anything.
        if held_back {
            world.round(&[world.consortium.openings(8, then)]);
        } else {
            world.round(&[]);
        }
        let expected: Vec<_> = (0..7).map(|id| (id, 3)).chain((7..10).map(|id| (id, 1))).collect();
        assert_eq!(weights(&world), expected, "held back: {held_back}");
        let mut votes: Vec<_> =
            (0..7).map(|voter| world.vote(voter, (1..=4).map(|step| (voter + step) % 7))).collect();
        let theirs = |voter: u16| (7..10).filter(move |other| *other != voter);
        votes.extend((7..10).map(|voter| world.vote(voter, theirs(voter))));
        world.round(&votes);
        taken.push(world.nodes().into_iter().filter(|node| *node >= 7).count());
    }
    // Three meters of twenty-four are worth half a seat of four, whenever they are opened.
    assert_eq!(taken, [0, 0]);
}

#[test]
fn a_meter_that_gets_its_next_chain_counts_once() {
    let mut world = world_of_meters(2, 4);
    let old = world.consortium.meter(1);
    let next = world.consortium.next_chain(&old, slots_from(FIRST.0 + 2));
    let third = world.consortium.next_chain(&old, slots_from(FIRST.0 + 4));
    let of = |meter: &Meter, index| meter.sign(index, 5);
    let signed = [of(&old, 1), of(&old, 2), of(&next, 1), of(&next, 2), of(&third, 1)];
    let once = [(1, 1)];
    world.round(&[old.registers()]);
    assert_eq!(weights(&world), []);
    let request = |world: &World, slot: u32, row, signed: &Signed| {
        world.consortium.requests(0, slot, &[(row, signed.value)])
    };
    let open = |world: &World, row, signed: &Signed| world.consortium.openings(0, &[(row, signed)]);
    world.block_at(at(1, 1), &[request(&world, 1, 0, &signed[0])]);
    world.block_at(at(2, 1), &[request(&world, 2, 0, &signed[1])]);
    world.block_at(at(2, 2), &[next.registers()]);
    world.round(&[]);
    // Opened under the old chain when there is a next one; under that; and once more under the old.
    world.block_at(at(2, 300), &[open(&world, 0, &signed[0])]);
    world.round(&[]);
    assert_eq!(weights(&world), once);
    world.block_at(at(3, 1), &[request(&world, 3, 1, &signed[2])]);
    world.block_at(at(3, 300), &[open(&world, 1, &signed[2])]);
    world.round(&[open(&world, 0, &signed[1])]);
    assert_eq!(weights(&world), once);
    // All in one block with the registration of a third one.
    world.block_at(at(4, 1), &[request(&world, 4, 1, &signed[3])]);
    world.block_at(at(4, 300), &[third.registers(), open(&world, 1, &signed[3])]);
    world.round(&[]);
    assert_eq!(weights(&world), once);
    world.block_at(at(5, 1), &[request(&world, 5, 2, &signed[4])]);
    world.round(&[]);
    world.block_at(at(5, 300), &[open(&world, 2, &signed[4])]);
    world.round(&[]);
    assert_eq!(weights(&world), once);
    // It counts for R behind its last opening, and a step more at most.
    let (week, step) = (604_800, 75_600);
    world.block_at(at(5, 300 + week), &[]);
    world.round(&[]);
    assert_eq!(weights(&world), once, "a week later");
    world.block_at(at(5, 300 + week + step), &[]);
    world.round(&[]);
    assert_eq!(weights(&world), []);
}

#[test]
fn where_all_votes_weigh_the_same_meters_buy_nothing() {
    let mut world = World::of(Consortium::with(3, 4, SHORT));
    let signed = reporting(&mut world, &[1, 1, 1, 2]);
    let items: Vec<_> = (0..).zip(&signed).collect();
    world.round(&[world.consortium.openings(0, &items)]);
    let round = world.state.round();
    assert_eq!((weights(&world), &round.activity), (Vec::new(), &Activity::default()));
}

#[test]
fn an_opening_never_shortens_the_time_for_which_a_meter_counts() {
    let (owner, week) = (ProviderId(1), 604_800);
    let mut activity = Activity::default();
    // Slots of twenty days, then a next chain with slots of a quarter of an hour.
    let long = activity.report(owner, 0, (at(1, 300), 20 * 86_400), week);
    let then = activity.report(owner, long, (at(2, 300), 900), week);
    assert_eq!(then, long);
    let weights = activity.advance(at(1, 300 + 20 * 86_400), week);
    assert_eq!(weights.into_iter().collect::<Vec<_>>(), [(owner, 1)]);
    let weights = activity.advance(at(1, 300 + 21 * 86_400), week);
    assert!(weights.is_empty(), "{weights:?}");
}
