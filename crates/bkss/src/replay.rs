//! `bkss replay`: software meters against nodes over HTTP, from provisioning to receipts.
//!
//! The SDI provisions the meters, their owners countersign, and each value of the data file is
//! signed in a slot of ledger time. A run that was stopped goes on where it was: what a meter keeps
//! in flash is in a file. It is a tool for trials on one machine: it reads the keys of all owners.

mod remote;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bkss_ledger::{Trust, membership};
use bkss_scheme::{LedgerTime, MeterId, Slot, slot::Schedule};
use bkss_sdi::{Order, Sdi};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::Rng;

use crate::{
    client::{Client, ClientError},
    clock,
    command::{self, CommandError},
    fetch,
    fleet::{self, FleetLog},
    households::{self, Household},
    known_meter::newest_chain,
    meters::{
        CHAIN_BLOCK_LOG2, Drive, Plan, Provisioned, RunError, Shape, SoftwareFlash, SoftwareMeter,
        Summary, provision, write_whole,
    },
    output,
    provider::Keys,
    verify,
};
use remote::{Remote, opened_path};

/// Seconds from the provisioning of the first meter to the first slot, and for each fifty more.
const LEAD_S: u64 = 20;

/// Most bytes of a file with a number.
const MAX_NUMBER: u64 = 32;

/// Options of `bkss replay`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Nodes, in the order of their providers' numbers; a meter calls its owner's first
    #[arg(long, value_name = "URL", required = true)]
    node: Vec<String>,
    /// Interval file, CSV: VID,V001,.. in kWh
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Directory of the SDI
    #[arg(long, value_name = "DIR")]
    sdi: PathBuf,
    /// Directory of the owners' directories; providers beside that of the SDI without it
    #[arg(long, value_name = "DIR")]
    providers: Option<PathBuf>,
    /// Number of meters
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    meters: u32,
    /// Number of slots
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=35_000))]
    slots: u32,
    /// Slot length, ledger seconds; 900, or the network's shortest if that is longer
    #[arg(long, value_name = "SECONDS")]
    slot: Option<u32>,
    /// Request window, ledger seconds; half a slot without it
    #[arg(long, value_name = "SECONDS")]
    window: Option<u32>,
    /// Makes the meters' randomness the same every time: for trials only
    #[arg(long)]
    seed: Option<u64>,
    /// Where meters and receipts are kept; goes on with what is there
    #[arg(long, value_name = "DIR", default_value = "replay")]
    out: PathBuf,
    /// One JSON object as the last line of standard output
    #[arg(long)]
    json: bool,
}

/// Replays and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = stop.clone();
    // A second handler cannot be set; then Ctrl-C ends the process at once, as without one.
    let _ = ctrlc::set_handler(move || handler.store(true, Ordering::SeqCst));
    match replay(args, &stop) {
        Ok(summary) => {
            summary.report(args.json);
            if summary.complete() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            output::error(&error);
            error.exit_code()
        }
    }
}

fn replay(args: &Args, stop: &AtomicBool) -> Result<Summary, RunError> {
    let slots = args.slots as usize;
    let households = households::read_csv(&args.data, args.meters as usize, slots)?;
    let clients: Vec<_> = args.node.iter().map(|url| Client::new(url)).collect::<Result<_, _>>()?;
    let known = verify::read_trust(&args.sdi.join("genesis.bkss"))?;
    let trust = trust_of(&clients, &known)?;
    let owners = owners(args)?;
    std::fs::create_dir_all(&args.out).map_err(crate::files::unwritable(&args.out))?;
    let began = clock::now();
    let mut rng = match args.seed {
        Some(seed) => ChaCha20Rng::seed_from_u64(seed),
        None => command::rng()?,
    };
    let clock = remote::ledger_clock(trust.genesis());
    let now = clock.at(clock::wall());
    let (sdi, log) = fleet::open(&args.sdi, trust.genesis().network())?;
    let mut site =
        Site { args, trust: &trust, owners: &owners, now, client: &clients[0], sdi, log };
    let provisioned = site.provision(&households, &mut rng)?;
    let meters = switch_on(args, &provisioned, &households, &mut rng)?;
    drop(site); // the SDI is free for others
    let height = clients[0].status()?.height;
    let owners: Vec<_> = owners.iter().map(|keys| keys.id).collect();
    let gateways = Remote::new(clients, clock, trust.clone(), owners, &args.out);
    let mut drive = Drive::new(&provisioned, meters, gateways, &args.out);
    if let Err(error) = drive.run(stop) {
        drop(drive.into_gateways());
        return Err(error);
    }
    let (mut run, gateways) = drive.finish()?;
    let (archive_bytes, newest, trust) = gateways.finish(&args.out, height)?;
    run.archive_bytes = archive_bytes;
    run.blocks = newest.saturating_sub(height);
    let shape = Shape {
        providers: trust.committee().keys().len(),
        meters: provisioned.len(),
        slots: args.slots,
        time_scale: trust.genesis().charter().time_scale,
    };
    let mut summary = Summary::new(shape, run, &args.out);
    summary.wall_s = began.elapsed().as_secs_f64();
    summary.check_receipts(&trust)?;
    summary.write()?;
    Ok(summary)
}

/// What the nodes' genesis file says, if it is of the network that is known.
fn trust_of(clients: &[Client], known: &Trust) -> Result<Trust, RunError> {
    let mut refused = None;
    for client in clients {
        match fetch::newest_trust(client, known.genesis().network()) {
            Err(CommandError::Node(error)) => refused = Some(error),
            answer => return Ok(answer?),
        }
    }
    Err(refused.map_or_else(|| RunError::Step("nodes", "none given".into()), RunError::from))
}

/// Keys of all owners, by ascending number.
fn owners(args: &Args) -> Result<Vec<Keys>, RunError> {
    let beside = || args.sdi.parent().unwrap_or(Path::new(".")).join("providers");
    let dir = args.providers.clone().unwrap_or_else(beside);
    let entries = std::fs::read_dir(&dir).map_err(crate::files::unreadable(&dir))?;
    let mut owners = Vec::new();
    for entry in entries {
        let path = entry.map_err(crate::files::unreadable(&dir))?.path();
        if path.join("keys.bkss").exists() {
            owners.push(Keys::load(&path).map_err(CommandError::from)?);
        }
    }
    owners.sort_by_key(|keys| keys.id);
    if owners.is_empty() {
        let reason = format!("{}: expected directories of providers", dir.display());
        return Err(CommandError::Usage(reason).into());
    }
    Ok(owners)
}

/// Directory of a meter.
fn meter_dir(out: &Path, meter: MeterId) -> PathBuf {
    out.join("meters").join(meter.to_string())
}

/// Where meters are provisioned.
struct Site<'a> {
    args: &'a Args,
    trust: &'a Trust,
    owners: &'a [Keys],
    now: LedgerTime,
    client: &'a Client,
    sdi: Sdi,
    log: FleetLog,
}

impl Site<'_> {
    /// Meters that are there, and new ones for the households that have none.
    fn provision(
        &mut self,
        households: &[Household],
        rng: &mut ChaCha20Rng,
    ) -> Result<Vec<Provisioned>, RunError> {
        let schedule = self.schedule(households.len())?;
        let mut meters = Vec::new();
        for (number, household) in households.iter().enumerate() {
            let dir = meter_dir(&self.args.out, household.meter);
            if let Some(meter) = Provisioned::load(&dir)? {
                self.check_options(&meter)?;
                meters.push(meter);
                continue;
            }
            let owner = &self.owners[number % self.owners.len()];
            let order = Order {
                meter: household.meter,
                owner: owner.id,
                schedule,
                serial: household.meter.to_string().into_bytes(),
                block_log2: CHAIN_BLOCK_LOG2,
                revocable_by_secret: false,
            };
            let sealing_key = owner.opening().public();
            let instead = self.missing(household.meter)?;
            let plan = Plan { eras: self.trust.eras(), sealing_key, order, instead };
            let log = &mut self.log;
            let mut commit = |sdi: &mut Sdi| log.commit(sdi).map_err(RunError::from);
            let meter = provision(&mut self.sdi, &mut commit, plan, owner, rng)?;
            meter.save(&dir)?;
            meters.push(meter);
        }
        Ok(meters)
    }

    /// Whether a meter that is there has the slots that are asked for, if some are.
    fn check_options(&self, meter: &Provisioned) -> Result<(), RunError> {
        let Schedule { slot_s, window_s, .. } = meter.message().schedule;
        let (out, meter) = (self.args.out.display(), meter.message().meter);
        let pairs = [("slot", self.args.slot, slot_s), ("window", self.args.window, window_s)];
        for (option, asked, found) in pairs {
            if let Some(asked) = asked.filter(|asked| *asked != found) {
                return Err(CommandError::Usage(format!(
                    "--{option} {asked}: meter {meter} of {out} has {found}, and goes on with it"
                ))
                .into());
            }
        }
        Ok(())
    }

    /// If an earlier run has issued a chain for a meter that is not on the ledger: where the newest one
    /// begins that is there.
    fn missing(&self, meter: MeterId) -> Result<Option<Option<LedgerTime>>, RunError> {
        let issued = self.sdi.device(meter).and_then(|device| device.begins);
        if issued.is_none() {
            return Ok(None);
        }
        let newest = match newest_chain(self.client, meter) {
            Ok(message) => Some(message.schedule.begins()),
            Err(CommandError::Node(ClientError::Refused { status: 404, .. })) => None,
            Err(error) => return Err(error.into()),
        };
        if newest < issued {
            output::note(&format!(
                "meter {meter}: a chain that was issued before is not on the ledger, this one takes \
                 its place"
            ));
        }
        Ok(Some(newest))
    }

    /// Slots that begin when all meters can be registered.
    fn schedule(&self, meters: usize) -> Result<Schedule, RunError> {
        let charter = self.trust.genesis().charter();
        let least = charter.terms.min_slot_s;
        let slot_s = self.args.slot.unwrap_or_else(|| least.max(900));
        let window_s = self.args.window.unwrap_or(slot_s / 2);
        if slot_s < least || window_s == 0 || window_s >= slot_s {
            let reason = format!(
                "--slot {slot_s} --window {window_s}: expected slots of at least {least} s and a \
                 window within them"
            );
            return Err(CommandError::Usage(reason).into());
        }
        let lead = LEAD_S + meters as u64 / 50;
        let first = self.now.seconds() + lead * u64::from(charter.time_scale);
        let slots = self.args.slots.saturating_mul(4).saturating_add(1000);
        let schedule = Schedule {
            first: Slot(first / u64::from(slot_s) + 1),
            slot_s,
            window_s,
            slots: slots.min(1 << 20),
        };
        // What the ledger refuses would be issued in vain: the clock of this machine may be wrong.
        let time = LedgerTime(self.client.head()?.time_ms);
        let checked = membership::check_schedule(&charter.terms, time, &schedule);
        checked.map_err(CommandError::refused(
            "by the ledger's rules, and by the clock of this machine",
        ))?;
        Ok(schedule)
    }
}

fn switch_on(
    args: &Args,
    meters: &[Provisioned],
    households: &[Household],
    rng: &mut ChaCha20Rng,
) -> Result<Vec<SoftwareMeter>, RunError> {
    let mut running = Vec::new();
    for (meter, household) in meters.iter().zip(households) {
        let dir = meter_dir(&args.out, household.meter);
        let path = dir.join("flash.bkss");
        let flash = SoftwareFlash::open(&path).map_err(crate::files::unwritable(&path))?;
        let opened = crate::files::read(&opened_path(&dir), MAX_NUMBER).ok();
        let opened = opened.and_then(|opened| String::from_utf8(opened).ok());
        let opened = opened.and_then(|opened| opened.trim().parse().ok()).unwrap_or(0);
        let schedule = &meter.message().schedule;
        let start_s = schedule.begins().seconds().saturating_sub(schedule.slot_s.into());
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let readings = household.readings.clone();
        let opened = readings.len().min(opened);
        running.push(meter.switch_on(flash, readings, start_s, seed, opened)?);
    }
    let goes_on = running.iter().filter(|meter| meter.opened() > 0).count();
    if goes_on > 0 {
        output::note(&format!("{goes_on} of {} meters go on where they were", running.len()));
    }
    // What a meter has done is known as soon as it is.
    for meter in &running {
        let path = opened_path(&meter_dir(&args.out, meter.id()));
        write_whole(&path, meter.opened().to_string().as_bytes())?;
    }
    Ok(running)
}
