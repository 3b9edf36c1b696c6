//! The ledger as a pure function of its blocks: no clock, network, disk or thread.
//!
//! A [`Genesis`] founds it. A [`Block`] carries registrations and batches; [`verify()`] checks it on
//! top of a [`View`] of the state (Algorithm 2, repaired) and yields a [`Verified`] block, the only
//! thing [`State::apply`] takes. Inclusion proves acceptance: the header commits to what the rules
//! accepted. [`Witness`] turns final blocks into receipts, [`archive`] into a file, and [`audit`]
//! replays that file from genesis.

pub mod accounting_nodes;
pub mod activity;
pub mod archive;
pub mod audit;
pub mod beginning;
pub mod block;
pub mod candidate;
pub mod chain;
pub mod change;
mod election;
pub mod evidence;
pub mod execute;
pub mod genesis;
pub mod leader;
pub mod members;
pub mod membership;
pub mod pool;
pub mod proof_tree;
pub mod receipts;
mod registry;
pub mod revocation;
pub mod seal;
pub mod snapshot;
pub mod state;
pub mod transaction_batch;
pub mod trust;
pub mod verify;

pub use accounting_nodes::{Round, Vote};
pub use beginning::{Beginning, Boundary};
pub use block::{Block, Transaction};
pub use candidate::{Candidate, Checked};
pub use chain::{Chain, Live};
pub use change::Change;
pub use evidence::Evidence;
pub use genesis::{Genesis, GenesisError, Limits, Rounds, Terms};
pub use members::Members;
pub use pool::Pool;
pub use receipts::{FinalBlock, Witness};
pub use revocation::Revocation;
pub use snapshot::Snapshot;
pub use state::{Head, State, View};
pub use transaction_batch::{OpeningBatch, RequestBatch};
pub use trust::{Trust, TrustError};
pub use verify::{Refusal, Verified, build, propose, verify, verify_with};
