//! A late joiner begins at somebody else's snapshot, and lives on from there.

use bkss_ledger::{Beginning, Trust, beginning};
use bkss_node::{Config, snapshots::Snapshots};
use bkss_scheme::{Certificate, ProviderId, finality::Finality, timestamp::TimeProof};
use commonware_codec::Encode;
use commonware_consensus::types::Height;
use commonware_runtime::{
    Blob, ReadOptions, Runner, Storage,
    deterministic::{self, Context},
};

use crate::{
    consortium::Consortium,
    network,
    rounds::{SHORT, World},
    store::flip,
};

/// What the first provider hands out: its newest snapshot that a later round has certified.
async fn hand_out(ctx: &Context, world: &World<'_>, trust: &Trust) -> Vec<u8> {
    let node = world.nodes().next().unwrap();
    let round = u64::from(SHORT.blocks);
    let head = node.shared.chain().state().head().height;
    let found = node.snapshots.newest_up_to(ctx, head - round).await;
    let (height, blob, length) = found.unwrap();
    let next = Height::new(height + round);
    let block = node.marshal.get_block(next).await.unwrap().inner().block().clone();
    let finalization = node.marshal.get_finalization(next).await.unwrap().encode();
    let era = trust.eras().of(height / round + 1).unwrap();
    let (certificate, _) = Certificate::from_engine(&finalization, &era.committee).unwrap();
    let finality = Finality { descendants: &[], certificate };
    let mut file = Vec::new();
    let proof = TimeProof { header: block.header().clone(), finality };
    beginning::write_proof(&proof, &mut file).unwrap();
    let length = usize::try_from(length).unwrap();
    let rest = blob.read_at(0, length, ReadOptions::default()).await.unwrap();
    file.extend_from_slice(rest.coalesce().as_ref());
    file
}

/// The newest snapshot of a provider that is down.
async fn newest(ctx: &Context, partition: &str) -> u64 {
    let found = Snapshots::new(partition).newest_up_to(ctx, u64::MAX).await;
    found.map_or(0, |(height, ..)| height)
}

#[test]
fn a_late_joiner_begins_at_a_snapshot_and_survives_what_its_disk_does() {
    let seed = 41;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 5, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        configs.iter_mut().for_each(|config| config.snapshot_rounds = 2);
        let mut world = World::start_first(&ctx, &configs, 4).await;
        world.until(44, 600).await;
        let handovers: Vec<_> = world.handovers.values().cloned().collect();
        let file = [consortium.genesis.encode(), handovers.concat()].concat();
        let trust = Trust::decode(&file).unwrap();
        let handed = hand_out(&ctx, &world, &trust).await;
        let beginning = Beginning::read(&trust, &handed[..]).unwrap();
        let begun = beginning.state().head().height;
        assert!(begun >= 31, "begins behind {begun}");
        let late = &configs[4].partition;
        Snapshots::new(late).adopt(&ctx, beginning).await.unwrap();

        let listens = |from| Config { events_from: from, ..configs[4].clone() };
        world.first[4] = begun + 1;
        world.begin(4, listens(begun + 1)).await;
        world.until(60, 600).await;
        // Another dies: the newcomer takes its seat, and no round would end without its votes.
        world.kill(3).await;
        world.until(100, 600).await;
        let sits = world.committees.range(8..).any(|(_, them)| them.contains(&ProviderId(4)));
        assert!(sits, "it keeps rounds: {:?}", world.committees);
        let node = world.nodes().last().unwrap();
        assert!(node.marshal.get_block(Height::new(begun)).await.is_some());
        assert!(node.marshal.get_block(Height::new(begun - 1)).await.is_none());

        // A restart; then its blocks are lost, then its snapshots too.
        for damage in ["none", "blocks", "snapshots"] {
            world.kill(4).await;
            if damage == "blocks" {
                for part in ["keys", "values", "metadata"] {
                    let _ = ctx.remove(&format!("{late}-blocks-{part}"), None).await;
                }
            }
            if damage == "snapshots" {
                assert!(flip(&ctx, &format!("{late}-snapshots")).await > 0);
            }
            let from = if damage == "snapshots" { 0 } else { newest(&ctx, late).await };
            assert!(damage == "snapshots" || from > begun, "it has snapshots of its own");
            world.first[4] = from + 1;
            let height = world.height();
            world.begin(4, listens(u64::MAX)).await;
            world.until(height + 32, 600).await;
            let node = world.nodes().last().unwrap();
            let first = node.marshal.get_block(Height::new(1)).await;
            assert_eq!(first.is_some(), damage == "snapshots", "{damage}");
        }
        let chain = world.nodes().next().unwrap().shared.chain();
        assert!(chain.state().offences().is_empty(), "nobody voted twice");
    });
}
