//! SHA-256 against the known answers of NIST's SHAVS (CAVS 11.0, byte oriented).

use std::fs;

use bkss_scheme::hash;

use crate::shared::{family, hex_text};

#[test]
fn short_messages_hash_to_their_known_digests() {
    answers("SHA256ShortMsg.rsp", 36);
}

#[test]
fn long_messages_hash_to_their_known_digests() {
    answers("SHA256LongMsg.rsp", 43);
}

/// The files name no total: `least` is how many answers each is known to hold.
fn answers(file: &str, least: usize) {
    let Some(folder) = family("nist-shavs") else { return };
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let (mut bits, mut message, mut count) = (0, Vec::new(), 0);
    for (name, value) in text.lines().filter_map(|line| line.split_once(" = ")) {
        match name {
            "Len" => bits = value.parse().unwrap(),
            "Msg" => {
                message = hex_text(value);
                message.truncate(bits / 8); // the empty message is written as 00
                assert_eq!(8 * message.len(), bits);
            }
            "MD" => {
                assert_eq!(hash::plain(&message).0[..], hex_text(value), "{file}, {bits} bits");
                count += 1;
            }
            "[L" => assert_eq!(value, "32]"),
            _ => panic!("{name} is no field of {file}"),
        }
    }
    assert!(count >= least, "{count} answers in {file}");
}
