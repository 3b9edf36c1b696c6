//! What a node remembers of having voted, so that it never votes twice.
//!
//! The engine writes every vote to the round's journal before it sends it, and reads the journal
//! back after a crash: that is enough as long as the journal is there. A journal that is lost, torn
//! or altered would make an honest node vote again in views it has voted in, and others could
//! prove it. So a second record, apart from the journal, says which round this node has entered
//! last and what it has voted in the newest views; it is written before the first vote of a round
//! and, once they are in the journal for certain, a few times a second after. A node votes in a
//! round
//!
//! - that is later than the last it entered, or
//! - that it entered last, if the journal reads well and has all votes of the record.
//!
//! In any other round it follows without voting, until the next begins. A node that begins without
//! any record votes in round 0, since all nodes begin so, and then in rounds that have begun after
//! it started: the block before such a round is certified, and later than the node's clock was, so
//! no earlier life of the node can have been in it. The first round of a network lasts long enough
//! for that (see [`crate::application`]). What peers claim does not count, since one of them could
//! silence all others by it. What remains open: a disk that is lost within the first round of a
//! network, and the votes of the moment before the record is written. Where more than a third of a
//! committee has lost its disks the round cannot end by this rule; their operators can let them
//! vote (`Config::vote_without_memory`), knowing what they do.

use std::collections::BTreeMap;

use bkss_scheme::LedgerTime;
use commonware_codec::varint::UInt;
use commonware_consensus::{
    Viewable,
    simplex::{
        scheme::ed25519::Scheme,
        types::{Artifact, Attributable},
    },
    types::Participant,
};
use commonware_cryptography::{certificate::Scheme as _, certificate::Verifier, sha256};
use commonware_runtime::{
    Clock, Metrics, ReadOptions, Storage, Supervisor, buffer::paged::CacheRef,
};
use commonware_storage::{
    journal::{
        self,
        segmented::variable::{Config as JournalConfig, Journal},
    },
    metadata::{self, Metadata},
};
use commonware_utils::{NZUsize, sequence::U64};

use crate::store::disk_failed;

const ROUND: U64 = U64::new(0);
const VIEW: U64 = U64::new(1);
const KINDS: U64 = U64::new(3);
/// Ledger time until when this node may have voted without remembering it.
const FORGOTTEN: U64 = U64::new(4);
/// The view of a round that this node must not vote in (any more).
const NEVER: u64 = u64::MAX;

/// Views whose votes are recorded.
const VIEWS: u64 = 16;

/// What was voted in the newest views.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Votes {
    newest: u64,
    /// Four bits per view, the newest lowest.
    kinds: u64,
}

impl Votes {
    /// A notarize vote.
    pub const NOTARIZE: u64 = 1;
    /// A nullify vote.
    pub const NULLIFY: u64 = 2;
    /// A finalize vote.
    pub const FINALIZE: u64 = 4;

    /// Adds a vote.
    pub fn add(&mut self, view: u64, kind: u64) {
        if let Some(ahead) = view.checked_sub(self.newest) {
            self.kinds = if ahead < VIEWS { self.kinds << (4 * ahead) } else { 0 };
            self.newest = view;
        }
        let back = self.newest - view;
        if back < VIEWS {
            self.kinds |= kind << (4 * back);
        }
    }

    /// The newest of these views with a vote that `journal` lacks.
    fn lacks(&self, journal: &BTreeMap<u64, u64>) -> Option<u64> {
        (0..VIEWS).find_map(|back| {
            let view = self.newest.checked_sub(back)?;
            let (voted, found) = (self.kinds >> (4 * back) & 0xF, journal.get(&view));
            (voted & !found.copied().unwrap_or(0) != 0).then_some(view)
        })
    }
}

/// Why a node follows a round without voting.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Abstains {
    #[error("this node has been in round {entered}, votes in earlier ones are lost")]
    Earlier { entered: u64 },
    #[error("journal of votes lacks a vote that this node has cast in view {view}")]
    Lost { view: u64 },
    #[error("this node must not vote in round {round}")]
    Never { round: u64 },
    #[error("journal of votes cannot be read: {0}")]
    Torn(String),
    #[error(
        "this node has no record of its votes until {forgotten} ms, the round began at {began} ms"
    )]
    Unknown { forgotten: LedgerTime, began: LedgerTime },
}

/// The record of a node's votes.
pub struct Memory<E: Storage + Clock + Metrics> {
    record: Option<Metadata<E, U64, UInt<u64>>>,
    has_ledger: bool,
    written: Votes,
}

impl<E: Storage + Clock + Metrics + Supervisor> Memory<E> {
    /// Opens the record; `has_ledger` if blocks are stored. Without a record, no vote until `now`
    /// is remembered: the newest ledger time that a block can be of which is there already.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn open(
        ctx: &E,
        partition: &str,
        has_ledger: bool,
        now: LedgerTime,
    ) -> Result<Self, metadata::Error> {
        let config =
            metadata::Config { partition: format!("{partition}-memory"), codec_config: () };
        let mut record = Metadata::init(ctx.child("memory"), config).await?;
        if record.get(&ROUND).is_none() {
            record.put(FORGOTTEN, UInt(now.0));
        }
        Ok(Self { record: Some(record), has_ledger, written: Votes::default() })
    }

    /// Whether the node may vote in a round which began on a block of time `began`, or earlier, or
    /// why not; `journal` names the round's journal of votes.
    ///
    /// # Errors
    ///
    /// Those of the storage: where the disk fails it is not known.
    pub async fn may_vote(
        &self,
        ctx: &E,
        (round, began): (u64, LedgerTime),
        journal: &str,
        scheme: &Scheme,
        cache: CacheRef,
    ) -> Result<Result<(), Abstains>, metadata::Error> {
        let forgotten = LedgerTime(self.get(&FORGOTTEN).unwrap_or(0));
        let later = began > forgotten;
        let unknown = if later { Ok(()) } else { Err(Abstains::Unknown { forgotten, began }) };
        let Some(entered) = self.get(&ROUND) else {
            let founds = round == 0 && !self.has_ledger;
            return Ok(if founds { Ok(()) } else { unknown });
        };
        if round < entered {
            return Ok(Err(Abstains::Earlier { entered }));
        }
        if round > entered {
            return Ok(unknown);
        }
        let newest = self.get(&VIEW).unwrap_or(NEVER);
        if newest == NEVER {
            return Ok(Err(Abstains::Never { round }));
        }
        let votes = Votes { newest, kinds: self.get(&KINDS).unwrap_or(0) };
        let me = scheme.me().map(|me| me.index());
        match own_votes(ctx, journal, scheme, me, cache).await {
            Ok(journal) => {
                Ok(votes.lacks(&journal).map_or(Ok(()), |view| Err(Abstains::Lost { view })))
            }
            Err(journal::Error::Runtime(error)) if disk_failed(&error) => Err(error.into()),
            Err(error) => Ok(Err(Abstains::Torn(error.to_string()))),
        }
    }

    /// The node enters a round; on disk when this returns.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn enter(&mut self, round: u64, votes: bool) -> Result<(), metadata::Error> {
        let Some(mut record) = self.record.take() else { return Ok(()) };
        if record.get(&ROUND).is_none_or(|entered| entered.0 < round) {
            record.put(ROUND, UInt(round));
            record.put(VIEW, UInt(if votes { 0 } else { NEVER }));
            record.put(KINDS, UInt(0));
        } else if !votes && record.get(&ROUND).is_some_and(|entered| entered.0 == round) {
            record.put(VIEW, UInt(NEVER));
        }
        self.written = Votes::default();
        self.record = Some(record.sync().await?);
        Ok(())
    }

    /// Records what the node has voted in the round that it entered.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn voted(&mut self, votes: Votes) -> Result<(), metadata::Error> {
        if votes == self.written || votes.newest < self.get(&VIEW).unwrap_or(0) {
            return Ok(());
        }
        let Some(mut record) = self.record.take() else { return Ok(()) };
        record.put(VIEW, UInt(votes.newest));
        record.put(KINDS, UInt(votes.kinds));
        self.written = votes;
        self.record = Some(record.sync().await?);
        Ok(())
    }

    fn get(&self, key: &U64) -> Option<u64> {
        self.record.as_ref().and_then(|record| record.get(key)).map(|value| value.0)
    }
}

/// This node's votes in the journal of a round, by view.
async fn own_votes<E: Storage + Clock + Metrics + Supervisor>(
    ctx: &E,
    journal: &str,
    scheme: &Scheme,
    me: Option<Participant>,
    page_cache: CacheRef,
) -> Result<BTreeMap<u64, u64>, journal::Error> {
    let config = JournalConfig {
        partition: journal.into(),
        compression: None,
        codec_config: scheme.certificate_codec_config(),
        page_cache,
        write_buffer: NZUsize!(64 * 1024),
    };
    let journal =
        Journal::<_, Artifact<Scheme, sha256::Digest>>::init(ctx.child("votes"), config).await?;
    let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
    let mut replay = journal.replay(0, 0, NZUsize!(1024 * 1024), ReadOptions::DONT_CACHE).await?;
    while let Some(artifact) = replay.next().await {
        let (_, _, _, artifact) = artifact?;
        let (signer, kind) = match &artifact {
            Artifact::Notarize(vote) => (vote.signer(), Votes::NOTARIZE),
            Artifact::Nullify(vote) => (vote.signer(), Votes::NULLIFY),
            Artifact::Finalize(vote) => (vote.signer(), Votes::FINALIZE),
            _ => continue,
        };
        if Some(signer) == me {
            *votes.entry(artifact.view().get()).or_default() |= kind;
        }
    }
    Ok(votes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_lacks_any_recorded_vote_is_noticed() {
        let cast = [
            (3, Votes::NOTARIZE),
            (3, Votes::FINALIZE),
            (5, Votes::NULLIFY),
            (4, Votes::NOTARIZE),
            (9, Votes::NOTARIZE),
        ];
        let mut votes = Votes::default();
        cast.iter().for_each(|(view, kind)| votes.add(*view, *kind));
        for missing in 0..=cast.len() {
            let mut journal: BTreeMap<u64, u64> = BTreeMap::new();
            let kept = cast.iter().enumerate().filter(|(index, _)| *index != missing);
            kept.for_each(|(_, (view, kind))| *journal.entry(*view).or_default() |= kind);
            let expected = cast.get(missing).map(|(view, _)| *view);
            assert_eq!(votes.lacks(&journal), expected, "without vote {missing}");
        }
        votes.add(9 + VIEWS, Votes::NOTARIZE);
        let newest = BTreeMap::from([(9 + VIEWS, Votes::NOTARIZE)]);
        assert_eq!(votes.lacks(&newest), None, "what is long past is forgotten");
    }
}
