//! What may happen to a meter, in every order, against a slow and obvious account of the rules.
//!
//! The account keeps what has happened, in which block and when, and looks through all of it for
//! every question. It is written from what the ledger's documents say, and calls none of its code.

use std::{cell::RefCell, collections::BTreeMap};

use bkss_ledger::{Chain, Refusal, State, Transaction, chain::End};
use bkss_scheme::LedgerTime;

use crate::{
    blocks::offered,
    consortium::{Consortium, FIRST, Meter, SLOT_S, SLOTS, WINDOW_S, at, slots_from},
};

/// A meter's first chain and others that may follow it, or come before.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Name {
    A,
    B,
    C,
}

use Name::{A, B, C};

/// Something that somebody wants to happen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Wish {
    Register(Name),
    Revoke(Name),
    /// A request for the slot of the block's time.
    Request(Name),
    /// The opening of the oldest request that waits; of the first slot, if there is none.
    Open(Name),
}

use Wish::{Open, Register, Request, Revoke};

const WISHES: [Wish; 10] = [
    Register(A),
    Register(B),
    Register(C),
    Revoke(A),
    Revoke(B),
    Request(A),
    Request(B),
    Request(C),
    Open(A),
    Open(B),
];

impl Name {
    /// The number of its first slot, that of A being 1.
    const fn first(self) -> u64 {
        match self {
            A => 1,
            B => 4,
            C => 3,
        }
    }

    /// Start of its first slot, seconds.
    fn begins(self) -> u64 {
        start(self.first())
    }
}

/// Start of a slot, seconds.
fn start(slot: u64) -> u64 {
    (FIRST.0 + slot - 1) * u64::from(SLOT_S)
}

/// Something that has happened.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Registered(Name),
    Revoked(Name),
    Requested(Name, u64),
    Opened(Name, u64),
}

/// A fact with the number of its block and its time, seconds.
#[derive(Clone, Copy, Debug)]
struct Record {
    block: usize,
    time: u64,
    fact: Fact,
}

/// All that has happened, oldest first.
#[derive(Clone, Debug, Default)]
struct Account(Vec<Record>);

impl Account {
    /// Chains in the order of their registration.
    fn chains(&self) -> Vec<Name> {
        let chain = |record: &Record| match record.fact {
            Fact::Registered(name) => Some(name),
            _ => None,
        };
        self.0.iter().filter_map(chain).collect()
    }

    /// The chain that was registered next.
    fn after(&self, name: Name) -> Option<Name> {
        self.chains().into_iter().skip_while(|chain| *chain != name).nth(1)
    }

    /// When it was revoked: itself, or with the one that was to follow it and had not begun.
    fn revoked(&self, name: Name) -> Option<u64> {
        let of_record = |record: &Record| match record.fact {
            Fact::Revoked(chain) if chain == name => Some(record.time),
            Fact::Revoked(_) => {
                let waits = self.after(name).is_some_and(|next| record.time < next.begins());
                waits.then_some(record.time)
            }
            _ => None,
        };
        self.0.iter().find_map(of_record)
    }

    /// The slots that a chain has requested and not opened, oldest request first.
    fn waiting(&self, name: Name) -> Vec<u64> {
        let mut waiting = Vec::new();
        for record in &self.0 {
            match record.fact {
                Fact::Requested(chain, slot) if chain == name => waiting.push(slot),
                Fact::Opened(chain, slot) if chain == name => {
                    waiting.retain(|other| *other != slot);
                }
                _ => {}
            }
        }
        waiting
    }

    /// The last slot that a chain has opened.
    fn opened(&self, name: Name) -> Option<u64> {
        let slot = |record: &Record| match record.fact {
            Fact::Opened(chain, slot) if chain == name => Some(slot),
            _ => None,
        };
        self.0.iter().filter_map(slot).max()
    }

    /// Whether a block registers or revokes the meter.
    fn changes(&self, block: usize) -> bool {
        let changes = |fact| matches!(fact, Fact::Registered(_) | Fact::Revoked(_));
        self.0.iter().any(|record| record.block == block && changes(record.fact))
    }

    /// What becomes of a wish in a block, the slot of a request or opening being this.
    fn grants(&self, wish: Wish, slot: u64, (block, time): (usize, u64)) -> Option<Fact> {
        let (window, reveal) = (u64::from(WINDOW_S), 604_800);
        let (holds, fact) = match wish {
            Register(name) => {
                let newest = self.chains().last().copied();
                let follows = newest.is_none_or(|newest| {
                    let last = self.waiting(newest).into_iter().chain(self.opened(newest)).max();
                    let not_earlier = name.begins() >= newest.begins();
                    let behind = last.is_none_or(|last| name.begins() >= start(last + 1));
                    not_earlier && behind && self.revoked(newest).is_none()
                });
                let new = !self.chains().contains(&name);
                let in_time = name.begins() > time;
                (!self.changes(block) && in_time && new && follows, Fact::Registered(name))
            }
            Revoke(name) => {
                let newest = self.chains().last() == Some(&name);
                let holds = !self.changes(block) && newest && self.revoked(name).is_none();
                (holds, Fact::Revoked(name))
            }
            Request(name) => {
                let has = slot >= name.first() && slot < name.first() + u64::from(SLOTS);
                let open = time >= start(slot) && time < start(slot) + window;
                let running = self.revoked(name).is_none()
                    && self.after(name).is_none_or(|next| start(slot + 1) <= next.begins());
                let first = !self.waiting(name).contains(&slot);
                let holds = self.chains().contains(&name) && has && open && running && first;
                (holds, Fact::Requested(name, slot))
            }
            Open(name) => {
                let in_time = time >= start(slot) + window && time < start(slot) + reveal;
                (in_time && self.waiting(name).contains(&slot), Fact::Opened(name, slot))
            }
        };
        holds.then_some(fact)
    }

    /// What the ledger is to say of the end of a chain.
    fn end(&self, name: Name) -> Option<End> {
        let replaced = self.after(name).map(|next| LedgerTime::from_seconds(next.begins()));
        let revoked = self.revoked(name).map(LedgerTime::from_seconds);
        revoked.map(End::Revoked).or(replaced.map(End::Replaced))
    }
}

/// The ledger and the account of it.
#[derive(Clone)]
struct Run<'a> {
    meters: &'a Meters,
    state: State,
    account: Account,
    blocks: usize,
}

struct Meters {
    consortium: Consortium,
    chains: BTreeMap<Name, Meter>,
    /// What has been signed, by wish, slot and registry number.
    signed: RefCell<BTreeMap<(Wish, u64, u32), Transaction>>,
}

impl Meters {
    fn new() -> Self {
        let mut consortium = Consortium::new(1);
        let first = consortium.meter(0);
        let mut chains = BTreeMap::new();
        for name in [B, C] {
            let schedule = slots_from(FIRST.0 + name.first() - 1);
            chains.insert(name, consortium.next_chain(&first, schedule));
        }
        chains.insert(A, first);
        Self { consortium, chains, signed: RefCell::default() }
    }

    fn transaction(&self, wish: Wish, slot: u64, account: &Account) -> Transaction {
        let (Register(name) | Revoke(name) | Request(name) | Open(name)) = wish;
        let row = account.chains().iter().position(|chain| *chain == name);
        let row = row.map_or(9, |row| u32::try_from(row).unwrap());
        let mut signed = self.signed.borrow_mut();
        signed.entry((wish, slot, row)).or_insert_with(|| self.sign(wish, slot, row)).clone()
    }

    fn sign(&self, wish: Wish, slot: u64, row: u32) -> Transaction {
        let link = |name: Name| {
            let index = (slot + 1).saturating_sub(name.first()).clamp(1, SLOTS.into());
            self.chains[&name].sign(u32::try_from(index).unwrap(), 5)
        };
        match wish {
            Register(name) => self.chains[&name].registers(),
            Revoke(name) => {
                let Meter { registration, id, .. } = &self.chains[&name];
                self.consortium.revocation(&Chain::new(&registration.message, *id))
            }
            Request(name) => {
                let items = [(row, link(name).value)];
                self.consortium.requests(0, u32::try_from(slot).unwrap(), &items)
            }
            Open(name) => self.consortium.openings(0, &[(row, &link(name))]),
        }
    }
}

impl Run<'_> {
    /// A block in which all of this is wanted, in this order.
    fn block(&mut self, time: LedgerTime, wishes: &[Wish]) {
        let seconds = time.seconds();
        let mut offer: Vec<(Transaction, Option<Fact>)> = Vec::new();
        for wish in wishes {
            let slot = match wish {
                Request(_) => seconds / u64::from(SLOT_S) + 1 - FIRST.0,
                Open(name) => self.account.waiting(*name).first().copied().unwrap_or(name.first()),
                Register(_) | Revoke(_) => 0,
            };
            let transaction = self.meters.transaction(*wish, slot, &self.account);
            let fact = self.account.grants(*wish, slot, (self.blocks, seconds));
            let record = |fact| Record { block: self.blocks, time: seconds, fact };
            self.account.0.extend(fact.map(record));
            offer.push((transaction, fact));
        }
        // Registrations and revocations that are not granted make a block invalid.
        let verified = loop {
            let transactions: Vec<_> = offer.iter().map(|(offered, _)| offered.clone()).collect();
            match offered(&self.state, time, &transactions) {
                Ok(verified) => break verified,
                Err(Refusal::Transaction { position, reason }) => {
                    let (_, granted) = offer.remove(position as usize);
                    assert!(granted.is_none(), "{reason}: {granted:?}");
                }
                Err(other) => unreachable!("{other}"),
            }
        };
        for (position, (transaction, granted)) in (0..).zip(&offer) {
            let skipped = verified.skipped().iter().find(|skipped| skipped.place.0 == position);
            let accepted = skipped.is_none();
            assert_eq!(accepted, granted.is_some(), "{granted:?} {skipped:?} {transaction:?}");
        }
        self.state.apply(&verified).unwrap();
        self.blocks += 1;
        self.compare();
    }

    fn compare(&self) {
        let view = self.state.view();
        for (row, name) in (0..).zip(self.account.chains()) {
            let live = view.live(row).unwrap();
            assert_eq!(live.end, self.account.end(name), "end of {name:?}");
            let slot_of = |index: u32| u64::from(index) + name.first() - 1;
            let waiting: Vec<_> =
                live.pending.iter().map(|pending| slot_of(pending.index.get())).collect();
            assert_eq!(waiting, self.account.waiting(name), "requests of {name:?}");
            let opened = (live.last_index > 0).then(|| slot_of(live.last_index));
            assert_eq!(opened, self.account.opened(name), "newest link of {name:?}");
        }
        assert_eq!(view.chain_count() as usize, self.account.chains().len());
    }
}

/// Where it may begin: the blocks before.
fn beginnings() -> Vec<Vec<(LedgerTime, Wish)>> {
    let registered = (at(0, 1), Register(A));
    vec![
        vec![],
        vec![registered],
        vec![registered, (at(1, 1), Request(A))],
        vec![registered, (at(0, 2), Register(B))],
        vec![registered, (at(0, 2), Register(B)), (at(1, 1), Request(A))],
    ]
}

/// Runs these wishes, so many of them in each block.
fn run(from: &Run<'_>, wishes: &[Wish], sizes: &[usize], times: &[LedgerTime]) {
    let mut run = from.clone();
    let mut rest = wishes;
    for (size, time) in sizes.iter().zip(times) {
        let (block, later) = rest.split_at(*size);
        run.block(*time, block);
        rest = later;
    }
}

fn everywhere(count: usize, arrangements: &[(&[usize], &[LedgerTime])]) {
    let meters = Meters::new();
    for beginning in beginnings() {
        let (state, account) = (meters.consortium.state(), Account::default());
        let mut from = Run { meters: &meters, state, account, blocks: 0 };
        for (time, wish) in beginning {
            from.block(time, &[wish]);
        }
        for number in 0..WISHES.len().pow(u32::try_from(count).unwrap()) {
            let digit = |place: usize| {
                WISHES[number / WISHES.len().pow(u32::try_from(place).unwrap()) % WISHES.len()]
            };
            let wishes: Vec<_> = (0..count).map(digit).collect();
            for (sizes, times) in arrangements {
                if times[0] > from.state.head().time {
                    run(&from, &wishes, sizes, times);
                }
            }
        }
    }
}

#[test]
fn every_pair_comes_out_as_the_rules_say() {
    let times = [at(0, 500), at(1, 10), at(1, 400), at(2, 10), at(4, 10), at(4, 400)];
    let one: Vec<_> = times.iter().map(|time| (vec![2], vec![*time])).collect();
    let mut all = one;
    for (position, first) in times.iter().enumerate() {
        all.extend(times[position + 1..].iter().map(|then| (vec![1, 1], vec![*first, *then])));
    }
    let all: Vec<_> = all.iter().map(|(sizes, times)| (&sizes[..], &times[..])).collect();
    everywhere(2, &all);
}

#[test]
fn every_triple_comes_out_as_the_rules_say() {
    let (early, late) = ([at(1, 10), at(1, 400), at(4, 10)], [at(0, 500), at(3, 10), at(4, 400)]);
    let arrangements: [(&[usize], &[LedgerTime]); 6] = [
        (&[3], &early),
        (&[3], &late),
        (&[1, 2], &early),
        (&[2, 1], &late),
        (&[1, 1, 1], &early),
        (&[1, 1, 1], &late),
    ];
    everywhere(3, &arrangements);
}
