//! The engine's certificates, checked by `bkss-scheme` from the engine's own bytes.

use bkss_node::config::vote_key;
use bkss_scheme::{
    Certificate, Committee, Digest, Network,
    certificate::{NotFinal, VoteKey, accepts, vote_namespace},
};
use bytes::Bytes;
use commonware_codec::{DecodeExt, Encode};
use commonware_consensus::{
    simplex::{
        scheme::ed25519::Scheme,
        types::{Finalization, Finalize, Proposal},
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{BatchEntry, BatchVerifier, Signer, Verifier, ed25519, sha256};
use commonware_parallel::Sequential;
use commonware_utils::{non_empty, ordered::Set, test_rng};

const NETWORK: Network = Network([9; 16]);

/// A finalization as the engine makes it, by the first `signers` of `members`.
fn finalization(members: u8, signers: usize, block: Digest, view: u64) -> (Bytes, Committee) {
    let keys: Vec<_> = (1..=members).map(|i| vote_key(&[i; 32])).collect();
    let set = Set::from_iter_dedup(keys.iter().map(|(key, _)| key.public_key()));
    let namespace = vote_namespace(NETWORK);
    let proposal = Proposal::new(
        Round::new(Epoch::new(3), View::new(view)),
        View::new(view - 1),
        sha256::Digest::from(block.0),
    );
    let schemes: Vec<_> = keys
        .iter()
        .map(|(key, _)| Scheme::signer(&namespace, set.clone(), key.clone()).unwrap())
        .collect();
    let votes: Vec<_> = schemes[members as usize - signers..]
        .iter()
        .map(|scheme| Finalize::sign(scheme, proposal.clone()).unwrap())
        .collect();
    let certificate = Finalization::<Scheme, sha256::Digest>::from_finalizes(
        &schemes[0],
        non_empty![@&votes],
        &Sequential,
    );
    let committee = Committee::new(keys.iter().map(|(_, public)| *public)).unwrap();
    (certificate.unwrap().encode(), committee)
}

#[test]
fn the_engines_finalizations_hold_without_the_engine() {
    let block = Digest([0x5A; 32]);
    for (members, view) in [(4, 2), (7, 300), (21, 1 << 40), (32, u64::MAX / 2)] {
        let quorum = usize::from(members) - (usize::from(members) - 1) / 3;
        let (bytes, committee) = finalization(members, quorum, block, view);
        assert_eq!(committee.quorum(), quorum, "the engine's quorum for {members}");
        let (certificate, named) = Certificate::from_engine(&bytes, &committee).unwrap();
        assert_eq!((named, certificate.epoch, certificate.view), (block, 3, view));
        assert_eq!(certificate.verify(NETWORK, &committee, block), Ok(()), "{members} members");

        let elsewhere = certificate.verify(Network([8; 16]), &committee, block);
        assert!(matches!(elsewhere, Err(NotFinal::Signature { .. })), "of another network");
        let other = certificate.verify(NETWORK, &committee, Digest([0; 32]));
        assert!(matches!(other, Err(NotFinal::Signature { .. })), "of another block");
        for position in 0..bytes.len() {
            let mut altered = bytes.to_vec();
            altered[position] ^= 1;
            let accepted =
                Certificate::from_engine(&altered, &committee).is_ok_and(|(certificate, named)| {
                    certificate.verify(NETWORK, &committee, named) == Ok(()) && named == block
                });
            assert!(!accepted, "byte {position} of {}", bytes.len());
        }
        for length in 0..bytes.len() {
            assert!(
                Certificate::from_engine(&bytes[..length], &committee).is_err(),
                "cut at {length}"
            );
        }
    }
}

#[test]
fn one_vote_below_the_quorum_is_refused() {
    // The engine itself does not assemble such a certificate: take a vote out of a good one.
    let block = Digest([0x5A; 32]);
    let (bytes, committee) = finalization(4, 3, block, 9);
    let (certificate, _) = Certificate::from_engine(&bytes, &committee).unwrap();
    let first = certificate.signers.trailing_zeros();
    let short = Certificate {
        signers: certificate.signers & !(1 << first),
        signatures: &certificate.signatures[64..],
        ..certificate
    };
    let expected = NotFinal::Quorum { expected: 3, found: 2 };
    assert_eq!(short.verify(NETWORK, &committee, block), Err(expected));
}

#[test]
fn signatures_are_accepted_by_the_engines_rule_single_and_batch_alike() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/vectors/cctv-ed25519/ed25519vectors.json"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        assert!(std::env::var_os("BKSS_REQUIRE_SHARED").is_none(), "{path} is not there");
        eprintln!("skipped: {path} is not there");
        return;
    };
    let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    // The engine always frames what is signed, so the vectors' own messages do not fit. Their keys
    // and signatures do: those of small order hold for every message under this rule, the others
    // for none.
    let (namespace, message) = (&vote_namespace(NETWORK)[..], &b"message"[..]);
    let framed = [&[21], namespace, message].concat();
    let mut accepted = 0;
    for vector in &vectors {
        let field = |name: &str| vector[name].as_str().unwrap();
        let (key, signature) = (hex::<32>(field("key")), hex::<64>(field("sig")));
        let ours = accepts(&VoteKey(key), &framed, &signature);
        let key = ed25519::PublicKey::decode(Bytes::copy_from_slice(&key));
        let signature = ed25519::Signature::decode(Bytes::copy_from_slice(&signature)).unwrap();
        let Ok(key) = key else {
            assert!(!ours, "vector {}: the engine refuses the key", vector["number"]);
            continue;
        };
        let single = key.verify(namespace, message, &signature);
        let (public_key, signature) = (&key, &signature);
        let entry = |_, (): &()| BatchEntry { public_key, namespace, message, signature };
        let batch = ed25519::PublicKey::verify_batch(&mut test_rng(), &[()], entry, &Sequential);
        assert_eq!((single, batch), (ours, ours), "vector {}", vector["number"]);
        accepted += usize::from(ours);
    }
    println!("{accepted} of {} accepted by both", vectors.len());
    assert!(0 < accepted && accepted < vectors.len());
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    bytes
}
