//! What a gateway has answered "accepted" and is not settled yet, on disk.
//!
//! A log of groups of messages in sections, on the engine's storage. All groups that wait are
//! written together and made durable with one flush; only then are their senders answered. A group
//! that a crash tore was not answered and is cut off on start. Sections in which everything is
//! settled are removed from the front. A tally beside it says how many messages each section has, so
//! that a disk that loses some of them is found out; it is never ahead of the log.

use bkss_scheme::hash;
use bytes::Bytes;
use commonware_codec::RangeCfg;
use commonware_runtime::{
    Blob, Error as RuntimeError, Handle, Metrics, ReadOptions, Spawner, Storage, Supervisor,
    WriteOptions, buffer::paged::CacheRef,
};
use commonware_storage::journal::{
    Error,
    segmented::variable::{Config, Journal as Log},
};
use commonware_utils::{
    NZUsize,
    channel::{mpsc, oneshot},
};
use std::collections::{BTreeMap, BTreeSet};

use crate::message::Answer;

/// Most bytes of a group.
pub const MAX_GROUP: usize = 8 << 20;
/// Groups that wait for the disk.
const MAX_WAITING: usize = 256;
/// Bytes of the buffers for reading and writing.
const BUFFER: std::num::NonZeroUsize = NZUsize!(1024 * 1024);

/// The log of a gateway.
pub struct Journal<E: Storage + Metrics> {
    log: Log<E, Bytes>,
    tally: Tally<E::Blob>,
    missing: u64,
}

/// How many messages each section of the log has.
struct Tally<B> {
    blob: B,
    sections: BTreeMap<u64, u64>,
}

/// Bytes of its checksum and its length.
const TALLY_HEAD: usize = 16;

impl<B: Blob> Tally<B> {
    /// Reads it; nothing if it is torn, which a power cut may do.
    async fn open<E: Storage<Blob = B>>(ctx: &E, partition: &str) -> Result<Self, RuntimeError> {
        let (blob, length) = ctx.open(&format!("{partition}-gateway-tally"), b"tally").await?;
        let length = usize::try_from(length).unwrap_or(0);
        let read = blob.read_at(0, length, ReadOptions::default()).await?;
        let sections = Self::decode(read.coalesce().as_ref()).unwrap_or_default();
        Ok(Self { blob, sections })
    }

    fn decode(bytes: &[u8]) -> Option<BTreeMap<u64, u64>> {
        let (head, rest) = bytes.split_at_checked(TALLY_HEAD)?;
        let (checksum, length) = head.split_at(8);
        let length = usize::try_from(u64::from_be_bytes(length.try_into().ok()?)).ok()?;
        let body = rest.get(..length)?;
        if hash::plain(body).0[..8] != *checksum {
            return None;
        }
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
        let pair = |pair: &[u8]| Some((number(&pair[..8])?, number(&pair[8..])?));
        body.chunks_exact(16).map(pair).collect()
    }

    /// Writes it, without waiting for the disk.
    async fn write(&self) {
        let mut body = Vec::with_capacity(16 * self.sections.len());
        for (section, count) in &self.sections {
            body.extend(section.to_be_bytes());
            body.extend(count.to_be_bytes());
        }
        let mut bytes = hash::plain(&body).0[..8].to_vec();
        bytes.extend((body.len() as u64).to_be_bytes());
        bytes.extend(body);
        if let Err(error) = self.blob.write_at(0, bytes, WriteOptions::default()).await {
            tracing::debug!(%error, "tally of the gateway's journal");
        }
    }

    /// Waits for the disk: at an orderly end.
    async fn sync(&self) {
        if let Err(error) = self.blob.sync().await {
            tracing::debug!(%error, "tally of the gateway's journal");
        }
    }

    /// How many messages of the tally are missing, and takes what was found for all there is.
    fn missing(&mut self, found: BTreeMap<u64, u64>) -> u64 {
        let missing = self
            .sections
            .iter()
            .map(|(section, count)| count.saturating_sub(found.get(section).copied().unwrap_or(0)));
        let missing = missing.fold(0, u64::saturating_add);
        self.sections = found;
        missing
    }
}

/// Answers that are given once what they answer is durable.
pub struct Reply {
    /// Who waits.
    pub to: oneshot::Sender<Vec<Answer>>,
    /// What is said, one per message.
    pub answers: Vec<Answer>,
}

/// Messages that are written together.
#[derive(Debug, Default)]
pub struct Group {
    /// One after the other.
    pub bytes: Vec<u8>,
    /// How many.
    pub count: u64,
}

enum Command {
    Append { section: u64, group: Group, replies: Vec<Reply> },
    Prune { below: u64 },
}

impl<E: Storage + Metrics + Supervisor + Spawner> Journal<E> {
    /// Opens the log, or starts it, and shows each group with its section, in order; `show` says how
    /// many messages it has found. Those that are missing are named in the log.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn open(
        ctx: &E,
        partition: &str,
        cache: CacheRef,
        mut show: impl FnMut(u64, Bytes) -> u64,
    ) -> Result<Self, Error> {
        let mut tally = Tally::open(ctx, partition).await.map_err(Error::Runtime)?;
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        let config = Config {
            partition: format!("{partition}-gateway"),
            compression: None,
            codec_config: RangeCfg::from(0..=MAX_GROUP),
            page_cache: cache,
            write_buffer: BUFFER,
        };
        let log = Log::init(ctx.child("journal"), config).await?;
        let mut replay = log.replay(0, 0, BUFFER, ReadOptions::default()).await?;
        while let Some(item) = replay.next().await {
            let (section, _, _, group) = item?;
            let count = found.entry(section).or_default();
            *count = count.saturating_add(show(section, group));
        }
        let missing = tally.missing(found);
        if missing > 0 {
            tracing::error!(
                partition = format!("{partition}-gateway"),
                missing,
                "accepted messages are missing from the gateway's journal: what of them is not final \
                 has to be sent again"
            );
        }
        tally.write().await;
        tally.sync().await;
        Ok(Self { log: replay.finish()?, tally, missing })
    }

    /// How many messages the disk has lost since the last start.
    pub const fn missing(&self) -> u64 {
        self.missing
    }

    /// Section numbers that are not in use start here.
    pub fn next_section(&self) -> u64 {
        self.log.newest_section().map_or(0, |newest| newest + 1)
    }

    /// Writes on a task of its own, which ends when the writer is dropped or the disk fails.
    pub fn start(self, ctx: &E) -> (Writer, Handle<()>) {
        let (sender, commands) = mpsc::channel(MAX_WAITING);
        let task = ctx.child("journal").spawn(move |_| async move {
            if let Err(error) = write(self.log, self.tally, commands).await {
                tracing::error!(%error, "the gateway's journal cannot be written");
            }
        });
        (Writer(sender), task)
    }
}

async fn write<E: Storage + Metrics>(
    mut log: Log<E, Bytes>,
    mut tally: Tally<E::Blob>,
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), Error> {
    while let Some(first) = commands.recv().await {
        let mut next = Some(first);
        let (mut replies, mut sections) = (Vec::new(), BTreeSet::new());
        let mut prune = None;
        while let Some(command) = next {
            match command {
                Command::Append { section, group, replies: waiting } => {
                    if !group.bytes.is_empty() {
                        (log, ..) = log.append(section, &group.bytes.into()).await?;
                        sections.insert(section);
                        let count = tally.sections.entry(section).or_default();
                        *count = count.saturating_add(group.count);
                    }
                    replies.extend(waiting);
                }
                Command::Prune { below } => prune = Some(below),
            }
            next = commands.try_recv().ok();
        }
        if !sections.is_empty() {
            log = log.sync(sections).await?;
            tally.write().await;
        }
        for Reply { to, answers } in replies {
            let _ = to.send(answers); // who asked may have gone
        }
        // Behind the flush: what was carried into a later section is durable there.
        if let Some(below) = prune {
            // First the tally, and durably: it must not miss what is removed next.
            tally.sections = tally.sections.split_off(&below);
            tally.write().await;
            tally.sync().await;
            (log, _) = log.prune(below).await?;
        }
    }
    tally.sync().await;
    Ok(())
}

/// Where a gateway leaves what is to be written.
pub struct Writer(mpsc::Sender<Command>);

/// The journal has stopped: nothing more can be accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the gateway's journal has stopped")]
pub struct Stopped;

impl Writer {
    /// Writes a group; who waits is answered once it and all before it are durable. An empty group
    /// only waits for those before it.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn append(
        &self,
        section: u64,
        group: Group,
        replies: Vec<Reply>,
    ) -> Result<(), Stopped> {
        let command = Command::Append { section, group, replies };
        self.0.send(command).await.map_err(|_| Stopped)
    }

    /// Removes the sections below this one.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn prune(&self, below: u64) -> Result<(), Stopped> {
        self.0.send(Command::Prune { below }).await.map_err(|_| Stopped)
    }
}

#[cfg(test)]
mod tests {
    use commonware_runtime::{Clock, Runner, deterministic};
    use commonware_utils::NZU16;

    use super::*;

    const PARTITION: &str = "node";

    /// Opens the journal, counting a message for each byte, and how many are missing.
    async fn open(ctx: &deterministic::Context) -> (Journal<deterministic::Context>, u64, u64) {
        let mut found = 0;
        let cache = CacheRef::new(NZU16!(1024), NZUsize!(16));
        let count = |_, group: Bytes| {
            found += group.len() as u64;
            group.len() as u64
        };
        let journal = Journal::open(&ctx.child("open"), PARTITION, cache, count).await.unwrap();
        let missing = journal.missing();
        (journal, found, missing)
    }

    async fn append(ctx: &deterministic::Context, journal: Journal<deterministic::Context>) {
        let first = journal.next_section();
        let (writer, task) = journal.start(&ctx.child("write"));
        for (section, count) in [(first, 3), (first, 2), (first + 1, 4)] {
            let group = Group { bytes: vec![7; count], count: count as u64 };
            let (to, answered) = oneshot::channel();
            let replies = vec![Reply { to, answers: Vec::new() }];
            writer.append(section, group, replies).await.unwrap();
            answered.await.unwrap();
        }
        drop(writer);
        let _ = task.await;
    }

    #[test]
    fn what_the_disk_has_lost_is_counted_once() {
        deterministic::Runner::seeded(1).start(|ctx| async move {
            let (journal, found, missing) = open(&ctx).await;
            assert_eq!((found, missing), (0, 0));
            append(&ctx, journal).await;
            let (journal, found, missing) = open(&ctx).await;
            assert_eq!((found, missing), (9, 0));
            append(&ctx, journal).await;
            let section = 1_u64.to_be_bytes();
            ctx.remove(&format!("{PARTITION}-gateway"), Some(&section)).await.unwrap();
            let (journal, found, missing) = open(&ctx).await;
            assert_eq!((found, missing), (14, 4));
            drop(journal);
            let (journal, _, missing) = open(&ctx).await;
            assert_eq!(missing, 0, "it has been said");
            drop(journal);
            ctx.remove(&format!("{PARTITION}-gateway"), None).await.unwrap();
            let (journal, found, missing) = open(&ctx).await;
            assert_eq!((found, missing), (0, 14));
            drop(journal);
            ctx.sleep(std::time::Duration::from_millis(1)).await;
        });
    }

    /// What is removed because it is settled is not missed, also where the power goes meanwhile.
    #[test]
    fn what_is_settled_is_not_missed() {
        let (_, checkpoint) =
            deterministic::Runner::seeded(3).start_and_recover(|ctx| async move {
                let (journal, ..) = open(&ctx).await;
                append(&ctx, journal).await;
                let (journal, ..) = open(&ctx).await;
                let first = journal.next_section();
                let (writer, _task) = journal.start(&ctx.child("write"));
                writer.prune(first).await.unwrap();
                let name = format!("{PARTITION}-gateway");
                while ctx.scan(&name).await.is_ok_and(|sections| !sections.is_empty()) {
                    ctx.sleep(std::time::Duration::from_millis(1)).await;
                }
                // The power goes while the writer still runs.
            });
        deterministic::Runner::from(checkpoint).start(|ctx| async move {
            let (_, found, missing) = open(&ctx).await;
            assert_eq!((found, missing), (0, 0));
        });
    }

    #[test]
    fn a_torn_tally_says_nothing() {
        deterministic::Runner::seeded(2).start(|ctx| async move {
            let (journal, ..) = open(&ctx).await;
            append(&ctx, journal).await;
            let name = format!("{PARTITION}-gateway-tally");
            let (blob, length) = ctx.open(&name, b"tally").await.unwrap();
            assert!(length > 16);
            blob.write_at(20, vec![0xFF; 4], WriteOptions::default()).await.unwrap();
            drop(blob);
            let (_, found, missing) = open(&ctx).await;
            assert_eq!((found, missing), (9, 0));
        });
    }
}
