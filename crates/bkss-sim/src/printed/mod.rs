//! The scheme and the algorithms of the 2019 paper as printed, off-by-ones included: the negative
//! control of every attack.
//!
//! An attack that fails on our scheme shows nothing unless it succeeds where the hole is open. That
//! is what this module is for, and all it is for: it authenticates nothing, and no line of it may be
//! repaired. It takes nothing from the real scheme, and the compiler lets nobody but
//! [`super`], the attacks, see it.
//!
//! What the paper leaves open (how `T_s` and `En(m)` look, who shuffles how) is filled with the
//! simplest thing that fits its text and the sizes it counts; such places say so.

pub(super) mod accounting;
pub(super) mod consensus;
pub(super) mod election;
pub(super) mod encryption;
pub(super) mod scheme;
pub(super) mod validation;
