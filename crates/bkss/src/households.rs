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

use crate::{
    explain::{Details, Explain},
    meter_ids,
    text::{shown, shown_path},
};

/// Most bytes of a line: three years of quarter hours need less.
const MAX_LINE: u64 = 1 << 20;
/// Most characters of a file's value that an error repeats.
const MAX_QUOTE: usize = 24;
/// Decimals of the finest value that a file can have.
const FINEST: i32 = 9;

/// A meter and its values, kWh per interval, oldest first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Household {
    /// Its number on the ledger.
    pub(crate) meter: MeterId,
    /// One value per slot.
    pub(crate) readings: Vec<Decimal>,
}

/// A line of an interval file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    /// The meter, as the file names it.
    pub(crate) id: String,
    /// Number of the line.
    line: u64,
    readings: Vec<Decimal>,
}

/// What is taken of a file; all of it without a number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    /// The first households.
    pub(crate) meters: Option<u32>,
    /// The first values of each.
    pub(crate) slots: Option<u32>,
}

/// An interval file, or what a model has made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Table {
    rows: Vec<Row>,
    /// Values of each row.
    columns: usize,
    /// What is taken of both.
    taken: (usize, usize),
}

/// Why an interval file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("{}: {source}", shown_path(path))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: {reason}", shown_path(path))]
    Line { path: PathBuf, line: u64, reason: String },
    #[error("{}: {found} households, --meters asks for {expected}", shown_path(path))]
    Households { path: PathBuf, expected: usize, found: usize },
    #[error(
        "{}: {found} {what}, at most {most} can be run: {option} takes the first",
        shown_path(path)
    )]
    TooMany { path: PathBuf, what: &'static str, option: &'static str, found: usize, most: u32 },
    #[error(
        "{path}: expected meter {id}, which an earlier run into this directory had, found none"
    )]
    Gone { path: PathBuf, id: String },
    #[error(
        "{}, line {line}, column {column}: expected {expected}, as in the earlier run into this \
         directory, found {found}: a corrected file is replayed into another --out",
        shown_path(path)
    )]
    Changed { path: PathBuf, line: u64, column: usize, expected: String, found: String },
}

impl Explain for DataError {
    fn explain(&self) -> Details {
        let malformed = |path| Details::new("malformed").file(path);
        match self {
            Self::Unreadable { path, .. } => Details::new("unreadable").file(path),
            Self::Line { path, line, .. } => malformed(path).line(*line),
            Self::Households { path, expected, found } => {
                Details::new("usage").file(path).expected(expected, found)
            }
            Self::TooMany { path, most, found, .. } => {
                Details::new("usage").file(path).expected(format!("at most {most}"), found)
            }
            Self::Gone { path, .. } => Details::new("refused").file(path),
            Self::Changed { path, line, expected, found, .. } => {
                let failure = Details::new("refused").file(path).line(*line);
                failure.expected(expected, found)
            }
        }
    }
}

impl Table {
    /// Takes the households that are asked for, each by the number that `number` gives it.
    ///
    /// # Errors
    ///
    /// Those of `number`.
    pub(crate) fn households<E>(
        &self,
        mut number: impl FnMut(&str) -> Result<MeterId, E>,
    ) -> Result<Vec<Household>, E> {
        let (meters, slots) = self.taken;
        let household = |row: &Row| {
            Ok(Household { meter: number(&row.id)?, readings: row.readings[..slots].to_vec() })
        };
        self.rows[..meters].iter().map(household).collect()
    }

    /// Ids of the households that are taken.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.rows[..self.taken.0].iter().map(|row| &*row.id)
    }

    /// Values of each household that are taken.
    pub(crate) const fn slots(&self) -> usize {
        self.taken.1
    }

    /// How much there is, and how much of it is taken.
    pub(crate) fn size(&self) -> String {
        let of = |taken: usize, all: usize| {
            if taken == all { all.to_string() } else { format!("{taken} of {all}") }
        };
        let (meters, slots) = self.taken;
        let (meters, slots) = (of(meters, self.rows.len()), of(slots, self.columns));
        format!("{meters} households with {slots} values each")
    }

    /// Whether everything that an earlier table has is in this one, of the file at `path`, unchanged.
    ///
    /// # Errors
    ///
    /// [`DataError`], naming the first difference.
    pub(crate) fn check_contains(&self, earlier: &Self, path: &Path) -> Result<(), DataError> {
        let rows: BTreeMap<_, _> = self.rows.iter().map(|row| (&*row.id, row)).collect();
        for before in &earlier.rows {
            let Some(row) = rows.get(&*before.id) else {
                return Err(DataError::Gone { path: path.to_owned(), id: shown(&before.id) });
            };
            for (at, old) in before.readings.iter().enumerate() {
                let new = row.readings.get(at);
                if new.is_some_and(|new| finest(new) == finest(old)) {
                    continue;
                }
                return Err(DataError::Changed {
                    path: path.to_owned(),
                    line: row.line,
                    column: at + 2,
                    expected: old.to_string(),
                    found: new.map_or_else(|| "nothing".to_owned(), Decimal::to_string),
                });
            }
        }
        Ok(())
    }
}

/// A value of a file in units of the finest that one can have.
fn finest(value: &Decimal) -> i64 {
    let digits = u32::try_from(FINEST + i32::from(value.exponent)).unwrap_or(0);
    i64::from(value.value) * 10_i64.pow(digits)
}

/// Reads a wide interval file: a header `VID,V001,V002,..`, then a line per household. All of it is
/// looked at, also what is not taken: a broken file is not used in part. Returns its bytes as well.
///
/// # Errors
///
/// [`DataError`], naming file, line, column and what was expected.
pub(crate) fn read_csv(
    path: &Path,
    cut: Cut,
    most_meters: u32,
    most_slots: u32,
) -> Result<(Table, Vec<u8>), DataError> {
    let file = File::open(path)
        .map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
    let mut bytes = Vec::new();
    let table = parse(path, Copied { source: file, copy: &mut bytes }, cut)?;
    let (meters, slots) = table.taken;
    for (what, option, found, most) in [
        ("households", "--meters", meters, most_meters),
        ("values each", "--slots", slots, most_slots),
    ] {
        if found > most as usize {
            return Err(DataError::TooMany { path: path.to_owned(), what, option, found, most });
        }
    }
    Ok((table, bytes))
}

/// The file that an earlier run has read, as it kept it.
///
/// # Errors
///
/// [`DataError`].
pub(crate) fn read_kept(path: &Path) -> Result<Table, DataError> {
    Ok(read_csv(path, Cut::default(), u32::MAX, u32::MAX)?.0)
}

fn parse(path: &Path, source: impl Read, cut: Cut) -> Result<Table, DataError> {
    let wrong = |line, reason| DataError::Line { path: path.to_owned(), line, reason };
    let mut lines = Rows::new(path, source);
    let Some((line, header)) = lines.next()? else {
        return Err(wrong(1, "expected a header VID,V001,.. and found nothing".into()));
    };
    let columns = check_header(&header, cut.slots).map_err(|reason| wrong(line, reason))?;
    let mut rows: Vec<Row> = Vec::new();
    let mut seen = BTreeMap::new();
    while let Some((line, record)) = lines.next()? {
        let row = parse_row(line, &record, columns).map_err(|reason| wrong(line, reason))?;
        if let Some(before) = seen.insert(row.id.clone(), line) {
            let id = shown(&row.id);
            return Err(wrong(line, format!("VID {id} is also in line {before}")));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(wrong(2, "expected a household behind the header, found none".into()));
    }
    let (expected, found) = (cut.meters.map_or(1, |meters| meters as usize), rows.len());
    if found < expected {
        return Err(DataError::Households { path: path.to_owned(), expected, found });
    }
    let meters = cut.meters.map_or(found, |meters| meters as usize);
    let slots = cut.slots.map_or(columns, |slots| slots as usize);
    Ok(Table { rows, columns, taken: (meters, slots) })
}

/// Keeps what is read.
struct Copied<'a, R> {
    source: R,
    copy: &'a mut Vec<u8>,
}

impl<R: Read> Read for Copied<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copy.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
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
fn check_header(header: &csv::StringRecord, slots: Option<u32>) -> Result<usize, String> {
    for (position, name) in header.iter().enumerate() {
        let expected = if position == 0 { "VID".into() } else { format!("V{position:03}") };
        if name != expected {
            let hint =
                if name.contains([';', '\t']) { ": columns are separated by commas" } else { "" };
            let column = position + 1;
            return Err(format!(
                "column {column}: expected {expected}, found {}{hint}",
                quote(name)
            ));
        }
    }
    let columns = header.len() - 1;
    let expected = slots.unwrap_or(1);
    if columns < expected as usize {
        return Err(format!("{columns} columns with values, --slots asks for {expected}"));
    }
    Ok(columns)
}

fn parse_row(line: u64, record: &csv::StringRecord, columns: usize) -> Result<Row, String> {
    if record.len() != columns + 1 {
        return Err(format!("expected {} columns, found {}", columns + 1, record.len()));
    }
    let id = record.get(0).unwrap_or_default();
    meter_ids::check(id)
        .map_err(|expected| format!("column 1: expected {expected}, found {}", quote(id)))?;
    let value = |(column, text): (usize, &str)| {
        Decimal::parse(text).map_err(|reason| {
            format!("column {column}: expected kWh as a decimal, found {}: {reason}", quote(text))
        })
    };
    let readings = (2..).zip(record.iter().skip(1)).map(value).collect::<Result<_, _>>()?;
    Ok(Row { id: id.to_owned(), line, readings })
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
pub(crate) fn model(seed: u64, meters: u32, slots: u32) -> Table {
    let row = |number: u32| {
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
        let readings = (0..slots as usize).map(&mut reading).collect();
        Row { id: number.to_string(), line: 0, readings }
    };
    let rows = (1..=meters).map(row).collect();
    let taken = (meters as usize, slots as usize);
    Table { rows, columns: taken.1, taken }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8], meters: u32, slots: u32) -> Result<Table, String> {
        let cut = Cut { meters: Some(meters), slots: Some(slots) };
        parse(Path::new("f.csv"), text, cut).map_err(|error| error.to_string())
    }

    fn all(text: &[u8]) -> Table {
        parse(Path::new("f.csv"), text, Cut::default()).unwrap()
    }

    fn values(table: &Table) -> Vec<(String, Vec<String>)> {
        let (meters, slots) = table.taken;
        let texts = |row: &Row| row.readings[..slots].iter().map(Decimal::to_string).collect();
        table.rows[..meters].iter().map(|row| (row.id.clone(), texts(row))).collect()
    }

    #[test]
    fn values_are_taken_digit_by_digit_and_ids_letter_by_letter() {
        let text = b"VID,V001,V002,V003\n0007,0.01,0,-0.250\nAT 9,001,.2,3.\n";
        let table = parsed(text, 1, 2).unwrap();
        assert_eq!(values(&table), [("0007".into(), vec!["0.01".into(), "0".into()])]);
        assert_eq!(table.size(), "1 of 2 households with 2 of 3 values each");
        let table = all(text);
        assert_eq!(values(&table)[1], ("AT 9".into(), vec!["1".into(), "0.2".into(), "3".into()]));
        assert_eq!(table.size(), "2 households with 3 values each");
        let numbered =
            table.households(|id| Ok::<_, ()>(MeterId(u32::try_from(id.len()).unwrap()))).unwrap();
        assert_eq!(numbered[1].readings, table.rows[1].readings);
        assert_eq!(numbered[0].meter, MeterId(4));
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
            (b"VID,V001\n7,1\n7,1\n", 1, 1, "f.csv, line 3: VID 7 is also in line 2"),
            (b"VID,V001\n7,1\n8\n", 1, 1, "f.csv, line 3: expected 2 columns, found 1"),
            (
                b"VID,V001\n ,1\n",
                1,
                1,
                "f.csv, line 2: column 1: expected a meter's id without quotes, control characters or \
                 spaces around it, found \" \"",
            ),
            (
                b"VID,V001\n",
                1,
                1,
                "f.csv, line 2: expected a household behind the header, found none",
            ),
            (
                b"VID;V001\n7;1\n",
                1,
                1,
                "f.csv, line 1: column 1: expected VID, found \"VID;V001\": columns are separated by commas",
            ),
            (b"VID,V001\n7,1\n\n8,1\n", 1, 1, "f.csv, line 3: expected a household, found nothing"),
            (b"VID,V001\r\n7,1\r\n8\r\n", 2, 1, "f.csv, line 3: expected 2 columns, found 1"),
            (b"VID,V001\n7,\xFF\n", 1, 1, "f.csv, line 2: column 2: expected UTF-8"),
            (
                b"VID,V001\n\"7,1\n",
                1,
                1,
                "f.csv, line 2: column 1: expected a meter's id without quotes, control characters or \
                 spaces around it, found \"\\\"7\"",
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
        assert_eq!(values(&parsed(text, 1, 1).unwrap()), [("7".into(), vec!["0.01".into()])]);
    }

    #[test]
    fn an_endless_line_is_not_read_to_its_end() {
        let endless = b"VID,V001\n7,".chain(io::repeat(b'1'));
        let error = parse(Path::new("f.csv"), endless, Cut::default()).unwrap_err().to_string();
        assert_eq!(error, "f.csv, line 2: longer than 1048576 bytes");
    }

    #[test]
    fn a_file_is_read_whole_unless_it_is_too_long_or_less_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        let text = b"VID,V001,V002\n7,1,2\n8,3,4\n";
        std::fs::write(&path, text).unwrap();
        let (table, bytes) = read_csv(&path, Cut::default(), 2, 2).unwrap();
        assert_eq!((table.taken, &bytes[..]), ((2, 2), &text[..]));
        let refused = |cut, meters, slots| {
            let error = read_csv(&path, cut, meters, slots).unwrap_err().to_string();
            error.replace(&path.display().to_string(), "f.csv")
        };
        let expected = "f.csv: 2 households, at most 1 can be run: --meters takes the first";
        assert_eq!(refused(Cut::default(), 1, 2), expected);
        let expected = "f.csv: 2 values each, at most 1 can be run: --slots takes the first";
        assert_eq!(refused(Cut::default(), 2, 1), expected);
        assert!(read_csv(&path, Cut { meters: Some(1), slots: Some(1) }, 1, 1).is_ok());
    }

    #[test]
    fn a_difference_from_an_earlier_file_is_named() {
        let earlier = all(b"VID,V001,V002\n7,1,0.25\n8,3,4\n");
        let differs = |text: &[u8]| {
            let checked = all(text).check_contains(&earlier, Path::new("f.csv"));
            checked.map_err(|error| error.to_string())
        };
        for same in [
            &b"VID,V001,V002\n7,1,0.25\n8,3,4\n"[..],
            b"VID,V001,V002\n8,3,4\n7,1,0.250\n",
            b"VID,V001,V002,V003\n7,1,0.25,9\n8,3,4,9\n9,1,1,1\n",
        ] {
            assert_eq!(differs(same), Ok(()));
        }
        let again = "a corrected file is replayed into another --out";
        let run = "as in the earlier run into this directory";
        for (text, expected) in [
            (
                &b"VID,V001,V002\n8,3,4\n7,1,0.30\n"[..],
                format!("f.csv, line 3, column 3: expected 0.25, {run}, found 0.30: {again}"),
            ),
            (
                b"VID,V001\n7,1\n8,3\n",
                format!("f.csv, line 2, column 3: expected 0.25, {run}, found nothing: {again}"),
            ),
            (
                b"VID,V001,V002\n8,3,4\n07,1,0.25\n",
                "f.csv: expected meter 7, which an earlier run into this directory had, found none"
                    .into(),
            ),
        ] {
            assert_eq!(differs(text), Err(expected));
        }
    }

    #[test]
    fn the_model_is_its_seeds() {
        let homes = model(1, 30, 96).rows;
        assert_eq!(homes, model(1, 30, 96).rows);
        assert_ne!(homes, model(2, 30, 96).rows);
        let ten = model(1, 10, 96).rows;
        assert_eq!(homes[..10], ten[..], "a household does not depend on the others");
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
