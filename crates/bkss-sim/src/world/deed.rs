//! What a Byzantine provider may do.

use super::dice::Dice;

/// A kind of lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deed {
    /// Says nothing in consensus.
    Silent,
    /// Says nothing at all, and swallows what meters leave at its gateway.
    Mute,
    /// Proposes a block to some and another valid one to the others.
    Equivocates,
    /// Proposes the time of its parent, or an earlier one.
    TimeBack,
    /// Proposes a time that is far ahead.
    TimeAhead,
    /// Proposes trees that its transactions do not come to.
    FalseTree,
    /// Proposes every transaction twice.
    Doubles,
    /// Proposes a block and does not show it.
    WithholdsBlock,
    /// Proposes a block without the bodies it commits to.
    WithholdsBodies,
    /// Votes for a random block beside its own vote.
    VotesTwice,
    /// Votes to end a view in which it also votes to finalize.
    VotesAgainstItself,
    /// Repeats old messages.
    Repeats,
    /// Sends bytes that are no message.
    Babbles,
    /// Its clock is wrong by so many seconds.
    WrongClock(i32),
    /// Its gateway holds openings back.
    HoldsBack,
    /// Votes for its own band alone where accounting nodes are elected.
    VotesForItsBand,
    /// Puts on the ledger's pools what no rule allows (see [`super::forger`]).
    Forges,
    /// Opens what others have requested, in batches without the bodies.
    BareBatches,
    /// Requests values made with links that it has invented, and opens them.
    InventsLinks,
    /// Fills the pools: many batches, of unknown chains, of nothing.
    Floods,
    /// Has chains registered, with the help of an SDI, that repeat what is public of others'.
    Impersonates,
    /// Changes its address again and again.
    ChangesItself,
}

/// All but the one with a number.
const PLAIN: [Deed; 21] = [
    Deed::Silent,
    Deed::Mute,
    Deed::Equivocates,
    Deed::TimeBack,
    Deed::TimeAhead,
    Deed::FalseTree,
    Deed::Doubles,
    Deed::WithholdsBlock,
    Deed::WithholdsBodies,
    Deed::VotesTwice,
    Deed::VotesAgainstItself,
    Deed::Repeats,
    Deed::Babbles,
    Deed::HoldsBack,
    Deed::VotesForItsBand,
    Deed::Forges,
    Deed::BareBatches,
    Deed::InventsLinks,
    Deed::Floods,
    Deed::Impersonates,
    Deed::ChangesItself,
];

impl Deed {
    /// Any of them.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let which = dice.place(PLAIN.len() + 1);
        PLAIN.get(which).copied().unwrap_or_else(|| {
            let seconds = i32::try_from(dice.within(1, 7200)).unwrap_or(1);
            Self::WrongClock(if dice.chance(500) { seconds } else { -seconds })
        })
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Mute => "mute",
            Self::Equivocates => "equivocates",
            Self::TimeBack => "time back",
            Self::TimeAhead => "time ahead",
            Self::FalseTree => "false tree",
            Self::Doubles => "doubles",
            Self::WithholdsBlock => "withholds blocks",
            Self::WithholdsBodies => "withholds bodies",
            Self::VotesTwice => "votes twice",
            Self::VotesAgainstItself => "votes against itself",
            Self::Repeats => "repeats",
            Self::Babbles => "babbles",
            Self::WrongClock(_) => "wrong clock",
            Self::HoldsBack => "holds back openings",
            Self::VotesForItsBand => "votes for its band",
            Self::Forges => "forges",
            Self::BareBatches => "batches without bodies",
            Self::InventsLinks => "invents links",
            Self::Floods => "floods",
            Self::Impersonates => "impersonates",
            Self::ChangesItself => "changes itself",
        }
    }

    /// Whether it is done with transactions alone, by [`super::rogue`].
    pub(super) const fn is_of_gateway(self) -> bool {
        matches!(
            self,
            Self::Forges
                | Self::BareBatches
                | Self::InventsLinks
                | Self::Floods
                | Self::Impersonates
                | Self::ChangesItself
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_deed_is_drawn() {
        let mut dice = Dice::new(3, 1);
        let drawn: BTreeSet<_> = (0..2000).map(|_| Deed::draw(&mut dice).name()).collect();
        assert_eq!(drawn.len(), PLAIN.len() + 1);
    }
}
