//! The flash of a software meter: in memory, or a file that outlives the process.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use bkss_meter::{
    Flash,
    journal::{MemoryFlash, RECORD},
};

/// Bytes of a sector.
const SECTOR: usize = 4096;

/// Two sectors of flash.
pub(crate) enum SoftwareFlash {
    /// Gone with the process.
    Memory(Box<MemoryFlash<SECTOR>>),
    /// In a file; each record is on the disk before anything is sent under it.
    File(File),
}

impl SoftwareFlash {
    /// Flash in memory, erased.
    pub(crate) fn memory() -> Self {
        Self::Memory(Box::default())
    }

    /// Flash in a file, erased if there is none yet.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let new = !path.exists();
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        if new || file.metadata()?.len() < 2 * SECTOR as u64 {
            file.write_all_at(&[0xFF; 2 * SECTOR], 0)?;
            file.sync_all()?;
        }
        Ok(Self::File(file))
    }
}

const fn place(sector: usize, offset: usize) -> u64 {
    (sector * SECTOR + offset) as u64
}

impl Flash for SoftwareFlash {
    type Error = io::Error;

    fn sector_size(&self) -> usize {
        SECTOR
    }

    fn read(&self, sector: usize, offset: usize) -> io::Result<[u8; RECORD]> {
        match self {
            Self::Memory(memory) => memory.read(sector, offset).map_err(|never| match never {}),
            Self::File(file) => {
                let mut record = [0; RECORD];
                file.read_exact_at(&mut record, place(sector, offset))?;
                Ok(record)
            }
        }
    }

    fn program(&mut self, sector: usize, offset: usize, record: &[u8; RECORD]) -> io::Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.program(sector, offset, record).map_err(|never| match never {})
            }
            Self::File(file) => {
                file.write_all_at(record, place(sector, offset))?;
                file.sync_data()
            }
        }
    }

    fn erase(&mut self, sector: usize) -> io::Result<()> {
        match self {
            Self::Memory(memory) => memory.erase(sector).map_err(|never| match never {}),
            Self::File(file) => {
                file.write_all_at(&[0xFF; SECTOR], place(sector, 0))?;
                file.sync_data()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_meter::Journal;

    #[test]
    fn what_a_file_has_reserved_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flash");
        let open = || Journal::open(SoftwareFlash::open(&path).unwrap()).unwrap();
        for index in 1..600 {
            let mut journal = open();
            assert_eq!(journal.reserved(), index - 1);
            journal.reserve(index).unwrap();
            assert!(journal.reserve(index).is_err());
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
