//! The command line: parse, call, report.

fn main() {}
