//! `bkss head`: the newest block that a node has seen final, to be compared with an archive later.
//!
//! An archive that leaves out its newest blocks looks whole. Whoever keeps heads from somebody he
//! trusts, or of several nodes, can tell. The node is not trusted: what it answers is parsed, and
//! its certificate is checked if there is a genesis to check it with.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::Trust;
use bkss_scheme::{Digest, Head, LedgerTime, Malformed, Network, codec};
use serde_json::json;

use crate::{
    client::Client,
    command::CommandError,
    files::{self, FileError, Readers, malformed},
    output,
    verify::{self, utc},
};

/// Most bytes of a head: a header and the signatures of the largest committee.
pub(crate) const MAX_HEAD: u64 = 1 << 14;

/// Options of `bkss head`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A node
    #[arg(long, value_name = "URL")]
    node: String,
    /// The head; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The genesis with its handovers, as bkss genesis fetch gets it: the certificate is checked
    /// with it
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

/// Fetches the head.
pub(crate) fn run(args: &Args) -> ExitCode {
    fetch(args).map_or_else(
        |error| {
            output::failed(&error);
            error.exit_code()
        },
        |()| ExitCode::SUCCESS,
    )
}

fn fetch(args: &Args) -> Result<(), CommandError> {
    let client = Client::new(&args.node)?;
    let trust = args.genesis.as_deref().map(verify::read_trust).transpose()?;
    let bytes = client.certified_head()?;
    let head = Known::decode(&bytes).map_err(CommandError::refused(client.url()))?;
    if let Some(trust) = &trust {
        check(&bytes, trust).map_err(CommandError::refused(client.url()))?;
    }
    files::write_new(&args.out, &bytes, Readers::All)?;
    let Known { network, height, id, time } = head;
    if output::objects() {
        output::object(&json!({
            "file": args.out.display().to_string(),
            "network": network.to_string(),
            "height": height,
            "id": id.to_string(),
            "time": utc(time),
            "verified": trust.is_some(),
        }));
        return Ok(());
    }
    let checked = if trust.is_some() { "a quorum has certified it" } else { "not verified" };
    let out = args.out.display();
    output::result(&format!("{out}: block {height} of {}, {id}; {checked}", utc(time)));
    output::result(&format!("network {network}; compare an archive with it by bkss audit --head"));
    Ok(())
}

/// Checks a head against the committees of a genesis file.
///
/// # Errors
///
/// What does not hold, in words.
pub(crate) fn check(bytes: &[u8], trust: &Trust) -> Result<(), String> {
    let head: Head<'_> = codec::decode("head", bytes).map_err(|error| error.to_string())?;
    let expected = trust.genesis().network();
    if head.network != expected {
        return Err(format!("head of network {}, the genesis is of {expected}", head.network));
    }
    let verified = head.verify(&trust.eras());
    verified.map(|_| ()).map_err(|reason| format!("block {}: {reason}", head.header.height))
}

/// What a head names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    /// The network.
    pub(crate) network: Network,
    /// The block's height.
    pub(crate) height: u64,
    /// Its id.
    pub(crate) id: Digest,
    /// Its time.
    pub(crate) time: LedgerTime,
}

impl Known {
    /// Parses a head; whether its certificate holds is not looked at.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let head: Head<'_> = codec::decode("head", bytes)?;
        let (network, header) = (head.network, head.header);
        Ok(Self { network, height: header.height, id: header.id(), time: header.time })
    }

    /// Reads the file of a head.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub(crate) fn load(path: &Path) -> Result<Self, FileError> {
        Self::decode(&files::read(path, MAX_HEAD)?).map_err(malformed(path))
    }
}
