//! A service provider: the consensus engine, the store and the gateway of its meters.
//!
//! Beside the world of `bkss-sim` the only crate that names the engine's consensus (simplex and marshal
//! of commonware). [`node::start`] runs a
//! provider on any of the engine's runtimes; [`Consortium`] runs several of them in one process on
//! loopback TCP. The ledger's rules are in `bkss-ledger`; this crate brings them blocks.

pub mod api;
pub mod application;
#[cfg(test)]
#[path = "../../bkss-ledger/tests/it/blocks.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the ledger's tests")]
mod blocks;
pub mod chain;
pub mod clock;
pub mod config;
pub mod consortium;
pub mod delivery;
pub mod duties;
pub mod elector;
pub mod engine_block;
pub mod evidence;
#[cfg(test)]
#[path = "../../bkss-ledger/tests/it/consortium.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the ledger's tests")]
mod fixture;
pub mod gateway;
mod handshake;
pub mod journal;
pub mod lanes;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod node;
pub mod origin;
mod others;
pub mod plan;
pub mod process;
pub mod receipts;
pub mod records;
pub mod repair;
pub mod retention;
pub mod rounds;
pub mod service;
pub mod settings;
pub mod simulated;
pub mod snapshots;
pub mod status;
pub mod store;
pub mod turns;

pub use clock::LedgerClock;
pub use config::{Config, Pacing};
pub use consortium::Consortium;
pub use delivery::Event;
pub use gateway::Mailbox;
pub use message::{Answer, Message};
pub use status::Status;
