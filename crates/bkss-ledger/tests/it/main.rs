//! The ledger's rules, driven by real chains, real batches and real certificates.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod archive;
mod beginnings;
mod blocks;
mod changes;
mod consortium;
mod elections;
mod endings;
mod genesis;
mod growth;
mod handovers;
mod histories;
mod hostile_batches;
mod meter_model;
mod one_block_one_meter;
mod pool_law;
mod receipts;
mod rounds;
mod rules;
mod snapshots;
mod steps;
mod weights;
mod world;
