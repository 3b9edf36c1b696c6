//! Merkle trees of RFC 9162 s2.1, any number of leaves (Eq 3, 4: `r`, `C_i`).
//!
//! The paper's `r = v_i + C_i` is not an addition: it recomputes the root from a leaf and the
//! siblings on its way up, and compares.

use heapless::Vec;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest,
    codec::{self, Encoded, MAX_PATH},
    hash::{Hasher, Tag, hash},
};

/// Leaf hash of an entry given in parts: `H(00 | entry)`.
#[inline]
pub fn leaf(entry: &[&[u8]]) -> Digest {
    hash(Tag::Leaf, entry)
}

/// Leaf hash of a CBOR entry.
pub fn leaf_of(entry: &impl Encode<()>) -> Digest {
    let mut hasher = Hasher::new(Tag::Leaf);
    codec::encode_infallible(entry, &mut hasher);
    hasher.finish()
}

/// Inner node: `H(01 | left | right)`.
#[inline]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    hash(Tag::Node, &[&left.0, &right.0])
}

/// Siblings of a leaf on its way to the root, leaf first; at most 32.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Path(Vec<Digest, MAX_PATH>);

impl Path {
    /// A path from siblings, leaf first; `None` above 32 of them.
    pub fn new(siblings: impl IntoIterator<Item = Digest>) -> Option<Self> {
        let mut path = Vec::new();
        for sibling in siblings {
            path.push(sibling).ok()?;
        }
        Some(Self(path))
    }

    /// The siblings, leaf first.
    pub fn siblings(&self) -> &[Digest] {
        &self.0
    }

    /// This path, then `upper`: from a leaf to the root of its subtree and on to the root of the
    /// whole. `None` above 32 siblings.
    pub fn join(&self, upper: &Self) -> Option<Self> {
        Self::new(self.0.iter().chain(&upper.0).copied())
    }

    /// The root this path leads to from `leaf` at `index` of a tree of `size` leaves, by RFC 9162
    /// s2.1.3.2; `None` if a path there has another length.
    pub fn root(&self, leaf: Digest, index: u64, size: u64) -> Option<Digest> {
        if index >= size {
            return None;
        }
        let (mut position, mut last) = (index, size - 1);
        let mut digest = leaf;
        for sibling in &self.0 {
            if last == 0 {
                return None;
            }
            if position & 1 == 1 || position == last {
                digest = node(sibling, &digest);
                while position & 1 == 0 && position != 0 {
                    position >>= 1;
                    last >>= 1;
                }
            } else {
                digest = node(&digest, sibling);
            }
            position >>= 1;
            last >>= 1;
        }
        (last == 0).then_some(digest)
    }
}

impl<C> Encode<C> for Path {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.bytes_len(32 * self.0.len() as u64)?;
        for sibling in &self.0 {
            encoder.writer_mut().write_all(&sibling.0).map_err(encode::Error::write)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Path {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = decoder.position();
        let bytes = codec::bytes_of_at_most(decoder, 32 * MAX_PATH)?;
        let (siblings, []) = bytes.as_chunks::<32>() else {
            return Err(decode::Error::message("path is not a multiple of 32 bytes").at(at));
        };
        Self::new(siblings.iter().map(|sibling| Digest(*sibling)))
            .ok_or_else(|| decode::Error::message("path too long").at(at))
    }
}

/// Root over leaves that arrive one by one; remembers one digest per level.
#[derive(Clone, Debug, Default)]
pub struct RootBuilder {
    /// Roots of complete subtrees, largest first; their sizes are the bits of `count`.
    stack: Vec<Digest, MAX_PATH>,
    count: u32,
}

impl RootBuilder {
    /// Appends a leaf hash. The tree holds at most 2^32 - 1 leaves; more are refused.
    pub fn push(&mut self, leaf: Digest) -> bool {
        let Some(count) = self.count.checked_add(1) else { return false };
        let mut digest = leaf;
        // Each set bit that the increment clears is a pair of equal subtrees that now join.
        for _ in 0..self.count.trailing_ones() {
            let Some(left) = self.stack.pop() else { return false };
            digest = node(&left, &digest);
        }
        self.count = count;
        self.stack.push(digest).is_ok()
    }

    /// Leaves so far.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Root of the leaves so far; `None` for no leaf.
    pub fn root(&self) -> Option<Digest> {
        self.stack.iter().rev().copied().reduce(|right, left| node(&left, &right))
    }
}

/// Root over a known number of leaves that arrive last one first, as a chain yields them.
#[derive(Clone, Debug)]
pub struct DescendingRoot {
    /// Roots of finished subtrees that cover everything right of the next leaf, nearest last.
    stack: Vec<Digest, { MAX_PATH + 1 }>,
    size: u32,
    next: u32,
}

impl DescendingRoot {
    /// For a tree of `size` leaves.
    pub fn new(size: u32) -> Self {
        Self { stack: Vec::new(), size, next: size }
    }

    /// Puts a leaf before those given so far; false if the tree has all its leaves.
    pub fn push(&mut self, leaf: Digest) -> bool {
        let Some(position) = self.next.checked_sub(1) else { return false };
        self.next = position;
        let mut digest = leaf;
        // A subtree of 2^level leaves that begins at a multiple of 2^(level + 1) is a left child;
        // its right sibling is finished, or lies behind the last leaf.
        for level in 0..32 {
            if position & (1 << level) != 0 {
                break;
            }
            let right = u64::from(position) + (1 << level);
            if right >= u64::from(self.size) {
                break;
            }
            let Some(sibling) = self.stack.pop() else { break };
            digest = node(&digest, &sibling);
        }
        self.stack.push(digest).is_ok()
    }

    /// The root once all leaves are there.
    pub fn root(&self) -> Option<Digest> {
        (self.next == 0).then(|| self.stack.last().copied()).flatten()
    }
}

/// Root of a slice of leaf hashes; `None` for no leaf.
pub fn root(leaves: &[Digest]) -> Option<Digest> {
    let mut builder = RootBuilder::default();
    leaves.iter().all(|leaf| builder.push(*leaf)).then_some(())?;
    builder.root()
}

/// Path of the leaf at `index` of a slice of leaf hashes (RFC 9162 s2.1.3.1), recomputed from all
/// of them; `None` if there is no such leaf.
pub fn path(leaves: &[Digest], index: usize) -> Option<Path> {
    if index >= leaves.len() {
        return None;
    }
    let mut siblings = Vec::<Digest, MAX_PATH>::new();
    let (mut rest, mut index) = (leaves, index);
    while rest.len() > 1 {
        let split = rest.len().next_power_of_two() / 2;
        let (left, right) = rest.split_at(split);
        let sibling = if index < split {
            rest = left;
            root(right)
        } else {
            rest = right;
            index -= split;
            root(left)
        };
        siblings.push(sibling?).ok()?;
    }
    siblings.reverse();
    Some(Path(siblings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as Heap;

    fn leaves(count: usize) -> Heap<Digest> {
        (0..count).map(|i| leaf(&[&i.to_be_bytes()])).collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_has_its_path() {
        for size in 1..70 {
            let leaves = leaves(size);
            let root = root(&leaves).unwrap();
            for index in 0..size {
                let path = path(&leaves, index).unwrap();
                for (claimed, leaf) in leaves.iter().enumerate() {
                    let reached = path.root(*leaf, claimed as u64, size as u64);
                    assert_eq!(reached == Some(root), claimed == index, "{claimed} of {size}");
                }
            }
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        for size in 1..70 {
            let leaves = leaves(size as usize);
            let mut descending = DescendingRoot::new(size);
            assert_eq!(descending.root(), None);
            assert!(leaves.iter().rev().all(|leaf| descending.push(*leaf)), "{size} leaves");
            assert_eq!(descending.root(), root(&leaves), "{size} leaves");
            assert!(!descending.push(leaves[0]), "one more than {size}");
        }
    }

    #[test]
    fn paths_of_blocks_and_of_their_roots_join() {
        for (size, block) in [(11, 4), (12, 4), (300, 16), (5, 8), (65, 64)] {
            let leaves = leaves(size);
            let roots: Heap<_> = leaves.chunks(block).map(|b| root(b).unwrap()).collect();
            assert_eq!(root(&roots), root(&leaves));
            for index in 0..size {
                let chunk = leaves.chunks(block).nth(index / block).unwrap();
                let joined =
                    path(chunk, index % block).unwrap().join(&path(&roots, index / block).unwrap());
                assert_eq!(joined, path(&leaves, index), "{index} of {size} by {block}");
            }
        }
    }

    #[test]
    fn an_empty_tree_has_no_root_and_no_path() {
        assert_eq!(root(&[]), None);
        assert_eq!(path(&[], 0), None);
        assert_eq!(Path::default().root(Digest::ZERO, 0, 0), None);
    }

    proptest! {
        #[test]
        fn trees_agree_with_an_independent_implementation(size in 1..80_usize, pick: prop::sample::Index) {
            use ct_merkle::mem_backed_tree::MemoryBackedTree;
            let mut oracle = MemoryBackedTree::<sha2::Sha256, [u8; 8]>::new();
            (0..size).for_each(|i| oracle.push((i as u64).to_be_bytes()));
            let leaves: Heap<_> = (0..size).map(|i| leaf(&[&(i as u64).to_be_bytes()])).collect();
            let expected = oracle.root();
            prop_assert_eq!(&root(&leaves).unwrap().0[..], expected.as_bytes().as_slice());
            let index = pick.index(size);
            let ours: Heap<u8> =
                path(&leaves, index).unwrap().siblings().iter().flat_map(|s| s.0).collect();
            let theirs = oracle.prove_inclusion(index);
            prop_assert_eq!(&ours[..], theirs.as_bytes());
        }
    }
}
