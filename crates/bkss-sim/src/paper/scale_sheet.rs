//! `scale`: the same readings, many more of them.

use bkss_ledger::Limits;

use crate::{
    measure::leader::ReadingCost,
    report::{Cell, Sheet},
    scale::{PROVIDER, World, burden},
};

/// Length of a slot, its window, and what people call it.
const RHYTHMS: [(f64, f64, &str); 2] = [(900.0, 300.0, "15 min"), (86_400.0, 3_600.0, "daily")];

/// A row per world.
pub(super) fn sheet(reading: &ReadingCost) -> Sheet {
    let columns = [
        "meters",
        "reading",
        "Num_SP",
        "cores",
        "leader's line, Gbit/s",
        "disk, TB/year",
        "memory, GB",
        "finality, s",
        "ends first",
        "at meters",
    ];
    let mut sheet = Sheet::new("scale", "cost at the scale of countries, per provider", &columns);
    for (slot_s, window_s, rhythm) in RHYTHMS {
        for exponent in 5..=9 {
            for providers in [4.0, 21.0, 50.0] {
                let meters = 10_f64.powi(exponent);
                let world = World { meters, slot_s, window_s, providers };
                let cost = burden(world, reading, PROVIDER);
                sheet.rows.push(vec![
                    Cell::Number(meters, 0),
                    rhythm.into(),
                    Cell::Number(providers, 0),
                    Cell::Number(cost.cores, 3),
                    Cell::Number(cost.line_bit_s / 1e9, 3),
                    Cell::Number(cost.disk_bytes_year / 1e12, 2),
                    Cell::Number(cost.memory_bytes / 1e9, 2),
                    cost.finality_s.map_or("does not keep up".into(), |s| Cell::Number(s, 2)),
                    cost.first.name().into(),
                    Cell::Number(cost.ends_at, 0),
                ]);
            }
        }
    }
    notes(&mut sheet, reading);
    sheet
}

fn notes(sheet: &mut Sheet, reading: &ReadingCost) {
    let ReadingCost { verify_us, ledger_bytes, certificate_us, .. } = reading;
    sheet.note(format!(
        "measured in this run: {verify_us:.2} us and {ledger_bytes:.0} bytes per reading, \
         {certificate_us:.0} us per certificate of 15 votes"
    ));
    sheet.note(format!(
        "assumed of a provider: blocks executed on {} core, {} Gbit/s, {} TB of new disk a year, {} GB of memory, {} ms to another",
        PROVIDER.cores,
        PROVIDER.line_bit_s / 1e9,
        PROVIDER.disk_bytes_year / 1e12,
        PROVIDER.memory_bytes / 1e9,
        PROVIDER.hop_s * 1e3,
    ));
    sheet.note("all requests of a slot in its window: 300 s of 15 minutes, an hour of a day; the leader sends each block to every other provider itself");
    let limits = Limits::default();
    let second = f64::from(limits.block_bytes) / ledger_bytes;
    sheet.note(format!(
        "the limits of a genesis come before: {} MiB per block are {second:.0} readings a second at a block a second, {:.1} million meters at 15 min; a registry holds {:.1} million meters unless founded larger",
        limits.block_bytes >> 20,
        second * 300.0 / 1e6,
        f64::from(limits.meters) / 1e6,
    ));
    sheet.note(format!(
        "those {ledger_bytes:.0} bytes are what blocks hold; a provider's disk took 271 to 327 bytes per reading in docs/performance.md, with indices and the gateway's journal"
    ));
    sheet.note("extrapolated, not simulated");
}
