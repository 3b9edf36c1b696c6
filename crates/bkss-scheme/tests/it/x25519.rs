//! X25519 against Wycheproof, through a session of the scheme.
//!
//! The crate shows no shared secret. The test takes Wycheproof's, walks the key schedule of RFC
//! 9180 by hand and expects the slot key that [`OpeningSession`] derives, with Wycheproof's public
//! key in the place of the encapsulated one.

use bkss_scheme::{
    LinkIndex, Network,
    seal::{KeyId, OpeningKey, OpeningSession, SealError},
};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::shared::{each_wycheproof, hex_of};

const NETWORK: Network = Network([3; 16]);
const KEY: KeyId = KeyId(1);
const INDEX: u32 = 5;

/// Wycheproof leaves `acceptable` open. Here keys on the twist and in a second spelling are
/// accepted, and refused is exactly the shared secret of zeros that a key of small order gives.
#[test]
fn a_session_follows_from_the_known_shared_secret() {
    let index = LinkIndex::new(INDEX, 9).unwrap();
    let (mut opened, mut refused) = (0, 0);
    let ran = each_wycheproof("x25519_test.json", |_, test| {
        let (id, public) = (&test["tcId"], hex_of(&test["public"]));
        let shared: [u8; 32] = hex_of(&test["shared"]);
        let key = OpeningKey::from_bytes(KEY, hex_of(&test["private"]));
        let session = OpeningSession::start(NETWORK, &key, &public);
        if shared == [0; 32] {
            assert_eq!(session.err(), Some(SealError::Key), "test {id}");
            assert_eq!(test["result"], "acceptable", "test {id}");
            refused += 1;
        } else {
            let expected = slot_key(&shared, &public, &key.public().public);
            assert_eq!(session.unwrap().slot_key(index).as_bytes(), &expected, "test {id}");
            opened += 1;
        }
    });
    assert!(!ran || (opened >= 373 && refused >= 25));
}

/// The slot key of a Diffie-Hellman result (RFC 9180 s4.1, s5.1, s5.3).
fn slot_key(shared: &[u8; 32], encapsulated: &[u8; 32], recipient: &[u8; 32]) -> [u8; 32] {
    let kem = Labeled(b"KEM\x00\x20");
    let eae_prk = kem.extract(&[], b"eae_prk", shared);
    let shared_secret =
        kem.expand(&eae_prk, b"shared_secret", &[&encapsulated[..], recipient].concat());

    let suite = Labeled(b"HPKE\x00\x20\x00\x01\xFF\xFF");
    let info = [b"BKSS-v1 reading", &NETWORK.0[..], &KEY.0.to_be_bytes()].concat();
    let psk_id_hash = suite.extract(&[], b"psk_id_hash", &[]);
    let info_hash = suite.extract(&[], b"info_hash", &info);
    let context = [&[0][..], &psk_id_hash, &info_hash].concat();
    let secret = suite.extract(&shared_secret, b"secret", &[]);
    let exporter_secret = suite.expand(&secret, b"exp", &context);
    let label = [&b"bkss slot"[..], &INDEX.to_be_bytes()].concat();
    suite.expand(&exporter_secret, b"sec", &label)
}

/// `LabeledExtract` and `LabeledExpand` of a suite (RFC 9180 s4).
struct Labeled(&'static [u8]);

impl Labeled {
    fn extract(&self, salt: &[u8], label: &[u8], key_material: &[u8]) -> [u8; 32] {
        let labeled = [b"HPKE-v1", self.0, label, key_material].concat();
        Hkdf::<Sha256>::extract(Some(salt), &labeled).0.into()
    }

    fn expand(&self, key: &[u8; 32], label: &[u8], info: &[u8]) -> [u8; 32] {
        let labeled = [&[0, 32], &b"HPKE-v1"[..], self.0, label, info].concat();
        let mut output = [0; 32];
        Hkdf::<Sha256>::from_prk(key).unwrap().expand(&labeled, &mut output).unwrap();
        output
    }
}
