//! Altered files against everything here that reads files: nothing panics, and what is altered is
//! not taken for good.
//!
//! `BKSS_MUTATIONS` says how many (10 000 without it), `BKSS_SEED` which; `BKSS_CASE` runs the one
//! with this number alone.

mod mutate;

#[path = "../tests/it/consortium.rs"]
#[allow(dead_code, reason = "the tests of the binary need more of it")]
mod consortium;

use std::{
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use bkss_ledger::{
    Change, Genesis, Trust,
    audit::{Known, audit},
    change::Body,
};
use bkss_scheme::{
    MeterId, ProviderId, SdiId, SecretKey, Slot, codec,
    identity::{SdiIdentity, SdiMode},
    receipt::Receipt,
    slot::Schedule,
};
use bkss_sdi::{Order, Sdi};
use rand_chacha::{ChaCha8Rng, ChaCha20Rng, rand_core::SeedableRng};

use crate::{
    changes::ChangePaper,
    documents::{self, CharterPaper, Identity, MemberId, SignaturePaper},
    fleet,
    found::SdiKeys,
    head,
    meter_paper::{Matter, MeterPaper},
    meters::{Plan, Progress, Provisioned, SoftwareFlash, provision},
    parallel,
    provider::Keys,
    sessions, verify,
};
use mutate::{Layout, below, mutate};

/// A kind of file: real ones, and what reads it.
struct Kind {
    name: &'static str,
    layout: Layout,
    /// How many of a hundred mutations it gets.
    share: u64,
    files: Vec<Vec<u8>>,
    /// Reads a file, and says whether it is taken for good although it must not be.
    read: Box<Read>,
}

type Read = dyn Fn(&[u8]) -> bool + Sync;

#[test]
fn altered_files_neither_panic_nor_pass() {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (seed, count) = (number("BKSS_SEED").unwrap_or(1), number("BKSS_MUTATIONS"));
    let dir = tempfile::tempdir().unwrap();
    let kinds = kinds(dir.path());
    assert_eq!(kinds.iter().map(|kind| kind.share).sum::<u64>(), 100);
    for kind in &kinds {
        for file in &kind.files {
            assert!(!(kind.read)(file), "{}: what is real passes", kind.name);
        }
    }
    let count = count.unwrap_or(10_000);
    let cases: Vec<Range<u64>> = match number("BKSS_CASE") {
        Some(case) => std::iter::once(case..case + 1).collect(),
        None => (0..count).step_by(500).map(|at| at..count.min(at + 500)).collect(),
    };
    let failed = |some: &Range<u64>| -> Vec<String> {
        some.clone().filter_map(|case| outcome(&kinds, seed, case).err()).collect()
    };
    let failed = parallel::map(&cases, failed).concat();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Makes one mutation and reads it.
fn outcome(kinds: &[Kind], seed: u64, case: u64) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed << 40 ^ case);
    let mut left = case % 100;
    let kind = kinds.iter().find(|kind| {
        let found = left < kind.share;
        left = left.saturating_sub(kind.share);
        found
    });
    let Kind { name, layout, files, read, .. } = kind.unwrap();
    let (file, other) =
        (&files[below(&mut rng, files.len())], &files[below(&mut rng, files.len())]);
    let altered = mutate(*layout, file, other, &mut rng);
    let what = match catch_unwind(AssertUnwindSafe(|| files.contains(&altered) || !read(&altered)))
    {
        Ok(true) => return Ok(()),
        Ok(false) => "passes",
        Err(_) => "panics",
    };
    Err(format!("{name} {what}: BKSS_SEED={seed} BKSS_CASE={case}"))
}

fn kinds(dir: &Path) -> Vec<Kind> {
    let made = consortium::make();
    let genesis = Arc::new(Genesis::decode(&made.genesis).unwrap());
    let mut kinds = vec![receipts(&made), trusts(), archives(&made, &genesis), heads(&made)];
    kinds.extend(directories(&made, dir));
    kinds.extend(papers(&genesis, dir));
    kinds.extend(meters(&made, &genesis, dir));
    kinds
}

fn receipts(made: &consortium::Made) -> Kind {
    let trust = Trust::decode(&made.genesis).unwrap();
    let real = made.receipts.clone();
    let read = move |bytes: &[u8]| {
        let Some(found) = verify::told(&trust, bytes) else { return false };
        // Without the path `C_i` a receipt may be issued; nothing else of it may differ.
        let same = |real: &Vec<u8>| {
            let real: Receipt<'_> = codec::decode("receipt", real).unwrap();
            let link_path = None;
            Receipt { link_path, ..real } == Receipt { link_path: None, ..found.clone() }
        };
        !real.iter().any(same)
    };
    let files = made.receipts.clone();
    Kind { name: "receipt", layout: Layout::Values, share: 30, files, read: Box::new(read) }
}

/// A genesis with handovers: one that is cut behind any of them is good as well.
fn trusts() -> Kind {
    let file = consortium::make_with_handovers();
    let real = file.clone();
    let read = move |bytes: &[u8]| {
        let Ok(trust) = Trust::decode(bytes) else { return false };
        assert_eq!(trust.encode(), bytes, "one spelling");
        !real.starts_with(bytes)
    };
    let files = vec![file];
    Kind { name: "genesis", layout: Layout::Values, share: 10, files, read: Box::new(read) }
}

/// An archive without some certificate is good as well: its blocks are those of the real one.
fn archives(made: &consortium::Made, genesis: &Arc<Genesis>) -> Kind {
    let genesis = genesis.clone();
    let newest = audit(&genesis, &made.archive[..], Known::default()).newest;
    let read = move |bytes: &[u8]| {
        let report = audit(&genesis, bytes, Known::default());
        report.refusals.iter().for_each(|refusal| assert!(!refusal.to_string().is_empty()));
        report.valid() && report.newest != newest
    };
    let files = vec![made.archive.clone()];
    Kind { name: "archive", layout: Layout::Frames, share: 6, files, read: Box::new(read) }
}

fn heads(made: &consortium::Made) -> Kind {
    let trust = Trust::decode(&made.genesis).unwrap();
    let length = made.archive.len();
    let last = (0..length).rev().find(|at| {
        let head = made.archive[*at..].split_first_chunk();
        head.is_some_and(|(size, rest)| u32::from_be_bytes(*size) as usize == rest.len())
    });
    let files = vec![made.archive[last.unwrap() + 4..].to_vec()];
    let real = files[0].clone();
    let read = move |bytes: &[u8]| {
        let known = head::Known::decode(bytes);
        let holds = head::check(bytes, &trust).is_ok();
        assert!(known.is_ok() || !holds);
        holds && bytes != real
    };
    Kind { name: "head", layout: Layout::Values, share: 10, files, read: Box::new(read) }
}

/// Never good or bad by itself: only that it does not panic.
fn harmless(
    name: &'static str,
    layout: Layout,
    share: u64,
    files: Vec<Vec<u8>>,
    read: impl Fn(&[u8]) + Sync + 'static,
) -> Kind {
    let read = Box::new(move |bytes: &[u8]| {
        read(bytes);
        false
    });
    Kind { name, layout, share, files, read }
}

fn directories(made: &consortium::Made, dir: &Path) -> Vec<Kind> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let sdi = dir.join("sdi");
    SdiKeys::make(SdiId(0), "sdi", false, &mut rng).unwrap().save(&sdi).unwrap();
    let file = |name: &str| std::fs::read(sdi.join(name)).unwrap();
    let keys = made.providers.iter().map(|(keys, _)| keys.clone()).collect();
    let network = Genesis::decode(&made.genesis).unwrap().network();
    let (mut fleet, mut log) = fleet::open(&sdi, network).unwrap();
    for meter in 1..4 {
        fleet.offer(order(meter), &mut rng).unwrap();
        log.commit(&mut fleet).unwrap();
    }
    let sdi_keys = file("keys.bkss");
    let real = SdiKeys::parse(Path::new("keys"), &sdi_keys).unwrap();
    let path = || Path::new("file");
    let sessions = [&made.providers[3].1[..]; 3].concat();
    vec![
        harmless("keys of a provider", Layout::Checked, 8, keys, move |bytes| {
            let _ = Keys::parse(path(), bytes).map(|keys| (keys.vote().len(), keys.opening().id()));
        }),
        harmless("keys of an SDI", Layout::Checked, 3, vec![sdi_keys], move |bytes| {
            let _ = SdiKeys::parse(path(), bytes);
        }),
        harmless("sessions", Layout::Values, 5, vec![sessions], move |bytes| {
            sessions::parse(path(), bytes, |_| ()).unwrap();
        }),
        harmless("fleet of an SDI", Layout::Records, 4, vec![file("fleet.bkss")], move |bytes| {
            let mut sdi = Sdi::new(real.identity.clone(), real.key.clone(), network);
            let _ = fleet::restore(path(), bytes, &mut sdi);
        }),
    ]
}

fn papers(genesis: &Arc<Genesis>, dir: &Path) -> Vec<Kind> {
    let (network, charter) = (genesis.network(), genesis.charter().clone());
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let key = SecretKey::generate(&mut rng);
    let path = || Path::new("file");
    let sdi = SdiIdentity {
        id: SdiId(4),
        name: "sdi".try_into().unwrap(),
        key: key.public(),
        mode: SdiMode::Shared,
    };
    Identity::Sdi(sdi.clone()).save(dir, &key).unwrap();
    CharterPaper(charter).save(&dir.join("charter")).unwrap();
    let (member, signature) = (MemberId::Provider(ProviderId(1)), key.sign(&sdi_digest()));
    SignaturePaper { network, member, signature }.save(&dir.join("signature")).unwrap();
    let mut change = Change::new(Body::AddSdi(sdi), 7);
    change.sign(network, &key);
    (0..3).for_each(|provider| change.approve(network, ProviderId(provider), &key));
    documents::write_new(&dir.join("change"), &ChangePaper { network, change }).unwrap();
    let reason = bkss_ledger::revocation::Reason(2);
    let end = Matter::End { meter: MeterId(7), chain: sdi_digest(), reason };
    let mut paper = MeterPaper::new(network, end);
    paper.sdi = Some((SdiId(0), signature));
    documents::write_new(&dir.join("end"), &paper).unwrap();
    let file = |name: &str| vec![std::fs::read(dir.join(name)).unwrap()];
    vec![
        harmless("identity", Layout::Values, 2, file("sdi-4.identity"), move |bytes| {
            let _ = Identity::parse(path(), bytes);
        }),
        harmless("charter", Layout::Checked, 4, file("charter"), move |bytes| {
            let _ = CharterPaper::parse(path(), bytes);
        }),
        harmless("signature", Layout::Values, 1, file("signature"), move |bytes| {
            let _ = SignaturePaper::parse(path(), bytes);
        }),
        harmless("change", Layout::Checked, 3, file("change"), move |bytes| {
            let _ = ChangePaper::parse(path(), bytes);
        }),
        harmless("paper about a meter", Layout::Checked, 2, file("end"), move |bytes| {
            let _ = MeterPaper::parse(path(), bytes, network).map(|paper| paper.digest());
        }),
    ]
}

fn sdi_digest() -> bkss_scheme::Digest {
    bkss_scheme::Digest([5; 32])
}

fn order(meter: u32) -> Order {
    Order {
        meter: MeterId(meter),
        owner: ProviderId(3),
        schedule: Schedule { first: Slot(1000), slot_s: 900, window_s: 300, slots: 37 },
        serial: meter.to_string().into_bytes(),
        block_log2: 3,
        revocable_by_secret: false,
    }
}

/// What a meter and its owner have of a chain.
fn meters(made: &consortium::Made, genesis: &Genesis, dir: &Path) -> Vec<Kind> {
    let owner = Keys::parse(Path::new("keys"), &made.providers[3].0).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let key = SecretKey::generate(&mut rng);
    let name = "sdi".try_into().unwrap();
    let sdi = SdiIdentity { id: SdiId(0), name, key: key.public(), mode: SdiMode::SdiMade };
    let mut sdi = Sdi::new(sdi, key, genesis.network());
    let sealing_key = owner.opening().public();
    let plan = Plan { eras: genesis.anchors().eras, sealing_key, order: order(7), instead: None };
    let mut commit = |sdi: &mut Sdi| {
        drop(sdi.take_records());
        Ok(())
    };
    let meter = provision(&mut sdi, &mut commit, plan, &owner, &mut rng).unwrap();
    let dir = dir.join("meter");
    meter.save(&dir).unwrap();
    let files = ["shipment", "bundle", "checkpoints"]
        .map(|name| std::fs::read(dir.join(format!("{name}.bkss"))).unwrap());
    let layouts = [Layout::Values, Layout::Values, Layout::Checked];
    let names = ["shipment", "bundle", "checkpoints"];
    let kind = |at: usize| {
        let all = files.clone();
        harmless(names[at], layouts[at], 4, vec![files[at].clone()], move |bytes| {
            let mut three: [&[u8]; 3] = all.each_ref().map(|file| &file[..]);
            three[at] = bytes;
            let Ok(meter) = Provisioned::parse(Path::new("meter"), three) else { return };
            let _ = meter.paths();
            let _ = meter.switch_on(
                SoftwareFlash::memory(),
                Vec::new(),
                0,
                [0; 32],
                Progress::default(),
            );
        })
    };
    (0..3).map(kind).collect()
}
