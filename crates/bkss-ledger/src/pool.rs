//! Transactions that wait for a block.
//!
//! Each gateway has a share of its own, so that none can crowd out another (A12); within a share
//! the newest yields. What was left out comes again: gateways keep and re-send until it is final.

use std::collections::BTreeMap;

use bkss_scheme::{Digest, LinkIndex, ProviderId};

use crate::{
    Transaction, View, chain::End, execute::TransactionRefusal, membership::check_registration,
    revocation::RevocationRefusal,
};

/// Most bytes that wait per gateway.
pub const MAX_SHARE: usize = 8 << 20;
/// Most transactions that wait per gateway.
pub const MAX_TRANSACTIONS: usize = 1024;

/// Waiting transactions, each with the signature of a gateway or owner checked.
#[derive(Debug, Default)]
pub struct Pool {
    waiting: BTreeMap<u64, Waiting>,
    known: BTreeMap<Digest, u64>,
    shares: BTreeMap<ProviderId, Share>,
    next: u64,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    transactions: usize,
}

#[derive(Debug)]
struct Waiting {
    digest: Digest,
    gateway: ProviderId,
    bytes: usize,
    transaction: Transaction,
}

/// Why a transaction does not wait here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum PoolError {
    #[error("share of gateway {gateway} is full")]
    Full { gateway: ProviderId },
    #[error(transparent)]
    Refused(#[from] TransactionRefusal),
}

impl Pool {
    /// Adds a transaction; false if it is already there.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if its gateway is unknown, has not signed it or has used up its share.
    pub fn add(&mut self, view: &View<'_>, transaction: Transaction) -> Result<bool, PoolError> {
        let digest = transaction.digest(view.genesis().network());
        if self.known.contains_key(&digest) {
            return Ok(false);
        }
        let gateway = authenticate(view, &transaction, &digest)?;
        let bytes = bkss_scheme::codec::length(&transaction);
        let share = self.shares.entry(gateway).or_default();
        if share.bytes + bytes > MAX_SHARE || share.transactions == MAX_TRANSACTIONS {
            return Err(PoolError::Full { gateway });
        }
        share.bytes += bytes;
        share.transactions += 1;
        self.known.insert(digest, self.next);
        self.waiting.insert(self.next, Waiting { digest, gateway, bytes, transaction });
        self.next += 1;
        Ok(true)
    }

    /// Drops what no block on top of `view` can use any more.
    pub fn prune(&mut self, view: &View<'_>) {
        let useless: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| !may_contribute(view, &waiting.transaction))
            .map(|(number, _)| *number)
            .collect();
        for number in useless {
            if let Some(waiting) = self.waiting.remove(&number) {
                self.known.remove(&waiting.digest);
                if let Some(share) = self.shares.get_mut(&waiting.gateway) {
                    share.bytes -= waiting.bytes;
                    share.transactions -= 1;
                }
            }
        }
    }

    /// Candidates for the next block: what has a time limit or is rare before openings, each oldest
    /// first.
    pub fn candidates(&self) -> Vec<Transaction> {
        let mut candidates: Vec<_> =
            self.waiting.values().map(|waiting| waiting.transaction.clone()).collect();
        candidates.sort_by_key(|transaction| matches!(transaction, Transaction::Openings(_)));
        candidates
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

/// Whose share transactions count against that anybody may bring: evidence, revocations by secret.
const ANYBODY: ProviderId = ProviderId(u16::MAX);

/// Checks who vouches for a transaction and returns whose share it counts against.
fn authenticate(
    view: &View<'_>,
    transaction: &Transaction,
    digest: &Digest,
) -> Result<ProviderId, TransactionRefusal> {
    let (gateway, signature) = match transaction {
        Transaction::Registration(registration) => {
            check_registration(view, view.members(), view.head().time, registration)?;
            return Ok(registration.message.owner);
        }
        Transaction::Change(change) => {
            let (members, genesis) = (view.members(), view.genesis());
            change.check_rules(members, genesis.charter().agreement, view.round().number)?;
            change.check_signatures(members, genesis.network())?;
            let first = || change.approvals.first().map_or(ANYBODY, |(provider, _)| *provider);
            return Ok(change.made_by().unwrap_or_else(first));
        }
        Transaction::Vote(vote) => {
            let seats = view.genesis().charter().rounds.committee;
            vote.check_rules(view.members(), view.round(), seats)?;
            vote.check_signature(view.members(), view.genesis().network())?;
            return Ok(vote.voter);
        }
        Transaction::Evidence(evidence) => {
            view.check_offence(&evidence.offence, &[])?;
            evidence.check(view.members(), view.genesis().network())?;
            return Ok(ANYBODY);
        }
        Transaction::Revocation(revocation) => {
            let unknown = RevocationRefusal::UnknownChain(revocation.meter);
            let row = view.row(revocation.meter).ok_or(unknown)?;
            let chain = view.chain(row).filter(|chain| chain.id == revocation.chain);
            let chain = chain.ok_or(unknown)?;
            if view.live(row).is_some_and(|live| matches!(live.end, Some(End::Revoked(_)))) {
                return Err(RevocationRefusal::Ended(revocation.meter).into());
            }
            revocation.check(view.members(), view.genesis().network(), chain)?;
            return Ok(ANYBODY);
        }
        Transaction::Requests(batch) => (batch.submitter, &batch.signature),
        Transaction::Openings(batch) => (batch.submitter, &batch.signature),
    };
    let provider = view.members().provider(gateway);
    let provider = provider.ok_or(TransactionRefusal::UnknownGateway(gateway))?;
    provider
        .key
        .verify(digest, signature)
        .map_err(|reason| TransactionRefusal::Signature { gateway, reason })?;
    Ok(gateway)
}

/// Whether some block on top of `view` may still accept something of a transaction whose signatures
/// hold.
pub fn may_contribute(view: &View<'_>, transaction: &Transaction) -> bool {
    let time = view.head().time;
    let reveal_s = view.genesis().charter().terms.reveal_s;
    match transaction {
        Transaction::Registration(registration) => {
            let message = &registration.message;
            let first = LinkIndex::new(1, message.schedule.slots);
            let ahead = first.is_some_and(|first| time < message.schedule.opens(first));
            ahead && !view.has_salt(message.salt)
        }
        Transaction::Change(change) => {
            let agreement = view.genesis().charter().agreement;
            change.check_rules(view.members(), agreement, view.round().number).is_ok()
        }
        Transaction::Vote(vote) => {
            let seats = view.genesis().charter().rounds.committee;
            vote.check_rules(view.members(), view.round(), seats).is_ok()
        }
        Transaction::Evidence(evidence) => view.check_offence(&evidence.offence, &[]).is_ok(),
        Transaction::Revocation(revocation) => {
            let row = view.row(revocation.meter);
            let live = row.and_then(|row| view.live(row));
            live.is_some_and(|live| !matches!(live.end, Some(End::Revoked(_))))
        }
        Transaction::Requests(batch) => batch.rows.iter().any(|row| {
            let Some(chain) = view.chain(*row) else { return true };
            let schedule = chain.schedule;
            let Some(index) = schedule.index(batch.slot) else { return false };
            let pending = view.live(*row).is_some_and(|live| {
                live.pending.iter().any(|p| p.index == index && p.submitter == batch.submitter)
            });
            time < schedule.closes(index) && !pending
        }),
        Transaction::Openings(batch) => batch.rows.iter().any(|row| {
            let Some(chain) = view.chain(*row) else { return true };
            let schedule = chain.schedule;
            let Some(index) = schedule.index(batch.slot) else { return false };
            let pending = view
                .live(*row)
                .is_some_and(|live| live.pending.iter().any(|pending| pending.index == index));
            let over =
                time >= schedule.closes(index) && !schedule.accepts_opening(index, time, reveal_s);
            pending && !over
        }),
    }
}
