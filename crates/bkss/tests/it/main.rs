//! The command line, end to end.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;
mod consortium;
mod demo;
mod founding;
mod membership;
mod node;
mod offline;
mod shared;
