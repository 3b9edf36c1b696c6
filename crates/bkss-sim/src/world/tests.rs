//! Whole worlds, short ones.

use super::{
    deed::Deed,
    events::{By, Image, Recall, Reform, Renewal},
    faults::{BadDisks, Episode, Fault},
    *,
};

const SMALL: Options =
    Options { providers: 4, committee: 4, round_blocks: 20, meters: 3, slots: 3 };

#[test]
fn a_calm_world_ends_with_every_reading_final() {
    let summary = run_plan(1, &SMALL, Plan::calm(&SMALL)).unwrap();
    assert!(summary.openings >= 3, "{summary:?}");
}

#[test]
fn the_same_seed_is_the_same_world_and_another_is_not() {
    let one = run(7, &SMALL).unwrap();
    assert_eq!(one, run(7, &SMALL).unwrap());
    assert_ne!(one.digest, run(8, &SMALL).unwrap().digest);
}

/// What a provider says it has on disk, it has: also where some of what it writes fails.
#[test]
fn what_was_accepted_survives_disks_that_fail() {
    for (seed, of_thousand) in [(1, 2), (2, 20), (3, 500)] {
        let mut plan = Plan::calm(&SMALL);
        plan.bad_disks = Some(BadDisks { from: 5000, to: 9000, of_thousand });
        plan.power_cuts.push(9000);
        let summary = run_plan(seed, &SMALL, plan).unwrap();
        assert!(summary.openings >= 3, "seed {seed}: {summary:?}");
    }
}

/// One batch of openings without bodies, then silence: blocks go on, and every reading is final.
#[test]
fn batches_without_bodies_stop_nothing() {
    for deeds in [vec![Deed::BareBatches], vec![Deed::BareBatches, Deed::Silent]] {
        let mut plan = Plan::calm(&SMALL);
        plan.byzantine.push((2, deeds.clone()));
        let summary = run_plan(21, &SMALL, plan).unwrap();
        assert!(summary.openings >= 3, "{deeds:?}: {summary:?}");
        assert!(summary.longest_pause_ms < 6000, "{deeds:?}: {summary:?}");
    }
}

/// Links that somebody has invented are walked once: who signs them is passed over for the round.
#[test]
fn invented_links_cost_little_and_stop_nothing() {
    let options = Options { meters: 8, slots: 6, ..SMALL };
    let mut plan = Plan::calm(&options);
    plan.byzantine.push((1, vec![Deed::InventsLinks]));
    let summary = run_plan(22, &options, plan).unwrap();
    let rounds = summary.height / u64::from(options.round_blocks) + 1;
    assert!(summary.invalid_batches > 0, "{summary:?}");
    // Those that had arrived before the first was looked at, in each round.
    let most = u64::from(options.meters) * rounds;
    assert!(summary.invalid_batches <= most, "{summary:?}, {rounds} rounds");
    assert!(summary.openings >= 8, "{summary:?}");
}

/// A flood of batches that come to nothing takes nobody's room.
#[test]
fn a_flood_of_batches_stops_nothing() {
    let mut plan = Plan::calm(&SMALL);
    plan.byzantine.push((3, vec![Deed::Floods, Deed::Babbles]));
    let summary = run_plan(23, &SMALL, plan).unwrap();
    assert!(summary.openings >= 3, "{summary:?}");
}

/// A node whose disk is put back to an image of an earlier round follows without voting in the rounds
/// that have begun since, and casts no vote twice.
#[test]
fn an_image_of_an_earlier_round_is_recognised() {
    let options = Options { round_blocks: 12, slots: 12, ..SMALL };
    for seed in 1..4 {
        let mut plan = Plan::calm(&options);
        let image = Image { place: 2, taken: 5000, back: 40_000, in_its_round: false };
        plan.events.images.push(image);
        let summary = run_plan(seed, &options, plan).unwrap();
        assert_eq!(summary.restored, 1, "seed {seed}: {summary:?}");
    }
}

/// While it catches up, and before it has heard how far the others are, it may vote again in the round
/// of the image, which is over for everybody else.
#[test]
fn an_image_of_an_earlier_round_votes_again_in_its_own() {
    let options = Options { round_blocks: 12, slots: 12, ..SMALL };
    let votes_again = |seed: &u64| {
        let mut plan = Plan::calm(&options);
        let taken = 5000 + 210 * seed;
        plan.events.images.push(Image { place: 2, taken, back: 40_000, in_its_round: true });
        let alone = Fault::Clogged(2);
        plan.episodes.push(Episode { from: 40_000, to: 46_000, fault: alone });
        matches!(
            run_plan(*seed, &options, plan),
            Err(Failure::Violation(Violation::SecondVote { provider: 2, round: 0, .. }))
        )
    };
    assert!((1..8).filter(votes_again).count() > 0);
}

/// One of the round that is under way is not: nothing tells it from the disk of a node that was off
/// for a while. This is the limit that the documents state.
#[test]
fn an_image_of_the_same_round_votes_twice() {
    let options = Options { round_blocks: 400, slots: 12, ..SMALL };
    for seed in 2..4 {
        let mut plan = Plan::calm(&options);
        let image = Image { place: 2, taken: 5000 + 210 * seed, back: 30_000, in_its_round: true };
        plan.events.images.push(image);
        // It does not hear at once how far the others are.
        let alone = Fault::Clogged(2);
        plan.episodes.push(Episode { from: 30_000, to: 40_000, fault: alone });
        let world = run_plan(seed, &options, plan);
        let Err(Failure::Violation(Violation::SecondVote { provider, .. })) = world else {
            panic!("seed {seed}: {world:?}");
        };
        assert_eq!(provider, 2, "seed {seed}");
    }
}

/// Members come, go, and take new keys, and every reading becomes final.
#[test]
fn members_come_and_go_while_meters_report() {
    let options = Options { providers: 6, committee: 6, round_blocks: 12, slots: 10, meters: 4 };
    let mut plan = Plan::calm(&options);
    plan.events.reforms = vec![
        (3000, Reform::Join(6)),
        (5000, Reform::VoteKey(1)),
        (8000, Reform::Leave(2)),
        (9000, Reform::SealingKey(3)),
        (12_000, Reform::Expel(5)),
        (14_000, Reform::Address(0)),
    ];
    plan.skews.push(0);
    let summary = run_plan(31, &options, plan).unwrap();
    assert_eq!(summary.members, 5, "{summary:?}");
    assert!(summary.openings >= 30, "{summary:?}");
}

/// Meters get their next chains and are revoked, also at once.
#[test]
fn chains_follow_each_other_and_revoked_meters_are_over() {
    let options = Options { meters: 4, slots: 10, ..SMALL };
    let mut plan = Plan::calm(&options);
    let renewal = |at, meter, begins| Renewal { at, meter, begins };
    plan.events.renewals = vec![renewal(0, 0, 3), renewal(9000, 1, 5), renewal(14_000, 2, 6)];
    let recall = |at, meter, by| Recall { at, meter, by };
    plan.events.recalls = vec![recall(14_000, 2, By::Both), recall(20_000, 3, By::Secret)];
    let summary = run_plan(32, &options, plan).unwrap();
    assert_eq!(summary.revoked, 2, "{summary:?}");
    assert!(summary.chains >= 6, "{summary:?}");
}
