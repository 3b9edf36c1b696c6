//! `bkss audit`: an archive replayed from genesis.

use std::{fs::File, io::BufReader, path::PathBuf, process::ExitCode, sync::Arc};

use bkss_ledger::{
    archive::ArchiveError,
    audit::{Finding, Report, audit},
    evidence::Offence,
};
use serde_json::{Value, json};

use crate::{files::unreadable, output, verify};

/// Options of `bkss audit`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The network's genesis file
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// The archive
    archive: PathBuf,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Replays the archive and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    let opened = verify::read_trust(&args.genesis).and_then(|trust| {
        let file = File::open(&args.archive).map_err(unreadable(&args.archive))?;
        Ok((Arc::new(trust.genesis().clone()), file))
    });
    let (genesis, file) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            output::error(&error);
            return ExitCode::from(2);
        }
    };
    verify::note_time_scale(&genesis);
    let report = audit(&genesis, BufReader::new(file));
    tell(args, &report);
    exit_code(&report)
}

/// An archive that the disk does not give is unreadable, not refused.
fn exit_code(report: &Report) -> ExitCode {
    let unreadable =
        |finding: &Finding| matches!(finding, Finding::Archive(ArchiveError::Io { .. }));
    match report {
        report if report.valid() => ExitCode::SUCCESS,
        report if report.refusals.iter().any(unreadable) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}

fn tell(args: &Args, report: &Report) {
    let Report { blocks, readings, meters, offences, refusals, .. } = report;
    if args.json {
        output::json(&json!({
            "valid": report.valid(),
            "blocks": blocks,
            "readings": readings,
            "meters": meters,
            "offences": offences.iter().map(offence_json).collect::<Vec<_>>(),
            "refusals": refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
        return;
    }
    let verdict = if report.valid() { "VALID  " } else { "REFUSED" };
    let file = args.archive.display();
    output::note(&format!(
        "{verdict} {file}: {blocks} blocks, {readings} readings, {meters} meters"
    ));
    for refusal in refusals {
        output::note(&format!("  {refusal}"));
    }
    for Offence { provider, epoch, view } in offences {
        output::note(&format!(
            "  on record: provider {provider} voted twice in view {view} of round {epoch}"
        ));
    }
}

/// A double vote is a provider's fault, not the archive's: it is shown, and refuses nothing.
fn offence_json(Offence { provider, epoch, view }: &Offence) -> Value {
    json!({ "provider": provider.0, "round": epoch, "view": view })
}
