//! `bkss demo`: real homes signed, agreed on by four providers, checked offline.
//!
//! Everything is the production code: meters, gateways, providers on authenticated TCP, verifier.
//! Only time runs faster, by a factor that the genesis states.

mod drive;
mod founding;
mod records;
mod software_meter;
mod summary;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use bkss_node::{Config, Consortium, LedgerClock, Pacing, config::vote_key};

use crate::{clock, households, output};
use drive::Drive;
use founding::Founding;
use summary::Summary;

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
/// Chains for one year of quarter hours.
const CHAIN_SLOTS: u32 = 365 * 96;
/// Links per block of a chain, as a power of two: the links of a block are public after 64 slots,
/// and its receipts can then carry `C_i`.
const CHAIN_BLOCK_LOG2: u8 = 6;

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
    /// Number of meters
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    meters: u32,
    /// Number of slots
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=35_000))]
    slots: u32,
    /// Makes readings, keys and chains the same every time
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write; must be empty or absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON object as the last line of standard output
    #[arg(long)]
    json: bool,
}

/// Why a demonstration does not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Data(#[from] households::DataError),
    #[error("--start {0}: not on a quarter hour after 1970")]
    Start(jiff::Timestamp),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}: directory is not empty")]
    NotEmpty(PathBuf),
    #[error("no randomness from the operating system: {0}")]
    Entropy(getrandom::Error),
    #[error("{0}: {1}")]
    Step(&'static str, String),
    #[error("stopped; {0} holds what was final until then, without an archive")]
    Stopped(PathBuf),
}

impl DemoError {
    /// Names the step that failed.
    fn step<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Step(step, error.to_string())
    }

    /// Usage and unreadable files are 2, what goes wrong later 1, Ctrl-C as shells expect.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Data(_) | Self::Start(_) | Self::File { .. } | Self::NotEmpty(_) => 2.into(),
            Self::Entropy(_) | Self::Step(..) => 1.into(),
            Self::Stopped(_) => 130.into(),
        }
    }
}

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the demonstration and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    // A second handler cannot be set; then Ctrl-C ends the process at once, as without one.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst));
    match demonstrate(args) {
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

fn demonstrate(args: &Args) -> Result<Summary, DemoError> {
    let start_s = start_seconds(args.start)?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(DemoError::Entropy)?,
    };
    let slots = args.slots as usize;
    let households = match &args.data {
        Some(path) => households::read_csv(path, args.meters as usize, slots)?,
        None => households::model(seed, args.meters, slots),
    };
    let dir = directory(args.out.as_deref())?;
    output::note(&match &args.data {
        Some(path) => format!("{} households of {}", households.len(), path.display()),
        None => format!("{} households of the built-in model, seed {seed}", households.len()),
    });
    output::note(&format!(
        "ledger time runs {TIME_SCALE} times faster than the clock: a slot of {SLOT_S} s takes \
         {:.1} s",
        f64::from(SLOT_S) / f64::from(TIME_SCALE)
    ));
    let founding = Founding::new(seed, args.providers, start_s, &households)?;
    founding.write(&dir)?;

    let began = clock::now();
    let ledger_clock = LedgerClock::stopped(founding.genesis_time(), TIME_SCALE);
    let consortium = Consortium::start(configs(&founding, &dir, &ledger_clock))
        .map_err(DemoError::step("providers"))?;
    let mut drive = Drive::new(&founding, consortium, ledger_clock, &dir, slots)?;
    let outcome = drive.run(&STOP);
    let run = drive.finish(outcome)?;
    let mut summary = Summary::new(&founding, run, &dir, args.slots);
    summary.wall_s = began.elapsed().as_secs_f64();
    summary.check_receipts(&founding)?;
    summary.write()?;
    Ok(summary)
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
            clock: clock.clone(),
            pacing,
            trust: None,
            addresses: BTreeMap::new(),
            snapshot_rounds: 0,
            events_from: 1,
            vote_without_memory: false,
            partition: "ledger".into(),
        };
        (config, founding::provider_dir(dir, keys.id).join("store"))
    };
    founding.keys.iter().map(config).collect()
}

/// Seconds since 1970 of a time on a quarter hour.
fn start_seconds(start: jiff::Timestamp) -> Result<u64, DemoError> {
    let lead = i64::try_from(LEAD_S).unwrap_or(i64::MAX);
    let seconds = start.as_second();
    let aligned = seconds % i64::from(SLOT_S) == 0 && start.subsec_nanosecond() == 0;
    match u64::try_from(seconds) {
        Ok(seconds_u) if aligned && seconds > lead => Ok(seconds_u),
        _ => Err(DemoError::Start(start)),
    }
}

/// The directory to write to: a fresh one, or the one that was asked for if it is empty.
fn directory(out: Option<&Path>) -> Result<PathBuf, DemoError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| DemoError::File { path, source }
    };
    let Some(out) = out else {
        let parent = std::env::temp_dir();
        let dir = tempfile::Builder::new().prefix("bkss-demo-").tempdir_in(&parent);
        return dir.map(tempfile::TempDir::keep).map_err(failed(&parent));
    };
    match std::fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(DemoError::NotEmpty(out.to_owned()));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(out).map_err(failed(out))?;
        }
        Err(source) => return Err(failed(out)(source)),
    }
    Ok(out.to_owned())
}
