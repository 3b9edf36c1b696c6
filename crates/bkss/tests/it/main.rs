//! The command line, end to end.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests"
)]

mod auditing;
mod bench;
mod consortium;
mod crashes;
mod demo;
mod deploy;
mod documents;
mod files;
mod founding;
mod heads;
mod membership;
mod meters;
mod networks;
mod node;
mod objects;
mod offline;
mod opening;
mod providers;
mod relays;
mod replay;
mod rotation;
mod shared;
mod sim;
