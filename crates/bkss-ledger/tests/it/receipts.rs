//! Receipts: issued from final blocks, checked with the genesis alone, refused for one altered byte.

use bkss_ledger::{
    Transaction, Witness,
    receipts::{Issued, LinkPaths, PathError},
};
use bkss_scheme::{
    MeterId, ProviderId, Slot, codec, hash,
    hash_chain::{self, Blocks},
    receipt::{Anchors, Check, Receipt, Status},
    request,
    root_message::Registration,
    timestamp::RegistrationProof,
};

use crate::consortium::{BLOCK_LOG2, Consortium, FIRST, Meter, SLOTS, Signed, at, slots_from};

/// A meter that signs slots 1 to 5 of a chain in blocks of four, and its receipts.
fn five_slots(consortium: &mut Consortium) -> (Meter, Vec<Issued>) {
    let meter = consortium.meter(0);
    let mut state = consortium.state();
    let mut witness = Witness::new(consortium.genesis.clone(), None);
    let mut issued = Vec::new();
    let mut step = |consortium: &Consortium, time, transaction| {
        let verified = crate::blocks::block(&mut state, time, [transaction]);
        issued.extend(witness.follow(consortium.finalize(verified)));
    };
    step(consortium, at(0, 1), Transaction::Registration(meter.registration.clone()));
    for index in 1..=5 {
        let signed = meter.sign(index, 26);
        step(consortium, at(index, 1), consortium.requests(0, index, &[(0, signed.value)]));
        step(consortium, at(index, 301), consortium.openings(0, &[(0, &signed)]));
    }
    (meter, issued)
}

#[test]
fn a_receipt_verifies_with_the_genesis_alone() {
    let mut consortium = Consortium::new(1);
    let (meter, issued) = five_slots(&mut consortium);
    assert_eq!(issued.len(), 5);
    let anchors = consortium.genesis.anchors();
    let paths = LinkPaths::new(Blocks::new(SLOTS, BLOCK_LOG2).unwrap(), meter.roots.clone());
    let paths = paths.unwrap();
    let public = (5, &meter.link(5));
    for one in &issued {
        let receipt: Receipt<'_> = codec::decode("receipt", &one.receipt).unwrap();
        let verdict = receipt.verify(&anchors);
        assert!(verdict.valid(), "{:?}", verdict.failure());
        for (check, status) in verdict.checks() {
            let carried = check != Check::TreePath;
            assert_eq!(status, if carried { Status::Passed } else { Status::NotCarried });
        }

        let completed = paths.complete(&one.receipt, public);
        if one.index.get() == 5 {
            let expected = PathError::NotPublic { needed: 8, found: 5 };
            assert_eq!(completed, Err(expected), "links 6 to 8 are still secret");
            continue;
        }
        let completed = completed.unwrap();
        let receipt: Receipt<'_> = codec::decode("receipt", &completed).unwrap();
        let verdict = receipt.verify(&anchors);
        assert!(verdict.checks().all(|(_, status)| status == Status::Passed));
    }
    // Roots of a chain that is too short for the receipt.
    let short = LinkPaths::new(Blocks::new(3, BLOCK_LOG2).unwrap(), meter.roots[..1].to_vec());
    let completed = short.unwrap().complete(&issued[3].receipt, public);
    assert_eq!(completed, Err(PathError::Mismatch));
    let mut wrong = meter.roots;
    wrong[1].0[0] ^= 1;
    let paths = LinkPaths::new(Blocks::new(SLOTS, BLOCK_LOG2).unwrap(), wrong).unwrap();
    let completed = paths.complete(&issued[0].receipt, public);
    assert_eq!(completed, Err(PathError::Mismatch));
}

#[test]
fn every_altered_byte_of_a_receipt_is_refused() {
    let mut consortium = Consortium::new(2);
    let (meter, issued) = five_slots(&mut consortium);
    let paths = LinkPaths::new(Blocks::new(SLOTS, BLOCK_LOG2).unwrap(), meter.roots.clone());
    let completed = paths.unwrap().complete(&issued[2].receipt, (5, &meter.link(5))).unwrap();
    let anchors = consortium.genesis.anchors();
    for bytes in [&issued[2].receipt, &completed] {
        for position in 0..bytes.len() {
            for mask in [1 << (position % 8), 0xFF] {
                let mut altered = bytes.clone();
                altered[position] ^= mask;
                let accepted = codec::decode::<Receipt<'_>>("receipt", &altered)
                    .is_ok_and(|receipt| receipt.verify(&anchors).valid());
                assert!(!accepted, "byte {position} of {} xor {mask}", bytes.len());
            }
        }
        for length in 0..bytes.len() {
            assert!(codec::decode::<Receipt<'_>>("receipt", &bytes[..length]).is_err());
        }
    }
}

/// A good receipt, to be altered in one way at a time.
struct Refused<'a> {
    receipt: Receipt<'a>,
    anchors: Anchors<'a>,
}

impl<'a> Refused<'a> {
    fn fails(&self, what: &str, change: impl FnOnce(&mut Receipt<'a>), expected: Check) {
        let mut altered = self.receipt.clone();
        change(&mut altered);
        let verdict = altered.verify(&self.anchors);
        let (check, failure) = verdict.failure().unwrap();
        assert_eq!(check, expected, "{what}: {} / {}", failure.expected(), failure.found());
        let mut behind = verdict.checks().skip_while(|(check, _)| *check != expected).skip(1);
        assert!(behind.all(|(_, status)| status == Status::NotReached), "{what}");
    }
}

#[test]
fn each_check_fails_for_its_own_reason_and_ends_the_verdict() {
    let mut consortium = Consortium::new(3);
    let (meter, issued) = five_slots(&mut consortium);
    let stranger = Consortium::new(4);
    let anchors = consortium.genesis.anchors();
    let paths = LinkPaths::new(Blocks::new(SLOTS, BLOCK_LOG2).unwrap(), meter.roots.clone());
    let bytes = paths.unwrap().complete(&issued[2].receipt, (5, &meter.link(5))).unwrap();
    let receipt: Receipt<'_> = codec::decode("receipt", &bytes).unwrap();
    let other: Receipt<'_> = codec::decode("receipt", &issued[3].receipt).unwrap();

    let check = Refused { receipt: receipt.clone(), anchors };
    check.fails("another network", |r| r.network.0[0] ^= 1, Check::Registration);
    check.fails("another SDI", |r| r.registration.message.sdi.0 = 3, Check::Registration);
    check.fails("another owner", |r| r.registration.message.owner.0 = 1, Check::Registration);
    check.fails("unsigned", |r| r.registration.sdi_signature.0[9] ^= 1, Check::Registration);
    check.fails("not registered there", |r| r.registered.index = 1, Check::Registration);
    check.fails("another link", |r| r.link = meter.link(4), Check::ChainLink);
    check.fails(
        "path of another link",
        |r| r.link_path = other.link_path.clone().or_else(|| bkss_scheme::merkle::Path::new([])),
        Check::TreePath,
    );
    check.fails("another body", |r| r.body = &[0x83, 1, 2], Check::Commitment);
    check.fails("another place", |r| r.timestamp.inclusion.index = 1, Check::TimestampPath);
    check.fails(
        "stamped in another slot",
        |r| {
            r.timestamp.inclusion.header.time = at(4, 1);
        },
        Check::SlotEquation,
    );
    check.fails(
        "stamped behind the window",
        |r| {
            r.timestamp.inclusion.header.time = at(3, 300);
        },
        Check::Window,
    );
    check.fails("opened inside the window", |r| r.opened.header.time = at(3, 299), Check::Window);
    check.fails("opened after the limit", |r| r.opened.header.time = at(3, 604_800), Check::Window);
    check.fails(
        "a header nobody certified",
        |r| {
            r.opened.header.time = at(3, 302);
        },
        Check::Certificate,
    );
    check.fails(
        "a vote short of a quorum",
        |r| {
            let certificate = &mut r.opened.finality.certificate;
            certificate.signers = 0b11;
            certificate.signatures = &certificate.signatures[..128];
        },
        Check::Certificate,
    );
    check.fails(
        "signers that did not sign",
        |r| {
            r.timestamp.inclusion.finality.certificate.signers = 0b1011;
        },
        Check::Certificate,
    );
    check.fails(
        "another opening",
        |r| {
            r.opened = other.opened.clone();
        },
        Check::Opening,
    );

    let foreign = receipt.verify(&stranger.genesis.anchors());
    assert_eq!(foreign.failure().unwrap().0, Check::Registration, "of another consortium");
}

#[test]
fn a_block_without_a_certificate_is_final_through_its_successor() {
    use bkss_scheme::{Certificate, certificate::NotFinal, finality::Finality};
    let consortium = Consortium::new(5);
    let mut state = consortium.state();
    let first = crate::blocks::block(&mut state, at(0, 1), []);
    let second = crate::blocks::block(&mut state, at(0, 2), []);
    let third = crate::blocks::block(&mut state, at(0, 3), []);
    let encode = |blocks: &[&bkss_ledger::Verified]| {
        let mut bytes = Vec::new();
        for verified in blocks {
            codec::encode_infallible(verified.block().header(), &mut bytes);
        }
        bytes
    };
    let (signers, signatures) = consortium.certify(third.block().id(), 7);
    let certificate =
        Certificate { epoch: 0, view: 7, parent_view: 6, signers, signatures: &signatures };
    let check = |descendants: &[u8]| {
        let finality = Finality { descendants, certificate };
        consortium
            .genesis
            .anchors()
            .eras
            .certified(&finality, first.block().header())
            .map(|certified| certified.header().height)
    };
    assert_eq!(check(&encode(&[&second, &third])), Ok(1));
    assert_eq!(check(&encode(&[&third])), Err(NotFinal::Unlinked { height: 3 }));
    assert!(matches!(check(&encode(&[&second])), Err(NotFinal::Signature { .. })));
    assert_eq!(check(&[0x80]), Err(NotFinal::NoHeader(0)));
}

#[test]
fn receipts_are_issued_under_the_chain_that_signed() {
    let mut consortium = Consortium::new(6);
    let old = consortium.meter(0);
    let next = consortium.next_chain(&old, slots_from(FIRST.0 + 3));
    let mut state = consortium.state();
    let mut witness = Witness::new(consortium.genesis.clone(), Some(ProviderId(0)));
    // Of another owner, whom the witness does not follow.
    let other = consortium.meter(1);
    let signed = [1, 2, 3].map(|index| old.sign(index, 26));
    let of_next = next.sign(1, 27);
    let mut issued = Vec::new();
    for (time, transactions) in [
        (at(0, 1), vec![other.registers(), old.registers()]),
        (at(1, 1), vec![consortium.requests(0, 1, &[(1, signed[0].value)])]),
        // The next chain is known long before it begins.
        (at(1, 2), vec![next.registers()]),
        (at(1, 300), vec![consortium.openings(0, &[(1, &signed[0])])]),
        (at(2, 1), vec![consortium.requests(0, 2, &[(1, signed[1].value)])]),
        (at(2, 300), vec![consortium.openings(0, &[(1, &signed[1])])]),
        (at(3, 1), vec![consortium.requests(0, 3, &[(1, signed[2].value)])]),
        (at(4, 1), vec![consortium.requests(0, 4, &[(2, of_next.value)])]),
        (
            at(4, 300),
            vec![
                consortium.openings(0, &[(1, &signed[2])]),
                consortium.openings(0, &[(2, &of_next)]),
            ],
        ),
    ] {
        let verified = crate::blocks::block(&mut state, time, transactions);
        issued.extend(witness.follow(consortium.finalize(verified)));
    }
    let anchors = consortium.genesis.anchors();
    let found: Vec<_> = issued
        .iter()
        .map(|one| {
            let receipt: Receipt<'_> = codec::decode("receipt", &one.receipt).unwrap();
            let verdict = receipt.verify(&anchors);
            assert!(verdict.valid(), "link {}: {:?}", one.index, verdict.failure());
            (receipt.registration.message.schedule.first, one.index.get())
        })
        .collect();
    let later = Slot(FIRST.0 + 3);
    assert_eq!(found, [(FIRST, 1), (FIRST, 2), (FIRST, 3), (later, 1)]);
    // A meter is told of its newest chain.
    let proof = witness.registration_proof(MeterId(0)).unwrap();
    let proof: RegistrationProof<'_> = codec::decode("proof", &proof).unwrap();
    assert_eq!(proof.registration, next.registration);
    assert_eq!(witness.registration_proof(MeterId(1)), None, "of another owner");
}

/// A hostile owner makes two chains of one meter share a link, and has one reading opened under one
/// and another under the other. Of each chain and slot there is one valid receipt.
#[test]
fn of_a_slot_there_is_one_valid_receipt_though_chains_share_a_link() {
    let mut consortium = Consortium::new(1);
    let network = consortium.genesis.network();
    let old = consortium.meter(0);
    let shared = old.link(1);
    let mut new = consortium.next_chain(&old, slots_from(FIRST.0 + 1));
    let mut message = new.registration.message.clone();
    message.anchor = hash_chain::walk(message.salt(), 1, 0, &shared);
    new.id = message.id(network);
    new.registration = Registration::sign(message, network, &consortium.sdi, &consortium.keys[0]);
    let consortium = &consortium;
    let readings = [11, 99].map(|value| old.sign(1, value));
    let under = |meter: &Meter, reading: &Signed| {
        let commitment = request::commitment(&meter.id, reading.index, &hash::plain(&reading.body));
        let slot = meter.registration.message.schedule.slot(reading.index);
        let value = request::request_value(&commitment, &shared);
        let (index, body) = (reading.index, reading.body.clone());
        Signed { slot, index, body, value, link: shared.clone() }
    };
    let [first, second] = &readings;
    let (of_old, of_new) = (under(&old, first), [under(&new, first), under(&new, second)]);
    // Both readings are requested under the new chain, the first under the old one.
    let history = |opened: [&Signed; 2]| {
        let mut state = consortium.state();
        let mut witness = Witness::new(consortium.genesis.clone(), None);
        let mut issued = Vec::new();
        let requests = |gateway, slot, row, signed: &Signed| {
            consortium.requests(gateway, slot, &[(row, signed.value)])
        };
        for (time, transaction) in [
            (at(0, 1), old.registers()),
            (at(0, 2), new.registers()),
            (at(1, 1), requests(0, 1, 0, &of_old)),
            (at(2, 1), requests(0, 2, 1, &of_new[0])),
            (at(2, 2), requests(1, 2, 1, &of_new[1])),
            (at(2, 301), consortium.openings(1, &[(1, opened[0])])),
            (at(2, 302), consortium.openings(0, &[(0, opened[1])])),
        ] {
            let verified = crate::blocks::block(&mut state, time, [transaction]);
            assert_eq!(verified.skipped(), []);
            issued.extend(witness.follow(consortium.finalize(verified)));
        }
        issued
    };
    let issued = history([&of_new[1], &of_old]);
    // The same time-stamp as if the first reading had been opened.
    let other = history([&of_new[0], &of_old]);
    let receipt = |one: &Issued| one.receipt.clone();
    let [new_one, old_one, stamped] = [&issued[0], &issued[1], &other[0]].map(receipt);
    let decode = |bytes| codec::decode::<Receipt<'_>>("receipt", bytes).unwrap();
    let (new_one, old_one, stamped) = (decode(&new_one), decode(&old_one), decode(&stamped));
    let anchors = consortium.genesis.anchors();
    assert!(new_one.verify(&anchors).valid() && old_one.verify(&anchors).valid());
    let forged = Receipt {
        timestamp: stamped.timestamp.clone(),
        opened: old_one.opened.clone(),
        body: old_one.body,
        ..new_one.clone()
    };
    let verdict = forged.verify(&anchors);
    assert_eq!(verdict.failure().map(|(check, _)| check), Some(Check::Opening));
}
