//! Snapshots of the ledger's state on this node's disk, so that a restart need not begin at the
//! genesis, and somebody else need not either.
//!
//! A snapshot is the state at the end of a round, with the boundary block under it. It is written
//! beside the work of the node, from a copy; the newest two are kept. One that is torn or altered is
//! named in the log and dropped, and the one before it, or the genesis, is where the node begins.
//!
//! A late joiner adopts a snapshot of others, checked by [`Beginning::read`], before its first
//! start. Its store has no blocks before it, so it never begins earlier, unless no good snapshot is
//! left: then it fetches everything.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bkss_ledger::{Beginning, Boundary, Genesis, State, beginning, snapshot};
use commonware_runtime::{
    Blob, Clock, Error, Metrics, ReadOptions, Spawner, Storage, Supervisor, WriteOptions,
};

use crate::store::{disk_failed, names_in};

/// Snapshots that are kept.
const KEPT: usize = 2;
/// Bytes that are read or written at once.
pub const PIECE: usize = 1 << 20;
/// Says that the store begins at a snapshot of others.
const ADOPTED: &[u8] = b"adopted";

/// The snapshots of one node.
#[derive(Clone, Debug)]
pub struct Snapshots {
    partition: String,
    writing: Arc<AtomicBool>,
}

impl Snapshots {
    /// Of the node that has this prefix of the storage.
    pub fn new(partition: &str) -> Self {
        Self { partition: format!("{partition}-snapshots"), writing: Arc::default() }
    }

    /// The newest good snapshot whose next block is `before` at the latest; `None` to begin at the
    /// genesis. Bad ones are dropped.
    ///
    /// # Errors
    ///
    /// Those of the storage, other than bad snapshots.
    pub async fn newest<E: Storage>(
        &self,
        ctx: &E,
        genesis: &Arc<Genesis>,
        before: u64,
    ) -> Result<Option<Beginning>, Error> {
        for height in self.heights(ctx).await?.into_iter().rev() {
            if height >= before {
                continue;
            }
            let read = match self.read(ctx, height).await {
                Ok(bytes) => {
                    Beginning::of_own_disk(genesis, &bytes[..]).map_err(|error| error.to_string())
                }
                Err(error) if disk_failed(&error) => return Err(error),
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(found) if found.state().head().height == height => {
                    tracing::info!(height, digest = %found.digest(), "begins at a snapshot");
                    return Ok(Some(found));
                }
                Ok(found) => {
                    let found = found.state().head().height;
                    tracing::error!(self.partition, height, found, "snapshot of another height");
                }
                Err(error) => tracing::error!(self.partition, height, error, "bad snapshot"),
            }
            // What is not good once will not get better.
            let _ = ctx.remove(&self.partition, Some(&height.to_be_bytes())).await;
        }
        Ok(None)
    }

    /// Writes a state and its boundary block beside the work of the node; nothing happens while
    /// another is written.
    pub fn write<E>(&self, ctx: &E, state: State, boundary: &Boundary<'_>)
    where
        E: Spawner + Storage + Clock + Metrics + Supervisor,
    {
        if self.writing.swap(true, Ordering::AcqRel) {
            tracing::warn!("the snapshot before is still being written");
            return;
        }
        let snapshots = self.clone();
        let begun = begun(boundary);
        ctx.child("snapshot").shared(true).spawn(move |ctx| async move {
            let height = state.head().height;
            match snapshots.store(&ctx, state, begun).await {
                Ok(bytes) => tracing::debug!(height, bytes, "snapshot"),
                Err(error) => tracing::error!(height, %error, "snapshot is not written"),
            }
            snapshots.writing.store(false, Ordering::Release);
        });
    }

    /// Takes over a snapshot of others, for a store that is empty; on disk when this returns.
    ///
    /// # Errors
    ///
    /// Those of the storage; the store is empty still.
    pub async fn adopt<E: Storage>(&self, ctx: &E, beginning: Beginning) -> Result<(), Error> {
        let begun = begun(&beginning.boundary());
        self.store(ctx, beginning.into_state(), begun).await?;
        let (mark, _) = ctx.open(&self.partition, ADOPTED).await?;
        mark.sync().await
    }

    /// Whether the store begins at a snapshot of others.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn is_adopted<E: Storage>(&self, ctx: &E) -> Result<bool, Error> {
        Ok(names_in(ctx, &self.partition).await?.iter().any(|name| name == ADOPTED))
    }

    /// The store will begin at the genesis.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn unadopt<E: Storage>(&self, ctx: &E) -> Result<(), Error> {
        ctx.remove(&self.partition, Some(ADOPTED)).await
    }

    /// The newest snapshot up to a height, to be read, and its length; its boundary block comes
    /// first.
    pub async fn newest_up_to<E: Storage>(
        &self,
        ctx: &E,
        height: u64,
    ) -> Option<(u64, E::Blob, u64)> {
        let heights = self.heights(ctx).await.ok()?;
        let newest = heights.into_iter().rev().find(|found| *found <= height)?;
        let (blob, length) = ctx.open(&self.partition, &newest.to_be_bytes()).await.ok()?;
        // One that was removed meanwhile is there again, and empty.
        (length > 0).then_some((newest, blob, length))
    }

    async fn store<E: Storage>(
        &self,
        ctx: &E,
        mut state: State,
        begun: Vec<u8>,
    ) -> Result<usize, Error> {
        let height = state.head().height;
        let mut bytes = begun;
        snapshot::write(&mut state, &mut bytes).map_err(|_| Error::WriteFailed)?;
        drop(state);
        let (blob, _) = ctx.open(&self.partition, &height.to_be_bytes()).await?;
        blob.resize(0).await?;
        let length = bytes.len();
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            let at = (index * PIECE) as u64;
            blob.write_at(at, piece.to_vec(), WriteOptions::default()).await?;
        }
        blob.sync().await?;
        drop(blob);
        let heights = self.heights(ctx).await?;
        for old in heights.iter().rev().skip(KEPT) {
            ctx.remove(&self.partition, Some(&old.to_be_bytes())).await?;
        }
        Ok(length)
    }

    /// The heights of the snapshots, ascending.
    async fn heights<E: Storage>(&self, ctx: &E) -> Result<Vec<u64>, Error> {
        let names = names_in(ctx, &self.partition).await?;
        let height = |name: &Vec<u8>| Some(u64::from_be_bytes(name[..].try_into().ok()?));
        let mut heights: Vec<_> = names.iter().filter_map(height).collect();
        heights.sort_unstable();
        Ok(heights)
    }

    async fn read<E: Storage>(&self, ctx: &E, height: u64) -> Result<Vec<u8>, Error> {
        let (blob, length) = ctx.open(&self.partition, &height.to_be_bytes()).await?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let left = length - bytes.len() as u64;
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let at = bytes.len() as u64;
            let read = blob.read_at(at, piece, ReadOptions::default()).await?;
            bytes.extend_from_slice(read.coalesce().as_ref());
        }
        Ok(bytes)
    }
}

/// What stands before a snapshot.
fn begun(boundary: &Boundary<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a vector does not fail.
    let _ = beginning::write_boundary(boundary, &mut bytes);
    bytes
}
