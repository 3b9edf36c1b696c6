//! What programs are told of a failure: `{"error": {"kind", "message", "file", "line", "expected",
//! "found"}}`, of which the last four are there if they are known.
//!
//! People get the message alone. Each kind of error says here what it knows.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// What is known of a failure beside its message.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// One of: `usage`, `unreadable`, `unwritable`, `malformed`, `refused`, `unreachable`, `busy`,
    /// `stopped`, `failed`.
    kind: &'static str,
    file: Option<PathBuf>,
    line: Option<u64>,
    expected: Option<String>,
    found: Option<String>,
}

impl Details {
    /// Of a kind.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, ..Self::default() }
    }

    /// It is about this file.
    pub(crate) fn file(self, file: &Path) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }

    /// What would have been right.
    pub(crate) fn expected(self, expected: impl Display, found: impl Display) -> Self {
        let (expected, found) = (Some(expected.to_string()), Some(found.to_string()));
        Self { expected, found, ..self }
    }

    /// The line of the file.
    pub(crate) fn line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The file, if it is not what was expected.
    pub(crate) fn misshapen(&self) -> Option<&Path> {
        self.file.as_deref().filter(|_| self.kind == "malformed")
    }

    /// Whether it is about a line.
    pub(crate) const fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// The object.
    pub(crate) fn json(&self, message: &str) -> Value {
        let mut value = json!({ "kind": self.kind, "message": message });
        if let Some(file) = &self.file {
            value["file"] = file.display().to_string().into();
        }
        if let Some(line) = self.line {
            value["line"] = line.into();
        }
        if let (Some(expected), Some(found)) = (&self.expected, &self.found) {
            value["expected"] = expected.as_str().into();
            value["found"] = found.as_str().into();
        }
        value
    }
}

/// An error that says to programs what it knows.
pub(crate) trait Explain: Display {
    /// What is known beside the message.
    fn explain(&self) -> Details;
}

/// An error of which no more is known than its message and its kind.
#[derive(Debug)]
pub(crate) struct Plain<E>(pub(crate) &'static str, pub(crate) E);

impl<E: Display> Display for Plain<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.1.fmt(f)
    }
}

impl<E: Display> Explain for Plain<E> {
    fn explain(&self) -> Details {
        Details::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_failure_is_told_and_nothing_else() {
        let known = Details::new("malformed").file(Path::new("week.csv")).line(3);
        let object = known.expected("0.25", "0.30").json("message");
        let expected = json!({
            "kind": "malformed",
            "message": "message",
            "file": "week.csv",
            "line": 3,
            "expected": "0.25",
            "found": "0.30",
        });
        assert_eq!(object, expected);
        let plain = Plain("usage", "--start: not after 1970");
        let object = plain.explain().json(&plain.to_string());
        assert_eq!(object, json!({ "kind": "usage", "message": "--start: not after 1970" }));
    }
}
