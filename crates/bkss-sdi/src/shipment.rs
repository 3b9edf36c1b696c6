//! What leaves the SDI as bytes: a bundle for the meter, a shipment for the owner SP.

use bkss_scheme::{
    Committee, Digest, Link, Malformed, Network, RootMessage,
    certificate::{MAX_COMMITTEE, VoteKey},
    codec::{self, Encoded},
    root_message::Registration,
    seal::SealingKey,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Most block roots of a chain: 2^20 slots in blocks of one.
const MAX_ROOTS: usize = 1 << 20;

/// For the meter: `[1, net, [+ vote key], [kid, suite, key], M_r, log2, v_n / null]`.
///
/// Network and committee must equal what the signed firmware says: a lying SDI could otherwise
/// simulate a whole network (A29).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// The network.
    pub network: Network,
    /// The committee.
    pub committee: Committee,
    /// The owner SP's sealing key.
    pub owner: SealingKey,
    /// What will be registered.
    pub root_message: RootMessage,
    /// Links per block, as a power of two.
    pub block_log2: u8,
    /// The chain, if the SDI made it.
    pub last_link: Option<Link>,
}

impl Bundle {
    /// The bytes of a bundle.
    pub fn encode(&self) -> Vec<u8> {
        bytes(self)
    }

    /// Parses a bundle.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode("bundle", bytes)
    }
}

impl<C> Encode<C> for Bundle {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(7)?.u8(1)?.encode(self.network)?.encode(self.committee.keys())?;
        encoder.encode(self.owner)?.encode(&self.root_message)?.u8(self.block_log2)?;
        encoder.encode(&self.last_link)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Bundle {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 7)?;
        codec::constant(decoder, 1)?;
        let network = decoder.decode()?;
        let at = decoder.position();
        let keys: Vec<VoteKey> = list(decoder, MAX_COMMITTEE)?;
        let committee = Committee::new(keys);
        Ok(Self {
            network,
            committee: committee.ok_or_else(|| decode::Error::message("no committee").at(at))?,
            owner: decoder.decode()?,
            root_message: decoder.decode()?,
            block_log2: decoder.u8()?,
            last_link: codec::optional(decoder, Decoder::decode)?,
        })
    }
}

/// For the owner SP: `[1, registration, log2, [+ block root]]`; with the roots, `C_i` can be built
/// once links are public.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shipment {
    /// To be brought to the ledger.
    pub registration: Registration,
    /// Links per block, as a power of two.
    pub block_log2: u8,
    /// Root of each block, first block first.
    pub block_roots: Vec<Digest>,
}

impl Shipment {
    /// The bytes of a shipment.
    pub fn encode(&self) -> Vec<u8> {
        bytes(self)
    }

    /// Parses a shipment.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode("shipment", bytes)
    }
}

impl<C> Encode<C> for Shipment {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.u8(1)?.encode(&self.registration)?.u8(self.block_log2)?;
        encoder.encode(&self.block_roots)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Shipment {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        codec::constant(decoder, 1)?;
        Ok(Self {
            registration: decoder.decode()?,
            block_log2: decoder.u8()?,
            block_roots: list(decoder, MAX_ROOTS)?,
        })
    }
}

fn list<'b, T: Decode<'b, ()>>(
    decoder: &mut Decoder<'b>,
    most: usize,
) -> Result<Vec<T>, decode::Error> {
    let count = codec::array_of_at_most(decoder, most)?;
    (0..count).map(|_| decoder.decode()).collect()
}

fn bytes(value: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_scheme::{
        MeterId, ProviderId, Salt, SdiId, Signature, Slot, seal::KeyId, slot::Schedule,
    };

    fn root_message() -> RootMessage {
        RootMessage {
            meter: MeterId(7),
            owner: ProviderId(1),
            sdi: SdiId(0),
            salt: Salt([1; 16]),
            anchor: Link::from_bytes([2; 32]),
            root: Digest([3; 32]),
            schedule: Schedule { first: Slot(1), slot_s: 900, window_s: 300, slots: 9 },
            device: Digest([4; 32]),
            revocation_lock: None,
        }
    }

    #[test]
    fn bundles_and_shipments_come_back_and_are_never_misread() {
        let bundle = Bundle {
            network: Network([9; 16]),
            committee: Committee::new([VoteKey([1; 32]), VoteKey([2; 32])]).unwrap(),
            owner: SealingKey { id: KeyId(1), public: [6; 32] },
            root_message: root_message(),
            block_log2: 3,
            last_link: Some(Link::from_bytes([8; 32])),
        };
        let shipment = Shipment {
            registration: Registration {
                message: root_message(),
                sdi_signature: Signature([1; 64]),
                owner_signature: Signature([2; 64]),
            },
            block_log2: 3,
            block_roots: vec![Digest([1; 32]), Digest([2; 32])],
        };
        let (first, second) = (bundle.encode(), shipment.encode());
        assert_eq!(Bundle::decode(&first).as_ref(), Ok(&bundle));
        assert_eq!(Shipment::decode(&second).as_ref(), Ok(&shipment));
        for length in 0..first.len() {
            assert!(Bundle::decode(&first[..length]).is_err(), "cut at {length}");
        }
        for length in 0..second.len() {
            assert!(Shipment::decode(&second[..length]).is_err(), "cut at {length}");
        }
        assert!(Shipment::decode(&first).is_err());
        for position in 0..first.len() {
            let mut altered = first.clone();
            altered[position] ^= 1;
            assert!(Bundle::decode(&altered).as_ref() != Ok(&bundle), "byte {position}");
        }
    }
}
