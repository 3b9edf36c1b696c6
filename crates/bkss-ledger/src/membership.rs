//! Registration of meters and of further chains for them (scheme s4.3, rule 3).
//!
//! A meter's chain is changed through the SDI, as in the paper: a new registration of the same
//! device by the same owner. The old chain keeps the slots that end before the new one begins, so
//! that no slot is valid under both.

use bkss_scheme::{
    LedgerTime, MeterId, ProviderId, RootMessage, SdiId,
    root_message::{Registered, Registration, RegistrationError},
    slot::Schedule,
};

use crate::{Chain, Members, Terms, View, chain::End};

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
    #[error("meter {0} is registered in this block already")]
    MeterTaken(MeterId),
    #[error("meter {0} is registered for another device or owner")]
    OtherDevice(MeterId),
    #[error("meter {0} is revoked")]
    Revoked(MeterId),
    #[error("chain begins at {found} ms, before the meter's last one at {before} ms")]
    BeforeLast { before: LedgerTime, found: LedgerTime },
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
    members: &Members,
    time: LedgerTime,
    registration: &Registration,
) -> Result<Registered, RegistrationRefusal> {
    use RegistrationRefusal as Refused;

    let genesis = view.genesis();
    let message = &registration.message;
    let owner = members.provider(message.owner).ok_or(Refused::UnknownOwner(message.owner))?;
    let sdi = members.sdi(message.sdi).ok_or(Refused::UnknownSdi(message.sdi))?;
    let registered = registration.verify(genesis.network(), &sdi.key, &owner.key)?;

    check_schedule(&genesis.charter().terms, time, &message.schedule)?;
    if let Some(row) = view.row(message.meter) {
        let last = view.chain(row).ok_or(Refused::OtherDevice(message.meter))?;
        check_next(last, message)?;
        if view.live(row).is_some_and(|live| matches!(live.end, Some(End::Revoked(_)))) {
            return Err(Refused::Revoked(message.meter));
        }
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

/// Checks that a chain may follow a meter's last one: the same device and owner, and no earlier
/// start, so that the last one ends where this one begins.
///
/// # Errors
///
/// [`RegistrationRefusal::OtherDevice`] or [`RegistrationRefusal::BeforeLast`].
pub fn check_next(last: &Chain, next: &RootMessage) -> Result<(), RegistrationRefusal> {
    if (last.meter, last.device, last.owner) != (next.meter, next.device, next.owner) {
        return Err(RegistrationRefusal::OtherDevice(next.meter));
    }
    let (before, found) = (last.schedule.begins(), next.schedule.begins());
    if found < before {
        return Err(RegistrationRefusal::BeforeLast { before, found });
    }
    Ok(())
}

/// Checks slots against the terms of the network, for a block of this time.
///
/// # Errors
///
/// [`RegistrationRefusal`]: the first rule that does not hold.
pub fn check_schedule(
    terms: &Terms,
    time: LedgerTime,
    schedule: &Schedule,
) -> Result<(), RegistrationRefusal> {
    use RegistrationRefusal as Refused;

    let (found, least) = (schedule.slot_s, terms.min_slot_s);
    if found < least {
        return Err(Refused::SlotTooShort { found, least });
    }
    let (found, reveal) = (schedule.window_s, terms.reveal_s);
    if found >= reveal {
        return Err(Refused::WindowTooLong { found, reveal });
    }
    let start = schedule.begins();
    if start <= time {
        return Err(Refused::StartsInThePast { start, block: time });
    }
    Ok(())
}
