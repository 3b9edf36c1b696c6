//! Algorithm 3 as repaired: which providers keep the ledger in a round (B9).
//!
//! In each round every provider votes on the ledger for others, never for itself, and votes buy seats
//! in proportion to what they weigh: a majority gets its share, not all. What a vote weighs, the
//! genesis says ([`crate::genesis::Weighing`]): the same for all, or as many meters as report (see
//! [`crate::activity`]), no provider more than a third of all and none less than a quarter of the
//! mean. The first C are the accounting nodes of the next round, the next k its alternates. Whoever
//! has no vote on the ledger at the end of a round was absent in it; alternates drawn by the seed
//! take the seats of the absent. All draws come from the id of the last block of the round before, so
//! that every node computes the same.
//!
//! The last block of a round names the committee of the next one, so a quorum of the old committee
//! certifies the new one.

use std::collections::BTreeMap;

use bkss_scheme::{
    Committee, Digest, LedgerTime, Network, ProviderId, SecretKey, Signature,
    certificate::{MAX_COMMITTEE, VoteKey},
    codec::{self, Encoded},
    hash::{Tag, hash},
    identity::{SignatureError, signed_digest},
    merkle,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Change, Genesis, Members,
    activity::Activity,
    change::{ChangeRefusal, MAX_OWN_CHANGES},
    election::{Candidate, bounded, proportional},
    genesis::{Charter, MAX_ALTERNATES, Rounds},
    members::{MAX_MEMBERS, list},
};

/// Number of a vote.
pub(crate) const NUMBER: u8 = 25;

/// Most picks of a vote.
pub const MAX_PICKS: usize = 255;

/// A provider's vote in a round: `[25, sp, round, [+ sp], sig]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vote {
    /// Who votes.
    pub voter: ProviderId,
    /// The round in which the vote is cast; it counts for the next one.
    pub round: u64,
    /// Whom it trusts, by ascending number: all of them, also more than there are seats. Where each
    /// names only as many, a minority that votes as one gains from how the others' votes scatter.
    pub picks: Vec<ProviderId>,
    /// The voter's signature.
    pub signature: Signature,
}

/// The rule that a vote breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum VoteRefusal {
    #[error("vote for round {found}, this is round {expected}")]
    Round { expected: u64, found: u64 },
    #[error("provider {0} is not one of the consortium")]
    NotPresent(ProviderId),
    #[error("provider {0} has voted in this round")]
    Second(ProviderId),
    #[error("provider {0} votes for itself")]
    Itself(ProviderId),
    #[error("{found} picks, 1 to {most} are allowed")]
    Count { most: usize, found: usize },
    #[error("picks are not by ascending provider")]
    Order,
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
}

impl Vote {
    /// Signs a vote; picks are sorted.
    pub fn sign(
        network: Network,
        voter: ProviderId,
        key: &SecretKey,
        round: u64,
        mut picks: Vec<ProviderId>,
    ) -> Self {
        picks.sort_unstable();
        picks.dedup();
        let mut vote = Self { voter, round, picks, signature: Signature([0; 64]) };
        vote.signature = key.sign(&vote.digest(network));
        vote
    }

    /// What the voter signs.
    pub fn digest(&self, network: Network) -> Digest {
        signed_digest(network, &(NUMBER, self.voter, self.round, &self.picks))
    }

    pub(crate) fn leaf(&self, digest: &Digest) -> Digest {
        merkle::leaf(&[&digest.0, &self.signature.0])
    }

    /// Whether the vote may enter in this round, its signature aside.
    ///
    /// # Errors
    ///
    /// [`VoteRefusal`]: the first rule that does not hold.
    pub fn check_rules(&self, members: &Members, round: &Round) -> Result<(), VoteRefusal> {
        if self.round != round.number {
            return Err(VoteRefusal::Round { expected: round.number, found: self.round });
        }
        if members.provider(self.voter).is_none() {
            return Err(VoteRefusal::NotPresent(self.voter));
        }
        if round.votes.contains_key(&self.voter) {
            return Err(VoteRefusal::Second(self.voter));
        }
        let found = self.picks.len();
        if !(1..=MAX_PICKS).contains(&found) {
            return Err(VoteRefusal::Count { most: MAX_PICKS, found });
        }
        if !self.picks.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(VoteRefusal::Order);
        }
        for pick in &self.picks {
            if *pick == self.voter {
                return Err(VoteRefusal::Itself(self.voter));
            }
            if members.provider(*pick).is_none() {
                return Err(VoteRefusal::NotPresent(*pick));
            }
        }
        Ok(())
    }

    /// Checks the voter's signature.
    ///
    /// # Errors
    ///
    /// [`VoteRefusal`].
    pub fn check_signature(&self, members: &Members, network: Network) -> Result<(), VoteRefusal> {
        let voter = members.provider(self.voter).ok_or(VoteRefusal::NotPresent(self.voter))?;
        Ok(voter.key.verify(&self.digest(network), &self.signature)?)
    }
}

impl<C> Encode<C> for Vote {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(NUMBER)?.encode(self.voter)?.u64(self.round)?;
        encoder.encode(&self.picks)?.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Vote {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, NUMBER)?;
        let (voter, round) = (decoder.decode()?, decoder.u64()?);
        let picks = list(decoder, MAX_PICKS)?;
        Ok(Self { voter, round, picks, signature: decoder.decode()? })
    }
}

/// A round of the ledger: who keeps it, and what counts for the next one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Round {
    /// Number of the round, from 0: the engine's epoch.
    pub number: u64,
    /// Id of the last block of the round before, of block 0 in the first one: the seed of draws.
    pub seed: Digest,
    /// The accounting nodes with the keys they vote with in this round, in their drawn order: the
    /// turns of leaders (Algorithm 1).
    pub nodes: Vec<(ProviderId, VoteKey)>,
    /// Those who stand by.
    pub alternates: Vec<ProviderId>,
    /// The vote keys of the accounting nodes.
    pub committee: Committee,
    /// Meters that counted at the end of the round before, by owner; empty where all weigh the same.
    pub weights: BTreeMap<ProviderId, u32>,
    /// Meters that count now; none where all weigh the same.
    pub activity: Activity,
    /// Changes that providers have made of their own accord on a UTC day, and the number of the day.
    pub changes: (u64, BTreeMap<ProviderId, u32>),
    /// Votes of this round so far.
    pub votes: BTreeMap<ProviderId, Vec<ProviderId>>,
}

/// What an election comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Elected {
    /// Accounting nodes in drawn order.
    pub nodes: Vec<ProviderId>,
    /// Alternates, most votes first.
    pub alternates: Vec<ProviderId>,
}

impl Round {
    /// The first round: founders, in an order and selection drawn from the genesis.
    pub fn first(genesis: &Genesis) -> Self {
        let rounds = genesis.charter().rounds;
        let mut nodes = drawn(genesis.charter());
        let rest = nodes.split_off(nodes.len().min(rounds.committee.into()));
        let alternates = rest.iter().take(rounds.alternates.into()).map(|(id, _)| *id).collect();
        Self {
            number: 0,
            seed: genesis.header().id(),
            committee: genesis.committee().clone(),
            nodes,
            alternates,
            weights: BTreeMap::new(),
            activity: Activity::default(),
            changes: (0, BTreeMap::new()),
            votes: BTreeMap::new(),
        }
    }

    /// Checks that whoever makes a change of its own accord may make another one on this day.
    ///
    /// # Errors
    ///
    /// [`ChangeRefusal::TooManyOnDay`].
    pub fn check_own(&self, change: &Change, time: LedgerTime) -> Result<(), ChangeRefusal> {
        let Some(provider) = change.made_by() else { return Ok(()) };
        let (day, changes) = &self.changes;
        let made = changes.get(&provider).copied().unwrap_or(0);
        if *day != utc_day(time) || made < MAX_OWN_CHANGES {
            return Ok(());
        }
        Err(ChangeRefusal::TooManyOnDay(provider))
    }

    /// Counts a change that a provider makes of its own accord.
    pub(crate) fn count_change(&mut self, provider: ProviderId, time: LedgerTime) {
        let (day, changes) = &mut self.changes;
        let today = utc_day(time);
        if *day != today {
            (*day, *changes) = (today, BTreeMap::new());
        }
        let made = changes.entry(provider).or_default();
        *made = made.saturating_add(1);
    }

    /// Whether a provider keeps the ledger in this round.
    pub fn has_node(&self, provider: ProviderId) -> bool {
        self.nodes.iter().any(|(node, _)| *node == provider)
    }

    /// The accounting nodes and alternates of the next round, by the votes so far.
    pub fn elect(&self, members: &Members, rounds: &Rounds) -> Elected {
        let places = usize::from(rounds.committee) + usize::from(rounds.alternates);
        let ranked = self.rank(members, places);
        let seats = ranked.len().min(rounds.committee.into());
        let mut nodes = ranked[..seats].to_vec();
        let standby = &ranked[seats..];
        let standby = &standby[..standby.len().min(rounds.alternates.into())];
        let (mut present, absent): (Vec<_>, Vec<_>) =
            standby.iter().partition(|id| self.votes.contains_key(id));
        for (seat, node) in (0..).zip(&mut nodes) {
            if self.votes.contains_key(node) || present.is_empty() {
                continue;
            }
            let drawn = draw(&self.seed, b"alternate", seat, present.len());
            *node = present.remove(drawn);
        }
        shuffle(&self.seed, &mut nodes);
        present.extend(absent);
        Elected { nodes, alternates: present }
    }

    /// All present providers: first those that the votes elect, one after the other; then by number
    /// of voters, by being in office, by lot.
    fn rank(&self, members: &Members, places: usize) -> Vec<ProviderId> {
        // Of whoever has left, votes count no more.
        let votes = || self.votes.iter().filter(|(voter, _)| members.provider(**voter).is_some());
        let weight = |voter| self.weights.get(voter).copied().unwrap_or(0);
        let budgets = bounded(votes().map(|(voter, _)| weight(voter)).collect());
        let voters_of = |id: ProviderId| {
            let all = votes().enumerate();
            all.filter(|(_, (_, picks))| picks.binary_search(&id).is_ok())
                .map(|(voter, _)| voter)
                .collect()
        };
        let mut candidates: Vec<Candidate> = members
            .present()
            .map(|provider| Candidate { id: provider.id, voters: voters_of(provider.id) })
            .collect();
        candidates.sort_by_cached_key(|candidate| {
            let id = candidate.id;
            let lot = hash(Tag::Draw, &[&self.seed.0, b"rank", &id.0.to_be_bytes()]);
            (usize::MAX - candidate.voters.len(), !self.has_node(id), lot)
        });
        proportional(&budgets, candidates, places)
    }

    /// The round after this one, which the block `last` ends.
    ///
    /// # Panics
    ///
    /// Never: vote keys of members are distinct, and a committee has room for all seats.
    pub(crate) fn next(
        &self,
        members: &Members,
        charter: &Charter,
        (last, time): (Digest, LedgerTime),
    ) -> Self {
        let rounds = &charter.rounds;
        let Elected { nodes, alternates } = self.elect(members, rounds);
        let nodes: Vec<_> = nodes
            .into_iter()
            .filter_map(|id| members.provider(id).map(|provider| (id, provider.vote_key)))
            .collect();
        let committee = Committee::new(nodes.iter().map(|(_, key)| *key));
        let mut activity = self.activity.clone();
        let weights = activity.advance(time, charter.terms.reveal_s);
        Self {
            number: self.number + 1,
            seed: last,
            committee: committee.expect("at most 32 distinct keys"),
            nodes,
            alternates,
            weights,
            activity,
            changes: self.changes.clone(),
            votes: BTreeMap::new(),
        }
    }
}

/// `[number, seed, [* [sp, key]], [* sp], [* [sp, weight]], activity, [day, [* [sp, changes]]],
/// [* [sp, [* sp]]]]`.
impl<C> Encode<C> for Round {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(8)?.u64(self.number)?.encode(self.seed)?.encode(&self.nodes)?;
        encoder.encode(&self.alternates)?;
        encode_counts(&self.weights, encoder)?;
        encoder.encode(&self.activity)?.array(2)?.u64(self.changes.0)?;
        encode_counts(&self.changes.1, encoder)?;
        encoder.array(self.votes.len() as u64)?;
        for (voter, picks) in &self.votes {
            encoder.array(2)?.encode(voter)?.encode(picks)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Round {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 8)?;
        let (number, seed) = (decoder.u64()?, decoder.decode()?);
        let at = decoder.position();
        let nodes: Vec<(ProviderId, VoteKey)> = list(decoder, MAX_COMMITTEE)?;
        let committee = Committee::new(nodes.iter().map(|(_, key)| *key));
        let committee = committee.ok_or_else(|| decode::Error::message("no committee").at(at))?;
        let alternates = list(decoder, MAX_ALTERNATES.into())?;
        let (weights, activity) = (decode_counts(decoder)?, decoder.decode()?);
        codec::array(decoder, 2)?;
        let changes = (decoder.u64()?, decode_counts(decoder)?);
        let mut votes = BTreeMap::new();
        for _ in 0..codec::array_of_at_most(decoder, MAX_MEMBERS)? {
            codec::array(decoder, 2)?;
            votes.insert(decoder.decode()?, list(decoder, MAX_PICKS)?);
        }
        Ok(Self { number, seed, nodes, alternates, committee, weights, activity, changes, votes })
    }
}

const fn utc_day(time: LedgerTime) -> u64 {
    time.seconds() / 86_400
}

fn encode_counts<W: encode::Write>(
    counts: &BTreeMap<ProviderId, u32>,
    encoder: &mut Encoder<W>,
) -> Encoded<W> {
    encoder.array(counts.len() as u64)?;
    for (provider, count) in counts {
        encoder.array(2)?.encode(provider)?.u32(*count)?;
    }
    Ok(())
}

fn decode_counts(decoder: &mut Decoder<'_>) -> Result<BTreeMap<ProviderId, u32>, decode::Error> {
    let counts: Vec<(ProviderId, u32)> = list(decoder, MAX_MEMBERS)?;
    Ok(counts.into_iter().collect())
}

/// A number below `bound`, which is not 0.
fn draw(seed: &Digest, what: &[u8], number: u32, bound: usize) -> usize {
    let lot = hash(Tag::Draw, &[&seed.0, what, &number.to_be_bytes()]);
    let mut first = [0; 8];
    first.copy_from_slice(&lot.0[..8]);
    // Of 64 bits the remainder of a number below 2^11 is even enough.
    usize::try_from(u64::from_be_bytes(first) % bound.max(1) as u64).unwrap_or(0)
}

/// Fisher and Yates, from a seed.
fn shuffle<T>(seed: &Digest, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = draw(seed, b"shuffle", u32::try_from(last).unwrap_or(u32::MAX), last + 1);
        items.swap(last, other);
    }
}

/// The founders in the order that the charter draws.
fn drawn(charter: &Charter) -> Vec<(ProviderId, VoteKey)> {
    let founders = charter.providers.iter();
    let mut founders: Vec<_> = founders.map(|provider| (provider.id, provider.vote_key)).collect();
    shuffle(&charter.digest(), &mut founders);
    founders
}

/// The committee of the first round: as many founders as it has seats, drawn; `None` if two have
/// one vote key.
pub(crate) fn first_committee(charter: &Charter) -> Option<Committee> {
    let seats = usize::from(charter.rounds.committee);
    Committee::new(drawn(charter).into_iter().take(seats).map(|(_, key)| key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation_that_the_seed_decides() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..21).collect();
            shuffle(&Digest([seed; 32]), &mut items);
            items
        };
        let one = shuffled(1);
        assert_eq!(one, shuffled(1));
        assert_ne!(one, shuffled(2));
        let mut sorted = one;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..21).collect::<Vec<_>>());
    }
}
