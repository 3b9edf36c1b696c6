//! F3: what was said once counts once.

use bkss_ledger::{State, Transaction, verify};

use super::{
    Attack, Effort, Feature, Story, Tried,
    f1_impersonation::value_of,
    opened,
    printed::{
        consensus::{Block as PrintedBlock, Follower},
        encryption::{KeyPair, encrypt},
        scheme,
        validation::validate,
    },
    requested,
};
use crate::{
    Broken,
    scene::{LONG_ROUND, Scene, WINDOW_S, at, reading},
};

pub(super) const STORIES: [Story; 2] = [again, foreign_body];

const SDI: u16 = 1;
const T0: u64 = 100;

fn printed_transaction(seed: &[u8], message: &[u8]) -> scheme::Transaction {
    let meter = scheme::Meter { id: 7, chain: scheme::Chain::new(seed, 16), t0: T0, sdi: SDI };
    let stamp = scheme::stamp(&meter.request(T0 + 2, message), T0 + 2);
    meter.release(T0 + 2, stamp, encrypt(&KeyPair::new(1).public(), 2, message))
}

/// T3.1. Everything that was ever sent is sent again: at once, later, after a restart, elsewhere.
fn again(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("the same transaction passes again in every block: billed twice");
    let transaction = printed_transaction(b"alice", b"42 kWh");
    let mut follower = Follower { sdi: SDI, ..Follower::default() };
    for height in 0..4 {
        let block = PrintedBlock { height, transactions: vec![transaction.clone()] };
        let first = height == 0;
        if follower.validated(&block) {
            follower.committed(&block);
        }
        if !first {
            printed.attempt_if(follower.chain.len() > height, "refused");
        }
    }

    let mut ours = Tried::new("in the same slot, later slots, after a restart, on another network");
    let (mut scene, mut homes) = Scene::with_meters(31, 1)?;
    let signed = homes[0].meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
    let request = scene.requests(0, 2, [(0, signed.message().value)]);
    scene.block(at(2, 1), std::slice::from_ref(&request))?;
    ours.attempt(requested(scene.offered(at(2, 2), std::slice::from_ref(&request))));
    scene.block(at(2, WINDOW_S.into()), &[])?;
    scene.open(&mut homes[0], 2, &signed)?;
    let body = signed.message().body.to_vec();
    let opening = scene.openings(0, 2, &[(0, homes[0].link(2), body)])?;
    for time in [at(2, 500), at(2, 899), at(3, 1), at(3, 400), at(9, 1)] {
        ours.attempt(requested(scene.offered(time, std::slice::from_ref(&request))));
        ours.attempt(opened(scene.offered(time, std::slice::from_ref(&opening))));
    }
    let registration = Transaction::Registration(homes[0].registration.clone());
    ours.attempt(scene.offered(at(3, 1), std::slice::from_ref(&registration)).map(drop));
    restarted(&scene, &mut ours, &[request.clone(), opening.clone()])?;
    other_network(&mut ours, &[request, opening, registration])?;
    Ok(attack("T3.1", "send everything again", "A10", printed, ours))
}

/// A provider that starts again from its stored blocks knows what it knew.
fn restarted(scene: &Scene, ours: &mut Tried, again: &[Transaction]) -> Result<(), Broken> {
    let mut state = State::new(scene.genesis.clone());
    for block in &scene.blocks {
        state.apply(block.verified())?;
        // The block itself, once more.
        let repeated = block.verified().block().clone();
        let verdict = verify(&state.view(), repeated);
        ours.attempt(verdict.map(drop).map_err(|_| "a block of this height is there"));
    }
    for transaction in again {
        let transactions = [transaction.clone()];
        let proposed = bkss_ledger::propose(&state.view(), at(4, 1), transactions)?;
        let took = !proposed.requests().is_empty() || !proposed.openings().is_empty();
        ours.attempt_if(took, "contributes nothing after a restart");
    }
    Ok(())
}

/// Providers that run a second network with the same keys take none of it there.
fn other_network(ours: &mut Tried, again: &[Transaction]) -> Result<(), Broken> {
    let other = Scene::founded(31, 4, "other", LONG_ROUND)?;
    for transaction in again {
        let verdict = other.offered(at(0, 1), std::slice::from_ref(transaction));
        ours.attempt(verdict.map(drop));
    }
    Ok(())
}

/// T3.2. Bob's meter is given Alice's sealed reading.
fn foreign_body(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("En(m) belongs to no meter in particular");
    let alice = printed_transaction(b"alice", b"42 kWh");
    let mut bob = printed_transaction(b"bob", b"99 kWh");
    bob.encrypted = alice.encrypted;
    printed.attempt(validate(&bob, SDI).map_err(|invalid| format!("{invalid:?}")));

    let mut ours = Tried::new("p contains the meter's registration and the slot");
    let (mut scene, mut homes) = Scene::with_meters(33, 2)?;
    let alice = homes[0].meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
    let bob = homes[1].meter.sign(at(2, 0), &reading(99), &mut scene.rng)?;
    let values = [(0, alice.message().value), (1, bob.message().value)];
    let request = scene.requests(0, 2, values);
    scene.block(at(2, 1), &[request])?;
    let items = [(1, homes[1].link(2), alice.message().body.to_vec())];
    let opening = scene.openings(3, 2, &items)?;
    ours.attempt(opened(scene.offered(at(2, WINDOW_S.into()), &[opening])));
    // Not even Alice's own link opens it for Bob.
    let items = [(1, homes[0].link(2), alice.message().body.to_vec())];
    let opening = scene.openings(3, 2, &items)?;
    ours.attempt(opened(scene.offered(at(2, WINDOW_S.into()), &[opening])));
    let same = value_of(&homes[0], 2, alice.message().body, &homes[0].link(2))?
        == value_of(&homes[1], 2, alice.message().body, &homes[0].link(2))?;
    ours.attempt_if(same, "q differs from meter to meter");
    Ok(attack("T3.2", "give one meter's sealed reading to another", "A4", printed, ours))
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Tried,
    ours: Tried,
) -> Attack {
    let feature = Feature::F3;
    Attack { test, feature, what, flaw, printed: printed.into(), ours: ours.into() }
}
