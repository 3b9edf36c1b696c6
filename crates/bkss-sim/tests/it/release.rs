//! A meter never releases a link while a request with it can still enter the ledger.
//!
//! The adversary has f members of the committee, all lines, every old proof and the meter's clock.
//! Windows and quorums are those of the scheme.

use bkss_scheme::{Committee, LedgerTime, LinkIndex, Slot, certificate::VoteKey, slot::Schedule};
use stateright::{Checker, Model, Property};

/// Slots of two seconds with windows of one: a slot has its window, and what is behind it.
const SCHEDULE: Schedule = Schedule { first: Slot(1), slot_s: 2, window_s: 1, slots: 3 };
/// The last second that matters: behind the last slot.
const END: u8 = 9;

/// When a meter shows the link of a slot.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Certified time is behind the window: ours.
    Certified,
    /// Certified time has reached the slot: a window too early.
    CertifiedStart,
    /// The meter's own clock is behind the window.
    OwnClock,
    /// As soon as the request is sent: the paper's.
    AtOnce,
}

struct Release {
    members: u8,
    faults: u8,
    /// Signatures a proof of time needs.
    quorum: u8,
    rule: Rule,
}

impl Release {
    fn ours(members: u8) -> Self {
        let keys = (0..members).map(|member| VoteKey([member; 32]));
        let committee = Committee::new(keys).expect("distinct keys");
        Self {
            members,
            faults: (members - 1) / 3,
            quorum: u8::try_from(committee.quorum()).expect("at most 32"),
            rule: Rule::Certified,
        }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct State {
    /// Time of the newest final block.
    ledger: u8,
    /// The meter's clock.
    clock: u8,
    /// The newest time it takes for certified.
    certified: u8,
    /// The newest index in its journal.
    reserved: u8,
    /// Slots it has signed in and not given up.
    pending: [bool; 3],
    /// Links that are public.
    released: [bool; 3],
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Action {
    /// The next block is final.
    Block,
    /// The adversary sets the meter's clock.
    SetClock(u8),
    /// A proof of this time arrives, new or old, true or under the adversary's signatures alone.
    Proof(u8),
    /// The meter signs in the slot its clock shows.
    Sign,
    /// The meter shows the links it may.
    Release,
    /// The meter loses power and with it everything but its journal.
    PowerCut,
}

impl Model for Release {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            ledger: 1,
            clock: 1,
            certified: 0,
            reserved: 0,
            pending: [false; 3],
            released: [false; 3],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.ledger < END {
            actions.push(Action::Block);
        }
        actions.extend((1..=END).map(Action::SetClock));
        actions.extend((1..=END).map(Action::Proof));
        actions.extend([Action::Sign, Action::Release, Action::PowerCut]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Block => state.ledger += 1,
            Action::SetClock(time) => state.clock = time,
            Action::Proof(time) => {
                // Honest members sign what has happened; the future has the liars' signatures only.
                let honest = self.members - self.faults;
                let signatures =
                    if time <= state.ledger { self.faults + honest } else { self.faults };
                if signatures < self.quorum {
                    return None;
                }
                state.certified = state.certified.max(time);
            }
            Action::Sign => {
                let index = SCHEDULE.index(SCHEDULE.slot_at(seconds(state.clock)))?;
                let fresh = index.get() > state.reserved.into();
                if !fresh || !SCHEDULE.accepts_request(index, seconds(state.clock)) {
                    return None;
                }
                state.reserved = u8::try_from(index.get()).ok()?;
                state.pending[index.get() as usize - 1] = true;
            }
            Action::Release => {
                for index in indices() {
                    let place = index.get() as usize - 1;
                    state.released[place] |= state.pending[place] && self.may(last, index);
                }
            }
            Action::PowerCut => {
                state.pending = [false; 3];
                state.certified = 0;
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no link while its window is open", |_, state: &State| {
                indices().all(|index| {
                    // Any later block may still be in the window until one is behind it.
                    let closed = SCHEDULE.closes(index) <= seconds(state.ledger);
                    let public = (index.get()..=3).any(|i| state.released[i as usize - 1]);
                    closed || !public
                })
            }),
            Property::sometimes("every link is shown at last", |_, state: &State| {
                state.released == [true; 3]
            }),
        ]
    }
}

impl Release {
    fn may(&self, state: &State, index: LinkIndex) -> bool {
        match self.rule {
            Rule::Certified => SCHEDULE.closes(index) <= seconds(state.certified),
            Rule::CertifiedStart => SCHEDULE.opens(index) <= seconds(state.certified),
            Rule::OwnClock => SCHEDULE.closes(index) <= seconds(state.clock),
            Rule::AtOnce => true,
        }
    }
}

fn seconds(time: u8) -> LedgerTime {
    LedgerTime::from_seconds(time.into())
}

fn indices() -> impl Iterator<Item = LinkIndex> {
    (1..=3).filter_map(|index| LinkIndex::new(index, 3))
}

const BREAK: &str = "no link while its window is open";

#[test]
fn no_link_is_public_while_its_window_is_open() {
    for members in [4, 7] {
        let checker = Release::ours(members).checker().spawn_bfs().join();
        checker.assert_properties();
        assert!(checker.unique_state_count() > 1_000, "{}", checker.unique_state_count());
    }
}

#[test]
fn a_rule_that_releases_early_is_found() {
    for rule in [Rule::CertifiedStart, Rule::OwnClock, Rule::AtOnce] {
        let model = Release { rule, ..Release::ours(4) };
        let checker = model.checker().spawn_bfs().join();
        let path = checker.discovery(BREAK).unwrap_or_else(|| panic!("{rule:?}"));
        assert!(path.into_actions().contains(&Action::Release), "{rule:?}");
    }
}

#[test]
fn a_proof_that_the_liars_can_sign_alone_is_found() {
    for members in [4, 7] {
        let ours = Release::ours(members);
        let model = Release { quorum: ours.faults, ..ours };
        let checker = model.checker().spawn_bfs().join();
        assert!(checker.discovery(BREAK).is_some(), "{members} members");
    }
}
