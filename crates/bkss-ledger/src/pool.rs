//! Transactions that wait for a block.
//!
//! Each gateway has a share of its own, so that none can crowd out another (A12): one for its requests,
//! one for its openings, and one for its votes, changes and registrations, so that whoever fills one
//! of them through an honest gateway keeps none of the others out. Within a share the newest yields.
//! What was left out comes again: gateways keep and re-send until it is final. Whatever a pool takes, an honest leader can propose: nothing is longer than a block, and batches
//! come with all bodies, of registered chains. A gateway that signs a batch which no block can
//! contain is passed over for the rest of the round.

use std::collections::{BTreeMap, VecDeque};

use bkss_scheme::{Digest, LinkIndex, ProviderId, Slot, slot::Schedule};

use crate::{
    Block, Live, Transaction, View,
    candidate::{Admitted, Candidate, Checked, Kind, Share, admit},
    chain::Pending,
    execute::{TransactionRefusal, check_revocation},
    membership::{check_room, check_rules},
    revocation::Right,
    transaction_batch::Row,
    verify::MAX_FRAMING,
};

/// Most bytes of openings that wait per gateway.
pub const MAX_SHARE: usize = 8 << 20;
/// Most bytes of requests that wait per gateway, and of all that is no batch.
pub const MAX_OTHERS: usize = 4 << 20;
/// Most transactions of each kind that wait per gateway.
pub const MAX_TRANSACTIONS: usize = 1024;
/// Looks that pruning takes for one block: at an item of a batch, or at a request that waits for one.
const LOOKS: usize = 1 << 20;
/// Invalid batches of a gateway that are remembered, the newest.
pub const MAX_INVALID: usize = 64;

/// Waiting transactions, each with its signatures checked.
#[derive(Debug, Default)]
pub struct Pool {
    waiting: BTreeMap<u64, Waiting>,
    /// By leaf: a copy with other signatures is another transaction.
    known: BTreeMap<Digest, u64>,
    /// By what a registration, a change or a revocation is about, whoever signed it.
    things: BTreeMap<Digest, u64>,
    shares: BTreeMap<(Share, Kind), Used>,
    liars: BTreeMap<ProviderId, Liar>,
    next: u64,
    /// Where pruning goes on.
    looked: u64,
}

/// What waits of a share.
#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    transactions: usize,
}

#[derive(Debug)]
struct Waiting {
    share: Share,
    bytes: usize,
    candidate: Candidate,
}

/// A gateway that has signed batches which no block can contain.
#[derive(Debug, Default)]
struct Liar {
    /// The round in which the newest was found.
    round: u64,
    /// Their leaves.
    invalid: VecDeque<Digest>,
}

/// Why a transaction does not wait here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum PoolError {
    #[error("the share of {share} is full")]
    Full { share: Share },
    #[error("gateway {gateway} has signed a batch that no block can contain, in this round")]
    PassedOver { gateway: ProviderId },
    #[error("a batch of gateway {gateway} that no block can contain")]
    Invalid { gateway: ProviderId },
    #[error(transparent)]
    Refused(#[from] TransactionRefusal),
}

impl Pool {
    /// Adds a transaction; false if it is already there.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if it breaks a rule, is not signed, or its gateway has used up its share.
    pub fn add(&mut self, view: &View<'_>, transaction: Transaction) -> Result<bool, PoolError> {
        let candidate = Candidate::unchecked(view.genesis().network(), transaction);
        match self.look(view, candidate)? {
            Some(admitted) => {
                let (candidate, share) = admitted.check()?;
                self.take(candidate, share)
            }
            None => Ok(false),
        }
    }

    /// Looks at a transaction before its signatures are checked; `None` if it is already there.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if it breaks a rule, or whoever it counts against has used up his share.
    pub fn look(
        &self,
        view: &View<'_>,
        candidate: Candidate,
    ) -> Result<Option<Admitted>, PoolError> {
        if self.known.contains_key(&candidate.leaf()) {
            return Ok(None);
        }
        let found = length(&candidate);
        let limit = view.genesis().charter().limits.block_bytes as usize - MAX_FRAMING;
        if found > limit {
            return Err(TransactionRefusal::TooLong { found, limit }.into());
        }
        let batch = is_batch(&candidate);
        let kind = Kind::of(candidate.transaction());
        let admitted = admit(view, candidate)?;
        let share = admitted.share();
        if let Share::Of(gateway) = share
            && let Some(liar) = self.liars.get(&gateway).filter(|_| batch)
        {
            if liar.invalid.contains(&admitted.leaf()) {
                return Err(PoolError::Invalid { gateway });
            }
            if liar.round == view.round().number {
                return Err(PoolError::PassedOver { gateway });
            }
        }
        self.room((share, kind), found)?;
        Ok(Some(admitted))
    }

    /// Takes a transaction whose signatures hold; false if it is already there.
    ///
    /// # Errors
    ///
    /// [`PoolError::Full`].
    pub fn take(&mut self, candidate: Candidate, share: Share) -> Result<bool, PoolError> {
        let leaf = candidate.leaf();
        if self.known.contains_key(&leaf) {
            return Ok(false);
        }
        // A copy with other signatures that hold is the same thing again, and so is a second secret
        // that ends the same chain: neither takes another place of a share.
        let same = same_thing(&candidate);
        if same.is_some_and(|same| self.things.contains_key(&same)) {
            return Ok(false);
        }
        let (bytes, kind) = (length(&candidate), Kind::of(candidate.transaction()));
        self.room((share, kind), bytes)?;
        if let Some(same) = same {
            self.things.insert(same, self.next);
        }
        let of_gateway = self.shares.entry((share, kind)).or_default();
        of_gateway.bytes += bytes;
        of_gateway.transactions += 1;
        self.known.insert(leaf, self.next);
        self.waiting.insert(self.next, Waiting { share, bytes, candidate });
        self.next += 1;
        Ok(true)
    }

    fn room(&self, (share, kind): (Share, Kind), bytes: usize) -> Result<(), PoolError> {
        let most = if kind == Kind::Openings { MAX_SHARE } else { MAX_OTHERS };
        let full = self
            .shares
            .get(&(share, kind))
            .is_some_and(|used| used.bytes + bytes > most || used.transactions == MAX_TRANSACTIONS);
        if full || bytes > most { Err(PoolError::Full { share }) } else { Ok(()) }
    }

    /// Passes over a gateway's batches for the rest of a round: it has signed this one, which no
    /// block can contain. False if it was passed over before.
    pub fn pass_over(&mut self, gateway: ProviderId, round: u64, invalid: Digest) -> bool {
        let liar = self.liars.entry(gateway).or_default();
        let again = !liar.invalid.is_empty() && liar.round == round;
        liar.round = round;
        if !liar.invalid.contains(&invalid) {
            liar.invalid.push_back(invalid);
        }
        if liar.invalid.len() > MAX_INVALID {
            liar.invalid.pop_front();
        }
        let of_liar =
            |waiting: &Waiting| waiting.share == Share::Of(gateway) && is_batch(&waiting.candidate);
        let of_liar = self.waiting.iter().filter(|(_, waiting)| of_liar(waiting));
        let of_liar: Vec<_> = of_liar.map(|(number, _)| *number).collect();
        of_liar.into_iter().for_each(|number| self.drop(number));
        !again
    }

    /// Gateways that are passed over in a round.
    pub fn passed_over(&self, round: u64) -> impl Iterator<Item = ProviderId> + '_ {
        let now = move |(_, liar): &(&ProviderId, &Liar)| liar.round == round;
        self.liars.iter().filter(now).map(|(gateway, _)| *gateway)
    }

    /// Drops what a block has put on the ledger.
    pub fn drop_those_of(&mut self, block: &Block) {
        for (transaction, digest) in block.transactions().iter().zip(block.digests()) {
            if let Some(number) = self.known.get(&transaction.leaf(digest)) {
                self.drop(*number);
            }
        }
    }

    /// Drops what no block on top of `view` can use any more. Where very much waits, it looks at a part
    /// of it, and next time at the rest.
    pub fn prune(&mut self, view: &View<'_>) {
        let (mut looks, mut useless, mut stopped) = (LOOKS, Vec::new(), 0);
        let from = self.waiting.range(self.looked..).chain(self.waiting.range(..self.looked));
        for (number, waiting) in from {
            if looks == 0 {
                stopped = *number;
                break;
            }
            if !contributes(view, waiting.candidate.transaction(), Room::Now, &mut looks) {
                useless.push(*number);
            }
        }
        self.looked = stopped;
        useless.into_iter().for_each(|number| self.drop(number));
    }

    fn drop(&mut self, number: u64) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        self.known.remove(&waiting.candidate.leaf());
        if let Some(same) = same_thing(&waiting.candidate) {
            self.things.remove(&same);
        }
        let kind = Kind::of(waiting.candidate.transaction());
        if let Some(used) = self.shares.get_mut(&(waiting.share, kind)) {
            used.bytes -= waiting.bytes;
            used.transactions -= 1;
        }
    }

    /// Candidates for the next block, oldest first.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.waiting.values().map(|waiting| waiting.candidate.clone()).collect()
    }

    /// What is known of the signatures in a block: those of what waits here were checked when it came.
    pub fn checked(&self, block: &Block) -> Checked {
        let mut checked = Checked::default();
        for (transaction, digest) in block.transactions().iter().zip(block.digests()) {
            let number = self.known.get(&transaction.leaf(digest));
            if let Some(waiting) = number.and_then(|number| self.waiting.get(number)) {
                checked.remember(&waiting.candidate);
            }
        }
        checked
    }

    /// How many transactions have been taken so far: another number says that there are new ones.
    pub const fn taken(&self) -> u64 {
        self.next
    }

    /// Number of waiting transactions.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn length(candidate: &Candidate) -> usize {
    bkss_scheme::codec::length(&**candidate.transaction())
}

/// What tells a transaction from copies of it with other signatures, where signatures are no part of
/// what it says.
fn same_thing(candidate: &Candidate) -> Option<Digest> {
    match &**candidate.transaction() {
        Transaction::Registration(_) | Transaction::Change(_) => Some(*candidate.digest()),
        // Whoever knows the secret has said all there is to say, for whatever reason.
        Transaction::Revocation(revocation) => match revocation.right {
            Right::Secret(_) => Some(revocation.chain),
            Right::Signed { .. } => Some(*candidate.digest()),
        },
        _ => None,
    }
}

fn is_batch(candidate: &Candidate) -> bool {
    matches!(**candidate.transaction(), Transaction::Requests(_) | Transaction::Openings(_))
}

/// Whether some block on top of `view` may still accept something of a transaction whose signatures
/// hold.
pub fn may_contribute(view: &View<'_>, transaction: &Transaction) -> bool {
    let mut looks = usize::MAX;
    contributes(view, transaction, Room::Later, &mut looks)
}

/// For when a chain has to have room for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Room {
    /// For the next block: until there is room the gateway keeps the request and sends it again.
    Now,
    /// For any block.
    Later,
}

/// The same, with so many looks; true once they are used up.
fn contributes(view: &View<'_>, transaction: &Transaction, room: Room, looks: &mut usize) -> bool {
    *looks = looks.saturating_sub(1);
    let time = view.head().time;
    let reveal_s = view.genesis().charter().terms.reveal_s;
    match transaction {
        Transaction::Registration(registration) => {
            let message = &registration.message;
            let live = |row| view.live(row);
            let taken = (view.chain_count(), view.chains_of(message.owner));
            check_rules(view, view.members(), time, message, live).is_ok()
                && check_room(&view.genesis().charter().limits, message.owner, taken).is_ok()
        }
        Transaction::Change(change) => {
            let agreement = view.genesis().charter().agreement;
            change.check_rules(view.members(), agreement, view.round().number).is_ok()
                && change.check_standing(view.members()).is_ok()
                && view.round().check_own(change, time).is_ok()
        }
        Transaction::Vote(vote) => vote.check_rules(view.members(), view.round()).is_ok(),
        Transaction::Evidence(evidence) => view.check_offence(&evidence.offence, &[]).is_ok(),
        Transaction::Revocation(revocation) => {
            check_revocation(view, revocation).is_ok()
                && revocation.check_standing(view.members()).is_ok()
        }
        Transaction::Requests(batch) => batch.rows.iter().any(|row| {
            let open = |schedule: &Schedule, index| time < schedule.closes(index);
            let requested = |pending: &Pending| pending.submitter == batch.submitter;
            let most = view.genesis().charter().limits.pending as usize;
            let has_room = |schedule: &Schedule, live: &Live, looks: &mut usize| {
                let waiting = live.pending_from(schedule.first_openable(time, reveal_s));
                if room == Room::Later || waiting.len() < most {
                    return true;
                }
                *looks = looks.saturating_sub(waiting.len());
                waiting.iter().filter(|pending| requested(pending)).count() < most
            };
            // A chain that has ended does not come back.
            *looks == 0
                || look(view, *row, batch.slot, looks, open).is_some_and(
                    |(schedule, index, live)| {
                        live.has(schedule, index)
                            && !waits(live, index, looks, requested)
                            && has_room(schedule, live, looks)
                    },
                )
        }),
        Transaction::Openings(batch) => batch.rows.iter().any(|row| {
            let open = |schedule: &Schedule, index| {
                time < schedule.closes(index) || schedule.accepts_opening(index, time, reveal_s)
            };
            *looks == 0
                || look(view, *row, batch.slot, looks, open)
                    .is_some_and(|(_, index, live)| waits(live, index, looks, |_| true))
        }),
    }
}

/// A link of a chain and what is under way of the chain, if its time is not over.
fn look<'a>(
    view: &'a View<'_>,
    row: Row,
    slot: Slot,
    looks: &mut usize,
    open: impl FnOnce(&Schedule, LinkIndex) -> bool,
) -> Option<(&'a Schedule, LinkIndex, &'a Live)> {
    *looks = looks.saturating_sub(1);
    let schedule = &view.chain(row)?.schedule;
    let index = schedule.index(slot).filter(|index| open(schedule, *index))?;
    Some((schedule, index, view.live(row)?))
}

/// Whether such a request of a slot waits.
fn waits(
    live: &Live,
    index: LinkIndex,
    looks: &mut usize,
    such: impl FnMut(&Pending) -> bool,
) -> bool {
    let waiting = live.pending_of(index);
    *looks = looks.saturating_sub(waiting.len());
    waiting.iter().any(such)
}
