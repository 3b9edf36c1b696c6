//! `bkss meter revoke`: a stolen or broken meter signs nothing any more (A25).
//!
//! Its owner and an SDI sign together, or somebody shows the secret that was agreed on when the
//! meter was registered.

use std::{path::PathBuf, process::ExitCode};

use bkss_ledger::{
    Revocation, Transaction,
    revocation::{Reason, Right},
};
use bkss_scheme::{MeterId, codec, timestamp::RegistrationProof};

use crate::{
    changes::{bring, hex},
    client::Client,
    command::{self, CommandError},
    files,
    found::SdiKeys,
    output,
    provider::Keys,
    verify,
};

/// Bytes of a secret that revokes a meter.
const SECRET: u64 = 32;

/// Commands of `bkss meter`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum MeterCommand {
    /// End a meter's chain for good
    Revoke(RevokeArgs),
}

/// Options of `bkss meter revoke`.
#[derive(clap::Args, Debug)]
#[group(id = "right", required = true, multiple = true, args = ["owner", "secret"])]
pub(crate) struct RevokeArgs {
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    /// The network's genesis file
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Number of the meter
    #[arg(long)]
    meter: u32,
    /// Directory of the provider that owns it
    #[arg(long, value_name = "DIR", requires = "sdi", conflicts_with = "secret")]
    owner: Option<PathBuf>,
    /// Directory of an SDI
    #[arg(long, value_name = "DIR", requires = "owner")]
    sdi: Option<PathBuf>,
    /// File with the 32 bytes that revoke it
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Why, as a number of your own; the ledger treats all alike
    #[arg(long, default_value_t = 0)]
    reason: u8,
    /// Check it, but sign and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs a command of `bkss meter`.
pub(crate) fn run(command: &MeterCommand) -> ExitCode {
    let MeterCommand::Revoke(args) = command;
    command::exit(revoke(args))
}

fn revoke(args: &RevokeArgs) -> Result<(), CommandError> {
    let network = verify::read_trust(&args.genesis)?.genesis().network();
    let client = Client::new(&args.node)?;
    let members = client.ledger_members()?;
    let meter = MeterId(args.meter);
    let bytes = client.registration_proof(meter)?;
    let proof: RegistrationProof<'_> =
        codec::decode("registration", &bytes).map_err(CommandError::refused(client.url()))?;
    let message = &proof.registration.message;
    let unknown = || CommandError::Refused(format!("meter {meter}: its members are not known"));
    let sdi = members.sdi(message.sdi).ok_or_else(unknown)?;
    let owner = members.provider_ever(message.owner).ok_or_else(unknown)?;
    let chain = proof.registration.verify(network, &sdi.key, &owner.key);
    let chain = chain.map_err(CommandError::refused("registration of the meter"))?;
    let reason = Reason(args.reason);
    let revocation = match (&args.owner, &args.sdi, &args.secret) {
        (Some(owner), Some(sdi), _) => {
            let (owner, sdi) = (Keys::load(owner)?, SdiKeys::load(sdi)?);
            let by = (sdi.identity.id, &sdi.key);
            Revocation::sign(network, &chain, reason, by, &owner.identity)
        }
        (_, _, Some(secret)) => {
            let bytes = files::read(secret, SECRET)?;
            let found = bytes.len();
            let short = |_| format!("{}: expected 32 bytes, found {found}", secret.display());
            let secret = <[u8; 32]>::try_from(bytes).map_err(short);
            let right = Right::Secret(secret.map_err(CommandError::Refused)?);
            Revocation { meter, chain: *chain.id(), reason, right }
        }
        _ => return Err(CommandError::Usage("expected --owner and --sdi, or --secret".into())),
    };
    let checked = revocation.check(&members, network, &chain);
    checked.map_err(CommandError::refused("by the ledger's rules"))?;
    output::note(&format!("meter {meter} signs nothing any more: its chain {}", chain.id()));
    output::note(&format!("  owner          provider {}", message.owner));
    output::note(&format!("  device         {}", hex(&message.device.0)));
    output::note("  what was requested before may still be opened");
    if args.dry_run {
        output::note("the rules hold; nothing was sent");
        return Ok(());
    }
    bring(&client, &Transaction::Revocation(revocation))?;
    output::note("accepted: it is on its way to the ledger");
    Ok(())
}
