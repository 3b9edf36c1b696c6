//! Algorithms 1 and 2 as printed: what one liar does with them.

use bkss_ledger::leader::{leader_of, tenure_of};
use bkss_scheme::{Committee, certificate::VoteKey};

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    printed::{
        consensus::{Block, Follower, commits, faults},
        election::{Candidacy, Node, Role, elects},
        scheme,
    },
};
use crate::{
    Broken,
    scene::{Scene, at},
    world::{Failure, Summary, stories},
};

pub(super) const STORIES: [Story; 5] = [never, two_quorums, one_liar, timer, always_leader];

/// A2.1. As many nodes are silent as may fail, and no block is committed: of four nodes not even with
/// all of them.
fn never(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new(
        "V > 2f + 1 over followers, the leader not counted: never with n = 3f + 1 or 3f + 2",
    );
    for nodes in (4..=31).filter(|nodes| nodes % 3 != 0) {
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

/// A2.2. Two quorums without a common honest member, for committees of every size.
fn two_quorums(_: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("floor(2n/3) + 1: two quorums always share an honest member");
    for nodes in 4..=31_u8 {
        let size = usize::from(nodes);
        // Two quorums of k share at least 2k - n members; if all of those may lie, both can stand.
        let forks = |quorum: usize| 2 * quorum <= size + faults(size);
        ours.attempt_if(forks(committee(nodes)?.quorum()), "an honest member is in both");
    }
    let printed = Side::NotRun(
        "V > 2f + 1 over followers is 2f + 2 of them and the leader: safe for every n",
    );
    let what = "make two quorums without a common honest member";
    Ok(Attack {
        test: "A2.2",
        feature: Feature::Algorithms,
        what,
        flaw: "B6",
        printed,
        ours: ours.into(),
    })
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
        let verdict = scene.certified(&votes.finality(), &header);
        ours.attempt(verdict.map(drop));
    }
    Ok(attack("A2.3", "tell two halves of the followers two blocks", "B3", printed, ours.into()))
}

/// A1.1. A leader that is there is passed over, or one that is gone is waited for.
fn timer(_: &Effort) -> Result<Attack, Broken> {
    let mut ours =
        Tried::new("whole nodes: while leaders are there views end at beginnings of rounds alone");
    let story = |world: Result<Summary, Failure>| match world {
        // The first leader of a round may speak before all others have begun it.
        Ok(world) => Ok((world.view_changes, world.height / stories::ROUND_BLOCKS + 1)),
        Err(Failure::Broken(broken)) => Err(broken),
        Err(_) => Err(Broken::DoesNotHold("the world")),
    };
    let (calm, gone) = (story(stories::calm())?, story(stories::one_leader_gone())?);
    ours.attempt_if(calm.0 > calm.1, "nobody stands while leaders are there");
    ours.attempt_if(gone.0 <= gone.1, "a leader that is gone is passed over");
    let printed =
        Side::NotRun("as printed a node stands once its timer has run out, which is right");
    let what = "pass over a leader that is there, or wait for one that is gone";
    Ok(Attack {
        test: "A1.1",
        feature: Feature::Algorithms,
        what,
        flaw: "B8",
        printed,
        ours: ours.into(),
    })
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

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Tried,
    ours: Side,
) -> Attack {
    Attack { test, feature: Feature::Algorithms, what, flaw, printed: printed.into(), ours }
}
