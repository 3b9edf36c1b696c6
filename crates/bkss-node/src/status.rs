//! What a node knows of itself: for operators, metrics and health checks.
//!
//! Readers never wait for consensus: everything is a copy behind a short lock.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bkss_ledger::{Head, State};
use bkss_scheme::{Digest, LedgerTime, ProviderId};

use crate::others::{Change, Others};

/// A node's condition at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Height of the newest block applied.
    pub height: u64,
    /// Its id.
    pub head: Digest,
    /// Its ledger time.
    pub head_time: LedgerTime,
    /// When this node had applied it, by the node's own clock; `None` before the first.
    pub head_seen: Option<SystemTime>,
    /// The round of Algorithm 3 that this node is in.
    pub round: u64,
    /// The accounting nodes of the round, ascending.
    pub committee: Vec<ProviderId>,
    /// Whether this node votes in this round.
    pub votes: bool,
    /// Whether it may vote in the round that begins next, if it has a seat then.
    pub votes_next: bool,
    /// The view of the round that decides now, as far as this node knows.
    pub view: u64,
    /// Who leads it; `None` before the first round has started.
    pub leader: Option<ProviderId>,
    /// The providers that this node is connected to.
    pub connected: BTreeSet<ProviderId>,
    /// Members of the committee of whom no vote has come for a while, this node itself included.
    pub silent: BTreeSet<ProviderId>,
    /// Views that a quorum ended without a block, since this node's start.
    pub view_changes: u64,
    /// Faults of committee members that this node saw proof of, since its start.
    pub faults: u64,
}

/// A handle to a node's condition, cheap to clone.
#[derive(Clone, Debug)]
pub struct Status(Arc<Mutex<Live>>);

#[derive(Debug)]
struct Live {
    snapshot: Snapshot,
    schedule: Option<Schedule>,
    others: Others,
    /// A round that begins later than this is later than the node's start.
    started: LedgerTime,
}

/// Who leads a view.
type Leader = Arc<dyn Fn(u64) -> Option<ProviderId> + Send + Sync>;

/// The leaders of a round.
#[derive(Clone)]
pub struct Schedule(Leader);

impl Schedule {
    /// From a function of the view.
    pub fn new(leader: impl Fn(u64) -> Option<ProviderId> + Send + Sync + 'static) -> Self {
        Self(Arc::new(leader))
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schedule")
    }
}

impl Status {
    /// Of a node at this state.
    pub fn new(state: &State) -> Self {
        let Head { height, id, time } = state.head();
        let snapshot = Snapshot {
            height,
            head: id,
            head_time: time,
            head_seen: None,
            round: 0,
            committee: Vec::new(),
            votes: false,
            votes_next: false,
            view: 0,
            leader: None,
            connected: BTreeSet::new(),
            silent: BTreeSet::new(),
            view_changes: 0,
            faults: 0,
        };
        let (schedule, others) = (None, Others::default());
        let started = LedgerTime(u64::MAX);
        Self(Arc::new(Mutex::new(Live { snapshot, schedule, others, started })))
    }

    /// The node votes in rounds that begin later than this, see [`crate::memory`].
    pub(crate) fn started(&self, at: LedgerTime) {
        self.live().started = at;
    }

    /// The condition now.
    pub fn read(&self) -> Snapshot {
        let live = self.live();
        let mut snapshot = live.snapshot.clone();
        snapshot.connected = live.others.connected().clone();
        snapshot.silent = live.others.silent().clone();
        snapshot.votes_next = snapshot.head_time > live.started;
        snapshot.leader = live.schedule.as_ref().and_then(|schedule| schedule.0(snapshot.view));
        snapshot
    }

    /// A block was applied.
    pub(crate) fn applied(&self, head: Head, seen: SystemTime) {
        let mut live = self.live();
        live.snapshot.height = head.height;
        live.snapshot.head = head.id;
        live.snapshot.head_time = head.time;
        live.snapshot.head_seen = Some(seen);
    }

    /// A round has started on this node.
    pub(crate) fn entered(
        &self,
        round: u64,
        committee: Vec<ProviderId>,
        votes: bool,
        schedule: Schedule,
    ) {
        let mut live = self.live();
        live.snapshot.round = round;
        live.snapshot.committee = committee;
        live.snapshot.votes = votes;
        live.snapshot.view = 1;
        live.schedule = Some(schedule);
    }

    /// A view of a round was decided, with a block or without; `next` is the view that follows.
    pub(crate) fn decided(&self, round: u64, next: u64, without_block: bool) {
        let mut live = self.live();
        live.snapshot.view_changes += u64::from(without_block);
        if round == live.snapshot.round {
            live.snapshot.view = live.snapshot.view.max(next);
        }
    }

    /// A proof that a committee member voted twice.
    pub(crate) fn fault(&self) {
        self.live().snapshot.faults += 1;
    }

    /// A vote of a member of the committee has come.
    pub(crate) fn heard(&self, member: ProviderId) {
        self.live().others.heard(member);
    }

    /// Looks who votes and who is connected now, and says what is new.
    pub(crate) fn look(&self, now: SystemTime, connected: BTreeSet<ProviderId>) -> Vec<Change> {
        let mut live = self.live();
        let Live { snapshot, others, .. } = &mut *live;
        others.look(now, &snapshot.committee, connected)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
