//! `bkss verify`: receipts checked offline, with nothing but the genesis.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::{Genesis, Trust, trust::MAX_BYTES};
use bkss_scheme::{
    LedgerTime, LinkIndex, RootMessage, codec,
    receipt::{Check, Failure, Receipt, Status, Verdict},
};
use serde_json::{Map, Value, json};

use crate::{
    files::{self, FileError, malformed},
    in_common::InCommon,
    kinds, output, parallel, text,
};

pub(crate) use crate::text::utc;

/// Most bytes of a receipt.
pub(crate) const MAX_RECEIPT: u64 = 1 << 20;
/// Receipts that are checked before the first of them is reported.
const AT_ONCE: usize = 1024;

/// Options of `bkss verify`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The network's genesis file
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Receipts; a directory stands for all files *.receipt below it
    #[arg(required = true, value_name = "RECEIPT")]
    receipts: Vec<PathBuf>,
}

/// Checks all receipts and reports each, in order.
pub(crate) fn run(args: &Args) -> ExitCode {
    let opened = read_trust(&args.genesis).and_then(|trust| Ok((trust, expand(&args.receipts)?)));
    let (trust, receipts) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            output::failed(&error);
            return ExitCode::from(2);
        }
    };
    note_time_scale(trust.genesis());
    let (mut worst, mut valid, common) = (0, 0, InCommon::default());
    for some in receipts.chunks(AT_ONCE) {
        let outcomes = parallel::map(some, |path| Outcome::of(&trust, &common, path));
        for (path, outcome) in some.iter().zip(outcomes) {
            let code = outcome.exit_code();
            worst = worst.max(code);
            valid += usize::from(code == 0);
            if output::objects() {
                output::object(&outcome.json(path));
            } else if code == 2 {
                output::note(&outcome.text(path));
            } else {
                output::result(&outcome.text(path));
            }
        }
    }
    if receipts.len() > 1 {
        let line = format!("{valid} of {} receipts are valid", receipts.len());
        output::result(&line);
    }
    ExitCode::from(worst)
}

/// Reads and checks a genesis file, with the handovers behind it.
///
/// # Errors
///
/// [`FileError`].
pub(crate) fn read_trust(path: &Path) -> Result<Trust, FileError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let wrong = |source| FileError::Genesis { path: path.to_owned(), source: Box::new(source) };
    Trust::decode(&bytes).map_err(wrong)
}

/// Says so if ledger time is not real time.
pub(crate) fn note_time_scale(genesis: &Genesis) {
    if let Some(line) = time_scale(genesis) {
        output::note(&line);
    }
}

/// What is to be said if ledger time is not real time.
pub(crate) fn time_scale(genesis: &Genesis) -> Option<String> {
    let scale = genesis.charter().time_scale;
    let line =
        || format!("demonstration network: ledger time runs {scale} times faster than the clock");
    (scale != 1).then(line)
}

/// Replaces each directory by the files `*.receipt` below it, sorted by path.
///
/// Symbolic links inside a directory are not followed, so that the walk ends.
///
/// # Errors
///
/// [`FileError::NoReceipt`] for a directory without any.
pub(crate) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut receipts = Vec::new();
    for path in paths {
        if !path.is_dir() {
            receipts.push(path.clone());
            continue;
        }
        let first = receipts.len();
        collect(path, &mut receipts);
        if receipts.len() == first {
            return Err(FileError::NoReceipt { path: path.clone() });
        }
        receipts[first..].sort_unstable();
    }
    Ok(receipts)
}

/// Finds the receipts below a directory. A directory that cannot be read comes in place of what is in
/// it: it is then reported, and does not stop the others.
fn collect(root: &Path, receipts: &mut Vec<PathBuf>) {
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            receipts.push(dir);
            continue;
        };
        for entry in entries {
            let Ok((path, kind)) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))
            else {
                receipts.push(dir.clone());
                continue;
            };
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "receipt") {
                receipts.push(path);
            }
        }
    }
}

/// Whether a file is the receipt of this chain and link, and every check of it holds.
pub(crate) fn holds(
    trust: &Trust,
    common: &InCommon,
    path: &Path,
    chain: &RootMessage,
    link: LinkIndex,
) -> bool {
    let Ok(bytes) = files::read(path, MAX_RECEIPT) else { return false };
    let Ok(receipt) = codec::decode::<Receipt<'_>>("receipt", &bytes) else { return false };
    let own = receipt.registration.message == *chain && receipt.index == link;
    own && receipt.verify_among(&trust.anchors(), common).valid()
}

/// What `bkss verify` does with the bytes of a receipt, for tests: the receipt if it holds.
#[cfg(test)]
pub(crate) fn told<'a>(trust: &Trust, bytes: &'a [u8]) -> Option<Receipt<'a>> {
    let path = Path::new("receipt");
    let outcome = Outcome::of_bytes(trust, &InCommon::default(), path, bytes);
    let (object, text) = (outcome.json(path), outcome.text(path));
    let valid = outcome.exit_code() == 0;
    assert_eq!((object["valid"] == true, text.starts_with("VALID")), (valid, valid));
    if valid { codec::decode("receipt", bytes).ok() } else { None }
}

/// How a receipt fared.
enum Outcome {
    /// Meter, slot and window are what the receipt says; a refused one may say anything.
    Checked {
        meter: u32,
        slot: u32,
        window: Option<(LedgerTime, LedgerTime)>,
        verdict: Box<Verdict>,
        /// What may be the reason if it is refused.
        hint: Option<String>,
    },
    /// Not a receipt, or not to be read.
    Failed(FileError),
}

impl Outcome {
    fn of(trust: &Trust, common: &InCommon, path: &Path) -> Self {
        match files::read(path, MAX_RECEIPT) {
            Ok(bytes) => Self::of_bytes(trust, common, path, &bytes),
            Err(error) => Self::Failed(error),
        }
    }

    fn of_bytes(trust: &Trust, common: &InCommon, path: &Path, bytes: &[u8]) -> Self {
        let receipt: Receipt<'_> = match codec::decode("receipt", bytes) {
            Ok(receipt) => receipt,
            Err(error) => return Self::Failed(malformed(path)(error)),
        };
        let message = &receipt.registration.message;
        let schedule = &message.schedule;
        // A receipt may carry any number as its link; only those of the chain have a window.
        let index = LinkIndex::new(receipt.index.get(), schedule.slots);
        let verdict = receipt.verify_among(&trust.anchors(), common);
        Self::Checked {
            meter: message.meter.0,
            slot: receipt.index.get(),
            window: index.map(|index| (schedule.opens(index), schedule.closes(index))),
            hint: hint(trust, &receipt, &verdict),
            verdict: Box::new(verdict),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Checked { verdict, .. } => u8::from(!verdict.valid()),
            Self::Failed(FileError::Unreadable { .. }) => 2,
            Self::Failed(_) => 1,
        }
    }

    fn json(&self, path: &Path) -> Value {
        let file = path.display().to_string();
        let mut object = match self {
            Self::Checked { meter, slot, window, verdict, .. } => json!({
                "file": file,
                "valid": verdict.valid(),
                "meter": meter,
                "slot": slot,
                "window": window.map(|(start, end)| {
                    json!({ "start": utc(start), "end": utc(end) })
                }),
                "checks": verdict.checks().map(check_json).collect::<Vec<_>>(),
            }),
            Self::Failed(error) => json!({
                "file": file,
                "valid": false,
                "error": output::for_programs_of(error),
                "meter": null,
                "slot": null,
                "window": null,
                "checks": Check::ALL.map(|check| check_json((check, Status::NotReached))),
            }),
        };
        if let Self::Checked { hint: Some(hint), .. } = self {
            object["hint"] = hint.as_str().into();
        }
        object
    }

    fn text(&self, path: &Path) -> String {
        let (meter, slot, window, verdict, hint) = match self {
            Self::Checked { meter, slot, window, verdict, hint } => {
                (meter, slot, window, verdict, hint)
            }
            Self::Failed(error @ FileError::Unreadable { .. }) => return format!("error: {error}"),
            Self::Failed(error) => {
                let kind = kinds::of_file(path).map(|kind| format!("\n  it is {kind}"));
                return format!("REFUSED {error}{}", kind.unwrap_or_default());
            }
        };
        let mut text = String::from(if verdict.valid() { "VALID   " } else { "REFUSED " });
        // Writing to a string does not fail.
        let _ = write!(text, "{}: meter {meter}, slot {slot}", text::shown_path(path));
        if let Some((start, end)) = *window {
            let _ = write!(text, ", window {} to {}", utc(start), utc(end));
        }
        for (check, status) in verdict.checks() {
            let _ = write!(text, "\n  {:22} {}", check.name(), status_text(status));
            if let Status::Failed(failure) = status {
                let (expected, found) = (failure.expected(), failure.found());
                let _ = write!(text, "\n    expected {expected}\n    found    {found}");
            }
        }
        if let Some(hint) = hint {
            let _ = write!(text, "\n  {hint}");
        }
        text
    }
}

/// A genesis file that is older than a receipt does not know who was in office: what looks like a forgery
/// may be none.
fn hint(trust: &Trust, receipt: &Receipt<'_>, verdict: &Verdict) -> Option<String> {
    let newest = trust.members().1;
    let failure = verdict.checks().find_map(|(_, status)| match status {
        Status::Failed(failure) => Some(failure),
        _ => None,
    })?;
    let block = match failure {
        Failure::NotFinal { block, .. } => block,
        Failure::UnknownOwner(_) | Failure::UnknownSdi(_) => receipt.registered.header.height,
        _ => return None,
    };
    (block > newest).then(|| {
        format!(
            "The genesis file knows committees and members up to block {newest} alone, and this is about \
             block {block}: with a newer one (bkss genesis fetch) the receipt may be valid."
        )
    })
}

fn check_json((check, status): (Check, Status)) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), check.name().into());
    object.insert("status".into(), status_text(status).replace(' ', "_").into());
    if let Status::Failed(failure) = status {
        object.insert("expected".into(), failure.expected().to_string().into());
        object.insert("found".into(), failure.found().to_string().into());
    }
    object.into()
}

const fn status_text(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed(_) => "failed",
        Status::NotReached => "not reached",
        Status::NotCarried => "not carried",
    }
}
