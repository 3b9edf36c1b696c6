//! Meters, gateways and four providers in deterministic simulation.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bkss_ledger::{FinalBlock, Genesis, Transaction, Trust, Witness, receipts::Issued};
use bkss_node::{
    Answer, Event,
    message::NotTaken,
    node::Node,
    receipts::{NoProof, Prover, RequestOf},
    records::{Record, Records, first_row},
};
use bkss_scheme::{
    Digest, LedgerTime, LinkIndex, MeterId, codec,
    receipt::Receipt,
    timestamp::TimeProof,
    transaction::{Release, Submit},
};
use commonware_runtime::{
    Clock, Runner, Supervisor,
    buffer::paged::CacheRef,
    deterministic::{self, Context},
};
use commonware_utils::{NZU16, NZUsize};

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
    /// Blocks of the first provider.
    blocks: Vec<FinalBlock>,
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
            blocks: Vec::new(),
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
                    self.blocks.push(block.clone());
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

    /// What the first provider proves from its store is what a witness of all blocks proves, also
    /// when its records have been read from the disk.
    async fn assert_proofs(&self, meters: &[Meter]) {
        let node = &self.nodes[0];
        for life in ["the first", "the second"] {
            let records = self.records(life, &self.blocks).await;
            let prover = Prover::new(node.shared.clone(), node.marshal.clone(), records.clone());
            for one in &self.receipts {
                let receipt = prover.receipt(one.meter, one.index, None).await.unwrap();
                assert_eq!(receipt, one.receipt, "{life} life, meter {}", one.meter);
                let slot = prover.slot(one.meter, one.index).await.unwrap();
                // A meter knows its own request by what it is of.
                let receipt: Receipt<'_> = codec::decode("receipt", &receipt).unwrap();
                let (stamp, opened) = (&receipt.timestamp, receipt.opened.header.height);
                assert_eq!(slot.opened, Some(opened), "{life} life");
                let own = RequestOf {
                    height: stamp.inclusion.header.height,
                    gateway: stamp.submitter,
                    value: stamp.value,
                };
                assert!(slot.requested.contains(&own), "{life} life, {slot:?}");
                let of = meters.iter().find(|meter| meter.registration.message.meter == one.meter);
                assert_eq!(slot.chain, of.map(|meter| meter.id), "{life} life");
            }
            for meter in meters {
                let id = meter.registration.message.meter;
                let proof = prover.registration(id).await.unwrap();
                assert_eq!(Some(proof), self.witness.registration_proof(id), "{life} life");
                let index = LinkIndex::new(9, 13).unwrap();
                assert_eq!(prover.receipt(id, index, None).await, Err(NoProof::NotOpened(index)));
            }
            let unknown = MeterId(99);
            let index = LinkIndex::new(1, 13).unwrap();
            let refused = prover.receipt(unknown, index, None).await;
            assert_eq!(refused, Err(NoProof::UnknownMeter(unknown)));
            let after = self.blocks[self.blocks.len() / 2].header().time;
            let proof = prover.time_proof(Some(LedgerTime(after.0 - 1))).await.unwrap();
            let proof: TimeProof<'_> = codec::decode("time", &proof).unwrap();
            assert_eq!(proof.header.time, after, "{life} life");
            let genesis = node.shared.chain().state().genesis().clone();
            assert_eq!(records.directory().trust().encode(), genesis.encode());
        }
    }

    /// The records of the first provider, of some of its blocks.
    async fn records(&self, life: &str, blocks: &[FinalBlock]) -> Arc<Records<Context>> {
        let node = &self.nodes[0];
        let genesis = Genesis::clone(node.shared.chain().state().genesis());
        let cache = CacheRef::new(NZU16!(1024), NZUsize!(16));
        let ctx = self.ctx.child("records").with_attribute("life", life.len());
        let records = Records::open(&ctx, "first", cache, Trust::new(genesis)).await.unwrap();
        for block in blocks {
            let first = first_row(&node.shared.chain().state().view(), block);
            let place = |record: &mut Record| record.first_row = first.unwrap_or_default();
            records.follow(block, place, self.ctx.current()).await.unwrap();
        }
        records.sync().await.unwrap();
        Arc::new(records)
    }

    /// Where the records begin behind what is asked for, that is said, and nothing is called unknown.
    async fn assert_nothing_is_unknown_that_is_not_recorded(&self) {
        let (node, ctx) = (&self.nodes[0], self.ctx.child("later"));
        let genesis = Genesis::clone(node.shared.chain().state().genesis());
        let cache = CacheRef::new(NZU16!(1024), NZUsize!(16));
        let records = Records::open(&ctx, "later", cache, Trust::new(genesis)).await.unwrap();
        let newest = self.blocks.last().unwrap();
        records.follow(newest, |_| (), self.ctx.current()).await.unwrap();
        let after = newest.header().height - 1;
        let prover = Prover::new(node.shared.clone(), node.marshal.clone(), Arc::new(records));
        let one = &self.receipts[0];
        let not_here = NoProof::RecordsAfter(after);
        let slot = prover.slot(one.meter, one.index).await;
        assert_eq!(slot, Err(not_here.clone()));
        assert_eq!(prover.receipt(one.meter, one.index, None).await, Err(not_here.clone()));
        assert_eq!(prover.registration(one.meter).await, Err(not_here));
    }

    /// A chain whose block the records lack is not proven yet, and the node has not lost anything.
    async fn assert_registered_later(&self) {
        let registers = |block: &FinalBlock| !block.verified().registered().is_empty();
        let last = self.blocks.iter().rposition(registers).unwrap();
        let records = self.records("", &self.blocks[..last]).await;
        let node = &self.nodes[0];
        let prover = Prover::new(node.shared.clone(), node.marshal.clone(), records);
        for registered in self.blocks[last].verified().registered() {
            let meter = registered.message().meter;
            assert_eq!(prover.registration(meter).await, Err(NoProof::NotRecorded(meter)));
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
            world.assert_registered_later().await;
            world.assert_nothing_is_unknown_that_is_not_recorded().await;
            world.assert_proofs(meters).await;
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
