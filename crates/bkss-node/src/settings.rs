//! `node.toml`: how one provider's node runs.
//!
//! What the file says is overridden by the environment (`BKSS_*`), and both by the command line.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use bkss_scheme::ProviderId;
use ipnet::IpNet;
use serde::Deserialize;

use crate::{Pacing, api::Listed};

/// Most bytes of a file of settings.
pub const MAX_BYTES: u64 = 64 << 10;
/// Prefix of variables of the environment.
pub const PREFIX: &str = "BKSS_";

/// How a node runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Where meters, owners and operators reach this node.
    pub http: SocketAddr,
    /// Where this node listens for the other providers.
    pub p2p: SocketAddr,
    /// The genesis file.
    pub genesis: PathBuf,
    /// The directory of the store.
    pub store: PathBuf,
    /// How fast blocks follow each other.
    pub pacing: Pacing,
    /// A head older than this is not healthy.
    pub stale_after: Duration,
    /// A snapshot is written after every so many rounds; 0 for never.
    pub snapshot_rounds: u32,
    /// Sealed bodies are erased after so many days of ledger time; `None` for never.
    pub keep_bodies_days: Option<u32>,
    /// Threads of the node.
    pub workers: usize,
    /// Whom this provider trusts to keep the ledger; `None` for all others.
    pub trust: Option<Vec<ProviderId>>,
    /// Addresses that stand for those of the ledger.
    pub peers: BTreeMap<ProviderId, String>,
    /// Proxies and head-ends before the HTTP interface.
    pub listed: Listed,
    /// How the log is written.
    pub log: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a filter by module.
    pub log_level: String,
    /// Variables of the environment that look like settings and are none.
    pub ignored: Vec<String>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SettingsError {
    #[error("{place}: {reason}")]
    Parse { place: String, reason: String },
    #[error("{place}: expected {expected}, found {found}")]
    Value { place: String, expected: String, found: String },
    #[error("{name} is not set: expected it in the file, as {variable} or on the command line")]
    Missing { name: &'static str, variable: String },
    #[error("{place}: no such setting; there are {known}")]
    Unknown { place: String, known: String },
}

/// The settings as the file, the environment or the command line give them; all optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    http: Option<SocketAddr>,
    p2p: Option<SocketAddr>,
    genesis: Option<PathBuf>,
    store: Option<PathBuf>,
    gather_ms: Option<u64>,
    interval_ms: Option<u64>,
    idle_ms: Option<u64>,
    resend_ms: Option<u64>,
    leader_timeout_ms: Option<u64>,
    stale_after_s: Option<u64>,
    snapshot_rounds: Option<u32>,
    keep_bodies_days: Option<u32>,
    workers: Option<u16>,
    trust: Option<Vec<u16>>,
    peers: Option<BTreeMap<String, String>>,
    proxies: Option<Vec<String>>,
    head_ends: Option<Vec<String>>,
    log: Option<LogFormat>,
    log_level: Option<String>,
}

/// A snapshot is usually written after so many rounds.
const SNAPSHOT_ROUNDS: u32 = 12;

/// Names of all settings.
const NAMES: [&str; 19] = [
    "http",
    "p2p",
    "genesis",
    "store",
    "gather_ms",
    "interval_ms",
    "idle_ms",
    "resend_ms",
    "leader_timeout_ms",
    "stale_after_s",
    "snapshot_rounds",
    "keep_bodies_days",
    "workers",
    "trust",
    "peers",
    "proxies",
    "head_ends",
    "log",
    "log_level",
];

/// Settings of text, which the environment and the command line may give without quotes.
const TEXTS: [&str; 6] = ["http", "p2p", "genesis", "store", "log", "log_level"];

impl Settings {
    /// From a file, its text, variables of the environment and `name=value` of the command line,
    /// each overriding the ones before. Relative paths are below the file's directory.
    ///
    /// # Errors
    ///
    /// [`SettingsError`], naming place, expectation and finding.
    pub fn load(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut raw = parse(&path.display().to_string(), text)?;
        let mut ignored = Vec::new();
        for (name, value) in environment {
            let Some(setting) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            // The environment may be shared with others.
            if NAMES.contains(&&*setting) {
                raw.set(&name, &setting, &value)?;
            } else {
                ignored.push(name);
            }
        }
        for (name, value) in options {
            raw.set(&format!("--set {name}"), &name, &value)?;
        }
        let mut settings = raw.finish(path)?;
        settings.ignored = ignored;
        Ok(settings)
    }
}

fn parse(place: &str, text: &str) -> Result<Raw, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map_or_else(|| place.to_owned(), |line| format!("{place}, line {line}"));
        SettingsError::Parse { place, reason: error.message().replace('\n', " ") }
    })
}

impl Raw {
    /// Sets one value, given as in the file; texts may go without quotes.
    fn set(&mut self, place: &str, name: &str, value: &str) -> Result<(), SettingsError> {
        if !NAMES.contains(&name) {
            let (place, known) = (place.to_owned(), NAMES.join(", "));
            return Err(SettingsError::Unknown { place, known });
        }
        let quoted = TEXTS.contains(&name) && !value.starts_with('"');
        let value =
            if quoted { toml::Value::String(value.into()).to_string() } else { value.into() };
        let given: Result<Self, _> = toml::from_str(&format!("{name} = {value}"));
        let given = given.map_err(|error| {
            let reason = format!("{}, found {value}", error.message().replace('\n', " "));
            SettingsError::Parse { place: place.to_owned(), reason }
        })?;
        self.merge(given);
        Ok(())
    }

    fn merge(&mut self, given: Self) {
        fn take<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        take(&mut self.http, given.http);
        take(&mut self.p2p, given.p2p);
        take(&mut self.genesis, given.genesis);
        take(&mut self.store, given.store);
        take(&mut self.gather_ms, given.gather_ms);
        take(&mut self.interval_ms, given.interval_ms);
        take(&mut self.idle_ms, given.idle_ms);
        take(&mut self.resend_ms, given.resend_ms);
        take(&mut self.leader_timeout_ms, given.leader_timeout_ms);
        take(&mut self.stale_after_s, given.stale_after_s);
        take(&mut self.snapshot_rounds, given.snapshot_rounds);
        take(&mut self.keep_bodies_days, given.keep_bodies_days);
        take(&mut self.workers, given.workers);
        take(&mut self.trust, given.trust);
        take(&mut self.peers, given.peers);
        take(&mut self.proxies, given.proxies);
        take(&mut self.head_ends, given.head_ends);
        take(&mut self.log, given.log);
        take(&mut self.log_level, given.log_level);
    }

    fn finish(self, path: &Path) -> Result<Settings, SettingsError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let missing = |name: &'static str| SettingsError::Missing {
            name,
            variable: format!("{PREFIX}{}", name.to_uppercase()),
        };
        let file = path.display();
        let pacing = self.pacing(&file.to_string())?;
        let mut peers = BTreeMap::new();
        for (id, address) in self.peers.unwrap_or_default() {
            let provider = id.parse().map(ProviderId).map_err(|_| SettingsError::Value {
                place: format!("{file}, peers"),
                expected: "numbers of providers".into(),
                found: id.clone(),
            })?;
            peers.insert(provider, address);
        }
        let workers = between(&file, "workers", self.workers.unwrap_or(2).into(), 1..=64)?;
        let stale_after =
            between(&file, "stale_after_s", self.stale_after_s.unwrap_or(30), 1..=86_400)?;
        Ok(Settings {
            http: self.http.ok_or_else(|| missing("http"))?,
            p2p: self.p2p.ok_or_else(|| missing("p2p"))?,
            genesis: directory.join(self.genesis.unwrap_or_else(|| "genesis.bkss".into())),
            store: directory.join(self.store.unwrap_or_else(|| "store".into())),
            pacing,
            stale_after: Duration::from_secs(stale_after),
            snapshot_rounds: self.snapshot_rounds.unwrap_or(SNAPSHOT_ROUNDS),
            keep_bodies_days: self.keep_bodies_days.filter(|days| *days > 0),
            workers: usize::try_from(workers).unwrap_or(2),
            trust: self.trust.map(|trust| trust.into_iter().map(ProviderId).collect()),
            peers,
            listed: Listed {
                proxies: networks(&file, "proxies", self.proxies)?,
                head_ends: networks(&file, "head_ends", self.head_ends)?,
            },
            log: self.log.unwrap_or_default(),
            log_level: self.log_level.unwrap_or_else(|| "info".into()),
            ignored: Vec::new(),
        })
    }

    fn pacing(&self, file: &str) -> Result<Pacing, SettingsError> {
        let usual = Pacing::default();
        let duration = |name, given: Option<u64>, usual: Duration| match given {
            Some(ms) => between(&file, name, ms, 1..=60_000).map(Duration::from_millis),
            None => Ok(usual),
        };
        let pacing = Pacing {
            gather: duration("gather_ms", self.gather_ms, usual.gather)?,
            interval: duration("interval_ms", self.interval_ms, usual.interval)?,
            idle: duration("idle_ms", self.idle_ms, usual.idle)?,
            resend: duration("resend_ms", self.resend_ms, usual.resend)?,
            leader_timeout: duration(
                "leader_timeout_ms",
                self.leader_timeout_ms,
                usual.leader_timeout,
            )?,
        };
        if pacing.leader_timeout <= pacing.idle {
            return Err(SettingsError::Value {
                place: format!("{file}, leader_timeout_ms"),
                expected: format!("more than idle_ms, {}", pacing.idle.as_millis()),
                found: pacing.leader_timeout.as_millis().to_string(),
            });
        }
        Ok(pacing)
    }
}

/// Addresses and networks.
fn networks(
    file: &impl std::fmt::Display,
    name: &str,
    given: Option<Vec<String>>,
) -> Result<Vec<IpNet>, SettingsError> {
    let parse = |found: String| {
        let address = found.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| found.parse()).map_err(|_| SettingsError::Value {
            place: format!("{file}, {name}"),
            expected: "addresses or networks, such as 10.0.0.7 or 10.0.0.0/24".into(),
            found,
        })
    };
    given.unwrap_or_default().into_iter().map(parse).collect()
}

fn between(
    file: &impl std::fmt::Display,
    name: &str,
    found: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<u64, SettingsError> {
    if allowed.contains(&found) {
        return Ok(found);
    }
    Err(SettingsError::Value {
        place: format!("{file}, {name}"),
        expected: format!("{} to {}", allowed.start(), allowed.end()),
        found: found.to_string(),
    })
}

/// A commented `node.toml` with these addresses.
pub fn template(http: &str, p2p: &str) -> String {
    let Pacing { gather, interval, idle, resend, leader_timeout } = Pacing::default();
    let [gather, interval, idle, resend, leader_timeout] =
        [gather, interval, idle, resend, leader_timeout].map(|pace| pace.as_millis());
    format!(
        r#"# Settings of this provider's node. Variables of the environment (BKSS_HTTP, BKSS_P2P, ...)
# override this file, and "--set name=value" overrides both. Paths are relative to this file.

# Where meters, owners and operators reach this node: HTTP without TLS. Put a proxy with TLS in
# front of it before it listens on anything but this machine.
http = "{http}"

# Proxies before it, which say in X-Forwarded-For for whom they ask, and head-ends through which many
# meters speak: addresses or networks. Everybody else has a small share of the node's connections
# and requests, by address.
# proxies = []
# head_ends = []

# Where this node listens for the other providers. They dial the address in this provider's
# identity on the ledger; the two differ behind a router that forwards ports.
p2p = "{p2p}"

# The genesis, and the store of blocks, records and accepted messages.
# genesis = "genesis.bkss"
# store = "store"

# Whom this provider trusts to keep the ledger (Algorithm 3), by number: all of them, also more than
# there are seats. Without it the votes go to others that are drawn, whoever they are.
# trust = [1, 2, 3]

# Health is 503 when no block has become final for this long, seconds.
# stale_after_s = 30

# Rounds between snapshots of the state, which shorten a restart and let others begin late; 0 for
# none. Days of ledger time until sealed bodies are erased; 0 for never. Blocks, certificates and
# proofs stay.
# snapshot_rounds = {SNAPSHOT_ROUNDS}
# keep_bodies_days = 0

# The log, on standard error: "text" or "json"; and what it tells: error, warn, info, debug.
# log = "text"
# log_level = "info"

# Threads of the node.
# workers = 2

# Milliseconds: how long messages are gathered into a batch; least time between blocks; most time
# until an empty block; until a batch is sent again; until a silent leader is voted out.
# gather_ms = {gather}
# interval_ms = {interval}
# idle_ms = {idle}
# resend_ms = {resend}
# leader_timeout_ms = {leader_timeout}

# Addresses that stand for those of the ledger, by provider; the last lines of the file.
# [peers]
# 1 = "provider-1.internal:9001"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Settings, String> {
        let own = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let loaded = Settings::load(Path::new("dir/node.toml"), text, own(env), own(set));
        loaded.map_err(|error| error.to_string())
    }

    const LEAST: &str = "http = \"127.0.0.1:1\"\np2p = \"127.0.0.1:2\"\n";

    #[test]
    fn the_template_is_the_usual_settings() {
        let text = template("127.0.0.1:1", "127.0.0.1:2");
        let settings = load(&text, &[], &[]).unwrap();
        assert_eq!(settings, load(LEAST, &[], &[]).unwrap());
        assert_eq!(settings.genesis, Path::new("dir/genesis.bkss"));
        assert_eq!(settings.pacing, Pacing::default());
        // What is commented out is what holds anyway, and every setting is in it.
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") || rest.starts_with('[') => rest,
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n");
        let all = load(&all, &[], &[]).unwrap();
        assert_eq!(all.pacing, settings.pacing);
        assert_eq!((all.stale_after, all.workers), (settings.stale_after, settings.workers));
        assert_eq!(all.snapshot_rounds, settings.snapshot_rounds);
        assert_eq!((all.keep_bodies_days, settings.keep_bodies_days), (None, None));
        assert_eq!((all.log, &all.log_level), (settings.log, &settings.log_level));
        assert_eq!(all.peers[&ProviderId(1)], "provider-1.internal:9001");
        for name in NAMES {
            let there = text.contains(&format!("{name} =")) || text.contains(&format!("[{name}]"));
            assert!(there, "{name}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file_and_options_override_both() {
        let text = format!("{LEAST}workers = 3\nlog = \"text\"\n");
        let env = [("BKSS_WORKERS", "4"), ("BKSS_LOG", "json"), ("PATH", "/bin")];
        let settings = load(&text, &env, &[("workers", "5")]).unwrap();
        assert_eq!((settings.workers, settings.log), (5, LogFormat::Json));
        let settings = load(&text, &env, &[]).unwrap();
        assert_eq!(settings.workers, 4);
        let foreign = [("BKSS_SERVICE_HOST", "10.0.0.1")];
        assert_eq!(load(&text, &foreign, &[]).unwrap().ignored, ["BKSS_SERVICE_HOST"]);
        let settings = load(&text, &[], &[("trust", "[1, 2]"), ("http", "[::1]:9")]).unwrap();
        assert_eq!(settings.trust, Some(vec![ProviderId(1), ProviderId(2)]));
        assert_eq!(settings.http.port(), 9);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, env, set, expected) in [
            ("p2p = \"127.0.0.1:2\"", [].as_slice(), [].as_slice(), "http is not set"),
            (
                &format!("{LEAST}colour = 3\n"),
                &[],
                &[],
                "dir/node.toml, line 3: unknown field `colour`",
            ),
            (
                &format!("{LEAST}workers = \"two\"\n"),
                &[],
                &[],
                "dir/node.toml, line 3: invalid type",
            ),
            (&format!("{LEAST}workers = 0\n"), &[], &[], "workers: expected 1 to 64, found 0"),
            (
                &format!("{LEAST}idle_ms = 5000\n"),
                &[],
                &[],
                "expected more than idle_ms, 5000, found ",
            ),
            (
                &format!("{LEAST}[peers]\nx = \"a:1\"\n"),
                &[],
                &[],
                "expected numbers of providers, found x",
            ),
            ("http = 3", &[], &[], "dir/node.toml, line 1"),
            (
                &format!("{LEAST}proxies = [\"10.0.0.0/33\"]\n"),
                &[],
                &[],
                "proxies: expected addresses or networks, such as 10.0.0.7 or 10.0.0.0/24, found 10.0.0.0/33",
            ),
            (LEAST, &[("BKSS_HTTP", "nowhere")], &[], "BKSS_HTTP: invalid socket address"),
            (LEAST, &[], &[("colour", "1")], "--set colour: no such setting"),
            (LEAST, &[], &[("log", "xml")], "--set log: unknown variant `xml`"),
        ] {
            let error = load(text, env, set).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
