//! The ledger's block as the engine's block.
//!
//! The engine's digest of a block is the ledger's block id, so that its certificates are over what
//! a header hashes to and can be checked without the engine.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bkss_ledger::{Block, Genesis};
use bkss_scheme::{LedgerTime, Network};
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
#[derive(Clone, Debug)]
pub struct BlockLimits {
    /// The network whose signatures bind transactions to the header.
    pub network: Network,
    /// Most bytes of a block.
    pub bytes: usize,
    /// Blocks of this ledger time and later have all bodies. An id does not say whether they are
    /// there: a block that came without would stand in the way of the whole one.
    pub bodies_from: Arc<AtomicU64>,
}

impl BlockLimits {
    /// The limits of a network; bodies may be missing.
    pub fn of(genesis: &Genesis) -> Self {
        let bytes = genesis.charter().limits.block_bytes as usize;
        let bodies_from = Arc::new(AtomicU64::new(u64::MAX));
        Self { network: genesis.network(), bytes, bodies_from }
    }

    /// The same, for blocks that have all bodies from a ledger time on.
    pub fn with_bodies_from(&self, from: LedgerTime) -> Self {
        Self { bodies_from: Arc::new(AtomicU64::new(from.0)), ..self.clone() }
    }

    fn check(&self, block: &Block) -> Result<(), Error> {
        let due = block.header().time.0 >= self.bodies_from.load(Ordering::Relaxed);
        if due && !block.has_all_bodies() {
            return Err(Error::Invalid("block", "bodies are missing"));
        }
        Ok(())
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
        limits.check(&block)?;
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
