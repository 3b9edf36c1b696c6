//! Long gaps, walked one after the other beside the gateway's work.
//!
//! A gateway walks before it accepts: a batch with a link that is not of its chain is invalid, and
//! who signs one is passed over by the others. A gap may be as long as a chain, so it is walked off
//! the runtime's workers, and once for each value that is requested: that link fits no other.

use std::collections::{BTreeMap, VecDeque};

use bkss_ledger::transaction_batch::Row;
use bkss_scheme::{Digest, LinkIndex, transaction::Release};
use commonware_runtime::{Spawner, Supervisor};
use commonware_utils::channel::{mpsc, oneshot};

use super::place::Walk;
use crate::{journal::Reply, message::Answer};

/// Walks that wait.
pub const MAX_WALKS: usize = 1024;

/// A released link that has to be walked, and what it would open.
#[derive(Debug)]
pub(super) struct LongWalk {
    pub(super) key: (Row, LinkIndex),
    pub(super) value: Digest,
    pub(super) walk: Walk,
}

/// A link that was walked.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) key: (Row, LinkIndex),
    pub(super) value: Digest,
    pub(super) holds: bool,
    pub(super) release: Release,
    pub(super) place: Place,
}

/// Where an answer belongs: the call, and which of its messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    call: u64,
    message: usize,
}

/// A call some of whose messages wait for a walk.
#[derive(Debug)]
struct Open {
    to: Option<oneshot::Sender<Vec<Answer>>>,
    answers: Vec<Answer>,
    waiting: usize,
}

/// The walks of a gateway.
pub(super) struct Walks {
    queue: VecDeque<(LongWalk, Release, Place)>,
    running: bool,
    calls: BTreeMap<u64, Open>,
    next: u64,
    done: mpsc::UnboundedSender<Walked>,
}

impl Walks {
    /// None yet, and where they are told of when they are done: one at a time.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Walked>) {
        let (done, walked) = mpsc::unbounded_channel();
        let (queue, calls) = (VecDeque::new(), BTreeMap::new());
        (Self { queue, running: false, calls, next: 0, done }, walked)
    }

    /// Whether another may wait.
    pub(super) fn have_room(&self) -> bool {
        self.queue.len() < MAX_WALKS
    }

    /// The number of the next call.
    pub(super) const fn call(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A walk for a message of a call waits.
    pub(super) fn wait(&mut self, walk: LongWalk, release: Release, call: u64, message: usize) {
        self.queue.push_back((walk, release, Place { call, message }));
    }

    /// The answers of a call so far; as many walks as `waiting` are missing.
    pub(super) fn answered(
        &mut self,
        call: u64,
        to: Option<oneshot::Sender<Vec<Answer>>>,
        answers: Vec<Answer>,
        waiting: usize,
    ) {
        self.calls.insert(call, Open { to, answers, waiting });
    }

    /// One of the missing answers; the reply, once it was the last.
    pub(super) fn answer(&mut self, place: Place, answer: Answer) -> Option<Reply> {
        self.running = false;
        let open = self.calls.get_mut(&place.call)?;
        if let Some(missing) = open.answers.get_mut(place.message) {
            *missing = answer;
        }
        open.waiting -= 1;
        if open.waiting > 0 {
            return None;
        }
        let Open { to, answers, .. } = self.calls.remove(&place.call)?;
        Some(Reply { to: to?, answers })
    }

    /// Starts the next walk, unless one is under way.
    pub(super) fn start<E: Spawner + Supervisor>(&mut self, ctx: &E) {
        if self.running {
            return;
        }
        let Some((LongWalk { key, value, walk }, release, place)) = self.queue.pop_front() else {
            return;
        };
        self.running = true;
        let done = self.done.clone();
        ctx.child("walk").shared(true).spawn(move |_| async move {
            let holds = walk.holds();
            // Nobody waits for it any more once the gateway has ended.
            let _ = done.send(Walked { key, value, holds, release, place });
        });
    }
}
