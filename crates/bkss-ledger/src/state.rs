//! The state of the ledger: what a new block is judged by (scheme s4.5).
//!
//! Finalized state is in memory, about 300 bytes per meter. Blocks that are not final yet are
//! [`Delta`]s on top of it: a [`View`] reads through them, so that proposals are verified on
//! unfinalized parents without copying anything. The state changes in one way only:
//! [`State::apply`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, Salt, hash_chain,
    root_message::Registered,
};

use crate::{Genesis, Verified, transaction_batch::Row};

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

/// What changes about a meter from block to block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Live {
    /// Index of the newest opened link, 0 for `v_0`.
    pub last_index: u32,
    /// The newest opened link.
    pub last_link: Link,
    /// Accepted requests that are neither opened nor expired.
    pub pending: Vec<Pending>,
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
    /// Number of meters before this block.
    pub(crate) first_row: Row,
    /// Meters it registers, in order.
    pub(crate) registered: Vec<Registered>,
    /// Meters it changes.
    pub(crate) live: BTreeMap<Row, Live>,
}

/// The finalized ledger.
#[derive(Clone, Debug)]
pub struct State {
    genesis: Arc<Genesis>,
    head: Head,
    registered: Vec<Registered>,
    live: Vec<Live>,
    rows: BTreeMap<MeterId, Row>,
    salts: BTreeSet<[u8; 16]>,
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
        Self {
            genesis,
            head,
            registered: Vec::new(),
            live: Vec::new(),
            rows: BTreeMap::new(),
            salts: BTreeSet::new(),
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
            let message = registered.message();
            self.rows.insert(message.meter, row_number(self.registered.len()));
            self.salts.insert(message.salt.0);
            self.live.push(Live::new(registered));
            self.registered.push(registered.clone());
        }
        for (row, live) in &delta.live {
            self.live[*row as usize].clone_from(live);
        }
        self.head = delta.head;
        Ok(())
    }

    /// The newest block.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// What the ledger is founded on.
    pub const fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// Number of registered meters.
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
        Self { last_index: 0, last_link, pending: Vec::new() }
    }

    /// This meter once `link` has opened its slot; `None` if the link is not of its chain.
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
            pending: others.copied().collect(),
        })
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

    /// Number of registered meters.
    pub fn meters(&self) -> u32 {
        self.deltas.last().map_or(self.state.meters(), |delta| {
            delta.first_row + row_number(delta.registered.len())
        })
    }

    /// A meter's registration.
    pub fn registered(&self, row: Row) -> Option<&Registered> {
        if let Some(registered) = self.state.registered.get(row as usize) {
            return Some(registered);
        }
        self.deltas.iter().find_map(|delta| {
            let offset = row.checked_sub(delta.first_row)?;
            delta.registered.get(offset as usize)
        })
    }

    /// What has changed about a meter; `None` while it is as registered in a block of this view.
    pub fn live(&self, row: Row) -> Option<&Live> {
        let changed = self.deltas.iter().rev().find_map(|delta| delta.live.get(&row));
        changed.or_else(|| self.state.live.get(row as usize))
    }

    /// The registry number of a meter.
    pub fn row(&self, meter: MeterId) -> Option<Row> {
        self.state.rows.get(&meter).copied().or_else(|| {
            self.deltas.iter().find_map(|delta| {
                let same = |registered: &Registered| registered.message().meter == meter;
                let offset = delta.registered.iter().position(same)?;
                Some(delta.first_row + row_number(offset))
            })
        })
    }

    /// Whether a salt is taken.
    pub fn has_salt(&self, salt: Salt) -> bool {
        let same = |registered: &Registered| registered.message().salt == salt;
        self.state.salts.contains(&salt.0)
            || self.deltas.iter().any(|delta| delta.registered.iter().any(same))
    }
}
