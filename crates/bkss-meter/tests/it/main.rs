//! The whole meter against certificates of a real committee.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod consortium;
mod ledger_time;
#[path = "../../../bkss-scheme/tests/it/mutation.rs"]
mod mutation;
mod registration;
mod release;
mod signing;
mod survival;
