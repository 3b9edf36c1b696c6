//! `bkss open`: what a meter measured, for its owner alone.
//!
//! Anybody can seal to a provider, so that a body which opens proves nothing: a receipt is checked
//! before it is opened, and what was not checked says so in every line.

mod holding;
mod owner;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_scheme::{
    LedgerTime,
    reading::{Decimal, Quality},
};
use serde_json::{Value, json};

use crate::{explain::Explain, kinds, meter_ids::MeterIds, output, parallel, text, verify};
use holding::{Holding, Standing};
pub(crate) use owner::{OpenError, Opened, Owner};

/// Options of `bkss open`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory of the provider that owns the meters
    #[arg(long, value_name = "DIR")]
    provider: PathBuf,
    /// The genesis file that receipts are checked against; that of the directory without it
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Open without checking anything: whoever knows the provider's public key may have made it up.
    /// Every line says so, and the exit code is 1 at least
    #[arg(long)]
    unverified: bool,
    /// Table of ids and numbers of meters, CSV: id,meter; ids are shown beside numbers
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Receipts; a directory stands for all files *.receipt below it
    #[arg(required = true, value_name = "RECEIPT")]
    receipts: Vec<PathBuf>,
}

/// Checks and opens all receipts; each is reported.
pub(crate) fn run(args: &Args) -> ExitCode {
    let teller = Teller { unverified: args.unverified };
    let ids = match args.table.as_deref().map(MeterIds::load).transpose() {
        Ok(ids) => ids.unwrap_or_default(),
        Err(error) => {
            output::failed(&error);
            return error.exit_code();
        }
    };
    let opened = Owner::load(&args.provider, args.genesis.as_deref(), args.unverified)
        .and_then(|owner| Ok((owner, verify::expand(&args.receipts)?)));
    let (mut owner, receipts) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            output::failed(&error);
            return ExitCode::from(2);
        }
    };
    if let Some(line) = verify::time_scale(owner.trust().genesis()) {
        teller.note(&line);
    }
    let mut worst = u8::from(args.unverified);
    if let Err(error) = owner.find_sessions(&args.provider, &receipts) {
        worst = 2;
        teller.note(&format!("error: {error}"));
    }
    let outcomes = parallel::map(&receipts, |path| owner.open(path));
    let opened =
        (0..).zip(&outcomes).filter_map(|(at, outcome)| Some((at, outcome.as_ref().ok()?)));
    let holding = Holding::of(opened);
    for ((number, path), outcome) in (0..).zip(&receipts).zip(&outcomes) {
        match outcome {
            Ok(opened) => {
                let shown = Shown { path, number, opened, holding: &holding, ids: &ids };
                if output::objects() { output::object(&shown.json()) } else { shown.tell(&teller) }
            }
            Err(error) => {
                worst = worst.max(error.exit_code());
                teller.refuse(error);
                let file = path.display().to_string();
                output::object(&json!({ "file": file, "error": output::for_programs_of(error) }));
            }
        }
    }
    if receipts.len() > 1 {
        teller.say(&summary(&holding));
    }
    ExitCode::from(worst)
}

/// How many intervals there are, and what is said of them more than once.
fn summary(holding: &Holding) -> String {
    let (intervals, contested, repeated) = holding.counts();
    let mut line = format!("{intervals} intervals");
    if repeated > 0 {
        line += &format!(", {repeated} readings say again what another has said");
    }
    if contested > 0 {
        line += &format!(
            ", {contested} intervals are contested: of several readings that of the earliest slot holds"
        );
    }
    line
}

/// Talks to people.
struct Teller {
    unverified: bool,
}

impl Teller {
    fn say(&self, line: &str) {
        output::result(&self.marked(line));
    }

    /// Of the work, not of what was read.
    fn note(&self, line: &str) {
        output::note(&self.marked(line));
    }

    fn marked(&self, line: &str) -> String {
        if self.unverified { format!("not verified: {line}") } else { line.to_owned() }
    }

    fn refuse(&self, error: &OpenError) {
        if error.exit_code() == 2 {
            self.note(&format!("error: {error}"));
            return;
        }
        self.say(&format!("REFUSED {error}"));
        if let Some(kind) = error.explain().misshapen().and_then(kinds::of_file) {
            self.say(&format!("  it is {kind}"));
        }
    }
}

/// An opened receipt, as it is shown.
struct Shown<'a> {
    path: &'a Path,
    /// Its place among all receipts.
    number: usize,
    opened: &'a Opened,
    holding: &'a Holding,
    ids: &'a MeterIds,
}

/// An interval, as it is shown.
struct Line {
    start: String,
    /// With the decimals it was measured in.
    kwh: Option<String>,
    quality: Quality,
    standing: Standing,
}

impl Shown<'_> {
    fn lines(&self) -> impl Iterator<Item = Line> {
        let Opened { scaler, intervals, .. } = self.opened;
        // One kilowatt-hour is 10^3 watt-hours.
        let exponent = scaler.saturating_sub(3);
        (0..).zip(intervals).map(move |(at, interval)| Line {
            start: verify::utc(LedgerTime::from_seconds(self.opened.start_s(at))),
            kwh: interval.value().map(|value| Decimal { value, exponent }.to_string()),
            quality: interval.quality(),
            standing: self.holding.standing(self.opened, (self.number, at)),
        })
    }

    fn json(&self) -> Value {
        let Opened { meter, slot, channel, verified, signed, .. } = self.opened;
        let interval = |Line { start, kwh, quality, standing }| {
            let holds = matches!(standing, Standing::Holds { .. });
            let mut value = json!({ "start": start, "seconds": channel.interval_s, "kwh": kwh, "holds": holds });
            if quality != Quality::Measured {
                value["quality"] = quality_name(quality).into();
            }
            if let Standing::Holds { contested: true } | Standing::Overruled(_) = standing {
                value["contested"] = true.into();
            }
            value
        };
        let mut value = json!({
            "file": self.path.display().to_string(),
            "meter": meter.0,
            "slot": slot.get(),
            "signed": verify::utc(*signed),
            "verified": verified,
            "intervals": self.lines().map(interval).collect::<Vec<_>>(),
        });
        if let Some(id) = self.ids.id(*meter) {
            value["id"] = id.into();
        }
        value
    }

    fn tell(&self, teller: &Teller) {
        let Opened { meter, slot, channel, .. } = self.opened;
        let file = text::shown_path(self.path);
        let id = self.ids.id(*meter).map_or_else(String::new, |id| format!(" ({id})"));
        teller.say(&format!("{file}: meter {meter}{id}, slot {slot}"));
        for Line { start, kwh, quality, standing } in self.lines() {
            let value = kwh.map_or_else(|| "no value".into(), |kwh| format!("{kwh} kWh"));
            let quality = match quality {
                Quality::Measured => String::new(),
                quality => format!(", {}", quality_name(quality)),
            };
            let standing = match standing {
                Standing::Holds { contested: false } => String::new(),
                Standing::Holds { contested: true } => ", holds, contested by another".into(),
                Standing::Repeats => ", counts once: another reading says the same".into(),
                Standing::Overruled(signed) => {
                    let signed = verify::utc(signed);
                    format!(", does not hold: contested by the reading of the slot of {signed}")
                }
            };
            let seconds = channel.interval_s;
            teller.say(&format!("  {start}, {seconds} s: {value}{quality}{standing}"));
        }
    }
}

const fn quality_name(quality: Quality) -> &'static str {
    match quality {
        Quality::Measured => "measured",
        Quality::Estimated => "estimated",
        Quality::Substituted => "substituted",
        Quality::Missing => "missing",
        Quality::ClockAdjusted => "clock adjusted",
    }
}
