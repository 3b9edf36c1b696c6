//! Worlds in which one thing goes wrong, for the attacks that need whole nodes.

use super::{
    Failure, Options, Summary,
    deed::Deed,
    faults::{Episode, Fault},
    plan::Plan,
    run_plan,
};

/// Small worlds of four.
const SMALL: Options =
    Options { providers: 4, committee: 4, round_blocks: 20, meters: 2, slots: 5 };
/// Blocks of a round in them.
pub(crate) const ROUND_BLOCKS: u64 = SMALL.round_blocks as u64;

/// Nothing goes wrong (A1.1: the leader is there).
pub(crate) fn calm() -> Result<Summary, Failure> {
    run_plan(1, &SMALL, Plan::calm(&SMALL))
}

/// Each provider, and its gateway, is stopped in turn and started again (T8.1).
pub(crate) fn each_stopped_in_turn() -> Result<Summary, Failure> {
    let mut plan = Plan::calm(&SMALL);
    for place in 0..usize::from(SMALL.providers) {
        let from = 4000 + 5000 * place as u64;
        let fault = Fault::Dead(place);
        plan.episodes.push(Episode { from, to: from + 3500, fault });
    }
    run_plan(81, &SMALL, plan)
}

/// One of four does one thing that it must not, all the time (T8.2).
pub(crate) fn byzantine() -> impl Iterator<Item = Result<Summary, Failure>> {
    let deeds = [
        Deed::Equivocates,
        Deed::VotesTwice,
        Deed::WithholdsBlock,
        Deed::WithholdsBodies,
        Deed::TimeAhead,
        Deed::TimeBack,
    ];
    deeds.into_iter().enumerate().map(|(place, deed)| {
        let mut plan = Plan::calm(&SMALL);
        plan.byzantine.push((place % 4, vec![deed]));
        run_plan(82, &SMALL, plan)
    })
}

/// A leader is gone (A1.1).
pub(crate) fn one_leader_gone() -> Result<Summary, Failure> {
    let mut plan = Plan::calm(&SMALL);
    plan.byzantine.push((1, vec![Deed::Silent]));
    run_plan(11, &SMALL, plan)
}
