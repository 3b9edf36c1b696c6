//! The gateway: collects the messages of meters into batches and sees them onto the ledger.
//!
//! A message is acknowledged by becoming final, not before; until then the meter keeps it. A batch
//! goes to every provider, so that it reaches the next leader whoever that is, and again and again
//! until all of its items are final or can no longer be accepted.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bkss_ledger::{
    FinalBlock, OpeningBatch, RequestBatch, Transaction,
    transaction_batch::{Bodies, Row, Shape},
};
use bkss_scheme::{
    Digest, Link, LinkIndex, MeterId, ProviderId, SecretKey, Slot,
    codec::{self, MAX_BODY},
    root_message::Registration,
    seal::Body,
    transaction::{Release, Submit},
};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Spawner};
use commonware_utils::channel::mpsc;

use crate::{Event, Pacing, chain::Shared};

/// Messages that wait for the gateway.
const MAX_QUEUE: usize = 1 << 16;
/// Items a gateway holds from submission until they are final.
const MAX_HELD: usize = 1 << 20;

/// A message for a gateway.
#[derive(Debug)]
enum Message {
    Register(Box<Registration>),
    Submit { meter: MeterId, index: LinkIndex, value: Digest, body: Box<[u8]> },
    Release(Release),
}

/// Where meters and owners leave their messages.
#[derive(Clone, Debug)]
pub struct Mailbox(mpsc::Sender<Message>);

/// A message that was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotTaken {
    /// Too many messages wait; try again later or at another provider.
    #[error("gateway is overloaded")]
    Overloaded,
    /// The node has stopped.
    #[error("gateway has stopped")]
    Stopped,
    /// The body is no sealed body.
    #[error("body is not a sealed reading")]
    Body,
}

impl Mailbox {
    /// Brings a registration to the ledger.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn register(&self, registration: Registration) -> Result<(), NotTaken> {
        self.put(Message::Register(Box::new(registration)))
    }

    /// Step 1 of a meter.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn submit(&self, submit: &Submit<'_>) -> Result<(), NotTaken> {
        let Submit { meter, index, value, body } = *submit;
        if body.len() > MAX_BODY || codec::decode::<Body<'_>>("body", body).is_err() {
            return Err(NotTaken::Body);
        }
        self.put(Message::Submit { meter, index, value, body: body.into() })
    }

    /// Step 3 of a meter.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn release(&self, release: Release) -> Result<(), NotTaken> {
        self.put(Message::Release(release))
    }

    fn put(&self, message: Message) -> Result<(), NotTaken> {
        self.0.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Overloaded,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Stopped,
        })
    }
}

/// A batch on its way.
struct Sent {
    transaction: Transaction,
    sent: SystemTime,
}

/// A released link and the encoded body it opens.
type Opened = (Link, Box<[u8]>);

/// The gateway of one provider.
pub struct Gateway {
    provider: ProviderId,
    key: SecretKey,
    shared: Shared,
    pacing: Pacing,
    inbox: mpsc::Receiver<Message>,
    /// Bodies of submitted readings, until their openings are final.
    bodies: BTreeMap<(MeterId, LinkIndex), Box<[u8]>>,
    requests: BTreeMap<Slot, BTreeMap<Row, Digest>>,
    openings: BTreeMap<(Slot, Shape), BTreeMap<Row, Opened>>,
    registrations: Vec<Registration>,
    outstanding: BTreeMap<Digest, Sent>,
}

impl Gateway {
    /// A gateway and its mailbox.
    pub fn new(
        provider: ProviderId,
        key: SecretKey,
        shared: Shared,
        pacing: Pacing,
    ) -> (Self, Mailbox) {
        let (sender, inbox) = mpsc::channel(MAX_QUEUE);
        let gateway = Self {
            provider,
            key,
            shared,
            pacing,
            inbox,
            bodies: BTreeMap::new(),
            requests: BTreeMap::new(),
            openings: BTreeMap::new(),
            registrations: Vec::new(),
            outstanding: BTreeMap::new(),
        };
        (gateway, Mailbox(sender))
    }

    /// Runs until the node stops.
    pub async fn run<E: Clock + Spawner>(
        mut self,
        ctx: E,
        mut sender: impl Sender,
        mut receiver: impl Receiver,
        mut events: mpsc::Receiver<Event>,
    ) {
        let mut flush = ctx.current() + self.pacing.gather;
        loop {
            select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                event = events.recv() => match event {
                    Some(Event::Final { block, .. }) => self.settle(&block),
                    None => return,
                },
                arrived = receiver.recv() => match arrived {
                    Ok((_, bytes)) => self.accept(bytes.as_ref()),
                    Err(_) => return,
                },
                () = ctx.sleep_until(flush) => {
                    let now = ctx.current();
                    for bytes in self.flush(now).into_iter().chain(self.overdue(now)) {
                        sender.send(Recipients::All, bytes, false);
                    }
                    flush = now + self.pacing.gather;
                },
            }
        }
    }

    /// Takes a message of a meter or an owner. One for an unknown meter is dropped: it sends again.
    fn take(&mut self, message: Message) {
        match message {
            Message::Register(registration) => self.registrations.push(*registration),
            Message::Submit { meter, index, value, body } => {
                let Some((row, slot)) = self.locate(meter, index) else { return };
                if self.bodies.len() < MAX_HELD {
                    self.bodies.insert((meter, index), body);
                    self.requests.entry(slot).or_default().insert(row, value);
                }
            }
            Message::Release(Release { meter, index, link }) => {
                let Some((row, slot)) = self.locate(meter, index) else { return };
                let Some(body) = self.bodies.get(&(meter, index)).cloned() else { return };
                let shape = codec::decode("body", &body).ok().and_then(|body| Shape::of(&body));
                let Some(shape) = shape else { return };
                self.openings.entry((slot, shape)).or_default().insert(row, (link, body));
            }
        }
    }

    /// A batch of another gateway.
    fn accept(&self, bytes: &[u8]) {
        match Transaction::decode(bytes) {
            Ok(transaction) => {
                if let Err(error) = self.shared.add(transaction) {
                    tracing::debug!(%error, "batch of another gateway");
                }
            }
            Err(error) => tracing::warn!(%error, "batch of another gateway"),
        }
    }

    /// Signs what was gathered into batches; returns them as they travel.
    fn flush(&mut self, now: SystemTime) -> Vec<Vec<u8>> {
        let (network, limit) = {
            let chain = self.shared.chain();
            let genesis = chain.state().genesis();
            (genesis.network(), genesis.charter().limits.batch_items as usize)
        };
        let mut transactions: Vec<_> =
            self.registrations.drain(..).map(Transaction::Registration).collect();
        for (slot, items) in std::mem::take(&mut self.requests) {
            for items in chunks(items, limit) {
                transactions.push(Transaction::Requests(RequestBatch::sign(
                    network,
                    self.provider,
                    &self.key,
                    slot,
                    items,
                )));
            }
        }
        for ((slot, shape), items) in std::mem::take(&mut self.openings) {
            for items in chunks(items, limit) {
                let mut bodies = Bodies::new(shape);
                let mut links = Vec::new();
                for (row, (link, body)) in items {
                    if codec::decode("body", &body).is_ok_and(|body| bodies.push(&body)) {
                        links.push((row, link));
                    }
                }
                transactions.push(Transaction::Openings(OpeningBatch::sign(
                    network,
                    self.provider,
                    &self.key,
                    slot,
                    links,
                    bodies,
                )));
            }
        }
        let mut bytes = Vec::new();
        for transaction in transactions {
            if let Err(error) = self.shared.add(transaction.clone()) {
                tracing::warn!(%error, "own batch");
            }
            bytes.push(transaction.encode());
            self.outstanding.insert(transaction.digest(network), Sent { transaction, sent: now });
        }
        bytes
    }

    /// Batches that should be final by now, to be sent again.
    fn overdue(&mut self, now: SystemTime) -> Vec<Vec<u8>> {
        let resend: Duration = self.pacing.resend;
        let mut bytes = Vec::new();
        for sent in self.outstanding.values_mut() {
            if sent.sent + resend <= now {
                sent.sent = now;
                let _ = self.shared.add(sent.transaction.clone()); // it may still wait there
                bytes.push(sent.transaction.encode());
            }
        }
        bytes
    }

    /// Forgets what a final block has settled.
    fn settle(&mut self, block: &FinalBlock) {
        for opening in block.verified().openings() {
            self.bodies.remove(&(opening.opening.meter, opening.opening.index));
        }
        let chain = self.shared.chain();
        let view = chain.state().view();
        self.outstanding
            .retain(|_, sent| bkss_ledger::pool::may_contribute(&view, &sent.transaction));
        let (time, reveal_s) = (view.head().time, view.genesis().charter().terms.reveal_s);
        self.bodies.retain(|(meter, index), _| {
            let Some(row) = view.row(*meter) else { return false };
            let Some(registered) = view.registered(row) else { return false };
            let schedule = registered.message().schedule;
            time < schedule.closes(*index) || schedule.accepts_opening(*index, time, reveal_s)
        });
    }

    /// Where a link of a meter belongs.
    fn locate(&self, meter: MeterId, index: LinkIndex) -> Option<(Row, Slot)> {
        let chain = self.shared.chain();
        let view = chain.state().view();
        let row = view.row(meter)?;
        let schedule = view.registered(row)?.message().schedule;
        (index.get() <= schedule.slots).then(|| (row, schedule.slot(index)))
    }
}

/// Cuts ordered items into pieces of at most `limit`.
fn chunks<V>(items: BTreeMap<Row, V>, limit: usize) -> Vec<Vec<(Row, V)>> {
    let mut pieces = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        pieces.push(items.by_ref().take(limit).collect());
    }
    pieces
}
