//! The one place that prints: results for programs on standard output, everything for people on
//! standard error.
//!
//! A reader that closed its end stops the printing, not the work: the exit code still counts. Output
//! that cannot be written for another reason, such as a full disk, is a failure. What others have
//! named is shown with its control characters escaped: nobody writes lines that are not his.

use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bkss_scheme::identity::is_printable_char;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Whether output was lost.
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether something could not be printed.
pub(crate) fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Notes that something could not be printed, unless whoever read it has gone.
pub(crate) fn printed(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.store(true, Ordering::Relaxed);
        let _ = io::stderr().lock().write_all(format!("error: output: {error}\n").as_bytes());
    }
}

/// A text of others in one line: control characters, and those that turn the direction of what
/// follows, are escaped.
pub(crate) fn shown(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if is_printable_char(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
        shown
    })
}

/// A path in one line.
pub(crate) fn shown_path(path: &Path) -> String {
    shown(&path.display().to_string())
}

/// Lines for people, each in one piece, so that those of several threads do not mix.
fn lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(shown).collect();
    format!("{}\n", lines.join("\n"))
}

/// A line for people, or several, about what is done, on standard error.
pub(crate) fn note(line: &str) {
    printed(io::stderr().lock().write_all(lines(line).as_bytes()));
}

/// A line for people, or several, that are what was asked for, on standard output.
pub(crate) fn result(line: &str) {
    let mut output = io::stdout().lock();
    let written = output.write_all(lines(line).as_bytes());
    printed(written.and_then(|()| output.flush()));
}

/// An error for people.
pub(crate) fn error(error: &dyn Display) {
    note(&format!("error: {error}"));
}

/// An error for people, and for programs where they read objects.
pub(crate) fn failed(failure: &dyn Display, objects: bool) {
    error(failure);
    if objects {
        json(&serde_json::json!({ "error": failure.to_string() }));
    }
}

/// One JSON object as a line of standard output.
pub(crate) fn json(value: &Value) {
    let mut output = io::stdout().lock();
    let written = output.write_all(format!("{value}\n").as_bytes());
    printed(written.and_then(|()| output.flush()));
}

/// A progress bar on terminals, a line now and then elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    told: u64,
}

impl Progress {
    /// Progress towards a total.
    pub(crate) fn new(total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta:>4}  {wide_msg}");
            let bar = ProgressBar::new(total);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, total, told: 0 }
    }

    /// What is done, with a line on how it stands.
    pub(crate) fn update(&mut self, done: u64, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(line.to_owned());
        } else if done >= self.told + self.total.div_ceil(10) {
            self.told = done;
            note(&format!("{:>3} %  {line}", 100 * done / self.total.max(1)));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_named_stays_in_its_line() {
        for (text, expected) in [
            ("Stadtwerke Köln", "Stadtwerke Köln"),
            ("Utility\n  provider 9: Good Bank", "Utility\\u{a}  provider 9: Good Bank"),
            ("hidden \u{1b}[8m", "hidden \\u{1b}[8m"),
            ("abc\u{202e}cba", "abc\\u{202e}cba"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
