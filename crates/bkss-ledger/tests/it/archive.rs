//! The archive: replayed from genesis, refused for one altered or missing byte.

use std::io::ErrorKind;

use bkss_ledger::{
    Block, State, Transaction,
    archive::Writer,
    audit::{Changes, Known, Report, audit},
    block::BlockError,
    verify,
};
use bkss_scheme::{Certificate, Head, codec};

use crate::{
    blocks::block,
    consortium::{Consortium, Meter, at},
};

/// Three blocks: a registration, a request (without certificate) and an opening.
fn archive(consortium: &mut Consortium) -> Vec<u8> {
    let meter = consortium.meter(0);
    let signed = meter.sign(1, 26);
    let mut state = consortium.state();
    let network = consortium.genesis.network();
    let mut writer = Writer::new(Vec::new(), network).unwrap();
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
    audit(&consortium.genesis, bytes, Known::default())
}

#[test]
fn an_archive_is_replayed_from_genesis() {
    let mut consortium = Consortium::new(1);
    let bytes = archive(&mut consortium);
    let report = run(&consortium, &bytes);
    assert!(report.valid(), "{:?}", report.refusals);
    assert_eq!((report.blocks, report.requests, report.openings), (3, 1, 1));
    assert_eq!((report.meters, report.chains, report.renewals()), (1, 1, 0));
    assert_eq!((report.revocations, report.changes), (0, Changes::default()));
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
fn an_archive_ends_in_a_block_with_its_own_certificate() {
    let consortium = Consortium::new(5);
    let mut state = consortium.state();
    let network = consortium.genesis.network();
    let mut writer = Writer::new(Vec::new(), network).unwrap();
    for seconds in 1..=2 {
        writer.block(block(&mut state, at(0, seconds), []).block(), None).unwrap();
    }
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "the newest block has no certificate of its own");
    // An archive of nothing is whole.
    let empty = Writer::new(Vec::new(), network).unwrap().finish().unwrap();
    let report = run(&consortium, &empty);
    assert!(report.valid() && report.newest.is_none(), "{:?}", report.refusals);
}

/// The frames of an archive, each without its length.
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}

fn of_frames(frames: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |frame: &Vec<u8>| {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        [&length[..], frame].concat()
    };
    frames.iter().flat_map(with_length).collect()
}

/// Whoever keeps the head of an archive keeps its certificate with it.
#[test]
fn an_archive_ends_in_the_head_of_its_newest_block() {
    let mut consortium = Consortium::new(7);
    let bytes = archive(&mut consortium);
    let parts = frames(&bytes);
    assert_eq!((parts.len(), of_frames(&parts) == bytes), (5, true));
    let head: Head<'_> = codec::decode("head", &parts[4]).unwrap();
    let encoded = |head: &Head<'_>| {
        let mut bytes = Vec::new();
        codec::encode_infallible(head, &mut bytes);
        bytes
    };
    let (signers, signatures) = consortium.certify(head.header.id(), 8);
    let certificate =
        Certificate { epoch: 0, view: 8, parent_view: 7, signers, signatures: &signatures };
    let of_another_view = encoded(&Head { certificate, ..head.clone() });
    let unsigned = encoded(&Head {
        certificate: Certificate { signers: 0, signatures: &[], ..certificate },
        ..head.clone()
    });
    let elsewhere =
        encoded(&Head { network: Consortium::new(8).genesis.network(), ..head.clone() });
    // The newest block as it would stand there without its certificate.
    let length = parts[3].len() - {
        let mut bytes = Vec::new();
        codec::encode_infallible(&head.certificate, &mut bytes);
        bytes.len()
    };
    let bare = [&parts[3][..length], &[0xF6]].concat();
    let null = vec![0xF6];
    let with = |at: usize, frame: &[u8]| {
        let mut parts = parts.clone();
        parts[at] = frame.to_vec();
        of_frames(&parts)
    };
    let empty = |end: &[u8]| of_frames(&[parts[0].clone(), end.to_vec()]);
    let other_head = "archive ends at byte";
    for (what, bytes, expected) in [
        ("of another view", with(4, &of_another_view), other_head),
        ("that nobody signed", with(4, &unsigned), other_head),
        ("of a block without it", with(3, &bare), other_head),
        ("of another network", with(4, &elsewhere), "archive of network"),
        ("that is missing", with(4, &null), "archive ends in the head of block 0"),
        ("of no block", empty(&parts[4]), "archive ends in the head of block 3"),
    ] {
        let report = run(&consortium, &bytes);
        let reason = report.refusals[0].to_string();
        assert!(reason.starts_with(expected), "{what}: {reason}");
    }
    assert!(run(&consortium, &empty(&null)).valid());
    let at_genesis = Head { header: consortium.genesis.header(), ..head };
    let reason = run(&consortium, &empty(&encoded(&at_genesis))).refusals[0].to_string();
    assert!(reason.starts_with(other_head), "block 0 is certified by nobody: {reason}");
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

/// What is not bound by the id of a block is whether a body is there; all else has one spelling.
#[test]
fn erased_bodies_have_one_spelling() {
    let mut consortium = Consortium::new(8);
    let meters: Vec<_> = (0..2).map(|number| consortium.meter(number)).collect();
    let mut state = consortium.state();
    block(&mut state, at(0, 1), meters.iter().map(Meter::registers));
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 3)).collect();
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &values)]);
    let items: Vec<_> = (0..).zip(&signed).collect();
    let opened = block(&mut state, at(1, 300), [consortium.openings(0, &items)]);
    let network = consortium.genesis.network();
    for positions in [&[0][..], &[1], &[0, 1]] {
        let mut erased = opened.block().clone();
        positions.iter().for_each(|position| assert!(erased.erase_body(0, *position)));
        let bytes = erased.encode();
        assert_eq!(Block::decode(network, &bytes, 1 << 20).as_ref(), Ok(&erased));
        for position in 0..bytes.len() {
            // Each bit, and the numbers a neighbouring length or key would have.
            let masks = (0..8).map(|bit| 1 << bit).chain([3, 0x30, 0x50, 0xFF]);
            for mask in masks {
                let mut altered = bytes.clone();
                altered[position] ^= mask;
                let other = Block::decode(network, &altered, 1 << 20);
                let same = other.is_ok_and(|block| block.id() == erased.id());
                assert!(!same, "byte {position} xor {mask}, without bodies {positions:?}");
            }
        }
    }
    // Where bodies were taken out to be stored apart, it is the same spelling.
    let (mut erased, mut apart) = (opened.block().clone(), opened.block().clone());
    assert!(erased.erase_body(0, 1) && erased.erase_body(0, 0));
    apart.take_bodies();
    assert_eq!(erased.encode(), apart.encode());
    // The shape that they had, key 1 and 48 bytes, is no other one.
    let (bytes, none) = (erased.encode(), [0x85, 0x00, 0x00, 0x80, 0x82]);
    let at = bytes.windows(none.len()).position(|window| window == none).unwrap();
    let shaped = [&bytes[..at], &[0x85, 0x01, 0x18, 48, 0x80, 0x82], &bytes[at + none.len()..]];
    let refused = Block::decode(network, &shaped.concat(), 1 << 20);
    assert!(matches!(refused, Err(BlockError::Malformed(_))), "{refused:?}");
}
