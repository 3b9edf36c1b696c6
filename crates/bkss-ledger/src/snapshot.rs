//! The ledger's state as a file: where a restart or a late joiner begins.
//!
//! Frames of a length (4 bytes, big-endian) and that many bytes of CBOR: the sheet
//! `[2, net, height, id, t_ms, members, round, [* [sp, epoch, view]], chains]`, pages of up to 256
//! chains (see [`crate::chain`]), last the digest of all of it. The digest is that of
//! [`State::seal`]; a certified header of the next round carries it, and whoever gets a snapshot
//! from others checks it against that header (see [`crate::beginning`]).

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    sync::Arc,
};

use bkss_scheme::{
    Certified, Digest, Malformed, Network,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Genesis, Head, Members, State,
    accounting_nodes::Round,
    chain::{self, Chain, Live},
    evidence::{MAX_RECORDS, Offence},
    members::MAX_MEMBERS,
    seal::PAGE,
};

/// Most bytes of a frame: a page of chains with many pending requests.
const MAX_FRAME: usize = 64 << 20;

/// Why a snapshot is none.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SnapshotError {
    #[error("snapshot at byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
    #[error("snapshot at byte {offset}: frame of {found} bytes, at most {limit} are expected")]
    TooLong { offset: u64, found: usize, limit: usize },
    #[error("snapshot at byte {offset}: {source}")]
    Malformed { offset: u64, source: Malformed },
    #[error("snapshot of network {found}, the genesis is of {expected}")]
    Network { expected: Network, found: Network },
    #[error("snapshot says it has {claimed} chains, the page at byte {offset} has another number")]
    Count { claimed: u32, offset: u64 },
    #[error("snapshot says its digest is {claimed}, what it holds has {found}")]
    Altered { claimed: Digest, found: Digest },
    #[error("block {height} certifies state {expected:?}, the snapshot is {found}")]
    NotCertified { height: u64, expected: Option<Digest>, found: Digest },
    #[error("snapshot of the end of round {found}, block {height} certifies that of another round")]
    OtherRound { height: u64, found: u64 },
}

/// Writes a state; it must be that of the end of a round to be of use to others.
///
/// # Errors
///
/// Those of the sink.
pub fn write(state: &mut State, mut sink: impl Write) -> io::Result<()> {
    let digest = state.seal();
    frame(&mut sink, &Sheet::of(state))?;
    for number in 0..state.meters().div_ceil(PAGE) {
        frame(&mut sink, &Page { state, number })?;
    }
    frame(&mut sink, &digest)?;
    sink.flush()
}

/// A state that was read: what it says hangs together, but who says so is not known yet.
#[derive(Debug)]
pub struct Snapshot {
    state: State,
    digest: Digest,
}

impl Snapshot {
    /// Reads a snapshot and computes its digest again.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], naming the byte where it is torn, or both digests if it is altered.
    pub fn read(genesis: &Arc<Genesis>, source: impl Read) -> Result<Self, SnapshotError> {
        Self::read_from(genesis, &mut Frames::new(source))
    }

    /// Reads a snapshot that has something before it.
    pub(crate) fn read_from(
        genesis: &Arc<Genesis>,
        reader: &mut Frames<impl Read>,
    ) -> Result<Self, SnapshotError> {
        let bytes = reader.next()?;
        let sheet: OwnedSheet = reader.decode("sheet of a snapshot", &bytes)?;
        let (expected, found) = (genesis.network(), sheet.network);
        if expected != found {
            return Err(SnapshotError::Network { expected, found });
        }
        let OwnedSheet { head, members, round, offences, chains, .. } = sheet;
        let mut state = State::of_parts(genesis.clone(), head, members, round, offences);
        while state.meters() < chains {
            let offset = reader.offset;
            let bytes = reader.next()?;
            let page: OwnedPage = reader.decode("page of a snapshot", &bytes)?;
            let wanted = (chains - state.meters()).min(PAGE) as usize;
            if page.0.len() != wanted {
                return Err(SnapshotError::Count { claimed: chains, offset });
            }
            for (chain, live) in page.0 {
                state.push_chain(chain, live);
            }
        }
        let bytes = reader.next()?;
        let claimed: Digest = reader.decode("digest of a snapshot", &bytes)?;
        let digest = state.seal();
        if claimed != digest {
            return Err(SnapshotError::Altered { claimed, found: digest });
        }
        state.seals.keep(digest);
        Ok(Self { state, digest })
    }

    /// The newest block of the state.
    pub const fn head(&self) -> Head {
        self.state.head()
    }

    /// Digest of the state.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The state, if a certified header of the round after it carries its digest.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotCertified`] or [`SnapshotError::OtherRound`].
    pub fn certified(self, header: &Certified) -> Result<State, SnapshotError> {
        let rounds = self.state.genesis().charter().rounds;
        let (height, expected) = (header.header().height, header.header().state);
        let found = rounds.of(self.state.head().height);
        if rounds.of(height) != found + 1 {
            return Err(SnapshotError::OtherRound { height, found });
        }
        if expected != Some(self.digest) {
            return Err(SnapshotError::NotCertified { height, expected, found: self.digest });
        }
        Ok(self.state)
    }

    /// The state, for whoever wrote the snapshot itself.
    pub fn of_own_disk(self) -> State {
        self.state
    }
}

/// Writes a length and that many bytes of CBOR.
pub(crate) fn frame(sink: &mut impl Write, value: &impl Encode<()>) -> io::Result<()> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    sink.write_all(&length.to_be_bytes())?;
    sink.write_all(&bytes)
}

/// Reads what [`frame`] writes.
pub(crate) struct Frames<R> {
    source: R,
    offset: u64,
}

impl<R: Read> Frames<R> {
    /// From the beginning.
    pub(crate) const fn new(source: R) -> Self {
        Self { source, offset: 0 }
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let offset = self.offset;
        let failed = |source| SnapshotError::Io { offset, source };
        let mut length = [0; 4];
        self.source.read_exact(&mut length).map_err(failed)?;
        let found = u32::from_be_bytes(length) as usize;
        if found > MAX_FRAME {
            return Err(SnapshotError::TooLong { offset, found, limit: MAX_FRAME });
        }
        // A length that lies costs what is there, not what it says.
        let mut bytes = Vec::new();
        self.source.by_ref().take(found as u64).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() < found {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset += 4 + found as u64;
        Ok(bytes)
    }

    /// Decodes the frame that was read last.
    pub(crate) fn decode<'b, T>(
        &self,
        what: &'static str,
        bytes: &'b [u8],
    ) -> Result<T, SnapshotError>
    where
        T: Decode<'b, ()> + Encode<()>,
    {
        let offset = self.offset - bytes.len() as u64;
        codec::decode(what, bytes).map_err(|source| SnapshotError::Malformed { offset, source })
    }
}

/// What a state holds beside its chains.
pub(crate) struct Sheet<'a> {
    network: Network,
    head: Head,
    members: &'a Members,
    round: &'a Round,
    offences: &'a BTreeSet<Offence>,
    chains: u32,
}

impl<'a> Sheet<'a> {
    /// The sheet of a state.
    pub(crate) fn of(state: &'a State) -> Self {
        Self {
            network: state.genesis.network(),
            head: state.head,
            members: &state.members,
            round: &state.round,
            offences: &state.offences,
            chains: state.meters(),
        }
    }
}

impl<C> Encode<C> for Sheet<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(9)?.u8(2)?.encode(self.network)?;
        encoder.u64(self.head.height)?.encode(self.head.id)?.encode(self.head.time)?;
        encoder.encode(self.members)?.encode(self.round)?.array(self.offences.len() as u64)?;
        for Offence { provider, epoch, view } in self.offences {
            encoder.array(3)?.encode(provider)?.u64(*epoch)?.u64(*view)?;
        }
        encoder.u32(self.chains)?.ok()
    }
}

/// A sheet as it is parsed.
struct OwnedSheet {
    network: Network,
    head: Head,
    members: Members,
    round: Round,
    offences: BTreeSet<Offence>,
    chains: u32,
}

impl<C> Encode<C> for OwnedSheet {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let Self { network, head, members, round, offences, chains } = self;
        let (network, head, chains) = (*network, *head, *chains);
        encoder.encode(Sheet { network, head, members, round, offences, chains })?.ok()
    }
}

impl<'b, C> Decode<'b, C> for OwnedSheet {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 9)?;
        codec::constant(decoder, 2)?;
        let network = decoder.decode()?;
        let head = Head { height: decoder.u64()?, id: decoder.decode()?, time: decoder.decode()? };
        let (members, round) = (decoder.decode()?, decoder.decode()?);
        let count = codec::array_of_at_most(decoder, MAX_MEMBERS * MAX_RECORDS)?;
        let offence = |_| {
            codec::array(decoder, 3)?;
            let provider = decoder.decode()?;
            Ok(Offence { provider, epoch: decoder.u64()?, view: decoder.u64()? })
        };
        let offences = (0..count).map(offence).collect::<Result<_, decode::Error>>()?;
        Ok(Self { network, head, members, round, offences, chains: decoder.u32()? })
    }
}

/// A page of a state's chains.
pub(crate) struct Page<'a> {
    pub(crate) state: &'a State,
    pub(crate) number: u32,
}

impl<C> Encode<C> for Page<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let first = (self.number * PAGE) as usize;
        let chains = self.state.registry.chains();
        let end = chains.len().min(first + PAGE as usize);
        let range = first.min(end)..end;
        encoder.array(range.len() as u64)?;
        for (chain, live) in chains[range.clone()].iter().zip(&self.state.live[range]) {
            encoder.encode(chain::Entry(chain, live))?;
        }
        Ok(())
    }
}

struct OwnedPage(Vec<(Chain, Live)>);

impl<C> Encode<C> for OwnedPage {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(self.0.len() as u64)?;
        for (chain, live) in &self.0 {
            encoder.encode(chain::Entry(chain, live))?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for OwnedPage {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let count = codec::array_of_at_most(decoder, PAGE as usize)?;
        (0..count).map(|_| chain::decode_entry(decoder)).collect::<Result<_, _>>().map(Self)
    }
}
