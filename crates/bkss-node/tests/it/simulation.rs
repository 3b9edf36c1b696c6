//! Meters, gateways and four providers in deterministic simulation.

use std::{collections::BTreeMap, time::Duration};

use bkss_ledger::{Transaction, Witness, receipts::Issued};
use bkss_node::{Answer, Event, gateway::NotTaken, node::Node};
use bkss_scheme::{
    Digest, LedgerTime, codec,
    receipt::Receipt,
    transaction::{Release, Submit},
};
use commonware_runtime::{
    Clock, Runner,
    deterministic::{self, Context},
};

use crate::{
    consortium::{Consortium, Meter, Signed, at},
    network,
};

/// Running providers and what they have shown of the ledger.
struct World<'a> {
    ctx: &'a Context,
    nodes: Vec<Node>,
    /// Block ids by height, of each provider.
    ids: Vec<BTreeMap<u64, Digest>>,
    witness: Witness,
    receipts: Vec<Issued>,
    readings: usize,
    time: LedgerTime,
}

impl<'a> World<'a> {
    fn new(ctx: &'a Context, consortium: &Consortium, nodes: Vec<Node>) -> Self {
        Self {
            ctx,
            ids: nodes.iter().map(|_| BTreeMap::new()).collect(),
            nodes,
            witness: Witness::new(consortium.genesis.clone(), None),
            receipts: Vec::new(),
            readings: 0,
            time: consortium.genesis.charter().start,
        }
    }

    /// Reads what the providers show; the first one's blocks go to the witness.
    fn read(&mut self) {
        for (provider, node) in self.nodes.iter_mut().enumerate() {
            while let Ok(Event::Final { block, .. }) = node.events.try_recv() {
                let (height, id) = (block.header().height, block.header().id());
                let before = self.ids[provider].insert(height, id);
                assert_eq!(before, None, "provider {provider} applied block {height} twice");
                if provider == 0 {
                    self.time = block.header().time;
                    self.readings += block.verified().openings().len();
                    self.receipts.extend(self.witness.follow(block));
                }
            }
        }
    }

    /// Lets time pass until the condition holds, at most ten virtual minutes.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..12_000 {
            self.read();
            if condition(self) {
                return;
            }
            self.ctx.sleep(Duration::from_millis(50)).await;
        }
        let heights: Vec<_> = self.ids.iter().map(BTreeMap::len).collect();
        unreachable!("{what} did not happen; heights {heights:?}, time {}", self.time);
    }

    /// One slot of all meters through one gateway.
    async fn slot(&mut self, meters: &[Meter], index: u32, gateway: usize) {
        self.until("the slot's start", |world| world.time >= at(index, 0)).await;
        let mailbox = self.nodes[gateway].mailbox.clone();
        let signed: Vec<Signed> = meters.iter().map(|meter| meter.sign(index, 26)).collect();
        for (meter, signed) in meters.iter().zip(&signed) {
            let (meter, index) = (meter.registration.message.meter, signed.index);
            let submit = Submit { meter, index, value: signed.value, body: &signed.body };
            assert_eq!(mailbox.submit(submit).await, Ok(Answer::Accepted));
        }
        self.until("the window's end", |world| world.time >= at(index, 300)).await;
        for (meter, signed) in meters.iter().zip(signed) {
            let (meter, index) = (meter.registration.message.meter, signed.index);
            let release = Release { meter, index, link: signed.link };
            assert_eq!(mailbox.release(release).await, Ok(Answer::Accepted));
        }
        let wanted = self.readings + meters.len();
        self.until("all openings", |world| world.readings == wanted).await;
    }

    /// Brings a registration through one gateway, as soon as it takes messages.
    async fn register(&self, gateway: usize, meter: &Meter) {
        let registration = Transaction::Registration(meter.registration.clone());
        loop {
            match self.nodes[gateway].mailbox.take_one(registration.clone()).await {
                Err(NotTaken::NotReady) => self.ctx.sleep(Duration::from_millis(5)).await,
                answer => return assert_eq!(answer, Ok(Answer::Accepted)),
            }
        }
    }

    fn assert_no_fork(&self) {
        for ids in &self.ids {
            for (height, id) in ids {
                let other = self.ids[0].get(height);
                assert!(other.is_none_or(|other| other == id), "fork at {height}");
            }
        }
    }
}

fn run(seed: u64) -> (String, Vec<Issued>, Consortium) {
    let mut consortium = Consortium::new(seed);
    let meters: Vec<_> = (0..3).map(|number| consortium.meter(number)).collect();
    let (state, receipts) = deterministic::Runner::seeded(seed).start(|ctx| {
        let configs = network::configs(&consortium, network::now(&ctx));
        let consortium = &consortium;
        let meters = &meters;
        async move {
            let nodes = network::start(&ctx, configs).await;
            let mut world = World::new(&ctx, consortium, nodes);
            for meter in meters {
                world.register(0, meter).await;
            }
            for index in 1..=3 {
                world.slot(meters, index, index as usize).await;
            }
            world.assert_no_fork();
            (ctx.auditor().state(), world.receipts)
        }
    });
    (state, receipts, consortium)
}

#[test]
fn readings_become_receipts_through_any_gateway() {
    let seed = 1;
    println!("seed {seed}");
    let (state, receipts, consortium) = run(seed);
    assert_eq!(receipts.len(), 9);
    for one in &receipts {
        let receipt: Receipt<'_> = codec::decode("receipt", &one.receipt).unwrap();
        let verdict = receipt.verify(&consortium.genesis.anchors());
        assert!(verdict.valid(), "{:?}", verdict.failure());
    }
    let (again, ..) = run(seed);
    assert_eq!(state, again, "the same seed is the same run");
}

#[test]
fn after_power_cuts_every_block_is_applied_once_and_none_is_lost() {
    let seed = 2;
    println!("seed {seed}");
    let mut consortium = Consortium::new(seed);
    let meters: Vec<_> = (0..2).map(|number| consortium.meter(number)).collect();
    let start = std::time::SystemTime::UNIX_EPOCH;
    let mut checkpoint = None;
    let mut known: BTreeMap<u64, Digest> = BTreeMap::new();
    for slot in 1..=3 {
        let (consortium, meters, configs) =
            (&consortium, &meters, network::configs(&consortium, start));
        let life = |ctx: Context| async move {
            let nodes = network::start(&ctx, configs).await;
            let mut world = World::new(&ctx, consortium, nodes);
            if slot == 1 {
                for meter in meters {
                    world.register(1, meter).await;
                }
            } else {
                // Nothing is asked of the meters again: registrations and chains are still there.
                world.until("the stored ledger", |world| !world.ids[0].is_empty()).await;
            }
            world.slot(meters, slot, 2).await;
            // The power goes at an arbitrary moment: what is not on disk is gone.
            world.ctx.sleep(Duration::from_millis(137 * u64::from(slot))).await;
            world.read();
            world.assert_no_fork();
            world.ids
        };
        let (ids, next) = match checkpoint.take() {
            None => deterministic::Runner::seeded(seed).start_and_recover(life),
            Some(checkpoint) => deterministic::Runner::from(checkpoint).start_and_recover(life),
        };
        checkpoint = Some(next);
        for ids in ids {
            for height in 1..=*ids.keys().last().unwrap() {
                // A restarted provider shows its stored blocks again, from the first.
                let id = ids[&height];
                assert_eq!(*known.entry(height).or_insert(id), id, "fork at {height}");
            }
        }
    }
    assert!(known.len() > 30, "{} blocks", known.len());
}
