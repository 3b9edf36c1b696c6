//! Whole worlds, short ones.

use super::*;

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
