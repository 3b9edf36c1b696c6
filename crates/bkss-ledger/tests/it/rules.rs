//! Algorithm 2 as repaired: what is accepted, what is skipped, what makes a block invalid.

use bkss_ledger::{
    Block, Checked, Pool, Refusal, State, Transaction, Verified, build,
    execute::{SkipReason, TransactionRefusal},
    membership::RegistrationRefusal,
    propose,
    transaction_batch::Row,
    verify, verify_with,
};
use bkss_scheme::{
    Digest, Header, LedgerTime, Link, ProviderId, RootMessage, SdiId, Signature, Slot,
    root_message::Registration, slot::Schedule,
};

use crate::{
    blocks::{block, offered, reasons, refusal},
    consortium::{Consortium, FIRST, Meter, SLOT_S, Signed, at, slots_from},
};

/// A state with `count` meters registered in its first block.
fn registered(consortium: &mut Consortium, count: u32) -> (State, Vec<Meter>) {
    let meters: Vec<_> = (0..count).map(|number| consortium.meter(number)).collect();
    let mut state = consortium.state();
    let verified = block(&mut state, at(0, 10), meters.iter().map(Meter::registers));
    assert_eq!(verified.registered().len(), count as usize);
    (state, meters)
}

#[test]
fn a_reading_is_requested_in_its_window_and_opened_behind_it() {
    let mut consortium = Consortium::new(1);
    let (mut state, meters) = registered(&mut consortium, 3);
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 26)).collect();
    let items: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    let accepted = block(&mut state, at(1, 5), [consortium.requests(0, 1, &items)]);
    assert_eq!(accepted.requests().len(), 3);
    let items: Vec<_> = (0..).zip(&signed).collect();
    let accepted = block(&mut state, at(1, 300), [consortium.openings(0, &items)]);
    assert_eq!(accepted.openings().len(), 3);
    assert_eq!(reasons(&accepted), []);
    let live = state.view().live(0).cloned().unwrap();
    assert_eq!((live.last_index, live.pending.len()), (1, 0));
}

#[test]
fn a_request_outside_its_time_is_skipped_with_the_reason() {
    let mut consortium = Consortium::new(2);
    let (state, meters) = registered(&mut consortium, 1);
    let value = meters[0].sign(2, 1).value;
    for (what, index, row, time, expected) in [
        ("a second early", 2, 0, at(1, u64::from(SLOT_S) - 1), Some(SkipReason::WrongTime)),
        ("at its start", 2, 0, at(2, 0), None),
        ("in its last second", 2, 0, at(2, 299), None),
        ("when the window has closed", 2, 0, at(2, 300), Some(SkipReason::WrongTime)),
        ("one slot later", 2, 0, at(3, 0), Some(SkipReason::WrongTime)),
        ("behind the chain", 14, 0, at(14, 0), Some(SkipReason::OutsideChain)),
        ("before the chain", 0, 0, at(0, 20), Some(SkipReason::OutsideChain)),
        ("of nobody", 2, 1, at(2, 0), Some(SkipReason::UnknownMeter)),
    ] {
        let slot_index = index;
        let batch = if slot_index == 0 {
            // Link 0 does not exist: sign the slot before the first by hand.
            let Transaction::Requests(batch) = consortium.requests(0, 1, &[(row, value)]) else {
                unreachable!()
            };
            Transaction::Requests(bkss_ledger::RequestBatch::sign(
                consortium.genesis.network(),
                batch.submitter,
                &consortium.keys[0],
                Slot(batch.slot.0 - 1),
                [(row, value)],
            ))
        } else {
            consortium.requests(0, slot_index, &[(row, value)])
        };
        let verified = offered(&state, time, &[batch]).unwrap();
        assert_eq!(reasons(&verified).first().copied(), expected, "{what}");
        assert_eq!(verified.requests().len(), usize::from(expected.is_none()), "{what}");
    }
}

#[test]
fn an_opening_is_refused_for_its_reason() {
    let mut consortium = Consortium::new(3);
    let (mut state, meters) = registered(&mut consortium, 2);
    let honest = meters[0].sign(1, 26);
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &[(0, honest.value)])]);
    let copy = |body: &Signed, link: Link| Signed {
        slot: honest.slot,
        index: honest.index,
        body: body.body.clone(),
        value: honest.value,
        link,
    };
    let other_reading = meters[0].sign(1, 27);
    let other_link = copy(&honest, meters[0].link(2));
    let other_body = copy(&other_reading, honest.link.clone());
    let opened = copy(&honest, honest.link.clone());
    let week = 604_800;
    for (what, row, signed, time, expected) in [
        ("while the window is open", 0, &opened, at(1, 299), Some(SkipReason::WrongTime)),
        ("a week later", 0, &opened, at(1, week), Some(SkipReason::WrongTime)),
        ("in the last second of the week", 0, &opened, at(1, week - 1), None),
        ("with another body (A4)", 0, &other_body, at(1, 300), Some(SkipReason::NoRequest)),
        ("with another link", 0, &other_link, at(1, 300), Some(SkipReason::NoRequest)),
        ("for another meter", 1, &opened, at(1, 300), Some(SkipReason::NoRequest)),
        ("as it was requested", 0, &opened, at(1, 300), None),
    ] {
        let verified = offered(&state, time, &[consortium.openings(1, &[(row, signed)])]).unwrap();
        assert_eq!(reasons(&verified).first().copied(), expected, "{what}");
    }

    block(&mut state, at(1, 300), [consortium.openings(1, &[(0, &opened)])]);
    let again = offered(&state, at(1, 301), &[consortium.openings(2, &[(0, &opened)])]).unwrap();
    assert_eq!(reasons(&again), [SkipReason::NoRequest], "a second time (A10)");
}

#[test]
fn a_request_for_a_link_that_is_not_of_the_chain_never_opens_and_its_opening_spoils_a_block() {
    let mut consortium = Consortium::new(4);
    let (mut state, meters) = registered(&mut consortium, 1);
    // Own chain, victim's number (A1): q is consistent, the link is not the registered chain's.
    let forger = consortium.meter(0);
    let mut forged = forger.sign(1, 99);
    let commitment = bkss_scheme::request::commitment(
        &meters[0].id,
        forged.index,
        &bkss_scheme::hash::plain(&forged.body),
    );
    forged.value = bkss_scheme::request::request_value(&commitment, &forged.link);
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &[(0, forged.value)])]);
    let reason = refusal(&state, at(1, 300), &consortium.openings(2, &[(0, &forged)]));
    assert_eq!(reason, TransactionRefusal::ForeignLink { gateway: ProviderId(2), item: 0 });
}

#[test]
fn a_squatter_takes_nobodys_room() {
    let mut consortium = Consortium::new(5);
    let (mut state, meters) = registered(&mut consortium, 1);
    let honest = meters[0].sign(1, 26);
    let garbage = Digest([0xEE; 32]);
    let verified = block(
        &mut state,
        at(1, 1),
        [
            consortium.requests(1, 1, &[(0, garbage)]),
            consortium.requests(0, 1, &[(0, honest.value)]),
        ],
    );
    assert_eq!(verified.requests().len(), 2, "one per gateway (A12)");
    let second = offered(&state, at(1, 2), &[consortium.requests(1, 1, &[(0, garbage)])]).unwrap();
    assert_eq!(reasons(&second), [SkipReason::SecondRequest]);
    let opened = block(&mut state, at(1, 300), [consortium.openings(2, &[(0, &honest)])]);
    assert_eq!(opened.openings()[0].request, (honest.value, honest_gateway()));
    assert!(state.view().live(0).unwrap().pending.is_empty(), "garbage goes with the slot");
}

const fn honest_gateway() -> ProviderId {
    ProviderId(0)
}

#[test]
fn gaps_and_late_openings_are_walked_in_both_directions() {
    let mut consortium = Consortium::new(6);
    let (mut state, meters) = registered(&mut consortium, 1);
    let signed: Vec<_> = [1, 5, 6, 9].map(|index| meters[0].sign(index, 1)).into();
    for signed in &signed {
        let index = signed.index.get();
        block(&mut state, at(index, 1), [consortium.requests(0, index, &[(0, signed.value)])]);
    }
    for (seconds, order, expected) in [(400, 0, 1), (401, 2, 6), (402, 1, 6), (403, 3, 9)] {
        let opening = consortium.openings(0, &[(0, &signed[order])]);
        let verified = block(&mut state, at(9, seconds), [opening]);
        assert_eq!(verified.openings().len(), 1, "link {}", signed[order].index);
        assert_eq!(state.view().live(0).unwrap().last_index, expected);
    }
}

#[test]
fn a_block_that_lies_is_refused_with_what_was_expected() {
    let mut consortium = Consortium::new(7);
    let (state, meters) = registered(&mut consortium, 1);
    let value = meters[0].sign(1, 26).value;
    let batch = consortium.requests(0, 1, &[(0, value)]);
    let good = propose(&state.view(), at(1, 1), [batch.clone()]).unwrap();
    let network = state.genesis().network();
    let head = state.head();
    let honest = good.block().header().clone();
    let tamper = |change: &dyn Fn(&mut Header)| {
        let mut header = honest.clone();
        change(&mut header);
        let block = Block::new(network, header, good.block().transactions().to_vec());
        verify(&state.view(), block).unwrap_err().to_string()
    };
    let digest = Digest([9; 32]);
    for (found, expected) in [
        (tamper(&|h| h.height = 7), "block 7 follows 2".to_owned()),
        (
            tamper(&|h| h.previous = digest),
            format!("block 2 names {digest} as the block before, expected {}", head.id),
        ),
        (
            tamper(&|h| h.time = head.time),
            format!("block 2 is of {0} ms, the one before of {0} ms", head.time),
        ),
        (
            tamper(&|h| h.committee = digest),
            format!("block 2 names committee {digest}, expected {}", honest.committee),
        ),
        (
            tamper(&|h| h.next_committee = Some(digest)),
            format!("block 2 hands over to committee None, its header says Some({digest})"),
        ),
        (
            tamper(&|h| h.members = Some(digest)),
            format!("block 2 hands over to members None, its header says Some({digest})"),
        ),
        (
            tamper(&|h| h.state = Some(digest)),
            format!("block 2 hands over state None, its header says Some({digest})"),
        ),
    ] {
        assert_eq!(found, expected);
    }
    assert!(tamper(&|h| h.requests = None).starts_with("block 2: accepted requests are"));
    assert!(tamper(&|h| h.openings = h.requests).starts_with("block 2: accepted openings are"));

    // A batch nobody signed, or signed for another network, spoils the block.
    let Transaction::Requests(mut unsigned) = batch else { unreachable!() };
    unsigned.signature = Signature([1; 64]);
    let block = Block::new(network, honest, vec![Transaction::Requests(unsigned)]);
    assert!(matches!(
        verify(&state.view(), block),
        Err(Refusal::Transaction { position: 0, reason: TransactionRefusal::Signature { .. } })
    ));
}

#[test]
fn transactions_behind_a_header_are_bound_to_it() {
    let mut consortium = Consortium::new(8);
    let (state, meters) = registered(&mut consortium, 1);
    let value = meters[0].sign(1, 26).value;
    let batch = consortium.requests(0, 1, &[(0, value)]);
    let verified = propose(&state.view(), at(1, 1), [batch]).unwrap();
    let bytes = verified.block().encode();
    let network = state.genesis().network();
    assert_eq!(Block::decode(network, &bytes, 1 << 20).as_ref(), Ok(verified.block()));
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1;
        let decoded = Block::decode(network, &altered, 1 << 20);
        let same_id = decoded.is_ok_and(|block| block.id() == verified.block().id());
        assert!(!same_id, "byte {position} of {}", bytes.len());
    }
    assert!(Block::decode(network, &bytes, bytes.len() - 1).is_err());
}

#[test]
fn a_registration_breaks_its_rules_one_by_one() {
    let mut consortium = Consortium::new(9);
    let (state, meters) = registered(&mut consortium, 1);
    let taken = meters[0].registration.message.clone();
    let fresh = consortium.meter_with(4, |message| message.schedule = slots_from(FIRST.0 + 1));
    let fresh = fresh.registration.message;
    let sign = |message: RootMessage, owner: usize| {
        let (network, sdi) = (state.genesis().network(), &consortium.sdi);
        let key = &consortium.keys[owner];
        Transaction::Registration(Registration::sign(message, network, sdi, key))
    };
    let now = at(0, 20);
    assert!(offered(&state, now, &[sign(fresh.clone(), 0)]).is_ok());
    let with = |change: &dyn Fn(&mut RootMessage)| {
        let mut message = fresh.clone();
        change(&mut message);
        let owner = usize::from(message.owner.0).min(3);
        refusal(&state, now, &sign(message, owner)).to_string()
    };
    let slots = |change: &dyn Fn(&mut Schedule)| with(&|message| change(&mut message.schedule));
    let (start, digest) = (at(2, 0), Digest([9; 32]));
    let (year, week) = (366 * 86_400, 604_800);
    let late = (now.seconds() + year).div_ceil(u64::from(SLOT_S));
    for (found, expected) in [
        (
            with(&|m| (m.meter, m.device) = (taken.meter, digest)),
            "meter 0 is registered for another device or owner".to_owned(),
        ),
        (
            with(&|m| (m.meter, m.owner) = (taken.meter, ProviderId(1))),
            "meter 0 is registered for another device or owner".into(),
        ),
        (
            with(&|m| (m.meter, m.nonce) = (taken.meter, taken.nonce)),
            "salt is already in use".into(),
        ),
        (with(&|m| m.owner = ProviderId(9)), "owner 9 is no provider".into()),
        (with(&|m| m.sdi = SdiId(9)), "SDI 9 is not known".into()),
        (slots(&|s| s.slot_s = 0), "slots of 0 s, at least 1 s are allowed".into()),
        (
            slots(&|s| (s.first, s.slot_s, s.window_s) = (Slot(3000), 700_000, week)),
            "window of 604800 s leaves nothing of the 604800 s for openings".into(),
        ),
        (
            slots(&|s| s.first = Slot(late)),
            format!(
                "first slot starts at {} ms, at most {} ms is allowed",
                late * u64::from(SLOT_S) * 1000,
                now.0 + year * 1000
            ),
        ),
        (
            refusal(&state, start, &sign(fresh.clone(), 0)).to_string(),
            format!("first slot starts at {start} ms, not after the block's {start} ms"),
        ),
        (
            refusal(&state, now, &sign(fresh.clone(), 1)).to_string(),
            "signature of the owner SP: signature does not match key and message".into(),
        ),
    ] {
        assert_eq!(found.strip_prefix("registration: "), Some(&expected[..]));
    }
    // At the start of a slot: as far ahead as the terms say, to the millisecond.
    let schedule = slots_from(FIRST.0 + year / u64::from(SLOT_S));
    let latest = sign(RootMessage { schedule, ..fresh }, 0);
    assert!(offered(&state, at(1, 0), std::slice::from_ref(&latest)).is_ok());
    let before = LedgerTime(at(1, 0).0 - 1);
    let reason = refusal(&state, before, &latest).to_string();
    assert!(reason.contains("ms is allowed"), "{reason}");
}

#[test]
fn proposals_are_verified_on_parents_that_are_not_final() {
    let mut consortium = Consortium::new(10);
    let meters: Vec<_> = (0..3).map(|number| consortium.meter(number)).collect();
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 5)).collect();
    let values: Vec<(Row, Digest)> = (0..).zip(signed.iter().map(|s| s.value)).collect();
    let openings: Vec<(Row, &Signed)> = (0..).zip(&signed).collect();
    let steps = [
        (at(0, 1), meters.iter().map(Meter::registers).collect()),
        (at(1, 1), vec![consortium.requests(0, 1, &values)]),
        (at(1, 301), vec![consortium.openings(0, &openings[..2])]),
        (at(1, 302), vec![consortium.openings(1, &openings)]),
    ];
    let state = consortium.state();
    let mut chain: Vec<Verified> = Vec::new();
    let mut applied = consortium.state();
    for (time, transactions) in steps {
        let view = state.view_with(&chain).unwrap();
        let layered = propose(&view, time, transactions.clone()).unwrap();
        let direct = block(&mut applied, time, transactions);
        assert_eq!(layered.block(), direct.block());
        assert_eq!(layered.openings(), direct.openings());
        chain.push(layered);
    }
    assert_eq!(chain[3].openings().len(), 1, "two were opened in the parent");
    let not_next = state.view_with(&chain[1..]).unwrap_err();
    assert_eq!(not_next.height, 2);
}

#[test]
fn a_verified_block_is_applied_once_and_only_behind_its_parent() {
    let consortium = Consortium::new(12);
    let mut state = consortium.state();
    let first = propose(&state.view(), at(0, 1), []).unwrap();
    let second = propose(&state.view_with([&first]).unwrap(), at(0, 2), []).unwrap();
    let refused = state.apply(&second).unwrap_err();
    assert_eq!((refused.height, refused.parent), (2, first.block().id()));
    state.apply(&first).unwrap();
    assert_eq!(state.apply(&first).unwrap_err().height, 1, "twice");
    state.apply(&second).unwrap();
    assert_eq!(state.head().id, second.block().id());
}

#[test]
fn a_pool_gives_each_gateway_its_share_and_forgets_what_is_done() {
    let mut consortium = Consortium::new(11);
    let (mut state, meters) = registered(&mut consortium, 1);
    let mut pool = Pool::default();
    let honest = meters[0].sign(1, 26);
    let batch = consortium.requests(0, 1, &[(0, honest.value)]);
    assert_eq!(pool.add(&state.view(), batch.clone()), Ok(true));
    assert_eq!(pool.add(&state.view(), batch.clone()), Ok(false), "known already");
    for number in 0..bkss_ledger::pool::MAX_TRANSACTIONS {
        let value = Digest([u8::try_from(number % 251).unwrap(); 32]);
        let junk = consortium.requests(1, u32::try_from(number).unwrap() + 1, &[(0, value)]);
        assert_eq!(pool.add(&state.view(), junk), Ok(true));
    }
    let one_more = consortium.requests(1, 5000, &[(0, honest.value)]);
    assert!(pool.add(&state.view(), one_more).is_err(), "share of gateway 1");
    let other = consortium.requests(2, 1, &[(0, honest.value)]);
    assert_eq!(pool.add(&state.view(), other), Ok(true), "share of gateway 2");
    let Transaction::Requests(mut forged) = batch else { unreachable!() };
    forged.submitter.0 = 3;
    assert!(pool.add(&state.view(), Transaction::Requests(forged)).is_err());

    let verified = build(&state.view(), at(1, 1), pool.candidates()).unwrap().verified;
    assert_eq!(verified.requests().len(), 3, "slot 1, one per gateway");
    state.apply(&verified).unwrap();
    block(&mut state, at(14, 0), []);
    pool.prune(&state.view());
    assert!(pool.is_empty(), "{} wait for windows that have closed", pool.len());
}

/// What waits in a pool was checked when it came: a validator does not check it again. A copy with
/// another signature is another transaction, of which nothing is known.
#[test]
fn signatures_are_checked_once_and_a_copy_is_not_the_original() {
    let mut consortium = Consortium::new(1);
    let meters: Vec<_> = (1..4).map(|number| consortium.meter(number)).collect();
    let state = consortium.state();
    let mut pool = Pool::default();
    for meter in &meters {
        assert_eq!(pool.add(&state.view(), meter.registers()), Ok(true));
    }
    let block = propose(&state.view(), at(0, 1), meters.iter().map(Meter::registers)).unwrap();
    let block = block.block();
    let missing = |checked: &Checked, block: &Block| checked.missing(&state.view(), block).len();
    assert_eq!(missing(&Checked::default(), block), 3);
    let checked = pool.checked(block);
    assert_eq!(missing(&checked, block), 0);
    let remembered = verify_with(&state.view(), block.clone(), &checked).unwrap();
    let afresh = verify(&state.view(), block.clone()).unwrap();
    let registered = |verified: &Verified| verified.registered().to_vec();
    assert_eq!(registered(&remembered), registered(&afresh));

    let mut transactions = block.transactions().to_vec();
    let Transaction::Registration(altered) = &mut transactions[1] else { unreachable!() };
    altered.owner_signature.0[5] ^= 1;
    let network = state.genesis().network();
    let copy = Block::new(network, block.header().clone(), transactions);
    let checked = pool.checked(&copy);
    assert_eq!(missing(&checked, &copy), 1);
    let refused = verify_with(&state.view(), copy, &checked);
    assert!(
        matches!(
            refused,
            Err(Refusal::Transaction {
                position: 1,
                reason: TransactionRefusal::Registration(RegistrationRefusal::Signature(_)),
            })
        ),
        "{refused:?}"
    );
}
