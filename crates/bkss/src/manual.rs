//! `bkss man` and `bkss completions`: what packagers and shells want to know of the commands.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Command;
use clap_complete::Shell;
use serde_json::json;

use crate::{
    command::{self, CommandError},
    files::{self, Readers},
    output,
};

/// Options of `bkss man`.
#[derive(clap::Args, Debug)]
pub(crate) struct ManArgs {
    /// Where the pages go; must be empty or absent
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Options of `bkss completions`.
#[derive(clap::Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Writes a page for each command.
pub(crate) fn man(args: &ManArgs, program: Command) -> ExitCode {
    let dir = &args.dir;
    command::exit(files::fill_directory(dir, Readers::All, || {
        let written = clap_mangen::generate_to(program, dir).map_err(files::unwritable(dir));
        written.map_err(CommandError::from)?;
        let entries = std::fs::read_dir(dir).map_err(files::unreadable(dir))?;
        let (pages, shown) = (entries.count(), dir.display().to_string());
        output::result(&format!("{shown}: {pages} pages"));
        Ok(json!({ "dir": shown, "pages": pages }))
    }))
}

/// Prints what a shell reads.
pub(crate) fn completions(args: &CompletionsArgs, mut program: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "bkss", &mut script);
    let script = String::from_utf8_lossy(&script);
    if output::objects() {
        output::object(&json!({ "shell": args.shell.to_string(), "script": script }));
    } else {
        output::printed(io::Write::write_all(&mut io::stdout().lock(), script.as_bytes()));
    }
    ExitCode::SUCCESS
}
