//! Where meters, owners and the API leave messages for a gateway.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bkss_ledger::{Candidate, Transaction, membership::repeats_newest};
use bkss_scheme::{
    root_message::Registration,
    transaction::{Release, Submit},
};
use commonware_utils::channel::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::checks::Checks;
use crate::{
    chain::Shared,
    message::{Answer, Message, NotTaken, Reason},
    metrics::Metrics,
};

/// Calls that wait for the gateway.
pub const MAX_CALLS: usize = 4096;
/// Messages that wait for the gateway.
pub const MAX_QUEUE: usize = 1 << 16;

/// Messages of one caller, and where their answers go.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) messages: Vec<Message>,
    pub(super) reply: Option<oneshot::Sender<Vec<Answer>>>,
}

/// What a look at a message comes to.
enum Look {
    /// It is answered.
    Answer(Answer),
    /// Its signatures have to be checked.
    Check(Box<Transaction>),
    /// The same, and if they hold it is on the ledger already.
    Known(Box<Transaction>),
    /// It is for the gateway.
    Open,
}

/// Where meters and owners leave their messages.
#[derive(Clone)]
pub struct Mailbox {
    calls: mpsc::Sender<Call>,
    queued: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
    shared: Shared,
    checks: Checks,
    metrics: Metrics,
}

/// The other end of a [`Mailbox`].
pub(super) struct Inbox {
    pub(super) calls: mpsc::Receiver<Call>,
    queued: Arc<AtomicUsize>,
    pub(super) open: Arc<AtomicBool>,
}

impl Inbox {
    /// Takes a call from the queue.
    pub(super) fn arrived(&self, call: &Call) {
        self.queued.fetch_sub(call.messages.len(), Ordering::Relaxed);
    }
}

impl Mailbox {
    pub(super) fn new(shared: Shared, checks: Checks, metrics: Metrics) -> (Self, Inbox) {
        let (calls, receiver) = mpsc::channel(MAX_CALLS);
        let queued: Arc<AtomicUsize> = Arc::default();
        let open: Arc<AtomicBool> = Arc::default();
        let inbox = Inbox { calls: receiver, queued: queued.clone(), open: open.clone() };
        (Self { calls, queued, open, shared, checks, metrics }, inbox)
    }

    /// From now on messages are taken: the node has read in its ledger.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether messages are taken.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) && !self.calls.is_closed()
    }

    /// Whether the gateway has ended: nothing will be taken any more.
    pub fn is_stopped(&self) -> bool {
        self.calls.is_closed()
    }

    /// Leaves messages and waits until all that is accepted is on disk: one answer each. Signatures
    /// of transactions are checked before, elsewhere.
    ///
    /// # Errors
    ///
    /// [`NotTaken`] if none was taken.
    pub async fn take(&self, messages: Vec<Message>) -> Result<Vec<Answer>, NotTaken> {
        if !self.open.load(Ordering::Acquire) {
            return Err(NotTaken::NotReady);
        }
        let kinds: Vec<_> = messages.iter().map(Message::kind).collect();
        let mut answers = vec![Answer::Accepted; messages.len()];
        let (mut open, mut unchecked) = (Vec::with_capacity(messages.len()), Vec::new());
        for (place, message) in messages.into_iter().enumerate() {
            match self.look_at(&message) {
                Look::Answer(answer) => answers[place] = answer,
                Look::Check(transaction) => {
                    unchecked.push((place, transaction));
                    open.push((place, message));
                }
                Look::Known(transaction) => unchecked.push((place, transaction)),
                Look::Open => open.push((place, message)),
            }
        }
        if !unchecked.is_empty() {
            let unchecked = unchecked.into_iter().map(|(place, transaction)| (place, *transaction));
            let (places, transactions): (Vec<_>, Vec<_>) = unchecked.unzip();
            let added = self.checks.call(transactions).await?;
            for (place, refusal) in places.into_iter().zip(added.into_iter().map(Result::err)) {
                let Some(refusal) = refusal else { continue };
                answers[place] = refusal.into();
                open.retain(|(open, _)| *open != place);
            }
        }
        if !open.is_empty() {
            let (reply, answered) = oneshot::channel();
            let (places, messages): (Vec<_>, Vec<_>) = open.into_iter().unzip();
            self.put(messages, Some(reply))?;
            let given = answered.await.map_err(|_| NotTaken::Stopped)?;
            for (place, answer) in places.into_iter().zip(given) {
                answers[place] = answer;
            }
        }
        for (kind, answer) in kinds.into_iter().zip(&answers) {
            self.metrics.answered(kind, answer.code());
        }
        Ok(answers)
    }

    /// Leaves a message without waiting for the disk: whoever does so keeps it until it is final.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn post(&self, message: impl Into<Message>) -> Result<(), NotTaken> {
        self.put(vec![message.into()], None)
    }

    /// [`Self::post`] of many messages: all of them or, in a full queue, none.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn post_all(&self, messages: Vec<Message>) -> Result<(), NotTaken> {
        self.put(messages, None)
    }

    /// [`Self::take`] of one message.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub async fn take_one(&self, message: impl Into<Message>) -> Result<Answer, NotTaken> {
        let answers = self.take(vec![message.into()]).await?;
        answers.into_iter().next().ok_or(NotTaken::Stopped)
    }

    /// Step 1 of a meter, see [`Self::take`].
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub async fn submit(&self, submit: Submit<'_>) -> Result<Answer, NotTaken> {
        self.take_one(submit).await
    }

    /// Step 3 of a meter, see [`Self::take`].
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub async fn release(&self, release: Release) -> Result<Answer, NotTaken> {
        self.take_one(release).await
    }

    /// Looks at a message by all rules that are cheap.
    fn look_at(&self, message: &Message) -> Look {
        let Message::Transaction(transaction) = message else { return Look::Open };
        match &**transaction {
            Transaction::Requests(_) | Transaction::Openings(_) => {
                return Look::Answer(Answer::Refused(Reason::Batch));
            }
            Transaction::Registration(registration) if self.is_newest(registration) => {
                return Look::Known(transaction.clone());
            }
            _ => {}
        }
        let candidate =
            Candidate::unchecked(self.shared.network(), Transaction::clone(transaction));
        match self.shared.look(candidate) {
            Ok(Some(_)) => Look::Check(transaction.clone()),
            Ok(None) => Look::Open,
            Err(refusal) => Look::Answer(refusal.into()),
        }
    }

    /// Whether a registration says again what the newest chain of its meter says.
    fn is_newest(&self, registration: &Registration) -> bool {
        repeats_newest(&self.shared.chain().state().view(), registration).is_some()
    }

    fn put(
        &self,
        messages: Vec<Message>,
        reply: Option<oneshot::Sender<Vec<Answer>>>,
    ) -> Result<(), NotTaken> {
        let count = messages.len();
        if self.queued.fetch_add(count, Ordering::Relaxed) + count > MAX_QUEUE {
            self.queued.fetch_sub(count, Ordering::Relaxed);
            return Err(NotTaken::Overloaded);
        }
        self.calls.try_send(Call { messages, reply }).map_err(|error| {
            self.queued.fetch_sub(count, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => NotTaken::Overloaded,
                TrySendError::Closed(_) => NotTaken::Stopped,
            }
        })
    }
}
