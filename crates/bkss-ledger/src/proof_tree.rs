//! A Merkle tree kept whole, to take many paths from.

use bkss_scheme::{
    Digest,
    merkle::{self, Path},
};

/// All levels of an RFC 9162 tree, leaves first.
#[derive(Clone, Debug)]
pub struct ProofTree {
    levels: Vec<Vec<Digest>>,
}

impl ProofTree {
    /// The tree over leaf hashes.
    pub fn new(leaves: Vec<Digest>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            // A last node without a sibling moves up as it is.
            let next = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => merkle::node(left, right),
                    single => single[0],
                })
                .collect();
            levels.push(next);
        }
        Self { levels }
    }

    /// Path of a leaf; `None` if there is no such leaf.
    pub fn path(&self, index: u32) -> Option<Path> {
        let mut index = index as usize;
        if index >= self.levels[0].len() {
            return None;
        }
        let siblings = self.levels.iter().filter_map(|level| {
            let sibling = level.get(index ^ 1).copied();
            index /= 2;
            sibling.filter(|_| level.len() > 1)
        });
        Path::new(siblings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_definition() {
        for size in 1..70_usize {
            let leaves: Vec<_> = (0..size).map(|i| merkle::leaf(&[&i.to_be_bytes()])).collect();
            let tree = ProofTree::new(leaves.clone());
            for index in 0..size {
                let expected = merkle::path(&leaves, index);
                assert_eq!(tree.path(u32::try_from(index).unwrap()), expected, "{index} of {size}");
            }
            assert_eq!(tree.path(u32::try_from(size).unwrap()), None);
        }
        assert_eq!(ProofTree::new(Vec::new()).path(0), None);
    }
}
