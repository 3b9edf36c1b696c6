//! How many seats a minority takes that votes as one.
//!
//! The providers with the highest numbers collude; the others vote for one another. Where nothing
//! else is said, who collude have the better of every tie: they are in office, the others are not.

use std::sync::OnceLock;

use bkss_ledger::{Members, Round, Rounds, genesis::Weighing};
use bkss_scheme::ProviderId;
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

use crate::consortium::Consortium;

/// Founders of a network with so many of them, and its first round.
fn founders(providers: usize) -> &'static (Members, Round) {
    static FOUNDERS: [OnceLock<(Members, Round)>; 65] = [const { OnceLock::new() }; 65];
    FOUNDERS[providers].get_or_init(|| {
        let count = u16::try_from(providers).unwrap();
        let genesis = Consortium::with(1, count, Rounds::default()).genesis;
        (Members::founders(&genesis), Round::first(&genesis))
    })
}

/// A round in which everybody votes.
#[derive(Clone, Debug)]
struct Poll {
    /// So many providers, and so many of them collude.
    providers: usize,
    colluders: usize,
    seats: usize,
    /// Meters that report, by provider; none where all votes weigh the same.
    meters: Vec<u32>,
    /// Whom each provider votes for.
    ballots: Vec<Vec<usize>>,
    /// Whether those who collude are in office, rather than the others.
    in_office: bool,
}

impl Poll {
    const fn honest(&self) -> usize {
        self.providers - self.colluders
    }

    /// What each vote weighs: its meters, no more than a third of all of them then, and no less than
    /// a quarter of the mean then.
    fn weights(&self) -> Vec<u64> {
        let meters = self.meters.iter().map(|meters| u64::from(*meters));
        let mut weights: Vec<u64> =
            meters.chain(std::iter::repeat(0)).take(self.providers).collect();
        let sum_below = |most: u64| weights.iter().map(|weight| (*weight).min(most)).sum::<u64>();
        let mut candidates: Vec<u64> = weights.clone();
        // Where the largest weight that keeps the rule is not one of them, two or one are above it.
        let mut sorted = weights.clone();
        sorted.sort_unstable();
        let below = |count: usize| sorted.iter().rev().skip(count).sum::<u64>();
        candidates.extend([below(1) / 2, below(2)]);
        let keeps = |most: &u64| 3 * most <= sum_below(*most);
        let most = candidates.into_iter().filter(keeps).max().unwrap_or(0);
        weights.iter_mut().for_each(|weight| *weight = (*weight).min(most));
        let least = weights.iter().sum::<u64>().div_ceil(4 * self.providers as u64).max(1);
        weights.iter_mut().for_each(|weight| *weight = (*weight).max(least));
        weights
    }

    /// How many seats those who collude take.
    fn taken(&self) -> usize {
        let (members, first) = founders(self.providers);
        let id = |provider: usize| ProviderId(u16::try_from(provider).unwrap());
        let mut round = first.clone();
        let meters = self.meters.iter().enumerate().filter(|(_, meters)| **meters > 0);
        round.weights = meters.map(|(provider, meters)| (id(provider), *meters)).collect();
        let ballots = self.ballots.iter().enumerate();
        round.votes = ballots
            .map(|(voter, picks)| (id(voter), picks.iter().copied().map(id).collect()))
            .collect();
        let key = round.nodes[0].1;
        let office =
            (0..self.providers).filter(|provider| self.colludes(*provider) == self.in_office);
        round.nodes = office.map(|provider| (id(provider), key)).collect();
        let rounds = Rounds { committee: u16::try_from(self.seats).unwrap(), ..Rounds::default() };
        let elected = round.elect(members, &rounds).nodes;
        assert_eq!(elected.len(), self.seats.min(self.providers));
        elected.iter().filter(|node| self.colludes(usize::from(node.0))).count()
    }

    const fn colludes(&self, provider: usize) -> bool {
        provider >= self.honest()
    }

    /// Share of the weight of those who collude, as a fraction.
    fn share(&self) -> (u64, u64) {
        let weights = self.weights();
        (weights[self.honest()..].iter().sum(), weights.iter().sum())
    }

    /// What the honest provider that the fewest trust has of the others' votes, and what those have.
    fn least_trusted(&self) -> (u64, u64) {
        let weights = self.weights();
        let honest = &self.ballots[..self.honest()];
        let support = |id: usize| {
            let voters = honest.iter().zip(&weights).filter(|(picks, _)| picks.contains(&id));
            voters.map(|(_, weight)| weight).sum::<u64>()
        };
        let least = (0..self.honest()).map(support).min().unwrap_or(0);
        (least, weights[..self.honest()].iter().sum())
    }

    /// Seats that those who collude get in any case, as the others are not enough, and at most all.
    fn within(&self, seats: u64) -> usize {
        let unfilled = self.seats.saturating_sub(self.honest());
        usize::try_from(seats).unwrap_or(usize::MAX).max(unfilled).min(self.colluders)
    }

    /// Their share of the seats, rounded up.
    fn rounded_up(&self) -> usize {
        let (of, all) = self.share();
        self.within((self.seats as u64 * of).div_ceil(all))
    }

    /// Their share of the seats and of as many more as there could be of groups of the others that
    /// are no larger than those who trust the least trusted.
    fn with_scatter(&self) -> usize {
        let ((of, all), (least, honest)) = (self.share(), self.least_trusted());
        let seats = u128::from(of) * (self.seats as u128 * u128::from(least) + u128::from(honest));
        let seats = seats.checked_div(u128::from(all) * u128::from(least));
        self.within(seats.map_or(u64::MAX, |seats| u64::try_from(seats).unwrap()))
    }

    /// Whether every honest provider has a larger part of the others' votes than those who collude
    /// have of all.
    fn overlaps(&self) -> bool {
        let ((of, all), (least, honest)) = (self.share(), self.least_trusted());
        u128::from(least) * u128::from(all) > u128::from(of) * u128::from(honest)
    }
}

/// How the honest name one another.
#[derive(Clone, Copy, Debug)]
enum Names {
    /// All of them.
    All,
    /// So many, the next ones.
    Next(usize),
    /// So many, drawn.
    Drawn(usize),
    /// Some number of them, drawn by each.
    Some,
    /// So many of all, those who collude among them, drawn.
    OfAll(usize),
}

/// How those who collude vote.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// For each other.
    EachOther,
    /// For the first of them, so many.
    First(usize),
    /// Each for the next of them, so many.
    Next(usize),
    /// In groups that vote for themselves.
    Groups(usize),
    /// Each for some of them, drawn.
    Drawn,
    /// Each for some of all, drawn.
    All,
    /// The last of them for some of the honest, the others for each other.
    Some(usize),
}

struct Draws(ChaCha8Rng);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.next_u64() % bound as u64).unwrap()
    }

    fn of(&mut self, mut from: Vec<usize>, count: usize) -> Vec<usize> {
        let count = count.min(from.len());
        for at in 0..count {
            let other = at + self.below(from.len() - at);
            from.swap(at, other);
        }
        from.truncate(count);
        from.sort_unstable();
        from
    }
}

fn honest_ballots(names: Names, poll: &Poll, draws: &mut Draws) -> Vec<Vec<usize>> {
    let (honest, most) = (poll.honest(), poll.honest() - 1);
    let ballot = |voter: usize| {
        let others = || (0..honest).filter(|other| *other != voter).collect();
        match names {
            Names::All => others(),
            Names::Next(count) => {
                let mut picks: Vec<_> =
                    (1..=count.min(most)).map(|step| (voter + step) % honest).collect();
                picks.sort_unstable();
                picks
            }
            Names::Drawn(count) => draws.of(others(), count.min(most)),
            Names::Some => {
                let count = 1 + draws.below(most);
                draws.of(others(), count)
            }
            Names::OfAll(count) => {
                draws.of((0..poll.providers).filter(|other| *other != voter).collect(), count)
            }
        }
    };
    (0..honest).map(ballot).collect()
}

fn colluders_ballots(plan: Plan, poll: &Poll, draws: &mut Draws) -> Vec<Vec<usize>> {
    let (honest, all) = (poll.honest(), poll.providers);
    let ballot = |voter: usize| {
        let others: Vec<_> = (honest..all).filter(|other| *other != voter).collect();
        let those = |which: &dyn Fn(&usize) -> bool| others.iter().copied().filter(which).collect();
        let mut picks: Vec<usize> = match plan {
            Plan::First(count) => those(&|other| *other < honest + count),
            Plan::Next(count) => (1..poll.colluders)
                .take(count)
                .map(|step| honest + (voter - honest + step) % poll.colluders)
                .collect(),
            Plan::Groups(groups) => those(&|other| other % groups == voter % groups),
            Plan::Drawn => {
                let count = 1 + draws.below(poll.colluders);
                draws.of(others, count)
            }
            Plan::All => {
                let count = 1 + draws.below(all);
                draws.of((0..all).filter(|other| *other != voter).collect(), count)
            }
            Plan::Some(count) if voter >= all - count.min(poll.colluders) => {
                draws.of((0..honest).collect(), poll.seats)
            }
            Plan::EachOther | Plan::Some(_) => others,
        };
        if picks.is_empty() {
            picks.push(0);
        }
        picks.sort_unstable();
        picks
    };
    (honest..all).map(ballot).collect()
}

fn plan() -> impl Strategy<Value = Plan> {
    prop_oneof![
        3 => Just(Plan::EachOther),
        2 => (1..21_usize).prop_map(Plan::First),
        2 => (1..21_usize).prop_map(Plan::Next),
        1 => (2..5_usize).prop_map(Plan::Groups),
        2 => Just(Plan::Drawn),
        1 => Just(Plan::All),
        1 => (1..8_usize).prop_map(Plan::Some),
    ]
}

/// A poll of which `names` says how the honest vote, given the seats; `weighing` how many meters
/// there are.
fn poll(
    names: impl Strategy<Value = Names> + 'static,
    weighing: Weighing,
) -> impl Strategy<Value = Poll> {
    let sizes = (4..=64_usize, 4..=21_usize, any::<prop::sample::Index>(), any::<bool>());
    (sizes, names, plan(), any::<bool>(), any::<u64>()).prop_map(
        move |(sizes, names, plan, in_office, seed)| {
            let (providers, seats, colluders, most) = sizes;
            let bound = (providers - 1) / 3;
            // As many as there may be in every second case.
            let colluders = if most { bound } else { 1 + colluders.index(bound) };
            let mut draws = Draws(ChaCha8Rng::seed_from_u64(seed));
            let mut poll = Poll {
                providers,
                colluders,
                seats,
                meters: Vec::new(),
                ballots: Vec::new(),
                in_office,
            };
            if weighing == Weighing::Meters {
                poll.meters = meters(&poll, &mut draws);
            }
            poll.ballots = honest_ballots(names, &poll, &mut draws);
            poll.ballots.extend(colluders_ballots(plan, &poll, &mut draws));
            poll
        },
    )
}

/// Meters of each provider: the honest have alike, more or fewer, or few of them nearly all; who
/// collude have none, as many, or very many.
fn meters(poll: &Poll, draws: &mut Draws) -> Vec<u32> {
    let usual = 1 + draws.below(1000);
    let kind = draws.below(3);
    let of = |provider: usize| match (poll.colludes(provider), kind, draws.below(4)) {
        (false, 0, _) => usual,
        (false, 1, _) => 1 + draws.below(usual),
        (false, _, 0) => usual * (1 + draws.below(30)),
        (false, _, _) | (true, _, 0) => draws.below(3),
        (true, _, 1) => usual,
        (true, _, _) => usual * (1 + draws.below(100)),
    };
    (0..poll.providers).map(of).map(|meters| u32::try_from(meters).unwrap()).collect()
}

/// Lists of one length.
fn lists_of_one_length() -> impl Strategy<Value = Names> {
    prop_oneof![(2..64_usize).prop_map(Names::Next), (2..64_usize).prop_map(Names::Drawn)]
}

fn weighing() -> impl Strategy<Value = Weighing> {
    prop_oneof![Just(Weighing::Members), Just(Weighing::Meters)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// What elections are for.
    #[test]
    fn where_each_names_all_whom_it_trusts_a_minority_takes_its_share_rounded_up(
        poll in weighing().prop_flat_map(|weighing| poll(Just(Names::All), weighing)),
    ) {
        prop_assert!(poll.taken() <= poll.rounded_up(), "{} seats", poll.taken());
    }

    /// Shorter lists do as well, as long as each honest provider is on enough of them.
    #[test]
    fn where_lists_overlap_a_minority_takes_its_share_rounded_up(
        poll in weighing().prop_flat_map(|weighing| poll(lists_of_one_length(), weighing)),
    ) {
        prop_assume!(poll.overlaps());
        prop_assert!(poll.taken() <= poll.rounded_up(), "{} seats", poll.taken());
    }

    #[test]
    fn a_minority_takes_its_share_and_that_of_what_the_others_scatter(
        poll in poll(lists_of_one_length(), Weighing::Members),
    ) {
        prop_assert!(poll.taken() <= poll.with_scatter(), "{} seats", poll.taken());
    }

    /// Where few have nearly all of the weight, one more: see the test below.
    #[test]
    fn where_votes_weigh_by_meters_it_takes_a_seat_more_at_most(
        poll in poll(lists_of_one_length(), Weighing::Meters),
    ) {
        prop_assert!(poll.taken() <= poll.with_scatter() + 1, "{} seats", poll.taken());
    }

    #[test]
    fn lists_of_different_lengths_cost_a_seat_more_at_most(
        poll in weighing().prop_flat_map(|weighing| poll(Just(Names::Some), weighing)),
    ) {
        prop_assert!(poll.taken() <= poll.with_scatter() + 1, "{} seats", poll.taken());
    }
}

/// Two of 28 with a sixteenth of the weight, beside four that have nearly all of the rest and name few:
/// two of twenty seats, one more than their share and that of what the others scatter.
#[test]
fn weight_that_few_have_costs_a_seat_more() {
    let meters = [
        1, 6210, 0, 2, 4485, 0, 1, 2, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 2, 2, 1, 0, 4140, 1380, 0,
        345, 345,
    ];
    let honest = 26;
    let names = |voter: usize| match voter {
        0..=21 => (voter + 1..voter + 5).collect(),
        // The next four, from the last on to the first.
        _ => {
            let mut names: Vec<_> = (1..5).map(|step| (voter + step) % honest).collect();
            names.sort_unstable();
            names
        }
    };
    let ballots = (0..honest).map(names).chain([vec![27], vec![26]]).collect();
    let meters = meters.to_vec();
    let poll = Poll { providers: 28, colluders: 2, seats: 20, meters, ballots, in_office: false };
    assert_eq!((poll.taken(), poll.with_scatter()), (2, 1));
}

fn drawn(seed: u64) -> Draws {
    Draws(ChaCha8Rng::seed_from_u64(seed))
}

/// Everybody votes, those who collude for each other, as many as there are seats.
fn against(providers: usize, colluders: usize, seats: usize, names: Names) -> Poll {
    let mut draws = drawn(1);
    let (meters, ballots) = (Vec::new(), Vec::new());
    let mut poll = Poll { providers, colluders, seats, meters, ballots, in_office: true };
    poll.ballots = honest_ballots(names, &poll, &mut draws);
    poll.ballots.extend(colluders_ballots(Plan::Next(seats), &poll, &mut draws));
    poll
}

/// Whose names are few, compared with how many there are to be named, scatters its votes: a minority
/// takes more than its share rounded up.
#[test]
fn votes_that_scatter_cost_seats() {
    for (providers, colluders, seats, names, taken, share) in [
        (64, 21, 21, 21, 7, 7),
        (64, 21, 21, 5, 8, 7),
        (64, 21, 21, 1, 20, 7),
        (64, 21, 5, 5, 3, 2),
        (64, 16, 4, 4, 4, 1),
        (32, 8, 4, 4, 2, 1),
    ] {
        let poll = against(providers, colluders, seats, Names::Next(names));
        let found = (poll.taken(), poll.rounded_up());
        assert_eq!(
            found,
            (taken, share),
            "{colluders} of {providers}, {seats} seats, {names} names"
        );
        assert!(taken <= poll.with_scatter());
        let whole = against(providers, colluders, seats, Names::All);
        assert!(whole.taken() <= share, "{} seats where all are named", whole.taken());
    }
}

/// Whoever names anybody names those who collude, too: they have the votes of the others like
/// everybody else, and each other's on top.
#[test]
fn votes_for_anybody_elect_whoever_colludes() {
    for (providers, colluders, seats, taken, share) in
        [(64, 16, 21, 15, 6), (64, 8, 21, 7, 3), (40, 10, 21, 10, 6), (30, 7, 21, 7, 5)]
    {
        for names in [seats, providers] {
            let poll = against(providers, colluders, seats, Names::OfAll(names));
            let found = (poll.taken(), poll.rounded_up());
            assert!(found.0 >= taken, "{found:?} of {seats} seats, {names} names");
            assert_eq!(found.1, share);
        }
    }
}
