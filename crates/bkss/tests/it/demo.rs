//! The whole system by one command: a small week of real meters, four providers, files on disk.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Values as a meter's export has them: zero, negative, several decimals.
const CSV: &str = "VID,V001,V002,V003,V004\n\
    1004851,0.01,0,-0.003,0.250\n\
    7,12.5,0.0,115.232,1\n\
    9752060,0.1,0.22,0.333,4\n";
const VALUES: [(u32, [&str; 3]); 3] = [
    (1_004_851, ["0.01", "0", "-0.003"]),
    (7, ["12.5", "0.0", "115.232"]),
    (9_752_060, ["0.1", "0.22", "0.333"]),
];

fn bkss(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bkss")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn last_json(output: &Output) -> Value {
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Runs the demonstration on three meters and slots.
fn demonstrate(dir: &Path) -> (PathBuf, Value) {
    let csv = dir.join("homes.csv");
    std::fs::write(&csv, CSV).unwrap();
    let out = dir.join("out");
    let output = bkss(&[
        "demo",
        "--data",
        text(&csv),
        "--meters",
        "3",
        "--slots",
        "3",
        "--seed",
        "7",
        "--out",
        text(&out),
        "--json",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("900 times faster than the clock"), "{said}");
    for shown in [
        "home 1004851 on 2024-10-28: 0.007 kWh in 3 intervals",
        "  00h 0.007\n",
        "000001.receipt altered: REFUSED, commitment q failed: expected q ",
        "its sealed reading with the keys of provider 1: CLOSED, ",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    (out, last_json(&output))
}

#[test]
fn a_demonstration_leaves_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let (out, summary) = demonstrate(dir.path());
    for (key, expected) in
        [("providers", 4), ("meters", 3), ("slots", 3), ("readings", 9), ("time_scale", 900)]
    {
        assert_eq!(summary[key], expected, "{key}");
    }
    for key in [
        "requests_final",
        "openings_final",
        "receipts",
        "blocks",
        "wall_s",
        "readings_per_s",
        "ledger_bytes_per_reading",
        "uplink_bytes_per_reading",
    ] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(summary["finality_ms"]["p50"].as_f64() <= summary["finality_ms"]["p99"].as_f64());
    let saved = std::fs::read_to_string(out.join("summary.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&saved).unwrap(), summary);

    receipts_verify_and_open(&out);
    altered_receipts_are_refused(&out);
    the_archive_audits(&out);

    let again = bkss(&["demo", "--out", text(&out)]);
    assert_eq!(code(&again), 2, "the directory is not empty");
    let partial = |path: &Path| path.extension().is_some_and(|extension| extension == "partial");
    let entries = std::fs::read_dir(&out).unwrap();
    assert!(!entries.into_iter().any(|entry| partial(&entry.unwrap().path())));
}

fn receipts_verify_and_open(out: &Path) {
    let genesis = out.join("genesis.bkss");
    let output =
        bkss(&["verify", "--genesis", text(&genesis), text(&out.join("receipts")), "--json"]);
    assert_eq!(code(&output), 0);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 9);
    for (owner, (meter, values)) in VALUES.into_iter().enumerate() {
        for (slot, value) in (1..).zip(values) {
            let receipt = out.join(format!("receipts/{meter}/{slot:06}.receipt"));
            for provider in 0..4 {
                let directory = out.join(format!("providers/{provider}"));
                let output =
                    bkss(&["open", "--provider", text(&directory), text(&receipt), "--json"]);
                if provider != owner {
                    assert_eq!(code(&output), 1);
                    let told = last_json(&output);
                    assert!(
                        told["error"]["message"].is_string() && told["intervals"].is_null(),
                        "{told}"
                    );
                    let said = String::from_utf8(output.stderr).unwrap();
                    let reason = format!("meter {meter} belongs to provider {owner}");
                    assert!(said.contains(&reason), "{said}");
                    continue;
                }
                let opened = last_json(&output);
                assert_eq!(opened["intervals"][0]["kwh"], value, "meter {meter}, slot {slot}");
                assert_eq!(opened["intervals"][0]["seconds"], 900);
                let start = format!("2024-10-28T00:{:02}:00Z", 15 * (slot - 1));
                assert_eq!(opened["intervals"][0]["start"], start);
            }
        }
    }
}

fn altered_receipts_are_refused(out: &Path) {
    let genesis = out.join("genesis.bkss");
    let good = std::fs::read(out.join("receipts/7/000002.receipt")).unwrap();
    let altered = out.join("altered.receipt");
    for position in [0, 40, good.len() / 3, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[position] ^= 1;
        std::fs::write(&altered, bytes).unwrap();
        let output = bkss(&["verify", "--genesis", text(&genesis), text(&altered), "--json"]);
        assert_eq!(code(&output), 1, "byte {position}");
        assert_eq!(last_json(&output)["valid"], false);
    }
    std::fs::remove_file(altered).unwrap();
}

fn the_archive_audits(out: &Path) {
    let (genesis, archive) = (out.join("genesis.bkss"), out.join("archive.bkss"));
    let audit =
        |archive: &Path| bkss(&["audit", "--genesis", text(&genesis), text(archive), "--json"]);
    let output = audit(&archive);
    assert_eq!(code(&output), 0);
    let report = last_json(&output);
    assert_eq!(report["openings"], 9);
    assert_eq!(report["meters"], 3);
    let bytes = std::fs::read(&archive).unwrap();
    let altered = out.join("altered.bkss");
    for (bytes, reason) in [
        (bytes[..bytes.len() / 2].to_vec(), "archive is cut at byte"),
        ([&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat(), "newest block"),
    ] {
        std::fs::write(&altered, bytes).unwrap();
        let output = audit(&altered);
        assert_eq!(code(&output), 1);
        let refusal = last_json(&output)["refusals"][0].as_str().unwrap().to_owned();
        assert!(refusal.contains(reason), "{refusal}");
    }
    std::fs::remove_file(altered).unwrap();
}

#[test]
fn a_run_that_cannot_start_says_why_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("homes.csv");
    let out = dir.path().join("out");
    for (data, args, reason) in [
        ("VID,V001\n7,abc\n", &["--meters", "1", "--slots", "1"][..], "line 2: column 2"),
        ("VID,V001\n7,NaN\n", &["--meters", "1", "--slots", "1"], "line 2: column 2"),
        ("VID,V001\n7,1\n", &["--meters", "1", "--slots", "2"], "1 columns with values"),
        ("VID,V001\n7,1\n", &["--meters", "2", "--slots", "1"], "1 households"),
        (
            "VID,V001\n7,1\n",
            &["--meters", "1", "--slots", "1", "--start", "2024-10-28T00:01:00Z"],
            "not on a quarter hour",
        ),
        ("VID,V001\n7,1\n", &["--providers", "3"], "3 is not in 4..=16"),
    ] {
        std::fs::write(&csv, data).unwrap();
        let fixed = ["demo", "--data", text(&csv), "--out", text(&out)];
        let output = bkss(&[&fixed[..], args].concat());
        assert_eq!(code(&output), 2, "{data:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason), "{said}");
        assert!(!out.exists(), "{reason}: nothing is written");
    }
    let output = bkss(&["demo", "--data", "/nonexistent.csv"]);
    assert_eq!(code(&output), 2);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_demonstration_cleanly() {
    use std::time::Duration;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_bkss"))
        .args(["demo", "--meters", "2", "--out", text(&out)])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    for _ in 0..200 {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!out.join("archive.bkss").exists(), "nothing half-written looks complete");
    assert!(!out.join("summary.json").exists());
}
