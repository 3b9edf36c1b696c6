//! What others bring, checked on a thread of its own.
//!
//! Signatures cost most of what a stranger or a member can make a node do. They are checked beside
//! the runtime's workers, which consensus needs, and while no lock is held. Whoever brings something
//! has a queue of his own, and the queues take turns: a flood delays only itself.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bkss_ledger::{Transaction, pool::PoolError};
use bkss_scheme::codec;
use commonware_cryptography::ed25519::PublicKey;
use commonware_runtime::reschedule;
use commonware_utils::channel::{mpsc, oneshot};

use crate::{chain::Shared, message::NotTaken, metrics::Metrics};

/// Transactions that callers may bring in one call.
pub const MAX_IN_CALL: usize = 64;
/// Calls of callers that wait.
pub const MAX_WAITING_CALLS: usize = 64;
/// Messages of a member's gateway that wait.
pub const MAX_WAITING_MESSAGES: usize = 64;
/// Bytes of the messages of a member's gateway that wait.
pub const MAX_WAITING_BYTES: usize = 8 << 20;
/// Transactions that travel in one message at most: the number of messages is limited, and so is
/// the work that a member can make others do.
pub const MESSAGE_TRANSACTIONS: usize = 8;

/// Whether each transaction of a call was added to the pool.
type Added = Vec<Result<bool, PoolError>>;

/// Who brings something.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    /// Whoever calls the HTTP interface.
    Callers,
    /// The gateway of a member.
    Member(PublicKey),
}

#[derive(Debug)]
enum Job {
    Call(Vec<Transaction>, oneshot::Sender<Added>),
    Message(Vec<u8>),
}

/// What waits of one source.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queues {
    of: BTreeMap<Source, Queue>,
    /// Whose turn was last.
    last: Option<Source>,
}

impl Queues {
    /// The next job: of the source behind the last one that has any.
    fn next(&mut self) -> Option<Job> {
        let after = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.of.range((after, Bound::Unbounded)).next();
        let source = behind.or_else(|| self.of.iter().next())?.0.clone();
        let queue = self.of.get_mut(&source)?;
        let job = queue.jobs.pop_front();
        if let Some(Job::Message(bytes)) = &job {
            queue.bytes = queue.bytes.saturating_sub(bytes.len());
        }
        if queue.jobs.is_empty() {
            self.of.remove(&source);
        }
        self.last = Some(source);
        job
    }
}

/// Where jobs are left.
#[derive(Clone)]
pub(super) struct Checks {
    queues: Arc<Mutex<Queues>>,
    bell: mpsc::Sender<()>,
    metrics: Metrics,
}

/// Does them.
pub(super) struct Checker {
    queues: Arc<Mutex<Queues>>,
    rung: mpsc::Receiver<()>,
}

fn lock(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checks {
    pub(super) fn new(metrics: Metrics) -> (Self, Checker) {
        let queues: Arc<Mutex<Queues>> = Arc::default();
        let (bell, rung) = mpsc::channel(1);
        (Self { queues: queues.clone(), bell, metrics }, Checker { queues, rung })
    }

    /// Checks what a caller brings, and adds it to the pool.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub(super) async fn call(&self, transactions: Vec<Transaction>) -> Result<Added, NotTaken> {
        let (reply, added) = oneshot::channel();
        {
            let mut queues = lock(&self.queues);
            let queue = queues.of.entry(Source::Callers).or_default();
            if queue.jobs.len() == MAX_WAITING_CALLS {
                self.metrics.checks_dropped.inc();
                return Err(NotTaken::Overloaded);
            }
            queue.jobs.push_back(Job::Call(transactions, reply));
        }
        self.ring();
        added.await.map_err(|_| NotTaken::Stopped)
    }

    /// Takes a message of a member's gateway. Where too many wait it is dropped: gateways send again
    /// what is not final.
    pub(super) fn message(&self, member: &PublicKey, bytes: Vec<u8>) {
        {
            let mut queues = lock(&self.queues);
            let queue = queues.of.entry(Source::Member(member.clone())).or_default();
            let full = queue.jobs.len() == MAX_WAITING_MESSAGES
                || queue.bytes + bytes.len() > MAX_WAITING_BYTES;
            if full && !queue.jobs.is_empty() {
                self.metrics.checks_dropped.inc();
                tracing::debug!(%member, "too many messages of this gateway wait, one is dropped");
                return;
            }
            queue.bytes += bytes.len();
            queue.jobs.push_back(Job::Message(bytes));
        }
        self.ring();
    }

    fn ring(&self) {
        // If it is full it has been rung, and if it is closed the gateway has ended.
        let _ = self.bell.try_send(());
    }
}

impl Checker {
    /// Runs until nobody can leave anything any more.
    pub(super) async fn run(mut self, shared: Shared) {
        while self.rung.recv().await.is_some() {
            while let Some(job) = self.next() {
                check(&shared, job);
                reschedule().await;
            }
        }
    }

    fn next(&self) -> Option<Job> {
        lock(&self.queues).next()
    }
}

fn check(shared: &Shared, job: Job) {
    match job {
        // Who has hung up does not need an answer.
        Job::Call(_, reply) if reply.is_closed() => {}
        Job::Call(transactions, reply) => {
            let added = transactions.into_iter().map(|transaction| shared.add(transaction));
            let _ = reply.send(added.collect());
        }
        Job::Message(bytes) => accept(shared, &bytes),
    }
}

/// Adds the transactions of another gateway's message to the pool.
fn accept(shared: &Shared, mut bytes: &[u8]) {
    for _ in 0..MESSAGE_TRANSACTIONS {
        if bytes.is_empty() {
            return;
        }
        match codec::decode_first("transaction", &mut bytes) {
            Ok(transaction) => {
                if let Err(error) = shared.add(transaction) {
                    tracing::debug!(%error, "transaction of another gateway");
                }
            }
            Err(error) => return tracing::warn!(%error, "transaction of another gateway"),
        }
    }
    if !bytes.is_empty() {
        let (expected, rest) = (MESSAGE_TRANSACTIONS, bytes.len());
        tracing::warn!(expected, rest, "message of another gateway has more transactions");
    }
}

#[cfg(test)]
mod tests {
    use commonware_cryptography::{Signer, ed25519::PrivateKey};

    use super::*;

    fn member(seed: u64) -> PublicKey {
        PrivateKey::from_seed(seed).public_key()
    }

    fn message(queues: &mut Queues, source: &Source, name: u8) {
        let queue = queues.of.entry(source.clone()).or_default();
        queue.bytes += 1;
        queue.jobs.push_back(Job::Message(vec![name]));
    }

    #[test]
    fn sources_take_turns() {
        let mut queues = Queues::default();
        let mut sources = [Source::Callers, Source::Member(member(1)), Source::Member(member(2))];
        sources.sort();
        for name in 0..10 {
            message(&mut queues, &sources[0], name);
        }
        message(&mut queues, &sources[2], 100);
        let order: Vec<_> = std::iter::from_fn(|| queues.next())
            .map(|job| match job {
                Job::Message(bytes) => bytes[0],
                Job::Call(..) => u8::MAX,
            })
            .collect();
        assert_eq!(order, [0, 100, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(queues.of.is_empty(), "a source that brings nothing has no queue");
    }

    #[test]
    fn a_member_that_sends_too_much_loses_only_its_own() {
        let (checks, checker) = Checks::new(Metrics::default());
        for name in 0..2 * MAX_WAITING_MESSAGES {
            checks.message(&member(1), vec![u8::try_from(name).unwrap_or(0)]);
        }
        checks.message(&member(2), vec![200]);
        let long = vec![0; MAX_WAITING_BYTES];
        for _ in 0..2 {
            checks.message(&member(3), long.clone());
        }
        assert_eq!(checks.metrics.checks_dropped.get(), MAX_WAITING_MESSAGES as u64 + 1);
        let mut names = Vec::new();
        while let Some(Job::Message(bytes)) = checker.next() {
            names.push(bytes[0]);
        }
        let (of_one, others): (Vec<u8>, Vec<u8>) =
            names.into_iter().partition(|name| (1..64).contains(name));
        assert_eq!(of_one, (1..64).collect::<Vec<u8>>(), "what came first is kept");
        assert_eq!(others.len(), 3, "{others:?}");
        assert!(lock(&checker.queues).of.is_empty());
    }

    #[test]
    fn callers_are_told_when_too_many_wait() {
        let (checks, _checker) = Checks::new(Metrics::default());
        let waiting = (0..MAX_WAITING_CALLS).map(|_| {
            let (reply, added) = oneshot::channel();
            let mut queues = lock(&checks.queues);
            let queue = queues.of.entry(Source::Callers).or_default();
            queue.jobs.push_back(Job::Call(Vec::new(), reply));
            added
        });
        let _waiting: Vec<_> = waiting.collect();
        let refused = at_once(checks.call(Vec::new()));
        assert_eq!(refused, Some(Err(NotTaken::Overloaded)));
    }

    /// The result of a future that need not wait.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(result) => Some(result),
            std::task::Poll::Pending => None,
        }
    }
}
