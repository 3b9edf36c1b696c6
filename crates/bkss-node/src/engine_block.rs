//! The ledger's block as the engine's block.
//!
//! The engine's digest of a block is the ledger's block id, so that its certificates are over what
//! a header hashes to and can be checked without the engine.

use std::sync::Arc;

use bkss_ledger::{Block, Genesis};
use bkss_scheme::Network;
use bytes::{BufMut, Bytes};
use commonware_codec::{Buf, EncodeSize, Error, RangeCfg, Read, Write};
use commonware_consensus::{Block as ConsensusBlock, BoundedBlock, Heightable, types::Height};
use commonware_cryptography::{Digestible, sha256::Digest};

/// A block with its bytes, cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineBlock {
    block: Arc<Block>,
    bytes: Bytes,
}

impl EngineBlock {
    /// Wraps a block.
    pub fn new(block: Arc<Block>) -> Self {
        let bytes = block.encode().into();
        Self { block, bytes }
    }

    /// The block before the first.
    pub fn genesis(genesis: &Genesis) -> Self {
        Self::new(Arc::new(Block::new(genesis.network(), genesis.header(), Vec::new())))
    }

    /// The ledger's block.
    pub const fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The engine's form of a ledger digest.
pub fn engine_digest(digest: bkss_scheme::Digest) -> Digest {
    Digest::from(digest.0)
}

/// What decoding a block needs to know.
#[derive(Clone, Copy, Debug)]
pub struct BlockLimits {
    /// The network whose signatures bind transactions to the header.
    pub network: Network,
    /// Most bytes of a block.
    pub bytes: usize,
}

impl BlockLimits {
    /// The limits of a network.
    pub fn of(genesis: &Genesis) -> Self {
        let bytes = genesis.charter().limits.block_bytes as usize;
        Self { network: genesis.network(), bytes }
    }
}

impl Write for EngineBlock {
    fn write(&self, buffer: &mut impl BufMut) {
        self.bytes.write(buffer);
    }
}

impl EncodeSize for EngineBlock {
    fn encode_size(&self) -> usize {
        self.bytes.encode_size()
    }
}

impl Read for EngineBlock {
    type Cfg = BlockLimits;

    fn read_cfg(buffer: &mut impl Buf, limits: &BlockLimits) -> Result<Self, Error> {
        let bytes = Bytes::read_cfg(buffer, &RangeCfg::from(0..=limits.bytes))?;
        let block = Block::decode(limits.network, &bytes, limits.bytes)
            .map_err(|error| Error::Wrapped("block", error.into()))?;
        Ok(Self { block: Arc::new(block), bytes })
    }
}

impl Digestible for EngineBlock {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        engine_digest(self.block.id())
    }
}

impl Heightable for EngineBlock {
    fn height(&self) -> Height {
        Height::new(self.block.header().height)
    }
}

impl ConsensusBlock for EngineBlock {
    fn parent(&self) -> Digest {
        engine_digest(self.block.header().previous)
    }
}

impl BoundedBlock for EngineBlock {
    fn max_encode_size(limits: &BlockLimits) -> usize {
        // A length of at most 32 bits takes five bytes.
        limits.bytes + 5
    }
}
