//! What a provider can read: its keys, the sessions its meters sealed in, and what it trusts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use bkss_ledger::Trust;
use bkss_scheme::{
    LedgerTime, LinkIndex, MeterId, Network, ProviderId, Reading, codec,
    reading::{Channel, Interval, UNIT_WH},
    receipt::{Check, Failure, Receipt},
    seal::{Body, KeyId, OpeningSession, SealError},
};

use crate::{
    explain::{Details, Explain},
    files::{self, FileError},
    in_common::InCommon,
    provider::{Keys, ProviderError},
    sessions::{self, SessionsError},
    text::shown_path,
    verify::{self, MAX_RECEIPT},
};

/// Why a receipt does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{}: meter {meter}, slot {slot}: {} failed: expected {}, found {}",
        shown_path(path), check.name(), failure.expected(), failure.found()
    )]
    Refused { path: PathBuf, meter: MeterId, slot: LinkIndex, check: Check, failure: Box<Failure> },
    #[error("{}: receipt of network {found}, the provider is in {expected}", shown_path(path))]
    Network { path: PathBuf, expected: Network, found: Network },
    #[error(
        "{}: meter {meter} belongs to provider {owner}, this directory is provider {own}",
        shown_path(path)
    )]
    NotOwner { path: PathBuf, meter: MeterId, owner: ProviderId, own: ProviderId },
    #[error(
        "{}: sealed to key {found} of the provider, the newest in the directory is {newest}",
        shown_path(path)
    )]
    Key { path: PathBuf, newest: KeyId, found: KeyId },
    #[error(
        "{}: the session of meter {meter} is not in the directory's sessions",
        shown_path(path)
    )]
    NoSession { path: PathBuf, meter: MeterId },
    #[error("{}: {source}", shown_path(path))]
    Closed { path: PathBuf, source: SealError },
    #[error("{}: expected watt-hours (unit {UNIT_WH}), found unit {found}", shown_path(path))]
    Unit { path: PathBuf, found: u8 },
}

impl Explain for OpenError {
    fn explain(&self) -> Details {
        let refused = |path| Details::new("refused").file(path);
        match self {
            Self::File(error) => error.explain(),
            Self::Refused { path, failure, .. } => {
                refused(path).expected(failure.expected(), failure.found())
            }
            Self::Network { path, expected, found } => refused(path).expected(expected, found),
            Self::NotOwner { path, owner, own, .. } => {
                refused(path).expected(format!("provider {owner}"), format!("provider {own}"))
            }
            Self::Key { path, .. } | Self::NoSession { path, .. } | Self::Closed { path, .. } => {
                refused(path)
            }
            Self::Unit { path, found } => {
                refused(path).expected("watt-hours", format!("unit {found}"))
            }
        }
    }
}

impl OpenError {
    /// Unreadable files are 2, everything else 1.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::File(FileError::Unreadable { .. }) => 2,
            _ => 1,
        }
    }
}

/// A reading and whose it is.
pub(crate) struct Opened {
    /// The meter.
    pub(crate) meter: MeterId,
    /// The slot it was signed in, counted from the first of its chain.
    pub(crate) slot: LinkIndex,
    /// When that slot begins.
    pub(crate) signed: LedgerTime,
    /// What was measured.
    pub(crate) channel: Channel,
    /// Start of the first interval, seconds since 1970 UTC.
    pub(crate) start_s: u64,
    /// Decimal exponent of the values.
    pub(crate) scaler: i8,
    /// The values, oldest first.
    pub(crate) intervals: Box<[Interval]>,
    /// Whether the receipt passed all checks.
    pub(crate) verified: bool,
}

impl Opened {
    /// Start of an interval, seconds since 1970 UTC.
    pub(crate) fn start_s(&self, number: usize) -> u64 {
        let passed = (number as u64).saturating_mul(self.channel.interval_s.into());
        self.start_s.saturating_add(passed)
    }
}

/// An encapsulated key, and the provider's key it is for.
type Encapsulated = (KeyId, [u8; 32]);

/// A provider's keys and sessions.
pub(crate) struct Owner {
    trust: Trust,
    keys: Keys,
    /// By meter and the link whose body introduced them; a meter may have had
    /// several chains.
    sessions: BTreeMap<(MeterId, u32), Vec<Encapsulated>>,
    unverified: bool,
    common: InCommon,
}

impl Owner {
    /// Reads the keys of a directory, and the genesis that receipts are checked against. If
    /// `unverified`, they are not checked.
    pub(crate) fn load(
        dir: &Path,
        genesis: Option<&Path>,
        unverified: bool,
    ) -> Result<Self, ProviderError> {
        let own = || dir.join("genesis.bkss");
        let trust = verify::read_trust(&genesis.map_or_else(own, Path::to_owned))?;
        let keys = Keys::load(dir)?;
        // One that has joined later may not be in the file; then the receipts decide.
        let known = trust.anchors().providers.iter().find(|provider| provider.id == keys.id);
        if known.is_some_and(|provider| !keys.fit(provider)) {
            return Err(ProviderError::OtherKeys { path: dir.join("keys.bkss"), id: keys.id });
        }
        Ok(Self { trust, keys, sessions: BTreeMap::new(), unverified, common: InCommon::default() })
    }

    /// What receipts are checked against.
    pub(crate) const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Finds the sessions of those among `receipts` that do not carry their own, in the log of a
    /// directory; the others are passed over.
    ///
    /// # Errors
    ///
    /// [`SessionsError`]; the sessions that can be read are there nevertheless.
    pub(crate) fn find_sessions(
        &mut self,
        dir: &Path,
        receipts: &[PathBuf],
    ) -> Result<(), SessionsError> {
        let wanted: BTreeSet<_> = receipts.iter().filter_map(|path| continued(path)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        sessions::each(dir, |session| {
            if wanted.contains(&(session.meter, session.key)) {
                let at = self.sessions.entry((session.meter, session.index)).or_default();
                let known = (session.key, session.encapsulated);
                // After a crash the newest may have been written twice.
                if !at.contains(&known) {
                    at.push(known);
                }
            }
        })
    }

    /// Checks a receipt and opens it.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the first thing that does not hold; nothing has been opened then.
    pub(crate) fn open(&self, path: &Path) -> Result<Opened, OpenError> {
        let malformed = |source| OpenError::File(files::malformed(path)(source));
        let bytes = files::read(path, MAX_RECEIPT)?;
        let receipt: Receipt<'_> = codec::decode("receipt", &bytes).map_err(malformed)?;
        if !self.unverified {
            self.verify(path, &receipt)?;
        }
        self.check_owner(path, &receipt)?;
        let plaintext = self.plaintext(path, &receipt)?;
        let reading = Reading::from_padded(&plaintext).map_err(malformed)?;
        let found = reading.channel.unit;
        if found != UNIT_WH {
            return Err(OpenError::Unit { path: path.to_owned(), found });
        }
        let message = &receipt.registration.message;
        let Reading { channel, start_s, scaler, intervals } = reading;
        Ok(Opened {
            meter: message.meter,
            slot: receipt.index,
            signed: message.schedule.opens(receipt.index),
            channel,
            start_s,
            scaler,
            intervals: intervals.as_slice().into(),
            verified: !self.unverified,
        })
    }

    /// Decrypts the sealed reading of a receipt, whosever it is, with the keys of this directory.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: as it must be for every provider but the owner.
    pub(crate) fn decrypt(&self, path: &Path) -> Result<Vec<u8>, OpenError> {
        let bytes = files::read(path, MAX_RECEIPT)?;
        let receipt: Receipt<'_> =
            codec::decode("receipt", &bytes).map_err(files::malformed(path))?;
        self.plaintext(path, &receipt)
    }

    fn verify(&self, path: &Path, receipt: &Receipt<'_>) -> Result<(), OpenError> {
        let verdict = receipt.verify_among(&self.trust.anchors(), &self.common);
        let Some((check, failure)) = verdict.failure() else {
            return Ok(());
        };
        let (path, failure) = (path.to_owned(), failure.into());
        let (meter, slot) = (receipt.registration.message.meter, receipt.index);
        Err(OpenError::Refused { path, meter, slot, check, failure })
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
            Err(source) => return Err(files::malformed(&path)(source).into()),
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
            .filter(|(key, _)| *key == body.key && introduced.is_none())
            .map(|(_, encapsulated)| *encapsulated);
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

/// The meter and key of a receipt whose body continues a session.
fn continued(path: &Path) -> Option<(MeterId, KeyId)> {
    let bytes = files::read(path, MAX_RECEIPT).ok()?;
    let receipt: Receipt<'_> = codec::decode("receipt", &bytes).ok()?;
    let body: Body<'_> = codec::decode("body", receipt.body).ok()?;
    body.encapsulated.is_none().then_some((receipt.registration.message.meter, body.key))
}
