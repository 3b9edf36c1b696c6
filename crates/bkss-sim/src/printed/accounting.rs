//! Algorithm 3 as printed: which providers keep the accounts of a round.

use super::scheme::h;

/// Accounting nodes of a round.
pub(crate) const SEATS: usize = 21;

/// What a provider declares and votes.
#[derive(Clone, Debug)]
pub(crate) struct Ballot {
    /// `N_i`: how many meters it says it has. Nobody checks.
    pub(crate) meters: u64,
    /// Whom it votes for; each of them gets all of `N_i`.
    pub(crate) votes: Vec<usize>,
}

/// The providers with the most votes.
pub(crate) fn elected(ballots: &[Ballot]) -> Vec<usize> {
    let mut tally: Vec<(u64, usize)> = (0..ballots.len()).map(|node| (0, node)).collect();
    for ballot in ballots {
        for node in &ballot.votes {
            tally[*node].0 += ballot.meters;
        }
    }
    tally.sort_by_key(|(votes, node)| (std::cmp::Reverse(*votes), *node));
    tally.into_iter().take(SEATS).map(|(_, node)| node).collect()
}

/// The order in which they lead: each node shuffles "randomly" on its own; `coin` is its coin.
pub(crate) fn shuffled(mut seats: Vec<usize>, coin: u64) -> Vec<usize> {
    seats.sort_by_key(|node| h(&[&coin.to_be_bytes(), &node.to_be_bytes()]));
    seats
}
