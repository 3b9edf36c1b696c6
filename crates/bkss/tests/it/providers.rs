//! Providers as processes of one consortium on this machine.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::shared::{bkss, code, said, text};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Providers of one consortium; their processes end with this.
pub(crate) struct Providers {
    pub(crate) dir: tempfile::TempDir,
    port: u16,
    pub(crate) running: Vec<Option<Child>>,
    /// The host of each, and the network namespace it runs in.
    hosts: Vec<(String, Option<String>)>,
}

impl Providers {
    /// Founds a consortium; nothing runs yet.
    pub(crate) fn found(count: u16, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, out) = (free_ports(2 * count), dir.path().join("net"));
        let (providers, base) = (count.to_string(), port.to_string());
        let init = ["init", "--providers", &providers, "--out", text(&out), "--base-port", &base];
        let init = bkss(&[&init, options].concat());
        assert_eq!(code(&init), 0, "{}", said(&init));
        let hosts = (0..count).map(|_| ("127.0.0.1".into(), None)).collect();
        Self { dir, port, running: (0..count).map(|_| None).collect(), hosts }
    }

    /// Lets each run in a network namespace at an address of its own.
    pub(crate) fn settle(&mut self, hosts: &[(String, String)]) {
        self.hosts =
            hosts.iter().map(|(host, space)| (host.clone(), Some(space.clone()))).collect();
        let peers: Vec<_> = (0..hosts.len()).map(|peer| (peer, self.p2p(peer))).collect();
        for provider in 0..hosts.len() {
            let path = self.directory(provider).join("node.toml");
            let settings = std::fs::read_to_string(&path).unwrap();
            let settings: String = settings
                .lines()
                .map(|line| match line.split_once(" = ") {
                    Some(("http", _)) => format!("http = \"{}\"\n", self.http(provider)),
                    Some(("p2p", _)) => format!("p2p = \"{}\"\n", self.p2p(provider)),
                    _ => format!("{line}\n"),
                })
                .collect();
            std::fs::write(path, settings).unwrap();
            self.set_peers(provider, &peers);
        }
    }

    /// Where a provider is to dial others, instead of where the ledger says.
    pub(crate) fn set_peers(&self, provider: usize, peers: &[(usize, String)]) {
        let path = self.directory(provider).join("node.toml");
        let settings = std::fs::read_to_string(&path).unwrap();
        let peers: String =
            peers.iter().map(|(peer, address)| format!("{peer} = \"{address}\"\n")).collect();
        std::fs::write(path, format!("{settings}\n[peers]\n{peers}")).unwrap();
    }

    pub(crate) fn directory(&self, provider: usize) -> PathBuf {
        self.dir.path().join("net/providers").join(provider.to_string())
    }

    pub(crate) fn http(&self, provider: usize) -> String {
        format!("{}:{}", self.hosts[provider].0, usize::from(self.port) + 2 * provider + 1)
    }

    pub(crate) fn url(&self, provider: usize) -> String {
        format!("http://{}", self.http(provider))
    }

    pub(crate) fn p2p(&self, provider: usize) -> String {
        format!("{}:{}", self.hosts[provider].0, usize::from(self.port) + 2 * provider)
    }

    pub(crate) fn start(&mut self, provider: usize) {
        let log = self.directory(provider).join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        self.start_with_log(provider, log);
    }

    pub(crate) fn start_with_log(&mut self, provider: usize, log: std::fs::File) {
        let bkss = env!("CARGO_BIN_EXE_bkss");
        let mut command = match &self.hosts[provider].1 {
            None => Command::new(bkss),
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space, bkss]);
                command
            }
        };
        let child = command
            .args(["node", "--dir", text(&self.directory(provider)), "--log", "json"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        assert!(self.running[provider].replace(child.unwrap()).is_none(), "{provider} runs");
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.running.len()).for_each(|provider| self.start(provider));
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, provider: usize) {
        let mut child = self.running[provider].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn status(&self, provider: usize) -> Option<Value> {
        self.json(provider, "/v1/status")
    }

    pub(crate) fn height(&self, provider: usize) -> u64 {
        self.status(provider).map_or(0, |status| status["height"].as_u64().unwrap())
    }

    /// What a node answers to a GET, if it answers at all.
    pub(crate) fn json(&self, provider: usize, path: &str) -> Option<Value> {
        let url = format!("{}{path}", self.url(provider));
        let mut answer = agent().get(&url).header("accept", "application/json").call().ok()?;
        serde_json::from_slice(&answer.body_mut().read_to_vec().ok()?).ok()
    }

    /// Waits until a condition holds, and says how long that took.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !condition(self) {
            if began.elapsed() > PATIENCE {
                for provider in 0..self.running.len() {
                    let log = std::fs::read_to_string(self.directory(provider).join("log"));
                    let log = log.unwrap_or_default();
                    let tail: Vec<_> = log.lines().rev().take(12).collect();
                    eprintln!("{provider}: {:?}\n{}", self.status(provider), tail.join("\n"));
                }
                unreachable!("{what} did not happen in {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    /// How long a provider takes to have this block.
    pub(crate) fn wait(&self, provider: usize, height: u64) -> Duration {
        self.until("a block", |providers| providers.height(provider) >= height)
    }

    /// Waits until a provider has this block.
    pub(crate) fn reach(&self, provider: usize, height: u64) {
        self.wait(provider, height);
    }

    /// Waits until a provider has so many more blocks than now.
    pub(crate) fn progress(&self, provider: usize, blocks: u64) -> Duration {
        self.wait(provider, self.height(provider) + blocks)
    }

    /// The blocks that two providers both have are the same.
    pub(crate) fn assert_same_blocks(&self) {
        let lowest = (0..self.running.len()).map(|provider| self.height(provider)).min().unwrap();
        assert!(lowest > 0);
        for height in 1..=lowest {
            let id = |provider| {
                let block = self.json(provider, &format!("/v1/blocks/{height}")).unwrap();
                block["id"].as_str().unwrap().to_owned()
            };
            let first = id(0);
            for provider in 1..self.running.len() {
                assert_eq!(id(provider), first, "block {height} of provider {provider}");
            }
        }
    }
}

impl Drop for Providers {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false);
    config.build().into()
}

/// The first of so many ports in a row that are free now, below those that outgoing connections
/// are given; tests of one process do not get the same.
fn free_ports(count: u16) -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 22_000 + u16::try_from(std::process::id() % 64).unwrap() * 128;
    loop {
        let port = first + TAKEN.fetch_add(count, Ordering::Relaxed);
        assert!(port < 32_000, "no free ports");
        if (port..port + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
}
