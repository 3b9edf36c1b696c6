//! The ledger as a file: what auditors get.
//!
//! A sequence of frames, each a length (4 bytes, big-endian) and that many bytes of CBOR:
//! first `["bkss archive", 2, net]`, then per block `[block, certificate / null]`, last the
//! [`Head`] of its newest block, or null if it has none. A block without a certificate of its own is
//! final through a later one. A file without its last frame has been cut; one that was cut and given
//! another end is whole up to there, and only a head from elsewhere tells that there is more.

use std::io::{self, Read, Write};

use bkss_scheme::{
    Digest, Head, Malformed, Network,
    certificate::Certificate,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Block,
    block::{BlockError, Parts},
};

const NAME: &str = "bkss archive";
const FORMAT: u8 = 2;
/// What stands in place of the head of an archive without blocks: null.
const NO_HEAD: &[u8] = &[0xF6];
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
    #[error(
        "archive ends in the head of block {claimed} ({claimed_id}), its newest is {found} ({found_id})"
    )]
    Newest { claimed: u64, claimed_id: Digest, found: u64, found_id: Digest },
    #[error("archive ends at byte {offset} in another head than its newest block and certificate")]
    Head { offset: u64 },
    #[error("archive goes on behind its end at byte {offset}")]
    Trailing { offset: u64 },
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    network: Network,
    /// The head of the newest block, encoded; `None` if that has no certificate.
    head: Option<Vec<u8>>,
    blocks: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn new(sink: W, network: Network) -> io::Result<Self> {
        let mut writer = Self { sink, network, head: None, blocks: 0 };
        writer.frame(&(NAME, FORMAT, network))?;
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
        self.head = certificate.map(|certificate| head(self.network, block, certificate));
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// Those of the sink, and [`io::ErrorKind::InvalidInput`] if the newest block has no certificate
    /// of its own: nothing would make it final.
    pub fn finish(mut self) -> io::Result<W> {
        let head = self.head.take();
        if head.is_none() && self.blocks > 0 {
            let kind = io::ErrorKind::InvalidInput;
            return Err(io::Error::new(kind, "the newest block has no certificate of its own"));
        }
        match &head {
            Some(head) => self.bytes(head)?,
            None => self.frame(&None::<u8>)?,
        }
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn frame(&mut self, value: &impl Encode<()>) -> io::Result<()> {
        let mut bytes = Vec::new();
        codec::encode_infallible(value, &mut bytes);
        self.bytes(&bytes)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.sink.write_all(&length.to_be_bytes())?;
        self.sink.write_all(bytes)
    }
}

/// The head of a block, encoded.
fn head(network: Network, block: &Block, certificate: Certificate<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let head = Head { network, header: block.header().clone(), certificate };
    codec::encode_infallible(&head, &mut bytes);
    bytes
}

/// Reads an archive block by block.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    network: Network,
    limit: usize,
    offset: u64,
    buffer: Vec<u8>,
    /// Height and id of the newest block.
    newest: (u64, Digest),
    /// Its head, encoded; `None` if it has no certificate.
    head: Option<Vec<u8>>,
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
            newest: (0, genesis),
            head: None,
            ended: false,
        };
        let offset = reader.frame("the archive's first frame")?;
        let head: First = codec::decode("first frame of an archive", &reader.buffer)
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
        if let Ok(end) = codec::decode::<End<'_>>("end of an archive", &self.buffer) {
            let claimed = end.0.map(|head| (head.network, head.header.height, head.header.id()));
            return self.end(offset, claimed).map(|()| None);
        }
        let frame: Frame<'_> = codec::decode("block of an archive", &self.buffer)
            .map_err(|source| ArchiveError::Malformed { offset, source })?;
        let Parts { header, transactions } = frame.parts;
        let block = Block::check(self.network, header, transactions)
            .map_err(|source| ArchiveError::Block { offset, source })?;
        self.newest = (block.header().height, block.id());
        self.head = frame.certificate.map(|certificate| head(self.network, &block, certificate));
        Ok(Some(Record { block, certificate: frame.certificate }))
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    fn end(
        &mut self,
        offset: u64,
        claimed: Option<(Network, u64, Digest)>,
    ) -> Result<(), ArchiveError> {
        let (found, found_id) = self.newest;
        let (network, claimed, claimed_id) = match claimed {
            None => (self.network, 0, Digest::ZERO),
            Some(claimed) => claimed,
        };
        if network != self.network {
            return Err(ArchiveError::Network { expected: self.network, found: network });
        }
        // Without a block there is no head either, and the other way round.
        let same = claimed == found && (claimed == 0 || claimed_id == found_id);
        if !same {
            return Err(ArchiveError::Newest { claimed, claimed_id, found, found_id });
        }
        // Whoever takes the head out and relies on it relies on its certificate.
        if self.buffer != self.head.as_deref().unwrap_or(NO_HEAD) {
            return Err(ArchiveError::Head { offset });
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

struct First {
    network: Network,
}

impl<C> Encode<C> for First {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.encode((NAME, FORMAT, self.network))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for First {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        let at = decoder.position();
        if decoder.str()? != NAME {
            return Err(decode::Error::message("not an archive").at(at));
        }
        codec::format(decoder, FORMAT)?;
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

struct End<'a>(Option<Head<'a>>);

impl<C> Encode<C> for End<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.encode(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for End<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::optional(decoder, Decoder::decode).map(Self)
    }
}
