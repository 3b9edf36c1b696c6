//! `bkss sim --plan`: what a seed has planned for its world, without running it.

use bkss_sim::world::{Happening, Liar, Options, PlanSummary, describe};
use serde_json::{Value, json};

use super::shape;
use crate::output;

/// Shows the plan of a seed.
pub(super) fn tell(seed: u64, options: &Options) {
    let plan = describe(seed, options);
    output::result(plan.to_string().trim_end());
    output::object(&json_of(&plan));
}

/// A plan for programs.
pub(super) fn json_of(plan: &PlanSummary) -> Value {
    let happenings = |happenings: &[Happening]| -> Vec<Value> {
        let one = |Happening { from_ms, to_ms, what }: &Happening| json!({ "from_ms": from_ms, "to_ms": to_ms, "what": what });
        happenings.iter().map(one).collect()
    };
    let liar = |Liar { provider, deeds }: &Liar| json!({ "provider": provider, "deeds": deeds });
    json!({
        "seed": plan.seed,
        "world": shape(&plan.options),
        "votes": plan.votes,
        "latency_ms": plan.latency_ms,
        "jitter_ms": plan.jitter_ms,
        "disconnects": plan.disconnects,
        "healed_ms": plan.healed_ms,
        "byzantine": plan.liars.iter().map(liar).collect::<Vec<_>>(),
        "band": plan.band,
        "faults": happenings(&plan.faults),
        "decisions": happenings(&plan.decisions),
    })
}
