//! What a meter and its gateway exchange (`Sig_m`, `Trans`: Eq 8, 9, 10; Table 2).
//!
//! In slot `i` the meter sends a [`Submit`]; when the slot's window has closed on the ledger, a
//! [`Release`]. Gateways collect both into batches. The paper's `{T_s, C_i, M_r}` need not travel:
//! the ledger has them, or anybody can compute them.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest, Link, LinkIndex, MeterId,
    codec::{self, Encoded, MAX_BODY},
    merkle,
};

/// Step 1, meter to gateway: `[16, mid, i, q, body]` (Eq 8). The body travels along, so that the
/// owner can read at once and the meter need not keep it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Submit<'a> {
    /// The meter.
    pub meter: MeterId,
    /// The link of this slot.
    pub index: LinkIndex,
    /// `q`.
    pub value: Digest,
    /// The sealed body, encoded.
    pub body: &'a [u8],
}

impl<C> Encode<C> for Submit<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(16)?.encode(self.meter)?.encode(self.index)?;
        encoder.encode(self.value)?.bytes(self.body)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Submit<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 16)?;
        Ok(Self {
            meter: decoder.decode()?,
            index: decoder.decode()?,
            value: decoder.decode()?,
            body: codec::bytes_of_at_most(decoder, MAX_BODY)?,
        })
    }
}

/// Step 3, meter to gateway: `[17, mid, i, v_i]` (Eq 9, 10), once the window has closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Release {
    /// The meter.
    pub meter: MeterId,
    /// Which link.
    pub index: LinkIndex,
    /// The link, public from now on.
    pub link: Link,
}

impl<C> Encode<C> for Release {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.u8(17)?.encode(self.meter)?.encode(self.index)?.encode(&self.link)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Release {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        codec::constant(decoder, 17)?;
        Ok(Self { meter: decoder.decode()?, index: decoder.decode()?, link: decoder.decode()? })
    }
}

/// An accepted opening (`Sig_m` without what the ledger has): meter, link and the body's hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    /// The meter.
    pub meter: MeterId,
    /// Which link.
    pub index: LinkIndex,
    /// `v_i`.
    pub link: Link,
    /// `H(body)`: stays when the body is erased.
    pub body_hash: Digest,
}

/// Leaf in the tree of accepted openings: `H(00 | u32(mid) | u32(i) | q)`. The request value commits
/// to the chain, the link and the body: chains of one meter have the same links' numbers, and a
/// hostile owner may make them share a link.
pub fn opening_leaf(meter: MeterId, index: LinkIndex, value: &Digest) -> Digest {
    merkle::leaf(&[&meter.0.to_be_bytes(), &index.get().to_be_bytes(), &value.0])
}
