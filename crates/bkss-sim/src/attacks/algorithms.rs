//! Algorithms 1, 2 and 3 as printed: what one liar does with them.

use std::collections::BTreeMap;

use bkss_ledger::{
    Round, Rounds, State, Transaction, Vote,
    leader::{leader_of, tenure_of},
};
use bkss_scheme::{Committee, ProviderId, certificate::VoteKey};
use rand_core::Rng;

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    printed::{
        accounting::{Ballot, SEATS, elected, shuffled},
        consensus::{Block, Follower, commits, commits_as_read, faults},
        election::{Candidacy, Node, Role, elects},
        scheme,
    },
};
use crate::{
    Broken,
    scene::{Home, Scene, at, reading},
    world::{Failure, Summary, stories},
};

pub(super) const STORIES: [Story; 8] =
    [never, thirteen, one_liar, timer, always_leader, ghosts, shuffles, concentrated];

/// A2.1. Nobody lies, nobody is off, and still no block of four nodes is committed.
fn never(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("V > 2f + 1 over followers: 4 of 3; with n = 3f + 1 only f = 0 works");
    for nodes in (4..=31).step_by(3) {
        // All followers but the f that may fail answer.
        let answers = nodes - 1 - faults(nodes);
        printed.attempt_if(!commits(answers, nodes), "commits");
    }
    let mut ours = Tried::new("n - f votes are a quorum for every n");
    for nodes in 4..=31_u8 {
        let size = usize::from(nodes);
        ours.attempt_if(size - faults(size) < committee(nodes)?.quorum(), "commits");
    }
    Ok(attack("A2.1", "wait for a commit with f silent nodes", "B5", printed, ours.into()))
}

fn committee(members: u8) -> Result<Committee, Broken> {
    Committee::new((0..members).map(|member| VoteKey([member; 32])))
        .ok_or(Broken::DoesNotHold("committee"))
}

/// A2.2. The usual correction, 2f + 1, for committees of every size.
fn thirteen(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("2f + 1: safe for n = 3f + 1 alone; n = 5 and n = 21 fork");
    let mut ours = Tried::new("floor(2n/3) + 1: two quorums always share an honest member");
    for nodes in 4..=31_u8 {
        let size = usize::from(nodes);
        let least = (0..=size).find(|votes| commits_as_read(*votes, size)).unwrap_or(size);
        // Two quorums of k share at least 2k - n members; if all of those may lie, both can stand.
        let forks = |quorum: usize| 2 * quorum <= size + faults(size);
        printed.attempt_if(forks(least), "an honest member is in both");
        ours.attempt_if(forks(committee(nodes)?.quorum()), "an honest member is in both");
    }
    Ok(attack(
        "A2.2",
        "make two quorums without a common honest member",
        "B6",
        printed,
        ours.into(),
    ))
}

/// A2.3. The leader says `Committed` for one block to some, and for another to the others.
fn one_liar(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("Committed is an unsigned word: no vote has to be behind it");
    let mut followers = vec![Follower { sdi: 1, ..Follower::default() }; 20];
    let blocks = ["a", "b"].map(|name| {
        let chain = scheme::Chain::new(name.as_bytes(), 16);
        let meter = scheme::Meter { id: 7, chain, t0: 100, sdi: 1 };
        let stamp = scheme::Timestamp(102);
        Block { height: 0, transactions: vec![meter.release(102, stamp, vec![])] }
    });
    for (follower, number) in followers.iter_mut().zip(0..) {
        let block = &blocks[number % 2];
        // Both pass Algorithm 2, but nobody has to be asked.
        follower.committed(block);
    }
    printed.attempt_if(followers[0].chain != followers[1].chain, "one chain");

    let mut ours = Tried::new("a block without a certificate is nothing");
    let scene = Scene::new(3, 21)?;
    for second in [1, 2] {
        let header = scene.header(at(1, second))?;
        let votes = scene.votes_of(&[0], scene.network(), header.id());
        let verdict = votes.finality().verify(scene.network(), &scene.committee(), &header);
        ours.attempt(verdict.map(drop));
    }
    Ok(attack("A2.3", "tell two halves of the followers two blocks", "B3", printed, ours.into()))
}

/// A1.1. The timer is compared the wrong way round.
fn timer(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("while Timer > T_out waits when it should act, and acts at once");
    let node = Node::new();
    // The leader is there and has just spoken: nobody should stand. The leader is gone: all should.
    printed.attempt_if(node.stands(0, 10), "waits for a leader that is there");
    printed.attempt_if(!node.stands(11, 10), "stands when the leader is gone");
    let mut ours =
        Tried::new("whole nodes: no view ends while leaders are there, some when one is gone");
    let views = |world: Result<Summary, Failure>| match world {
        Ok(world) => Ok(world.view_changes),
        Err(Failure::Broken(broken)) => Err(broken),
        Err(_) => Err(Broken::DoesNotHold("the world")),
    };
    let (calm, gone) = (views(stories::calm())?, views(stories::one_leader_gone())?);
    // The first leader speaks before all have started.
    ours.attempt_if(calm > 1, "nobody stands while leaders are there");
    ours.attempt_if(gone <= 1, "a leader that is gone is passed over");
    Ok(attack("A1.1", "wait for the timeout", "B8", printed, ours.into()))
}

/// A1.2. A Byzantine provider wants to lead for ever.
fn always_leader(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("it names a newer tenure whenever it is not leading: all step down");
    let mut nodes = vec![Node::new(); 7];
    let byzantine = 6;
    for honest in [0, 1, 2, 3, 4, 5] {
        // Its turn would have come: an honest node stands and is elected by everybody.
        let candidacy = nodes[honest].stand(honest);
        let votes = 1 + vote(&mut nodes, candidacy);
        if elects(votes, nodes.len()) {
            announce(&mut nodes, candidacy);
        }
        // The liar needs no timeout and no votes: it says that it has won the tenure after.
        let claim = Candidacy { candidate: byzantine, tenure: candidacy.tenure + 1 };
        announce(&mut nodes, claim);
        let leads = nodes[..6]
            .iter()
            .all(|node| node.leader == Some(byzantine) && node.role == Role::Follower);
        printed.attempt_if(leads, "another leads");
    }

    let mut ours = Tried::new("turns are drawn when a round begins; nobody is a candidate");
    let scene = Scene::new(12, 7)?;
    let round = scene.state.round();
    let liar = round.nodes.last().copied();
    for tenure_views in [1, 5] {
        // It leads in the views of its own turn, whatever it says; it wants all the others.
        for view in 1..=35 * u64::from(tenure_views) {
            if tenure_of(view, tenure_views) % 7 != 6 {
                let leads = leader_of(round, view, tenure_views);
                ours.attempt_if(leads == liar, "the turn is another's");
            }
        }
    }
    Ok(attack("A1.2", "stay leader by naming newer tenures", "B8", printed, ours.into()))
}

fn vote(nodes: &mut [Node], candidacy: Candidacy) -> usize {
    let others = nodes.iter_mut().enumerate().filter(|(own, _)| *own != candidacy.candidate);
    others.filter_map(|(_, node)| node.vote(candidacy).then_some(())).count()
}

fn announce(nodes: &mut [Node], candidacy: Candidacy) {
    for (own, node) in nodes.iter_mut().enumerate() {
        if own == candidacy.candidate {
            (node.role, node.tenure) = (Role::Leader, candidacy.tenure);
        } else {
            node.announced(candidacy);
        }
    }
}

/// A3.1. One provider of fifty declares a million meters that do not exist.
fn ghosts(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("self-declared weight and approval votes: all 21 seats to one buyer");
    let mut ballots: Vec<_> =
        (0..50).map(|own| Ballot { meters: 1_000, votes: vec![own, (own + 1) % 29] }).collect();
    // It names its own 21 straw men, with more ghosts than all others have meters.
    ballots[29] = Ballot { meters: 1_000_000, votes: (29..50).collect() };
    let seats = elected(&ballots);
    let bought = seats.iter().filter(|seat| **seat >= 29).count();
    printed.attempt_if(bought > faults(SEATS), "a minority of the seats");

    let mut ours =
        Tried::new("a meter counts when its readings are opened, and a third is the most");
    for ghosts in [0, 10, 100] {
        let seats = elected_with_ghosts(ghosts)?;
        // Providers 5 and 6 want more than the one seat of four that may be theirs.
        let bought = seats.iter().filter(|seat| seat.0 >= 5).count();
        ours.attempt_if(bought > 1, "the seats go to providers with readings");
    }
    Ok(attack("A3.1", "buy the seats with meters that do not exist", "B9", printed, ours.into()))
}

/// A ledger of seven providers that elect four; 5 and 6 register meters that never send anything,
/// and vote for each other.
fn elected_with_ghosts(ghosts: u32) -> Result<Vec<ProviderId>, Broken> {
    let rounds = Rounds { blocks: 4, committee: 4, alternates: 0, tenure_views: 1 };
    let mut scene = Scene::founded(31, 7, "", rounds)?;
    let homes: Result<Vec<_>, _> = (0..5).map(|number| scene.provision(number)).collect();
    let mut homes = homes?;
    let ghosts: Result<Vec<_>, _> =
        (0..ghosts).map(|ghost| scene.provision(7 * ghost + 5 + ghost % 2)).collect();
    let ghosts = ghosts?;
    let all = homes.iter().chain(&ghosts);
    let all = all.map(|home| Transaction::Registration(home.registration.clone()));
    scene.block(at(0, 1), &all.collect::<Vec<_>>())?;
    honest_readings(&mut scene, &mut homes)?;
    if scene.state.round().number != 1 || scene.state.round().weights.len() != 5 {
        return Err(Broken::DoesNotHold("a round with five weights"));
    }
    let votes: Vec<_> = (0..7).map(|voter| ballot(&scene, voter)).collect();
    scene.block(at(2, 0), &votes)?;
    for second in 1..4 {
        scene.block(at(2, second), &[])?;
    }
    Ok(scene.state.round().nodes.iter().map(|(node, _)| *node).collect())
}

/// One slot of the meters that exist: requested and opened in the round's two blocks that are left.
fn honest_readings(scene: &mut Scene, homes: &mut [Home]) -> Result<(), Broken> {
    let mut signed = Vec::new();
    for home in &mut *homes {
        signed.push(home.meter.sign(at(1, 0), &reading(42), &mut scene.rng)?);
    }
    let values = homes.iter().zip(&signed);
    let values = values.map(|(home, signed)| (home.row, signed.message().value));
    let request = scene.requests(0, 1, values);
    scene.block(at(1, 1), &[request])?;
    let items: Vec<_> = homes
        .iter()
        .zip(&signed)
        .map(|(home, signed)| (home.row, home.link(1), signed.message().body.to_vec()))
        .collect();
    let opening = scene.openings(0, 1, &items)?;
    scene.block(at(1, 400), &[opening])?;
    Ok(())
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
    Ok(attack("A3.2", "find honest nodes that disagree on the order", "B9", printed, ours.into()))
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
        let vote = |picks: &Vec<u16>| picks.iter().copied().map(ProviderId).collect();
        round.votes =
            picks.iter().map(|(voter, picks)| (ProviderId(*voter), vote(picks))).collect();
        let rounds = scene.genesis.charter().rounds;
        let nodes = round.elect(scene.state.members(), &rounds).nodes;
        let seats = nodes.iter().filter(|node| liars.contains(&node.0)).count();
        ours.attempt_if(bought(seats), "a minority of the seats");
    }
    let what = "take the seats with a quarter of the providers that vote as one";
    Ok(attack("A3.3", what, "B9", printed, ours.into()))
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Tried,
    ours: Side,
) -> Attack {
    Attack { test, feature: Feature::Algorithms, what, flaw, printed: printed.into(), ours }
}
