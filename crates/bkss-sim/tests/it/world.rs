//! Small worlds of two hundred seeds: the same that `bkss sim` runs.

use std::{sync::atomic::AtomicBool, thread};

use bkss_sim::world::{Options, Tally, campaign};

const SMALL: Options =
    Options { providers: 4, committee: 4, round_blocks: 16, meters: 3, slots: 4 };

#[test]
fn two_hundred_worlds_keep_to_their_rules() {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut tally = Tally::from(1);
    campaign(&SMALL, 201, jobs, &AtomicBool::new(false), &mut tally, &|_, _, _| {});
    assert!(tally.failed.is_empty(), "{SMALL:?}: {:#?}", tally.failed);
    assert_eq!(tally.worlds, 200);
    // Most of them were worth something: liars at work, and readings final.
    assert!(tally.byzantine > 50 && tally.openings > 200, "{tally:?}");
}
