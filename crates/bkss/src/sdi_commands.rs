//! `bkss sdi`: signing device infrastructures join and are removed like providers, and issue.

use std::process::ExitCode;

use bkss_ledger::change::Body;
use bkss_scheme::SdiId;

use serde_json::Value;

use crate::{
    changes::Known,
    command::{self, CommandError},
    found::SdiKeys,
    provider_commands::{ApproveArgs, ProposeArgs, approve, keep, network, open, propose},
    renew::{RenewArgs, renew},
};

/// Commands of `bkss sdi`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum SdiCommand {
    /// Ask to join: a change that a quorum of the providers has to approve
    Add(ProposeArgs),
    /// Approve a change as a provider, after reading it
    Approve(ApproveArgs),
    /// Propose to remove an SDI, and approve it
    Remove(RemoveArgs),
    /// Issue the next chain of a meter: its owner has to sign it
    Renew(RenewArgs),
}

/// Options of `bkss sdi remove`.
#[derive(clap::Args, Debug)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    propose: ProposeArgs,
    /// Number of the SDI that is to be removed
    #[arg(long)]
    sdi: u16,
}

/// Runs a command of `bkss sdi`.
pub(crate) fn run(command: &SdiCommand) -> ExitCode {
    command::exit(match command {
        SdiCommand::Add(args) => add(args),
        SdiCommand::Approve(args) => approve(args),
        SdiCommand::Remove(args) => propose(&args.propose, Body::RemoveSdi(SdiId(args.sdi))),
        SdiCommand::Renew(args) => renew(args),
    })
}

fn add(args: &ProposeArgs) -> Result<Value, CommandError> {
    let sdi = SdiKeys::load(&args.dir)?;
    let (network, agreement) = network(&args.dir)?;
    let known = Known::ask(&args.node)?;
    let mut paper = open(network, &known, &args.how, Body::AddSdi(sdi.identity));
    known.check_rules(&paper, agreement)?;
    if !args.how.dry_run {
        paper.change.sign(network, &sdi.key);
    }
    keep(&paper, &known, &args.out, args.how.dry_run)
}
