use std::{fs, path::Path, sync::LazyLock};

use super::*;

static ATTACKS: LazyLock<Vec<Attack>> = LazyLock::new(|| run_all(&Effort::QUICK).unwrap());

fn run(test: &str) -> &'static Attack {
    ATTACKS.iter().find(|attack| attack.test == test).unwrap()
}

#[test]
fn every_attack_that_runs_breaks_the_printed_scheme_and_not_ours() {
    for attack in ATTACKS.iter() {
        let (printed, ours) = (attack.printed.broken(), attack.ours.broken());
        assert_ne!(printed, Some(false), "{} on the printed scheme: {attack:#?}", attack.test);
        assert_ne!(ours, Some(true), "{} on ours: {attack:#?}", attack.test);
        assert!(printed.is_some() || ours.is_some(), "{} is not run", attack.test);
        // The features that s7 marks with a cross have no attack that only ours was spared.
        if matches!(attack.feature, Feature::F1 | Feature::F2 | Feature::F3) {
            // T1.7: the printed meter makes its own root message.
            assert_eq!(printed.is_some(), attack.test != "T1.7", "{}", attack.test);
            assert_eq!(ours, Some(false), "{}", attack.test);
        }
    }
    let mut tests: Vec<_> = ATTACKS.iter().map(|attack| attack.test).collect();
    assert_eq!(tests.len(), 43);
    tests.sort_unstable();
    tests.dedup();
    assert_eq!(tests.len(), 43, "each number once");
    let printed = ATTACKS.iter().filter(|attack| attack.printed.broken().is_some()).count();
    assert_eq!(printed, 29, "as README and docs/threats.md say");
    refused_for_their_reasons(&ATTACKS);
}

/// Ours must refuse each attack by the rule that is meant to stop it, not by accident.
fn refused_for_their_reasons(attacks: &[Attack]) {
    for (test, reasons) in [
        ("T1.1", &["signature of the SDI", "is not of its chain"][..]),
        ("T1.2", &["block's time is not the time for this", "no pending request has this value"]),
        ("T1.3", &["does not lead to the newest link"]),
        ("T1.4", &["block's time is not the time for this", "no pending request has this value"]),
        ("T1.5", &["no pending request has this value"]),
        (
            "T1.6",
            &["signature of the SDI", "signature of the owner SP", "registered for another device"],
        ),
        (
            "T1.7",
            &[
                "registered L is not",
                "registered g_0 is not",
                "registered W is not",
                "the registration is of another chain",
            ],
        ),
        ("T2.1", &["does not open with this key, meter and slot"]),
        ("T2.2", &["the genuine reading", "no reading"]),
        ("T2.3", &["fewer signatures than a quorum", "an old time"]),
        ("T2.4", &["the ledger's time is behind its window", "outside the chain"]),
        (
            "T3.1",
            &[
                "a second request of this gateway",
                "no pending request has this value",
                "first slot starts at",
                "a block of this height is there",
                "signature of gateway",
                "contributes nothing after a restart",
            ],
        ),
        ("T3.2", &["no pending request has this value", "q differs"]),
        ("T4.3", &["fewer signatures than a quorum", "a signature is not its member's"]),
        ("T4.4", &["another committee", "fewer signatures than a quorum"]),
        ("T5.1", &["block's time is not the time for this", "another session's key stream"]),
        ("T6.1", &["does not open with this key, meter and slot"]),
        ("T7.1", &["no published value confirms the guess"]),
        ("T8.1", &["blocks go on and every reading becomes final"]),
        ("T8.2", &["one chain, and every reading becomes final"]),
        (
            "A1.1",
            &["nobody stands while leaders are there", "a leader that is gone is passed over"],
        ),
        ("T8.3", &["at most one block has 15 votes"]),
        ("T9.1", &["not a receipt", "commitment q", "certificate", "not a block"]),
        ("T9.2", &["no pending request has this value"]),
        ("T9.3", &["fewer signatures than a quorum"]),
        ("A2.3", &["1 signatures, a quorum is 15"]),
    ] {
        let attack = attacks.iter().find(|attack| attack.test == test).unwrap();
        let refusals = &attack.ours.tried().unwrap().refusals;
        for reason in reasons {
            assert!(
                refusals.keys().any(|refusal| refusal.contains(reason)),
                "{test}: {reason} in {refusals:#?}"
            );
        }
    }
}

#[test]
fn random_reveals_are_all_counted() {
    let attack = run("T1.5");
    assert_eq!(attack.ours.tried().unwrap().attempts, u64::from(Effort::QUICK.reveals));
}

#[test]
fn the_algorithms_fail_as_they_are_known_to() {
    let count = |test| {
        let attack = run(test);
        let tried = attack.printed.tried().unwrap();
        (tried.successes, tried.attempts)
    };
    assert_eq!(count("A2.1"), (19, 19), "n = 4, 5, 7, 8 .. 31 never commit");
    assert_eq!(count("A2.3"), (1, 1), "one liar forks");
    assert_eq!(count("A1.2"), (6, 6), "every honest turn is taken");
    assert_eq!(count("A3.1"), (1, 1), "ghost meters");
}

/// The fence: only the attacks may know the printed scheme, and it may know nothing of the real one.
#[test]
fn the_printed_scheme_is_fenced_in() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut outside, mut inside) = (0, 0);
    each_source(crates, &mut |path, text| {
        let place = path.strip_prefix(crates).unwrap().to_string_lossy().into_owned();
        if place.starts_with("bkss-sim/src/printed/") {
            inside += 1;
            assert!(!text.contains("bkss_"), "{place} uses the real scheme");
            assert!(!text.contains("crate::"), "{place} looks out of its fence");
        } else if !place.starts_with("bkss-sim/src/attacks/") {
            outside += 1;
            assert!(!text.contains("printed::"), "{place} uses the printed scheme");
            assert!(!text.contains("mod printed"), "{place} declares the printed scheme");
        }
    });
    assert!(inside >= 7 && outside > 50, "{inside} and {outside} files were looked at");
}

fn each_source(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
