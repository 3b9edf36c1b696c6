//! `bkss archive`, `bkss snapshot` and `bkss genesis fetch`: the ledger, its state, and what both are
//! checked with, from a node.
//!
//! The node is not trusted. A genesis file is checked with all its handovers before it is written,
//! and a snapshot against a genesis file; an archive is checked by `bkss audit`, against a genesis
//! from somewhere else.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::{Beginning, Trust};
use bkss_scheme::Network;

use serde_json::{Value, json};

use crate::{
    client::{Client, ClientError},
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

/// Options of `bkss snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct SnapshotArgs {
    /// A node
    #[arg(long, value_name = "URL")]
    node: String,
    /// The genesis with its handovers, as bkss genesis fetch gets it
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// The snapshot; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Options of `bkss genesis fetch`.
#[derive(clap::Args, Debug)]
pub(crate) struct GenesisArgs {
    /// A node
    #[arg(long, value_name = "URL")]
    node: String,
    /// The genesis file; one that is there is replaced if this one goes on from it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Fetches the archive.
pub(crate) fn archive(args: &ArchiveArgs) -> ExitCode {
    command::exit(fetch_archive(args))
}

fn fetch_archive(args: &ArchiveArgs) -> Result<Value, CommandError> {
    let client = Client::new(&args.node)?;
    let bytes = download(&args.out, |sink| client.archive(sink), |_| Ok(()))?;
    let out = args.out.display().to_string();
    output::result(&format!("{out}: {bytes} bytes; check it with bkss audit"));
    Ok(json!({ "file": out, "bytes": bytes }))
}

/// Fetches a snapshot and checks it.
pub(crate) fn snapshot(args: &SnapshotArgs) -> ExitCode {
    command::exit(fetch_snapshot(args))
}

fn fetch_snapshot(args: &SnapshotArgs) -> Result<Value, CommandError> {
    let client = Client::new(&args.node)?;
    let trust = verify::read_trust(&args.genesis)?;
    let mut found = None;
    let bytes = download(
        &args.out,
        |sink| client.snapshot(sink),
        |partial| {
            found = Some(read_snapshot(partial, &trust)?);
            Ok(())
        },
    )?;
    let out = args.out.display().to_string();
    let mut done = json!({ "file": out, "bytes": bytes });
    if let Some(beginning) = found {
        let (state, digest) = (beginning.state(), beginning.digest());
        let (height, chains) = (state.head().height, state.chain_count());
        output::result(&format!("{out}: {bytes} bytes, state after block {height}: {digest}"));
        output::result(&format!("{chains} chains of meters; a quorum has certified all of it"));
        done["height"] = height.into();
        done["state"] = digest.to_string().into();
        done["chains"] = chains.into();
    }
    Ok(done)
}

/// Reads a snapshot of others and checks it against the committees of a genesis file.
///
/// # Errors
///
/// [`CommandError`], naming the first thing that does not hold.
pub(crate) fn read_snapshot(path: &Path, trust: &Trust) -> Result<Beginning, CommandError> {
    let file = File::open(path).map_err(files::unreadable(path))?;
    Beginning::read(trust, BufReader::new(file))
        .map_err(CommandError::refused(&path.display().to_string()))
}

/// Writes a file that must not exist; it gets its name only when it is whole and checked.
fn download(
    out: &Path,
    fetch: impl FnOnce(&mut BufWriter<File>) -> Result<u64, ClientError>,
    check: impl FnOnce(&Path) -> Result<(), CommandError>,
) -> Result<u64, CommandError> {
    if out.exists() {
        let source = std::io::ErrorKind::AlreadyExists.into();
        return Err(FileError::Unwritable { path: out.to_owned(), source }.into());
    }
    // A name of this process alone: two of them that write one file do not write into each other.
    let partial = out.with_extension(format!("partial-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&partial);
    let mut sink = BufWriter::new(file.map_err(unwritable(&partial))?);
    let written = fetch(&mut sink).map_err(CommandError::from).and_then(|bytes| {
        finish(sink).map_err(unwritable(&partial))?;
        check(&partial)?;
        // Whoever comes first gives it its name.
        match std::fs::hard_link(&partial, out) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(unwritable(out)(error).into());
            }
            // Not every file system has them.
            Err(_) => std::fs::rename(&partial, out).map_err(unwritable(out))?,
        }
        Ok(bytes)
    });
    let _ = std::fs::remove_file(&partial); // nothing depends on it any more
    written
}

fn finish(sink: BufWriter<File>) -> std::io::Result<()> {
    let mut file = sink.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.flush()?;
    file.sync_all()
}

/// What a node's genesis file says, if it is of this network.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn newest_trust(client: &Client, expected: Network) -> Result<Trust, CommandError> {
    let trust = Trust::decode(&client.genesis()?).map_err(CommandError::refused(client.url()))?;
    let found = trust.genesis().network();
    if found == expected {
        return Ok(trust);
    }
    let url = client.url();
    Err(CommandError::Refused(format!("{url}: network {found}, expected {expected}")))
}

/// Fetches the genesis file.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn genesis(args: &GenesisArgs) -> Result<Value, CommandError> {
    let client = Client::new(&args.node)?;
    let bytes = client.genesis()?;
    let found = Trust::decode(&bytes).map_err(CommandError::refused(client.url()))?;
    let (network, out) = (found.genesis().network(), args.out.display());
    let known = args.out.exists();
    let told = |trust: &Trust, written: bool| {
        json!({
            "file": args.out.display().to_string(),
            "network": trust.genesis().network().to_string(),
            "committees": trust.eras().eras.len(),
            "written": written,
        })
    };
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
        if found.is_continued_by(&trust) {
            output::result(&format!("{out}: knows all that the node knows, stays as it is"));
            return Ok(told(&trust, false));
        }
        if !trust.is_continued_by(&found) {
            let url = client.url();
            return Err(CommandError::Refused(format!(
                "{url}: tells another history of the network than {out}, which stays as it is"
            )));
        }
    }
    files::replace(&args.out, &bytes, Readers::All)?;
    let eras = found.eras().eras.len();
    output::result(&format!("{out}: network {network}, committees so far: {eras}"));
    if !known {
        output::result("compare the network's name with that of somebody you trust");
    }
    Ok(told(&found, true))
}
