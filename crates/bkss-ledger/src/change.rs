//! Changes of membership: providers and SDIs that join, leave, renew their keys (scheme s4.3).
//!
//! `[26, body, until, own_sig / null, [* [sp, sig]]]`; all sign `[26, body, until]` under the
//! network's name. The paper admits whoever knows the public `h(Am)`, on the word of one leader
//! (B1); here a quorum of the present providers approves on the ledger. `until` is the last round in
//! which a change may enter, so that approvals that once did not suffice cannot be used years later.

use bkss_scheme::{
    Digest, Network, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey, Signature,
    certificate::{VoteKey, VoteSignature, accepts, possession_message},
    codec::{self, Encoded},
    identity::{Name, SignatureError, name, signed_digest},
    merkle,
    seal::SealingKey,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Members,
    genesis::MIN_PROVIDERS,
    members::{MAX_MEMBERS, MAX_VOTE_KEYS},
};

/// Number of this transaction.
pub(crate) const NUMBER: u8 = 26;

/// Changes that a provider may make of its own accord on a UTC day: each is handed over to whoever
/// follows the ledger from its genesis.
pub const MAX_OWN_CHANGES: u32 = 8;

/// What changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// A provider joins (`M_ident`, Eq 5): its own signature and a quorum's approvals.
    Join(ProviderIdentity),
    /// A provider leaves, by its own signature: `[20, sp]`.
    Leave(ProviderId),
    /// Another vote key, from the next round on, by the signatures of the provider and of that key,
    /// so that nobody makes a key his own that another is about to have: `[21, sp, key, sig]`.
    VoteKey(ProviderId, VoteKey, VoteSignature),
    /// Another sealing key with the next number, by the provider's signature: `[8, sp, key]`.
    SealingKey(ProviderId, SealingKey),
    /// Another address, by the provider's signature: `[22, sp, address]`.
    Address(ProviderId, Name),
    /// A provider is expelled, by a quorum's approvals: `[23, sp]`.
    Expel(ProviderId),
    /// An SDI joins: its own signature and a quorum's approvals.
    AddSdi(SdiIdentity),
    /// An SDI is removed, by a quorum's approvals: `[24, sdi]`.
    RemoveSdi(SdiId),
}

/// A change with its signatures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// What changes.
    pub body: Body,
    /// The last round in which it may enter the ledger.
    pub until: u64,
    /// Signature of the key that the change is about.
    pub own: Option<Signature>,
    /// Signatures of present providers, by ascending number.
    pub approvals: Vec<(ProviderId, Signature)>,
}

/// The rule that a change breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ChangeRefusal {
    #[error("it could enter until round {until}, this is round {round}")]
    Expired { until: u64, round: u64 },
    #[error("provider {0} is not one of the consortium")]
    NotPresent(ProviderId),
    #[error("SDI {0} is not one of the consortium")]
    SdiNotPresent(SdiId),
    #[error("the number is or was another member's")]
    NumberTaken,
    #[error("the identity key is or was a member's")]
    KeyTaken,
    #[error("the vote key is or was a member's")]
    VoteKeyTaken,
    #[error("the vote key is not the canonical spelling of a point of prime order")]
    VoteKeyNoPoint,
    #[error("the vote key has not signed that it is provider {0}'s")]
    NotPossessed(ProviderId),
    #[error("provider {0} has this address")]
    SameAddress(ProviderId),
    #[error("until round {found}; a change of address until round {last} is on the ledger")]
    NotLater { last: u64, found: u64 },
    #[error("provider {0} has had {MAX_VOTE_KEYS} vote keys")]
    VoteKeys(ProviderId),
    #[error("sealing key {found}, the next number is {expected}")]
    SealingKey { expected: u16, found: u16 },
    #[error("agreement {found}, that of the consortium is {expected}")]
    Agreement { expected: Digest, found: Digest },
    #[error("provider {0} has made {MAX_OWN_CHANGES} changes on this UTC day")]
    TooManyOnDay(ProviderId),
    #[error("fewer than {MIN_PROVIDERS} providers would remain")]
    TooFew,
    #[error("the consortium has had {MAX_MEMBERS} members")]
    Full,
    #[error("the signature of the key it is about is missing or one too many")]
    OwnSignature,
    #[error("signature of the key it is about: {0}")]
    Own(SignatureError),
    #[error("approvals are not by ascending provider")]
    Order,
    #[error("approval of provider {provider}: {reason}")]
    Approval { provider: ProviderId, reason: SignatureError },
    #[error("{found} approvals, a quorum is {expected}")]
    Quorum { expected: usize, found: usize },
}

impl Change {
    /// A change that nobody has signed yet.
    pub const fn new(body: Body, until: u64) -> Self {
        Self { body, until, own: None, approvals: Vec::new() }
    }

    /// What all sign.
    pub fn digest(&self, network: Network) -> Digest {
        signed_digest(network, &Signed(self))
    }

    /// Signs with the key that the change is about.
    pub fn sign(&mut self, network: Network, key: &SecretKey) {
        self.own = Some(key.sign(&self.digest(network)));
    }

    /// Adds a provider's approval; one it gave before is replaced.
    pub fn approve(&mut self, network: Network, provider: ProviderId, key: &SecretKey) {
        let signature = key.sign(&self.digest(network));
        match self.approvals.binary_search_by_key(&provider, |(provider, _)| *provider) {
            Ok(at) => self.approvals[at].1 = signature,
            Err(at) => self.approvals.insert(at, (provider, signature)),
        }
    }

    /// Whether a quorum has to approve it; if not, the key it is about decides alone.
    pub const fn needs_quorum(&self) -> bool {
        matches!(self.body, Body::Join(_) | Body::Expel(_) | Body::AddSdi(_) | Body::RemoveSdi(_))
    }

    /// The provider that makes this change without asking the others.
    pub(crate) const fn made_by(&self) -> Option<ProviderId> {
        match self.body {
            Body::Leave(id)
            | Body::VoteKey(id, ..)
            | Body::SealingKey(id, _)
            | Body::Address(id, _) => Some(id),
            Body::Join(_) | Body::Expel(_) | Body::AddSdi(_) | Body::RemoveSdi(_) => None,
        }
    }

    /// Leaf in the tree of transactions: digest, own signature, approvals.
    pub(crate) fn leaf(&self, digest: &Digest) -> Digest {
        let own = self.own.as_ref().map_or(&[][..], |own| &own.0);
        let approvals: Vec<u8> = self
            .approvals
            .iter()
            .flat_map(|(provider, signature)| {
                provider.0.to_be_bytes().into_iter().chain(signature.0)
            })
            .collect();
        merkle::leaf(&[&digest.0, own, &approvals])
    }

    /// Whether it could enter in this round, signatures aside.
    ///
    /// # Errors
    ///
    /// [`ChangeRefusal`]: the first rule that does not hold.
    pub fn check_rules(
        &self,
        members: &Members,
        agreement: Digest,
        round: u64,
    ) -> Result<(), ChangeRefusal> {
        use ChangeRefusal as Refused;

        if self.until < round {
            return Err(Refused::Expired { until: self.until, round });
        }
        let present = |id: ProviderId| members.provider(id).ok_or(Refused::NotPresent(id));
        match &self.body {
            Body::Join(identity) => check_join(members, agreement, identity),
            Body::AddSdi(sdi) if members.sdi_ever(sdi.id) => Err(Refused::NumberTaken),
            Body::AddSdi(sdi) if members.has_key(&sdi.key) => Err(Refused::KeyTaken),
            Body::AddSdi(_) if members.ever() >= MAX_MEMBERS => Err(Refused::Full),
            Body::AddSdi(_) => Ok(()),
            Body::Leave(id) | Body::Expel(id) => {
                present(*id)?;
                if members.count() > MIN_PROVIDERS { Ok(()) } else { Err(Refused::TooFew) }
            }
            Body::VoteKey(id, key, _) => {
                present(*id)?;
                if members.vote_keys(*id) >= MAX_VOTE_KEYS {
                    return Err(Refused::VoteKeys(*id));
                }
                check_vote_key(members, key)
            }
            Body::SealingKey(id, key) => {
                let expected = present(*id)?.sealing_key.id.0.saturating_add(1);
                let found = key.id.0;
                let next = expected == found;
                if next { Ok(()) } else { Err(Refused::SealingKey { expected, found }) }
            }
            // Nobody brings an earlier one again.
            Body::Address(id, address) => {
                if present(*id)?.address == *address {
                    return Err(Refused::SameAddress(*id));
                }
                match members.moved(*id).filter(|last| *last >= self.until) {
                    Some(last) => Err(Refused::NotLater { last, found: self.until }),
                    None => Ok(()),
                }
            }
            Body::RemoveSdi(id) => members.sdi(*id).map(|_| ()).ok_or(Refused::SdiNotPresent(*id)),
        }
    }

    /// Checks that whoever has signed it has a say now: as many as it takes, all of them members.
    ///
    /// # Errors
    ///
    /// [`ChangeRefusal`], naming whose signature is missing or has no weight.
    pub(crate) fn check_standing(&self, members: &Members) -> Result<(), ChangeRefusal> {
        use ChangeRefusal as Refused;

        match self.body {
            Body::Join(_) | Body::AddSdi(_) if self.own.is_none() => {
                return Err(Refused::OwnSignature);
            }
            Body::Expel(_) | Body::RemoveSdi(_) if self.own.is_some() => {
                return Err(Refused::OwnSignature);
            }
            Body::Leave(id)
            | Body::VoteKey(id, ..)
            | Body::SealingKey(id, _)
            | Body::Address(id, _) => {
                members.provider(id).ok_or(Refused::NotPresent(id))?;
                if self.own.is_none() {
                    return Err(Refused::OwnSignature);
                }
            }
            _ => {}
        }
        if !self.approvals.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(Refused::Order);
        }
        let expected = if self.needs_quorum() { members.quorum() } else { 0 };
        let found = self.approvals.len();
        if found < expected || (expected == 0 && found > 0) {
            return Err(Refused::Quorum { expected, found });
        }
        let mut approvers = self.approvals.iter().map(|(provider, _)| *provider);
        let absent = approvers.find(|provider| members.provider(*provider).is_none());
        absent.map_or(Ok(()), |provider| Err(Refused::NotPresent(provider)))
    }

    /// Checks all signatures, and that whoever has signed has a say.
    ///
    /// # Errors
    ///
    /// [`ChangeRefusal`], naming whose signature is missing or does not hold.
    pub fn check_signatures(
        &self,
        members: &Members,
        network: Network,
    ) -> Result<(), ChangeRefusal> {
        use ChangeRefusal as Refused;

        self.check_standing(members)?;
        let digest = self.digest(network);
        let key = match &self.body {
            Body::Join(identity) => Some(identity.key),
            Body::AddSdi(sdi) => Some(sdi.key),
            Body::Expel(_) | Body::RemoveSdi(_) => None,
            Body::Leave(id)
            | Body::VoteKey(id, ..)
            | Body::SealingKey(id, _)
            | Body::Address(id, _) => {
                Some(members.provider(*id).ok_or(Refused::NotPresent(*id))?.key)
            }
        };
        if let (Some(key), Some(own)) = (key, &self.own) {
            key.verify(&digest, own).map_err(Refused::Own)?;
        }
        if let Body::VoteKey(id, key, signature) = &self.body
            && !accepts(key, &possession_message(network, *id, key), &signature.0)
        {
            return Err(Refused::NotPossessed(*id));
        }
        for (provider, signature) in &self.approvals {
            let member = members.provider(*provider).ok_or(Refused::NotPresent(*provider))?;
            let checked = member.key.verify(&digest, signature);
            checked.map_err(|reason| Refused::Approval { provider: *provider, reason })?;
        }
        Ok(())
    }

    /// What the members are once this has been applied; its checks must have passed.
    pub(crate) fn apply(&self, members: &mut Members) {
        match &self.body {
            Body::Join(identity) => members.add_provider(identity.clone()),
            Body::Leave(id) | Body::Expel(id) => members.remove_provider(*id),
            Body::VoteKey(id, key, _) => {
                members.change_provider(*id, |provider| provider.vote_key = *key);
            }
            Body::SealingKey(id, key) => {
                members.change_provider(*id, |provider| provider.sealing_key = *key);
            }
            Body::Address(id, address) => {
                members.change_provider(*id, |provider| provider.address = address.clone());
                members.has_moved(*id, self.until);
            }
            Body::AddSdi(sdi) => members.add_sdi(sdi.clone()),
            Body::RemoveSdi(id) => members.remove_sdi(*id),
        }
    }
}

fn check_join(
    members: &Members,
    agreement: Digest,
    identity: &ProviderIdentity,
) -> Result<(), ChangeRefusal> {
    use ChangeRefusal as Refused;

    if identity.agreement != agreement {
        return Err(Refused::Agreement { expected: agreement, found: identity.agreement });
    }
    if members.provider_ever(identity.id).is_some() {
        return Err(Refused::NumberTaken);
    }
    if members.has_key(&identity.key) {
        return Err(Refused::KeyTaken);
    }
    check_vote_key(members, &identity.vote_key)?;
    if members.ever() >= MAX_MEMBERS {
        return Err(Refused::Full);
    }
    Ok(())
}

/// A key that nobody could be seated with would stop every node.
fn check_vote_key(members: &Members, key: &VoteKey) -> Result<(), ChangeRefusal> {
    if !key.is_point() {
        return Err(ChangeRefusal::VoteKeyNoPoint);
    }
    if members.voter(key).is_some() { Err(ChangeRefusal::VoteKeyTaken) } else { Ok(()) }
}

struct Signed<'a>(&'a Change);

impl<C> Encode<C> for Signed<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.u8(NUMBER)?.encode(&self.0.body)?.u64(self.0.until)?.ok()
    }
}

impl<C> Encode<C> for Body {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        match self {
            Self::Join(identity) => Encode::encode(identity, encoder, ctx),
            Self::AddSdi(sdi) => Encode::encode(sdi, encoder, ctx),
            Self::SealingKey(id, key) => encoder.array(3)?.u8(8)?.encode(id)?.encode(key)?.ok(),
            Self::Leave(id) => encoder.array(2)?.u8(20)?.encode(id)?.ok(),
            Self::VoteKey(id, key, signature) => {
                encoder.array(4)?.u8(21)?.encode(id)?.encode(key)?.encode(signature)?.ok()
            }
            Self::Address(id, at) => encoder.array(3)?.u8(22)?.encode(id)?.str(at)?.ok(),
            Self::Expel(id) => encoder.array(2)?.u8(23)?.encode(id)?.ok(),
            Self::RemoveSdi(id) => encoder.array(2)?.u8(24)?.encode(id)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Body {
    fn decode(decoder: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let mut probe = decoder.probe();
        probe.array()?;
        let number = probe.u8()?;
        match number {
            1 => return Decode::decode(decoder, ctx).map(Self::Join),
            10 => return Decode::decode(decoder, ctx).map(Self::AddSdi),
            _ => {}
        }
        let at = decoder.position();
        let parts = match number {
            20 | 23 | 24 => 2,
            21 => 4,
            _ => 3,
        };
        codec::array(decoder, parts)?;
        decoder.u8()?;
        Ok(match number {
            8 => Self::SealingKey(decoder.decode()?, decoder.decode()?),
            20 => Self::Leave(decoder.decode()?),
            21 => Self::VoteKey(decoder.decode()?, decoder.decode()?, decoder.decode()?),
            22 => Self::Address(decoder.decode()?, name(decoder)?),
            23 => Self::Expel(decoder.decode()?),
            24 => Self::RemoveSdi(decoder.decode()?),
            _ => return Err(decode::Error::message("unknown kind of change").at(at)),
        })
    }
}

impl<C> Encode<C> for Change {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(NUMBER)?.encode(&self.body)?.u64(self.until)?.encode(self.own)?;
        encoder.array(self.approvals.len() as u64)?;
        for (provider, signature) in &self.approvals {
            encoder.array(2)?.encode(provider)?.encode(signature)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Change {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, NUMBER)?;
        let (body, until) = (decoder.decode()?, decoder.u64()?);
        let own = codec::optional(decoder, Decoder::decode)?;
        let count = codec::array_of_at_most(decoder, MAX_MEMBERS)?;
        let approval = |_| {
            codec::array(decoder, 2)?;
            Ok((decoder.decode()?, decoder.decode()?))
        };
        let approvals = (0..count).map(approval).collect::<Result<_, decode::Error>>()?;
        Ok(Self { body, until, own, approvals })
    }
}
