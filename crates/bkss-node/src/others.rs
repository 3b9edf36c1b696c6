//! The other providers as a node sees them: who is connected, and who votes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bkss_scheme::ProviderId;

/// A member of the committee of whom no vote has come for so long is called silent. Whoever runs
/// votes for blocks and, while no block comes, to end the view, again and again.
pub(crate) const SILENT: Duration = Duration::from_secs(15);

/// What is new between two looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// A provider is connected.
    Connected(ProviderId),
    /// It is no longer.
    Disconnected(ProviderId),
    /// A member of the committee has become silent.
    Silent(ProviderId),
    /// It votes again, or has no seat any more.
    Back(ProviderId),
}

/// Who is connected and who votes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    /// Whose votes have come since the last look.
    heard: BTreeSet<ProviderId>,
    /// When each member's last vote had come, or when it was first looked for.
    last: BTreeMap<ProviderId, SystemTime>,
    connected: BTreeSet<ProviderId>,
    silent: BTreeSet<ProviderId>,
}

impl Others {
    /// A vote of a member of the committee has come.
    pub(crate) fn heard(&mut self, member: ProviderId) {
        self.heard.insert(member);
    }

    /// The connected providers.
    pub(crate) const fn connected(&self) -> &BTreeSet<ProviderId> {
        &self.connected
    }

    /// The silent members, this node itself included.
    pub(crate) const fn silent(&self) -> &BTreeSet<ProviderId> {
        &self.silent
    }

    /// Looks who of a committee votes and who is connected now, and says what is new.
    pub(crate) fn look(
        &mut self,
        now: SystemTime,
        committee: &[ProviderId],
        connected: BTreeSet<ProviderId>,
    ) -> Vec<Change> {
        self.last.retain(|member, _| committee.contains(member));
        for member in committee {
            let last = self.last.entry(*member).or_insert(now);
            if self.heard.contains(member) {
                *last = now;
            }
        }
        self.heard.clear();
        let is_silent =
            |last: &SystemTime| now.duration_since(*last).is_ok_and(|quiet| quiet >= SILENT);
        let silent = self.last.iter().filter(|(_, last)| is_silent(last));
        let silent: BTreeSet<_> = silent.map(|(member, _)| *member).collect();
        let more = |these: &BTreeSet<_>, those: &BTreeSet<_>, change: fn(_) -> Change| {
            these.difference(those).copied().map(change).collect::<Vec<_>>()
        };
        let changes = [
            more(&connected, &self.connected, Change::Connected),
            more(&self.connected, &connected, Change::Disconnected),
            more(&silent, &self.silent, Change::Silent),
            more(&self.silent, &silent, Change::Back),
        ];
        (self.connected, self.silent) = (connected, silent);
        changes.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{Back, Connected, Disconnected, Silent};

    fn ids(ids: &[u16]) -> BTreeSet<ProviderId> {
        ids.iter().copied().map(ProviderId).collect()
    }

    #[test]
    fn who_is_connected_and_who_votes_is_told_once() {
        let mut others = Others::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let [one, two, three] = [1, 2, 3].map(ProviderId);
        let seats = [one, two];
        let changes = others.look(at(100), &seats, ids(&[1, 2]));
        assert_eq!(changes, [Connected(one), Connected(two)]);
        others.heard(one);
        assert_eq!(others.look(at(110), &seats, ids(&[1])), [Disconnected(two)]);
        assert_eq!(others.look(at(115), &seats, ids(&[1])), [Silent(two)]);
        assert_eq!(others.look(at(116), &seats, ids(&[1])), []);
        assert_eq!((others.connected(), others.silent()), (&ids(&[1]), &ids(&[2])));
        assert_eq!(others.look(at(125), &seats, ids(&[1])), [Silent(one)]);
        others.heard(two);
        assert_eq!(others.look(at(126), &seats, ids(&[1, 2])), [Connected(two), Back(two)]);
        // Whoever has no seat any more is not silent, and who has a new one is given time.
        let seats = [two, three];
        assert_eq!(others.look(at(127), &seats, ids(&[1, 2])), [Back(one)]);
        assert_eq!(others.look(at(141), &seats, ids(&[1, 2])), [Silent(two)]);
        assert_eq!(others.look(at(142), &seats, ids(&[1, 2])), [Silent(three)]);
        // A clock that was put back silences nobody.
        assert_eq!(others.look(at(90), &seats, ids(&[1, 2])), [Back(two), Back(three)]);
    }
}
