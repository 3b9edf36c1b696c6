//! The founding of a scene: keys, terms, limits, members.

use std::sync::Arc;

use bkss_ledger::{Genesis, Limits, Rounds, Terms, genesis::Charter};
use bkss_scheme::{
    Digest, LedgerTime, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey,
    certificate::VoteKey,
    hash,
    identity::{Name, SdiMode},
    seal::{KeyId, OpeningKey},
};
use bkss_sdi::issue::Sdi;
use ed25519_zebra::SigningKey;
use rand_core::CryptoRng;

use super::{FIRST, SLOT_S, vote_key};

/// The keys of those who found.
pub(crate) struct Founders {
    /// Identity keys of the providers.
    pub(crate) keys: Vec<SecretKey>,
    /// Secret sealing keys of the providers.
    pub(crate) opening_keys: Vec<OpeningKey>,
    /// Their vote keys, in the committee's order.
    pub(crate) votes: Vec<SigningKey>,
    /// The SDI's key.
    pub(crate) sdi_key: SecretKey,
}

impl Founders {
    /// So many providers and one SDI.
    pub(crate) fn draw(rng: &mut impl CryptoRng, providers: u16) -> Self {
        let keys = (0..providers).map(|_| SecretKey::generate(rng)).collect();
        let opening_keys = (0..providers).map(|_| OpeningKey::generate(KeyId(1), rng)).collect();
        let mut votes: Vec<_> = (0..providers).map(|_| SigningKey::new(&mut *rng)).collect();
        votes.sort_by_key(vote_key);
        Self { keys, opening_keys, votes, sdi_key: SecretKey::generate(rng) }
    }

    /// What they found.
    pub(crate) fn charter(&self, name: &str, rounds: Rounds) -> Charter {
        let members = (0..).zip(&self.keys).zip(&self.opening_keys).zip(&self.votes);
        let members = members.map(|(((id, key), sealing), vote)| {
            identity(ProviderId(id), key, sealing, vote_key(vote))
        });
        charter(name, rounds, members.collect(), sdi(&self.sdi_key))
    }

    /// Signs a charter of theirs.
    pub(crate) fn found(
        &self,
        charter: Charter,
    ) -> Result<(Arc<Genesis>, Sdi), bkss_ledger::GenesisError> {
        let genesis = Genesis::found(charter, &self.keys, std::slice::from_ref(&self.sdi_key))?;
        let sdi = Sdi::new(sdi(&self.sdi_key), self.sdi_key.clone(), genesis.network());
        Ok((Arc::new(genesis), sdi))
    }
}

/// `M_ident` of a founding provider.
pub(crate) fn identity(
    id: ProviderId,
    key: &SecretKey,
    sealing: &OpeningKey,
    vote_key: VoteKey,
) -> ProviderIdentity {
    ProviderIdentity {
        id,
        name: Name::new(),
        key: key.public(),
        agreement: agreement(),
        sealing_key: sealing.public(),
        vote_key,
        address: Name::new(),
    }
}

fn sdi(key: &SecretKey) -> SdiIdentity {
    SdiIdentity { id: SdiId(0), name: Name::new(), key: key.public(), mode: SdiMode::Shared }
}

fn charter(
    name: &str,
    rounds: Rounds,
    providers: Vec<ProviderIdentity>,
    sdi: SdiIdentity,
) -> Charter {
    Charter {
        name: Name::try_from(name).unwrap_or_default(),
        agreement: agreement(),
        start: LedgerTime::from_seconds((FIRST.0 - 1) * u64::from(SLOT_S)),
        time_scale: 1,
        terms: Terms { min_slot_s: 1, ..Terms::default() },
        rounds,
        limits: Limits::default(),
        providers,
        sdis: vec![sdi],
    }
}

fn agreement() -> Digest {
    hash::hash(hash::Tag::Agreement, &[b"the agreement of the scene"])
}
