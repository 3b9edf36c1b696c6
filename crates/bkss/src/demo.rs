//! `bkss demo`: real homes signed, agreed on by four providers, checked offline.
//!
//! Everything is the production code: meters, gateways, providers on authenticated TCP, verifier.
//! Only time runs faster, by a factor that the genesis states.

mod founding;
mod in_process;
mod proof;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use bkss_ledger::{Genesis, Trust};
use bkss_node::{
    Config, Consortium, LedgerClock, Pacing,
    config::{Latest, vote_key},
};

use crate::{
    clock,
    command::CommandError,
    files::{self, Readers},
    households::{self, Cut},
    meter_ids::MeterIds,
    meters::{Drive, RunError, Shape, Summary},
    output,
    text::shown,
};
use founding::Founding;
use in_process::InProcess;

/// Slot length, seconds: quarter hours.
const SLOT_S: u32 = 900;
/// `W`, seconds: at the speed of the demonstration room for more blocks than f + 2 (B12).
const WINDOW_S: u32 = 450;
/// `G`, seconds: a block at least this often; `W` and `L` are multiples of it.
const GRID_S: u32 = 450;
/// Ledger seconds per second.
const TIME_SCALE: u32 = 900;
/// Ledger seconds between the genesis and the first slot; registrations fall into them.
const LEAD_S: u64 = 450;
/// Most meters of a demonstration.
const MAX_METERS: u32 = 10_000;
/// Most values of a meter: a year of quarter hours.
const MAX_SLOTS: u32 = 366 * 96;
/// Links of a chain: some more, since a value whose window was missed takes the next slot.
const CHAIN_SLOTS: u32 = MAX_SLOTS + 40 * 96;
/// Meters and values of the model.
const MODEL: (u32, u32) = (60, 96);

/// Options of `bkss demo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Interval file, CSV: VID,V001,.. in kWh; a built-in household model without it
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Start of the first interval, UTC, on a quarter hour
    #[arg(long, value_name = "TIME", default_value = "2024-10-28T00:00:00Z")]
    start: jiff::Timestamp,
    /// Number of service providers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(4..=16))]
    providers: u16,
    /// The first meters of the file, all of them without it; 60 of the model
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_METERS.into()))]
    meters: Option<u32>,
    /// The first values of each meter, one for each slot, all of them without it; 96 of the model
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_SLOTS.into()))]
    slots: Option<u32>,
    /// Makes readings, keys and chains the same every time
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write; must be empty or absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the demonstration and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    // A second handler cannot be set; then Ctrl-C ends the process at once, as without one.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst));
    match demonstrate(args) {
        Ok((summary, proof)) => {
            summary.report();
            output::result("");
            proof.iter().for_each(|line| output::result(line));
            if summary.complete() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            output::failed(&error);
            error.exit_code()
        }
    }
}

/// The summary, and what shows that it is so.
fn demonstrate(args: &Args) -> Result<(Summary, Vec<String>), RunError> {
    let start_s = start_seconds(args.start)?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(CommandError::from)?,
    };
    let cut = Cut { meters: args.meters, slots: args.slots };
    let (table, source) = match &args.data {
        Some(path) => {
            let (table, _) = households::read_csv(path, cut, MAX_METERS, MAX_SLOTS)?;
            (table, path.display().to_string())
        }
        None => {
            let (meters, slots) = (args.meters.unwrap_or(MODEL.0), args.slots.unwrap_or(MODEL.1));
            let table = households::model(seed, meters, slots);
            (table, format!("built-in model, seed {seed}"))
        }
    };
    let mut ids = MeterIds::default();
    let households = table.households(|id| ids.number(id, |_| Ok::<_, CommandError>(false)))?;
    let dir = directory(args.out.as_deref())?;
    output::note(&format!(
        "{source}: {}; each is taken for kWh in {SLOT_S} s, the first from {} on (--start)",
        table.size(),
        args.start
    ));
    output::note(&format!(
        "ledger time runs {TIME_SCALE} times faster than the clock: a slot of {SLOT_S} s takes \
         {:.1} s",
        f64::from(SLOT_S) / f64::from(TIME_SCALE)
    ));
    let founding = Founding::new(seed, args.providers, start_s, &households)?;
    founding.write(&dir)?;
    ids.save(&dir.join("meters.csv"))?;

    let began = clock::now();
    let ledger_clock = LedgerClock::stopped(founding.genesis_time(), TIME_SCALE);
    let consortium = Consortium::start(configs(&founding, &dir, &ledger_clock))
        .map_err(RunError::step("providers"))?;
    let gateways = InProcess::new(&founding, consortium, ledger_clock, &dir)?;
    let meters = founding.software_meters(start_s)?;
    let mut drive = Drive::new(&founding.meters, meters, gateways, &dir);
    if let Err(error) = drive.run(&STOP) {
        drive.into_gateways().stop();
        return Err(error);
    }
    let (mut run, gateways) = drive.finish()?;
    run.archive_bytes = gateways.finish()?;
    let shape = Shape {
        providers: founding.keys.len(),
        meters: founding.meters.len(),
        slots: table.slots(),
        time_scale: TIME_SCALE,
    };
    let mut summary = Summary::new(shape, run, &dir);
    summary.wall_s = began.elapsed().as_secs_f64();
    let trust = Trust::new(Genesis::clone(&founding.genesis));
    summary.check_receipts(&trust, &founding.meters, |_, _| None)?;
    summary.write()?;
    let mut proof = Vec::new();
    if let (Some(id), Some(meter)) = (table.ids().next(), founding.meters.first()) {
        let message = meter.message();
        let receipts = dir.join("receipts").join(message.meter.to_string());
        proof = proof::lines(&dir, &trust, (&shown(id), &receipts, message.owner))?;
    }
    Ok((summary, proof))
}

fn configs(founding: &Founding, dir: &Path, clock: &LedgerClock) -> Vec<(Config, PathBuf)> {
    let pacing = Pacing {
        idle: std::time::Duration::from_secs(1),
        resend: std::time::Duration::from_millis(150),
        ..Pacing::default()
    };
    let config = |keys: &crate::provider::Keys| {
        let config = Config {
            genesis: founding.genesis.clone(),
            provider: keys.id,
            identity: keys.identity.clone(),
            vote_key: vote_key(keys.vote()).0,
            rekey: None,
            clock: clock.clone(),
            pacing,
            trust: None,
            addresses: BTreeMap::new(),
            snapshot_rounds: 0,
            keep_bodies_days: None,
            eras: Vec::new(),
            latest: Latest::default(),
            events_from: 1,
            vote_without_memory: false,
            partition: "ledger".into(),
        };
        (config, founding::provider_dir(dir, keys.id).join("store"))
    };
    founding.keys.iter().map(config).collect()
}

/// Seconds since 1970 of a time on a quarter hour.
fn start_seconds(start: jiff::Timestamp) -> Result<u64, RunError> {
    let lead = i64::try_from(LEAD_S).unwrap_or(i64::MAX);
    let seconds = start.as_second();
    let aligned = seconds % i64::from(SLOT_S) == 0 && start.subsec_nanosecond() == 0;
    match u64::try_from(seconds) {
        Ok(seconds_u) if aligned && seconds > lead => Ok(seconds_u),
        _ => {
            let reason = format!("--start {start}: not on a quarter hour after 1970");
            Err(CommandError::Usage(reason).into())
        }
    }
}

/// The directory to write to: a fresh one, or the one that was asked for if it is empty.
fn directory(out: Option<&Path>) -> Result<PathBuf, RunError> {
    if let Some(out) = out {
        files::empty_directory(out, Readers::All)?;
        return Ok(out.to_owned());
    }
    let parent = std::env::temp_dir();
    let dir = tempfile::Builder::new().prefix("bkss-demo-").tempdir_in(&parent);
    dir.map(tempfile::TempDir::keep).map_err(|source| RunError::File { path: parent, source })
}
