//! Providers on hosts of their own, between which the network fails.
//!
//! The hosts are network namespaces on one bridge; that takes root and `ip`. Where it is not
//! allowed the test says so and does nothing.

use std::{process::Command, time::Duration};

use crate::providers::Providers;

/// Hosts on a bridge; they go with this.
struct Hosts {
    name: String,
    subnet: u8,
    count: usize,
}

impl Hosts {
    /// `None`, with the reason printed, where namespaces cannot be made.
    fn new(count: usize) -> Option<Self> {
        let id = std::process::id();
        let hosts = Self { name: format!("bk{}", id % 10_000), subnet: (id % 200) as u8, count };
        match hosts.build() {
            Ok(()) => Some(hosts),
            Err(reason) => {
                assert!(std::env::var_os("BKSS_REQUIRE_NETNS").is_none(), "{reason}");
                eprintln!("skipped, no network namespaces: {reason}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let bridge = &self.name;
        ip(&["link", "add", bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.address(253)), "dev", bridge])?;
        ip(&["link", "set", bridge, "up"])?;
        for host in 0..self.count {
            let (space, outer) = (self.space(host), format!("{bridge}v{host}"));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["link", "set", &outer, "master", bridge, "up"])?;
            let address = format!("{}/24", self.address(host));
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn space(&self, host: usize) -> String {
        format!("{}h{host}", self.name)
    }

    fn address(&self, host: usize) -> String {
        format!("10.77.{}.{}", self.subnet, host + 1)
    }

    fn all(&self) -> Vec<(String, String)> {
        (0..self.count).map(|host| (self.address(host), self.space(host))).collect()
    }

    /// What one host sends to another is lost, or no longer.
    fn lose(&self, from: usize, to: usize, lost: bool) {
        let action = if lost { "add" } else { "del" };
        let to = format!("{}/32", self.address(to));
        ip(&["-n", &self.space(from), "route", action, "blackhole", &to]).unwrap();
    }

    /// The hosts below `first` and the others do not hear each other, or do again.
    fn part(&self, first: usize, parted: bool) {
        for from in 0..self.count {
            for to in (0..self.count).filter(|to| (from < first) != (*to < first)) {
                self.lose(from, to, parted);
            }
        }
    }

    /// Delays everything that a host sends; false where the kernel cannot.
    fn delay(&self, host: usize, milliseconds: u32) -> bool {
        let delay = format!("{milliseconds}ms");
        let space = self.space(host);
        let netem = ["-n", &space, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", &delay];
        run("tc", &netem).is_ok()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..self.count {
            let _ = ip(&["netns", "del", &self.space(host)]);
        }
        let _ = ip(&["link", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {args:?}: {said}")) }
}

#[test]
fn partitions_one_way_loss_and_delay_stop_no_more_than_they_must() {
    let Some(hosts) = Hosts::new(4) else { return };
    let mut providers = Providers::found(4, &["--grid", "1", "--round-blocks", "12"]);
    providers.settle(&hosts.all());
    providers.start_all();
    (0..4).for_each(|provider| providers.reach(provider, 3));

    hosts.part(2, true);
    std::thread::sleep(Duration::from_secs(2));
    let heights = |providers: &Providers| {
        (0..4).map(|provider| providers.height(provider)).collect::<Vec<_>>()
    };
    let before = heights(&providers);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(heights(&providers), before, "no two of four are a quorum");
    hosts.part(2, false);
    let took = providers.progress(0, 2);
    println!("partition 2|2 healed: two more blocks after {took:?}");
    let height = providers.height(0);
    (0..4).for_each(|provider| providers.reach(provider, height));

    // Number 0 hears everybody, and number 1 does not hear it.
    hosts.lose(0, 1, true);
    let took = providers.progress(2, 6);
    println!("one way lost: six more blocks after {took:?}");
    // Nobody hears number 0.
    (2..4).for_each(|to| hosts.lose(0, to, true));
    let took = providers.progress(2, 6);
    println!("one provider unheard: six more blocks after {took:?}");
    (1..4).for_each(|to| hosts.lose(0, to, false));
    let height = providers.height(2);
    let took = providers.wait(0, height);
    println!("heard again: at the head after {took:?}");

    if (0..4).all(|host| hosts.delay(host, 100)) {
        let took = providers.progress(0, 5);
        println!("100 ms of delay each way: five more blocks after {took:?}");
    } else {
        eprintln!("skipped: this kernel cannot delay packets");
    }
    providers.assert_same_blocks();
}
