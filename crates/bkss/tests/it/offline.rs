//! `verify` on files alone: what it prints, when it refuses, how it exits.

use std::process::{Output, Stdio};

use bkss_scheme::{
    LinkIndex, codec,
    receipt::{Check, Receipt},
};
use expect_test::expect;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;
use serde_json::Value;

use crate::{
    consortium::{VALUES, link, make_with_handovers},
    files::Files,
    shared::{code, objects, said},
};

const VERIFY: [&str; 3] = ["verify", "--genesis", "genesis.bkss"];
const OPEN: [&str; 3] = ["open", "--provider", "providers/3"];

fn run(files: &Files, command: &[&str], args: &[&str]) -> Output {
    files.bkss(&[command, args].concat())
}

/// Verifies one file with `--json`.
fn verify(files: &Files, file: &str) -> (i32, Value) {
    let output = run(files, &VERIFY, &[file, "--json"]);
    let mut objects = objects(&output);
    assert_eq!(objects.len(), 1, "one object per receipt");
    (code(&output), objects.remove(0))
}

fn statuses(object: &Value) -> Vec<&str> {
    let checks = object["checks"].as_array().unwrap();
    checks.iter().map(|check| check["status"].as_str().unwrap()).collect()
}

#[test]
fn a_valid_receipt_is_one_object() {
    let files = Files::make();
    let output = run(&files, &VERIFY, &[&Files::receipt(2), "--json"]);
    assert_eq!(code(&output), 0);
    expect![[r#"
        {"file":"receipts/7/000002.receipt","valid":true,"meter":7,"slot":2,"window":{"start":"2024-10-28T00:15:00Z","end":"2024-10-28T00:20:00Z"},"checks":[{"name":"registration","status":"passed"},{"name":"chain link","status":"passed"},{"name":"tree path C_i","status":"passed"},{"name":"commitment q","status":"passed"},{"name":"time-stamp path","status":"passed"},{"name":"slot equation","status":"passed"},{"name":"window","status":"passed"},{"name":"certificate","status":"passed"},{"name":"opening on the ledger","status":"passed"}]}
    "#]].assert_eq(std::str::from_utf8(&output.stdout).unwrap());
    expect![[r#"
        demonstration network: ledger time runs 900 times faster than the clock
    "#]]
    .assert_eq(&said(&output));
}

#[test]
fn a_receipt_whose_links_are_still_secret_says_what_it_does_not_carry() {
    let files = Files::make();
    let output = run(&files, &VERIFY, &[&Files::receipt(5)]);
    assert_eq!(code(&output), 0);
    assert!(output.stdout.starts_with(b"VALID"), "results go to standard output");
    expect![[r#"
        demonstration network: ledger time runs 900 times faster than the clock
        VALID   receipts/7/000005.receipt: meter 7, slot 5, window 2024-10-28T01:00:00Z to 2024-10-28T01:05:00Z
          registration           passed
          chain link             passed
          tree path C_i          not carried
          commitment q           passed
          time-stamp path        passed
          slot equation          passed
          window                 passed
          certificate            passed
          opening on the ledger  passed
    "#]].assert_eq(&said(&output));
}

#[test]
fn a_directory_stands_for_its_receipts_in_order() {
    let files = Files::make();
    let output = run(&files, &VERIFY, &["receipts", "--json"]);
    assert_eq!(code(&output), 0);
    let found: Vec<_> = objects(&output).into_iter().map(|object| object["file"].clone()).collect();
    assert_eq!(found, (1..=VALUES.len()).map(Files::receipt).collect::<Vec<_>>());
    assert!(said(&output).ends_with("5 of 5 receipts are valid\n"));
    files.write("empty/readme.txt", b"");
    let output = run(&files, &VERIFY, &["empty"]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("empty: expected files *.receipt"), "{}", said(&output));
}

#[test]
fn an_altered_link_is_named_with_what_was_expected_and_found() {
    let files = Files::make();
    let mut bytes = files.read(&Files::receipt(2));
    let secret = *link(2).as_bytes();
    let position = bytes.windows(32).position(|window| window == secret).unwrap();
    bytes[position] ^= 1;
    files.write("altered/link.receipt", &bytes);
    let (code, object) = verify(&files, "altered/link.receipt");
    assert_eq!(code, 1);
    assert_eq!(object["valid"], false);
    assert_eq!(statuses(&object)[..3], ["passed", "failed", "not_reached"]);
    let check = &object["checks"][1];
    assert_eq!(check["name"], "chain link");
    let expected = check["expected"].as_str().unwrap();
    assert_eq!(expected, format!("v_0 {}", bkss_scheme::Digest(*link(0).as_bytes())));
    assert_ne!(check["found"], check["expected"]);
    let text = said(&run(&files, &VERIFY, &["altered/link.receipt"]));
    assert!(text.contains("REFUSED altered/link.receipt: meter 7, slot 2"), "{text}");
    assert!(text.contains(&format!("expected {expected}\n    found    v_0 ")), "{text}");
}

#[test]
fn a_flip_of_any_byte_is_refused() {
    let files = Files::make();
    let bytes = files.read(&Files::receipt(2));
    let step = bytes.len() / 97;
    let altered = (0..bytes.len()).step_by(step).map(|position| {
        let mut altered = bytes.clone();
        altered[position] ^= 1;
        let name = format!("flipped/{position}.receipt");
        files.write(&name, &altered);
    });
    let count = altered.count();
    let output = run(&files, &VERIFY, &["flipped", "--json"]);
    assert_eq!(code(&output), 1);
    let objects = objects(&output);
    assert_eq!(objects.len(), count);
    for object in objects {
        assert_eq!(object["valid"], false, "{}", object["file"]);
    }
}

#[test]
fn a_link_outside_the_chain_is_refused_without_a_window() {
    let files = Files::make();
    let bytes = files.read(&Files::receipt(2));
    let receipt: Receipt<'_> = codec::decode("receipt", &bytes).unwrap();
    for (name, number, found) in [("next", 14, "link 14"), ("far", 1 << 20, "link 1048576")] {
        let index = LinkIndex::new(number, number).unwrap();
        let mut altered = Vec::new();
        codec::encode_infallible(&Receipt { index, ..receipt.clone() }, &mut altered);
        let file = format!("altered/{name}.receipt");
        files.write(&file, &altered);
        let (code, object) = verify(&files, &file);
        assert_eq!((code, &object["window"]), (1, &Value::Null));
        assert_eq!(object["checks"][1]["expected"], "link 1 to 13");
        assert_eq!(object["checks"][1]["found"], found);
        assert_eq!(self::code(&run(&files, &OPEN, &[&file])), 1);
    }
}

#[test]
fn what_is_no_receipt_is_refused_with_file_offset_and_expectation() {
    let files = Files::make();
    let good = files.read(&Files::receipt(1));
    let mut random = vec![0; 3000];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut random);
    files.write("bad/empty", b"");
    files.write("bad/random", &random);
    files.write("bad/cut", &good[..good.len() / 2]);
    files.write("bad/longer", &[&good[..], &[0]].concat());
    let huge = std::fs::File::create(files.dir().join("bad/huge")).unwrap();
    huge.set_len(100 << 20).unwrap();
    let length = good.len();
    for (file, expected) in [
        ("bad/empty", "bad/empty: receipt: ends too early at byte 0 of 0".to_owned()),
        ("bad/random", "bad/random: receipt: ".to_owned()),
        ("bad/cut", "bad/cut: receipt: ends too early at byte ".to_owned()),
        (
            "bad/longer",
            format!("bad/longer: receipt: not the canonical spelling at byte {length} of "),
        ),
        ("bad/huge", "bad/huge: 104857600 bytes, at most 1048576 are expected".to_owned()),
    ] {
        let (code, object) = verify(&files, file);
        assert_eq!(code, 1, "{file}");
        assert_eq!(object["valid"], false);
        let error = object["error"]["message"].as_str().unwrap();
        assert!(error.starts_with(&expected), "{error}");
        for key in ["meter", "slot", "window"] {
            assert_eq!(object[key], Value::Null);
        }
        assert_eq!(statuses(&object), ["not_reached"; Check::ALL.len()]);
        let text = said(&run(&files, &VERIFY, &[file]));
        assert!(text.contains(&format!("REFUSED {expected}")), "{text}");
        let opened = run(&files, &OPEN, &[file]);
        assert_eq!(self::code(&opened), 1);
        assert!(said(&opened).contains(&expected));
    }
}

#[test]
fn what_cannot_be_read_is_told_apart_from_what_is_refused() {
    let files = Files::make();
    let good = Files::receipt(1);
    files.write("refused/one", b"no receipt");
    for (names, expected, valid) in [
        (&[&good[..], &good][..], 0, 2),
        (&[&good, "refused/one"], 1, 1),
        (&["refused/absent", &good, "refused/one"], 2, 1),
    ] {
        let output = run(&files, &VERIFY, &[names, &["--json"]].concat());
        assert_eq!(code(&output), expected, "{names:?}");
        let objects = objects(&output);
        assert_eq!(objects.iter().map(|object| &object["file"]).collect::<Vec<_>>(), names);
        assert_eq!(objects.iter().filter(|object| object["valid"] == true).count(), valid);
    }
    assert_eq!(code(&run(&files, &OPEN, &["refused/absent"])), 2);
    for genesis in ["refused/absent", "refused/one", "receipts"] {
        let output = files.bkss(&["verify", "--genesis", genesis, &good]);
        assert_eq!(code(&output), 2, "{genesis}");
        assert!(said(&output).contains(&format!("error: {genesis}: ")), "{}", said(&output));
    }
    for usage in [&[][..], &["verify", &good], &["verify", "--genesis", "genesis.bkss"]] {
        assert_eq!(code(&files.bkss(usage)), 2, "{usage:?}");
    }
    assert_eq!(code(&files.bkss(&["--version"])), 0);
}

#[test]
fn a_reader_that_went_away_stops_nothing() {
    let files = Files::make();
    let stdio = Stdio::piped;
    let mut command = files.command(&[&VERIFY[..], &["receipts", "--json"]].concat());
    let mut child = command.stdout(stdio()).stderr(stdio()).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_genesis_file_is_read_with_all_its_handovers_or_not_at_all() {
    let files = Files::empty();
    let file = make_with_handovers();
    files.write("genesis.bkss", &file);
    let output = files.bkss(&["genesis", "check", "genesis.bkss"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    for (cut, altered) in [(1, None), (40, None), (0, Some(100)), (0, Some(60))] {
        let mut bytes = file[..file.len() - cut].to_vec();
        if let Some(from_end) = altered {
            bytes[file.len() - from_end] ^= 1;
        }
        files.write("altered.bkss", &bytes);
        let output = files.bkss(&["genesis", "check", "altered.bkss"]);
        assert_eq!(code(&output), 1, "cut {cut}, altered {altered:?}");
        assert!(said(&output).contains("altered.bkss: handover "), "{}", said(&output));
    }
}

/// Output that nobody gets is no success; a reader that has heard enough is none of our business.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let files = Files::make();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let args = ["verify", "--genesis", "genesis.bkss", "--json", &Files::receipt(1)];
    let run = |args: &[&str], output: Stdio| files.command(args).stdout(output).output().unwrap();
    assert_eq!(run(&args, Stdio::null()).status.code(), Some(0));
    let lost = run(&args, full().into());
    assert_eq!(lost.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&lost.stderr).contains("error: output: "), "{lost:?}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(&args, writer.into()).status.code(), Some(0));
    let text = ["verify", "--genesis", "genesis.bkss", &Files::receipt(1)];
    for args in [&text[..], &["--help"], &["--version"], &["verify", "--help"]] {
        let lost = files.command(args).stdout(full()).status().unwrap();
        assert_eq!(lost.code(), Some(2), "{args:?}");
        let read = files.command(args).stdout(Stdio::null()).status().unwrap();
        assert_eq!(read.code(), Some(0), "{args:?}");
    }
}

/// Whoever names a file or a provider writes no line of ours.
#[test]
fn names_of_others_stay_in_their_lines() {
    let files = Files::make();
    let altered = {
        let mut bytes = files.read(&Files::receipt(1));
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    files.write("received/evil\nVALID   good.receipt", &altered);
    let output = files.bkss(&["verify", "--genesis", "genesis.bkss", "received"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(!text.lines().any(|line| line.starts_with("VALID")), "{text}");
    assert!(text.contains("evil\\u{a}VALID"), "{text}");
    for name in ["Utility 3\n  provider 9: Good Bank", "Utility \u{1b}[8m", "a\u{202e}b"] {
        let output = files.bkss(&[
            "keygen",
            "--dir",
            "keys",
            "--id",
            "3",
            "--name",
            name,
            "--address",
            "127.0.0.1:9",
            "--agreement",
            "genesis.bkss",
        ]);
        assert_eq!(output.status.code(), Some(2), "{name:?}");
        let said = said(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// What receipts have in common is checked once: that must not make any of them look better.
#[test]
fn among_many_a_receipt_has_the_verdict_that_it_has_alone() {
    let files = Files::make();
    for slot in 1..=5 {
        let bytes = files.read(&Files::receipt(slot));
        files.write(&format!("many/{slot}/0.receipt"), &bytes);
        for part in 1..16 {
            let mut altered = bytes.clone();
            let at = bytes.len() * part / 16 + slot;
            altered[at] ^= 1;
            files.write(&format!("many/{slot}/{part}.receipt"), &altered);
        }
    }
    let together = objects(&run(&files, &VERIFY, &["many", "--json"]));
    assert_eq!(together.len(), 80);
    let valid = together.iter().filter(|object| object["valid"] == true).count();
    assert_eq!(valid, 5, "the unaltered ones alone");
    for object in together {
        let alone = objects(&run(&files, &VERIFY, &[object["file"].as_str().unwrap(), "--json"]));
        assert_eq!(alone, [object]);
    }
}
