//! Providers as processes: they agree, show how they stand, stop when asked and survive a kill.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, process::Command};

use serde_json::Value;

use crate::{
    providers::{Providers, agent},
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
        "head_time_ms",
        "round",
        "leader",
        "committee",
        "votes_needed",
        "votes_reachable",
        "votes",
        "votes_next",
        "peers",
        "version",
    ];
    assert_eq!(keys, expected);
    assert_eq!(status["committee"], serde_json::json!([0, 1, 2, 3]));

    let second = bkss(&["node", "--dir", text(&providers.directory(0))]);
    assert_eq!(code(&second), 2, "{}", said(&second));
    assert!(said(&second).contains("another node runs in this directory"), "{}", said(&second));

    // Who is away is named, in the status and in the log.
    let of_third = |providers: &Providers, field: &str| {
        providers.status(0).is_some_and(|status| status["peers"][2][field] == true)
    };
    providers.until("a connection", |providers| of_third(providers, "connected"));
    providers.kill(3);
    assert!(providers.status(3).is_none());
    let height = providers.height(0);
    providers.wait(0, height + 3);
    providers.until("silence", |providers| of_third(providers, "silent"));
    let status = providers.status(0).unwrap();
    assert_eq!(status["peers"][2]["provider"], 3);
    assert_eq!(status["peers"][2]["connected"], false, "{status}");
    assert_eq!((&status["votes_needed"], &status["votes_reachable"]), (&3.into(), &3.into()));
    let keys = providers.directory(3).join("keys.bkss");
    std::fs::set_permissions(keys, Permissions::from_mode(0o640)).unwrap();
    providers.start(3);
    providers.wait(3, height + 4);
    for (provider, warned) in [(2, false), (3, true)] {
        let log = std::fs::read_to_string(providers.directory(provider).join("log")).unwrap();
        let line = log.lines().find(|line| line.contains("others may read this provider's keys"));
        assert_eq!(line.is_some_and(|line| line.contains("\"mode\":\"640\"")), warned, "{log}");
    }
    providers.until("a vote", |providers| !of_third(providers, "silent"));
    let log = std::fs::read_to_string(providers.directory(0).join("log")).unwrap();
    let mut lines = log.lines();
    for news in ["is connected", "not connected any more", "is silent", "is connected", "no more"] {
        let named = |line: &str| line.contains(news) && line.contains("\"provider\":\"3\"");
        assert!(lines.any(named), "{news}: {log}");
    }

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
fn a_node_whose_log_cannot_be_written_goes_on_and_gives_its_archive_in_parts() {
    let mut providers = Providers::found(4, &["--round-blocks", "8"]);
    for provider in 0..4 {
        let path = providers.directory(provider).join("node.toml");
        let settings = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{settings}\nidle_ms = 20\ninterval_ms = 20\n")).unwrap();
    }
    for provider in 0..3 {
        providers.start(provider);
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    providers.start_with_log(3, full);
    // A wait for a block ends when there is one.
    providers.until("an answer", |providers| providers.status(3).is_some());
    let blocks = providers.json(3, "/v1/blocks?from=3&limit=2&wait=9").unwrap();
    assert_eq!(blocks["blocks"][0]["height"], 3, "{blocks}");
    providers.wait(3, 20);
    assert!(providers.running[3].as_mut().unwrap().try_wait().unwrap().is_none(), "it runs");

    let blocks = providers.json(3, "/v1/blocks?from=2&limit=3").unwrap();
    let heights: Vec<_> =
        blocks["blocks"].as_array().unwrap().iter().map(|it| &it["height"]).collect();
    assert_eq!((heights, &blocks["next"]), (vec![&2.into(), &3.into(), &4.into()], &5.into()));

    // The end of a round has a certificate of its own. The first sections do not change any more.
    providers.wait(3, 170);
    let path = "/v1/archive?to=159";
    let get = |path: &str, fields: &[(&str, &str)]| {
        let mut request = agent().get(format!("{}{path}", providers.url(3)));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut answer = request.call().unwrap();
        let field =
            |name: &str| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        let (tag, range) = (field("etag"), field("content-range"));
        (answer.status().as_u16(), tag, range, answer.body_mut().read_to_vec().unwrap())
    };
    let (status, tag, range, whole) = get(path, &[]);
    assert_eq!((status, range), (200, None));
    let tag = tag.unwrap();
    let length = whole.len();
    let mut parts = Vec::new();
    let steps = [0, 99, 100, 3000, length / 3, length / 2, length - 1000, length - 2, length];
    for (first, end) in steps.into_iter().zip(steps.into_iter().skip(1)) {
        let last = end - 1;
        let range = format!("bytes={first}-{last}");
        let (status, same, said, part) = get(path, &[("range", &range)]);
        assert_eq!((status, same.as_ref()), (206, Some(&tag)));
        assert_eq!(said, Some(format!("bytes {first}-{last}/{length}")));
        parts.extend(part);
    }
    assert!(parts == whole, "the parts are the whole");
    let open = get(path, &[("range", "bytes=3000-"), ("if-range", &tag)]);
    assert!(open.0 == 206 && open.3 == whole[3000..]);
    let other = get(path, &[("range", "bytes=3000-"), ("if-range", "\"another\"")]);
    assert!(other.0 == 200 && other.3 == whole, "it would be a part of something else");
    assert_eq!(get(path, &[("range", &format!("bytes={length}-"))]).0, 416);
    let file = providers.dir.path().join("part.bkss");
    std::fs::write(&file, &whole).unwrap();
    let genesis = providers.dir.path().join("net/genesis.bkss");
    let audit = bkss(&["audit", "--genesis", text(&genesis), text(&file)]);
    assert_eq!(code(&audit), 0, "{}", said(&audit));

    // What never changes is not sent again.
    let (status, tag, _, block) = get("/v1/blocks/5", &[]);
    let tag = tag.unwrap();
    assert!(status == 200 && !block.is_empty());
    let known = format!("\"another\", W/{tag}");
    let (status, same, _, block) = get("/v1/blocks/5", &[("if-none-match", &known)]);
    assert_eq!((status, same, block.len()), (304, Some(tag), 0));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let providers = Providers::found(4, &[]);
    for (setting, address) in [("p2p", providers.p2p(0)), ("http", providers.http(0))] {
        let taken = std::net::TcpListener::bind(&address).unwrap();
        let refused = bkss(&["node", "--dir", text(&providers.directory(0))]);
        assert_eq!(code(&refused), 1, "{}", said(&refused));
        let expected = format!("{setting} = {address}: ");
        assert!(said(&refused).contains(&expected), "{}", said(&refused));
        drop(taken);
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
    assert!(said(&refused).contains("expected the name of the store"), "{}", said(&refused));

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
        (["--set", "trust=[]"], "expected numbers of other providers"),
        (["--set", "trust=[1, 0]"], "found this one's own, 0"),
    ] {
        let output = node(&options);
        assert_eq!(code(&output), 2, "{options:?}: {}", said(&output));
        assert!(said(&output).contains(reason), "{options:?}: {}", said(&output));
    }
    // The keys of another: its own node may be running.
    let keys = std::fs::read(provider.join("keys.bkss")).unwrap();
    std::fs::copy(out.join("providers/1/keys.bkss"), provider.join("keys.bkss")).unwrap();
    let output = node(&[]);
    assert_eq!(code(&output), 2);
    let expected = "expected the keys of provider-0, found those of provider-1";
    assert!(said(&output).contains(expected), "{}", said(&output));
    std::fs::write(provider.join("keys.bkss"), keys).unwrap();
    let store = provider.join("store");
    if store.is_dir() {
        std::fs::remove_dir_all(&store).unwrap();
    }
    std::fs::write(&store, "").unwrap();
    let output = node(&[]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("expected a directory, found a file"), "{}", said(&output));
    std::fs::remove_file(store).unwrap();
    let settings = std::fs::read_to_string(provider.join("node.toml")).unwrap();
    std::fs::write(provider.join("node.toml"), format!("{settings}\ncolour = 3\n")).unwrap();
    let output = node(&[]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("unknown field `colour`"), "{}", said(&output));
    let output = bkss(&["node", "--dir", text(&dir.path().join("nowhere"))]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("node.toml"), "{}", said(&output));
}
