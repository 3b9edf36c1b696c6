//! A29: what is registered must be what the meter knows, field by field, before its first release.

use bkss_meter::{
    Meter,
    signer::{RegistrationMismatch, SignError},
};
use bkss_scheme::{
    Digest, Handover, LedgerTime, Link, MeterId, Network, ProviderId, RootMessage, SdiId, Slot,
    TreeHead,
    certificate::NotFinal,
    codec,
    merkle::{self, Path},
    root_message::SaltNonce,
    timestamp::{Inclusion, RegistrationProof, TimeProof},
};

use crate::consortium::{
    Consortium, NETWORK, Provisioned, QUORUM, SoftwareMeter, at, index, reading, registration,
};

fn confirm(
    provisioned: &Provisioned,
    meter: &mut SoftwareMeter,
    message: RootMessage,
) -> Result<(), RegistrationMismatch> {
    let bytes = provisioned.consortium.registration_proof(&registration(message));
    meter.confirm_registration(&codec::decode("proof", &bytes).unwrap())
}

type Change = fn(&mut RootMessage);

/// One change of each field under which links of the meter could be used.
const CHANGES: [(&str, Change); 7] = [
    ("r", |message| message.root = Digest([1; 32])),
    ("g_0", |message| message.schedule.first = Slot(1_999_999)),
    ("L", |message| message.schedule.slot_s = 1800),
    ("W", |message| message.schedule.window_s = 301),
    ("n", |message| message.schedule.slots = 199),
    ("device", |message| message.device = Digest([1; 32])),
    ("revocation lock", |message| message.revocation_lock = Some(Digest([1; 32]))),
];

#[test]
fn any_field_that_is_registered_otherwise_locks_the_meter_for_good() {
    let mut provisioned = Provisioned::new(1);
    let expected = provisioned.parameters.root_message.clone();
    for (field, change) in CHANGES {
        let mut meter = provisioned.meter();
        meter.sign(at(2, 0), &reading(1), &mut provisioned.rng).unwrap();
        provisioned.bring_time(&mut meter, at(2, 300_000));
        let mut registered = expected.clone();
        change(&mut registered);
        let refused = confirm(&provisioned, &mut meter, registered);
        assert_eq!(refused, Err(RegistrationMismatch::Locked(field)));
        for _ in 0..2 {
            assert_eq!(meter.locked(), Some(field));
            let signed = meter.sign(at(3, 0), &reading(1), &mut provisioned.rng).err();
            assert_eq!(signed, Some(SignError::Locked(field)));
            // Not even a registration that is right unlocks it.
            let _ = confirm(&provisioned, &mut meter, expected.clone());
            assert_eq!(meter.release(), None, "{field}");
            meter = provisioned.restarted(meter);
        }
    }
}

#[test]
fn a_confirmed_meter_is_locked_by_a_later_contradiction() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.confirmed_meter();
    meter.sign(at(2, 0), &reading(1), &mut provisioned.rng).unwrap();
    provisioned.bring_time(&mut meter, at(2, 300_000));
    assert!(meter.release().is_some());
    let mut registered = provisioned.parameters.root_message.clone();
    registered.schedule.window_s = 600;
    let refused = confirm(&provisioned, &mut meter, registered);
    assert_eq!(refused, Err(RegistrationMismatch::Locked("W")));
    assert_eq!(meter.release(), None);
}

#[test]
fn another_meters_registration_neither_confirms_nor_locks() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.meter();
    let other = |message: &RootMessage| RootMessage {
        meter: MeterId(6),
        nonce: SaltNonce([8; 16]),
        anchor: Link::from_bytes([1; 32]),
        ..message.clone()
    };
    let own = provisioned.parameters.root_message.clone();
    let refused = confirm(&provisioned, &mut meter, other(&own));
    assert_eq!(refused, Err(RegistrationMismatch::OtherChain));
    // Another chain of the same number, an earlier one for example, is not this meter's either.
    let refused =
        confirm(&provisioned, &mut meter, RootMessage { meter: own.meter, ..other(&own) });
    assert_eq!(refused, Err(RegistrationMismatch::OtherChain));
    // What repeats all that is public of this meter, but for one of the fields that name a chain, is
    // a stranger's: with his own SDI he can register it, and no link of this meter fits it.
    let strangers: [Change; 5] = [
        |message| message.meter = MeterId(6),
        |message| message.owner = ProviderId(2),
        |message| message.sdi = SdiId(1),
        |message| message.nonce = SaltNonce([8; 16]),
        |message| message.anchor = Link::from_bytes([1; 32]),
    ];
    let mut confirmed = provisioned.confirmed_meter();
    for change in strangers {
        let mut message = own.clone();
        change(&mut message);
        message.schedule.window_s = 1;
        for meter in [&mut meter, &mut confirmed] {
            let refused = confirm(&provisioned, meter, message.clone());
            assert_eq!(refused, Err(RegistrationMismatch::OtherChain));
            assert_eq!(meter.locked(), None);
        }
    }
    meter.sign(at(2, 0), &reading(1), &mut provisioned.rng).unwrap();
    provisioned.bring_time(&mut meter, at(2, 300_000));
    assert_eq!((meter.locked(), meter.release()), (None, None));
    provisioned.confirm(&mut meter);
    assert_eq!(meter.release().map(|release| release.index), Some(index(2)));
}

#[test]
fn a_registration_counts_in_a_final_block_only() {
    let provisioned = Provisioned::new(1);
    let consortium = &provisioned.consortium;
    let registration = registration(provisioned.parameters.root_message.clone());
    let leaf = registration.leaf(NETWORK);
    let tree = |root| Some(TreeHead { count: 1, root });
    let header = consortium.header(LedgerTime(1), tree(leaf));
    let without = consortium.header(LedgerTime(1), tree(merkle::leaf(&[b"other"])));
    let empty = consortium.header(LedgerTime(1), None);
    let mut as_request = consortium.header(LedgerTime(1), None);
    as_request.requests = tree(leaf);
    let block = header.id();
    for (what, header, network, members, refusal) in [
        ("two of four", &header, NETWORK, &[0, 1][..], {
            RegistrationMismatch::NotFinal(NotFinal::Quorum { expected: 3, found: 2 })
        }),
        ("another network", &header, Network([9; 16]), &QUORUM, {
            RegistrationMismatch::NotFinal(NotFinal::Signature { member: 0, block })
        }),
        ("not in the tree", &without, NETWORK, &QUORUM, RegistrationMismatch::NotIncluded),
        ("no tree", &empty, NETWORK, &QUORUM, RegistrationMismatch::NotIncluded),
        ("in another tree", &as_request, NETWORK, &QUORUM, RegistrationMismatch::NotIncluded),
    ] {
        let votes = consortium.sign(network, header.id(), members);
        let finality = votes.finality();
        let inclusion =
            Inclusion { index: 0, path: Path::default(), header: header.clone(), finality };
        let proof = RegistrationProof { registration: registration.clone(), inclusion };
        let mut meter = provisioned.meter();
        assert_eq!(meter.confirm_registration(&proof), Err(refusal), "{what}");
        assert_eq!(meter.locked(), None, "{what}");
    }
    let votes = consortium.sign(NETWORK, header.id(), &QUORUM);
    let (path, finality) = (Path::default(), votes.finality());
    let inclusion = Inclusion { index: 0, path, header, finality };
    let mut proof = RegistrationProof { registration, inclusion };
    assert_eq!(provisioned.meter().confirm_registration(&proof), Ok(()));
    // The owner's signature is part of what is in the block.
    proof.registration.owner_signature.0[9] ^= 1;
    let refused = provisioned.meter().confirm_registration(&proof);
    assert_eq!(refused, Err(RegistrationMismatch::NotIncluded));
}

#[test]
fn a_root_message_that_is_not_of_the_keys_locks_from_the_start() {
    let mut provisioned = Provisioned::new(1);
    let changes: [(&str, Change); 7] = [
        ("salt", |message| message.nonce = SaltNonce([8; 16])),
        ("salt", |message| message.meter = MeterId(6)),
        ("L", |message| message.schedule.slot_s = 0),
        ("W", |message| message.schedule.window_s = 0),
        ("W", |message| message.schedule.window_s = 900),
        ("n", |message| message.schedule.slots = 201),
        ("v_0", |message| message.anchor = Link::from_bytes([1; 32])),
    ];
    for (field, change) in changes {
        let (journal, keys) = provisioned.meter().switch_off();
        let mut parameters = provisioned.parameters.clone();
        change(&mut parameters.root_message);
        let mut meter = Meter::new(parameters, journal, keys);
        let refused = meter.sign(at(1, 0), &reading(1), &mut provisioned.rng).err();
        assert_eq!(refused, Some(SignError::Locked(field)));
    }
}

/// A gateway that shows a genuine handover before the registration delays the release, and no more:
/// an unconfirmed meter follows again, a confirmed one does not go back.
#[test]
fn a_handover_shown_too_early_does_not_keep_a_meter_from_releasing() {
    let mut provisioned = Provisioned::new(1);
    let second = Consortium::new(2);
    let mut meter = provisioned.meter();
    meter.sign(at(2, 0), &reading(1), &mut provisioned.rng).unwrap();
    let mut end = provisioned.consortium.last_of(4, at(1, 0));
    end.next_committee = Some(second.committee.digest());
    let votes = provisioned.consortium.sign_in(4, NETWORK, end.id(), &QUORUM);
    let committee = Some(second.committee.clone());
    let handover = Handover { header: end, finality: votes.finality(), committee, members: None };
    meter.on_handover(&handover).unwrap();
    let later = second.last_of(5, at(2, 400_000));
    let votes = second.sign_in(5, NETWORK, later.id(), &QUORUM);
    let time = TimeProof { header: later, finality: votes.finality() };
    meter.on_time(at(2, 400_000), &time).unwrap();

    let message = provisioned.parameters.root_message.clone();
    let of_another_era =
        Err(RegistrationMismatch::NotFinal(NotFinal::Epoch { first: 5, found: 0 }));
    assert_eq!(confirm(&provisioned, &mut meter, message.clone()), of_another_era);
    assert_eq!(meter.release(), None);
    assert!(meter.follow_again());
    assert_eq!(meter.certified_time(), Some(at(2, 400_000)), "what is certified stays");
    assert_eq!(confirm(&provisioned, &mut meter, message), Ok(()));
    assert!(meter.release().is_some());
    assert!(!meter.follow_again(), "it is confirmed");
    meter.on_handover(&handover).unwrap();
    assert_eq!(meter.era().from_epoch, 5);
}
