//! HKDF-SHA256, which makes the last link of a chain, against Wycheproof.

use hkdf::Hkdf;
use sha2::Sha256;

use crate::shared::{each_wycheproof, hex, valid};

#[test]
fn key_material_expands_to_its_known_bytes_or_not_at_all() {
    each_wycheproof("hkdf_sha256_test.json", |_, test| {
        let length = test["size"].as_u64().unwrap().try_into().unwrap();
        let mut output = vec![0; length];
        let expanded = Hkdf::<Sha256>::new(Some(&hex(&test["salt"])), &hex(&test["ikm"]))
            .expand(&hex(&test["info"]), &mut output);
        assert_eq!(expanded.is_ok(), valid(test), "test {}", test["tcId"]);
        if expanded.is_ok() {
            assert_eq!(output, hex(&test["okm"]), "test {}", test["tcId"]);
        }
    });
}
