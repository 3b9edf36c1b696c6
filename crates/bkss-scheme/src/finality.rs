//! Which blocks are final, and by whom (scheme s4.5 L4).
//!
//! A block may have no certificate of its own: it is final as well when a descendant is. A proof
//! then carries the headers from the block to the certified one.

use core::num::NonZeroU32;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Certificate, Committee, Header, LedgerTime, Network,
    certificate::NotFinal,
    codec::{self, Encoded},
};

/// Most bytes of headers between a block and the certified descendant: those of a round of 300
/// blocks, and some.
pub const MAX_DESCENDANTS: usize = 128 * 1024;

/// How many blocks a round has: round r is heights `r * blocks` to `(r + 1) * blocks - 1`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoundLength(NonZeroU32);

impl RoundLength {
    /// So many blocks, at least one.
    pub const fn new(blocks: u32) -> Self {
        match NonZeroU32::new(blocks) {
            Some(blocks) => Self(blocks),
            None => Self(NonZeroU32::MIN),
        }
    }

    /// The blocks of a round.
    pub const fn blocks(self) -> u32 {
        self.0.get()
    }

    /// The round of a height: the engine's epoch.
    pub const fn of(self, height: u64) -> u64 {
        height / self.0.get() as u64
    }

    /// Whether a block ends its round.
    pub const fn ends(self, height: u64) -> bool {
        height % self.0.get() as u64 == self.0.get() as u64 - 1
    }
}

/// A committee and the rounds whose blocks it certifies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Era {
    /// Its first epoch.
    pub from_epoch: u64,
    /// The committee.
    pub committee: Committee,
    /// Its last block, once a handover to another committee is known.
    pub end: Option<EraEnd>,
}

/// The block with which a committee hands over to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EraEnd {
    /// Its height.
    pub height: u64,
    /// Its time.
    pub time: LedgerTime,
}

impl Era {
    /// An era that has not ended, as far as is known.
    pub const fn new(from_epoch: u64, committee: Committee) -> Self {
        Self { from_epoch, committee, end: None }
    }

    /// Checks that this committee may certify a block in an epoch.
    fn covers(&self, rounds: RoundLength, epoch: u64, header: &Header) -> Result<(), NotFinal> {
        let (height, time) = (header.height, header.time);
        let expected = rounds.of(height);
        if expected != epoch {
            return Err(NotFinal::Round { height, expected, found: epoch });
        }
        if epoch < self.from_epoch {
            return Err(NotFinal::Epoch { first: self.from_epoch, found: epoch });
        }
        match self.end {
            Some(end) if height > end.height || time > end.time => Err(NotFinal::AfterEra {
                height,
                time,
                last_height: end.height,
                last_time: end.time,
            }),
            _ => Ok(()),
        }
    }
}

/// Who certifies the blocks of a network: what makes a header final, for receipts, meters, handovers
/// and auditors alike.
#[derive(Clone, Copy, Debug)]
pub struct Eras<'a> {
    /// The network.
    pub network: Network,
    /// How long its rounds are.
    pub rounds: RoundLength,
    /// The committees as far as they are known, oldest first.
    pub eras: &'a [Era],
}

impl<'a> Eras<'a> {
    /// The era of an epoch.
    ///
    /// # Errors
    ///
    /// [`NotFinal::Epoch`] if all of them are later.
    pub fn of(&self, epoch: u64) -> Result<&'a Era, NotFinal> {
        let known = self.eras.iter().rev().find(|era| era.from_epoch <= epoch);
        let first = self.eras.first().map_or(u64::MAX, |era| era.from_epoch);
        known.ok_or(NotFinal::Epoch { first, found: epoch })
    }

    /// Checks that `header` is final: every block from it to the certified one is of the
    /// certificate's round and not behind the end of its era, and a quorum of the era's committee
    /// has signed.
    ///
    /// The last block of a round has no successor in its round, so its certificate is its own.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], naming the first thing that does not hold.
    pub fn certified(
        &self,
        finality: &Finality<'_>,
        header: &Header,
    ) -> Result<Certified, NotFinal> {
        let Finality { descendants, certificate } = finality;
        let era = self.of(certificate.epoch)?;
        let expected = era.committee.digest();
        let mut last = header.clone();
        let mut id = last.id();
        let mut rest = *descendants;
        loop {
            era.covers(self.rounds, certificate.epoch, &last)?;
            if last.committee != expected {
                return Err(NotFinal::Committee { expected, found: last.committee });
            }
            if rest.is_empty() {
                break;
            }
            let offset = descendants.len() - rest.len();
            let next: Header =
                codec::decode_first("header", &mut rest).map_err(|_| NotFinal::NoHeader(offset))?;
            let follows = last.height.checked_add(1) == Some(next.height);
            if next.previous != id || !follows || next.time <= last.time {
                return Err(NotFinal::Unlinked { height: next.height });
            }
            id = next.id();
            last = next;
        }
        certificate.verify(self.network, &era.committee, id)?;
        Ok(Certified(header.clone()))
    }
}

/// How a block is final: the headers from its successor to the certified block, if it has no
/// certificate of its own, and the certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finality<'a> {
    /// A CBOR sequence of headers, usually empty.
    pub descendants: &'a [u8],
    /// Certificate of the last of them, or of the block itself.
    pub certificate: Certificate<'a>,
}

impl<C> Encode<C> for Finality<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(2)?.bytes(self.descendants)?.encode(self.certificate)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Finality<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        Ok(Self {
            descendants: codec::bytes_of_at_most(decoder, MAX_DESCENDANTS)?,
            certificate: decoder.decode()?,
        })
    }
}

/// A header that a quorum made final. Only [`Eras::certified`] makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certified(Header);

impl Certified {
    /// The header.
    pub const fn header(&self) -> &Header {
        &self.0
    }
}
