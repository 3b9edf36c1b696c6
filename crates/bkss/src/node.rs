//! `bkss node`: one provider's process, until it is stopped.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bkss_ledger::{Beginning, Trust};
use bkss_node::{
    Config, LedgerClock,
    config::{Latest, Rekey, public_half, vote_key},
    origin::adopt,
    process::start_provider,
    records::Records,
    service::{self, Introduced, KeepSessions},
    settings::{MAX_BYTES, Settings},
};
use bkss_scheme::{Network, ProviderId, certificate::VoteKey, receipt::Anchors};
use commonware_runtime::{Runner, Spawner, Supervisor, buffer::paged::CacheRef, tokio};
use commonware_utils::{
    NZU16, NZUsize,
    channel::{mpsc, oneshot},
};

use crate::{
    documents::MemberId,
    explain::Plain,
    fetch,
    files::{self, FileError, Readers},
    log, output,
    provider::Keys,
    sessions::{self, Sessions},
    text, verify,
};

/// How long the node may take to write out what it has.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Sessions that are remembered, to pass over those that come again after a crash.
const REMEMBERED: usize = 1 << 16;
/// Names the node's part of the storage.
const PARTITION: &str = "ledger";

/// Options of `bkss node`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The provider's directory: keys, genesis, node.toml
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where meters, owners and operators reach this node
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
    /// Where this node listens for the other providers
    #[arg(long, value_name = "IP:PORT")]
    p2p: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log: Option<String>,
    /// Overrides a setting of node.toml
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Begin at the snapshot that bkss snapshot has fetched, with an empty store; not to be given
    /// again
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Vote although the record of earlier votes is lost or may be an old one: when too many disks
    /// are lost at once, or too many nodes were started again while a round began. No other node
    /// may have this key, and the disk must not be an image that was put back
    #[arg(long)]
    vote_without_memory: bool,
}

/// Why a node does not run, and the exit code for it.
#[derive(Debug)]
struct Failed(u8, String);

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
impl Failed {
    /// Settings and files that cannot be used.
    fn usage(error: impl ToString) -> Self {
        Self(2, error.to_string())
    }

    /// What goes wrong later.
    fn later(error: impl ToString) -> Self {
        Self(1, error.to_string())
    }
}

/// Runs the node and reports why it ended.
pub(crate) fn run(args: &Args) -> ExitCode {
    match Process::open(args).and_then(|process| process.run()) {
        Ok(()) => {
            output::object(&serde_json::json!({ "stopped": args.dir.display().to_string() }));
            ExitCode::SUCCESS
        }
        Err(Failed(code, reason)) => {
            output::failed(&Plain(if code == 2 { "usage" } else { "failed" }, &reason));
            code.into()
        }
    }
}

/// A provider's process. Its node is started again when another vote key begins to count.
struct Process {
    dir: PathBuf,
    settings: Settings,
    snapshot: Option<PathBuf>,
    vote_without_memory: bool,
    /// Held as long as the process runs: one node per directory.
    _lock: File,
}

impl Process {
    fn open(args: &Args) -> Result<Self, Failed> {
        let settings = settings(args)?;
        log::start(settings.log, &settings.log_level)
            .map_err(|error| Failed::usage(format!("log_level: {error}")))?;
        for variable in &settings.ignored {
            tracing::warn!(variable, "there is no such setting");
        }
        let (dir, vote_without_memory) = (args.dir.clone(), args.vote_without_memory);
        let keys = dir.join("keys.bkss");
        if let Some(mode) = files::open_to_others(&keys) {
            let (keys, mode) = (keys.display(), format!("{mode:o}"));
            tracing::warn!(%keys, mode, expected = "600", "others may read this provider's keys");
        }
        let lock = lock(&dir)?;
        std::fs::create_dir_all(&settings.store).map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::AlreadyExists => "expected a directory, found a file".to_owned(),
                _ => error.to_string(),
            };
            Failed::usage(format!("{}: {reason}", settings.store.display()))
        })?;
        let snapshot = args.snapshot.clone();
        Ok(Self { dir, settings, snapshot, vote_without_memory, _lock: lock })
    }

    fn run(&self) -> Result<(), Failed> {
        end_where_the_disk_fails(self.settings.store.clone());
        let (stop, mut stopped) = oneshot::channel();
        let mut start = Start::load(self, None)?;
        claim(&self.settings.store, start.config.genesis.network())?;
        if let Some(path) = &self.snapshot {
            let read = fetch::read_snapshot(path, &start.trust);
            start.beginning = Some(read.map_err(Failed::usage)?);
        }
        let stop = Mutex::new(Some(stop));
        ctrlc::set_handler(move || {
            if let Some(stop) = stop.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = stop.send(()); // it is stopping already
            }
        })
        .map_err(|error| Failed::later(format!("signals: {error}")))?;
        loop {
            let runtime = tokio::Config::new()
                .with_storage_directory(&self.settings.store)
                .with_worker_threads(self.settings.workers);
            let runner = tokio::Runner::new(runtime);
            let Some(key) = runner.start(|ctx| start.serve(ctx, &mut stopped))? else {
                return Ok(());
            };
            start = Start::load(self, Some(key))?;
        }
    }
}

/// Everything a node is started with.
struct Start {
    settings: Settings,
    config: Config,
    trust: Trust,
    sessions: KeepSessions,
    /// Where an empty store begins, if not at the genesis.
    beginning: Option<Beginning>,
    /// The vote key that it is to be started with again.
    successor: mpsc::Receiver<VoteKey>,
}

impl Start {
    /// With a vote key of this directory, or without one with that which the genesis file knows.
    fn load(process: &Process, key: Option<VoteKey>) -> Result<Self, Failed> {
        let Process { dir, settings, vote_without_memory, .. } = process;
        let keys = Keys::load(dir).map_err(Failed::usage)?;
        own_directory(dir, &keys)?;
        let trust = verify::read_trust(&settings.genesis).map_err(Failed::usage)?;
        let mut config = config(settings, &keys, &trust, key)?;
        config.vote_without_memory = *vote_without_memory;
        let (rekey, successor) = rekey(dir, public_half(&config.vote_key));
        config.rekey = Some(rekey);
        let sessions = keep_sessions(dir)?;
        Ok(Self { settings: settings.clone(), config, trust, sessions, beginning: None, successor })
    }

    /// Runs until it is stopped, or until a round begins for which another vote key counts: that
    /// key.
    async fn serve(
        self,
        ctx: tokio::Context,
        stopped: &mut oneshot::Receiver<()>,
    ) -> Result<Option<VoteKey>, Failed> {
        let Self { settings, mut config, trust, sessions, beginning, mut successor } = self;
        // A snapshot is of use only if the records reach up to it.
        let cache = CacheRef::new(NZU16!(4096), NZUsize!(64));
        let records = Records::open(&ctx.child("look"), PARTITION, cache, trust.clone()).await;
        let store = settings.store.display();
        let of_store = |error: &dyn std::fmt::Display| Failed::later(format!("{store}: {error}"));
        let records = records.map_err(|error| of_store(&error))?;
        if let Some(beginning) = beginning {
            let adopted = adopt(&ctx, PARTITION, &records, beginning).await;
            adopted.map_err(|error| Failed::usage(format!("--snapshot: {error}")))?;
        }
        config.events_from = records.next_height();
        drop(records);
        let (provider, clock) = (config.provider, config.clock.clone());
        // The engine does not say which port is taken.
        let free = std::net::TcpListener::bind(settings.p2p);
        drop(free.map_err(|error| Failed::later(format!("p2p = {}: {error}", settings.p2p)))?);
        let node = start_provider(ctx.child("provider"), config, settings.p2p).await;
        let node = node.map_err(|error| of_store(&error))?;
        let genesis = settings.genesis.clone();
        let settings = service::Settings {
            genesis: Box::new(move |bytes| {
                files::replace(&genesis, bytes, Readers::All).map_err(std::io::Error::other)
            }),
            provider,
            http: settings.http,
            stale_after: settings.stale_after,
            listed: settings.listed,
            storage: settings.store,
            partition: PARTITION.into(),
            trust,
            clock,
            sessions,
        };
        let service = service::start(ctx.child("service"), node, settings).await;
        let service = service.map_err(Failed::later)?;
        tracing::info!(%provider, http = %service.http, "node is running");
        let outcome = commonware_macros::select! {
            _ = stopped => {
                tracing::info!("node is stopping");
                Ok(None)
            },
            key = next_key(&mut successor) => {
                tracing::info!("node starts again with its next vote key");
                Ok(Some(key))
            },
            reason = service.ended => {
                let reason = reason.unwrap_or_else(|error| error.to_string());
                tracing::error!(reason, "node stops");
                Err(Failed::later(reason))
            },
        };
        let _ = ctx.stop(0, Some(STOP_TIMEOUT)).await; // what is not written out by then is repeated
        outcome
    }
}

/// The engine panics where its files cannot be written: that is no fault of the program, and is said
/// in one line.
fn end_where_the_disk_fails(store: PathBuf) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        let failed = ["WriteFailed", "SyncFailed", "ResizeFailed", "ReadFailed", "Io("];
        let of_storage = failed.iter().any(|failed| message.contains(failed));
        match unwritable(&store) {
            Some(error) => {
                output::error(&format!("{}: {error}: the node stops", store.display()));
            }
            None if of_storage => {
                let store = store.display();
                output::error(&format!("{store} could not be written: the node stops: {message}"));
            }
            None => return report(panic),
        }
        std::process::exit(1);
    }));
}

/// Why nothing can be written below a directory, if nothing can.
fn unwritable(directory: &Path) -> Option<std::io::Error> {
    let path = directory.join(".space");
    let written = std::fs::write(&path, [0; 64 << 10]);
    let _ = std::fs::remove_file(&path); // it may not be there
    written.err()
}

/// The vote key that the node is to be started with again; never, once the node has ended.
async fn next_key(successor: &mut mpsc::Receiver<VoteKey>) -> VoteKey {
    match successor.recv().await {
        Some(key) => key,
        None => std::future::pending().await,
    }
}

/// Says yes to a vote key that this directory has had later than `own`, and hands it on.
fn rekey(dir: &Path, own: VoteKey) -> (Rekey, mpsc::Receiver<VoteKey>) {
    let (sender, successor) = mpsc::channel(1);
    let dir = dir.to_owned();
    let rekey = move |named: &VoteKey| match Keys::load(&dir) {
        Ok(keys) => {
            let mut newer = keys.votes().map(|secret| vote_key(secret).1);
            newer.by_ref().any(|key| key == own);
            newer.any(|key| key == *named) && sender.try_send(*named).is_ok()
        }
        Err(error) => {
            tracing::error!(%error, "keys");
            false
        }
    };
    (Arc::new(rekey), successor)
}

fn settings(args: &Args) -> Result<Settings, Failed> {
    let path = args.dir.join("node.toml");
    let bytes = files::read(&path, MAX_BYTES).map_err(Failed::usage)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failed::usage(format!("{}: expected UTF-8", path.display())))?;
    let mut options = Vec::new();
    for set in &args.set {
        let (name, value) = set
            .split_once('=')
            .ok_or_else(|| Failed::usage(format!("--set {set}: expected NAME=VALUE")))?;
        options.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    for (name, value) in [("http", &args.http), ("p2p", &args.p2p), ("log", &args.log)] {
        options.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
    }
    Settings::load(&path, &text, std::env::vars(), options).map_err(Failed::usage)
}

fn config(
    settings: &Settings,
    keys: &Keys,
    trust: &Trust,
    key: Option<VoteKey>,
) -> Result<Config, Failed> {
    let genesis = trust.genesis().clone();
    let eras = trust.eras().eras.to_vec();
    let (members, height) = trust.members();
    let latest = Latest { height, providers: members.present().cloned().collect() };
    let anchors = trust.anchors();
    let identity = anchors.providers.iter().find(|provider| provider.id == keys.id);
    check_names(settings, keys.id, &anchors)?;
    // After a rotation the ledger may still know the key before.
    let key = key.or(identity.map(|identity| identity.vote_key));
    let known = keys.votes().find(|secret| Some(vote_key(secret).1) == key);
    if identity.is_some_and(|identity| identity.key != keys.identity.public()) {
        let file = settings.genesis.display();
        return Err(Failed::usage(format!(
            "{file}: expected the key of this directory for provider {}, found another",
            keys.id
        )));
    }
    let start = genesis.charter().start;
    let origin = SystemTime::UNIX_EPOCH + Duration::from_millis(start.0);
    let clock = LedgerClock::new(origin, start, genesis.charter().time_scale);
    Ok(Config {
        provider: keys.id,
        identity: keys.identity.clone(),
        vote_key: vote_key(known.unwrap_or_else(|| keys.vote())).0,
        rekey: None,
        clock,
        pacing: settings.pacing,
        trust: settings.trust.clone(),
        addresses: settings.peers.clone(),
        snapshot_rounds: settings.snapshot_rounds,
        keep_bodies_days: settings.keep_bodies_days,
        events_from: 1,
        vote_without_memory: false,
        partition: PARTITION.into(),
        eras,
        latest,
        genesis: Arc::new(genesis),
    })
}

/// Checks the providers that settings name: that a node trusts itself, or nobody, is a mistake; that it
/// names one that is not known yet may be none.
fn check_names(settings: &Settings, me: ProviderId, known: &Anchors<'_>) -> Result<(), Failed> {
    let others = "expected numbers of other providers";
    match settings.trust.as_deref() {
        Some([]) => return Err(Failed::usage(format!("trust = []: {others}, or no such line"))),
        Some(trust) if trust.contains(&me) => {
            return Err(Failed::usage(format!("trust: {others}, found this one's own, {me}")));
        }
        _ => {}
    }
    let named = settings.trust.iter().flatten().map(|id| ("trust", id));
    for (setting, provider) in named.chain(settings.peers.keys().map(|id| ("peers", id))) {
        if !known.providers.iter().any(|known| known.id == *provider) {
            tracing::warn!(%provider, "{setting} names a provider that the genesis file does not know");
        }
    }
    Ok(())
}

/// Makes sure that no other node uses the directory.
fn lock(dir: &Path) -> Result<File, Failed> {
    let path = dir.join("node.lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Failed::usage(format!("{}: {error}", path.display())))?;
    file.try_lock().map_err(|_| {
        Failed::usage(format!("{}: another node runs in this directory", path.display()))
    })?;
    Ok(file)
}

/// Makes sure that the keys are those of the provider whose identity lies beside them: with another's
/// two nodes would vote for one provider.
fn own_directory(dir: &Path, keys: &Keys) -> Result<(), Failed> {
    let own = format!("{}.identity", MemberId::Provider(keys.id));
    let entries = std::fs::read_dir(dir);
    let entries = entries.map_err(|error| Failed::usage(format!("{}: {error}", dir.display())))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<_> = names.filter(|name| name.ends_with(".identity")).collect();
    match names.first() {
        Some(other) if !names.contains(&own) => Err(Failed::usage(format!(
            "{}: expected the keys of {}, found those of {}",
            dir.join("keys.bkss").display(),
            text::shown(other.trim_end_matches(".identity")),
            MemberId::Provider(keys.id),
        ))),
        _ => Ok(()),
    }
}

/// Makes sure that a store is of this network: to the node another's records would be damaged ones.
fn claim(store: &Path, network: Network) -> Result<(), Failed> {
    let (mark, expected) = (store.join("network"), network.to_string());
    match files::read(&mark, MAX_BYTES) {
        Ok(found) if found == expected.as_bytes() => Ok(()),
        Ok(found) => {
            // Whatever lies there: no more of it than a name has.
            let found = String::from_utf8_lossy(&found[..found.len().min(2 * expected.len())]);
            let found = if found.is_empty() { "nothing".into() } else { text::shown(&found) };
            let mark = mark.display();
            Err(Failed::usage(format!(
                "{mark}: expected the name of the store's network, {expected}, found {found}"
            )))
        }
        Err(FileError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            files::replace(&mark, expected.as_bytes(), Readers::All).map_err(Failed::usage)
        }
        Err(error) => Err(Failed::usage(error)),
    }
}

/// Appends sessions to the directory's log; those that come again after a crash are passed over.
fn keep_sessions(dir: &Path) -> Result<KeepSessions, Failed> {
    let mut log = Sessions::open(dir).map_err(Failed::usage)?;
    let mut known = Remembered::default();
    match sessions::newest(dir, REMEMBERED) {
        Ok(newest) => newest.iter().for_each(|session| {
            known.insert(session.encapsulated);
        }),
        // The segment before the newest one: it costs repetitions, and bkss open will say so.
        Err(error) => tracing::warn!(%error, "sessions"),
    }
    Ok(Box::new(move |introduced: &[Introduced]| {
        for one in introduced {
            let Introduced { meter, index, key, encapsulated } = one;
            if known.insert(*encapsulated) {
                log.append(*meter, *index, *key, encapsulated).map_err(std::io::Error::other)?;
            }
        }
        log.sync().map_err(std::io::Error::other)
    }))
}

/// The newest sessions, by their encapsulated keys: a meter's next chain has the same links again.
#[derive(Default)]
struct Remembered {
    known: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Remembered {
    /// False if it is known.
    fn insert(&mut self, session: [u8; 32]) -> bool {
        if !self.known.insert(session) {
            return false;
        }
        self.order.push_back(session);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn a_node_that_has_ended_has_no_next_key() {
        let (sender, mut keys) = mpsc::channel(1);
        let mut context = Context::from_waker(Waker::noop());
        assert!(sender.try_send(VoteKey([7; 32])).is_ok());
        assert!(pin!(next_key(&mut keys)).poll(&mut context).is_ready());
        drop(sender);
        assert!(pin!(next_key(&mut keys)).poll(&mut context).is_pending());
    }
}
