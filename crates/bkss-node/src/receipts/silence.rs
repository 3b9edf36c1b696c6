//! Meters that nothing is heard of.

use std::collections::BTreeMap;

use bkss_ledger::View;
use bkss_scheme::{MeterId, ProviderId};

use super::number;

/// Meters of an owner that have opened none of their last two slots.
pub fn silent_meters(view: &View<'_>, owner: ProviderId) -> (u32, u32) {
    let time = view.head().time;
    let mut newest: BTreeMap<MeterId, (u32, u32)> = BTreeMap::new();
    for row in 0..view.chain_count() {
        let Some(chain) = view.chain(row).filter(|chain| chain.owner == owner) else { continue };
        let schedule = chain.schedule;
        // The newest slot whose window has closed.
        let now = schedule.slot_at(time).0.saturating_sub(1);
        let due = now.saturating_sub(schedule.first.0).saturating_add(1);
        let due = if now < schedule.first.0 { 0 } else { due.min(schedule.slots.into()) };
        let last = view.live(row).map_or(0, |live| live.last_index);
        newest.insert(chain.meter, (last, u32::try_from(due).unwrap_or(u32::MAX)));
    }
    let silent = newest.values().filter(|(last, due)| *due >= 2 && last + 2 <= *due).count();
    (number(newest.len()), number(silent))
}
