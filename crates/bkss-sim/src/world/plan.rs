//! The plan of a world: all that goes wrong and all that is decided in it, drawn from its seed before
//! it begins.
//!
//! Until the plan's end anything may fail at any time; safety must hold. From then on everything is
//! well but what Byzantine providers do; what was promised must come true.

use bkss_ledger::genesis::Weighing;

use super::{
    Options,
    deed::Deed,
    dice::Dice,
    events::Events,
    faults::{BadDisks, Episode, Fault, Line, Ms},
    founding::{LEAD_S, SLOT_S},
};

/// All that goes wrong in a world, and all that is decided.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Latency and jitter of every link, milliseconds.
    pub(super) latency_ms: u64,
    pub(super) jitter_ms: u64,
    pub(super) episodes: Vec<Episode>,
    /// When the power goes everywhere: what is not on disk is torn.
    pub(super) power_cuts: Vec<Ms>,
    /// When disks fail, if they do: until the power goes everywhere.
    pub(super) bad_disks: Option<BadDisks>,
    /// When a meter loses its power, and which: at once, or after so many bytes of its next record.
    pub(super) meter_cuts: Vec<(Ms, u32, Option<usize>)>,
    /// By how much the clock of each provider is ahead, milliseconds.
    pub(super) skews: Vec<i64>,
    /// By how much a provider's clock is ahead after its n-th restart.
    pub(super) jump_ms: i64,
    /// Byzantine providers and what they do.
    pub(super) byzantine: Vec<(usize, Vec<Deed>)>,
    /// Whether they have one plan for all of them.
    pub(super) band: bool,
    /// What votes for accounting nodes weigh.
    pub(super) votes: Weighing,
    /// What people decide.
    pub(super) events: Events,
    /// Whether peers hang up on whom they have caught lying.
    pub(super) disconnects: bool,
    /// Founding providers.
    pub(super) founders: usize,
    /// From here on all is well.
    pub(super) healed: Ms,
}

impl Plan {
    /// Nothing goes wrong.
    pub(super) fn calm(options: &Options) -> Self {
        let founders = usize::from(options.providers);
        Self {
            latency_ms: 20,
            jitter_ms: 5,
            episodes: Vec::new(),
            power_cuts: Vec::new(),
            bad_disks: None,
            meter_cuts: Vec::new(),
            skews: vec![0; founders],
            jump_ms: 0,
            byzantine: Vec::new(),
            band: false,
            votes: Weighing::Members,
            events: Events::default(),
            disconnects: true,
            founders,
            healed: end_of_slots(options),
        }
    }

    /// The plan of a seed.
    pub(super) fn draw(seed: u64, options: &Options) -> Self {
        let dice = &mut Dice::new(seed, 1);
        let mut plan = Self::calm(options);
        let (founders, meters, end) = (plan.founders, options.meters, plan.healed);
        plan.latency_ms = dice.within(2, 60);
        plan.jitter_ms = dice.below(plan.latency_ms);
        plan.jump_ms = dice.skew();
        plan.disconnects = dice.chance(500);
        if dice.chance(300) {
            plan.votes = Weighing::Meters;
        }
        if dice.chance(400) {
            plan.events.draw_reforms(dice, founders, end);
        }
        if dice.chance(400) {
            let slot_ms = u64::from(SLOT_S) * 1000;
            plan.events.draw_papers(dice, meters, (LEAD_S * 1000, options.slots, slot_ms));
        }
        plan.skews = (0..plan.places()).map(|_| dice.skew()).collect();
        for _ in 0..dice.within(2, 8) {
            let from = dice.below(end);
            let to = (from + dice.within(300, 8000)).min(end);
            let fault = Fault::draw(dice, plan.places(), meters);
            plan.episodes.push(Episode { from, to, fault });
        }
        if dice.chance(200) {
            plan.swizzle(dice);
        }
        if dice.chance(400) {
            plan.power_cuts = (0..dice.within(1, 2)).map(|_| dice.within(500, end - 500)).collect();
            plan.power_cuts.sort_unstable();
        }
        for _ in 0..dice.below(u64::from(meters) / 2 + 1) {
            let bytes = dice.chance(500).then(|| dice.place(17));
            plan.meter_cuts.push((dice.below(end), dice.small(meters), bytes));
        }
        plan.meter_cuts.sort_unstable();
        plan.draw_byzantine(dice, options);
        if dice.chance(150) {
            plan.break_disks(dice);
        } else if dice.chance(500) {
            plan.draw_images(dice, options);
        }
        plan
    }

    /// Who gets an older image of its disk back may not vote until the next round: together with
    /// the liars these are no more than f.
    fn draw_images(&mut self, dice: &mut Dice, options: &Options) {
        let most = self.most_byzantine(options) - self.byzantine.len();
        let honest: Vec<_> =
            (0..self.founders).filter(|place| !self.is_byzantine(*place)).collect();
        let first = dice.place(honest.len());
        let places: Vec<_> = honest.iter().cycle().skip(first).take(most).copied().collect();
        self.events.draw_images(dice, &places, self.healed);
    }

    /// f of the smallest committee there will be.
    fn most_byzantine(&self, options: &Options) -> usize {
        let members = self.founders - self.events.removals();
        (usize::from(options.committee).min(members).max(1) - 1) / 3
    }

    /// Founders and those that join.
    pub(super) fn places(&self) -> usize {
        self.founders + self.events.joins()
    }

    /// Disks of all providers fail now and then, until the power goes.
    fn break_disks(&mut self, dice: &mut Dice) {
        let to = dice.within(1000, self.healed - 500);
        let from = to.saturating_sub(dice.within(100, 3000));
        self.bad_disks = Some(BadDisks { from, to, of_thousand: dice.within(1, 50) });
        self.power_cuts.push(to);
        self.power_cuts.sort_unstable();
    }

    /// Up to f of the smallest committee there will be do what they must not; some of these worlds
    /// have all f of them in one band.
    fn draw_byzantine(&mut self, dice: &mut Dice, options: &Options) {
        let most = self.most_byzantine(options);
        let first = dice.place(self.founders);
        self.band = dice.chance(400);
        let count = if self.band { most } else { dice.place(most + 1).max(dice.place(most + 1)) };
        let deeds = |dice: &mut Dice| -> Vec<Deed> {
            (0..dice.within(1, 3)).map(|_| Deed::draw(dice)).collect()
        };
        let common = deeds(dice);
        for offset in 0..count {
            let deeds = if self.band { common.clone() } else { deeds(dice) };
            self.byzantine.push(((first + offset) % self.founders, deeds));
        }
    }

    /// Providers are clogged one after the other, and let go in another order.
    fn swizzle(&mut self, dice: &mut Dice) {
        let (begin, length) = (dice.below(self.healed), dice.within(1000, 6000));
        for place in (0..self.places()).filter(|_| dice.chance(600)).collect::<Vec<_>>() {
            let from = (begin + dice.below(length)).min(self.healed);
            let to = (from + dice.within(100, length)).min(self.healed);
            self.episodes.push(Episode { from, to, fault: Fault::Clogged(place) });
        }
    }

    /// When the chains of a meter are brought to the ledger first.
    pub(super) fn registers(&self, meter: usize) -> impl Iterator<Item = Ms> {
        let renewals = self.events.renewals.iter();
        let next = renewals.filter(move |renewal| renewal.meter as usize == meter);
        [0].into_iter().chain(next.map(|renewal| renewal.at))
    }

    /// What is wrong at a time.
    pub(super) fn at(&self, now: Ms) -> impl Iterator<Item = &Fault> {
        let on = move |episode: &&Episode| episode.from <= now && now < episode.to;
        self.episodes.iter().filter(on).map(|episode| &episode.fault)
    }

    /// The link from one provider to another at a time; `None` if it is cut.
    pub(super) fn link(&self, now: Ms, from: usize, to: usize) -> Option<Line> {
        Line::with(self.latency_ms, (from, to), self.at(now))
    }

    /// Whether disks fail at a time.
    pub(super) fn has_bad_disks(&self, now: Ms) -> bool {
        self.bad_disks.is_some_and(|bad| bad.at(now))
    }

    /// Whether a provider is Byzantine.
    pub(super) fn is_byzantine(&self, place: usize) -> bool {
        self.byzantine.iter().any(|(liar, _)| *liar == place)
    }

    /// What a provider does that it must not.
    pub(super) fn deeds(&self, place: usize) -> &[Deed] {
        let found = self.byzantine.iter().find(|(liar, _)| *liar == place);
        found.map_or(&[], |(_, deeds)| deeds)
    }
}

/// The end of the slots whose readings must all be final in the end.
fn end_of_slots(options: &Options) -> Ms {
    1000 * (LEAD_S + u64::from(options.slots) * u64::from(SLOT_S))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_draws_one_plan_and_another_seed_another() {
        let options = Options::default();
        let shown = |seed| format!("{:?}", Plan::draw(seed, &options));
        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
    }

    #[test]
    fn all_is_well_after_the_plan_and_every_kind_of_fault_is_drawn() {
        let options = Options::default();
        let mut kinds = BTreeSet::new();
        for seed in 0..300 {
            let plan = Plan::draw(seed, &options);
            assert_eq!(plan.at(plan.healed).count(), 0, "seed {seed}");
            assert!(plan.power_cuts.iter().all(|cut| *cut < plan.healed), "seed {seed}");
            if let Some(bad) = plan.bad_disks {
                assert!(plan.power_cuts.contains(&bad.to), "seed {seed}: nobody goes on with it");
                assert!(plan.has_bad_disks(bad.from) && !plan.has_bad_disks(bad.to), "seed {seed}");
                assert!(plan.events.images.is_empty(), "seed {seed}");
                kinds.insert("bad disks");
            }
            for episode in &plan.episodes {
                assert!(episode.from <= episode.to, "seed {seed}");
                kinds.insert(episode.fault.name());
            }
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }

    #[test]
    fn liars_are_at_most_a_third_of_the_smallest_committee_and_bands_that_many() {
        for (providers, committee, most) in [(4, 4, 1), (7, 7, 2), (9, 4, 1), (21, 21, 6)] {
            let options = Options { providers, committee, ..Options::default() };
            let mut bands = 0;
            for seed in 0..100 {
                let plan = Plan::draw(seed, &options);
                let members = plan.founders - plan.events.removals();
                let least = (members.min(committee.into()) - 1) / 3;
                assert!(least <= most && plan.byzantine.len() <= least, "seed {seed}");
                if plan.band {
                    assert_eq!(plan.byzantine.len(), least, "seed {seed}");
                    bands += 1;
                    let same = plan.byzantine.windows(2).all(|pair| pair[0].1 == pair[1].1);
                    assert!(same, "seed {seed}: one plan");
                }
                for (at, reform) in &plan.events.reforms {
                    assert!(*at < plan.healed && reform.place() < plan.places(), "seed {seed}");
                }
            }
            assert!(bands > 20, "{providers} providers");
        }
    }
}
