//! The ledger's rules, driven by real chains, real batches and real certificates.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod archive;
mod beginnings;
mod changes;
mod consortium;
mod endings;
mod genesis;
mod receipts;
mod rounds;
mod rules;
mod snapshots;
