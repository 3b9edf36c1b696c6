//! The gateway alone: what it accepts and refuses, and that a crash loses nothing it accepted.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bkss_ledger::{Block, Transaction, Vote};
use bkss_node::{
    Answer, Event, LedgerClock, Mailbox, Message, Pacing,
    chain::Shared,
    gateway::{self, Gateway, Owner},
    message::Reason,
    metrics::Metrics,
};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId,
    slot::{Schedule, Slot},
    transaction::{Release, Submit},
};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::utils::mocks::inert_channel;
use commonware_runtime::{
    Clock, Runner, Spawner, Supervisor,
    buffer::paged::CacheRef,
    deterministic::{self, Context, FaultConfig, PartialWriteMode, WriteConfig},
};
use commonware_utils::{NZU16, NZUsize, channel::mpsc, probability};

use crate::consortium::{Consortium, FIRST, Meter, SLOTS, Signed, at};

/// A gateway with a ledger whose blocks the test makes.
pub(crate) struct World<'a> {
    ctx: Context,
    consortium: &'a Consortium,
    pub(crate) shared: Shared,
    pub(crate) mailbox: Mailbox,
    events: mpsc::Sender<Event>,
    blocks: Arc<Mutex<Vec<Block>>>,
}

impl<'a> World<'a> {
    /// Starts with the blocks that are on disk.
    pub(crate) async fn start(
        ctx: Context,
        consortium: &'a Consortium,
        blocks: Arc<Mutex<Vec<Block>>>,
    ) -> Self {
        let clock = LedgerClock::stopped(consortium.genesis.charter().start, 1);
        Self::with_clock(ctx, consortium, blocks, clock).await
    }

    async fn with_clock(
        ctx: Context,
        consortium: &'a Consortium,
        blocks: Arc<Mutex<Vec<Block>>>,
        clock: LedgerClock,
    ) -> Self {
        let shared = Shared::new(consortium.genesis.clone());
        let owner = Owner {
            provider: ProviderId(0),
            key: consortium.keys[0].clone(),
            partition: "node".into(),
            clock,
        };
        let cache = CacheRef::new(NZU16!(1024), NZUsize!(16));
        let (gateway, mailbox) = Gateway::open(
            &ctx,
            owner,
            shared.clone(),
            Pacing::default(),
            Metrics::default(),
            cache,
        )
        .await
        .unwrap();
        let (events, listened) = mpsc::channel(64);
        let (sender, receiver) = inert_channel::<PublicKey>(&[]);
        ctx.child("run").spawn(move |ctx| gateway.run(ctx, sender, receiver, listened));
        let stored: Vec<_> = blocks.lock().unwrap().clone();
        let world = Self { ctx, consortium, shared, mailbox, events, blocks };
        for block in stored {
            world.apply(&block).await;
        }
        world.mailbox.open();
        world
    }

    /// Makes the next block final, of what waits in the pool.
    async fn block(&self, time: LedgerTime) {
        let head = self.shared.chain().state().head();
        let time = LedgerTime(time.0.max(head.time.0 + 1));
        let block = self.shared.propose(head.id, time).unwrap().block().clone();
        self.blocks.lock().unwrap().push(block.clone());
        self.apply(&block).await;
    }

    async fn apply(&self, block: &Block) {
        let verified = self.shared.finalize(block).unwrap().unwrap();
        let block = self.consortium.finalize(Arc::unwrap_or_clone(verified));
        let event = Event::Final { block, seen: self.ctx.current() };
        let _ = self.events.send(event).await;
    }

    /// Blocks of these times, with the gateway's batches of the moment before.
    pub(crate) async fn blocks(&self, times: impl IntoIterator<Item = LedgerTime>) {
        for time in times {
            self.ctx.sleep(Duration::from_millis(30)).await;
            self.block(time).await;
        }
    }

    pub(crate) async fn take(&self, message: impl Into<Message>) -> Answer {
        self.mailbox.take_one(message).await.unwrap()
    }

    pub(crate) fn pending(&self, meter: MeterId, index: u32) -> Vec<Digest> {
        let chain = self.shared.chain();
        let view = chain.state().view();
        let live = view.row(meter).and_then(|row| view.live(row));
        let pending = live.map(|live| live.pending.clone()).unwrap_or_default();
        pending.iter().filter(|p| p.index.get() == index).map(|p| p.value).collect()
    }

    pub(crate) fn last_opened(&self, meter: MeterId) -> u32 {
        let chain = self.shared.chain();
        let view = chain.state().view();
        view.row(meter).and_then(|row| view.live(row)).map_or(0, |live| live.last_index)
    }
}

fn submit(meter: &Meter, signed: &Signed) -> Message {
    Submit {
        meter: meter.registration.message.meter,
        index: signed.index,
        value: signed.value,
        body: &signed.body,
    }
    .into()
}

fn release(meter: &Meter, signed: &Signed) -> Message {
    let (meter, link) = (meter.registration.message.meter, signed.link.clone());
    Release { meter, index: signed.index, link }.into()
}

fn registration(meter: &Meter) -> Message {
    Transaction::Registration(meter.registration.clone()).into()
}

const ACCEPTED: Answer = Answer::Accepted;

#[test]
fn each_refusal_has_its_reason() {
    deterministic::Runner::seeded(1).start(|ctx| async move {
        let mut consortium = Consortium::new(1);
        let meters: Vec<_> = (0..2).map(|number| consortium.meter(number)).collect();
        let world = World::start(ctx, &consortium, Arc::default()).await;
        let (meter, stranger) = (&meters[0], &meters[1]);
        let id = meter.registration.message.meter;
        let signed = meter.sign(1, 26);
        let other = meter.sign(1, 27);

        let refused = async |message: Message| match world.take(message).await {
            Answer::Refused(reason) => reason.code(),
            answer => unreachable!("{answer:?}"),
        };
        assert_eq!(refused(submit(meter, &signed)).await, "unknown_meter");
        assert_eq!(refused(release(meter, &signed)).await, "unknown_meter");
        let mut forged = stranger.registration.clone();
        forged.owner_signature.0[5] ^= 1;
        assert_eq!(refused(Transaction::Registration(forged).into()).await, "rule");
        assert_eq!(world.take(registration(meter)).await, ACCEPTED);
        world.blocks([at(0, 10), at(0, 20)]).await;
        assert_eq!(world.take(registration(meter)).await, ACCEPTED, "again, when it is final");

        let (index, value) = (LinkIndex::new(14, 14).unwrap(), signed.value);
        let outside = Submit { meter: id, index, value, body: &signed.body };
        assert_eq!(refused(outside.into()).await, "outside_chain");
        let body = Submit { meter: id, index: signed.index, value, body: &[1, 2, 3] };
        assert_eq!(refused(body.into()).await, "body");
        assert_eq!(refused(submit(meter, &meter.sign(3, 1))).await, "too_early");
        assert_eq!(refused(release(meter, &signed)).await, "too_early");
        assert_eq!(refused(consortium.requests(0, 1, &[(0, value)]).into()).await, "batch");

        assert_eq!(world.take(submit(meter, &signed)).await, ACCEPTED);
        assert_eq!(world.take(submit(meter, &signed)).await, ACCEPTED, "the same again");
        assert_eq!(refused(submit(meter, &other)).await, "second_request");
        world.blocks([at(1, 10), at(1, 20)]).await;
        assert_eq!(world.pending(id, 1), [signed.value]);
        let mut false_link = release(meter, &signed);
        if let Message::Release(release) = &mut false_link {
            release.link = Link::from_bytes([9; 32]);
        }
        assert_eq!(refused(false_link).await, "no_body");
        assert_eq!(refused(submit(meter, &other)).await, "second_request", "also when it is final");
        world.blocks([at(1, 310)]).await;
        assert_eq!(refused(submit(meter, &other)).await, "window_closed");
        assert_eq!(world.take(release(meter, &signed)).await, ACCEPTED);
        assert_eq!(world.take(release(meter, &signed)).await, ACCEPTED, "the same again");
        world.blocks([at(1, 320), at(1, 330)]).await;
        assert_eq!(world.last_opened(id), 1);
        assert_eq!(world.take(release(meter, &signed)).await, ACCEPTED, "again, when it is final");
        let over = at(1, u64::from(consortium.genesis.charter().terms.reveal_s));
        world.blocks([over]).await;
        let late = meter.sign(2, 1);
        assert_eq!(refused(submit(meter, &late)).await, "window_closed");
        assert_eq!(refused(release(meter, &late)).await, "no_body");
    });
}

/// A stranger knows the meter and the slot, but not the link.
#[test]
fn a_strangers_value_does_not_take_the_place_of_a_body() {
    deterministic::Runner::seeded(2).start(|ctx| async move {
        let mut consortium = Consortium::new(2);
        let meter = consortium.meter(0);
        let world = World::start(ctx, &consortium, Arc::default()).await;
        let id = meter.registration.message.meter;
        let (signed, mut foreign) = (meter.sign(1, 26), meter.sign(1, 99));
        foreign.value = Digest([7; 32]);
        assert_eq!(world.take(registration(&meter)).await, ACCEPTED);
        world.blocks([at(0, 10), at(0, 20)]).await;

        // The stranger was first here; the meter is told so and goes to another gateway.
        assert_eq!(world.take(submit(&meter, &foreign)).await, ACCEPTED);
        let answer = world.take(submit(&meter, &signed)).await;
        assert_eq!(answer, Answer::Refused(Reason::SecondRequest));
        world.shared.add(consortium.requests(1, 1, &[(0, signed.value)])).unwrap();
        world.blocks([at(1, 10), at(1, 20)]).await;
        assert_eq!(world.pending(id, 1).len(), 2);

        // Now that the value is on the ledger, this gateway keeps its body as well.
        assert_eq!(world.take(submit(&meter, &signed)).await, ACCEPTED);
        world.blocks([at(1, 310)]).await;
        assert_eq!(world.take(release(&meter, &signed)).await, ACCEPTED);
        world.blocks([at(1, 320), at(1, 330)]).await;
        assert_eq!(world.last_opened(id), 1);
        assert_eq!(world.pending(id, 1), [], "and nothing of the slot is left");
    });
}

#[test]
fn a_release_before_the_window_has_closed_here_waits_for_it() {
    deterministic::Runner::seeded(3).start(|ctx| async move {
        let mut consortium = Consortium::new(3);
        let meter = consortium.meter(0);
        let world = World::start(ctx, &consortium, Arc::default()).await;
        let id = meter.registration.message.meter;
        let signed = meter.sign(1, 26);
        assert_eq!(world.take(registration(&meter)).await, ACCEPTED);
        world.blocks([at(0, 10), at(0, 20)]).await;
        assert_eq!(world.take(submit(&meter, &signed)).await, ACCEPTED);
        world.blocks([at(1, 10), at(1, 299)]).await;
        assert_eq!(world.take(release(&meter, &signed)).await, ACCEPTED);
        assert_eq!(world.last_opened(id), 0);
        world.blocks([at(1, 300), at(1, 301), at(1, 302)]).await;
        assert_eq!(world.last_opened(id), 1);
    });
}

/// `q` is public once it is in a block. Whoever leaves something else under it, here as often as a
/// gateway takes it, does not void what the meter leaves.
#[test]
fn what_strangers_leave_under_a_meters_value_does_not_void_its_own() {
    for strangers in [1, 3, gateway::MAX_BODIES + 2] {
        deterministic::Runner::seeded(4).start(|ctx| async move {
            let mut consortium = Consortium::new(4);
            let meter = consortium.meter(0);
            let world = World::start(ctx, &consortium, Arc::default()).await;
            let id = meter.registration.message.meter;
            let signed = meter.sign(1, 26);
            assert_eq!(world.take(registration(&meter)).await, ACCEPTED);
            world.blocks([at(0, 10), at(0, 20)]).await;
            // The meter has requested its value through another gateway, which is away now.
            world.shared.add(consortium.requests(1, 1, &[(0, signed.value)])).unwrap();
            world.blocks([at(1, 10)]).await;
            for value in 0..strangers {
                let garbage = meter.sign(1, 100 + i32::try_from(value).unwrap());
                let left = Submit {
                    meter: id,
                    index: signed.index,
                    value: signed.value,
                    body: &garbage.body,
                };
                let expected =
                    if value < gateway::MAX_BODIES { "accepted" } else { "second_request" };
                assert_eq!(world.take(left).await.code(), expected, "{value}");
            }
            world.blocks([at(1, 310)]).await;
            if strangers > gateway::MAX_BODIES {
                let full = Answer::Refused(Reason::SecondRequest);
                assert_eq!(world.take(submit(&meter, &signed)).await, full);
                let no_body = Answer::Refused(Reason::NoBody);
                let mut invented = release(&meter, &signed);
                if let Message::Release(release) = &mut invented {
                    release.link = Link::from_bytes([9; 32]);
                }
                assert_eq!(world.take(invented).await, no_body);
                let full = Answer::Refused(Reason::SecondRequest);
                assert_eq!(world.take(submit(&meter, &signed)).await, full, "nobody has shown it");
                // The link says what does not belong to it.
                assert_eq!(world.take(release(&meter, &signed)).await, no_body);
            }
            assert_eq!(world.take(submit(&meter, &signed)).await, ACCEPTED);
            assert_eq!(world.take(release(&meter, &signed)).await, ACCEPTED);
            world.blocks([at(1, 320), at(1, 330)]).await;
            assert_eq!(world.last_opened(id), 1, "{strangers} strangers");
        });
    }
}

/// What the ledger has no room for is not accepted: the meter goes to another gateway at once.
#[test]
fn a_gateway_takes_no_more_requests_of_a_chain_than_may_wait() {
    deterministic::Runner::seeded(6).start(|ctx| async move {
        let mut consortium = Consortium::founded(6, 4, |charter| charter.limits.pending = 2);
        let meter = consortium.meter(0);
        let world = World::start(ctx, &consortium, Arc::default()).await;
        let id = meter.registration.message.meter;
        assert_eq!(world.take(registration(&meter)).await, ACCEPTED);
        world.blocks([at(0, 10), at(0, 20)]).await;
        for index in 1..=3 {
            let signed = meter.sign(index, 26);
            let full = Answer::Refused(Reason::PendingFull { most: 2 });
            let expected = if index <= 2 { ACCEPTED } else { full };
            assert_eq!(world.take(submit(&meter, &signed)).await, expected);
            world.blocks([at(index, 10), at(index, 20), at(index, 310)]).await;
            let pending = world.pending(id, index);
            assert_eq!(pending.len(), usize::from(index <= 2), "slot {index}");
        }
        assert_eq!(world.take(release(&meter, &meter.sign(2, 26))).await, ACCEPTED);
        world.blocks([at(3, 320), at(4, 10)]).await;
        assert_eq!(world.take(submit(&meter, &meter.sign(4, 26))).await, ACCEPTED);
    });
}

/// What was taken for a chain does not come back for the next one, which has the same links again.
/// Leaves a value of no meaning at a gateway for each of these meters, one after the other, as fast as
/// batches are made; how many were accepted.
async fn leave_garbage(
    world: &World<'_>,
    meters: &[Meter],
    index: LinkIndex,
    body: &[u8],
) -> usize {
    let mut accepted = 0;
    for (number, meter) in (0_u32..).zip(meters) {
        let mut value = Digest([7; 32]);
        value.0[..4].copy_from_slice(&number.to_be_bytes());
        let meter = meter.registration.message.meter;
        let answer = world.take(Submit { meter, index, value, body }).await;
        accepted += usize::from(answer == ACCEPTED);
        world.ctx.sleep(Duration::from_millis(11)).await;
    }
    accepted
}

/// Whoever reaches the interface has values requested for meters that are not his. None of it keeps
/// anything else of the gateway's provider from the ledger.
#[test]
fn what_strangers_leave_for_the_next_slot_keeps_nothing_from_the_ledger() {
    deterministic::Runner::seeded(12).start(|ctx| async move {
        let mut consortium = Consortium::new(12);
        let meters: Vec<_> = (0..1100).map(|number| consortium.meter(number)).collect();
        let meter = consortium.meter(4000);
        let later = Slot(FIRST.0 + 50);
        let another = consortium.meter_with(4001, |message| message.schedule.first = later);
        let world = World::start(ctx, &consortium, Arc::default()).await;
        for meter in meters.iter().chain([&meter]) {
            let registration = Transaction::Registration(meter.registration.clone());
            assert_eq!(world.shared.add(registration), Ok(true));
        }
        world.blocks([at(0, 10), at(0, 20)]).await;
        let signed = meter.sign(1, 26);
        assert_eq!(world.take(submit(&meter, &signed)).await, ACCEPTED);
        world.blocks([at(1, 10), at(1, 20), at(1, 310)]).await;
        let id = meter.registration.message.meter;
        assert_eq!(world.pending(id, 1), [signed.value]);

        let next = LinkIndex::new(2, SLOTS).unwrap();
        assert_eq!(leave_garbage(&world, &meters, next, &signed.body).await, meters.len());
        assert_eq!(world.shared.candidates(), 0, "what no block takes yet is not signed yet");
        assert_eq!(world.take(release(&meter, &signed)).await, ACCEPTED);
        assert_eq!(world.take(registration(&another)).await, ACCEPTED);
        let picks = vec![ProviderId(1), ProviderId(2)];
        let (network, key) = (consortium.genesis.network(), &consortium.keys[0]);
        let vote = Vote::sign(network, ProviderId(0), key, 0, picks);
        assert_eq!(world.shared.add(Transaction::Vote(vote)), Ok(true));
        world.blocks([at(1, 320), at(1, 330)]).await;
        assert_eq!(world.last_opened(id), 1);
        assert_eq!(world.shared.chain().state().chain_count(), 1102);

        // The slot begins: all of it becomes a few batches, and what comes behind it is in time.
        let signed = meter.sign(2, 27);
        assert_eq!(world.take(submit(&meter, &signed)).await, ACCEPTED);
        world.blocks([at(2, 1), at(2, 2)]).await;
        assert_eq!(world.pending(id, 2), [signed.value]);
        let blocks = world.blocks.lock().unwrap();
        let batches = |block: &Block| block.transactions().len();
        assert!(blocks.iter().rev().take(2).map(batches).sum::<usize>() <= 4);
    });
}

/// A gateway's own clock says when a slot begins, but not long before the ledger does: what it signs
/// before no block takes, and it would wait in all pools.
#[test]
fn a_gateway_whose_clock_is_ahead_signs_requests_little_before_the_ledger_takes_them() {
    deterministic::Runner::seeded(15).start(|ctx| async move {
        let mut consortium = Consortium::new(15);
        let meter = consortium.meter(1);
        let ahead = LedgerClock::stopped(at(40, 0), 1);
        let world = World::with_clock(ctx, &consortium, Arc::default(), ahead).await;
        let registration = Transaction::Registration(meter.registration.clone());
        assert_eq!(world.shared.add(registration), Ok(true));
        world.blocks([at(0, 10), at(0, 20)]).await;
        let signed = meter.sign(1, 26);
        assert_eq!(world.take(submit(&meter, &signed)).await, ACCEPTED);
        world.ctx.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.shared.candidates(), 0, "the ledger is far from slot 1");
        // Two empty blocks' time before the slot begins.
        let almost = LedgerTime(at(1, 0).0 - 1500);
        world.blocks([almost]).await;
        world.ctx.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.shared.candidates(), 1, "by the time it arrives it is due");
        world.blocks([at(1, 1)]).await;
        assert_eq!(world.pending(meter.registration.message.meter, 1), [signed.value]);
    });
}

/// A leader builds on blocks that are not final yet, and what they have still waits: it is not taken for
/// something that comes to nothing, behind which nothing of the same gateway is looked at.
#[test]
fn what_the_parent_has_keeps_nothing_out_of_the_next_block() {
    let mut consortium = Consortium::founded(14, 4, |charter| charter.limits.batch_items = 8);
    let meters: Vec<_> = (0..32).map(|number| consortium.meter(number)).collect();
    let shared = Shared::new(consortium.genesis.clone());
    for meter in &meters {
        let registration = Transaction::Registration(meter.registration.clone());
        assert_eq!(shared.add(registration), Ok(true));
    }
    let head = |shared: &Shared| shared.chain().state().head().id;
    let registered = shared.propose(head(&shared), at(0, 1)).unwrap();
    shared.finalize(registered.block()).unwrap();
    let request = |rows: std::ops::Range<u32>| {
        let values: Vec<_> = rows.map(|row| (row, Digest([1; 32]))).collect();
        assert_eq!(shared.add(consortium.requests(0, 1, &values)), Ok(true));
    };
    (0..3).for_each(|batch| request(8 * batch..8 * batch + 8));
    let parent = shared.propose(head(&shared), at(1, 1)).unwrap();
    assert_eq!(parent.requests().len(), 24);
    shared.keep(&parent);
    request(24..32);
    let next = shared.propose(parent.block().id(), at(1, 2)).unwrap();
    assert_eq!((next.requests().len(), next.block().transactions().len()), (8, 1));
}

/// Nor does what comes while no block becomes final.
#[test]
fn batches_that_wait_for_a_block_become_longer_and_not_more() {
    deterministic::Runner::seeded(13).start(|ctx| async move {
        let mut consortium = Consortium::new(13);
        let meters: Vec<_> = (0..1100).map(|number| consortium.meter(number)).collect();
        let world = World::start(ctx, &consortium, Arc::default()).await;
        for meter in &meters {
            let registration = Transaction::Registration(meter.registration.clone());
            assert_eq!(world.shared.add(registration), Ok(true));
        }
        world.blocks([at(0, 10), at(0, 20), at(1, 1)]).await;
        let body = meters[0].sign(1, 26).body;
        let first = LinkIndex::new(1, SLOTS).unwrap();
        assert_eq!(leave_garbage(&world, &meters, first, &body).await, meters.len());
        let waiting = world.shared.candidates();
        assert!((200..300).contains(&waiting), "{waiting} batches wait");
        world.blocks([at(1, 2), at(1, 3)]).await;
        let requested = meters.iter().map(|meter| meter.registration.message.meter);
        assert!(requested.into_iter().all(|meter| world.pending(meter, 1).len() == 1));
    });
}

/// A store that was damaged is read in again from its first block: what the gateway had taken waits
/// until the ledger knows of its meter once more, however many blocks that takes.
#[test]
fn what_was_accepted_waits_until_the_ledger_is_read_in_again() {
    let mut consortium = Consortium::new(19);
    let meter = consortium.meter(0);
    let (consortium, meter) = (&consortium, &meter);
    let blocks: Arc<Mutex<Vec<Block>>> = Arc::default();
    let (kept, signed) = (blocks.clone(), meter.sign(1, 26));
    let message = submit(meter, &signed);
    let life = |ctx: Context| async move {
        let world = World::start(ctx, consortium, kept).await;
        world.blocks((1..120).map(|second| at(0, second))).await;
        assert_eq!(world.take(registration(meter)).await, ACCEPTED);
        world.blocks([at(0, 200), at(0, 210)]).await;
        assert_eq!(world.take(message).await, ACCEPTED);
        world.blocks([at(0, 220)]).await;
    };
    let runner = deterministic::Runner::new(deterministic::Config::new().with_seed(19));
    let (_, checkpoint) = runner.start_and_recover(life);
    deterministic::Runner::from(checkpoint).start(|ctx| async move {
        let clock = LedgerClock::stopped(at(0, 230), 1);
        let world = World::with_clock(ctx, consortium, Arc::default(), clock).await;
        let stored = blocks.lock().unwrap().clone();
        assert!(stored.len() > 120);
        for block in &stored {
            world.ctx.sleep(Duration::from_millis(30)).await;
            world.apply(block).await;
        }
        world.blocks([at(1, 10), at(1, 20)]).await;
        assert_eq!(world.pending(meter.registration.message.meter, 1), [signed.value]);
    });
}

#[test]
fn after_a_restart_nothing_is_requested_for_another_chain_than_it_was_taken_for() {
    let mut consortium = Consortium::new(5);
    let meter = consortium.meter(0);
    let schedule = Schedule { first: Slot(FIRST.0 + 3), ..meter.registration.message.schedule };
    let next = consortium.next_chain(&meter, schedule);
    let (consortium, meter, next) = (&consortium, &meter, &next);
    let blocks: Arc<Mutex<Vec<Block>>> = Arc::default();
    let id = meter.registration.message.meter;
    let kept = blocks.clone();
    let life = |ctx: Context| async move {
        let world = World::start(ctx, consortium, kept).await;
        assert_eq!(world.take(registration(meter)).await, ACCEPTED);
        world.blocks([at(0, 10), at(0, 20)]).await;
        let signed = meter.sign(1, 26);
        assert_eq!(world.take(submit(meter, &signed)).await, ACCEPTED);
        world.blocks([at(1, 10), at(1, 20), at(1, 310)]).await;
        assert_eq!(world.take(release(meter, &signed)).await, ACCEPTED);
        world.blocks([at(1, 320), at(1, 330)]).await;
        assert_eq!(world.last_opened(id), 1, "it is final");
        assert_eq!(world.take(registration(next)).await, ACCEPTED);
        world.blocks([at(1, 340), at(1, 350), at(3, 890)]).await;
    };
    let runner = deterministic::Runner::new(deterministic::Config::new().with_seed(5));
    let (_, checkpoint) = runner.start_and_recover(life);
    deterministic::Runner::from(checkpoint).start(|ctx| async move {
        let world = World::start(ctx, consortium, blocks).await;
        let row = world.shared.chain().state().view().row(id);
        assert_eq!(row, Some(1), "the next chain is registered");
        // The slots of its first links: nothing of the former chain is requested in them.
        world.blocks([at(4, 1), at(4, 10), at(5, 10)]).await;
        assert_eq!(world.pending(id, 1), []);
        let own = next.sign(2, 27);
        assert_eq!(world.take(submit(next, &own)).await, ACCEPTED);
        world.blocks([at(5, 20), at(5, 30)]).await;
        assert_eq!(world.pending(id, 2), [own.value]);
    });
}

/// What a life of the node was told to be accepted before the power went.
#[derive(Clone, Debug, Default)]
struct Told {
    registered: Vec<usize>,
    submitted: Vec<usize>,
    released: Vec<usize>,
}

/// Lets meters act and cuts the power after `lives[n]` milliseconds; returns what was accepted and
/// what the ledger has in the end.
fn live_and_crash(seed: u64, lives: &[u64], retention: u64) {
    let mut consortium = Consortium::new(seed);
    let meters: Vec<_> = (0..6).map(|number| consortium.meter(number)).collect();
    let (consortium, meters) = (&consortium, &meters);
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 26)).collect();
    let signed = &signed;
    let blocks: Arc<Mutex<Vec<Block>>> = Arc::default();
    let told: Arc<Mutex<Told>> = Arc::default();
    let mut checkpoint = None;
    for (life, millis) in lives.iter().enumerate() {
        let (blocks, told) = (blocks.clone(), told.clone());
        let run = |ctx: Context| async move {
            let world = World::start(ctx, consortium, blocks).await;
            let work = act(&world, meters, signed, &told);
            let cut = world.ctx.sleep(Duration::from_millis(*millis));
            futures::future::select(Box::pin(work), Box::pin(cut)).await;
        };
        let faults = FaultConfig {
            write_rate: Some(WriteConfig {
                failure_rate: probability!(0.0),
                retention_rate: commonware_utils::Probability::new(retention, 100).unwrap(),
                mode: PartialWriteMode::Subset,
            }),
            ..FaultConfig::default()
        };
        let runner = match checkpoint.take() {
            None => {
                let config = deterministic::Config::new()
                    .with_seed(seed + life as u64)
                    .with_storage_fault_config(faults);
                deterministic::Runner::new(config)
            }
            Some(checkpoint) => deterministic::Runner::from(checkpoint),
        };
        checkpoint = Some(runner.start_and_recover(run).1);
    }
    // The last life: nobody sends anything again, time goes on.
    let told = told.lock().unwrap().clone();
    deterministic::Runner::from(checkpoint.unwrap()).start(|ctx| async move {
        let world = World::start(ctx, consortium, blocks).await;
        let time = world.shared.chain().state().head().time;
        world.blocks((1..4).map(|step| LedgerTime(time.0 + step))).await;
        for place in &told.registered {
            let meter = meters[*place].registration.message.meter;
            let row = world.shared.chain().state().view().row(meter);
            assert!(row.is_some(), "registration of {meter} is lost, {lives:?}, seed {seed}");
        }
        for place in &told.submitted {
            let meter = meters[*place].registration.message.meter;
            let there = world.pending(meter, 1).contains(&signed[*place].value)
                || world.last_opened(meter) == 1;
            assert!(there, "reading of {meter} is lost, {lives:?}, seed {seed}");
        }
        world.blocks([at(1, 300), at(1, 301), at(1, 302), at(1, 303)]).await;
        for place in &told.released {
            let meter = meters[*place].registration.message.meter;
            assert_eq!(world.last_opened(meter), 1, "release is lost, {lives:?}, seed {seed}");
        }
    });
}

/// Registers, submits and releases, one after the other, whatever the ledger allows by now.
async fn act(world: &World<'_>, meters: &[Meter], signed: &[Signed], told: &Mutex<Told>) {
    for (place, meter) in meters.iter().enumerate() {
        if world.mailbox.take_one(registration(meter)).await == Ok(ACCEPTED) {
            told.lock().unwrap().registered.push(place);
        }
        if place % 2 == 1 {
            world.blocks([at(0, 10)]).await;
        }
    }
    world.blocks([at(1, 1), at(1, 2)]).await;
    for (place, meter) in meters.iter().enumerate() {
        if world.mailbox.take_one(submit(meter, &signed[place])).await == Ok(ACCEPTED) {
            told.lock().unwrap().submitted.push(place);
        }
        if place % 2 == 1 {
            world.blocks([at(1, 3)]).await;
        }
    }
    world.blocks([at(1, 4)]).await;
    for (place, meter) in meters.iter().enumerate() {
        // Before the window has closed: until then only the journal has it.
        if world.mailbox.take_one(release(meter, &signed[place])).await == Ok(ACCEPTED) {
            told.lock().unwrap().released.push(place);
        }
    }
}

#[test]
fn nothing_accepted_is_lost_whenever_the_power_goes() {
    for millis in (0..420).step_by(7) {
        live_and_crash(millis, &[millis], 50);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_accepted_is_lost_through_several_lives(
        seed: u16,
        lives in proptest::collection::vec(0..300_u64, 1..4),
        retention in 0..=100_u64,
    ) {
        live_and_crash(seed.into(), &lives, retention);
    }
}

/// What is known is known with its signatures.
#[test]
fn a_copy_with_false_signatures_of_what_waits_or_is_final_is_refused() {
    deterministic::Runner::seeded(9).start(|ctx| async move {
        let mut consortium = Consortium::new(9);
        let meter = consortium.meter(0);
        let world = World::start(ctx, &consortium, Arc::default()).await;
        assert_eq!(world.take(registration(&meter)).await, ACCEPTED);
        for waiting in [1, 0] {
            for altered in 0..2 {
                let mut copy = meter.registration.clone();
                let signatures = [&mut copy.sdi_signature, &mut copy.owner_signature];
                signatures.into_iter().nth(altered).unwrap().0[9] ^= 1;
                let answer = world.take(Transaction::Registration(copy)).await;
                assert!(matches!(answer, Answer::Refused(Reason::Rule(_))), "{answer:?}");
            }
            assert_eq!(world.take(registration(&meter)).await, ACCEPTED, "as it was");
            assert_eq!(world.shared.candidates(), waiting);
            world.block(at(0, 1)).await;
        }
    });
}
