//! Ends of chains: replaced, revoked; and evidence against providers.

use bkss_ledger::{
    Chain, Evidence, Pool, Revocation, State, Transaction,
    evidence::{EvidenceRefusal, MAX_RECORDS, Offence, SignedVote},
    execute::{SkipReason, TransactionRefusal},
    membership::RegistrationRefusal,
    pool::PoolError,
    propose,
    revocation::{Reason, RevocationRefusal, Right},
};
use bkss_scheme::{
    Digest, LedgerTime, ProviderId, RootMessage, SdiId, Signature, Slot,
    certificate::{VoteContent, VoteKey},
    hash::{Tag, hash},
    identity::SignatureError,
    root_message::{Registration, SaltNonce},
};

use crate::{
    blocks::{block, offered, reasons, refusal},
    consortium::{Consortium, FIRST, Meter, SLOT_S, at, slots_from, vote_key},
};

/// Why a block of this one transaction is refused; what has ended or is known does not wait in a
/// pool either.
fn refused(state: &State, time: LedgerTime, transaction: &Transaction) -> TransactionRefusal {
    let waits = Pool::default().add(&state.view(), transaction.clone());
    let reason = refusal(state, time, transaction);
    assert_eq!(waits, Err(PoolError::Refused(reason)));
    reason
}

/// Verified in a block of its own although it contributes nothing.
fn skipped(state: &State, time: LedgerTime, transaction: Transaction) -> Vec<SkipReason> {
    reasons(&offered(state, time, &[transaction]).unwrap())
}

#[test]
fn a_chain_is_replaced_and_no_slot_is_valid_under_both() {
    let mut consortium = Consortium::new(1);
    let mut state = consortium.state();
    let old = consortium.meter(0);
    let new = consortium.next_chain(&old, slots_from(FIRST.0 + 3));
    block(&mut state, at(0, 1), [old.registers()]);
    block(&mut state, at(0, 2), [new.registers()]);
    assert_eq!(state.view().chains(old.registration.message.meter), [1, 0]);
    let meter = old.registration.message.meter;
    assert_eq!(state.view().row(meter), Some(1), "the newest is the meter's chain");

    for index in 1..=5_u32 {
        let slot = FIRST.0 + u64::from(index) - 1;
        let of_old = old.sign(index, 1).value;
        let old_request = consortium.requests(0, index, &[(0, of_old)]);
        let before = index <= 3;
        if before {
            assert_eq!(block(&mut state, at(index, 1), [old_request]).requests().len(), 1);
        } else {
            assert_eq!(skipped(&state, at(index, 1), old_request), [SkipReason::Ended]);
        }
        let of_new = new.sign(1.max(index.saturating_sub(3)), 1).value;
        let new_request = consortium.requests(1, index, &[(1, of_new)]);
        if before {
            let expected = [SkipReason::OutsideChain];
            assert_eq!(skipped(&state, at(index, 2), new_request), expected, "slot {slot}");
        } else {
            assert_eq!(block(&mut state, at(index, 2), [new_request]).requests().len(), 1);
        }
    }
    // What was requested under the old chain is opened under it, later than its end.
    let signed = old.sign(3, 1);
    let opening = consortium.openings(0, &[(0, &signed)]);
    assert_eq!(block(&mut state, at(6, 0), [opening]).openings().len(), 1);
}

#[test]
fn a_chain_is_replaced_for_the_same_device_only_and_forwards_only() {
    let mut consortium = Consortium::new(2);
    let mut state = consortium.state();
    let old = consortium.meter(0);
    let new = consortium.next_chain(&old, slots_from(FIRST.0 + 5));
    block(&mut state, at(0, 1), [old.registers()]);
    let sign = |message: RootMessage| {
        let network = consortium.genesis.network();
        let owner = &consortium.keys[usize::from(message.owner.0)];
        Transaction::Registration(Registration::sign(message, network, &consortium.sdi, owner))
    };
    let message = &new.registration.message;
    let meter = message.meter;
    let other_device = sign(RootMessage { device: Digest([9; 32]), ..message.clone() });
    let other_owner = sign(RootMessage { owner: ProviderId(1), ..message.clone() });
    let same_salt = sign(RootMessage { nonce: old.registration.message.nonce, ..message.clone() });
    for (transaction, expected) in [
        (other_device, RegistrationRefusal::OtherDevice(meter)),
        (other_owner, RegistrationRefusal::OtherDevice(meter)),
        (same_salt, RegistrationRefusal::SaltTaken),
    ] {
        let reason = refused(&state, at(0, 2), &transaction);
        assert_eq!(reason, TransactionRefusal::Registration(expected));
    }
    block(&mut state, at(0, 3), [new.registers()]);
    let schedule = message.schedule;
    let earlier = RootMessage {
        nonce: SaltNonce([3; 16]),
        schedule: bkss_scheme::slot::Schedule { first: Slot(FIRST.0 + 2), ..schedule },
        ..message.clone()
    };
    let (before, found) =
        (schedule.begins(), LedgerTime::from_seconds((FIRST.0 + 2) * u64::from(SLOT_S)));
    let expected = RegistrationRefusal::BeforeLast { before, found };
    let reason = refused(&state, at(0, 4), &sign(earlier));
    assert_eq!(reason, TransactionRefusal::Registration(expected));
}

/// A registered meter with a lock, and the secret that opens it.
fn lockable(consortium: &mut Consortium, state: &mut State) -> (Meter, Chain, [u8; 32]) {
    let rho = [5; 32];
    let lock = Some(hash(Tag::RevocationLock, &[&rho]));
    let meter = consortium.meter_with(0, |message| message.revocation_lock = lock);
    block(state, at(0, 1), [meter.registers()]);
    let chain = state.view().chain(0).unwrap().clone();
    (meter, chain, rho)
}

#[test]
fn a_revoked_meter_requests_nothing_more_and_opens_what_it_had_requested() {
    for by_secret in [false, true] {
        let mut consortium = Consortium::new(3);
        let mut state = consortium.state();
        let (meter, chain, rho) = lockable(&mut consortium, &mut state);
        let transaction = if by_secret {
            let (meter, chain, right) = (chain.meter, chain.id, Right::Secret(rho));
            Transaction::Revocation(Revocation { meter, chain, reason: Reason(1), right })
        } else {
            consortium.revocation(&chain)
        };
        let signed = meter.sign(1, 1);
        let request = consortium.requests(0, 1, &[(0, signed.value)]);
        block(&mut state, at(1, 1), [request]);
        block(&mut state, at(1, 2), [transaction.clone()]);
        let again = refused(&state, at(1, 3), &transaction);
        let id = chain.meter;
        assert_eq!(again, TransactionRefusal::Revocation(RevocationRefusal::Ended(id)));

        let late = consortium.requests(1, 1, &[(0, signed.value)]);
        assert_eq!(skipped(&state, at(1, 4), late), [SkipReason::Ended]);
        let opening = consortium.openings(0, &[(0, &signed)]);
        assert_eq!(block(&mut state, at(1, 300), [opening]).openings().len(), 1);
        let next = consortium.requests(0, 2, &[(0, meter.sign(2, 1).value)]);
        assert_eq!(skipped(&state, at(2, 1), next), [SkipReason::Ended]);

        // The stolen device gets no further chain under this number.
        let again = consortium.next_chain(&meter, slots_from(FIRST.0 + 9));
        let reason = refused(&state, at(2, 2), &again.registers());
        let expected = RegistrationRefusal::Revoked(id);
        assert_eq!(reason, TransactionRefusal::Registration(expected));
    }
}

#[test]
fn a_meter_whose_next_chain_has_not_begun_is_revoked_with_both_chains() {
    for revoked in [false, true] {
        let mut consortium = Consortium::new(5);
        let mut state = consortium.state();
        let old = consortium.meter(0);
        let new = consortium.next_chain(&old, slots_from(FIRST.0 + 3));
        block(&mut state, at(0, 1), [old.registers()]);
        block(&mut state, at(0, 2), [new.registers()]);
        if revoked {
            let chain = state.view().chain(1).unwrap().clone();
            block(&mut state, at(0, 3), [consortium.revocation(&chain)]);
        }
        let request = consortium.requests(0, 1, &[(0, old.sign(1, 1).value)]);
        if revoked {
            assert_eq!(skipped(&state, at(1, 1), request), [SkipReason::Ended]);
        } else {
            assert_eq!(block(&mut state, at(1, 1), [request]).requests().len(), 1);
        }
    }
}

#[test]
fn a_revocation_takes_owner_and_sdi_or_the_secret() {
    let mut consortium = Consortium::new(4);
    let mut state = consortium.state();
    let (_, chain, _) = lockable(&mut consortium, &mut state);
    let network = consortium.genesis.network();
    let meter = chain.meter;
    let sdi = (SdiId(0), &consortium.sdi);
    let good = Revocation::sign(network, &chain, Reason(1), sdi, &consortium.keys[0]);
    let by_other_owner = Revocation::sign(network, &chain, Reason(1), sdi, &consortium.keys[1]);
    let by_no_sdi = Revocation::sign(
        network,
        &chain,
        Reason(1),
        (SdiId(0), &consortium.keys[0]),
        &consortium.keys[0],
    );
    let by_unknown_sdi = Revocation::sign(
        network,
        &chain,
        Reason(1),
        (SdiId(9), &consortium.sdi),
        &consortium.keys[0],
    );
    let other_reason = Revocation { reason: Reason(2), ..good.clone() };
    let other_chain = Revocation { chain: Digest([1; 32]), ..good.clone() };
    let guessed = Revocation { right: Right::Secret([6; 32]), ..good };
    let mismatch = SignatureError::Mismatch;
    for (revocation, expected) in [
        (by_other_owner, RevocationRefusal::Owner(mismatch)),
        (by_no_sdi, RevocationRefusal::Sdi(mismatch)),
        (by_unknown_sdi, RevocationRefusal::UnknownSdi(SdiId(9))),
        (other_reason, RevocationRefusal::Sdi(mismatch)),
        (other_chain, RevocationRefusal::UnknownChain(meter)),
        (guessed, RevocationRefusal::Secret),
    ] {
        let reason = refused(&state, at(0, 2), &Transaction::Revocation(revocation));
        assert_eq!(reason, TransactionRefusal::Revocation(expected));
    }
}

/// Two votes of a founder in a view.
pub(crate) fn evidence(consortium: &Consortium, votes: [VoteContent; 2]) -> Evidence {
    evidence_of(consortium, 1, 17, votes)
}

fn evidence_of(
    consortium: &Consortium,
    provider: u16,
    view: u64,
    votes: [VoteContent; 2],
) -> Evidence {
    let epoch = 3;
    let key = &consortium.votes[usize::from(provider)];
    let vote = |content: VoteContent| {
        let message = content.message(consortium.genesis.network(), epoch, view).unwrap();
        SignedVote { content, signature: Signature(key.sign(&message).into()) }
    };
    Evidence {
        offence: Offence { provider: ProviderId(provider), epoch, view },
        vote_key: vote_key(key),
        votes: votes.map(vote),
    }
}

pub(crate) const fn notarize(block: u8, parent_view: u64) -> VoteContent {
    VoteContent::Notarize { parent_view, block: Digest([block; 32]) }
}

const fn finalize(block: u8, parent_view: u64) -> VoteContent {
    VoteContent::Finalize { parent_view, block: Digest([block; 32]) }
}

#[test]
fn double_votes_are_recorded_once() {
    let nullify = VoteContent::Nullify;
    for votes in [
        [notarize(1, 16), notarize(2, 16)],
        [notarize(1, 16), notarize(1, 15)],
        [finalize(1, 16), finalize(2, 16)],
        [nullify, finalize(1, 16)],
    ] {
        let consortium = Consortium::new(5);
        let mut state = consortium.state();
        let evidence = evidence(&consortium, votes);
        let transaction = Transaction::Evidence(evidence.clone());
        block(&mut state, at(0, 1), [transaction.clone()]);
        assert_eq!(state.offences().iter().collect::<Vec<_>>(), [&evidence.offence]);
        let reason = refused(&state, at(0, 2), &transaction);
        let expected = EvidenceRefusal::Known(evidence.offence);
        assert_eq!(reason, TransactionRefusal::Evidence(expected), "{votes:?}");
    }
}

#[test]
fn a_provider_that_votes_twice_often_leaves_room_for_others() {
    let consortium = Consortium::new(7);
    let mut state = consortium.state();
    let votes = [notarize(1, 16), notarize(2, 16)];
    let transaction =
        |provider, view| Transaction::Evidence(evidence_of(&consortium, provider, view, votes));
    let limit = MAX_RECORDS as u64;
    block(&mut state, at(0, 1), (17..17 + limit - 1).map(|view| transaction(1, view)));
    // The last place: of two in one block the second is one too many.
    let both = [transaction(1, 200), transaction(1, 201)];
    let proposed = propose(&state.view(), at(0, 2), both).unwrap();
    assert_eq!(proposed.block().transactions().len(), 1);
    block(&mut state, at(0, 2), [transaction(1, 200)]);
    let reason = refused(&state, at(0, 3), &transaction(1, 201));
    assert_eq!(reason, TransactionRefusal::Evidence(EvidenceRefusal::Full(ProviderId(1))));
    block(&mut state, at(0, 3), [transaction(2, 17)]);
    assert_eq!(state.offences().len(), MAX_RECORDS + 1);
}

#[test]
fn evidence_that_proves_nothing_is_refused_for_its_reason() {
    let consortium = Consortium::new(6);
    let state = consortium.state();
    let good = evidence(&consortium, [notarize(1, 16), notarize(2, 16)]);
    let with = |change: &dyn Fn(&mut Evidence)| {
        let mut altered = good.clone();
        change(&mut altered);
        altered
    };
    let other = ProviderId(2);
    for (what, evidence, expected) in [
        (
            "honest",
            evidence(&consortium, [notarize(1, 16), finalize(2, 16)]),
            EvidenceRefusal::NoConflict,
        ),
        (
            "once",
            evidence(&consortium, [notarize(1, 16), notarize(1, 16)]),
            EvidenceRefusal::NoConflict,
        ),
        (
            "time-out",
            evidence(&consortium, [VoteContent::Nullify, notarize(1, 16)]),
            EvidenceRefusal::NoConflict,
        ),
        ("another's", with(&|e| e.offence.provider = other), EvidenceRefusal::OtherKey(other)),
        (
            "a stranger's",
            with(&|e| e.vote_key = VoteKey([3; 32])),
            EvidenceRefusal::OtherKey(ProviderId(1)),
        ),
        ("another view", with(&|e| e.offence.view = 18), EvidenceRefusal::Signature(0)),
        ("another round", with(&|e| e.offence.epoch = 4), EvidenceRefusal::Signature(0)),
        (
            "forged",
            with(&|e| e.votes[1].signature = Signature([1; 64])),
            EvidenceRefusal::Signature(1),
        ),
    ] {
        let reason = refused(&state, at(0, 1), &Transaction::Evidence(evidence));
        assert_eq!(reason, TransactionRefusal::Evidence(expected), "{what}");
    }
}
