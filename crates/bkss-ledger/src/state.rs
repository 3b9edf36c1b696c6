//! The state of the ledger: what a new block is judged by (scheme s4.5).
//!
//! Finalized state is in memory, some 350 bytes per meter. Blocks that are not final yet are
//! [`Delta`]s on top of it: a [`View`] reads through them, so that proposals are verified on
//! unfinalized parents without copying anything. The state changes in one way only:
//! [`State::apply`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, Salt, hash_chain,
    root_message::Registered, slot::Schedule,
};

use crate::{
    Genesis, Members, Verified, accounting_nodes::Round, evidence::Offence, seal::Seals,
    transaction_batch::Row,
};

/// The newest block of a state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub id: Digest,
    /// Its time.
    pub time: LedgerTime,
}

/// What changes about a meter's chain from block to block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Live {
    /// Index of the newest opened link, 0 for `v_0`.
    pub last_index: u32,
    /// The newest opened link.
    pub last_link: Link,
    /// The last round in which an opening was accepted, counted from 1; 0 before the first.
    pub active: u32,
    /// Whether and when the chain ends before its last slot.
    pub end: Option<End>,
    /// Accepted requests that are neither opened nor expired.
    pub pending: Vec<Pending>,
}

/// Why a chain takes no more requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Another chain of the same meter begins then: slots up to there are this one's.
    Replaced(LedgerTime),
    /// It was revoked in a block of this time.
    Revoked(LedgerTime),
}

/// An accepted request that waits for its opening.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pending {
    /// Its link.
    pub index: LinkIndex,
    /// The gateway that submitted it.
    pub submitter: ProviderId,
    /// `q`.
    pub value: Digest,
}

/// What one block changes.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The block before.
    pub(crate) parent: Digest,
    /// The block.
    pub(crate) head: Head,
    /// Number of chains before this block.
    pub(crate) first_row: Row,
    /// Chains it registers, in order.
    pub(crate) registered: Vec<Registered>,
    /// Chains it changes.
    pub(crate) live: BTreeMap<Row, Live>,
    /// The members after it.
    pub(crate) members: Arc<Members>,
    /// The round of the block after it.
    pub(crate) round: Arc<Round>,
    /// Whether it is the last block of a round.
    pub(crate) ends_round: bool,
    /// Offences it records.
    pub(crate) offences: Vec<Offence>,
}

/// The finalized ledger.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) head: Head,
    pub(crate) members: Arc<Members>,
    pub(crate) round: Arc<Round>,
    pub(crate) offences: BTreeSet<Offence>,
    pub(crate) registered: Vec<Registered>,
    pub(crate) live: Vec<Live>,
    /// The newest chain of each meter.
    pub(crate) rows: BTreeMap<MeterId, Row>,
    /// Earlier chains of meters that had another, oldest first.
    former: BTreeMap<MeterId, Vec<Row>>,
    salts: BTreeSet<[u8; 16]>,
    pub(crate) seals: Seals,
}

/// A verified block does not follow the state it is applied to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
#[error("block {height} follows {parent}, the state is at {head}")]
pub struct NotNext {
    pub height: u64,
    pub parent: Digest,
    pub head: Digest,
}

impl State {
    /// The state at genesis.
    pub fn new(genesis: Arc<Genesis>) -> Self {
        let header = genesis.header();
        let head = Head { height: 0, id: header.id(), time: header.time };
        let (members, round) = (Members::founders(&genesis), Round::first(&genesis));
        Self::of_parts(genesis, head, members, round, BTreeSet::new())
    }

    /// A state without meters.
    pub(crate) fn of_parts(
        genesis: Arc<Genesis>,
        head: Head,
        members: Members,
        round: Round,
        offences: BTreeSet<Offence>,
    ) -> Self {
        Self {
            genesis,
            head,
            members: members.into(),
            round: round.into(),
            offences,
            registered: Vec::new(),
            live: Vec::new(),
            rows: BTreeMap::new(),
            former: BTreeMap::new(),
            salts: BTreeSet::new(),
            seals: Seals::default(),
        }
    }

    /// Applies a verified block.
    ///
    /// # Errors
    ///
    /// [`NotNext`] if it was verified on top of another block than this state's head.
    pub fn apply(&mut self, verified: &Verified) -> Result<(), NotNext> {
        let delta = verified.delta();
        if delta.parent != self.head.id {
            let (height, parent) = (delta.head.height, delta.parent);
            return Err(NotNext { height, parent, head: self.head.id });
        }
        for registered in &delta.registered {
            self.push_chain(registered.clone(), Live::new(registered));
        }
        for (row, live) in &delta.live {
            self.live[*row as usize].clone_from(live);
            self.seals.touch(*row);
        }
        self.members = delta.members.clone();
        self.round = delta.round.clone();
        self.offences.extend(delta.offences.iter().copied());
        self.head = delta.head;
        if delta.ends_round {
            let sealed = self.seal();
            self.seals.keep(sealed);
        }
        Ok(())
    }

    pub(crate) fn push_chain(&mut self, registered: Registered, live: Live) {
        let row = row_number(self.registered.len());
        let message = registered.message();
        if let Some(before) = self.rows.insert(message.meter, row) {
            self.former.entry(message.meter).or_default().push(before);
        }
        self.salts.insert(message.salt.0);
        self.live.push(live);
        self.registered.push(registered);
        self.seals.touch(row);
    }

    /// The newest block.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// What the ledger is founded on.
    pub const fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// Providers and SDIs.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The round of the next block.
    pub const fn round(&self) -> &Arc<Round> {
        &self.round
    }

    /// Providers that are on record for having voted twice, and where.
    pub const fn offences(&self) -> &BTreeSet<Offence> {
        &self.offences
    }

    /// Number of registered chains.
    pub fn meters(&self) -> u32 {
        row_number(self.registered.len())
    }

    /// This state alone.
    pub fn view(&self) -> View<'_> {
        View { state: self, deltas: Vec::new() }
    }

    /// This state and what verified blocks would change, oldest first, each on top of the one
    /// before.
    ///
    /// # Errors
    ///
    /// [`NotNext`] for the first that does not follow.
    pub fn view_with<'a>(
        &'a self,
        blocks: impl IntoIterator<Item = &'a Verified>,
    ) -> Result<View<'a>, NotNext> {
        let mut view = self.view();
        for verified in blocks {
            let (delta, head) = (verified.delta(), view.head().id);
            if delta.parent != head {
                return Err(NotNext { height: delta.head.height, parent: delta.parent, head });
            }
            view.deltas.push(delta);
        }
        Ok(view)
    }
}

/// A registry holds at most `limits.meters`, a 32-bit number.
fn row_number(position: usize) -> Row {
    Row::try_from(position).unwrap_or(Row::MAX)
}

impl Live {
    pub(crate) fn new(registered: &Registered) -> Self {
        let last_link = registered.message().anchor.clone();
        Self { last_index: 0, last_link, active: 0, end: None, pending: Vec::new() }
    }

    /// This chain once `link` has opened its slot; `None` if the link is not of the chain.
    pub(crate) fn open(&self, salt: Salt, index: LinkIndex, link: &Link) -> Option<Self> {
        let newest = index.get() > self.last_index;
        let (from, upper, to, lower) = if newest {
            (index.get(), link, self.last_index, &self.last_link)
        } else {
            (self.last_index, &self.last_link, index.get(), link)
        };
        if hash_chain::walk(salt, from, to, upper) != *lower {
            return None;
        }
        let others = self.pending.iter().filter(|pending| pending.index != index);
        Some(Self {
            last_index: from,
            last_link: upper.clone(),
            active: self.active,
            end: self.end,
            pending: others.copied().collect(),
        })
    }

    /// Whether the chain still has a slot.
    pub fn has(&self, schedule: &Schedule, index: LinkIndex) -> bool {
        match self.end {
            None => true,
            Some(End::Revoked(_)) => false,
            Some(End::Replaced(then)) => schedule.ends(index) <= then,
        }
    }
}

/// A state seen through the blocks on top of it.
#[derive(Clone, Debug)]
pub struct View<'a> {
    state: &'a State,
    deltas: Vec<&'a Delta>,
}

impl View<'_> {
    /// The newest block.
    pub fn head(&self) -> Head {
        self.deltas.last().map_or(self.state.head, |delta| delta.head)
    }

    /// What the ledger is founded on.
    pub const fn genesis(&self) -> &Arc<Genesis> {
        &self.state.genesis
    }

    /// Providers and SDIs.
    pub fn members(&self) -> &Arc<Members> {
        self.deltas.last().map_or(&self.state.members, |delta| &delta.members)
    }

    /// The round of the next block.
    pub fn round(&self) -> &Arc<Round> {
        self.deltas.last().map_or(&self.state.round, |delta| &delta.round)
    }

    /// Digest of the state at the end of the round before; `None` in the first round, and as long
    /// as that end is not finalized here.
    pub fn sealed(&self) -> Option<Digest> {
        let round = self.round().number;
        (self.state.round.number == round).then(|| self.state.seals.kept()).flatten()
    }

    /// Whether an offence is on record.
    pub fn has_offence(&self, offence: &Offence) -> bool {
        self.state.offences.contains(offence)
            || self.deltas.iter().any(|delta| delta.offences.contains(offence))
    }

    /// Number of offences on record.
    pub fn offences(&self) -> usize {
        self.state.offences.len()
            + self.deltas.iter().map(|delta| delta.offences.len()).sum::<usize>()
    }

    /// Number of registered chains.
    pub fn meters(&self) -> u32 {
        self.deltas.last().map_or(self.state.meters(), |delta| {
            delta.first_row + row_number(delta.registered.len())
        })
    }

    /// A chain's registration.
    pub fn registered(&self, row: Row) -> Option<&Registered> {
        if let Some(registered) = self.state.registered.get(row as usize) {
            return Some(registered);
        }
        self.deltas.iter().find_map(|delta| {
            let offset = row.checked_sub(delta.first_row)?;
            delta.registered.get(offset as usize)
        })
    }

    /// What has changed about a chain; `None` while it is as registered in a block of this view.
    pub fn live(&self, row: Row) -> Option<&Live> {
        let changed = self.deltas.iter().rev().find_map(|delta| delta.live.get(&row));
        changed.or_else(|| self.state.live.get(row as usize))
    }

    /// The registry number of a meter's newest chain.
    pub fn row(&self, meter: MeterId) -> Option<Row> {
        let newest = self.deltas.iter().rev().find_map(|delta| {
            let same = |registered: &Registered| registered.message().meter == meter;
            let offset = delta.registered.iter().position(same)?;
            Some(delta.first_row + row_number(offset))
        });
        newest.or_else(|| self.state.rows.get(&meter).copied())
    }

    /// The registry numbers of all chains of a meter, newest first.
    pub fn chains(&self, meter: MeterId) -> Vec<Row> {
        let mut chains: Vec<_> = self.state.former.get(&meter).cloned().unwrap_or_default();
        chains.extend(self.state.rows.get(&meter));
        for delta in &self.deltas {
            let of_meter = |registered: &Registered| registered.message().meter == meter;
            let offset = delta.registered.iter().position(of_meter);
            chains.extend(offset.map(|offset| delta.first_row + row_number(offset)));
        }
        chains.reverse();
        chains
    }

    /// Whether a salt is taken.
    pub fn has_salt(&self, salt: Salt) -> bool {
        let same = |registered: &Registered| registered.message().salt == salt;
        self.state.salts.contains(&salt.0)
            || self.deltas.iter().any(|delta| delta.registered.iter().any(same))
    }
}
