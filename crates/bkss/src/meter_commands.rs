//! `bkss meter`: what an owner and an SDI decide about a meter.
//!
//! A stolen or broken meter signs nothing any more (A25): its owner and an SDI sign together, or
//! somebody shows the secret that was agreed on when it was registered. A next chain, which
//! `bkss sdi renew` issues, is approved the same way.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::Value;

use crate::{
    changes::{bring, seen},
    command::{self, CommandError},
    documents,
    files::{self, FileError},
    found::SdiKeys,
    known_meter::{KnownMeter, newest_chain},
    meter_ids::MeterArgs,
    meter_paper::{Matter, MeterPaper},
    output,
    provider::Keys,
    verify,
};
use bkss_ledger::{
    Revocation, Transaction, Trust,
    revocation::{Reason, Right},
};

/// Bytes of a secret that revokes a meter.
const SECRET: u64 = 32;

/// Commands of `bkss meter`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum MeterCommand {
    /// End a meter's chain for good: a paper that its owner and an SDI have to sign
    Revoke(RevokeArgs),
    /// Sign a paper about a meter, after reading it; with both signatures it goes to the ledger
    Approve(ApproveArgs),
    /// Bring a paper with both signatures to the ledger
    Submit(SubmitArgs),
}

/// As whom a paper is signed.
#[derive(clap::Args, Debug)]
struct SignerArgs {
    /// Directory of the provider that owns the meter
    #[arg(long, value_name = "DIR")]
    owner: Option<PathBuf>,
    /// Directory of an SDI
    #[arg(long, value_name = "DIR")]
    sdi: Option<PathBuf>,
}

/// Options of `bkss meter revoke`.
#[derive(clap::Args, Debug)]
#[group(id = "right", required = true, multiple = true, args = ["owner", "sdi", "secret"])]
pub(crate) struct RevokeArgs {
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    #[command(flatten)]
    meter: MeterArgs,
    #[command(flatten)]
    signers: SignerArgs,
    /// File with the 32 bytes that revoke it
    #[arg(long, value_name = "FILE", requires = "genesis", conflicts_with_all = ["owner", "sdi"])]
    secret: Option<PathBuf>,
    /// The network's genesis file, with --secret; with --owner or --sdi that of the directory
    #[arg(long, value_name = "FILE", requires = "secret")]
    genesis: Option<PathBuf>,
    /// Why, as a number of your own; the ledger treats all alike
    #[arg(long, default_value_t = 0)]
    reason: u8,
    /// The paper, for the other to sign; must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Check it, but sign and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// Options of `bkss meter approve`.
#[derive(clap::Args, Debug)]
#[group(id = "signer", required = true, multiple = true, args = ["owner", "sdi"])]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    signers: SignerArgs,
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    /// The paper; the signature is added to it
    paper: PathBuf,
    /// Show what would be signed and check it, but sign nothing
    #[arg(long)]
    dry_run: bool,
}

/// Options of `bkss meter submit`.
#[derive(clap::Args, Debug)]
pub(crate) struct SubmitArgs {
    /// The network's genesis file
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    /// The paper; copies that owner and SDI have signed are put together
    #[arg(required = true, value_name = "PAPER")]
    papers: Vec<PathBuf>,
    /// Check it, but bring nothing to the ledger
    #[arg(long)]
    dry_run: bool,
}

/// Runs a command of `bkss meter`.
pub(crate) fn run(command: &MeterCommand) -> ExitCode {
    command::exit(match command {
        MeterCommand::Revoke(args) => revoke(args),
        MeterCommand::Approve(args) => approve(args),
        MeterCommand::Submit(args) => submit(args),
    })
}

/// Those who sign here.
struct Signers {
    owner: Option<Keys>,
    sdi: Option<SdiKeys>,
    trust: Trust,
}

impl Signers {
    fn load(args: &SignerArgs) -> Result<Self, CommandError> {
        let dir = args.owner.as_deref().or(args.sdi.as_deref());
        let dir = dir.ok_or_else(|| CommandError::Usage("expected --owner or --sdi".into()))?;
        Ok(Self {
            owner: args.owner.as_deref().map(Keys::load).transpose()?,
            sdi: args.sdi.as_deref().map(SdiKeys::load).transpose()?,
            trust: verify::read_trust(&dir.join("genesis.bkss"))?,
        })
    }

    fn sign(&self, paper: &mut MeterPaper, known: &KnownMeter) -> Result<(), CommandError> {
        if let Some(keys) = &self.sdi {
            paper.sign_as_sdi(keys, known)?;
        }
        if let Some(keys) = &self.owner {
            paper.sign_as_owner(keys, known)?;
        }
        Ok(())
    }
}

fn revoke(args: &RevokeArgs) -> Result<Value, CommandError> {
    let known = KnownMeter::ask(&args.node, args.meter.number()?)?;
    if let (Some(secret), Some(genesis)) = (&args.secret, &args.genesis) {
        return revoke_by_secret(args, &known, secret, genesis);
    }
    let signers = Signers::load(&args.signers)?;
    let network = signers.trust.genesis().network();
    let (meter, chain) = (known.last.meter, known.last.id(network));
    let matter = Matter::End { meter, chain, reason: Reason(args.reason) };
    let mut paper = MeterPaper::new(network, matter);
    signers.sign(&mut paper, &known)?;
    if args.dry_run {
        paper.show(&known);
        output::result("a trial: nothing was signed or sent");
        return Ok(paper.json("nothing"));
    }
    if let Some(missing) = paper.missing() {
        let out = args.out.as_deref();
        let out = out.ok_or_else(|| CommandError::Usage(format!("{missing}: expected --out")))?;
        return keep(&paper, &known, out);
    }
    finish(&paper, &known, &signers.trust)
}

/// Writes a paper that somebody else has to sign.
///
/// # Errors
///
/// [`CommandError::File`].
pub(crate) fn keep(
    paper: &MeterPaper,
    known: &KnownMeter,
    out: &Path,
) -> Result<Value, CommandError> {
    paper.show(known);
    documents::write_new(out, paper)?;
    output::result(&format!("{}: {}", paper.missing().unwrap_or("complete"), out.display()));
    Ok(paper.written(out))
}

fn revoke_by_secret(
    args: &RevokeArgs,
    known: &KnownMeter,
    path: &Path,
    genesis: &Path,
) -> Result<Value, CommandError> {
    let network = verify::read_trust(genesis)?.genesis().network();
    let expected = |found: &str| {
        CommandError::Refused(format!("{}: expected 32 bytes, found {found}", path.display()))
    };
    let bytes = match files::read(path, SECRET) {
        Err(FileError::TooLong { found, .. }) => return Err(expected(&found.to_string())),
        bytes => bytes?,
    };
    let found = bytes.len().to_string();
    let secret = <[u8; 32]>::try_from(bytes).map_err(|_| expected(&found))?;
    let (meter, chain) = (known.last.meter, known.last.id(network));
    let (reason, right) = (Reason(args.reason), Right::Secret(secret));
    let revocation = Revocation { meter, chain, reason, right };
    let checked = revocation.check(&known.members, network, &known.chain(network));
    checked.map_err(CommandError::refused("by the ledger's rules"))?;
    let paper = MeterPaper::new(network, Matter::End { meter, chain, reason });
    paper.show(known);
    if args.dry_run {
        output::result("the rules hold; nothing was sent");
        return Ok(paper.json("nothing"));
    }
    bring(&known.client, &Transaction::Revocation(revocation))?;
    output::result("accepted: it is on its way to the ledger");
    Ok(paper.json("sent"))
}

fn approve(args: &ApproveArgs) -> Result<Value, CommandError> {
    let signers = Signers::load(&args.signers)?;
    let mut paper = MeterPaper::load(&args.paper, signers.trust.genesis().network())?;
    let known = KnownMeter::ask(&args.node, paper.meter())?;
    paper.check(&known, &signers.trust.genesis().charter().terms)?;
    paper.show(&known);
    signers.sign(&mut paper, &known)?;
    if args.dry_run {
        output::result("a trial: nothing was signed or sent");
        return Ok(paper.json("nothing"));
    }
    documents::replace(&args.paper, &paper)?;
    if let Some(missing) = paper.missing() {
        output::result(&format!("{missing}: {}", args.paper.display()));
        return Ok(paper.written(&args.paper));
    }
    finish(&paper, &known, &signers.trust)
}

fn submit(args: &SubmitArgs) -> Result<Value, CommandError> {
    let trust = verify::read_trust(&args.genesis)?;
    let network = trust.genesis().network();
    let mut copies = args.papers.iter().map(|path| MeterPaper::load(path, network));
    let nothing = || CommandError::Usage("expected at least one paper".into());
    let mut paper = copies.next().ok_or_else(nothing)??;
    copies.try_for_each(|other| paper.merge(&other?))?;
    let known = KnownMeter::ask(&args.node, paper.meter())?;
    paper.show(&known);
    if args.dry_run {
        paper.check(&known, &trust.genesis().charter().terms)?;
        paper.transaction()?;
        output::result("rules and signatures hold; nothing was sent");
        return Ok(paper.json("nothing"));
    }
    finish(&paper, &known, &trust)
}

/// Checks everything and brings the paper to the ledger; waits until a chain is there.
fn finish(paper: &MeterPaper, known: &KnownMeter, trust: &Trust) -> Result<Value, CommandError> {
    paper.check(known, &trust.genesis().charter().terms)?;
    bring(&known.client, &paper.transaction()?)?;
    let Matter::Chain { message, .. } = &paper.matter else {
        output::result("accepted: it is on its way to the ledger");
        return Ok(paper.json("sent"));
    };
    seen("the chain is not on the ledger", || {
        Ok(newest_chain(&known.client, message.meter)? == *message)
    })?;
    Ok(paper.json("final"))
}
