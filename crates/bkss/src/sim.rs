//! `bkss sim`: worlds by seed, until one does not keep to its rules.

mod plan;

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bkss_node::settings::LogFormat;
use bkss_sim::world::{Failed, Failure, Options, Summary, Tally, campaign_of, describe, mixed};
use serde_json::{Value, json};

use crate::{
    clock,
    command::CommandError,
    files::{self, Readers},
    log, output,
};

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);
/// Worlds that are told of one by one.
const FEW: u64 = 20;
/// How often progress is written to the file that a campaign goes on from.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// What the runtime and the engine say where a disk fails by plan.
const PLANNED: [&str; 2] = ["injected storage fault", "failed to initialize"];
/// Most bytes of such a file.
const MAX_FILE: u64 = 16 << 20;

/// Options of `bkss sim`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Worlds at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Providers of a world
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(4..=50))]
    providers: u16,
    /// Seats of its committee [default: all providers, at most 21]
    #[arg(long, value_parser = clap::value_parser!(u16).range(4..=21))]
    committee: Option<u16>,
    /// Blocks of a round
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(8..))]
    round_blocks: u32,
    /// Meters
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    meters: u32,
    /// Slots in which each has something to say
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    slots: u32,
    /// Worlds of several sizes, as their seeds draw them: most have four providers, some up to
    /// twenty-four
    #[arg(long, conflicts_with_all = ["providers", "committee"])]
    mixed: bool,
    /// Show what the seeds have planned, and run nothing
    #[arg(long, conflicts_with_all = ["resume", "jobs", "log"])]
    plan: bool,
    /// Keep progress in this file, and go on from it if it is there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Log of the nodes, as of `bkss node`: a level, or a filter
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Args {
    fn sizes(&self) -> Sizes {
        let options = Options {
            providers: self.providers,
            committee: self.committee.unwrap_or(self.providers.min(21)).min(self.providers),
            round_blocks: self.round_blocks,
            meters: self.meters,
            slots: self.slots,
        };
        Sizes { options, mixed: self.mixed }
    }

    /// Behind the last seed.
    const fn until(&self) -> u64 {
        self.seed.saturating_add(self.seeds)
    }
}

/// How large worlds are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Sizes {
    options: Options,
    /// Whether each seed draws its providers.
    mixed: bool,
}

impl Sizes {
    fn of(&self, seed: u64) -> Options {
        if self.mixed { mixed(seed, &self.options) } else { self.options }
    }

    fn json(&self) -> Value {
        let mut shape = shape(&self.options);
        if self.mixed {
            shape["providers"] = Value::Null;
            shape["committee"] = Value::Null;
        }
        shape
    }
}

/// Runs and reports; exit code 1 if a world fails, 130 after Ctrl-C.
pub(crate) fn run(args: &Args) -> ExitCode {
    if args.plan {
        let sizes = args.sizes();
        (args.seed..args.until()).for_each(|seed| plan::tell(seed, &sizes.of(seed)));
        return ExitCode::SUCCESS;
    }
    let tally = match work(args) {
        Ok(tally) => tally,
        Err(error) => {
            output::failed(&error);
            return error.exit_code();
        }
    };
    output::object(&as_json(&args.sizes(), &tally));
    if !tally.failed.is_empty() {
        ExitCode::FAILURE
    } else if STOP.load(Ordering::SeqCst) {
        ExitCode::from(130)
    } else {
        ExitCode::SUCCESS
    }
}

/// Disks that fail by plan make the engine panic: only what nobody has planned is reported.
fn report_what_is_not_planned() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let planned = |text: &str| PLANNED.iter().any(|planned| text.contains(planned));
        if !text.is_some_and(planned) {
            report(panic);
        }
    }));
}

fn work(args: &Args) -> Result<Tally, CommandError> {
    report_what_is_not_planned();
    // Without a handler Ctrl-C ends the run at once, and the file has what was written last.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst));
    if let Some(filter) = &args.log {
        log::start(LogFormat::Text, filter).map_err(CommandError::Usage)?;
    }
    let sizes = args.sizes();
    let mut tally = match &args.resume {
        Some(path) if path.exists() => load(path, &sizes)?,
        _ => Tally::from(args.seed),
    };
    let until = args.until();
    let total = until.saturating_sub(tally.next);
    let teller = Mutex::new(Teller::new(total));
    let tell = |seed: u64, outcome: &Result<Summary, Failure>, tally: &Tally| {
        let mut teller = teller.lock().unwrap_or_else(PoisonError::into_inner);
        teller.tell(seed, outcome, &sizes.of(seed));
        if let Some(path) = args.resume.as_deref().filter(|_| teller.is_due()) {
            // The next time may be better; the last one is what counts.
            let _ = save(path, &sizes, tally);
        }
    };
    let of = |seed| sizes.of(seed);
    campaign_of(&of, until, args.jobs.into(), &STOP, &mut tally, &tell);
    let teller = teller.into_inner().unwrap_or_else(PoisonError::into_inner);
    teller.progress.finish();
    if let Some(path) = &args.resume {
        save(path, &sizes, &tally)?;
    }
    output::result(&summary(&tally, teller.began.elapsed()));
    Ok(tally)
}

/// Tells people how it goes.
struct Teller {
    began: Instant,
    saved: Instant,
    total: u64,
    done: u64,
    failed: u64,
    progress: output::Progress,
}

impl Teller {
    fn new(total: u64) -> Self {
        let now = clock::now();
        let progress = output::Progress::new(total);
        Self { began: now, saved: now, total, done: 0, failed: 0, progress }
    }

    fn tell(&mut self, seed: u64, outcome: &Result<Summary, Failure>, options: &Options) {
        self.done += 1;
        match outcome {
            Ok(world) if self.total <= FEW => output::result(&format!(
                "seed {seed}: {} blocks, {} openings, {} faults, {} Byzantine, {:.1} s of virtual time, {}",
                world.height,
                world.openings,
                world.faults,
                world.byzantine,
                seconds(world.virtual_ms),
                world.digest,
            )),
            Ok(_) => {}
            Err(failure) => {
                self.failed += 1;
                output::result(&format!("seed {seed}: {failure}\n  {}", command(seed, options)));
            }
        }
        if self.total > FEW {
            let line = self.line();
            self.progress.update(self.done, &line);
        }
    }

    fn line(&self) -> String {
        let passed = self.began.elapsed();
        let left = passed.as_secs_f64() * (self.total - self.done) as f64 / self.done as f64;
        format!(
            "{} of {} worlds, {} failed, {:.0} s passed, {left:.0} s to go",
            self.done,
            self.total,
            self.failed,
            passed.as_secs_f64()
        )
    }

    /// Whether progress should be written; it counts as written then.
    fn is_due(&mut self) -> bool {
        let due = self.saved.elapsed() >= SAVE_EVERY;
        if due {
            self.saved = clock::now();
        }
        due
    }
}

/// The command that runs one world again.
fn command(seed: u64, options: &Options) -> String {
    let Options { providers, committee, round_blocks, meters, slots } = options;
    format!(
        "bkss sim --seed {seed} --providers {providers} --committee {committee} --round-blocks {round_blocks} --meters {meters} --slots {slots}"
    )
}

fn summary(tally: &Tally, passed: Duration) -> String {
    let Tally { worlds, blocks, openings, faults, byzantine, virtual_ms, failed, .. } = tally;
    let mut text = format!(
        "{worlds} worlds ({byzantine} with Byzantine providers), {faults} faults, {blocks} blocks, {openings} openings, {:.0} s of virtual time, {:.1} s: {} failed",
        seconds(*virtual_ms),
        passed.as_secs_f64(),
        failed.len()
    );
    for Failed { seed, finding, .. } in failed.values() {
        // A string takes everything.
        let _ = write!(text, "\n  seed {seed}: {finding}");
    }
    text
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn shape(options: &Options) -> Value {
    let Options { providers, committee, round_blocks, meters, slots } = options;
    json!({
        "providers": providers, "committee": committee, "round_blocks": round_blocks,
        "meters": meters, "slots": slots,
    })
}

fn as_json(sizes: &Sizes, tally: &Tally) -> Value {
    let failed = tally.failed.values().map(|one| {
        let options = sizes.of(one.seed);
        json!({
            "seed": one.seed, "invariant": one.invariant, "finding": one.finding,
            "command": command(one.seed, &options),
            "plan": plan::json_of(&describe(one.seed, &options)),
        })
    });
    json!({
        "world": sizes.json(),
        "next": tally.next,
        "worlds": tally.worlds,
        "byzantine": tally.byzantine,
        "unopened": tally.unopened,
        "restored": tally.restored,
        "without_memory": tally.without_memory,
        "chains": tally.chains,
        "revoked": tally.revoked,
        "faults": tally.faults,
        "blocks": tally.blocks,
        "openings": tally.openings,
        "virtual_ms": tally.virtual_ms,
        "failed": failed.collect::<Vec<_>>(),
    })
}

fn save(path: &Path, sizes: &Sizes, tally: &Tally) -> Result<(), CommandError> {
    let text = format!("{:#}\n", as_json(sizes, tally));
    Ok(files::replace(path, text.as_bytes(), Readers::All)?)
}

/// Reads how far a campaign of such worlds had come.
fn load(path: &Path, sizes: &Sizes) -> Result<Tally, CommandError> {
    let usage = |reason: &str| CommandError::Usage(format!("{}: {reason}", path.display()));
    let bytes = files::read(path, MAX_FILE)?;
    let saved: Value = serde_json::from_slice(&bytes).map_err(|error| usage(&error.to_string()))?;
    let expected = sizes.json();
    if saved["world"] != expected {
        return Err(usage(&format!("of worlds {}, asked for are {expected}", saved["world"])));
    }
    let number =
        |value: &Value| value.as_u64().ok_or_else(|| usage("not how far a campaign had come"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut tally = Tally {
        next: number(&saved["next"])?,
        worlds: number(&saved["worlds"])?,
        byzantine: number(&saved["byzantine"])?,
        unopened: number(&saved["unopened"])?,
        restored: number(&saved["restored"])?,
        without_memory: number(&saved["without_memory"])?,
        chains: number(&saved["chains"])?,
        revoked: number(&saved["revoked"])?,
        faults: number(&saved["faults"])?,
        blocks: number(&saved["blocks"])?,
        openings: number(&saved["openings"])?,
        virtual_ms: number(&saved["virtual_ms"])?,
        ..Tally::default()
    };
    for one in saved["failed"].as_array().into_iter().flatten() {
        let seed = number(&one["seed"])?;
        let (invariant, finding) = (text(&one["invariant"]), text(&one["finding"]));
        tally.failed.insert(seed, Failed { seed, invariant, finding });
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_back_by_a_campaign_of_the_same_worlds_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.json");
        let sizes = Sizes { options: Options::default(), mixed: false };
        let failed = Failed { seed: 9, invariant: "progress".into(), finding: "no block".into() };
        let tally = Tally {
            next: 10,
            worlds: 3,
            blocks: 7,
            failed: [(9, failed)].into(),
            ..Tally::default()
        };
        save(&path, &sizes, &tally).unwrap();
        assert_eq!(load(&path, &sizes).unwrap(), tally);
        let fewer = Options { meters: 1, ..sizes.options };
        for others in [Sizes { options: fewer, ..sizes }, Sizes { mixed: true, ..sizes }] {
            assert!(load(&path, &others).unwrap_err().to_string().contains("asked for"));
        }
        std::fs::write(&path, "{}").unwrap();
        assert!(load(&path, &sizes).is_err());
    }

    #[test]
    fn the_command_of_a_failing_seed_asks_for_the_same_world() {
        use clap::Parser;

        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let options = Options { providers: 9, committee: 4, round_blocks: 16, meters: 5, slots: 6 };
        let line = command(77, &options);
        let line = Line::parse_from(line.split(' ').skip(1));
        assert_eq!((line.args.seed, line.args.sizes().of(77)), (77, options));
    }
}
