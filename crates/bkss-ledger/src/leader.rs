//! Algorithm 1 as repaired: whose turn it is to lead (B8).
//!
//! The printed algorithm elects a candidate by unsigned votes after random time-outs; a Byzantine
//! candidate stays leader. Here the turns of a round are known when it begins: a tenure is a term
//! of views, and the accounting nodes lead in the order that was drawn for the round. A silent
//! leader is voted out of its view by a quorum, which the engine does, and the next one follows.

use bkss_scheme::{ProviderId, certificate::VoteKey};

use crate::accounting_nodes::Round;

/// The tenure that a view belongs to, counted from 1; view 0, the end of the round before, is a
/// tenure of its own.
pub fn tenure_of(view: u64, tenure_views: u32) -> u64 {
    view.div_ceil(u64::from(tenure_views.max(1)))
}

/// Who leads in a tenure of a round; `None` if the round has no accounting nodes.
pub fn leader_of_tenure(round: &Round, tenure: u64) -> Option<(ProviderId, VoteKey)> {
    let turn = tenure.checked_rem(round.nodes.len() as u64)?;
    round.nodes.get(usize::try_from(turn).ok()?).copied()
}

/// Who leads in a view of a round.
pub fn leader_of(round: &Round, view: u64, tenure_views: u32) -> Option<(ProviderId, VoteKey)> {
    leader_of_tenure(round, tenure_of(view, tenure_views))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenures_are_terms_of_views() {
        for (view, views, tenure) in
            [(0, 1, 0), (1, 1, 1), (7, 1, 7), (0, 5, 0), (1, 5, 1), (5, 5, 1), (6, 5, 2)]
        {
            assert_eq!(tenure_of(view, views), tenure, "view {view} of tenures of {views}");
        }
    }
}
