//! Providers as processes: they agree, show how they stand, stop when asked and survive a kill.

use std::process::Command;

use serde_json::Value;

use crate::{
    providers::Providers,
    shared::{bkss, code, said, text},
};

#[test]
fn four_processes_agree_and_one_that_is_killed_comes_back() {
    let mut providers = Providers::found(4, &[]);
    providers.start_all();
    providers.wait(0, 3);
    let status = providers.status(0).unwrap();
    let keys: Vec<_> = status.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "height",
        "head_age_ms",
        "round",
        "leader",
        "committee",
        "votes_needed",
        "votes",
        "peers",
        "version",
    ];
    assert_eq!(keys, expected);
    assert_eq!(status["committee"], serde_json::json!([0, 1, 2, 3]));

    let second = bkss(&["node", "--dir", text(&providers.directory(0))]);
    assert_eq!(code(&second), 2, "{}", said(&second));
    assert!(said(&second).contains("another node runs in this directory"), "{}", said(&second));

    providers.kill(3);
    assert!(providers.status(3).is_none());
    let height = providers.height(0);
    providers.wait(0, height + 3);
    providers.start(3);
    providers.wait(3, height + 4);

    for provider in 0..4 {
        let mut child = providers.running[provider].take().unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let log = providers.directory(provider).join("log");
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{log}");
        let first = log.lines().next().unwrap();
        assert!(serde_json::from_str::<Value>(first).is_ok(), "a log in JSON: {first}");
    }
}

#[test]
fn a_store_of_another_network_is_left_alone() {
    let mut other = Providers::found(4, &[]);
    other.start(0);
    other.until("an answer", |other| other.status(0).is_some());
    other.kill(0);
    let mut providers = Providers::found(4, &[]);
    let store = providers.directory(0).join("store");
    std::fs::rename(other.directory(0).join("store"), &store).unwrap();
    let refused = bkss(&["node", "--dir", text(&providers.directory(0))]);
    assert_eq!(code(&refused), 2, "{}", said(&refused));
    assert!(said(&refused).contains("store of network"), "{}", said(&refused));

    std::fs::rename(&store, other.directory(0).join("store")).unwrap();
    other.start(0);
    other.until("an answer", |other| other.status(0).is_some());
    providers.start(0);
    providers.until("an answer", |providers| providers.status(0).is_some());
}

#[test]
fn settings_that_cannot_be_used_end_with_two_and_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("net");
    let init = bkss(&["init", "--providers", "4", "--out", text(&out)]);
    assert_eq!(code(&init), 0, "{}", said(&init));
    let provider = out.join("providers/0");
    let node = |options: &[&str]| bkss(&[&["node", "--dir", text(&provider)], options].concat());
    for (options, reason) in [
        (["--set", "colour=1"], "--set colour: no such setting"),
        (["--set", "workers=0"], "workers: expected 1 to 64, found 0"),
        (["--http", "nowhere"], "--set http: invalid socket address"),
        (["--log", "xml"], "unknown variant `xml`"),
        (["--set", "log_level=a=b=c"], "log_level: "),
        (["--set", "genesis=none.bkss"], "none.bkss: "),
    ] {
        let output = node(&options);
        assert_eq!(code(&output), 2, "{options:?}: {}", said(&output));
        assert!(said(&output).contains(reason), "{options:?}: {}", said(&output));
    }
    let settings = std::fs::read_to_string(provider.join("node.toml")).unwrap();
    std::fs::write(provider.join("node.toml"), format!("{settings}\ncolour = 3\n")).unwrap();
    let output = node(&[]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("unknown field `colour`"), "{}", said(&output));
    let output = bkss(&["node", "--dir", text(&dir.path().join("nowhere"))]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("node.toml"), "{}", said(&output));
}
