//! The names that a utility has for its meters, and the numbers that they have on the ledger.
//!
//! Metering points and serials are texts: `0007` is not `7`, and many are longer than any number. The
//! ledger knows numbers. A table says which is whose, a line for each: a text that is such a number
//! keeps it, any other gets one that is not taken.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bkss_scheme::{MeterId, identity::is_printable_char};

use crate::{
    command::CommandError,
    files::{self, FileError, Readers},
    text::shown,
};

/// First line of a table.
const HEADER: &str = "id,meter";
/// Most bytes of a table: some millions of meters.
const MAX_TABLE: u64 = 256 << 20;
/// Most bytes of a name.
const MAX_ID: usize = 64;
/// The first number for names that are no numbers; few utilities count that far.
const FIRST: u32 = 2_000_000_001;

/// Names and numbers of meters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct MeterIds {
    numbers: BTreeMap<String, MeterId>,
    ids: BTreeMap<MeterId, String>,
}

impl MeterIds {
    /// Reads a table.
    ///
    /// # Errors
    ///
    /// [`CommandError`], naming the line.
    pub(crate) fn load(path: &Path) -> Result<Self, CommandError> {
        let bytes = files::read(path, MAX_TABLE)?;
        Self::parse(&bytes).map_err(|(line, reason)| CommandError::Line {
            path: path.to_owned(),
            line,
            reason,
        })
    }

    /// Reads a table if it is there.
    ///
    /// # Errors
    ///
    /// [`CommandError`], naming the line.
    pub(crate) fn load_if_any(path: &Path) -> Result<Self, CommandError> {
        if path.exists() { Self::load(path) } else { Ok(Self::default()) }
    }

    fn parse(bytes: &[u8]) -> Result<Self, (u64, String)> {
        let text = std::str::from_utf8(bytes).map_err(|_| (1, "expected UTF-8".into()))?;
        let mut lines = (1..).zip(text.lines());
        if lines.next().is_none_or(|(_, header)| header != HEADER) {
            return Err((1, format!("expected the header {HEADER}")));
        }
        let mut table = Self::default();
        for (at, line) in lines {
            let row = line.rsplit_once(',').filter(|(id, _)| check(id).is_ok());
            let row = row.and_then(|(id, number)| Some((id, plain_number(number)?)));
            let Some((id, number)) = row else {
                return Err((at, format!("expected a meter's id and its number, found {line:?}")));
            };
            if table.ids.contains_key(&number) || table.numbers.contains_key(id) {
                return Err((at, format!("id or number of {line:?} are in the table already")));
            }
            table.insert(id, number);
        }
        Ok(table)
    }

    /// Writes the table, by number; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`FileError::Unwritable`].
    pub(crate) fn save(&self, path: &Path) -> Result<(), FileError> {
        let mut text = format!("{HEADER}\n");
        for (number, id) in &self.ids {
            text.extend([id, ",", &number.to_string(), "\n"]);
        }
        files::replace(path, text.as_bytes(), Readers::All)
    }

    /// The number of a name, a new one if it has none yet. `is_taken` says of a number whether it is
    /// another meter's.
    ///
    /// # Errors
    ///
    /// What is wrong with the name, in words, or what `is_taken` fails with.
    pub(crate) fn number<E: From<CommandError>>(
        &mut self,
        id: &str,
        mut is_taken: impl FnMut(MeterId) -> Result<bool, E>,
    ) -> Result<MeterId, E> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        if let Some(number) = plain_number(id) {
            if let Some(other) = self.ids.get(&number) {
                let other = shown(other);
                let reason = format!("meter {id}: the table gives this number to {other}");
                return Err(CommandError::Usage(reason).into());
            }
            self.insert(id, number);
            return Ok(number);
        }
        let newest = self.ids.range(MeterId(FIRST)..).next_back();
        let mut next = newest.map_or(FIRST, |(newest, _)| newest.0.saturating_add(1));
        while self.ids.contains_key(&MeterId(next)) || is_taken(MeterId(next))? {
            let Some(behind) = next.checked_add(1) else {
                return Err(CommandError::Usage("no number is left for a meter".into()).into());
            };
            next = behind;
        }
        self.insert(id, MeterId(next));
        Ok(MeterId(next))
    }

    /// Notes the number that a meter has already.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`] if the table says otherwise.
    pub(crate) fn keep(&mut self, id: &str, number: MeterId) -> Result<(), CommandError> {
        let (noted, other) = (self.numbers.get(id), self.ids.get(&number));
        match (noted, other) {
            (None, None) => self.insert(id, number),
            (Some(noted), _) if *noted == number => {}
            _ => {
                let id = shown(id);
                return Err(CommandError::Usage(format!(
                    "meter {id}: its SDI knows it by number {number}, the table says otherwise"
                )));
            }
        }
        Ok(())
    }

    /// The name of a meter.
    pub(crate) fn id(&self, meter: MeterId) -> Option<&str> {
        self.ids.get(&meter).map(String::as_str)
    }

    fn insert(&mut self, id: &str, number: MeterId) {
        self.numbers.insert(id.to_owned(), number);
        self.ids.insert(number, id.to_owned());
    }
}

/// Whether a text can name a meter.
///
/// # Errors
///
/// What is expected.
pub(crate) fn check(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err("a meter's id of 1 to 64 bytes");
    }
    if id.trim() != id || id.contains(['"', ',']) || !id.chars().all(is_printable_char) {
        return Err("a meter's id without quotes, control characters or spaces around it");
    }
    Ok(())
}

/// A number as it is on the ledger, written without zeros in front.
fn plain_number(text: &str) -> Option<MeterId> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).map(MeterId)
}

/// Which meter a command is about.
#[derive(clap::Args, Debug)]
pub(crate) struct MeterArgs {
    /// The meter: its number on the ledger, or its id in the table
    #[arg(long, value_name = "METER")]
    meter: String,
    /// Table of ids and numbers, CSV: id,meter, as bkss replay writes it (meters.csv)
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

impl MeterArgs {
    /// Its number. An id of the table comes first.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn number(&self) -> Result<MeterId, CommandError> {
        let table = self.table.as_deref().map(MeterIds::load).transpose()?;
        let listed = table.as_ref().and_then(|table| table.numbers.get(&self.meter).copied());
        listed.or_else(|| plain_number(&self.meter)).ok_or_else(|| {
            let expected = match &self.table {
                None => "a number up to 4294967295, or an id and its --table".to_owned(),
                Some(path) => format!("an id of {}, or a number up to 4294967295", path.display()),
            };
            CommandError::Usage(format!("--meter {:?}: expected {expected}", self.meter))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(table: &mut MeterIds, id: &str) -> Result<u32, String> {
        let taken = |number: MeterId| Ok::<_, CommandError>(number.0 == FIRST + 1);
        table.number(id, taken).map(|number| number.0).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_are_texts_and_each_has_a_number_of_its_own() {
        let mut table = MeterIds::default();
        for (id, expected) in [
            ("7", 7),
            ("0007", FIRST),
            ("AT0010000000000000001000000000001", FIRST + 2),
            ("4294967295", u32::MAX),
            ("7", 7),
            ("0007", FIRST),
        ] {
            assert_eq!(number(&mut table, id), Ok(expected), "{id}");
        }
        let refused = number(&mut table, &FIRST.to_string()).unwrap_err();
        assert_eq!(refused, "meter 2000000001: the table gives this number to 0007");
        assert_eq!(table.id(MeterId(FIRST)), Some("0007"));
        assert!(
            table.keep("0007", MeterId(FIRST)).is_ok() && table.keep("new", MeterId(9)).is_ok()
        );
        for (id, taken) in [("0007", 12), ("another", FIRST)] {
            let error = table.keep(id, MeterId(taken)).unwrap_err().to_string();
            assert!(error.contains("the table says otherwise"), "{error}");
        }
    }

    #[test]
    fn a_table_comes_back_and_a_broken_one_names_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meters.csv");
        let mut table = MeterIds::default();
        for id in ["7", "0007", "Zähler 9"] {
            number(&mut table, id).unwrap();
        }
        table.save(&path).unwrap();
        assert_eq!(MeterIds::load(&path).unwrap(), table);
        for (text, reason) in [
            ("", "line 1: expected the header id,meter"),
            ("id;meter\n", "line 1: expected the header id,meter"),
            ("id,meter\n7\n", "line 2: expected a meter's id and its number, found \"7\""),
            ("id,meter\n7,07\n", "line 2: expected a meter's id and its number"),
            ("id,meter\n,7\n", "line 2: expected a meter's id and its number"),
            ("id,meter\nA,7\nB,7\n", "line 3: id or number of \"B,7\" are in the table already"),
            ("id,meter\nA,7\nA,8\n", "line 3: id or number of \"A,8\" are in the table already"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = MeterIds::load(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_command_takes_an_id_of_the_table_or_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meters.csv");
        std::fs::write(&path, "id,meter\n0007,2000000001\n9,9\n").unwrap();
        let meter = |meter: &str, table: bool| {
            let table = table.then(|| path.clone());
            let args = MeterArgs { meter: meter.into(), table };
            args.number().map(|number| number.0).map_err(|error| error.to_string())
        };
        assert_eq!(meter("0007", true), Ok(2_000_000_001));
        assert_eq!(
            (meter("9", true), meter("12", true), meter("12", false)),
            (Ok(9), Ok(12), Ok(12))
        );
        let expected =
            "--meter \"0007\": expected a number up to 4294967295, or an id and its --table";
        assert_eq!(meter("0007", false), Err(expected.into()));
        assert!(meter("008", true).unwrap_err().contains("expected an id of"));
    }
}
