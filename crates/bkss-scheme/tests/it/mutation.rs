//! Inputs that are nearly right: bytes of something valid, altered at random.
//!
//! Half of the alterations put a number at which arithmetic goes wrong in the place of one that is
//! there, also inside byte strings that hold CBOR themselves, and spell it canonically, so that the
//! input is read to its end. How many inputs a test tries is set by the environment variable
//! `BKSS_MUTATIONS`, 10 000 without it. A case that fails prints its seed and number.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failing test says which case it was"
)]

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

/// Numbers at which arithmetic goes wrong.
const EXTREME: [u64; 14] = [
    0,
    1,
    23,
    24,
    255,
    256,
    65_535,
    65_536,
    (1 << 32) - 1,
    1 << 32,
    (1 << 53) - 1,
    1 << 53,
    u64::MAX - 1,
    u64::MAX,
];

/// How many mutations a test tries.
pub(crate) fn count() -> u64 {
    let count = std::env::var("BKSS_MUTATIONS").ok().and_then(|count| count.parse().ok());
    count.unwrap_or(10_000)
}

/// Runs `try_one` on mutations of these inputs, each tried as often as the others.
#[allow(dead_code, reason = "the node takes them a few at a time")]
pub(crate) fn each(seed: u64, inputs: &[Vec<u8>], try_one: impl FnMut(usize, &[u8])) {
    some(seed, count(), inputs, try_one);
    println!("seed {seed}: {} mutated inputs of {} kinds", count(), inputs.len());
}

/// [`each`] with so many.
pub(crate) fn some(
    seed: u64,
    count: u64,
    inputs: &[Vec<u8>],
    mut try_one: impl FnMut(usize, &[u8]),
) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for number in 0..count {
        let kind = usize::try_from(number).unwrap() % inputs.len();
        let input = mutated(&inputs[kind], &mut rng);
        let case = Case { seed, number, input: &input };
        try_one(kind, &input);
        std::mem::forget(case);
    }
}

/// Tells which case it was when a test ends in the middle of it.
struct Case<'a> {
    seed: u64,
    number: u64,
    input: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        let Self { seed, number, input } = self;
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("seed {seed}, case {number}: {hex}");
    }
}

/// One alteration, sometimes more.
pub(crate) fn mutated(input: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    loop {
        alter(&mut bytes, rng);
        if below(rng, 4) > 0 {
            return bytes;
        }
    }
}

fn below(rng: &mut impl Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound.max(1) as u64).unwrap()
}

fn alter(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    if bytes.is_empty() {
        bytes.push(0);
        return;
    }
    let at = below(rng, bytes.len());
    match below(rng, 10) {
        0..=4 => replace_number(bytes, rng),
        5 => bytes[at] ^= 1 << below(rng, 8),
        6 => bytes.truncate(at),
        7 => bytes.insert(at, rng.next_u64().to_be_bytes()[0]),
        8 => {
            bytes.remove(at);
        }
        _ => {
            // A piece comes twice.
            let end = (at + 1 + below(rng, 64)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

/// Replaces one of the integers of a CBOR sequence; the lengths around it are set right.
fn replace_number(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let count = numbers(bytes);
    let mut wanted = below(rng, count);
    let number = EXTREME[below(rng, EXTREME.len())];
    if let Some(altered) = with_number(bytes, &mut wanted, number) {
        *bytes = altered;
    }
}

/// A head of CBOR: its major type, its number and how many bytes it takes.
fn head(bytes: &[u8]) -> Option<(u8, u64, usize)> {
    let first = *bytes.first()?;
    let (major, short) = (first >> 5, first & 31);
    let (number, length) = match short {
        0..=23 => (u64::from(short), 1),
        24..=27 => {
            let width = 1 << (short - 24);
            let tail = bytes.get(1..=width)?;
            (tail.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), 1 + width)
        }
        _ => return None,
    };
    Some((major, number, length))
}

fn push_head(bytes: &mut Vec<u8>, major: u8, number: u64) {
    let tail = number.to_be_bytes();
    let (short, width) = match number {
        0..=23 => (u8::try_from(number).unwrap(), 0),
        24..=0xFF => (24, 1),
        0x100..=0xFFFF => (25, 2),
        0x1_0000..=0xFFFF_FFFF => (26, 4),
        _ => (27, 8),
    };
    bytes.push(major << 5 | short);
    bytes.extend_from_slice(&tail[8 - width..]);
}

/// How many integers a CBOR sequence has, those in byte strings that are such sequences included.
fn numbers(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((major, number, length)) = head(bytes) {
        bytes = &bytes[length..];
        match major {
            0 => count += 1,
            2 | 3 => {
                let end = usize::try_from(number).unwrap_or(usize::MAX).min(bytes.len());
                let (inside, rest) = bytes.split_at(end);
                count += nested(inside).map_or(0, numbers);
                bytes = rest;
            }
            _ => {}
        }
    }
    count
}

/// What a byte string holds, if that looks like arrays of CBOR.
fn nested(inside: &[u8]) -> Option<&[u8]> {
    (inside.len() > 32 && head(inside).is_some_and(|(major, ..)| major == 4)).then_some(inside)
}

/// The sequence with its n-th integer replaced; `None` if there are fewer.
fn with_number(mut bytes: &[u8], wanted: &mut usize, number: u64) -> Option<Vec<u8>> {
    let mut altered = Vec::new();
    while let Some((major, found, length)) = head(bytes) {
        let (own, rest) = bytes.split_at(length);
        bytes = rest;
        match major {
            0 if *wanted == 0 => {
                push_head(&mut altered, 0, number);
                altered.extend_from_slice(bytes);
                return Some(altered);
            }
            0 => {
                *wanted -= 1;
                altered.extend_from_slice(own);
            }
            2 | 3 => {
                let end = usize::try_from(found).unwrap_or(usize::MAX).min(bytes.len());
                let (inside, rest) = bytes.split_at(end);
                let replaced = nested(inside).and_then(|inside| {
                    (*wanted < numbers(inside)).then(|| with_number(inside, wanted, number))?
                });
                if let Some(replaced) = replaced {
                    push_head(&mut altered, major, replaced.len() as u64);
                    altered.extend_from_slice(&replaced);
                    altered.extend_from_slice(rest);
                    return Some(altered);
                }
                *wanted -= nested(inside).map_or(0, numbers);
                altered.extend_from_slice(own);
                altered.extend_from_slice(inside);
                bytes = rest;
            }
            _ => altered.extend_from_slice(own),
        }
    }
    None
}

#[test]
fn a_number_is_replaced_in_its_place_and_lengths_fit() {
    // [1, h'84 01 02 03 04 ..', 500]
    let mut inside = vec![0x84, 1, 2, 3, 4];
    inside.extend([0; 40]);
    let mut bytes = vec![0x83, 1, 0x58, 45];
    bytes.extend(&inside);
    bytes.extend([0x19, 0x01, 0xF4]);
    assert_eq!(numbers(&bytes), 2 + 4 + 40);
    let altered = with_number(&bytes, &mut 2, 1 << 32).unwrap();
    assert_eq!(altered[..4], [0x83, 1, 0x58, 53]);
    assert_eq!(altered[4..16], [0x84, 1, 0x1B, 0, 0, 0, 1, 0, 0, 0, 0, 3]);
    let altered = with_number(&bytes, &mut (numbers(&bytes) - 1), 7).unwrap();
    assert_eq!(altered[altered.len() - 1], 7);
    assert_eq!(with_number(&bytes, &mut numbers(&bytes), 7), None);
}
