//! Founding: on one machine by one command, on several without any key leaving its own.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::shared::{bkss, code, said, text};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn init_founds_a_consortium_on_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("net");
    let init = ["init", "--providers", "5", "--out", text(&out), "--base-port", "9000"];
    let output = bkss(&init);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("network "), "{}", said(&output));
    let genesis = std::fs::read(out.join("genesis.bkss")).unwrap();
    for number in 0..5_u16 {
        let provider = out.join(format!("providers/{number}"));
        assert_eq!(mode(&provider), 0o700);
        assert_eq!(mode(&provider.join("keys.bkss")), 0o600);
        assert_eq!(std::fs::read(provider.join("genesis.bkss")).unwrap(), genesis);
        let settings = std::fs::read_to_string(provider.join("node.toml")).unwrap();
        assert!(settings.contains(&format!("p2p = \"127.0.0.1:{}\"", 9000 + 2 * number)));
        assert!(settings.contains(&format!("http = \"127.0.0.1:{}\"", 9001 + 2 * number)));
        let checked =
            bkss(&["genesis", "check", "--dir", text(&provider), text(&out.join("genesis.bkss"))]);
        assert_eq!(code(&checked), 0, "{}", said(&checked));
    }
    let sdi = out.join("sdi");
    assert_eq!((mode(&sdi), mode(&sdi.join("keys.bkss"))), (0o700, 0o600));
    let checked = bkss(&["genesis", "check", "--dir", text(&sdi), text(&out.join("genesis.bkss"))]);
    assert_eq!(code(&checked), 0, "{}", said(&checked));
    let again = bkss(&init);
    assert_eq!(code(&again), 2);
    assert!(said(&again).contains("directory is not empty"), "{}", said(&again));
}

/// Who tries again once there is room is not told that the directory is not empty.
#[test]
fn what_cannot_be_written_whole_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let agreement = dir.path().join("agreement.txt");
    std::fs::write(&agreement, vec![b'a'; 100_000]).unwrap();
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    std::fs::create_dir(at("there")).unwrap();
    let agreement = text(&agreement);
    let init = |out| ["init", "--providers", "4", "--agreement", agreement, "--out", out];
    let address = ["--address", "127.0.0.1:9", "--agreement", agreement];
    let keygen =
        |dir| [&["keygen", "--id", "3", "--name", "N", "--dir", dir], &address[..]].concat();
    // Files may not become longer than this many blocks of 512 bytes: what comes first fits.
    for (blocks, args, out) in [
        (16, init(&at("net")).to_vec(), at("net")),
        (16, init(&at("there")).to_vec(), at("there")),
        (1, keygen(&at("keys")), at("keys")),
        (1, keygen(&at("there")), at("there")),
    ] {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", &script, env!("CARGO_BIN_EXE_bkss")]).args(&args);
        let output = limited.output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}: {}", said(&output));
        assert!(said(&output).contains("File too large"), "{args:?}: {}", said(&output));
        let left = std::fs::read_dir(&out).map_or(0, Iterator::count);
        assert_eq!((left, out.ends_with("there")), (0, Path::new(&out).exists()), "{args:?}");
        assert_eq!(code(&bkss(&args)), 0, "{args:?}");
        std::fs::remove_dir_all(&out).unwrap();
        std::fs::create_dir_all(at("there")).unwrap();
    }
}

#[test]
fn init_takes_terms_and_refuses_those_that_found_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("net");
    let base = ["init", "--providers", "7", "--out", text(&out)];
    for (wrong, reason) in [
        (vec!["--committee", "3"], "--committee 3: expected 4 to 32"),
        (vec!["--round-blocks", "1"], "--round-blocks 1: expected at least 2"),
        (vec!["--grid", "0"], "--grid 0: expected at least 1"),
        (vec!["--keep", "604799"], "--keep 604799: expected at least --reveal"),
        (vec!["--ahead", "0"], "--ahead 0: expected at least 1"),
        (
            vec!["--max-meters", "9", "--owner-meters", "10"],
            "--owner-meters 10: expected 1 to --max-meters",
        ),
        (vec!["--steps", "1000"], "--steps 1000: expected at least 1048576"),
        (vec!["--pending", "1025"], "--pending 1025: expected 1 to 1024"),
        (vec!["--votes", "shares"], "[possible values: members, meters]"),
        (vec!["--base-port", "65530"], "expected 1 to 65522 for 7 providers"),
        (vec!["--start", "1969-12-31T00:00:00Z"], "a whole second after 1970"),
        (vec!["--agreement", "/nowhere"], "/nowhere"),
    ] {
        let output = bkss(&[&base[..], &wrong].concat());
        assert_eq!(code(&output), 2, "{wrong:?}");
        assert!(said(&output).contains(reason), "{wrong:?}: {}", said(&output));
        assert!(!out.exists(), "nothing was written");
    }
    let terms = [
        ["--committee", "4"],
        ["--time-scale", "60"],
        ["--min-slot", "10"],
        ["--tenure-views", "9"],
        ["--reveal", "700000"],
        ["--notice", "3600"],
        ["--ahead", "86400"],
        ["--max-meters", "1002"],
        ["--steps", "2000000"],
        ["--pending", "96"],
    ];
    let terms = terms.concat();
    let output = bkss(&[&base[..], &terms].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("60 times faster"), "{}", said(&output));
    let shown = said(&bkss(&["genesis", "check", text(&out.join("genesis.bkss"))]));
    for term in [
        "4 accounting nodes",
        "60 ledger seconds",
        "at least 10 s",
        "stays 9 views",
        "sealed readings for 700000 s, an erasure is announced 3600 s before",
        "of all providers weigh the same",
        "2000000 steps",
        "1002, 250 of one owner, begin at most 86400 s after",
        "96 requests of one gateway wait",
    ] {
        assert!(shown.contains(term), "{term}: {shown}");
    }
}

#[test]
fn a_network_whose_votes_weigh_by_meters_says_whom_it_trusts() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = "trusts every SDI and every provider not to register";
    for (votes, says) in [("members", false), ("meters", true)] {
        let out = dir.path().join(votes);
        let output = bkss(&["init", "--providers", "4", "--votes", votes, "--out", text(&out)]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        let checked = bkss(&["genesis", "check", text(&out.join("genesis.bkss"))]);
        for said in [said(&output), said(&checked)] {
            assert_eq!(said.contains(trusted), says, "{votes}: {said}");
            assert_eq!(said.contains("buy votes and seats"), says, "{votes}: {said}");
        }
    }
}

/// Four providers and an SDI with a directory each, as if on machines of their own.
struct Founders {
    dir: tempfile::TempDir,
}

impl Founders {
    fn new() -> Self {
        let founders = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(founders.path("agreement.txt"), "we agree").unwrap();
        for number in 0..4 {
            founders.keygen(&format!("p{number}"), number);
        }
        let sdi = founders.path("sdi");
        let output = bkss(&["keygen", "--sdi", "--dir", &sdi, "--id", "0", "--name", "the SDI"]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        founders
    }

    fn path(&self, name: &str) -> String {
        text(&self.dir.path().join(name)).into()
    }

    fn keygen(&self, dir: &str, number: u16) {
        let (id, address) = (number.to_string(), format!("sp{number}.example:7600"));
        let output = bkss(&[
            "keygen",
            "--dir",
            &self.path(dir),
            "--id",
            &id,
            "--name",
            "a provider",
            "--address",
            &address,
            "--agreement",
            &self.path("agreement.txt"),
        ]);
        assert_eq!(code(&output), 0, "{}", said(&output));
    }

    fn identities(&self) -> Vec<String> {
        let mut paths: Vec<_> = (0..4)
            .map(|number| self.path(&format!("p{number}/provider-{number}.identity")))
            .collect();
        paths.push(self.path("sdi/sdi-0.identity"));
        paths
    }

    /// Drafts from these identities.
    fn draft(&self, out: &str, identities: &[String]) -> (i32, String) {
        let (agreement, out) = (self.path("agreement.txt"), self.path(out));
        let mut args = vec!["genesis", "draft", "--agreement", &agreement, "--out", &out];
        args.extend(identities.iter().map(String::as_str));
        let output = bkss(&args);
        (code(&output), said(&output))
    }

    fn sign(&self, dir: &str, charter: &str, more: &[&str]) -> (i32, String) {
        let (dir, charter) = (self.path(dir), self.path(charter));
        let args = [&["genesis", "sign", "--dir", &dir, &charter], more].concat();
        let output = bkss(&args);
        (code(&output), said(&output))
    }

    fn assemble(&self, out: &str, signatures: &[String]) -> (i32, String) {
        let (charter, out) = (self.path("charter.bkss"), self.path(out));
        let mut args = vec!["genesis", "assemble", "--charter", &charter, "--out", &out];
        args.extend(signatures.iter().map(String::as_str));
        let output = bkss(&args);
        (code(&output), said(&output))
    }

    fn signatures(&self) -> Vec<String> {
        let mut paths: Vec<_> =
            (0..4).map(|number| self.path(&format!("provider-{number}.signature"))).collect();
        paths.push(self.path("sdi-0.signature"));
        paths
    }

    fn signed() -> Self {
        let founders = Self::new();
        assert_eq!(founders.draft("charter.bkss", &founders.identities()).0, 0);
        for dir in ["p0", "p1", "p2", "p3", "sdi"] {
            let (code, said) = founders.sign(dir, "charter.bkss", &[]);
            assert_eq!(code, 0, "{said}");
        }
        founders
    }
}

#[test]
fn founders_on_machines_of_their_own_found_one_network() {
    let founders = Founders::signed();
    let (code_, said_) = founders.assemble("genesis.bkss", &founders.signatures());
    assert_eq!(code_, 0, "{said_}");
    let genesis = founders.path("genesis.bkss");
    for member in ["p0", "p1", "p2", "p3", "sdi"] {
        let dir = founders.path(member);
        let agreement = founders.path("agreement.txt");
        let args = ["genesis", "check", "--dir", &dir, "--agreement", &agreement, &genesis];
        for time in ["first", "second"] {
            let output = bkss(&args);
            assert_eq!(code(&output), 0, "{time}: {}", said(&output));
        }
        let taken = PathBuf::from(dir).join("genesis.bkss");
        assert_eq!(std::fs::read(taken).unwrap(), std::fs::read(&genesis).unwrap());
    }
    std::fs::write(founders.path("other.txt"), "we agree on something else").unwrap();
    let other = founders.path("other.txt");
    let output = bkss(&["genesis", "check", "--agreement", &other, &genesis]);
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("agreement"), "{}", said(&output));

    founders.keygen("p9", 9);
    let output = bkss(&["genesis", "check", "--dir", &founders.path("p9"), &genesis]);
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("is not in it"), "{}", said(&output));
    assert!(!Path::new(&founders.path("p9/genesis.bkss")).exists());
}

#[test]
fn nobody_signs_a_charter_that_names_others_keys_for_it() {
    let founders = Founders::new();
    founders.keygen("impostor", 0);
    let mut identities = founders.identities();
    identities[0] = founders.path("impostor/provider-0.identity");
    assert_eq!(founders.draft("charter.bkss", &identities).0, 0);
    let (code, said) = founders.sign("p0", "charter.bkss", &[]);
    assert_eq!(code, 1);
    assert!(said.contains("not one of its founders, or not with these keys"), "{said}");
    let (code, said) = founders.sign("p1", "charter.bkss", &["--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nothing was signed"), "{said}");
    assert!(!Path::new(&founders.path("provider-1.signature")).exists());
}

#[test]
fn a_genesis_needs_the_signatures_of_all_its_founders_and_of_nobody_else() {
    let founders = Founders::signed();
    let signatures = founders.signatures();
    let (code, said) = founders.assemble("g", &signatures[1..]);
    assert_eq!(code, 1);
    assert!(said.contains("the signature of provider-0 is missing"), "{said}");

    // Another charter's signature.
    let (agreement, out) = (founders.path("agreement.txt"), founders.path("other.bkss"));
    let identities = founders.identities();
    let mut args =
        vec!["genesis", "draft", "--name", "x", "--agreement", &agreement, "--out", &out];
    args.extend(identities.iter().map(String::as_str));
    assert_eq!(crate::shared::code(&bkss(&args)), 0);
    let foreign = founders.path("foreign.signature");
    assert_eq!(founders.sign("p0", "other.bkss", &["--out", &foreign]).0, 0);
    let mut mixed = signatures;
    mixed[0] = foreign;
    let (code, said) = founders.assemble("g", &mixed);
    assert_eq!(code, 1);
    assert!(said.contains("signature of network"), "{said}");
    assert!(!Path::new(&founders.path("g")).exists());
}

#[test]
fn an_altered_paper_is_refused() {
    let founders = Founders::signed();
    let altered = |path: &str| {
        let original = std::fs::read(path).unwrap();
        let mut bytes = original.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
        original
    };
    let identity = founders.identities()[1].clone();
    let original = altered(&identity);
    let (code, said) = founders.draft("again.bkss", &founders.identities());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("provider-1.identity"), "{said}");
    std::fs::write(&identity, original).unwrap();

    let charter = founders.path("charter.bkss");
    let original = altered(&charter);
    let (code, said) = founders.sign("p0", "charter.bkss", &["--dry-run"]);
    assert_eq!(code, 1);
    assert!(said.contains("altered or cut"), "{said}");
    std::fs::write(&charter, original).unwrap();

    let signature = founders.signatures()[2].clone();
    altered(&signature);
    let (code, said) = founders.assemble("g", &founders.signatures());
    assert_eq!(code, 1, "{said}");
    assert!(!Path::new(&founders.path("g")).exists());
}
