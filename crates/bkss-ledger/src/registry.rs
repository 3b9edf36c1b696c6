//! Registered chains by number, meter and salt.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hash, RandomState},
};

use bkss_scheme::{MeterId, ProviderId, Salt};
use hashbrown::HashTable;

use crate::{Chain, transaction_batch::Row};

/// Chains in the order of their registration, numbered from `first` on: all of the ledger, or those
/// of one block.
///
/// The tables hold numbers only, five bytes a place, and find the rest in the list. Nothing walks
/// them, so that their order, which differs from process to process, is of no consequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    first: Row,
    chains: Vec<Chain>,
    /// The newest chain of each meter.
    by_meter: HashTable<Row>,
    by_salt: HashTable<Row>,
    /// Earlier chains of meters that had another, oldest first.
    former: BTreeMap<MeterId, Vec<Row>>,
    /// How many chains each owner has.
    by_owner: BTreeMap<ProviderId, u32>,
    hasher: RandomState,
}

impl Registry {
    /// An empty one, to go on at this number.
    pub(crate) fn from(first: Row) -> Self {
        Self { first, ..Self::default() }
    }

    /// The number of the next chain. A registry holds at most `limits.meters`, a 32-bit number.
    pub(crate) fn next(&self) -> Row {
        self.first.saturating_add(Row::try_from(self.chains.len()).unwrap_or(Row::MAX))
    }

    /// All chains.
    pub(crate) fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The chain with this number.
    pub(crate) fn get(&self, row: Row) -> Option<&Chain> {
        self.chains.get(row.checked_sub(self.first)? as usize)
    }

    /// Adds a chain, the newest of its meter.
    pub(crate) fn push(&mut self, chain: Chain) -> Row {
        let row = self.next();
        let (meter, salt) = (chain.meter, chain.salt);
        let of_owner = self.by_owner.entry(chain.owner).or_default();
        *of_owner = of_owner.saturating_add(1);
        self.chains.push(chain);
        let Self { first, chains, by_meter, by_salt, former, hasher, .. } = self;
        let chain = |row: &Row| &chains[(*row - *first) as usize];
        let hash_of_meter = |row: &Row| hasher.hash_one(chain(row).meter);
        let same = |row: &Row| chain(row).meter == meter;
        match by_meter.find_mut(hasher.hash_one(meter), same) {
            Some(newest) => {
                former.entry(meter).or_default().push(std::mem::replace(newest, row));
            }
            None => {
                by_meter.insert_unique(hasher.hash_one(meter), row, hash_of_meter);
            }
        }
        by_salt
            .insert_unique(hasher.hash_one(salt.0), row, |row| hasher.hash_one(chain(row).salt.0));
        row
    }

    /// The number of a meter's newest chain.
    pub(crate) fn newest(&self, meter: MeterId) -> Option<Row> {
        self.find(&self.by_meter, meter, |chain| chain.meter == meter)
    }

    /// How many chains an owner has.
    pub(crate) fn count_of(&self, owner: ProviderId) -> u32 {
        self.by_owner.get(&owner).copied().unwrap_or(0)
    }

    /// Whether a salt is taken.
    pub(crate) fn has_salt(&self, salt: Salt) -> bool {
        self.find(&self.by_salt, salt.0, |chain| chain.salt == salt).is_some()
    }

    /// The numbers of a meter's chains, oldest first.
    pub(crate) fn all(&self, meter: MeterId) -> impl Iterator<Item = Row> + '_ {
        let former = self.former.get(&meter).into_iter().flatten().copied();
        former.chain(self.newest(meter))
    }

    fn find(
        &self,
        table: &HashTable<Row>,
        key: impl Hash,
        same: impl Fn(&Chain) -> bool,
    ) -> Option<Row> {
        let same = |row: &Row| self.get(*row).is_some_and(&same);
        table.find(self.hasher.hash_one(key), same).copied()
    }
}
