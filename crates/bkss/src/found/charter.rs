//! `bkss genesis`: a network founded by members that do not share a machine.
//!
//! Each makes its own keys (`bkss keygen`) and gives the others its identity. One drafts the
//! charter from all identities, each signs it where its keys are, anyone assembles the genesis from
//! the signatures, and each checks it before its node starts. No secret ever leaves its machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::{
    Genesis,
    genesis::{Charter, Weighing},
};
use bkss_scheme::{ProviderIdentity, Signature, identity::signed_digest};

use serde_json::{Value, json};

use crate::{
    command::{self, CommandError},
    documents::{CharterPaper, Identity, MemberId, SignaturePaper},
    fetch,
    files::{self, Readers},
    found::SdiKeys,
    output,
    provider::Keys,
    terms::{self, TermsArgs},
    verify::{self, utc},
};

/// Commands of `bkss genesis`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum GenesisCommand {
    /// Write down what is to be signed: terms and founders
    Draft(DraftArgs),
    /// Sign a charter with a member's key, after reading it
    Sign(SignArgs),
    /// Make the genesis out of charter and signatures
    Assemble(AssembleArgs),
    /// Check a genesis and take it into a member's directory
    Check(CheckArgs),
    /// Fetch the genesis with all handovers from a node, and check it
    Fetch(fetch::GenesisArgs),
}

/// Options of `bkss genesis draft`.
#[derive(clap::Args, Debug)]
pub(crate) struct DraftArgs {
    /// Text that the providers agree on
    #[arg(long, value_name = "FILE")]
    agreement: PathBuf,
    /// The charter to be signed; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Identities of all founders, providers and SDIs
    #[arg(required = true, value_name = "IDENTITY")]
    identities: Vec<PathBuf>,
    #[command(flatten)]
    terms: TermsArgs,
}

/// Options of `bkss genesis sign`.
#[derive(clap::Args, Debug)]
pub(crate) struct SignArgs {
    /// Directory of the member that signs
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The charter
    charter: PathBuf,
    /// The signature; must not exist. provider-N.signature beside the charter without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show what would be signed, and sign nothing
    #[arg(long)]
    dry_run: bool,
}

/// Options of `bkss genesis assemble`.
#[derive(clap::Args, Debug)]
pub(crate) struct AssembleArgs {
    /// The charter
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    /// The genesis; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Signatures of all founders
    #[arg(required = true, value_name = "SIGNATURE")]
    signatures: Vec<PathBuf>,
}

/// Options of `bkss genesis check`.
#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    /// Directory of the member that checks; the genesis is put there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Text that the providers agreed on, to be compared
    #[arg(long, value_name = "FILE")]
    agreement: Option<PathBuf>,
    /// The genesis
    genesis: PathBuf,
}

/// Runs a command of `bkss genesis`.
pub(crate) fn run(command: &GenesisCommand) -> ExitCode {
    command::exit(match command {
        GenesisCommand::Draft(args) => draft(args),
        GenesisCommand::Sign(args) => sign(args),
        GenesisCommand::Assemble(args) => assemble(args),
        GenesisCommand::Check(args) => check(args),
        GenesisCommand::Fetch(args) => fetch::genesis(args),
    })
}

fn draft(args: &DraftArgs) -> Result<Value, CommandError> {
    let agreement = terms::agreement(&files::read(&args.agreement, super::MAX_AGREEMENT)?);
    let (mut providers, mut sdis) = (Vec::new(), Vec::new());
    for path in &args.identities {
        match Identity::load(path)? {
            Identity::Provider(provider) => providers.push(provider),
            Identity::Sdi(sdi) => sdis.push(sdi),
        }
    }
    let charter = args.terms.charter(agreement, providers, sdis)?;
    show(&charter);
    let done = json!({ "file": args.out.display().to_string(), "charter": as_json(&charter) });
    CharterPaper(charter).save(&args.out)?;
    output::result(&format!("give it to all founders to sign: {}", args.out.display()));
    Ok(done)
}

fn sign(args: &SignArgs) -> Result<Value, CommandError> {
    let charter = CharterPaper::load(&args.charter)?;
    show(&charter);
    let network = charter.network();
    let (member, key, digest) = match Member::load(&args.dir)? {
        Member::Provider(keys) => {
            let member = MemberId::Provider(keys.id);
            // As it was given to the others, to the letter: also its vote key and address.
            let own = Identity::load(&args.dir.join(format!("{member}.identity")))?;
            let same = |entry: &&ProviderIdentity| own == Identity::Provider((*entry).clone());
            let entry = charter.providers.iter().find(same).filter(|entry| keys.fit(entry));
            let digest = entry.map(|entry| signed_digest(network, entry));
            (member, keys.identity.clone(), digest)
        }
        Member::Sdi(sdi) => {
            let own = charter.sdis.iter().find(|entry| **entry == sdi.identity);
            let digest = own.map(|entry| signed_digest(network, entry));
            (MemberId::Sdi(sdi.identity.id), sdi.key.clone(), digest)
        }
    };
    let digest = digest.ok_or_else(|| {
        let (charter, dir) = (args.charter.display(), args.dir.display());
        CommandError::Refused(format!(
            "{charter}: {member} of {dir} is not one of its founders, or not with these keys"
        ))
    })?;
    let mut done = json!({
        "charter": as_json(&charter),
        "member": member.to_string(),
        "signed": digest.to_string(),
        "file": null,
    });
    if args.dry_run {
        output::result(&format!("{member} would sign {digest}; nothing was signed"));
        return Ok(done);
    }
    let beside = || args.charter.with_file_name(format!("{member}.signature"));
    let out = args.out.clone().unwrap_or_else(beside);
    SignaturePaper { network, member, signature: key.sign(&digest) }.save(&out)?;
    output::result(&format!("{member} has signed: {}", out.display()));
    done["file"] = out.display().to_string().into();
    Ok(done)
}

fn assemble(args: &AssembleArgs) -> Result<Value, CommandError> {
    let charter = CharterPaper::load(&args.charter)?;
    let mut found: BTreeMap<MemberId, Signature> = BTreeMap::new();
    for path in &args.signatures {
        let paper = SignaturePaper::load(path)?;
        if paper.network != charter.network() {
            let (file, found, expected) = (path.display(), paper.network, charter.network());
            return Err(CommandError::Refused(format!(
                "{file}: signature of network {found}, the charter is of {expected}"
            )));
        }
        found.insert(paper.member, paper.signature);
    }
    let mut take = |member: MemberId| {
        let missing = || CommandError::Refused(format!("the signature of {member} is missing"));
        found.remove(&member).ok_or_else(missing)
    };
    let providers = charter.providers.iter().map(|entry| take(MemberId::Provider(entry.id)));
    let providers = providers.collect::<Result<Vec<_>, _>>()?;
    let sdis = charter.sdis.iter().map(|entry| take(MemberId::Sdi(entry.id)));
    let sdis = sdis.collect::<Result<Vec<_>, _>>()?;
    if let Some(member) = found.keys().next() {
        return Err(CommandError::Refused(format!("{member} is not one of the founders")));
    }
    let genesis = Genesis::assemble(charter, providers, sdis)
        .map_err(CommandError::refused(&args.charter.display().to_string()))?;
    files::write_new(&args.out, &genesis.encode(), Readers::All)?;
    terms::note_trust(genesis.charter());
    let (network, out) = (genesis.network().to_string(), args.out.display().to_string());
    output::result(&format!("network {network} is founded: {out}"));
    Ok(json!({ "file": out, "network": network }))
}

fn check(args: &CheckArgs) -> Result<Value, CommandError> {
    let file = args.genesis.display();
    let trust = verify::read_trust(&args.genesis)?;
    let genesis = trust.genesis();
    let charter = genesis.charter();
    show(charter);
    if let Some(path) = &args.agreement {
        let expected = terms::agreement(&files::read(path, super::MAX_AGREEMENT)?);
        let found = charter.agreement;
        if expected != found {
            return Err(CommandError::Refused(format!(
                "{file}: agreement {found}, that of {} is {expected}",
                path.display()
            )));
        }
    }
    let mut done = json!({ "file": file.to_string(), "charter": as_json(charter), "member": null });
    let Some(dir) = &args.dir else {
        output::result(&format!("{file}: all founders have signed it"));
        return Ok(done);
    };
    let (member, own) = match Member::load(dir)? {
        Member::Provider(keys) => {
            let entry = trust.anchors().providers.iter().find(|entry| entry.id == keys.id);
            (MemberId::Provider(keys.id), entry.is_some_and(|entry| keys.fit(entry)))
        }
        Member::Sdi(sdi) => {
            (MemberId::Sdi(sdi.identity.id), trust.anchors().sdis.contains(&sdi.identity))
        }
    };
    if !own {
        let dir = dir.display();
        return Err(CommandError::Refused(format!("{file}: {member} of {dir} is not in it")));
    }
    take_in(dir, genesis)?;
    output::result(&format!("{file}: all founders have signed it, {member} is one of the members"));
    done["member"] = member.to_string().into();
    Ok(done)
}

/// Puts a genesis into a member's directory; another one that is there stays.
fn take_in(dir: &Path, genesis: &Genesis) -> Result<(), CommandError> {
    let path = dir.join("genesis.bkss");
    if !path.exists() {
        return Ok(files::write_new(&path, &genesis.encode(), Readers::All)?);
    }
    let (expected, found) = (genesis.network(), verify::read_trust(&path)?.genesis().network());
    if expected == found {
        return Ok(());
    }
    let path = path.display();
    Err(CommandError::Refused(format!("{path}: is of network {found}, this one is {expected}")))
}

/// Who a directory belongs to.
enum Member {
    Provider(Keys),
    Sdi(SdiKeys),
}

impl Member {
    fn load(dir: &Path) -> Result<Self, CommandError> {
        match Keys::load(dir) {
            Ok(keys) => Ok(Self::Provider(keys)),
            Err(error) => SdiKeys::load(dir).map(Self::Sdi).map_err(|_| error.into()),
        }
    }
}

/// Says what a charter agrees on.
fn show(charter: &Charter) {
    let Charter { name, agreement, start, time_scale, terms, rounds, limits, .. } = charter;
    let lines = [
        format!("network {} \"{name}\"", charter.network()),
        format!("  agreement      {agreement}"),
        format!("  starts         {}, {time_scale} ledger seconds per second", utc(*start)),
        format!(
            "  terms          slots of at least {} s, opened within {} s, a block every {} s, clocks \
             within {} ms",
            terms.min_slot_s, terms.reveal_s, terms.grid_s, terms.precision_ms
        ),
        format!(
            "  kept           sealed readings for {} s, an erasure is announced {} s before; the \
             founders agree on this, nothing enforces it",
            terms.keep_s, terms.notice_s
        ),
        format!(
            "  rounds         {} blocks, {} accounting nodes, {} alternates, a leader stays {} views",
            rounds.blocks, rounds.committee, rounds.alternates, rounds.tenure_views
        ),
        format!("  votes          {}", weighing(rounds.votes)),
        format!(
            "  limits         {} bytes of a block, {} items of a batch, {} steps of a block's chains",
            limits.block_bytes, limits.batch_items, limits.steps
        ),
        format!(
            "  chains         {}, {} of one owner, begin at most {} s after their registration, {} \
             requests of one gateway wait",
            limits.meters, limits.owner_meters, terms.ahead_s, limits.pending
        ),
    ];
    lines.iter().for_each(|line| output::result(line));
    for provider in &charter.providers {
        let (id, name, key, address) =
            (provider.id, &provider.name, provider.key, &provider.address);
        output::result(&format!("  provider {id:>5} {key:?} at {address} \"{name}\""));
    }
    for sdi in &charter.sdis {
        output::result(&format!("  SDI {:>10} {:?} \"{}\"", sdi.id, sdi.key, sdi.name));
    }
    terms::note_trust(charter);
}

const fn weighing(votes: Weighing) -> &'static str {
    match votes {
        Weighing::Members => "of all providers weigh the same",
        Weighing::Meters => "weigh by the meters that report",
    }
}

/// What a charter agrees on, for programs.
fn as_json(charter: &Charter) -> Value {
    let Charter { name, agreement, start, time_scale, terms, rounds, limits, .. } = charter;
    let providers = charter.providers.iter().map(|provider| {
        json!({
            "provider": provider.id.0,
            "name": provider.name.as_str(),
            "key": format!("{:?}", provider.key),
            "address": provider.address.as_str(),
        })
    });
    let sdis = charter.sdis.iter().map(|sdi| {
        json!({ "sdi": sdi.id.0, "name": sdi.name.as_str(), "key": format!("{:?}", sdi.key) })
    });
    json!({
        "network": charter.network().to_string(),
        "name": name.as_str(),
        "agreement": agreement.to_string(),
        "start": utc(*start),
        "time_scale": time_scale,
        "terms": {
            "min_slot_s": terms.min_slot_s,
            "reveal_s": terms.reveal_s,
            "grid_s": terms.grid_s,
            "precision_ms": terms.precision_ms,
            "keep_s": terms.keep_s,
            "notice_s": terms.notice_s,
            "ahead_s": terms.ahead_s,
        },
        "rounds": {
            "blocks": rounds.blocks,
            "committee": rounds.committee,
            "alternates": rounds.alternates,
            "tenure_views": rounds.tenure_views,
            "votes": match rounds.votes {
                Weighing::Members => "members",
                Weighing::Meters => "meters",
            },
        },
        "limits": {
            "block_bytes": limits.block_bytes,
            "batch_items": limits.batch_items,
            "steps": limits.steps,
            "meters": limits.meters,
            "owner_meters": limits.owner_meters,
            "pending": limits.pending,
        },
        "providers": providers.collect::<Vec<_>>(),
        "sdis": sdis.collect::<Vec<_>>(),
    })
}
