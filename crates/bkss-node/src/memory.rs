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
//! - that the record names, if the journal reads well and has all votes of the record, or
//! - that begins later than this start of the node.
//!
//! In any other round it follows without voting, until the next begins: the record may be that of an
//! image of the disk which is older than the node's votes. The block before a round that begins later
//! than the start is certified, and later than the node's clock was, so no earlier life of the node
//! can have been in that round. Near the end of a round the record names the next one as well, so that
//! a power cut at the turn does not silence all.
//!
//! A node without any record votes in round 0 of a network without blocks, since all nodes begin so.
//! The first round of a network lasts long enough for the second to begin later than all started (see
//! [`crate::application`]). What peers claim does not count, since one of them could silence all
//! others by it. What remains open: an image that is put back in the very round in which it was taken,
//! or near whose end it was taken; one of an earlier round, until the node has fetched the end of that
//! round; a disk that is lost within the first round of a network; and the votes of the moment before
//! the record is written. Where more than a third of a committee may not vote the round cannot end by
//! this rule; operators who know that no image was put back can let their nodes vote
//! (`Config::vote_without_memory`).

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

use crate::{repair::open_metadata, store::disk_failed};

const ROUND: U64 = U64::new(0);
const VIEW: U64 = U64::new(1);
const KINDS: U64 = U64::new(3);
/// The round after the one entered, once that one is near its end.
const NEXT: U64 = U64::new(5);
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
        "the round began at {began} ms, before this node started ({started} ms), and the record of \
         its votes is of {record}: it may have voted since"
    )]
    Unknown { started: LedgerTime, began: LedgerTime, record: OfRound },
}

/// The round of a record of votes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OfRound(Option<u64>);

impl std::fmt::Display for OfRound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(round) => write!(f, "round {round}"),
            None => f.write_str("no round"),
        }
    }
}

/// The record of a node's votes.
pub struct Memory<E: Storage + Clock + Metrics> {
    record: Option<Metadata<E, U64, UInt<u64>>>,
    has_ledger: bool,
    /// The newest ledger time that a block can be of which was there at the start.
    started: LedgerTime,
    written: Votes,
}

impl<E: Storage + Clock + Metrics + Supervisor> Memory<E> {
    /// Opens the record; `has_ledger` if blocks are stored, `now` is the newest ledger time that a
    /// block can be of which is there already.
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
        let name = format!("{partition}-memory");
        // Without a record the node votes only in rounds that begin later.
        let kept = open_metadata(ctx, &name, ()).await?;
        // A record that is lost must not look like one that never was.
        let has_ledger = has_ledger || kept.is_none();
        let record = match kept {
            Some(record) => record,
            None => {
                let config = metadata::Config { partition: name, codec_config: () };
                Metadata::init(ctx.child("memory"), config).await?
            }
        };
        Ok(Self { record: Some(record), has_ledger, started: now, written: Votes::default() })
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
        let entered = self.get(&ROUND);
        let started = self.started;
        let record = OfRound(entered);
        let later = began > started;
        let unknown =
            if later { Ok(()) } else { Err(Abstains::Unknown { started, began, record }) };
        let Some(entered) = entered else {
            let founds = round == 0 && !self.has_ledger;
            return Ok(if founds { Ok(()) } else { unknown });
        };
        if round < entered {
            return Ok(Err(Abstains::Earlier { entered }));
        }
        if round > entered {
            let named = entered.checked_add(1) == Some(round) && self.get(&NEXT) == Some(round);
            return Ok(if named { Ok(()) } else { unknown });
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

    /// The round that the node has entered is near its end, with a block of time `head`: the record
    /// names the next round as well.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn near_end(&mut self, round: u64, head: LedgerTime) -> Result<(), metadata::Error> {
        // What was there when the node started may be long over: the others may be in the next round,
        // and so may this node have been before its disk was put back.
        if head <= self.started {
            return Ok(());
        }
        let next = round.saturating_add(1);
        if self.get(&ROUND) != Some(round) || self.get(&NEXT) == Some(next) {
            return Ok(());
        }
        // A node that only follows may be behind the others, who are in the next round already, and so
        // may it have been before its disk was put back.
        if self.get(&VIEW) == Some(NEVER) {
            return Ok(());
        }
        let Some(mut record) = self.record.take() else { return Ok(()) };
        record.put(NEXT, UInt(next));
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
    use commonware_runtime::deterministic;
    use commonware_utils::NZU16;

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

    /// What a node may do that is started at `started` with the record that another has left, in
    /// rounds that began at a time.
    fn after_a_start(
        runner: deterministic::Runner,
        started: u64,
        rounds: Vec<(u64, u64, bool)>,
    ) -> deterministic::Runner {
        let (_, checkpoint) = runner.start_and_recover(|ctx| async move {
            let memory = Memory::open(&ctx, "node", true, LedgerTime(started)).await.unwrap();
            let cache = CacheRef::new(NZU16!(1024), NZUsize!(16));
            let (key, public) = crate::config::vote_key(&[7; 32]);
            let committee =
                crate::plan::participants(&bkss_scheme::Committee::new([public]).unwrap());
            let scheme = Scheme::signer(b"votes", committee.unwrap(), key).unwrap();
            for (round, began, votes) in rounds {
                let began = LedgerTime(began);
                let journal = format!("votes-{round}");
                let allowed = memory
                    .may_vote(&ctx, (round, began), &journal, &scheme, cache.clone())
                    .await
                    .unwrap();
                assert_eq!(allowed.is_ok(), votes, "round {round} of {began} ms: {allowed:?}");
            }
        });
        deterministic::Runner::from(checkpoint)
    }

    /// A node that follows without voting, or reads in what was there when it started, may be behind:
    /// the others, and itself before its disk was put back, may have voted in the next round already.
    #[test]
    fn a_node_that_may_be_behind_does_not_name_the_next_round() {
        let cases = [(true, 6001, true), (true, 6000, false), (false, 6001, false)];
        for (votes, head, named) in cases {
            let runner = deterministic::Runner::default();
            let (_, checkpoint) = runner.start_and_recover(|ctx| async move {
                let mut memory = Memory::open(&ctx, "node", true, LedgerTime(6000)).await.unwrap();
                memory.enter(7, votes).await.unwrap();
                memory.near_end(7, LedgerTime(head)).await.unwrap();
            });
            let runner = deterministic::Runner::from(checkpoint);
            after_a_start(runner, 9000, vec![(8, 8000, named), (9, 8500, false)]);
        }
    }

    /// The record may be that of an older image of the disk: the node may have voted since.
    #[test]
    fn a_node_votes_in_the_round_of_its_record_and_in_rounds_that_begin_later_than_its_start() {
        let runner = deterministic::Runner::default();
        // Without a record: in rounds that begin later, and not in the first of a network that has
        // blocks.
        let runner =
            after_a_start(runner, 5000, vec![(0, 0, false), (3, 5000, false), (3, 5001, true)]);
        let (_, checkpoint) = runner.start_and_recover(|ctx| async move {
            let mut memory = Memory::open(&ctx, "node", true, LedgerTime(6000)).await.unwrap();
            memory.enter(7, true).await.unwrap();
        });
        let runner = deterministic::Runner::from(checkpoint);
        let of_its_record = vec![
            (6, 4000, false),
            (7, 6500, true),
            (8, 8000, false),
            (8, 9000, false),
            (8, 9001, true),
            (9, 8999, false),
            (9, 20_000, true),
        ];
        let runner = after_a_start(runner, 9000, of_its_record);
        // Near the end of its round the record names the next one as well, and no other.
        let (_, checkpoint) = runner.start_and_recover(|ctx| async move {
            let mut memory = Memory::open(&ctx, "node", true, LedgerTime(6000)).await.unwrap();
            memory.near_end(6, LedgerTime(6001)).await.unwrap();
            memory.near_end(7, LedgerTime(6001)).await.unwrap();
        });
        let runner = deterministic::Runner::from(checkpoint);
        let named = vec![(7, 6500, true), (8, 8000, true), (9, 8999, false)];
        let runner = after_a_start(runner, 9000, named);
        // That of an earlier round names nothing.
        let (_, checkpoint) = runner.start_and_recover(|ctx| async move {
            let mut memory = Memory::open(&ctx, "node", true, LedgerTime(6000)).await.unwrap();
            memory.enter(8, true).await.unwrap();
        });
        let runner = deterministic::Runner::from(checkpoint);
        after_a_start(runner, 9000, vec![(8, 8000, true), (9, 8999, false)]);
    }
}
