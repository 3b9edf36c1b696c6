//! What is kept of one block.

use std::collections::BTreeSet;

use bkss_ledger::{FinalBlock, Transaction, transaction_batch::Row};
use bkss_scheme::{
    Slot,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Registry numbers by slot, both ascending.
pub(super) type Slots = Vec<(Slot, Vec<Row>)>;

/// Most items of a list.
const MAX_ITEMS: usize = 1 << 22;

/// `[finality / null, handover / null, first row, registered, requests, openings, skipped]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// Encoded finality; empty if there is nothing to prove.
    pub finality: Vec<u8>,
    /// Encoded handover.
    pub handover: Option<Vec<u8>>,
    /// Registry number of the first chain that is registered.
    pub first_row: Row,
    /// Number of chains that are registered.
    pub registered: u32,
    /// Accepted requests.
    pub(super) requests: Slots,
    /// Accepted openings.
    pub(super) openings: Slots,
    /// Items that were skipped: transaction and position there.
    pub skipped: Vec<(u32, u32)>,
}

impl Record {
    /// What is to be kept of a block; the first row is not known here.
    pub fn of(block: &FinalBlock) -> Self {
        let verified = block.verified();
        let skipped: BTreeSet<_> = verified.skipped().iter().map(|one| one.place).collect();
        let (mut requests, mut openings) = (Vec::new(), Vec::new());
        for (position, transaction) in (0..).zip(verified.block().transactions()) {
            let (slot, rows, list) = match transaction {
                Transaction::Requests(batch) => (batch.slot, &batch.rows, &mut requests),
                Transaction::Openings(batch) => (batch.slot, &batch.rows, &mut openings),
                _ => continue,
            };
            let accepted =
                (0..).zip(rows).filter(|(item, _)| !skipped.contains(&(position, *item)));
            list.extend(accepted.map(|(_, row)| (slot, *row)));
        }
        let mut record = Self {
            finality: Vec::new(),
            handover: block.handover(),
            first_row: 0,
            registered: u32::try_from(verified.registered().len()).unwrap_or(u32::MAX),
            requests: by_slot(requests),
            openings: by_slot(openings),
            skipped: skipped.into_iter().collect(),
        };
        if let Some(finality) = block.finality().filter(|_| !record.is_empty()) {
            codec::encode_infallible(&finality, &mut record.finality);
        }
        record
    }

    /// Says that nothing is recorded of this block and of those before it.
    pub(super) fn nothing_before() -> Self {
        Self { first_row: Row::MAX, ..Self::default() }
    }

    /// Whether it says so.
    pub(super) const fn is_nothing_before(&self) -> bool {
        self.first_row == Row::MAX && self.registered == 0
    }

    /// Whether nothing is to be said about the block.
    pub const fn is_empty(&self) -> bool {
        self.registered == 0
            && self.requests.is_empty()
            && self.openings.is_empty()
            && self.skipped.is_empty()
            && self.handover.is_none()
    }

    /// Whether the block has a request of a chain for a slot.
    pub fn requests(&self, slot: Slot, row: Row) -> bool {
        contains(&self.requests, slot, row)
    }

    /// The accepted openings: slots, and in each the chains, both ascending.
    pub fn opened(&self) -> impl Iterator<Item = (Slot, Row)> + '_ {
        self.openings.iter().flat_map(|(slot, rows)| rows.iter().map(|row| (*slot, *row)))
    }

    /// Whether the block has an opening of a chain for a slot.
    pub fn opens(&self, slot: Slot, row: Row) -> bool {
        contains(&self.openings, slot, row)
    }
}

fn contains(slots: &Slots, slot: Slot, row: Row) -> bool {
    let place = slots.binary_search_by_key(&slot, |(slot, _)| *slot);
    place.is_ok_and(|place| slots[place].1.binary_search(&row).is_ok())
}

fn by_slot(mut items: Vec<(Slot, Row)>) -> Slots {
    items.sort_unstable();
    items.dedup();
    let pieces = items.chunk_by(|a, b| a.0 == b.0);
    pieces.map(|piece| (piece[0].0, piece.iter().map(|(_, row)| *row).collect())).collect()
}

impl<C> Encode<C> for Record {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(7)?.bytes(&self.finality)?;
        match &self.handover {
            Some(bytes) => encoder.bytes(bytes)?,
            None => encoder.null()?,
        };
        encoder.u32(self.first_row)?.u32(self.registered)?;
        for slots in [&self.requests, &self.openings] {
            encoder.array(slots.len() as u64)?;
            for (slot, rows) in slots {
                encoder.array(2)?.encode(slot)?.array(rows.len() as u64)?;
                let mut before = 0;
                for row in rows {
                    encoder.u32(row - before)?;
                    before = *row;
                }
            }
        }
        encoder.array(self.skipped.len() as u64)?;
        for (transaction, item) in &self.skipped {
            encoder.array(2)?.u32(*transaction)?.u32(*item)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Record {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 7)?;
        let finality = decoder.bytes()?.to_vec();
        let handover = codec::optional(decoder, Decoder::bytes)?.map(<[u8]>::to_vec);
        let (first_row, registered) = (decoder.u32()?, decoder.u32()?);
        let (requests, openings) = (slots(decoder)?, slots(decoder)?);
        let count = codec::array_of_at_most(decoder, MAX_ITEMS)?;
        let mut skipped = Vec::new();
        for _ in 0..count {
            codec::array(decoder, 2)?;
            skipped.push((decoder.u32()?, decoder.u32()?));
        }
        Ok(Self { finality, handover, first_row, registered, requests, openings, skipped })
    }
}

fn slots(decoder: &mut Decoder<'_>) -> Result<Slots, decode::Error> {
    let count = codec::array_of_at_most(decoder, MAX_ITEMS)?;
    let mut slots = Vec::new();
    for _ in 0..count {
        codec::array(decoder, 2)?;
        let slot = decoder.decode()?;
        let length = codec::array_of_at_most(decoder, MAX_ITEMS)?;
        let (mut rows, mut row) = (Vec::new(), 0_u32);
        for _ in 0..length {
            let at = decoder.position();
            row = row
                .checked_add(decoder.u32()?)
                .ok_or_else(|| decode::Error::message("registry number too large").at(at))?;
            rows.push(row);
        }
        slots.push((slot, rows));
    }
    Ok(slots)
}
