//! Which proofs move a meter's ledger time, and that it only moves forward.

use bkss_meter::{
    LedgerWatch,
    ledger_time::{MAX_AHEAD_MS, TimeRefusal},
};
use bkss_scheme::{
    Certificate, Digest, Era, Handover, Header, LedgerTime, Network, certificate::NotFinal, codec,
    finality::Finality, handover::HandoverError, timestamp::TimeProof,
};
use proptest::prelude::*;

use crate::consortium::{Consortium, NETWORK, QUORUM, ROUNDS, encoded};

/// What the meter's clock shows.
const NOW: LedgerTime = LedgerTime(4000);

fn watch(consortium: &Consortium) -> LedgerWatch {
    LedgerWatch::new(NETWORK, ROUNDS, Era::new(0, consortium.committee.clone()))
}

#[test]
fn what_is_no_proof_of_time_says_why() {
    let (ours, theirs) = (Consortium::new(1), Consortium::new(2));
    let header = ours.header(LedgerTime(1000), None);
    let later = ours.header(LedgerTime(2000), None);
    let quorum = ours.sign(NETWORK, header.id(), &QUORUM);
    let few = ours.sign(NETWORK, header.id(), &[0, 2]);
    let elsewhere = ours.sign(Network([4; 16]), header.id(), &QUORUM);
    let mut renamed = ours.sign(NETWORK, header.id(), &QUORUM);
    renamed.signers = 0b111; // member 3 signed, not member 2
    let mut unmatched = ours.sign(NETWORK, header.id(), &QUORUM);
    unmatched.signers = 0b1111;
    let mut unknown = ours.sign(NETWORK, header.id(), &QUORUM);
    unknown.signers = 0b1_0011;
    let mut flipped = ours.sign(NETWORK, header.id(), &QUORUM);
    flipped.signatures[64 + 7] ^= 1;
    let foreign = theirs.header(LedgerTime(1000), None);
    let signed_by_theirs = theirs.sign(NETWORK, foreign.id(), &QUORUM);
    let impostors = theirs.sign(NETWORK, header.id(), &QUORUM);

    let expected = ours.committee.digest();
    let block = header.id();
    let signers = |signers| NotFinal::Signers { signers, signatures: 192 };
    let mut watch = watch(&ours);
    for (what, header, votes, refusal) in [
        ("two of four", &header, &few, NotFinal::Quorum { expected: 3, found: 2 }),
        ("another network", &header, &elsewhere, NotFinal::Signature { member: 0, block }),
        ("another member", &header, &renamed, NotFinal::Signature { member: 2, block }),
        ("more members than signatures", &header, &unmatched, signers(0b1111)),
        ("a member that is none", &header, &unknown, signers(0b1_0011)),
        ("a flipped bit", &header, &flipped, NotFinal::Signature { member: 1, block }),
        ("impostors", &header, &impostors, NotFinal::Signature { member: 0, block }),
        ("another time", &later, &quorum, NotFinal::Signature { member: 0, block: later.id() }),
        (
            "another committee",
            &foreign,
            &signed_by_theirs,
            NotFinal::Committee { expected, found: theirs.committee.digest() },
        ),
    ] {
        let proof = TimeProof { header: header.clone(), finality: votes.finality() };
        assert_eq!(watch.advance(&proof, NOW), Err(refusal.into()), "{what}");
        assert_eq!(watch.certified(), None, "{what}");
    }
    let proof = TimeProof { header, finality: quorum.finality() };
    assert_eq!(watch.advance(&proof, NOW), Ok(LedgerTime(1000)));
}

#[test]
fn a_meter_follows_the_committee_in_office_only() {
    let (first, second, third) = (Consortium::new(1), Consortium::new(2), Consortium::new(3));
    let mut end = first.last_of(4, LedgerTime(1000));
    end.next_committee = Some(second.committee.digest());
    let votes = first.sign_in(4, NETWORK, end.id(), &QUORUM);
    let good = Handover {
        header: end.clone(),
        finality: votes.finality(),
        committee: Some(second.committee.clone()),
        members: None,
    };
    let mut watch = watch(&first);

    let to_third = Handover { committee: Some(third.committee.clone()), ..good.clone() };
    let (expected, found) = (end.next_committee, Some(third.committee.digest()));
    let other = HandoverError::OtherCommittee { height: end.height, expected, found };
    assert_eq!(watch.follow(&to_third), Err(other), "not the one that was certified");
    let impostors = second.sign_in(4, NETWORK, end.id(), &QUORUM);
    let by_impostors = Handover { finality: impostors.finality(), ..good.clone() };
    let block = end.id();
    let refused = NotFinal::Signature { member: 0, block };
    assert_eq!(watch.follow(&by_impostors), Err(refused.into()), "not certified by the first");
    let few = first.sign_in(4, NETWORK, end.id(), &[0, 1]);
    let by_few = Handover { finality: few.finality(), ..good.clone() };
    assert_eq!(
        watch.follow(&by_few),
        Err(NotFinal::Quorum { expected: 3, found: 2 }.into()),
        "certified by two of four"
    );
    assert_eq!(watch.era().committee, first.committee);

    let bytes = encoded(&good);
    assert_eq!(watch.follow(&codec::decode("handover", &bytes).unwrap()), Ok(()));
    assert_eq!((watch.era().from_epoch, &watch.era().committee), (5, &second.committee));

    // The second is in office now, and the first is not any more.
    let late = first.last_of(5, LedgerTime(2000));
    let votes = first.sign_in(5, NETWORK, late.id(), &QUORUM);
    let proof = TimeProof { header: late, finality: votes.finality() };
    let (expected, found) = (second.committee.digest(), first.committee.digest());
    assert_eq!(watch.advance(&proof, NOW), Err(NotFinal::Committee { expected, found }.into()));
    let votes = first.sign_in(4, NETWORK, end.id(), &QUORUM);
    let earlier = TimeProof { header: end, finality: votes.finality() };
    assert_eq!(watch.advance(&earlier, NOW), Err(NotFinal::Epoch { first: 5, found: 4 }.into()));
    assert_eq!(watch.follow(&good), Err(HandoverError::Past { newest: 5, found: 4 }), "twice");
    let now = second.last_of(5, LedgerTime(3000));
    let votes = second.sign_in(5, NETWORK, now.id(), &QUORUM);
    let proof = TimeProof { header: now, finality: votes.finality() };
    assert_eq!(watch.advance(&proof, NOW), Ok(LedgerTime(3000)));

    // A block that changes members only leaves the committee in office.
    let mut join = second.last_of(6, LedgerTime(4000));
    join.members = Some(Digest([1; 32]));
    let votes = second.sign_in(6, NETWORK, join.id(), &QUORUM);
    let members = Handover {
        header: join,
        finality: votes.finality(),
        committee: None,
        members: Some(b"skipped"),
    };
    assert_eq!(watch.follow(&members), Ok(()));
    assert_eq!(watch.era().from_epoch, 5);
}

/// A committee that left office while the meter was cut off keeps its keys.
#[test]
fn a_committee_certifies_its_own_rounds_and_no_time_far_ahead_of_the_clock() {
    let ours = Consortium::new(1);
    let mut watch = watch(&ours);
    let day = MAX_AHEAD_MS;
    // A block of round 100, claimed for a height of the first round, and the other way round.
    let first = ours.header(LedgerTime(1000), None);
    let hundredth = ours.last_of(99, LedgerTime(1000));
    for (header, epoch) in [(&first, 99), (&hundredth, 0)] {
        let votes = ours.sign_in(epoch, NETWORK, header.id(), &QUORUM);
        let proof = TimeProof { header: header.clone(), finality: votes.finality() };
        let (height, found) = (header.height, epoch.into());
        let expected = ROUNDS.of(height);
        let refused = NotFinal::Round { height, expected, found };
        assert_eq!(watch.advance(&proof, NOW), Err(refused.into()), "epoch {epoch}");
    }
    for (time, allowed) in [(NOW.0 + day, true), (NOW.0 + day + 1, false), (u64::MAX, false)] {
        let bytes = ours.time_proof(LedgerTime(time));
        let advanced = watch.advance(&codec::decode("proof", &bytes).unwrap(), NOW);
        let refused = TimeRefusal::AheadOfClock { clock: NOW, found: LedgerTime(time) };
        let expected = if allowed { Ok(LedgerTime(time)) } else { Err(refused) };
        assert_eq!(advanced, expected);
        assert_eq!(watch.certified(), Some(LedgerTime(NOW.0 + day)));
    }
}

/// The end of all numbers is a number like others.
#[test]
fn a_proof_of_the_last_height_and_time_is_refused() {
    let ours = Consortium::new(1);
    for height in [0, 1, 99, 100, u64::from(u32::MAX), 1 << 53, u64::MAX - 1, u64::MAX] {
        let header = Header { height, ..ours.header(LedgerTime(u64::MAX), None) };
        let next = Header { previous: header.id(), ..header.clone() };
        let descendants = encoded(&next);
        for epoch in [0, ROUNDS.of(height), u64::MAX] {
            let certificate =
                Certificate { epoch, view: 7, parent_view: 6, signers: 0, signatures: &[] };
            let finality = Finality { descendants: &descendants, certificate };
            let proof = TimeProof { header: header.clone(), finality };
            assert!(watch(&ours).advance(&proof, NOW).is_err(), "{height} in {epoch}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn ledger_time_is_the_newest_proof_in_whatever_order(
        times in prop::collection::vec(0..u64::MAX, 1..6),
    ) {
        let consortium = Consortium::new(1);
        let mut watch = watch(&consortium);
        let mut newest = 0;
        for time in times {
            let bytes = consortium.time_proof(LedgerTime(time));
            let proof = codec::decode("proof", &bytes).unwrap();
            newest = newest.max(time);
            prop_assert_eq!(watch.advance(&proof, LedgerTime(u64::MAX)), Ok(LedgerTime(newest)));
            prop_assert_eq!(watch.certified(), Some(LedgerTime(newest)));
        }
    }
}
