//! A provider takes another vote key: its process goes on by itself.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bkss_ledger::Trust;
use bkss_scheme::Era;

use crate::{
    providers::Providers,
    shared::{bkss, code, said, text},
};

const ROUND: [&str; 4] = ["--round-blocks", "20", "--grid", "1"];

fn round(providers: &Providers, provider: usize) -> u64 {
    providers.status(provider).map_or(0, |status| status["round"].as_u64().unwrap())
}

/// Makes another vote key for a provider; returns the round in which it begins to count.
fn rotate(providers: &Providers, provider: usize) -> u64 {
    let (dir, node) = (providers.directory(provider), providers.url(0));
    let args = ["provider", "rotate", "--vote", "--dir", text(&dir), "--node", &node];
    let rotated = bkss(&args);
    assert_eq!(code(&rotated), 0, "{}", said(&rotated));
    assert!(said(&rotated).contains("the node takes the new one"), "{}", said(&rotated));
    round(providers, 0) + 1
}

/// Waits for a provider that was down when a round began: it votes from the next one on.
fn votes_again(providers: &Providers, provider: usize) {
    let next = round(providers, 0) + 1;
    providers.until("its next round", |providers| round(providers, provider) >= next);
}

/// The committees that a provider's genesis file leads to.
fn eras(providers: &Providers, provider: usize) -> Vec<Era> {
    let file = std::fs::read(providers.directory(provider).join("genesis.bkss")).unwrap();
    Trust::decode(&file).unwrap().eras().eras.to_vec()
}

/// Nobody is on record for two votes, by the metrics of each and by the audit.
fn assert_no_faults(providers: &Providers) {
    for provider in 0..4 {
        let url = format!("{}/metrics", providers.url(provider));
        let Ok(mut answer) = crate::providers::agent().get(&url).call() else { continue };
        let metrics = answer.body_mut().read_to_string().unwrap();
        assert!(metrics.lines().any(|line| line == "bkss_faults 0"), "{provider}: {metrics}");
    }
    // All have written the same handovers, though with certificates of their own.
    assert!(eras(providers, 0).len() > 1, "another key is another committee");
    providers.until("the same eras", |providers| {
        (1..4).all(|provider| eras(providers, provider) == eras(providers, 0))
    });
    let (archive, genesis) = (providers.dir.path().join("a.bkss"), providers.dir.path().join("g"));
    let url = providers.url(0);
    for args in [
        &["genesis", "fetch", "--node", &url, "--out", text(&genesis)][..],
        &["archive", "--node", &url, "--out", text(&archive)],
        &["audit", "--genesis", text(&genesis), text(&archive)],
    ] {
        let output = bkss(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", said(&output));
    }
}

#[test]
fn a_provider_votes_with_its_next_key_without_a_restart_by_hand() {
    let mut providers = Providers::found(4, &ROUND);
    providers.start_all();
    (0..4).for_each(|provider| providers.reach(provider, 5));
    let counts = rotate(&providers, 1);
    let (mut silent, mut longest) = (None::<Instant>, Duration::ZERO);
    while round(&providers, 0) < counts || round(&providers, 1) < counts {
        if providers.status(1).is_some() {
            silent = None;
        } else {
            longest = longest.max(silent.get_or_insert_with(Instant::now).elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("no answer for {longest:?} at most");
    let log = std::fs::read_to_string(providers.directory(1).join("log")).unwrap();
    assert!(log.contains("node starts again with its next vote key"), "{log}");
    // Without one of the others its vote is needed.
    providers.kill(3);
    for provider in 0..3 {
        providers.progress(provider, 25);
    }
    providers.start(3);
    providers.progress(3, 5);
    assert_no_faults(&providers);
    // It is still the process that was started, and stops when it is asked to.
    let mut process = providers.running[1].take().unwrap();
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

/// A provider that was away while all others took other keys is a stranger to them, until it calls them by
/// the keys of a newer genesis file. So is one whose disk was lost.
#[test]
fn a_newer_genesis_file_leads_to_others_that_have_all_taken_other_keys() {
    let mut providers = Providers::found(4, &ROUND);
    providers.start_all();
    (0..4).for_each(|provider| providers.reach(provider, 5));
    providers.kill(3);
    let counts = (0..3).map(|provider| rotate(&providers, provider)).max().unwrap();
    providers.until("rounds by the next keys", |providers| {
        (0..3).all(|provider| round(providers, provider) > counts)
    });
    for lost in [false, true] {
        let dir = providers.directory(3);
        let (node, genesis) = (providers.url(0), dir.join("genesis.bkss"));
        if lost {
            providers.kill(3);
            std::fs::remove_dir_all(dir.join("store")).unwrap();
        }
        let fetched = bkss(&["genesis", "fetch", "--node", &node, "--out", text(&genesis)]);
        assert_eq!(code(&fetched), 0, "{}", said(&fetched));
        providers.start(3);
        let head = providers.height(0);
        providers.reach(3, head);
        votes_again(&providers, 3);
    }
    providers.kill(1);
    providers.progress(3, 25);
    providers.start(1);
    providers.progress(1, 5);
    assert_no_faults(&providers);
}

#[test]
fn a_provider_that_was_down_when_its_next_key_began_to_count_takes_it_later() {
    let mut providers = Providers::found(4, &ROUND);
    providers.start_all();
    (0..4).for_each(|provider| providers.reach(provider, 5));
    let founded = std::fs::read(providers.directory(1).join("genesis.bkss")).unwrap();
    // The first knows from its own genesis file that the key has changed, the second does not.
    for (provider, knows) in [(1, true), (2, false)] {
        if !knows {
            providers.kill(provider);
        }
        let counts = rotate(&providers, provider);
        if knows {
            providers.kill(provider);
        }
        providers.until("the next round", |providers| round(providers, 0) >= counts);
        providers.start(provider);
        providers.until("it follows", |providers| round(providers, provider) >= counts);
        votes_again(&providers, provider);
        providers.kill(3);
        providers.progress(provider, 25);
        providers.start(3);
        votes_again(&providers, 3);
    }
    assert_no_faults(&providers);
    // A stop between a handover's record and the genesis file leaves the file as it was; no other
    // handover will come.
    providers.kill(1);
    std::fs::write(providers.directory(1).join("genesis.bkss"), founded).unwrap();
    providers.start(1);
    providers.progress(1, 5);
    assert_eq!(eras(&providers, 1), eras(&providers, 0));
}
