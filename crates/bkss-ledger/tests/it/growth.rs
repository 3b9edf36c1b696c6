//! What nobody can make grow beyond its bound: waiting requests, chains of an owner, the genesis
//! file.

use bkss_ledger::{
    Change, Pool, Refusal, Rounds, State, Transaction, Trust,
    chain::End,
    change::{Body as ChangeBody, MAX_OWN_CHANGES},
    execute::{SkipReason, TransactionRefusal},
    members::{MAX_MEMBERS, MembersChange},
    membership::{MAX_CHAINS, MAX_WAITING, RegistrationRefusal},
    pool::PoolError,
    propose,
};
use bkss_scheme::{
    Certificate, Digest, Handover, LedgerTime, MeterId, ProviderId, ProviderIdentity, PublicKey,
    SdiId, SdiIdentity,
    certificate::VoteKey,
    codec,
    finality::Finality,
    handover::MAX_MEMBERS_BYTES,
    identity::{Name, SdiMode},
    seal::{KeyId, SealingKey},
};

use crate::{
    blocks::{block, offered, reasons, refusal},
    consortium::{Consortium, FIRST, SHORT, at, slots_from},
    world::World,
};

#[test]
fn so_many_requests_of_a_gateway_for_a_chain_wait() {
    let mut consortium = Consortium::founded(1, 4, |charter| charter.limits.pending = 3);
    let mut state = consortium.state();
    let meter = consortium.meter(0);
    block(&mut state, at(0, 1), [meter.registers()]);
    let signed: Vec<_> = (1..=5).map(|index| meter.sign(index, 5)).collect();
    let request = |gateway, index: u32| {
        let value = signed[index as usize - 1].value;
        consortium.requests(gateway, index, &[(0, value)])
    };
    for index in 1..=3 {
        let accepted = block(&mut state, at(index, 1), [request(0, index), request(1, index)]);
        assert_eq!(accepted.requests().len(), 2);
    }
    let verified = offered(&state, at(4, 1), &[request(0, 4)]).unwrap();
    assert_eq!(reasons(&verified), [SkipReason::TooManyPending]);
    // Another one has room, and where something was opened so have all.
    assert_eq!(block(&mut state, at(4, 1), [request(2, 4)]).requests().len(), 1);
    block(&mut state, at(4, 2), [consortium.openings(0, &[(0, &signed[1])])]);
    let accepted = block(&mut state, at(4, 3), [request(0, 4), request(1, 4)]);
    assert_eq!(accepted.requests().len(), 2);
    let verified = offered(&state, at(5, 1), &[request(0, 5), request(2, 5)]).unwrap();
    assert_eq!(reasons(&verified), [SkipReason::TooManyPending]);
    assert_eq!(state.view().live(0).unwrap().pending.len(), 7);
}

#[test]
fn requests_that_can_no_longer_be_opened_make_room() {
    let mut consortium = Consortium::founded(2, 4, |charter| {
        // Four slots.
        (charter.terms.reveal_s, charter.limits.pending) = (3600, 4);
    });
    let mut state = consortium.state();
    let meter = consortium.meter(0);
    block(&mut state, at(0, 1), [meter.registers()]);
    for index in 1..=12 {
        let signed = meter.sign(index, 5);
        for gateway in 0..2 {
            let request = consortium.requests(gateway, index, &[(0, signed.value)]);
            let second = u64::try_from(gateway).unwrap();
            let accepted = block(&mut state, at(index, second), [request]);
            assert_eq!(accepted.requests().len(), 1, "slot {index}");
        }
        let live = state.view().live(0).cloned().unwrap();
        let waiting: Vec<_> = live.pending.iter().map(|pending| pending.index.get()).collect();
        let oldest = index.saturating_sub(3).max(1);
        let expected: Vec<_> = (oldest..=index).flat_map(|index| [index, index]).collect();
        assert_eq!(waiting, expected, "slot {index}");
    }
}

#[test]
fn an_owner_has_so_many_chains_and_leaves_room_for_others() {
    let mut consortium = Consortium::founded(3, 4, |charter| {
        (charter.limits.meters, charter.limits.owner_meters) = (4, 2);
    });
    let mut state = consortium.state();
    // The owner of a meter is its number modulo the founders.
    let [one, two, three] = [0, 4, 8].map(|number| consortium.meter(number));
    let next = consortium.next_chain(&one, slots_from(FIRST.0 + 2));
    let [of_another, of_a_third, of_a_fourth] = [1, 2, 3].map(|number| consortium.meter(number));
    let owner_full = TransactionRefusal::Registration(RegistrationRefusal::OwnerFull {
        owner: ProviderId(0),
        limit: 2,
    });
    // In one block, in blocks that are not final yet, and in later ones.
    let all = [&one, &two, &three].map(|meter| meter.registers());
    let refused = offered(&state, at(0, 1), &all).unwrap_err();
    assert_eq!(refused, Refusal::Transaction { position: 2, reason: owner_full });
    let first = propose(&state.view(), at(0, 1), all[..1].to_vec()).unwrap();
    let second = propose(&state.view_with([&first]).unwrap(), at(0, 2), all[1..].to_vec()).unwrap();
    assert_eq!(second.block().transactions(), &all[1..2], "a third is left out");
    let view = state.view_with([&first, &second]).unwrap();
    assert_eq!((view.chain_count(), view.chains_of(ProviderId(0))), (2, 2));
    let added = Pool::default().add(&view, three.registers());
    assert_eq!(added, Err(PoolError::Refused(owner_full)));
    state.apply(&first).unwrap();
    state.apply(&second).unwrap();
    // A next chain is one more: what is kept of the one before is kept for ever.
    for more in [&three, &next] {
        let refused = offered(&state, at(0, 3), &[more.registers()]).unwrap_err();
        assert_eq!(refused, Refusal::Transaction { position: 0, reason: owner_full });
        let added = Pool::default().add(&state.view(), more.registers());
        assert_eq!(added, Err(PoolError::Refused(owner_full)));
    }
    block(&mut state, at(0, 3), [of_another.registers(), of_a_third.registers()]);
    assert_eq!(state.chain_count(), 4);
    let full = TransactionRefusal::Registration(RegistrationRefusal::Full { limit: 4 });
    let refused = offered(&state, at(0, 4), &[of_a_fourth.registers()]).unwrap_err();
    assert_eq!(refused, Refusal::Transaction { position: 0, reason: full });
    let added = Pool::default().add(&state.view(), of_a_fourth.registers());
    assert_eq!(added, Err(PoolError::Refused(full)));
}

#[test]
fn a_meter_has_so_many_chains_in_its_life() {
    let mut consortium = Consortium::new(4);
    let mut state = consortium.state();
    let meter = consortium.meter(0);
    let of = MeterId(meter.number());
    block(&mut state, at(0, 1), [meter.registers()]);
    for index in 1..u32::try_from(MAX_CHAINS).unwrap() {
        let next = consortium.next_chain(&meter, slots_from(FIRST.0 + u64::from(index)));
        block(&mut state, at(index, 1), [next.registers()]);
    }
    assert_eq!(state.view().chains(of).len(), MAX_CHAINS);
    let last = u32::try_from(MAX_CHAINS).unwrap();
    let one_more = consortium.next_chain(&meter, slots_from(FIRST.0 + u64::from(last)));
    let refused = RegistrationRefusal::NoMoreChains { meter: of };
    is_refused(&state, at(last, 1), &one_more.registers(), refused);
    // Another meter of the same owner has its own.
    let of_same_owner = consortium.meter_with(4, |message| {
        message.schedule = slots_from(FIRST.0 + u64::from(last));
    });
    block(&mut state, at(last, 2), [of_same_owner.registers()]);
}

#[test]
fn so_many_chains_of_a_meter_wait_for_their_first_slot() {
    let mut consortium = Consortium::new(5);
    let mut state = consortium.state();
    let meter = consortium.meter(0);
    let of = MeterId(meter.number());
    block(&mut state, at(0, 1), [meter.registers()]);
    let next = |consortium: &mut Consortium, first: u64| {
        consortium.next_chain(&meter, slots_from(FIRST.0 + first)).registers()
    };
    // The first one waits as well.
    for second in 1..MAX_WAITING as u64 {
        let chain = next(&mut consortium, 1 + second / 4);
        block(&mut state, at(0, 1 + second), [chain]);
    }
    let one_more = next(&mut consortium, 9);
    is_refused(&state, at(0, 30), &one_more, RegistrationRefusal::ManyWait { meter: of });
    // Some have begun.
    block(&mut state, at(1, 1), []);
    block(&mut state, at(1, 2), [one_more]);
    let chains = state.view().chains(of);
    let newest = state.view().chain(chains[0]).unwrap().clone();
    // A revocation ends all that have slots to come.
    block(&mut state, at(1, 3), [consortium.revocation(&newest)]);
    let revoked = chains
        .iter()
        .filter(|row| matches!(state.view().live(**row).unwrap().end, Some(End::Revoked(_))));
    assert!((2..=MAX_WAITING + 1).contains(&revoked.count()));
}

/// A registration that validators, leaders and pools refuse.
fn is_refused(
    state: &State,
    time: LedgerTime,
    registration: &Transaction,
    refused: RegistrationRefusal,
) {
    let reason = TransactionRefusal::Registration(refused);
    assert_eq!(refusal(state, time, registration), reason);
    let added = Pool::default().add(&state.view(), registration.clone());
    assert_eq!(added, Err(PoolError::Refused(reason)));
}

fn longest_name() -> Name {
    "x".repeat(codec::MAX_NAME).as_str().try_into().unwrap()
}

/// Numbers whose encodings are as long as any.
fn numbers(count: usize) -> impl Iterator<Item = u16> {
    (0..u16::try_from(count).unwrap()).map(|number| 10_000 + number)
}

fn bytes_of<const N: usize>(number: u16) -> [u8; N] {
    let mut bytes = [0xFF; N];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn all_members_at_once_fit_a_handover() {
    let provider = |number| ProviderIdentity {
        id: ProviderId(number),
        name: longest_name(),
        key: PublicKey(bytes_of(number)),
        agreement: Digest([0xFF; 32]),
        sealing_key: SealingKey { id: KeyId(u16::MAX), public: bytes_of(number) },
        vote_key: VoteKey(bytes_of(number)),
        address: longest_name(),
    };
    let sdi = |number| SdiIdentity {
        id: SdiId(number),
        name: longest_name(),
        key: PublicKey(bytes_of(number)),
        mode: SdiMode::Shared,
    };
    let change = |providers, sdis| MembersChange {
        providers: numbers(providers).map(provider).collect(),
        gone: Vec::new(),
        sdis: numbers(sdis).map(sdi).collect(),
        gone_sdis: Vec::new(),
    };
    let largest = change(MAX_MEMBERS, MAX_MEMBERS);
    let members = largest.encode();
    println!("largest change of the members: {} bytes of {MAX_MEMBERS_BYTES}", members.len());
    assert!(members.len() <= MAX_MEMBERS_BYTES);

    let consortium = Consortium::new(4);
    let header = consortium.genesis.header();
    let (signers, signatures) = consortium.certify(header.id(), 7);
    let certificate =
        Certificate { epoch: 0, view: 7, parent_view: 6, signers, signatures: &signatures };
    let finality = Finality { descendants: &[], certificate };
    let handover = Handover { header, finality, committee: None, members: Some(&members) };
    let mut bytes = Vec::new();
    codec::encode_infallible(&handover, &mut bytes);
    let read: Handover<'_> = codec::decode("handover", &bytes).unwrap();
    assert_eq!(read, handover);
    assert_eq!(MembersChange::decode(read.members.unwrap()), Ok(largest));
    for (providers, sdis) in [(MAX_MEMBERS + 1, 0), (0, MAX_MEMBERS + 1)] {
        let too_many = change(providers, sdis).encode();
        assert!(MembersChange::decode(&too_many).is_err(), "{providers} and {sdis}");
    }
}

/// A day on which one of the most founders there can be moves as often as it may, under names as
/// long as they can be.
#[test]
fn a_day_of_moves_adds_little_to_the_genesis_file() {
    const PROVIDERS: u16 = 64;
    let consortium = Consortium::founded(5, PROVIDERS, |charter| {
        charter.rounds = Rounds { committee: 21, alternates: 10, ..SHORT };
        charter.providers.iter_mut().for_each(|provider| provider.name = longest_name());
    });
    let mut world = World::of(consortium);
    let (mover, network) = (ProviderId(63), world.consortium.genesis.network());
    let before = world.file().len();
    for number in 0..=MAX_OWN_CHANGES {
        let to = format!("{number}{}", "x".repeat(codec::MAX_NAME - 1));
        let to = ChangeBody::Address(mover, to.as_str().try_into().unwrap());
        let mut change = Change::new(to, u64::MAX - 100 + u64::from(number));
        change.sign(network, &world.consortium.keys[63]);
        let change = Transaction::Change(change);
        if number < MAX_OWN_CHANGES {
            world.block(&[change]);
        } else {
            let proposed = propose(&world.state.view(), world.next_time(), [change]).unwrap();
            assert!(proposed.block().transactions().is_empty(), "one a day too many");
        }
    }
    let file = world.file();
    let grown = file.len() - before;
    println!("{MAX_OWN_CHANGES} moves of one of {PROVIDERS} providers: {grown} bytes a day");
    assert!(grown < 32 << 10, "{grown} bytes");
    let trust = Trust::decode(&file).unwrap();
    let found = trust.anchors().providers.iter().find(|provider| provider.id == mover);
    assert!(found.unwrap().address.starts_with('7'));
}
