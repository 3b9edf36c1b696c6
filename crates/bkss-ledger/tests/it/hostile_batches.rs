//! Batches that a gateway signs to hold up the others: they wait nowhere, cost little, and spoil no
//! block of an honest leader.

use bkss_ledger::{
    Block, Candidate, Change, OpeningBatch, Pool, Refusal, RequestBatch, Revocation, Rounds, State,
    Transaction, Vote,
    block::{BlockError, MAX_TRANSACTIONS},
    build,
    candidate::{Share, share_of},
    change,
    execute::{SkipReason, TransactionRefusal},
    pool::{self, PoolError, may_contribute},
    propose,
    revocation::{Reason, Right},
    transaction_batch::{Bodies, Shape},
};
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, ProviderId, SdiId, SdiIdentity, SecretKey, Signature,
    Slot, codec, hash,
    identity::SdiMode,
    request,
    seal::{Body, KeyId},
};

use crate::{
    blocks::{block, offered, reasons, refusal, turn},
    consortium::{Consortium, FIRST, Meter, SHORT, SLOT_S, Signed, at},
};

/// A state with these meters, and a pool.
fn registered(consortium: &Consortium, meters: &[Meter]) -> State {
    let mut state = consortium.state();
    for some in meters.chunks(200) {
        let time = LedgerTime(state.head().time.0 + 10);
        let verified = block(&mut state, time, some.iter().map(Meter::registers));
        assert_eq!(verified.registered().len(), some.len());
    }
    state
}

fn meters(consortium: &mut Consortium, count: u32) -> Vec<Meter> {
    (0..count).map(|number| consortium.meter(number)).collect()
}

/// What these meters sign in a slot, and a request batch with all of it.
fn requested(
    consortium: &Consortium,
    gateway: usize,
    index: u32,
    meters: &[Meter],
) -> (Vec<Signed>, Transaction) {
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(index, 5)).collect();
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    (signed, consortium.requests(gateway, index, &values))
}

/// What whoever knows no link of a chain makes up for one of its slots.
pub(crate) fn invented(meter: &Meter, index: u32, seed: u8) -> Signed {
    let genuine = meter.sign(1, 5);
    let schedule = meter.registration.message.schedule;
    let index = LinkIndex::new(index, schedule.slots).unwrap();
    let link = Link::from_bytes([seed; 32]);
    let commitment = request::commitment(&meter.id, index, &hash::plain(&genuine.body));
    let value = request::request_value(&commitment, &link);
    Signed { slot: schedule.slot(index), index, body: genuine.body, value, link }
}

fn with_signature(transaction: &Transaction, signature: Signature) -> Transaction {
    let mut altered = transaction.clone();
    match &mut altered {
        Transaction::Requests(RequestBatch { signature: place, .. })
        | Transaction::Openings(OpeningBatch { signature: place, .. }) => *place = signature,
        _ => unreachable!("a batch"),
    }
    altered
}

#[test]
fn openings_without_all_their_bodies_wait_nowhere_and_are_proposed_by_nobody() {
    let mut consortium = Consortium::new(1);
    let meters = meters(&mut consortium, 2);
    let mut state = registered(&consortium, &meters);
    let (signed, request) = requested(&consortium, 0, 1, &meters);
    block(&mut state, at(1, 1), [request]);
    block(&mut state, at(1, 300), []);
    let items: Vec<_> = (0..).zip(&signed).collect();
    let whole = consortium.openings(0, &items);
    for erased in [&[0][..], &[1], &[0, 1]] {
        let Transaction::Openings(mut bare) = whole.clone() else { unreachable!() };
        erased.iter().for_each(|position| assert!(bare.erase(*position)));
        let bare = Transaction::decode(&Transaction::Openings(bare).encode()).unwrap();
        let mut pool = Pool::default();
        let gateway = ProviderId(0);
        let expected = PoolError::Refused(TransactionRefusal::Incomplete { gateway });
        assert_eq!(pool.add(&state.view(), bare.clone()), Err(expected), "without {erased:?}");
        assert_eq!(pool.add(&state.view(), whole.clone()), Ok(true), "the whole one comes later");
        // A leader that has one from elsewhere leaves it out.
        let network = consortium.genesis.network();
        let candidates = [bare, whole.clone()].map(|batch| Candidate::unchecked(network, batch));
        let built = build(&state.view(), at(1, 301), candidates).unwrap();
        assert_eq!(built.verified.openings().len(), 2);
        assert!(built.verified.block().has_all_bodies());
        turn(&mut state.clone(), &mut pool, at(1, 301));
        assert!(pool.is_empty(), "it is on the ledger");
    }
}

#[test]
fn a_copy_with_a_false_signature_takes_no_place_and_nobody_elses() {
    let mut consortium = Consortium::new(2);
    let meters = meters(&mut consortium, 1);
    let mut state = registered(&consortium, &meters);
    let (signed, request) = requested(&consortium, 0, 1, &meters);
    let opening = consortium.openings(0, &[(0, &signed[0])]);
    for (second, genuine) in [(1, request), (300, opening)] {
        let copy = with_signature(&genuine, Signature([1; 64]));
        let mut pool = Pool::default();
        let is_false = |added| {
            use TransactionRefusal::Signature;
            matches!(added, Err(PoolError::Refused(Signature { gateway: ProviderId(0), .. })))
        };
        assert!(is_false(pool.add(&state.view(), copy.clone())), "first");
        assert_eq!(pool.add(&state.view(), genuine.clone()), Ok(true));
        assert!(is_false(pool.add(&state.view(), copy)), "while the genuine one waits");
        assert_eq!(pool.add(&state.view(), genuine.clone()), Ok(false), "it waits already");
        assert_eq!(pool.len(), 1);
        block(&mut state, at(1, second), [genuine]);
    }
}

#[test]
fn an_approved_change_enters_whoever_brings_copies_of_it() {
    let mut consortium = Consortium::founded(3, 5, |charter| charter.limits.batch_items = 16);
    let mut state = consortium.state();
    let meters = meters(&mut consortium, 16);
    block(&mut state, at(0, 1), meters.iter().map(Meter::registers));
    let network = consortium.genesis.network();
    let approved = |by: &[u16]| {
        let mut expel = Change::new(change::Body::Expel(ProviderId(0)), 1000);
        for provider in by {
            expel.approve(network, ProviderId(*provider), &consortium.keys[usize::from(*provider)]);
        }
        Transaction::Change(expel)
    };
    let mut pool = Pool::default();
    // Provider 0 signs more in vain than anybody is to look at, and approves its own end.
    let values = |byte| (0..16).map(|row| (row, Digest([byte; 32]))).collect::<Vec<_>>();
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &values(1))]);
    for byte in 2..8 {
        let in_vain = consortium.requests(0, 1, &values(byte));
        assert_eq!(pool.add(&state.view(), in_vain), Ok(true));
    }
    assert_eq!(pool.add(&state.view(), approved(&[0, 1, 2, 3, 4])), Ok(true));
    assert_eq!(pool.add(&state.view(), approved(&[1, 2, 3, 4])), Ok(false), "a copy");
    turn(&mut state, &mut pool, at(1, 2));
    assert_eq!(state.members().provider(ProviderId(0)), None);
}

#[test]
fn what_was_signed_by_whom_has_no_say_any_more_makes_room() {
    let mut consortium = Consortium::founded(4, 7, |_| ());
    let mut state = consortium.state();
    let network = consortium.genesis.network();
    let meter = consortium.meter(0);
    block(&mut state, at(0, 1), [meter.registers()]);
    let key = SecretKey::generate(&mut consortium.rng);
    let name = "second".try_into().unwrap();
    let sdi = SdiIdentity { id: SdiId(5), name, key: key.public(), mode: SdiMode::Shared };
    let change = |body, own: Option<&SecretKey>, by: &[u16]| {
        let mut change = Change::new(body, 1000);
        own.into_iter().for_each(|own| change.sign(network, own));
        for provider in by {
            let key = &consortium.keys[usize::from(*provider)];
            change.approve(network, ProviderId(*provider), key);
        }
        Transaction::Change(change)
    };
    let join = |by: &[u16]| change(change::Body::AddSdi(sdi.clone()), Some(&key), by);
    let chain = state.view().chain(0).unwrap().clone();
    let revocation = consortium.revocation(&chain);
    let mut pool = Pool::default();
    for waits in [join(&[0, 1, 2, 3, 4]), revocation] {
        assert_eq!(pool.add(&state.view(), waits), Ok(true));
    }
    // Whoever has approved the one leaves, and the SDI that has signed the other is removed.
    let leave = change(change::Body::Leave(ProviderId(0)), Some(&consortium.keys[0]), &[]);
    let remove = change(change::Body::RemoveSdi(SdiId(0)), None, &[1, 2, 3, 4, 5]);
    let candidates = pool.candidates();
    block(&mut state, at(0, 2), [leave, remove]);
    // Their signatures are known to hold, and do not count.
    let built = build(&state.view(), at(0, 3), candidates).unwrap();
    assert_eq!(built.verified.block().transactions(), []);
    pool.prune(&state.view());
    assert!(pool.is_empty());
    assert_eq!(pool.add(&state.view(), join(&[1, 2, 3, 4, 5])), Ok(true));
    turn(&mut state, &mut pool, at(0, 3));
    assert!(state.members().sdi(SdiId(5)).is_some());
}

#[test]
fn a_batch_for_numbers_that_nobody_has_waits_nowhere() {
    let mut consortium = Consortium::new(3);
    let meters = meters(&mut consortium, 2);
    let mut state = registered(&consortium, &meters);
    let (signed, request) = requested(&consortium, 0, 1, &meters);
    let value = Digest([1; 32]);
    let unknown =
        |row| TransactionRefusal::UnknownRow { gateway: ProviderId(3), row, registered: 2 };
    let mut pool = Pool::default();
    for row in [2, 3, u32::MAX - 1, u32::MAX] {
        let mixed = consortium.requests(3, 1, &[(0, value), (row, value)]);
        for batch in [consortium.requests(3, 1, &[(row, value)]), mixed] {
            let added = pool.add(&state.view(), batch);
            assert_eq!(added, Err(PoolError::Refused(unknown(row))));
        }
        let opening = consortium.openings(3, &[(row, &signed[0])]);
        let added = pool.add(&state.view(), opening);
        assert_eq!(added, Err(PoolError::Refused(unknown(row))));
    }
    assert_eq!(pool.add(&state.view(), request), Ok(true), "of the last number there is");
    turn(&mut state, &mut pool, at(1, 1));
    assert!(pool.is_empty());
}

#[test]
fn what_no_block_can_accept_any_more_does_not_wait() {
    let mut consortium = Consortium::new(4);
    let meters = meters(&mut consortium, 1);
    let mut state = registered(&consortium, &meters);
    let (network, key) = (consortium.genesis.network(), &consortium.keys[3]);
    let (signed, request) = requested(&consortium, 0, 2, &meters);
    let mut pool = Pool::default();
    // Slots that the chain does not have.
    for slot in [0, FIRST.0 - 1, FIRST.0 + 13, u64::MAX] {
        let items = [(0, Digest([1; 32]))];
        let batch = RequestBatch::sign(network, ProviderId(3), key, Slot(slot), items);
        let batch = Transaction::Requests(batch);
        assert!(!may_contribute(&state.view(), &batch), "slot {slot}");
        assert_eq!(pool.add(&state.view(), batch), Ok(true), "its signature is looked at once");
    }
    assert_eq!(pool.add(&state.view(), request), Ok(true));
    turn(&mut state, &mut pool, at(1, 1));
    assert_eq!(pool.len(), 1, "the one for a slot that comes");
    turn(&mut state, &mut pool, at(2, 1));
    assert!(pool.is_empty(), "it is on the ledger");
    // An opening waits for the end of its window, and not behind R.
    let opening = consortium.openings(0, &[(0, &signed[0])]);
    assert_eq!(pool.add(&state.view(), opening), Ok(true));
    turn(&mut state, &mut pool, at(2, 299));
    assert_eq!(pool.len(), 1);
    turn(&mut state, &mut pool, at(2, 604_800));
    assert!(pool.is_empty(), "it is too late");
}

/// An owner that has values requested through a gateway and ends the chains before leaves nothing behind
/// that its leaders look at in vain.
#[test]
fn a_request_of_a_chain_that_has_ended_does_not_wait() {
    let mut consortium = Consortium::new(5);
    let meters = meters(&mut consortium, 2);
    let mut state = registered(&consortium, &meters);
    let (_, requests) = requested(&consortium, 1, 2, &meters[..1]);
    let mut pool = Pool::default();
    assert_eq!(pool.add(&state.view(), requests.clone()), Ok(true));
    turn(&mut state, &mut pool, at(1, 1));
    assert!(may_contribute(&state.view(), &requests) && pool.len() == 1);
    let revocation = consortium.revocation(&state.view().chain(0).unwrap().clone());
    block(&mut state, at(1, 2), [revocation]);
    pool.prune(&state.view());
    assert!(!may_contribute(&state.view(), &requests) && pool.is_empty());
}

/// Nor does a request for which its chain has no room: the gateway that has it sends it again.
#[test]
fn a_request_waits_at_its_gateway_until_there_is_room() {
    let mut consortium = Consortium::founded(6, 4, |charter| charter.limits.pending = 1);
    let meters = meters(&mut consortium, 1);
    let mut state = registered(&consortium, &meters);
    let (signed, first) = requested(&consortium, 0, 1, &meters);
    block(&mut state, at(1, 1), [first]);
    block(&mut state, at(1, 301), []);
    let (_, second) = requested(&consortium, 0, 2, &meters);
    let mut pool = Pool::default();
    assert_eq!(pool.add(&state.view(), second.clone()), Ok(true));
    pool.prune(&state.view());
    assert!(pool.is_empty() && may_contribute(&state.view(), &second), "it is not given up");
    block(&mut state, at(1, 302), [consortium.openings(0, &[(0, &signed[0])])]);
    assert_eq!(pool.add(&state.view(), second), Ok(true));
    pool.prune(&state.view());
    assert_eq!(turn(&mut state, &mut pool, at(2, 1)).verified.requests().len(), 1);
}

#[test]
fn a_batch_has_as_many_items_as_allowed() {
    let mut consortium = Consortium::founded(5, 4, |charter| charter.limits.batch_items = 2);
    let meters = meters(&mut consortium, 3);
    let mut state = registered(&consortium, &meters);
    let expected = TransactionRefusal::TooMany { found: 3, limit: 2 };
    let (signed, request) = requested(&consortium, 0, 1, &meters);
    let items: Vec<_> = (0..).zip(&signed).collect();
    let opening = consortium.openings(0, &items);
    for batch in [&request, &opening] {
        assert_eq!(refusal(&state, at(1, 1), batch), expected);
        let waits = Pool::default().add(&state.view(), batch.clone());
        assert_eq!(waits, Err(PoolError::Refused(expected)));
    }
    let (_, two) = requested(&consortium, 0, 1, &meters[..2]);
    assert_eq!(block(&mut state, at(1, 2), [two]).requests().len(), 2);
    let opened = block(&mut state, at(1, 300), [consortium.openings(0, &items[..2])]);
    assert_eq!(opened.openings().len(), 2);
}

#[test]
fn a_block_is_as_long_as_allowed() {
    const LIMIT: u32 = 65_536;
    let mut consortium = Consortium::founded(6, 4, |charter| charter.limits.block_bytes = LIMIT);
    let meters = meters(&mut consortium, 900);
    let mut state = registered(&consortium, &meters);
    // Each is some 30 kB long.
    let batches: Vec<_> =
        (0..3).map(|gateway| requested(&consortium, gateway, 1, &meters).1).collect();
    let limit = LIMIT as usize;
    let refused = offered(&state, at(1, 1), &batches).unwrap_err();
    let Refusal::TooLong { found, limit: named, .. } = refused else { unreachable!("{refused}") };
    assert!(named == limit && (80_000..100_000).contains(&found), "{found} of {named}");
    // Two fit, and the third goes into the next block.
    let mut pool = Pool::default();
    for batch in batches {
        assert_eq!(pool.add(&state.view(), batch), Ok(true));
    }
    for (second, accepted) in [(1, 1800), (2, 900)] {
        let built = turn(&mut state, &mut pool, at(1, second));
        let found = built.verified.block().encoded_length();
        assert!(found <= limit, "{found} of {limit}");
        assert_eq!(built.verified.requests().len(), accepted);
    }
    assert!(pool.is_empty());
    // Whoever gets more bytes looks at none of them.
    let network = state.genesis().network();
    let found = limit + 1;
    let decoded = Block::decode(network, &vec![0; found], limit);
    assert_eq!(decoded, Err(BlockError::TooLong { found, limit }));
}

#[test]
fn a_batch_that_no_block_can_hold_does_not_wait() {
    const LIMIT: u32 = 65_536;
    let mut consortium = Consortium::founded(7, 4, |charter| charter.limits.block_bytes = LIMIT);
    let meters = meters(&mut consortium, 80);
    let mut state = registered(&consortium, &meters);
    // Nobody needs to have sealed them.
    let body = Body { key: KeyId(1), encapsulated: None, ciphertext: &[0; 944] };
    let mut buffer = [0; 1024];
    let body_hash = hash::plain(codec::encode_into(&body, &mut buffer).unwrap());
    let index = LinkIndex::new(1, 13).unwrap();
    let value = |meter: &Meter| {
        let commitment = request::commitment(&meter.id, index, &body_hash);
        request::request_value(&commitment, &meter.link(1))
    };
    let (network, key) = (consortium.genesis.network(), &consortium.keys[0]);
    let openings = |count: usize| {
        let mut bodies = Bodies::new(Shape::of(&body).unwrap());
        (0..count).for_each(|_| assert!(bodies.push(&body)));
        let links = (0..).zip(meters[..count].iter().map(|meter| meter.link(1)));
        Transaction::Openings(OpeningBatch::sign(network, ProviderId(0), key, FIRST, links, bodies))
    };
    let values: Vec<_> = (0..).zip(meters.iter().map(value)).collect();
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &values)]);
    block(&mut state, at(1, 300), []);
    let mut pool = Pool::default();
    let room = LIMIT as usize - 640;
    let most = (1..80).rev().find(|count| openings(*count).encode().len() <= room).unwrap();
    let (fits, found) = (openings(most), openings(most + 1).encode().len());
    let expected = PoolError::Refused(TransactionRefusal::TooLong { found, limit: room });
    assert_eq!(pool.add(&state.view(), openings(most + 1)), Err(expected));
    // The longest that waits is proposed.
    assert_eq!(pool.add(&state.view(), fits), Ok(true));
    let built = turn(&mut state, &mut pool, at(1, 301));
    assert_eq!(built.verified.openings().len(), most);
}

#[test]
fn an_invented_link_is_walked_once_and_its_gateway_passed_over() {
    let mut consortium = Consortium::with(8, 4, Rounds { blocks: 6, ..SHORT });
    let meters = meters(&mut consortium, 3);
    let mut state = registered(&consortium, &meters);
    let liar = ProviderId(3);
    let (signed, honest) = requested(&consortium, 0, 12, &meters[..1]);
    let false_ones = [invented(&meters[1], 12, 1), invented(&meters[2], 12, 2)];
    let values = [(1, false_ones[0].value), (2, false_ones[1].value)];
    block(&mut state, at(12, 1), [honest, consortium.requests(3, 12, &values)]);

    let mut pool = Pool::default();
    let honest = consortium.openings(0, &[(0, &signed[0])]);
    let false_batches =
        [1, 2].map(|row: u32| consortium.openings(3, &[(row, &false_ones[row as usize - 1])]));
    let (round, key) = (state.round().number, &consortium.keys[3]);
    let vote = Vote::sign(consortium.genesis.network(), liar, key, round, vec![ProviderId(0)]);
    for batch in false_batches.iter().chain([&honest]) {
        assert_eq!(pool.add(&state.view(), batch.clone()), Ok(true));
    }
    let network = consortium.genesis.network();
    let leaf = |batch: &Transaction| batch.leaf(&batch.digest(network));
    let built = build(&state.view(), at(12, 301), pool.candidates()).unwrap();
    // The second batch of a gateway that has lied is not looked at.
    assert_eq!(built.invalid, [(liar, leaf(&false_batches[0]))]);
    assert_eq!(built.verified.block().transactions(), [honest]);
    assert_eq!(built.steps, 24, "those of the honest opening and of the false one");

    assert_eq!(pool.add(&state.view(), Transaction::Vote(vote)), Ok(true));
    for (gateway, leaf) in &built.invalid {
        assert!(pool.pass_over(*gateway, round, *leaf), "it is found");
        assert!(!pool.pass_over(*gateway, round, *leaf), "it is known");
    }
    assert_eq!(pool.len(), 2, "the honest batch, and the liar's vote");
    turn(&mut state, &mut pool, at(12, 301));
    assert!(pool.is_empty());
    assert_eq!(state.round().votes.len(), 1);
    assert_eq!(pool.passed_over(state.round().number).collect::<Vec<_>>(), [liar]);
    for batch in &false_batches[1..] {
        let passed_over = Err(PoolError::PassedOver { gateway: liar });
        assert_eq!(pool.add(&state.view(), batch.clone()), passed_over);
    }
    let invalid = Err(PoolError::Invalid { gateway: liar });
    assert_eq!(pool.add(&state.view(), false_batches[0].clone()), invalid);
    // In the next round its batches are looked at, but for those that are known.
    while state.round().number == 0 {
        let time = LedgerTime(state.head().time.0 + 1000);
        block(&mut state, time, []);
    }
    assert_eq!(pool.add(&state.view(), false_batches[0].clone()), invalid);
    assert_eq!(pool.add(&state.view(), false_batches[1].clone()), Ok(true));
}

#[test]
fn a_link_that_is_not_of_its_chain_makes_its_block_invalid() {
    let mut consortium = Consortium::new(9);
    let meters = meters(&mut consortium, 3);
    let mut state = registered(&consortium, &meters);
    let (signed, honest) = requested(&consortium, 0, 12, &meters[..2]);
    let foreign = invented(&meters[2], 12, 1);
    let values = [(2, foreign.value)];
    block(&mut state, at(12, 1), [honest, consortium.requests(3, 12, &values)]);
    let honest = consortium.openings(0, &[(0, &signed[0])]);
    let mixed = consortium.openings(3, &[(1, &signed[1]), (2, &foreign)]);
    let refused = offered(&state, at(12, 301), &[honest.clone(), mixed.clone()]).unwrap_err();
    let reason = TransactionRefusal::ForeignLink { gateway: ProviderId(3), item: 1 };
    assert_eq!(refused, Refusal::Transaction { position: 1, reason });
    // A leader leaves it out, and what it has opened of it too.
    let network = consortium.genesis.network();
    let candidates = [mixed, honest.clone()].map(|batch| Candidate::unchecked(network, batch));
    let built = build(&state.view(), at(12, 301), candidates).unwrap();
    assert_eq!(built.verified.block().transactions(), [honest]);
    assert_eq!(built.verified.skipped(), []);
    // A value that nobody has requested is not walked for.
    let unasked = invented(&meters[0], 12, 9);
    let unasked = consortium.openings(3, &[(0, &unasked)]);
    let verified = offered(&state, at(12, 301), &[unasked]).unwrap();
    assert_eq!(reasons(&verified), [SkipReason::NoRequest]);
}

#[test]
fn an_opening_batch_of_a_column_without_bodies_is_none() {
    let body = Body { key: KeyId(1), encapsulated: None, ciphertext: &[0; 48] };
    let bodies = Bodies::new(Shape::of(&body).unwrap());
    assert_eq!(bodies.count(), 0);
    let mut bytes = Vec::new();
    codec::encode_infallible(&bodies, &mut bytes);
    assert!(codec::decode::<Bodies>("bodies", &bytes).is_err());
}

/// A gateway that fills its share of the pools with requests of which one in a batch counts keeps
/// nobody's openings out of the blocks.
#[test]
fn no_gateway_takes_the_bytes_of_another() {
    const HONEST: u32 = 200;
    const OWN: u32 = 100;
    let mut consortium = Consortium::founded(1, 4, |charter| charter.limits.block_bytes = 65_536);
    let mut state = consortium.state();
    let honest: Vec<_> = (0..HONEST).map(|number| consortium.meter(number)).collect();
    // Its own chains, which may request nearly always.
    let own = (HONEST..HONEST + OWN).map(|number| {
        consortium.meter_with(number, |message| {
            message.owner = ProviderId(3);
            message.schedule.window_s = SLOT_S - 1;
        })
    });
    let own: Vec<_> = own.collect();
    let all: Vec<_> = honest.iter().chain(&own).map(Meter::registers).collect();
    for (number, some) in (0..).zip(all.chunks(100)) {
        let verified = block(&mut state, at(0, 1 + number), some.to_vec());
        assert_eq!(verified.registered().len(), some.len());
    }
    let signed: Vec<_> = honest.iter().map(|meter| meter.sign(1, 5)).collect();
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    block(&mut state, at(1, 1), [consortium.requests(0, 1, &values)]);
    let nothing: Vec<_> = (0..HONEST).map(|row| (row, Digest([1; 32]))).collect();
    block(&mut state, at(1, 2), [consortium.requests(3, 1, &nothing)]);
    block(&mut state, at(1, 301), []);
    let mut pool = Pool::default();
    let mut counts = HONEST..HONEST + OWN;
    let mut fill = |state: &State, pool: &mut Pool| {
        for size in [199, 199, 199, 199, 199, 199, 199, 199, 60, 20] {
            let mut items = nothing[..size].to_vec();
            items.extend(counts.next().map(|row| (row, Digest([3; 32]))));
            let _ = pool.add(&state.view(), consortium.requests(3, 1, &items));
        }
    };
    fill(&state, &mut pool);
    let items: Vec<_> = (0..).zip(&signed).take(40).collect();
    assert_eq!(pool.add(&state.view(), consortium.openings(0, &items)), Ok(true));
    let built = turn(&mut state, &mut pool, at(1, 302));
    assert_eq!(built.verified.openings().len(), 40);
    let bytes = built.verified.block().encoded_length();
    assert!(bytes > 60_000, "what is left of the block is the other's: {bytes} bytes");
}

/// Nor with batches of one request each, of which a block takes so many and no more.
#[test]
fn no_gateways_take_the_places_of_another() {
    const METERS: u32 = 1024;
    let mut consortium = Consortium::with(2, 20, SHORT);
    let meters = meters(&mut consortium, METERS);
    let mut state = registered(&consortium, &meters);
    let (signed, requests) = requested(&consortium, 19, 1, &meters);
    block(&mut state, at(1, 1), [requests]);
    let items: Vec<_> = (0..).zip(&signed).collect();
    let mut pool = Pool::default();
    assert_eq!(pool.add(&state.view(), consortium.openings(19, &items)), Ok(true));
    let places = u32::try_from(MAX_TRANSACTIONS).unwrap();
    for single in 0..places {
        let (gateway, row) = (single / METERS, single % METERS);
        let values = [(row, Digest([3; 32]))];
        let single = consortium.requests(gateway as usize, 2, &values);
        assert_eq!(pool.add(&state.view(), single), Ok(true));
    }
    let built = turn(&mut state, &mut pool, at(2, 1));
    assert_eq!(built.verified.block().transactions().len(), MAX_TRANSACTIONS);
    assert_eq!(built.verified.openings().len(), METERS as usize);
}

/// An honest gateway that was made to sign more requests than its share holds still brings openings,
/// registrations and its vote.
#[test]
fn a_full_share_of_requests_leaves_room_for_all_else() {
    let mut consortium = Consortium::new(3);
    let meters = meters(&mut consortium, 3);
    let mut state = registered(&consortium, &meters[..2]);
    let (signed, requests) = requested(&consortium, 0, 1, &meters[..1]);
    block(&mut state, at(1, 1), [requests]);
    block(&mut state, at(1, 301), []);
    let (mut pool, full) = (Pool::default(), PoolError::Full { share: Share::Of(ProviderId(0)) });
    for value in 0..pool::MAX_TRANSACTIONS {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&value.to_be_bytes());
        let single = consortium.requests(0, 2, &[(1, Digest(bytes))]);
        assert_eq!(pool.add(&state.view(), single), Ok(true));
    }
    let one_more = consortium.requests(0, 2, &[(1, Digest([2; 32]))]);
    assert_eq!(pool.add(&state.view(), one_more), Err(full));
    assert_eq!(pool.add(&state.view(), consortium.openings(0, &[(0, &signed[0])])), Ok(true));
    let (network, key) = (consortium.genesis.network(), &consortium.keys[0]);
    let vote = Vote::sign(network, ProviderId(0), key, 0, vec![ProviderId(1), ProviderId(2)]);
    assert_eq!(pool.add(&state.view(), Transaction::Vote(vote)), Ok(true));
    assert_eq!(turn(&mut state, &mut pool, at(1, 302)).verified.openings().len(), 1);
}

/// Openings that fit no request, for slots of which requests wait, are no proof of a lie: they wait as
/// long as an opening could come. However many wait, a leader looks at no more of them than blocks have
/// room for.
#[test]
fn what_a_leader_looks_at_does_not_grow_with_what_waits() {
    const CHAINS: u32 = 100;
    const LIARS: usize = 5;
    let mut consortium = Consortium::founded(4, 16, |charter| {
        (charter.limits.block_bytes, charter.limits.batch_items) = (1 << 18, 128);
    });
    let meters = meters(&mut consortium, CHAINS);
    let mut state = registered(&consortium, &meters);
    let values: Vec<_> = (0..CHAINS).map(|row| (row, Digest([1; 32]))).collect();
    let requests = (0..LIARS).map(|gateway| consortium.requests(gateway, 1, &values));
    block(&mut state, at(1, 1), requests);
    let (signed, requests) = requested(&consortium, 15, 1, &meters);
    block(&mut state, at(1, 2), [requests]);
    block(&mut state, at(1, 301), []);
    let mut pool = Pool::default();
    let (mut waiting, mut looked) = (0, Vec::new());
    for some in [50, 400] {
        for number in 0..some * LIARS {
            let (gateway, seed) = (number % LIARS, u8::try_from(waiting % 251).unwrap());
            let false_ones: Vec<_> = meters.iter().map(|meter| invented(meter, 1, seed)).collect();
            let items: Vec<_> = (0..).zip(&false_ones).take(1 + waiting % 100).collect();
            if pool.add(&state.view(), consortium.openings(gateway, &items)) == Ok(true) {
                waiting += 1;
            }
        }
        let built = build(&state.view(), at(1, 302), pool.candidates()).unwrap();
        assert_eq!(built.verified.openings().len(), 0);
        assert!(built.invalid.is_empty(), "it is no proof of a lie");
        looked.push(built.items);
    }
    assert!(waiting > 1000 && looked[1] < 2 * looked[0], "of {waiting} batches: {looked:?} items");
    let items: Vec<_> = (0..).zip(&signed).collect();
    assert_eq!(pool.add(&state.view(), consortium.openings(15, &items)), Ok(true));
    let built = turn(&mut state, &mut pool, at(1, 303));
    assert_eq!(built.verified.openings().len(), CHAINS as usize);
}

/// Of whoever brings much that comes to nothing, a leader looks at some, and then at nothing more of
/// the kind; what others bring is taken as ever.
#[test]
fn what_comes_to_nothing_is_not_looked_at_for_ever() {
    let mut consortium = Consortium::founded(2, 4, |charter| charter.limits.batch_items = 16);
    let meters: Vec<_> = (0..17).map(|number| consortium.meter(number)).collect();
    let mut state = consortium.state();
    block(&mut state, at(0, 1), meters.iter().map(Meter::registers));
    let all: Vec<_> = (0..16).map(|row| (row, Digest([1; 32]))).collect();
    block(&mut state, at(1, 1), [consortium.requests(3, 1, &all)]);
    let again = |byte: u8| {
        let items: Vec<_> = (0..16).map(|row| (row, Digest([byte; 32]))).collect();
        consortium.requests(3, 1, &items)
    };
    // Two batches in vain are looked at, and one that was under way; then the useful one is not.
    let signed: Vec<_> = meters.iter().map(|meter| meter.sign(1, 5)).collect();
    let useful = |gateway| consortium.requests(gateway, 1, &[(0, signed[0].value)]);
    let mut candidates: Vec<_> = (2..5).map(again).collect();
    candidates.push(useful(0));
    let built = propose(&state.view(), at(1, 2), candidates.clone()).unwrap();
    assert_eq!(built.block().transactions(), [useful(0)], "of others");
    let own = consortium.requests(3, 1, &[(16, Digest([9; 32]))]);
    candidates.push(own.clone());
    let built = propose(&state.view(), at(1, 4), candidates.clone()).unwrap();
    assert!(!built.block().transactions().contains(&own), "its own, behind what was in vain");
    let built = propose(&state.view(), at(1, 4), [own.clone()]).unwrap();
    assert_eq!(built.block().transactions(), [own]);
}

/// Copies with other signatures, and secrets of one chain with other reasons, take one place.
#[test]
fn copies_of_one_thing_take_one_place() {
    let mut consortium = Consortium::new(3);
    let rho = [5; 32];
    let lock = hash::hash(hash::Tag::RevocationLock, &[&rho]);
    let stolen = consortium.meter(0);
    let locked = consortium.meter_with(1, |message| message.revocation_lock = Some(lock));
    let mut state = consortium.state();
    block(&mut state, at(0, 1), [stolen.registers(), locked.registers()]);
    let mut pool = Pool::default();
    for reason in 0..=255 {
        let revocation = Transaction::Revocation(Revocation {
            meter: locked.registration.message.meter,
            chain: locked.id,
            reason: Reason(reason),
            right: Right::Secret(rho),
        });
        assert_eq!(pool.add(&state.view(), revocation), Ok(reason == 0));
    }
    assert_eq!(pool.len(), 1);
    // Those of owner and SDI have a share of their own.
    let chain = state.view().chain(0).unwrap().clone();
    assert_eq!(share_of(&state.view(), &consortium.revocation(&chain)), Share::Of(ProviderId(0)));
    // Two quorums that approve one change.
    let key = SecretKey::generate(&mut consortium.rng);
    let name = "second".try_into().unwrap();
    let sdi = SdiIdentity { id: SdiId(5), name, key: key.public(), mode: SdiMode::Shared };
    let approved = |by: [u16; 3]| {
        let network = consortium.genesis.network();
        let mut change = Change::new(change::Body::AddSdi(sdi.clone()), 9);
        change.sign(network, &key);
        for provider in by {
            change.approve(network, ProviderId(provider), &consortium.keys[usize::from(provider)]);
        }
        Transaction::Change(change)
    };
    let (first, second) = (approved([0, 1, 2]), approved([1, 2, 3]));
    assert_eq!(pool.add(&state.view(), first.clone()), Ok(true));
    assert_eq!(pool.add(&state.view(), second.clone()), Ok(false), "the same thing again");
    block(&mut state, at(0, 2), [first]);
    pool.prune(&state.view());
    assert_eq!(pool.len(), 1, "the revocation waits");
    assert!(pool.add(&state.view(), second).is_err(), "it has entered");
}

/// A batch of many true links and a false one at its end costs its walk, and that counts: liars
/// together make a leader walk no more than one block may.
#[test]
fn the_walk_of_a_batch_that_is_left_out_counts() {
    let mut consortium = Consortium::new(7);
    let meters = meters(&mut consortium, 9);
    let mut state = registered(&consortium, &meters);
    // Their first openings are of link 5: five steps each.
    let (signed, requests) = requested(&consortium, 0, 5, &meters[..8]);
    let false_one = invented(&meters[8], 5, 0x66);
    let invents = consortium.requests(1, 5, &[(8, false_one.value)]);
    block(&mut state, at(5, 1), [requests, invents]);
    let items: Vec<_> = (0..).zip(signed.iter().chain([&false_one])).collect();
    let batch = consortium.openings(3, &items);
    let network = consortium.genesis.network();
    let candidate = Candidate::unchecked(network, batch);
    let built = build(&state.view(), at(5, 301), [candidate]).unwrap();
    assert_eq!(built.invalid.len(), 1);
    assert!(built.verified.block().transactions().is_empty());
    assert_eq!(built.steps, 9 * 5);
}
