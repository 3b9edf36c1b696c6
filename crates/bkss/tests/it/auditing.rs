//! `audit` on files alone: what an archive is taken for, and what it is compared with.

use std::process::Output;

use bkss_ledger::{
    Genesis, Rounds,
    archive::{Reader, Writer},
};
use bkss_scheme::{Head, codec};
use expect_test::expect;

use crate::{
    consortium::{Founders, Run, at},
    files::Files,
    shared::{code, objects, said},
};

const AUDIT: [&str; 4] = ["audit", "--json", "--genesis", "genesis.bkss"];

fn audit(files: &Files, args: &[&str]) -> Output {
    files.bkss(&[&AUDIT, args].concat())
}

#[test]
fn an_archive_audits_and_what_was_done_to_it_is_said() {
    let files = Files::make();
    let output = audit(&files, &["archive.bkss"]);
    assert_eq!(code(&output), 0);
    expect![[r#"
        {"valid":true,"blocks":11,"meters":1,"chains":1,"renewals":0,"revocations":0,"requests":5,"openings":5,"changes":{"joined":0,"left":0,"expelled":0,"vote_keys":0,"sealing_keys":0,"addresses":0,"sdis_added":0,"sdis_removed":0},"newest":{"height":11,"id":"9830e3613753d0fa1dce8ba4ad0344372b6cf96645b9839ddc129c6e58d3b5e9","time":"2024-10-28T01:05:00Z"},"head":null,"until":null,"offences":[],"refusals":[]}
    "#]]
    .assert_eq(std::str::from_utf8(&output.stdout).unwrap());
    let bytes = files.read("archive.bkss");
    files.write("bad/archive.cut", &bytes[..bytes.len() / 2]);
    files.write("bad/archive.empty", b"");
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    files.write("bad/archive.altered", &altered);
    for (file, expected) in [
        ("bad/archive.cut", "archive is cut at byte "),
        ("bad/archive.empty", "archive is cut at byte 0: expected the archive's first frame"),
        ("bad/archive.altered", ""),
        ("genesis.bkss", "archive at byte 0: frame of "),
    ] {
        let output = audit(&files, &[file]);
        assert_eq!(code(&output), 1, "{file}");
        let [report] = &objects(&output)[..] else { panic!("one object") };
        assert_eq!(report["valid"], false);
        let refusal = report["refusals"][0].as_str().unwrap();
        assert!(refusal.starts_with(expected), "{refusal}");
    }
    for file in ["absent", "receipts"] {
        assert_eq!(code(&audit(&files, &[file])), 2, "{file}");
    }
    let text = said(&files.bkss(&["audit", "--genesis", "genesis.bkss", "archive.bkss"]));
    let expected = "VALID   archive.bkss: 11 blocks, 1 meters with 1 chains (0 renewals), 0 \
                    revocations, 5 openings; complete up to block 11 of 2024-10-28T01:05:00Z as the archive claims; \
                    compare with a head from elsewhere (--head)\n";
    assert!(text.ends_with(expected), "{text}");
}

/// The last frame of an archive: the head of its newest block.
fn head(archive: &[u8]) -> Vec<u8> {
    let (mut rest, mut last) = (archive, &archive[..0]);
    while let Some((length, behind)) = rest.split_first_chunk() {
        (last, rest) = behind.split_at(u32::from_be_bytes(*length) as usize);
    }
    last.to_vec()
}

/// The first blocks of an archive, with the head of the last of them as its end.
fn cut(files: &Files, archive: &[u8], blocks: u64) -> Vec<u8> {
    let genesis = Genesis::decode(&files.read("genesis.bkss")).unwrap();
    let (network, first) = (genesis.network(), genesis.header().id());
    let mut reader = Reader::new(archive, network, first, 1 << 22).unwrap();
    let mut writer = Writer::new(Vec::new(), network).unwrap();
    for _ in 0..blocks {
        let record = reader.next_block().unwrap().unwrap();
        writer.block(&record.block, record.certificate).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn an_archive_that_leaves_out_its_newest_blocks_is_found_out_by_a_head_or_a_time() {
    let files = Files::make();
    let whole = files.read("archive.bkss");
    files.write("cut.bkss", &cut(&files, &whole, 7));
    files.write("whole.head", &head(&whole));
    files.write("cut.head", &head(&files.read("cut.bkss")));
    let id = |file: &str| {
        let bytes = files.read(file);
        codec::decode::<Head<'_>>("head", &bytes).unwrap().header.id().to_string()
    };
    let (newest, seventh) = (id("whole.head"), id("cut.head"));
    let valid = "VALID   cut.bkss: 7 blocks, 1 meters with 1 chains (0 renewals), 0 revocations, 3 openings";
    let ends = "ends with block 7, the head that was given is block 11";
    let of = |network: &str| format!("other.head: head of network {network}");
    for (args, exit, expected) in [
        (&["cut.bkss"][..], 0, format!("{valid}; complete up to block 7 of 2024-10-28T00:35:00Z")),
        (&["--head", "cut.head", "cut.bkss"], 0, format!("{valid}; contains block 7, the head")),
        (&["--head", &seventh, "cut.bkss"], 0, format!("{valid}; contains block {seventh}, the")),
        (&["--head", "whole.head", "cut.bkss"], 1, "REFUSED cut.bkss: 7 blocks, ".into()),
        (&["--head", "whole.head", "cut.bkss"], 1, ends.into()),
        (
            &["--head", &newest, "cut.bkss"],
            1,
            format!("no block of the archive has the id {newest}"),
        ),
        (&["--head", "whole.head", "archive.bkss"], 0, "contains block 11, the head".into()),
        (&["--head", "cut.head", "archive.bkss"], 0, "contains block 7, the head".into()),
        (&["--head", &newest.to_uppercase(), "archive.bkss"], 0, "contains block ".into()),
        (&["--until", "2024-10-28T00:35:00Z", "cut.bkss"], 0, valid.into()),
        (
            &["--until", "2024-10-28T00:35:01Z", "cut.bkss"],
            1,
            "the archive ends at 2024-10-28T00:35:00Z, it was to reach 2024-10-28T00:35:01Z".into(),
        ),
        (&["--until", "2024-10-28T00:35:01Z", "archive.bkss"], 0, "VALID ".into()),
        (&["--until", "1969-10-28T00:35:01Z", "cut.bkss"], 2, "not after 1970".into()),
        (&["--head", "absent", "cut.bkss"], 2, "error: absent: ".into()),
        (&["--head", "genesis.bkss", "cut.bkss"], 2, "error: genesis.bkss: head: ".into()),
    ] {
        let output = files.bkss(&[&["audit", "--genesis", "genesis.bkss"], args].concat());
        assert_eq!(code(&output), exit, "{args:?}: {}", said(&output));
        assert!(said(&output).contains(&expected), "{args:?}: {}", said(&output));
    }
    let [report] = &objects(&audit(&files, &["--head", "whole.head", "archive.bkss"]))[..] else {
        panic!("one object")
    };
    assert_eq!(report["head"], serde_json::json!({ "height": 11, "id": newest }));
    assert_eq!(report["newest"]["id"], newest);
    let [report] = &objects(&audit(&files, &["--head", &newest, "cut.bkss"]))[..] else {
        panic!("one object")
    };
    assert_eq!(report["head"], serde_json::json!({ "height": null, "id": newest }));
    assert_eq!((&report["valid"], &report["newest"]["height"]), (&false.into(), &7.into()));

    let mut other = files.read("whole.head");
    other[5] ^= 1;
    files.write("other.head", &other);
    let network = bkss_scheme::Network(other[5..21].try_into().unwrap());
    let output = audit(&files, &["--head", "other.head", "archive.bkss"]);
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains(&of(&network.to_string())), "{}", said(&output));
}

#[test]
fn blocks_of_a_round_that_nobody_certified_are_refused() {
    let rounds = Rounds { blocks: 4, ..Rounds::default() };
    let founders = Founders::new(rounds);
    for (certified, refusals) in [
        ([true; 9], &[][..]),
        // Final through the last one of their round.
        ([false, false, true, false, false, false, true, true, true], &[]),
        (
            [false, false, false, true, true, true, true, true, true],
            &["blocks 1 to 3 have no certificate of their round"],
        ),
        (
            [true, false, false, false, false, false, false, false, true],
            &[
                "blocks 2 to 3 have no certificate of their round",
                "blocks 4 to 7 have no certificate of their round",
            ],
        ),
    ] {
        let files = Files::empty();
        files.write("genesis.bkss", &founders.genesis.encode());
        let mut run = Run::new(&founders);
        for (second, certified) in (1..).zip(certified) {
            run.block(at(0, second), [], certified);
        }
        files.write("archive.bkss", &run.finish().1);
        let output = audit(&files, &["archive.bkss"]);
        assert_eq!(code(&output), i32::from(!refusals.is_empty()), "{certified:?}");
        let [report] = &objects(&output)[..] else { panic!("one object") };
        assert_eq!(report["refusals"], serde_json::json!(refusals), "{certified:?}");
    }
}
