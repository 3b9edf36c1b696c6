//! `bkss open`: what a meter measured, for its owner alone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_ledger::Trust;
use bkss_scheme::{
    LedgerTime, LinkIndex, Malformed, MeterId, Network, ProviderId, Reading, codec,
    reading::{Decimal, Quality, UNIT_WH},
    receipt::Receipt,
    seal::{Body, KeyId, OpeningSession, SealError},
};
use serde_json::{Value, json};

use crate::{
    files::{self, FileError},
    output,
    provider::{Keys, ProviderError, Session, Sessions},
    verify::{self, MAX_RECEIPT},
};

/// Options of `bkss open`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory of the provider that owns the meters
    #[arg(long, value_name = "DIR")]
    provider: PathBuf,
    /// Receipts; a directory stands for all files *.receipt below it
    #[arg(required = true, value_name = "RECEIPT")]
    receipts: Vec<PathBuf>,
    /// One JSON object per opened receipt on standard output
    #[arg(long)]
    json: bool,
}

/// Opens all receipts; each is reported.
pub(crate) fn run(args: &Args) -> ExitCode {
    let opened =
        Owner::load(&args.provider).and_then(|owner| Ok((owner, verify::expand(&args.receipts)?)));
    let (owner, receipts) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            output::error(&error);
            return ExitCode::from(2);
        }
    };
    verify::note_time_scale(owner.trust.genesis());
    let mut worst = 0;
    for path in &receipts {
        match owner.open(path) {
            Ok(opened) if args.json => output::json(&opened.json(path)),
            Ok(opened) => opened.tell(path),
            Err(error) => {
                worst = worst.max(error.exit_code());
                output::error(&error);
            }
        }
    }
    ExitCode::from(worst)
}

/// Why a receipt does not open.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {source}")]
    Malformed { path: PathBuf, source: Malformed },
    #[error("{path}: receipt of network {found}, the provider is in {expected}")]
    Network { path: PathBuf, expected: Network, found: Network },
    #[error("{path}: meter {meter} belongs to provider {owner}, this directory is provider {own}")]
    NotOwner { path: PathBuf, meter: MeterId, owner: ProviderId, own: ProviderId },
    #[error(
        "{path}: sealed to key {found} of the provider, the newest in the directory is {newest}"
    )]
    Key { path: PathBuf, newest: KeyId, found: KeyId },
    #[error("{path}: the session of meter {meter} is not in the directory's sessions")]
    NoSession { path: PathBuf, meter: MeterId },
    #[error("{path}: {source}")]
    Closed { path: PathBuf, source: SealError },
    #[error("{path}: expected watt-hours (unit {UNIT_WH}), found unit {found}")]
    Unit { path: PathBuf, found: u8 },
}

impl OpenError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::File(FileError::Unreadable { .. }) => 2,
            _ => 1,
        }
    }
}

/// A provider's keys and sessions.
struct Owner {
    trust: Trust,
    keys: Keys,
    /// By meter and the link whose body introduced it; a meter may have had several chains.
    sessions: BTreeMap<(MeterId, u32), Vec<Session>>,
}

/// A reading and whose it is.
struct Opened {
    meter: MeterId,
    slot: LinkIndex,
    reading: Reading,
}

impl Owner {
    fn load(dir: &Path) -> Result<Self, ProviderError> {
        let trust = verify::read_trust(&dir.join("genesis.bkss"))?;
        let keys = Keys::load(dir)?;
        // One that has joined later may not be in the file; then the receipts decide.
        let known = trust.anchors().providers.iter().find(|provider| provider.id == keys.id);
        if known.is_some_and(|provider| !keys.fit(provider)) {
            return Err(ProviderError::OtherKeys { path: dir.join("keys.bkss"), id: keys.id });
        }
        let mut sessions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for session in Sessions::load(dir)? {
            sessions.entry((session.meter, session.index)).or_default().push(session);
        }
        Ok(Self { trust, keys, sessions })
    }

    fn open(&self, path: &Path) -> Result<Opened, OpenError> {
        let malformed = |source| OpenError::Malformed { path: path.to_owned(), source };
        let bytes = files::read(path, MAX_RECEIPT)?;
        let receipt: Receipt<'_> = codec::decode("receipt", &bytes).map_err(malformed)?;
        self.check_owner(path, &receipt)?;
        let plaintext = self.plaintext(path, &receipt)?;
        let reading = Reading::from_padded(&plaintext).map_err(malformed)?;
        let found = reading.channel.unit;
        if found != UNIT_WH {
            return Err(OpenError::Unit { path: path.to_owned(), found });
        }
        let meter = receipt.registration.message.meter;
        Ok(Opened { meter, slot: receipt.index, reading })
    }

    fn check_owner(&self, path: &Path, receipt: &Receipt<'_>) -> Result<(), OpenError> {
        let path = path.to_owned();
        let (expected, found) = (self.trust.genesis().network(), receipt.network);
        if expected != found {
            return Err(OpenError::Network { path, expected, found });
        }
        let message = &receipt.registration.message;
        let (meter, owner, own) = (message.meter, message.owner, self.keys.id);
        if owner == own { Ok(()) } else { Err(OpenError::NotOwner { path, meter, owner, own }) }
    }

    /// Opens with the session that the body introduces, or with the newest one before it that
    /// fits. The registration is part of what is authenticated: another's opens nothing.
    fn plaintext(&self, path: &Path, receipt: &Receipt<'_>) -> Result<Vec<u8>, OpenError> {
        let path = path.to_owned();
        let body: Body<'_> = match codec::decode("body", receipt.body) {
            Ok(body) => body,
            Err(source) => return Err(OpenError::Malformed { path, source }),
        };
        let Some(opening) = self.keys.opening_of(body.key) else {
            let (newest, found) = (self.keys.opening().id(), body.key);
            return Err(OpenError::Key { path, newest, found });
        };
        let network = self.trust.genesis().network();
        let message = &receipt.registration.message;
        let (root, index, meter) = (message.id(network), receipt.index, message.meter);
        let before = self.sessions.range((meter, 0)..(meter, index.get())).rev();
        let introduced = body.encapsulated;
        let known = before
            .flat_map(|(_, sessions)| sessions)
            .filter(|session| session.key == body.key && introduced.is_none())
            .map(|session| session.encapsulated);
        let mut refused = OpenError::NoSession { path: path.clone(), meter };
        for encapsulated in introduced.into_iter().chain(known) {
            let opened = OpeningSession::start(network, opening, &encapsulated)
                .and_then(|session| session.slot_key(index).open(&root, index, body.ciphertext));
            match opened {
                Ok(plaintext) => return Ok(plaintext.to_vec()),
                Err(source) => refused = OpenError::Closed { path: path.clone(), source },
            }
        }
        Err(refused)
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
            "intervals": self.intervals().map(interval).collect::<Vec<_>>(),
        })
    }

    fn tell(&self, path: &Path) {
        let (file, seconds) = (path.display(), self.reading.channel.interval_s);
        output::note(&format!("{file}: meter {}, slot {}", self.meter, self.slot));
        for (start, kwh, quality) in self.intervals() {
            let value = kwh.map_or_else(|| "no value".into(), |kwh| format!("{kwh} kWh"));
            let quality = match quality {
                Quality::Measured => String::new(),
                quality => format!(", {}", quality_name(quality)),
            };
            output::note(&format!("  {start}, {seconds} s: {value}{quality}"));
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
