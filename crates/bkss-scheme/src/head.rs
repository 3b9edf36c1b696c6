//! A head: the newest block that somebody has seen final, as a file of some hundred bytes.
//!
//! `[43, 1, net, Header, Certificate]`. An archive ends in one. Whoever has got one from a party he
//! trusts can tell whether a history that somebody else shows him is the same, and whole up to it.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Certificate, Header, Network,
    certificate::NotFinal,
    codec::{self, Encoded},
    finality::{Certified, Eras, Finality},
};

/// A header with its own certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head<'a> {
    /// The network.
    pub network: Network,
    /// The header.
    pub header: Header,
    /// Its own certificate.
    pub certificate: Certificate<'a>,
}

impl Head<'_> {
    /// Checks that the header is final, among committees of its own network.
    ///
    /// # Errors
    ///
    /// [`NotFinal`], naming the first thing that does not hold.
    pub fn verify(&self, eras: &Eras<'_>) -> Result<Certified, NotFinal> {
        let finality = Finality { descendants: &[], certificate: self.certificate };
        eras.certified(&finality, &self.header)
    }
}

impl<C> Encode<C> for Head<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(43)?.u8(1)?.encode(self.network)?;
        encoder.encode(&self.header)?.encode(self.certificate)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Head<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 43)?;
        codec::constant(decoder, 1)?;
        Ok(Self {
            network: decoder.decode()?,
            header: decoder.decode()?,
            certificate: decoder.decode()?,
        })
    }
}
