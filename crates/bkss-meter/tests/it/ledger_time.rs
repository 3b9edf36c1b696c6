//! Which proofs move a meter's ledger time, and that it only moves forward.

use bkss_meter::LedgerWatch;
use bkss_scheme::{LedgerTime, Network, certificate::NotFinal, codec, timestamp::TimeProof};
use proptest::prelude::*;

use crate::consortium::{Consortium, NETWORK, QUORUM};

fn watch(consortium: &Consortium) -> LedgerWatch {
    LedgerWatch::new(NETWORK, consortium.committee.clone())
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
        assert_eq!(watch.advance(&proof), Err(refusal), "{what}");
        assert_eq!(watch.certified(), None, "{what}");
    }
    let proof = TimeProof { header, finality: quorum.finality() };
    assert_eq!(watch.advance(&proof), Ok(LedgerTime(1000)));
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
            prop_assert_eq!(watch.advance(&proof), Ok(LedgerTime(newest)));
            prop_assert_eq!(watch.certified(), Some(LedgerTime(newest)));
        }
    }
}
