//! The paper, executed: printed beside ours, attacked, counted, measured, modelled.
//!
//! | paper | here |
//! |---|---|
//! | the scheme of s3, Algorithms 1, 2, 3 as printed | `printed`, seen by the attacks alone |
//! | Table 4, F1 to F9 | [`attacks`] |
//! | the numbers of Tables 4, 6, 7, 8 | [`tables`] |
//! | Eq 11 to 14 | [`formulas`] |
//!
//! [`world`] runs whole consortia in virtual time by seed.
//!
//! Nothing in the product depends on this crate but the command line's `bkss paper` and `bkss sim`.
//! Time is an argument here as everywhere: measurements are given a clock.

pub mod attacks;
pub mod formulas;
pub mod measure;
pub mod paper;
pub mod report;
pub mod scale;
mod scene;
pub mod tables;
pub mod world;

pub use scene::Broken;
