//! What a disk loses or alters is found, fetched again and never served; and nobody votes twice.

use std::time::Duration;

use commonware_consensus::types::Height;
use commonware_runtime::{
    Blob, Clock, ReadOptions, Runner, Storage, WriteOptions,
    deterministic::{self, Context},
};

use crate::{
    consortium::Consortium,
    network,
    rounds::{SHORT, World},
};

/// Flips a bit at the front and one in the middle of every blob of a partition; how many blobs
/// there were.
pub(crate) async fn flip(ctx: &Context, partition: &str) -> usize {
    let names = ctx.scan(partition).await.unwrap_or_default();
    flip_in(ctx, partition, &names).await
}

async fn flip_in(ctx: &Context, partition: &str, names: &[Vec<u8>]) -> usize {
    let mut flipped = 0;
    for name in names {
        let (blob, length) = ctx.open(partition, name).await.unwrap();
        if length > 0 {
            for at in [length.min(200) / 2, length / 2] {
                let byte = blob.read_at(at, 1, ReadOptions::default()).await.unwrap().coalesce();
                let byte = byte.as_ref()[0] ^ 0x10;
                blob.write_at(at, vec![byte], WriteOptions::default()).await.unwrap();
            }
            blob.sync().await.unwrap();
            flipped += 1;
        }
    }
    flipped
}

#[test]
fn an_altered_byte_in_any_archive_is_found_and_fetched_again() {
    let seed = 21;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(20, 600).await;
        for archive in ["blocks", "finalizations"] {
            for part in ["keys", "values"] {
                world.kill(1).await;
                let partition = format!("provider-1-{archive}-{part}");
                let flipped = flip(&ctx, &partition).await;
                assert!(flipped > 0, "{partition} has nothing");
                let height = world.height();
                world.begin(1, configs[1].clone()).await;
                world.until(height + 4, 600).await;
                let node = world.nodes().nth(1).unwrap();
                for height in 1..=height {
                    let block = node.marshal.get_block(Height::new(height)).await;
                    let block = block.unwrap_or_else(|| panic!("{partition}: no block {height}"));
                    let expected = world.known(height);
                    assert_eq!(block.inner().block().id(), expected, "{partition}: {height}");
                }
            }
        }
        let chain = world.nodes().next().unwrap().shared.chain();
        assert!(chain.state().offences().is_empty(), "nobody voted twice");
    });
}

#[test]
fn lost_blocks_are_fetched_before_the_node_votes_again() {
    let seed = 22;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(30, 600).await;
        world.kill(1).await;
        for archive in ["blocks", "finalizations", "bodies"] {
            for part in ["keys", "values", "metadata"] {
                let _ = ctx.remove(&format!("provider-1-{archive}-{part}"), None).await;
            }
        }
        world.begin(1, configs[1].clone()).await;
        let round = 30 / u64::from(SHORT.blocks);
        let mut behind = 0;
        loop {
            world.read();
            let status = world.nodes().nth(1).unwrap().status.read();
            if status.round > round {
                break;
            }
            behind += u64::from(status.round < round && status.leader.is_some());
            let gap = status.round < round;
            assert!(!gap || !status.votes, "votes over a gap: {status:?}");
            ctx.sleep(Duration::from_millis(10)).await;
        }
        assert!(behind > 0, "it was behind for a while");
        world.until(world.height() + 24, 600).await;
        let node = world.nodes().nth(1).unwrap();
        assert!(node.status.read().votes, "it votes again");
        assert!(node.shared.chain().state().offences().is_empty());
    });
}

#[test]
fn a_node_whose_journal_of_votes_is_lost_or_torn_follows_until_the_next_round() {
    let seed = 23;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, bkss_ledger::Rounds { blocks: 30, ..SHORT });
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        for (first, damage) in [(8, "none"), (38, "lost"), (68, "torn")] {
            world.until(first, 600).await;
            world.kill(1).await;
            let round = first / 30;
            let journal = format!("provider-1-simplex-{round}");
            match damage {
                "lost" => ctx.remove(&journal, None).await.unwrap(),
                "torn" => assert!(flip(&ctx, &journal).await > 0),
                _ => {}
            }
            world.begin(1, configs[1].clone()).await;
            world.until(first + 4, 600).await;
            let status = world.nodes().nth(1).unwrap().status.read();
            assert_eq!(status.round, round, "{damage}");
            assert_eq!(status.votes, damage == "none", "{damage}: {status:?}");
            world.until((round + 1) * 30 + 4, 600).await;
            let status = world.nodes().nth(1).unwrap().status.read();
            assert!(status.round == round + 1 && status.votes, "{damage}: {status:?}");
        }
        let node = world.nodes().next().unwrap();
        assert!(node.shared.chain().state().offences().is_empty(), "nobody voted twice");
    });
}

#[test]
fn a_restart_begins_at_the_newest_good_snapshot() {
    let seed = 24;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        configs.iter_mut().for_each(|config| config.snapshot_rounds = 2);
        let mut world = World::start(&ctx, &configs).await;
        world.until(34, 600).await;
        for (altered, listened) in [(0, u64::MAX), (1, u64::MAX), (2, u64::MAX), (0, 1)] {
            world.kill(1).await;
            let partition = "provider-1-snapshots";
            let mut names = ctx.scan(partition).await.unwrap();
            names.sort();
            assert_eq!(names.len(), 2, "two are kept");
            names.reverse();
            assert_eq!(flip_in(&ctx, partition, &names[..altered]).await, altered);
            let good = names.get(altered).filter(|_| listened > 1);
            let height = |name: &Vec<u8>| u64::from_be_bytes(name[..].try_into().unwrap());
            world.first[1] = good.map_or(0, height) + 1;
            println!("{altered} altered: begins behind {}", world.first[1] - 1);
            let config = bkss_node::Config { events_from: listened, ..configs[1].clone() };
            let height = world.height();
            world.begin(1, config).await;
            // Headers carry the digest of the state at the end of the round before.
            world.until(height + 34, 600).await;
            assert!(world.nodes().nth(1).unwrap().status.read().votes);
        }
    });
}
