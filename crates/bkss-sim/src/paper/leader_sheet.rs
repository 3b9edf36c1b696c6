//! Table 8: the leader's time.

use crate::{
    formulas::table_8::{equations_ms, regression_ms},
    measure::leader::LeaderCost,
    report::{Cell, Sheet},
    tables::{TABLE_8, TABLE_8_METERS, table_8 as printed_ms},
};

/// The table, and whether the curve bends at 22 providers.
pub(super) fn table_8(costs: &[LeaderCost]) -> Sheet {
    let columns = [
        "Num_SM",
        "Num_SP",
        "paper, ms",
        "Eqs 13, 14, best fit, ms",
        "with interaction, ms",
        "ours, both blocks, ms",
        "ours, certificates, ms",
        "ours, ms",
    ];
    let mut sheet =
        Sheet::new("table-8", "the leader's time for one reading of each meter", &columns);
    for meters in TABLE_8_METERS {
        for (providers, _) in TABLE_8 {
            let cost = find(costs, meters, providers);
            sheet.rows.push(vec![
                Cell::Number(meters.into(), 0),
                Cell::Number(providers.into(), 0),
                Cell::maybe(printed_ms(meters, providers), 1),
                Cell::Number(equations_ms(meters, providers), 1),
                Cell::Number(regression_ms(meters, providers), 1),
                Cell::maybe(cost.map(|cost| cost.blocks_ms), 2),
                Cell::maybe(cost.map(|cost| cost.certificates_ms), 2),
                Cell::maybe(cost.map(LeaderCost::total_ms), 2),
            ]);
        }
    }
    sheet.note("best fit: phi = 52.3 us, D_vote = 1.26 ms, Upsilon = Gamma = 0; it misses 4000 meters and 50 providers by 23 ms");
    sheet.note("ours: requests and openings of all meters, one batch of each per provider, executed as a leader does; quorum of min(Num_SP, 21) votes on both blocks checked");
    if let Some(bend) = bend(costs) {
        sheet.note(bend);
    }
    sheet
}

pub(super) fn find(costs: &[LeaderCost], meters: u32, providers: u32) -> Option<&LeaderCost> {
    costs.iter().find(|cost| (cost.meters, cost.providers) == (meters, providers))
}

/// What an added provider costs below 22 and above, by our measurement.
fn bend(costs: &[LeaderCost]) -> Option<String> {
    let mut told = Vec::new();
    for meters in TABLE_8_METERS {
        let total = |providers| find(costs, meters, providers).map(LeaderCost::total_ms);
        let slope =
            |from: u32, to: u32| Some((total(to)? - total(from)?) * 1e3 / f64::from(to - from));
        if let (Some(below), Some(above)) = (slope(5, 22), slope(22, 50)) {
            told.push(format!("{meters} meters: {below:.0} us, then {above:.0} us"));
        }
    }
    let told = told.join("; ");
    (!told.is_empty()).then(|| {
        format!("ours, per added provider from 5 to 22 and from 22 to 50: {told}. Above 21 no votes are added, only batches")
    })
}
