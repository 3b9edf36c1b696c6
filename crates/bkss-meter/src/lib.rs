//! The meter as a state machine that can lose power at any point.
//!
//! [`KeyStore`] derives the one-time links, [`Journal`] reserves an index in flash before anything
//! leaves, [`LedgerWatch`] knows which ledger time is certified, and [`Meter`] puts them together:
//! sign, submit, release (scheme s4.4, s4.6, s5).
//!
//! No allocator, no clock, no randomness of its own: time and generators are arguments.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod journal;
pub mod key_store;
pub mod ledger_time;
pub mod signer;

pub use journal::{Flash, Journal};
pub use key_store::KeyStore;
pub use ledger_time::LedgerWatch;
pub use signer::{Meter, Parameters};
