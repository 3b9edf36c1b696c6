//! A meter's flash whose power can go in the middle of a record.

use std::{cell::Cell, rc::Rc};

use bkss_meter::{
    Flash,
    journal::{MemoryFlash, RECORD},
};

/// Bytes of a sector.
const SECTOR: usize = 256;

/// Flash in memory that can lose its power.
#[derive(Default)]
pub(super) struct CutFlash {
    memory: MemoryFlash<SECTOR>,
    power: Power,
}

/// The power of a flash.
#[derive(Clone, Default)]
pub(super) struct Power(Rc<Cell<Option<usize>>>);

/// The power went.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the meter's power went")]
pub(super) struct PowerLost;

impl Power {
    /// It will go after so many bytes of the next record.
    pub(super) fn cut_after(&self, bytes: usize) {
        self.0.set(Some(bytes));
    }

    /// It is back.
    pub(super) fn restore(&self) {
        self.0.set(None);
    }
}

impl CutFlash {
    /// Its power.
    pub(super) fn power(&self) -> Power {
        self.power.clone()
    }
}

impl Flash for CutFlash {
    type Error = PowerLost;

    fn sector_size(&self) -> usize {
        SECTOR
    }

    fn read(&self, sector: usize, offset: usize) -> Result<[u8; RECORD], PowerLost> {
        self.memory.read(sector, offset).map_err(|never| match never {})
    }

    fn program(
        &mut self,
        sector: usize,
        offset: usize,
        record: &[u8; RECORD],
    ) -> Result<(), PowerLost> {
        let mut kept = [0xFF; RECORD];
        let cut = self.power.0.get();
        let length = cut.unwrap_or(RECORD).min(RECORD);
        kept[..length].copy_from_slice(&record[..length]);
        self.memory.program(sector, offset, &kept).map_err(|never| match never {})?;
        if cut.is_some() { Err(PowerLost) } else { Ok(()) }
    }

    fn erase(&mut self, sector: usize) -> Result<(), PowerLost> {
        self.memory.erase(sector).map_err(|never| match never {})
    }
}

#[cfg(test)]
mod tests {
    use bkss_meter::Journal;

    use super::*;

    #[test]
    fn a_record_cut_short_counts_if_it_is_whole_and_not_otherwise() {
        for length in 0..=RECORD {
            let flash = CutFlash::default();
            let power = flash.power();
            power.cut_after(length);
            let mut journal = Journal::open(flash).unwrap();
            assert!(journal.reserve(1).is_err(), "{length} bytes");
            power.restore();
            let reserved = Journal::open(journal.into_flash()).unwrap().reserved();
            assert_eq!(reserved, u32::from(length == RECORD), "{length} bytes");
        }
    }
}
