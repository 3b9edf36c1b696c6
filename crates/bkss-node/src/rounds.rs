//! Rounds of Algorithm 3 as epochs of the engine: one consensus instance per round.
//!
//! The ledger's state says who keeps the next round. When the last block of a round has been
//! applied, the committee's certificate scheme is known, the peers are tracked, the next instance
//! runs and the old one has gone, before that block is acknowledged: a crash in between begins at
//! the same block again. Whoever has no seat runs the same instance without a key to vote with.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use bkss_scheme::ProviderId;
use commonware_consensus::{
    Reporters,
    marshal::standard::Inline,
    simplex::{self, Floor, ForwardPolicy, SkipBudget, SkipPolicy, scheme::ed25519::Scheme},
    types::{Epoch, Epocher, FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    certificate::Scheme as _,
    ed25519::{self, PublicKey},
    sha256,
};
use commonware_macros::select;
use commonware_p2p::{Sender, utils::mux::MuxHandle};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Clock, Handle, Metrics, Spawner, Storage, Supervisor, buffer::paged::CacheRef,
};
use commonware_utils::{NZDuration, NZUsize, channel::mpsc, ordered::Set, vec::NonEmptyVec};
use futures::FutureExt;
use rand_core::CryptoRng;

use crate::{
    Pacing,
    application::LedgerApplication,
    config::{Rekey, public_half},
    delivery::{Marshal, catch_up},
    elector::Tenures,
    engine_block::{EngineBlock, engine_digest},
    evidence::{Accusations, OwnVotes, Watch},
    lanes::Lanes,
    memory::{Memory, Votes},
    plan::{Network, Peer, Plan, Schemes, participants},
    status::Status,
    turns::Turn,
};

/// A peer that is ahead is asked no more often for the end of a round.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// So many blocks before its last, and in its last tenth, a round is near its end.
const NEAR_END: u64 = 8;
/// How often own votes are recorded apart from the journal.
const RECORD: Duration = Duration::from_millis(250);
/// Rounds whose journals have gone when a round starts; the newest two are kept.
const SWEPT: std::ops::RangeInclusive<u64> = 2..=4;

/// What a node needs to take part in any round.
pub struct Seat<N> {
    /// Whose it is.
    pub provider: ProviderId,
    /// Signs votes.
    pub vote_key: ed25519::PrivateKey,
    /// Who may have the provider's next vote key.
    pub rekey: Option<Rekey>,
    /// The namespace of votes.
    pub namespace: Vec<u8>,
    /// The prefix of this node's storage.
    pub partition: String,
    /// How fast blocks follow each other.
    pub pacing: Pacing,
    /// Cached pages of journals.
    pub cache: CacheRef,
    /// Votes although earlier votes are forgotten.
    pub vote_without_memory: bool,
    /// The network.
    pub network: N,
}

/// The automaton of all rounds.
pub type Automaton<E> = Inline<E, Scheme, LedgerApplication, EngineBlock, FixedEpocher>;

/// The consensus of one round.
type Instance<E, N> = simplex::Engine<
    E,
    Scheme,
    Tenures,
    N,
    sha256::Digest,
    Automaton<E>,
    Automaton<E>,
    Reporters<Automaton<E>, Watch>,
    Sequential,
>;

/// Runs the consensus instance of the round that the ledger is in.
pub struct Rounds<E, S, N>
where
    E: Clock + CryptoRng + Spawner + Storage + Metrics + Supervisor,
    S: Sender<PublicKey = PublicKey>,
{
    ctx: E,
    seat: Seat<N>,
    memory: Memory<E>,
    lanes: Lanes<S>,
    schemes: Schemes,
    automaton: Automaton<E>,
    marshal: Marshal,
    epocher: FixedEpocher,
    status: Status,
    accusations: Accusations,
    /// What it has voted in the round that runs.
    voted: OwnVotes,
    /// The same as it was when votes were recorded last.
    cast: Votes,
    running: Option<Running>,
    /// Whether it has been said that this node follows without voting.
    told: bool,
    /// When a peer was asked last for the end of this round.
    asked: BTreeMap<PublicKey, SystemTime>,
    /// The newest round that peers have been seen in, if later than this one.
    ahead: BTreeMap<PublicKey, u64>,
}

/// The round that runs.
struct Running {
    number: u64,
    committee: Set<PublicKey>,
    peers: Vec<Peer>,
    /// `None` once it has ended.
    engine: Option<Handle<()>>,
}

impl<E, S, N> Rounds<E, S, N>
where
    E: Clock + CryptoRng + Spawner + Storage + Metrics + Supervisor,
    S: Sender<PublicKey = PublicKey>,
    N: Network,
{
    /// Before the first round.
    #[expect(clippy::too_many_arguments, reason = "the parts of a node meet here")]
    pub fn new(
        ctx: E,
        seat: Seat<N>,
        memory: Memory<E>,
        lanes: Lanes<S>,
        schemes: Schemes,
        automaton: Automaton<E>,
        marshal: Marshal,
        epocher: FixedEpocher,
        status: Status,
        accusations: Accusations,
    ) -> Self {
        let (voted, running) = (Arc::default(), None);
        Self {
            ctx,
            seat,
            memory,
            lanes,
            schemes,
            automaton,
            marshal,
            epocher,
            status,
            accusations,
            voted,
            cast: Votes::default(),
            running,
            told: false,
            asked: BTreeMap::new(),
            ahead: BTreeMap::new(),
        }
    }

    /// Runs rounds as they are asked for, until the node stops.
    pub async fn run(mut self, mut turns: mpsc::Receiver<Turn>) {
        let mut wake = self.ctx.current() + RECORD;
        // A turn that is left to the node with the next vote key: the last one.
        let mut left = Vec::new();
        loop {
            let [votes, certificates] = &mut self.lanes.strays;
            select! {
                () = self.ctx.sleep_until(wake) => {
                    wake = self.ctx.current() + RECORD;
                    if let Err(error) = self.record().await {
                        tracing::error!(%error, "votes cannot be recorded: the node stops");
                        return;
                    }
                },
                turn = turns.recv() => {
                    let Some(Turn { plan, done }) = turn else { return };
                    if self.ends_before(&plan) {
                        left.push(done);
                        continue;
                    }
                    if !self.meet(&plan) && !self.enter(plan).await {
                        return;
                    }
                    let _ = done.send(());
                },
                stray = votes.recv() => match stray {
                    Some((round, (peer, _))) => self.behind(round, peer),
                    None => return,
                },
                stray = certificates.recv() => match stray {
                    Some((round, (peer, _))) => self.behind(round, peer),
                    None => return,
                },
            }
        }
    }

    /// Records the votes that had been cast when this was called last: by now they are in the
    /// engine's journal, or the engine has ended because it could not write it.
    async fn record(&mut self) -> Result<(), commonware_storage::metadata::Error> {
        let cast = *self.voted.lock().unwrap_or_else(PoisonError::into_inner);
        let cast = std::mem::replace(&mut self.cast, cast);
        let Some(Running { engine, number, .. }) = &mut self.running else { return Ok(()) };
        let last = self.epocher.last(Epoch::new(*number)).map_or(u64::MAX, |last| last.get());
        let first = self.epocher.first(Epoch::new(*number)).map_or(0, |first| first.get());
        let near = ((last - first) / 10).max(NEAR_END);
        let status = self.status.read();
        if status.height.saturating_add(near) >= last {
            self.memory.near_end(*number, status.head_time).await?;
        }
        if engine.as_mut().is_some_and(|engine| engine.now_or_never().is_some()) {
            *engine = None;
        }
        if engine.is_some() { self.memory.voted(cast).await } else { Ok(()) }
    }

    /// A peer is in another round: if it is a later one, it has the end of this one.
    fn behind(&mut self, round: u64, peer: PublicKey) {
        let Some(own) = self.running.as_ref().map(|running| running.number) else { return };
        let now = self.ctx.current();
        let asked = self.asked.get(&peer).is_some_and(|asked| now < *asked + ASK_AGAIN);
        if round <= own || asked {
            return;
        }
        let ahead = self.ahead.entry(peer.clone()).or_default();
        *ahead = round.max(*ahead);
        self.ask(own, NonEmptyVec::new(peer), now);
    }

    /// Asks those that have been in a later round for the end of this one.
    fn ask(&mut self, own: u64, peers: NonEmptyVec<PublicKey>, now: SystemTime) {
        if let Some(last) = self.epocher.last(Epoch::new(own)) {
            let from = self.status.read().height;
            catch_up(&self.marshal, from, last.get(), &peers);
            self.asked.extend(peers.into_iter().map(|peer| (peer, now)));
        }
    }

    /// Whether the node is to be started with another vote key for this round.
    fn ends_before(&self, plan: &Plan) -> bool {
        let (own, number) = (public_half(&self.seat.vote_key), plan.number());
        let other = plan.key_of(self.seat.provider).filter(|key| *key != own);
        let Some(key) = other else { return false };
        let ends = self.seat.rekey.as_ref().is_some_and(|rekey| rekey(&key));
        if !ends {
            tracing::warn!(round = number, "the ledger knows another vote key of this provider");
        }
        ends
    }

    /// Talks to other peers in the round that runs; false if the plan is of another round.
    fn meet(&mut self, plan: &Plan) -> bool {
        let running = self.running.as_mut().filter(|running| running.number == plan.number());
        let Some(running) = running else { return false };
        let mut plan = plan.clone();
        plan.keep(&running.peers);
        self.seat.network.track(plan.height(), &running.committee, plan.peers());
        running.peers = plan.peers().to_vec();
        true
    }

    /// Starts the consensus instance of a round and ends that of the round before.
    async fn enter(&mut self, plan: Plan) -> bool {
        let number = plan.number();
        let Some(committee) = participants(plan.committee()) else {
            tracing::error!(round = number, "a vote key of the committee is no ed25519 key");
            return false;
        };
        let (scheme, votes) = match self.seated(&plan, &committee).await {
            Ok(seated) => seated,
            Err(error) => {
                tracing::error!(round = number, %error, "votes cannot be recorded");
                return false;
            }
        };
        self.schemes.register(number, scheme.clone());
        self.seat.network.track(plan.height(), &committee, plan.peers());
        let lane = async |mux: &MuxHandle<S>| mux.clone().register(number).await;
        let (Ok(vote_lane), Ok(certificate_lane), Ok(resolver_lane)) = (
            lane(&self.lanes.votes).await,
            lane(&self.lanes.certificates).await,
            lane(&self.lanes.resolver).await,
        ) else {
            tracing::error!(round = number, "the network has no lanes for the round");
            return false;
        };
        self.voted = Arc::default();
        self.cast = Votes::default();
        let engine = self.instance(&plan, scheme).start(vote_lane, certificate_lane, resolver_lane);
        let members = plan.members();
        tracing::info!(round = number, ?members, votes, "round");
        self.status.entered(number, members, votes, plan.schedule());
        self.asked.clear();
        self.ahead.retain(|_, ahead| *ahead > number);
        let ahead = NonEmptyVec::try_from(self.ahead.keys().cloned().collect::<Vec<_>>());
        let peers = plan.peers().to_vec();
        let running = Running { number, committee, peers, engine: Some(engine) };
        if let Some(Running { engine: Some(engine), .. }) = self.running.replace(running) {
            engine.abort();
            let _ = engine.await;
        }
        if let Ok(ahead) = ahead {
            self.ask(number, ahead, self.ctx.current());
        }
        self.sweep(number).await;
        true
    }

    /// The scheme of a round, with a key to vote with if this node has a seat and remembers how it
    /// voted.
    async fn seated(
        &mut self,
        plan: &Plan,
        committee: &Set<PublicKey>,
    ) -> Result<(Scheme, bool), commonware_storage::metadata::Error> {
        let Seat { vote_key, namespace, partition, cache, vote_without_memory, .. } = &self.seat;
        let (number, began) = (plan.number(), plan.began());
        let follower = Scheme::verifier(namespace, committee.clone());
        let journal = journal(partition, number);
        let Some(scheme) = Scheme::signer(namespace, committee.clone(), vote_key.clone()) else {
            // Votes in it are those of a former key; the engine does not start with them.
            let _ = self.ctx.remove(&journal, None).await;
            self.memory.enter(number, false).await?;
            return Ok((follower, false));
        };
        let allowed = self
            .memory
            .may_vote(&self.ctx, (number, began), &journal, &scheme, cache.clone())
            .await?;
        if let Err(reason) = &allowed
            && !vote_without_memory
        {
            // A node that catches up says it once, not in every round that it reads in.
            if !std::mem::replace(&mut self.told, true) {
                tracing::error!(round = number, %reason, "follows without voting until the next round");
            }
            // A torn journal would stop the engine, and it is of no more use.
            let _ = self.ctx.remove(&journal, None).await;
            self.memory.enter(number, false).await?;
            return Ok((follower, false));
        }
        self.memory.enter(number, true).await?;
        self.told = false;
        Ok((scheme, true))
    }

    fn instance(&self, plan: &Plan, scheme: Scheme) -> Instance<E, N> {
        let (ctx, number) = (&self.ctx, plan.number());
        let timeout = self.seat.pacing.leader_timeout;
        let watch = Watch::new(
            plan.clone(),
            self.status.clone(),
            self.accusations.clone(),
            scheme.me().and_then(|me| me.signer()),
            self.voted.clone(),
        );
        simplex::Engine::new(
            ctx.child("simplex").with_attribute("round", number),
            simplex::Config {
                scheme,
                elector: Tenures::new(plan.clone(), timeout * 3),
                blocker: self.seat.network.clone(),
                automaton: self.automaton.clone(),
                relay: self.automaton.clone(),
                reporter: Reporters::from((self.automaton.clone(), watch)),
                strategy: Sequential,
                partition: journal(&self.seat.partition, number),
                mailbox_size: NZUsize!(1024),
                epoch: Epoch::new(number),
                floor: Floor::Genesis(engine_digest(plan.floor())),
                replay_buffer: NZUsize!(1024 * 1024),
                write_buffer: NZUsize!(64 * 1024),
                page_cache: self.seat.cache.clone(),
                leader_timeout: timeout,
                certification_timeout: timeout * 2,
                timeout_retry: timeout * 2,
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(100),
                view_retention: ViewDelta::new(64),
                skip: SkipPolicy::Enabled {
                    timeout: timeout * 5,
                    budget: SkipBudget::Participants,
                },
                forward: ForwardPolicy::SilentVoters,
                track_historical_votes: true,
            },
        )
    }

    /// Removes the journals of rounds that are over.
    async fn sweep(&self, number: u64) {
        for back in SWEPT {
            if let Some(old) = number.checked_sub(back) {
                // Most often there is none any more.
                let _ = self.ctx.remove(&journal(&self.seat.partition, old), None).await;
            }
        }
    }
}

/// The journal of a round's votes.
fn journal(partition: &str, round: u64) -> String {
    format!("{partition}-simplex-{round}")
}
