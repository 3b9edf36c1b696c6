//! HPKE against the vectors of RFC 9180, in the scheme's suite and mode.
//!
//! Used: base mode, X25519, HKDF-SHA256, exported values of the export-only suite (the scheme's)
//! and of ChaCha20-Poly1305. Not used: other modes, P-256 and AES, which are not compiled in, and
//! messages sealed by HPKE itself, which the scheme never does.

use std::convert::Infallible;

use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    aead::{Aead, ChaCha20Poly1305, ExportOnlyAead},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    setup_receiver, setup_sender_with_rng,
};
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;

use crate::shared::{family, hex, json};

#[test]
fn both_sides_export_the_known_values() {
    let Some(folder) = family("hpke-rfc9180") else { return };
    let (mut export_only, mut chacha) = (0, 0);
    for vector in json(&folder.join("vectors.json")).as_array().unwrap() {
        let [mode, kem, kdf, aead] =
            ["mode", "kem_id", "kdf_id", "aead_id"].map(|name| vector[name].as_u64().unwrap());
        match (mode, kem, kdf, aead) {
            (0, 0x20, 1, 0xFFFF) => export_only += exports::<ExportOnlyAead>(vector),
            (0, 0x20, 1, 3) => chacha += exports::<ChaCha20Poly1305>(vector),
            _ => (),
        }
    }
    assert!(export_only >= 3, "{export_only} values of the export-only suite");
    assert!(chacha >= 3, "{chacha} values of the suite with ChaCha20-Poly1305");
}

/// Checks both sides of one session and returns how many exported values it has.
fn exports<A: Aead>(vector: &Value) -> usize {
    let (info, encapsulated) = (hex(&vector["info"]), hex(&vector["enc"]));
    let secret = Deserializable::from_bytes(&hex(&vector["skRm"])).unwrap();
    let public = X25519HkdfSha256::sk_to_pk(&secret);
    assert_eq!(public.to_bytes()[..], hex(&vector["pkRm"]));

    let (sent, sender) = setup_sender_with_rng::<A, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &info,
        &mut Once(Some(hex(&vector["ikmE"]))),
    )
    .unwrap();
    assert_eq!(sent.to_bytes()[..], encapsulated);
    let receiver = setup_receiver::<A, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &Deserializable::from_bytes(&encapsulated).unwrap(),
        &info,
    )
    .unwrap();

    let exports = vector["exports"].as_array().unwrap();
    for export in exports {
        let context = hex(&export["exporter_context"]);
        let expected = hex(&export["exported_value"]);
        let (mut by_sender, mut by_receiver) = ([0; 32], [0; 32]);
        sender.export(&context, &mut by_sender).unwrap();
        receiver.export(&context, &mut by_receiver).unwrap();
        assert_eq!(by_sender[..], expected, "sender, context {context:02x?}");
        assert_eq!(by_receiver[..], expected, "receiver, context {context:02x?}");
    }
    exports.len()
}

/// Randomness that is known and asked for once: the key material of the ephemeral key.
struct Once(Option<Vec<u8>>);

impl TryRng for Once {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only bytes are asked for")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.take().unwrap());
        Ok(())
    }
}

impl TryCryptoRng for Once {}
