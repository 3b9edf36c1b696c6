//! The command line, end to end.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;
mod consortium;
mod crashes;
mod demo;
mod founding;
mod membership;
mod networks;
mod node;
mod offline;
mod providers;
mod replay;
mod shared;
