//! `open` on files alone: what the owner reads, and what is not opened.

use std::process::Output;

use bkss_ledger::Genesis;
use bkss_scheme::{
    Reading, codec, hash,
    reading::{Channel, Interval},
    receipt::Receipt,
    seal::Session,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;

use crate::{
    consortium::{OWNER, VALUES},
    files::Files,
    shared::{code, objects, said},
};

const OPEN: [&str; 3] = ["open", "--provider", "providers/3"];

fn open(files: &Files, args: &[&str]) -> Output {
    files.bkss(&[&OPEN, args].concat())
}

#[test]
fn the_owner_reads_what_was_measured_digit_by_digit() {
    let files = Files::make();
    let output = open(&files, &["receipts", "--json"]);
    assert_eq!(code(&output), 0);
    let objects = objects(&output);
    for (slot, (object, kwh)) in (0..).zip(objects.iter().zip(VALUES)) {
        assert_eq!((&object["meter"], &object["slot"]), (&Value::from(7), &Value::from(slot + 1)));
        let [interval] = &object["intervals"].as_array().unwrap()[..] else { panic!() };
        assert_eq!(interval["kwh"], kwh);
        assert_eq!(object["verified"], true);
        assert_eq!(interval["seconds"], 900);
        assert_eq!(interval["start"], format!("2024-10-28T0{}:{:02}:00Z", slot / 4, slot % 4 * 15));
        assert_eq!(interval.get("quality"), None);
    }
    let text = said(&open(&files, &[&Files::receipt(3)]));
    assert!(text.ends_with("  2024-10-28T00:30:00Z, 900 s: 115.232 kWh\n"), "{text}");
}

#[test]
fn another_provider_learns_nothing() {
    let files = Files::make();
    for provider in 0..3 {
        let directory = format!("providers/{provider}");
        let output = files.bkss(&["open", "--json", "--provider", &directory, "receipts"]);
        assert_eq!(code(&output), 1);
        let told = objects(&output);
        assert!(told.iter().all(|told| told["intervals"].is_null()), "{told:?}");
        let expected =
            format!("meter 7 belongs to provider 3, this directory is provider {provider}");
        assert!(said(&output).contains(&expected), "{}", said(&output));
    }
    // Keys that claim to be another's are not those of the genesis.
    let keys = files.read("providers/1/keys.bkss");
    files.write("thief/genesis.bkss", &files.read("genesis.bkss"));
    let mut keys = [&keys[..2], &[3], &keys[3..keys.len() - 32]].concat();
    keys.extend(hash::plain(&keys).0);
    files.write("thief/keys.bkss", &keys);
    files.write("thief/sessions/000001.bkss", &files.read("providers/3/sessions/000001.bkss"));
    let output = files.bkss(&["open", "--provider", "thief", &Files::receipt(1)]);
    assert_eq!(code(&output), 2);
    let expected = "thief/keys.bkss: expected the keys of provider 3 of this network, found others";
    assert!(said(&output).contains(expected), "{}", said(&output));
}

/// A receipt with a body that a stranger has sealed, and which the owner's keys open.
fn forge(files: &Files, slot: usize, value: i32) -> Vec<u8> {
    let genesis = Genesis::decode(&files.read("genesis.bkss")).unwrap();
    let bytes = files.read(&Files::receipt(slot));
    let receipt: Receipt<'_> = codec::decode("receipt", &bytes).unwrap();
    let sealing = genesis.charter().providers[usize::from(OWNER)].sealing_key;
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let session = Session::start(genesis.network(), &sealing, &mut rng).unwrap();
    let reading =
        Reading::single(Channel::net_energy(900), 1_730_073_600, 3, Interval::measured(value));
    let chain = receipt.registration.message.id(genesis.network());
    let plain = reading.to_bytes().unwrap();
    let body = session.seal(&chain, receipt.index, &plain, true).unwrap();
    let mut forged = Vec::new();
    codec::encode_infallible(&Receipt { body: &body, ..receipt.clone() }, &mut forged);
    forged
}

#[test]
fn what_anybody_can_seal_is_not_opened_and_if_it_is_asked_for_says_so_in_every_line() {
    let files = Files::make();
    files.write("forged/one.receipt", &forge(&files, 2, 666));
    let output = open(&files, &["forged", "--json"]);
    assert_eq!(code(&output), 1);
    let told = objects(&output);
    assert!(told.iter().all(|told| told["intervals"].is_null()), "nothing is opened: {told:?}");
    let refused = "REFUSED forged/one.receipt: meter 7, slot 2: commitment q failed: expected q ";
    assert!(said(&output).contains(refused), "{}", said(&output));

    let output = open(&files, &["forged", &Files::receipt(1), "--unverified"]);
    assert_eq!(code(&output), 1);
    let text = said(&output);
    assert!(text.contains("666 kWh") && text.contains("0.01 kWh"), "{text}");
    for line in text.lines() {
        assert!(line.contains("not verified"), "{line}");
    }
    let output = open(&files, &["forged", &Files::receipt(1), "--unverified", "--json"]);
    assert_eq!(code(&output), 1);
    let objects = objects(&output);
    assert_eq!(objects.len(), 2);
    for object in objects {
        assert_eq!(object["verified"], false, "{object}");
    }
    for (args, expected) in [(["absent", "--unverified"], 2), (["genesis.bkss", "--unverified"], 1)]
    {
        let output = open(&files, &args);
        assert_eq!(code(&output), expected, "{args:?}");
        assert!(said(&output).lines().all(|line| line.contains("not verified")));
    }
}

#[test]
fn a_receipt_is_checked_against_the_genesis_that_is_given() {
    let files = Files::make();
    let good = Files::receipt(1);
    let output = open(&files, &["--genesis", "genesis.bkss", &good]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    // The name of the network is another one then.
    let mut other = files.read("genesis.bkss");
    let name = other.windows(4).position(|window| window == b"test").unwrap();
    other[name] = b'b';
    files.write("other.bkss", &other);
    let output = open(&files, &["--genesis", "other.bkss", &good]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("other.bkss: signature of provider 0"), "{}", said(&output));
    std::fs::remove_file(files.dir().join("providers/3/genesis.bkss")).unwrap();
    assert_eq!(code(&open(&files, &[&good])), 2, "there is nothing to check it against");
    assert_eq!(code(&open(&files, &["--genesis", "genesis.bkss", &good])), 0);
}

#[test]
fn an_altered_body_or_an_unknown_session_does_not_open() {
    let files = Files::make();
    let mut bytes = files.read(&Files::receipt(2));
    let receipt: Receipt<'_> = codec::decode("receipt", &bytes).unwrap();
    let last = *receipt.body.last().unwrap();
    let body = receipt.body.to_vec();
    let start = bytes.windows(body.len()).position(|window| window == body).unwrap();
    bytes[start + body.len() - 1] = last ^ 1;
    files.write("altered/body.receipt", &bytes);
    for name in ["genesis.bkss", "keys.bkss"] {
        files.write(&format!("forgetful/{name}"), &files.read(&format!("providers/3/{name}")));
    }
    let (first, second) = (&Files::receipt(1)[..], &Files::receipt(2)[..]);
    let altered = "altered/body.receipt";
    for (directory, args, code, expected) in [
        ("providers/3", &[altered][..], 1, "slot 2: commitment q failed"),
        ("providers/3", &[altered, "--unverified"], 1, "does not open with this key, meter and"),
        ("forgetful", &[first], 0, "0.01 kWh"),
        ("forgetful", &[second], 1, "the session of meter 7 is not in the directory's"),
    ] {
        let output = files.bkss(&[&["open", "--provider", directory], args].concat());
        assert_eq!(self::code(&output), code, "{directory} {args:?}");
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
}

#[test]
fn damaged_sessions_are_named_and_what_does_not_need_them_opens() {
    let files = Files::make();
    let segment = "providers/3/sessions/000001.bkss";
    let sessions = files.read(segment);
    files.write("providers/3/sessions/000002.bkss", &sessions);
    let mut altered = sessions;
    altered[20] ^= 1;
    files.write(segment, &altered);
    let damaged = format!("error: {segment}: expected a session at byte 0, found something else");
    let output = open(&files, &["receipts"]);
    assert_eq!(code(&output), 2);
    let text = said(&output);
    assert!(text.contains(&damaged), "{text}");
    assert_eq!(text.matches(" kWh").count(), VALUES.len(), "the next segment has it: {text}");
    let output = open(&files, &[&Files::receipt(1)]);
    assert_eq!(code(&output), 0, "carries its own session: {}", said(&output));
    files.write("providers/3/sessions.bkss", b"");
    let output = open(&files, &["receipts"]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("sessions.bkss: made by an older version"), "{}", said(&output));
}
