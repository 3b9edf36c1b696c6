//! Models of the two rules everything rests on, explored exhaustively; worlds of many seeds, and the
//! bugs that they must find.
//!
//! A rule that cannot be broken in a model says something only if the model breaks when the rule
//! does: each test has its mutations, for which the checker must find the way to the break.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod planted;
mod quorums;
mod release;
mod world;
