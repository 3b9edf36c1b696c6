//! What one member or a stranger may bring to the gateways without costing the others more than it
//! costs him.

use std::{sync::Arc, time::Duration};

use bkss_ledger::Transaction;
use bkss_node::{
    Answer, Event,
    message::{NotTaken, Reason},
    node::Node,
    simulated::Channel,
};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, RootMessage, hash, hash_chain, request,
    root_message::Registration,
    slot::Schedule,
    transaction::{Release, Submit},
};
use commonware_p2p::Recipients;
use commonware_runtime::{
    Clock, Runner, Spawner, Supervisor,
    deterministic::{self, Context},
};

use crate::{
    consortium::{Consortium, FIRST, Meter, SLOT_S, WINDOW_S, at},
    gateway::World as Desk,
    network::{self, Net},
};

/// Slots of a meter that stays in the warehouse for long.
const LONG: u32 = 9000;
/// The link of the slot in which it is switched on: more steps than are walked on the spot.
const LATE: u32 = 5000;

/// A meter with a long chain, and its links.
struct Long {
    registration: Registration,
    last: Link,
    id: Digest,
}

impl Long {
    fn new(consortium: &mut Consortium) -> Self {
        let Meter { registration, last, .. } = consortium.meter(0);
        let message = registration.message;
        let schedule = Schedule { first: FIRST, slot_s: SLOT_S, window_s: WINDOW_S, slots: LONG };
        let anchor = hash_chain::walk(message.salt(), LONG, 0, &last);
        let message = RootMessage { schedule, anchor, ..message };
        let network = consortium.genesis.network();
        let id = message.id(network);
        let registration =
            Registration::sign(message, network, &consortium.sdi, &consortium.keys[0]);
        Self { registration, last, id }
    }

    fn meter(&self) -> MeterId {
        self.registration.message.meter
    }

    fn link(&self, index: u32) -> Link {
        hash_chain::walk(self.registration.message.salt(), LONG, index, &self.last)
    }

    /// `q` of a body that this link opens.
    fn value(&self, link: &Link, body: &[u8]) -> Digest {
        let commitment = request::commitment(&self.id, late(), &hash::plain(body));
        request::request_value(&commitment, link)
    }

    fn release(&self, link: &Link) -> Release {
        Release { meter: self.meter(), index: late(), link: link.clone() }
    }
}

fn late() -> LinkIndex {
    LinkIndex::new(LATE, LONG).unwrap()
}

/// The gateway walks before it accepts, so that it signs no batch that is invalid for ever.
#[test]
fn a_gateway_takes_no_link_of_another_chain_however_long_the_gap() {
    deterministic::Runner::seeded(1).start(|ctx| async move {
        let mut consortium = Consortium::new(1);
        let body = consortium.meter(1).sign(1, 26).body;
        let long = Long::new(&mut consortium);
        let world = Desk::start(ctx, &consortium, Arc::default()).await;
        let registration = Transaction::Registration(long.registration.clone());
        assert_eq!(world.take(registration).await, Answer::Accepted);
        world.blocks([at(0, 1), at(LATE, 0)]).await;
        let invented = Link::from_bytes([0x66; 32]);
        let true_link = long.link(LATE);
        let submit = |link| {
            let value = long.value(link, &body);
            Submit { meter: long.meter(), index: late(), value, body: &body }
        };
        // A stranger has taken the gateway's place for this slot.
        assert_eq!(world.take(submit(&invented)).await, Answer::Accepted);
        world.blocks([at(LATE, 1), at(LATE, 300)]).await;
        assert_eq!(world.pending(long.meter(), LATE).len(), 1);
        let foreign = Answer::Refused(Reason::ForeignLink);
        for _ in 0..3 {
            assert_eq!(world.take(long.release(&invented)).await, foreign);
        }
        // Another link fits no body that is here.
        let no_body = Answer::Refused(Reason::NoBody);
        assert_eq!(world.take(long.release(&true_link)).await, no_body);
        world.blocks([at(LATE, 301), at(LATE, 302)]).await;
        assert_eq!(world.last_opened(long.meter()), 0);
        assert_eq!(world.shared.invalid_batches(), (0, 0), "nothing of it was signed");
    });
}

/// A link that is walked in vain does not use up the walk of the true one.
#[test]
fn the_true_link_is_walked_once_and_opens() {
    deterministic::Runner::seeded(2).start(|ctx| async move {
        let mut consortium = Consortium::new(2);
        let body = consortium.meter(1).sign(1, 26).body;
        let long = Long::new(&mut consortium);
        let world = Desk::start(ctx, &consortium, Arc::default()).await;
        let registration = Transaction::Registration(long.registration.clone());
        assert_eq!(world.take(registration).await, Answer::Accepted);
        world.blocks([at(0, 1), at(LATE, 0)]).await;
        let (invented, true_link) = (Link::from_bytes([0x66; 32]), long.link(LATE));
        let values = [&invented, &true_link].map(|link| long.value(link, &body));
        // Both are requested: one through each of two gateways.
        for (gateway, value) in [(1, values[0]), (2, values[1])] {
            let batch = consortium.requests(gateway, LATE, &[(0, value)]);
            assert_eq!(world.shared.add(batch), Ok(true));
        }
        world.blocks([at(LATE, 1)]).await;
        assert_eq!(world.pending(long.meter(), LATE).len(), 2);
        for value in values {
            let submit = Submit { meter: long.meter(), index: late(), value, body: &body };
            assert!(matches!(
                world.take(submit).await,
                Answer::Accepted | Answer::Refused(Reason::WindowClosed { .. })
            ));
        }
        world.blocks([at(LATE, 300)]).await;
        let foreign = Answer::Refused(Reason::ForeignLink);
        assert_eq!(world.take(long.release(&invented)).await, foreign);
        // Many ask at the same time; it is walked for the first of them.
        let answers = world
            .mailbox
            .take(vec![long.release(&true_link).into(), long.release(&true_link).into()])
            .await
            .unwrap();
        assert_eq!(answers[0], Answer::Accepted);
        assert_eq!(answers[1], Answer::overloaded(), "come again");
        assert_eq!(world.take(long.release(&true_link)).await, Answer::Accepted);
        world.blocks([at(LATE, 301), at(LATE, 302)]).await;
        assert_eq!(world.last_opened(long.meter()), LATE);
    });
}

/// Running providers; what each shows is read and forgotten.
struct Providers {
    nodes: Vec<Node>,
}

impl Providers {
    fn time(&self) -> LedgerTime {
        self.nodes[0].status.read().head_time
    }

    fn heights(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.status.read().height).collect()
    }

    async fn until(&self, ctx: &Context, time: LedgerTime) {
        while self.time() < time {
            ctx.sleep(Duration::from_millis(50)).await;
        }
    }

    async fn register(&self, ctx: &Context, registration: &Registration) {
        let registration = Transaction::Registration(registration.clone());
        while let Err(NotTaken::NotReady) =
            self.nodes[0].mailbox.take_one(registration.clone()).await
        {
            ctx.sleep(Duration::from_millis(5)).await;
        }
        while self.nodes[0].shared.chain().state().chain_count() == 0 {
            ctx.sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One batch of openings whose bodies are left out, signed by one of four that then keeps silent.
#[test]
fn a_batch_without_its_bodies_stops_no_block() {
    let seed = 21;
    println!("seed {seed}");
    let mut consortium = Consortium::new(seed);
    let meter = consortium.meter(3);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let net = Net::new(&ctx, &configs, 4).await;
        let (mut providers, mut voice, mut liar) = (Providers { nodes: Vec::new() }, None, None);
        for (index, config) in configs.into_iter().enumerate() {
            let (running, speaks) = net.0.run(&ctx, index, config, None).await.unwrap();
            let mut node = running.node;
            drain(&ctx, &mut node);
            if index == 3 {
                (voice, liar) = (Some(speaks), Some(running.handle));
            } else {
                std::mem::forget(running.handle);
            }
            providers.nodes.push(node);
        }
        providers.register(&ctx, &meter.registration).await;
        providers.until(&ctx, at(1, 1)).await;
        let signed = meter.sign(1, 26);
        let id = meter.registration.message.meter;
        let submit =
            Submit { meter: id, index: signed.index, value: signed.value, body: &signed.body };
        assert_eq!(providers.nodes[3].mailbox.submit(submit).await, Ok(Answer::Accepted));
        providers.until(&ctx, at(1, 300)).await;
        let whole = consortium.openings(3, &[(0, &signed)]);
        let Transaction::Openings(mut bare) = whole.clone() else { unreachable!() };
        assert!(bare.erase(0));
        let bare = Transaction::Openings(bare).encode();
        voice.unwrap().say(Channel::Batches, Recipients::All, bare);
        ctx.sleep(Duration::from_secs(2)).await;
        let waiting: Vec<_> = providers.nodes.iter().map(|node| node.shared.candidates()).collect();
        assert_eq!(waiting[..3], [0, 0, 0], "nobody keeps it");
        liar.unwrap().abort();
        let before = providers.heights();
        // The whole batch is not taken for one that is known.
        for node in &providers.nodes[..3] {
            assert_eq!(node.shared.add(whole.clone()), Ok(true));
        }
        ctx.sleep(Duration::from_secs(60)).await;
        let after = providers.heights();
        assert!(after[0] > before[0] + 30, "from {before:?} to {after:?} in a minute");
        let chain = providers.nodes[0].shared.chain();
        assert_eq!(chain.state().view().live(0).map(|live| live.last_index), Some(1));
    });
}

/// A gateway that signs a batch with a link it has invented: no block contains it, each leader walks
/// it once at most, and its other batches are not taken in this round.
#[test]
fn a_gateway_that_signs_an_invented_link_is_passed_over() {
    let seed = 22;
    println!("seed {seed}");
    let mut consortium = Consortium::new(seed);
    let honest = consortium.meter(1);
    let body = honest.sign(1, 26).body;
    let long = Long::new(&mut consortium);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let clock = configs[0].clock.clone();
        let net = Net::new(&ctx, &configs, 4).await;
        let (mut providers, mut voice) = (Providers { nodes: Vec::new() }, None);
        for (index, config) in configs.into_iter().enumerate() {
            let (running, speaks) = net.0.run(&ctx, index, config, None).await.unwrap();
            let mut node = running.node;
            drain(&ctx, &mut node);
            if index == 3 {
                voice = Some(speaks);
            }
            std::mem::forget(running.handle);
            providers.nodes.push(node);
        }
        let mut voice = voice.unwrap();
        providers.register(&ctx, &long.registration).await;
        clock.stop_at(at(LATE, 1));
        clock.start(ctx.current());
        providers.until(&ctx, at(LATE, 1)).await;
        let invented = Link::from_bytes([0x66; 32]);
        let value = long.value(&invented, &body);
        let request = consortium.requests(3, LATE, &[(0, value)]);
        voice.say(Channel::Batches, Recipients::All, request.encode());
        providers.until(&ctx, at(LATE, 301)).await;
        let pending =
            providers.nodes[0].shared.chain().state().view().live(0).unwrap().pending.len();
        assert_eq!(pending, 1, "the request is on the ledger");
        let slot = long.registration.message.schedule.slot(late());
        let mut signed = honest.sign(1, 26);
        (signed.slot, signed.link, signed.body) = (slot, invented, body);
        let foreign = consortium.openings(3, &[(0, &signed)]);
        voice.say(Channel::Batches, Recipients::All, foreign.encode());
        ctx.sleep(Duration::from_secs(20)).await;
        let round = providers.nodes[0].shared.chain().state().round().number;
        for (index, node) in providers.nodes.iter().enumerate().take(3) {
            assert_eq!(node.shared.chain().state().round().number, round, "one round");
            let (invalid, passed_over) = node.shared.invalid_batches();
            assert!((1..=4).contains(&invalid), "provider {index} has found {invalid}");
            assert_eq!((passed_over, node.shared.candidates()), (1, 0), "provider {index}");
            let refused = node.shared.add(foreign.clone()).unwrap_err().to_string();
            assert!(refused.contains("no block can contain"), "{refused}");
        }
        let last = providers.nodes[0].shared.chain().state().view().live(0).unwrap().last_index;
        assert_eq!(last, 0, "nothing was opened");
    });
}

fn drain(ctx: &Context, node: &mut Node) {
    let (_, none) = commonware_utils::channel::mpsc::channel(1);
    let mut events = std::mem::replace(&mut node.events, none);
    ctx.child("drain").spawn(move |_| async move {
        while let Some(Event::Final { .. }) = events.recv().await {}
    });
}
