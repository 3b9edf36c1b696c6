//! From a sealed reading to the value that is put on the ledger (`p`, `q`: Eq 7, 8).
//!
//! `p` commits to the ciphertext and to the chain, not to the plaintext: the paper's `p = h(m)`
//! lets everybody find a reading by trying all values, and nobody check one without knowing it.

use crate::{
    Digest, Link, LinkIndex,
    hash::{Tag, hash},
};

/// Payload commitment `p = H(04 | mr | i | H(body))`.
#[inline]
pub fn commitment(root_message: &Digest, index: LinkIndex, body_hash: &Digest) -> Digest {
    hash(Tag::Commitment, &[&root_message.0, &index.get().to_be_bytes(), &body_hash.0])
}

/// Request value `q = H(03 | p | v_i)` (Eq 7): what is stamped while `v_i` is still secret.
#[inline]
pub fn request_value(commitment: &Digest, link: &Link) -> Digest {
    hash(Tag::Request, &[&commitment.0, link.as_bytes()])
}
