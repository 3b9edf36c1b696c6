//! Public test vectors: the folder `shared` beside the project, and how its files spell bytes.
//!
//! They are not part of the project. Without that folder the tests that need it say so and pass,
//! unless the environment variable `BKSS_REQUIRE_SHARED` is 1.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Folder of a family of vectors; `None` if the vectors are not there and need not be.
pub(crate) fn family(name: &str) -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if shared.is_dir() {
        return Some(shared.join("vectors").join(name));
    }
    let required = env::var_os("BKSS_REQUIRE_SHARED").is_some_and(|value| value == "1");
    assert!(!required, "{} is not there", shared.display());
    eprintln!("skipped: {} is not there", shared.display());
    None
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Runs every test of a Wycheproof file, `run(group, test)`, and checks that it was all of them.
/// False if the vectors are not there and need not be.
pub(crate) fn each_wycheproof(file: &str, mut run: impl FnMut(&Value, &Value)) -> bool {
    let Some(folder) = family("wycheproof") else { return false };
    let vectors = json(&folder.join(file));
    let mut count = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            run(group, test);
            count += 1;
        }
    }
    assert!(count > 0, "{file} holds no tests");
    assert_eq!(Some(count), vectors["numberOfTests"].as_u64(), "tests of {file}");
    true
}

/// Whether a Wycheproof test is a valid one. Files with `acceptable` ones do not use this.
pub(crate) fn valid(test: &Value) -> bool {
    match test["result"].as_str() {
        Some("valid") => true,
        Some("invalid") => false,
        other => panic!("result {other:?} of test {}", test["tcId"]),
    }
}

/// A string in hex.
pub(crate) fn hex(value: &Value) -> Vec<u8> {
    hex_text(value.as_str().unwrap_or_else(|| panic!("{value} is no string")))
}

/// A string of exactly `N` bytes in hex.
pub(crate) fn hex_of<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().unwrap()
}

/// Bytes in hex.
pub(crate) fn hex_text(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of hex digits");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A string in base64 with padding (RFC 4648 s4).
pub(crate) fn base64(value: &Value) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut pending) = (Vec::new(), 0_u32, 0);
    for symbol in value.as_str().unwrap().trim_end_matches('=').bytes() {
        let sextet = ALPHABET.iter().position(|letter| *letter == symbol).unwrap();
        bits = bits << 6 | u32::try_from(sextet).unwrap();
        pending += 6;
        if pending >= 8 {
            pending -= 8;
            bytes.push((bits >> pending & 0xFF) as u8);
        }
    }
    bytes
}
