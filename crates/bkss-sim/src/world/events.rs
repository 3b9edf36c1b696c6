//! What people decide while a world runs: who joins and leaves, which keys are new, which meters get
//! their next chain, which are revoked, whose disk is put back to an older image.

use super::{dice::Dice, faults::Ms};

/// A change of the members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reform {
    /// The provider of this place joins.
    Join(usize),
    /// It leaves.
    Leave(usize),
    /// A quorum expels it.
    Expel(usize),
    /// It takes another vote key.
    VoteKey(usize),
    /// It takes another sealing key.
    SealingKey(usize),
    /// It listens elsewhere.
    Address(usize),
}

impl Reform {
    /// Whom it is about.
    pub(super) const fn place(self) -> usize {
        match self {
            Self::Join(place)
            | Self::Leave(place)
            | Self::Expel(place)
            | Self::VoteKey(place)
            | Self::SealingKey(place)
            | Self::Address(place) => place,
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Join(_) => "joins",
            Self::Leave(_) => "leaves",
            Self::Expel(_) => "is expelled",
            Self::VoteKey(_) => "takes another vote key",
            Self::SealingKey(_) => "takes another sealing key",
            Self::Address(_) => "takes another address",
        }
    }
}

/// A meter gets its next chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Renewal {
    /// When its registration is brought to the ledger first.
    pub(super) at: Ms,
    /// The meter.
    pub(super) meter: u32,
    /// Its first slot, counted from the first of the world.
    pub(super) begins: u32,
}

/// By whose right a meter is revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum By {
    /// Owner and SDI.
    Signatures,
    /// Whoever knows the secret.
    Secret,
    /// Both at once.
    Both,
}

/// A meter is revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Recall {
    /// When it is brought to the ledger first.
    pub(super) at: Ms,
    /// The meter.
    pub(super) meter: u32,
    /// By whose right.
    pub(super) by: By,
}

/// A provider's disk is put back to an image of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Image {
    /// The provider.
    pub(super) place: usize,
    /// When it is switched off for the image.
    pub(super) taken: Ms,
    /// When it is switched off and gets it back.
    pub(super) back: Ms,
    /// Whether it gets it back in the round in which it was taken, too.
    pub(super) in_its_round: bool,
}

/// What people decide in a world.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Events {
    /// Changes of the members, with the time at which they are brought to the ledger first.
    pub(super) reforms: Vec<(Ms, Reform)>,
    /// Next chains.
    pub(super) renewals: Vec<Renewal>,
    /// Revocations.
    pub(super) recalls: Vec<Recall>,
    /// Images of disks.
    pub(super) images: Vec<Image>,
}

impl Events {
    /// Founders that are no members in the end.
    pub(super) fn removals(&self) -> usize {
        let goes = |reform: &&(Ms, Reform)| matches!(reform.1, Reform::Leave(_) | Reform::Expel(_));
        self.reforms.iter().filter(goes).count()
    }

    /// Providers beyond the founders.
    pub(super) fn joins(&self) -> usize {
        self.reforms.iter().filter(|(_, reform)| matches!(reform, Reform::Join(_))).count()
    }

    /// Draws changes of the members among so many founders, before `end`.
    pub(super) fn draw_reforms(&mut self, dice: &mut Dice, founders: usize, end: Ms) {
        let mut free: Vec<usize> = (0..founders).collect();
        let mut take =
            |dice: &mut Dice| (!free.is_empty()).then(|| free.swap_remove(dice.place(free.len())));
        let mut some = Vec::new();
        if dice.chance(250) {
            some.push(Reform::Join(founders));
        }
        // Below four providers no consortium goes.
        let most = founders.saturating_sub(4).min(2);
        for _ in 0..most {
            if dice.chance(250) {
                let leaves = dice.chance(500);
                let kind = if leaves { Reform::Leave } else { Reform::Expel };
                some.extend(take(dice).map(kind));
            }
        }
        for (kind, of_thousand) in [
            (Reform::VoteKey as fn(usize) -> Reform, 250),
            (Reform::VoteKey, 100),
            (Reform::SealingKey, 150),
            (Reform::Address, 150),
        ] {
            if dice.chance(of_thousand) {
                some.extend(take(dice).map(kind));
            }
        }
        self.reforms.extend(some.into_iter().map(|reform| (dice.below(end), reform)));
        self.reforms.sort_unstable_by_key(|(at, reform)| (*at, reform.place()));
    }

    /// Draws what becomes of meters: so many slots, each of so many milliseconds, from `begin` on.
    pub(super) fn draw_papers(
        &mut self,
        dice: &mut Dice,
        meters: u32,
        (begin, slots, slot_ms): (Ms, u32, Ms),
    ) {
        for meter in 0..meters {
            let (renewed, revoked) = (dice.chance(200), dice.chance(60));
            let begins = 1 + dice.small(slots);
            let first_ms = begin + u64::from(begins) * slot_ms;
            // Some come early, some at the last moment, some with the meter's first chain.
            let at = match dice.below(4) {
                0 => 0,
                1 => first_ms.saturating_sub(dice.within(300, 3000)),
                _ => dice.below(first_ms),
            };
            if renewed {
                self.renewals.push(Renewal { at, meter, begins });
            }
            if revoked {
                let by = match dice.below(3) {
                    0 => By::Signatures,
                    1 => By::Secret,
                    _ => By::Both,
                };
                // About one meter at once.
                let at = if renewed { at } else { dice.within(begin, first_ms) };
                self.recalls.push(Recall { at, meter, by });
            }
        }
    }

    /// Draws images of disks of some of these providers, put back before `end`.
    pub(super) fn draw_images(&mut self, dice: &mut Dice, places: &[usize], end: Ms) {
        for place in places {
            let taken = dice.below(end / 2);
            let back = dice.within(taken + 1000, end.max(taken + 1000));
            self.images.push(Image { place: *place, taken, back, in_its_round: false });
        }
    }
}
