//! From the committee of the genesis to later ones: by handovers, and out of office for good.

use bkss_ledger::{
    Change, Genesis, Transaction, Trust, TrustError, change::Body, members::MembersChange,
};
use bkss_scheme::{
    Certificate, Committee, Digest, Handover, Header, LedgerTime, ProviderId, SdiId, Timestamp,
    TreeHead,
    certificate::NotFinal,
    codec,
    finality::{EraEnd, Finality},
    handover::HandoverError,
    merkle::Path,
    receipt::{Check, Failure, Receipt},
    timestamp::{Inclusion, request_leaf},
    transaction::opening_leaf,
};

use crate::{
    consortium::{Meter, at},
    world::World,
};

#[test]
fn an_era_ends_with_the_block_that_hands_over() {
    let world = World::with_three_handovers(1);
    let trust = world.trust();
    let ends: Vec<_> = trust.eras().eras.iter().map(|era| (era.from_epoch, era.end)).collect();
    let end = |height: u64| {
        let block = &world.blocks[usize::try_from(height).unwrap() - 1];
        Some(EraEnd { height, time: block.header().time })
    };
    assert_eq!(ends, [(0, end(3)), (1, end(7)), (2, end(11)), (3, None)]);
}

#[test]
fn a_history_goes_on_from_its_own_beginning_only() {
    let world = World::with_three_handovers(1);
    let all = world.trust();
    let mut first = Trust::new(Genesis::clone(&world.consortium.genesis));
    assert!(first.is_continued_by(&all) && !all.is_continued_by(&first));
    first.follow(&codec::decode("handover", &world.handovers()[0]).unwrap()).unwrap();
    assert!(first.is_continued_by(&all) && !all.is_continued_by(&first));
    assert!(all.is_continued_by(&all));
    // The same founders, and committees that decided otherwise.
    let mut other = World::short(1, 7);
    let votes = other.everybody_for(&[1, 2, 5, 6]);
    other.round(&votes);
    let other = other.trust();
    assert_eq!(other.genesis().network(), all.genesis().network());
    for (one, another) in [(&first, &other), (&all, &other), (&other, &all)] {
        assert!(!one.is_continued_by(another));
    }
    let network = World::with_three_handovers(2).trust();
    assert!(!Trust::new(Genesis::clone(&world.consortium.genesis)).is_continued_by(&network));
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
        let leaf = opening_leaf(message.meter, forged.index, &forged.value);
        let opened = header(at(5, 301), None, None, tree(leaf));
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
    let mut world = World::with_three_handovers(2);
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
    let mut world = World::short(3, 7);
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
    let huge = Header { height: u64::MAX, ..last };
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
    let mut world = World::short(4, 6);
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
    // Whoever is present is as the header says.
    let expected = handover.header.members;
    let elsewhere = with(&|change| change.providers[0].address = "c:3".try_into().unwrap());
    let Err(TrustError::Members { height: 2, expected: named, found: Some(found) }) = elsewhere
    else {
        unreachable!("{elsewhere:?}")
    };
    assert!(named == expected && expected != Some(found), "{found}");
    let silent = Handover { members: None, ..handover.clone() };
    let silent = Trust::decode(&[&genesis[..], &left[..], &encoded(&silent)].concat());
    assert_eq!(silent.err(), Some(TrustError::Members { height: 2, expected, found: None }));
    let unchanged = world.consortium.genesis.provider(ProviderId(0)).unwrap();
    let sdi = world.consortium.genesis.sdi(SdiId(0)).unwrap();
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
