//! Signatures of SPs and SDIs against Wycheproof: secp256k1 with SHA-256.
//!
//! The scheme has one spelling, `r | s` of 64 bytes with low `s`. Wycheproof's plain files call
//! high `s` valid; here it is refused as not canonical, which is asserted case by case. A key has one
//! spelling too, the compressed one.

use bkss_scheme::{
    PublicKey, SecretKey, Signature, hash,
    identity::SignatureError::{self, Mismatch, NoPoint, NotCanonical},
};
use serde_json::Value;

use crate::shared::{each_wycheproof, hex, hex_of, valid};

/// `N`, the order of the group.
const ORDER: [u8; 32] = *b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE\
    \xBA\xAE\xDC\xE6\xAF\x48\xA0\x3B\xBF\xD2\x5E\x8C\xD0\x36\x41\x41";
/// `floor(N / 2)`: the largest low `s`.
const HALF: [u8; 32] = *b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\
    \x5D\x57\x6E\x73\x57\xA4\x50\x1D\xDF\xE9\x2F\x46\x68\x1B\x20\xA0";

#[test]
fn signatures_of_64_bytes_hold_exactly_in_their_low_spelling() {
    let mut high = 0;
    let ran = each_wycheproof("ecdsa_secp256k1_sha256_p1363_test.json", |group, test| {
        match hex(&test["sig"]).try_into() {
            Ok(bytes) => high += usize::from(check(group, test, bytes, valid(test))),
            Err(_) => assert!(!valid(test), "test {} has no 64 bytes", test["tcId"]),
        }
    });
    assert!(!ran || high >= 57, "{high} valid with high s");
}

#[test]
fn bitcoin_signatures_hold_exactly_as_bitcoin_says() {
    let mut high = 0;
    let ran = each_wycheproof("ecdsa_secp256k1_sha256_bitcoin_test.json", |group, test| {
        // Bitcoin refuses high s as well: the one case that is invalid for no other reason.
        let malleable = test["flags"][0] == "SignatureMalleabilityBitcoin";
        if let Some(bytes) = from_der(test) {
            high += usize::from(check(group, test, bytes, valid(test) || malleable));
        }
    });
    assert!(!ran || high == 1, "{high} signatures of high s alone");
}

#[test]
fn der_signatures_hold_exactly_in_their_low_spelling() {
    let mut high = 0;
    let ran = each_wycheproof("ecdsa_secp256k1_sha256_test.json", |group, test| {
        if let Some(bytes) = from_der(test) {
            high += usize::from(check(group, test, bytes, valid(test)));
        }
    });
    assert!(!ran || high >= 1, "{high} valid with high s");
}

#[test]
fn a_key_has_one_spelling() {
    for byte in 1..=4 {
        let secret = SecretKey::from_bytes(&[byte; 32]).unwrap();
        let digest = hash::plain(b"message");
        let signature = secret.sign(&digest);
        for tag in 0..=255 {
            let mut key = secret.public();
            let own = key.0[0] == tag;
            key.0[0] = tag;
            let expected = match tag {
                _ if own => Ok(()),
                2 | 3 => Err(Mismatch),
                _ => Err(NoPoint),
            };
            assert_eq!(key.verify(&digest, &signature), expected, "key {byte}, tag {tag}");
        }
    }
}

/// Checks one signature, which `matches` key and message if high `s` is allowed. True if it does
/// and is high.
fn check(group: &Value, test: &Value, bytes: [u8; 64], matches: bool) -> bool {
    let (r, s) = bytes.split_at(32);
    let in_range = [r, s].iter().all(|scalar| **scalar != [0; 32] && **scalar < ORDER[..]);
    let expected = match (in_range && *s <= HALF[..], matches) {
        (false, _) => Err(NotCanonical),
        (true, false) => Err(Mismatch),
        (true, true) => Ok(()),
    };
    let digest = hash::plain(&hex(&test["msg"]));
    let found: Result<(), SignatureError> = key(group).verify(&digest, &Signature(bytes));
    assert_eq!(found, expected, "test {}: {}", test["tcId"], test["comment"]);
    matches && expected.is_err()
}

/// The group's key, compressed.
fn key(group: &Value) -> PublicKey {
    let uncompressed: [u8; 65] = hex_of(&group["publicKey"]["uncompressed"]);
    let mut bytes = [0; 33];
    bytes[0] = 2 + (uncompressed[64] & 1);
    bytes[1..].copy_from_slice(&uncompressed[1..33]);
    PublicKey(bytes)
}

/// `r | s` of a DER signature; `None` for what is no DER of two scalars, which must be invalid.
fn from_der(test: &Value) -> Option<[u8; 64]> {
    let signature = k256::ecdsa::Signature::from_der(&hex(&test["sig"])).ok();
    assert!(signature.is_some() || !valid(test), "test {} does not parse", test["tcId"]);
    signature.map(|signature| signature.to_bytes().into())
}
