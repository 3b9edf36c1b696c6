//! Hash chain of one-time links, a meter's only signing secret (Eq 1, 2; scheme s2.2).
//!
//! The last link fixes the chain: `v[i-1] = H(02 | salt | i | v[i])`, down to `v[0]`, which is
//! public and names it. Each link signs one message in one slot and is worthless once that slot
//! has passed. Salt and index are hashed along so that an attacker cannot attack the links of all
//! meters at once; they cost nothing, the input still fits one block.
//!
//! This module knows nothing of time, storage or transport.

use hkdf::Hkdf;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    Digest, Network,
    codec::{Encoded, byte_string},
    hash::{Tag, hash},
    merkle,
};

/// Longest chain, in slots (scheme s4.3).
pub const MAX_SLOTS: u32 = 1 << 20;

/// Public salt of a chain, 16 bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Salt(pub [u8; 16]);
byte_string!(Salt, 16);

/// One link `v_i`, 32 bytes; secret until its slot's window has closed.
#[derive(Clone, Eq, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Link([u8; 32]);
byte_string!(Link, 32);

impl Link {
    /// A link from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Debug for Link {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Link(..)") // may still be secret
    }
}

/// Position of a link in its chain, `i` in `1..=n`. Index 0 is the public anchor `v_0`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkIndex(u32);

impl<C> Encode<C> for LinkIndex {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.u32(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for LinkIndex {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = decoder.position();
        Self::new(decoder.u32()?, MAX_SLOTS)
            .ok_or_else(|| decode::Error::message("link out of 1 to 2^20").at(at))
    }
}

impl core::fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

impl LinkIndex {
    /// `None` unless `1 <= index <= slots`.
    pub const fn new(index: u32, slots: u32) -> Option<Self> {
        if index >= 1 && index <= slots { Some(Self(index)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The last link `v_n` (Eq 1): secret if either the meter's or the SDI's entropy is good.
///
/// `chain_number` counts the chains of one device, so that the same entropies never make the same
/// chain twice.
pub fn last_link(
    salt: Salt,
    meter_entropy: &[u8; 32],
    sdi_entropy: &[u8; 32],
    network: Network,
    chain_number: u32,
) -> Link {
    let mut key_material = [0; 64];
    key_material[..32].copy_from_slice(meter_entropy);
    key_material[32..].copy_from_slice(sdi_entropy);
    let mut link = Link([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(&salt.0), &key_material).expand_multi_info(
        &[b"BKSS-v1 chain", &network.0, &chain_number.to_be_bytes()],
        &mut link.0,
    );
    debug_assert!(expanded.is_ok(), "32 bytes are one block of HKDF-SHA256");
    key_material.zeroize();
    link
}

/// One step down the chain (Eq 2): `v_i` to `v_{i-1}`.
#[inline]
pub fn step(salt: Salt, index: u32, link: &Link) -> Link {
    Link(hash(Tag::ChainStep, &[&salt.0, &index.to_be_bytes(), &link.0]).0)
}

/// Walks from `v_from` down to `v_to`: `from - to` steps, none if `to >= from`.
#[inline]
pub fn walk(salt: Salt, from: u32, to: u32, link: &Link) -> Link {
    let mut link = link.clone();
    for index in (to.saturating_add(1)..=from).rev() {
        // In place: the link before is overwritten, so nothing is left to erase.
        link.0 = hash(Tag::ChainStep, &[&salt.0, &index.to_be_bytes(), &link.0]).0;
    }
    link
}

/// Leaf of `v_i` in the chain's tree (Eq 3): `H(00 | salt | i | v_i)`, at position `i - 1`.
///
/// The paper's leaves are the bare links; then the path of an odd link contains the next, still
/// secret one.
#[inline]
pub fn leaf(salt: Salt, index: u32, link: &Link) -> Digest {
    merkle::leaf(&[&salt.0, &index.to_be_bytes(), &link.0])
}

/// How the tree over a chain is cut: blocks of `2^log2` links, the last one possibly shorter.
///
/// The block roots are hashes and may be public from the start. The path `C_i` has two parts: up
/// to the root of its block, and from there to `r`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Blocks {
    slots: u32,
    log2: u8,
}

impl Blocks {
    /// `None` unless `1 <= slots <= 2^20` and `log2 <= 20`.
    pub const fn new(slots: u32, log2: u8) -> Option<Self> {
        if slots >= 1 && slots <= MAX_SLOTS && log2 <= 20 {
            Some(Self { slots, log2 })
        } else {
            None
        }
    }

    /// The spacing of scheme s4.2: `ceil(ceil(log2 n) / 2)`.
    pub const fn usual(slots: u32) -> Option<Self> {
        if slots == 0 {
            return None;
        }
        let height = 32 - (slots - 1).leading_zeros();
        // At most 16, which fits.
        #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
        Self::new(slots, height.div_ceil(2) as u8)
    }

    /// Number of links, n.
    pub const fn slots(self) -> u32 {
        self.slots
    }

    /// Number of blocks.
    pub const fn count(self) -> u32 {
        self.slots.div_ceil(1 << self.log2)
    }

    /// Number of the block a link lies in, from 0.
    pub const fn of(self, index: LinkIndex) -> u32 {
        (index.0 - 1) >> self.log2
    }

    /// First link of a block.
    pub const fn first(self, block: u32) -> u32 {
        (block << self.log2) + 1
    }

    /// Last link of a block.
    pub const fn last(self, block: u32) -> u32 {
        let end = (block + 1) << self.log2;
        if end < self.slots { end } else { self.slots }
    }
}

/// The public ends of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ends {
    /// `v_0`.
    pub anchor: Link,
    /// `r`.
    pub root: Digest,
}

/// What building a chain yields per block, last block first.
#[derive(Clone, Debug)]
pub struct Block {
    /// Number of the block.
    pub number: u32,
    /// Its last link: secret, kept by the meter to derive the others from.
    pub checkpoint: Link,
    /// Root of its part of the tree: public.
    pub root: Digest,
}

/// Builds a chain down from `v_n` in one pass, with memory for two paths: `v_0`, `r` and each
/// block's checkpoint and root. Costs `4n` compressions.
pub fn build(salt: Salt, blocks: Blocks, last: &Link, mut emit: impl FnMut(Block)) -> Ends {
    let mut top = merkle::DescendingRoot::new(blocks.count());
    let mut link = last.clone();
    for number in (0..blocks.count()).rev() {
        let (first, last) = (blocks.first(number), blocks.last(number));
        let checkpoint = link.clone();
        let mut tree = merkle::DescendingRoot::new(last + 1 - first);
        for index in (first..=last).rev() {
            tree.push(leaf(salt, index, &link));
            link = step(salt, index, &link);
        }
        let root = tree.root().unwrap_or(Digest::ZERO); // all leaves of the block are there
        top.push(root);
        emit(Block { number, checkpoint, root });
    }
    Ends { anchor: link, root: top.root().unwrap_or(Digest::ZERO) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_spacing_of_the_scheme() {
        for (slots, block) in [
            (10_512, 128),
            (17_520, 256),
            (52_560, 256),
            (87_600, 512),
            (131_400, 512),
            (262_800, 1024),
            (525_600, 1024),
            (1, 1),
            (2, 2),
            (11, 4),
        ] {
            let blocks = Blocks::usual(slots).unwrap();
            assert_eq!(1 << blocks.log2, block, "{slots} slots");
        }
        assert_eq!(Blocks::usual(0), None);
    }

    #[test]
    fn a_link_has_a_number_from_1_to_the_longest_chain() {
        for (bytes, number) in [
            (&[0x00][..], None),
            (&[0x01], Some(1)),
            (&[0x1A, 0x00, 0x10, 0x00, 0x00], Some(MAX_SLOTS)),
            (&[0x1A, 0x00, 0x10, 0x00, 0x01], None),
        ] {
            let decoded = crate::codec::decode::<LinkIndex>("link", bytes);
            assert_eq!(decoded.ok().map(LinkIndex::get), number, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn blocks_cover_every_link_once(slots in 1..400_u32, log2 in 0..8_u8) {
            let blocks = Blocks::new(slots, log2).unwrap();
            let mut next = 1;
            for block in 0..blocks.count() {
                prop_assert_eq!(blocks.first(block), next);
                for index in blocks.first(block)..=blocks.last(block) {
                    prop_assert_eq!(blocks.of(LinkIndex::new(index, slots).unwrap()), block);
                }
                next = blocks.last(block) + 1;
            }
            prop_assert_eq!(next, slots + 1);
        }

        #[test]
        fn a_chain_is_built_as_it_is_defined(slots in 1..90_u32, log2 in 0..8_u8, bytes: [u8; 32]) {
            let (salt, last) = (Salt([7; 16]), Link::from_bytes(bytes));
            let blocks = Blocks::new(slots, log2).unwrap();
            let mut emitted = std::vec::Vec::new();
            let ends = build(salt, blocks, &last, |block| emitted.push(block));
            let leaves: std::vec::Vec<_> =
                (1..=slots).map(|i| leaf(salt, i, &walk(salt, slots, i, &last))).collect();
            prop_assert_eq!(Some(ends.root), merkle::root(&leaves));
            prop_assert_eq!(ends.anchor, walk(salt, slots, 0, &last));
            prop_assert_eq!(emitted.len(), blocks.count() as usize);
            for block in emitted {
                let (first, end) = (blocks.first(block.number), blocks.last(block.number));
                let part = &leaves[first as usize - 1..end as usize];
                prop_assert_eq!(Some(block.root), merkle::root(part));
                prop_assert_eq!(block.checkpoint, walk(salt, slots, end, &last));
            }
        }

        #[test]
        fn walking_is_stepping(bytes: [u8; 32], from in 0..40_u32, to in 0..40_u32) {
            let salt = Salt([9; 16]);
            let start = Link::from_bytes(bytes);
            let mut stepped = start.clone();
            for index in (to + 1..=from).rev() {
                stepped = step(salt, index, &stepped);
            }
            prop_assert_eq!(walk(salt, from, to, &start), stepped);
        }
    }
}
