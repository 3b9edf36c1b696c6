//! Whole worlds, short ones.

use super::{faults::BadDisks, *};

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
