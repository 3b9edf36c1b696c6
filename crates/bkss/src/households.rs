//! Households and what they consume: from an interval file, or from a seeded model.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bkss_scheme::{MeterId, reading::Decimal};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

/// Most bytes of a line: a year of quarter hours needs less than a third of it.
const MAX_LINE: u64 = 1 << 20;
/// Most characters of a file's value that an error repeats.
const MAX_QUOTE: usize = 24;

/// A meter and its values, kWh per quarter hour, oldest first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Household {
    /// `VID` of the file, or 1, 2, .. of the model.
    pub(crate) meter: MeterId,
    /// One value per slot.
    pub(crate) readings: Vec<Decimal>,
}

/// Why an interval file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: {reason}")]
    Line { path: PathBuf, line: u64, reason: String },
    #[error("{path}: {found} households, --meters asks for {expected}")]
    Households { path: PathBuf, expected: usize, found: usize },
}

/// Reads the first `slots` values of the first `meters` households of a wide interval file:
/// a header `VID,V001,V002,..`, then a line per household.
///
/// # Errors
///
/// [`DataError`], naming file, line, column and what was expected.
pub(crate) fn read_csv(
    path: &Path,
    meters: usize,
    slots: usize,
) -> Result<Vec<Household>, DataError> {
    let file = File::open(path)
        .map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
    parse(path, file, meters, slots)
}

fn parse(
    path: &Path,
    source: impl Read,
    meters: usize,
    slots: usize,
) -> Result<Vec<Household>, DataError> {
    let wrong = |line, reason| DataError::Line { path: path.to_owned(), line, reason };
    let mut rows = Rows::new(path, source);
    let Some((line, header)) = rows.next()? else {
        return Err(wrong(1, "expected a header VID,V001,.. and found nothing".into()));
    };
    let columns = check_header(&header, slots).map_err(|reason| wrong(line, reason))?;
    let mut households: Vec<Household> = Vec::new();
    let mut seen = BTreeMap::new();
    while households.len() < meters
        && let Some((line, record)) = rows.next()?
    {
        let household = parse_household(&record, columns, slots);
        let household = household.map_err(|reason| wrong(line, reason))?;
        if let Some(before) = seen.insert(household.meter, line) {
            let meter = household.meter;
            return Err(wrong(line, format!("VID {meter} is also in line {before}")));
        }
        households.push(household);
    }
    let (expected, found) = (meters, households.len());
    if found < expected {
        return Err(DataError::Households { path: path.to_owned(), expected, found });
    }
    Ok(households)
}

/// The lines of a file as records, with their numbers. The parser's own numbers are one short
/// behind line ends of two bytes.
struct Rows<'a, R> {
    path: &'a Path,
    reader: csv::Reader<Bounded<R>>,
    line: u64,
}

impl<'a, R: Read> Rows<'a, R> {
    fn new(path: &'a Path, source: R) -> Self {
        let bounded = Bounded { source, line: 1, length: 0, gap: false };
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .from_reader(bounded);
        Self { path, reader, line: 0 }
    }

    fn next(&mut self) -> Result<Option<(u64, csv::StringRecord)>, DataError> {
        let mut record = csv::StringRecord::new();
        self.line += 1;
        let any = self.reader.read_record(&mut record).map_err(|error| self.refusal(error))?;
        Ok(any.then_some((self.line, record)))
    }

    fn refusal(&self, error: csv::Error) -> DataError {
        let reached = self.reader.get_ref().line;
        match error.into_kind() {
            csv::ErrorKind::Io(source) => match source.kind() {
                io::ErrorKind::FileTooLarge => {
                    self.wrong(reached, &format!("longer than {MAX_LINE} bytes"))
                }
                io::ErrorKind::InvalidData => {
                    self.wrong(reached - 1, "expected a household, found nothing")
                }
                _ => DataError::Unreadable { path: self.path.to_owned(), source },
            },
            csv::ErrorKind::Utf8 { err, .. } => {
                self.wrong(self.line, &format!("column {}: expected UTF-8", err.field() + 1))
            }
            other => self.wrong(self.line, &format!("not comma-separated values: {other:?}")),
        }
    }

    fn wrong(&self, line: u64, reason: &str) -> DataError {
        DataError::Line { path: self.path.to_owned(), line, reason: reason.to_owned() }
    }
}

/// Stops at a line that is too long to be one, before all of it is in memory, and behind an empty
/// line, which the parser of records would not count.
struct Bounded<R> {
    source: R,
    /// Number of the line that is being read, and how much of it was.
    line: u64,
    length: u64,
    /// Whether the line before is empty.
    gap: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        for byte in &buffer[..count] {
            match *byte {
                b'\n' => {
                    self.gap |= self.length == 0;
                    (self.line, self.length) = (self.line + 1, 0);
                }
                b'\r' => {}
                _ if self.gap => return Err(io::ErrorKind::InvalidData.into()),
                _ if self.length == MAX_LINE => return Err(io::ErrorKind::FileTooLarge.into()),
                _ => self.length += 1,
            }
        }
        Ok(count)
    }
}

/// The number of columns with values.
fn check_header(header: &csv::StringRecord, slots: usize) -> Result<usize, String> {
    for (position, name) in header.iter().enumerate() {
        let expected = if position == 0 { "VID".into() } else { format!("V{position:03}") };
        if name != expected {
            return Err(format!(
                "column {}: expected {expected}, found {}",
                position + 1,
                quote(name)
            ));
        }
    }
    let columns = header.len() - 1;
    if columns < slots {
        return Err(format!("{columns} columns with values, --slots asks for {slots}"));
    }
    Ok(columns)
}

fn parse_household(
    record: &csv::StringRecord,
    columns: usize,
    slots: usize,
) -> Result<Household, String> {
    if record.len() != columns + 1 {
        return Err(format!("expected {} columns, found {}", columns + 1, record.len()));
    }
    let vid = record.get(0).unwrap_or_default();
    let number = Some(vid).filter(|vid| vid.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|vid| vid.parse().ok());
    let Some(number) = number else {
        return Err(format!("column 1: expected a VID of up to 4294967295, found {}", quote(vid)));
    };
    let value = |(column, text): (usize, &str)| {
        Decimal::parse(text).ok_or_else(|| {
            format!(
                "column {column}: expected kWh as a decimal of up to nine digits, found {}",
                quote(text)
            )
        })
    };
    // Every value is looked at, also of columns that are cut: a broken file is not used in part.
    let readings: Vec<_> = (2..).zip(record.iter().skip(1)).map(value).collect::<Result<_, _>>()?;
    Ok(Household { meter: MeterId(number), readings: readings[..slots].to_vec() })
}

/// A value as it is repeated in an error.
fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_QUOTE).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Households of a simple model: a base load, a refrigerator, mornings and evenings, here and
/// there a photovoltaic system that feeds in around noon. The same seed makes the same values.
pub(crate) fn model(seed: u64, meters: u32, slots: usize) -> Vec<Household> {
    let household = |number: u32| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(number));
        let mut below = |limit: u32| i32::try_from(rng.next_u32() % limit).unwrap_or(0);
        let base_wh = 20 + below(60);
        let refrigerator = usize::try_from(below(4)).unwrap_or(0);
        let peak_wh = 150 + below(500);
        let feeds_in = below(10) == 0;
        // Many registers count in steps of ten watt-hours.
        let coarse = below(3) == 0;
        let mut reading = |slot: usize| {
            let hour = slot / 4 % 24;
            let weekend = slot / 96 % 7 >= 5;
            let mut wh = base_wh + below(15);
            if slot % 4 == refrigerator {
                wh += 20;
            }
            let busy = match hour {
                6..=8 => !weekend,
                9..=11 => weekend,
                17..=21 => true,
                _ => false,
            };
            if busy && below(3) > 0 {
                wh += below(peak_wh.unsigned_abs());
            }
            if feeds_in && (10..=15).contains(&hour) {
                wh -= 100 + below(400);
            }
            if coarse {
                Decimal { value: wh / 10, exponent: -2 }
            } else {
                Decimal { value: wh, exponent: -3 }
            }
        };
        Household { meter: MeterId(number), readings: (0..slots).map(&mut reading).collect() }
    };
    (1..=meters).map(household).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8], meters: usize, slots: usize) -> Result<Vec<Household>, String> {
        parse(Path::new("f.csv"), text, meters, slots).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_taken_digit_by_digit() {
        let text = b"VID,V001,V002,V003\n7,0.01,0,-0.250\n9,1,2,3\n";
        let households = parsed(text, 1, 2).unwrap();
        assert_eq!(households.len(), 1);
        let values: Vec<_> = households[0].readings.iter().map(Decimal::to_string).collect();
        assert_eq!((households[0].meter, values), (MeterId(7), vec!["0.01".into(), "0".into()]));
        let all = parsed(text, 2, 3).unwrap();
        assert_eq!(all[0].readings[2].to_string(), "-0.250");
    }

    #[test]
    fn a_broken_file_is_refused_with_the_place() {
        for (text, meters, slots, expected) in [
            (&b""[..], 1, 1, "f.csv, line 1: expected a header VID,V001,.. and found nothing"),
            (b"id,V001\n", 1, 1, "f.csv, line 1: column 1: expected VID, found \"id\""),
            (b"VID,V001,V003\n", 1, 1, "f.csv, line 1: column 3: expected V002, found \"V003\""),
            (b"VID,V001\n7,1\n", 1, 2, "f.csv, line 1: 1 columns with values, --slots asks for 2"),
            (b"VID,V001\n7,1\n", 2, 1, "f.csv: 1 households, --meters asks for 2"),
            (b"VID,V001\n7,1,2\n", 1, 1, "f.csv, line 2: expected 2 columns, found 3"),
            (b"VID,V001\n7\n", 1, 1, "f.csv, line 2: expected 2 columns, found 1"),
            (b"VID,V001\n7,1\n7,1\n", 2, 1, "f.csv, line 3: VID 7 is also in line 2"),
            (
                b"VID,V001\n-7,1\n",
                1,
                1,
                "f.csv, line 2: column 1: expected a VID of up to 4294967295, found \"-7\"",
            ),
            (b"VID,V001\n", 1, 1, "f.csv: 0 households, --meters asks for 1"),
            (b"VID,V001\n7,1\n\n8,1\n", 1, 1, "f.csv, line 3: expected a household, found nothing"),
            (b"VID,V001\r\n7,1\r\n8\r\n", 2, 1, "f.csv, line 3: expected 2 columns, found 1"),
            (b"VID,V001\n7,\xFF\n", 1, 1, "f.csv, line 2: column 2: expected UTF-8"),
            (
                b"VID,V001\n\"7,1\n",
                1,
                1,
                "f.csv, line 2: column 1: expected a VID of up to 4294967295, found \"\\\"7\"",
            ),
        ] {
            assert_eq!(parsed(text, meters, slots), Err(expected.into()));
        }
        for value in ["NaN", "abc", "", "1e3", "1,5", "0.1234567890", "--1", "inf", "1 "] {
            let text = format!("VID,V001,V002\n7,1,{}\n", value.replace(',', ";"));
            let error = parsed(text.as_bytes(), 1, 1).unwrap_err();
            assert!(error.starts_with("f.csv, line 2: column 3: expected kWh"), "{error}");
        }
    }

    #[test]
    fn a_file_that_was_cut_is_refused() {
        let text = b"VID,V001,V002\n7,0.01,0.2\n9,0.31,-0.42\n";
        assert!(parsed(text, 2, 2).is_ok());
        assert!(parsed(&text[..text.len() - 1], 2, 2).is_ok(), "the last line break may miss");
        // Only a cut inside the very last value cannot be told from a shorter value.
        for length in 0..text.len() - 4 {
            assert!(parsed(&text[..length], 2, 2).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn line_ends_of_windows_empty_lines_at_the_end_and_a_byte_order_mark_change_nothing() {
        let text = b"\xEF\xBB\xBFVID,V001\r\n7,0.01\r\n\r\n";
        assert_eq!(parsed(text, 1, 1).unwrap()[0].readings[0].to_string(), "0.01");
    }

    #[test]
    fn an_endless_line_is_not_read_to_its_end() {
        let endless = b"VID,V001\n7,".chain(io::repeat(b'1'));
        let error = parse(Path::new("f.csv"), endless, 1, 1).unwrap_err().to_string();
        assert_eq!(error, "f.csv, line 2: longer than 1048576 bytes");
    }

    #[test]
    fn the_model_is_its_seeds() {
        let homes = model(1, 30, 96);
        assert_eq!(homes, model(1, 30, 96));
        assert_ne!(homes, model(2, 30, 96));
        assert_eq!(homes[..10], model(1, 10, 96)[..], "a household does not depend on the others");
        let readings = || homes.iter().flat_map(|home| &home.readings);
        assert!(readings().any(|reading| reading.value < 0), "some feed in");
        for exponent in [-2, -3] {
            assert!(readings().any(|reading| reading.exponent == exponent));
        }
        let first = homes[..2].iter().flat_map(|home| &home.readings[28..32]);
        let first: Vec<_> = first.map(Decimal::to_string).collect();
        let expected = expect_test::expect!["0.393 0.173 0.071 0.086 0.029 0.059 0.048 0.228"];
        expected.assert_eq(&first.join(" "));
    }
}
