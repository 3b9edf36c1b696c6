//! Histories that nobody has lived through: rounds that nobody certified, archives that leave
//! something out, beginnings of another ledger.

use bkss_ledger::{
    Beginning, Boundary, FinalBlock,
    archive::Writer,
    audit::{Finding, Known, Report, audit},
    beginning::{self, BeginningError},
    snapshot,
};
use bkss_scheme::{
    Certificate, Digest, Handover, Header, LedgerTime, certificate::NotFinal, codec,
    finality::Finality, timestamp::TimeProof,
};

use crate::{
    consortium::{SHORT, at},
    world::World,
};

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

fn own_round(block: &FinalBlock) -> Option<u64> {
    Some(SHORT.of(block.verified().block().header().height))
}

#[test]
fn every_round_is_certified_by_its_own_committee() {
    let world = World::with_three_handovers(5);
    let report = run(&world, &archive(&world, own_round), Known::default());
    assert!(report.valid(), "{:?}", report.refusals);
    // Whatever the last block of a round has a certificate for is final.
    let ends = |block: &FinalBlock| {
        own_round(block).filter(|_| SHORT.ends(block.verified().block().header().height))
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
    let mut world = World::short(6, 10);
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
    let mut world = World::with_three_handovers(7);
    let newest = world.state.head();
    let whole = archive(&world, own_round);
    let head_of = |world: &World, height: u64| {
        world.blocks[usize::try_from(height).unwrap() - 1].verified().block().id()
    };
    let genesis = world.consortium.genesis.header().id();
    let strange = Digest([9; 32]);
    let short = {
        let mut short = World::short(7, 7);
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
            Some(
                "the archive ends with block 5, the head that was given is block 6: later blocks were left \
                 out, or the archive was fetched before the head"
                    .to_owned(),
            ),
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

/// What a node hands out to a late joiner: the state at the end of round 1, of which block 11 proves
/// that it is so, with what a liar may change about the proof and the boundary block.
fn hand_out(world: &World, lie: impl Fn(&mut Header, &mut Certificate<'_>, u64)) -> Vec<u8> {
    let mut state = world.consortium.state();
    let mut committee = state.round().committee.clone();
    for block in &world.blocks[..7] {
        committee = state.round().committee.clone();
        state.apply(block.verified()).unwrap();
    }
    let part = |height: usize| {
        let block = &world.blocks[height - 1];
        let (mut header, mut finality) = (block.header().clone(), block.finality().unwrap());
        lie(&mut header, &mut finality.certificate, height as u64);
        (header, finality)
    };
    let ((header, finality), (last, of_last)) = (part(11), part(7));
    let mut bytes = Vec::new();
    beginning::write_proof(&TimeProof { header, finality }, &mut bytes).unwrap();
    let boundary = Boundary { header: last, finality: of_last, committee };
    beginning::write_boundary(&boundary, &mut bytes).unwrap();
    snapshot::write(&mut state, &mut bytes).unwrap();
    bytes
}

/// Where a late joiner begins is proven by the committees that his genesis file leads to.
#[test]
fn a_beginning_of_another_history_is_none() {
    let honest = World::with_three_handovers(8);
    // The same founders, other committees: their keys have been stolen since.
    let mut other = World::short(8, 7);
    for picks in [[0, 2, 4, 6], [1, 3, 5, 6], [0, 2, 4, 6]] {
        let votes = other.everybody_for(&picks);
        other.round(&votes);
    }
    let (trust, theirs) = (honest.trust(), hand_out(&other, |_, _, _| ()));
    assert!(Beginning::read(&trust, &hand_out(&honest, |_, _, _| ())[..]).is_ok());
    assert!(Beginning::read(&other.trust(), &theirs[..]).is_ok(), "it hangs together");
    let error = Beginning::read(&trust, &theirs[..]).err().unwrap();
    let BeginningError::NotFinal { height: 11, source: NotFinal::Committee { .. } } = error else {
        unreachable!("{error}")
    };
}

#[test]
fn numbers_at_their_end_are_refused_in_words() {
    let world = World::with_three_handovers(9);
    let trust = world.trust();
    let last = u64::MAX / 4;
    for at in [7, 11] {
        let huge = |header: &mut Header, certificate: &mut Certificate<'_>, height| {
            if height == at {
                (header.height, certificate.epoch) = (u64::MAX, u64::MAX);
            }
        };
        let error = Beginning::read(&trust, &hand_out(&world, huge)[..]).err().unwrap();
        let BeginningError::NotFinal { height: u64::MAX, source } = error else {
            unreachable!("{error}")
        };
        let (height, found) = (u64::MAX, u64::MAX);
        assert_eq!(source, NotFinal::Round { height, expected: last, found });
    }
    // A proof through a successor of the last block that has a number.
    let mut header = world.blocks[4].header().clone();
    (header.height, header.committee) = (u64::MAX, trust.committee().digest());
    let time = LedgerTime(header.time.0 + 1);
    let next = Header { previous: header.id(), time, ..header };
    let mut descendants = Vec::new();
    codec::encode_infallible(&next, &mut descendants);
    let certificate =
        Certificate { epoch: last, ..world.blocks[10].finality().unwrap().certificate };
    let finality = Finality { descendants: &descendants, certificate };
    let found = trust.eras().certified(&finality, &header);
    assert_eq!(found, Err(NotFinal::Unlinked { height: u64::MAX }));
}
