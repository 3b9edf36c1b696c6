//! How a meter gets its chain: order, offer, the meter's answer, both signatures.

use bkss_meter::{KeyStore, Parameters};
use bkss_scheme::{
    Digest, Era, Link, SecretKey, finality::RoundLength, hash_chain::Blocks,
    root_message::Registration, seal::OpeningKey,
};
use bkss_sdi::issue::{Answer, Order, Sdi, countersign};
use rand_core::CryptoRng;

use super::Broken;

/// A meter before it is switched on, and what only a scene knows of it.
pub(crate) struct Provisioned {
    /// What the meter is provisioned with.
    pub(crate) parameters: Parameters,
    /// `[M_r, sdi_sig, sp_sig]`.
    pub(crate) registration: Registration,
    /// Its links.
    pub(crate) keys: KeyStore<Vec<Link>>,
    /// Shape of its chain, and the public root of each block.
    pub(crate) blocks: (Blocks, Vec<Digest>),
    /// `v_n`.
    pub(crate) last: Link,
    /// What revokes the meter, if whoever knows it may.
    pub(crate) secret: Option<[u8; 32]>,
}

/// Provisions a meter of an owner, whose identity key and sealing key these are: with its first
/// chain, or the next if it has one.
pub(crate) fn provision(
    sdi: &mut Sdi,
    order: Order,
    owner: (&SecretKey, &OpeningKey),
    (rounds, era): (RoundLength, Era),
    rng: &mut impl CryptoRng,
) -> Result<Provisioned, Broken> {
    let id = order.owner;
    let mut entropy = [0; 32];
    rng.fill_bytes(&mut entropy);
    let known = sdi.device(order.meter).is_some();
    let offer = if known { sdi.renew(order, rng)? } else { sdi.offer(order, rng)? };
    let last = offer.last_link(&entropy);
    let answer = Answer::make(offer.salt, offer.blocks, &last, |_| ());
    let (message, signature) = sdi.register(&offer, &answer)?;
    let (network, sdi_key) = (offer.network, sdi.identity().key);
    let registration = countersign(network, message, signature, &sdi_key, (id, owner.0))?;
    let blank = vec![Link::from_bytes([0; 32]); offer.blocks.count() as usize];
    let (keys, _) = KeyStore::make(offer.salt, offer.blocks, &last, blank, |_, _| ())?;
    let parameters = Parameters {
        network,
        rounds,
        committee: era.committee,
        from_epoch: era.from_epoch,
        owner: owner.1.public(),
        root_message: registration.message.clone(),
    };
    let (blocks, secret) = ((offer.blocks, answer.block_roots), offer.revocation_secret().copied());
    Ok(Provisioned { parameters, registration, keys, blocks, last, secret })
}
