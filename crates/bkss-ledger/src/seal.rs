//! The digest of the ledger's state, and what it is made of.
//!
//! The state at the end of a round is sealed: the root of a tree whose first leaf is the sheet
//! (head, members, round, offences) and whose others are the pages, 256 chains each. The last block
//! of the next round carries the digest, so that a quorum certifies it. Only pages that have changed
//! are hashed again.

use std::collections::BTreeSet;

use bkss_scheme::{Digest, codec, hash::Tag, merkle};
use minicbor::Encode;

use crate::{State, snapshot, transaction_batch::Row};

/// Chains on a page.
pub(crate) const PAGE: u32 = 256;

/// Digests of the pages, and what is kept of the last end of a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seals {
    pages: Vec<Digest>,
    changed: BTreeSet<u32>,
    kept: Option<Digest>,
}

impl Seals {
    /// A chain has changed.
    pub(crate) fn touch(&mut self, row: Row) {
        self.changed.insert(row / PAGE);
    }

    /// The end of a round has this digest.
    pub(crate) const fn keep(&mut self, sealed: Digest) {
        self.kept = Some(sealed);
    }

    /// Digest of the state at the last end of a round.
    pub(crate) const fn kept(&self) -> Option<Digest> {
        self.kept
    }
}

impl State {
    /// Digest of this state.
    pub fn seal(&mut self) -> Digest {
        let changed = std::mem::take(&mut self.seals.changed);
        for page in changed {
            let digest = page_digest(&snapshot::Page { state: self, number: page });
            let at = page as usize;
            if at >= self.seals.pages.len() {
                self.seals.pages.resize(at + 1, Digest::ZERO);
            }
            self.seals.pages[at] = digest;
        }
        root(page_digest(&snapshot::Sheet::of(self)), &self.seals.pages)
    }
}

/// Digest of a sheet or page: the leaf of its encoding.
fn page_digest(page: &impl Encode<()>) -> Digest {
    let mut hasher = bkss_scheme::hash::Hasher::new(Tag::Leaf);
    codec::encode_infallible(page, &mut hasher);
    hasher.finish()
}

/// Root over the sheet and the pages.
fn root(sheet: Digest, pages: &[Digest]) -> Digest {
    let leaves: Vec<_> = std::iter::once(sheet).chain(pages.iter().copied()).collect();
    merkle::root(&leaves).unwrap_or(Digest::ZERO)
}
