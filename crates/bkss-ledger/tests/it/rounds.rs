//! Rounds: votes, elections, handovers from one committee to the next.

use std::{collections::BTreeSet, sync::Arc};

use bkss_ledger::{
    Block, Refusal, Round, Rounds, Transaction, Trust, Vote, accounting_nodes::VoteRefusal,
    execute::TransactionRefusal, genesis::Weighing, leader::leader_of, propose, trust::TrustError,
    verify,
};
use bkss_scheme::{
    Digest, Handover, LedgerTime, ProviderId, certificate::NotFinal, codec, handover::HandoverError,
};

use crate::{
    consortium::{Consortium, Meter, SHORT, at},
    world::World,
};

/// Seven providers keep a ledger in fours.
const ROUNDS: Rounds = Rounds { tenure_views: 3, ..SHORT };

fn world(seed: u64) -> World {
    World::of(Consortium::with(seed, 7, ROUNDS))
}

/// The same, where votes weigh by meters.
fn world_of_meters(seed: u64) -> World {
    World::of(Consortium::with(seed, 7, Rounds { votes: Weighing::Meters, ..ROUNDS }))
}

#[test]
fn votes_elect_and_a_quorum_of_the_old_committee_certifies_the_new() {
    let mut world = world(1);
    let first = world.nodes();
    assert_eq!((first.len(), world.state.round().alternates.len()), (4, 2));
    let mut committees = BTreeSet::from([first]);
    for picks in [[3, 4, 5, 6], [0, 1, 2, 3], [0, 2, 4, 6]] {
        let votes = world.everybody_for(&picks);
        let old = world.state.round().clone();
        let last = world.round(&votes);
        assert_eq!(world.nodes(), picks.into());
        let header = last.header();
        assert_eq!(header.committee, old.committee.digest());
        assert_eq!(header.next_committee, Some(world.state.round().committee.digest()));
        assert_eq!(world.state.round().seed, header.id(), "the next draws come from this block");
        committees.insert(world.nodes());
    }
    assert!(committees.len() >= 3);

    // The file of an offline verifier.
    let trust = world.trust();
    assert_eq!(*trust.committee(), world.state.round().committee);
    assert_eq!(trust.eras().eras.len(), world.handovers().len() + 1);
    assert!(trust.encode() == world.file(), "what was read is written again");
}

#[test]
fn who_cuts_or_forges_handovers_is_not_trusted() {
    let mut world = world(1);
    for picks in [[3, 4, 5, 6], [0, 1, 2, 3], [0, 2, 4, 6]] {
        let votes = world.everybody_for(&picks);
        world.round(&votes);
    }
    let genesis = world.consortium.genesis.encode();
    let file = |handovers: &[&[u8]]| [&[&genesis[..]], handovers].concat().concat();
    let handovers = world.handovers();
    let [one, two, three] = &handovers[..] else { unreachable!() };
    let refused = |parts: &[&[u8]]| Trust::decode(&file(parts)).unwrap_err();

    let missing = refused(&[one, three]);
    let TrustError::Handover { height: 11, source: HandoverError::NotFinal(reason) } = missing
    else {
        unreachable!("{missing}")
    };
    let not_known = matches!(reason, NotFinal::Committee { .. });
    assert!(not_known, "the second committee is not known: {reason}");
    assert_eq!(refused(&[one, two, two]), TrustError::Order { height: 7, newest: 7 });
    assert_eq!(refused(&[two, one]), {
        let decoded: Handover<'_> = codec::decode("handover", two).unwrap();
        let (expected, found) =
            (world.consortium.genesis.committee().digest(), decoded.header.committee);
        let source = HandoverError::NotFinal(NotFinal::Committee { expected, found });
        TrustError::Handover { height: 7, source }
    });
    for position in 0..one.len() {
        let mut altered = one.clone();
        altered[position] ^= 1;
        assert!(Trust::decode(&file(&[&altered])).is_err(), "byte {position} of {}", one.len());
    }
    assert!(Trust::decode(&file(&[&one[..one.len() - 1]])).is_err());
    assert!(Trust::decode(&file(&[one, two, three])).is_ok());
}

#[test]
fn a_vote_is_refused_for_its_reason() {
    use VoteRefusal as Refused;

    let mut world = world(2);
    let cast = world.vote(5, [0, 1]);
    world.block(std::slice::from_ref(&cast));
    let of = |transaction: &Transaction| match transaction {
        Transaction::Vote(vote) => vote.clone(),
        _ => unreachable!(),
    };
    let good = of(&world.vote(6, [0, 1]));
    let forged = Vote { voter: ProviderId(4), ..good.clone() };
    let unsorted = Vote { picks: vec![ProviderId(1), ProviderId(0)], ..good };
    let late = Vote { round: 1, ..of(&world.vote(6, [0, 1])) };
    let mismatch = bkss_scheme::identity::SignatureError::Mismatch;
    for (vote, expected) in [
        (of(&cast), Refused::Second(ProviderId(5))),
        (of(&world.vote(6, [0, 6])), Refused::Itself(ProviderId(6))),
        (of(&world.vote(6, [])), Refused::Count { most: 255, found: 0 }),
        (of(&world.vote(6, 0..256)), Refused::Count { most: 255, found: 256 }),
        (of(&world.vote(6, [40])), Refused::NotPresent(ProviderId(40))),
        (unsorted, Refused::Order),
        (late, Refused::Round { expected: 0, found: 1 }),
        (forged, Refused::Signature(mismatch)),
    ] {
        let time = world.next_time();
        let header = propose(&world.state.view(), time, []).unwrap().block().header().clone();
        let network = world.consortium.genesis.network();
        let block = Block::new(network, header, vec![Transaction::Vote(vote)]);
        match verify(&world.state.view(), block) {
            Err(Refusal::Transaction { reason: TransactionRefusal::Vote(reason), .. }) => {
                assert_eq!(reason, expected);
            }
            other => unreachable!("{other:?}"),
        }
    }
}

#[test]
fn the_absent_lose_their_seats_to_alternates_that_are_there() {
    let mut world = world(3);
    let votes = world.everybody_for(&[0, 1, 2, 3]);
    world.round(&votes);
    // Number 2 is silent in this round; all others, the alternates among them, vote for it.
    let votes: Vec<_> = world
        .everybody_for(&[0, 1, 2, 3])
        .into_iter()
        .filter(|vote| !matches!(vote, Transaction::Vote(vote) if vote.voter.0 == 2))
        .collect();
    world.round(&votes);
    let nodes = world.nodes();
    assert!(!nodes.contains(&2), "{nodes:?}");
    assert_eq!(nodes.len(), 4);
    assert!([0, 1, 3].iter().all(|node| nodes.contains(node)), "{nodes:?}");
    // Where nobody is there, nobody is replaced: a ledger that was down goes on as it was.
    let before = world.nodes();
    world.round(&[]);
    assert_eq!(world.nodes(), before);
}

/// Every one of these meters has two openings accepted in one round.
fn open_readings(world: &mut World, meters: &[Meter]) {
    world.block(&meters.iter().map(Meter::registers).collect::<Vec<_>>());
    world.round(&[]);
    let signed: Vec<Vec<_>> =
        [1, 2].map(|index| meters.iter().map(|meter| meter.sign(index, 5)).collect()).into();
    for (index, signed) in (1..).zip(&signed) {
        let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
        let requests = world.consortium.requests(0, index, &values);
        world.block_at(at(index, 1), &[requests]);
    }
    world.block_at(at(3, 900), &[]);
    world.round(&[]);
    let openings = signed.iter().map(|signed| {
        let items: Vec<_> = (0..).zip(signed).collect();
        world.consortium.openings(0, &items)
    });
    let openings: Vec<_> = openings.collect();
    let block = world.block(&openings);
    assert_eq!(block.verified().openings().len(), 2 * meters.len());
    world.round(&[]);
}

#[test]
fn meters_weigh_and_no_owner_takes_all_seats() {
    let mut world = world_of_meters(4);
    // Provider 6 owns 12 meters, the others one each.
    let mut meters: Vec<_> = (0..7).map(|number| world.consortium.meter(number)).collect();
    meters.extend((0..11).map(|k| world.consortium.meter(13 + 7 * k)));
    assert!(meters[7..].iter().all(|meter| meter.registration.message.owner == ProviderId(6)));
    open_readings(&mut world, &meters);
    let weights: Vec<_> = world.state.round().weights.iter().map(|(id, w)| (id.0, *w)).collect();
    assert_eq!(weights, [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 12)]);

    // Capped to a third of all, 6 weighs 3 and splits it over four picks; six others give 1 each.
    let mut votes: Vec<_> = (0..6).map(|voter| world.vote(voter, [(voter + 1) % 3])).collect();
    votes.push(world.vote(6, [2, 3, 4, 5]));
    world.round(&votes);
    let nodes = world.nodes();
    assert!(
        [0, 1, 2].iter().all(|node| nodes.contains(node)),
        "two votes of the others: {nodes:?}"
    );
    assert_eq!(nodes.iter().filter(|node| [3, 4, 5].contains(*node)).count(), 1, "{nodes:?}");
}

#[test]
fn ghost_meters_have_no_weight() {
    let mut world = world_of_meters(5);
    let ghosts: Vec<_> = (0..20).map(|k| world.consortium.meter(6 + 7 * k)).collect();
    world.block(&ghosts.iter().map(Meter::registers).collect::<Vec<_>>());
    world.round(&[]);
    assert!(world.state.round().weights.is_empty(), "registered, but nothing opened");
}

#[test]
fn leaders_take_turns_of_a_tenure_in_the_drawn_order() {
    let world = world(6);
    let round: &Round = world.state.round();
    let leaders: Vec<_> =
        (1..=24).map(|view| leader_of(round, view, ROUNDS.tenure_views).unwrap().0.0).collect();
    for (tenure, views) in leaders.chunks(3).enumerate() {
        assert!(views.iter().all(|leader| *leader == views[0]), "tenure {tenure}");
    }
    let once: BTreeSet<_> = leaders.iter().copied().collect();
    assert_eq!(once, world.nodes(), "everybody has its turn");
}

#[test]
fn turns_are_drawn_anew_for_each_round() {
    let mut world = world(6);
    let mut turns = BTreeSet::new();
    for _ in 0..6 {
        let votes = world.everybody_for(&[0, 1, 2, 3]);
        world.round(&votes);
        turns.insert(world.state.round().nodes.iter().map(|(id, _)| id.0).collect::<Vec<_>>());
    }
    assert!(turns.len() > 2, "{turns:?}");
    assert!(turns.iter().any(|turns| !turns.is_sorted()), "{turns:?}");
}

#[test]
fn a_false_election_or_seal_is_refused_with_what_was_expected() {
    let mut world = world(7);
    world.round(&[]);
    let votes = world.everybody_for(&[0, 1, 2, 3]);
    world.block(&votes);
    world.block(&[]);
    world.block(&[]);
    let time = world.next_time();
    let honest = propose(&world.state.view(), time, []).unwrap();
    let network = world.consortium.genesis.network();
    let header = honest.block().header().clone();
    assert!(header.next_committee.is_some() && header.state.is_some(), "{header:?}");
    let false_digest = Some(Digest([9; 32]));
    for (what, tampered) in [
        ("to committee", bkss_scheme::Header { next_committee: None, ..header.clone() }),
        ("to committee", bkss_scheme::Header { next_committee: false_digest, ..header.clone() }),
        ("state", bkss_scheme::Header { state: false_digest, ..header.clone() }),
        ("state", bkss_scheme::Header { state: None, ..header.clone() }),
        ("to members", bkss_scheme::Header { members: false_digest, ..header }),
    ] {
        let refusal = verify(&world.state.view(), Block::new(network, tampered, vec![]));
        let named = match refusal {
            Err(Refusal::Handover { height: 7, what, .. }) => what,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(named, what);
    }
    // The end of a round cannot be built before the end of the round before is final.
    let mut waiting = World::of(Consortium::with(8, 7, ROUNDS));
    waiting.round(&[]);
    let mut blocks: Vec<Arc<bkss_ledger::Verified>> = Vec::new();
    let refusal = loop {
        assert!(blocks.len() < 20, "a round ends without the seal of the one before");
        let view = waiting.state.view_with(blocks.iter().map(Arc::as_ref)).unwrap();
        match propose(&view, LedgerTime(view.head().time.0 + 1), []) {
            Ok(verified) => blocks.push(verified.into()),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal, blocks.len()), (Refusal::NotSealed { height: 11 }, 7));
}
