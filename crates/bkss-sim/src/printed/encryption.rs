//! `En(m)_PK`: the paper says secp256k1 and no more.
//!
//! Filled in: Diffie-Hellman with an ephemeral key, and the message under the key stream of the
//! shared point. The provider's key is static, and is the key it signs with.

use k256::{ProjectivePoint, PublicKey, SecretKey, elliptic_curve::sec1::ToSec1Point};

use super::scheme::{Hash, h};

/// `SK_SP`, `PK_SP`.
#[derive(Clone)]
pub(crate) struct KeyPair(SecretKey);

impl KeyPair {
    /// The key of a number.
    pub(crate) fn new(number: u8) -> Self {
        let secret = SecretKey::from_slice(&h(&[b"printed key", &[number]]));
        Self(secret.expect("a hash is below the group order but for 2^-128"))
    }

    /// `PK`.
    pub(crate) fn public(&self) -> PublicKey {
        self.0.public_key()
    }

    /// Decrypts; there is nothing to tell a right result from a wrong one.
    pub(crate) fn decrypt(&self, encrypted: &[u8]) -> Option<Vec<u8>> {
        let (point, message) = encrypted.split_at_checked(33)?;
        let point = PublicKey::from_sec1_bytes(point).ok()?;
        let shared = point.to_projective() * *self.0.to_nonzero_scalar();
        Some(mask(&key(shared), message))
    }
}

/// Encrypts to a key; `ephemeral` numbers the ephemeral key.
pub(crate) fn encrypt(to: &PublicKey, ephemeral: u8, message: &[u8]) -> Vec<u8> {
    let ephemeral = KeyPair::new(ephemeral);
    let shared = to.to_projective() * *ephemeral.0.to_nonzero_scalar();
    let mut encrypted = ephemeral.public().to_sec1_point(true).as_bytes().to_vec();
    encrypted.extend(mask(&key(shared), message));
    encrypted
}

fn key(shared: ProjectivePoint) -> Hash {
    h(&[shared.to_affine().to_sec1_point(true).as_bytes()])
}

fn mask(key: &Hash, message: &[u8]) -> Vec<u8> {
    let blocks = message.chunks(32).zip(0_u8..).flat_map(|(chunk, number)| {
        let stream = h(&[key, &[number]]);
        chunk.iter().zip(stream).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>()
    });
    blocks.collect()
}
