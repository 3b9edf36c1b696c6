//! F8: no single party can stop the ledger, and no minority can split it.

use bkss_scheme::certificate::NotFinal;

use super::{Attack, Effort, Feature, Side, Story, Tried, printed::consensus::commits};
use crate::{
    Broken,
    scene::Scene,
    world::{Failure, stories},
};

pub(super) const STORIES: [Story; 4] = [one_process, byzantine_minority, split_votes, one_crashed];

/// The longest time without a block that stopping one of four may cost, milliseconds: two turns of
/// a leader that is gone, and the wait of the next one for something to say.
const BOUND_MS: u64 = 4000;

/// T8.1. Every single process is stopped in turn; the SDI is not there at all.
fn one_process(_: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("whole nodes, each stopped for 3.5 s and started again");
    ours.attempt(match stories::each_stopped_in_turn() {
        Ok(world) if world.longest_pause_ms <= BOUND_MS => {
            Err("blocks go on and every reading becomes final".to_owned())
        }
        Ok(_) => Ok(()),
        Err(failure) => stopped(failure)?,
    });
    Ok(attack("T8.1", "stop any one process", "", NO_PRINTED, ours.into()))
}

/// T8.2. Whole Byzantine nodes.
fn byzantine_minority(_: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("whole nodes, one of four lies all the time in one way");
    for world in stories::byzantine() {
        ours.attempt(match world {
            Ok(_) => Err("one chain, and every reading becomes final".to_owned()),
            Err(failure) => stopped(failure)?,
        });
    }
    let what = "equivocate, vote twice, withhold, lie about time";
    Ok(attack("T8.2", what, "", NO_PRINTED, ours.into()))
}

/// A rule that does not hold is a success of the adversary, anything else an error of the world.
fn stopped(failure: Failure) -> Result<Result<(), String>, Broken> {
    match failure {
        Failure::Violation(_) => Ok(Ok(())),
        Failure::Broken(broken) => Err(broken),
        Failure::Simulation(_) | Failure::Panic(_) => Err(Broken::DoesNotHold("the world")),
    }
}

/// T8.3. 21 members, 6 of them liars: they vote for two blocks of one height, and the honest 15 are
/// split between them.
fn split_votes(_: &Effort) -> Result<Attack, Broken> {
    let printed = Side::NotRun("V > 2f + 1 of 20 followers is 15 of 21 with the leader: safe");
    let mut ours = Tried::new("real votes under real keys, every split: never two certificates");
    let scene = Scene::new(83, 21)?;
    let blocks = [at_height(&scene, 1)?, at_height(&scene, 2)?];
    let liars: Vec<_> = (15..21).collect();
    for first in 0..=15_usize {
        let halves = [(0..first), (first..15)];
        let certified = blocks.iter().zip(halves).map(|(header, honest)| {
            let voters: Vec<_> = honest.chain(liars.clone()).collect();
            let votes = scene.votes_of(&voters, scene.network(), header.id());
            scene.certified(&votes.finality(), header).map(drop)
        });
        let certified: Vec<_> = certified.collect();
        ours.attempt(match certified.as_slice() {
            [Ok(()), Ok(())] => Ok(()),
            _ => Err("at most one block has 15 votes"),
        });
    }
    Ok(attack(
        "T8.3",
        "certify two blocks of one height with 6 liars of 21",
        "B6",
        printed,
        ours.into(),
    ))
}

/// T8.4. Four members, one of them is off.
fn one_crashed(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("V > 2f + 1 over three followers asks for four of them");
    for silent in 0..4 {
        let stops = !commits(3_usize.saturating_sub(silent), 4);
        printed.attempt_if(stops, "commits");
    }

    let mut ours = Tried::new("three of four certify, whoever is off");
    let scene = Scene::new(84, 4)?;
    let header = at_height(&scene, 1)?;
    for off in 0..4 {
        let voters: Vec<_> = (0..4).filter(|member| *member != off).collect();
        let votes = scene.votes_of(&voters, scene.network(), header.id());
        let verdict: Result<_, NotFinal> = scene.certified(&votes.finality(), &header);
        ours.attempt_if(verdict.is_err(), "the block is certified");
    }
    Ok(attack("T8.4", "stop four members by switching one off", "B5", printed.into(), ours.into()))
}

fn at_height(scene: &Scene, second: u64) -> Result<bkss_scheme::Header, Broken> {
    Ok(scene.header(crate::scene::at(1, second))?)
}

const NO_PRINTED: Side = Side::NotRun("it is about what must keep working, not about a hole");

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Side,
    ours: Side,
) -> Attack {
    Attack { test, feature: Feature::F8, what, flaw, printed, ours }
}
