//! What the crate promises, checked against known bytes and over generated inputs.

#![cfg(test)]

mod appendix_a;
mod chacha20_poly1305;
mod ecdsa;
mod ed25519;
mod finality;
mod hkdf_sha256;
mod hpke_rfc9180;
mod merkle_rfc9162;
mod mutation;
mod receipt;
mod sha256;
mod shared;
mod survival;
mod x25519;
