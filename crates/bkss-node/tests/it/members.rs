//! Providers that join, leave, die and return while committees change.

use std::{collections::BTreeSet, time::Duration};

use bkss_ledger::{Change, Rounds, Transaction, change::Body};
use bkss_node::{
    Config, config,
    plan::{Peer, Plan},
};
use bkss_scheme::{
    ProviderId, SecretKey,
    identity::Name,
    seal::{KeyId, OpeningKey},
};
use commonware_cryptography::Signer;
use commonware_runtime::{Clock, Runner, Storage, deterministic};

use crate::{
    consortium::Consortium,
    network,
    rounds::{SHORT, World},
};

/// Rounds of the whole story; `BKSS_ROUNDS` makes it longer.
const ROUNDS: u64 = 32;

/// The keys of somebody who is not a founder, and its change to join, approved by a quorum.
fn stranger(consortium: &mut Consortium, model: &Config) -> (Config, Change) {
    let network = consortium.genesis.network();
    let id = ProviderId(8);
    let key = SecretKey::generate(&mut consortium.rng);
    let (private, vote_key) = config::vote_key(&[0x5E; 32]);
    let mut identity = consortium.genesis.charter().providers[0].clone();
    identity.id = id;
    identity.key = key.public();
    identity.vote_key = vote_key;
    identity.sealing_key = OpeningKey::generate(KeyId(1), &mut consortium.rng).public();
    identity.address = Name::new();
    let mut change = Change::new(Body::Join(identity), ROUNDS);
    change.sign(network, &key);
    for (provider, approving) in (0..6).zip(&consortium.keys) {
        change.approve(network, ProviderId(provider), approving);
    }
    let joins = Config {
        provider: id,
        identity: key,
        vote_key: private,
        partition: "provider-8".into(),
        ..model.clone()
    };
    (joins, change)
}

fn submit(world: &World<'_>, change: &Change) {
    for node in world.nodes() {
        node.shared.add(Transaction::Change(change.clone())).unwrap();
    }
}

#[test]
fn a_provider_that_joins_has_the_ledger_before_its_round_begins() {
    let seed = 32;
    println!("seed {seed}");
    let rounds = Rounds { blocks: 60, committee: 5, ..SHORT };
    let mut consortium = Consortium::with(seed, 4, rounds);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        let (joins, change) = stranger(&mut consortium, &configs[0]);
        configs.push(joins);
        let mut world = World::start_first(&ctx, &configs, 4).await;
        world.until(65, 600).await;
        // Before the change nobody talks to it.
        world.begin(4, configs[4].clone()).await;
        ctx.sleep(Duration::from_secs(5)).await;
        let newcomer = |world: &World<'_>| world.nodes().last().unwrap().status.read();
        assert_eq!((newcomer(&world).height, newcomer(&world).connected.len()), (0, 0));

        submit(&world, &change);
        world.until(90, 600).await;
        let status = newcomer(&world);
        assert_eq!((status.connected.len(), status.votes), (4, false), "{status:?}");
        assert!(world.nodes().all(|node| node.status.read().round == 1), "the round goes on");
        world.until(130, 600).await;
        let status = newcomer(&world);
        assert!(status.round == 2 && status.votes, "it votes in its first round: {status:?}");
        world.kill(0).await;
        let height = world.height();
        world.until(height + 20, 600).await;
    });
}

#[test]
fn committees_change_while_members_join_leave_die_and_return() {
    let seed = 31;
    println!("seed {seed}");
    let mut consortium = Consortium::with(seed, 8, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        let (joins, change) = stranger(&mut consortium, &configs[0]);
        configs.push(joins);
        let mut world = World::start_first(&ctx, &configs, 8).await;
        world.until(12, 600).await;
        submit(&world, &change);
        world.until(24, 600).await;
        world.begin(8, configs[8].clone()).await;
        world.until(80, 600).await;
        world.kill(2).await;
        world.until(128, 1200).await;
        let mut leaves = Change::new(Body::Leave(ProviderId(3)), ROUNDS);
        leaves.sign(consortium.genesis.network(), &consortium.keys[3]);
        submit(&world, &leaves);
        world.until(144, 1200).await;
        world.kill(3).await;
        world.begin(2, configs[2].clone()).await;
        world.until(ROUNDS * 8, 1800).await;
        // In a longer story providers go on dying and coming back, one after the other.
        let more = std::env::var("BKSS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
        for round in (ROUNDS..more.unwrap_or(ROUNDS)).step_by(8) {
            let dies = [0, 1, 2, 4, 5, 6, 7, 8][usize::try_from(round / 8).unwrap() % 8];
            world.kill(dies).await;
            world.until((round + 4) * 8, 1800).await;
            world.begin(dies, configs[dies].clone()).await;
            world.until((round + 8) * 8, 1800).await;
        }

        let committees = &world.committees;
        let distinct: BTreeSet<_> = committees.values().collect();
        println!("{} committees in {} rounds", distinct.len(), committees.len());
        assert!(distinct.len() > 10, "{committees:?}");
        let sits = |id: u16, rounds: std::ops::Range<u64>| {
            committees.range(rounds).any(|(_, members)| members.contains(&ProviderId(id)))
        };
        assert!(sits(8, 4..ROUNDS), "who joins gets a seat: {committees:?}");
        assert!(!sits(8, 0..2), "{committees:?}");
        assert!(sits(3, 0..16), "{committees:?}");
        assert!(!sits(3, 19..ROUNDS), "who has left has none: {committees:?}");
        assert!(sits(2, 24..ROUNDS), "who returns gets a seat again: {committees:?}");
        for node in world.nodes() {
            let chain = node.shared.chain();
            assert_eq!(chain.state().members().count(), 8);
            assert!(chain.state().offences().is_empty(), "nobody voted twice");
        }
    });
}

/// Of five, one leaves and has its seat until the round ends; before that all others are started
/// again, one of them without its memory. The leaver's vote is needed, and it is heard.
#[test]
fn who_has_left_votes_until_the_round_ends_also_with_those_that_were_started_again() {
    let seed = 33;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 5, Rounds { blocks: 60, committee: 5, ..SHORT });
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(65, 600).await;
        let mut leaves = Change::new(Body::Leave(ProviderId(4)), ROUNDS);
        leaves.sign(consortium.genesis.network(), &consortium.keys[4]);
        submit(&world, &leaves);
        world.until(75, 600).await;
        for index in 0..4 {
            world.kill(index).await;
        }
        let _ = ctx.remove("provider-0-memory", None).await;
        let _ = ctx.remove("provider-0-simplex-1", None).await;
        for (index, config) in configs[..4].iter().enumerate() {
            world.begin(index, config.clone()).await;
        }
        world.until(90, 600).await;
        // The simulated network remembers who talked to whom; a process that was started does not.
        for node in world.nodes() {
            let plan = Plan::of(node.shared.chain().state());
            let peer = |peer: &&Peer| peer.provider == ProviderId(4);
            let key = plan.peers().iter().find(peer).map(|peer| peer.key.clone());
            assert_eq!(key, Some(configs[4].vote_key.public_key()));
        }
        world.until(130, 600).await;
        let votes: Vec<_> = world.nodes().take(4).map(|node| node.status.read().votes).collect();
        assert_eq!(votes, [true; 4], "in the next round, which the leaver has no seat in");
        for node in world.nodes().take(4) {
            assert_eq!(node.shared.chain().state().members().count(), 4);
            assert!(node.shared.chain().state().offences().is_empty(), "nobody voted twice");
        }
    });
}
