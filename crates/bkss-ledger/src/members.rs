//! The members of a consortium: service providers and SDIs, present and former (scheme s4.3).
//!
//! Numbers and keys are never given twice, so that what was signed once can be checked for ever. A
//! former provider still vouches for the meters it registered, and can still revoke them together with
//! an SDI; it can do nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bkss_scheme::{
    Digest, Malformed, ProviderId, ProviderIdentity, PublicKey, SdiId, SdiIdentity,
    certificate::VoteKey,
    codec::{self, Encoded},
    merkle,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::Genesis;

/// Most providers, former ones included, and most SDIs.
pub const MAX_MEMBERS: usize = 1024;
/// Most vote keys that a provider may ever have: a new one each week for twenty years.
pub const MAX_VOTE_KEYS: usize = 1024;

/// Who takes part, and who has taken part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Members {
    providers: BTreeMap<ProviderId, Member<ProviderIdentity>>,
    sdis: BTreeMap<SdiId, Member<SdiIdentity>>,
    /// Every vote key there ever was, and whose it was.
    vote_keys: BTreeMap<VoteKey, ProviderId>,
    /// The last round in which the newest change of a provider's address could have entered: an
    /// earlier one does not come back.
    moved: BTreeMap<ProviderId, u64>,
}

/// A provider or SDI with its standing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Member<I> {
    pub(crate) identity: I,
    pub(crate) present: bool,
}

impl Members {
    /// The founders.
    pub fn founders(genesis: &Genesis) -> Self {
        let charter = genesis.charter();
        let mut members = Self::nobody();
        charter.providers.iter().for_each(|provider| members.add_provider(provider.clone()));
        charter.sdis.iter().for_each(|sdi| members.add_sdi(sdi.clone()));
        members
    }

    const fn nobody() -> Self {
        Self {
            providers: BTreeMap::new(),
            sdis: BTreeMap::new(),
            vote_keys: BTreeMap::new(),
            moved: BTreeMap::new(),
        }
    }

    /// The providers of the consortium, by ascending number.
    pub fn present(&self) -> impl Iterator<Item = &ProviderIdentity> {
        self.providers.values().filter(|member| member.present).map(|member| &member.identity)
    }

    /// The SDIs of the consortium, by ascending number.
    pub fn sdis(&self) -> impl Iterator<Item = &SdiIdentity> {
        self.sdis.values().filter(|member| member.present).map(|member| &member.identity)
    }

    /// A provider of the consortium.
    pub fn provider(&self, id: ProviderId) -> Option<&ProviderIdentity> {
        self.providers.get(&id).filter(|member| member.present).map(|member| &member.identity)
    }

    /// A provider of the consortium, or one that was.
    pub fn provider_ever(&self, id: ProviderId) -> Option<&ProviderIdentity> {
        self.providers.get(&id).map(|member| &member.identity)
    }

    /// An SDI of the consortium.
    pub fn sdi(&self, id: SdiId) -> Option<&SdiIdentity> {
        self.sdis.get(&id).filter(|member| member.present).map(|member| &member.identity)
    }

    /// Whether a number was ever an SDI's.
    pub fn sdi_ever(&self, id: SdiId) -> bool {
        self.sdis.contains_key(&id)
    }

    /// Whose vote key this is or was.
    pub fn voter(&self, key: &VoteKey) -> Option<ProviderId> {
        self.vote_keys.get(key).copied()
    }

    /// How many vote keys a provider has or had.
    pub fn vote_keys(&self, provider: ProviderId) -> usize {
        self.vote_keys.values().filter(|voter| **voter == provider).count()
    }

    /// Until which round the newest change of a provider's address could have entered.
    pub fn moved(&self, provider: ProviderId) -> Option<u64> {
        self.moved.get(&provider).copied()
    }

    pub(crate) fn has_moved(&mut self, provider: ProviderId, until: u64) {
        self.moved.insert(provider, until);
    }

    /// Number of providers of the consortium.
    pub fn count(&self) -> usize {
        self.present().count()
    }

    /// Approvals that decide about membership: `floor(2N/3) + 1` of the present providers.
    pub fn quorum(&self) -> usize {
        2 * self.count() / 3 + 1
    }

    /// Whether an identity key is or was a member's.
    pub fn has_key(&self, key: &PublicKey) -> bool {
        self.providers.values().any(|member| member.identity.key == *key)
            || self.sdis.values().any(|member| member.identity.key == *key)
    }

    /// Number of providers and SDIs there ever were.
    pub fn ever(&self) -> usize {
        self.providers.len().max(self.sdis.len())
    }

    /// What a header commits to when a block changes the members: the root of the tree over the
    /// present providers, then the present SDIs.
    pub fn digest(&self) -> Digest {
        digest(self.present(), self.sdis())
    }

    pub(crate) fn add_provider(&mut self, identity: ProviderIdentity) {
        self.vote_keys.insert(identity.vote_key, identity.id);
        self.providers.insert(identity.id, Member { identity, present: true });
    }

    pub(crate) fn add_sdi(&mut self, identity: SdiIdentity) {
        self.sdis.insert(identity.id, Member { identity, present: true });
    }

    pub(crate) fn remove_provider(&mut self, id: ProviderId) {
        if let Some(member) = self.providers.get_mut(&id) {
            member.present = false;
        }
    }

    pub(crate) fn remove_sdi(&mut self, id: SdiId) {
        if let Some(member) = self.sdis.get_mut(&id) {
            member.present = false;
        }
    }

    pub(crate) fn change_provider(
        &mut self,
        id: ProviderId,
        change: impl FnOnce(&mut ProviderIdentity),
    ) {
        if let Some(member) = self.providers.get_mut(&id) {
            change(&mut member.identity);
            self.vote_keys.insert(member.identity.vote_key, id);
        }
    }
}

/// What a block changes about the members, as a handover carries it:
/// `[[* M_ident], [* sp], [* SDI], [* sdi]]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MembersChange {
    /// Providers that are new or say something else of themselves, by ascending number.
    pub providers: Vec<ProviderIdentity>,
    /// Providers that have gone, ascending.
    pub gone: Vec<ProviderId>,
    /// SDIs that are new, by ascending number.
    pub sdis: Vec<SdiIdentity>,
    /// SDIs that have gone, ascending.
    pub gone_sdis: Vec<SdiId>,
}

impl MembersChange {
    /// What leads from the members before a block to those after it.
    pub fn between(before: &Members, after: &Members) -> Self {
        let providers = after.present();
        let providers = providers.filter(|now| before.provider(now.id) != Some(*now));
        let gone = before.present().filter(|then| after.provider(then.id).is_none());
        let sdis = after.sdis().filter(|now| before.sdi(now.id) != Some(*now));
        let gone_sdis = before.sdis().filter(|then| after.sdi(then.id).is_none());
        Self {
            providers: providers.cloned().collect(),
            gone: gone.map(|provider| provider.id).collect(),
            sdis: sdis.cloned().collect(),
            gone_sdis: gone_sdis.map(|sdi| sdi.id).collect(),
        }
    }

    /// Applies it.
    pub(crate) fn apply(&self, members: &mut Members) {
        self.providers.iter().for_each(|provider| members.add_provider(provider.clone()));
        self.gone.iter().for_each(|id| members.remove_provider(*id));
        self.sdis.iter().for_each(|sdi| members.add_sdi(sdi.clone()));
        self.gone_sdis.iter().for_each(|id| members.remove_sdi(*id));
    }

    /// Parses a change.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode("changes of the members", bytes)
    }

    /// The bytes of a change.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_infallible(self, &mut bytes);
        bytes
    }
}

impl<C> Encode<C> for MembersChange {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.encode(&self.providers)?.encode(&self.gone)?;
        encoder.encode(&self.sdis)?.encode(&self.gone_sdis)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for MembersChange {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        Ok(Self {
            providers: list(decoder, MAX_MEMBERS)?,
            gone: list(decoder, MAX_MEMBERS)?,
            sdis: list(decoder, MAX_MEMBERS)?,
            gone_sdis: list(decoder, MAX_MEMBERS)?,
        })
    }
}

fn digest<'a>(
    providers: impl Iterator<Item = &'a ProviderIdentity>,
    sdis: impl Iterator<Item = &'a SdiIdentity>,
) -> Digest {
    let leaves: Vec<_> = providers.map(merkle::leaf_of).chain(sdis.map(merkle::leaf_of)).collect();
    merkle::root(&leaves).unwrap_or(Digest::ZERO)
}

/// A list of at most `most` values.
pub(crate) fn list<'b, T: Decode<'b, ()>>(
    decoder: &mut Decoder<'b>,
    most: usize,
) -> Result<Vec<T>, decode::Error> {
    let count = codec::array_of_at_most(decoder, most)?;
    (0..count).map(|_| decoder.decode()).collect()
}

/// `[[* [M_ident, present]], [* [SDI, present]], [* [vote key, sp]], [* [sp, until]]]`, for snapshots.
impl<C> Encode<C> for Members {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.array(self.providers.len() as u64)?;
        for member in self.providers.values() {
            encoder.array(2)?.encode(&member.identity)?.bool(member.present)?;
        }
        encoder.array(self.sdis.len() as u64)?;
        for member in self.sdis.values() {
            encoder.array(2)?.encode(&member.identity)?.bool(member.present)?;
        }
        encoder.array(self.vote_keys.len() as u64)?;
        for (key, provider) in &self.vote_keys {
            encoder.array(2)?.encode(key)?.encode(provider)?;
        }
        encoder.array(self.moved.len() as u64)?;
        for (provider, until) in &self.moved {
            encoder.array(2)?.encode(provider)?.u64(*until)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Members {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        let mut members = Self::nobody();
        for _ in 0..codec::array_of_at_most(decoder, MAX_MEMBERS)? {
            codec::array(decoder, 2)?;
            let identity: ProviderIdentity = decoder.decode()?;
            let present = decoder.bool()?;
            members.providers.insert(identity.id, Member { identity, present });
        }
        for _ in 0..codec::array_of_at_most(decoder, MAX_MEMBERS)? {
            codec::array(decoder, 2)?;
            let identity: SdiIdentity = decoder.decode()?;
            let present = decoder.bool()?;
            members.sdis.insert(identity.id, Member { identity, present });
        }
        for _ in 0..codec::array_of_at_most(decoder, MAX_VOTE_KEYS * MAX_MEMBERS)? {
            codec::array(decoder, 2)?;
            members.vote_keys.insert(decoder.decode()?, decoder.decode()?);
        }
        for _ in 0..codec::array_of_at_most(decoder, MAX_MEMBERS)? {
            codec::array(decoder, 2)?;
            members.moved.insert(decoder.decode()?, decoder.u64()?);
        }
        Ok(members)
    }
}

/// Checks that keys and numbers of founders are distinct.
pub(crate) fn distinct<T: Ord>(values: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    values.into_iter().all(|value| seen.insert(value))
}
