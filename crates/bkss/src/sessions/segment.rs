//! A segment of the log: one session after the other, each with a checksum.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use bkss_scheme::{
    MeterId,
    codec::{self, Encoded},
    hash,
    seal::KeyId,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::SessionsError;
use crate::files::{FileError, unreadable};

/// No session is longer on the disk.
pub(super) const MAX_RECORD: usize = 64;
/// Bytes of a session's checksum.
const CHECK: usize = 8;
/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

/// A session that a meter introduced with link `index`: `[mid, i, kid, enc32]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Session {
    /// The meter.
    pub(crate) meter: MeterId,
    /// The link whose body carries the encapsulated key.
    pub(crate) index: u32,
    /// The provider's key it is for.
    pub(crate) key: KeyId,
    /// The encapsulated key.
    pub(crate) encapsulated: [u8; 32],
}

impl<C> Encode<C> for Session {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.encode(self.meter)?.u32(self.index)?;
        encoder.encode(self.key)?.bytes(&self.encapsulated)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Session {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        Ok(Self {
            meter: decoder.decode()?,
            index: decoder.u32()?,
            key: decoder.decode()?,
            encapsulated: codec::bytes(decoder)?,
        })
    }
}

/// A session as it is written: `[session, checksum8]`, the first bytes of the session's digest.
pub(super) struct Record {
    session: Session,
    checksum: [u8; CHECK],
}

impl Record {
    /// With its checksum.
    pub(super) fn of(session: Session) -> Self {
        let (mut buffer, mut checksum) = ([0; MAX_RECORD], [0; CHECK]);
        let bytes = codec::encode_into(&session, &mut buffer).unwrap_or_default();
        checksum.copy_from_slice(&hash::plain(bytes).0[..CHECK]);
        Self { session, checksum }
    }
}

impl<C> Encode<C> for Record {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(2)?.encode(self.session)?.bytes(&self.checksum)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Record {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        Ok(Self { session: decoder.decode()?, checksum: codec::bytes(decoder)? })
    }
}

/// How a segment ends.
#[derive(Debug)]
pub(crate) enum End {
    /// Behind a session, at this byte.
    Whole(u64),
    /// In the midst of the session that begins at this byte, as a power cut leaves it.
    Torn(u64),
    /// Something else than a session begins at this byte.
    Damaged(u64),
}

/// Shows the sessions of a segment of at most `limit` bytes; a piece of it is in memory at a time.
pub(super) fn read(
    path: &Path,
    limit: u64,
    visit: impl FnMut(Session),
) -> Result<End, SessionsError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let found = file.metadata().map_err(unreadable(path))?.len();
    if found > limit {
        return Err(FileError::TooLong { path: path.to_owned(), found, limit }.into());
    }
    parse(path, file.take(limit), visit)
}

/// Shows the sessions that a source has; `path` names it.
pub(crate) fn parse(
    path: &Path,
    mut source: impl Read,
    mut visit: impl FnMut(Session),
) -> Result<End, SessionsError> {
    let (mut buffer, mut offset) = (Vec::with_capacity(PIECE), 0);
    loop {
        let room = PIECE - buffer.len();
        let filled = source.by_ref().take(room as u64).read_to_end(&mut buffer);
        let ended = filled.map_err(unreadable(path))? < room;
        let mut rest = &buffer[..];
        while rest.len() >= MAX_RECORD || ended && !rest.is_empty() {
            let (session, length) = match first(rest) {
                Ok(found) => found,
                Err(NoSession::Short) if rest.len() < MAX_RECORD => return Ok(End::Torn(offset)),
                Err(_) => {
                    let torn = zeros_follow(rest, &mut source).map_err(unreadable(path))?;
                    return Ok(if torn { End::Torn(offset) } else { End::Damaged(offset) });
                }
            };
            visit(session);
            offset += length as u64;
            rest = &rest[length..];
        }
        if ended {
            return Ok(End::Whole(offset));
        }
        let used = buffer.len() - rest.len();
        buffer.drain(..used);
    }
}

/// Why there is no session at the front.
enum NoSession {
    /// The bytes end before it does.
    Short,
    Other,
}

/// The session at the front, and its length.
fn first(bytes: &[u8]) -> Result<(Session, usize), NoSession> {
    let mut decoder = Decoder::new(bytes);
    let Record { session, .. } = decoder.decode().map_err(|error| {
        if error.is_end_of_input() { NoSession::Short } else { NoSession::Other }
    })?;
    let length = decoder.position();
    let mut buffer = [0; MAX_RECORD];
    match codec::encode_into(&Record::of(session), &mut buffer) {
        Some(expected) if *expected == bytes[..length] => Ok((session, length)),
        _ => Err(NoSession::Other),
    }
}

/// Whether what is no session is shorter than one, and zeros follow to the end of the file: bytes
/// that a power cut kept from being written.
fn zeros_follow(rest: &[u8], source: &mut impl Read) -> io::Result<bool> {
    let mut length = rest.len();
    let mut written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut piece = Vec::new();
    while written < MAX_RECORD {
        piece.clear();
        source.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(written < length);
        }
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            written = length + last + 1;
        }
        length += piece.len();
    }
    Ok(false)
}
