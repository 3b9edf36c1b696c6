//! Block header (Table 3): what a block's identity is made of.
//!
//! `[1, height, prev, t, committee, next, members, state, txs, requests, openings]`. Inclusion
//! proves acceptance: beside the tree over its transactions a header commits to the requests and to
//! the openings that the block accepted, each in a tree of its own, so that whoever proves against
//! those proves that the ledger's rules held. An empty tree is `null`.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest, LedgerTime,
    codec::{self, Encoded},
    hash::{Hasher, Tag},
};

/// Size and root of a non-empty tree. The size is committed, so that a proof has one reading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TreeHead {
    /// Number of leaves, at least 1.
    pub count: u32,
    /// Root of the RFC 9162 tree.
    pub root: Digest,
}

impl<C> Encode<C> for TreeHead {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(2)?.u32(self.count)?.encode(self.root)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TreeHead {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        let at = decoder.position();
        let count = decoder.u32()?;
        if count == 0 {
            return Err(decode::Error::message("an empty tree is null").at(at));
        }
        Ok(Self { count, root: decoder.decode()? })
    }
}

/// Header of a block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// Number of the block; 0 is genesis.
    pub height: u64,
    /// Id of the block before, the genesis digest at height 0 (Previous Block Hash).
    pub previous: Digest,
    /// Ledger time, strictly increasing (Timestamp).
    pub time: LedgerTime,
    /// Digest of the committee that certifies this block.
    pub committee: Digest,
    /// Digest of the committee from the next block on, if another: only at the end of a round.
    pub next_committee: Option<Digest>,
    /// Digest of the providers and SDIs from the next block on, if this block changes them.
    pub members: Option<Digest>,
    /// At the end of a round, digest of the ledger's state at the end of the round before.
    pub state: Option<Digest>,
    /// All transactions in order (Merkle Tree Root).
    pub transactions: Option<TreeHead>,
    /// Requests accepted in this block.
    pub requests: Option<TreeHead>,
    /// Openings accepted in this block.
    pub openings: Option<TreeHead>,
}

impl Header {
    /// Block id, `H(0B | cbor(header))`: what votes and certificates name.
    pub fn id(&self) -> Digest {
        let mut hasher = Hasher::new(Tag::Block);
        codec::encode_infallible(self, &mut hasher);
        hasher.finish()
    }
}

impl<C> Encode<C> for Header {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(11)?.u8(1)?.u64(self.height)?.encode(self.previous)?.encode(self.time)?;
        encoder.encode(self.committee)?.encode(self.next_committee)?;
        encoder.encode(self.members)?.encode(self.state)?;
        encoder.encode(self.transactions)?.encode(self.requests)?.encode(self.openings)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Header {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 11)?;
        codec::constant(decoder, 1)?;
        Ok(Self {
            height: decoder.u64()?,
            previous: decoder.decode()?,
            time: decoder.decode()?,
            committee: decoder.decode()?,
            next_committee: codec::optional(decoder, Decoder::decode)?,
            members: codec::optional(decoder, Decoder::decode)?,
            state: codec::optional(decoder, Decoder::decode)?,
            transactions: codec::optional(decoder, Decoder::decode)?,
            requests: codec::optional(decoder, Decoder::decode)?,
            openings: codec::optional(decoder, Decoder::decode)?,
        })
    }
}
