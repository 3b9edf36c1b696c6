//! What a Byzantine gateway does to the work of others: batches that no block can contain, more of
//! them than anybody needs, chains and changes that only look like something.
//!
//! As with a [`Forger`], what it makes reaches the pools of all providers.

use std::collections::BTreeSet;

use bkss_ledger::{Change, Transaction, change, transaction_batch::Row};
use bkss_scheme::{
    Digest, Link, MeterId, RootMessage, SecretKey, Slot, codec,
    identity::Name,
    root_message::Registration,
    seal::{Body, KeyId},
    slot::Schedule,
};
use rand_core::Rng;

use super::{
    chain::Chain,
    deed::Deed,
    dice::Dice,
    forger::Forger,
    founding::{BRIBED, Founding},
    instrument::Shown,
    link_of::LinkOf,
    pen::Pen,
};
use crate::scene::encoded;

/// Of how many chances of a thousand it makes use.
const TRIES: u64 = 300;
/// Of how many chances of a thousand after the end of a window it opens what it has invented: before
/// the true opening is final, mostly, since nobody walks for a request that is settled.
const OPENS: u64 = 600;
/// Batches of a flood at once, and in all.
const AT_ONCE: usize = 30;
const FLOOD: usize = 1500;
/// Changes of its address.
const MOVES: usize = 30;
/// Chains that nobody has registered.
const UNKNOWN: Row = 1_000_000;
/// Numbers of meters that do not exist.
const STRANGE_METERS: u32 = 500_000;

/// A Byzantine gateway.
pub(super) struct Rogue {
    pen: Pen,
    deeds: Vec<Deed>,
    dice: Dice,
    forger: Forger,
    /// Values that it has requested with links of its own invention.
    invented: Vec<Shown>,
    /// What meters have shown.
    genuine: Vec<Shown>,
    tried: BTreeSet<LinkOf>,
    flooded: usize,
    /// Key of the SDI that can be bribed.
    bribed: SecretKey,
    /// Meters whose public values it has not repeated yet.
    victims: Vec<RootMessage>,
    /// How it has moved so far.
    moves: Vec<Change>,
}

impl Rogue {
    /// The gateway of a provider that does these deeds.
    pub(super) fn new(seed: u64, place: usize, deeds: &[Deed], founding: &Founding) -> Self {
        let dice = |name: u64| Dice::new(seed, name + place as u64);
        let provider = super::founding::place_id(place);
        let pen = Pen { provider, key: founding.keys[place].clone() };
        let first = founding.meters.iter().filter_map(|chains| chains.first());
        let victims = first.map(|made| &made.registration.message);
        Self {
            forger: Forger::new(pen.clone(), dice(5000)),
            dice: dice(6000),
            deeds: deeds.to_vec(),
            invented: Vec::new(),
            genuine: Vec::new(),
            tried: BTreeSet::new(),
            flooded: 0,
            bribed: founding.bribed.clone(),
            victims: victims.cloned().collect(),
            moves: Vec::new(),
            pen,
        }
    }

    /// What it does now, the ledger being where it is; `shown` has just become public.
    pub(super) fn act(&mut self, chain: &Chain, shown: &[Shown]) -> Vec<Transaction> {
        let mut made = Vec::new();
        for deed in self.deeds.clone() {
            match deed {
                Deed::Forges => made.extend(self.forger.forge(chain, shown)),
                Deed::BareBatches => made.extend(self.bare(chain, shown)),
                Deed::InventsLinks => made.extend(self.invent(chain, shown)),
                Deed::Floods => made.extend(self.flood(chain)),
                Deed::Impersonates => made.extend(self.impersonate(chain)),
                Deed::ChangesItself => made.extend(self.change_itself(chain)),
                _ => {}
            }
        }
        made
    }

    /// Opens what has just been shown, before others do, and leaves the bodies out.
    fn bare(&mut self, chain: &Chain, shown: &[Shown]) -> Vec<Transaction> {
        let mut made = Vec::new();
        for shown in shown {
            if !self.dice.chance(TRIES) {
                continue;
            }
            let opening = self.pen.opening(chain, shown);
            if let Some(Transaction::Openings(mut batch)) = opening
                && batch.erase(0)
            {
                made.push(Transaction::Openings(batch));
            }
        }
        made
    }

    /// Requests values made with links of its own, and opens what was accepted of them: alone, and in
    /// one batch with what others have shown.
    fn invent(&mut self, chain: &Chain, shown: &[Shown]) -> Vec<Transaction> {
        self.genuine.extend_from_slice(shown);
        let time = chain.newest().time;
        let mut made = Vec::new();
        // It looks like what others have shown last.
        let last = self.genuine.last().and_then(|shown| codec::decode("body", &shown.body).ok());
        let plain = Body { key: KeyId(1), encapsulated: None, ciphertext: &[9; 48] };
        let ciphertext = last.as_ref().map_or(48, |body: &Body<'_>| body.ciphertext.len());
        let (body, garbage) = (last.unwrap_or(plain), vec![9; ciphertext]);
        let body = encoded(&Body { ciphertext: &garbage, ..body });
        let known: Vec<_> = chain.registered().map(|(_, known)| *known).collect();
        for known in known {
            let Some(index) = known.schedule.index(known.schedule.slot_at(time)) else { continue };
            let link = known.link(index);
            let open = known.schedule.accepts_request(index, time);
            if !open || self.tried.contains(&link) || !self.dice.chance(TRIES) {
                continue;
            }
            self.tried.insert(link);
            let mut public = [0; 32];
            self.dice.0.fill_bytes(&mut public);
            let public = Link::from_bytes(public);
            made.extend(self.pen.request(chain, link, &public, &body));
            let release =
                bkss_scheme::transaction::Release { meter: link.meter, index, link: public };
            self.invented.push(Shown { link, release, body: body.clone() });
        }
        // By then others have shown links of the same slot.
        let closed = |shown: &Shown| {
            let closes = |known: super::founding::OfMeter| known.schedule.closes(shown.link.index);
            let closes = chain.row_of(shown.link).map(|(_, _, known)| closes(known));
            closes.is_some_and(|closes| closes <= time) && self.dice.chance(OPENS)
        };
        let (due, wait) = std::mem::take(&mut self.invented).into_iter().partition(closed);
        self.invented = wait;
        let due: Vec<Shown> = due;
        for shown in due.iter().filter(|shown| chain.is_requested(shown.link)) {
            let with = self.genuine.iter().rev().filter(|genuine| genuine.link != shown.link);
            let mixed = with.take(40).find_map(|other| self.pen.openings(chain, &[shown, other]));
            made.extend(mixed.or_else(|| self.pen.opening(chain, shown)));
        }
        made
    }

    /// Many batches: of unknown chains, of slots that are over, unsigned ones.
    fn flood(&mut self, chain: &Chain) -> Vec<Transaction> {
        if self.flooded >= FLOOD || !self.dice.chance(200) {
            return Vec::new();
        }
        self.flooded += AT_ONCE;
        let time = chain.newest().time;
        let slots = chain.registered().next().map(|(_, known)| known.schedule);
        let slot = slots.map_or(Slot(0), |schedule: Schedule| schedule.slot_at(time));
        let batch = |dice: &mut Dice| {
            let mut digest = Digest([0; 32]);
            dice.0.fill_bytes(&mut digest.0);
            let row = if dice.chance(700) { UNKNOWN + dice.small(1000) } else { dice.small(4) };
            let slot = Slot(slot.0.saturating_sub(dice.below(3)));
            let batch = self.pen.requests(chain, slot, [(row, digest)]);
            match batch {
                Transaction::Requests(mut batch) if dice.chance(200) => {
                    batch.signature.0[7] ^= 1;
                    Transaction::Requests(batch)
                }
                other => other,
            }
        };
        (0..AT_ONCE).map(|_| batch(&mut self.dice)).collect()
    }

    /// Registers a meter of its own, with the help of an SDI, that repeats what is public of
    /// another's: a meter must not take it for its own registration.
    fn impersonate(&mut self, chain: &Chain) -> Vec<Transaction> {
        let (now, wait) =
            std::mem::take(&mut self.victims).into_iter().partition(|_| self.dice.chance(50));
        self.victims = wait;
        let now: Vec<RootMessage> = now;
        let network = chain.genesis.network();
        let number = STRANGE_METERS + 1000 * u32::from(self.pen.provider.0);
        let registrations = now.into_iter().map(|mut message| {
            message.meter = MeterId(number + message.meter.0);
            (message.owner, message.sdi) = (self.pen.provider, BRIBED);
            message.schedule.window_s += 1;
            Registration::sign(message, network, &self.bribed, &self.pen.key)
        });
        registrations.map(Transaction::Registration).collect()
    }

    /// Says again and again that it listens elsewhere, each time for longer than the last; at times
    /// it says again what it has said before.
    fn change_itself(&mut self, chain: &Chain) -> Vec<Transaction> {
        if self.moves.len() >= MOVES || !self.dice.chance(100) {
            return Vec::new();
        }
        if !self.moves.is_empty() && self.dice.chance(200) {
            let earlier = self.dice.place(self.moves.len());
            return vec![Transaction::Change(self.moves[earlier].clone())];
        }
        let number = self.moves.len() as u64;
        let address = Name::try_from(format!("host-{number}:7600").as_str());
        let body = change::Body::Address(self.pen.provider, address.unwrap_or_default());
        let mut change = Change::new(body, chain.state.round().number + 1000 + number);
        change.sign(chain.genesis.network(), &self.pen.key);
        self.moves.push(change.clone());
        vec![Transaction::Change(change)]
    }
}
