//! Histories that nobody has lived through: committees out of office, rounds that nobody certified,
//! archives that leave something out.

use bkss_ledger::{
    Beginning, FinalBlock, Rounds, Transaction, Trust, TrustError,
    archive::Writer,
    audit::{Finding, Known, Report, audit},
    beginning::{self, BeginningError},
    members::MembersChange,
};
use bkss_scheme::{
    Certificate, Committee, Digest, Handover, Header, LedgerTime, Opening, ProviderId, Timestamp,
    TreeHead,
    certificate::NotFinal,
    codec,
    finality::{EraEnd, Finality},
    handover::HandoverError,
    hash,
    merkle::Path,
    receipt::{Check, Failure, Receipt},
    timestamp::{Inclusion, TimeProof, request_leaf},
};

use crate::{
    consortium::{Consortium, Meter, SHORT, at},
    world::World,
};

const ROUNDS: Rounds = SHORT;

fn world(seed: u64, count: u16) -> World {
    World::of(Consortium::with(seed, count, ROUNDS))
}

/// Three rounds whose committees differ from one to the next.
fn three_committees(seed: u64) -> World {
    let mut world = world(seed, 7);
    for picks in [[3, 4, 5, 6], [0, 1, 2, 3], [3, 4, 5, 6]] {
        let votes = world.everybody_for(&picks);
        world.round(&votes);
    }
    assert_eq!(world.handovers().len(), 3);
    world
}

#[test]
fn an_era_ends_with_the_block_that_hands_over() {
    let world = three_committees(1);
    let trust = world.trust();
    let ends: Vec<_> = trust.eras().eras.iter().map(|era| (era.from_epoch, era.end)).collect();
    let end = |height: u64| {
        let block = &world.blocks[usize::try_from(height).unwrap() - 1];
        Some(EraEnd { height, time: block.header().time })
    };
    assert_eq!(ends, [(0, end(3)), (1, end(7)), (2, end(11)), (3, None)]);
}

/// A reading of slot 5 that nobody measured, as whoever knows the public link writes it down.
struct Forgery {
    world: World,
    meter: Meter,
    /// In whose epoch, at which height and when the forgers say it was requested and opened.
    epoch: u64,
    height: u64,
    requested: LedgerTime,
}

impl Forgery {
    /// Why a verifier that has followed all handovers takes no receipt of it from this committee.
    fn refusal(&self, committee: &Committee) -> Option<(Check, Failure)> {
        let Self { world, meter, epoch, height, requested } = self;
        let network = world.consortium.genesis.network();
        let forged = meter.sign(5, 999_999);
        let header = |time, transactions, requests, openings| Header {
            height: *height,
            previous: Digest([1; 32]),
            time,
            committee: committee.digest(),
            next_committee: None,
            members: None,
            state: None,
            transactions,
            requests,
            openings,
        };
        let tree = |root| Some(TreeHead { count: 1, root });
        let message = &meter.registration.message;
        let registered = header(at(0, 5), tree(meter.registration.leaf(network)), None, None);
        let leaf = request_leaf(message.meter, forged.index, ProviderId(0), &forged.value);
        let stamped = header(*requested, None, tree(leaf), None);
        let opening = Opening {
            meter: message.meter,
            index: forged.index,
            link: forged.link.clone(),
            body_hash: hash::plain(&forged.body),
        };
        let opened = header(at(5, 301), None, None, tree(opening.leaf()));
        let sign = |header: &Header| world.consortium.certify_in(*epoch, committee, header.id(), 7);
        let signatures = [&registered, &stamped, &opened].map(sign);
        let inclusion = |header: &Header, at: usize| {
            let (signers, signatures) = &signatures[at];
            let certificate = Certificate {
                epoch: *epoch,
                view: 7,
                parent_view: 6,
                signers: *signers,
                signatures,
            };
            let finality = Finality { descendants: &[], certificate };
            Inclusion { index: 0, path: Path::default(), header: header.clone(), finality }
        };
        let receipt = Receipt {
            network,
            registration: meter.registration.clone(),
            registered: inclusion(&registered, 0),
            index: forged.index,
            link: forged.link.clone(),
            link_path: None,
            body: &forged.body,
            timestamp: Timestamp {
                submitter: ProviderId(0),
                value: forged.value,
                inclusion: inclusion(&stamped, 1),
            },
            opened: inclusion(&opened, 2),
        };
        receipt.verify(&world.trust().anchors()).failure()
    }
}

#[test]
fn a_committee_out_of_office_makes_no_receipt_of_today() {
    let mut world = three_committees(2);
    let meter = world.consortium.meter(0);
    world.block(&[meter.registers()]);
    let retired = world.consortium.genesis.committee().clone();
    let now = world.state.round().committee.clone();
    assert!(retired != now);
    let end = world.trust().eras().eras[0].end.unwrap();
    let requested = at(5, 1);
    assert!(requested > end.time);
    let after_era = |height, time| NotFinal::AfterEra {
        height,
        time,
        last_height: end.height,
        last_time: end.time,
    };
    let mut forgery = Forgery { world, meter, epoch: 0, height: 0, requested };
    let million = 1_000_000;
    for (what, epoch, height, reason) in [
        (
            "in its own round, of a height behind it",
            0,
            million,
            NotFinal::Round { height: million, expected: million / 4, found: 0 },
        ),
        (
            "in a round of today",
            million / 4,
            million,
            NotFinal::Committee { expected: now.digest(), found: retired.digest() },
        ),
        ("of a height that it certified", 0, 2, after_era(2, at(0, 5))),
    ] {
        (forgery.epoch, forgery.height) = (epoch, height);
        let (check, failure) = forgery.refusal(&retired).unwrap();
        assert_eq!(check, Check::Certificate, "{what}");
        assert_eq!(failure, Failure::NotFinal { block: height, reason }, "{what}");
    }
    // Of a time at which it was in office: that is not the time of the slot.
    forgery.requested = end.time;
    let (check, _) = forgery.refusal(&retired).unwrap();
    assert_eq!(check, Check::SlotEquation);
}

fn encoded(value: &impl minicbor::Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    bytes
}

#[test]
fn a_handover_is_of_the_round_of_its_height_and_ends_it() {
    let mut world = world(3, 7);
    let votes = world.everybody_for(&[3, 4, 5, 6]);
    world.block(&votes);
    let inside = world.block(&[]).header().clone();
    let last = world.block(&[]).header().clone();
    let next = world.state.round().committee.clone();
    assert_eq!(last.next_committee, Some(next.digest()));
    let committee = world.consortium.genesis.committee().clone();
    let file = |header: &Header, epoch| {
        let (signers, signatures) = world.consortium.certify_in(epoch, &committee, header.id(), 7);
        let certificate =
            Certificate { epoch, view: 7, parent_view: 6, signers, signatures: &signatures };
        let finality = Finality { descendants: &[], certificate };
        let committee = Some(next.clone());
        let handover = Handover { header: header.clone(), finality, committee, members: None };
        Trust::decode(&[world.consortium.genesis.encode(), encoded(&handover)].concat())
    };
    assert!(file(&last, 0).is_ok());
    let early = Header { next_committee: Some(next.digest()), ..inside };
    let huge = Header { height: u64::MAX, ..last.clone() };
    let round = |height, expected, found| NotFinal::Round { height, expected, found };
    let not_final = HandoverError::NotFinal;
    for (what, header, epoch, source) in [
        ("certified in another round", &last, 1, not_final(round(3, 0, 1))),
        ("in the last of all rounds", &last, u64::MAX, not_final(round(3, 0, u64::MAX))),
        ("inside a round", &early, 0, HandoverError::InsideRound { height: 2 }),
        ("of the last of all heights", &huge, 0, not_final(round(u64::MAX, u64::MAX / 4, 0))),
    ] {
        let height = header.height;
        let refused = file(header, epoch).unwrap_err();
        assert_eq!(refused, TrustError::Handover { height, source }, "{what}");
    }
    // A quorum may say of the last round of all that it is over, and nothing comes after it.
    let end = file(&huge, u64::MAX / 4).unwrap();
    assert_eq!(end.eras().eras[1].from_epoch, u64::MAX / 4 + 1);
}

#[test]
fn a_handover_says_what_changes_about_the_members_and_nothing_else() {
    use bkss_ledger::{Change, change::Body};

    let mut world = world(4, 6);
    let network = world.consortium.genesis.network();
    let mut leave = Change::new(Body::Leave(ProviderId(5)), 9);
    leave.sign(network, &world.consortium.keys[5]);
    world.block(&[Transaction::Change(leave)]);
    let mut address = Change::new(Body::Address(ProviderId(1), "b:2".try_into().unwrap()), 9);
    address.sign(network, &world.consortium.keys[1]);
    world.block(&[Transaction::Change(address)]);
    let [left, moved] = &world.handovers()[..] else { unreachable!() };
    let genesis = world.consortium.genesis.encode();
    let former = world.consortium.genesis.provider(ProviderId(5)).unwrap().clone();
    let of_former = |trust: &Trust| {
        trust.anchors().providers.iter().find(|provider| provider.id == former.id).cloned()
    };
    assert_eq!(of_former(&world.trust()), Some(former.clone()), "it vouches for its meters");

    // The members of today stay as the header says, and those of yesterday become others.
    let handover: Handover<'_> = codec::decode("handover", moved).unwrap();
    let genuine = MembersChange::decode(handover.members.unwrap()).unwrap();
    let mut stranger = former.clone();
    stranger.key = world.consortium.keys[0].public();
    let unknown = ProviderId(77);
    let with = |change: &dyn Fn(&mut MembersChange)| {
        let mut altered = genuine.clone();
        change(&mut altered);
        let bytes = altered.encode();
        let handover = Handover { members: Some(&bytes), ..handover.clone() };
        Trust::decode(&[&genesis[..], &left[..], &encoded(&handover)].concat())
    };
    assert_eq!(with(&|_| ()).unwrap().encode(), world.file());
    let unchanged = world.consortium.genesis.provider(ProviderId(0)).unwrap();
    let sdi = world.consortium.genesis.sdi(bkss_scheme::SdiId(0)).unwrap();
    type Alter<'a> = &'a dyn Fn(&mut MembersChange);
    let comes_and_goes: Alter<'_> = &|change| {
        change.providers.push(stranger.clone());
        change.gone.push(stranger.id);
    };
    let goes_again: Alter<'_> = &|change| change.gone.push(former.id);
    let nobody_goes: Alter<'_> = &|change| change.gone.push(unknown);
    let says_the_same: Alter<'_> = &|change| change.providers.insert(0, unchanged.clone());
    let an_sdi_says_the_same: Alter<'_> = &|change| change.sdis.push(sdi.clone());
    let twice: Alter<'_> = &|change| change.providers.push(change.providers[0].clone());
    for (what, alter) in [
        ("a former provider with another key", comes_and_goes),
        ("one that has gone before", goes_again),
        ("one that there never was", nobody_goes),
        ("one that has not changed", says_the_same),
        ("an SDI that has not changed", an_sdi_says_the_same),
        ("one twice", twice),
    ] {
        let refused = with(alter).err();
        assert_eq!(refused, Some(TrustError::NoDifference { height: 2 }), "{what}");
    }
}

/// An archive of these blocks; a certificate for those of which `certified` says in which epoch.
fn archive(world: &World, certified: impl Fn(&FinalBlock) -> Option<u64>) -> Vec<u8> {
    let consortium = &world.consortium;
    let mut writer = Writer::new(Vec::new(), consortium.genesis.network()).unwrap();
    let mut committee = consortium.genesis.committee().clone();
    for block in &world.blocks {
        let id = block.verified().block().id();
        let signed =
            certified(block).map(|epoch| (epoch, consortium.certify_in(epoch, &committee, id, 9)));
        let certificate = signed.as_ref().map(|(epoch, (signers, signatures))| Certificate {
            epoch: *epoch,
            view: 9,
            parent_view: 8,
            signers: *signers,
            signatures,
        });
        writer.block(block.verified().block(), certificate).unwrap();
        let handover = block.handover();
        let handover: Option<Handover<'_>> =
            handover.as_ref().map(|bytes| codec::decode("handover", bytes).unwrap());
        committee = handover.and_then(|handover| handover.committee).unwrap_or(committee);
    }
    writer.finish().unwrap()
}

fn run(world: &World, archive: &[u8], known: Known) -> Report {
    audit(&world.consortium.genesis, archive, known)
}

/// Twelve blocks: three rounds but for block 0, of which the genesis has no file.
fn whole_rounds(seed: u64) -> World {
    let world = three_committees(seed);
    assert_eq!(world.blocks.len(), 11);
    world
}

fn own_round(block: &FinalBlock) -> Option<u64> {
    Some(ROUNDS.of(block.verified().block().header().height))
}

#[test]
fn every_round_is_certified_by_its_own_committee() {
    let world = whole_rounds(5);
    let report = run(&world, &archive(&world, own_round), Known::default());
    assert!(report.valid(), "{:?}", report.refusals);
    // Whatever the last block of a round has a certificate for is final.
    let ends = |block: &FinalBlock| {
        own_round(block).filter(|_| ROUNDS.ends(block.verified().block().header().height))
    };
    let report = run(&world, &archive(&world, ends), Known::default());
    assert!(report.valid(), "{:?}", report.refusals);
    // The last block of a round is final by its own certificate only.
    for (without, from, to) in [(3, 3, 3), (7, 7, 7)] {
        let all_but = |block: &FinalBlock| {
            own_round(block).filter(|_| block.verified().block().header().height != without)
        };
        let report = run(&world, &archive(&world, all_but), Known::default());
        let [Finding::NotFinal { from: first, to: last }] = report.refusals[..] else {
            unreachable!("{:?}", report.refusals)
        };
        assert_eq!((first, last), (from, to));
    }
    // A round of which nobody has certified anything, before one that its committee has.
    let later = |block: &FinalBlock| own_round(block).filter(|round| *round > 0);
    let report = run(&world, &archive(&world, later), Known::default());
    assert_eq!(report.refusals[0].to_string(), "blocks 1 to 3 have no certificate of their round");
    assert_eq!(report.refusals.len(), 1, "{:?}", report.refusals);
    // Certified by the right committee in another round.
    let in_another = |block: &FinalBlock| own_round(block).map(|round| round.max(1));
    let report = run(&world, &archive(&world, in_another), Known::default());
    let reasons: Vec<_> = report
        .refusals
        .iter()
        .map(|finding| match finding {
            Finding::Certificate { height, reason } => (*height, *reason),
            other => unreachable!("{other}"),
        })
        .collect();
    let expected =
        [1, 2, 3].map(|height| (height, NotFinal::Round { height, expected: 0, found: 1 }));
    assert_eq!(reasons, expected);
}

/// Three of ten, of whom the first committee has seen none, vote for each other in a round that
/// nobody certified, and go on from there.
#[test]
fn an_audit_takes_no_history_that_the_first_committee_has_not_certified() {
    let mut world = world(6, 10);
    let first = world.nodes();
    let liars: Vec<u16> = (0..10).filter(|id| !first.contains(id)).take(3).collect();
    let for_others = |liar: u16| liars.iter().copied().filter(move |other| *other != liar);
    let votes: Vec<_> = liars.iter().map(|liar| world.vote(*liar, for_others(*liar))).collect();
    world.round(&votes);
    let seats = world.nodes().intersection(&liars.iter().copied().collect()).count();
    assert!(seats >= world.state.round().committee.quorum(), "{seats}");
    let meter = world.consortium.meter(u32::from(*first.first().unwrap()));
    world.block(&[meter.registers()]);
    let forged = meter.sign(1, 999_999);
    let request = world.consortium.requests(usize::from(liars[0]), 1, &[(0, forged.value)]);
    world.block_at(at(1, 1), &[request]);
    let opening = world.consortium.openings(usize::from(liars[0]), &[(0, &forged)]);
    world.block_at(at(1, 300), &[opening]);
    let later = |block: &FinalBlock| own_round(block).filter(|round| *round > 0);
    let report = run(&world, &archive(&world, later), Known::default());
    assert!(!report.valid());
    assert_eq!(report.refusals[0].to_string(), "blocks 1 to 3 have no certificate of their round");
}

#[test]
fn a_head_from_elsewhere_tells_what_an_archive_leaves_out() {
    let mut world = whole_rounds(7);
    let newest = world.state.head();
    let whole = archive(&world, own_round);
    let head_of = |world: &World, height: u64| {
        world.blocks[usize::try_from(height).unwrap() - 1].verified().block().id()
    };
    let genesis = world.consortium.genesis.header().id();
    let strange = Digest([9; 32]);
    let short = {
        let mut short = World::of(Consortium::with(7, 7, ROUNDS));
        short.blocks = world.blocks[..5].to_vec();
        archive(&short, own_round)
    };
    let (ids, first) = ([5, 6, 11].map(|height| head_of(&world, height)), at(0, 1));
    let end_of_short = world.blocks[4].header().time;
    let known = |height: Option<u64>, id| Known { head: Some((height, id)), until: None };
    let until = |time| Known { head: None, until: Some(time) };
    for (what, bytes, known, refused) in [
        ("whole", &whole, known(Some(11), ids[2]), None),
        ("whole, of an older head", &whole, known(Some(5), ids[0]), None),
        ("whole, of an id alone", &whole, known(None, ids[1]), None),
        ("whole, of the genesis", &whole, known(Some(0), genesis), None),
        ("whole, until its end", &whole, until(newest.time), None),
        ("cut, of its own end", &short, known(Some(5), ids[0]), None),
        ("cut, until its end", &short, until(end_of_short), None),
        ("cut, until its beginning", &short, until(first), None),
        (
            "cut",
            &short,
            known(Some(6), ids[1]),
            Some("the archive ends with block 5, the head that was given is block 6".to_owned()),
        ),
        (
            "cut, of an id alone",
            &short,
            known(None, ids[1]),
            Some(format!("no block of the archive has the id {} that was given", ids[1])),
        ),
        (
            "cut, a millisecond later",
            &short,
            until(LedgerTime(end_of_short.0 + 1)),
            Some(format!(
                "the archive ends at {end_of_short} ms, it was to reach {} ms",
                end_of_short.0 + 1
            )),
        ),
        (
            "another history",
            &whole,
            known(Some(5), strange),
            Some(format!(
                "block 5 is {}, the head that was given says {strange}: two histories",
                ids[0]
            )),
        ),
        (
            "another genesis",
            &whole,
            known(Some(0), strange),
            Some(format!(
                "block 0 is {genesis}, the head that was given says {strange}: two histories"
            )),
        ),
        (
            "an id of another history",
            &whole,
            known(None, strange),
            Some(format!("no block of the archive has the id {strange} that was given")),
        ),
    ] {
        let report = run(&world, bytes, known);
        let found = report.refusals.first().map(ToString::to_string);
        assert_eq!(found, refused, "{what}");
        assert!(report.refusals.len() <= 1, "{what}: {:?}", report.refusals);
    }
    let report = run(&world, &whole, Known::default());
    assert_eq!(report.newest, Some(newest));
    world.block(&[]);
    assert_ne!(report.newest, Some(world.state.head()));
}

/// Where a late joiner begins is proven by the committees that his genesis file leads to.
#[test]
fn a_beginning_of_another_history_is_none() {
    let honest = three_committees(8);
    // The same founders, other committees: their keys have been stolen since.
    let mut other = world(8, 7);
    for picks in [[0, 2, 4, 6], [1, 3, 5, 6], [0, 2, 4, 6]] {
        let votes = other.everybody_for(&picks);
        other.round(&votes);
    }
    let hand_out = |world: &World| {
        let mut state = world.consortium.state();
        let mut committee = state.round().committee.clone();
        for block in &world.blocks[..7] {
            committee = state.round().committee.clone();
            state.apply(block.verified()).unwrap();
        }
        let (proof, end) = (&world.blocks[10], &world.blocks[6]);
        let (header, finality) = (proof.header().clone(), proof.finality().unwrap());
        let mut bytes = Vec::new();
        beginning::write_proof(&TimeProof { header, finality }, &mut bytes).unwrap();
        let (header, finality) = (end.header().clone(), end.finality().unwrap());
        let boundary = bkss_ledger::Boundary { header, finality, committee };
        beginning::write_boundary(&boundary, &mut bytes).unwrap();
        bkss_ledger::snapshot::write(&mut state, &mut bytes).unwrap();
        bytes
    };
    let (trust, theirs) = (honest.trust(), hand_out(&other));
    assert!(Beginning::read(&trust, &hand_out(&honest)[..]).is_ok());
    assert!(Beginning::read(&other.trust(), &theirs[..]).is_ok(), "it hangs together");
    let error = Beginning::read(&trust, &theirs[..]).err().unwrap();
    let BeginningError::NotFinal { height: 11, source: NotFinal::Committee { .. } } = error else {
        unreachable!("{error}")
    };
}
