//! The command line: parse, call, report.

mod audit;
mod bench;
mod changes;
mod client;
mod clock;
mod command;
mod demo;
mod documents;
mod explain;
mod fetch;
mod files;
mod fleet;
mod found;
mod head;
mod households;
mod in_common;
mod kinds;
mod known_meter;
mod log;
mod manual;
mod meter_commands;
mod meter_ids;
mod meter_paper;
mod meters;
#[cfg(test)]
mod mutations;
mod node;
mod open;
mod output;
mod paper;
mod parallel;
mod provider;
mod provider_commands;
mod renew;
mod replay;
mod sdi_commands;
mod sessions;
mod sim;
mod status;
mod terms;
mod text;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// Blocks of some megabytes are taken and given back all the time, by all threads. The system's
/// allocator on Linux gives their pages back to the kernel each time, which then clears them again;
/// docs/performance.md has the difference.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// With the commit and the numbers of the formats that this program reads and writes.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("COMMIT_OF_BUILD"),
    "\nformats: genesis 2, archive 2, snapshot 3, receipt 1"
);

/// Tamper-evident metering without a trusted third party.
///
/// Exit codes: 0 all is well, 1 something was refused or failed, 2 usage, or a file that cannot be
/// read or written, 130 a demonstration, replay or simulation was stopped with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "bkss", version, long_version = LONG_VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Results and errors as JSON objects on standard output, one a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Found a consortium on this machine: genesis, providers, SDI
    Init(found::InitArgs),
    /// Make the keys and the identity of one provider or SDI
    Keygen(found::KeygenArgs),
    /// Found a consortium of members that do not share a machine
    #[command(subcommand)]
    Genesis(found::GenesisCommand),
    /// Run a provider's node until it is stopped
    Node(node::Args),
    /// How a node stands
    Status(status::Args),
    /// Change who takes part: join, approve, leave, rotate keys, move, expel
    #[command(subcommand)]
    Provider(provider_commands::ProviderCommand),
    /// Signing device infrastructures: which there are, and what they issue
    #[command(subcommand)]
    Sdi(sdi_commands::SdiCommand),
    /// What a meter's owner and an SDI decide: revoke it, approve its next chain
    #[command(subcommand)]
    Meter(meter_commands::MeterCommand),
    /// Software meters against running nodes, from provisioning to receipts
    Replay(replay::Args),
    /// Fetch the ledger from a node, for auditors
    Archive(fetch::ArchiveArgs),
    /// Fetch the newest final block from a node, to compare an archive with it later
    Head(head::Args),
    /// Fetch the state from a node, for a provider that begins late
    Snapshot(fetch::SnapshotArgs),
    /// A consortium in one process: readings of a model or a file, signed, agreed on and checked
    Demo(demo::Args),
    /// Check receipts offline, with nothing but the genesis
    Verify(verify::Args),
    /// Decrypt receipts with the owner's keys
    Open(open::Args),
    /// Replay an archive from genesis
    Audit(audit::Args),
    /// The paper's attacks, tables and figures, run and measured
    Paper(paper::Args),
    /// Whole consortia in virtual time, by seed: what must never happen, whatever goes wrong
    Sim(sim::Args),
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Write manual pages of all commands
    Man(manual::ManArgs),
    /// Print what a shell needs to complete commands and options
    Completions(manual::CompletionsArgs),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Verifications per second, beside ECDSA
    Verify,
    /// Readings per second that a consortium makes final, over TCP and with every byte on disk
    Ledger(bench::ledger::Args),
    /// How long the most expensive valid blocks take to verify
    WorstBlock(bench::worst_block::Args),
}

/// Whatever panics ends the process: a node with a broken invariant stops.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => {
            if cli.json {
                output::for_programs();
            }
            cli.command
        }
        // Help and version too; what is wrong with the rest.
        Err(shown) => {
            output::printed(shown.print());
            // Nothing was parsed, so that it is not known what was meant by it.
            if shown.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
                output::for_programs();
                let message = shown.render().to_string();
                let message = message.trim_start_matches("error: ").trim_end();
                let usage = explain::Details::new("usage").json(message);
                output::object(&serde_json::json!({ "error": usage }));
            }
            let code = u8::try_from(shown.exit_code()).unwrap_or(2);
            return if output::is_lost() { ExitCode::from(2) } else { ExitCode::from(code) };
        }
    };
    // In worlds by seed a panic is a finding.
    if !matches!(command, Command::Sim(_) | Command::Paper(_)) {
        end_on_panic();
    }
    let code = run(command);
    // What was lost was part of the answer.
    if output::is_lost() { ExitCode::from(2) } else { code }
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Init(args) => found::init(&args),
        Command::Keygen(args) => found::keygen(&args),
        Command::Genesis(command) => found::genesis(&command),
        Command::Node(args) => node::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Provider(command) => provider_commands::run(&command),
        Command::Sdi(command) => sdi_commands::run(&command),
        Command::Meter(command) => meter_commands::run(&command),
        Command::Replay(args) => replay::run(&args),
        Command::Archive(args) => fetch::archive(&args),
        Command::Head(args) => head::run(&args),
        Command::Snapshot(args) => fetch::snapshot(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Open(args) => open::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Paper(args) => paper::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Bench(Bench::Verify) => bench::run(),
        Command::Bench(Bench::Ledger(args)) => bench::ledger::run(&args),
        Command::Bench(Bench::WorstBlock(args)) => bench::worst_block::run(&args),
    }
}
