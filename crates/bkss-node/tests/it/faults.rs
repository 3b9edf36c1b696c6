//! One of four does what it must not: the others go on, and what can be proven is on the ledger.

use std::time::Duration;

use bkss_node::{LedgerClock, plan::participants};
use bkss_scheme::{LedgerTime, ProviderId, certificate::vote_namespace};
use commonware_consensus::simplex::{mocks::conflicter, scheme::ed25519::Scheme};
use commonware_cryptography::Sha256;
use commonware_p2p::utils::mux::Muxer;
use commonware_runtime::{Clock, Runner, Supervisor, deterministic};

use crate::{
    consortium::Consortium,
    network,
    rounds::{SHORT, World},
};

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
