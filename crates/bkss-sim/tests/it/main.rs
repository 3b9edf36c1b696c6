//! Models of the two rules everything rests on, explored exhaustively.
//!
//! A rule that cannot be broken in a model says something only if the model breaks when the rule
//! does: each test has its mutations, for which the checker must find the way to the break.

mod quorums;
mod release;
mod world;
