//! Two quorums share an honest member, from view to view and from one round's committee to the next.
//!
//! Votes are counted, not named: honest members are alike, and liars add theirs to every side. The
//! rules are the engine's: one vote for a block per view, and either a vote to end the view or a
//! vote to finalize, never both; a view's block stands on a notarized one, or on nothing if all
//! views between were ended. The last block of a round names the next committee, which begins on it
//! once it is final.

use bkss_scheme::{Committee, certificate::VoteKey};
use stateright::{Checker, Model, Property};

/// Members of a committee, liars among them, and votes that decide.
#[derive(Clone, Copy, Debug)]
struct Body {
    members: u8,
    faults: u8,
    quorum: u8,
}

impl Body {
    fn ours(members: u8) -> Self {
        let keys = (0..members).map(|member| VoteKey([member; 32]));
        let quorum = Committee::new(keys).expect("distinct keys").quorum();
        Self {
            members,
            faults: (members - 1) / 3,
            quorum: u8::try_from(quorum).expect("at most 32"),
        }
    }

    /// `2f + 1`, the usual reading of the paper's rule.
    fn as_read(members: u8) -> Self {
        let ours = Self::ours(members);
        Self { quorum: 2 * ours.faults + 1, ..ours }
    }

    const fn honest(self) -> u8 {
        self.members - self.faults
    }

    /// Whether so many honest votes and all liars decide.
    const fn decides(self, honest: u8) -> bool {
        honest + self.faults >= self.quorum
    }
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutation {
    None,
    /// A member that voted to end a view still votes to finalize in it.
    FinalizesAfterEnding,
    /// The next committee begins on a block that is notarized only.
    BeginsOnNotarized,
}

struct Ledger {
    old: Body,
    /// The committee of the next round, if the model goes that far.
    next: Option<Body>,
    /// Whether there is a second view.
    second_view: bool,
    mutation: Mutation,
}

/// Honest votes. Blocks: A and B of the first view, C of the second on nothing.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Votes {
    notarize: [u8; 2],
    end: u8,
    finalize: [u8; 2],
    /// In the second view: on top of A, on top of B, C.
    second: [u8; 3],
    /// Of the next committee, on top of A, B, C.
    next: [u8; 3],
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Action {
    Notarize(usize),
    End,
    Finalize(usize),
    Second(usize),
    Next(usize),
}

impl Ledger {
    fn notarized(&self, votes: &Votes, block: usize) -> bool {
        match votes.notarize.get(block) {
            Some(honest) => self.old.decides(*honest),
            // C is a block of the second view: finalized or not at all here.
            None => self.is_final(votes, block),
        }
    }

    fn is_final(&self, votes: &Votes, block: usize) -> bool {
        let first = votes.finalize.get(block).is_some_and(|honest| self.old.decides(*honest));
        first || self.old.decides(votes.second[block])
    }

    fn may(&self, votes: &Votes, action: &Action) -> bool {
        let sum = |votes: &[u8]| votes.iter().sum::<u8>();
        let honest = self.old.honest();
        match action {
            Action::Notarize(_) => sum(&votes.notarize) < honest,
            Action::End | Action::Finalize(_) => {
                let first = match action {
                    Action::Finalize(block) => self.notarized(votes, *block),
                    _ => self.second_view,
                };
                let spent = if self.mutation == Mutation::FinalizesAfterEnding {
                    if *action == Action::End { votes.end } else { sum(&votes.finalize) }
                } else {
                    votes.end + sum(&votes.finalize)
                };
                first && spent < honest
            }
            Action::Second(block) => {
                let stands = if *block == 2 {
                    self.old.decides(votes.end)
                } else {
                    self.notarized(votes, *block)
                };
                self.second_view && stands && sum(&votes.second) < honest
            }
            Action::Next(block) => self.next.is_some_and(|next| {
                let begins = if self.mutation == Mutation::BeginsOnNotarized {
                    self.notarized(votes, *block)
                } else {
                    self.is_final(votes, *block)
                };
                // Each block names a committee of its own, so nobody's vote is spent on another.
                begins && votes.next[*block] < next.honest()
            }),
        }
    }
}

impl Model for Ledger {
    type State = Votes;
    type Action = Action;

    fn init_states(&self) -> Vec<Votes> {
        vec![Votes::default()]
    }

    fn actions(&self, votes: &Votes, actions: &mut Vec<Action>) {
        let blocks = (0..2).flat_map(|block| [Action::Notarize(block), Action::Finalize(block)]);
        let later = (0..3).flat_map(|block| [Action::Second(block), Action::Next(block)]);
        let all = blocks.chain(later).chain([Action::End]);
        actions.extend(all.filter(|action| self.may(votes, action)));
    }

    fn next_state(&self, last: &Votes, action: Action) -> Option<Votes> {
        let mut votes = last.clone();
        match action {
            Action::Notarize(block) => votes.notarize[block] += 1,
            Action::End => votes.end += 1,
            Action::Finalize(block) => votes.finalize[block] += 1,
            Action::Second(block) => votes.second[block] += 1,
            Action::Next(block) => votes.next[block] += 1,
        }
        Some(votes)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FORK, |model: &Self, votes: &Votes| {
                (0..3).filter(|block| model.is_final(votes, *block)).count() <= 1
            }),
            Property::always(HANDOVER, |model: &Self, votes: &Votes| {
                let Some(next) = model.next else { return true };
                let begun = (0..3).filter(|block| {
                    model.is_final(votes, *block) || next.decides(votes.next[*block])
                });
                begun.count() <= 1
            }),
            Property::sometimes("a block is final", |model: &Self, votes: &Votes| {
                (0..3).any(|block| model.is_final(votes, block))
            }),
            Property::sometimes("a block of the second view is final", |model: &Self, votes| {
                !model.second_view || model.is_final(votes, 2)
            }),
        ]
    }
}

const FORK: &str = "one block of a height is final";
const HANDOVER: &str = "one committee follows";

fn ledger(old: Body, next: Option<Body>) -> Ledger {
    Ledger { old, next, second_view: true, mutation: Mutation::None }
}

#[test]
fn two_quorums_share_an_honest_member_from_view_to_view() {
    for members in [4, 5, 7] {
        let checker = ledger(Body::ours(members), None).checker().spawn_bfs().join();
        checker.assert_properties();
        assert!(checker.unique_state_count() > 300, "{}", checker.unique_state_count());
    }
}

#[test]
fn one_committee_follows_another_of_any_size() {
    for (old, next) in [(4, 4), (4, 7), (5, 4)] {
        let model = ledger(Body::ours(old), Some(Body::ours(next)));
        model.checker().spawn_bfs().join().assert_properties();
    }
}

#[test]
fn fifteen_of_twenty_one_are_safe_and_thirteen_are_not() {
    let one_view = |old| Ledger { old, next: None, second_view: false, mutation: Mutation::None };
    one_view(Body::ours(21)).checker().spawn_bfs().join().assert_properties();
    let checker = one_view(Body::as_read(21)).checker().spawn_bfs().join();
    assert_eq!(Body::as_read(21).quorum, 13);
    let path = checker.discovery(FORK).expect("the fork of 13 of 21");
    // Seven honest votes and six liars on either side.
    let votes = path.into_states().last().cloned().unwrap();
    assert!(votes.notarize.iter().chain(&votes.finalize).all(|honest| *honest >= 7), "{votes:?}");
}

#[test]
fn two_f_plus_one_forks_where_n_is_not_three_f_plus_one() {
    for (members, forks) in [(4, false), (5, true), (6, true), (7, false)] {
        let model = ledger(Body::as_read(members), None);
        let found = model.checker().spawn_bfs().join().discovery(FORK).is_some();
        assert_eq!(found, forks, "{members} members");
    }
}

#[test]
fn broken_rules_of_voting_are_found() {
    let ours = || ledger(Body::ours(4), Some(Body::ours(4)));
    let model = Ledger { mutation: Mutation::FinalizesAfterEnding, ..ours() };
    assert!(model.checker().spawn_bfs().join().discovery(FORK).is_some(), "ends and finalizes");
    let model = Ledger { mutation: Mutation::BeginsOnNotarized, ..ours() };
    let checker = model.checker().spawn_bfs().join();
    assert!(checker.discovery(HANDOVER).is_some(), "begins on a notarized block");
}
