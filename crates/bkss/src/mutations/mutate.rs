//! Alters a file: bits and ranges of any, whole values of CBOR, frames of archives.
//!
//! Values are put in place of others canonically spelled, so that what is altered gets past the
//! decoder; checksums are made to fit most of the time.

use bkss_scheme::hash;
use minicbor::{Decoder, data::Type};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

/// What a file is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Layout {
    /// Values of CBOR, one after the other.
    Values,
    /// The same, with the digest of all of it at the end.
    Checked,
    /// Frames of a length in four bytes and a value of CBOR.
    Frames,
    /// Records of a length in two bytes, a value of CBOR and a checksum of eight bytes.
    Records,
}

/// A number below `end`, which is not 0.
pub(super) fn below(rng: &mut ChaCha8Rng, end: usize) -> usize {
    usize::try_from(rng.next_u64() % end as u64).unwrap()
}

/// Alters `bytes`; `other` is a file of the same kind.
pub(super) fn mutate(layout: Layout, bytes: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut altered = match layout {
        _ if below(rng, 4) == 0 => raw(bytes, other, rng),
        Layout::Values => values(bytes, other, rng),
        Layout::Checked => {
            let content = |bytes: &[u8]| bytes[..bytes.len().saturating_sub(32)].to_vec();
            let mut altered = values(&content(bytes), &content(other), rng);
            altered.extend(hash::plain(&altered).0);
            altered
        }
        Layout::Frames | Layout::Records => parts(layout, bytes, other, rng),
    };
    if below(rng, 8) == 0 {
        altered = raw(&altered, other, rng);
    }
    altered
}

/// Alters bytes without regard to what they mean.
fn raw(bytes: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut altered = bytes.to_vec();
    if altered.is_empty() {
        return vec![0xFF; below(rng, 80)];
    }
    let at = below(rng, altered.len());
    let end = (at + 1 + below(rng, 70)).min(altered.len());
    match below(rng, 9) {
        0 | 1 => altered[at] ^= 1 << below(rng, 8),
        2 => altered[at] = [0, 1, 0x17, 0x18, 0x1B, 0x5F, 0x7F, 0x80, 0xF6, 0xFF][below(rng, 10)],
        3 => drop(altered.drain(at..end)),
        4 => drop(altered.splice(at..at, bytes[at..end].to_vec())),
        5 => altered.truncate(at),
        6 => altered[at..end].fill(0),
        7 => {
            // The head of a value that is as long as can be.
            let head = [0x1B, 0x5B, 0x7B, 0x9B][below(rng, 4)];
            let long = [head, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
            let used = below(rng, long.len()) + 1;
            altered.splice(at..(at + used).min(bytes.len()), long[..used].to_vec());
        }
        _ => {
            let from = below(rng, other.len() + 1);
            altered.truncate(at);
            altered.extend(&other[from..]);
        }
    }
    altered
}

/// Puts another value in place of one.
fn values(bytes: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let places = places(bytes);
    if places.is_empty() {
        return raw(bytes, other, rng);
    }
    let place = places[below(rng, places.len())].clone();
    let mut altered = bytes.to_vec();
    let new = match below(rng, 4) {
        0 => {
            let from = places[below(rng, places.len())].clone();
            bytes[from].to_vec()
        }
        1 => {
            let others = self::places(other);
            if others.is_empty() {
                return raw(bytes, other, rng);
            }
            let from = others[below(rng, others.len())].clone();
            other[from].to_vec()
        }
        2 => neighbour(&bytes[place.clone()], rng),
        _ => odd_value(rng),
    };
    altered.splice(place, new);
    altered
}

/// A value that is nearly this one: a number one off, a string with another byte.
fn neighbour(value: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut decoder = Decoder::new(value);
    if let Ok(number) = decoder.u64() {
        let number = if rng.next_u32().is_multiple_of(2) {
            number.wrapping_add(1)
        } else {
            number.wrapping_sub(1)
        };
        return minicbor::to_vec(number).unwrap();
    }
    let mut near = value.to_vec();
    let at = below(rng, near.len());
    near[at] ^= 1 << below(rng, 8);
    near
}

fn odd_value(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let number = [0, 1, 23, 24, 255, 256, 1 << 20, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX];
    match below(rng, 6) {
        0 => vec![0xF6],
        1 => vec![0x80],
        2 => vec![0x40],
        3 => {
            minicbor::to_vec(minicbor::bytes::ByteVec::from(vec![0xFF; below(rng, 2000)])).unwrap()
        }
        4 => minicbor::to_vec("\u{1F50C}").unwrap(),
        _ => minicbor::to_vec(number[below(rng, number.len())]).unwrap(),
    }
}

/// Where each value is, arrays and what is in them.
fn places(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut decoder = Decoder::new(bytes);
    while decoder.position() < bytes.len() {
        let start = decoder.position();
        if decoder.skip().is_err() {
            break;
        }
        found.push(start..decoder.position());
        if matches!(Decoder::new(&bytes[start..]).datatype(), Ok(Type::Array)) {
            // Its elements come next.
            decoder.set_position(start);
            if decoder.array().is_err() {
                break;
            }
        }
    }
    found
}

/// Alters one part of a file, or which parts there are.
fn parts(layout: Layout, bytes: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut parts = split(layout, bytes);
    let others = split(layout, other);
    if parts.is_empty() || others.is_empty() {
        return raw(bytes, other, rng);
    }
    let at = below(rng, parts.len());
    match below(rng, 8) {
        0 => drop(parts.remove(at)),
        1 => parts.insert(at, parts[below(rng, parts.len())].clone()),
        2 => {
            let with = below(rng, parts.len());
            parts.swap(at, with);
        }
        3 => parts.insert(at, others[below(rng, others.len())].clone()),
        _ => parts[at] = values(&parts[at], &others[below(rng, others.len())], rng),
    }
    join(layout, &parts)
}

fn split(layout: Layout, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (length, check) = if layout == Layout::Frames { (4, 0) } else { (2, 8) };
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while rest.len() >= length {
        let (head, behind) = rest.split_at(length);
        let size = head.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
        if behind.len() < size + check {
            break;
        }
        parts.push(behind[..size].to_vec());
        rest = &behind[size + check..];
    }
    parts
}

fn join(layout: Layout, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        if layout == Layout::Frames {
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        } else {
            bytes.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(part);
            bytes.extend(&hash::plain(part).0[..8]);
        }
    }
    bytes
}
