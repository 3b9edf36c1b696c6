//! What a seed has planned for its world, for people and programs.

use std::fmt;

use bkss_ledger::genesis::Weighing;

use super::{Options, events::Image, faults::Ms, plan::Plan};

/// Something that happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Happening {
    /// From when on, virtual milliseconds.
    pub from_ms: u64,
    /// Until when, if it lasts.
    pub to_ms: Option<u64>,
    /// What.
    pub what: String,
}

/// A Byzantine provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Liar {
    /// Its place.
    pub provider: usize,
    /// What it does.
    pub deeds: Vec<&'static str>,
}

/// The plan of a seed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlanSummary {
    /// The seed.
    pub seed: u64,
    /// The size of its world.
    pub options: Options,
    /// What votes for accounting nodes weigh.
    pub votes: &'static str,
    /// Latency of every link, milliseconds.
    pub latency_ms: u64,
    /// Jitter of every link, milliseconds.
    pub jitter_ms: u64,
    /// Whether peers hang up on whom they have caught lying.
    pub disconnects: bool,
    /// When all is well but the liars, virtual milliseconds.
    pub healed_ms: u64,
    /// Byzantine providers.
    pub liars: Vec<Liar>,
    /// Whether they have one plan for all of them.
    pub band: bool,
    /// What goes wrong by itself, by time.
    pub faults: Vec<Happening>,
    /// What people decide, by time.
    pub decisions: Vec<Happening>,
}

/// The plan of a seed, without running its world.
pub fn describe(seed: u64, options: &Options) -> PlanSummary {
    let plan = Plan::draw(seed, options);
    let liars = plan.byzantine.iter().map(|(provider, deeds)| Liar {
        provider: *provider,
        deeds: deeds.iter().map(|deed| deed.name()).collect(),
    });
    PlanSummary {
        seed,
        options: *options,
        votes: match plan.votes {
            Weighing::Members => "members",
            Weighing::Meters => "meters",
        },
        latency_ms: plan.latency_ms,
        jitter_ms: plan.jitter_ms,
        disconnects: plan.disconnects,
        healed_ms: plan.healed,
        liars: liars.collect(),
        band: plan.band && plan.byzantine.len() > 1,
        faults: faults(&plan),
        decisions: decisions(&plan),
    }
}

fn happening(from_ms: Ms, to_ms: Option<Ms>, what: String) -> Happening {
    Happening { from_ms, to_ms, what }
}

fn faults(plan: &Plan) -> Vec<Happening> {
    let episodes = plan.episodes.iter().map(|episode| {
        let (name, fault) = (episode.fault.name(), &episode.fault);
        happening(episode.from, Some(episode.to), format!("{name}: {fault:?}"))
    });
    let power =
        plan.power_cuts.iter().map(|at| happening(*at, None, "the power goes everywhere".into()));
    let disks = plan.bad_disks.iter().map(|bad| {
        let what = format!("{} of 1000 operations of all disks fail", bad.of_thousand);
        happening(bad.from, Some(bad.to), what)
    });
    let meters = plan.meter_cuts.iter().map(|(at, meter, bytes)| {
        let what = match bytes {
            None => format!("meter {meter} loses its power"),
            Some(bytes) => format!("meter {meter} loses its power {bytes} bytes into a record"),
        };
        happening(*at, None, what)
    });
    sorted(episodes.chain(power).chain(disks).chain(meters).collect())
}

fn decisions(plan: &Plan) -> Vec<Happening> {
    let events = &plan.events;
    let reforms = events.reforms.iter().map(|(at, reform)| {
        let what = format!("provider {} {}", reform.place(), reform.name());
        happening(*at, None, what)
    });
    let renewals = events.renewals.iter().map(|renewal| {
        let (meter, begins) = (renewal.meter, renewal.begins);
        happening(renewal.at, None, format!("meter {meter} gets a chain from slot {begins} on"))
    });
    let recalls = events.recalls.iter().map(|recall| {
        let what = format!("meter {} is revoked, by {:?}", recall.meter, recall.by);
        happening(recall.at, None, what)
    });
    let images = events.images.iter().map(|image| {
        let Image { place, taken, back, .. } = image;
        let what = format!("the disk of provider {place} is put back to what it was at {taken} ms");
        happening(*back, None, what)
    });
    sorted(reforms.chain(renewals).chain(recalls).chain(images).collect())
}

fn sorted(mut happenings: Vec<Happening>) -> Vec<Happening> {
    happenings.sort_by_key(|one| one.from_ms);
    happenings
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_ms, to_ms, what } = self;
        match to_ms {
            Some(to_ms) => write!(f, "{from_ms:>7} to {to_ms:>7} ms  {what}"),
            None => write!(f, "{from_ms:>7} ms             {what}"),
        }
    }
}

impl fmt::Display for PlanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { providers, committee, round_blocks, meters, slots } = self.options;
        let Self { seed, votes, latency_ms, jitter_ms, healed_ms, .. } = self;
        writeln!(
            f,
            "seed {seed}: {providers} providers for {committee} seats, votes of {votes}, rounds of \
             {round_blocks} blocks, {meters} meters, {slots} slots; links of {latency_ms} ms and up \
             to {jitter_ms} ms more"
        )?;
        let hang_up = if self.disconnects { "hang up on liars" } else { "talk to liars" };
        writeln!(f, "peers {hang_up}; all is well from {healed_ms} ms on")?;
        for Liar { provider, deeds } in &self.liars {
            writeln!(f, "provider {provider} is Byzantine: {}", deeds.join(", "))?;
        }
        if self.band {
            writeln!(f, "the Byzantine ones have one plan")?;
        }
        for (title, happenings) in [("goes wrong", &self.faults), ("is decided", &self.decisions)] {
            writeln!(f, "{title}:")?;
            for one in happenings {
                writeln!(f, "  {one}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_told_with_all_that_is_in_it() {
        let options = Options::default();
        let (mut liars, mut decisions) = (0, 0);
        for seed in 1..60 {
            let plan = describe(seed, &options);
            let told = plan.to_string();
            let lines = 4 + plan.liars.len() + plan.faults.len() + plan.decisions.len();
            assert_eq!(told.lines().count(), lines, "seed {seed}:\n{told}");
            assert_eq!(plan, describe(seed, &options));
            liars += plan.liars.len();
            decisions += plan.decisions.len();
        }
        assert!(liars > 20 && decisions > 60, "{liars} liars, {decisions} decisions");
    }
}
