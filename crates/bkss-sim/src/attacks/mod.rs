//! Table 4 as executable attacks: each one run on the scheme as printed and on ours (scheme s7).
//!
//! Every attack is a function that reads like a short story. An attack on ours says nothing unless
//! the same attack succeeds where the hole is open, so where s7 marks a feature with +, it runs on
//! the printed scheme too and must succeed there. What needs machinery that is not there yet is
//! listed as not run, with the reason.

mod algorithm_3;
mod algorithms;
mod f1_impersonation;
mod f2_man_in_the_middle;
mod f3_replay;
mod f4_mutual_authentication;
mod f5_forward_secrecy;
mod f6_unknown_key_share;
mod f7_privacy;
mod f8_no_central_manager;
mod f9_tampering;
// Declared here so that nothing but the attacks can name it.
#[path = "../printed/mod.rs"]
mod printed;
pub mod weighing;

use std::{collections::BTreeMap, fmt::Display};

use bkss_ledger::{Refusal, Verified};

use crate::Broken;

/// A row of Table 4, or the algorithms, which the paper's table leaves out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "title() says what each is")]
pub enum Feature {
    F1,
    F2,
    F3,
    F4,
    F5,
    F6,
    F7,
    F8,
    F9,
    Algorithms,
}

impl Feature {
    /// All of them, in the table's order.
    pub const ALL: [Self; 10] = [
        Self::F1,
        Self::F2,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F9,
        Self::Algorithms,
    ];

    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::F2 => "F2",
            Self::F3 => "F3",
            Self::F4 => "F4",
            Self::F5 => "F5",
            Self::F6 => "F6",
            Self::F7 => "F7",
            Self::F8 => "F8",
            Self::F9 => "F9",
            Self::Algorithms => "Alg",
        }
    }

    /// What the paper claims.
    pub const fn title(self) -> &'static str {
        match self {
            Self::F1 => "withstands impersonation",
            Self::F2 => "withstands a man in the middle",
            Self::F3 => "withstands replay",
            Self::F4 => "mutual authentication without a trusted authority",
            Self::F5 => "forward secrecy",
            Self::F6 => "withstands unknown key share",
            Self::F7 => "strong privacy",
            Self::F8 => "no central manager",
            Self::F9 => "messages cannot be tampered with",
            Self::Algorithms => "Algorithms 1, 2, 3 agree on one chain",
        }
    }
}

/// How hard the random and exhaustive attacks try.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Random and bit-flipped reveals of T1.5.
    pub reveals: u32,
    /// Guesses per slot of the dictionary of T7.1.
    pub guesses: u32,
    /// Random subsets of T4.3.
    pub subsets: u32,
    /// T9.1 flips one bit of so many.
    pub every_bit: usize,
}

impl Effort {
    /// Seconds in a test build.
    pub const QUICK: Self = Self { reveals: 4_096, guesses: 2_000, subsets: 40, every_bit: 13 };
    /// A million where scheme s7 asks for many: all readings of 20 bits.
    pub const FULL: Self =
        Self { reveals: 1_000_000, guesses: 1_000_000, subsets: 1_000, every_bit: 1 };
}

/// What became of the attempts of one attack on one scheme.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tried {
    /// How often the adversary tried.
    pub attempts: u64,
    /// How often it got what it wanted.
    pub successes: u64,
    /// Why it did not, and how often.
    pub refusals: BTreeMap<String, u64>,
    /// What it got, or what else there is to say.
    pub remark: &'static str,
}

impl Tried {
    /// Nothing tried yet.
    fn new(remark: &'static str) -> Self {
        Self { remark, ..Self::default() }
    }

    /// Counts an attempt; `Ok` is a success of the adversary.
    fn attempt(&mut self, outcome: Result<(), impl Display>) {
        self.attempts += 1;
        match outcome {
            Ok(()) => self.successes += 1,
            Err(reason) => *self.refusals.entry(reason.to_string()).or_default() += 1,
        }
    }

    /// Counts an attempt that succeeds if `got` holds.
    fn attempt_if(&mut self, got: bool, otherwise: &str) {
        self.attempt(if got { Ok(()) } else { Err(otherwise) });
    }
}

/// One side of an attack.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Side {
    /// It was run.
    Tried(Tried),
    /// It was not, for this reason.
    NotRun(&'static str),
}

impl Side {
    /// The counts, if it was run.
    pub const fn tried(&self) -> Option<&Tried> {
        match self {
            Self::Tried(tried) => Some(tried),
            Self::NotRun(_) => None,
        }
    }

    /// Whether the adversary got through.
    pub fn broken(&self) -> Option<bool> {
        self.tried().map(|tried| tried.successes > 0)
    }
}

impl From<Tried> for Side {
    fn from(tried: Tried) -> Self {
        Self::Tried(tried)
    }
}

/// An attack and how it ended.
#[derive(Clone, Debug)]
pub struct Attack {
    /// Number in scheme s7.
    pub test: &'static str,
    /// Row of Table 4.
    pub feature: Feature,
    /// What the adversary does.
    pub what: &'static str,
    /// The flaw it uses, by its number in scheme s3; empty if it tries what cannot work.
    pub flaw: &'static str,
    /// On the scheme as printed.
    pub printed: Side,
    /// On ours.
    pub ours: Side,
}

type Story = fn(&Effort) -> Result<Attack, Broken>;

/// Runs every attack, in the order of the table.
///
/// # Errors
///
/// [`Broken`] if a scene does not stand, which is an error of this program.
pub fn run_all(effort: &Effort) -> Result<Vec<Attack>, Broken> {
    stories().into_iter().map(|story| story(effort)).collect()
}

fn stories() -> Vec<Story> {
    [
        &f1_impersonation::STORIES[..],
        &f2_man_in_the_middle::STORIES,
        &f3_replay::STORIES,
        &f4_mutual_authentication::STORIES,
        &f5_forward_secrecy::STORIES,
        &f6_unknown_key_share::STORIES,
        &f7_privacy::STORIES,
        &f8_no_central_manager::STORIES,
        &f9_tampering::STORIES,
        &algorithms::STORIES,
        &algorithm_3::STORIES,
    ]
    .concat()
}

/// A row of Table 4, counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Score {
    /// Attacks that were run.
    pub run: usize,
    /// Those that got through.
    pub broken: usize,
    /// Single attempts in them.
    pub attempts: u64,
}

/// How a feature fared: as printed, and ours.
pub fn score(attacks: &[Attack], feature: Feature) -> [Score; 2] {
    let mut scores = [Score::default(); 2];
    for attack in attacks.iter().filter(|attack| attack.feature == feature) {
        for (score, side) in scores.iter_mut().zip([&attack.printed, &attack.ours]) {
            if let Some(tried) = side.tried() {
                score.run += 1;
                score.broken += usize::from(tried.successes > 0);
                score.attempts += tried.attempts;
            }
        }
    }
    scores
}

/// `Ok` if a block was accepted in which an opening was.
fn opened(verdict: Result<Verified, Refusal>) -> Result<(), String> {
    accepted(verdict, |verified| verified.openings().len())
}

/// `Ok` if a block was accepted in which a request was.
fn requested(verdict: Result<Verified, Refusal>) -> Result<(), String> {
    accepted(verdict, |verified| verified.requests().len())
}

fn accepted(
    verdict: Result<Verified, Refusal>,
    items: impl Fn(&Verified) -> usize,
) -> Result<(), String> {
    let verified = verdict.map_err(|refusal| refusal.to_string())?;
    if items(&verified) > 0 {
        return Ok(());
    }
    let skipped = verified.skipped().first().map(|skipped| skipped.reason.to_string());
    Err(skipped.unwrap_or_else(|| "nothing was accepted".to_owned()))
}

#[cfg(test)]
mod tests;
