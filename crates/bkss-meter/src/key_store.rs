//! Where a meter's links come from: write-once checkpoints (scheme s5.2, s5.3).
//!
//! The store holds the last link of each block of the chain and walks down from there: at most one
//! block of hashes per slot, nothing secret is ever rewritten. The meter never computes `C_i`;
//! others can, from the block roots that are handed out when the chain is made.

use bkss_scheme::{
    Digest, Link, LinkIndex, Salt,
    hash_chain::{self, Blocks, Ends},
};
use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A chain's secrets, over storage `S` of one link per block: an array in flash or a vector.
#[derive(Clone)]
pub struct KeyStore<S> {
    salt: Salt,
    blocks: Blocks,
    checkpoints: S,
    checksum: u32,
}

/// Checkpoints that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum KeyStoreError {
    #[error("storage for {found} checkpoints, the chain has {expected} blocks")]
    Length { expected: u32, found: usize },
    #[error("checkpoints have checksum {found:08x}, expected {expected:08x}")]
    Checksum { expected: u32, found: u32 },
    #[error("link 1 does not lead to the registered v_0")]
    Anchor,
}

impl<S: AsRef<[Link]>> KeyStore<S> {
    /// Makes the chain down from `last` (`v_n`) into `checkpoints` and hands out what is public:
    /// the root of each block, last block first, and the ends. Costs `4n` compressions.
    ///
    /// # Errors
    ///
    /// [`KeyStoreError::Length`] unless there is room for one link per block.
    pub fn make(
        salt: Salt,
        blocks: Blocks,
        last: &Link,
        mut checkpoints: S,
        mut publish: impl FnMut(u32, Digest),
    ) -> Result<(Self, Ends), KeyStoreError>
    where
        S: AsMut<[Link]>,
    {
        check_length(blocks, checkpoints.as_ref())?;
        let storage = checkpoints.as_mut();
        let ends = hash_chain::build(salt, blocks, last, |block| {
            storage[block.number as usize] = block.checkpoint;
            publish(block.number, block.root);
        });
        let checksum = checksum(checkpoints.as_ref());
        Ok((Self { salt, blocks, checkpoints, checksum }, ends))
    }

    /// Takes checkpoints back into use after a restart.
    ///
    /// # Errors
    ///
    /// [`KeyStoreError`] if they are not those that [`Self::checksum`] was of, or do not lead to
    /// `anchor`.
    pub fn load(
        salt: Salt,
        blocks: Blocks,
        anchor: &Link,
        checkpoints: S,
        expected: u32,
    ) -> Result<Self, KeyStoreError> {
        check_length(blocks, checkpoints.as_ref())?;
        let found = checksum(checkpoints.as_ref());
        if found != expected {
            return Err(KeyStoreError::Checksum { expected, found });
        }
        let store = Self { salt, blocks, checkpoints, checksum: expected };
        if store.anchor() == *anchor { Ok(store) } else { Err(KeyStoreError::Anchor) }
    }

    /// Salt of the chain.
    pub const fn salt(&self) -> Salt {
        self.salt
    }

    /// Shape of the chain.
    pub const fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// `v_0`, derived anew: one block of hashes.
    pub fn anchor(&self) -> Link {
        let last = self.blocks.last(0);
        // There is no chain without a first block.
        hash_chain::walk(self.salt, last, 0, &self.checkpoints.as_ref()[0])
    }

    /// The checkpoints, to be written to flash once.
    pub fn into_checkpoints(self) -> S {
        self.checkpoints
    }

    /// CRC-32 over the checkpoints, to be stored beside them.
    pub const fn checksum(&self) -> u32 {
        self.checksum
    }

    /// `v_i`: at most one block of hashes. Panics for an index of a longer chain.
    ///
    /// # Panics
    ///
    /// If `index` is not of this chain.
    pub fn derive(&self, index: LinkIndex) -> Link {
        let block = self.blocks.of(index);
        let checkpoint = &self.checkpoints.as_ref()[block as usize];
        hash_chain::walk(self.salt, self.blocks.last(block), index.get(), checkpoint)
    }
}

fn check_length(blocks: Blocks, checkpoints: &[Link]) -> Result<(), KeyStoreError> {
    let (expected, found) = (blocks.count(), checkpoints.len());
    if found == expected as usize { Ok(()) } else { Err(KeyStoreError::Length { expected, found }) }
}

fn checksum(checkpoints: &[Link]) -> u32 {
    let mut digest = CRC.digest();
    for checkpoint in checkpoints {
        digest.update(checkpoint.as_bytes());
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn blank(blocks: Blocks) -> Vec<Link> {
        vec![Link::from_bytes([0; 32]); blocks.count() as usize]
    }

    #[test]
    fn every_link_is_the_chains() {
        let (salt, last) = (Salt([3; 16]), Link::from_bytes([7; 32]));
        for slots in 1..=120 {
            for log2 in [0, 1, 3, 5, 7] {
                let blocks = Blocks::new(slots, log2).unwrap();
                let (store, ends) =
                    KeyStore::make(salt, blocks, &last, blank(blocks), |_, _| ()).unwrap();
                for index in 1..=slots {
                    let derived = store.derive(LinkIndex::new(index, slots).unwrap());
                    let expected = hash_chain::walk(salt, slots, index, &last);
                    assert!(derived == expected, "link {index} of {slots} by 2^{log2}");
                }
                assert!(ends.anchor == hash_chain::walk(salt, slots, 0, &last));
            }
        }
    }

    #[test]
    fn checkpoints_that_changed_are_found_at_start() {
        let (salt, last) = (Salt([3; 16]), Link::from_bytes([7; 32]));
        let blocks = Blocks::new(11, 2).unwrap();
        let made = KeyStore::make(salt, blocks, &last, blank(blocks), |_, _| ());
        let (store, ends) = made.unwrap();
        let load = |checkpoints: Vec<Link>, anchor: &Link| {
            KeyStore::load(salt, blocks, anchor, checkpoints, store.checksum()).err()
        };
        let good = store.checkpoints.clone();
        assert_eq!(load(good.clone(), &ends.anchor), None);
        assert_eq!(load(good.clone(), &last), Some(KeyStoreError::Anchor));
        let mut flipped = good.clone();
        flipped[1] = Link::from_bytes([9; 32]);
        assert!(matches!(load(flipped, &ends.anchor), Some(KeyStoreError::Checksum { .. })));
        let cut = load(good[..2].to_vec(), &ends.anchor);
        assert_eq!(cut, Some(KeyStoreError::Length { expected: 3, found: 2 }));
    }
}
