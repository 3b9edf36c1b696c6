//! What a block says about a meter it says once, and no time is covered by two chains.

use bkss_ledger::{
    Refusal, RequestBatch, Revocation, State, Transaction,
    chain::End,
    execute::{SkipReason, TransactionRefusal},
    membership::RegistrationRefusal,
    propose,
    revocation::{Reason, RevocationRefusal, Right},
};
use bkss_scheme::{
    LedgerTime, MeterId, ProviderId, RootMessage, SdiId, Slot,
    hash::{Tag, hash},
    request,
    root_message::{Registration, SaltNonce},
    slot::Schedule,
};

use crate::{
    blocks::{block, offered, reasons, refusal},
    consortium::{Consortium, FIRST, Meter, SLOT_S, SLOTS, at, slots_from},
};

/// A meter with one chain, which can be revoked by secret too, and others that may follow it.
struct Case {
    consortium: Consortium,
    state: State,
    old: Meter,
    /// Next chains from slot 4 and 5 on.
    next: [Meter; 2],
}

const RHO: [u8; 32] = [5; 32];

fn case(seed: u64) -> Case {
    let mut consortium = Consortium::new(seed);
    let mut state = consortium.state();
    let lock = Some(hash(Tag::RevocationLock, &[&RHO]));
    let old = consortium.meter_with(0, |message| message.revocation_lock = lock);
    block(&mut state, at(0, 1), [old.registers()]);
    let next = [3, 4].map(|later| consortium.next_chain(&old, slots_from(FIRST.0 + later)));
    Case { consortium, state, old, next }
}

impl Case {
    /// A revocation of the old chain by its owner and the SDI, and one by secret.
    fn revocations(&self) -> [Transaction; 2] {
        let chain = self.state.view().chain(0).unwrap().clone();
        let (meter, right) = (chain.meter, Right::Secret(RHO));
        let by_secret = Revocation { meter, chain: chain.id, reason: Reason(2), right };
        [self.consortium.revocation(&chain), Transaction::Revocation(by_secret)]
    }
}

const fn registered_twice(meter: MeterId) -> TransactionRefusal {
    TransactionRefusal::Registration(RegistrationRefusal::SecondInBlock(meter))
}

const fn revoked_too(meter: MeterId) -> TransactionRefusal {
    TransactionRefusal::Revocation(RevocationRefusal::SecondInBlock(meter))
}

#[test]
fn a_block_registers_or_revokes_a_meter_once() {
    let mut case = case(1);
    let fresh = case.consortium.meter(8);
    let after_fresh = case.consortium.next_chain(&fresh, slots_from(FIRST.0 + 3));
    let meter = case.old.registration.message.meter;
    let [revoke, revoke_by_secret] = case.revocations();
    let [next, other_next] = &case.next.each_ref().map(Meter::registers);
    let view = &case.state.view();
    for (what, pair, expected) in [
        ("revoked, then replaced", [&revoke, next], registered_twice(meter)),
        ("replaced, then revoked", [next, &revoke], revoked_too(meter)),
        ("replaced twice", [next, other_next], registered_twice(meter)),
        ("replaced by the same", [next, next], registered_twice(meter)),
        ("revoked twice", [&revoke, &revoke_by_secret], revoked_too(meter)),
        (
            "registered, then replaced",
            [&fresh.registers(), &after_fresh.registers()],
            registered_twice(MeterId(8)),
        ),
    ] {
        let pair = pair.map(Transaction::clone);
        let refused = offered(&case.state, at(0, 2), &pair).unwrap_err();
        let expected = Refusal::Transaction { position: 1, reason: expected };
        assert_eq!(refused, expected, "{what}");
        let proposed = propose(view, at(0, 2), pair.clone()).unwrap();
        assert_eq!(proposed.block().transactions(), &pair[..1], "{what}: a leader takes the first");
    }
    // Other meters are other meters.
    let both = [revoke, fresh.registers()];
    assert!(offered(&case.state, at(0, 2), &both).is_ok());
}

#[test]
fn a_revocation_ends_the_meter_whatever_follows_it() {
    let mut case = case(2);
    let meter = case.old.registration.message.meter;
    let [revoke, _] = case.revocations();
    block(&mut case.state, at(0, 2), [revoke]);
    let revoked = End::Revoked(at(0, 2));
    assert_eq!(case.state.view().live(0).unwrap().end, Some(revoked));
    for next in &case.next {
        let reason = refusal(&case.state, at(0, 3), &next.registers());
        let expected = RegistrationRefusal::Revoked(meter);
        assert_eq!(reason, TransactionRefusal::Registration(expected));
    }
    let request = case.consortium.requests(0, 1, &[(0, case.old.sign(1, 5).value)]);
    let verified = offered(&case.state, at(1, 1), &[request]).unwrap();
    assert_eq!(reasons(&verified), [SkipReason::Ended]);
}

#[test]
fn a_revocation_of_a_chain_that_has_just_been_replaced_is_one_of_another_chain() {
    let mut case = case(3);
    let meter = case.old.registration.message.meter;
    let [revoke, _] = case.revocations();
    block(&mut case.state, at(0, 2), [case.next[0].registers()]);
    let reason = refusal(&case.state, at(0, 3), &revoke);
    let expected = RevocationRefusal::UnknownChain(meter);
    assert_eq!(reason, TransactionRefusal::Revocation(expected));
    // Whoever wants to revoke the meter revokes its newest chain, and with it the one before.
    let newest = case.state.view().chain(1).unwrap().clone();
    block(&mut case.state, at(0, 3), [case.consortium.revocation(&newest)]);
    for row in [0, 1] {
        let end = case.state.view().live(row).unwrap().end;
        assert_eq!(end, Some(End::Revoked(at(0, 3))), "chain {row}");
    }
}

/// Slots of another length that begin so many seconds behind the start of slot 1.
fn hundreds(seconds: u64) -> Schedule {
    let first = (FIRST.0 * u64::from(SLOT_S) + seconds) / 100;
    Schedule { first: Slot(first), slot_s: 100, window_s: 50, slots: SLOTS }
}

#[test]
fn a_next_chain_begins_behind_all_that_the_old_one_has_requested() {
    let mut case = case(4);
    let signed = case.old.sign(1, 26);
    let request = case.consortium.requests(0, 1, &[(0, signed.value)]);
    let until = at(2, 0);
    let in_time = case.consortium.next_chain(&case.old, hundreds(900));
    let early = [300, 800].map(|seconds| {
        let chain = case.consortium.next_chain(&case.old, hundreds(seconds));
        let start = LedgerTime(at(1, 0).0 + 1000 * seconds);
        (chain, TransactionRefusal::Registration(RegistrationRefusal::Overlaps { start, until }))
    });
    // In the block of the request, behind it.
    for (chain, reason) in &early {
        let both = [request.clone(), chain.registers()];
        let refused = offered(&case.state, at(1, 10), &both).unwrap_err();
        assert_eq!(refused, Refusal::Transaction { position: 1, reason: *reason });
    }
    // Before it, the request comes too late.
    let both = [early[0].0.registers(), request.clone()];
    let verified = offered(&case.state, at(1, 10), &both).unwrap();
    assert_eq!(reasons(&verified), [SkipReason::Ended]);
    block(&mut case.state, at(1, 10), [request]);
    // Later, while it waits; and once it has been opened.
    for (chain, expected) in &early {
        assert_eq!(refusal(&case.state, at(1, 20), &chain.registers()), *expected);
    }
    block(&mut case.state, at(1, 300), [case.consortium.openings(0, &[(0, &signed)])]);
    assert_eq!(refusal(&case.state, at(1, 310), &early[1].0.registers()), early[1].1);
    // With the end of what was requested a next chain may begin.
    block(&mut case.state, at(1, 310), [in_time.registers()]);
    let second = case.consortium.requests(0, 2, &[(0, case.old.sign(2, 5).value)]);
    let verified = offered(&case.state, at(2, 1), &[second]).unwrap();
    assert_eq!(reasons(&verified), [SkipReason::Ended]);
    let of_next = RequestBatch::sign(
        case.consortium.genesis.network(),
        ProviderId(0),
        &case.consortium.keys[0],
        hundreds(900).first,
        [(1, in_time.sign(1, 7).value)],
    );
    let verified = block(&mut case.state, at(2, 1), [Transaction::Requests(of_next)]);
    assert_eq!(verified.requests().len(), 1);
}

#[test]
fn a_window_leaves_something_of_the_time_for_openings() {
    let mut consortium = Consortium::founded(5, 4, |charter| {
        (charter.terms.reveal_s, charter.terms.keep_s) = (600, 600);
    });
    let state = consortium.state();
    let with_window = |consortium: &mut Consortium, window_s| {
        let schedule = Schedule { window_s, ..slots_from(FIRST.0) };
        consortium.meter_with(0, |message| message.schedule = schedule).registers()
    };
    for window_s in [600, 601, 899] {
        let reason = refusal(&state, at(0, 1), &with_window(&mut consortium, window_s));
        let expected = RegistrationRefusal::WindowTooLong { found: window_s, reveal: 600 };
        assert_eq!(reason, TransactionRefusal::Registration(expected));
    }
    assert!(offered(&state, at(0, 1), &[with_window(&mut consortium, 599)]).is_ok());
}

#[test]
fn two_chains_of_one_salt_are_refused_in_one_block_and_in_two() {
    let mut consortium = Consortium::new(6);
    let mut state = consortium.state();
    let nonce = SaltNonce([3; 16]);
    let meter = consortium.meter_with(0, |message| message.nonce = nonce);
    let again = consortium.meter_with(0, |message| {
        (message.nonce, message.schedule) = (nonce, slots_from(FIRST.0 + 3));
    });
    let salts = [&meter, &again].map(|meter| meter.registration.message.salt());
    assert_eq!(salts[0], salts[1]);
    let both = [meter.registers(), again.registers()];
    let refused = offered(&state, at(0, 1), &both).unwrap_err();
    let reason = registered_twice(MeterId(0));
    assert_eq!(refused, Refusal::Transaction { position: 1, reason });
    block(&mut state, at(0, 1), [meter.registers()]);
    let reason = refusal(&state, at(0, 2), &again.registers());
    assert_eq!(reason, TransactionRefusal::Registration(RegistrationRefusal::SaltTaken));
    // The salt of a chain that was replaced is taken for ever.
    let next = consortium.next_chain(&meter, slots_from(FIRST.0 + 2));
    block(&mut state, at(0, 2), [next.registers()]);
    let reason = refusal(&state, at(0, 3), &again.registers());
    assert_eq!(reason, TransactionRefusal::Registration(RegistrationRefusal::SaltTaken));
}

/// Whoever registers the anchor of another's meter, and its root, has a chain without links.
#[test]
fn the_anchor_of_another_meter_is_worth_nothing() {
    let mut consortium = Consortium::new(7);
    let mut state = consortium.state();
    let victim = consortium.meter(0);
    let of_victim = victim.registration.message.clone();
    block(&mut state, at(0, 1), [victim.registers()]);
    let (network, squatter) = (consortium.genesis.network(), ProviderId(3));
    let message =
        RootMessage { owner: squatter, meter: MeterId(4_000_000_000), ..of_victim.clone() };
    for other in [
        RootMessage { owner: squatter, ..of_victim.clone() },
        RootMessage { meter: MeterId(9), ..of_victim.clone() },
        RootMessage { sdi: SdiId(1), ..of_victim.clone() },
        RootMessage { nonce: SaltNonce([0; 16]), ..of_victim.clone() },
    ] {
        assert_ne!(other.salt(), of_victim.salt(), "salts are of their meters");
    }
    let squat = Registration::sign(message.clone(), network, &consortium.sdi, &consortium.keys[3]);
    block(&mut state, at(0, 2), [Transaction::Registration(squat)]);
    assert_eq!(state.view().chain(1).unwrap().salt, message.salt());
    // The victim is read as before ...
    let signed = victim.sign(1, 26);
    let mut copied = victim.sign(1, 26);
    let commitment = request::commitment(
        &message.id(network),
        copied.index,
        &bkss_scheme::hash::plain(&copied.body),
    );
    copied.value = request::request_value(&commitment, &copied.link);
    let requests = [
        consortium.requests(0, 1, &[(0, signed.value)]),
        consortium.requests(3, 1, &[(1, copied.value)]),
    ];
    assert_eq!(block(&mut state, at(1, 1), requests).requests().len(), 2);
    let opened = block(&mut state, at(1, 300), [consortium.openings(0, &[(0, &signed)])]);
    assert_eq!(opened.openings().len(), 1);
    // ... and its link, public by now, is none of the squatter's chain.
    let reason = refusal(&state, at(1, 301), &consortium.openings(3, &[(1, &copied)]));
    assert_eq!(reason, TransactionRefusal::ForeignLink { gateway: squatter, item: 0 });
}
