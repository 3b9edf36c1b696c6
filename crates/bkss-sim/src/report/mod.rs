//! What a command of `bkss paper` makes: sheets of cells and pictures, as text, JSON and one HTML
//! page.

pub mod chart;
mod html;

use serde_json::{Map, Value, json};

pub use html::page;

/// A cell of a sheet.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number with so many digits behind the point.
    Number(f64, usize),
    /// Not to be had, and not invented.
    NotAvailable,
}

impl Cell {
    /// A number, or not available.
    pub fn maybe(value: Option<f64>, digits: usize) -> Self {
        value.map_or(Self::NotAvailable, |value| Self::Number(value, digits))
    }

    /// As people read it.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value, digits) => grouped(*value, *digits),
            Self::NotAvailable => "n/a".to_owned(),
        }
    }

    const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(value, _) => json!(value),
            Self::NotAvailable => Value::Null,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Digits in groups of three.
fn grouped(value: f64, digits: usize) -> String {
    let plain = format!("{value:.digits$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut groups = String::new();
    for (place, digit) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if place > 0 && left.is_multiple_of(3) && !groups.ends_with('-') {
            groups.push(' ');
        }
        groups.push(digit);
    }
    groups + rest
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// Short name, for links and JSON.
    pub id: &'static str,
    /// What it shows.
    pub title: String,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
    /// What has to be said about it.
    pub notes: Vec<String>,
}

impl Sheet {
    /// An empty sheet.
    pub fn new(id: &'static str, title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { id, title: title.to_owned(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a remark.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Lines of text with aligned columns.
    pub fn text(&self) -> String {
        let shown: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()).collect();
        let width = |column: usize| {
            let cells = shown.iter().filter_map(|row| row.get(column));
            cells.chain(self.columns.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<_> = (0..self.columns.len()).filter_map(width).collect();
        let line = |cells: &[String], texts: &[bool]| {
            let mut line = String::new();
            for ((cell, width), text) in cells.iter().zip(&widths).zip(texts) {
                let fill = " ".repeat(width - cell.chars().count());
                line += "  ";
                line += &if *text { format!("{cell}{fill}") } else { format!("{fill}{cell}") };
            }
            line.trim_end().to_owned()
        };
        let texts: Vec<_> = (0..self.columns.len())
            .map(|at| self.rows.iter().all(|row| row.get(at).is_some_and(Cell::is_text)))
            .collect();
        let mut lines = vec![format!("{}: {}", self.id, self.title), line(&self.columns, &texts)];
        lines.extend(shown.iter().map(|row| line(row, &texts)));
        lines.extend(self.notes.iter().map(|note| format!("  * {note}")));
        lines.join("\n")
    }

    /// Rows as objects; what is not available is `null`.
    pub fn json(&self) -> Value {
        let row = |cells: &Vec<Cell>| {
            let named = self.columns.iter().cloned().zip(cells.iter().map(Cell::json));
            Value::Object(named.collect::<Map<_, _>>())
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({ "id": self.id, "title": self.title, "rows": rows, "notes": self.notes })
    }
}

/// A picture.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Short name, for links and files.
    pub id: &'static str,
    /// What it shows.
    pub title: String,
    /// As vectors.
    pub svg: String,
    /// As pixels.
    pub png: Vec<u8>,
}

/// What one item of the paper comes to.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Its tables.
    pub sheets: Vec<Sheet>,
    /// Its pictures.
    pub figures: Vec<Figure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_what_is_missing_is_said() {
        for (value, digits, shown) in [
            (0.0, 0, "0"),
            (999.0, 0, "999"),
            (1234.5, 1, "1 234.5"),
            (-1_234_567.0, 0, "-1 234 567"),
            (-123.25, 2, "-123.25"),
        ] {
            assert_eq!(Cell::Number(value, digits).shown(), shown);
        }
        assert_eq!(Cell::maybe(None, 1).shown(), "n/a");
    }

    #[test]
    fn a_sheet_is_text_and_json() {
        let mut sheet = Sheet::new("table-0", "nothing", &["name", "ms"]);
        sheet.rows.push(vec!["one".into(), Cell::Number(1.25, 2)]);
        sheet.rows.push(vec!["eleven".into(), Cell::NotAvailable]);
        sheet.note("a remark");
        assert_eq!(
            sheet.text(),
            "table-0: nothing\n  name      ms\n  one     1.25\n  eleven   n/a\n  * a remark"
        );
        assert_eq!(sheet.json()["rows"][0], json!({ "name": "one", "ms": 1.25 }));
        assert_eq!(sheet.json()["rows"][1]["ms"], Value::Null);
    }
}
