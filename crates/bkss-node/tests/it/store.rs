//! What a disk loses or alters is found, fetched again and never served; and nobody votes twice.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bkss_ledger::{Block, Boundary, Transaction};
use bkss_node::{
    Answer,
    engine_block::{BlockLimits, EngineBlock},
    repair::check,
    store::{BlockStore, Certificate, CertificateStore, ITEMS_PER_SECTION, certificate_of},
};
use bkss_scheme::{
    Header, LedgerTime,
    finality::Finality,
    transaction::{Release, Submit},
};
use commonware_codec::{Decode, Encode};
use commonware_consensus::{
    marshal::store::{Blocks, Certificates},
    types::Height,
};
use commonware_cryptography::Digestible;
use commonware_runtime::{
    Blob, Clock, ReadOptions, Runner, Storage, WriteOptions,
    buffer::paged::CacheRef,
    deterministic::{self, Context, FaultConfig},
};
use commonware_storage::archive::Identifier;
use commonware_utils::{NZU16, NZUsize, probability};

use crate::{
    blocks::block,
    consortium::{Consortium, Meter, at},
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
            // Of a short one this is the same place, and two flips of a bit are none.
            for at in BTreeSet::from([length.min(200) / 2, length / 2]) {
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

/// The files of an archive on disk, with their lengths.
async fn files_of(ctx: &Context, archive: &str) -> Vec<(String, Vec<u8>, u64)> {
    let mut files = Vec::new();
    for part in ["metadata", "keys", "values"] {
        let partition = format!("provider-1-{archive}-{part}");
        for name in ctx.scan(&partition).await.unwrap_or_default() {
            let (_, length) = ctx.open(&partition, &name).await.unwrap();
            files.push((partition.clone(), name, length));
        }
    }
    files
}

/// A reading of a meter becomes final, with its body.
async fn open_one(world: &mut World<'_>, meter: &Meter) {
    let mailbox = world.nodes().next().unwrap().mailbox.clone();
    let registration = Transaction::Registration(meter.registration.clone());
    assert_eq!(mailbox.take_one(registration).await, Ok(Answer::Accepted));
    let signed = meter.sign(1, 26);
    let (meter, index) = (meter.registration.message.meter, signed.index);
    world.until_time(at(1, 0)).await;
    let submit = Submit { meter, index, value: signed.value, body: &signed.body };
    assert_eq!(mailbox.submit(submit).await, Ok(Answer::Accepted));
    world.until_time(at(1, 300)).await;
    let release = Release { meter, index, link: signed.link };
    assert_eq!(mailbox.release(release).await, Ok(Answer::Accepted));
    world.until(world.height() + 8, 600).await;
    let chain = world.nodes().next().unwrap().shared.chain();
    let view = chain.state().view();
    let live = view.row(meter).and_then(|row| view.live(row)).unwrap();
    assert_eq!(live.last_index, 1, "it is opened");
}

/// A block without its bodies would look as if they had been erased; nothing else depends on another
/// archive.
#[test]
fn what_one_archive_has_lost_goes_from_no_other_but_blocks_with_their_bodies() {
    let seed = 31;
    println!("seed {seed}");
    let mut consortium = Consortium::with(seed, 4, SHORT);
    let meter = consortium.meter(0);
    let rounds = consortium.genesis.charter().rounds.length();
    let archives = ["blocks", "bodies", "finalizations"];
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(2, 600).await;
        open_one(&mut world, &meter).await;
        world.until(world.height() + 2, 600).await;
        let (mut opened, mut closed) = (0, 0);
        for damaged in archives {
            for part in ["keys", "values", "metadata"] {
                world.kill(1).await;
                let examine = async || {
                    let cache = CacheRef::new(NZU16!(4096), NZUsize!(16));
                    let limits = BlockLimits::of(&consortium.genesis);
                    check(&ctx, "provider-1", &cache, limits, rounds, 1).await.unwrap()
                };
                // What was on its way to the disk is cut.
                examine().await;
                let partition = format!("provider-1-{damaged}-{part}");
                let names = ctx.scan(&partition).await.unwrap();
                assert!(flip_in(&ctx, &partition, &names).await > 0, "{partition} has nothing");
                let mut before = Vec::new();
                for archive in archives {
                    before.push(files_of(&ctx, archive).await);
                }
                let found = examine().await;
                println!("{partition}: {found:?}");
                for (archive, before) in archives.into_iter().zip(before) {
                    let goes = archive == damaged || (archive, damaged) == ("blocks", "bodies");
                    let after = files_of(&ctx, archive).await;
                    assert!(goes || before == after, "{partition}: {archive} is as it was");
                }
                opened += u32::from(!found.sections.is_empty());
                closed += u32::from(!found.archives.is_empty());
                let height = world.height();
                world.begin(1, configs[1].clone()).await;
                world.until(height + 4, 600).await;
                let node = world.nodes().nth(1).unwrap();
                let blocks = u64::from(SHORT.blocks);
                for height in 1..=height {
                    let block = node.marshal.get_block(Height::new(height)).await.unwrap();
                    assert!(block.inner().block().has_all_bodies(), "{partition}: {height}");
                    let end = height % blocks == blocks - 1;
                    let certificate = node.marshal.get_finalization(Height::new(height)).await;
                    assert!(!end || certificate.is_some(), "{partition}: {height}");
                }
            }
        }
        assert!(opened > 0 && closed > 0, "{opened} archives could be opened, {closed} could not");
        let chain = world.nodes().next().unwrap().shared.chain();
        assert!(chain.state().offences().is_empty(), "nobody voted twice");
    });
}

/// What the engine keeps of blocks that are not final, how far it is, and the record of votes: each
/// is dropped where it is damaged, the node starts, and it does not vote twice.
#[test]
fn whatever_else_is_damaged_the_node_starts_and_votes_only_once() {
    let seed = 24;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(20, 600).await;
        let mut caches = 0;
        for kind in ["verified", "notarized", "certified", "notarizations", "finalizations"] {
            for part in ["metadata", "key", "value"] {
                world.kill(1).await;
                let height = world.height();
                let round = height / u64::from(SHORT.blocks);
                for round in [round.saturating_sub(1), round] {
                    let name = format!("provider-1-marshal-cache-cache-{round}-{kind}-{part}");
                    caches += flip(&ctx, &name).await;
                }
                world.begin(1, configs[1].clone()).await;
                world.until(height + 2, 600).await;
            }
        }
        assert!(caches >= 15, "{caches} files of the caches were damaged");
        for name in ["marshal-cache-metadata", "marshal-application-metadata", "memory"] {
            world.kill(1).await;
            let flipped = flip(&ctx, &format!("provider-1-{name}")).await;
            assert!(flipped > 0, "{name} has nothing");
            let height = world.height();
            world.begin(1, configs[1].clone()).await;
            world.until(height + 2 * u64::from(SHORT.blocks), 600).await;
        }
        let node = world.nodes().nth(1).unwrap();
        assert!(node.status.read().votes, "it votes again");
        assert!(node.shared.chain().state().offences().is_empty(), "nobody voted twice");
    });
}

/// No later certificate replaces that of the end of a round: a node whose disk has lost it asks for
/// it, and shows nothing of the next round before it has it.
#[test]
fn a_lost_certificate_of_the_end_of_a_round_is_fetched_again() {
    let seed = 25;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut world = World::start(&ctx, &configs).await;
        world.until(20, 600).await;
        world.kill(1).await;
        for part in ["keys", "values", "metadata"] {
            let _ = ctx.remove(&format!("provider-1-finalizations-{part}"), None).await;
        }
        let height = world.height();
        world.begin(1, configs[1].clone()).await;
        world.until(height + 4, 600).await;
        let node = world.nodes().nth(1).unwrap();
        let blocks = u64::from(SHORT.blocks);
        for end in (blocks - 1..height).step_by(usize::try_from(blocks).unwrap()) {
            let certificate = node.marshal.get_finalization(Height::new(end)).await;
            assert!(certificate.is_some(), "block {end}");
        }
    });
}

/// The same behind a snapshot: the committees of rounds that were over are those of the genesis file.
#[test]
fn what_lies_before_a_snapshot_is_fetched_again_with_its_certificates() {
    let seed = 27;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        configs[1].snapshot_rounds = 1;
        let mut world = World::start(&ctx, &configs).await;
        // More rounds than there are schemes of rounds that have just run.
        let blocks = u64::from(SHORT.blocks);
        world.until(20 * blocks, 900).await;
        world.kill(1).await;
        for archive in ["blocks", "finalizations", "bodies"] {
            for part in ["keys", "values", "metadata"] {
                let _ = ctx.remove(&format!("provider-1-{archive}-{part}"), None).await;
            }
        }
        // What the engine keeps of rounds beside the archives has gone in longer rounds.
        for round in 0..20 {
            for kind in ["notarized", "certified", "notarizations", "finalizations"] {
                for part in ["metadata", "key", "value"] {
                    let name = format!("provider-1-marshal-cache-cache-{round}-{kind}-{part}");
                    let _ = ctx.remove(&name, None).await;
                }
            }
        }
        let height = world.height();
        let began = ctx.current();
        let newest = ctx.scan("provider-1-snapshots").await.unwrap().into_iter().max().unwrap();
        world.first[1] = u64::from_be_bytes(newest[..].try_into().unwrap()) + 1;
        let config = bkss_node::Config { events_from: u64::MAX, ..configs[1].clone() };
        world.begin(1, config).await;
        loop {
            world.read();
            if world.nodes().nth(1).unwrap().status.read().height >= height {
                break;
            }
            ctx.sleep(Duration::from_millis(50)).await;
        }
        let took = ctx.current().duration_since(began).unwrap();
        assert!(took < Duration::from_secs(20), "{took:?}");
        ctx.sleep(Duration::from_secs(5)).await;
        let node = world.nodes().nth(1).unwrap();
        for end in (blocks - 1..height - blocks).step_by(usize::try_from(blocks).unwrap()) {
            let certificate = node.marshal.get_finalization(Height::new(end)).await;
            assert!(certificate.is_some(), "block {end}");
        }
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

/// What a disk that fails holds may be whole: a node that starts on it ends and drops nothing.
#[test]
fn a_disk_that_fails_is_not_taken_for_one_that_has_lost_something() {
    let seed = 26;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 4, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let mut configs = network::configs(&consortium, network::now(&ctx));
        configs.iter_mut().for_each(|config| config.snapshot_rounds = 2);
        let mut world = World::start(&ctx, &configs).await;
        world.until(34, 600).await;
        for place in 0..4 {
            world.kill(place).await;
        }
        configs.iter_mut().for_each(|config| config.events_from = u64::MAX);
        let before = held(&ctx).await;
        assert!(before.iter().all(|(_, length)| *length > 0), "{before:?}");
        let failing = probability!(1.0);
        for faults in [
            FaultConfig::default().read(failing),
            FaultConfig::default().open(failing),
            FaultConfig::default().scan(failing),
        ] {
            *ctx.storage_fault_config().write() = faults.clone();
            let started = world.net.0.run(&ctx, 1, configs[1].clone(), None).await;
            let Err(error) = started else { unreachable!("it starts with {faults:?}") };
            println!("{error}");
            *ctx.storage_fault_config().write() = FaultConfig::default();
            assert_eq!(held(&ctx).await, before, "{faults:?}");
        }
        for (place, config) in configs.into_iter().enumerate() {
            world.first[place] = 4 * u64::from(SHORT.blocks); // behind the newest snapshot
            world.begin(place, config).await;
        }
        world.until(60, 600).await;
        assert!(world.nodes().all(|node| node.status.read().votes));
    });
}

/// How long everything is that provider 1 must not lose.
async fn held(ctx: &Context) -> Vec<(Vec<u8>, u64)> {
    let mut lengths = Vec::new();
    for part in ["blocks-values", "finalizations-values", "snapshots", "memory"] {
        let partition = format!("provider-1-{part}");
        for name in ctx.scan(&partition).await.unwrap() {
            let (_, length) = ctx.open(&partition, &name).await.unwrap();
            lengths.push((name, length));
        }
    }
    lengths
}

#[test]
fn pruning_erases_old_bodies_and_nothing_else() {
    deterministic::Runner::seeded(25).start(|ctx| async move {
        let mut consortium = Consortium::new(25);
        let (meter, mut state) = (consortium.meter(0), consortium.state());
        let signed = meter.sign(1, 26);
        block(&mut state, at(0, 1), [Transaction::Registration(meter.registration)]);
        block(&mut state, at(1, 1), [consortium.requests(0, 1, &[(0, signed.value)])]);
        let opening = consortium.openings(0, &[(0, &signed)]);
        let opened = block(&mut state, at(1, 300), [opening]).block().clone();
        let later = Header { height: 3 + ITEMS_PER_SECTION.get(), ..opened.header().clone() };
        let later = Block::new(consortium.genesis.network(), later, opened.transactions().to_vec());

        let cache = CacheRef::new(NZU16!(1024), NZUsize!(16));
        let limits = BlockLimits::of(&consortium.genesis);
        let mut store = BlockStore::open(&ctx, "store", cache.clone(), limits).await.unwrap();
        let mut certificates = CertificateStore::open(&ctx, "store", cache).await.unwrap();
        for one in [&opened, &later] {
            let one = Arc::new(EngineBlock::new(Arc::new(one.clone())));
            store = store.put(one.digest(), &one).await.unwrap();
            let height = Height::new(one.block().header().height);
            let certificate = certificate(&consortium, &one);
            certificates = certificates.put(height, one.digest(), &certificate).await.unwrap();
        }
        let min = Height::new(ITEMS_PER_SECTION.get() + 1);
        let store = store.sync().await.unwrap().prune(min).await.unwrap();
        let certificates = certificates.prune(min).await.unwrap();
        for (one, kept) in [(&opened, false), (&later, true)] {
            let height = one.header().height;
            let found = store.get(Identifier::Index(height)).await.unwrap().unwrap();
            assert_eq!(found.block().has_all_bodies(), kept, "block {height}");
            assert_eq!(found.block().id(), one.id(), "every proof stays valid");
            assert!(certificates.has(Height::new(height)).await.unwrap(), "certificate {height}");
        }
    });
}

/// The id of a block is the same with and without its bodies: whoever is shown one without must not
/// keep it for the whole one.
#[test]
fn a_block_that_comes_without_bodies_that_are_due_is_no_block() {
    let mut consortium = Consortium::new(27);
    let (meter, mut state) = (consortium.meter(0), consortium.state());
    let signed = meter.sign(1, 26);
    block(&mut state, at(0, 1), [Transaction::Registration(meter.registration)]);
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &[(0, signed.value)])]);
    let opening = consortium.openings(0, &[(0, &signed)]);
    let whole = block(&mut state, at(1, 300), [opening]).block().clone();
    let mut bare = whole.clone();
    assert!(bare.erase_body(0, 0) && bare.id() == whole.id());
    let (time, limits) = (whole.header().time, BlockLimits::of(&consortium.genesis));
    let read = |block: &Block, limits: &BlockLimits| {
        let bytes = EngineBlock::new(Arc::new(block.clone())).encode();
        EngineBlock::decode_cfg(bytes, limits).map(|block| block.digest())
    };
    for (from, taken) in [(time.0 + 1, true), (time.0, false), (0, false)] {
        let limits = limits.with_bodies_from(LedgerTime(from));
        assert!(read(&whole, &limits).is_ok());
        let found = read(&bare, &limits);
        assert_eq!(found.is_ok(), taken, "due from {from}, block of {time}: {found:?}");
        assert!(taken || format!("{found:?}").contains("bodies are missing"), "{found:?}");
    }
    assert!(read(&bare, &limits).is_ok(), "what is stored may have lost them");
}

/// A certificate that nobody checks.
fn certificate(consortium: &Consortium, block: &EngineBlock) -> Certificate {
    let certificate = bkss_scheme::Certificate {
        epoch: 0,
        view: block.block().header().height,
        parent_view: 0,
        signers: 0,
        signatures: &[],
    };
    let finality = Finality { descendants: &[], certificate };
    let (header, committee) =
        (block.block().header().clone(), consortium.genesis.committee().clone());
    certificate_of(&Boundary { header, finality, committee }).unwrap()
}
