//! What goes wrong in a world, and when: drawn from its seed before it begins.
//!
//! Until the plan's end anything may fail at any time; safety must hold. From then on everything is
//! well but what Byzantine providers do; what was promised must come true.

use std::time::Duration;

use commonware_p2p::simulated::Link;
use commonware_runtime::deterministic::{FaultConfig, PartialWriteMode, ResizeConfig, WriteConfig};
use commonware_utils::{Probability, probability};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

use super::{
    Options,
    founding::{LEAD_S, SLOT_S},
    liar::Deed,
};

/// Milliseconds of virtual time from the start of a world.
pub(super) type Ms = u64;

/// Something that is wrong for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Every link loses so many messages of a thousand.
    Loss(u64),
    /// Links between the providers of these two sets (bits) are cut, both ways.
    Split(u64),
    /// What one provider says does not reach another.
    OneWay(usize, usize),
    /// What a provider says and hears is late by so many milliseconds more.
    Slow(usize, u64),
    /// Nothing reaches or leaves a provider. Several of these that overlap swizzle the network.
    Clogged(usize),
    /// A provider is dead.
    Dead(usize),
    /// A provider's clock stands still.
    ClockStops(usize),
    /// Meters lose so many messages of a thousand and send some twice.
    Mail(u64),
    /// These meters (every so many-th, from a first one) cannot be reached and reach nobody.
    Away(u32, u32),
}

/// A fault and its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Episode {
    pub(super) from: Ms,
    pub(super) to: Ms,
    pub(super) fault: Fault,
}

/// Disks that fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BadDisks {
    pub(super) from: Ms,
    /// One of the plan's power cuts: whoever has a bad disk is switched off.
    pub(super) to: Ms,
    /// So many of a thousand operations fail.
    pub(super) of_thousand: u64,
}

/// All that goes wrong in a world.
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
    /// Whether peers hang up on whom they have caught lying.
    pub(super) disconnects: bool,
    /// From here on all is well.
    pub(super) healed: Ms,
}

/// A source of small numbers.
pub(super) struct Dice(pub(super) ChaCha8Rng);

impl Dice {
    /// Independent of other dice of the same seed with another name.
    pub(super) fn new(seed: u64, name: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(name);
        Self(rng)
    }

    /// A number from `0..below`; 0 if there is none.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.0.next_u64() % below.max(1)
    }

    /// A number from a range, its end included.
    pub(super) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times of a thousand.
    pub(super) fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    fn place(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).unwrap_or(0)
    }

    fn skew(&mut self) -> i64 {
        i64::try_from(self.below(201)).unwrap_or(0) - 100
    }
}

impl Plan {
    /// Nothing goes wrong.
    pub(super) fn calm(options: &Options) -> Self {
        Self {
            latency_ms: 20,
            jitter_ms: 5,
            episodes: Vec::new(),
            power_cuts: Vec::new(),
            bad_disks: None,
            meter_cuts: Vec::new(),
            skews: vec![0; options.providers.into()],
            jump_ms: 0,
            byzantine: Vec::new(),
            disconnects: true,
            healed: end_of_slots(options),
        }
    }

    /// The plan of a seed.
    pub(super) fn draw(seed: u64, options: &Options) -> Self {
        let dice = &mut Dice::new(seed, 1);
        let providers = usize::from(options.providers);
        let mut plan = Self::calm(options);
        plan.latency_ms = dice.within(2, 60);
        plan.jitter_ms = dice.below(plan.latency_ms);
        plan.skews = (0..providers).map(|_| dice.skew()).collect();
        plan.jump_ms = dice.skew();
        plan.disconnects = dice.chance(500);
        let end = plan.healed;
        for _ in 0..dice.within(2, 8) {
            let from = dice.below(end);
            let to = (from + dice.within(300, 8000)).min(end);
            let fault = fault(dice, providers, options.meters);
            plan.episodes.push(Episode { from, to, fault });
        }
        if dice.chance(200) {
            plan.swizzle(dice, providers);
        }
        if dice.chance(400) {
            plan.power_cuts = (0..dice.within(1, 2)).map(|_| dice.within(500, end - 500)).collect();
            plan.power_cuts.sort_unstable();
        }
        for _ in 0..dice.below(u64::from(options.meters) / 2 + 1) {
            let which = u32::try_from(dice.below(options.meters.into())).unwrap_or(0);
            let bytes = dice.chance(500).then(|| dice.place(17));
            plan.meter_cuts.push((dice.below(end), which, bytes));
        }
        plan.meter_cuts.sort_unstable();
        plan.draw_byzantine(dice, options);
        if dice.chance(150) {
            plan.break_disks(dice);
        }
        plan
    }

    /// Disks of all providers fail now and then, until the power goes.
    fn break_disks(&mut self, dice: &mut Dice) {
        let to = dice.within(1000, self.healed - 500);
        let from = to.saturating_sub(dice.within(100, 3000));
        self.bad_disks = Some(BadDisks { from, to, of_thousand: dice.within(1, 50) });
        self.power_cuts.push(to);
        self.power_cuts.sort_unstable();
    }

    /// Whether disks fail at a time, and what is left of the bytes that were not flushed when the
    /// power goes: any of them.
    pub(super) fn disks(&self, now: Ms) -> FaultConfig {
        let bad = self.bad_disks.filter(|bad| bad.from <= now && now < bad.to);
        let rate = bad.map_or(0, |bad| bad.of_thousand);
        let rate = Probability::new(rate.min(1000), 1000).unwrap_or(probability!(0.0));
        let (retention_rate, mode) = (probability!(0.5), PartialWriteMode::Subset);
        FaultConfig::default()
            .write(WriteConfig { failure_rate: rate, retention_rate, mode })
            .resize(ResizeConfig { failure_rate: rate, partial_rate: probability!(0.5) })
            .open(rate)
            .read(rate)
            .sync(rate)
            .remove(rate)
            .scan(rate)
    }

    /// Whether disks fail at a time.
    pub(super) fn has_bad_disks(&self, now: Ms) -> bool {
        self.bad_disks.is_some_and(|bad| bad.from <= now && now < bad.to)
    }

    /// Up to f of the committee do what they must not.
    fn draw_byzantine(&mut self, dice: &mut Dice, options: &Options) {
        let faulty = usize::from((options.committee.min(options.providers) - 1) / 3);
        let first = dice.place(options.providers.into());
        let count = dice.place(faulty + 1).max(dice.place(faulty + 1));
        for offset in 0..count {
            let deeds = (0..dice.within(1, 3)).map(|_| Deed::draw(dice)).collect();
            self.byzantine.push(((first + offset) % usize::from(options.providers), deeds));
        }
    }

    /// Providers are clogged one after the other, and let go in another order.
    fn swizzle(&mut self, dice: &mut Dice, providers: usize) {
        let (begin, length) = (dice.below(self.healed), dice.within(1000, 6000));
        for place in (0..providers).filter(|_| dice.chance(600)).collect::<Vec<_>>() {
            let from = (begin + dice.below(length)).min(self.healed);
            let to = (from + dice.within(100, length)).min(self.healed);
            self.episodes.push(Episode { from, to, fault: Fault::Clogged(place) });
        }
    }

    /// What is wrong at a time.
    pub(super) fn at(&self, now: Ms) -> impl Iterator<Item = &Fault> {
        let on = move |episode: &&Episode| episode.from <= now && now < episode.to;
        self.episodes.iter().filter(on).map(|episode| &episode.fault)
    }

    /// The link from one provider to another at a time; `None` if it is cut.
    pub(super) fn link(&self, now: Ms, from: usize, to: usize) -> Option<Line> {
        let mut line = Line { latency_ms: self.latency_ms, loss: 0 };
        for fault in self.at(now) {
            match fault {
                Fault::Loss(of_thousand) => line.loss = line.loss.max(*of_thousand),
                Fault::Split(side) if (side >> from & 1) != (side >> to & 1) => return None,
                Fault::OneWay(one, other) if (*one, *other) == (from, to) => return None,
                Fault::Clogged(place) if *place == from || *place == to => return None,
                Fault::Slow(place, more) if *place == from || *place == to => {
                    line.latency_ms += more;
                }
                _ => {}
            }
        }
        Some(line)
    }

    /// A line as the network takes it.
    pub(super) fn as_link(&self, line: Line) -> Link {
        Link {
            latency: Duration::from_millis(line.latency_ms),
            jitter: Duration::from_millis(self.jitter_ms),
            success_rate: Probability::new(1000 - line.loss.min(1000), 1000)
                .unwrap_or(probability!(1.0)),
        }
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

/// How a link is at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Line {
    pub(super) latency_ms: u64,
    /// Messages lost, of a thousand.
    pub(super) loss: u64,
}

/// The end of the slots whose readings must all be final in the end.
fn end_of_slots(options: &Options) -> Ms {
    1000 * (LEAD_S + u64::from(options.slots) * u64::from(SLOT_S))
}

fn fault(dice: &mut Dice, providers: usize, meters: u32) -> Fault {
    let place = dice.place(providers);
    match dice.below(10) {
        0 => Fault::Loss(dice.within(10, 400)),
        1 => Fault::Split(dice.0.next_u64()),
        2 => Fault::OneWay(place, (place + 1 + dice.place(providers - 1)) % providers),
        3 => Fault::Slow(place, dice.within(50, 1500)),
        4 => Fault::Clogged(place),
        5 | 6 => Fault::Dead(place),
        7 => Fault::ClockStops(place),
        8 => Fault::Mail(dice.within(50, 700)),
        _ => {
            let every = dice.within(1, 4);
            let first = dice.below(every);
            let small = |number: u64| u32::try_from(number).unwrap_or(0).min(meters);
            Fault::Away(small(every).max(1), small(first))
        }
    }
}

#[cfg(test)]
mod tests {
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
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let plan = Plan::draw(seed, &options);
            assert_eq!(plan.at(plan.healed).count(), 0, "seed {seed}");
            assert!(plan.power_cuts.iter().all(|cut| *cut < plan.healed), "seed {seed}");
            assert!(plan.byzantine.len() <= 1, "seed {seed}: f of four is one");
            if let Some(bad) = plan.bad_disks {
                assert!(plan.power_cuts.contains(&bad.to), "seed {seed}: nobody goes on with it");
                assert!(plan.has_bad_disks(bad.from) && !plan.has_bad_disks(bad.to), "seed {seed}");
                kinds.insert("BadDisks".to_owned());
            }
            for episode in &plan.episodes {
                assert!(episode.from <= episode.to, "seed {seed}");
                let name = format!("{:?}", episode.fault);
                kinds.insert(name.split('(').next().unwrap_or_default().to_owned());
            }
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }

    #[test]
    fn a_split_cuts_links_between_its_sides_alone() {
        let mut plan = Plan::calm(&Options::default());
        plan.episodes.push(Episode { from: 10, to: 20, fault: Fault::Split(0b0011) });
        for (now, from, to, whole) in [(9, 0, 2, true), (10, 0, 2, false), (10, 0, 1, true)] {
            assert_eq!(plan.link(now, from, to).is_some(), whole, "{from} to {to} at {now}");
        }
    }
}
