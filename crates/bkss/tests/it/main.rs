//! The command line, end to end.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests"
)]

mod bench;
mod consortium;
mod crashes;
mod demo;
mod documents;
mod founding;
mod membership;
mod meters;
mod networks;
mod node;
mod offline;
mod providers;
mod relays;
mod replay;
mod rotation;
mod shared;
