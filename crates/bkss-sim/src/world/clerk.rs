//! Brings to the ledger what people have decided: changes of the members, revocations. Each is
//! brought again, by another way, until it is there or has no chance any more.

use bkss_ledger::{
    Change, Revocation, State, Transaction,
    change::Body,
    revocation::{Reason, Right},
};
use bkss_scheme::{
    Digest, MeterId, Network, SdiId, SecretKey,
    certificate::possess,
    identity::Name,
    root_message::Registration,
    seal::{KeyId, OpeningKey, SealingKey},
};

use super::{
    chain::Chain,
    dice::Dice,
    events::{By, Recall, Reform},
    faults::Ms,
    founding::{Founding, place_id},
    plan::Plan,
};

/// How long until something is brought again.
const AGAIN_MS: Ms = 1000;
/// After so many times it is given up.
const MOST_TRIES: usize = 40;
/// Rounds that an approval holds for.
const ROUNDS: u64 = 1000;

/// How a transaction is brought.
#[derive(Clone, Debug)]
pub(super) enum Brought {
    /// To the gateway of a provider.
    Gateway(usize, Box<Transaction>),
    /// To all providers at once.
    All(Vec<Transaction>),
}

/// Something to be brought to the ledger.
struct Matter {
    at: Ms,
    what: What,
    sent: Option<Ms>,
    tries: usize,
}

#[derive(Clone, Copy)]
enum What {
    Reform(Reform),
    Recall(Recall),
}

/// What a meter is revoked with.
struct Papers {
    /// Its chains: registration, and the secret behind its lock.
    chains: Vec<(Registration, Option<[u8; 32]>)>,
}

/// Whoever does it.
pub(super) struct Clerk {
    matters: Vec<Matter>,
    meters: Vec<Papers>,
    dice: Dice,
}

impl Clerk {
    /// With all that a plan has for it.
    pub(super) fn new(seed: u64, plan: &Plan, founding: &Founding) -> Self {
        let reforms = plan.events.reforms.iter().map(|(at, what)| (*at, What::Reform(*what)));
        let recalls = plan.events.recalls.iter().map(|recall| (recall.at, What::Recall(*recall)));
        let matter = |(at, what)| Matter { at, what, sent: None, tries: 0 };
        let papers = founding.meters.iter().map(|chains| Papers {
            chains: chains.iter().map(|made| (made.registration.clone(), made.secret)).collect(),
        });
        Self {
            matters: reforms.chain(recalls).map(matter).collect(),
            meters: papers.collect(),
            dice: Dice::new(seed, 3),
        }
    }

    /// What is to be brought now.
    pub(super) fn act(
        &mut self,
        now: Ms,
        (plan, founding): (&Plan, &Founding),
        chain: &mut Chain,
    ) -> Vec<Brought> {
        let mut brought = Vec::new();
        for matter in &mut self.matters {
            let due = matter.sent.is_none_or(|sent| sent + AGAIN_MS <= now);
            if now < matter.at || !due || matter.tries == MOST_TRIES {
                continue;
            }
            let mut made = match matter.what {
                What::Reform(reform) => {
                    reformed(reform, (plan, founding), chain, &mut self.dice).into_iter().collect()
                }
                What::Recall(recall) => {
                    let papers = &self.meters[recall.meter as usize];
                    recalled(&recall, papers, founding, chain)
                }
            };
            if made.is_empty() {
                matter.tries = MOST_TRIES;
                continue;
            }
            if self.dice.chance(500) {
                made.reverse();
            }
            matter.sent = Some(now);
            matter.tries += 1;
            // Who brings several papers about one meter does so at once.
            brought.push(match (&made[..], matter.tries % 2) {
                ([one], 0) => Brought::Gateway(self.dice.place(plan.founders), one.clone().into()),
                _ => Brought::All(made),
            });
        }
        brought
    }
}

/// A change of the members with all its signatures; `None` once it is made, or cannot be.
fn reformed(
    reform: Reform,
    (plan, founding): (&Plan, &Founding),
    chain: &mut Chain,
    dice: &mut Dice,
) -> Option<Transaction> {
    let place = reform.place();
    let (id, network) = (place_id(place), chain.genesis.network());
    let member = chain.state.members().provider(id);
    let body = match reform {
        Reform::Join(_) => {
            let known = chain.state.members().provider_ever(id).is_some();
            Body::Join(founding.joining.get(&place).filter(|_| !known)?.clone())
        }
        Reform::Leave(_) => Body::Leave(member?.id),
        Reform::Expel(_) => Body::Expel(member?.id),
        Reform::VoteKey(_) => {
            let next = founding.seats.iter().rfind(|seat| seat.place == place)?;
            let (key, signature) = possess(&next.secret, network, id);
            let known = chain.state.members().voter(&key).is_some();
            Body::VoteKey(member.filter(|_| !known)?.id, key, signature)
        }
        Reform::SealingKey(_) => {
            let first = chain.genesis.provider(id)?.sealing_key.id;
            let member = member.filter(|member| member.sealing_key.id == first)?;
            Body::SealingKey(member.id, sealing_key(KeyId(first.0 + 1), dice))
        }
        Reform::Address(_) => {
            let address = Name::try_from("elsewhere:7600").ok()?;
            Body::Address(member.filter(|member| member.address != address)?.id, address)
        }
    };
    let mut change = Change::new(body, chain.state.round().number + ROUNDS);
    if !matches!(reform, Reform::Expel(_)) {
        change.sign(network, &founding.keys[place]);
    }
    if change.needs_quorum() {
        approve(&mut change, network, (plan, founding), &chain.state);
        if change.approvals.len() < chain.state.members().quorum() {
            return None;
        }
    }
    let admitted = &mut chain.admitted;
    match reform {
        Reform::Join(_) => drop(admitted.may_be.insert(id)),
        Reform::Leave(_) | Reform::Expel(_) => drop(admitted.may_be_gone.insert(id)),
        _ => {}
    }
    Some(Transaction::Change(change))
}

/// All honest members approve.
fn approve(
    change: &mut Change,
    network: Network,
    (plan, founding): (&Plan, &Founding),
    state: &State,
) {
    for member in state.members().present() {
        let place = usize::from(member.id.0);
        if let Some(key) = founding.keys.get(place).filter(|_| !plan.is_byzantine(place)) {
            change.approve(network, member.id, key);
        }
    }
}

fn sealing_key(id: KeyId, dice: &mut Dice) -> SealingKey {
    OpeningKey::generate(id, &mut dice.0).public()
}

/// What a meter is revoked with: of its newest registered chain, and with it, if it is issued and
/// not registered, the registration of the next one. Nothing once it is revoked.
fn recalled(
    recall: &Recall,
    papers: &Papers,
    founding: &Founding,
    chain: &Chain,
) -> Vec<Transaction> {
    let meter = MeterId(recall.meter);
    if chain.ended.is_revoked(meter) {
        return Vec::new();
    }
    let network = chain.genesis.network();
    let Some((row, newest)) = chain.newest_chain(meter) else {
        // There is nothing to revoke yet.
        let first = papers.chains.first().map(|(registration, _)| registration.clone());
        return first.into_iter().map(Transaction::Registration).collect();
    };
    let view = chain.state.view();
    let Some(known) = view.chain(row) else { return Vec::new() };
    let (registration, secret) = &papers.chains[newest.chain as usize];
    let owner = &founding.keys[usize::from(registration.message.owner.0)];
    let by_signatures = signed(network, known, &founding.sdi_key, owner);
    let by_secret = secret.map(|secret| by_secret(meter, known.id, secret));
    let mut made = Vec::new();
    if recall.by != By::Secret {
        made.push(Transaction::Revocation(by_signatures));
    }
    if recall.by != By::Signatures {
        made.extend(by_secret.map(Transaction::Revocation));
    }
    let next = papers.chains.get(newest.chain as usize + 1);
    if let Some((next, _)) =
        next.filter(|(next, _)| !chain.is_registered(&next.message.id(network)))
    {
        made.push(Transaction::Registration(next.clone()));
    }
    made
}

fn signed(
    network: Network,
    chain: &bkss_ledger::Chain,
    sdi: &SecretKey,
    owner: &SecretKey,
) -> Revocation {
    Revocation::sign(network, chain, Reason(1), (SdiId(0), sdi), owner)
}

fn by_secret(meter: MeterId, chain: Digest, secret: [u8; 32]) -> Revocation {
    Revocation { meter, chain, reason: Reason(2), right: Right::Secret(secret) }
}
