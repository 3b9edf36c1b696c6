//! The binary as its users call it.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Runs the command line to its end.
pub(crate) fn bkss(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bkss")).args(args).output().unwrap()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The exit code, of a process that has not panicked.
pub(crate) fn code(output: &Output) -> i32 {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    output.status.code().unwrap()
}

/// What it says to people: about the work and its errors, then the results.
pub(crate) fn said(output: &Output) -> String {
    let for_programs = output.stdout.starts_with(b"{");
    let results = if for_programs { &[][..] } else { &output.stdout };
    String::from_utf8([&output.stderr, results].concat()).unwrap()
}

/// What it says to programs.
pub(crate) fn objects(output: &Output) -> Vec<Value> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}
