//! `bkss sdi renew`: the next chain of a meter, issued by the SDI.
//!
//! The meter's files go to the meter by hand, the paper to its owner, who signs it with
//! `bkss meter approve`. The old chain ends where the new one begins: no slot is valid under both.

use std::{num::NonZeroU64, path::PathBuf};

use bkss_ledger::{
    Trust,
    membership::{self, RegistrationRefusal},
};
use bkss_scheme::{Network, RootMessage, Slot, slot::Schedule};
use bkss_sdi::{Order, Sdi};

use serde_json::Value;

use crate::{
    command::{self, CommandError},
    fetch,
    files::{self, Readers},
    fleet,
    known_meter::KnownMeter,
    meter_commands::keep,
    meter_ids::MeterArgs,
    meter_paper::{Matter, MeterPaper, end_of},
    meters::{CHAIN_BLOCK_LOG2, Issued, Plan, RunError, issue},
    output, verify,
};

/// Seconds until a chain begins, at least, if nobody says otherwise: the files pass by hand.
const LEAD_S: u64 = 86_400;

/// Options of `bkss sdi renew`.
#[derive(clap::Args, Debug)]
pub(crate) struct RenewArgs {
    /// Directory of the SDI that issued the meter's last chain
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A node of the consortium
    #[arg(long, value_name = "URL")]
    node: String,
    #[command(flatten)]
    meter: MeterArgs,
    /// Ledger seconds until the chain begins, at least; without it where the last one ends, but not
    /// within a day
    #[arg(long, value_name = "SECONDS")]
    after: Option<u64>,
    /// Number of slots; those of the last chain without it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    slots: Option<u32>,
    /// Slot length, ledger seconds; that of the last chain without it
    #[arg(long, value_name = "SECONDS")]
    slot: Option<u32>,
    /// Request window, ledger seconds; that of the last chain without it
    #[arg(long, value_name = "SECONDS")]
    window: Option<u32>,
    /// New directory for the meter: what it needs, and its secret
    #[arg(long, value_name = "DIR")]
    meter_out: PathBuf,
    /// The paper, for the owner to sign; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// In place of a chain that was issued and did not get onto the ledger
    #[arg(long)]
    instead: bool,
    /// Show what would be issued and check it, but issue nothing
    #[arg(long)]
    dry_run: bool,
}

/// Issues the chain.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn renew(args: &RenewArgs) -> Result<Value, CommandError> {
    let genesis = verify::read_trust(&args.dir.join("genesis.bkss"))?;
    let network = genesis.genesis().network();
    if args.out.exists() {
        let out = args.out.display();
        return Err(CommandError::Usage(format!("{out}: expected a file that is not there yet")));
    }
    // Before anything is spent.
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let folder = folder.display();
        return Err(CommandError::Usage(format!("{folder}: expected a folder that is there")));
    }
    let (mut sdi, mut log) = fleet::open(&args.dir, network)?;
    let known = KnownMeter::ask(&args.node, args.meter.number()?)?;
    let trust = fetch::newest_trust(&known.client, network)?;
    let order = order(args, &sdi, &known, &trust)?;
    let owner = known.members.provider(order.owner);
    let gone = || CommandError::Refused(RegistrationRefusal::UnknownOwner(order.owner).to_string());
    let sealing_key = owner.ok_or_else(gone)?.sealing_key;
    let plan = Plan {
        eras: trust.eras(),
        sealing_key,
        order,
        instead: args.instead.then(|| Some(known.last.schedule.begins())),
    };
    let mut commit = |sdi: &mut Sdi| {
        if args.dry_run {
            drop(sdi.take_records());
        } else {
            log.commit(sdi)?;
        }
        Ok(())
    };
    let by = sdi.identity().id;
    let issue = || {
        let issued = issue(&mut sdi, &mut commit, plan, &mut command::rng()?);
        issued.map_err(|error| match error {
            RunError::Command(error) => error,
            other if args.instead => CommandError::Refused(other.to_string()),
            other => CommandError::Refused(format!(
                "{other}; where that one will not get onto the ledger: --instead"
            )),
        })
    };
    if args.dry_run {
        let paper = paper(network, &issue()?);
        paper.show(&known);
        output::result("a trial: nothing was issued");
        return Ok(paper.json("nothing"));
    }
    let mut done = files::fill_directory(&args.meter_out, Readers::Owner, || {
        let issued = issue()?;
        let mut paper = paper(network, &issued);
        paper.sdi = Some((by, issued.signature));
        issued.made.save(&args.meter_out)?;
        keep(&paper, &known, &args.out)
    })?;
    let dir = args.meter_out.display().to_string();
    output::result(&format!("for the meter, by hand: {dir}"));
    done["meter_dir"] = dir.into();
    Ok(done)
}

/// The paper of a chain, without signatures.
fn paper(network: Network, issued: &Issued) -> MeterPaper {
    let bundle = &issued.made.bundle;
    let (message, block_log2) = (bundle.root_message.clone(), bundle.block_log2);
    let block_roots = issued.block_roots.clone();
    MeterPaper::new(network, Matter::Chain { message, block_log2, block_roots })
}

/// What the owner would order, checked against the ledger before anything is spent on it.
fn order(
    args: &RenewArgs,
    sdi: &Sdi,
    known: &KnownMeter,
    trust: &Trust,
) -> Result<Order, CommandError> {
    let last = &known.last;
    let meter = last.meter;
    let fleet = args.dir.join("fleet.bkss");
    let device = sdi.device(meter).ok_or_else(|| {
        CommandError::Refused(format!(
            "{}: knows nothing of meter {meter}, which is on the ledger: another SDI has issued it, or \
             this is an old or a cut copy of the file",
            fleet.display()
        ))
    })?;
    let slot_s = args.slot.unwrap_or(last.schedule.slot_s);
    let slot = NonZeroU64::new(slot_s.into())
        .ok_or_else(|| CommandError::Usage("--slot 0: expected at least a second".into()))?;
    let window_s = args.window.unwrap_or(last.schedule.window_s);
    if window_s == 0 || window_s >= slot_s {
        let most = slot_s.saturating_sub(1);
        return Err(CommandError::Usage(format!(
            "--window {window_s}: expected 1 to {most} with slots of {slot_s} s"
        )));
    }
    let least = known.time.seconds().saturating_add(args.after.unwrap_or(LEAD_S));
    let from = if args.after.is_some() { least } else { least.max(end_of(last).seconds()) };
    let schedule = Schedule {
        first: Slot(from.div_ceil(slot.get())),
        slot_s,
        window_s,
        slots: args.slots.unwrap_or(last.schedule.slots),
    };
    let (owner, commitment) = (device.owner, device.commitment());
    let next = RootMessage { owner, device: commitment, schedule, ..last.clone() };
    membership::check_next(&known.chain(trust.genesis().network()), &next)
        .and_then(|()| {
            let terms = &trust.genesis().charter().terms;
            membership::check_schedule(terms, known.time, &schedule)
        })
        .map_err(CommandError::refused("by the ledger's rules"))?;
    Ok(Order {
        meter,
        owner,
        schedule,
        serial: device.serial.clone(),
        block_log2: CHAIN_BLOCK_LOG2,
        revocable_by_secret: false,
    })
}
