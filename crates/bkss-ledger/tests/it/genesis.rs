//! A genesis: signed by all founders, refused for one altered byte.

use bkss_ledger::{Genesis, GenesisError, genesis::Charter};
use bkss_scheme::{Digest, ProviderId, SecretKey};

use crate::consortium::Consortium;

#[test]
fn a_genesis_comes_back_and_no_altered_byte_passes() {
    let consortium = Consortium::new(1);
    let bytes = consortium.genesis.encode();
    let again = Genesis::decode(&bytes).unwrap();
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
    type Change = fn(&mut Charter);
    let twins: [Change; 4] = [
        |charter| charter.providers[1].id = ProviderId(0),
        |charter| charter.providers[1].vote_key = charter.providers[0].vote_key,
        |charter| charter.providers[1].key = charter.providers[0].key,
        |charter| charter.sdis[0].key = charter.providers[0].key,
    ];
    for twin in twins {
        assert_eq!(found(&twin, keys), Err(GenesisError::NotDistinct));
    }
    let nothing: [Change; 5] = [
        |charter| charter.time_scale = 0,
        |charter| charter.terms.grid_s = 0,
        |charter| charter.terms.reveal_s = 0,
        |charter| charter.limits.block_bytes = 100,
        |charter| charter.limits.batch_items = 0,
    ];
    for change in nothing {
        assert_eq!(found(&change, keys), Err(GenesisError::Terms));
    }
    // No point of the curve has this y coordinate: a seat with it would stop every node.
    let no_point = |charter: &mut Charter| {
        charter.providers[3].vote_key = bkss_scheme::certificate::VoteKey([2; 32]);
    };
    assert_eq!(found(&no_point, keys), Err(GenesisError::VoteKey(ProviderId(3))));
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
