//! Members come and go on a running network: providers as processes, changes as files.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::shared::{bkss, code, said, text};

/// Providers as processes; stopped when dropped.
pub(crate) struct Network {
    dir: tempfile::TempDir,
    base_port: u16,
    nodes: Vec<Child>,
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Network {
    fn found(base_port: u16) -> Self {
        Self::found_with(base_port, &["--grid", "1"])
    }

    /// Founds with more options and starts all providers.
    pub(crate) fn found_with(base_port: u16, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("net");
        let port = base_port.to_string();
        let init = [
            "init",
            "--providers",
            "4",
            "--out",
            text(&out),
            "--base-port",
            &port,
            "--round-blocks",
            "10",
        ];
        let founded = bkss(&[&init[..], more].concat());
        assert_eq!(code(&founded), 0, "{}", said(&founded));
        let mut network = Self { dir, base_port, nodes: Vec::new() };
        for number in 0..4 {
            network.start(&network.path(&format!("net/providers/{number}")));
        }
        network.wait_for("a first block", |status| status["height"].as_u64() > Some(0));
        network
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, dir: &Path) {
        self.start_with(dir, &[]);
    }

    /// Starts a provider with more options; blocks and snapshots come faster than usual.
    fn start_with(&mut self, dir: &Path, more: &[&str]) {
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let node = Command::new(env!("CARGO_BIN_EXE_bkss"))
            .args(["node", "--dir", text(dir)])
            .args(more)
            .env("BKSS_SNAPSHOT_ROUNDS", "1")
            .env("BKSS_IDLE_MS", "250")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.nodes.push(node.unwrap());
    }

    pub(crate) fn url(&self, offset: u16) -> String {
        format!("http://127.0.0.1:{}", self.base_port + offset)
    }

    /// Kills a provider, as a loss of power does.
    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number].kill().unwrap();
        self.nodes[number].wait().unwrap();
    }

    fn status(&self, url: &str) -> Option<Value> {
        let output = bkss(&["status", "--node", url, "--json"]);
        let answered = output.status.success();
        answered.then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        self.wait_at(&self.url(1), what, holds);
    }

    fn wait_at(&self, url: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        for attempt in 0..450 {
            let status = self.status(url);
            if status.as_ref().is_some_and(&holds) {
                return;
            }
            assert!(attempt < 449, "{what}: {status:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command with the first node's URL.
    fn call(&self, command: &[&str], dir: &str, more: &[&str]) -> Output {
        let (url, dir) = (self.url(1), self.path(dir));
        bkss(&[command, &["--dir", text(&dir), "--node", &url], more].concat())
    }

    fn good(&self, command: &[&str], dir: &str, more: &[&str]) -> String {
        let output = self.call(command, dir, more);
        assert_eq!(code(&output), 0, "{command:?} {dir}: {}", said(&output));
        said(&output)
    }

    fn refused(&self, command: &[&str], dir: &str, more: &[&str], reason: &str) {
        let output = self.call(command, dir, more);
        assert_eq!(code(&output), 1, "{command:?} {dir}: {}", said(&output));
        assert!(said(&output).contains(reason), "{reason}: {}", said(&output));
    }

    fn keygen(&self, dir: &str, id: &str, agreement: &str, port: u16) {
        let (dir, file) = (self.path(dir), self.path("agreement.txt"));
        std::fs::write(&file, agreement).unwrap();
        let (p2p, http) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let output = bkss(&[
            "keygen",
            "--dir",
            text(&dir),
            "--id",
            id,
            "--name",
            "newcomer",
            "--address",
            &p2p,
            "--http",
            &http,
            "--agreement",
            text(&file),
        ]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        self.fetch_genesis(&dir);
    }

    fn fetch_genesis(&self, dir: &Path) {
        let (url, out) = (self.url(1), dir.join("genesis.bkss"));
        let output = bkss(&["genesis", "fetch", "--node", &url, "--out", text(&out)]);
        assert_eq!(code(&output), 0, "{}", said(&output));
    }
}

const AGREEMENT: &str = "Agreement of a consortium on one machine.";
const JOIN: [&str; 2] = ["provider", "join"];
const APPROVE: [&str; 2] = ["provider", "approve"];

#[test]
fn a_provider_joins_rotates_its_keys_and_leaves() {
    let mut network = Network::found(21_200);
    network.keygen("p4", "4", AGREEMENT, 21_300);
    let file = network.path("join.change");
    let file = text(&file).to_owned();

    let dry = network.good(&JOIN, "p4", &["--out", &file, "--dry-run"]);
    assert!(dry.contains("0 of 3 approvals; nothing was signed"), "{dry}");
    assert!(!Path::new(&file).exists());
    network.good(&JOIN, "p4", &["--out", &file]);
    network.refused(
        &["provider", "submit"],
        "net/providers/0",
        &[&file],
        "0 approvals, a quorum is 3",
    );
    // Whoever is not a member cannot approve, least of all itself.
    network.refused(&APPROVE, "p4", &[&file], "provider 4 is not one of the consortium");

    for (number, said) in [(0, "1 of 3 approvals"), (1, "2 of 3 approvals")] {
        let dir = format!("net/providers/{number}");
        let dry = network.good(&APPROVE, &dir, &[&file, "--dry-run"]);
        assert!(dry.contains("nothing was signed"), "{dry}");
        let approved = network.good(&APPROVE, &dir, &[&file]);
        assert!(approved.contains("provider 4 \"newcomer\" joins"), "{approved}");
        assert!(approved.contains(said), "{approved}");
    }
    let done = network.good(&APPROVE, "net/providers/2", &[&file]);
    assert!(done.contains("it is on the ledger"), "{done}");
    network.refused(&APPROVE, "net/providers/3", &[&file], "the number is or was another member's");

    let p4 = network.path("p4");
    network.start(&p4);
    let new = network.url(101);
    let votes = |status: &Value| {
        let committee = status["committee"].as_array().unwrap();
        committee.iter().any(|id| *id == 4) && status["height"].as_u64() > Some(10)
    };
    network.wait_at(&new, "the new provider keeps the ledger", votes);
    // A restart loses none of the handovers: everything below asks this node for them.
    network.kill(0);
    network.start(&network.path("net/providers/0"));
    network.wait_for("the first provider again", |status| status["leader"].is_u64());

    let sealing = network.good(&["provider", "rotate"], "p4", &["--sealing"]);
    assert!(sealing.contains("seal to key 2"), "{sealing}");
    let dry = network.good(&["provider", "rotate"], "p4", &["--vote", "--dry-run"]);
    assert!(dry.contains("nothing was signed"), "{dry}");
    let vote = network.good(&["provider", "rotate"], "p4", &["--vote"]);
    assert!(vote.contains("from the next round on"), "{vote}");
    let here = ["--address", "127.0.0.1:21300"];
    network.refused(&["provider", "move"], "p4", &here, "provider 4 has this address");
    network.good(&["provider", "move"], "p4", &["--address", "localhost:21300"]);
    network.good(&["provider", "move"], "p4", &here);

    network.good(&["provider", "leave"], "p4", &[]);
    network.refused(&["provider", "leave"], "p4", &[], "provider 4 is not one of the consortium");
    // With four providers left nobody may go any more.
    let leave = ["provider", "leave"];
    network.refused(&leave, "net/providers/0", &[], "fewer than 4 providers would remain");

    let (archive, genesis) = (network.path("archive.bkss"), network.path("genesis.bkss"));
    let url = network.url(1);
    let fetched = bkss(&["archive", "--node", &url, "--out", text(&archive)]);
    assert_eq!(code(&fetched), 0, "{}", said(&fetched));
    network.fetch_genesis(network.dir.path());
    let audit = bkss(&["audit", "--genesis", text(&genesis), text(&archive), "--json"]);
    assert_eq!(code(&audit), 0, "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn what_does_not_belong_is_refused_with_its_reason() {
    let network = Network::found(21_400);
    let out = network.path("c.change");
    let out = text(&out).to_owned();
    network.keygen("other", "5", "another agreement", 21_500);
    network.refused(&JOIN, "other", &["--out", &out], "that of the consortium is");
    network.keygen("twin", "3", AGREEMENT, 21_502);
    network.refused(&JOIN, "twin", &["--out", &out], "the number is or was another member's");
    assert!(!Path::new(&out).exists());

    // Somebody else's directory cannot approve for a member.
    network.keygen("p6", "6", AGREEMENT, 21_504);
    network.good(&JOIN, "p6", &["--out", &out]);
    network.refused(&APPROVE, "twin", &[&out], "the ledger knows another key of provider 3");
    let bytes = std::fs::read(&out).unwrap();
    for at in [10, bytes.len() / 2, bytes.len() - 1] {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        std::fs::write(&out, altered).unwrap();
        network.refused(&APPROVE, "net/providers/0", &[&out], "altered or cut");
    }

    // An SDI joins and is removed the same way.
    let sdi = network.path("sdi7");
    let made = bkss(&["keygen", "--sdi", "--dir", text(&sdi), "--id", "7", "--name", "second"]);
    assert_eq!(code(&made), 0, "{}", said(&made));
    network.fetch_genesis(&sdi);
    for (command, dir, more) in [
        (["sdi", "add"], "sdi7", &["--out"][..]),
        (["sdi", "remove"], "net/providers/0", &["--sdi", "7", "--out"]),
    ] {
        let file = network.path(&format!("{}.change", command[1]));
        network.good(&command, dir, &[more, &[text(&file)]].concat());
        for number in 0..3 {
            if command[1] == "remove" && number == 0 {
                continue; // whoever proposes approves
            }
            let dir = format!("net/providers/{number}");
            network.good(&["sdi", "approve"], &dir, &[text(&file)]);
        }
        let again = if command[1] == "add" { "number is or was" } else { "SDI 7 is not one of" };
        network.refused(&["sdi", "approve"], "net/providers/3", &[text(&file)], again);
    }
}

#[test]
fn a_provider_without_a_disk_begins_at_a_snapshot_of_others() {
    let mut network = Network::found(21_600);
    network.wait_for("two rounds", |status| status["height"].as_u64() > Some(24));
    network.kill(3);
    let dir = network.path("net/providers/3");
    std::fs::remove_dir_all(dir.join("store")).unwrap();
    let (url, genesis, file) =
        (network.url(1), dir.join("genesis.bkss"), network.path("snapshot.bkss"));
    let fetch = || {
        let (genesis, file) = (text(&genesis), text(&file));
        bkss(&["snapshot", "--node", &url, "--genesis", genesis, "--out", file])
    };
    let fetched = fetch();
    assert_eq!(code(&fetched), 0, "{}", said(&fetched));
    assert!(said(&fetched).contains("a quorum has certified all of it"), "{}", said(&fetched));
    assert_eq!(code(&fetch()), 2, "a file that is there stays");

    // Whoever hands out another state is found out.
    let altered = network.path("altered.bkss");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&altered, bytes).unwrap();
    let refused = bkss(&["node", "--dir", text(&dir), "--snapshot", text(&altered)]);
    assert_eq!(code(&refused), 2, "{}", said(&refused));
    assert!(said(&refused).contains("snapshot says its digest is"), "{}", said(&refused));

    network.start_with(&dir, &["--snapshot", text(&file)]);
    let late = network.url(7);
    let head = network.status(&url).unwrap()["height"].as_u64().unwrap();
    let caught_up = |status: &Value| status["height"].as_u64() > Some(head + 12);
    network.wait_at(&late, "the head and a round more", caught_up);
    let archive = network.path("late.bkss");
    let none = bkss(&["archive", "--node", &late, "--out", text(&archive)]);
    assert!(said(&none).contains("block 1 is not kept here"), "{}", said(&none));

    // The flag is for the first start; the next ones find their way without it.
    let again = network.nodes.len() - 1;
    network.kill(again);
    let refused = bkss(&["node", "--dir", text(&dir), "--snapshot", text(&file)]);
    assert!(said(&refused).contains("the store has a ledger already"), "{}", said(&refused));
    assert_eq!(code(&refused), 2);
    network.start(&dir);
    let caught_up = |status: &Value| status["height"].as_u64() > Some(head + 24);
    network.wait_at(&late, "still at the head", caught_up);
}
