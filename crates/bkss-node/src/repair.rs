//! Finds what the disk has lost or altered, before the engine reads it.
//!
//! Every record has a checksum. A record that does not read well is named in the log and dropped
//! together with its section, and the engine is told to begin again: it keeps what is there, fetches
//! what is missing from peers, and nothing altered is ever served. What an archive lacks goes from
//! another only where that would say something false without it: a block without its bodies. A node
//! that has lost blocks is behind the round it has voted in, so it follows until it has caught up (see [`crate::memory`]). What can be made again from the blocks, or holds only what
//! is not final yet, is dropped alone. A disk that fails is another thing: what is on it may be whole,
//! so nothing is dropped, and the node does not start.

use std::collections::BTreeSet;

use bkss_scheme::{LedgerTime, certificate::MAX_COMMITTEE, finality::RoundLength};
use bytes::Bytes;
use commonware_codec::{CodecShared, RangeCfg, varint::UInt};
use commonware_consensus::{
    simplex::{scheme::ed25519::Scheme, types::Notarization},
    types::Epoch,
};
use commonware_cryptography::sha256::Digest;
use commonware_runtime::{Clock, Metrics, Storage, Supervisor, buffer::paged::CacheRef};
use commonware_storage::{
    archive::{Archive as _, Error, Identifier, prunable},
    journal,
    metadata::{self, Metadata},
};
use commonware_utils::sequence::U64;

use crate::{
    engine_block::{BlockLimits, EngineBlock},
    store::{Archive, Certificate, ITEMS_PER_SECTION, archive_config, disk_failed, names_in},
};

/// Where the engine keeps the height it has delivered.
const PROCESSED: U64 = U64::new(0xFF);
/// The archives of a node.
const ARCHIVES: [&str; 3] = ["blocks", "bodies", "finalizations"];
/// What goes with what is lost of each: of a block that is there without bodies it looks as if they
/// had been erased, and the engine would not fetch it again.
const WITH_IT: [&[usize]; 3] = [&[0], &[0, 1], &[2]];
/// The parts of an archive on disk.
const PARTS: [&str; 3] = ["metadata", "keys", "values"];

/// What was dropped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dropped {
    /// Archives that could not be opened, and what had to go with them.
    pub archives: BTreeSet<&'static str>,
    /// First heights of sections with records that did not read well, by archive, and what had to go
    /// with them.
    pub sections: BTreeSet<(&'static str, u64)>,
    /// The engine had delivered blocks that are not there.
    pub rewound: bool,
    /// What was kept of blocks that are not final, and did not read well.
    pub caches: BTreeSet<String>,
}

impl Dropped {
    /// Whether the store was whole.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// From which height on an archive has lost something.
    fn lost(&self, archive: &str) -> Option<u64> {
        let mut sections = self.sections.iter();
        let section = sections.find(|(name, _)| *name == archive).map(|(_, first)| *first);
        if self.archives.contains(archive) { Some(0) } else { section }
    }
}

/// Checks a node's archives, which have to have all blocks from `first` on, and drops what does not
/// read well.
///
/// # Errors
///
/// Those of the storage, other than bad records: where the disk fails nothing is dropped.
pub async fn check<E: Storage + Clock + Metrics + Supervisor>(
    ctx: &E,
    partition: &str,
    cache: &CacheRef,
    limits: BlockLimits,
    rounds: RoundLength,
    first: u64,
) -> Result<Dropped, Error> {
    let mut dropped = Dropped::default();
    let bytes = RangeCfg::from(0..=limits.bytes);
    let found = [
        examine::<_, EngineBlock>(ctx, partition, ARCHIVES[0], cache, limits.clone(), first)
            .await?,
        examine::<_, Bytes>(ctx, partition, ARCHIVES[1], cache, bytes, first).await?,
        examine::<_, Certificate>(ctx, partition, ARCHIVES[2], cache, MAX_COMMITTEE, first).await?,
    ];
    for ((name, found), with_it) in ARCHIVES.into_iter().zip(&found).zip(WITH_IT) {
        match found {
            Ok(Examined { bad, .. }) => {
                for height in bad {
                    let lost = with_it.iter().map(|at| (ARCHIVES[*at], section(*height)));
                    dropped.sections.extend(lost);
                }
            }
            Err(error) => {
                tracing::error!(partition, archive = name, %error, "stored archive is damaged");
                dropped.archives.extend(with_it.iter().map(|at| ARCHIVES[*at]));
            }
        }
    }
    for name in &dropped.archives {
        remove_all(ctx, partition, name).await?;
    }
    for (name, first) in &dropped.sections {
        let (archive, blocks) = (name, ITEMS_PER_SECTION);
        tracing::error!(partition, archive, first, blocks, "section is dropped");
        remove_section(ctx, partition, name, *first).await?;
    }
    let [blocks, _, certificates] = ARCHIVES.map(|name| dropped.lost(name));
    let kept = match (&found[0], blocks) {
        (Ok(examined), Some(lost)) => examined.contiguous.min(lost.saturating_sub(1)),
        (Ok(examined), None) => examined.contiguous,
        (Err(_), _) => 0,
    };
    let uncertified = match (&found[2], certificates) {
        (Ok(found), None) => found.missing_end(rounds, first, kept),
        _ => None,
    };
    if let Some(height) = uncertified {
        tracing::warn!(partition, height, "the end of a round has no certificate: it is fetched");
    }
    let again = uncertified.is_some() || !dropped.is_nothing();
    dropped.rewound = rewind(ctx, partition, kept, again).await?;
    dropped.caches = check_caches(ctx, partition, cache, &limits).await?;
    Ok(dropped)
}

/// What the engine keeps of a round until its blocks are final, by what it is.
#[derive(Clone, Copy, Debug)]
enum Cached {
    Blocks,
    Notarizations,
    Finalizations,
}

/// The engine's names of it.
const CACHES: [(&str, Cached); 5] = [
    ("verified", Cached::Blocks),
    ("notarized", Cached::Blocks),
    ("certified", Cached::Blocks),
    ("notarizations", Cached::Notarizations),
    ("finalizations", Cached::Finalizations),
];
/// Where the engine keeps which rounds those are.
const CACHED: u8 = 0;

/// Checks what the engine keeps of blocks that are not final, and drops what does not read well: it
/// fetches them again as it does what it has missed.
async fn check_caches<E: Storage + Clock + Metrics + Supervisor>(
    ctx: &E,
    partition: &str,
    cache: &CacheRef,
    limits: &BlockLimits,
) -> Result<BTreeSet<String>, Error> {
    let mut dropped = BTreeSet::new();
    let prefix = format!("{partition}-marshal-cache");
    let name = format!("{prefix}-metadata");
    let rounds = match open_metadata::<E, u8, (Epoch, Epoch)>(ctx, &name, ((), ())).await? {
        Some(rounds) => rounds.get(&CACHED).copied(),
        None => {
            dropped.insert(name);
            None
        }
    };
    let (first, last) = rounds.unwrap_or((Epoch::zero(), Epoch::zero()));
    for round in first.get()..=last.get() {
        for (kind, cached) in CACHES {
            let parts = ["metadata", "key", "value"]
                .map(|part| format!("{prefix}-cache-{round}-{kind}-{part}"));
            let mut there = false;
            for part in &parts {
                there |= !names_in(ctx, part).await.map_err(metadata::Error::Runtime)?.is_empty();
            }
            if !there {
                continue;
            }
            let whole = match cached {
                Cached::Blocks => {
                    let limits = limits.with_bodies_from(LedgerTime(u64::MAX));
                    reads_well::<_, EngineBlock>(ctx, &parts, cache, limits).await?
                }
                Cached::Notarizations => {
                    let most = MAX_COMMITTEE;
                    reads_well::<_, Notarization<Scheme, Digest>>(ctx, &parts, cache, most).await?
                }
                Cached::Finalizations => {
                    reads_well::<_, Certificate>(ctx, &parts, cache, MAX_COMMITTEE).await?
                }
            };
            if whole {
                continue;
            }
            tracing::error!(
                partition = parts[1],
                "what is kept of blocks that are not final is damaged: it is dropped"
            );
            for part in &parts {
                absent_is_fine(ctx.remove(part, None).await)?;
            }
            dropped.insert(format!("{prefix}-cache-{round}-{kind}"));
        }
    }
    Ok(dropped)
}

/// Whether all records of one of the engine's caches read well; an error where the disk fails.
async fn reads_well<E: Storage + Clock + Metrics + Supervisor, V: CodecShared>(
    ctx: &E,
    [metadata, key, value]: &[String; 3],
    cache: &CacheRef,
    codec_config: V::Cfg,
) -> Result<bool, Error> {
    let mut config = archive_config("", "", cache.clone(), codec_config);
    config.metadata_partition.clone_from(metadata);
    config.key_partition.clone_from(key);
    config.value_partition.clone_from(value);
    let archive: Archive<E, V> = match prunable::Archive::init(ctx.child("check"), config).await {
        Ok(archive) => archive,
        Err(error) if is_failure(&error) => return Err(error),
        Err(_) => return Ok(false),
    };
    for (first, last) in archive.ranges().collect::<Vec<_>>() {
        for index in first..=last {
            match archive.get(Identifier::Index(index)).await {
                Ok(_) => {}
                Err(error) if is_failure(&error) => return Err(error),
                Err(_) => return Ok(false),
            }
        }
    }
    Ok(true)
}

/// Opens a small file of numbers, or drops it if it is damaged; an error where the disk fails.
pub(crate) async fn open_metadata<E, K, V>(
    ctx: &E,
    partition: &str,
    codec_config: V::Cfg,
) -> Result<Option<Metadata<E, K, V>>, metadata::Error>
where
    E: Storage + Clock + Metrics + Supervisor,
    K: commonware_utils::Span,
    V: CodecShared,
{
    let config = metadata::Config { partition: partition.to_owned(), codec_config };
    match Metadata::init(ctx.child("progress"), config).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(metadata::Error::Runtime(error)) if disk_failed(&error) => Err(error.into()),
        Err(error) => {
            tracing::error!(partition, %error, "stored numbers are damaged: they are dropped");
            match ctx.remove(partition, None).await {
                Ok(()) | Err(commonware_runtime::Error::PartitionMissing(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// What an archive holds.
struct Examined {
    /// Heights whose records do not read well.
    bad: Vec<u64>,
    /// Up to where every height is there, from the first that has to be.
    contiguous: u64,
    /// First and last heights of what is there without a gap.
    ranges: Vec<(u64, u64)>,
}

impl Examined {
    /// The first end of a round that is not there.
    fn missing_end(&self, rounds: RoundLength, from: u64, to: u64) -> Option<u64> {
        let blocks = u64::from(rounds.blocks());
        let first = rounds
            .of(from.saturating_add(1))
            .saturating_add(1)
            .saturating_mul(blocks)
            .saturating_sub(1);
        let step = usize::try_from(blocks).unwrap_or(usize::MAX).max(1);
        let there = |height: &u64| {
            self.ranges.iter().any(|(first, last)| (*first..=*last).contains(height))
        };
        (first..=to).step_by(step).find(|height| !there(height))
    }
}

/// What an archive holds, or why it cannot be opened; an error where the disk fails.
async fn examine<E: Storage + Clock + Metrics + Supervisor, V: CodecShared>(
    ctx: &E,
    partition: &str,
    name: &str,
    cache: &CacheRef,
    codec_config: V::Cfg,
    from: u64,
) -> Result<Result<Examined, Error>, Error> {
    let config = archive_config(partition, name, cache.clone(), codec_config);
    let opened = prunable::Archive::init(ctx.child("check"), config).await;
    let archive: Archive<E, V> = match opened {
        Ok(archive) => archive,
        Err(error) if is_failure(&error) => return Err(error),
        Err(error) => return Ok(Err(error)),
    };
    let mut bad = Vec::new();
    let ranges: Vec<_> = archive.ranges().collect();
    for (first, last) in &ranges {
        for height in *first..=*last {
            match archive.get(Identifier::Index(height)).await {
                Ok(_) => {}
                Err(error) if is_failure(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(partition, archive = name, height, %error, "stored record");
                    bad.push(height);
                }
            }
        }
    }
    let whole = ranges.iter().find(|(first, last)| *first <= from && from <= *last);
    let contiguous = whole.map_or(0, |(_, last)| *last);
    Ok(Ok(Examined { bad, contiguous, ranges }))
}

pub(crate) fn is_failure(error: &Error) -> bool {
    match error {
        Error::Journal(journal::Error::Runtime(error))
        | Error::Metadata(metadata::Error::Runtime(error)) => disk_failed(error),
        _ => false,
    }
}

/// The first height of a height's section.
const fn section(height: u64) -> u64 {
    height / ITEMS_PER_SECTION.get() * ITEMS_PER_SECTION.get()
}

async fn remove_section<E: Storage>(
    ctx: &E,
    partition: &str,
    name: &str,
    first: u64,
) -> Result<(), Error> {
    for part in &PARTS[1..] {
        absent_is_fine(
            ctx.remove(&format!("{partition}-{name}-{part}"), Some(&first.to_be_bytes())).await,
        )?;
    }
    // The archive's own record of its sections no longer holds.
    absent_is_fine(ctx.remove(&format!("{partition}-{name}-{}", PARTS[0]), None).await)
}

pub(crate) async fn remove_all<E: Storage>(
    ctx: &E,
    partition: &str,
    name: &str,
) -> Result<(), Error> {
    for part in PARTS {
        absent_is_fine(ctx.remove(&format!("{partition}-{name}-{part}"), None).await)?;
    }
    Ok(())
}

fn absent_is_fine(removed: Result<(), commonware_runtime::Error>) -> Result<(), Error> {
    use commonware_runtime::Error::{BlobMissing, PartitionMissing};
    match removed {
        Ok(()) | Err(BlobMissing(..) | PartitionMissing(_)) => Ok(()),
        Err(error) => Err(metadata::Error::Runtime(error).into()),
    }
}

/// Lets the engine begin again if it has delivered blocks that are not there.
async fn rewind<E: Storage + Clock + Metrics + Supervisor>(
    ctx: &E,
    partition: &str,
    kept: u64,
    force: bool,
) -> Result<bool, Error> {
    let name = format!("{partition}-marshal-application-metadata");
    let progress = open_metadata::<E, U64, UInt<u64>>(ctx, &name, ()).await?;
    let damaged = progress.is_none();
    let processed = progress.as_ref().and_then(|progress| progress.get(&PROCESSED));
    let processed = processed.map_or(0, |height| height.0);
    drop(progress);
    if !damaged && !force && processed <= kept {
        return Ok(false);
    }
    tracing::warn!(partition, processed, kept, "blocks are missing: they are fetched from peers");
    absent_is_fine(ctx.remove(&name, None).await)?;
    Ok(true)
}
