//! The state of the ledger: what a new block is judged by (scheme s4.5).
//!
//! Finalized state is in memory, some 240 bytes per meter. Blocks that are not final yet are
//! [`Delta`]s on top of it: a [`View`] reads through them, so that proposals are verified on
//! unfinalized parents without copying anything. The state changes in one way only:
//! [`State::apply`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bkss_scheme::{Digest, LedgerTime, MeterId, ProviderId, Salt, root_message::Registered};

use crate::{
    Chain, Genesis, Live, Members, Verified,
    accounting_nodes::Round,
    evidence::{EvidenceRefusal, MAX_RECORDS, Offence},
    registry::Registry,
    seal::Seals,
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

/// What one block changes.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The block before.
    pub(crate) parent: Digest,
    /// The block.
    pub(crate) head: Head,
    /// What it registers, in order.
    pub(crate) registered: Vec<Registered>,
    /// The chains of these.
    pub(crate) new: Registry,
    /// What has changed of chains, the new ones among them.
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
    pub(crate) registry: Registry,
    pub(crate) live: Vec<Live>,
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
            registry: Registry::default(),
            live: Vec::new(),
            seals: Seals::default(),
        }
    }

    /// Applies a verified block.
    ///
    /// # Errors
    ///
    /// [`NotNext`] if it was verified on top of another block than this state's head.
    pub fn apply(&mut self, verified: &Verified) -> Result<(), NotNext> {
        if self.apply_unsealed(verified)? {
            let sealed = self.seal();
            self.seals.keep(sealed);
        }
        Ok(())
    }

    /// Applies a verified block; true if it ends a round, so that the state's digest is to be made
    /// ([`Self::sealing`]) and kept ([`Self::keep_sealed`]) before the next round ends.
    ///
    /// # Errors
    ///
    /// As for [`Self::apply`].
    pub fn apply_unsealed(&mut self, verified: &Verified) -> Result<bool, NotNext> {
        let delta = verified.delta();
        if delta.parent != self.head.id {
            let (height, parent) = (delta.head.height, delta.parent);
            return Err(NotNext { height, parent, head: self.head.id });
        }
        for chain in delta.new.chains() {
            self.registry.push(chain.clone());
        }
        // In ascending order: those of new chains follow each other at the end.
        for (row, live) in &delta.live {
            match self.live.get_mut(*row as usize) {
                Some(known) => known.clone_from(live),
                None => self.live.push(live.clone()),
            }
            self.seals.touch(*row);
        }
        self.members = delta.members.clone();
        self.round = delta.round.clone();
        self.offences.extend(delta.offences.iter().copied());
        self.head = delta.head;
        if delta.ends_round {
            self.seals.open();
        }
        Ok(delta.ends_round)
    }

    pub(crate) fn push_chain(&mut self, chain: Chain, live: Live) {
        let row = self.registry.push(chain);
        self.live.push(live);
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
    pub fn chain_count(&self) -> u32 {
        self.registry.next()
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

    /// Whether an offence can be recorded behind those of this view and `new` ones.
    ///
    /// # Errors
    ///
    /// [`EvidenceRefusal::Known`] or [`EvidenceRefusal::Full`].
    pub(crate) fn check_offence(
        &self,
        offence: &Offence,
        new: &[Offence],
    ) -> Result<(), EvidenceRefusal> {
        let provider = offence.provider;
        let of_provider = |offence: &&Offence| offence.provider == provider;
        let first = Offence { provider, epoch: 0, view: 0 };
        let last = Offence { provider, epoch: u64::MAX, view: u64::MAX };
        let known = self.state.offences.range(first..=last);
        let later = self.deltas.iter().flat_map(|delta| &delta.offences).chain(new);
        let records: Vec<_> = known.chain(later.filter(of_provider)).collect();
        if records.contains(&offence) {
            return Err(EvidenceRefusal::Known(*offence));
        }
        if records.len() >= MAX_RECORDS { Err(EvidenceRefusal::Full(provider)) } else { Ok(()) }
    }

    /// Number of registered chains.
    pub fn chain_count(&self) -> u32 {
        self.deltas.last().map_or(self.state.chain_count(), |delta| delta.new.next())
    }

    /// What was registered of a chain.
    pub fn chain(&self, row: Row) -> Option<&Chain> {
        self.registries().find_map(|registry| registry.get(row))
    }

    /// What has become of a chain.
    pub fn live(&self, row: Row) -> Option<&Live> {
        let changed = self.deltas.iter().rev().find_map(|delta| delta.live.get(&row));
        changed.or_else(|| self.state.live.get(row as usize))
    }

    /// The registry number of a meter's newest chain.
    pub fn row(&self, meter: MeterId) -> Option<Row> {
        self.registries().filter_map(|registry| registry.newest(meter)).last()
    }

    /// The registry numbers of all chains of a meter, newest first.
    pub fn chains(&self, meter: MeterId) -> Vec<Row> {
        let mut chains: Vec<_> =
            self.registries().flat_map(|registry| registry.all(meter)).collect();
        chains.reverse();
        chains
    }

    /// How many chains an owner has.
    pub fn chains_of(&self, owner: ProviderId) -> u32 {
        self.registries().fold(0, |sum: u32, some| sum.saturating_add(some.count_of(owner)))
    }

    /// Whether a salt is taken.
    pub fn has_salt(&self, salt: Salt) -> bool {
        self.registries().any(|registry| registry.has_salt(salt))
    }

    /// The chains of the state, then those that each block registers.
    fn registries(&self) -> impl Iterator<Item = &Registry> {
        std::iter::once(&self.state.registry).chain(self.deltas.iter().map(|delta| &delta.new))
    }
}
