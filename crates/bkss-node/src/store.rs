//! Finalized blocks and their certificates on disk, sealed bodies apart.
//!
//! Two of the engine's archives: blocks with the hashes of their bodies, and the bodies. A block is
//! put together again when it is read; where the bodies have been erased, the hashes stand for
//! them and every proof stays valid. Bodies become durable before their block. To prune is to erase
//! bodies: nothing else ever goes.

use bkss_ledger::{Block, Boundary, transaction_batch::Bodies};
use bkss_scheme::{certificate::MAX_COMMITTEE, codec};
use bytes::Bytes;
use commonware_codec::{DecodeExt, RangeCfg};
use commonware_consensus::{
    marshal::store::{Blocks, Certificates},
    simplex::{
        scheme::ed25519::Scheme,
        types::{Finalization, Proposal},
    },
    types::{Epoch, Height, Participant, Round, View},
};
use commonware_cryptography::{certificate::Signers, ed25519, sha256::Digest};
use commonware_runtime::{Clock, Handle, Metrics, Storage, Supervisor, buffer::paged::CacheRef};
use commonware_storage::{
    archive::{Archive as Stored, Error, Identifier, prunable},
    translator::TwoCap,
};
use commonware_utils::{NZU64, NZUsize};

use crate::engine_block::{BlockLimits, EngineBlock, engine_digest};
use std::{num::NonZeroU64, sync::Arc};

/// Records by height and block id.
pub type Archive<E, V> = prunable::Archive<TwoCap, E, Digest, V>;
/// A certificate as the engine stores it.
pub type Certificate = Finalization<Scheme, Digest>;

/// The engine's certificate of a boundary block; `None` if its signatures are none.
pub fn certificate_of(boundary: &Boundary<'_>) -> Option<Certificate> {
    let given = boundary.finality.certificate;
    let members = u32::try_from(boundary.committee.keys().len()).ok()?;
    let signed = (0..members).filter(|member| given.signers >> member & 1 == 1);
    let (signatures, _) = given.signatures.as_chunks::<64>();
    let signature = |bytes: &[u8; 64]| {
        ed25519::Signature::decode(Bytes::copy_from_slice(bytes)).ok().map(Into::into)
    };
    Some(Finalization {
        proposal: Proposal::new(
            Round::new(Epoch::new(given.epoch), View::new(given.view)),
            View::new(given.parent_view),
            engine_digest(boundary.header.id()),
        ),
        certificate: ed25519::certificate::Certificate {
            signers: Signers::new(members, signed.map(Participant::new)).ok()?,
            signatures: signatures.iter().map(signature).collect::<Option<_>>()?,
        },
    })
}

/// Records of a section: what is dropped together.
pub const ITEMS_PER_SECTION: NonZeroU64 = NZU64!(1024);

/// The store of finalized blocks.
pub struct BlockStore<E: Storage + Metrics + Clock> {
    blocks: Archive<E, EngineBlock>,
    bodies: Archive<E, Bytes>,
}

impl<E: Storage + Metrics + Clock + Supervisor> BlockStore<E> {
    /// Opens or creates the store.
    ///
    /// # Errors
    ///
    /// Those of the storage; a torn record is found by its checksum.
    pub async fn open(
        ctx: &E,
        partition: &str,
        cache: CacheRef,
        limits: BlockLimits,
    ) -> Result<Self, Error> {
        let range = RangeCfg::from(0..=limits.bytes);
        let config = archive_config(partition, "blocks", cache.clone(), limits);
        let blocks = prunable::Archive::init(ctx.child("blocks"), config).await?;
        let config = archive_config(partition, "bodies", cache, range);
        let bodies = prunable::Archive::init(ctx.child("bodies"), config).await?;
        Ok(Self { blocks, bodies })
    }
}

/// One archive of a node.
pub fn archive_config<C>(
    partition: &str,
    name: &str,
    cache: CacheRef,
    codec_config: C,
) -> prunable::Config<TwoCap, C> {
    prunable::Config {
        translator: TwoCap,
        metadata_partition: format!("{partition}-{name}-metadata"),
        key_partition: format!("{partition}-{name}-keys"),
        key_page_cache: cache,
        value_partition: format!("{partition}-{name}-values"),
        compression: None,
        codec_config,
        items_per_section: ITEMS_PER_SECTION,
        key_write_buffer: NZUsize!(64 * 1024),
        value_write_buffer: NZUsize!(1024 * 1024),
        replay_buffer: NZUsize!(1024 * 1024),
    }
}

impl<E: Storage + Metrics + Clock> Blocks for BlockStore<E> {
    type Block = Arc<EngineBlock>;
    type Error = Error;

    async fn put(self, digest: Digest, block: &Arc<EngineBlock>) -> Result<Self, Error> {
        let height = block.block().header().height;
        let mut stripped = Block::clone(block.block());
        let columns = stripped.take_bodies();
        let bodies = if columns.is_empty() {
            self.bodies
        } else {
            let mut bytes = Vec::new();
            codec::encode_infallible(&Columns(columns), &mut bytes);
            Stored::put(self.bodies, height, digest, &bytes.into()).await?
        };
        let stripped = EngineBlock::new(Arc::new(stripped));
        let blocks = Stored::put(self.blocks, height, digest, &stripped).await?;
        Ok(Self { blocks, bodies })
    }

    async fn sync(self) -> Result<Self, Error> {
        let bodies = Stored::sync(self.bodies).await?;
        let blocks = Stored::sync(self.blocks).await?;
        Ok(Self { blocks, bodies })
    }

    async fn start_sync(self) -> Result<(Self, Handle<()>), Error> {
        let bodies = Stored::sync(self.bodies).await?;
        let (blocks, handle) = Stored::start_sync(self.blocks).await?;
        Ok((Self { blocks, bodies }, handle))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Arc<EngineBlock>>, Error> {
        let Some(stripped) = Stored::get(&self.blocks, id).await? else { return Ok(None) };
        let height = stripped.block().header().height;
        let Some(bytes) = Stored::get(&self.bodies, Identifier::Index(height)).await? else {
            return Ok(Some(Arc::new(stripped)));
        };
        let Columns(columns) =
            codec::decode("bodies", &bytes).map_err(|_| Error::RecordCorrupted)?;
        let mut block = Block::clone(stripped.block());
        if !block.restore_bodies(columns) {
            return Err(Error::RecordCorrupted);
        }
        Ok(Some(Arc::new(EngineBlock::new(Arc::new(block)))))
    }

    async fn prune(self, min: Height) -> Result<Self, Error> {
        Ok(Self { bodies: self.bodies.prune(min.get()).await?, ..self })
    }

    fn missing_items(&self, start: Height, max: usize) -> Vec<Height> {
        Stored::missing_items(&self.blocks, start.get(), max).into_iter().map(Height::new).collect()
    }

    fn next_gap(&self, value: Height) -> (Option<Height>, Option<Height>) {
        let (end, next) = Stored::next_gap(&self.blocks, value.get());
        (end.map(Height::new), next.map(Height::new))
    }

    fn last_index(&self) -> Option<Height> {
        Stored::last_index(&self.blocks).map(Height::new)
    }
}

/// The store of certificates.
pub struct CertificateStore<E: Storage + Metrics + Clock>(Archive<E, Certificate>);

impl<E: Storage + Metrics + Clock + Supervisor> CertificateStore<E> {
    /// Opens or creates the store.
    ///
    /// # Errors
    ///
    /// Those of the storage; a torn record is found by its checksum.
    pub async fn open(ctx: &E, partition: &str, cache: CacheRef) -> Result<Self, Error> {
        let config = archive_config(partition, "finalizations", cache, MAX_COMMITTEE);
        Ok(Self(prunable::Archive::init(ctx.child("finalizations"), config).await?))
    }
}

impl<E: Storage + Metrics + Clock> Certificates for CertificateStore<E> {
    type BlockDigest = Digest;
    type Commitment = Digest;
    type Scheme = Scheme;
    type Error = Error;

    async fn put(
        self,
        height: Height,
        digest: Digest,
        certificate: &Certificate,
    ) -> Result<Self, Error> {
        Ok(Self(Stored::put(self.0, height.get(), digest, certificate).await?))
    }

    async fn sync(self) -> Result<Self, Error> {
        Ok(Self(Stored::sync(self.0).await?))
    }

    async fn start_sync(self) -> Result<(Self, Handle<()>), Error> {
        let (archive, handle) = Stored::start_sync(self.0).await?;
        Ok((Self(archive), handle))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Certificate>, Error> {
        Stored::get(&self.0, id).await
    }

    async fn has(&self, height: Height) -> Result<bool, Error> {
        Stored::has(&self.0, Identifier::Index(height.get())).await
    }

    async fn prune(self, _: Height) -> Result<Self, Error> {
        Ok(self)
    }

    fn last_index(&self) -> Option<Height> {
        Stored::last_index(&self.0).map(Height::new)
    }

    fn ranges_from(&self, from: Height) -> impl Iterator<Item = (Height, Height)> {
        let ranges = Stored::ranges_from(&self.0, from.get());
        ranges.map(|(first, last)| (Height::new(first), Height::new(last)))
    }
}

/// The bodies of one block: a column per opening batch.
struct Columns(Vec<Bodies>);

impl<C> minicbor::Encode<C> for Columns {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> codec::Encoded<W> {
        encoder.encode(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Columns {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        let count = codec::array_of_at_most(decoder, bkss_ledger::block::MAX_TRANSACTIONS)?;
        (0..count).map(|_| decoder.decode()).collect::<Result<_, _>>().map(Self)
    }
}

/// The names of what is in a partition, if it is there.
pub(crate) async fn names_in<E: Storage>(
    ctx: &E,
    partition: &str,
) -> Result<Vec<Vec<u8>>, commonware_runtime::Error> {
    match ctx.scan(partition).await {
        Err(commonware_runtime::Error::PartitionMissing(_)) => Ok(Vec::new()),
        names => names,
    }
}

/// Whether it is the disk that has failed, and not what is on it that is damaged: then what is on
/// it may be whole. So may what lies beside a file of a foreign name, which is somebody's to remove.
pub(crate) fn disk_failed(error: &commonware_runtime::Error) -> bool {
    use commonware_runtime::Error;
    match error {
        Error::Io(error) => error.kind() != std::io::ErrorKind::UnexpectedEof,
        Error::BlobInsufficientLength
        | Error::BlobCorrupt(..)
        | Error::BlobLayoutMismatch { .. }
        | Error::BlobVersionMismatch { .. }
        | Error::InvalidChecksum
        | Error::OffsetOverflow => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::Error;

    /// Where it is what is on the disk that counts as damaged, the archive is dropped.
    #[test]
    fn a_foreign_file_in_a_partition_has_nothing_dropped_and_a_damaged_one_has() {
        assert!(disk_failed(&Error::PartitionCorrupt("ledger-bodies-keys".into())));
        assert!(!disk_failed(&Error::InvalidChecksum));
    }
}
