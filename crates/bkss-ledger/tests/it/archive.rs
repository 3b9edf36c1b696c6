//! The archive: replayed from genesis, refused for one altered or missing byte.

use bkss_ledger::{
    Block, State, Transaction,
    archive::Writer,
    audit::{Report, audit},
    verify,
};
use bkss_scheme::Certificate;

use crate::consortium::{Consortium, at, block};

/// Three blocks: a registration, a request (without certificate) and an opening.
fn archive(consortium: &mut Consortium) -> Vec<u8> {
    let meter = consortium.meter(0);
    let signed = meter.sign(1, 26);
    let mut state = consortium.state();
    let network = consortium.genesis.network();
    let mut writer = Writer::new(Vec::new(), network, state.head().id).unwrap();
    for (time, certified, transaction) in [
        (at(0, 1), true, Transaction::Registration(meter.registration)),
        (at(1, 1), false, consortium.requests(0, 1, &[(0, signed.value)])),
        (at(1, 300), true, consortium.openings(0, &[(0, &signed)])),
    ] {
        let verified = block(&mut state, time, [transaction]);
        let (signers, signatures) = consortium.certify(verified.block().id(), 9);
        let certificate =
            Certificate { epoch: 0, view: 9, parent_view: 8, signers, signatures: &signatures };
        writer.block(verified.block(), certified.then_some(certificate)).unwrap();
    }
    writer.finish().unwrap()
}

fn run(consortium: &Consortium, bytes: &[u8]) -> Report {
    audit(&consortium.genesis, bytes)
}

#[test]
fn an_archive_is_replayed_from_genesis() {
    let mut consortium = Consortium::new(1);
    let bytes = archive(&mut consortium);
    let report = run(&consortium, &bytes);
    assert!(report.valid(), "{:?}", report.refusals);
    assert_eq!((report.blocks, report.requests, report.readings, report.meters), (3, 1, 1, 1));
}

#[test]
fn every_altered_byte_of_an_archive_is_refused() {
    let mut consortium = Consortium::new(2);
    let bytes = archive(&mut consortium);
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1 << (position % 8);
        assert!(!run(&consortium, &altered).valid(), "byte {position} of {}", bytes.len());
    }
}

#[test]
fn an_archive_cut_anywhere_or_continued_is_refused() {
    let mut consortium = Consortium::new(3);
    let bytes = archive(&mut consortium);
    for length in 0..bytes.len() {
        let report = run(&consortium, &bytes[..length]);
        let reason = report.refusals.first().map(ToString::to_string).unwrap_or_default();
        assert!(reason.starts_with("archive is cut at byte"), "{length}: {reason}");
    }
    let longer = [&bytes[..], &[0]].concat();
    let expected = format!("archive goes on behind its end at byte {}", bytes.len());
    assert_eq!(run(&consortium, &longer).refusals[0].to_string(), expected);
    let other = Consortium::new(4);
    assert!(run(&other, &bytes).refusals[0].to_string().starts_with("archive of network"));
}

#[test]
fn blocks_that_nothing_makes_final_are_named() {
    let consortium = Consortium::new(5);
    let mut state = consortium.state();
    let network = consortium.genesis.network();
    let mut writer = Writer::new(Vec::new(), network, state.head().id).unwrap();
    for seconds in 1..=2 {
        writer.block(block(&mut state, at(0, seconds), []).block(), None).unwrap();
    }
    let report = run(&consortium, &writer.finish().unwrap());
    assert_eq!(report.refusals[0].to_string(), "blocks 1 to 2 have no certificate");
}

#[test]
fn an_erased_body_leaves_every_proof_as_it_was() {
    let mut consortium = Consortium::new(6);
    let meter = consortium.meter(0);
    let signed: Vec<_> = (1..=2).map(|index| meter.sign(index, 26)).collect();
    let mut state = consortium.state();
    block(&mut state, at(0, 1), [Transaction::Registration(meter.registration)]);
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &[(0, signed[0].value)])]);
    let before: State = state.clone();
    let verified = block(&mut state, at(1, 300), [consortium.openings(0, &[(0, &signed[0])])]);
    let mut erased = verified.block().clone();
    assert!(erased.has_all_bodies());
    assert!(erased.erase_body(0, 0));
    assert!(!erased.erase_body(0, 0), "it is gone");
    assert!(!erased.has_all_bodies());
    let bytes = erased.encode();
    let body = &signed[0].body;
    let ciphertext = &body[body.len() - 48..];
    assert!(verified.block().encode().windows(48).any(|window| window == ciphertext));
    assert!(!bytes.windows(48).any(|window| window == ciphertext));
    let again = Block::decode(consortium.genesis.network(), &bytes, 1 << 20).unwrap();
    assert_eq!(again.id(), verified.block().id());
    let again = verify(&before.view(), again).unwrap();
    assert_eq!(again.openings(), verified.openings());

    let mut apart = verified.block().clone();
    let bodies = apart.take_bodies();
    assert_eq!(apart.id(), verified.block().id());
    assert!(!apart.has_all_bodies());
    assert!(!apart.restore_bodies(Vec::new()), "bodies of no batch");
    assert!(apart.restore_bodies(bodies));
    assert_eq!(&apart, verified.block());
}
