//! Who may join the ledger: registration of meters (scheme s4.3, rule 3).
//!
//! Providers and SDIs are those of the genesis.

use bkss_scheme::{
    LedgerTime, MeterId, ProviderId, SdiId,
    root_message::{Registered, Registration, RegistrationError},
};

use crate::View;

/// The rule that a registration breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RegistrationRefusal {
    #[error("owner {0} is no provider")]
    UnknownOwner(ProviderId),
    #[error("SDI {0} is not known")]
    UnknownSdi(SdiId),
    #[error(transparent)]
    Signature(#[from] RegistrationError),
    #[error("meter {0} is already registered")]
    MeterTaken(MeterId),
    #[error("salt is already in use")]
    SaltTaken,
    #[error("first slot starts at {start} ms, not after the block's {block} ms")]
    StartsInThePast { start: LedgerTime, block: LedgerTime },
    #[error("slots of {found} s, at least {least} s are allowed")]
    SlotTooShort { found: u32, least: u32 },
    #[error("window of {found} s leaves nothing of the {reveal} s for openings")]
    WindowTooLong { found: u32, reveal: u32 },
    #[error("the registry is full at {limit} meters")]
    Full { limit: u32 },
}

/// Checks a registration in a block of this time on top of a view.
///
/// # Errors
///
/// [`RegistrationRefusal`]: the first rule that does not hold.
pub fn check_registration(
    view: &View<'_>,
    time: LedgerTime,
    registration: &Registration,
) -> Result<Registered, RegistrationRefusal> {
    use RegistrationRefusal as Refused;

    let genesis = view.genesis();
    let message = &registration.message;
    let owner = genesis.provider(message.owner).ok_or(Refused::UnknownOwner(message.owner))?;
    let sdi = genesis.sdi(message.sdi).ok_or(Refused::UnknownSdi(message.sdi))?;
    let registered = registration.verify(genesis.network(), &sdi.key, &owner.key)?;

    let schedule = &message.schedule;
    let terms = &genesis.charter().terms;
    let (found, least) = (schedule.slot_s, terms.min_slot_s);
    if found < least {
        return Err(Refused::SlotTooShort { found, least });
    }
    let (found, reveal) = (schedule.window_s, terms.reveal_s);
    if found >= reveal {
        return Err(Refused::WindowTooLong { found, reveal });
    }
    let start = schedule.first.0.saturating_mul(u64::from(schedule.slot_s));
    let start = LedgerTime::from_seconds(start);
    if start <= time {
        return Err(Refused::StartsInThePast { start, block: time });
    }
    if view.row(message.meter).is_some() {
        return Err(Refused::MeterTaken(message.meter));
    }
    if view.has_salt(message.salt) {
        return Err(Refused::SaltTaken);
    }
    let limit = genesis.charter().limits.meters;
    if view.meters() >= limit {
        return Err(Refused::Full { limit });
    }
    Ok(registered)
}
