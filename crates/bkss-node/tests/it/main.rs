//! Whole nodes on the engine's deterministic runtime, and the engine's certificates without it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod api;
#[path = "../../../bkss-ledger/tests/it/blocks.rs"]
#[allow(dead_code, reason = "shared with the ledger's tests")]
mod blocks;
mod certificates;
#[path = "../../../bkss-ledger/tests/it/consortium.rs"]
#[allow(dead_code, reason = "shared with the ledger's tests")]
mod consortium;
mod faults;
mod gateway;
mod hostile_batches;
mod late;
mod members;
#[path = "../../../bkss-scheme/tests/it/mutation.rs"]
mod mutation;
mod network;
mod rounds;
mod simulation;
mod store;
mod survival;
mod voting;
