//! Rounds of Algorithm 3 over whole nodes: committees change, everybody follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bkss_ledger::{FinalBlock, Rounds, genesis::Weighing, leader::leader_of};
use bkss_node::{Config, Event, Pacing, config::Latest, node::Node, simulated::Running};
use bkss_scheme::{Digest, LedgerTime, ProviderId};
use commonware_p2p::simulated::Link;
use commonware_runtime::{
    Clock, Runner,
    deterministic::{self, Context},
};

use crate::{
    consortium::Consortium,
    network::{self, Net},
};

/// Four seats, rounds of eight blocks.
pub(crate) const SHORT: Rounds =
    Rounds { blocks: 8, committee: 4, alternates: 2, tenure_views: 1, votes: Weighing::Members };

/// Providers that come and go, and what they have shown of the ledger.
pub(crate) struct World<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) net: Net,
    pub(crate) running: Vec<Option<Running>>,
    /// Block ids by height, of each provider since it started.
    ids: Vec<BTreeMap<u64, Digest>>,
    /// The first height that each will show.
    pub(crate) first: Vec<u64>,
    /// What all have agreed on.
    known: BTreeMap<u64, Digest>,
    /// When the first provider had its blocks.
    pub(crate) seen: Vec<SystemTime>,
    /// Who led to the first provider's blocks, of those that have a certificate of their own.
    pub(crate) led: Vec<ProviderId>,
    /// Committees by round.
    pub(crate) committees: BTreeMap<u64, Vec<ProviderId>>,
    /// The handovers that the first provider has shown.
    pub(crate) handovers: BTreeMap<u64, Vec<u8>>,
}

impl<'a> World<'a> {
    /// Starts all of them.
    pub(crate) async fn start(ctx: &'a Context, configs: &[Config]) -> Self {
        Self::start_first(ctx, configs, configs.len()).await
    }

    /// Starts the first of them; the others have their places.
    pub(crate) async fn start_first(ctx: &'a Context, configs: &[Config], first: usize) -> Self {
        let mut world = Self::of(ctx, Net::new(ctx, configs, first).await, configs.len());
        for (index, config) in configs[..first].iter().enumerate() {
            world.begin(index, config.clone()).await;
        }
        world
    }

    /// So many have a place on this network; nobody runs yet.
    fn of(ctx: &'a Context, net: Net, count: usize) -> Self {
        Self {
            ctx,
            net,
            running: (0..count).map(|_| None).collect(),
            ids: vec![BTreeMap::new(); count],
            first: vec![1; count],
            known: BTreeMap::new(),
            seen: Vec::new(),
            led: Vec::new(),
            committees: BTreeMap::new(),
            handovers: BTreeMap::new(),
        }
    }

    /// Starts one; it shows its stored blocks from the first.
    pub(crate) async fn begin(&mut self, index: usize, config: Config) {
        let running = self.net.run(self.ctx, index, config).await;
        self.replace(index, running);
    }

    /// Puts one in the place of another that was killed; it shows its stored blocks from the first.
    pub(crate) fn replace(&mut self, index: usize, running: Running) {
        self.ids[index].clear();
        self.running[index] = Some(running);
    }

    /// Ends one without notice.
    pub(crate) async fn kill(&mut self, index: usize) {
        if let Some(Running { handle, .. }) = self.running[index].take() {
            handle.abort();
            let _ = handle.await;
            // Its tasks end when they are looked at next.
            self.ctx.sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads what the nodes show: blocks in order, each once, the same on all.
    pub(crate) fn read(&mut self) {
        for (index, running) in self.running.iter_mut().enumerate() {
            let Some(Running { node, .. }) = running else { continue };
            while let Ok(Event::Final { block, seen }) = node.events.try_recv() {
                let (height, id) = (block.header().height, block.header().id());
                if index == 0 {
                    self.seen.push(seen);
                    self.handovers.extend(block.handover().map(|handover| (height, handover)));
                    self.led.extend(leader(node, &block));
                }
                let last = self.ids[index].keys().last();
                let expected = last.map_or(self.first[index], |last| last + 1);
                assert_eq!(height, expected, "provider {index} shows blocks in order, each once");
                self.ids[index].insert(height, id);
                let known = *self.known.entry(height).or_insert(id);
                assert_eq!(known, id, "provider {index} has another block {height}");
            }
            let status = node.status.read();
            if status.leader.is_some() {
                let known = self.committees.entry(status.round);
                let known = known.or_insert_with(|| status.committee.clone());
                assert_eq!(known, &status.committee, "committee of round {}", status.round);
            }
        }
    }

    /// Lets time pass until all running nodes have a height, at most that many seconds.
    pub(crate) async fn until(&mut self, height: u64, seconds: u32) {
        for _ in 0..seconds * 10 {
            self.read();
            let mut ids = self.running.iter().zip(&self.ids);
            if ids.all(|(running, ids)| running.is_none() || newest(ids) >= height) {
                return;
            }
            self.ctx.sleep(Duration::from_millis(100)).await;
        }
        let running = self.running.iter().map(|one| one.as_ref().map(|one| one.node.status.read()));
        let heights: Vec<_> = self.ids.iter().map(newest).collect();
        unreachable!(
            "height {height} is not reached: {heights:?} {:?}",
            running.collect::<Vec<_>>()
        );
    }

    /// Lets time pass until the first of the running nodes has a block of this ledger time.
    pub(crate) async fn until_time(&mut self, time: LedgerTime) {
        for _ in 0..12_000 {
            self.read();
            if self.nodes().next().is_some_and(|node| node.status.read().head_time >= time) {
                return;
            }
            self.ctx.sleep(Duration::from_millis(50)).await;
        }
        unreachable!("ledger time {time} is not reached");
    }

    /// The height that all running nodes have shown.
    pub(crate) fn height(&self) -> u64 {
        let ids = self.running.iter().zip(&self.ids).filter(|(running, _)| running.is_some());
        ids.map(|(_, ids)| newest(ids)).min().unwrap_or(0)
    }

    /// The block that all agreed on.
    pub(crate) fn known(&self, height: u64) -> Digest {
        self.known[&height]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.running.iter().flatten().map(|running| &running.node)
    }
}

/// Who led in the view of a block of this round; `None` if it is proven by a later one.
fn leader(node: &Node, block: &FinalBlock) -> Option<ProviderId> {
    let (finality, chain) = (block.finality()?, node.shared.chain());
    let (round, certificate) = (chain.state().round(), finality.certificate);
    let tenure_views = chain.state().genesis().charter().rounds.tenure_views;
    let known = finality.descendants.is_empty() && certificate.epoch == round.number;
    known.then(|| leader_of(round, certificate.view, tenure_views))?.map(|(leader, _)| leader)
}

fn newest(ids: &BTreeMap<u64, Digest>) -> u64 {
    ids.keys().last().copied().unwrap_or(0)
}

#[test]
fn committees_change_by_votes_and_everybody_follows() {
    let seed = 5;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 8, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(100, 600).await;
        let committees: BTreeSet<_> = world.committees.values().collect();
        assert!(committees.len() > 4, "{committees:?}");
        for node in world.nodes() {
            let status = node.status.read();
            assert!(status.round >= 12 && status.leader.is_some(), "{status:?}");
            assert_eq!(status.connected.len(), 7, "{status:?}");
            assert_eq!(status.committee.len(), 4);
        }
        let voting = world.nodes().filter(|node| node.status.read().votes).count();
        assert!(voting >= 4, "{voting} of 8 vote");
    });
}

/// Nobody may vote in a round that began when, by its clock, it may have lived before.
#[test]
fn a_first_round_that_would_be_shorter_than_the_precision_of_the_clocks_waits_for_it() {
    let seed = 9;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        let (soon, late) = (Duration::from_millis(1), Duration::from_secs(2));
        for config in &mut configs {
            let leader_timeout = late;
            config.pacing = Pacing {
                gather: soon,
                interval: soon,
                idle: soon,
                leader_timeout,
                ..config.pacing
            };
        }
        // One of them proposes a first block long before the others have started.
        let net = Net::new(&ctx, &configs, configs.len()).await;
        let (latency, jitter) = (Duration::from_millis(2), Duration::ZERO);
        net.0.link_all(&Link { latency, jitter, ..network::link() }).await.unwrap();
        let mut world = World::of(&ctx, net, configs.len());
        for (place, config) in configs.into_iter().enumerate() {
            world.begin(place, config).await;
            ctx.sleep(Duration::from_secs(if place == 0 { 30 } else { 0 })).await;
        }
        world.until(3 * u64::from(SHORT.blocks), 60).await;
        let took = |height: usize| world.seen[height - 1].duration_since(world.seen[0]).unwrap();
        let precision = consortium.genesis.charter().terms.precision_ms.into();
        let precision = Duration::from_millis(precision);
        assert!(took(4) < precision / 2, "the blocks of this test are too slow: {:?}", took(4));
        assert!(took(8) > precision, "{:?}", took(8));
        assert!(took(16) - took(8) < 2 * precision, "and only there");
    });
}

/// Who restarts nodes one after another waits for this.
#[test]
fn a_node_that_says_so_votes_in_the_round_that_begins_next() {
    let seed = 17;
    println!("seed {seed}");
    let blocks = 24;
    let consortium = Consortium::with(seed, 4, Rounds { blocks, ..SHORT });
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        let (mut said, mut silenced) = (0, 0);
        // It is killed early in a round, and comes back so many blocks before its end.
        for before_end in [1, 3, 8] {
            let round = u64::from(blocks) * (world.height() / u64::from(blocks) + 1);
            world.until(round + 5, 600).await;
            world.kill(1).await;
            world.until(round + u64::from(blocks) - before_end, 600).await;
            world.begin(1, configs[1].clone()).await;
            let status = world.nodes().nth(1).unwrap().status.clone();
            let mut before = status.read();
            assert!(!before.votes_next, "it has just started");
            while before.height < round + 2 * u64::from(blocks) + 5 {
                ctx.sleep(Duration::from_millis(10)).await;
                world.read();
                let now = status.read();
                assert!(now.votes_next || !before.votes_next, "what was said holds");
                if now.round > before.round && before.leader.is_some() {
                    assert!(now.votes || !before.votes_next, "{before:?} {now:?}");
                    said += u32::from(before.votes_next);
                    silenced += u32::from(!now.votes);
                }
                before = now;
            }
        }
        assert!(said > 2 && silenced > 0, "{said} rounds were foretold, {silenced} not voted in");
        assert!(world.nodes().all(|node| node.shared.chain().state().offences().is_empty()));
    });
}

/// Who has lost its store in the first round of a network cannot know whether it has voted. A genesis
/// file that has grown tells that the network has blocks; without one it votes, as a founder does.
#[test]
fn a_store_that_is_lost_in_the_first_round_is_noticed_by_a_genesis_file_that_has_grown() {
    let seed = 18;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, Rounds { blocks: 64, ..SHORT });
    let providers = consortium.genesis.charter().providers.clone();
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        for (known, votes) in [(3, false), (0, true)] {
            let height = world.height() + 5;
            world.until(height, 600).await;
            world.kill(3).await;
            let latest = Latest { height: known, providers: providers.clone() };
            let partition = format!("lost-{known}");
            world.begin(3, Config { partition, latest, ..configs[3].clone() }).await;
            world.until(height + 5, 600).await;
            let status = world.nodes().nth(3).unwrap().status.read();
            assert_eq!((status.round, status.leader.is_some()), (0, true), "{status:?}");
            assert_eq!(status.votes, votes, "a file that knows block {known}");
        }
    });
}

#[test]
fn a_provider_that_was_away_for_rounds_catches_up_and_one_without_a_disk_too() {
    let seed = 6;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 5, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(20, 300).await;
        for (height, partition) in [(60, "provider-1"), (100, "a-new-disk")] {
            world.kill(1).await;
            world.until(height, 600).await;
            let config = Config { partition: partition.into(), ..configs[1].clone() };
            world.begin(1, config).await;
            let before = ctx.current();
            world.until(height, 60).await;
            let took = ctx.current().duration_since(before).unwrap();
            assert!(took < Duration::from_secs(5), "{height} blocks in {took:?}");
            println!("{height} blocks caught up in {took:?} of virtual time");
            world.until(height + 20, 300).await;
        }
        // The whole committee was on disk all the time: everybody stops and goes on.
        let height = world.height();
        for index in 0..5 {
            world.kill(index).await;
        }
        for (index, config) in configs.iter().enumerate().filter(|(index, _)| *index != 1) {
            world.begin(index, config.clone()).await;
        }
        world.until(height + 20, 600).await;
    });
}

#[test]
fn every_block_is_proven_after_power_cuts_in_any_round() {
    let seed = 7;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 5, SHORT);
    let configs = network::configs(&consortium, SystemTime::UNIX_EPOCH);
    let mut checkpoint = None;
    let mut known: BTreeMap<u64, Digest> = BTreeMap::new();
    for life in 1..=6_u64 {
        let configs = &configs;
        let run = |ctx: Context| async move {
            let mut world = World::start(&ctx, configs).await;
            world.until(life * 11, 600).await;
            ctx.sleep(Duration::from_millis(137 * life)).await;
            world.read();
            world.known
        };
        let (shown, next) = match checkpoint.take() {
            None => deterministic::Runner::seeded(seed).start_and_recover(run),
            Some(checkpoint) => deterministic::Runner::from(checkpoint).start_and_recover(run),
        };
        checkpoint = Some(next);
        for (height, id) in shown {
            assert_eq!(*known.entry(height).or_insert(id), id, "fork at {height}");
        }
    }
    assert!(known.len() >= 66, "{} blocks", known.len());
}

#[test]
fn a_provider_that_dies_and_returns_holds_nobody_up_for_two_seconds() {
    let seed = 8;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, Rounds { blocks: 50, ..SHORT });
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(6, 300).await;
        for _ in 0..2 {
            world.kill(1).await;
            let height = world.height();
            world.until(height + 20, 300).await;
            world.begin(1, configs[1].clone()).await;
            let height = world.height();
            world.until(height.max(20) + 20, 300).await;
        }
        let seen = world.seen.windows(2);
        let longest = seen.map(|pair| pair[1].duration_since(pair[0]).unwrap()).max().unwrap();
        println!("longest pause {longest:?}");
        assert!(longest < Duration::from_secs(2), "{longest:?}");
    });
}
