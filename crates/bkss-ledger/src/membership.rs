//! Registration of meters and of further chains for them (scheme s4.3, rule 3).
//!
//! A meter's chain is changed through the SDI, as in the paper: a new registration of the same
//! device by the same owner. The old chain keeps the slots that end before the new one begins, and the
//! new one begins after all that the old one has requested, so that no time is covered by both.

use bkss_scheme::{
    LedgerTime, MeterId, Network, ProviderId, PublicKey, RootMessage, SdiId,
    root_message::{Registered, Registration, RegistrationError},
    slot::Schedule,
};

use crate::{Chain, Limits, Live, Members, Terms, View, chain::End, transaction_batch::Row};

/// Most chains that a meter has in its life: whoever looks for a slot of a meter looks at them all.
pub const MAX_CHAINS: usize = 256;

/// Most chains of a meter that have not begun. A revocation ends them all.
pub const MAX_WAITING: usize = 8;

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
    #[error("meter {0} is registered or revoked in this block already")]
    SecondInBlock(MeterId),
    #[error("meter {0} is registered for another device or owner")]
    OtherDevice(MeterId),
    #[error("meter {0} is revoked")]
    Revoked(MeterId),
    #[error("chain begins at {found} ms, before the meter's last one at {before} ms")]
    BeforeLast { before: LedgerTime, found: LedgerTime },
    #[error("meter {meter} has had {MAX_CHAINS} chains, as many as a meter may have")]
    NoMoreChains { meter: MeterId },
    #[error("{MAX_WAITING} chains of meter {meter} have not begun, as many as may wait")]
    ManyWait { meter: MeterId },
    #[error("salt is already in use")]
    SaltTaken,
    #[error("first slot starts at {start} ms, the meter's chain has requested until {until} ms")]
    Overlaps { start: LedgerTime, until: LedgerTime },
    #[error("first slot starts at {start} ms, not after the block's {block} ms")]
    StartsInThePast { start: LedgerTime, block: LedgerTime },
    #[error("first slot starts at {start} ms, at most {latest} ms is allowed")]
    StartsTooLate { start: LedgerTime, latest: LedgerTime },
    #[error("slots of {found} s, at least {least} s are allowed")]
    SlotTooShort { found: u32, least: u32 },
    #[error("window of {found} s leaves nothing of the {reveal} s for openings")]
    WindowTooLong { found: u32, reveal: u32 },
    #[error("the registry is full at {limit} chains")]
    Full { limit: u32 },
    #[error("provider {owner} has {limit} chains, as many as one owner may have")]
    OwnerFull { owner: ProviderId, limit: u32 },
}

/// The keys of those who vouch for a registration.
#[derive(Clone, Copy, Debug)]
pub struct Vouchers {
    sdi: PublicKey,
    owner: PublicKey,
}

impl Vouchers {
    /// Checks their signatures.
    ///
    /// # Errors
    ///
    /// [`RegistrationRefusal::Signature`].
    pub fn check(
        &self,
        network: Network,
        registration: &Registration,
    ) -> Result<Registered, RegistrationRefusal> {
        Ok(registration.verify(network, &self.sdi, &self.owner)?)
    }
}

/// Whether a registration says again what the newest chain of its meter says, and with whose keys its
/// signatures are checked; `None` as well if the SDI is no member any more.
pub fn repeats_newest(view: &View<'_>, registration: &Registration) -> Option<Vouchers> {
    let message = &registration.message;
    let newest = view.chain(view.row(message.meter)?)?;
    if newest.id != message.id(view.genesis().network()) {
        return None;
    }
    let members = view.members();
    let (sdi, owner) = (members.sdi(message.sdi)?, members.provider_ever(message.owner)?);
    Some(Vouchers { sdi: sdi.key, owner: owner.key })
}

/// Checks all of a registration but its signatures, in a block of this time on top of a view, and
/// returns with whose keys those are checked. `live` says what has become of the meter's last chain
/// with the block so far.
///
/// # Errors
///
/// [`RegistrationRefusal`]: the first rule that does not hold.
pub(crate) fn check_rules<'a>(
    view: &'a View<'_>,
    members: &Members,
    time: LedgerTime,
    message: &RootMessage,
    live: impl FnOnce(Row) -> Option<&'a Live>,
) -> Result<Vouchers, RegistrationRefusal> {
    use RegistrationRefusal as Refused;

    let charter = view.genesis().charter();
    let owner = members.provider(message.owner).ok_or(Refused::UnknownOwner(message.owner))?;
    let sdi = members.sdi(message.sdi).ok_or(Refused::UnknownSdi(message.sdi))?;
    check_schedule(&charter.terms, time, &message.schedule)?;
    if let Some(row) = view.row(message.meter) {
        let last = view.chain(row).ok_or(Refused::OtherDevice(message.meter))?;
        let live = live(row).ok_or(Refused::OtherDevice(message.meter))?;
        check_next(last, message)?;
        if matches!(live.end, Some(End::Revoked(_))) {
            return Err(Refused::Revoked(message.meter));
        }
        let meter = message.meter;
        let chains = view.chains(meter);
        if chains.len() >= MAX_CHAINS {
            return Err(Refused::NoMoreChains { meter });
        }
        let begins = |row: &&Row| view.chain(**row).map(|chain| chain.schedule.begins());
        if chains.iter().take_while(|row| begins(row) > Some(time)).count() >= MAX_WAITING {
            return Err(Refused::ManyWait { meter });
        }
        let (start, until) = (message.schedule.begins(), live.requested_until(&last.schedule));
        if start < until {
            return Err(Refused::Overlaps { start, until });
        }
    }
    if view.has_salt(message.salt()) {
        return Err(Refused::SaltTaken);
    }
    Ok(Vouchers { sdi: sdi.key, owner: owner.key })
}

/// Checks a registration in a block of this time on top of a view: rules, room and signatures.
///
/// # Errors
///
/// [`RegistrationRefusal`]: the first thing that does not hold.
pub fn check_registration(
    view: &View<'_>,
    members: &Members,
    time: LedgerTime,
    registration: &Registration,
) -> Result<Registered, RegistrationRefusal> {
    let message = &registration.message;
    let vouchers = check_rules(view, members, time, message, |row| view.live(row))?;
    let taken = (view.chain_count(), view.chains_of(message.owner));
    check_room(&view.genesis().charter().limits, message.owner, taken)?;
    vouchers.check(view.genesis().network(), registration)
}

/// Checks that the registry has room for one more chain of an owner, which has so many.
///
/// # Errors
///
/// [`RegistrationRefusal::Full`] or [`RegistrationRefusal::OwnerFull`].
pub(crate) const fn check_room(
    limits: &Limits,
    owner: ProviderId,
    (chains, of_owner): (u32, u32),
) -> Result<(), RegistrationRefusal> {
    if chains >= limits.meters {
        return Err(RegistrationRefusal::Full { limit: limits.meters });
    }
    let limit = limits.owner_meters;
    if of_owner >= limit {
        return Err(RegistrationRefusal::OwnerFull { owner, limit });
    }
    Ok(())
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
    let latest = LedgerTime(time.0.saturating_add(1000 * u64::from(terms.ahead_s)));
    if start > latest {
        return Err(Refused::StartsTooLate { start, latest });
    }
    Ok(())
}
