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

    /// The end of a round has come; its digest is still to be made.
    pub(crate) const fn open(&mut self) {
        self.kept = None;
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

/// The digest of a state while it is made, a page at a time: where very much waits that takes long,
/// and nobody has to keep the state to himself meanwhile.
#[derive(Debug)]
pub struct Sealing {
    /// The newest block of the state.
    head: Digest,
    pages: Vec<Digest>,
    left: BTreeSet<u32>,
}

/// The digest of a state, and the pages that it is made of.
#[derive(Debug)]
pub struct Sealed {
    head: Digest,
    pages: Vec<Digest>,
    digest: Digest,
}

impl Sealing {
    /// Hashes one more page of the state that this was begun with; all of it in the end.
    pub fn step(&mut self, state: &State) -> Option<Sealed> {
        let Some(number) = self.left.pop_first() else {
            let sheet = page_digest(&snapshot::Sheet::of(state));
            let (head, digest) = (self.head, root(sheet, &self.pages));
            return Some(Sealed { head, pages: std::mem::take(&mut self.pages), digest });
        };
        let at = number as usize;
        if at >= self.pages.len() {
            self.pages.resize(at + 1, Digest::ZERO);
        }
        self.pages[at] = page_digest(&snapshot::Page { state, number });
        None
    }
}

impl State {
    /// Digest of this state.
    pub fn seal(&mut self) -> Digest {
        let mut sealing = self.sealing();
        loop {
            if let Some(sealed) = sealing.step(self) {
                return self.take(sealed);
            }
        }
    }

    /// Begins to make the digest of this state.
    pub fn sealing(&self) -> Sealing {
        let Seals { pages, changed, .. } = &self.seals;
        Sealing { head: self.head.id, pages: pages.clone(), left: changed.clone() }
    }

    /// Keeps the digest of this state, the end of a round, until it is certified. One of another state
    /// is not taken, nor one of a state that ends no round.
    pub fn keep_sealed(&mut self, sealed: Sealed) {
        if sealed.head == self.head.id && self.seals.kept.is_none() {
            let digest = self.take(sealed);
            self.seals.keep(digest);
        }
    }

    fn take(&mut self, sealed: Sealed) -> Digest {
        self.seals.changed.clear();
        self.seals.pages = sealed.pages;
        sealed.digest
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
