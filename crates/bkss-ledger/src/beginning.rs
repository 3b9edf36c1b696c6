//! Where a node begins if not at the genesis: the end of a round.
//!
//! A beginning is a state and the boundary block under it, the last of its round, which the next
//! round builds on. On a node's own disk it is a frame with the [`Boundary`] and then a snapshot. To
//! others it goes with a frame before these: a header of the end of the next round and why it is
//! final. That header has the digest of the state, so a late joiner takes the state from anybody and
//! believes nobody but the committees that its genesis file leads to.

use std::{
    io::{self, Read, Write},
    slice,
    sync::Arc,
};

use bkss_scheme::{
    Committee, Digest, Era, Eras, Header,
    certificate::NotFinal,
    codec::{self, Encoded},
    finality::Finality,
    timestamp::TimeProof,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Genesis, Snapshot, State, Trust,
    snapshot::{Frames, SnapshotError, frame},
};

/// The last block of a round and why it is final: `[39, Header, Finality, [+ vote key]]`. The
/// certificate is the block's own, by the committee that stands behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Boundary<'a> {
    /// The block's header.
    pub header: Header,
    /// Why it is final.
    pub finality: Finality<'a>,
    /// The committee of its round.
    pub committee: Committee,
}

/// Why a file is not where a node can begin.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum BeginningError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("block {height}: {source}; an older genesis file does not know its committee")]
    NotFinal { height: u64, source: NotFinal },
    #[error("block {height} has no certificate of its own")]
    NoCertificate { height: u64 },
    #[error("block {height} is not the last of a round")]
    NotBoundary { height: u64 },
    #[error("block {height} is {found}, the state was reached with {expected}")]
    OtherBlock { height: u64, expected: Digest, found: Digest },
}

/// A state that a node may begin with, and the boundary block under it.
pub struct Beginning {
    state: State,
    digest: Digest,
    boundary: Vec<u8>,
}

impl Beginning {
    /// Reads a beginning that somebody else has handed out, with the proof before it.
    ///
    /// # Errors
    ///
    /// [`BeginningError`], naming the first thing that does not hold.
    pub fn read(trust: &Trust, source: impl Read) -> Result<Self, BeginningError> {
        let genesis = Arc::new(trust.genesis().clone());
        let mut frames = Frames::new(source);
        let bytes = frames.next()?;
        let proof: TimeProof<'_> = frames.decode("proof of a snapshot", &bytes)?;
        let TimeProof { header, finality } = &proof;
        let height = header.height;
        let certified = trust
            .eras()
            .certified(finality, header)
            .map_err(|source| BeginningError::NotFinal { height, source })?;
        let (boundary, snapshot) = read_own(&genesis, &mut frames)?;
        let digest = snapshot.digest();
        let beginning = Self { state: snapshot.certified(&certified)?, digest, boundary };
        let Boundary { header, finality, committee } = beginning.boundary();
        let not_final = |source| BeginningError::NotFinal { height: header.height, source };
        let era = trust.eras().of(finality.certificate.epoch).map_err(not_final)?;
        let (expected, found) = (era.committee.digest(), committee.digest());
        if expected != found {
            return Err(not_final(NotFinal::Committee { expected, found }));
        }
        trust.eras().certified(&finality, &header).map_err(not_final)?;
        Ok(beginning)
    }

    /// Reads a beginning that this node has written itself. That it hangs together is checked.
    ///
    /// # Errors
    ///
    /// [`BeginningError`], naming the first thing that does not hold.
    pub fn of_own_disk(genesis: &Arc<Genesis>, source: impl Read) -> Result<Self, BeginningError> {
        let (boundary, snapshot) = read_own(genesis, &mut Frames::new(source))?;
        let digest = snapshot.digest();
        Ok(Self { state: snapshot.of_own_disk(), digest, boundary })
    }

    /// The state.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Digest of the state.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The boundary block.
    ///
    /// # Panics
    ///
    /// Never: it was decoded before.
    pub fn boundary(&self) -> Boundary<'_> {
        codec::decode("boundary block", &self.boundary).expect("it was decoded before")
    }

    /// The state, for good.
    pub fn into_state(self) -> State {
        self.state
    }
}

/// Writes what stands before a snapshot on a node's own disk.
///
/// # Errors
///
/// Those of the sink.
pub fn write_boundary(boundary: &Boundary<'_>, mut sink: impl Write) -> io::Result<()> {
    frame(&mut sink, boundary)
}

/// Writes what stands before that if it goes to others.
///
/// # Errors
///
/// Those of the sink.
pub fn write_proof(proof: &TimeProof<'_>, mut sink: impl Write) -> io::Result<()> {
    frame(&mut sink, proof)
}

/// Boundary and snapshot, checked against each other and the boundary's own committee.
fn read_own(
    genesis: &Arc<Genesis>,
    frames: &mut Frames<impl Read>,
) -> Result<(Vec<u8>, Snapshot), BeginningError> {
    let bytes = frames.next()?;
    let boundary: Boundary<'_> = frames.decode("boundary block", &bytes)?;
    let Boundary { header, finality, committee } = &boundary;
    let height = header.height;
    if !finality.descendants.is_empty() {
        return Err(BeginningError::NoCertificate { height });
    }
    if !genesis.charter().rounds.ends(height) {
        return Err(BeginningError::NotBoundary { height });
    }
    let rounds = genesis.charter().rounds.length();
    let era = Era::new(rounds.of(height), committee.clone());
    Eras { network: genesis.network(), rounds, eras: slice::from_ref(&era) }
        .certified(finality, header)
        .map_err(|source| BeginningError::NotFinal { height, source })?;
    let snapshot = Snapshot::read_from(genesis, frames)?;
    let (expected, found) = (snapshot.head().id, header.id());
    if expected != found {
        return Err(BeginningError::OtherBlock { height, expected, found });
    }
    Ok((bytes, snapshot))
}

impl<C> Encode<C> for Boundary<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.u8(39)?.encode(&self.header)?.encode(self.finality)?;
        encoder.encode(&self.committee)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Boundary<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        codec::constant(decoder, 39)?;
        Ok(Self {
            header: decoder.decode()?,
            finality: decoder.decode()?,
            committee: decoder.decode()?,
        })
    }
}
