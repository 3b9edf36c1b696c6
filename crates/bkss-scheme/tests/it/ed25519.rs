//! Votes are accepted by the rule of ZIP 215: Wycheproof and the edge cases of CCTV.
//!
//! The rule: both points decode, in any spelling, `s` is below the group order, and the equation
//! holds after multiplication by the cofactor, with the hash over the spelling that was sent.

use bkss_scheme::certificate::{VoteKey, accepts};

use crate::shared::{each_wycheproof, family, hex, hex_of, json, valid};

/// Invalid by RFC 8032, accepted by ZIP 215. Test 151 spells `R` as `y = 1` with the sign bit set:
/// a second spelling of the neutral element, which the rule reads as that.
const ACCEPTED_BY_RULE: [u64; 1] = [151];

#[test]
fn valid_signatures_are_accepted_and_invalid_ones_refused() {
    let mut by_rule = 0;
    let ran = each_wycheproof("ed25519_test.json", |group, test| {
        let id = test["tcId"].as_u64().unwrap();
        let exception = ACCEPTED_BY_RULE.contains(&id);
        by_rule += usize::from(exception);
        let Ok(signature) = hex(&test["sig"]).try_into() else {
            assert!(!valid(test), "test {id} has no 64 bytes");
            return;
        };
        let key = VoteKey(hex_of(&group["publicKey"]["pk"]));
        let accepted = accepts(&key, &hex(&test["msg"]), &signature);
        assert_eq!(accepted, valid(test) || exception, "test {id}: {}", test["comment"]);
        assert!(!exception || !valid(test), "test {id} is no exception");
    });
    assert!(!ran || by_rule == ACCEPTED_BY_RULE.len());
}

/// Low order, second spellings and residues of low order are all accepted. Refused is one kind
/// alone: `reencoded_k` says that the signer hashed the canonical spelling of a point that was sent
/// in another, which is another hash, and it only goes unnoticed where the key has low order, since
/// the cofactor then removes the hash from the equation.
#[test]
fn edge_cases_are_accepted_as_the_rule_says() {
    let Some(folder) = family("cctv-ed25519") else { return };
    let vectors = json(&folder.join("ed25519vectors.json"));
    let vectors = vectors.as_array().unwrap();
    let mut refused = 0;
    for vector in vectors {
        let flags = vector["flags"].as_array();
        let flagged = |name| flags.is_some_and(|flags| flags.iter().any(|flag| flag == name));
        let expected = !flagged("reencoded_k") || flagged("low_order_A");
        let key = VoteKey(hex_of(&vector["key"]));
        let message = vector["msg"].as_str().unwrap().as_bytes();
        let accepted = accepts(&key, message, &hex_of(&vector["sig"]));
        assert_eq!(accepted, expected, "vector {}: {flags:?}", vector["number"]);
        refused += usize::from(!accepted);
    }
    assert!(vectors.len() >= 688, "{} vectors", vectors.len());
    assert!(refused >= 66 && refused < vectors.len(), "{refused} refused");
}
