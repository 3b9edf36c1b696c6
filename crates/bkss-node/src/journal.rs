//! What a gateway has answered "accepted" and is not settled yet, on disk.
//!
//! A log of groups of messages in sections, on the engine's storage. All groups that wait are
//! written together and made durable with one flush; only then are their senders answered. A group
//! that a crash tore was not answered and is cut off on start. Sections in which everything is
//! settled are removed from the front.

use bytes::Bytes;
use commonware_codec::RangeCfg;
use commonware_runtime::{
    Handle, Metrics, ReadOptions, Spawner, Storage, Supervisor, buffer::paged::CacheRef,
};
use commonware_storage::journal::{
    Error,
    segmented::variable::{Config, Journal as Log},
};
use commonware_utils::{
    NZUsize,
    channel::{mpsc, oneshot},
};
use std::collections::BTreeSet;

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
}

/// Answers that are given once what they answer is durable.
pub struct Reply {
    /// Who waits.
    pub to: oneshot::Sender<Vec<Answer>>,
    /// What is said, one per message.
    pub answers: Vec<Answer>,
}

enum Command {
    Append { section: u64, group: Bytes, replies: Vec<Reply> },
    Prune { below: u64 },
}

impl<E: Storage + Metrics + Supervisor + Spawner> Journal<E> {
    /// Opens the log, or starts it, and shows each group with its section, in order.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn open(
        ctx: &E,
        partition: &str,
        cache: CacheRef,
        mut show: impl FnMut(u64, Bytes),
    ) -> Result<Self, Error> {
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
            show(section, group);
        }
        Ok(Self { log: replay.finish()? })
    }

    /// Section numbers that are not in use start here.
    pub fn next_section(&self) -> u64 {
        self.log.newest_section().map_or(0, |newest| newest + 1)
    }

    /// Writes on a task of its own, which ends when the writer is dropped or the disk fails.
    pub fn start(self, ctx: &E) -> (Writer, Handle<()>) {
        let (sender, commands) = mpsc::channel(MAX_WAITING);
        let task = ctx.child("journal").spawn(move |_| async move {
            if let Err(error) = write(self.log, commands).await {
                tracing::error!(%error, "the gateway's journal cannot be written");
            }
        });
        (Writer(sender), task)
    }
}

async fn write<E: Storage + Metrics>(
    mut log: Log<E, Bytes>,
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), Error> {
    while let Some(first) = commands.recv().await {
        let mut next = Some(first);
        let (mut replies, mut sections) = (Vec::new(), BTreeSet::new());
        let mut prune = None;
        while let Some(command) = next {
            match command {
                Command::Append { section, group, replies: waiting } => {
                    if !group.is_empty() {
                        (log, ..) = log.append(section, &group).await?;
                        sections.insert(section);
                    }
                    replies.extend(waiting);
                }
                Command::Prune { below } => prune = Some(below),
            }
            next = commands.try_recv().ok();
        }
        if !sections.is_empty() {
            log = log.sync(sections).await?;
        }
        for Reply { to, answers } in replies {
            let _ = to.send(answers); // who asked may have gone
        }
        // Behind the flush: what was carried into a later section is durable there.
        if let Some(below) = prune {
            (log, _) = log.prune(below).await?;
        }
    }
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
        group: Vec<u8>,
        replies: Vec<Reply>,
    ) -> Result<(), Stopped> {
        let command = Command::Append { section, group: group.into(), replies };
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
