//! What leaves the SDI as bytes: a bundle for the meter, a shipment for the owner SP.

use bkss_scheme::{
    Committee, Digest, Link, Malformed, Network, RootMessage,
    certificate::{MAX_COMMITTEE, VoteKey},
    codec::{self, Encoded},
    finality::RoundLength,
    hash_chain::Blocks,
    merkle,
    root_message::Registration,
    seal::SealingKey,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use zeroize::Zeroizing;

/// Most block roots of a chain: 2^20 slots in blocks of one.
const MAX_ROOTS: usize = 1 << 20;

/// For the meter:
/// `[2, net, blocks of a round, round, [+ vote key], [kid, suite, key], M_r, log2, v_n / null]`.
///
/// Network and committee must equal what the signed firmware says: a lying SDI could otherwise
/// simulate a whole network (A29).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// The network.
    pub network: Network,
    /// How long its rounds are.
    pub rounds: RoundLength,
    /// The first round that the committee certifies.
    pub from_epoch: u64,
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
    /// The bytes of a bundle; they may contain the chain, and are erased when dropped.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Of its final length from the start: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(codec::length(self)));
        codec::encode_infallible(self, &mut *bytes);
        bytes
    }

    /// Parses a bundle.
    ///
    /// # Errors
    ///
    /// [`Malformed`], also if no chain has this shape.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode("bundle", bytes)
    }
}

impl<C> Encode<C> for Bundle {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(9)?.u8(2)?.encode(self.network)?;
        encoder.u32(self.rounds.blocks())?.u64(self.from_epoch)?;
        encoder.encode(self.committee.keys())?;
        encoder.encode(self.owner)?.encode(&self.root_message)?.u8(self.block_log2)?;
        encoder.encode(&self.last_link)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Bundle {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        // The number first: bundles of the format before are shorter.
        let (at, length) = (decoder.position(), decoder.array()?);
        codec::format(decoder, 2)?;
        if length != Some(9) {
            return Err(decode::Error::message("array of another length").at(at));
        }
        let (network, rounds) = (decoder.decode()?, RoundLength::new(decoder.u32()?));
        let from_epoch = decoder.u64()?;
        let at = decoder.position();
        let keys: Vec<VoteKey> = list(decoder, MAX_COMMITTEE)?;
        let committee = Committee::new(keys);
        let committee = committee.ok_or_else(|| decode::Error::message("no committee").at(at))?;
        let (owner, root_message) = (decoder.decode()?, decoder.decode()?);
        let block_log2 = decoder.u8()?;
        let last_link = codec::optional(decoder, Decoder::decode)?;
        let bundle = Self {
            network,
            rounds,
            from_epoch,
            committee,
            owner,
            root_message,
            block_log2,
            last_link,
        };
        shape(&bundle.root_message, block_log2).ok_or_else(|| no_shape().at(at))?;
        Ok(bundle)
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
        let mut bytes = Vec::with_capacity(codec::length(self));
        codec::encode_infallible(self, &mut bytes);
        bytes
    }

    /// Parses a shipment.
    ///
    /// # Errors
    ///
    /// [`Malformed`], also if the block roots are not as many as the chain has blocks, or do not
    /// lead to the registered `r`.
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
        let at = decoder.position();
        let shipment = Self {
            registration: decoder.decode()?,
            block_log2: decoder.u8()?,
            block_roots: list(decoder, MAX_ROOTS)?,
        };
        let message = &shipment.registration.message;
        let blocks = shape(message, shipment.block_log2).ok_or_else(|| no_shape().at(at))?;
        let complete = shipment.block_roots.len() == blocks.count() as usize;
        if !complete || merkle::root(&shipment.block_roots) != Some(message.root) {
            return Err(decode::Error::message("block roots do not lead to r").at(at));
        }
        Ok(shipment)
    }
}

const fn shape(message: &RootMessage, block_log2: u8) -> Option<Blocks> {
    Blocks::new(message.schedule.slots, block_log2)
}

fn no_shape() -> decode::Error {
    decode::Error::message("blocks of more than 2^20 links")
}

fn list<'b, T: Decode<'b, ()>>(
    decoder: &mut Decoder<'b>,
    most: usize,
) -> Result<Vec<T>, decode::Error> {
    let count = codec::array_of_at_most(decoder, most)?;
    (0..count).map(|_| decoder.decode()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_scheme::{
        LinkIndex, MeterId, ProviderId, Salt, SdiId, Signature, Slot,
        hash_chain::{build, walk},
        root_message::{SaltNonce, salt},
        seal::KeyId,
        slot::Schedule,
    };
    use proptest::prelude::*;

    const NONCE: SaltNonce = SaltNonce([1; 16]);

    fn own_salt() -> Salt {
        salt(ProviderId(1), SdiId(0), MeterId(7), NONCE)
    }

    /// Both for one chain of `slots` links.
    fn both(slots: u32, block_log2: u8, last: &Link, hand_over: bool) -> (Bundle, Shipment) {
        let blocks = Blocks::new(slots, block_log2).unwrap();
        let mut block_roots = vec![Digest::ZERO; blocks.count() as usize];
        let ends = build(own_salt(), blocks, last, |block| {
            block_roots[block.number as usize] = block.root;
        });
        let root_message = RootMessage {
            meter: MeterId(7),
            owner: ProviderId(1),
            sdi: SdiId(0),
            nonce: NONCE,
            anchor: ends.anchor,
            root: ends.root,
            schedule: Schedule { first: Slot(1), slot_s: 900, window_s: 300, slots },
            device: Digest([4; 32]),
            revocation_lock: hand_over.then_some(Digest([5; 32])),
        };
        let bundle = Bundle {
            network: Network([9; 16]),
            rounds: RoundLength::new(300),
            from_epoch: 3,
            committee: Committee::new([VoteKey([1; 32]), VoteKey([2; 32])]).unwrap(),
            owner: SealingKey { id: KeyId(1), public: [6; 32] },
            root_message: root_message.clone(),
            block_log2,
            last_link: hand_over.then(|| last.clone()),
        };
        let registration = Registration {
            message: root_message,
            sdi_signature: Signature([1; 64]),
            owner_signature: Signature([2; 64]),
        };
        (bundle, Shipment { registration, block_log2, block_roots })
    }

    fn reason(error: &Malformed) -> &str {
        match error {
            Malformed::Shape { reason, .. } => reason.as_str(),
            Malformed::Spelling { .. } => "spelling",
        }
    }

    #[test]
    fn bytes_that_are_no_bundle_or_shipment_are_refused() {
        let (bundle, shipment) = both(9, 3, &Link::from_bytes([8; 32]), true);
        let (first, second) = (bundle.encode(), shipment.encode());
        for length in 0..first.len() {
            assert!(Bundle::decode(&first[..length]).is_err(), "cut at {length}");
        }
        for length in 0..second.len() {
            assert!(Shipment::decode(&second[..length]).is_err(), "cut at {length}");
        }
        assert!(Shipment::decode(&first).is_err());
        assert!(Bundle::decode(&second).is_err());
        let longer = [&second[..], &[0]].concat();
        assert_eq!(reason(&Shipment::decode(&longer).unwrap_err()), "spelling");
        for position in 0..first.len() {
            let mut altered = first.to_vec();
            altered[position] ^= 1;
            assert!(Bundle::decode(&altered).as_ref() != Ok(&bundle), "byte {position}");
        }
    }

    #[test]
    fn a_committee_is_spelled_in_ascending_order() {
        let (bundle, _) = both(9, 3, &Link::from_bytes([8; 32]), false);
        let mut bytes = bundle.encode();
        let first = bytes.windows(32).position(|window| window == [1; 32]).unwrap();
        for at in 0..32 {
            bytes.swap(first + at, first + 34 + at);
        }
        assert_eq!(reason(&Bundle::decode(&bytes).unwrap_err()), "spelling");
    }

    #[test]
    fn block_roots_that_do_not_lead_to_r_are_refused() {
        let (bundle, shipment) = both(9, 3, &Link::from_bytes([8; 32]), false);
        let mut altered = shipment.clone();
        altered.block_roots[1].0[31] ^= 1;
        let mut swapped = shipment.clone();
        swapped.block_roots.swap(0, 1);
        let mut only_r = shipment.clone();
        only_r.block_roots = vec![shipment.registration.message.root];
        let none = Shipment { block_roots: vec![], ..shipment.clone() };
        let other_blocks = Shipment { block_log2: 4, ..shipment.clone() };
        let no_blocks = Shipment { block_log2: 21, ..shipment };
        for lie in [altered, swapped, only_r, none, other_blocks, no_blocks] {
            assert!(Shipment::decode(&lie.encode()).is_err(), "{lie:?}");
        }
        let no_blocks = Bundle { block_log2: 21, ..bundle };
        assert!(Bundle::decode(&no_blocks.encode()).is_err());
    }

    proptest! {
        #[test]
        fn bundles_and_shipments_come_back(
            slots in 1..60_u32, log2 in 0..5_u8, last: [u8; 32], hand_over: bool,
        ) {
            let (bundle, shipment) = both(slots, log2, &Link::from_bytes(last), hand_over);
            prop_assert_eq!(Bundle::decode(&bundle.encode()), Ok(bundle));
            prop_assert_eq!(Shipment::decode(&shipment.encode()), Ok(shipment));
        }

        #[test]
        fn no_link_above_v_0_leaves_unless_the_sdi_hands_it_over(slots in 1..60_u32, last: [u8; 32]) {
            let last = Link::from_bytes(last);
            let (bundle, shipment) = both(slots, 2, &last, false);
            let (bundle, shipment) = (bundle.encode(), shipment.encode());
            for index in (1..=slots).filter_map(|index| LinkIndex::new(index, slots)) {
                let link = walk(own_salt(), slots, index.get(), &last);
                for bytes in [&bundle[..], &shipment[..]] {
                    prop_assert!(!bytes.windows(32).any(|window| window == link.as_bytes()));
                }
            }
        }

        #[test]
        fn random_bytes_cause_no_panic(
            keep: prop::sample::Index, random in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (bundle, shipment) = both(9, 3, &Link::from_bytes([8; 32]), true);
            for whole in [bundle.encode().to_vec(), shipment.encode()] {
                let mut bytes = whole[..keep.index(whole.len())].to_vec();
                bytes.extend_from_slice(&random);
                if let Ok(bundle) = Bundle::decode(&bytes) {
                    prop_assert_eq!(&*bundle.encode(), &bytes);
                }
                if let Ok(shipment) = Shipment::decode(&bytes) {
                    prop_assert_eq!(shipment.encode(), bytes);
                }
            }
        }
    }
}
