//! Software meters against running providers, one of which is killed; stopped and gone on with.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use bkss_scheme::{codec, receipt::Receipt};
use serde_json::Value;

use crate::{
    membership::Network,
    providers::agent,
    shared::{bkss, code, objects, said, text},
};

const CSV: &str = "VID,V001,V002,V003\n\
    5,0.01,0,-0.003\n\
    6,12.5,0.0,115.232\n\
    7,0.1,0.22,0.333\n\
    0008,1,2,3\n";
/// The number of meter `0008` on the ledger: its id is a text.
const NUMBERED: u32 = 2_000_000_001;

/// Arguments of a replay of this network.
fn arguments(network: &Network, out: &str, meters: u32, slots: u32) -> Vec<String> {
    let data = network.path("homes.csv");
    std::fs::write(&data, CSV).unwrap();
    let mut args = vec!["replay".to_owned()];
    for number in 0..4 {
        args.extend(["--node".to_owned(), network.url(2 * number + 1)]);
    }
    let sdi = network.path("net/sdi");
    let out = network.path(out);
    let (meters, slots) = (meters.to_string(), slots.to_string());
    for (name, value) in [
        ("--data", text(&data)),
        ("--sdi", text(&sdi)),
        ("--out", text(&out)),
        ("--meters", &meters),
        ("--slots", &slots),
        ("--slot", "300"),
        ("--window", "150"),
    ] {
        args.extend([name.to_owned(), value.to_owned()]);
    }
    args.push("--json".to_owned());
    args
}

/// A replay to its end, and its summary.
pub(crate) fn complete(network: &Network, out: &str, meters: u32, slots: u32) -> Value {
    let args = arguments(network, out, meters, slots);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let output = bkss(&args);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

/// The intervals that the owners read in the receipts of a run; none may be there twice.
fn once(network: &Network, out: &str) -> usize {
    let (mut seen, mut readings) = (BTreeSet::new(), 0);
    for (owner, meter) in (0..4).zip([5, 6, 7, NUMBERED]) {
        let owner = network.path(&format!("net/providers/{owner}"));
        let receipts = network.path(&format!("{out}/receipts/{meter}"));
        let opened = bkss(&["open", "--provider", text(&owner), text(&receipts), "--json"]);
        assert_eq!(code(&opened), 0, "{}", said(&opened));
        for receipt in objects(&opened) {
            for interval in receipt["intervals"].as_array().unwrap() {
                assert_eq!(interval["holds"], true, "{receipt}");
                readings += 1;
                let start = interval["start"].as_str().unwrap().to_owned();
                assert!(seen.insert((meter, start)), "twice: {receipt}");
            }
        }
    }
    readings
}

#[test]
fn meters_replay_through_a_kill_and_a_stop() {
    let mut network = Network::found_with(21_600, &["--time-scale", "60"]);
    // Stopped in the middle of its registrations or slots, then gone on with.
    let args = arguments(&network, "first", 4, 3);
    let mut first = Command::new(env!("CARGO_BIN_EXE_bkss"))
        .args(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(30));
    first.kill().unwrap();
    first.wait().unwrap();
    network.kill(3);
    let summary = complete(&network, "first", 4, 3);
    for (key, expected) in
        [("providers", 4), ("meters", 4), ("slots", 3), ("readings", 12), ("time_scale", 60)]
    {
        assert_eq!(summary[key], expected, "{key}: {summary}");
    }
    let out = network.path("first");
    let (genesis, archive) = (out.join("genesis.bkss"), out.join("archive.bkss"));
    let audit = bkss(&["audit", "--genesis", text(&genesis), text(&archive)]);
    assert_eq!(code(&audit), 0, "{}", said(&audit));

    assert_eq!(once(&network, "first"), 12);
    // Once more: all is there, and nothing is signed again.
    let again = complete(&network, "first", 4, 3);
    assert_eq!((&again["readings"], once(&network, "first")), (&Value::from(12), 12), "{again}");
    // A receipt that is gone, altered, or another's is fetched again.
    let receipts = out.join("receipts");
    let path = |slot: u32| receipts.join(format!("6/{slot:06}.receipt"));
    let links: Vec<_> = (1..99).filter(|slot| path(*slot).exists()).collect();
    let [first, second, ..] = links[..] else { panic!("{links:?}") };
    let whole = std::fs::read(path(first)).unwrap();
    std::fs::copy(path(second), path(first)).unwrap();
    std::fs::remove_file(path(second)).unwrap();
    std::fs::remove_dir_all(receipts.join("7")).unwrap();
    complete(&network, "first", 4, 3);
    let again: Receipt<'_> = codec::decode("receipt", &whole).unwrap();
    let bytes = std::fs::read(path(first)).unwrap();
    let fetched: Receipt<'_> = codec::decode("receipt", &bytes).unwrap();
    assert_eq!((fetched.index, fetched.body), (again.index, again.body));
    assert_eq!(once(&network, "first"), 12);
    // Without its progress a meter would sign all of it again.
    let progress = out.join("meters/6/progress.bkss");
    let kept = std::fs::read(&progress).unwrap();
    std::fs::remove_file(&progress).unwrap();
    let args = arguments(&network, "first", 4, 3);
    let lost = bkss(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code(&lost), 1, "{}", said(&lost));
    assert!(said(&lost).contains("progress.bkss: is missing"), "{}", said(&lost));
    std::fs::write(&progress, kept).unwrap();
    let corrected = network.path("corrected.csv");
    std::fs::write(&corrected, CSV.replace("0.22", "0.23")).unwrap();
    let mut args = arguments(&network, "first", 4, 3);
    let data = args.iter().position(|arg| arg == "--data").unwrap();
    args[data + 1] = text(&corrected).to_owned();
    let refused = bkss(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code(&refused), 2, "{}", said(&refused));
    let difference = "corrected.csv, line 4, column 3: expected 0.22, as in the earlier run";
    assert!(said(&refused).contains(difference), "{}", said(&refused));
    assert_eq!(std::fs::read_to_string(out.join("data.csv")).unwrap(), CSV);

    let table = std::fs::read_to_string(out.join("meters.csv")).unwrap();
    assert_eq!(table, format!("id,meter\n5,5\n6,6\n7,7\n0008,{NUMBERED}\n"));

    // Another vote key is another committee: from the next round on, which the genesis file of the
    // founding does not know.
    let (dir, node) = (network.path("net/providers/0"), network.url(3));
    let rotated = bkss(&["provider", "rotate", "--vote", "--dir", text(&dir), "--node", &node]);
    assert_eq!(code(&rotated), 0, "{}", said(&rotated));

    // The same devices again: each gets its next chain, whose receipts open as well.
    let summary = complete(&network, "second", 4, 3);
    assert_eq!(summary["readings"], 12, "{summary}");
    let again = std::fs::read_to_string(network.path("second/meters.csv")).unwrap();
    assert_eq!(again, table, "the SDI knows its devices by their serials");
    let whole = std::fs::metadata(network.path("second/archive.bkss")).unwrap().len();
    let earlier = std::fs::metadata(&archive).unwrap().len();
    let of_run = summary["ledger_bytes_per_reading"].as_f64().unwrap() * 12.0;
    assert!(of_run > 0.0 && of_run <= (whole - earlier + 6000) as f64, "{of_run} of {whole}");
    // Either chain has opened link 1: each receipt is there, and the newest where nobody says which.
    let get = |path: &str| {
        let url = format!("{}{path}", network.url(1));
        let mut answer = agent().get(&url).header("accept", "application/cbor").call().unwrap();
        let kept = answer.headers()["cache-control"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kept, answer.body_mut().read_to_vec().unwrap())
    };
    let mut meter = agent().get(format!("{}/v1/meters/5", network.url(1))).call().unwrap();
    let meter: Value = serde_json::from_slice(&meter.body_mut().read_to_vec().unwrap()).unwrap();
    let ids: Vec<_> = meter["chains"].as_array().unwrap().iter().map(|it| &it["chain"]).collect();
    assert_eq!(ids.len(), 2, "{meter}");
    let [newest, first] = [0, 1].map(|at| {
        let id = ids[at].as_str().unwrap();
        get(&format!("/v1/receipts/5/1?chain={id}"))
    });
    assert_eq!((newest.0, newest.1.as_str()), (200, "public, no-cache"), "nobody keeps it unasked");
    assert_eq!(get("/v1/receipts/5/1").2, newest.2);
    assert_ne!(first.2, newest.2);
    for (name, receipt) in [("first.receipt", &first.2), ("newest.receipt", &newest.2)] {
        let path = network.path(name);
        std::fs::write(&path, receipt).unwrap();
        let genesis = network.path("second/genesis.bkss");
        let verified = bkss(&["verify", "--genesis", text(&genesis), text(&path)]);
        assert_eq!(code(&verified), 0, "{name}: {}", said(&verified));
    }
    let (founded, receipts) = (network.path("net/genesis.bkss"), network.path("second/receipts"));
    let refused = bkss(&["verify", "--genesis", text(&founded), text(&receipts)]);
    assert_eq!(code(&refused), 1, "{}", said(&refused));
    let hint = "The genesis file knows committees and members up to block 0 alone";
    let lines = String::from_utf8(refused.stdout).unwrap();
    let of = |part: &str| lines.lines().filter(|line| line.contains(part)).count();
    assert!(of("REFUSED") > 0 && of(hint) == of("REFUSED"), "{lines}");
    let receipts = network.path("second/receipts/5");
    let owner = network.path("net/providers/0");
    let opened = bkss(&["open", "--provider", text(&owner), text(&receipts), "--json"]);
    assert_eq!(code(&opened), 0, "{}", said(&opened));
    assert!(!String::from_utf8(opened.stdout).unwrap().is_empty());
}
