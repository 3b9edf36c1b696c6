//! How seats are shared: bounds of weights, and a proportional election, in integers.
//!
//! This module knows nothing of rounds, members or transactions.

use bkss_scheme::ProviderId;

/// The load of a seat, in parts so fine that division loses nothing that counts.
const SEAT: u128 = 1 << 64;

/// The most that a vote may weigh: the largest number such that nobody has more than a third of
/// what all then have together.
pub(crate) fn cap(weights: impl Iterator<Item = u32>) -> u32 {
    let mut sorted: Vec<u64> = weights.map(u64::from).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let below = |from: usize| sorted.iter().skip(from).sum::<u64>();
    let nth = |n: usize| sorted.get(n).copied().unwrap_or(0);
    // With one voter at the cap c <= rest / 2, with two c <= rest, with three it holds by itself.
    let cap = if below(1) / 2 >= nth(1) {
        nth(0).min(below(1) / 2)
    } else if below(2) >= nth(2) {
        nth(1).min(below(2))
    } else {
        nth(2)
    };
    u32::try_from(cap).unwrap_or(u32::MAX)
}

/// Parts of the mean that a vote weighs at least.
const FLOOR: u64 = 4;

/// Weights within their bounds: at most a third of all, at least a quarter of the mean; all the same
/// where nobody has any.
pub(crate) fn bounded(mut weights: Vec<u32>) -> Vec<u32> {
    let most = cap(weights.iter().copied());
    weights.iter_mut().for_each(|weight| *weight = (*weight).min(most));
    let sum = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>();
    let least = sum.div_ceil(FLOOR * (weights.len() as u64).max(1)).max(1);
    let least = u32::try_from(least).unwrap_or(u32::MAX);
    weights.iter_mut().for_each(|weight| *weight = (*weight).max(least));
    weights
}

/// A provider that may be elected.
pub(crate) struct Candidate {
    /// The provider.
    pub(crate) id: ProviderId,
    /// Positions of those that vote for it.
    pub(crate) voters: Vec<usize>,
}

/// A proportional election, Phragmén's sequential method: each seat is a load of one that those who
/// elect it bear together, each by its weight, and the next seat goes to whom the voters can bear
/// with the least load on any of them. A minority gets its share of the seats, rounded up where the
/// others' lists fall apart into groups that share nobody.
///
/// Candidates come in the order that decides between equals; the first `places` are returned as they
/// are elected, then the others.
pub(crate) fn proportional(
    weights: &[u32],
    mut candidates: Vec<Candidate>,
    places: usize,
) -> Vec<ProviderId> {
    let mut loads = vec![0_u128; weights.len()];
    // A load is at most one per seat and unit of weight: below 2^70, and the sum below 2^112.
    let load = |candidate: &Candidate, loads: &[u128]| {
        let (sum, weight) = candidate.voters.iter().fold((SEAT, 0), |(sum, all), voter| {
            let weight = u128::from(weights[*voter]);
            (sum + weight * loads[*voter], all + weight)
        });
        sum.checked_div(weight)
    };
    let mut elected = Vec::new();
    while elected.len() < places {
        let next =
            (0..candidates.len()).filter_map(|at| Some((load(&candidates[at], &loads)?, at))).min();
        let Some((borne, at)) = next else { break };
        let Candidate { id, voters } = candidates.remove(at);
        voters.into_iter().for_each(|voter| loads[voter] = borne);
        elected.push(id);
    }
    elected.extend(candidates.into_iter().map(|candidate| candidate.id));
    elected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_weighs_more_than_a_third_of_all() {
        for (weights, expected) in [
            (vec![], 0),
            (vec![9], 0),
            (vec![9, 9], 0),
            (vec![5, 5, 5], 5),
            (vec![900, 1, 1], 1),
            (vec![900, 10, 10, 10], 15),
            (vec![900, 800, 10, 10], 20),
            (vec![900, 800, 700, 1], 701),
            (vec![3, 3, 3, 3], 3),
        ] {
            let found = cap(weights.iter().copied());
            assert_eq!(found, expected, "{weights:?}");
            let sum = |cap: u32| weights.iter().map(|w| u64::from(*w.min(&cap))).sum::<u64>();
            assert!(3 * u64::from(found) <= sum(found), "{weights:?}");
            let most = weights.iter().copied().max().unwrap_or(0);
            assert!(found == most || 3 * u64::from(found + 1) > sum(found + 1), "{weights:?}");
        }
    }

    /// Voters `0..voters` of weight 1 vote for these; the elected, in their order.
    fn elect(ballots: &[Vec<u16>], of: u16, seats: usize) -> Vec<u16> {
        let voters =
            |id: u16| (0..ballots.len()).filter(|voter| ballots[*voter].contains(&id)).collect();
        let candidates =
            (0..of).map(|id| Candidate { id: ProviderId(id), voters: voters(id) }).collect();
        let ranked = proportional(&vec![1; ballots.len()], candidates, seats);
        assert_eq!(ranked.len(), usize::from(of));
        ranked[..seats].iter().map(|id| id.0).collect()
    }

    #[test]
    fn seats_are_shared_in_proportion() {
        // The textbook's case: two of three voters share two of three seats.
        let ballots = [vec![0, 1, 2], vec![0, 1, 2], vec![3, 4, 5]];
        let elected = elect(&ballots, 6, 3);
        assert_eq!(elected.iter().filter(|id| **id < 3).count(), 2, "{elected:?}");
        // Of fifteen that vote for fifteen of their own and thirty-five that spread their votes, in
        // lists that overlap.
        for spread in [1, 2, 3, 4, 6, 8, 9_u16] {
            let ballots: Vec<Vec<u16>> = (0..50_u16)
                .map(|voter| match voter {
                    35.. => (35..50).filter(|id| *id != voter).collect(),
                    _ => (1..=21)
                        .map(|k| (voter + k * spread) % 35)
                        .filter(|id| *id != voter)
                        .collect(),
                })
                .collect();
            let minority = elect(&ballots, 50, 21).iter().filter(|id| **id >= 35).count();
            assert_eq!(minority, 6, "spread {spread}");
        }
        // Who concentrates on fewer gets no more either.
        for targets in 1..15_u16 {
            let ballots: Vec<Vec<u16>> = (0..50_u16)
                .map(|voter| match voter {
                    35.. => (35..35 + targets).filter(|id| *id != voter).collect(),
                    _ => (1..=21).map(|k| (voter + k) % 35).collect(),
                })
                .collect();
            let minority = elect(&ballots, 50, 21).iter().filter(|id| **id >= 35).count();
            assert!(minority <= 6, "{targets} targets: {minority}");
        }
    }
}
