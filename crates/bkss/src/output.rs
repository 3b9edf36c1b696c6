//! The one place that prints: results for programs on standard output, everything for people on
//! standard error.
//!
//! A reader that closed its end stops the printing, not the work: the exit code still counts.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// A line for people.
pub(crate) fn note(line: &str) {
    // In one piece, so that lines of several threads do not mix.
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// An error for people.
pub(crate) fn error(error: &dyn Display) {
    note(&format!("error: {error}"));
}

/// One JSON object as a line of standard output.
pub(crate) fn json(value: &Value) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(format!("{value}\n").as_bytes()).and_then(|()| output.flush());
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
        let bar = std::io::stderr().is_terminal().then(|| {
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
