//! Several providers in one process, connected by authenticated TCP on loopback.
//!
//! They share a process, nothing else: each has its keys, its runtime, its store and its
//! connections. The caller stays synchronous.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    thread::JoinHandle,
    time::Duration,
};

use commonware_runtime::{Runner, Spawner, Supervisor, tokio};
use commonware_utils::channel::{mpsc, oneshot};

use crate::{
    Config, Event, Mailbox, Status,
    node::{Node, StartError},
    process::start_provider,
};

/// Threads of a provider's runtime.
const WORKERS: usize = 2;
/// How long a provider may take to write out what it has.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Running providers; dropping it stops them.
pub struct Consortium {
    /// Each provider, in the order of the configurations.
    pub members: Vec<Member>,
    runtimes: Vec<Runtime>,
}

/// One running provider.
pub struct Member {
    /// Where its meters leave their messages.
    pub mailbox: Mailbox,
    /// Its final blocks, in order. They must be read, or the provider waits.
    pub events: mpsc::Receiver<Event>,
    /// Its condition.
    pub status: Status,
}

/// Why a consortium does not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ConsortiumError {
    #[error("no free port on loopback: {0}")]
    Port(std::io::Error),
    #[error("no thread for the runtime: {0}")]
    Thread(std::io::Error),
    #[error("provider {index}: {reason}")]
    Start { index: usize, reason: StartError },
    #[error("the runtime of provider {index} has stopped")]
    Stopped { index: usize },
}

impl Consortium {
    /// Starts providers, each with the directory of its store; returns when all have started.
    ///
    /// # Errors
    ///
    /// [`ConsortiumError`].
    pub fn start(configs: Vec<(Config, PathBuf)>) -> Result<Self, ConsortiumError> {
        let ports = free_ports(configs.len()).map_err(ConsortiumError::Port)?;
        let mut consortium = Self { members: Vec::new(), runtimes: Vec::new() };
        let addresses: BTreeMap<_, _> = configs
            .iter()
            .zip(&ports)
            .map(|((config, _), port)| (config.provider, loopback(*port).to_string()))
            .collect();
        for (index, ((mut config, storage), port)) in configs.into_iter().zip(ports).enumerate() {
            config.addresses.extend(addresses.clone());
            let (runtime, member) = Runtime::start(index, config, storage, loopback(port))?;
            consortium.runtimes.push(runtime);
            consortium.members.push(member);
        }
        Ok(consortium)
    }

    /// Stops one provider, as when its machine loses power or is switched off; the others go on.
    /// Its events end, and nothing is taken by its mailbox any more.
    pub fn kill(&mut self, index: usize) {
        let Some(runtime) = self.runtimes.get_mut(index) else { return };
        // A sender that waits for a reader would hold up the stop.
        self.members[index].events.close();
        drop(runtime.stop.take());
        if let Some(thread) = runtime.thread.take() {
            // A panic of the runtime has been reported on its own thread.
            let _ = thread.join();
        }
    }

    /// Stops all providers and waits until they have.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Consortium {
    fn drop(&mut self) {
        // Senders that wait for a reader would hold up the stop.
        self.members.clear();
        for runtime in &mut self.runtimes {
            drop(runtime.stop.take());
        }
        for runtime in &mut self.runtimes {
            if let Some(thread) = runtime.thread.take() {
                // A panic of the runtime has been reported on its own thread.
                let _ = thread.join();
            }
        }
    }
}

/// The thread and runtime of one provider.
struct Runtime {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    fn start(
        index: usize,
        config: Config,
        storage: PathBuf,
        listen: SocketAddr,
    ) -> Result<(Self, Member), ConsortiumError> {
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            let runtime =
                tokio::Config::new().with_storage_directory(storage).with_worker_threads(WORKERS);
            tokio::Runner::new(runtime).start(async move |ctx| {
                match start_provider(ctx.child("provider"), config, listen).await {
                    Ok(Node { mailbox, events, status, .. }) => {
                        let _ = ready.send(Ok(Member { mailbox, events, status }));
                    }
                    Err(reason) => {
                        let _ = ready.send(Err(ConsortiumError::Start { index, reason }));
                        return;
                    }
                }
                let _ = stopped.await;
                let _ = ctx.stop(0, Some(STOP_TIMEOUT)).await;
            });
        };
        let thread = std::thread::Builder::new()
            .name(format!("provider-{index}"))
            .spawn(run)
            .map_err(ConsortiumError::Thread)?;
        let member = started.recv().map_err(|_| ConsortiumError::Stopped { index })??;
        Ok((Self { stop: Some(stop), thread: Some(thread) }, member))
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Ports that are free now, below those that outgoing connections are given.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    // Where to look first differs between processes that start together.
    let first = 20_000 + u16::try_from(std::process::id() % 1000).unwrap_or(0) * 12;
    let mut held = Vec::new();
    for port in first..32_000 {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind(loopback(port)) {
            held.push(listener);
        }
    }
    if held.len() < count {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
