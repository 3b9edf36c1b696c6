//! Algorithm 3 as printed: what it costs to buy the seats, or to set the honest at odds.

use std::collections::BTreeMap;

use bkss_ledger::{Round, State, genesis::Weighing};
use bkss_scheme::ProviderId;
use rand_core::Rng;

use super::{
    Attack, Effort, Feature, Story, Tried,
    printed::{
        accounting::{Ballot, SEATS, elected, shuffled},
        consensus::faults,
    },
    weighing::{Ghosts, bought},
};
use crate::{Broken, scene::Scene};

pub(super) const STORIES: [Story; 3] = [ghosts, shuffles, concentrated];

/// A3.1. One provider of fifty declares a million meters that do not exist.
fn ghosts(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("self-declared weight and approval votes: all 21 seats to one buyer");
    let mut ballots: Vec<_> =
        (0..50).map(|own| Ballot { meters: 1_000, votes: vec![own, (own + 1) % 29] }).collect();
    // It names its own 21 straw men, with more ghosts than all others have meters.
    ballots[29] = Ballot { meters: 1_000_000, votes: (29..50).collect() };
    let seats = elected(&ballots);
    let straw_men = seats.iter().filter(|seat| **seat >= 29).count();
    printed.attempt_if(straw_men > faults(SEATS), "a minority of the seats");

    let mut ours = Tried::new(
        "each provider's vote weighs the same, so that ghosts buy nothing even if they report; \
         a genesis that has votes weighed by meters trusts its SDIs for that",
    );
    for count in [0, 10, 100] {
        for report in [Ghosts::Silent, Ghosts::Report] {
            let seats = bought(Weighing::Members, count, report)?;
            ours.attempt_if(seats > 1, "the seats go to providers with votes");
        }
    }
    Ok(attack("A3.1", "buy the seats with meters that do not exist", printed, ours))
}

/// A3.2. Honest nodes shuffle the elected, each "randomly".
fn shuffles(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("each node has its own coin: they disagree on who leads");
    let seats: Vec<_> = (0..SEATS).collect();
    for node in 1..9 {
        let agree = shuffled(seats.clone(), 0) == shuffled(seats.clone(), node);
        printed.attempt_if(!agree, "the same order");
    }

    let mut ours = Tried::new("all draws come from the last block of the round before");
    let one = Scene::new(32, 7)?;
    for _ in 0..8 {
        // Another node, from the same genesis.
        let other = State::new(one.genesis.clone());
        ours.attempt_if(other.round().nodes != one.state.round().nodes, "the same order");
    }
    Ok(attack("A3.2", "find honest nodes that disagree on the order", printed, ours))
}

/// A3.3. Thirteen of fifty providers vote for each other and nobody else, while each of the honest
/// ones names five others that are honest.
fn concentrated(_: &Effort) -> Result<Attack, Broken> {
    let liars = 37..50_u16;
    let bought = |seats: usize| seats > faults(SEATS);
    let mut printed = Tried::new("votes that are spread lose to votes that are not");
    let mut scene = Scene::new(33, 50)?;
    let mut ours = Tried::new("seats are shared in proportion, however votes are spread");
    for _ in 0..4 {
        let picks: BTreeMap<_, Vec<_>> = (0..50)
            .map(|voter| {
                let (trusted, names) =
                    if liars.contains(&voter) { (liars.clone(), SEATS) } else { (0..37, 5) };
                let mut others: Vec<_> = trusted.filter(|other| *other != voter).collect();
                // Whom an honest provider knows is drawn.
                others.sort_by_cached_key(|_| scene.rng.next_u32());
                others.truncate(names);
                (voter, others)
            })
            .collect();
        let ballots: Vec<_> = picks
            .values()
            .map(|picks| Ballot { meters: 100, votes: picks.iter().map(|p| (*p).into()).collect() })
            .collect();
        let seats = elected(&ballots).into_iter().filter(|seat| *seat >= 37).count();
        printed.attempt_if(bought(seats), "a minority of the seats");

        let mut round = Round::clone(scene.state.round());
        round.weights = (0..50).map(|voter| (ProviderId(voter), 100)).collect();
        // Picks of a vote ascend.
        let vote = |picks: &Vec<u16>| {
            let mut picks: Vec<_> = picks.iter().copied().map(ProviderId).collect();
            picks.sort_unstable();
            picks
        };
        round.votes =
            picks.iter().map(|(voter, picks)| (ProviderId(*voter), vote(picks))).collect();
        let rounds = scene.genesis.charter().rounds;
        let nodes = round.elect(scene.state.members(), &rounds).nodes;
        let seats = nodes.iter().filter(|node| liars.contains(&node.0)).count();
        ours.attempt_if(bought(seats), "a minority of the seats");
    }
    let what = "take the seats with a quarter of the providers that vote as one";
    Ok(attack("A3.3", what, printed, ours))
}

fn attack(test: &'static str, what: &'static str, printed: Tried, ours: Tried) -> Attack {
    let feature = Feature::Algorithms;
    Attack { test, feature, what, flaw: "B9", printed: printed.into(), ours: ours.into() }
}
