//! One of four does what it must not: the others go on, and what can be proven is on the ledger.

use std::{collections::BTreeSet, time::Duration};

use bkss_node::{Config, LedgerClock, plan::participants, simulated};
use bkss_scheme::{LedgerTime, ProviderId, certificate::vote_namespace};
use commonware_consensus::simplex::{mocks::conflicter, scheme::ed25519::Scheme};
use commonware_cryptography::{Sha256, ed25519::PublicKey};
use commonware_p2p::{
    Recipients, Sender,
    simulated::{Link, SplitOrigin},
    utils::mux::Muxer,
};
use commonware_runtime::{Clock, Runner, Spawner, Supervisor, deterministic};
use commonware_utils::probability;

use crate::{
    consortium::Consortium,
    network,
    rounds::{SHORT, World},
};

/// Channels of a node by number, as `network::split` counts them.
const BACKFILL: usize = 3;
const BROADCAST: usize = 4;

#[test]
fn votes_for_two_blocks_are_proven_on_the_ledger() {
    let seed = 11;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.kill(3).await;
        // Provider 3 votes for everything, and for something else, in the first round.
        let (channels, _) = world.net.channels(3).await;
        let (mux, mut lanes) = Muxer::new(ctx.child("lanes"), channels.votes.0, channels.votes.1);
        mux.start();
        let lane = lanes.register(0).await.unwrap();
        let committee = participants(consortium.genesis.committee()).unwrap();
        let namespace = vote_namespace(consortium.genesis.network());
        let scheme = Scheme::signer(&namespace, committee, configs[3].vote_key.clone()).unwrap();
        conflicter::Conflicter::<_, _, Sha256>::new(
            ctx.child("conflicter"),
            conflicter::Config { scheme },
        )
        .start(lane);
        world.until(40, 600).await;
        for node in world.nodes() {
            let chain = node.shared.chain();
            let offences = chain.state().offences();
            assert!(!offences.is_empty(), "{:?}", node.status.read());
            for offence in offences {
                assert_eq!((offence.provider, offence.epoch), (ProviderId(3), 0));
            }
            assert!(node.status.read().faults > 0);
        }
    });
}

#[test]
fn a_silent_provider_and_one_with_a_wrong_clock_stop_nobody() {
    let seed = 12;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        let wrong = LedgerTime(consortium.genesis.charter().start.0 + 3_600_000);
        configs[2].clock = LedgerClock::new(network::now(&ctx), wrong, network::SCALE);
        let mut world = World::start(&ctx, &configs).await;
        world.until(24, 600).await;
        for node in world.nodes() {
            let status = node.status.read();
            assert!(status.view_changes > 0, "proposals an hour ahead are voted out: {status:?}");
            assert!(status.head_time < wrong, "{status:?}");
        }
        // Its clock is right again, and another is silent.
        world.kill(2).await;
        configs[2].clock = configs[0].clock.clone();
        world.begin(2, configs[2].clone()).await;
        world.kill(3).await;
        let height = world.height();
        world.until(height + 24, 600).await;
        ctx.sleep(Duration::from_secs(1)).await;
        assert!(world.nodes().all(|node| node.shared.chain().state().offences().is_empty()));
    });
}

/// Whom a message reaches, of those that may get it.
fn only(allowed: &[PublicKey], asked: &Recipients<PublicKey>) -> Recipients<PublicKey> {
    Recipients::Some(match asked {
        Recipients::All => allowed.to_vec(),
        Recipients::One(one) => allowed.iter().filter(|key| *key == one).cloned().collect(),
        Recipients::Some(some) => {
            allowed.iter().filter(|key| some.contains(key)).cloned().collect()
        }
    })
}

#[test]
fn a_leader_that_shows_two_blocks_is_on_record_and_forks_nobody() {
    let seed = 13;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.kill(3).await;
        // Two whole nodes with the key of provider 3: each proposes and votes for itself. One is
        // heard by 0 and 1, the other by 1 and 2.
        let (channels, peers) = world.net.channels(3).await;
        let heard = [&world.net.0.keys()[..2], &world.net.0.keys()[1..3]].map(<[_]>::to_vec);
        let twins = network::split(&ctx, channels, |_| {
            let heard = heard.clone();
            move |origin, asked: &Recipients<PublicKey>, _: &_| match origin {
                SplitOrigin::Primary => Some(only(&heard[0], asked)),
                SplitOrigin::Secondary => Some(only(&heard[1], asked)),
            }
        });
        for (number, channels) in twins.into_iter().enumerate() {
            let partition = format!("twin-{number}");
            let config = Config { partition, vote_without_memory: true, ..configs[3].clone() };
            let twin = ctx.child("twin").with_attribute("number", number);
            let mut twin = simulated::launch(twin, config, channels, peers.clone()).await.unwrap();
            ctx.child("drain").spawn(move |_| async move {
                while twin.node.events.recv().await.is_some() {}
                twin.handle.abort();
            });
        }
        // The world sees to it that the three have the same blocks.
        world.until(64, 900).await;
        for node in world.nodes() {
            let chain = node.shared.chain();
            let offences = chain.state().offences();
            assert!(!offences.is_empty(), "{:?}", node.status.read());
            assert!(offences.iter().all(|offence| offence.provider == ProviderId(3)));
        }
    });
}

/// Where a round begins, a view may end without a block though nobody fails.
const FEW: u64 = 4;

/// Views that have ended without a block and blocks in half a minute, while provider 3 is as it is.
async fn half_a_minute(world: &mut World<'_>) -> (u64, u64) {
    let first = |world: &World<'_>| world.nodes().next().unwrap().status.read();
    let before = first(world);
    for _ in 0..300 {
        world.ctx.sleep(Duration::from_millis(100)).await;
        world.read();
    }
    let after = first(world);
    (after.view_changes - before.view_changes, after.height - before.height)
}

#[test]
fn a_slow_provider_loses_its_turns_and_nobody_else_does() {
    let seed = 14;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(8, 600).await;
        let (lost, blocks) = half_a_minute(&mut world).await;
        assert!(lost < FEW, "{lost} turns lost while all are fast");
        // What it sends and gets takes longer than anybody waits for a leader.
        let (latency, jitter) = (Duration::from_secs(2), Duration::from_millis(300));
        world.net.relink(3, &Link { latency, jitter, success_rate: probability!(1.0) }).await;
        let (lost, slower) = half_a_minute(&mut world).await;
        println!("{blocks} blocks in half a minute, {slower} with a slow one, {lost} turns lost");
        assert!(
            lost > FEW && slower * 3 > blocks,
            "{lost} turns lost, {slower} of {blocks} blocks"
        );
        let heights: Vec<_> = world.nodes().map(|node| node.status.read().height).collect();
        assert!(heights[3] + 8 > heights[0], "it follows some seconds behind: {heights:?}");
        assert!(world.nodes().all(|node| node.shared.chain().state().offences().is_empty()));

        world.net.relink(3, &network::link()).await;
        let height = world.height();
        world.until(height + 16, 600).await;
        let (lost, _) = half_a_minute(&mut world).await;
        assert!(lost < FEW, "{lost} turns lost though it is fast again");
    });
}

/// Who has led to a block.
fn leaders(world: &World<'_>) -> Vec<u16> {
    BTreeSet::from_iter(world.led.iter().map(|leader| leader.0)).into_iter().collect()
}

#[test]
fn a_leader_that_withholds_its_blocks_loses_its_turns() {
    let seed = 15;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(8, 600).await;
        let (lost, blocks) = half_a_minute(&mut world).await;
        assert!(lost < FEW, "{lost} turns lost while all show their blocks");
        assert_eq!(leaders(&world), [0, 1, 2, 3]);
        world.kill(3).await;
        // It votes for its proposals and shows nobody their blocks, however they ask.
        let (channels, peers) = world.net.channels(3).await;
        let [channels, _] = network::split(&ctx, channels, |channel| {
            let silent = matches!(channel, BACKFILL | BROADCAST);
            move |_, asked: &Recipients<PublicKey>, _: &_| (!silent).then(|| asked.clone())
        });
        let liar = simulated::launch(ctx.child("liar"), configs[3].clone(), channels, peers)
            .await
            .unwrap();
        world.replace(3, liar);
        let height = world.height();
        world.until(height + 16, 600).await;
        world.led.clear();
        let (lost, slower) = half_a_minute(&mut world).await;
        println!("{blocks} blocks in half a minute, {slower} with a liar, {lost} turns lost");
        assert!(
            lost > FEW && slower * 3 > blocks,
            "{lost} turns lost, {slower} of {blocks} blocks"
        );
        assert_eq!(leaders(&world), [0, 1, 2], "what it proposed is nowhere on the ledger");
    });
}

#[test]
fn a_peer_that_claims_to_be_rounds_ahead_silences_nobody() {
    let seed = 16;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.kill(3).await;
        // To nodes that have just started, without any record: a vote of round 99.
        let (channels, _) = world.net.channels(3).await;
        let mut votes = channels.votes.0;
        assert_eq!(votes.send(Recipients::All, vec![99_u8, 0], true).len(), 3);
        world.until(24, 600).await;
        for node in world.nodes() {
            let status = node.status.read();
            assert!(status.votes && status.round >= 2, "{status:?}");
        }
    });
}
