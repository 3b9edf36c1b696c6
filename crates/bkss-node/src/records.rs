//! What receipts need beyond the blocks: a record per block, in an archive of the engine.
//!
//! A record names what a block registered, requested and opened by slot and registry number, what
//! it skipped, and why it is final: a few bytes per reading. Receipts are built from blocks on
//! demand, so they survive restarts and cost no multiple of the ledger. In memory is only which
//! blocks concern which slot. Of empty blocks one a second has a record, most have none.

mod record;

use std::{
    collections::BTreeMap,
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, SystemTime},
};

use bkss_ledger::{FinalBlock, Head, Trust, View, transaction_batch::Row, trust::TrustError};
use bkss_scheme::{Slot, codec};
use bytes::Bytes;
use commonware_codec::RangeCfg;
use commonware_cryptography::sha256::Digest;
use commonware_runtime::{Clock, Metrics, Storage, Supervisor, buffer::paged::CacheRef};
use commonware_storage::{
    archive::{Archive as Stored, Error, Identifier, prunable},
    translator::TwoCap,
};
use commonware_utils::sync::AsyncMutex;

pub use record::Record;

use crate::{
    engine_block::engine_digest,
    repair::{is_failure, remove_all},
    store::archive_config,
};

/// Most bytes of a record: less than half of the longest block for its items, a handover, and headers
/// up to a certificate.
const MAX_RECORD: usize = 34 << 20;
/// Records are made durable after so many blocks,
const SYNC_BLOCKS: u64 = 64;
/// or after so long.
const SYNC_AFTER: Duration = Duration::from_secs(1);

type Archive<E> = prunable::Archive<TwoCap, E, Digest, Bytes>;

/// The records of a node.
pub struct Records<E: Storage + Metrics + Clock> {
    /// `None` after the storage has failed.
    archive: AsyncMutex<Option<Archive<E>>>,
    directory: RwLock<Directory>,
    written: RwLock<Written>,
}

/// Which blocks concern what.
#[derive(Debug)]
pub struct Directory {
    requests: BTreeMap<Slot, Vec<u64>>,
    openings: BTreeMap<Slot, Vec<u64>>,
    /// First number, height and how many, of each block that registers.
    registrations: BTreeMap<Row, (u64, u32)>,
    /// The committees and members since the genesis.
    trust: Trust,
    /// The same as a file, once somebody has asked for it.
    genesis_file: OnceLock<Bytes>,
    begins: u64,
}

/// How far the records go.
#[derive(Clone, Copy, Debug)]
struct Written {
    next: u64,
    durable: u64,
    synced: SystemTime,
}

impl<E: Storage + Metrics + Clock + Supervisor> Records<E> {
    /// Opens the records, or starts them; those that do not read well are dropped.
    ///
    /// # Errors
    ///
    /// Those of the storage; a record that is none is corrupted.
    pub async fn open(
        ctx: &E,
        partition: &str,
        cache: CacheRef,
        trust: Trust,
    ) -> Result<Self, Error> {
        match Self::read(ctx, partition, cache.clone(), trust.clone()).await {
            Err(error) if !is_failure(&error) => {
                // They are made again from the blocks.
                tracing::error!(
                    partition = format!("{partition}-records"),
                    %error,
                    "records are damaged: they are dropped and made again from the blocks"
                );
                remove_all(ctx, partition, "records").await?;
                Self::read(ctx, partition, cache, trust).await
            }
            read => read,
        }
    }

    async fn read(ctx: &E, partition: &str, cache: CacheRef, trust: Trust) -> Result<Self, Error> {
        let range = RangeCfg::from(0..=MAX_RECORD);
        let config = archive_config(partition, "records", cache, range);
        let archive: Archive<E> = prunable::Archive::init(ctx.child("records"), config).await?;
        let mut directory = Directory {
            requests: BTreeMap::new(),
            openings: BTreeMap::new(),
            registrations: BTreeMap::new(),
            trust,
            genesis_file: OnceLock::new(),
            begins: 0,
        };
        let ranges: Vec<_> = archive.ranges().collect();
        for (first, last) in ranges {
            for height in first..=last {
                let bytes = Stored::get(&archive, Identifier::Index(height)).await?;
                let record = bytes.and_then(|bytes| codec::decode("record", &bytes).ok());
                directory.add(height, &record.ok_or(Error::RecordCorrupted)?);
            }
        }
        let next = archive.last_index().map_or(1, |last| last + 1);
        let written = Written { next, durable: next, synced: ctx.current() };
        Ok(Self {
            archive: AsyncMutex::new(Some(archive)),
            directory: RwLock::new(directory),
            written: RwLock::new(written),
        })
    }

    /// The first height that is not on disk: blocks from here on have to be shown again after a
    /// restart.
    pub fn next_height(&self) -> u64 {
        self.written.read().unwrap_or_else(PoisonError::into_inner).durable
    }

    /// Takes in the next final block; one that was taken in before is passed over.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn follow(
        &self,
        block: &FinalBlock,
        view_of: impl FnOnce(&mut Record),
        now: SystemTime,
    ) -> Result<(), Error> {
        let height = block.header().height;
        let mut written = *self.written.read().unwrap_or_else(PoisonError::into_inner);
        if height < written.next {
            return Ok(());
        }
        let before = written.next;
        let mut record = Record::of(block);
        view_of(&mut record);
        written.next = height + 1;
        let sync = written.next - written.durable >= SYNC_BLOCKS
            || now.duration_since(written.synced).is_ok_and(|passed| passed >= SYNC_AFTER);
        let mut slot = self.archive.lock().await;
        let mut archive = slot.take().ok_or(Error::RecordCorrupted)?;
        let gap = height > before;
        if gap {
            archive = begin_at(archive, height - 1, block.header().previous).await?;
        }
        // An empty record tells how far the others go.
        if sync || !record.is_empty() {
            let mut bytes = Vec::new();
            codec::encode_infallible(&record, &mut bytes);
            let digest = engine_digest(block.header().id());
            archive = Stored::put(archive, height, digest, &bytes.into()).await?;
        }
        if sync {
            archive = Stored::sync(archive).await?;
            (written.durable, written.synced) = (written.next, now);
        }
        *slot = Some(archive);
        drop(slot);
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        if gap {
            directory.add(height - 1, &Record::nothing_before());
        }
        directory.add(height, &record);
        drop(directory);
        *self.written.write().unwrap_or_else(PoisonError::into_inner) = written;
        Ok(())
    }

    /// Begins behind a block, with no record of those before it; on disk when this returns.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn begin_behind(&self, head: Head) -> Result<(), Error> {
        if head.height < self.next_height() {
            return Ok(());
        }
        let mut slot = self.archive.lock().await;
        let archive = slot.take().ok_or(Error::RecordCorrupted)?;
        let archive = begin_at(archive, head.height, head.id).await?;
        *slot = Some(Stored::sync(archive).await?);
        drop(slot);
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        directory.add(head.height, &Record::nothing_before());
        drop(directory);
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        (written.next, written.durable) = (head.height + 1, head.height + 1);
        Ok(())
    }

    /// Makes everything durable.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn sync(&self) -> Result<(), Error> {
        let mut slot = self.archive.lock().await;
        if let Some(archive) = slot.take() {
            *slot = Some(Stored::sync(archive).await?);
        }
        Ok(())
    }

    /// The record of a block; `None` for an empty block, or one that is no longer kept.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn get(&self, height: u64) -> Result<Option<Record>, Error> {
        let slot = self.archive.lock().await;
        let archive = slot.as_ref().ok_or(Error::RecordCorrupted)?;
        let bytes = Stored::get(archive, Identifier::Index(height)).await?;
        let record = bytes.map(|bytes| codec::decode("record", &bytes));
        record.transpose().map_err(|_| Error::RecordCorrupted)
    }

    /// Which blocks concern what. Not to be held across an await.
    pub fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that nothing is recorded of a block and of those before it.
async fn begin_at<E: Storage + Metrics + Clock>(
    archive: Archive<E>,
    height: u64,
    id: bkss_scheme::Digest,
) -> Result<Archive<E>, Error> {
    let mut bytes = Vec::new();
    codec::encode_infallible(&Record::nothing_before(), &mut bytes);
    Stored::put(archive, height, engine_digest(id), &bytes.into()).await
}

impl Directory {
    fn add(&mut self, height: u64, record: &Record) {
        if record.is_nothing_before() {
            self.begins = self.begins.max(height);
        }
        if record.registered > 0 {
            self.registrations.insert(record.first_row, (height, record.registered));
        }
        for (slots, index) in
            [(&record.requests, &mut self.requests), (&record.openings, &mut self.openings)]
        {
            for (slot, _) in slots {
                index.entry(*slot).or_default().push(height);
            }
        }
        if let Some(bytes) = &record.handover {
            match codec::decode("handover", bytes) {
                Err(error) => tracing::error!(%error, height, "handover of a final block"),
                Ok(handover) => match self.trust.follow(&handover) {
                    Ok(()) => self.genesis_file = OnceLock::new(),
                    // The genesis file that the node began with may have it already.
                    Err(TrustError::Order { .. }) => {}
                    Err(error) => tracing::error!(%error, height, "handover of a final block"),
                },
            }
        }
    }

    /// The block that the records begin behind: of it and those before it nothing is recorded.
    pub const fn begins(&self) -> u64 {
        self.begins
    }

    /// Heights of blocks with requests of a slot.
    pub fn requests(&self, slot: Slot) -> Vec<u64> {
        self.requests.get(&slot).cloned().unwrap_or_default()
    }

    /// Heights of blocks with openings of a slot.
    pub fn openings(&self, slot: Slot) -> Vec<u64> {
        self.openings.get(&slot).cloned().unwrap_or_default()
    }

    /// The block that registered a chain, and which of its registrations it is; `None` if that block
    /// has not been taken in.
    pub fn registration(&self, row: Row) -> Option<(u64, Row)> {
        let (first, (height, count)) = self.registrations.range(..=row).next_back()?;
        (row - first < *count).then_some((*height, row - first))
    }

    /// The committees and members since the genesis.
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The same as a genesis file: made once and then shared.
    pub fn genesis_file(&self) -> Bytes {
        self.genesis_file.get_or_init(|| self.trust.encode().into()).clone()
    }
}

/// The registry number of the first chain that a block registers, in a view after it.
pub fn first_row(view: &View<'_>, block: &FinalBlock) -> Option<Row> {
    let first = block.verified().registered().first()?;
    let same = |row: &Row| view.chain(*row).is_some_and(|known| known.id == *first.id());
    view.chains(first.message().meter).into_iter().find(same)
}
