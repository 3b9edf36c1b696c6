//! What makes a block final: which keys may vote, how many decide, and for which blocks.

use bkss_scheme::{
    Certificate, Committee, Digest, Era, Eras, Header, LedgerTime, Network,
    certificate::{NotFinal, VoteContent, VoteKey, accepts, vote_namespace},
    codec,
    finality::{EraEnd, Finality, RoundLength},
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use proptest::prelude::*;

use crate::shared::{family, hex_of, json};

const NETWORK: Network = Network([3; 16]);
const ROUNDS: RoundLength = RoundLength::new(10);

fn keys(seed: u8, count: u8) -> Vec<SigningKey> {
    let mut keys: Vec<_> =
        (0..count).map(|number| SigningKey::from([seed ^ (number + 1); 32])).collect();
    keys.sort_by_key(public);
    keys
}

fn public(key: &SigningKey) -> VoteKey {
    VoteKey(VerificationKeyBytes::from(key).into())
}

fn committee(keys: &[SigningKey]) -> Committee {
    Committee::new(keys.iter().map(public)).unwrap()
}

fn header(committee: &Committee, height: u64) -> Header {
    Header {
        height,
        previous: Digest([1; 32]),
        time: LedgerTime(height.saturating_mul(1000)),
        committee: committee.digest(),
        next_committee: None,
        members: None,
        state: None,
        transactions: None,
        requests: None,
        openings: None,
    }
}

/// Signatures of the first of these keys, as many as there are signers.
fn sign(keys: &[SigningKey], signers: usize, epoch: u64, block: Digest) -> (u32, Vec<u8>) {
    let content = VoteContent::Finalize { parent_view: 6, block };
    let message = content.message(NETWORK, epoch, 7).unwrap();
    let sign = |key: &SigningKey| <[u8; 64]>::from(key.sign(&message));
    (
        u32::MAX.checked_shr(32 - u32::try_from(signers).unwrap()).unwrap_or(0),
        keys[..signers].iter().flat_map(sign).collect(),
    )
}

fn encoded(header: &Header) -> Vec<u8> {
    let mut bytes = vec![0; codec::length(header)];
    codec::encode_into(header, &mut bytes).unwrap();
    bytes
}

const fn certificate(epoch: u64, (signers, signatures): &(u32, Vec<u8>)) -> Certificate<'_> {
    let signatures = signatures.as_slice();
    Certificate { epoch, view: 7, parent_view: 6, signers: *signers, signatures }
}

#[test]
fn a_quorum_is_more_than_two_thirds_and_decides() {
    for (members, quorum) in
        [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (21, 15), (32, 22)]
    {
        let keys = keys(0, members);
        let committee = committee(&keys);
        assert_eq!(committee.quorum(), quorum, "of {members}");
        // Any two quorums share more members than a third may lie.
        assert!(2 * quorum - usize::from(members) > (usize::from(members) - 1) / 3);
        let block = Digest([9; 32]);
        for (signers, decides) in [(quorum - 1, false), (quorum, true), (keys.len(), true)] {
            let votes = sign(&keys, signers, 0, block);
            let checked = certificate(0, &votes).verify(NETWORK, &committee, block);
            assert_eq!(checked.is_ok(), decides, "{signers} of {members}");
        }
    }
}

#[test]
fn votes_name_their_network() {
    let namespace = vote_namespace(Network([0xAB; 16]));
    assert_eq!(&namespace[..5], b"_BKSS");
    assert_eq!(namespace[5..], [0xAB; 16]);
    let (keys, block) = (keys(0, 4), Digest([9; 32]));
    let votes = sign(&keys, 3, 0, block);
    let elsewhere = certificate(0, &votes).verify(Network([4; 16]), &committee(&keys), block);
    assert_eq!(elsewhere, Err(NotFinal::Signature { member: 0, block }));
}

/// Under a key of small order one signature is everybody's on everything.
#[test]
fn a_vote_key_is_one_point_of_the_prime_order_group() {
    assert!(public(&SigningKey::from([7; 32])).is_point());
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(accepts(&VoteKey(neutral), b"any message", &signature));
    assert!(!VoteKey(neutral).is_point());
    assert!(!VoteKey([0xFF; 32]).is_point(), "no point at all");
    let Some(folder) = family("cctv-ed25519") else { return };
    let vectors = json(&folder.join("ed25519vectors.json"));
    let (mut refused, mut taken) = (0, 0);
    for vector in vectors.as_array().unwrap() {
        let flags = vector["flags"].as_array();
        let flagged = |name: &str| flags.is_some_and(|f| f.iter().any(|flag| flag == name));
        let odd = ["low_order_A", "low_order_component_A", "non_canonical_A"];
        let expected = !odd.into_iter().any(flagged);
        let key = VoteKey(hex_of(&vector["key"]));
        assert_eq!(key.is_point(), expected, "vector {}: {flags:?}", vector["number"]);
        if expected { taken += 1 } else { refused += 1 }
    }
    assert!(refused > 600 && taken > 10, "{refused} refused, {taken} taken");
}

/// What a certificate of a committee makes final: blocks of its own round, and none behind the end
/// of its time in office.
#[test]
fn a_committee_certifies_the_blocks_of_its_own_rounds() {
    let (first, second) = (keys(0, 4), keys(0x55, 4));
    let eras =
        [Era { end: None, ..Era::new(0, committee(&first)) }, Era::new(3, committee(&second))];
    let end = EraEnd { height: 29, time: LedgerTime(29_000) };
    let ended = [Era { end: Some(end), ..eras[0].clone() }, eras[1].clone()];
    let by = |keys: &[SigningKey], height, time, epoch, eras: &[Era]| {
        let header = Header { time: LedgerTime(time), ..header(&committee(keys), height) };
        let votes = sign(keys, 3, epoch, header.id());
        let finality = Finality { descendants: &[], certificate: certificate(epoch, &votes) };
        Eras { network: NETWORK, rounds: ROUNDS, eras }.certified(&finality, &header).err()
    };
    let other =
        |height, found| Some(NotFinal::Round { height, expected: ROUNDS.of(height), found });
    let behind = |height, time| {
        Some(NotFinal::AfterEra {
            height,
            time: LedgerTime(time),
            last_height: 29,
            last_time: LedgerTime(29_000),
        })
    };
    let foreign = |height: u64, keys: &[SigningKey], trusted: &[SigningKey]| {
        let (expected, found) = (committee(trusted).digest(), committee(keys).digest());
        let _ = height;
        Some(NotFinal::Committee { expected, found })
    };
    for (what, found, expected) in [
        ("of the round", by(&first, 15, 15_000, 1, &ended), None),
        ("the last block", by(&first, 29, 29_000, 2, &ended), None),
        ("of the next committee", by(&second, 30, 30_000, 3, &ended), None),
        ("certificate of a later round", by(&first, 15, 15_000, 2, &ended), other(15, 2)),
        ("certificate of an earlier round", by(&first, 25, 25_000, 1, &ended), other(25, 1)),
        ("any height, in its own round", by(&first, 1_000_000, 99, 2, &ended), other(1_000_000, 2)),
        ("the last height", by(&first, u64::MAX, 99, 0, &ended), other(u64::MAX, 0)),
        ("a later time", by(&first, 28, 29_001, 2, &ended), behind(28, 29_001)),
        (
            "retired, in a later round",
            by(&first, 35, 35_000, 3, &ended),
            foreign(35, &first, &second),
        ),
        // Whoever does not know of the handover cannot know better.
        ("not known to be retired", by(&first, 28, 99_000, 2, &eras), None),
    ] {
        assert_eq!(found, expected, "{what}");
    }
}

/// A block is final through a later one of its round only.
#[test]
fn the_last_block_of_a_round_needs_a_certificate_of_its_own() {
    let keys = keys(0, 4);
    let committee = committee(&keys);
    let eras = [Era::new(0, committee.clone())];
    let eras = Eras { network: NETWORK, rounds: ROUNDS, eras: &eras };
    let after =
        |before: &Header| Header { previous: before.id(), ..header(&committee, before.height + 1) };
    let [seventh, eighth, ninth] = {
        let seventh = header(&committee, 7);
        let eighth = after(&seventh);
        let ninth = after(&eighth);
        [seventh, eighth, ninth]
    };
    let tenth = after(&ninth);
    let bytes =
        |headers: &[&Header]| headers.iter().flat_map(|header| encoded(header)).collect::<Vec<_>>();
    let certified = |header: &Header, descendants: &[u8], epoch, last: &Header| {
        let votes = sign(&keys, 3, epoch, last.id());
        let finality = Finality { descendants, certificate: certificate(epoch, &votes) };
        eras.certified(&finality, header).err()
    };
    assert_eq!(certified(&seventh, &bytes(&[&eighth, &ninth]), 0, &ninth), None);
    assert_eq!(certified(&ninth, &[], 0, &ninth), None);
    let over = Some(NotFinal::Round { height: 9, expected: 0, found: 1 });
    assert_eq!(certified(&ninth, &bytes(&[&tenth]), 1, &tenth), over);
    let before = Some(NotFinal::Round { height: 10, expected: 1, found: 0 });
    assert_eq!(certified(&ninth, &bytes(&[&tenth]), 0, &tenth), before);
}

proptest! {
    /// No number that is received leads to arithmetic that stops the reader.
    #[test]
    fn extreme_numbers_are_refused_in_words(
        heights in [extreme(), extreme()], times in [extreme(), extreme()],
        epoch in extreme(), views in [extreme(), extreme()], signers: u32, blocks in extreme32(),
        end in prop::option::of((extreme(), extreme())),
    ) {
        let keys = keys(0, 4);
        let committee = committee(&keys);
        let end = end.map(|(height, time)| EraEnd { height, time: LedgerTime(time) });
        let eras = [Era { end, ..Era::new(epoch.min(3), committee.clone()) }];
        let rounds = RoundLength::new(blocks);
        let eras = Eras { network: NETWORK, rounds, eras: &eras };
        let first = Header { time: LedgerTime(times[0]), ..header(&committee, 0) };
        let first = Header { height: heights[0], ..first };
        let next = Header {
            height: heights[1],
            time: LedgerTime(times[1]),
            previous: first.id(),
            ..first
        };
        let descendants = encoded(&next);
        let certificate = Certificate {
            epoch,
            view: views[0],
            parent_view: views[1],
            signers,
            signatures: &[0; 192],
        };
        for descendants in [&descendants[..], &[]] {
            let finality = Finality { descendants, certificate };
            prop_assert!(eras.certified(&finality, &first).is_err());
        }
        prop_assert_eq!(
            rounds.ends(heights[0]),
            heights[0].checked_add(1).map_or(blocks.is_power_of_two() || blocks == 0, |next| {
                next % u64::from(blocks.max(1)) == 0
            })
        );
    }
}

/// Numbers at which arithmetic goes wrong, and some between.
fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            1 << 32,
            (1 << 53) - 1,
            1 << 53,
            u64::MAX - 1,
            u64::MAX
        ]),
        any::<u64>(),
    ]
}

fn extreme32() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0, 1, 2, 10, 300, 1 << 31, u32::MAX])
}
