//! What the receipts of one run have in common: registrations, final headers and links of chains are
//! checked once.
//!
//! Only what held is remembered, and only for one set of anchors: a forgery is checked, and refused,
//! each time it comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use bkss_scheme::{
    Digest, Link, codec, hash,
    receipt::Common,
    root_message::{Registered, Registration},
    timestamp::Inclusion,
};

/// What held, by the digest of all that was looked at.
#[derive(Default)]
pub(crate) struct InCommon {
    registered: RwLock<BTreeMap<Digest, Registered>>,
    certified: RwLock<BTreeSet<Digest>>,
    /// By chain.
    links: RwLock<BTreeMap<Digest, BTreeMap<u32, Link>>>,
}

impl Common for InCommon {
    fn registered(&self, registration: &Registration) -> Option<Registered> {
        read(&self.registered).get(&digest(registration)).cloned()
    }

    fn remember_registered(&self, registration: &Registration, registered: &Registered) {
        write(&self.registered).insert(digest(registration), registered.clone());
    }

    fn is_final(&self, inclusion: &Inclusion<'_>) -> bool {
        read(&self.certified).contains(&of_header(inclusion))
    }

    fn remember_final(&self, inclusion: &Inclusion<'_>) {
        write(&self.certified).insert(of_header(inclusion));
    }

    fn link_before(&self, chain: &Registered, index: u32) -> Option<(u32, Link)> {
        let links = read(&self.links);
        let (before, link) = links.get(chain.id())?.range(..=index).next_back()?;
        Some((*before, link.clone()))
    }

    fn remember_link(&self, chain: &Registered, index: u32, link: &Link) {
        write(&self.links).entry(*chain.id()).or_default().insert(index, link.clone());
    }
}

fn digest(value: &impl minicbor::Encode<()>) -> Digest {
    let mut bytes = Vec::with_capacity(512);
    codec::encode_infallible(value, &mut bytes);
    hash::plain(&bytes)
}

/// Of a header and its proof, without the path to what is in the block.
fn of_header(Inclusion { header, finality, .. }: &Inclusion<'_>) -> Digest {
    digest(&(header, finality))
}

// A panic in another thread leaves a map as it was: insertions are whole.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
