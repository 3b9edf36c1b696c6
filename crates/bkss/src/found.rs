//! `bkss init` and `bkss keygen`: keys and directories of members.

mod charter;
mod directory;

pub(crate) use charter::{GenesisCommand, run as genesis};
pub(crate) use directory::{ProviderDirectory, SdiKeys, check_address, sdi_directory};

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::Genesis;
use bkss_scheme::{ProviderId, SdiId};

use serde_json::{Value, json};

use crate::{
    command::{self, CommandError},
    files::{self, Readers},
    output, terms,
    terms::TermsArgs,
};

/// Most bytes of an agreement.
const MAX_AGREEMENT: u64 = 64 << 20;

/// Options of `bkss init`.
#[derive(clap::Args, Debug)]
pub(crate) struct InitArgs {
    /// Number of service providers
    #[arg(long, value_parser = clap::value_parser!(u16).range(4..=64))]
    providers: u16,
    /// Where to write; must be empty or absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// First port: provider n takes this + 2n for its peers and the next one for HTTP
    #[arg(long, value_name = "PORT", default_value_t = 7600)]
    base_port: u16,
    /// Text that the providers agree on; its hash is in the genesis
    #[arg(long, value_name = "FILE")]
    agreement: Option<PathBuf>,
    #[command(flatten)]
    terms: TermsArgs,
}

/// Founds a consortium on one machine.
pub(crate) fn init(args: &InitArgs) -> ExitCode {
    command::exit(found(args))
}

fn found(args: &InitArgs) -> Result<Value, CommandError> {
    let last = u32::from(args.base_port) + 2 * u32::from(args.providers);
    if args.base_port == 0 || last > 65_536 {
        let (base, count) = (args.base_port, args.providers);
        let most = 65_536_u32.saturating_sub(2 * u32::from(count));
        return Err(CommandError::Usage(format!(
            "--base-port {base}: expected 1 to {most} for {count} providers"
        )));
    }
    let text = match &args.agreement {
        Some(path) => files::read(path, MAX_AGREEMENT)?,
        None => b"Agreement of a consortium on one machine.".to_vec(),
    };
    let agreement = terms::agreement(&text);
    let mut rng = command::rng()?;
    let local = |port| format!("{}:{port}", Ipv4Addr::LOCALHOST);
    let mut providers = Vec::new();
    for number in 0..args.providers {
        let p2p = args.base_port + 2 * number;
        let name = format!("provider {number}");
        let made = ProviderDirectory::make(
            ProviderId(number),
            &name,
            &local(p2p),
            &local(p2p + 1),
            agreement,
            &mut rng,
        );
        providers.push(made?);
    }
    let sdi = SdiKeys::make(SdiId(0), "SDI 0", false, &mut rng)?;
    let identities = providers.iter().map(|provider| provider.identity.clone()).collect();
    let charter = args.terms.charter(agreement, identities, vec![sdi.identity.clone()])?;
    let keys: Vec<_> = providers.iter().map(|made| made.keys.identity.clone()).collect();
    let genesis = Genesis::found(charter, &keys, std::slice::from_ref(&sdi.key))
        .map_err(CommandError::refused("genesis"))?;

    let out = &args.out;
    files::fill_directory(out, Readers::All, || save(out, &text, &genesis, &providers, &sdi))?;
    tell(args, &genesis);
    Ok(json!({
        "dir": out.display().to_string(),
        "network": genesis.network().to_string(),
        "providers": args.providers,
    }))
}

fn save(
    out: &Path,
    agreement: &[u8],
    genesis: &Genesis,
    providers: &[ProviderDirectory],
    sdi: &SdiKeys,
) -> Result<(), CommandError> {
    let bytes = genesis.encode();
    files::write_new(&out.join("genesis.bkss"), &bytes, Readers::All)?;
    files::write_new(&out.join("agreement.txt"), agreement, Readers::All)?;
    for provider in providers {
        let dir = out.join("providers").join(provider.keys.id.to_string());
        provider.save(&dir)?;
        files::write_new(&dir.join("genesis.bkss"), &bytes, Readers::All)?;
    }
    let dir = sdi_directory(out);
    sdi.save(&dir)?;
    Ok(files::write_new(&dir.join("genesis.bkss"), &bytes, Readers::All)?)
}

fn tell(args: &InitArgs, genesis: &Genesis) {
    let out = args.out.display();
    output::result(&format!(
        "network {} of {} providers in {out}",
        genesis.network(),
        args.providers
    ));
    terms::note_trust(genesis.charter());
    crate::verify::note_time_scale(genesis);
    output::result("start each provider in a terminal of its own:");
    for number in 0..args.providers {
        output::result(&format!("  bkss node --dir {out}/providers/{number}"));
    }
}

/// Options of `bkss keygen`.
#[derive(clap::Args, Debug)]
pub(crate) struct KeygenArgs {
    /// Directory of the member; must be empty or absent
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Number of the member, agreed on with the others
    #[arg(long)]
    id: u16,
    /// Name for people
    #[arg(long)]
    name: String,
    /// Where the other providers reach this one, host:port
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "sdi")]
    address: Option<String>,
    /// Text that the providers agree on; its hash is signed
    #[arg(long, value_name = "FILE", required_unless_present = "sdi")]
    agreement: Option<PathBuf>,
    /// Where this provider's node listens for meters and operators
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7601")]
    http: String,
    /// A signing device infrastructure instead of a provider
    #[arg(long, conflicts_with_all = ["address", "agreement"])]
    sdi: bool,
    /// This SDI makes the chains of its meters, as in the paper, and knows them
    #[arg(long, requires = "sdi")]
    sdi_made: bool,
}

/// Makes keys and identity of one member.
pub(crate) fn keygen(args: &KeygenArgs) -> ExitCode {
    command::exit(make_keys(args))
}

fn make_keys(args: &KeygenArgs) -> Result<Value, CommandError> {
    let mut rng = command::rng()?;
    let paper = if args.sdi {
        let sdi = SdiKeys::make(SdiId(args.id), &args.name, args.sdi_made, &mut rng)?;
        sdi.save(&args.dir)?;
        format!("sdi-{}.identity", args.id)
    } else {
        // clap has seen to it that both are there.
        let address = args.address.as_deref().unwrap_or_default();
        let agreement = files::read(args.agreement.as_deref().unwrap_or(&args.dir), MAX_AGREEMENT)?;
        let provider = ProviderDirectory::make(
            ProviderId(args.id),
            &args.name,
            address,
            &args.http,
            terms::agreement(&agreement),
            &mut rng,
        )?;
        provider.save(&args.dir)?;
        format!("provider-{}.identity", args.id)
    };
    let (dir, paper) = (args.dir.display().to_string(), args.dir.join(paper));
    output::result(&format!("keys and identity are in {dir}"));
    output::result(&format!("give the others {}", paper.display()));
    Ok(json!({ "dir": dir, "identity": paper.display().to_string() }))
}
