//! An SDI's directory: its key, and the log of what it has issued.
//!
//! The log is append only: a record is on the disk before an offer or a registration leaves the SDI.
//! A record that a power cut tore had no effect outside, and is cut off; anything else that is not
//! a record stops the SDI, since it could issue something twice.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use bkss_scheme::{Network, codec, hash};
use bkss_sdi::Sdi;

use crate::{
    command::CommandError,
    files::{self, unwritable},
    found::SdiKeys,
};

/// Most bytes of a log: some ten million chains.
const MAX_LOG: u64 = 1 << 31;
/// Bytes of a record's checksum.
const CHECK: usize = 8;

/// An SDI with its log; one process at a time.
pub(crate) struct FleetLog {
    path: PathBuf,
    file: File,
    /// Held as long as the process runs.
    _lock: File,
}

/// Opens the directory of an SDI and restores its fleet.
///
/// # Errors
///
/// [`CommandError`], also if another process uses the directory.
pub(crate) fn open(dir: &Path, network: Network) -> Result<(Sdi, FleetLog), CommandError> {
    let SdiKeys { identity, key } = SdiKeys::load(dir)?;
    let lock = lock(dir)?;
    let path = dir.join("fleet.bkss");
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.create(true).read(true).append(true).open(&path);
    let file = file.map_err(unwritable(&path))?;
    let bytes = files::read(&path, MAX_LOG)?;
    let mut sdi = Sdi::new(identity, key, network);
    let whole = restore(&path, &bytes, &mut sdi)?;
    if whole < bytes.len() {
        let cut = file.set_len(whole as u64).and_then(|()| file.sync_all());
        cut.map_err(unwritable(&path))?;
    }
    Ok((sdi, FleetLog { path, file, _lock: lock }))
}

/// Takes in a log; returns where its last whole record ends.
///
/// # Errors
///
/// [`CommandError::Refused`] if there is something else in it.
pub(crate) fn restore(path: &Path, bytes: &[u8], sdi: &mut Sdi) -> Result<usize, CommandError> {
    let mut rest = bytes;
    while let Some(record) = next(path, bytes.len(), &mut rest)? {
        let at = bytes.len() - rest.len();
        let failed = format!("{}: record in front of byte {at}", path.display());
        let record = codec::decode("record", record).map_err(CommandError::refused(&failed))?;
        sdi.restore(&record).map_err(CommandError::refused(&failed))?;
    }
    Ok(bytes.len() - rest.len())
}

/// The next record; `None` at the end, or in front of a torn one.
fn next<'a>(
    path: &Path,
    length: usize,
    rest: &mut &'a [u8],
) -> Result<Option<&'a [u8]>, CommandError> {
    let Some((size, behind)) = rest.split_first_chunk::<2>() else { return Ok(None) };
    let size = usize::from(u16::from_be_bytes(*size));
    if behind.len() < size + CHECK || rest.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (record, behind) = behind.split_at(size);
    let (check, behind) = behind.split_at(CHECK);
    if hash::plain(record).0[..CHECK] != *check {
        let (path, at) = (path.display(), length - rest.len());
        return Err(CommandError::Refused(format!(
            "{path}: expected a record at byte {at}, found one with another checksum"
        )));
    }
    *rest = behind;
    Ok(Some(record))
}

fn lock(dir: &Path) -> Result<File, CommandError> {
    let path = dir.join("sdi.lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(unwritable(&path))?;
    let held = |_| CommandError::Usage(format!("{}: another process runs this SDI", dir.display()));
    file.try_lock().map_err(held)?;
    Ok(file)
}

impl FleetLog {
    /// Writes down what the SDI has done; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`CommandError::File`]; then nothing may leave the SDI.
    pub(crate) fn commit(&mut self, sdi: &mut Sdi) -> Result<(), CommandError> {
        let mut bytes = Vec::new();
        for record in sdi.take_records() {
            let mut encoded = Vec::new();
            codec::encode_infallible(&record, &mut encoded);
            // A record is shorter than 200 bytes.
            bytes.extend(u16::try_from(encoded.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(&encoded);
            bytes.extend(&hash::plain(&encoded).0[..CHECK]);
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        Ok(written.map_err(unwritable(&self.path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_scheme::{MeterId, ProviderId, SdiId, Slot, slot::Schedule};
    use bkss_sdi::Order;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    const NETWORK: Network = Network([5; 16]);

    fn order(meter: u32) -> Order {
        Order {
            meter: MeterId(meter),
            owner: ProviderId(1),
            schedule: Schedule { first: Slot(1000), slot_s: 900, window_s: 300, slots: 37 },
            serial: meter.to_string().into_bytes(),
            block_log2: 3,
            revocable_by_secret: false,
        }
    }

    #[test]
    fn a_fleet_survives_a_crash_at_any_byte_and_no_other_change() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("sdi");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        SdiKeys::make(SdiId(0), "sdi", false, &mut rng).unwrap().save(&dir).unwrap();
        let path = dir.join("fleet.bkss");
        let mut ends = vec![0];
        for meter in 1..=3 {
            let (mut sdi, mut log) = open(&dir, NETWORK).unwrap();
            assert!(open(&dir, NETWORK).is_err(), "one process at a time");
            sdi.offer(order(meter), &mut rng).unwrap();
            log.commit(&mut sdi).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len());
        }
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (sdi, _) = open(&dir, NETWORK).unwrap();
            let whole = ends[1..].iter().filter(|end| **end <= cut as u64).count();
            let known = (1..=3).filter(|meter| sdi.device(MeterId(*meter)).is_some()).count();
            assert_eq!(known, whole, "cut at {cut}");
            let left = std::fs::metadata(&path).unwrap().len();
            assert_eq!(left, ends[whole], "what is torn is cut off");
        }
        for at in [2, 20, bytes.len() / 2, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            std::fs::write(&path, altered).unwrap();
            let refused = open(&dir, NETWORK).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|refused| refused.contains("another checksum")), "{at}");
        }
    }
}
