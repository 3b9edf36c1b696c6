//! The one place that prints: what was asked for on standard output, what is said about the work and
//! its errors on standard error. With `--json` programs get objects on standard output, one a line,
//! and people find everything else on standard error.
//!
//! A reader that closed its end stops the printing, not the work: the exit code still counts. Output
//! that cannot be written for another reason, such as a full disk, is a failure. What others have
//! named is shown with its control characters escaped: nobody writes lines that are not his.

use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{
    explain::Explain,
    kinds,
    text::{shown, with_times},
};

/// Whether standard output is for programs.
static OBJECTS: AtomicBool = AtomicBool::new(false);

/// From now on standard output is for programs.
pub(crate) fn for_programs() {
    OBJECTS.store(true, Ordering::Relaxed);
}

/// Whether standard output is for programs.
pub(crate) fn objects() -> bool {
    OBJECTS.load(Ordering::Relaxed)
}

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

/// Lines for people, each in one piece, so that those of several threads do not mix.
fn lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(shown).collect();
    format!("{}\n", lines.join("\n"))
}

/// A line for people, or several, about what is done, on standard error.
pub(crate) fn note(line: &str) {
    printed(io::stderr().lock().write_all(lines(line).as_bytes()));
}

/// A line for people, or several, that are what was asked for.
pub(crate) fn result(line: &str) {
    if objects() {
        note(line);
        return;
    }
    let mut output = io::stdout().lock();
    let written = output.write_all(lines(line).as_bytes());
    printed(written.and_then(|()| output.flush()));
}

/// An error for people.
pub(crate) fn error(error: &dyn Display) {
    note(&format!("error: {}", with_times(&error.to_string())));
}

/// An error for people, and for programs if they listen.
pub(crate) fn failed(failure: &impl Explain) {
    error(failure);
    let told = for_programs_of(failure);
    if let (Some(path), Some(kind)) = (told["file"].as_str(), told["is"].as_str()) {
        note(&format!("  {} is {kind}", shown(path)));
    }
    object(&json!({ "error": told }));
}

/// An error as programs are told of it.
pub(crate) fn for_programs_of(failure: &impl Explain) -> Value {
    let details = failure.explain();
    let mut told = details.json(&with_times(&failure.to_string()));
    // Where one line is wrong it is what was expected.
    let misshapen = details.misshapen().filter(|_| !details.has_line());
    if let Some(kind) = misshapen.and_then(kinds::of_file) {
        told["is"] = kind.into();
    }
    told
}

/// One JSON object as a line of standard output, if that is for programs.
pub(crate) fn object(value: &Value) {
    if !objects() {
        return;
    }
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
