//! `bkss bench ledger`: what a consortium makes final, over authenticated TCP on loopback and with
//! every acknowledged byte on disk.
//!
//! Meters have signed everything before, and leave their messages at the gateways as fast as the
//! ledger takes them: ledger time goes from slot to slot as the ledger does, so that no window is
//! missed and no rate has to be guessed. A reading counts when its opening is final on every
//! provider that lives.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bkss_ledger::Rounds;
use bkss_node::{
    Config, Consortium, LedgerClock, Pacing,
    config::{Latest, vote_key},
};
use serde_json::{Value, json};

use super::{
    fleet::{Fleet, TIME_SCALE},
    load::{Load, Measured},
    usage,
};
use crate::{
    clock,
    command::{self, CommandError},
    output,
};

/// More readings per second than a consortium on one machine is expected to make final: so many
/// are prepared.
const PREPARED_PER_S: u64 = 150_000;
/// Most slots that are prepared, whatever the number of meters.
const MAX_SLOTS: u64 = 20_000;

/// Options of `bkss bench ledger`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Number of service providers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(4..=16))]
    providers: u16,
    /// Number of meters
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    meters: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Providers that are killed when the measurement begins
    #[arg(long, default_value_t = 0)]
    dead: u16,
    /// Blocks of a round
    #[arg(long, value_name = "BLOCKS", default_value_t = Rounds::default().blocks)]
    round_blocks: u32,
    /// Where the providers store the ledger; a temporary directory without it
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    command::exit(bench(args))
}

fn bench(args: &Args) -> Result<Value, CommandError> {
    let faults = (args.providers - 1) / 3;
    if args.dead > faults {
        let (dead, providers) = (args.dead, args.providers);
        return Err(CommandError::Usage(format!(
            "--dead {dead}: of {providers} providers at most {faults} may be dead"
        )));
    }
    let readings = PREPARED_PER_S * u64::from(args.seconds);
    let slots = readings.div_ceil(u64::from(args.meters)).clamp(3, MAX_SLOTS);
    output::note(&format!("preparing {} meters with {slots} readings each ..", args.meters));
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let rounds = Rounds { blocks: args.round_blocks, ..Rounds::default() };
    let fleet = Fleet::make(args.providers, args.meters, slots, rounds)
        .map_err(CommandError::refused("network"))?;
    let temporary = tempfile::tempdir().map_err(CommandError::refused("temporary directory"))?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let memory = usage::memory().map(|(now, _)| now);

    let ledger_clock = LedgerClock::stopped(fleet.start(), TIME_SCALE);
    let stores: Vec<_> = fleet.keys.iter().map(|keys| dir.join(keys.id.to_string())).collect();
    let configs = fleet.keys.iter().zip(&stores).map(|(keys, store)| {
        let config = Config {
            genesis: fleet.genesis.clone(),
            provider: keys.id,
            identity: keys.identity.clone(),
            vote_key: vote_key(keys.vote()).0,
            rekey: None,
            clock: ledger_clock.clone(),
            pacing: Pacing::default(),
            trust: None,
            addresses: std::collections::BTreeMap::new(),
            snapshot_rounds: 0,
            keep_bodies_days: None,
            eras: Vec::new(),
            latest: Latest::default(),
            events_from: 1,
            // Ledger time stands still at first: by it no round begins after the node has started.
            vote_without_memory: true,
            partition: "ledger".into(),
        };
        (config, store.clone())
    });
    let consortium =
        Consortium::start(configs.collect()).map_err(CommandError::refused("providers"))?;
    let mut load = Load::new(&fleet, consortium, ledger_clock);
    output::note("registering ..");
    let began = clock::now();
    load.register()?;
    output::note(&format!("registered in {:.1} s, measuring ..", began.elapsed().as_secs_f64()));
    load.kill(usize::from(args.dead));
    let live = stores.len() - usize::from(args.dead);
    let stored = || stores[..live].iter().map(|store| usage::disk(store)).sum::<Result<u64, _>>();
    let before = stored().map_err(CommandError::refused("store"))?;
    let measured = load.measure(Duration::from_secs(args.seconds.into()))?;
    let after = stored().map_err(CommandError::refused("store"))?;
    let disk = after.saturating_sub(before) as f64 / live as f64;
    let most = usage::memory().map(|(_, most)| most);
    let rss =
        most.zip(memory).map(|(most, before)| most.saturating_sub(before) / stores.len() as u64);
    load.stop();
    Ok(report(args, &measured, disk, rss))
}

fn report(args: &Args, measured: &Measured, disk: f64, rss: Option<u64>) -> Value {
    let readings = measured.readings as f64;
    let rate = readings / measured.wall.as_secs_f64();
    let cpu = measured.cpu.as_secs_f64() * 1e6 / readings.max(1.0);
    let (p50, p99) = (measured.finality_ms(50), measured.finality_ms(99));
    let disk = disk / readings.max(1.0);
    let value: Value = json!({
        "providers": args.providers,
        "dead": args.dead,
        "meters": args.meters,
        "seconds": round(measured.wall.as_secs_f64()),
        "readings": measured.readings,
        "readings_per_s": rate.round(),
        "finality_ms": { "p50": p50, "p99": p99 },
        "cpu_s_per_million": round(cpu),
        "disk_bytes_per_reading": round(disk),
        "rss_bytes_max": rss,
        "blocks": measured.blocks,
        "refused": measured.refused,
        "view_changes": measured.view_changes,
    });
    for line in [
        format!("{rate:.0} readings per second final on every live provider"),
        format!("final {p50} ms after the gateway got the message (99 %: {p99} ms)"),
        format!("{cpu:.1} s of processor time per million readings, all providers together"),
        format!("{disk:.0} bytes on each provider's disk per reading"),
        format!(
            "{} blocks, {} views without one, {} items refused",
            measured.blocks, measured.view_changes, measured.refused
        ),
    ] {
        output::result(&line);
    }
    value
}

/// To two decimals.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
