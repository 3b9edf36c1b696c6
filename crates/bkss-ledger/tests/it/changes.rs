//! Providers and SDIs that join, leave and renew their keys.

use bkss_ledger::{
    Change, Pool, Refusal, Rounds, Snapshot, State, Transaction,
    change::{Body, ChangeRefusal, MAX_OWN_CHANGES},
    execute::TransactionRefusal,
    members::MAX_VOTE_KEYS,
    pool::PoolError,
    propose, snapshot, verify,
};
use bkss_scheme::{
    Digest, LedgerTime, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey, Signature,
    certificate::{VoteKey, possess},
    identity::SdiMode,
    root_message::Registration,
    seal::{KeyId, OpeningKey},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::{
    blocks::{block, offered, refusal},
    consortium::{Consortium, SHORT, at, vote_key},
};

const ROUNDS: Rounds = Rounds { committee: 21, alternates: 10, ..SHORT };
const UNTIL: u64 = 9;
const DAY_S: u64 = 86_400;

/// No point of the curve has this y coordinate.
const NO_POINT: VoteKey = VoteKey([2; 32]);

/// The neutral element: everybody can sign for it.
const fn neutral() -> VoteKey {
    let mut key = [0; 32];
    key[0] = 1;
    VoteKey(key)
}

fn late_key(seed: u8) -> VoteKey {
    vote_key(&ed25519_zebra::SigningKey::from([seed; 32]))
}

/// A consortium of founders, and a stranger.
struct World {
    consortium: Consortium,
    state: State,
    stranger: SecretKey,
    second: u64,
}

impl World {
    fn new(founders: u16) -> Self {
        let consortium = Consortium::with(1, founders, ROUNDS);
        let stranger = SecretKey::generate(&mut ChaCha8Rng::seed_from_u64(99));
        Self { state: consortium.state(), consortium, stranger, second: 0 }
    }

    fn identity(&self, number: u16) -> ProviderIdentity {
        let mut rng = ChaCha8Rng::seed_from_u64(98);
        ProviderIdentity {
            id: ProviderId(number),
            name: "late".try_into().unwrap(),
            key: self.stranger.public(),
            agreement: self.consortium.genesis.charter().agreement,
            sealing_key: OpeningKey::generate(KeyId(1), &mut rng).public(),
            vote_key: late_key(9),
            address: "late:1".try_into().unwrap(),
        }
    }

    fn own(&self, body: Body, key: &SecretKey) -> Change {
        let mut change = Change::new(body, UNTIL);
        change.sign(self.consortium.genesis.network(), key);
        change
    }

    fn approved(&self, mut change: Change, by: impl IntoIterator<Item = u16>) -> Change {
        for provider in by {
            let key = &self.consortium.keys[usize::from(provider)];
            change.approve(self.consortium.genesis.network(), ProviderId(provider), key);
        }
        change
    }

    fn join(&self, number: u16) -> Change {
        let change = self.own(Body::Join(self.identity(number)), &self.stranger);
        self.approved(change, 0..3)
    }

    fn next_time(&mut self) -> LedgerTime {
        self.second += 1;
        at(0, self.second)
    }

    /// A block with these changes, verified by another node on its bytes.
    fn block(&mut self, changes: impl IntoIterator<Item = Change>) {
        let time = self.next_time();
        let changes: Vec<_> = changes.into_iter().map(Transaction::Change).collect();
        let verified = propose(&self.state.view(), time, changes.clone()).unwrap();
        assert_eq!(verified.block().transactions(), changes);
        let again = verify(&self.state.view(), verified.block().clone()).unwrap();
        self.state.apply(&again).unwrap();
    }

    fn refusal(&mut self, change: Change) -> ChangeRefusal {
        let time = self.next_time();
        match refusal(&self.state, time, &Transaction::Change(change)) {
            TransactionRefusal::Change(reason) => reason,
            other => unreachable!("{other:?}"),
        }
    }

    fn end_round(&mut self) {
        let number = self.state.round().number;
        while self.state.round().number == number {
            self.block([]);
        }
    }
}

#[test]
fn a_provider_joins_with_a_quorum_and_votes_from_the_next_round_on() {
    let mut world = World::new(4);
    let join = world.join(7);
    let before = world.state.members().digest();
    world.block([join]);
    let members = world.state.members();
    assert_eq!((members.count(), members.quorum()), (5, 4));
    assert_ne!(members.digest(), before);
    let key = world.identity(7).vote_key;
    assert!(!world.state.round().committee.keys().contains(&key), "not in this round");
    world.end_round();
    assert!(world.state.round().committee.keys().contains(&key));
    assert_eq!(world.state.round().committee.quorum(), 4);
}

#[test]
fn a_join_is_refused_for_its_reason() {
    use ChangeRefusal as Refused;

    let mut world = World::new(5);
    let good = world.approved(world.join(7), 0..4);
    let identity = world.identity(7);
    let with = |change: &dyn Fn(&mut ProviderIdentity)| {
        let mut altered = identity.clone();
        change(&mut altered);
        world.approved(world.own(Body::Join(altered), &world.stranger), 0..4)
    };
    let founder = world.state.members().provider(ProviderId(0)).unwrap().clone();
    let agreement = founder.agreement;
    let own_key = world.consortium.keys[0].clone();
    let mut by_own_key = identity.clone();
    by_own_key.key = founder.key;
    let by_own_key = world.approved(world.own(Body::Join(by_own_key), &own_key), 0..4);
    let unsigned = Change { own: None, ..good.clone() };
    let by_another = {
        let change = Change::new(Body::Join(identity.clone()), UNTIL);
        let mut change = world.approved(change, 0..4);
        change.sign(world.consortium.genesis.network(), &own_key);
        change
    };
    let mut swapped = good.clone();
    swapped.approvals.swap(0, 1);
    let mut forged = good.clone();
    forged.approvals[2].1 = Signature([1; 64]);
    let mut by_nobody = good.clone();
    by_nobody.approvals[3].0 = ProviderId(40);
    let mut later = good.clone();
    later.until += 1;
    for (change, expected) in [
        (
            with(&|i| i.agreement = Digest([1; 32])),
            Refused::Agreement { expected: agreement, found: Digest([1; 32]) },
        ),
        (with(&|i| i.id = ProviderId(0)), Refused::NumberTaken),
        (by_own_key, Refused::KeyTaken),
        (with(&|i| i.vote_key = founder.vote_key), Refused::VoteKeyTaken),
        (with(&|i| i.vote_key = NO_POINT), Refused::VoteKeyNoPoint),
        (with(&|i| i.vote_key = neutral()), Refused::VoteKeyNoPoint),
        (unsigned, Refused::OwnSignature),
        (by_another, Refused::Own(bkss_scheme::identity::SignatureError::Mismatch)),
        (swapped, Refused::Order),
        (
            forged,
            Refused::Approval {
                provider: ProviderId(2),
                reason: bkss_scheme::identity::SignatureError::Mismatch,
            },
        ),
        (by_nobody, Refused::NotPresent(ProviderId(40))),
        (world.join(7), Refused::Quorum { expected: 4, found: 3 }),
        (later, Refused::Own(bkss_scheme::identity::SignatureError::Mismatch)),
    ] {
        assert_eq!(world.refusal(change), expected);
    }
    world.block([good.clone()]);
    assert_eq!(world.refusal(good), Refused::NumberTaken, "twice");
}

#[test]
fn an_approval_counts_once() {
    let mut world = World::new(5);
    let join = world.own(Body::Join(world.identity(7)), &world.stranger);
    let few = world.approved(join, 0..3);
    assert_eq!(world.refusal(few.clone()), ChangeRefusal::Quorum { expected: 4, found: 3 });
    for again in 0..3 {
        let mut many = few.clone();
        many.approvals.insert(again, many.approvals[again]);
        assert_eq!(many.approvals.len(), 4);
        assert_eq!(world.refusal(many), ChangeRefusal::Order, "provider {again} twice");
    }
    // Whoever approves again says the same again.
    let again = world.approved(few.clone(), 0..3);
    assert_eq!(again, few);
}

#[test]
fn old_approvals_are_worth_nothing() {
    let mut world = World::new(4);
    let mut change = Change::new(Body::Join(world.identity(7)), 0);
    change.sign(world.consortium.genesis.network(), &world.stranger);
    let change = world.approved(change, 0..3);
    world.end_round();
    let expected = ChangeRefusal::Expired { until: 0, round: 1 };
    assert_eq!(world.refusal(change), expected);
}

#[test]
fn a_provider_that_left_or_was_expelled_does_nothing_new() {
    for expelled in [false, true] {
        let mut world = World::new(5);
        let meter = world.consortium.meter(4);
        let leaver = world.consortium.keys[4].clone();
        let change = if expelled {
            world.approved(Change::new(Body::Expel(ProviderId(4)), UNTIL), 0..4)
        } else {
            world.own(Body::Leave(ProviderId(4)), &leaver)
        };
        world.block([change.clone()]);
        let gone = ChangeRefusal::NotPresent(ProviderId(4));
        assert_eq!(world.refusal(change), gone);
        let signed = meter.sign(1, 3);
        let batch = world.consortium.requests(4, 1, &[(0, signed.value)]);
        let registration = Transaction::Registration(meter.registration);
        let time = world.next_time();
        let left_out = propose(&world.state.view(), time, [registration, batch]).unwrap();
        assert!(left_out.block().transactions().is_empty());
        let key = world.state.members().provider_ever(ProviderId(4)).unwrap().vote_key;
        assert!(
            world.state.round().committee.keys().contains(&key),
            "its term ends with the round"
        );
        world.end_round();
        assert!(!world.state.round().committee.keys().contains(&key));

        // Four must remain, and a number does not come back.
        let key = world.consortium.keys[0].clone();
        let leave = world.own(Body::Leave(ProviderId(0)), &key);
        assert_eq!(world.refusal(leave), ChangeRefusal::TooFew);
        let again = world.own(Body::Join(world.identity(4)), &world.stranger);
        let again = world.approved(again, 0..3);
        assert_eq!(world.refusal(again), ChangeRefusal::NumberTaken);
    }
}

#[test]
fn expulsion_takes_a_quorum_and_leaving_the_own_signature() {
    let mut world = World::new(5);
    let few = world.approved(Change::new(Body::Expel(ProviderId(4)), UNTIL), 0..3);
    assert_eq!(world.refusal(few), ChangeRefusal::Quorum { expected: 4, found: 3 });
    let by_others = world.approved(Change::new(Body::Leave(ProviderId(4)), UNTIL), 0..4);
    assert_eq!(world.refusal(by_others), ChangeRefusal::OwnSignature);
    let by_another = world.own(Body::Leave(ProviderId(4)), &world.consortium.keys[3]);
    let mismatch = bkss_scheme::identity::SignatureError::Mismatch;
    assert_eq!(world.refusal(by_another), ChangeRefusal::Own(mismatch));
}

#[test]
fn keys_are_renewed_and_never_come_back() {
    let mut world = World::new(4);
    let id = ProviderId(2);
    let key = world.consortium.keys[2].clone();
    let old = world.state.members().provider(id).unwrap().clone();
    let network = world.consortium.genesis.network();
    let [first_key, second_key] = [7, 8].map(|number| possess(&[number; 32], network, id));
    let (first, second) = (first_key.0, second_key.0);
    let rotate = |world: &World, (to, signature)| world.own(Body::VoteKey(id, to, signature), &key);
    world.block([rotate(&world, first_key)]);
    assert!(world.state.round().committee.keys().contains(&old.vote_key), "until the round ends");
    world.end_round();
    let keys = world.state.round().committee.keys();
    assert!(keys.contains(&first) && !keys.contains(&old.vote_key));
    world.block([rotate(&world, second_key)]);
    for used in [old.vote_key, first, second] {
        let change = rotate(&world, (used, first_key.1));
        assert_eq!(world.refusal(change), ChangeRefusal::VoteKeyTaken);
    }

    for nobodys in [NO_POINT, neutral()] {
        let change = rotate(&world, (nobodys, first_key.1));
        assert_eq!(world.refusal(change), ChangeRefusal::VoteKeyNoPoint);
    }

    let sealing = |number: u16| {
        let mut rng = ChaCha8Rng::seed_from_u64(number.into());
        Body::SealingKey(id, OpeningKey::generate(KeyId(number), &mut rng).public())
    };
    for number in [1, 3] {
        let expected = ChangeRefusal::SealingKey { expected: 2, found: number };
        assert_eq!(world.refusal(world.own(sealing(number), &key)), expected);
    }
    world.block([world.own(sealing(2), &key)]);
    assert_eq!(world.state.members().provider(id).unwrap().sealing_key.id, KeyId(2));
    let moved = Body::Address(id, "elsewhere:2".try_into().unwrap());
    world.block([world.own(moved, &key)]);
    assert_eq!(world.state.members().provider(id).unwrap().address.as_str(), "elsewhere:2");
}

#[test]
fn vote_keys_are_kept_for_ever_and_therefore_counted() {
    let mut world = World::new(4);
    let (id, key) = (ProviderId(2), world.consortium.keys[2].clone());
    let rotate = |world: &World, number: u32| {
        let mut seed = [6; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let network = world.consortium.genesis.network();
        let (to, signature) = possess(&seed, network, id);
        let mut change = Change::new(Body::VoteKey(id, to, signature), 1 << 20);
        change.sign(world.consortium.genesis.network(), &key);
        change
    };
    let most = u32::try_from(MAX_VOTE_KEYS).unwrap();
    let changes: Vec<_> = (1..most).map(|number| rotate(&world, number)).collect();
    for changes in changes.chunks(MAX_OWN_CHANGES as usize) {
        world.block(changes.iter().cloned());
        world.second += DAY_S;
    }
    assert_eq!(world.state.members().vote_keys(id), MAX_VOTE_KEYS);
    let one_more = rotate(&world, most);
    assert_eq!(world.refusal(one_more), ChangeRefusal::VoteKeys(id));

    // What is kept comes back from a snapshot.
    let mut bytes = Vec::new();
    snapshot::write(&mut world.state, &mut bytes).unwrap();
    let back = Snapshot::read(&world.consortium.genesis, &bytes[..]).unwrap().of_own_disk();
    assert_eq!(back.members(), world.state.members());
}

#[test]
fn a_provider_changes_itself_a_few_times_a_day() {
    let mut world = World::new(4);
    let (id, key) = (ProviderId(2), world.consortium.keys[2].clone());
    let move_to = |world: &World, port: u32| {
        let to = format!("elsewhere:{port}");
        let until = (1 << 20) + u64::from(port);
        let mut change = Change::new(Body::Address(id, to.as_str().try_into().unwrap()), until);
        change.sign(world.consortium.genesis.network(), &key);
        change
    };
    let address =
        |world: &World| world.state.members().provider(id).unwrap().address.as_str().to_owned();
    // A last one in the last second of a day, however many rounds it has had.
    for port in 0..MAX_OWN_CHANGES - 1 {
        world.block([move_to(&world, port)]);
        world.end_round();
    }
    let midnight = at(0, 0).seconds().next_multiple_of(DAY_S) - at(0, 0).seconds();
    world.second = midnight - 10;
    world.block([move_to(&world, MAX_OWN_CHANGES - 1)]);
    assert_eq!(address(&world), "elsewhere:7");
    // Those of another provider are counted apart.
    let other = world.consortium.keys[1].clone();
    let of_another = Body::Address(ProviderId(1), "here:1".try_into().unwrap());
    world.block([world.own(of_another, &other)]);
    let one_more = move_to(&world, MAX_OWN_CHANGES);
    let time = LedgerTime(at(0, midnight).0 - 1);
    let refused = refusal(&world.state, time, &Transaction::Change(one_more.clone()));
    assert_eq!(refused, TransactionRefusal::Change(ChangeRefusal::TooManyOnDay(id)));
    world.second = midnight - 1;
    world.block([one_more]);
    assert_eq!(address(&world), "elsewhere:8", "in the first second of the next day");
    // That day has as many.
    for port in 9..MAX_OWN_CHANGES + 8 {
        world.block([move_to(&world, port)]);
    }
    let one_more = move_to(&world, 99);
    assert_eq!(world.refusal(one_more), ChangeRefusal::TooManyOnDay(id));
}

#[test]
fn of_many_own_changes_in_one_block_the_first_enter() {
    let mut world = World::new(4);
    let (id, key) = (ProviderId(2), world.consortium.keys[2].clone());
    let moves = (0..=MAX_OWN_CHANGES).map(|port| {
        let to = format!("elsewhere:{port}");
        let mut change = world.own(Body::Address(id, to.as_str().try_into().unwrap()), &key);
        change.until += u64::from(port);
        change.sign(world.consortium.genesis.network(), &key);
        Transaction::Change(change)
    });
    let moves: Vec<_> = moves.collect();
    let time = world.next_time();
    let proposed = propose(&world.state.view(), time, moves.clone()).unwrap();
    assert_eq!(proposed.block().transactions(), &moves[..8]);
    let refused = offered(&world.state, time, &moves).unwrap_err();
    let reason = TransactionRefusal::Change(ChangeRefusal::TooManyOnDay(id));
    assert_eq!(refused, Refusal::Transaction { position: 8, reason });
    // Signatures of those that are too many are not looked at: of each provider as many as a share
    // of the pool holds may wait.
    world.block(moves.iter().take(8).map(|transaction| match transaction {
        Transaction::Change(change) => change.clone(),
        _ => unreachable!(),
    }));
    let mut forged = world.own(Body::Address(id, "forged:1".try_into().unwrap()), &key);
    forged.own = Some(Signature([1; 64]));
    assert_eq!(world.refusal(forged), ChangeRefusal::TooManyOnDay(id));
}

/// Whoever came and went in one block would be in no handover, and what it registered in between
/// could not be checked by anybody.
#[test]
fn nobody_comes_and_goes_in_one_block() {
    let mut world = World::new(4);
    let (key, id) = (&world.stranger.clone(), ProviderId(7));
    let join = world.approved(world.join(7), 0..3);
    let name = "second".try_into().unwrap();
    let sdi = SdiIdentity { id: SdiId(5), name, key: key.public(), mode: SdiMode::Shared };
    let add = world.approved(world.own(Body::AddSdi(sdi), key), 0..3);
    let expel = world.approved(Change::new(Body::Expel(id), UNTIL), 0..4);
    let remove = world.approved(Change::new(Body::RemoveSdi(SdiId(5)), UNTIL), 0..3);
    let leave = world.own(Body::Leave(id), key);
    for (comes, goes, expected) in [
        (&join, &leave, ChangeRefusal::NotPresent(id)),
        (&join, &expel, ChangeRefusal::NotPresent(id)),
        (&add, &remove, ChangeRefusal::SdiNotPresent(SdiId(5))),
    ] {
        let both = [comes, goes].map(|change| Transaction::Change(change.clone()));
        let time = world.next_time();
        let refused = offered(&world.state, time, &both).unwrap_err();
        let reason = TransactionRefusal::Change(expected);
        assert_eq!(refused, Refusal::Transaction { position: 1, reason });
        let proposed = propose(&world.state.view(), time, both.clone()).unwrap();
        assert_eq!(proposed.block().transactions(), &both[..1]);
    }
}

#[test]
fn an_sdi_joins_registers_and_is_removed() {
    let mut world = World::new(4);
    let key = world.stranger.clone();
    let name = "second".try_into().unwrap();
    let sdi = SdiIdentity { id: SdiId(5), name, key: key.public(), mode: SdiMode::Shared };
    let add = world.approved(world.own(Body::AddSdi(sdi), &key), 0..3);
    world.block([add.clone()]);
    assert_eq!(world.refusal(add), ChangeRefusal::NumberTaken);
    let register = |world: &mut World, number| {
        let mut message = world.consortium.meter(number).registration.message;
        message.sdi = SdiId(5);
        let network = world.consortium.genesis.network();
        let owner = &world.consortium.keys[usize::try_from(number % 4).unwrap()];
        Transaction::Registration(Registration::sign(message, network, &key, owner))
    };
    let registration = register(&mut world, 0);
    let time = world.next_time();
    block(&mut world.state, time, [registration]);
    assert_eq!(world.state.chain_count(), 1);
    let remove = world.approved(Change::new(Body::RemoveSdi(SdiId(5)), UNTIL), 1..4);
    world.block([remove.clone()]);
    assert_eq!(world.refusal(remove), ChangeRefusal::SdiNotPresent(SdiId(5)));
    let registration = register(&mut world, 1);
    let time = world.next_time();
    let left_out = propose(&world.state.view(), time, [registration]).unwrap();
    assert!(left_out.block().transactions().is_empty(), "a removed SDI registers nothing");
}

/// A member that has seen which vote key another is about to have does not make it its own.
#[test]
fn nobody_takes_a_vote_key_that_is_not_his() {
    let mut world = World::new(4);
    let (thief, network) = (ProviderId(2), world.consortium.genesis.network());
    let key = world.consortium.keys[2].clone();
    let of_joiner = world.identity(7).vote_key;
    let (_, others) = possess(&[77; 32], network, thief);
    let (_, for_another) = possess(&[7; 32], network, ProviderId(7));
    let steals = |key: VoteKey, signature| Body::VoteKey(thief, key, signature);
    for signature in [others, for_another] {
        let change = world.own(steals(of_joiner, signature), &key);
        assert_eq!(world.refusal(change), ChangeRefusal::NotPossessed(thief));
    }
    let (own, signature) = possess(&[78; 32], network, thief);
    world.block([world.own(steals(own, signature), &key)]);
    let join = world.approved(world.join(7), 0..3);
    world.block([join]);
    assert!(world.state.members().provider(ProviderId(7)).is_some());
}

/// What a provider has said of its address is used up, and nobody brings it again.
#[test]
fn a_change_of_address_enters_once() {
    let mut world = World::new(4);
    let (id, key) = (ProviderId(2), world.consortium.keys[2].clone());
    let moves = |world: &World, to: &str, until| {
        let mut change = Change::new(Body::Address(id, to.try_into().unwrap()), until);
        change.sign(world.consortium.genesis.network(), &key);
        change
    };
    let (there, back) = (moves(&world, "there:1", 900), moves(&world, "back:1", 901));
    let mut pool = Pool::default();
    for change in [there.clone(), back] {
        assert_eq!(pool.add(&world.state.view(), Transaction::Change(change.clone())), Ok(true));
        world.block([change]);
        pool.prune(&world.state.view());
        assert!(pool.is_empty(), "a leader does not take it again");
    }
    let address = world.state.members().provider(id).unwrap().address.clone();
    assert_eq!(world.refusal(moves(&world, address.as_str(), 950)), ChangeRefusal::SameAddress(id));
    let again = ChangeRefusal::NotLater { last: 901, found: 900 };
    assert_eq!(world.refusal(there), again);
    world.block([moves(&world, "there:1", 902)]);
    // It is known from a snapshot as well.
    let mut bytes = Vec::new();
    snapshot::write(&mut world.state, &mut bytes).unwrap();
    let state = Snapshot::read(&world.consortium.genesis, &bytes[..]).unwrap().of_own_disk();
    assert_eq!(state.members().moved(id), Some(902));
}

/// Of changes that enter no more on this day none waits, and none is looked at again and again.
#[test]
fn what_a_provider_may_not_change_today_does_not_wait() {
    let mut world = World::new(4);
    let (id, key) = (ProviderId(2), world.consortium.keys[2].clone());
    let network = world.consortium.genesis.network();
    let renewal = |number: u8| {
        let (to, signature) = possess(&[100 + number; 32], network, id);
        let mut change = Change::new(Body::VoteKey(id, to, signature), u64::MAX);
        change.sign(network, &key);
        change
    };
    let mut pool = Pool::default();
    for number in 0..20 {
        let change = Transaction::Change(renewal(number));
        assert_eq!(pool.add(&world.state.view(), change), Ok(true));
    }
    world.block((0..8).map(renewal));
    pool.prune(&world.state.view());
    assert!(pool.is_empty(), "{} wait", pool.len());
    let refused = pool.add(&world.state.view(), Transaction::Change(renewal(30)));
    let reason = TransactionRefusal::Change(ChangeRefusal::TooManyOnDay(id));
    assert_eq!(refused, Err(PoolError::Refused(reason)));
}
