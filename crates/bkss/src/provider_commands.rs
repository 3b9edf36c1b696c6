//! `bkss provider`: how providers join, leave, renew their keys and are expelled.
//!
//! A change is a file that collects signatures. What needs a quorum goes from provider to provider
//! until enough have approved; what a provider decides about itself goes to the ledger at once.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::{Change, change::Body};
use bkss_node::config::vote_key;
use bkss_scheme::{Digest, Network, ProviderId, certificate::possess};

use serde_json::Value;

use crate::{
    changes::{ChangePaper, Known},
    command::{self, CommandError},
    documents::{self, Identity, MemberId},
    found::check_address,
    output,
    provider::Keys,
    terms, verify,
};

/// Commands of `bkss provider`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum ProviderCommand {
    /// Ask to join: a change that a quorum of the providers has to approve
    Join(ProposeArgs),
    /// Approve a change, after reading it
    Approve(ApproveArgs),
    /// Bring a change with all its signatures to the ledger
    Submit(SubmitArgs),
    /// Leave the consortium
    Leave(OwnArgs),
    /// Take another vote key or sealing key
    Rotate(RotateArgs),
    /// Be reached at another address
    Move(MoveArgs),
    /// Propose to expel a provider, and approve it
    Expel(ExpelArgs),
}

/// Until when, and whether at all.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct HowArgs {
    /// The last round in which it may enter; some two thousand from now without it
    #[arg(long, value_name = "ROUND")]
    pub(crate) until: Option<u64>,
    /// Show what would be signed and check it, but sign nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Options of `bkss provider approve`.
#[derive(clap::Args, Debug)]
pub(crate) struct ApproveArgs {
    /// Directory of the provider that approves
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The change
    change: PathBuf,
    /// A node, to check the change and to bring it to the ledger when it is complete
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// Show what would be approved and check it, but sign nothing
    #[arg(long)]
    dry_run: bool,
}

/// Options of `bkss provider submit`.
#[derive(clap::Args, Debug)]
pub(crate) struct SubmitArgs {
    /// A provider's directory, for its genesis
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    /// The change; copies that different providers have approved are put together
    #[arg(required = true, value_name = "CHANGE")]
    changes: Vec<PathBuf>,
    /// Check it, but bring nothing to the ledger
    #[arg(long)]
    dry_run: bool,
}

/// Options of commands in which a provider decides about itself.
#[derive(clap::Args, Debug)]
pub(crate) struct OwnArgs {
    /// Directory of the provider
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    #[command(flatten)]
    how: HowArgs,
}

/// Options of `bkss provider rotate`.
#[derive(clap::Args, Debug)]
#[group(id = "key", required = true, multiple = false, args = ["vote", "sealing"])]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    own: OwnArgs,
    /// The key of its votes, from the next round on
    #[arg(long)]
    vote: bool,
    /// The key that its meters seal their readings to
    #[arg(long)]
    sealing: bool,
}

/// Options of `bkss provider move`.
#[derive(clap::Args, Debug)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    own: OwnArgs,
    /// Where the other providers reach it from now on
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
}

/// Options of commands that propose what a quorum decides.
#[derive(clap::Args, Debug)]
pub(crate) struct ProposeArgs {
    /// Directory of the member that proposes it, present or new, with its genesis
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    pub(crate) node: String,
    /// The change; must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// Options of `bkss provider expel`.
#[derive(clap::Args, Debug)]
pub(crate) struct ExpelArgs {
    #[command(flatten)]
    propose: ProposeArgs,
    /// Number of the provider that is to be expelled
    #[arg(long)]
    provider: u16,
}

/// Runs a command of `bkss provider`.
pub(crate) fn run(command: &ProviderCommand) -> ExitCode {
    command::exit(match command {
        ProviderCommand::Join(args) => join(args),
        ProviderCommand::Approve(args) => approve(args),
        ProviderCommand::Submit(args) => submit(args),
        ProviderCommand::Leave(args) => own(args, |keys| Ok(Body::Leave(keys.id))),
        ProviderCommand::Rotate(args) => rotate(args),
        ProviderCommand::Move(args) => own(&args.own, |keys| {
            check_address(&args.address)?;
            Ok(Body::Address(keys.id, terms::name(&args.address)?))
        }),
        ProviderCommand::Expel(args) => {
            propose(&args.propose, Body::Expel(ProviderId(args.provider)))
        }
    })
}

/// Network and agreement of a directory's genesis.
///
/// # Errors
///
/// [`CommandError::File`].
pub(crate) fn network(dir: &Path) -> Result<(Network, Digest), CommandError> {
    let trust = verify::read_trust(&dir.join("genesis.bkss"))?;
    let genesis = trust.genesis();
    Ok((genesis.network(), genesis.charter().agreement))
}

/// A change that may enter from now on.
pub(crate) fn open(network: Network, known: &Known, how: &HowArgs, body: Body) -> ChangePaper {
    // A change of address is later than the one before it, also within a round.
    let after = match &body {
        Body::Address(id, _) => known.members.moved(*id).map_or(0, |last| last.saturating_add(1)),
        _ => 0,
    };
    let until = how.until.unwrap_or_else(|| known.until().max(after));
    ChangePaper { network, change: Change::new(body, until) }
}

fn join(args: &ProposeArgs) -> Result<Value, CommandError> {
    let keys = Keys::load(&args.dir)?;
    let (network, agreement) = network(&args.dir)?;
    let paper = args.dir.join(format!("{}.identity", MemberId::Provider(keys.id)));
    let Identity::Provider(identity) = Identity::load(&paper)? else {
        return Err(CommandError::Refused(format!("{}: is an SDI's", paper.display())));
    };
    if !keys.fit(&identity) {
        let paper = paper.display();
        return Err(CommandError::Refused(format!("{paper}: is not of the keys beside it")));
    }
    let known = Known::ask(&args.node)?;
    let mut paper = open(network, &known, &args.how, Body::Join(identity));
    known.check_rules(&paper, agreement)?;
    if !args.how.dry_run {
        paper.change.sign(network, &keys.identity);
    }
    keep(&paper, &known, &args.out, args.how.dry_run)
}

/// Writes a change that others have to approve.
pub(crate) fn keep(
    paper: &ChangePaper,
    known: &Known,
    out: &Path,
    dry_run: bool,
) -> Result<Value, CommandError> {
    paper.show();
    let missing = known.missing(paper).unwrap_or_default();
    if dry_run {
        output::result(&format!("the rules hold; {missing}; nothing was signed"));
        return Ok(paper.json("nothing"));
    }
    documents::write_new(out, &paper)?;
    output::result(&format!("{missing}; give it to the providers: {}", out.display()));
    Ok(written(paper, out))
}

/// A change that is written for others, for programs.
fn written(paper: &ChangePaper, out: &Path) -> Value {
    let mut done = paper.json("written");
    done["file"] = out.display().to_string().into();
    done
}

/// Adds a provider's approval to a change.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn approve(args: &ApproveArgs) -> Result<Value, CommandError> {
    let keys = Keys::load(&args.dir)?;
    let (network, agreement) = network(&args.dir)?;
    let mut paper = load(&args.change, network)?;
    paper.show();
    if !paper.change.needs_quorum() {
        return Err(CommandError::Refused("nobody else has to approve it".into()));
    }
    let known = args.node.as_deref().map(Known::ask).transpose()?;
    if let Some(known) = &known {
        known.check_rules(&paper, agreement)?;
        if known.provider(keys.id)?.key != keys.identity.public() {
            let id = keys.id;
            let reason = format!("the ledger knows another key of provider {id}");
            return Err(CommandError::Refused(reason));
        }
    }
    if args.dry_run {
        output::result(&format!("provider {} would approve it; nothing was signed", keys.id));
        return Ok(paper.json("nothing"));
    }
    paper.change.approve(network, keys.id, &keys.identity);
    documents::replace(&args.change, &paper)?;
    output::result(&format!("provider {} has approved it", keys.id));
    let Some(known) = known else { return Ok(written(&paper, &args.change)) };
    if let Some(missing) = known.missing(&paper) {
        output::result(&format!("{missing}; give it to the next: {}", args.change.display()));
        return Ok(written(&paper, &args.change));
    }
    known.submit(&paper, agreement)
}

fn load(path: &Path, network: Network) -> Result<ChangePaper, CommandError> {
    let paper = ChangePaper::load(path)?;
    if paper.network == network {
        return Ok(paper);
    }
    let (path, found) = (path.display(), paper.network);
    Err(CommandError::Refused(format!("{path}: of network {found}, this one is {network}")))
}

fn submit(args: &SubmitArgs) -> Result<Value, CommandError> {
    let (network, agreement) = network(&args.dir)?;
    let mut copies = args.changes.iter().map(|path| load(path, network));
    let nothing = || CommandError::Usage("expected at least one change".into());
    let mut paper = copies.next().ok_or_else(nothing)??;
    copies.try_for_each(|other| paper.merge(other?))?;
    paper.show();
    let known = Known::ask(&args.node)?;
    if args.dry_run {
        known.check_rules(&paper, agreement)?;
        let checked = paper.change.check_signatures(&known.members, network);
        checked.map_err(CommandError::refused("by the ledger's rules"))?;
        output::result("rules and signatures hold; nothing was sent");
        return Ok(paper.json("nothing"));
    }
    known.submit(&paper, agreement)
}

/// What a provider decides about itself.
fn own(
    args: &OwnArgs,
    body: impl FnOnce(&Keys) -> Result<Body, CommandError>,
) -> Result<Value, CommandError> {
    let keys = Keys::load(&args.dir)?;
    let known = Known::ask(&args.node)?;
    let body = body(&keys)?;
    bring(args, &keys, &known, body)
}

fn bring(args: &OwnArgs, keys: &Keys, known: &Known, body: Body) -> Result<Value, CommandError> {
    let (network, agreement) = network(&args.dir)?;
    let mut paper = open(network, known, &args.how, body);
    known.check_rules(&paper, agreement)?;
    if args.how.dry_run {
        paper.show();
        output::result("the rules hold; nothing was signed");
        return Ok(paper.json("nothing"));
    }
    paper.change.sign(network, &keys.identity);
    paper.show();
    known.submit(&paper, agreement)
}

/// The new key is on the disk before the ledger knows it; one that did not get there is used again.
fn rotate(args: &RotateArgs) -> Result<Value, CommandError> {
    let dir = &args.own.dir;
    let mut keys = Keys::load(dir)?;
    let known = Known::ask(&args.own.node)?;
    let registered = known.provider(keys.id)?.clone();
    if !keys.has_room() {
        return Err(CommandError::Refused(format!(
            "{}: has as many keys as one file holds",
            dir.display()
        )));
    }
    let mut rng = command::rng()?;
    let body = if args.vote {
        if vote_key(keys.vote()).1 == registered.vote_key {
            keys.add_vote(&mut rng);
        }
        keys.forget_votes_before(&registered.vote_key);
        let (network, _) = network(dir)?;
        let (key, signature) = possess(keys.vote(), network, keys.id);
        Body::VoteKey(keys.id, key, signature)
    } else {
        if keys.opening().public() == registered.sealing_key {
            keys.add_opening(&mut rng);
        }
        Body::SealingKey(keys.id, keys.opening().public())
    };
    if !args.own.how.dry_run {
        keys.replace(dir)?;
    }
    let done = bring(&args.own, &keys, &known, body)?;
    if args.own.how.dry_run {
        output::note("another key will be made then: nothing was kept of this one");
    } else if args.vote {
        output::note("the former key votes until this round ends: then the node takes the new one");
    } else {
        output::note(
            "meters that are provisioned from now on seal to the new key; keep the old one",
        );
    }
    if !args.own.how.dry_run {
        output::note(
            "copy keys.bkss to its safe place again: the copy from before lacks this key, and a node \
             with it does not vote",
        );
    }
    Ok(done)
}

/// Proposes what a quorum decides about a member, and approves it.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn propose(args: &ProposeArgs, body: Body) -> Result<Value, CommandError> {
    let keys = Keys::load(&args.dir)?;
    let (network, agreement) = network(&args.dir)?;
    let known = Known::ask(&args.node)?;
    let mut paper = open(network, &known, &args.how, body);
    known.check_rules(&paper, agreement)?;
    if !args.how.dry_run {
        paper.change.approve(network, keys.id, &keys.identity);
    }
    keep(&paper, &known, &args.out, args.how.dry_run)
}
