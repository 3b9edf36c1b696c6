//! The newest block of a node, kept to be compared with archives later.

use crate::{
    providers::Providers,
    shared::{bkss, code, objects, said, text},
};

#[test]
fn a_head_that_was_kept_tells_whether_a_later_archive_is_whole() {
    let mut providers = Providers::found(4, &["--grid", "1"]);
    providers.start_all();
    providers.wait(0, 4);
    let (url, net) = (providers.url(0), providers.dir.path().join("net"));
    let genesis = net.join("genesis.bkss");
    let (out, plain) = (net.join("kept.head"), net.join("plain.head"));
    let fetch = |args: &[&str]| bkss(&[&["head", "--node", &url], args].concat());

    let output = fetch(&["--out", text(&plain)]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("; not verified\n"), "{}", said(&output));
    let output = fetch(&["--out", text(&out), "--genesis", text(&genesis), "--json"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let [head] = &objects(&output)[..] else { panic!("one object") };
    let height = head["height"].as_u64().unwrap();
    assert!(height > 0 && head["verified"] == true, "{head}");
    assert!(std::fs::metadata(&out).unwrap().len() < 1000);
    let again = fetch(&["--out", text(&out)]);
    assert_eq!(code(&again), 2, "a head that was kept is not overwritten");

    let strangers = Providers::found(4, &[]);
    let foreign = strangers.dir.path().join("net/genesis.bkss");
    let other = net.join("other.head");
    let output = fetch(&["--out", text(&other), "--genesis", text(&foreign)]);
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("head of network "), "{}", said(&output));
    assert!(!other.exists(), "nothing was written");

    providers.wait(1, height + 1);
    let archive = net.join("archive.bkss");
    let output = bkss(&["archive", "--node", &providers.url(1), "--out", text(&archive)]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let (genesis, archive) = (text(&genesis), text(&archive));
    let output = bkss(&["audit", "--genesis", genesis, "--head", text(&out), archive]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let contains = format!("contains block {height}, the head that was given");
    assert!(said(&output).contains(&contains), "{}", said(&output));
}
