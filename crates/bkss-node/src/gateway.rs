//! The gateway: collects the messages of meters into batches and sees them onto the ledger.
//!
//! A message is answered "accepted" once it is in the gateway's journal. A batch goes to every
//! provider, so that it reaches the next leader whoever that is, and again and again until all of
//! its items are final or can no longer be accepted. After a crash the journal is read and what is
//! not settled is taken up where it was.

mod checks;
mod held;
mod kept;
mod mailbox;
mod outgoing;
mod place;
mod sections;
mod walks;

use std::{sync::atomic::Ordering, time::SystemTime};

use bkss_ledger::{FinalBlock, pool::PoolError, transaction_batch::Row};
use bkss_scheme::{LedgerTime, ProviderId, SecretKey};
use commonware_cryptography::ed25519::PublicKey;
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::{
    Clock, Metrics as RuntimeMetrics, Spawner, Storage, Supervisor, buffer::paged::CacheRef,
};
use commonware_storage::journal::Error;
use commonware_utils::channel::mpsc;

use crate::{
    Event, LedgerClock, Pacing,
    chain::Shared,
    journal::{Group, Journal, MAX_GROUP, Reply, Stopped, Writer},
    message::{Answer, Message},
    metrics::Metrics,
};
use checks::{Checker, Checks};
use held::{Admitted, Held, Source};
use kept::Kept;
use mailbox::{Call, Inbox};
use outgoing::{Outgoing, Signer};
use walks::{LongWalk, Walked, Walks};

pub use checks::{
    MAX_IN_CALL, MAX_WAITING_BYTES, MAX_WAITING_CALLS, MAX_WAITING_MESSAGES, MESSAGE_TRANSACTIONS,
};
pub use held::{MAX_BODIES, MAX_HELD, MAX_HELD_BYTES, MAX_PER_METER, MAX_VALUES};
pub use mailbox::{MAX_CALLS, MAX_QUEUE, Mailbox};
pub use sections::{MAX_SECTIONS, SECTION_BYTES};
pub use walks::MAX_WALKS;

/// Messages that are taken together at most.
const MAX_TOGETHER: usize = 4096;
/// Most bytes of a batch, about: several fit into a block, and one into a message of the network.
const BATCH_BYTES: usize = 512 << 10;

/// A batch is this long where it would be shorter otherwise.
const LEAST_BATCH_BYTES: usize = 4 << 10;

/// The gateway of one provider.
pub struct Gateway<E: Storage + RuntimeMetrics> {
    signer: Signer,
    clock: LedgerClock,
    shared: Shared,
    pacing: Pacing,
    metrics: Metrics,
    inbox: Inbox,
    checks: (Checks, Checker),
    journal: Journal<E>,
    work: Work,
}

/// What a gateway has in hand.
#[derive(Debug, Default)]
struct Work {
    held: Held,
    outgoing: Outgoing,
    resumed: bool,
}

/// Whose gateway it is.
pub struct Owner {
    /// The provider.
    pub provider: ProviderId,
    /// Signs batches.
    pub key: SecretKey,
    /// Names this node's part of the storage.
    pub partition: String,
    /// Shows when slots begin.
    pub clock: LedgerClock,
}

impl<E> Gateway<E>
where
    E: Clock + Spawner + Storage + RuntimeMetrics + Supervisor,
{
    /// Reads the journal; the mailbox takes nothing until it is opened.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn open(
        ctx: &E,
        owner: Owner,
        shared: Shared,
        pacing: Pacing,
        metrics: Metrics,
        cache: CacheRef,
    ) -> Result<(Self, Mailbox), Error> {
        let (network, limits) = {
            let chain = shared.chain();
            let genesis = chain.state().genesis();
            (genesis.network(), genesis.charter().limits)
        };
        let mut work = Work::default();
        work.held.start(owner.clock.at(ctx.current()));
        let journal = Journal::open(ctx, &owner.partition, cache, |section, group| {
            let (mut rest, mut count) = (&group[..], 0);
            while !rest.is_empty() {
                match Kept::decode_first(&mut rest) {
                    Ok(kept) => {
                        work.held.restore(section, kept);
                        count += 1;
                    }
                    Err(error) => {
                        let bytes = rest.len();
                        tracing::error!(section, %error, bytes, "a part of the gateway's journal cannot be read");
                        break;
                    }
                }
            }
            count
        })
        .await?;
        work.held.sections.begin(journal.next_section());
        metrics.lost.set(journal.missing().try_into().unwrap_or(i64::MAX));
        let checks = Checks::new(metrics.clone());
        let (mailbox, inbox) = Mailbox::new(shared.clone(), checks.0.clone(), metrics.clone());
        let signer = Signer {
            provider: owner.provider,
            key: owner.key,
            network,
            limit: limits.batch_items as usize,
            bytes: BATCH_BYTES.min(limits.block_bytes as usize / 4), // as of the founding
        };
        let clock = owner.clock;
        let gateway = Self { signer, clock, shared, pacing, metrics, inbox, checks, journal, work };
        Ok((gateway, mailbox))
    }

    /// Runs until the node stops, or the journal can no longer be written.
    pub async fn run(
        self,
        ctx: E,
        mut sender: impl Sender,
        mut receiver: impl Receiver<PublicKey = PublicKey>,
        mut events: mpsc::Receiver<Event>,
    ) {
        let Self { signer, clock, shared, pacing, metrics, mut inbox, checks, journal, work } =
            self;
        let (writer, _task) = journal.start(&ctx);
        let (checks, checker) = checks;
        let checked = shared.clone();
        ctx.child("checks").dedicated().spawn(move |_| checker.run(checked));
        let (walks, mut walked) = Walks::new();
        let mut desk = Desk { signer, clock, shared, pacing, metrics, writer, work, walks };
        let mut flush = ctx.current() + pacing.gather;
        loop {
            select! {
                event = events.recv() => match event {
                    Some(Event::Final { block, .. }) => desk.settle(&block),
                    None => return,
                },
                () = ctx.sleep_until(flush) => {
                    let now = ctx.current();
                    let ready = inbox.open.load(Ordering::Acquire);
                    for bytes in desk.flush(now, ready) {
                        sender.send(Recipients::All, bytes, false);
                    }
                    if desk.tidy(now).await.is_err() {
                        return;
                    }
                    flush = now + pacing.gather;
                },
                arrived = receiver.recv() => match arrived {
                    Ok((member, bytes)) => checks.message(&member, bytes.as_ref().to_vec()),
                    Err(_) => return,
                },
                walked = walked.recv() => match walked {
                    Some(walked) => {
                        if desk.after_walk(walked).await.is_err() {
                            return;
                        }
                        desk.walks.start(&ctx);
                    }
                    None => return,
                },
                call = inbox.calls.recv() => match call {
                    Some(call) => {
                        let calls = together(&mut inbox, call);
                        if desk.take(calls).await.is_err() {
                            return;
                        }
                        desk.walks.start(&ctx);
                    }
                    None => return,
                },
            }
        }
    }
}

/// A call and those that wait behind it, as many as are taken together.
fn together(inbox: &mut Inbox, first: Call) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut messages = 0;
    let mut next = Some(first);
    while let Some(call) = next {
        inbox.arrived(&call);
        messages += call.messages.len();
        calls.push(call);
        if messages >= MAX_TOGETHER {
            break;
        }
        next = inbox.calls.try_recv().ok();
    }
    calls
}

/// Transactions on their way to the other gateways, each message shorter than two batches.
#[derive(Default)]
struct Messages {
    messages: Vec<Vec<u8>>,
    /// Transactions in the last one.
    last: usize,
}

impl Messages {
    /// Adds one; a message of more than `bytes` takes no further.
    fn add(&mut self, encoded: &[u8], bytes: usize) {
        match self.messages.last_mut() {
            Some(last) if self.last < MESSAGE_TRANSACTIONS && last.len() < bytes => {
                last.extend_from_slice(encoded);
                self.last += 1;
            }
            _ => {
                self.messages.push(encoded.to_vec());
                self.last = 1;
            }
        }
    }
}

/// Adds a message to what is written together.
fn put(group: &mut Group, kept: &Kept) {
    kept.encode(&mut group.bytes);
    group.count += 1;
}

/// A gateway at work.
struct Desk {
    signer: Signer,
    clock: LedgerClock,
    shared: Shared,
    pacing: Pacing,
    metrics: Metrics,
    writer: Writer,
    work: Work,
    walks: Walks,
}

/// What a gateway says to a message at once.
enum Said {
    Answer(Answer),
    /// The message has to be written before it is answered, with the chain that it is for.
    Write(Option<Row>),
    /// A link has to be walked before it is answered.
    Walk(LongWalk),
}

impl Desk {
    /// Decides about messages, writes the new ones, and has their senders answered after that.
    async fn take(&mut self, calls: Vec<Call>) -> Result<(), Stopped> {
        let mut group = Group::default();
        let mut replies = Vec::new();
        for Call { messages, reply } in calls {
            let call = self.walks.call();
            let (mut answers, mut waiting) = (Vec::with_capacity(messages.len()), 0);
            for message in messages {
                let answer = match (self.admit(&message), message) {
                    (Said::Answer(answer), _) => answer,
                    (Said::Write(row), message) => {
                        put(&mut group, &Kept { row, message });
                        Answer::Accepted
                    }
                    (Said::Walk(walk), Message::Release(release)) if self.walks.have_room() => {
                        self.walks.wait(walk, release, call, answers.len());
                        waiting += 1;
                        Answer::overloaded()
                    }
                    (Said::Walk(walk), _) => {
                        self.work.held.not_walked(walk.key, walk.value);
                        Answer::overloaded()
                    }
                };
                answers.push(answer);
                if group.bytes.len() > MAX_GROUP / 2 {
                    self.write(&mut group, Vec::new()).await?;
                }
            }
            if waiting > 0 {
                self.walks.answered(call, reply, answers, waiting);
            } else if let Some(to) = reply {
                replies.push(Reply { to, answers });
            }
        }
        // Also without anything new: what is known may still be on its way to the disk.
        self.write(&mut group, replies).await
    }

    /// Goes on with a message whose link has been walked.
    async fn after_walk(&mut self, walked: Walked) -> Result<(), Stopped> {
        let Walked { key, value, holds, release, place } = walked;
        self.work.held.walked(key, value, holds);
        let message = Message::Release(release);
        let mut group = Group::default();
        let answer = match self.admit(&message) {
            Said::Answer(answer) => answer,
            Said::Write(row) => {
                put(&mut group, &Kept { row, message });
                Answer::Accepted
            }
            Said::Walk(walk) => {
                self.work.held.not_walked(walk.key, walk.value);
                Answer::overloaded()
            }
        };
        let replies = self.walks.answer(place, answer).into_iter().collect();
        self.write(&mut group, replies).await
    }

    async fn write(&mut self, group: &mut Group, replies: Vec<Reply>) -> Result<(), Stopped> {
        let section = self.work.held.sections.current();
        self.work.held.sections.wrote(group.bytes.len());
        self.writer.append(section, std::mem::take(group), replies).await
    }

    /// What is said to a message.
    fn admit(&mut self, message: &Message) -> Said {
        let Work { held, outgoing, .. } = &mut self.work;
        let body = if let Message::Submit { body, .. } = message { body.len() } else { 0 };
        let full = held.is_full(body);
        let admitted = match message {
            Message::Release(release) => {
                let chain = self.shared.chain();
                held.release(&chain.state().view(), release, Source::Sender, outgoing)
            }
            _ if full => return Said::Answer(Answer::overloaded()),
            Message::Submit { meter, index, value, body } => {
                let chain = self.shared.chain();
                let (view, key) = (chain.state().view(), (*meter, *index));
                let reading = (*value, &**body);
                held.submit(&view, self.signer.provider, key, reading, Source::Sender, outgoing)
            }
            Message::Transaction(transaction) => {
                let digest = transaction.digest(self.signer.network);
                Ok(held.transaction(digest, transaction, outgoing))
            }
        };
        match admitted {
            Ok(Admitted::New(row)) => Said::Write(row),
            Ok(Admitted::Known) => Said::Answer(Answer::Accepted),
            Ok(Admitted::Walk(walk)) => Said::Walk(walk),
            Ok(Admitted::Walking) => Said::Answer(Answer::overloaded()),
            Err(reason) => Said::Answer(Answer::Refused(reason)),
        }
    }

    /// Signs what was gathered into batches; returns those that are due, as they travel. Nothing
    /// before the node has read in its ledger.
    fn flush(&mut self, now: SystemTime, ready: bool) -> Vec<Vec<u8>> {
        if !ready {
            return Vec::new();
        }
        let Work { held, outgoing, resumed } = &mut self.work;
        let time = {
            let chain = self.shared.chain();
            let view = chain.state().view();
            if !std::mem::replace(resumed, true) {
                held.resume(&view, self.signer.provider, outgoing);
            }
            held.advance(&view, self.signer.provider, outgoing);
            // However many others bring something, a batch fits its gateway's share of a block.
            let block = view.genesis().charter().limits.block_bytes as usize;
            let shares = view.members().count().saturating_add(2).max(4);
            self.signer.bytes = BATCH_BYTES.min(block / shares).max(LEAST_BATCH_BYTES);
            // Blocks come at the latest after a while: a clock that is far ahead counts no further.
            let head = view.head().time;
            let latest = head.0.saturating_add(self.clock.ledger_ms(2 * self.pacing.idle));
            head.max(self.clock.at(now).min(LedgerTime(latest)))
        };
        for transaction in outgoing.flush(&self.signer, time) {
            outgoing.keep(transaction.digest(self.signer.network), transaction, now);
        }
        let (due, useless) = outgoing.due(&self.shared.chain().state().view(), now);
        for digest in useless {
            held.drop_transaction(&digest);
        }
        let mut messages = Messages::default();
        for (digest, transaction) in due {
            // What does not fit into this gateway's share here does not fit elsewhere either.
            let encoded = transaction.encode();
            let added = self.shared.add(transaction);
            let fits = !matches!(added, Err(PoolError::Full { .. }));
            if let Err(error) = added {
                tracing::debug!(%error, "own batch");
            }
            outgoing.sent(digest, fits, now, self.pacing.resend);
            if fits {
                messages.add(&encoded, self.signer.bytes);
            }
        }
        messages.messages
    }

    /// Forgets what a final block has settled.
    fn settle(&mut self, block: &FinalBlock) {
        let Work { held, outgoing, .. } = &mut self.work;
        let verified = block.verified();
        let chain = self.shared.chain();
        let view = chain.state().view();
        for digest in outgoing.settle(&view, verified) {
            held.drop_transaction(&digest);
        }
        let opened = verified.openings().iter().map(|one| (one.row, one.opening.index));
        held.opened(opened);
    }

    /// Removes from the journal what is settled, and shows how much is held.
    async fn tidy(&mut self, now: SystemTime) -> Result<(), Stopped> {
        let Work { held, outgoing, resumed } = &mut self.work;
        if !*resumed {
            return Ok(());
        }
        self.metrics.held.set(held.items().try_into().unwrap_or(i64::MAX));
        self.metrics.held_bytes.set(held.bytes().try_into().unwrap_or(i64::MAX));
        self.metrics.sections.set(held.sections.count().try_into().unwrap_or(i64::MAX));
        let oldest = outgoing.oldest().and_then(|made| now.duration_since(made).ok());
        self.metrics.oldest_s.set(oldest.unwrap_or_default().as_secs_f64());
        let mut group = Group::default();
        for kept in held.carry() {
            put(&mut group, &kept);
            if group.bytes.len() > MAX_GROUP / 2 {
                self.write(&mut group, Vec::new()).await?;
            }
        }
        if !group.bytes.is_empty() {
            self.write(&mut group, Vec::new()).await?;
        }
        match self.work.held.sections.prunable() {
            Some(below) => self.writer.prune(below).await,
            None => Ok(()),
        }
    }
}
