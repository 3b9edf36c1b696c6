//! A Byzantine provider: the production node, and a liar between it and the network.
//!
//! The liar has the node's keys. It withholds what the node says, alters its proposals and signs
//! votes for what it has made of them, adds votes that contradict others, repeats what is old. The
//! node itself believes that it is honest.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bkss_ledger::{Block, Transaction};
use bkss_node::{
    Config,
    chain::Shared,
    engine_block::{BlockLimits, EngineBlock, engine_digest},
    plan::{Plan, participants},
    simulated::{Channel, Tap, Voice},
};
use bkss_scheme::{LedgerTime, TreeHead, certificate::VoteKey, codec};
use commonware_codec::{Decode, DecodeExt, Encode};
use commonware_consensus::{
    Viewable,
    simplex::{
        scheme::ed25519::Scheme,
        types::{Finalize, Notarize, Nullify, Proposal, Vote},
    },
    types::Round,
};
use commonware_cryptography::{ed25519::PublicKey, sha256::Digest};
use commonware_p2p::{Recipients, utils::mux};
use commonware_runtime::{IoBuf, Spawner, Supervisor, deterministic::Context};
use commonware_utils::channel::mpsc;
use rand_core::Rng;

use super::{
    band::{Band, Lie},
    deed::Deed,
    dice::Dice,
};

/// Own messages that are kept to be repeated.
const REMEMBERED: usize = 64;

/// What a liar has in mind.
struct Mind {
    deeds: Vec<Deed>,
    config: Config,
    dice: Dice,
    others: Vec<PublicKey>,
    shared: Option<Shared>,
    lies: mpsc::UnboundedSender<Lie>,
    /// What it has decided about its proposals.
    proposed: BTreeMap<Digest, Decision>,
    /// Votes for own proposals that it has not decided about yet.
    held: BTreeMap<Digest, (Recipients<PublicKey>, IoBuf)>,
    /// Old messages.
    memory: Vec<(Channel, Vec<u8>)>,
    /// Its place, and the others that have the same plan.
    band: (usize, Band),
    /// Messages of its gateway that it holds back, and how long.
    held_back: VecDeque<(u64, Vec<u8>)>,
    /// Messages of its node so far.
    heard: u64,
}

/// Who hears of a proposal, and who of another.
#[derive(Clone)]
struct Decision {
    victims: Vec<PublicKey>,
    instead: Digest,
}

/// Stands between a Byzantine node and its network.
#[derive(Clone)]
pub(super) struct Liar(Arc<Mutex<Mind>>);

/// What a liar will say as soon as it has a voice.
pub(super) struct Lies(mpsc::UnboundedReceiver<Lie>);

impl Liar {
    /// With the keys of a provider; what its node shares is told later.
    pub(super) fn new(
        config: Config,
        deeds: &[Deed],
        dice: Dice,
        others: Vec<PublicKey>,
        (place, band): (usize, &Band),
    ) -> (Self, Lies) {
        let (lies, heard) = mpsc::unbounded_channel();
        band.join(place, config.vote_key.clone(), lies.clone());
        let mind = Mind {
            deeds: deeds.to_vec(),
            config,
            dice,
            others,
            shared: None,
            lies,
            proposed: BTreeMap::new(),
            held: BTreeMap::new(),
            memory: Vec::new(),
            band: (place, band.clone()),
            held_back: VecDeque::new(),
            heard: 0,
        };
        (Self(Arc::new(Mutex::new(mind))), Lies(heard))
    }

    /// What it hears of the node.
    pub(super) fn tap(&self) -> Arc<Tap> {
        let liar = self.clone();
        Arc::new(move |channel, recipients: &_, message: &_| {
            liar.mind().pass(channel, recipients, message)
        })
    }

    /// The node has started: its ledger is known, and the liar can speak for it.
    pub(super) fn speak(&self, ctx: &Context, shared: Shared, mut voice: Voice, mut lies: Lies) {
        self.mind().shared = Some(shared);
        ctx.child("liar").spawn(move |_| async move {
            while let Some(Lie { channel, recipients, bytes }) = lies.0.recv().await {
                voice.say(channel, recipients, bytes);
            }
        });
    }

    fn mind(&self) -> MutexGuard<'_, Mind> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mind {
    /// Whom a message of the node reaches; what others hear instead is said apart.
    fn pass(
        &mut self,
        channel: Channel,
        recipients: &Recipients<PublicKey>,
        message: &IoBuf,
    ) -> Option<Recipients<PublicKey>> {
        let deed = self.pick();
        self.let_go();
        match (deed, channel) {
            (Deed::Mute, _) => return None,
            (Deed::Silent, Channel::Votes | Channel::Certificates | Channel::Broadcast) => {
                return None;
            }
            (Deed::Repeats, _) => self.repeat(channel, message),
            (Deed::Babbles, _) => self.babble(channel),
            (Deed::HoldsBack, Channel::Batches) if has_openings(message.as_ref()) => {
                let due = self.heard + self.dice.within(20, 600);
                self.held_back.push_back((due, message.as_ref().to_vec()));
                return None;
            }
            _ => {}
        }
        match channel {
            Channel::Broadcast => self.propose(deed, recipients, message),
            Channel::Votes => self.vote(deed, recipients, message),
            _ => Some(recipients.clone()),
        }
    }

    /// Says what it has held back for long enough.
    fn let_go(&mut self) {
        self.heard += 1;
        while let Some((_, bytes)) = self.held_back.pop_front_if(|(due, _)| *due <= self.heard) {
            self.say(Channel::Batches, Recipients::All, bytes);
        }
    }

    fn pick(&mut self) -> Deed {
        let which = self.dice.below(self.deeds.len() as u64);
        self.deeds[usize::try_from(which).unwrap_or(0)]
    }

    fn say(&self, channel: Channel, recipients: Recipients<PublicKey>, bytes: Vec<u8>) {
        // Who has gone hears nothing.
        let _ = self.lies.send(Lie { channel, recipients, bytes });
    }

    fn repeat(&mut self, channel: Channel, message: &IoBuf) {
        if self.memory.len() < REMEMBERED {
            self.memory.push((channel, message.as_ref().to_vec()));
        } else {
            let place = usize::try_from(self.dice.below(REMEMBERED as u64)).unwrap_or(0);
            let new = (channel, message.as_ref().to_vec());
            let (channel, old) = std::mem::replace(&mut self.memory[place], new);
            self.say(channel, Recipients::All, old);
        }
    }

    fn babble(&mut self, channel: Channel) {
        if self.dice.chance(50) {
            let mut bytes = vec![0; usize::try_from(self.dice.below(200)).unwrap_or(0)];
            self.dice.0.fill_bytes(&mut bytes);
            self.say(channel, Recipients::All, bytes);
        }
    }

    /// The node shows a block that it proposes.
    fn propose(
        &mut self,
        deed: Deed,
        recipients: &Recipients<PublicKey>,
        message: &IoBuf,
    ) -> Option<Recipients<PublicKey>> {
        let limits = BlockLimits::of(&self.config.genesis);
        let Ok(proposal) = EngineBlock::decode_cfg(message.clone(), &limits) else {
            return Some(recipients.clone());
        };
        let block = proposal.block().clone();
        let id = engine_digest(block.id());
        let mut victims = self.others.clone();
        if deed == Deed::Equivocates {
            victims.truncate(victims.len().div_ceil(2));
        }
        let instead = self.alter(deed, &block);
        let decision = match &instead {
            Some(other) => Decision { victims, instead: engine_digest(other.id()) },
            None => Decision { victims: Vec::new(), instead: id },
        };
        if let Some(other) = instead {
            let bytes = EngineBlock::new(Arc::new(other)).encode().to_vec();
            self.say(Channel::Broadcast, Recipients::Some(decision.victims.clone()), bytes);
        }
        let rest = self.rest(&decision);
        self.proposed.insert(id, decision);
        if let Some((recipients, vote)) = self.held.remove(&id)
            && let Some(recipients) = self.vote(deed, &recipients, &vote)
        {
            self.say(Channel::Votes, recipients, vote.as_ref().to_vec());
        }
        if deed == Deed::WithholdsBlock { None } else { rest }
    }

    /// Those who hear the node itself.
    fn rest(&self, decision: &Decision) -> Option<Recipients<PublicKey>> {
        let rest = self.others_than(&decision.victims);
        (!rest.is_empty()).then_some(Recipients::Some(rest))
    }

    fn others_than(&self, some: &[PublicKey]) -> Vec<PublicKey> {
        self.others.iter().filter(|key| !some.contains(key)).cloned().collect()
    }

    /// Those who have the same plan vote for a proposal as well.
    fn vouch(&self, epoch: u64, plan: &Plan, proposal: &Proposal<Digest>, told: &[PublicKey]) {
        let Some(committee) = participants(plan.committee()) else { return };
        let (place, band) = &self.band;
        let namespace = self.config.namespace();
        band.vouch(*place, (epoch, &namespace), &committee, proposal, told);
    }

    /// Another block instead of the node's.
    fn alter(&mut self, deed: Deed, block: &Block) -> Option<Block> {
        let network = self.config.genesis.network();
        let mut header = block.header().clone();
        let mut transactions = block.transactions().to_vec();
        match deed {
            Deed::Equivocates => header.time = LedgerTime(header.time.0 + 1),
            Deed::TimeBack => {
                let head = self.shared.as_ref()?.chain().state().head().time;
                header.time = LedgerTime(head.0 - self.dice.below(3));
            }
            Deed::TimeAhead => header.time = LedgerTime(header.time.0 + 3_600_000),
            Deed::FalseTree => {
                let root = bkss_scheme::Digest([9; 32]);
                header.requests = Some(TreeHead { count: 1, root });
            }
            Deed::Doubles => transactions.extend(block.transactions().to_vec()),
            Deed::WithholdsBodies => {
                let mut bare = block.clone();
                for (place, transaction) in block.transactions().iter().enumerate() {
                    if let Transaction::Openings(batch) = transaction {
                        for item in (0..).take(batch.rows.len()) {
                            bare.erase_body(place, item);
                        }
                    }
                }
                return (!bare.has_all_bodies()).then_some(bare);
            }
            _ => return None,
        }
        Some(Block::new(network, header, transactions))
    }

    /// The node votes.
    fn vote(
        &mut self,
        deed: Deed,
        recipients: &Recipients<PublicKey>,
        message: &IoBuf,
    ) -> Option<Recipients<PublicKey>> {
        let everybody = Some(recipients.clone());
        let Ok((epoch, payload)) = mux::parse(message.clone()) else { return everybody };
        let Ok(vote) = Vote::<Scheme, Digest>::decode(payload) else { return everybody };
        let Some((plan, scheme)) = self.seat(epoch) else { return everybody };
        match &vote {
            Vote::Notarize(own) => {
                let id = own.proposal.payload;
                if let Some(decision) = self.proposed.get(&id).cloned() {
                    if decision.victims.is_empty() {
                        return everybody;
                    }
                    let other = with_payload(&own.proposal, decision.instead);
                    let rest = self.others_than(&decision.victims);
                    self.vouch(epoch, &plan, &other, &decision.victims);
                    self.vouch(epoch, &plan, &own.proposal, &rest);
                    let vote = Notarize::sign(&scheme, other).map(Vote::Notarize);
                    self.lie(epoch, vote, Recipients::Some(decision.victims));
                    return (!rest.is_empty()).then_some(Recipients::Some(rest));
                }
                if plan.leader(own.view().get()) == Some(self.key()) {
                    self.held.insert(id, (recipients.clone(), message.clone()));
                    return None;
                }
                self.contradict(deed, epoch, &scheme, own.round(), &own.proposal);
            }
            Vote::Finalize(own) if deed == Deed::VotesTwice => {
                let other = with_payload(&own.proposal, self.random());
                let vote = Finalize::sign(&scheme, other).map(Vote::Finalize);
                self.lie(epoch, vote, Recipients::All);
            }
            _ => {}
        }
        everybody
    }

    /// Votes that contradict the node's.
    fn contradict(
        &mut self,
        deed: Deed,
        epoch: u64,
        scheme: &Scheme,
        round: Round,
        proposal: &Proposal<Digest>,
    ) {
        match deed {
            Deed::VotesTwice => {
                let other = with_payload(proposal, self.random());
                let vote = Notarize::sign(scheme, other).map(Vote::Notarize);
                self.lie(epoch, vote, Recipients::All);
            }
            Deed::VotesAgainstItself => {
                let ends = Nullify::sign::<Digest>(scheme, round).map(Vote::Nullify);
                self.lie(epoch, ends, Recipients::All);
                let vote = Finalize::sign(scheme, proposal.clone()).map(Vote::Finalize);
                self.lie(epoch, vote, Recipients::All);
            }
            _ => {}
        }
    }

    fn lie(
        &self,
        epoch: u64,
        vote: Option<Vote<Scheme, Digest>>,
        recipients: Recipients<PublicKey>,
    ) {
        if let Some(vote) = vote {
            // Who has gone hears nothing.
            let _ = self.lies.send(Lie::vote(epoch, &vote, recipients));
        }
    }

    /// The round that a vote is of, and the liar's seat in it.
    fn seat(&self, epoch: u64) -> Option<(Plan, Scheme)> {
        let plan = Plan::of(self.shared.as_ref()?.chain().state());
        let committee = participants(plan.committee()).filter(|_| plan.number() == epoch)?;
        let namespace = self.config.namespace();
        let scheme = Scheme::signer(&namespace, committee, self.config.vote_key.clone())?;
        Some((plan, scheme))
    }

    fn key(&self) -> VoteKey {
        let mut key = [0; 32];
        key.copy_from_slice(&commonware_cryptography::Signer::public_key(&self.config.vote_key));
        VoteKey(key)
    }

    fn random(&mut self) -> Digest {
        let mut bytes = [0; 32];
        self.dice.0.fill_bytes(&mut bytes);
        Digest::from(bytes)
    }
}

fn with_payload(proposal: &Proposal<Digest>, payload: Digest) -> Proposal<Digest> {
    Proposal::new(proposal.round, proposal.parent, payload)
}

/// Whether a message between gateways has openings in it.
fn has_openings(mut message: &[u8]) -> bool {
    while !message.is_empty() {
        match codec::decode_first("transaction", &mut message) {
            Ok(Transaction::Openings(_)) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}
