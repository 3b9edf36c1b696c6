//! The keyless signature scheme: what all parties agree on, byte for byte.
//!
//! A meter holds a hash chain (`v_i`) under a Merkle tree (`r`). In slot `i` it commits to a sealed
//! reading with the link `v_i` of that slot (`q`), has the commitment put on the ledger, and shows
//! `v_i` once no further commitment of that slot can be accepted. Everybody can then check the
//! reading with hashes alone.
//!
//! | paper | here |
//! |---|---|
//! | `h(*)` | [`hash`]: tagged SHA-256 |
//! | `v_n .. v_0` (Eq 1, 2) | [`Link`], [`hash_chain`] |
//! | `r`, `C_i` (Eq 3, 4) | [`merkle`] |
//! | `t_0`, `T_inter`, `t = t_0 + i - 1` | [`slot`] |
//! | `M_ident` (Eq 5) | [`ProviderIdentity`] |
//! | `M_r` (Eq 6), `ID_SM` | [`RootMessage`], [`MeterId`] |
//! | `p`, `q` (Eq 7, 8) | [`request`] |
//! | `En(m)`, `m` | [`seal`], [`Reading`] |
//! | block header (Table 3) | [`Header`] |
//! | `Validated`, `Committed` | [`Certificate`]: the engine's votes and certificates |
//! | `T_s` | [`Timestamp`] |
//! | `Sig_m`, `Trans` (Eq 9, 10, Table 2) | [`Opening`] |
//!
//! This crate allocates nothing and knows no clock, socket or disk. It runs in meters.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod certificate;
pub mod codec;
pub mod finality;
pub mod handover;
pub mod hash;
pub mod hash_chain;
pub mod head;
pub mod header;
pub mod identity;
pub mod merkle;
pub mod reading;
pub mod receipt;
pub mod request;
pub mod root_message;
pub mod seal;
pub mod slot;
pub mod timestamp;
pub mod transaction;

pub use certificate::{Certificate, Committee};
pub use codec::Malformed;
pub use finality::{Certified, Era, Eras};
pub use handover::Handover;
pub use hash::Digest;
pub use hash_chain::{Link, LinkIndex, Salt};
pub use head::Head;
pub use header::{Header, TreeHead};
pub use identity::{
    MeterId, Network, ProviderId, ProviderIdentity, PublicKey, SdiId, SdiIdentity, SecretKey,
    Signature,
};
pub use reading::Reading;
pub use root_message::RootMessage;
pub use slot::{LedgerTime, Slot};
pub use timestamp::Timestamp;
pub use transaction::Opening;
