//! Index reservation that survives a power cut at any point (scheme s5.4).
//!
//! Two sectors of flash, append only, records of 16 bytes: `seq u32 | index u32 | kind u8 | 0 x3 |
//! crc32`. The record with the highest sequence number and a good checksum counts. When a sector is
//! full the other one is erased and continued. A torn record fails its checksum and the one before
//! counts: nothing had been sent under the torn one, since reserving comes first.
//!
//! A flash image that was rolled back is not noticed here, and need not be: links are bound to
//! time, so the worst case is two commitments in one slot (A23).

use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Bytes of a record.
pub const RECORD: usize = 16;
const RESERVED: u8 = 1;

/// Two erasable sectors of flash: the hardware below a journal.
pub trait Flash {
    /// A hardware fault.
    type Error;

    /// Bytes of a sector; a multiple of 16.
    fn sector_size(&self) -> usize;

    /// Reads 16 bytes of a sector; erased bytes are 0xFF.
    ///
    /// # Errors
    ///
    /// A hardware fault.
    fn read(&self, sector: usize, offset: usize) -> Result<[u8; RECORD], Self::Error>;

    /// Programs 16 erased bytes of a sector and returns when they are there.
    ///
    /// # Errors
    ///
    /// A hardware fault.
    fn program(
        &mut self,
        sector: usize,
        offset: usize,
        record: &[u8; RECORD],
    ) -> Result<(), Self::Error>;

    /// Erases a sector.
    ///
    /// # Errors
    ///
    /// A hardware fault.
    fn erase(&mut self, sector: usize) -> Result<(), Self::Error>;
}

/// The newest reserved index, on flash.
pub struct Journal<F> {
    flash: F,
    sequence: u32,
    reserved: u32,
    sector: usize,
    /// Where the next record goes.
    offset: usize,
}

impl<F: Flash> Journal<F> {
    /// Finds the newest record; an empty flash has reserved nothing.
    ///
    /// # Errors
    ///
    /// Those of the flash.
    pub fn open(flash: F) -> Result<Self, F::Error> {
        let (mut sequence, mut reserved, mut sector) = (0, 0, 0);
        let mut ends = [0; 2];
        for (number, end) in ends.iter_mut().enumerate() {
            for offset in (0..flash.sector_size()).step_by(RECORD) {
                let record = flash.read(number, offset)?;
                if record != [0xFF; RECORD] {
                    // Also behind a torn record, which cannot be programmed again.
                    *end = offset + RECORD;
                }
                if let Some((found, index)) = parse(&record)
                    && found > sequence
                {
                    (sequence, reserved, sector) = (found, index, number);
                }
            }
        }
        Ok(Self { offset: ends[sector], flash, sequence, reserved, sector })
    }

    /// The newest reserved index; 0 if none.
    pub const fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Reserves an index; it is on flash when this returns.
    ///
    /// # Errors
    ///
    /// Those of the flash; the index is then to be treated as used.
    pub fn reserve(&mut self, index: u32) -> Result<(), F::Error> {
        if self.offset + RECORD > self.flash.sector_size() {
            let other = 1 - self.sector;
            self.flash.erase(other)?;
            (self.sector, self.offset) = (other, 0);
        }
        // Counted up even if programming fails: the place is spoilt.
        let (sequence, offset) = (self.sequence + 1, self.offset);
        self.offset += RECORD;
        self.flash.program(self.sector, offset, &record(sequence, index))?;
        (self.sequence, self.reserved) = (sequence, index);
        Ok(())
    }

    /// The flash, for a restart in tests and for tools.
    pub fn into_flash(self) -> F {
        self.flash
    }
}

fn record(sequence: u32, index: u32) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&sequence.to_be_bytes());
    record[4..8].copy_from_slice(&index.to_be_bytes());
    record[8] = RESERVED;
    let checksum = CRC.checksum(&record[..12]);
    record[12..].copy_from_slice(&checksum.to_be_bytes());
    record
}

fn parse(bytes: &[u8; RECORD]) -> Option<(u32, u32)> {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_be_bytes(word)
    };
    let (sequence, index) = (word(0), word(4));
    (record(sequence, index) == *bytes).then_some((sequence, index))
}

/// Flash in memory, for software meters; power cuts are what the process survives.
#[derive(Clone, Debug)]
pub struct MemoryFlash<const SECTOR: usize>([[u8; SECTOR]; 2]);

impl<const SECTOR: usize> Default for MemoryFlash<SECTOR> {
    fn default() -> Self {
        Self([[0xFF; SECTOR]; 2])
    }
}

impl<const SECTOR: usize> Flash for MemoryFlash<SECTOR> {
    type Error = core::convert::Infallible;

    fn sector_size(&self) -> usize {
        SECTOR
    }

    fn read(&self, sector: usize, offset: usize) -> Result<[u8; RECORD], Self::Error> {
        let mut record = [0; RECORD];
        record.copy_from_slice(&self.0[sector][offset..offset + RECORD]);
        Ok(record)
    }

    fn program(
        &mut self,
        sector: usize,
        offset: usize,
        record: &[u8; RECORD],
    ) -> Result<(), Self::Error> {
        self.0[sector][offset..offset + RECORD].copy_from_slice(record);
        Ok(())
    }

    fn erase(&mut self, sector: usize) -> Result<(), Self::Error> {
        self.0[sector] = [0xFF; SECTOR];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loses power in the middle of operation `left`, having done `part` bytes of it.
    #[derive(Clone)]
    struct Failing {
        flash: MemoryFlash<64>,
        left: usize,
        part: usize,
    }

    #[derive(Debug, PartialEq)]
    struct PowerCut;

    impl Flash for Failing {
        type Error = PowerCut;
        fn sector_size(&self) -> usize {
            64
        }
        fn read(&self, sector: usize, offset: usize) -> Result<[u8; RECORD], PowerCut> {
            self.flash.read(sector, offset).map_err(|error| match error {})
        }
        fn program(
            &mut self,
            sector: usize,
            offset: usize,
            record: &[u8; RECORD],
        ) -> Result<(), PowerCut> {
            let bytes = &mut self.flash.0[sector][offset..offset + RECORD];
            assert!(bytes.iter().all(|byte| *byte == 0xFF), "programmed without erasing");
            let done = if self.left == 0 { self.part } else { RECORD };
            bytes[..done].copy_from_slice(&record[..done]);
            self.count()
        }
        fn erase(&mut self, sector: usize) -> Result<(), PowerCut> {
            let done = if self.left == 0 { 4 * self.part } else { 64 };
            self.flash.0[sector][..done].fill(0xFF);
            self.count()
        }
    }

    impl Failing {
        fn count(&mut self) -> Result<(), PowerCut> {
            self.left = self.left.checked_sub(1).ok_or(PowerCut)?;
            Ok(())
        }
    }

    #[test]
    fn no_index_comes_twice_whenever_the_power_goes() {
        for left in 0..20 {
            for part in 0..=RECORD {
                let mut journal =
                    Journal::open(Failing { flash: MemoryFlash::default(), left, part }).unwrap();
                let mut sent = 0;
                for index in 1.. {
                    if journal.reserve(index).is_err() {
                        break;
                    }
                    sent = index; // it may leave from here on
                }
                let flash = Failing { left: usize::MAX, ..journal.into_flash() };
                let mut journal = Journal::open(flash).unwrap();
                let reserved = journal.reserved();
                assert!((sent..=sent + 1).contains(&reserved), "cut {left}.{part}: {reserved}");
                for index in reserved + 1..reserved + 20 {
                    journal.reserve(index).unwrap();
                    let again = Journal::open(journal.flash.clone()).unwrap();
                    assert_eq!(again.reserved(), index, "after cut {left}.{part}");
                }
            }
        }
    }

    #[test]
    fn a_record_with_a_wrong_bit_does_not_count() {
        let mut journal = Journal::open(MemoryFlash::<64>::default()).unwrap();
        journal.reserve(1).unwrap();
        journal.reserve(2).unwrap();
        let good = journal.into_flash();
        for bit in 0..8 * RECORD {
            let mut flash = good.clone();
            flash.0[0][RECORD + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Journal::open(flash).unwrap().reserved(), 1, "bit {bit}");
        }
    }
}
