//! What an SDI has issued: devices, their chains, and the records that outlive a crash.
//!
//! Every change of the fleet is a [`Record`]. Whoever keeps an [`crate::Sdi`] writes its records to
//! the disk before anything else leaves the SDI; from them the fleet is made again after a restart.
//! A chain number is spent when it is offered: no device ever gets two chains of one number.

use std::collections::{BTreeMap, BTreeSet};

use bkss_scheme::{
    Digest, MeterId, ProviderId,
    codec::{self, Encoded},
    hash::{Tag, hash},
    hash_chain::Blocks,
    root_message::SaltNonce,
    slot::LedgerTime,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::IssueError;

/// Most bytes of a serial number.
pub const MAX_SERIAL: usize = 64;

/// A step in the life of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// A chain was offered: `[1, mid, sp, number, salt nonce, n, log2, begin,
    /// nonce, serial]`.
    Offered {
        /// The meter.
        meter: MeterId,
        /// Its owner.
        owner: ProviderId,
        /// Number of the chain, from 0.
        chain: u32,
        /// What its salt is made with.
        salt_nonce: SaltNonce,
        /// Its shape.
        blocks: (u32, u8),
        /// Start of its first slot.
        begins: LedgerTime,
        /// Nonce of the device's commitment.
        nonce: [u8; 16],
        /// The device.
        serial: Vec<u8>,
    },
    /// The offered chain was registered: `[2, mid, number]`.
    Registered {
        /// The meter.
        meter: MeterId,
        /// Number of the chain.
        chain: u32,
    },
    /// The offered chain will never be registered: `[3, mid, number]`.
    Withdrawn {
        /// The meter.
        meter: MeterId,
        /// Number of the chain.
        chain: u32,
    },
    /// Chains that were issued and begin later did not get onto the ledger: `[4, mid, begin / null]`.
    Missing {
        /// The meter.
        meter: MeterId,
        /// Where the newest chain begins that is there, if there is one.
        begins: Option<LedgerTime>,
    },
}

/// A device and its chains.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its owner.
    pub owner: ProviderId,
    /// Its serial number.
    pub serial: Vec<u8>,
    /// The nonce in `H(07 | nonce | serial)`, the same in all its registrations.
    pub nonce: [u8; 16],
    /// Chains that were offered: the number of the next one.
    pub offered: u32,
    /// Chains that were registered.
    pub registered: u32,
    /// Start of the newest registered chain.
    pub begins: Option<LedgerTime>,
    /// What is offered and not yet registered.
    pub(crate) open: Option<Open>,
}

impl Device {
    /// What the ledger sees of the device: `H(07 | nonce | serial)`.
    pub fn commitment(&self) -> Digest {
        hash(Tag::Device, &[&self.nonce, &self.serial])
    }
}

/// An offer that is under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Open {
    pub(crate) chain: u32,
    pub(crate) salt_nonce: SaltNonce,
    pub(crate) blocks: Blocks,
    pub(crate) begins: LedgerTime,
}

/// All devices of an SDI.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) devices: BTreeMap<MeterId, Device>,
    pub(crate) serials: BTreeSet<Vec<u8>>,
    pub(crate) salt_nonces: BTreeSet<SaltNonce>,
}

impl Fleet {
    /// Takes in a record.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if it does not follow from those before it.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<(), IssueError> {
        match record {
            Record::Offered { meter, .. } => {
                let open = self.check_offer(record)?;
                let Record::Offered { owner, chain, salt_nonce, nonce, serial, .. } = record else {
                    return Ok(());
                };
                self.salt_nonces.insert(*salt_nonce);
                self.serials.insert(serial.clone());
                let device = self.devices.entry(*meter).or_insert_with(|| Device {
                    owner: *owner,
                    serial: serial.clone(),
                    nonce: *nonce,
                    offered: 0,
                    registered: 0,
                    begins: None,
                    open: None,
                });
                device.offered = chain + 1;
                device.open = Some(open);
            }
            Record::Registered { meter, chain } => {
                let device = self.device_with_open(*meter, *chain)?;
                device.begins = device.open.take().map(|open| open.begins);
                device.registered += 1;
            }
            Record::Withdrawn { meter, chain } => {
                self.device_with_open(*meter, *chain)?.open = None;
            }
            Record::Missing { meter, begins } => {
                let device = self.devices.get_mut(meter);
                let device = device.ok_or(IssueError::NotOffered(*meter))?;
                if *begins >= device.begins {
                    return Err(IssueError::NotMissing(*meter));
                }
                device.begins = *begins;
            }
        }
        Ok(())
    }

    fn check_offer(&self, record: &Record) -> Result<Open, IssueError> {
        let Record::Offered { meter, owner, chain, salt_nonce, blocks, begins, nonce, serial } =
            record
        else {
            return Err(IssueError::Schedule);
        };
        let blocks = Blocks::new(blocks.0, blocks.1).ok_or(IssueError::Schedule)?;
        match self.devices.get(meter) {
            None if *chain != 0 => return Err(IssueError::NotOffered(*meter)),
            None if self.serials.contains(serial) => return Err(IssueError::DeviceIssued),
            None => {}
            Some(device) => {
                if device.open.is_some() {
                    return Err(IssueError::OfferOpen(*meter));
                }
                let same = (device.owner, &device.serial, device.nonce, device.offered)
                    == (*owner, serial, *nonce, *chain);
                if !same || *chain == u32::MAX {
                    return Err(IssueError::MeterIssued(*meter));
                }
                if let Some(before) = device.begins.filter(|before| *begins <= *before) {
                    return Err(IssueError::BeforeLast { meter: *meter, before });
                }
            }
        }
        if self.salt_nonces.contains(salt_nonce) {
            return Err(IssueError::SaltIssued);
        }
        Ok(Open { chain: *chain, salt_nonce: *salt_nonce, blocks, begins: *begins })
    }

    fn device_with_open(&mut self, meter: MeterId, chain: u32) -> Result<&mut Device, IssueError> {
        let device = self.devices.get_mut(&meter);
        let device = device.filter(|device| device.open.is_some_and(|open| open.chain == chain));
        device.ok_or(IssueError::NotOffered(meter))
    }
}

impl<C> Encode<C> for Record {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        match self {
            Self::Offered { meter, owner, chain, salt_nonce, blocks, begins, nonce, serial } => {
                encoder.array(10)?.u8(1)?.encode(meter)?.encode(owner)?.u32(*chain)?;
                encoder.encode(salt_nonce)?.u32(blocks.0)?.u8(blocks.1)?.encode(begins)?;
                encoder.bytes(nonce)?.bytes(serial)?.ok()
            }
            Self::Registered { meter, chain } => {
                encoder.array(3)?.u8(2)?.encode(meter)?.u32(*chain)?.ok()
            }
            Self::Withdrawn { meter, chain } => {
                encoder.array(3)?.u8(3)?.encode(meter)?.u32(*chain)?.ok()
            }
            Self::Missing { meter, begins } => {
                encoder.array(3)?.u8(4)?.encode(meter)?.encode(begins)?.ok()
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Record {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = decoder.position();
        let parts = decoder.array()?;
        Ok(match (parts, decoder.u8()?) {
            (Some(10), 1) => Self::Offered {
                meter: decoder.decode()?,
                owner: decoder.decode()?,
                chain: decoder.u32()?,
                salt_nonce: decoder.decode()?,
                blocks: (decoder.u32()?, decoder.u8()?),
                begins: decoder.decode()?,
                nonce: codec::bytes(decoder)?,
                serial: codec::bytes_of_at_most(decoder, MAX_SERIAL)?.to_vec(),
            },
            (Some(3), 2) => Self::Registered { meter: decoder.decode()?, chain: decoder.u32()? },
            (Some(3), 3) => Self::Withdrawn { meter: decoder.decode()?, chain: decoder.u32()? },
            (Some(3), 4) => Self::Missing { meter: decoder.decode()?, begins: decoder.decode()? },
            _ => return Err(decode::Error::message("no record of a fleet").at(at)),
        })
    }
}
