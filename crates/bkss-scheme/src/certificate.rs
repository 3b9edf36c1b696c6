//! Finality certificates of the consensus engine, checked without the engine.
//!
//! The paper's `Committed` is one unsigned message of the leader. Here a block is final when a
//! quorum of the committee has signed to finalize it; the votes (ed25519) and their layout are the
//! engine's (simplex). Signatures are accepted by the rule of ZIP 215, the engine's, under which
//! checking one by one and in batches always agree.

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_zebra::{Signature, SigningKey, VerificationKey, VerificationKeyBytes};
use heapless::Vec;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest, LedgerTime, Network, ProviderId,
    codec::{self, Encoded, Malformed, byte_string},
    identity::signed_digest,
    merkle,
};

/// Most members of a committee.
pub const MAX_COMMITTEE: usize = 32;

const NAMESPACE: &[u8] = b"_BKSS";
const NOTARIZE: &[u8] = b"_NOTARIZE";
const NULLIFY: &[u8] = b"_NULLIFY";
const FINALIZE: &[u8] = b"_FINALIZE";

/// Ed25519 public key with which a committee member signs votes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct VoteKey(pub [u8; 32]);
byte_string!(VoteKey, 32);

impl VoteKey {
    /// Whether the bytes are a key that a secret key belongs to: the canonical spelling of a point of
    /// the prime-order group other than its neutral element.
    ///
    /// Everybody can sign for a key of small order, and the rule of ZIP 215 accepts it; no such key
    /// may become a member's.
    pub fn is_point(&self) -> bool {
        let spelling = CompressedEdwardsY(self.0);
        spelling.decompress().is_some_and(|point| {
            point.compress() == spelling && !point.is_small_order() && point.is_torsion_free()
        })
    }
}

/// The signature of a vote key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VoteSignature(pub [u8; 64]);
byte_string!(VoteSignature, 64);

/// What a vote key signs to show that its provider has it: `"_BKSS vote key" | signed digest of
/// [21, sp, key]`. No vote begins like it.
pub fn possession_message(network: Network, provider: ProviderId, key: &VoteKey) -> [u8; 46] {
    let digest = signed_digest(network, &(21_u8, provider, key));
    let mut message = [0; 46];
    message[..14].copy_from_slice(b"_BKSS vote key");
    message[14..].copy_from_slice(&digest.0);
    message
}

/// A vote key, and its signature that it is a provider's.
pub fn possess(
    secret: &[u8; 32],
    network: Network,
    provider: ProviderId,
) -> (VoteKey, VoteSignature) {
    let secret = SigningKey::from(*secret);
    let key = VoteKey(VerificationKeyBytes::from(&secret).into());
    let signature = secret.sign(&possession_message(network, provider, &key));
    (key, VoteSignature(signature.into()))
}

/// The namespace of all votes of a network: `"_BKSS" | net`, 21 bytes.
pub fn vote_namespace(network: Network) -> [u8; 21] {
    let mut namespace = [0; 21];
    namespace[..5].copy_from_slice(NAMESPACE);
    namespace[5..].copy_from_slice(&network.0);
    namespace
}

/// The vote keys that decide, in the engine's order: ascending bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Committee(Vec<VoteKey, MAX_COMMITTEE>);

impl Committee {
    /// Sorts the keys; `None` if there are none, more than 32, or one twice.
    pub fn new(keys: impl IntoIterator<Item = VoteKey>) -> Option<Self> {
        let mut members = Vec::<VoteKey, MAX_COMMITTEE>::new();
        for key in keys {
            members.push(key).ok()?;
        }
        members.sort_unstable();
        let distinct = members.windows(2).all(|pair| pair[0] != pair[1]);
        (!members.is_empty() && distinct).then_some(Self(members))
    }

    /// The keys, ascending.
    pub fn keys(&self) -> &[VoteKey] {
        &self.0
    }

    /// Votes that decide: `floor(2N/3) + 1`, leader included. Two quorums share an honest member
    /// for every N; the paper's `2f + 1` does so only for `N = 3f + 1`.
    pub fn quorum(&self) -> usize {
        2 * self.0.len() / 3 + 1
    }

    /// What a header commits to: root of the tree over the keys.
    pub fn digest(&self) -> Digest {
        let mut builder = merkle::RootBuilder::default();
        for key in &self.0 {
            builder.push(merkle::leaf_of(key));
        }
        builder.root().unwrap_or(Digest::ZERO)
    }
}

impl<C> Encode<C> for Committee {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.encode(self.keys())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Committee {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = decoder.position();
        let count = codec::array_of_at_most(decoder, MAX_COMMITTEE)?;
        let mut keys = Vec::<VoteKey, MAX_COMMITTEE>::new();
        for _ in 0..count {
            // The count is bounded by the capacity.
            let _ = keys.push(decoder.decode()?);
        }
        let ascending = keys.windows(2).all(|pair| pair[0] < pair[1]);
        Self::new(keys)
            .filter(|_| ascending)
            .ok_or_else(|| decode::Error::message("not a committee by ascending keys").at(at))
    }
}

/// A quorum's signatures on one block: `[epoch, view, parent view, signers, signatures]`.
///
/// The block id they sign is not part of it; it follows from the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Certificate<'a> {
    /// The engine's epoch: a round of Algorithm 3.
    pub epoch: u64,
    /// The view in which the block was proposed.
    pub view: u64,
    /// The view of its parent.
    pub parent_view: u64,
    /// Bit k is set if member k of the committee signed.
    pub signers: u32,
    /// The signatures, 64 bytes each, in the order of the members.
    pub signatures: &'a [u8],
}

impl<C> Encode<C> for Certificate<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u64(self.epoch)?.u64(self.view)?.u64(self.parent_view)?;
        encoder.u32(self.signers)?.bytes(self.signatures)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Certificate<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        Ok(Self {
            epoch: decoder.u64()?,
            view: decoder.u64()?,
            parent_view: decoder.u64()?,
            signers: decoder.u32()?,
            signatures: codec::bytes_of_at_most(decoder, 64 * MAX_COMMITTEE)?,
        })
    }
}

/// Why a block does not count as final.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum NotFinal {
    /// The header names another committee than the one that is trusted.
    #[error("header names committee {found}, expected {expected}")]
    Committee { expected: Digest, found: Digest },
    /// The certificate is of an epoch that no known committee was in office in.
    #[error("certificate of epoch {found}, no committee is known before epoch {first}")]
    Epoch { first: u64, found: u64 },
    /// A block, or one between it and the certified one, is not of the certificate's round: a
    /// committee certifies the blocks of each of its rounds in that round.
    #[error("block {height} is of round {expected}, its certificate of round {found}")]
    Round { height: u64, expected: u64, found: u64 },
    /// The block comes after the last one of its committee.
    #[error(
        "block {height} of {time} ms, the last one of its committee is {last_height} of {last_time} ms"
    )]
    AfterEra { height: u64, time: LedgerTime, last_height: u64, last_time: LedgerTime },
    /// Fewer signatures than a quorum.
    #[error("{found} signatures, a quorum is {expected}")]
    Quorum { expected: usize, found: usize },
    /// Signer bits and signatures do not match each other or the committee.
    #[error("signers {signers:#b} do not match {signatures} bytes of signatures")]
    Signers { signers: u32, signatures: usize },
    /// A signature is not that member's on this block.
    #[error("signature of member {member} does not hold for block {block}")]
    Signature { member: usize, block: Digest },
    /// A header between the block and the certified one does not follow its predecessor.
    #[error("header {height} does not follow the one before")]
    Unlinked { height: u64 },
    /// What stands between the block and the certified one is no header.
    #[error("descendants: not a header at byte {0}")]
    NoHeader(usize),
}

impl<'a> Certificate<'a> {
    /// Parses the engine's own bytes of a finalization: proposal, then signers and signatures.
    /// Returns the certificate and the id of the block it is for.
    ///
    /// # Errors
    ///
    /// [`Malformed`] with the offset, also if it is of a committee of another size.
    pub fn from_engine(
        bytes: &'a [u8],
        committee: &Committee,
    ) -> Result<(Self, Digest), Malformed> {
        let mut reader = EngineReader { bytes, offset: 0 };
        let (epoch, view, parent_view) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let block = Digest(*reader.array()?);
        let members = u64::from_be_bytes(*reader.array()?);
        let mut signers = 0;
        if members != committee.keys().len() as u64 {
            return Err(reader.malformed("a committee of another size"));
        }
        for byte in 0..members.div_ceil(8) {
            let [bits] = *reader.array()?;
            signers |= u32::from(bits) << (8 * byte);
        }
        let count = reader.varint()?;
        let signatures = &bytes[reader.offset..];
        if count > members || signatures.len() as u64 != 64 * count {
            return Err(reader.malformed("signatures of another length"));
        }
        Ok((Self { epoch, view, parent_view, signers, signatures }, block))
    }

    /// Checks that a quorum of the committee signed to finalize `block`.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], naming the first thing that does not hold.
    pub fn verify(
        &self,
        network: Network,
        committee: &Committee,
        block: Digest,
    ) -> Result<(), NotFinal> {
        let (signatures, rest) = self.signatures.as_chunks::<64>();
        let mismatch =
            NotFinal::Signers { signers: self.signers, signatures: self.signatures.len() };
        let known = u64::from(self.signers) >> committee.keys().len() == 0;
        if !rest.is_empty() || !known || self.signers.count_ones() as usize != signatures.len() {
            return Err(mismatch);
        }
        let quorum = committee.quorum();
        if signatures.len() < quorum {
            return Err(NotFinal::Quorum { expected: quorum, found: signatures.len() });
        }
        let message = self.message(network, block).ok_or(mismatch)?;
        let members = (0..committee.keys().len()).filter(|k| self.signers >> k & 1 == 1);
        for (member, signature) in members.zip(signatures) {
            let holds = accepts(&committee.keys()[member], &message, signature);
            if !holds {
                return Err(NotFinal::Signature { member, block });
            }
        }
        Ok(())
    }

    /// What a finalize vote for this block signs.
    fn message(&self, network: Network, block: Digest) -> Option<Vec<u8, 128>> {
        let Self { epoch, view, parent_view, .. } = *self;
        VoteContent::Finalize { parent_view, block }.message(network, epoch, view)
    }
}

/// What a vote of the engine says about a view.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VoteContent {
    /// The block follows by the rules (the paper's `Validated`).
    Notarize {
        /// The view of its parent.
        parent_view: u64,
        /// Its id.
        block: Digest,
    },
    /// The view shall end without a block.
    Nullify,
    /// The block is notarized, and the voter has not voted to end the view.
    Finalize {
        /// The view of its parent.
        parent_view: u64,
        /// Its id.
        block: Digest,
    },
}

impl VoteContent {
    /// What a vote signs: the namespace with its length before it, then epoch, view and, unless the
    /// view is to end, parent view and block; `None` never, the bytes fit.
    pub fn message(&self, network: Network, epoch: u64, view: u64) -> Option<Vec<u8, 128>> {
        let (suffix, proposal) = match self {
            Self::Notarize { parent_view, block } => (NOTARIZE, Some((parent_view, block))),
            Self::Nullify => (NULLIFY, None),
            Self::Finalize { parent_view, block } => (FINALIZE, Some((parent_view, block))),
        };
        let namespace = vote_namespace(network);
        let mut message = Vec::new();
        push_varint(&mut message, (namespace.len() + suffix.len()) as u64)?;
        message.extend_from_slice(&namespace).ok()?;
        message.extend_from_slice(suffix).ok()?;
        push_varint(&mut message, epoch)?;
        push_varint(&mut message, view)?;
        if let Some((parent_view, block)) = proposal {
            push_varint(&mut message, *parent_view)?;
            message.extend_from_slice(&block.0).ok()?;
        }
        Some(message)
    }
}

/// Whether a signature is accepted by the rule of ZIP 215.
pub fn accepts(key: &VoteKey, message: &[u8], signature: &[u8; 64]) -> bool {
    VerificationKey::try_from(key.0)
        .and_then(|key| key.verify(&Signature::from_bytes(signature), message))
        .is_ok()
}

/// Reads the engine's encoding: big-endian numbers and little-endian base-128 varints.
struct EngineReader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> EngineReader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (array, _) = self.bytes[self.offset..]
            .split_first_chunk()
            .ok_or_else(|| self.malformed("ends too early"))?;
        self.offset += N;
        Ok(array)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.array()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed("not a canonical varint of 64 bits"))
    }

    fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed::Shape {
            what: "finalization",
            reason: reason.into(),
            offset: self.offset,
            length: self.bytes.len(),
        }
    }
}

fn push_varint<const N: usize>(message: &mut Vec<u8, N>, number: u64) -> Option<()> {
    let mut rest = number;
    loop {
        let bits = (rest & 0x7F) as u8;
        rest >>= 7;
        message.push(if rest == 0 { bits } else { bits | 0x80 }).ok()?;
        if rest == 0 {
            return Some(());
        }
    }
}
