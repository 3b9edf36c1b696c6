//! Replays an archive from genesis: whether every block follows by the rules and is final.
//!
//! Nothing but the genesis is trusted. The audit knows nothing of the engine.

use std::{collections::BTreeSet, io::Read, slice, sync::Arc};

use bkss_scheme::{
    Digest, Era, Eras, LedgerTime, MeterId, certificate::NotFinal, finality::Finality,
};

use crate::{
    Genesis, Head, Refusal, State, Transaction, Verified,
    archive::{ArchiveError, Reader},
    change::Body,
    evidence::Offence,
    verify::verify,
};

/// What an audit found.
#[derive(Debug, Default)]
pub struct Report {
    /// Blocks that follow by the rules.
    pub blocks: u64,
    /// Requests they accepted.
    pub requests: u64,
    /// Openings they accepted. What was measured is sealed: how many readings an opening holds is not
    /// known to an audit.
    pub openings: u64,
    /// Meters that were registered, by their numbers.
    pub meters: u64,
    /// Chains that were registered: the first one of each meter, and those that renew it.
    pub chains: u64,
    /// Revocations; one ends all chains of a meter that are not over.
    pub revocations: u64,
    /// Changes of the membership.
    pub changes: Changes,
    /// Providers that are on record for having voted twice, and where.
    pub offences: Vec<Offence>,
    /// The newest block: its height, id and time.
    pub newest: Option<Head>,
    /// Everything that does not hold.
    pub refusals: Vec<Finding>,
}

/// How often the membership has changed, by kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Providers that joined.
    pub joined: u64,
    /// Providers that left.
    pub left: u64,
    /// Providers that were expelled.
    pub expelled: u64,
    /// Vote keys that were replaced.
    pub vote_keys: u64,
    /// Sealing keys that were replaced.
    pub sealing_keys: u64,
    /// Addresses that were replaced.
    pub addresses: u64,
    /// SDIs that were added.
    pub sdis_added: u64,
    /// SDIs that were removed.
    pub sdis_removed: u64,
}

impl Changes {
    const fn add(&mut self, body: &Body) {
        let count = match body {
            Body::Join(_) => &mut self.joined,
            Body::Leave(_) => &mut self.left,
            Body::Expel(_) => &mut self.expelled,
            Body::VoteKey(..) => &mut self.vote_keys,
            Body::SealingKey(..) => &mut self.sealing_keys,
            Body::Address(..) => &mut self.addresses,
            Body::AddSdi(_) => &mut self.sdis_added,
            Body::RemoveSdi(_) => &mut self.sdis_removed,
        };
        *count += 1;
    }

    /// All of them.
    pub const fn all(&self) -> u64 {
        let Self {
            joined,
            left,
            expelled,
            vote_keys,
            sealing_keys,
            addresses,
            sdis_added,
            sdis_removed,
        } = self;
        *joined
            + *left
            + *expelled
            + *vote_keys
            + *sealing_keys
            + *addresses
            + *sdis_added
            + *sdis_removed
    }
}

/// Something that does not hold.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Finding {
    /// The file cannot be read on; nothing behind this was looked at.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A block breaks a rule; nothing behind this was looked at.
    #[error("block at byte {offset}: {reason}")]
    Rule { offset: u64, reason: Refusal },
    /// A certificate does not hold.
    #[error("certificate of block {height}: {reason}")]
    Certificate { height: u64, reason: NotFinal },
    /// Nothing makes these blocks final in their round.
    #[error("blocks {from} to {to} have no certificate of their round")]
    NotFinal { from: u64, to: u64 },
    /// The archive does not have a block that is known to be final.
    #[error("block {height} is {found}, the head that was given says {expected}: two histories")]
    OtherHead { height: u64, expected: Digest, found: Digest },
    /// The archive ends before a block that is known to be final.
    #[error(
        "the archive ends with block {newest}, the head that was given is block {height}: later blocks were left out, or the archive was fetched before the head"
    )]
    BeforeHead { newest: u64, height: u64 },
    /// The archive does not have the block with this id.
    #[error("no block of the archive has the id {0} that was given")]
    NoSuchBlock(Digest),
    /// The archive ends before a time.
    #[error("the archive ends at {newest} ms, it was to reach {until} ms")]
    BeforeTime { newest: LedgerTime, until: LedgerTime },
}

/// What is known of a history from elsewhere: without it an archive that leaves out its newest
/// blocks looks whole.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// A block that is final: its height, if that is known, and its id.
    pub head: Option<(Option<u64>, Digest)>,
    /// A time that the history has reached.
    pub until: Option<LedgerTime>,
}

impl Report {
    /// Whether everything holds.
    pub const fn valid(&self) -> bool {
        self.refusals.is_empty()
    }

    /// Chains of meters that had one before.
    pub const fn renewals(&self) -> u64 {
        self.chains - self.meters
    }

    fn count(&mut self, verified: &Verified, meters: &mut BTreeSet<MeterId>) {
        self.blocks += 1;
        self.requests += verified.requests().len() as u64;
        self.openings += verified.openings().len() as u64;
        for transaction in verified.block().transactions() {
            match transaction {
                Transaction::Registration(registration) => {
                    self.chains += 1;
                    self.meters += u64::from(meters.insert(registration.message.meter));
                }
                Transaction::Revocation(_) => self.revocations += 1,
                Transaction::Change(change) => self.changes.add(&change.body),
                Transaction::Requests(_)
                | Transaction::Openings(_)
                | Transaction::Vote(_)
                | Transaction::Evidence(_) => {}
            }
        }
    }
}

/// Replays an archive, and compares it with what is known from elsewhere. Errors end up in the report.
pub fn audit(genesis: &Arc<Genesis>, source: impl Read, known: Known) -> Report {
    let mut report = Report::default();
    let mut state = State::new(genesis.clone());
    let mut seen = Seen { head: known.head, found: false };
    match replay(genesis, source, &mut state, &mut report, &mut seen) {
        Ok(()) => seen.compare(&state, known.until, &mut report),
        Err(finding) => report.refusals.push(finding),
    }
    report.offences = state.offences().iter().copied().collect();
    report.newest = (state.head().height > 0).then(|| state.head());
    report
}

/// Whether the known block has been seen.
struct Seen {
    head: Option<(Option<u64>, Digest)>,
    found: bool,
}

impl Seen {
    fn block(&mut self, height: u64, id: Digest) -> Result<(), Finding> {
        let Some((at, expected)) = self.head else { return Ok(()) };
        self.found |= id == expected;
        if at == Some(height) && id != expected {
            return Err(Finding::OtherHead { height, expected, found: id });
        }
        Ok(())
    }

    fn compare(&self, state: &State, until: Option<LedgerTime>, report: &mut Report) {
        let newest = state.head();
        match self.head {
            Some(_) if self.found => {}
            Some((Some(height), _)) if height > newest.height => {
                report.refusals.push(Finding::BeforeHead { newest: newest.height, height });
            }
            Some((_, id)) => report.refusals.push(Finding::NoSuchBlock(id)),
            None => {}
        }
        if let Some(until) = until.filter(|until| newest.time < *until) {
            report.refusals.push(Finding::BeforeTime { newest: newest.time, until });
        }
    }
}

fn replay(
    genesis: &Arc<Genesis>,
    source: impl Read,
    state: &mut State,
    report: &mut Report,
    seen: &mut Seen,
) -> Result<(), Finding> {
    let network = genesis.network();
    let rounds = genesis.charter().rounds.length();
    let limit = genesis.charter().limits.block_bytes as usize;
    let mut reader = Reader::new(source, network, state.head().id, limit)?;
    // Height of the oldest block that no certificate covers yet.
    let mut uncovered: Option<u64> = None;
    let mut meters = BTreeSet::new();
    seen.block(0, state.head().id)?;
    loop {
        let offset = reader.offset();
        let Some(record) = reader.next_block()? else { break };
        let id: Digest = record.block.id();
        let header = record.block.header().clone();
        let height = header.height;
        let round = state.round().clone();
        let holds = record.certificate.map(|certificate| {
            let era = Era::new(round.number, round.committee.clone());
            let eras = Eras { network, rounds, eras: slice::from_ref(&era) };
            eras.certified(&Finality { descendants: &[], certificate }, &header)
        });
        let verified = verify(&state.view(), record.block)
            .map_err(|reason| Finding::Rule { offset, reason })?;
        report.count(&verified, &mut meters);
        let applied = state.apply(&verified);
        debug_assert!(applied.is_ok(), "it was verified on this state");
        seen.block(height, id)?;
        match holds {
            Some(Ok(_)) => uncovered = None,
            Some(Err(reason)) => {
                report.refusals.push(Finding::Certificate { height, reason });
                uncovered = None;
            }
            None => uncovered = uncovered.or(Some(height)),
        }
        // A block is final through a later one of its own round only.
        if rounds.ends(height)
            && let Some(from) = uncovered.take()
        {
            report.refusals.push(Finding::NotFinal { from, to: height });
        }
    }
    if let Some(from) = uncovered {
        report.refusals.push(Finding::NotFinal { from, to: state.head().height });
    }
    Ok(())
}
