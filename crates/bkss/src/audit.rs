//! `bkss audit`: an archive replayed from genesis.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use bkss_ledger::{
    Genesis, Head,
    archive::ArchiveError,
    audit::{Changes, Finding, Known, Report, audit},
    evidence::Offence,
};
use bkss_scheme::{Digest, LedgerTime};
use serde_json::{Value, json};

use crate::{
    command::CommandError,
    files::unreadable,
    head, kinds, output,
    verify::{self, utc},
};

/// Options of `bkss audit`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The network's genesis file
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// A block that must be in the archive: a file that bkss head has fetched, or a block's id. From
    /// somebody else than the archive it tells whether the archive is whole up to there
    #[arg(long, value_name = "FILE|ID")]
    head: Option<String>,
    /// The archive must reach this time, UTC
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
    /// The archive
    archive: PathBuf,
}

/// Replays the archive and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    let (genesis, known, file) = match open(args) {
        Ok(opened) => opened,
        Err(error) => {
            output::failed(&error);
            return error.exit_code();
        }
    };
    verify::note_time_scale(&genesis);
    let report = audit(&genesis, BufReader::new(file), known);
    if output::objects() {
        let mut told = as_json(&report, &known);
        if let Some(kind) = no_archive(&args.archive, &report) {
            told["is"] = kind.into();
        }
        output::object(&told);
    } else {
        tell(&args.archive, &report, &known);
    }
    exit_code(&report)
}

fn open(args: &Args) -> Result<(Arc<Genesis>, Known, File), CommandError> {
    let trust = verify::read_trust(&args.genesis);
    let trust = trust.map_err(CommandError::Needed)?;
    let genesis = Arc::new(trust.genesis().clone());
    let head = args.head.as_deref().map(|given| known_head(given, &genesis)).transpose()?;
    let until = args.until.map(ledger_time).transpose()?;
    let file = File::open(&args.archive).map_err(unreadable(&args.archive))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(unreadable(&args.archive)(std::io::ErrorKind::IsADirectory.into()).into());
    }
    Ok((genesis, Known { head, until }, file))
}

fn ledger_time(until: jiff::Timestamp) -> Result<LedgerTime, CommandError> {
    let wrong = |_| CommandError::Usage(format!("--until {until}: not after 1970"));
    u64::try_from(until.as_millisecond()).map(LedgerTime).map_err(wrong)
}

/// The block that a head's file names, or its id.
fn known_head(given: &str, genesis: &Genesis) -> Result<(Option<u64>, Digest), CommandError> {
    if let Some(id) = block_id(given) {
        return Ok((None, id));
    }
    let head = head::Known::load(Path::new(given)).map_err(CommandError::Needed)?;
    let (expected, found) = (genesis.network(), head.network);
    if expected != found {
        return Err(CommandError::Refused(format!(
            "{given}: head of network {found}, the genesis is of {expected}"
        )));
    }
    Ok((Some(head.height), head.id))
}

/// 64 hexadecimal digits.
fn block_id(text: &str) -> Option<Digest> {
    let mut id = [0; 32];
    if text.len() != 2 * id.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Digest(id))
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

fn tell(archive: &Path, report: &Report, known: &Known) {
    let Report { offences, refusals, .. } = report;
    let verdict = if report.valid() { "VALID  " } else { "REFUSED" };
    let whole = if report.valid() { completeness(report, known) } else { String::new() };
    let file = archive.display();
    output::result(&format!("{verdict} {file}: {}{whole}", counts(report)));
    for refusal in refusals {
        output::result(&format!("  {}", reason(refusal)));
    }
    if let Some(kind) = no_archive(archive, report) {
        output::result(&format!("  it is {kind}"));
    }
    for Offence { provider, epoch, view } in offences {
        output::result(&format!(
            "  on record: provider {provider} voted twice in view {view} of round {epoch}"
        ));
    }
}

/// What is in the blocks that follow by the rules.
fn counts(report: &Report) -> String {
    let Report { blocks, openings, meters, chains, revocations, .. } = report;
    let mut text = format!(
        "{blocks} blocks, {meters} meters with {chains} chains ({} renewals), {revocations} \
         revocations, {openings} openings",
        report.renewals()
    );
    let changes = report.changes.all();
    if changes > 0 {
        let Changes { joined, left, expelled, .. } = report.changes;
        text += &format!(
            ", {changes} changes of members, keys and addresses ({joined} joined, {left} left, \
             {expelled} expelled)"
        );
    }
    text
}

/// Up to where a valid archive is whole, and who says so.
fn completeness(report: &Report, known: &Known) -> String {
    let claimed = match (known.head, report.newest) {
        (Some((Some(height), _)), _) => {
            return format!("; contains block {height}, the head that was given");
        }
        (Some((None, id)), _) => return format!("; contains block {id}, the head that was given"),
        (None, Some(Head { height, time, .. })) => format!("block {height} of {}", utc(time)),
        (None, None) => "the genesis".into(),
    };
    format!(
        "; complete up to {claimed} as the archive claims; compare with a head from elsewhere \
         (--head)"
    )
}

fn as_json(report: &Report, known: &Known) -> Value {
    let Report { blocks, requests, openings, meters, chains, revocations, .. } = report;
    let Report { changes, offences, refusals, newest, .. } = report;
    let newest = newest.map(|Head { height, id, time }| {
        json!({ "height": height, "id": id.to_string(), "time": utc(time) })
    });
    let head = known.head.map(|(height, id)| json!({ "height": height, "id": id.to_string() }));
    json!({
        "valid": report.valid(),
        "blocks": blocks,
        "meters": meters,
        "chains": chains,
        "renewals": report.renewals(),
        "revocations": revocations,
        "requests": requests,
        "openings": openings,
        "changes": {
            "joined": changes.joined,
            "left": changes.left,
            "expelled": changes.expelled,
            "vote_keys": changes.vote_keys,
            "sealing_keys": changes.sealing_keys,
            "addresses": changes.addresses,
            "sdis_added": changes.sdis_added,
            "sdis_removed": changes.sdis_removed,
        },
        "newest": newest,
        "head": head,
        "until": known.until.map(utc),
        "offences": offences.iter().map(offence_json).collect::<Vec<_>>(),
        "refusals": refusals.iter().map(reason).collect::<Vec<_>>(),
    })
}

/// What the file is, if it is no archive from its first byte on.
fn no_archive(archive: &Path, report: &Report) -> Option<String> {
    let of_file = |refusal: &Finding| matches!(refusal, Finding::Archive(_));
    let none = report.blocks == 0 && report.refusals.iter().any(of_file);
    kinds::of_file(archive).filter(|kind| none && !kind.ends_with("archive"))
}

/// What does not hold, with times as people read them.
fn reason(finding: &Finding) -> String {
    match finding {
        Finding::BeforeTime { newest, until } => {
            let (newest, until) = (utc(*newest), utc(*until));
            format!("the archive ends at {newest}, it was to reach {until}")
        }
        other => other.to_string(),
    }
}

/// A double vote is a provider's fault, not the archive's: it is shown, and refuses nothing.
fn offence_json(Offence { provider, epoch, view }: &Offence) -> Value {
    json!({ "provider": provider.0, "round": epoch, "view": view })
}
