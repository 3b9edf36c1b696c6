//! A meter's chain as the ledger keeps it: what of its registration the rules need, and what
//! changes from block to block.
//!
//! Of `M_r` the state leaves out what no later rule reads: `v_0`, which is the first link to be
//! opened from, and `r` and the SDI, which receipts take from the block of the registration. `mr`
//! commits to all of them.

use std::{ops::Range, sync::Arc};

use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, RootMessage, Salt,
    codec::{self, Encoded},
    hash_chain,
    slot::Schedule,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    activity::Until,
    genesis,
    members::{MAX_MEMBERS, list},
};

/// Most pending requests of a chain: those of all gateways there ever were.
const MAX_PENDING: usize = genesis::MAX_PENDING as usize * MAX_MEMBERS;

/// What does not change about a registered chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// `mr`.
    pub id: Digest,
    /// The meter.
    pub meter: MeterId,
    /// Its owner SP.
    pub owner: ProviderId,
    /// Salt of the chain.
    pub salt: Salt,
    /// Its slots.
    pub schedule: Schedule,
    /// The device.
    pub device: Digest,
    /// Whoever shows what is behind it revokes the meter.
    pub revocation_lock: Option<Digest>,
}

/// What changes about a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Live {
    /// Index of the newest opened link, 0 for `v_0`.
    pub last_index: u32,
    /// The newest opened link.
    pub last_link: Link,
    /// Until when the meter counts, in its newest chain; 0 in others, and where votes do not weigh by
    /// meters.
    pub counts_until: Until,
    /// Whether and when the chain ends before its last slot.
    pub end: Option<End>,
    /// Accepted requests that are not opened, by ascending slot, since at any time those of one slot
    /// alone are accepted; no longer than it has to be. Those of a slot go when
    /// one of them is opened. Those that can no longer be opened stay until another request of the
    /// chain is accepted, and go then.
    pub pending: Arc<[Pending]>,
}

/// Why a chain takes no more requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Another chain of the same meter begins then: slots up to there are this one's.
    Replaced(LedgerTime),
    /// It was revoked in a block of this time.
    Revoked(LedgerTime),
}

/// An accepted request that waits for its opening.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pending {
    /// Its link.
    pub index: LinkIndex,
    /// The gateway that submitted it.
    pub submitter: ProviderId,
    /// `q`.
    pub value: Digest,
}

impl Chain {
    /// The chain of a root message with this id.
    pub fn new(message: &RootMessage, id: Digest) -> Self {
        let RootMessage { meter, owner, schedule, device, revocation_lock, .. } = *message;
        let salt = message.salt();
        Self { id, meter, owner, salt, schedule, device, revocation_lock }
    }
}

impl Live {
    /// A chain that nothing has happened to.
    pub(crate) fn new(message: &RootMessage) -> Self {
        let last_link = message.anchor.clone();
        Self { last_index: 0, last_link, counts_until: 0, end: None, pending: Arc::default() }
    }

    /// This chain once `link` has opened its slot; `None` if the link is not of the chain.
    pub(crate) fn open(&self, salt: Salt, index: LinkIndex, link: &Link) -> Option<Self> {
        let newest = index.get() > self.last_index;
        let (from, upper, to, lower) = if newest {
            (index.get(), link, self.last_index, &self.last_link)
        } else {
            (self.last_index, &self.last_link, index.get(), link)
        };
        if hash_chain::walk(salt, from, to, upper) != *lower {
            return None;
        }
        let Range { start, end } = self.place_of(index);
        let others = self.pending[..start].iter().chain(&self.pending[end..]);
        Some(Self {
            last_index: from,
            last_link: upper.clone(),
            counts_until: self.counts_until,
            end: self.end,
            pending: others.copied().collect(),
        })
    }

    /// The requests of a slot that wait for its opening.
    pub fn pending_of(&self, index: LinkIndex) -> &[Pending] {
        &self.pending[self.place_of(index)]
    }

    /// The requests from this link on that wait for their openings.
    pub fn pending_from(&self, least: u32) -> &[Pending] {
        let start = self.pending.partition_point(|pending| pending.index.get() < least);
        &self.pending[start..]
    }

    fn place_of(&self, index: LinkIndex) -> Range<usize> {
        let start = self.pending.partition_point(|pending| pending.index < index);
        let length = self.pending[start..].partition_point(|pending| pending.index == index);
        start..start + length
    }

    /// Steps that are walked to open a link, from the newest that is opened or to it.
    pub const fn steps(&self, index: LinkIndex) -> u32 {
        index.get().abs_diff(self.last_index)
    }

    /// When the last slot ends that this chain has requested: the next chain begins no earlier.
    pub fn requested_until(&self, schedule: &Schedule) -> LedgerTime {
        let opened = LinkIndex::new(self.last_index, schedule.slots);
        let pending = self.pending.last().map(|pending| pending.index);
        let ends = opened.into_iter().chain(pending).map(|index| schedule.ends(index));
        ends.max().unwrap_or(LedgerTime(0))
    }

    /// Whether the chain still has a slot.
    pub fn has(&self, schedule: &Schedule, index: LinkIndex) -> bool {
        match self.end {
            None => true,
            Some(End::Revoked(_)) => false,
            Some(End::Replaced(then)) => schedule.ends(index) <= then,
        }
    }
}

/// A chain of a snapshot's page:
/// `[mr, mid, sp, salt, g_0, L, n, W, device, lock, i_last, v_last, until, end, pending]`.
pub(crate) struct Entry<'a>(pub(crate) &'a Chain, pub(crate) &'a Live);

impl<C> Encode<C> for Entry<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let Self(chain, live) = self;
        encoder.array(15)?.encode(chain.id)?.encode(chain.meter)?.encode(chain.owner)?;
        encoder.encode(chain.salt)?;
        chain.schedule.encode_fields(encoder)?;
        encoder.encode(chain.device)?.encode(chain.revocation_lock)?;
        encoder.u32(live.last_index)?.bytes(live.last_link.as_bytes())?.u32(live.counts_until)?;
        match live.end {
            None => encoder.null()?,
            Some(End::Replaced(time)) => encoder.array(2)?.u8(0)?.encode(time)?,
            Some(End::Revoked(time)) => encoder.array(2)?.u8(1)?.encode(time)?,
        };
        encoder.array(live.pending.len() as u64)?;
        for pending in &*live.pending {
            encoder.encode(pending)?;
        }
        Ok(())
    }
}

/// Decodes an [`Entry`].
pub(crate) fn decode_entry(decoder: &mut Decoder<'_>) -> Result<(Chain, Live), decode::Error> {
    codec::array(decoder, 15)?;
    let (id, meter, owner) = (decoder.decode()?, decoder.decode()?, decoder.decode()?);
    let (salt, schedule) = (decoder.decode()?, Schedule::decode_fields(decoder)?);
    let device = decoder.decode()?;
    let revocation_lock = codec::optional(decoder, Decoder::decode)?;
    let chain = Chain { id, meter, owner, salt, schedule, device, revocation_lock };
    let (last_index, last_link) = (decoder.u32()?, Link::from_bytes(codec::bytes(decoder)?));
    let (counts_until, end) = (decoder.u32()?, codec::optional(decoder, decode_end)?);
    let at = decoder.position();
    let pending: Vec<Pending> = list(decoder, MAX_PENDING)?;
    if !pending.is_sorted_by_key(|pending| pending.index) {
        return Err(decode::Error::message("requests that wait are not by ascending slot").at(at));
    }
    Ok((chain, Live { last_index, last_link, counts_until, end, pending: pending.into() }))
}

fn decode_end(decoder: &mut Decoder<'_>) -> Result<End, decode::Error> {
    codec::array(decoder, 2)?;
    let at = decoder.position();
    let kind = decoder.u8()?;
    let time: LedgerTime = decoder.decode()?;
    match kind {
        0 => Ok(End::Replaced(time)),
        1 => Ok(End::Revoked(time)),
        _ => Err(decode::Error::message("unknown end of a chain").at(at)),
    }
}

impl<C> Encode<C> for Pending {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.encode(self.index)?.encode(self.submitter)?.encode(self.value)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Pending {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        Ok(Self {
            index: decoder.decode()?,
            submitter: decoder.decode()?,
            value: decoder.decode()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_takes_the_memory_that_the_documents_state() {
        let waiting = size_of::<Pending>();
        assert_eq!((size_of::<Chain>(), size_of::<Live>(), waiting), (144, 72, 40));
    }
}
