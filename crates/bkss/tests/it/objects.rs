//! `--json`: every command tells programs what it has done, or why not, on standard output.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    files::Files,
    shared::{bkss, code, objects, said, text},
};

/// What makes each command fail in its own code, in an empty directory without a node: the exit code
/// and the kind of failure. Three cannot fail.
const FAILING: [(&str, i32, &str); 35] = [
    ("init --providers 4 --out occupied", 2, "unwritable"),
    ("keygen --dir occupied --id 1 --name a --sdi", 2, "unwritable"),
    ("genesis draft --agreement absent --out o occupied/file", 2, "unreadable"),
    ("genesis sign --dir absent occupied/file", 1, "malformed"),
    ("genesis assemble --charter absent --out o occupied/file", 2, "unreadable"),
    ("genesis check occupied/file", 1, "malformed"),
    ("genesis fetch --node http://127.0.0.1:1 --out o", 1, "unreachable"),
    ("node --dir absent", 2, "usage"),
    ("status --node http://127.0.0.1:1", 1, "unreachable"),
    ("provider join --dir absent --node http://127.0.0.1:1 --out o", 2, "unreadable"),
    ("provider approve --dir absent occupied/file", 2, "unreadable"),
    ("provider submit --dir absent --node http://127.0.0.1:1 occupied/file", 2, "unreadable"),
    ("provider leave --dir absent --node http://127.0.0.1:1", 2, "unreadable"),
    ("provider rotate --vote --dir absent --node http://127.0.0.1:1", 2, "unreadable"),
    ("provider move --dir absent --node http://127.0.0.1:1 --address a:1", 2, "unreadable"),
    ("provider expel --dir absent --node http://127.0.0.1:1 --out o --provider 1", 2, "unreadable"),
    ("sdi add --dir absent --node http://127.0.0.1:1 --out o", 2, "unreadable"),
    ("sdi approve --dir absent occupied/file", 2, "unreadable"),
    ("sdi remove --dir absent --node http://127.0.0.1:1 --out o --sdi 1", 2, "unreadable"),
    (
        "sdi renew --dir absent --node http://127.0.0.1:1 --meter 1 --meter-out m --out o",
        2,
        "unreadable",
    ),
    ("meter revoke --node http://127.0.0.1:1 --meter 0007 --owner absent", 2, "usage"),
    ("meter approve --owner absent --node http://127.0.0.1:1 occupied/file", 2, "unreadable"),
    ("meter submit --genesis absent --node http://127.0.0.1:1 occupied/file", 2, "unreadable"),
    ("replay --node http://127.0.0.1:1 --data broken.csv --sdi absent", 2, "malformed"),
    ("archive --node ftp://127.0.0.1:1 --out o", 2, "usage"),
    ("head --node http://127.0.0.1:1 --out o", 1, "unreachable"),
    ("snapshot --node http://127.0.0.1:1 --genesis absent --out o", 2, "unreadable"),
    ("demo --data broken.csv", 2, "malformed"),
    ("verify --genesis absent occupied/file", 2, "unreadable"),
    ("open --provider absent occupied/file", 2, "unreadable"),
    ("audit --genesis absent occupied/file", 2, "unreadable"),
    ("paper figure-9 --out occupied/file", 2, "unwritable"),
    ("sim --seed 1 --resume occupied/file", 2, "usage"),
    ("bench ledger --providers 4 --dead 3", 2, "usage"),
    ("man occupied", 2, "unwritable"),
];

const NEVER_FAIL: [&str; 3] = ["bench verify", "bench worst-block", "completions"];

/// The commands that a help lists.
fn listed(words: &[&str]) -> Vec<String> {
    let help = bkss(&[words, &["--help"]].concat());
    let help = String::from_utf8(help.stdout).unwrap();
    let Some((_, commands)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    commands.filter_map(name).filter(|name| name != "help").collect()
}

/// All commands that do something.
fn commands() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for outer in listed(&[]) {
        let inner = listed(&[&outer]);
        if inner.is_empty() {
            all.insert(outer);
        } else {
            all.extend(inner.iter().map(|inner| format!("{outer} {inner}")));
        }
    }
    all
}

/// The only object that a command writes.
fn only(files: &Files, args: &[&str], exit: i32) -> Value {
    let output = files.bkss(args);
    assert_eq!(code(&output), exit, "{args:?}: {}", said(&output));
    let mut told = objects(&output);
    assert_eq!(told.len(), 1, "{args:?}: {told:?}");
    told.remove(0)
}

fn error(object: &Value) -> (&str, &str) {
    let error = &object["error"];
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.starts_with("error"), "{object}");
    (error["kind"].as_str().unwrap(), message)
}

#[test]
fn every_command_tells_programs_why_it_failed() {
    let files = Files::make();
    files.write("occupied/file", b"nothing that anybody reads");
    files.write("broken.csv", b"VID,V001\n7,1\n8,x\n");
    let mut seen = BTreeSet::new();
    for (line, exit, kind) in FAILING {
        let args: Vec<_> = line.split(' ').chain(["--json"]).collect();
        let object = only(&files, &args, exit);
        assert_eq!(error(&object).0, kind, "{line}: {object}");
        let words = 1 + usize::from(!listed(&args[..1]).is_empty());
        seen.insert(args[..words].join(" "));
    }
    seen.extend(NEVER_FAIL.map(str::to_owned));
    assert_eq!(seen, commands(), "a command is not tried here");
    let broken = only(&files, &["demo", "--data", "broken.csv", "--json"], 2);
    let known = [&broken["error"]["file"], &broken["error"]["line"]];
    assert_eq!(known, [&Value::from("broken.csv"), &Value::from(3)]);
}

#[test]
fn there_is_a_page_for_each_command_and_a_script_for_each_shell() {
    let files = Files::make();
    let made = only(&files, &["man", "pages", "--json"], 0);
    let names = std::fs::read_dir(files.dir().join("pages")).unwrap();
    let names: BTreeSet<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(made["pages"], names.len());
    for command in commands() {
        let page = format!("bkss-{}.1", command.replace(' ', "-"));
        assert!(names.contains(&page), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = files.bkss(&["completions", shell]);
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(script.contains("worst-block") && script.contains("until"), "{shell}");
    }
    let version = files.bkss(&["--version"]);
    let version = String::from_utf8(version.stdout).unwrap();
    assert!(version.contains("\ncommit ") && version.contains("formats: genesis 2"), "{version}");
}

#[test]
fn a_file_of_another_kind_is_called_what_it_is() {
    let files = Files::make();
    let receipt = Files::receipt(1);
    files.write("utf16", b"\xFF\xFEV\0I\0D\0");
    for (args, is) in [
        (&["verify", "--genesis", &receipt, &receipt][..], "a receipt"),
        (&["audit", "--genesis", "archive.bkss", "archive.bkss"], "a bkss file, archive"),
        (&["genesis", "check", "utf16"], "text in UTF-16"),
        (&["genesis", "sign", "--dir", "providers/3", "genesis.bkss"], "a genesis"),
    ] {
        let object =
            only(&files, &[args, &["--json"]].concat(), if args[0] == "genesis" { 1 } else { 2 });
        assert_eq!(object["error"]["is"], is, "{object}");
        let people = files.bkss(args);
        assert!(said(&people).contains(&format!(" is {is}\n")), "{}", said(&people));
    }
    let keys = ["audit", "--genesis", "genesis.bkss", "providers/3/keys.bkss"];
    assert!(said(&files.bkss(&keys)).contains("it is keys of a provider"));
    let refused = files.bkss(&["verify", "--genesis", "genesis.bkss", "genesis.bkss"]);
    assert!(said(&refused).contains("it is a genesis"), "{}", said(&refused));
}

#[test]
fn a_command_that_is_not_understood_tells_programs_too() {
    let files = Files::make();
    for command in commands() {
        let words: Vec<_> = command.split(' ').chain(["--no-such-option", "--json"]).collect();
        let object = only(&files, &words, 2);
        assert_eq!(error(&object).0, "usage", "{object}");
    }
    assert!(files.bkss(&["verify", "--no-such-option"]).stdout.is_empty(), "nobody asked for it");
}

#[test]
fn papers_tell_programs_what_was_done() {
    let files = Files::make();
    files.write("agreement.txt", b"We agree.");
    for (number, kind) in
        [(1, "provider"), (2, "provider"), (3, "provider"), (4, "provider"), (0, "sdi")]
    {
        let (dir, id) = (format!("{kind}{number}"), number.to_string());
        let mut args = vec!["keygen", "--json", "--dir", &dir, "--id", &id, "--name", "Ä"];
        let address = format!("127.0.0.1:{}", 7000 + number);
        if kind == "sdi" {
            args.push("--sdi");
        } else {
            args.extend(["--address", &address, "--agreement", "agreement.txt"]);
        }
        let made = only(&files, &args, 0);
        assert_eq!(made["identity"], format!("{dir}/{kind}-{number}.identity"));
    }
    let identities: Vec<_> =
        (1..5).map(|id| format!("provider{id}/provider-{id}.identity")).collect();
    let mut draft = vec!["genesis", "draft", "--json", "--agreement", "agreement.txt"];
    draft.extend(["--out", "charter", "sdi0/sdi-0.identity"]);
    draft.extend(identities.iter().map(String::as_str));
    let drafted = only(&files, &draft, 0);
    assert_eq!(drafted["charter"]["providers"].as_array().unwrap().len(), 4, "{drafted}");
    let mut assemble = vec!["genesis".to_owned(), "assemble".to_owned(), "--json".to_owned()];
    assemble.extend(["--charter", "charter", "--out", "founded.bkss"].map(str::to_owned));
    for dir in ["provider1", "provider2", "provider3", "provider4", "sdi0"] {
        let sign = ["genesis", "sign", "--json", "--dir", dir, "charter"];
        let trial = only(&files, &[&sign[..], &["--dry-run"]].concat(), 0);
        assert_eq!(trial["file"], Value::Null, "{trial}");
        let signed = only(&files, &sign, 0);
        assemble.push(signed["file"].as_str().unwrap().to_owned());
    }
    let assembled = only(&files, &assemble.iter().map(String::as_str).collect::<Vec<_>>(), 0);
    assert_eq!(assembled["network"], drafted["charter"]["network"]);
    let checked = only(&files, &["genesis", "check", "founded.bkss", "--json"], 0);
    assert_eq!(checked["charter"], drafted["charter"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("net");
    let founded = bkss(&["init", "--json", "--providers", "4", "--out", text(&out)]);
    let [founded] = &objects(&founded)[..] else { panic!("one object") };
    assert_eq!((&founded["providers"], &founded["error"]), (&Value::from(4), &Value::Null));
}

#[test]
fn results_are_on_standard_output_and_what_is_said_about_the_work_is_not() {
    let files = Files::make();
    for (args, result) in [
        (&["verify", "--genesis", "genesis.bkss", "receipts"][..], "5 of 5 receipts are valid"),
        (&["genesis", "check", "genesis.bkss"], "all founders have signed it"),
        (&["audit", "--genesis", "genesis.bkss", "archive.bkss"], "VALID "),
        (&["sim", "--seed", "1", "--meters", "4", "--slots", "3"], "0 failed"),
    ] {
        let output = files.bkss(args);
        let found = String::from_utf8(output.stdout).unwrap();
        assert!(found.contains(result), "{args:?}: {found}");
    }
}
