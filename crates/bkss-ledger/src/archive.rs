//! The ledger as a file: what auditors get.
//!
//! A sequence of frames, each a length (4 bytes, big-endian) and that many bytes of CBOR:
//! first `["bkss archive", 1, net]`, then per block `[block, finality / null]`, last
//! `[number of blocks, id of the newest]`. A block without a certificate of its own is final
//! through a later one. A file without its last frame has been cut.

use std::io::{self, Read, Write};

use bkss_scheme::{
    Digest, Malformed, Network,
    certificate::Certificate,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Block,
    block::{BlockError, Parts},
};

const NAME: &str = "bkss archive";
/// A certificate and the framing around a block are shorter than this.
const MAX_OVERHEAD: usize = 8192;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ArchiveError {
    #[error("archive at byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
    #[error("archive is cut at byte {offset}: expected {expected}")]
    Cut { offset: u64, expected: &'static str },
    #[error("archive at byte {offset}: frame of {found} bytes, at most {limit} are expected")]
    TooLong { offset: u64, found: usize, limit: usize },
    #[error("archive at byte {offset}: {source}")]
    Malformed { offset: u64, source: Malformed },
    #[error("archive at byte {offset}: {source}")]
    Block { offset: u64, source: BlockError },
    #[error("archive of network {found}, the genesis is of {expected}")]
    Network { expected: Network, found: Network },
    #[error("archive says it has {claimed} blocks, {found} were read")]
    Count { claimed: u64, found: u64 },
    #[error("archive says its newest block is {claimed}, {found} was read")]
    Newest { claimed: Digest, found: Digest },
    #[error("archive goes on behind its end at byte {offset}")]
    Trailing { offset: u64 },
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    blocks: u64,
    newest: Digest,
}

impl<W: Write> Writer<W> {
    /// Starts an archive; `genesis` is the id of block 0.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn new(sink: W, network: Network, genesis: Digest) -> io::Result<Self> {
        let mut writer = Self { sink, blocks: 0, newest: genesis };
        writer.frame(&(NAME, 1_u8, network))?;
        Ok(writer)
    }

    /// Appends a block, with its certificate if it has one of its own.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn block(&mut self, block: &Block, certificate: Option<Certificate<'_>>) -> io::Result<()> {
        self.frame(&(block, certificate))?;
        self.blocks += 1;
        self.newest = block.id();
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn finish(mut self) -> io::Result<W> {
        let (blocks, newest) = (self.blocks, self.newest);
        self.frame(&(blocks, newest))?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn frame(&mut self, value: &impl Encode<()>) -> io::Result<()> {
        let mut bytes = Vec::new();
        codec::encode_infallible(value, &mut bytes);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.sink.write_all(&length.to_be_bytes())?;
        self.sink.write_all(&bytes)
    }
}

/// Reads an archive block by block.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    network: Network,
    limit: usize,
    offset: u64,
    buffer: Vec<u8>,
    blocks: u64,
    newest: Digest,
    ended: bool,
}

/// One block of an archive.
#[derive(Debug)]
pub struct Record<'a> {
    /// The block.
    pub block: Block,
    /// Its own certificate, if it has one.
    pub certificate: Option<Certificate<'a>>,
}

impl<R: Read> Reader<R> {
    /// Starts to read; `limit` is the most bytes a block has, `genesis` the id of block 0.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] if this is no archive of that network.
    pub fn new(
        source: R,
        network: Network,
        genesis: Digest,
        limit: usize,
    ) -> Result<Self, ArchiveError> {
        let mut reader = Self {
            source,
            network,
            limit,
            offset: 0,
            buffer: Vec::new(),
            blocks: 0,
            newest: genesis,
            ended: false,
        };
        let offset = reader.frame("the archive's head")?;
        let head: Head = codec::decode("head of an archive", &reader.buffer)
            .map_err(|source| ArchiveError::Malformed { offset, source })?;
        if head.network != network {
            return Err(ArchiveError::Network { expected: network, found: head.network });
        }
        Ok(reader)
    }

    /// The next block; `None` at the archive's end.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] if the archive is cut, altered or goes on behind its end.
    pub fn next_block(&mut self) -> Result<Option<Record<'_>>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.frame("a block or the archive's end")?;
        let end: Result<End, _> = codec::decode("end of an archive", &self.buffer);
        if let Ok(end) = end {
            return self.end(&end).map(|()| None);
        }
        let frame: Frame<'_> = codec::decode("block of an archive", &self.buffer)
            .map_err(|source| ArchiveError::Malformed { offset, source })?;
        let Parts { header, transactions } = frame.parts;
        let block = Block::check(self.network, header, transactions)
            .map_err(|source| ArchiveError::Block { offset, source })?;
        self.blocks += 1;
        self.newest = block.id();
        Ok(Some(Record { block, certificate: frame.certificate }))
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    fn end(&mut self, end: &End) -> Result<(), ArchiveError> {
        if end.blocks != self.blocks {
            return Err(ArchiveError::Count { claimed: end.blocks, found: self.blocks });
        }
        if end.newest != self.newest {
            return Err(ArchiveError::Newest { claimed: end.newest, found: self.newest });
        }
        let mut byte = [0];
        match self.source.read(&mut byte) {
            Ok(0) => {
                self.ended = true;
                Ok(())
            }
            Ok(_) => Err(ArchiveError::Trailing { offset: self.offset }),
            Err(source) => Err(ArchiveError::Io { offset: self.offset, source }),
        }
    }

    /// Reads a frame into the buffer and returns where it began.
    fn frame(&mut self, expected: &'static str) -> Result<u64, ArchiveError> {
        let offset = self.offset;
        let mut length = [0; 4];
        self.read(&mut length, offset, expected)?;
        let (found, limit) = (u32::from_be_bytes(length) as usize, self.limit + MAX_OVERHEAD);
        if found > limit {
            return Err(ArchiveError::TooLong { offset, found, limit });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(found, 0);
        self.read(&mut buffer, offset, expected)?;
        self.buffer = buffer;
        Ok(offset)
    }

    fn read(
        &mut self,
        buffer: &mut [u8],
        offset: u64,
        expected: &'static str,
    ) -> Result<(), ArchiveError> {
        self.source.read_exact(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Cut { offset, expected },
            _ => ArchiveError::Io { offset, source },
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

struct Head {
    network: Network,
}

impl<C> Encode<C> for Head {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.encode((NAME, 1_u8, self.network))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Head {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        let at = decoder.position();
        if decoder.str()? != NAME {
            return Err(decode::Error::message("not an archive").at(at));
        }
        codec::constant(decoder, 1)?;
        Ok(Self { network: decoder.decode()? })
    }
}

struct Frame<'a> {
    parts: Parts,
    certificate: Option<Certificate<'a>>,
}

impl<C> Encode<C> for Frame<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.encode((&self.parts, self.certificate))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Frame<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        let parts = decoder.decode()?;
        Ok(Self { parts, certificate: codec::optional(decoder, Decoder::decode)? })
    }
}

struct End {
    blocks: u64,
    newest: Digest,
}

impl<C> Encode<C> for End {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.encode((self.blocks, self.newest))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for End {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        Ok(Self { blocks: decoder.u64()?, newest: decoder.decode()? })
    }
}
