//! Index reservation that survives a power cut at any point (scheme s5.4).
//!
//! Two sectors of flash, append only, records of 16 bytes: `seq u32 | index u32 | kind u8 | 0 x3 |
//! crc32`. The record with the highest sequence number and a good checksum counts. When a sector is
//! full the other one is erased and continued, the current record first. A torn record fails its
//! checksum and the one before counts: nothing had been sent under the torn one, since reserving
//! comes first.
//!
//! A journal is of one chain; another chain starts on erased sectors. A flash image that was rolled
//! back is not noticed here, and need not be: links are bound to time, so the worst case is two
//! commitments in one slot (A23).

use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Bytes of a record.
pub const RECORD: usize = 16;
/// Kind of a record of a meter that signs.
const RESERVED: u8 = 1;
/// Kind of a record of a meter that is locked, plus the number of the reason.
const LOCKED: u8 = 16;

/// Two erasable sectors of flash: the hardware below a journal.
pub trait Flash {
    /// A hardware fault.
    type Error;

    /// Bytes of a sector: a multiple of 16, at least 32.
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

/// The newest reserved index and whether the meter is locked, on flash.
pub struct Journal<F> {
    flash: F,
    newest: Entry,
    /// The last sequence number that was used, also by a record that failed.
    sequence: u32,
    /// The sector that holds the newest record, never erased.
    home: usize,
    /// Where the next record goes.
    sector: usize,
    offset: usize,
}

/// What a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    index: u32,
    kind: u8,
}

/// Why an index is not reserved.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum JournalError<E> {
    #[error("index {index} is not above {reserved}, the newest")]
    Used { index: u32, reserved: u32 },
    #[error("flash holds another record than was written")]
    NotKept,
    #[error("a sector has no room for two records, or the sequence number is at its end")]
    Full,
    #[error("flash")]
    Flash(#[from] E),
}

impl<F: Flash> Journal<F> {
    /// Finds the newest record; an empty flash has reserved nothing.
    ///
    /// # Errors
    ///
    /// Those of the flash.
    pub fn open(flash: F) -> Result<Self, F::Error> {
        let (mut sequence, mut home) = (0, 0);
        let mut newest = Entry { index: 0, kind: RESERVED };
        let mut ends = [0; 2];
        for (number, end) in ends.iter_mut().enumerate() {
            for offset in (0..flash.sector_size()).step_by(RECORD) {
                let record = flash.read(number, offset)?;
                if record != [0xFF; RECORD] {
                    // Also behind a torn record, which cannot be programmed again.
                    *end = offset + RECORD;
                }
                if let Some((found, entry)) = parse(&record)
                    && found > sequence
                {
                    (sequence, newest, home) = (found, entry, number);
                }
            }
        }
        Ok(Self { flash, newest, sequence, home, sector: home, offset: ends[home] })
    }

    /// The newest reserved index; 0 if none.
    pub const fn reserved(&self) -> u32 {
        self.newest.index
    }

    /// The number that [`Self::lock`] was given, if it was.
    pub const fn locked(&self) -> Option<u8> {
        self.newest.kind.checked_sub(LOCKED)
    }

    /// Reserves an index; it is on flash when this returns.
    ///
    /// # Errors
    ///
    /// [`JournalError::Used`] if the index is not above the newest. Any other means that the index
    /// may be on flash or not; nothing may be sent under it.
    pub fn reserve(&mut self, index: u32) -> Result<(), JournalError<F::Error>> {
        let Entry { index: reserved, kind } = self.newest;
        if index <= reserved {
            return Err(JournalError::Used { index, reserved });
        }
        self.append(Entry { index, kind })
    }

    /// Notes for good that the meter is locked, and why: a number of the caller, below 240.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; the lock may be on flash or not.
    pub fn lock(&mut self, reason: u8) -> Result<(), JournalError<F::Error>> {
        let kind = LOCKED.saturating_add(reason);
        self.append(Entry { kind, ..self.newest })
    }

    /// The flash, for a restart in tests and for tools.
    pub fn into_flash(self) -> F {
        self.flash
    }

    /// Writes behind the last record, or to the start of a sector that does not hold the newest.
    fn append(&mut self, entry: Entry) -> Result<(), JournalError<F::Error>> {
        if self.offset + RECORD > self.flash.sector_size() {
            let other = 1 - self.home;
            self.flash.erase(other)?;
            (self.sector, self.offset) = (other, 0);
            self.write(self.newest)?;
        }
        self.write(entry)
    }

    fn write(&mut self, entry: Entry) -> Result<(), JournalError<F::Error>> {
        let offset = self.offset;
        let room = offset + RECORD <= self.flash.sector_size();
        let sequence = self.sequence.checked_add(1).filter(|_| room).ok_or(JournalError::Full)?;
        // Place and number are spent even if programming fails: it may have done its work.
        self.offset += RECORD;
        self.sequence = sequence;
        let record = record(sequence, entry);
        self.flash.program(self.sector, offset, &record)?;
        if self.flash.read(self.sector, offset)? != record {
            return Err(JournalError::NotKept);
        }
        (self.newest, self.home) = (entry, self.sector);
        Ok(())
    }
}

fn record(sequence: u32, Entry { index, kind }: Entry) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&sequence.to_be_bytes());
    record[4..8].copy_from_slice(&index.to_be_bytes());
    record[8] = kind;
    let checksum = CRC.checksum(&record[..12]);
    record[12..].copy_from_slice(&checksum.to_be_bytes());
    record
}

fn parse(bytes: &[u8; RECORD]) -> Option<(u32, Entry)> {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_be_bytes(word)
    };
    let (sequence, entry) = (word(0), Entry { index: word(4), kind: bytes[8] });
    let known = entry.kind == RESERVED || entry.kind >= LOCKED;
    (known && record(sequence, entry) == *bytes).then_some((sequence, entry))
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
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    const SECTOR: usize = 64;

    /// What flash does to one operation.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Done,
        /// So many bytes were reached, four times as many by an erasure, of the last one these bits
        /// not; then the power was gone.
        Cut(usize, u8),
        /// The same, but the power stayed and the flash says so.
        Reported(usize, u8),
        /// The same, but the flash says that it is done.
        Unnoticed(usize, u8),
    }

    /// Flash whose operations meet their fate, in order; all later ones are done.
    #[derive(Clone, Debug, Default)]
    struct Faulty {
        flash: MemoryFlash<SECTOR>,
        fates: Vec<Fate>,
        off: bool,
        /// An operation was not done that was said to be.
        lied: bool,
    }

    #[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
    #[error("fault")]
    struct Fault;

    impl Faulty {
        fn new(fates: &[Fate]) -> Self {
            Self { fates: fates.iter().rev().copied().collect(), ..Self::default() }
        }

        fn meet(&mut self, apply: impl FnOnce(&mut Self, usize, u8)) -> Result<(), Fault> {
            if self.off {
                return Err(Fault);
            }
            let fate = self.fates.pop().unwrap_or(Fate::Done);
            let (reached, spared) = match fate {
                Fate::Done => (usize::MAX, 0),
                Fate::Cut(at, bits) | Fate::Reported(at, bits) | Fate::Unnoticed(at, bits) => {
                    (at, bits)
                }
            };
            self.off = matches!(fate, Fate::Cut(..));
            self.lied |= matches!(fate, Fate::Unnoticed(..));
            apply(self, reached, spared);
            if matches!(fate, Fate::Cut(..) | Fate::Reported(..)) { Err(Fault) } else { Ok(()) }
        }

        fn restarted(&self) -> Journal<Self> {
            Journal::open(Self { off: false, ..self.clone() }).unwrap()
        }
    }

    impl Flash for Faulty {
        type Error = Fault;

        fn sector_size(&self) -> usize {
            SECTOR
        }

        fn read(&self, sector: usize, offset: usize) -> Result<[u8; RECORD], Fault> {
            if self.off { Err(Fault) } else { Ok(self.flash.read(sector, offset).unwrap()) }
        }

        fn program(
            &mut self,
            sector: usize,
            offset: usize,
            record: &[u8; RECORD],
        ) -> Result<(), Fault> {
            self.meet(|faulty, reached, spared| {
                let cells = &mut faulty.flash.0[sector][offset..offset + RECORD];
                let erased = cells.iter().all(|cell| *cell == 0xFF);
                assert!(erased || faulty.lied, "programmed without erasing");
                let whole = reached.min(RECORD);
                for (at, (cell, byte)) in cells.iter_mut().zip(record).take(whole).enumerate() {
                    // Programming clears bits and sets none.
                    *cell &= if at + 1 == reached { byte | spared } else { *byte };
                }
            })
        }

        fn erase(&mut self, sector: usize) -> Result<(), Fault> {
            self.meet(|faulty, reached, spared| {
                let cells = &mut faulty.flash.0[sector];
                let whole = reached.saturating_mul(SECTOR / RECORD).min(SECTOR);
                cells[..whole].fill(0xFF);
                if (1..=RECORD).contains(&reached) {
                    cells[whole - 1] = !spared;
                }
            })
        }
    }

    /// Reserves until the power goes; returns the newest index that may have been sent.
    fn reserve_until_cut(journal: &mut Journal<Faulty>) -> u32 {
        let mut sent = journal.reserved();
        for index in sent + 1..sent + 30 {
            if journal.reserve(index).is_ok() {
                sent = index;
            }
            if journal.flash.off {
                break;
            }
        }
        sent
    }

    #[test]
    fn no_index_comes_twice_whenever_the_power_goes() {
        for done in 0..24 {
            for reached in 0..=RECORD {
                for spared in [0, 0x0F, 0xFF] {
                    let mut fates = vec![Fate::Done; done];
                    fates.push(Fate::Cut(reached, spared));
                    // Once more in the middle of what follows the first restart.
                    fates.extend([Fate::Done, Fate::Cut(reached, spared)]);
                    let mut journal = Faulty::new(&fates).restarted();
                    for _ in 0..2 {
                        let before = journal.reserved();
                        let sent = reserve_until_cut(&mut journal);
                        assert!(sent >= before);
                        journal = journal.into_flash().restarted();
                        let found = journal.reserved();
                        assert!((sent..=sent + 1).contains(&found), "{fates:?}: {found}, {sent}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_record_with_a_wrong_bit_does_not_count() {
        let mut journal = Journal::open(MemoryFlash::<SECTOR>::default()).unwrap();
        journal.reserve(1).unwrap();
        journal.reserve(2).unwrap();
        let good = journal.into_flash();
        for bit in 0..8 * RECORD {
            let mut flash = good.clone();
            flash.0[0][RECORD + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Journal::open(flash).unwrap().reserved(), 1, "bit {bit}");
        }
    }

    #[test]
    fn a_full_sector_is_followed_by_the_current_record_in_the_other() {
        let mut journal = Journal::open(MemoryFlash::<SECTOR>::default()).unwrap();
        for index in 1..=5 {
            journal.reserve(index).unwrap();
        }
        let flash = journal.into_flash();
        let read = |sector, place| parse(&flash.read(sector, RECORD * place).unwrap());
        let entry = |index| Entry { index, kind: RESERVED };
        assert_eq!(read(0, 3), Some((4, entry(4))));
        assert_eq!([read(1, 0), read(1, 1)], [Some((5, entry(4))), Some((6, entry(5)))]);
        assert_eq!(read(1, 2), None);
    }

    #[test]
    fn an_index_is_reserved_once_and_upwards() {
        let mut journal = Journal::open(MemoryFlash::<SECTOR>::default()).unwrap();
        journal.reserve(5).unwrap();
        for index in [0, 4, 5] {
            let refused = journal.reserve(index);
            assert_eq!(refused, Err(JournalError::Used { index, reserved: 5 }));
        }
        assert_eq!(journal.reserve(6), Ok(()));
    }

    #[test]
    fn flash_that_does_not_keep_a_record_is_noticed() {
        let mut journal = Faulty::new(&[Fate::Done, Fate::Unnoticed(15, 0)]).restarted();
        journal.reserve(1).unwrap();
        assert_eq!(journal.reserve(2), Err(JournalError::NotKept));
        assert_eq!(journal.reserved(), 1);
        assert_eq!(journal.reserve(2), Ok(()));
        assert_eq!(journal.into_flash().restarted().reserved(), 2);
    }

    #[test]
    fn a_record_that_was_reported_lost_and_is_there_does_not_hide_the_next() {
        let mut journal = Faulty::new(&[Fate::Reported(RECORD, 0)]).restarted();
        assert_eq!(journal.reserve(1), Err(JournalError::Flash(Fault)));
        journal.reserve(2).unwrap();
        assert_eq!(journal.into_flash().restarted().reserved(), 2);
    }

    #[test]
    fn sectors_of_one_record_are_refused_and_not_overrun() {
        let mut journal = Journal::open(MemoryFlash::<RECORD>::default()).unwrap();
        journal.reserve(1).unwrap();
        assert_eq!(journal.reserve(2), Err(JournalError::Full));
    }

    #[test]
    fn a_lock_outlives_restarts_and_full_sectors() {
        let mut journal = Journal::open(MemoryFlash::<SECTOR>::default()).unwrap();
        journal.reserve(7).unwrap();
        assert_eq!(journal.locked(), None);
        journal.lock(3).unwrap();
        for index in 8..30 {
            journal = Journal::open(journal.into_flash()).unwrap();
            assert_eq!((journal.locked(), journal.reserved()), (Some(3), index - 1));
            journal.reserve(index).unwrap();
        }
    }

    fn fate() -> impl Strategy<Value = Fate> {
        let part = (0..=RECORD, prop_oneof![Just(0), any::<u8>()]);
        prop_oneof![
            6 => Just(Fate::Done),
            1 => part.clone().prop_map(|(reached, spared)| Fate::Cut(reached, spared)),
            1 => part.clone().prop_map(|(reached, spared)| Fate::Reported(reached, spared)),
            1 => part.prop_map(|(reached, spared)| Fate::Unnoticed(reached, spared)),
        ]
    }

    proptest! {
        /// Also while flash reports errors and the meter goes on, up to sectors full of them.
        #[test]
        fn what_was_reserved_stays_reserved(fates in prop::collection::vec(fate(), 0..60)) {
            let mut journal = Faulty::new(&fates).restarted();
            let mut sent = 0;
            for index in 1..80 {
                if journal.reserve(index).is_ok() {
                    prop_assert!(index > sent);
                    sent = index;
                }
                let restarted = journal.flash.restarted();
                prop_assert!((sent..=index).contains(&restarted.reserved()));
                if journal.flash.off {
                    journal = restarted;
                }
            }
            prop_assert_eq!(journal.reserved(), 79);
        }
    }
}
