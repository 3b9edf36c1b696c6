//! A meter's next chain and its end, signed by SDI and owner as on machines of their own.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use bkss_scheme::{codec, hash};
use bkss_sdi::{Bundle, Record};

use crate::{
    membership::Network,
    replay::complete,
    shared::{bkss, code, objects, said, text},
};

/// A network with two meters, 5 of provider 0 and 6 of provider 1, and a directory for papers.
struct Site {
    network: Network,
    url: String,
    sdi: PathBuf,
    owners: [PathBuf; 2],
}

impl Site {
    fn found(base_port: u16) -> Self {
        let network = Network::found_with(base_port, &["--time-scale", "60"]);
        assert_eq!(complete(&network, "first", 2, 1)["readings"], 2);
        let owners = ["net/providers/0", "net/providers/1"].map(|dir| network.path(dir));
        Self { url: network.url(1), sdi: network.path("net/sdi"), owners, network }
    }

    fn run(&self, command: &[&str], more: &[&str]) -> Output {
        bkss(&[command, &["--node", &self.url], more].concat())
    }

    fn good(&self, command: &[&str], more: &[&str]) -> String {
        let output = self.run(command, more);
        assert_eq!(code(&output), 0, "{command:?} {more:?}: {}", said(&output));
        said(&output)
    }

    fn refused(&self, command: &[&str], more: &[&str], reason: &str) {
        let output = self.run(command, more);
        assert_eq!(code(&output), 1, "{command:?} {more:?}: {}", said(&output));
        assert!(said(&output).contains(reason), "{reason}: {}", said(&output));
    }

    fn paper(&self, name: &str) -> String {
        text(&self.network.path(name)).to_owned()
    }

    /// Arguments of a renewal that leaves `NAME.paper` and the meter's directory `NAME`.
    fn renewal(&self, meter: &str, name: &str, more: &[&str]) -> Vec<String> {
        let (out, meter_out) = (self.paper(&format!("{name}.paper")), self.paper(name));
        let args = ["--dir", text(&self.sdi), "--meter", meter, "--out", &out];
        let args = [&args[..], &["--meter-out", &meter_out], more].concat();
        args.into_iter().map(str::to_owned).collect()
    }

    fn renew(&self, meter: &str, name: &str, more: &[&str]) -> String {
        let args = self.renewal(meter, name, more);
        self.good(&RENEW, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn not_renewed(&self, meter: &str, name: &str, more: &[&str], reason: &str) {
        let args = self.renewal(meter, name, more);
        self.refused(&RENEW, &args.iter().map(String::as_str).collect::<Vec<_>>(), reason);
        assert!(!Path::new(&self.paper(&format!("{name}.paper"))).exists());
    }

    fn submit(&self, papers: &[&str], reason: &str) {
        let genesis = self.owners[1].join("genesis.bkss");
        self.refused(
            &["meter", "submit"],
            &[&["--genesis", text(&genesis)], papers].concat(),
            reason,
        );
    }
}

const RENEW: [&str; 2] = ["sdi", "renew"];
const APPROVE: [&str; 2] = ["meter", "approve"];
const REVOKE: [&str; 2] = ["meter", "revoke"];

/// The log of an SDI that knows the same meters as other devices.
fn other_devices(log: &[u8]) -> Vec<u8> {
    let (mut rest, mut other) = (log, Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (record, behind) = behind.split_at(u16::from_be_bytes(*length).into());
        let mut record: Record = codec::decode("record", record).unwrap();
        if let Record::Offered { serial, .. } = &mut record {
            serial.push(b'x');
        }
        let mut bytes = Vec::new();
        codec::encode_infallible(&record, &mut bytes);
        other.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        other.extend(&bytes);
        other.extend(&hash::plain(&bytes).0[..8]);
        rest = &behind[8..];
    }
    other
}

#[test]
fn a_meter_gets_its_next_chain_by_the_signatures_of_both_and_is_revoked() {
    let site = Site::found(21_700);
    let log = site.sdi.join("fleet.bkss");
    let before = std::fs::read(&log).unwrap();
    a_chain_is_issued_once_it_may_follow(&site, &log, &before);
    a_chain_needs_both_signatures(&site);
    what_may_not_follow_is_refused(&site, &log, &before);
    a_meter_is_revoked_by_both(&site);
    an_audit_counts_both(&site);
}

fn an_audit_counts_both(site: &Site) {
    let archive = site.paper("archive.bkss");
    site.good(&["archive"], &["--out", &archive]);
    let genesis = site.paper("genesis.bkss");
    site.good(&["genesis", "fetch"], &["--out", &genesis]);
    let report = bkss(&["audit", "--json", "--genesis", &genesis, &archive]);
    assert_eq!(code(&report), 0, "{}", said(&report));
    let report = &objects(&report)[0];
    let counts = ["meters", "chains", "renewals", "revocations", "openings"];
    assert_eq!(counts.map(|count| report[count].as_u64().unwrap()), [2, 3, 1, 1, 2], "{report}");
    let report = said(&bkss(&["audit", "--genesis", &genesis, &archive]));
    let counts = "2 meters with 3 chains (1 renewals), 1 revocations, 2 openings";
    assert!(report.contains(counts), "{report}");
}

fn a_chain_is_issued_once_it_may_follow(site: &Site, log: &Path, before: &[u8]) {
    let said = site.renew("5", "next", &["--dry-run"]);
    assert!(said.contains("nothing was issued"), "{said}");
    let reason = "slots of 60 s, at least 300 s are allowed";
    site.not_renewed("5", "next", &["--slot", "60", "--window", "30"], reason);
    site.not_renewed("9", "next", &[], "meter 9 is not registered");
    assert_eq!(std::fs::read(log).unwrap(), before, "nothing is spent on what is refused");

    let said = site.renew("5", "next", &["--after", "86400"]);
    for expected in ["meter 5 gets its next chain", "signed by      SDI 0", "owner has to sign it"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    for file in ["bundle.bkss", "checkpoints.bkss"] {
        let metadata = std::fs::metadata(site.network.path("next").join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
    // The SDI's own rule: the chain it has signed may become the meter's last one.
    site.not_renewed("5", "earlier", &["--after", "3600"], "does not begin behind the last one");
    let args = site.renewal("5", "nowhere/instead", &["--instead"]);
    let output = site.run(&RENEW, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let why = crate::shared::said(&output);
    assert!(code(&output) == 2 && why.contains("expected a folder that is there"), "{why}");
    // Where its paper is lost, another takes its place.
    let said = site.renew("5", "instead", &["--after", "3600", "--instead"]);
    assert!(said.contains("meter 5 gets its next chain"), "{said}");
}

fn a_chain_needs_both_signatures(site: &Site) {
    let paper = site.paper("next.paper");
    site.submit(&[&paper], "the meter's owner has to sign it");
    let [owner, other] = [&site.owners[0], &site.owners[1]].map(|dir| text(dir));
    let reason = "meter 5 belongs to provider 0, these are keys of 1";
    site.refused(&APPROVE, &["--owner", other, &paper], reason);
    let bytes = std::fs::read(&paper).unwrap();
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    std::fs::write(&paper, altered).unwrap();
    site.refused(&APPROVE, &["--owner", owner, &paper], "altered or cut");
    std::fs::write(&paper, &bytes).unwrap();
    let said = site.good(&APPROVE, &["--owner", owner, &paper, "--dry-run"]);
    assert!(said.contains("nothing was"), "{said}");
    assert_eq!(std::fs::read(&paper).unwrap(), bytes);

    // The SDI's half with a false signature, as a forger would have it.
    let forged = site.paper("forged.paper");
    let mut content = bytes[..bytes.len() - 32].to_vec();
    let at = content.len() - 10;
    content[at] ^= 1;
    let checksum = hash::plain(&content);
    content.extend(checksum.0);
    std::fs::write(&forged, content).unwrap();
    site.refused(&APPROVE, &["--owner", owner, &forged], "signature of the SDI");

    let said = site.good(&APPROVE, &["--owner", owner, &paper]);
    assert!(said.contains("it is on the ledger"), "{said}");
    let bundle = std::fs::read(site.network.path("next/bundle.bkss")).unwrap();
    let bundle = Bundle::decode(&bundle).unwrap();
    let proof = format!("{}/v1/registrations/5", site.url);
    let agent = crate::providers::agent();
    let mut answer = agent.get(&proof).header("accept", "application/cbor").call().unwrap();
    let proof = answer.body_mut().read_to_vec().unwrap();
    let mut message = Vec::new();
    codec::encode_infallible(&bundle.root_message, &mut message);
    let registered = proof.windows(message.len()).any(|window| window == message);
    assert!(registered, "what the meter has is what is on the ledger");
}

fn what_may_not_follow_is_refused(site: &Site, log: &Path, before: &[u8]) {
    // An SDI that has lost its newest records is stopped by the ledger's rules.
    let newest = std::fs::read(log).unwrap();
    std::fs::write(log, before).unwrap();
    let reason = "by the ledger's rules: chain begins at";
    site.not_renewed("5", "overlaps", &["--after", "3600"], reason);
    std::fs::write(log, other_devices(before)).unwrap();
    let reason = "by the ledger's rules: meter 5 is registered for another device or owner";
    site.not_renewed("5", "device", &["--after", "172800"], reason);
    std::fs::write(log, []).unwrap();
    site.not_renewed("5", "unknown", &[], "knows nothing of meter 5, which is on the ledger");
    std::fs::write(log, newest).unwrap();
    site.renew("5", "third", &["--after", "172800"]);
    let old = site.paper("next.paper");
    site.submit(&[&old, &site.paper("third.paper")], "does not say the same");
}

fn a_meter_is_revoked_by_both(site: &Site) {
    let [stranger, owner] = [&site.owners[0], &site.owners[1]].map(|dir| text(dir));
    let (sdi, paper) = (text(&site.sdi), site.paper("end.paper"));
    let dry = site.good(&REVOKE, &["--meter", "6", "--owner", owner, "--dry-run"]);
    assert!(dry.contains("nothing was signed"), "{dry}");
    let without = site.run(&REVOKE, &["--meter", "6", "--owner", owner]);
    assert_eq!(code(&without), 2, "{}", said(&without));
    let reason = "meter 6 belongs to provider 1, these are keys of 0";
    site.refused(&REVOKE, &["--meter", "6", "--owner", stranger, "--out", &paper], reason);
    site.good(&REVOKE, &["--meter", "6", "--owner", owner, "--out", &paper]);
    site.submit(&[&paper], "an SDI has to sign it");
    let done = site.good(&APPROVE, &["--sdi", sdi, &paper]);
    assert!(done.contains("accepted"), "{done}");
    // Both on one machine; it has ended already as soon as the block is final.
    let began = Instant::now();
    let again = loop {
        let again = site.run(&REVOKE, &["--meter", "6", "--owner", owner, "--sdi", sdi]);
        if code(&again) != 0 || began.elapsed() > Duration::from_secs(60) {
            break again;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(said(&again).contains("the chain of meter 6 has ended"), "{}", said(&again));
    site.renew("6", "after", &[]);
    let after = site.paper("after.paper");
    site.refused(&APPROVE, &["--owner", owner, &after], "meter 6 is revoked");
    let secret = site.paper("secret");
    std::fs::write(&secret, [7; 32]).unwrap();
    let genesis = site.owners[0].join("genesis.bkss");
    let by_secret = ["--meter", "5", "--genesis", text(&genesis), "--secret", &secret];
    site.refused(&REVOKE, &by_secret, "the secret does not open the registration's lock");
}
