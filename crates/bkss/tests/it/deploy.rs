//! What operators install: the unit, the alerts and the proxy name what is there.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::shared::{bkss, text};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(path).unwrap()
}

/// The names in a text that are those of metrics.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_lowercase() || c == '_');
    text.split(word).filter(|name| name.starts_with("bkss_")).map(str::to_owned).collect()
}

#[test]
fn alerts_ask_for_metrics_that_the_documents_explain() {
    let rules = read("deploy/prometheus.rules.yml");
    let asked: BTreeSet<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr:"))
        .flat_map(metrics)
        .collect();
    assert!(asked.len() > 8, "{asked:?}");
    let known = metrics(&read("docs/operating.md"));
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_unit_calls_the_node_as_it_is_called() {
    let unit = read("deploy/bkss-node@.service");
    let call = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<_> = call.split(' ').skip(1).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("utility");
    let args: Vec<_> =
        words.iter().map(|word| if word.contains("%i") { text(&path) } else { *word }).collect();
    let output = bkss(&args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("node.toml: No such file"), "it is understood: {said}");
}

/// Where the machine has systemd, it reads the unit without a complaint.
#[test]
fn systemd_takes_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped, no systemd-analyze");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bkss-node@utility.service");
    // The program is not installed here.
    let unit = read("deploy/bkss-node@.service").replace("/usr/local/bin/bkss", "/bin/true");
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", text(&path)]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("bkss-node"), "{said}");
}
