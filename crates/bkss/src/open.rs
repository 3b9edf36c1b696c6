//! `bkss open`: what a meter measured, for its owner alone.
//!
//! Anybody can seal to a provider, so that a body which opens proves nothing: a receipt is checked
//! before it is opened, and what was not checked says so in every line.

mod owner;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_scheme::{
    LedgerTime, Reading,
    reading::{Decimal, Quality},
};
use serde_json::{Value, json};

use crate::{output, parallel, verify};
use owner::{OpenError, Opened, Owner};

/// Receipts that are opened before the first of them is reported.
const AT_ONCE: usize = 1024;

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
    /// Receipts; a directory stands for all files *.receipt below it
    #[arg(required = true, value_name = "RECEIPT")]
    receipts: Vec<PathBuf>,
    /// One JSON object per opened receipt on standard output
    #[arg(long)]
    json: bool,
}

/// Checks and opens all receipts; each is reported.
pub(crate) fn run(args: &Args) -> ExitCode {
    let teller = Teller { unverified: args.unverified, objects: args.json };
    let opened = Owner::load(&args.provider, args.genesis.as_deref(), args.unverified)
        .and_then(|owner| Ok((owner, verify::expand(&args.receipts)?)));
    let (mut owner, receipts) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            output::failed(&error, args.json);
            return ExitCode::from(2);
        }
    };
    if let Some(line) = verify::time_scale(owner.trust().genesis()) {
        teller.say(&line);
    }
    let mut worst = u8::from(args.unverified);
    if let Err(error) = owner.find_sessions(&args.provider, &receipts) {
        worst = 2;
        teller.say(&format!("error: {error}"));
    }
    for some in receipts.chunks(AT_ONCE) {
        let outcomes = parallel::map(some, |path| owner.open(path));
        for (path, outcome) in some.iter().zip(outcomes) {
            match outcome {
                Ok(opened) if args.json => output::json(&opened.json(path)),
                Ok(opened) => opened.tell(path, &teller),
                Err(error) => {
                    worst = worst.max(error.exit_code());
                    teller.refuse(&error);
                    if args.json {
                        let file = path.display().to_string();
                        output::json(&json!({ "file": file, "error": error.to_string() }));
                    }
                }
            }
        }
    }
    ExitCode::from(worst)
}

/// Talks to people.
struct Teller {
    unverified: bool,
    /// Standard output is for programs.
    objects: bool,
}

impl Teller {
    fn say(&self, line: &str) {
        let line = if self.unverified { format!("not verified: {line}") } else { line.to_owned() };
        if self.objects { output::note(&line) } else { output::result(&line) }
    }

    fn refuse(&self, error: &OpenError) {
        let word = if matches!(error, OpenError::Refused { .. }) { "REFUSED" } else { "error:" };
        self.say(&format!("{word} {error}"));
    }
}

impl Opened {
    /// Start of each interval, its value in kWh with the decimals it was measured in, its quality.
    fn intervals(&self) -> impl Iterator<Item = (String, Option<String>, Quality)> {
        let Reading { channel, start_s, scaler, intervals } = &self.reading;
        (0..).zip(intervals).map(move |(number, interval)| {
            let start = start_s.saturating_add(number * u64::from(channel.interval_s));
            // One kilowatt-hour is 10^3 watt-hours.
            let exponent = scaler.saturating_sub(3);
            let kwh = interval.value().map(|value| Decimal { value, exponent }.to_string());
            (verify::utc(LedgerTime::from_seconds(start)), kwh, interval.quality())
        })
    }

    fn json(&self, path: &Path) -> Value {
        let seconds = self.reading.channel.interval_s;
        let interval = |(start, kwh, quality): (String, Option<String>, Quality)| {
            let mut value = json!({ "start": start, "seconds": seconds, "kwh": kwh });
            if quality != Quality::Measured {
                value["quality"] = quality_name(quality).into();
            }
            value
        };
        json!({
            "file": path.display().to_string(),
            "meter": self.meter.0,
            "slot": self.slot.get(),
            "verified": self.verified,
            "intervals": self.intervals().map(interval).collect::<Vec<_>>(),
        })
    }

    fn tell(&self, path: &Path, teller: &Teller) {
        let (file, seconds) = (output::shown_path(path), self.reading.channel.interval_s);
        teller.say(&format!("{file}: meter {}, slot {}", self.meter, self.slot));
        for (start, kwh, quality) in self.intervals() {
            let value = kwh.map_or_else(|| "no value".into(), |kwh| format!("{kwh} kWh"));
            let quality = match quality {
                Quality::Measured => String::new(),
                quality => format!(", {}", quality_name(quality)),
            };
            teller.say(&format!("  {start}, {seconds} s: {value}{quality}"));
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
