//! The binary as its users call it.

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs the command line to its end.
pub(crate) fn bkss(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bkss")).args(args).output().unwrap()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The exit code.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// What it says to people.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
