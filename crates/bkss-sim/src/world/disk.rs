//! A provider's disk as an image: what somebody copies while the node is off, and puts back later.

use commonware_runtime::{
    Blob, BlobVersion, Error, ReadOptions, Storage, WriteOptions, deterministic::Context,
};

use super::Failure;
use crate::Broken;

/// Parts of a node's storage, behind its prefix.
const PARTS: [&str; 14] = [
    "memory",
    "gateway",
    "snapshots",
    "blocks-metadata",
    "blocks-keys",
    "blocks-values",
    "bodies-metadata",
    "bodies-keys",
    "bodies-values",
    "finalizations-metadata",
    "finalizations-keys",
    "finalizations-values",
    "marshal-application-metadata",
    "marshal-cache-metadata",
];
/// What the engine keeps of the blocks of a round until they are final.
const OF_ROUND: [&str; 5] =
    ["verified", "notarized", "certified", "notarizations", "finalizations"];
/// The parts of each of these.
const KINDS: [&str; 3] = ["metadata", "key", "value"];

/// Everything on a provider's disk at one time.
#[derive(Clone, Debug)]
pub(super) struct DiskImage(Vec<File>);

#[derive(Clone, Debug)]
struct File {
    partition: String,
    name: Vec<u8>,
    version: BlobVersion,
    bytes: Vec<u8>,
}

/// The partitions that a node may have up to a round.
fn partitions(prefix: &str, round: u64) -> impl Iterator<Item = String> {
    let prefix = prefix.to_owned();
    let parts = PARTS.iter().map(|part| (*part).to_owned());
    let of_rounds = (0..=round).flat_map(|round| {
        let cached = OF_ROUND.iter().flat_map(move |name| {
            KINDS.iter().map(move |kind| format!("marshal-cache-cache-{round}-{name}-{kind}"))
        });
        cached.chain([format!("simplex-{round}")])
    });
    parts.chain(of_rounds).map(move |part| format!("{prefix}-{part}"))
}

impl DiskImage {
    /// Copies what a node that is off has on its disk; it has been in rounds up to `round`.
    pub(super) async fn take(ctx: &Context, prefix: &str, round: u64) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for partition in partitions(prefix, round) {
            let names = match ctx.scan(&partition).await {
                Err(Error::PartitionMissing(_)) => continue,
                names => names.map_err(|error| failed(&error))?,
            };
            for name in names {
                let any = BlobVersion::new(0)..=BlobVersion::new(u16::MAX);
                let opened = ctx.open_versioned(&partition, &name, any).await;
                let (blob, length, version) = opened.map_err(|error| failed(&error))?;
                let length = usize::try_from(length).map_err(|_| failed(&Error::OffsetOverflow))?;
                let read = blob.read_at(0, length, ReadOptions::default()).await;
                let bytes = read.map_err(|error| failed(&error))?.coalesce().as_ref().to_vec();
                files.push(File { partition: partition.clone(), name, version, bytes });
            }
        }
        Ok(Self(files))
    }

    /// Puts it back in the place of what is there.
    pub(super) async fn put_back(
        &self,
        ctx: &Context,
        prefix: &str,
        round: u64,
    ) -> Result<(), Failure> {
        for partition in partitions(prefix, round) {
            match ctx.remove(&partition, None).await {
                Ok(()) | Err(Error::PartitionMissing(_)) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        for File { partition, name, version, bytes } in &self.0 {
            let opened = ctx.open_versioned(partition, name, *version..=*version).await;
            let (blob, ..) = opened.map_err(|error| failed(&error))?;
            blob.write_at(0, bytes.clone(), WriteOptions::default())
                .await
                .map_err(|error| failed(&error))?;
            blob.sync().await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

fn failed(error: &Error) -> Failure {
    Failure::Broken(Broken::Disk(error.to_string()))
}
