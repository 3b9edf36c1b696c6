//! Which blocks are final, and by whom (scheme s4.5 L4).
//!
//! A block may have no certificate of its own: it is final as well when a descendant is. A proof
//! then carries the headers from the block to the certified one.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Certificate, Committee, Header, Network,
    certificate::NotFinal,
    codec::{self, Encoded},
};

/// Most bytes of headers between a block and the certified descendant.
pub const MAX_DESCENDANTS: usize = 16 * 1024;

/// A committee and the first epoch whose blocks it certifies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Era {
    /// The first epoch; the era ends where the next one begins.
    pub from_epoch: u64,
    /// The committee.
    pub committee: Committee,
}

impl Era {
    /// The era of an epoch among eras, oldest first.
    ///
    /// # Errors
    ///
    /// [`NotFinal::Epoch`] if all of them are later.
    pub fn of(eras: &[Self], epoch: u64) -> Result<&Self, NotFinal> {
        let known = eras.iter().rev().find(|era| era.from_epoch <= epoch);
        let first = eras.first().map_or(u64::MAX, |era| era.from_epoch);
        known.ok_or(NotFinal::Epoch { first, found: epoch })
    }

    /// Checks that `header` is final under the committee of its certificate's epoch.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], naming the first thing that does not hold.
    pub fn certified(
        eras: &[Self],
        network: Network,
        finality: &Finality<'_>,
        header: &Header,
    ) -> Result<Certified, NotFinal> {
        let era = Self::of(eras, finality.certificate.epoch)?;
        finality.verify(network, &era.committee, header)
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

impl Finality<'_> {
    /// Checks that `header` is final under `committee`.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], naming the first thing that does not hold.
    pub fn verify(
        &self,
        network: Network,
        committee: &Committee,
        header: &Header,
    ) -> Result<Certified, NotFinal> {
        let expected = committee.digest();
        let mut last = header.clone();
        let mut id = last.id();
        let mut rest = self.descendants;
        loop {
            if last.committee != expected {
                return Err(NotFinal::Committee { expected, found: last.committee });
            }
            if rest.is_empty() {
                break;
            }
            let offset = self.descendants.len() - rest.len();
            let next: Header =
                codec::decode_first("header", &mut rest).map_err(|_| NotFinal::NoHeader(offset))?;
            if next.previous != id || next.height != last.height + 1 || next.time <= last.time {
                return Err(NotFinal::Unlinked { height: next.height });
            }
            id = next.id();
            last = next;
        }
        self.certificate.verify(network, committee, id)?;
        Ok(Certified(header.clone()))
    }
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

/// A header that a quorum made final. Only [`Finality::verify`] makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certified(Header);

impl Certified {
    /// The header.
    pub const fn header(&self) -> &Header {
        &self.0
    }
}
