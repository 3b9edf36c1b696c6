//! Time-stamps: proof that a value entered the ledger at a ledger time (`T_s`; scheme s4.7).
//!
//! The paper's `T_s` is the word of one leader. Here it is a path from the value to a tree of a
//! final block's header, whose time is the stamp.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest, Header, LinkIndex, MeterId, ProviderId, TreeHead,
    codec::{self, Encoded},
    finality::Finality,
    merkle::{self, Path},
    root_message::Registration,
};

/// Place of a leaf in a tree of a final block: `[index, path, header, finality]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inclusion<'a> {
    /// Position of the leaf, from 0.
    pub index: u32,
    /// Siblings up to the root.
    pub path: Path,
    /// The block's header.
    pub header: Header,
    /// Why the block is final.
    pub finality: Finality<'a>,
}

impl Inclusion<'_> {
    /// Whether `leaf` is in `tree`, a tree of this header.
    pub fn contains(&self, tree: Option<TreeHead>, leaf: Digest) -> bool {
        tree.is_some_and(|tree| {
            let root = self.path.root(leaf, self.index.into(), tree.count.into());
            root == Some(tree.root)
        })
    }
}

impl<C> Encode<C> for Inclusion<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.u32(self.index)?.encode(&self.path)?;
        encoder.encode(&self.header)?.encode(self.finality)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Inclusion<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        Ok(Self {
            index: decoder.u32()?,
            path: decoder.decode()?,
            header: decoder.decode()?,
            finality: decoder.decode()?,
        })
    }
}

/// `T_s` of a request value: `[sp, q, inclusion]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timestamp<'a> {
    /// The SP that submitted the request.
    pub submitter: ProviderId,
    /// The stamped value `q`.
    pub value: Digest,
    /// Its place in the tree of accepted requests.
    pub inclusion: Inclusion<'a>,
}

impl Timestamp<'_> {
    /// Whether the value is stamped for this meter and link.
    pub fn holds(&self, meter: MeterId, index: LinkIndex) -> bool {
        let leaf = request_leaf(meter, index, self.submitter, &self.value);
        self.inclusion.contains(self.inclusion.header.requests, leaf)
    }
}

impl<C> Encode<C> for Timestamp<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.encode(self.submitter)?.encode(self.value)?.encode(&self.inclusion)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Timestamp<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        Ok(Self {
            submitter: decoder.decode()?,
            value: decoder.decode()?,
            inclusion: decoder.decode()?,
        })
    }
}

/// Proof of ledger time for a meter: `[36, header, finality]` (profile V of scheme s4.6).
///
/// Once a header is final, no block of an earlier time can be added any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimeProof<'a> {
    /// A header.
    pub header: Header,
    /// Why it is final.
    pub finality: Finality<'a>,
}

impl<C> Encode<C> for TimeProof<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.u8(36)?.encode(&self.header)?.encode(self.finality)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TimeProof<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        codec::constant(decoder, 36)?;
        Ok(Self { header: decoder.decode()?, finality: decoder.decode()? })
    }
}

/// Proof of registration for a meter: `[37, registration, inclusion]` (A29).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistrationProof<'a> {
    /// What is registered.
    pub registration: Registration,
    /// Where it is on the ledger.
    pub inclusion: Inclusion<'a>,
}

impl<C> Encode<C> for RegistrationProof<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.u8(37)?.encode(&self.registration)?.encode(&self.inclusion)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RegistrationProof<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        codec::constant(decoder, 37)?;
        Ok(Self { registration: decoder.decode()?, inclusion: decoder.decode()? })
    }
}

/// Leaf of an accepted request: `H(00 | cbor([mid, i, sp, q]))`.
pub fn request_leaf(
    meter: MeterId,
    index: LinkIndex,
    submitter: ProviderId,
    value: &Digest,
) -> Digest {
    merkle::leaf_of(&(meter, index, submitter, value))
}
