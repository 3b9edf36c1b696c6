//! What a provider owes the ledger beside blocks: its vote in every round (Algorithm 3), and the
//! proof of what it has seen another do.
//!
//! A vote that is not on the ledger at the end of its round counts as absence, so it goes to every
//! provider, and again until it is on the ledger.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use bkss_ledger::{Evidence, Round, Transaction, Vote, accounting_nodes::MAX_PICKS};
use bkss_scheme::{
    ProviderId, SecretKey,
    hash::{Tag, hash},
};
use commonware_cryptography::ed25519::PublicKey;
use commonware_macros::select;
use commonware_p2p::{CheckedSender, Recipients, Sender};
use commonware_runtime::Clock;
use commonware_utils::channel::mpsc;

use crate::{Config, chain::Shared, others::Change, plan::Plan, status::Status};

/// Watches over a provider's duties.
pub struct Duties {
    config: Config,
    shared: Shared,
    status: Status,
    /// The round of the newest block, and who had voted in it by then.
    round: u64,
    voters: BTreeSet<ProviderId>,
    /// Who voted in the round before.
    reliable: BTreeSet<ProviderId>,
    /// Who was a member when it was looked last.
    present: Option<BTreeSet<ProviderId>>,
    /// When the vote was sent last, and in which round.
    sent: Option<(u64, SystemTime)>,
}

impl Duties {
    /// Of the provider in the configuration.
    pub const fn new(config: Config, shared: Shared, status: Status) -> Self {
        Self {
            config,
            shared,
            status,
            round: 0,
            voters: BTreeSet::new(),
            reliable: BTreeSet::new(),
            present: None,
            sent: None,
        }
    }

    /// Runs until the node stops; `applied` says that there is another block.
    pub async fn run<E: Clock>(
        mut self,
        ctx: E,
        mut batches: impl Sender<PublicKey = PublicKey>,
        mut accusations: mpsc::Receiver<Evidence>,
        mut applied: mpsc::Receiver<()>,
    ) {
        let mut wake = ctx.current();
        loop {
            let transaction = select! {
                evidence = accusations.recv() => match evidence {
                    Some(evidence) => Some(Transaction::Evidence(evidence)),
                    None => return,
                },
                block = applied.recv() => match block {
                    Some(()) => self.vote(ctx.current()),
                    None => return,
                },
                () = ctx.sleep_until(wake) => {
                    wake = ctx.current() + self.config.pacing.resend;
                    // Where all are at their limit, they are connected.
                    if let Ok(to) = batches.check(Recipients::All) {
                        self.look(ctx.current(), &to.recipients());
                    }
                    self.vote(ctx.current())
                },
            };
            let Some(transaction) = transaction else { continue };
            match self.shared.add(transaction.clone()) {
                Ok(_) => {
                    batches.send(Recipients::All, transaction.encode(), false);
                }
                Err(error) => tracing::warn!(%error, "own vote or evidence"),
            }
        }
    }

    /// Looks who is connected, who votes, and who has come and gone.
    fn look(&mut self, now: SystemTime, connected: &[PublicKey]) {
        let (plan, members) = {
            let chain = self.shared.chain();
            (Plan::of(chain.state()).with(&self.config.latest), chain.state().members().clone())
        };
        let name = |provider: ProviderId| {
            members
                .provider_ever(provider)
                .map(|identity| identity.name.to_string())
                .unwrap_or_default()
        };
        let present: BTreeSet<_> = members.present().map(|member| member.id).collect();
        if let Some(before) = self.present.replace(present.clone()) {
            for provider in present.difference(&before) {
                tracing::info!(%provider, name = name(*provider), "provider has joined");
            }
            for provider in before.difference(&present) {
                tracing::info!(%provider, name = name(*provider), "provider has left");
            }
        }
        let peers = plan.peers().iter().filter(|peer| connected.contains(&peer.key));
        let connected = peers.map(|peer| peer.provider).collect();
        for change in self.status.look(now, connected) {
            let (provider, news) = match change {
                Change::Connected(provider) => (provider, "provider is connected"),
                Change::Disconnected(provider) => (provider, "provider is not connected any more"),
                Change::Silent(provider) => (provider, "provider is silent: no vote of it comes"),
                Change::Back(provider) => (provider, "provider is silent no more"),
            };
            tracing::info!(%provider, name = name(provider), "{news}");
        }
    }

    /// This provider's vote, if the round lacks it and it has not just been sent.
    fn vote(&mut self, now: SystemTime) -> Option<Transaction> {
        let me = self.config.provider;
        let (round, others) = {
            let chain = self.shared.chain();
            let state = chain.state();
            let members = state.members();
            members.provider(me)?;
            let others: Vec<_> =
                members.present().map(|other| other.id).filter(|other| *other != me).collect();
            (state.round().clone(), others)
        };
        self.follow(&round);
        let again = self.sent.is_none_or(|(sent, when)| {
            sent != round.number || when + self.config.pacing.resend <= now
        });
        if round.votes.contains_key(&me) || !again {
            return None;
        }
        let seats: usize = self.config.genesis.charter().rounds.committee.into();
        if self.sent.is_none() && self.config.trust.is_none() && others.len() >= seats {
            tracing::warn!(
                seats,
                providers = others.len() + 1,
                "votes go to providers that are drawn, whoever they are: a few that vote for each \
                 other can take most seats; name all whom you trust in `trust`"
            );
        }
        let picks = self.picks(&round, others, seats);
        if picks.is_empty() {
            return None;
        }
        self.sent = Some((round.number, now));
        let (network, key) = (self.config.genesis.network(), &self.config.identity);
        Some(sign(network, me, key, round.number, picks))
    }

    /// Remembers who votes.
    fn follow(&mut self, round: &Arc<Round>) {
        if round.number != self.round {
            self.round = round.number;
            self.reliable = std::mem::take(&mut self.voters);
        }
        self.voters.extend(round.votes.keys());
    }

    /// Whom this provider trusts: all of its list; without a list as many of the others as there are
    /// seats, since votes of all for all would elect whoever votes for a few. Those that were there in
    /// the last round come first, in an order drawn anew for every round and voter, so that all get
    /// their turn.
    fn picks(&self, round: &Round, others: Vec<ProviderId>, seats: usize) -> Vec<ProviderId> {
        let trusted = self.config.trust.as_ref();
        let most = if trusted.is_some() { MAX_PICKS } else { seats };
        let is_trusted = |id: &ProviderId| trusted.is_none_or(|trusted| trusted.contains(id));
        let mut picks: Vec<_> = others.into_iter().filter(is_trusted).collect();
        let me = self.config.provider.0.to_be_bytes();
        picks.sort_by_cached_key(|id| {
            let lot = hash(Tag::Draw, &[&round.seed.0, b"trust", &me, &id.0.to_be_bytes()]);
            (!self.reliable.contains(id), lot.0)
        });
        picks.truncate(most);
        picks
    }
}

fn sign(
    network: bkss_scheme::Network,
    voter: ProviderId,
    key: &SecretKey,
    round: u64,
    picks: Vec<ProviderId>,
) -> Transaction {
    Transaction::Vote(Vote::sign(network, voter, key, round, picks))
}
