//! The ledger as a pure function of its blocks: no clock, network, disk or thread.
//!
//! A [`Genesis`] founds it. A [`Block`] carries registrations and batches; [`verify()`] checks it on
//! top of a [`View`] of the state (Algorithm 2, repaired) and yields a [`Verified`] block, the only
//! thing [`State::apply`] takes. Inclusion proves acceptance: the header commits to what the rules
//! accepted. [`Witness`] turns final blocks into receipts, [`archive`] into a file, and [`audit`]
//! replays that file from genesis.

pub mod archive;
pub mod audit;
pub mod block;
pub mod genesis;
pub mod membership;
pub mod pool;
pub mod proof_tree;
pub mod receipts;
pub mod state;
pub mod transaction_batch;
pub mod verify;

pub use block::{Block, Transaction};
pub use genesis::{Genesis, GenesisError, Limits, Terms};
pub use pool::Pool;
pub use receipts::{FinalBlock, Witness};
pub use state::{Head, State, View};
pub use transaction_batch::{OpeningBatch, RequestBatch};
pub use verify::{Refusal, Verified, propose, verify};
