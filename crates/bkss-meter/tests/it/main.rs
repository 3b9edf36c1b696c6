//! The whole meter against certificates of a real committee.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod consortium;
mod ledger_time;
mod registration;
mod release;
mod signing;
