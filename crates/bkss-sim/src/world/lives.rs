//! What becomes of providers and outlives a power cut: which key each votes with, whose disk was
//! copied, who has been stopped for good.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bkss_node::{config::Rekey, status::Snapshot};
use bkss_scheme::{certificate::VoteKey, finality::RoundLength};
use commonware_runtime::deterministic::Context;

use super::{Failure, disk::DiskImage, events::Image, faults::Ms};

/// How long a provider is off while its disk is copied or put back.
const OFF_MS: Ms = 300;
/// So many blocks before its last, and in its last tenth, a node's record names the next round, too
/// (see [`bkss_node::memory`]); and as many more as may pass until it is off.
const NEAR_END: u64 = 8 + 8;

/// An image under way.
#[derive(Clone, Debug)]
struct Copying {
    image: Image,
    /// What is on it, and the round in which it was taken.
    taken: Option<(DiskImage, InRound)>,
    over: bool,
}

impl Copying {
    /// Whether the provider has to be off for it now.
    const fn is_due(&self, now: Ms) -> bool {
        let at = if self.taken.is_none() { self.image.taken } else { self.image.back };
        !self.over && at <= now
    }
}

/// A disk was put back.
#[derive(Clone, Copy, Debug)]
pub(super) struct PutBack {
    /// The last round of which votes may be missing, if the rules name it: it is over.
    pub(super) forgets: Option<u64>,
}

/// Where in the ledger's rounds a node is.
#[derive(Clone, Copy, Debug, Default)]
struct InRound {
    number: u64,
    /// So near its end that its record may name the next one.
    near_end: bool,
}

/// What has become of the providers.
#[derive(Default)]
pub(super) struct Lives {
    /// How often each was started.
    pub(super) starts: Vec<u64>,
    /// The seat whose key each votes with.
    pub(super) seats: Vec<usize>,
    /// Set when a node finds that the ledger knows its next key.
    rekeyed: Vec<Arc<AtomicBool>>,
    copies: Vec<Copying>,
    /// Where each was seen last.
    seen: Vec<InRound>,
    /// Whose disk was put back.
    pub(super) restored: BTreeSet<usize>,
    /// Who is no member any more, and was switched off.
    pub(super) stopped: BTreeSet<usize>,
    /// Who votes although it may have forgotten votes.
    pub(super) without_memory: BTreeSet<usize>,
}

impl Lives {
    /// So many providers before their first start.
    pub(super) fn new(providers: usize, images: &[Image]) -> Self {
        let copying = |image: &Image| Copying { image: *image, taken: None, over: false };
        Self {
            starts: vec![0; providers],
            seats: (0..providers).collect(),
            rekeyed: (0..providers).map(|_| Arc::default()).collect(),
            copies: images.iter().map(copying).collect(),
            seen: vec![InRound::default(); providers],
            restored: BTreeSet::new(),
            stopped: BTreeSet::new(),
            without_memory: BTreeSet::new(),
        }
    }

    /// What a node asks that finds another vote key of its provider on the ledger.
    pub(super) fn rekey(&self, place: usize, next: Option<VoteKey>) -> Rekey {
        let flag = self.rekeyed[place].clone();
        Arc::new(move |named| {
            let mine = next == Some(*named);
            if mine {
                flag.store(true, Ordering::Release);
            }
            mine
        })
    }

    /// Whether a node is to be started with its next key.
    pub(super) fn takes_next_key(&self, place: usize) -> bool {
        self.rekeyed[place].swap(false, Ordering::AcqRel)
    }

    /// Where a provider's node is now.
    pub(super) fn see(&mut self, place: usize, status: &Snapshot, rounds: RoundLength) {
        let blocks = u64::from(rounds.blocks());
        let near_end = blocks - status.height % blocks <= NEAR_END.max(blocks / 10 + 8);
        self.seen[place] = InRound { number: status.round, near_end };
    }

    /// Whether a provider has to be off now: its disk is copied or put back.
    pub(super) fn is_due(&self, place: usize, now: Ms) -> bool {
        self.copies.iter().any(|copy| copy.image.place == place && copy.is_due(now))
    }

    /// Whether a provider that has been off since then may be switched on.
    pub(super) fn is_ready(&self, (place, now): (usize, Ms), off: Option<Ms>) -> bool {
        off.is_none_or(|off| off + OFF_MS <= now) || !self.is_due(place, now)
    }

    /// Copies or puts back the disk of a provider that is off, if that is due. `round` is
    /// the ledger's.
    pub(super) async fn work_on_disk(
        &mut self,
        ctx: &Context,
        (place, now): (usize, Ms),
        (prefix, round): (&str, u64),
    ) -> Result<Option<PutBack>, Failure> {
        let seen = self.seen[place];
        let mut copies = self.copies.iter_mut();
        let Some(copy) = copies.find(|copy| copy.image.place == place && copy.is_due(now)) else {
            return Ok(None);
        };
        let Some((disk, of)) = &copy.taken else {
            copy.taken = Some((DiskImage::take(ctx, prefix, round + 1).await?, seen));
            return Ok(None);
        };
        copy.over = true;
        let last = of.number + u64::from(of.near_end);
        if last < round || copy.image.in_its_round {
            disk.put_back(ctx, prefix, round + 1).await?;
            self.restored.insert(place);
            return Ok(Some(PutBack { forgets: (!copy.image.in_its_round).then_some(last) }));
        }
        Ok(None)
    }
}
