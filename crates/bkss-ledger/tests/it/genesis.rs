//! A genesis: signed by all founders, refused for one altered byte.

use bkss_ledger::{
    Genesis, GenesisError,
    genesis::{Charter, Weighing},
};
use bkss_scheme::{
    Digest, ProviderId, SecretKey,
    certificate::{VoteKey, accepts},
};

use crate::consortium::Consortium;

#[test]
fn a_genesis_comes_back_and_no_altered_byte_passes() {
    let consortium = Consortium::founded(1, 4, |charter| charter.rounds.votes = Weighing::Meters);
    let bytes = consortium.genesis.encode();
    let again = Genesis::decode(&bytes).unwrap();
    assert_eq!(again.charter(), consortium.genesis.charter());
    assert_eq!(again.network(), consortium.genesis.network());
    assert_eq!(again.header().id(), consortium.genesis.header().id());
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1 << (position % 8);
        assert!(Genesis::decode(&altered).is_err(), "byte {position} of {}", bytes.len());
    }
    for length in 0..bytes.len() {
        assert!(Genesis::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn what_founds_no_network_says_why() {
    let consortium = Consortium::new(2);
    let charter = consortium.genesis.charter();
    let found = |change: &dyn Fn(&mut Charter), keys: &[SecretKey]| {
        let mut changed = charter.clone();
        change(&mut changed);
        let founded = Genesis::found(changed, keys, std::slice::from_ref(&consortium.sdi));
        founded.map(|genesis| genesis.network())
    };
    let keys = &consortium.keys;
    assert_eq!(found(&|_| (), keys), Ok(consortium.genesis.network()));
    let three = |charter: &mut Charter| charter.providers.truncate(3);
    assert_eq!(found(&three, keys), Err(GenesisError::Providers { found: 3 }));
    let twins: [fn(&mut Charter); 4] = [
        |charter| charter.providers[1].id = ProviderId(0),
        |charter| charter.providers[1].vote_key = charter.providers[0].vote_key,
        |charter| charter.providers[1].key = charter.providers[0].key,
        |charter| charter.sdis[0].key = charter.providers[0].key,
    ];
    for twin in twins {
        assert_eq!(found(&twin, keys), Err(GenesisError::NotDistinct));
    }
    let other = |charter: &mut Charter| charter.providers[2].agreement = Digest([9; 32]);
    assert!(matches!(found(&other, keys), Err(GenesisError::Agreement { .. })));
    let signatures = GenesisError::Signatures { expected: 5, found: 4 };
    assert_eq!(found(&|_| (), &keys[..3]), Err(signatures));
    let mut swapped = keys.clone();
    swapped.swap(0, 1);
    assert!(matches!(
        found(&|_| (), &swapped),
        Err(GenesisError::ProviderSignature { provider: ProviderId(0), .. })
    ));
}

#[test]
fn every_number_of_a_charter_has_its_range() {
    type Set = fn(&mut Charter, u32);
    let numbers: [(&str, Set, Option<u32>, Option<u32>); 16] = [
        ("time_scale", |c, n| c.time_scale = n, Some(1), None),
        ("min_slot_s", |c, n| c.terms.min_slot_s = n, Some(1), None),
        ("reveal_s", |c, n| c.terms.reveal_s = n, Some(1), None),
        ("grid_s", |c, n| c.terms.grid_s = n, Some(1), None),
        ("precision_ms", |c, n| c.terms.precision_ms = n, Some(1), None),
        ("keep_s", |c, n| c.terms.keep_s = n, Some(604_800), None),
        ("ahead_s", |c, n| c.terms.ahead_s = n, Some(1), None),
        ("round blocks", |c, n| c.rounds.blocks = n, Some(2), None),
        ("committee", |c, n| c.rounds.committee = small(n), Some(4), Some(32)),
        ("alternates", |c, n| c.rounds.alternates = small(n), None, Some(10)),
        ("tenure_views", |c, n| c.rounds.tenure_views = n, Some(1), None),
        ("block_bytes", |c, n| c.limits.block_bytes = n, Some(65_536), Some(64 << 20)),
        ("batch_items", |c, n| c.limits.batch_items = n, Some(1), Some(65_536)),
        ("owner_meters", |c, n| c.limits.owner_meters = n, Some(1), Some(1 << 24)),
        ("steps", |c, n| c.limits.steps = n, Some(1 << 20), None),
        ("pending", |c, n| c.limits.pending = n, Some(1), Some(1024)),
    ];
    let consortium = Consortium::new(3);
    for (name, set, least, most) in numbers {
        let bounds = [least.map(|least| (least, least - 1)), most.map(|most| (most, most + 1))];
        for (allowed, refused) in bounds.into_iter().flatten() {
            let mut charter = consortium.genesis.charter().clone();
            set(&mut charter, allowed);
            assert_eq!(charter.check(), Ok(()), "{name} of {allowed}");
            set(&mut charter, refused);
            match charter.check() {
                Err(GenesisError::Terms { name: named, found, .. }) => {
                    assert_eq!((named, found), (name, refused.into()));
                }
                other => unreachable!("{name} of {refused}: {other:?}"),
            }
        }
    }
}

fn small(number: u32) -> u16 {
    number.try_into().unwrap()
}

/// Points of the curve whose order divides eight: everybody can sign for them.
fn small_orders() -> [VoteKey; 8] {
    let with_first_and_last = |first: u8, middle: u8, last: u8| {
        let mut key = [middle; 32];
        (key[0], key[31]) = (first, last);
        VoteKey(key)
    };
    let of_order_eight = |last: u8| {
        let mut key = [
            0x26, 0xE8, 0x95, 0x8F, 0xC2, 0xB2, 0x27, 0xB0, 0x45, 0xC3, 0xF4, 0x89, 0xF2, 0xEF,
            0x98, 0xF0, 0xD5, 0xDF, 0xAC, 0x05, 0xD3, 0xC6, 0x33, 0x39, 0xB1, 0x38, 0x02, 0x88,
            0x6D, 0x53, 0xFC, 0x05,
        ];
        key[31] = last;
        VoteKey(key)
    };
    let other_of_order_eight = |last: u8| {
        let mut key = [
            0xC7, 0x17, 0x6A, 0x70, 0x3D, 0x4D, 0xD8, 0x4F, 0xBA, 0x3C, 0x0B, 0x76, 0x0D, 0x10,
            0x67, 0x0F, 0x2A, 0x20, 0x53, 0xFA, 0x2C, 0x39, 0xCC, 0xC6, 0x4E, 0xC7, 0xFD, 0x77,
            0x92, 0xAC, 0x03, 0x7A,
        ];
        key[31] = last;
        VoteKey(key)
    };
    [
        with_first_and_last(1, 0, 0),
        with_first_and_last(0xEC, 0xFF, 0x7F),
        with_first_and_last(0, 0, 0),
        with_first_and_last(0, 0, 0x80),
        of_order_eight(0x05),
        of_order_eight(0x85),
        other_of_order_eight(0x7A),
        other_of_order_eight(0xFA),
    ]
}

#[test]
fn a_vote_key_that_everybody_can_sign_for_founds_nothing() {
    let consortium = Consortium::new(4);
    // R = the neutral element and s = 0: eight times it all is nothing, whatever the message.
    let mut signature = [0; 64];
    signature[0] = 1;
    // No point of the curve has this y coordinate: a seat with it would stop every node.
    let no_point = VoteKey([2; 32]);
    for key in small_orders().into_iter().chain([no_point]) {
        assert_eq!(accepts(&key, b"whatever", &signature), key != no_point, "{key:?}");
        let mut charter = consortium.genesis.charter().clone();
        charter.providers[3].vote_key = key;
        assert_eq!(charter.check(), Err(GenesisError::VoteKey(ProviderId(3))), "{key:?}");
    }
}
