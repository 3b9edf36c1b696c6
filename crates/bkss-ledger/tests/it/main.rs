//! The ledger's rules, driven by real chains, real batches and real certificates.

mod archive;
mod consortium;
mod receipts;
mod rules;
