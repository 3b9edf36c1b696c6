//! What must never happen in a world, whatever goes wrong.
//!
//! Each invariant sees what providers, meters and the ledger show, and says at once when it does
//! not hold. They know nothing of faults but who is Byzantine.

mod ledger;
mod members;
mod meters;
mod votes;

use bkss_ledger::evidence::Offence;
use bkss_scheme::{Digest, LedgerTime, MeterId, ProviderId, Slot};

use super::link_of::LinkOf;

pub(super) use ledger::{InOrder, OneChain, SameState, later_time};
pub(super) use members::{
    Admitted, ChangedOnce, FewChanges, approved_members, every_meter_weighs, no_quarrel,
    true_offences,
};
pub(super) use meters::{
    ClosedWindow, Ended, Kept, OneChainASlot, OneOpening, OneValue, every_receipt, walked_once,
};
pub(super) use votes::OneVote;

/// An invariant that does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Violation {
    #[error("one-chain: provider {provider} has {found} at height {height}, others {expected}")]
    Fork { provider: usize, height: u64, expected: Digest, found: Digest },
    #[error("in-order: provider {provider} shows block {found}, at most {expected} is next")]
    Order { provider: usize, expected: u64, found: u64 },
    #[error("later-time: block {height} is of {found} ms, the one before of {before} ms")]
    Time { height: u64, before: LedgerTime, found: LedgerTime },
    #[error("same-state: provider {provider} at {height} has {found}, others {expected}")]
    State { provider: usize, height: u64, expected: Digest, found: Digest },
    #[error("one-opening: meter {meter} is opened twice in slot {slot}, second in block {height}")]
    SecondOpening { meter: MeterId, slot: Slot, height: u64 },
    #[error("one-chain-a-slot: meter {meter} has requests of two chains in slot {slot}")]
    SecondChain { meter: MeterId, slot: Slot },
    #[error("closed-window: {link} is shown at {known} ms, its window closes at {closes} ms")]
    EarlyLink { link: LinkOf, closes: LedgerTime, known: LedgerTime },
    #[error(
        "closed-window: a request with {link} entered block {height}, the link was public at {public}"
    )]
    LateRequest { link: LinkOf, height: u64, public: u64 },
    #[error("one-value: {0} signs twice")]
    SecondValue(LinkOf),
    #[error("walked-once: block {height} carries a link of meter {meter} that opens nothing")]
    ForeignLink { meter: MeterId, height: u64 },
    #[error("revoked-is-over: meter {meter} was revoked before block {height}, which has {what}")]
    AfterRevocation { meter: MeterId, height: u64, what: &'static str },
    #[error("never-locked: meter {0} is locked by what is not its registration")]
    Locked(MeterId),
    #[error("kept: {what} of {link} was accepted by provider {by} and is lost")]
    Lost { what: &'static str, link: LinkOf, by: usize },
    #[error("approved-members: provider {0} is a member, no quorum has approved it")]
    Member(ProviderId),
    #[error("approved-members: provider {0} is no member any more, nobody has decided so")]
    Gone(ProviderId),
    #[error("few-changes: provider {provider} makes {found} changes in a day")]
    Changes { provider: ProviderId, found: u32 },
    #[error("changed-once: block {height} has change {change}, which an earlier one has")]
    ChangedAgain { change: Digest, height: u64 },
    #[error(
        "every-meter-weighs: provider {provider} weighs {found} in round {round}, {expected} of its meters report"
    )]
    Weight { provider: ProviderId, round: u64, expected: u32, found: u32 },
    #[error("one-vote: honest provider {provider} votes twice in view {view} of round {round}")]
    SecondVote { provider: usize, round: u64, view: u64 },
    #[error("true-offences: honest provider {} is on record for view {} of round {}", .0.provider, .0.view, .0.epoch)]
    FalseOffence(Offence),
    #[error("no-quarrel: honest provider {by} has blocked {whom}, who is honest")]
    Quarrel { by: usize, whom: usize },
    #[error("clean-archive: archive of provider {provider}: {finding}")]
    Archive { provider: usize, finding: String },
    #[error("every-receipt: {0} is opened and has no receipt")]
    NoReceipt(LinkOf),
    #[error("valid-receipts: receipt of {link}: {finding}")]
    Receipt { link: LinkOf, finding: String },
    #[error("no-forgery: {who} takes {what}")]
    Forgery { who: &'static str, what: &'static str },
    #[error("progress: {0}")]
    Stuck(String),
}

impl Violation {
    /// The invariant's name.
    pub fn invariant(&self) -> String {
        self.to_string().split(':').next().unwrap_or_default().to_owned()
    }
}
