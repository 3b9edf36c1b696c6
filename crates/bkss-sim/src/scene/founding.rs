//! The founding document of a scene: terms, limits, members.

use bkss_ledger::{Limits, Rounds, Terms, genesis::Charter};
use bkss_scheme::{
    Digest, LedgerTime, ProviderId, ProviderIdentity, SdiId, SdiIdentity, SecretKey,
    certificate::VoteKey,
    hash,
    identity::{Name, SdiMode},
    seal::OpeningKey,
};

use super::{FIRST, SLOT_S};

/// `M_ident` of a founding provider.
pub(super) fn identity(
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

/// The SDI.
pub(super) fn sdi(key: &SecretKey) -> SdiIdentity {
    SdiIdentity { id: SdiId(0), name: Name::new(), key: key.public(), mode: SdiMode::Shared }
}

/// What they found.
pub(super) fn charter(
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
        terms: Terms { min_slot_s: 1, reveal_s: 604_800, grid_s: 60, precision_ms: 500 },
        rounds,
        limits: Limits::default(),
        providers,
        sdis: vec![sdi],
    }
}

fn agreement() -> Digest {
    hash::hash(hash::Tag::Agreement, &[b"the agreement of the scene"])
}
