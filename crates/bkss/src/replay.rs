//! `bkss replay`: software meters against nodes over HTTP, from provisioning to receipts.
//!
//! The SDI provisions the meters, their owners countersign, and each value of the data file is
//! signed in a slot of ledger time. A run that was stopped goes on where it was: what a meter keeps
//! in flash is in a file. It is a tool for trials on one machine: it reads the keys of all owners.

mod remote;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bkss_ledger::{Trust, membership};
use bkss_meter::Journal;
use bkss_scheme::{LedgerTime, MeterId, Slot, slot::Schedule};
use bkss_sdi::{Order, Sdi};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::Rng;

use crate::{
    client::{Client, ClientError},
    clock,
    command::{self, CommandError},
    fetch,
    files::{self, Readers},
    fleet::{self, FleetLog},
    households::{self, Cut, Household, Table},
    known_meter::newest_chain,
    meter_ids::MeterIds,
    meters::{
        CHAIN_BLOCK_LOG2, Drive, Plan, Progress, Provisioned, RunError, Shape, SoftwareFlash,
        SoftwareMeter, Summary, provision,
    },
    output,
    provider::Keys,
    verify::{self, utc},
};
use remote::{Remote, progress_path};

/// Most meters of a run.
const MAX_METERS: u32 = 100_000;
/// Most values of a meter: seven years of quarter hours. A chain has four links for each, and 2^20.
const MAX_SLOTS: u32 = 250_000;

/// Seconds from the provisioning of the first meter to the first slot, and for each fifty more.
const LEAD_S: u64 = 20;

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
    /// The first meters of the file; all of them without it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_METERS.into()))]
    meters: Option<u32>,
    /// The first values of each meter, one for each slot; all of them without it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_SLOTS.into()))]
    slots: Option<u32>,
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
}

/// Replays and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = stop.clone();
    // A second handler cannot be set; then Ctrl-C ends the process at once, as without one.
    let _ = ctrlc::set_handler(move || handler.store(true, Ordering::SeqCst));
    match replay(args, &stop) {
        Ok(summary) => {
            summary.report();
            if summary.complete() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            output::failed(&error);
            error.exit_code()
        }
    }
}

fn replay(args: &Args, stop: &AtomicBool) -> Result<Summary, RunError> {
    let cut = Cut { meters: args.meters, slots: args.slots };
    let (table, bytes) = households::read_csv(&args.data, cut, MAX_METERS, MAX_SLOTS)?;
    if ["providers", "sdi", "keys.bkss"].iter().any(|name| args.out.join(name).exists()) {
        let out = args.out.display();
        let reason = format!("--out {out}: is a directory of a network, expected one of its own");
        return Err(CommandError::Usage(reason).into());
    }
    let kept = args.out.join("data.csv");
    if kept.exists() {
        table.check_contains(&households::read_kept(&kept)?, &args.data)?;
    }
    let clients: Vec<_> = args.node.iter().map(|url| Client::new(url)).collect::<Result<_, _>>()?;
    let known = verify::read_trust(&args.sdi.join("genesis.bkss"))?;
    let trust = trust_of(&clients, &known)?;
    let owners = owners(args)?;
    std::fs::create_dir_all(&args.out).map_err(files::unwritable(&args.out))?;
    let began = clock::now();
    let mut rng = match args.seed {
        Some(seed) => ChaCha20Rng::seed_from_u64(seed),
        None => command::rng()?,
    };
    let clock = remote::ledger_clock(trust.genesis());
    let now = clock.at(clock::wall());
    let (sdi, log) = fleet::open(&args.sdi, trust.genesis().network())?;
    let mut site = Site { args, trust: &trust, owners: &owners, now, clients: &clients, sdi, log };
    let (households, ids) = site.number(&table)?;
    let provisioned = site.provision(&table, &households, &mut rng)?;
    // A start that fails before this leaves no trace: what was issued until then is known to the SDI.
    // From here on what is signed is known to be of this file.
    ids.save(&args.out.join("meters.csv"))?;
    files::replace(&kept, &bytes, Readers::Owner)?;
    let meters = switch_on(args, &provisioned, &households, &mut rng)?;
    drop(site); // the SDI is free for others
    let height = first_answer(&clients, |client| Ok(client.status()?.height))?;
    let owners: Vec<_> = owners.iter().map(|keys| keys.id).collect();
    let again = clients.clone();
    let gateways = Remote::new(clients, clock, trust.clone(), owners, &args.out, height);
    let mut drive = Drive::new(&provisioned, meters, gateways, &args.out);
    if let Err(error) = drive.run(stop) {
        drop(drive.into_gateways());
        return Err(error);
    }
    let (mut run, gateways) = drive.finish()?;
    let (archive_bytes, blocks, trust) = gateways.finish(&args.out)?;
    (run.archive_bytes, run.blocks) = (archive_bytes, blocks);
    let shape = Shape {
        providers: trust.committee().keys().len(),
        meters: provisioned.len(),
        slots: table.slots(),
        time_scale: trust.genesis().charter().time_scale,
    };
    let mut summary = Summary::new(shape, run, &args.out);
    summary.wall_s = began.elapsed().as_secs_f64();
    summary.check_receipts(&trust, &provisioned, |message, link| {
        first_answer(&again, |client| Ok(client.receipt(message.meter, link)?)).ok()
    })?;
    summary.write()?;
    Ok(summary)
}

/// What the nodes' genesis file says, if it is of the network that is known.
fn trust_of(clients: &[Client], known: &Trust) -> Result<Trust, RunError> {
    Ok(first_answer(clients, |client| fetch::newest_trust(client, known.genesis().network()))?)
}

/// Asks one node after the other until one answers: one may be down, or about to start again.
fn first_answer<T>(
    clients: &[Client],
    question: impl Fn(&Client) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let mut silent = CommandError::Usage("--node: expected at least one".into());
    for client in clients {
        match question(client) {
            Err(
                error @ CommandError::Node(
                    ClientError::Unreachable { .. } | ClientError::Busy { .. },
                ),
            ) => silent = error,
            answer => return answer,
        }
    }
    Err(silent)
}

/// Keys of all owners, by ascending number.
fn owners(args: &Args) -> Result<Vec<Keys>, RunError> {
    let beside = || args.sdi.parent().unwrap_or(Path::new(".")).join("providers");
    let dir = args.providers.clone().unwrap_or_else(beside);
    let entries = std::fs::read_dir(&dir).map_err(files::unreadable(&dir))?;
    let mut owners = Vec::new();
    for entry in entries {
        let path = entry.map_err(files::unreadable(&dir))?.path();
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
    clients: &'a [Client],
    sdi: Sdi,
    log: FleetLog,
}

impl Site<'_> {
    /// Gives each household its number on the ledger.
    fn number(&self, table: &Table) -> Result<(Vec<Household>, MeterIds), RunError> {
        let mut ids = MeterIds::load_if_any(&self.args.out.join("meters.csv"))?;
        // A device that this SDI has had before keeps its number: its serial is the meter's id.
        let known = self.sdi.devices().map(|(meter, device)| (&device.serial[..], meter));
        let known: BTreeMap<&[u8], MeterId> = known.collect();
        for id in table.ids() {
            if let Some(meter) = known.get(id.as_bytes()) {
                ids.keep(id, *meter)?;
            }
        }
        let households = table.households(|id| ids.number(id, |meter| self.is_taken(meter)))?;
        Ok((households, ids))
    }

    /// Whether there is a meter of this number.
    fn is_taken(&self, meter: MeterId) -> Result<bool, CommandError> {
        Ok(self.sdi.device(meter).is_some() || self.newest(meter)?.is_some())
    }

    /// Where the newest chain of a meter begins that is on the ledger.
    fn newest(&self, meter: MeterId) -> Result<Option<LedgerTime>, CommandError> {
        first_answer(self.clients, |client| match newest_chain(client, meter) {
            Ok(message) => Ok(Some(message.schedule.begins())),
            Err(CommandError::Node(ClientError::Refused { status: 404, .. })) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Meters that are there, and new ones for the households that have none.
    fn provision(
        &mut self,
        table: &Table,
        households: &[Household],
        rng: &mut ChaCha20Rng,
    ) -> Result<Vec<Provisioned>, RunError> {
        let load =
            |household: &Household| Provisioned::load(&meter_dir(&self.args.out, household.meter));
        let there = households.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let schedule = self.schedule(households.len(), table.slots())?;
        let first = there.iter().flatten().next().map(|meter| meter.message().schedule);
        self.announce(table, &first.unwrap_or(schedule));
        let mut meters = Vec::new();
        let households = households.iter().zip(table.ids());
        for (number, ((household, id), there)) in households.zip(there).enumerate() {
            let dir = meter_dir(&self.args.out, household.meter);
            if let Some(meter) = there {
                self.check_options(&meter)?;
                meters.push(meter);
                continue;
            }
            let owner = &self.owners[number % self.owners.len()];
            let order = Order {
                meter: household.meter,
                owner: owner.id,
                schedule,
                serial: id.as_bytes().to_vec(),
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
        let newest = self.newest(meter)?;
        if newest < issued {
            output::note(&format!(
                "meter {meter}: a chain that was issued before is not on the ledger, this one takes \
                 its place"
            ));
        }
        Ok(Some(newest))
    }

    /// Says what the values are taken for: the file does not.
    fn announce(&self, table: &Table, schedule: &Schedule) {
        let (data, slot_s) = (self.args.data.display(), schedule.slot_s);
        let start = schedule.begins().0.saturating_sub(1000 * u64::from(slot_s));
        output::note(&format!(
            "{data}: {}; each is taken for kWh in {slot_s} s (--slot), the first from {} on: a replay \
             signs them as if they were measured now",
            table.size(),
            utc(LedgerTime(start))
        ));
    }

    /// Slots that begin when all meters can be registered.
    fn schedule(&self, meters: usize, values: usize) -> Result<Schedule, RunError> {
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
        let values = u32::try_from(values).unwrap_or(u32::MAX);
        let slots = values.saturating_mul(4).saturating_add(1000);
        let schedule = Schedule {
            first: Slot(first / u64::from(slot_s) + 1),
            slot_s,
            window_s,
            slots: slots.min(1 << 20),
        };
        // What the ledger refuses would be issued in vain: the clock of this machine may be wrong.
        let time = first_answer(self.clients, |client| Ok(client.head()?.time_ms));
        let time = LedgerTime(time?);
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
        let flash = SoftwareFlash::open(&path).map_err(files::unwritable(&path))?;
        let (progress, flash) = progress(&dir, flash)?;
        let schedule = &meter.message().schedule;
        let start_s = schedule.begins().seconds().saturating_sub(schedule.slot_s.into());
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let readings = household.readings.clone();
        running.push(meter.switch_on(flash, readings, start_s, seed, progress)?);
    }
    let goes_on = running.iter().filter(|meter| meter.progress().0.signed() > 0).count();
    if goes_on > 0 {
        output::note(&format!("{goes_on} of {} meters go on where they were", running.len()));
    }
    Ok(running)
}

/// How far a meter has got. It is there before the meter signs for the first time: without it, a meter
/// that has signed would sign everything again.
fn progress(dir: &Path, flash: SoftwareFlash) -> Result<(Progress, SoftwareFlash), RunError> {
    let path = progress_path(dir);
    let older = dir.join("opened");
    if older.exists() && !path.exists() {
        return Err(CommandError::Usage(format!(
            "{}: noted by an earlier version, which did not keep what is under way; replay into \
             another --out",
            older.display()
        ))
        .into());
    }
    let journal = Journal::open(flash).map_err(RunError::step("flash of a meter"))?;
    if !path.exists() {
        if journal.reserved() > 0 {
            return Err(CommandError::Refused(format!(
                "{}: is missing, and the meter has signed up to link {}: put it back, or replay into \
                 another --out",
                path.display(),
                journal.reserved()
            ))
            .into());
        }
        Progress::default().save(&path)?;
    }
    Ok((Progress::load(&path)?, journal.into_flash()))
}
