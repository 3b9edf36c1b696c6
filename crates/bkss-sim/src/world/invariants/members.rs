//! Members: who takes part, what they may change, what their votes weigh, whom they blame.

use std::collections::{BTreeMap, BTreeSet};

use bkss_ledger::{Members, Round, change::MAX_OWN_CHANGES, evidence::Offence};
use bkss_scheme::{Digest, LedgerTime, MeterId, ProviderId};

use super::Violation;

/// Seconds of a UTC day.
const DAY_S: u64 = 86_400;

/// Whom quorums have approved, and whose going was decided by a quorum or by themselves.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Admitted {
    /// Founders, and those whose joining was approved.
    pub(in super::super) may_be: BTreeSet<ProviderId>,
    /// Those of them that may be gone.
    pub(in super::super) may_be_gone: BTreeSet<ProviderId>,
    /// Those that were members from the beginning.
    pub(in super::super) founders: BTreeSet<ProviderId>,
}

/// Nobody is a member whom no quorum has approved, and no founder has gone but by a quorum's decision
/// or its own.
pub(in super::super) fn approved_members(
    members: &Members,
    admitted: &Admitted,
) -> Result<(), Violation> {
    let Admitted { may_be, may_be_gone, founders } = admitted;
    if let Some(stranger) = members.present().find(|member| !may_be.contains(&member.id)) {
        return Err(Violation::Member(stranger.id));
    }
    let mut stay = founders.difference(may_be_gone);
    let gone = stay.find(|founder| members.provider(**founder).is_none());
    gone.map_or(Ok(()), |gone| Err(Violation::Gone(*gone)))
}

/// No provider makes more changes of its own accord in a UTC day than are allowed.
#[derive(Debug, Default)]
pub(in super::super) struct FewChanges(BTreeMap<(ProviderId, u64), u32>);

impl FewChanges {
    /// A block of this time has a change that a provider makes alone.
    pub(in super::super) fn see(
        &mut self,
        provider: ProviderId,
        time: LedgerTime,
    ) -> Result<(), Violation> {
        let count = self.0.entry((provider, time.seconds() / DAY_S)).or_default();
        *count += 1;
        let found = *count;
        if found <= MAX_OWN_CHANGES { Ok(()) } else { Err(Violation::Changes { provider, found }) }
    }
}

/// No change enters the ledger twice: who has what it approves may not bring it again later.
#[derive(Debug, Default)]
pub(in super::super) struct ChangedOnce(BTreeSet<Digest>);

impl ChangedOnce {
    /// A block has the change with this digest.
    pub(in super::super) fn see(&mut self, change: Digest, height: u64) -> Result<(), Violation> {
        if self.0.insert(change) { Ok(()) } else { Err(Violation::ChangedAgain { change, height }) }
    }
}

/// Where votes weigh by meters, every meter that has reported counts for its owner, in whichever
/// round it was opened: a world is shorter than the time in which it does. `owners` has the owner of
/// each meter that was opened before the round began.
pub(in super::super) fn every_meter_weighs(
    round: &Round,
    owners: &BTreeMap<MeterId, ProviderId>,
) -> Result<(), Violation> {
    let mut expected: BTreeMap<ProviderId, u32> = BTreeMap::new();
    for owner in owners.values() {
        *expected.entry(*owner).or_default() += 1;
    }
    let known = round.weights.keys().chain(expected.keys()).copied();
    for provider in known.collect::<BTreeSet<_>>() {
        let of = |weights: &BTreeMap<ProviderId, u32>| weights.get(&provider).copied();
        let (expected, found) = (of(&expected).unwrap_or(0), of(&round.weights).unwrap_or(0));
        if expected != found {
            return Err(Violation::Weight { provider, round: round.number, expected, found });
        }
    }
    Ok(())
}

/// Only Byzantine providers are on record for having voted twice.
pub(in super::super) fn true_offences<'a>(
    mut offences: impl Iterator<Item = &'a Offence>,
    byzantine: impl Fn(usize) -> bool,
) -> Result<(), Violation> {
    let false_one = offences.find(|offence| !byzantine(offence.provider.0.into()));
    false_one.map_or(Ok(()), |offence| Err(Violation::FalseOffence(*offence)))
}

/// No honest provider has blocked another.
pub(in super::super) fn no_quarrel(
    blocked: &[(usize, usize)],
    byzantine: impl Fn(usize) -> bool,
) -> Result<(), Violation> {
    let honest = |pair: &&(usize, usize)| !byzantine(pair.0) && !byzantine(pair.1);
    let quarrel = blocked.iter().find(honest);
    quarrel.map_or(Ok(()), |(by, whom)| Err(Violation::Quarrel { by: *by, whom: *whom }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(may_be: u16, gone: &[u16]) -> Admitted {
        let founders: BTreeSet<_> = (0..may_be).map(ProviderId).collect();
        let may_be_gone = gone.iter().copied().map(ProviderId).collect();
        Admitted { may_be: founders.clone(), may_be_gone, founders }
    }

    #[test]
    fn a_member_too_many_and_one_too_few_are_seen() {
        let scene = crate::scene::Scene::new(5, 4).unwrap();
        let members = scene.state.members();
        approved_members(members, &admitted(4, &[])).unwrap();
        let strange = approved_members(members, &admitted(3, &[]));
        assert_eq!(strange, Err(Violation::Member(ProviderId(3))));
        let lacks = approved_members(members, &admitted(5, &[]));
        assert_eq!(lacks, Err(Violation::Gone(ProviderId(4))));
        approved_members(members, &admitted(5, &[4])).unwrap();
    }

    #[test]
    fn a_change_too_many_in_a_day_is_seen() {
        let mut changes = FewChanges::default();
        let at = |second| LedgerTime::from_seconds(5 * DAY_S + second);
        for change in 0..MAX_OWN_CHANGES {
            changes.see(ProviderId(1), at(change.into())).unwrap();
        }
        changes.see(ProviderId(2), at(9)).unwrap();
        changes.see(ProviderId(1), at(DAY_S)).unwrap();
        let many = changes.see(ProviderId(1), at(DAY_S - 1)).unwrap_err();
        assert_eq!(many.invariant(), "few-changes");
    }

    #[test]
    fn a_change_that_enters_again_is_seen() {
        let mut changes = ChangedOnce::default();
        changes.see(Digest([1; 32]), 5).unwrap();
        changes.see(Digest([2; 32]), 5).unwrap();
        let again = changes.see(Digest([1; 32]), 9).unwrap_err();
        assert_eq!(again.invariant(), "changed-once");
    }

    #[test]
    fn a_weight_that_is_not_that_of_the_meters_which_report_is_seen() {
        let scene = crate::scene::Scene::new(6, 4).unwrap();
        let mut round = Round::clone(scene.state.round());
        let owners = BTreeMap::from([
            (MeterId(7), ProviderId(0)),
            (MeterId(8), ProviderId(0)),
            (MeterId(9), ProviderId(2)),
        ]);
        for (weights, holds) in [
            (vec![(0, 2), (2, 1)], true),
            (vec![(0, 2)], false),
            (vec![(0, 1), (2, 1)], false),
            (vec![(0, 2), (2, 1), (3, 1)], false),
        ] {
            round.weights = weights.iter().map(|(id, weight)| (ProviderId(*id), *weight)).collect();
            assert_eq!(every_meter_weighs(&round, &owners).is_ok(), holds, "{weights:?}");
        }
    }

    #[test]
    fn offences_and_quarrels_of_honest_providers_are_seen() {
        let offence = Offence { provider: ProviderId(2), epoch: 0, view: 9 };
        true_offences([offence].iter(), |place| place == 2).unwrap();
        assert_eq!(
            true_offences([offence].iter(), |place| place == 1),
            Err(Violation::FalseOffence(offence))
        );
        no_quarrel(&[(0, 2), (2, 1)], |place| place == 2).unwrap();
        assert!(no_quarrel(&[(0, 2), (0, 1)], |place| place == 2).is_err());
    }
}
