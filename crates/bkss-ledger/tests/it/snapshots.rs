//! Snapshots: the state comes back, and only the certified one.

use bkss_ledger::{
    Change, Refusal, Rounds, Snapshot, State, Transaction, Vote,
    change::Body as ChangeBody,
    genesis::Weighing,
    propose,
    snapshot::{self, SnapshotError},
    verify,
};
use bkss_scheme::{Certified, Era, Eras, Header, LedgerTime, ProviderId};

use crate::{
    blocks::block,
    consortium::{Consortium, FIRST, Meter, SHORT, at, slots_from},
    endings::{evidence, notarize},
};

/// A state at the end of the first round, with everything in it that a state can hold there.
fn full(seed: u64) -> (Consortium, State) {
    let rounds = Rounds { votes: Weighing::Meters, ..SHORT };
    let mut consortium = Consortium::with(seed, 6, rounds);
    let mut state = consortium.state();
    let meters: Vec<_> = (0..4).map(|number| consortium.meter(number)).collect();
    let next = consortium.next_chain(&meters[0], slots_from(FIRST.0 + 5));
    let network = consortium.genesis.network();
    let vote = Vote::sign(network, ProviderId(0), &consortium.keys[0], 0, vec![ProviderId(1)]);
    let to = ChangeBody::Address(ProviderId(2), "here:1".try_into().unwrap());
    let mut change = Change::new(to, 9);
    change.sign(network, &consortium.keys[2]);
    let others = [
        Transaction::Vote(vote),
        Transaction::Change(change),
        Transaction::Evidence(evidence(&consortium, [notarize(1, 16), notarize(2, 16)])),
    ];
    block(&mut state, at(0, 1), meters.iter().map(Meter::registers).chain(others));
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 7)).collect();
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    let requests = consortium.requests(2, 1, &values);
    let revocation = consortium.revocation(&state.view().chain(3).unwrap().clone());
    block(&mut state, at(1, 1), [requests, revocation, next.registers()]);
    block(&mut state, at(1, 300), [consortium.openings(2, &[(1, &signed[1])])]);
    let round = state.round();
    assert_eq!((round.number, round.weights.len(), round.changes.1.len()), (1, 1, 1));
    assert_eq!((state.chain_count(), state.offences().len()), (5, 1));
    (consortium, state)
}

fn bytes(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(state, &mut bytes).unwrap();
    bytes
}

/// A certified header of the end of the next round.
fn certified(consortium: &Consortium, state: &State) -> (Certified, Header) {
    let mut state = state.clone();
    let era = Era::new(1, state.round().committee.clone());
    let last = loop {
        let time = LedgerTime(state.head().time.0 + 1);
        let verified = propose(&state.view(), time, []).unwrap();
        state.apply(&verified).unwrap();
        if state.round().number == 2 {
            break consortium.finalize_in(1, &era.committee, verified);
        }
    };
    let (header, finality) = (last.header().clone(), last.finality().unwrap());
    let (network, rounds) = (consortium.genesis.network(), SHORT.length());
    let eras = Eras { network, rounds, eras: std::slice::from_ref(&era) };
    (eras.certified(&finality, &header).unwrap(), header)
}

#[test]
fn a_state_comes_back_and_goes_on_as_if_it_had_never_left() {
    let (consortium, mut state) = full(1);
    let bytes = bytes(&mut state);
    let snapshot = Snapshot::read(&consortium.genesis, &bytes[..]).unwrap();
    assert_eq!((snapshot.head(), snapshot.digest()), (state.head(), state.seal()));
    let mut back = snapshot.of_own_disk();
    let mut again = Vec::new();
    snapshot::write(&mut back, &mut again).unwrap();
    assert_eq!(again, bytes);
    for _ in 0..12 {
        let time = LedgerTime(state.head().time.0 + 1);
        let verified = propose(&state.view(), time, []).unwrap();
        let same = verify(&back.view(), verified.block().clone()).unwrap();
        state.apply(&verified).unwrap();
        back.apply(&same).unwrap();
    }
    assert_eq!(state.seal(), back.seal());
}

#[test]
fn pages_are_sealed_as_if_all_were_hashed_again() {
    let (mut consortium, mut state) = full(2);
    let before = state.seal();
    let schedule = slots_from(FIRST.0 + 9);
    let meter = consortium.meter_with(9, |message| message.schedule = schedule);
    block(&mut state, at(1, 400), [meter.registers()]);
    let registered = state.seal();
    assert_ne!(registered, before);
    let request = consortium.requests(0, 2, &[(2, bkss_scheme::Digest([1; 32]))]);
    assert_eq!(block(&mut state, at(2, 1), [request]).requests().len(), 1);
    let digest = state.seal();
    let fresh = Snapshot::read(&consortium.genesis, &bytes(&mut state)[..]).unwrap();
    assert_eq!(fresh.digest(), digest);
    let (_, mut other) = full(3);
    assert_ne!(other.seal(), digest);
}

#[test]
fn a_round_ends_only_once_the_end_before_it_is_sealed_and_with_its_own_seal() {
    let (_, mut state) = full(4);
    let next = |state: &State| propose(&state.view(), LedgerTime(state.head().time.0 + 1), []);
    let mut stale = state.sealing();
    let stale = loop {
        if let Some(sealed) = stale.step(&state) {
            break sealed;
        }
    };
    while !state.apply_unsealed(&next(&state).unwrap()).unwrap() {}
    // It goes on, up to the last block of the round.
    let mut open = state.clone();
    let refusal = loop {
        match next(&open) {
            Ok(verified) => assert!(!open.apply_unsealed(&verified).unwrap(), "no end without it"),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::NotSealed { height: open.head().height + 1 });
    assert_eq!(open.head().height + 1 - state.head().height, u64::from(SHORT.blocks));
    // The seal of an earlier state is not taken for it.
    let expected = state.clone().seal();
    let mut sealed = state.clone();
    sealed.keep_sealed(stale);
    assert_eq!(sealed.view().sealed(), None);
    let mut sealing = state.sealing();
    let sealed = loop {
        if let Some(sealed) = sealing.step(&state) {
            break sealed;
        }
    };
    state.keep_sealed(sealed);
    assert_eq!(state.view().sealed(), Some(expected));
    let last = loop {
        let verified = next(&state).unwrap();
        if state.apply_unsealed(&verified).unwrap() {
            break verified;
        }
    };
    assert_eq!(last.block().header().state, Some(expected));
}

#[test]
fn every_altered_or_missing_byte_of_a_snapshot_is_found() {
    let (consortium, mut state) = full(4);
    let bytes = bytes(&mut state);
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1;
        let read = Snapshot::read(&consortium.genesis, &altered[..]);
        assert!(read.is_err(), "byte {position} of {}", bytes.len());
    }
    for length in (0..bytes.len()).step_by(7) {
        let error = Snapshot::read(&consortium.genesis, &bytes[..length]).unwrap_err();
        assert!(matches!(error, SnapshotError::Io { .. }), "cut at {length}: {error}");
    }
    let stranger = Consortium::with(9, 6, SHORT);
    let error = Snapshot::read(&stranger.genesis, &bytes[..]).unwrap_err();
    assert!(matches!(error, SnapshotError::Network { .. }), "{error}");
}

#[test]
fn a_snapshot_of_others_counts_against_a_certified_header_only() {
    let (consortium, mut state) = full(5);
    let (header, _) = certified(&consortium, &state);
    let good = bytes(&mut state);
    let read = |bytes: &[u8]| Snapshot::read(&consortium.genesis, bytes).unwrap();
    let taken = read(&good).certified(&header).unwrap();
    assert_eq!(taken.head(), state.head());

    // A state that hangs together, but is not that of the ledger.
    let (_, mut other) = {
        let mut other = consortium.state();
        for second in 1..4 {
            block(&mut other, at(0, second), []);
        }
        ((), other)
    };
    let error = read(&bytes(&mut other)).certified(&header).unwrap_err();
    assert!(matches!(error, SnapshotError::NotCertified { height: 7, .. }), "{error}");
    let mut later = state.clone();
    for _ in 0..4 {
        let time = LedgerTime(later.head().time.0 + 1);
        block(&mut later, time, []);
    }
    let error = read(&bytes(&mut later)).certified(&header).unwrap_err();
    assert!(matches!(error, SnapshotError::OtherRound { height: 7, found: 1 }), "{error}");
}

/// Of a liar's snapshot no more is read than the ledger has room for.
#[test]
fn a_snapshot_claims_no_more_chains_than_the_ledger_may_have() {
    let limited = |meters: u32| {
        Consortium::founded(1, 4, |charter| {
            (charter.limits.meters, charter.limits.owner_meters) = (meters, meters);
        })
    };
    let mut consortium = limited(8);
    let mut state = consortium.state();
    let meters: Vec<_> = (0..8).map(|number| consortium.meter(number)).collect();
    block(&mut state, at(0, 1), meters.iter().map(Meter::registers));
    let mut bytes = Vec::new();
    snapshot::write(&mut state, &mut bytes).unwrap();
    assert!(Snapshot::read(&consortium.genesis, &bytes[..]).is_ok());
    // The sheet ends with their number.
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(bytes[3 + length], 8);
    bytes[3 + length] = 9;
    let refused = Snapshot::read(&consortium.genesis, &bytes[..]).err();
    assert!(
        matches!(refused, Some(SnapshotError::TooManyChains { claimed: 9, limit: 8 })),
        "{refused:?}"
    );
}
