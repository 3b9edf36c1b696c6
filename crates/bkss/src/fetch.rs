//! `bkss archive` and `bkss genesis fetch`: the ledger, and what it is checked with, from a node.
//!
//! The node is not trusted. A genesis file is checked with all its handovers before it is written;
//! an archive is checked by `bkss audit`, against a genesis from somewhere else.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::Trust;

use crate::{
    client::Client,
    command::{self, CommandError},
    files::{self, FileError, Readers, unwritable},
    output, verify,
};

/// Options of `bkss archive`.
#[derive(clap::Args, Debug)]
pub(crate) struct ArchiveArgs {
    /// A node
    #[arg(long, value_name = "URL")]
    node: String,
    /// The archive; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Options of `bkss genesis fetch`.
#[derive(clap::Args, Debug)]
pub(crate) struct GenesisArgs {
    /// A node
    #[arg(long, value_name = "URL")]
    node: String,
    /// The genesis file; one of the same network is replaced by the longer one
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Fetches the archive.
pub(crate) fn archive(args: &ArchiveArgs) -> ExitCode {
    command::exit(fetch_archive(args))
}

fn fetch_archive(args: &ArchiveArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.node)?;
    let out = &args.out;
    if out.exists() {
        let exists = std::io::ErrorKind::AlreadyExists.into();
        return Err(FileError::Unwritable { path: out.clone(), source: exists }.into());
    }
    let partial = out.with_extension("partial");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(&partial);
    let mut sink = BufWriter::new(file.map_err(unwritable(&partial))?);
    let bytes = client.archive(&mut sink)?;
    finish(sink, &partial, out).map_err(unwritable(out))?;
    output::note(&format!("{}: {bytes} bytes; check it with bkss audit", out.display()));
    Ok(())
}

fn finish(sink: BufWriter<File>, partial: &Path, out: &Path) -> std::io::Result<()> {
    let mut file = sink.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.flush()?;
    file.sync_all()?;
    std::fs::rename(partial, out)
}

/// Fetches the genesis file.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn genesis(args: &GenesisArgs) -> Result<(), CommandError> {
    let client = Client::new(&args.node)?;
    let bytes = client.genesis()?;
    let found = Trust::decode(&bytes).map_err(CommandError::refused(client.url()))?;
    let (network, out) = (found.genesis().network(), args.out.display());
    let known = args.out.exists();
    if known {
        // Whoever has a genesis trusts that one, not the node.
        let trust = verify::read_trust(&args.out)?;
        let expected = trust.genesis().network();
        if expected != network {
            return Err(CommandError::Refused(format!(
                "{}: network {network}, {out} is of {expected}",
                client.url()
            )));
        }
        if trust.eras().len() > found.eras().len() {
            output::note(&format!("{out}: knows more rounds than the node, stays as it is"));
            return Ok(());
        }
    }
    files::replace(&args.out, &bytes, Readers::All)?;
    let eras = found.eras().len();
    output::note(&format!("{out}: network {network}, {eras} committees so far"));
    if !known {
        output::note("compare the network's name with that of somebody you trust");
    }
    Ok(())
}
