//! Figures 9 to 12.

use super::leader_sheet::find;
use crate::{
    formulas::{CHAIN_YEARS, INTERVALS_MIN, links, table_6},
    measure::{leader::LeaderCost, meter::MeterCost, schemes::SchemeCost},
    report::{
        Cell, Part, Sheet,
        chart::{ChartError, Panel, Series, figure},
    },
    tables::{TABLE_8, TABLE_8_METERS, table_6 as printed_kbytes, table_8 as printed_ms},
};

/// The height of a curve at a setting.
type Value<'a> = &'a dyn Fn(u32, u32) -> Option<f64>;

/// Figure 9: storage over `T_inter`, a curve per `T_certi`.
pub(super) fn storage_by_interval(costs: &[MeterCost]) -> Result<Part, ChartError> {
    let curves = |value: Value<'_>| {
        CHAIN_YEARS.map(|years| {
            let point = |minutes| Some((f64::from(minutes), value(years, minutes)?));
            (years_name(years), INTERVALS_MIN.into_iter().filter_map(point).collect())
        })
    };
    let panels = storage(&curves, "T_inter, minutes", costs);
    picture("figure-9", "storage of a meter over the time between readings", &panels)
}

/// Figure 10: storage over `T_certi`, a curve per `T_inter`.
pub(super) fn storage_by_life(costs: &[MeterCost]) -> Result<Part, ChartError> {
    let curves = |value: Value<'_>| {
        INTERVALS_MIN.map(|minutes| {
            let point = |years| Some((f64::from(years), value(years, minutes)?));
            (format!("{minutes} min"), CHAIN_YEARS.into_iter().filter_map(point).collect())
        })
    };
    let panels = storage(&curves, "T_certi, years", costs);
    picture("figure-10", "storage of a meter over the life of its chain", &panels)
}

fn years_name(years: u32) -> String {
    if years == 1 { "1 year".to_owned() } else { format!("{years} years") }
}

/// The paper's function beside what our meter stores.
fn storage<const N: usize>(
    curves: &dyn Fn(Value<'_>) -> [Series; N],
    x: &'static str,
    costs: &[MeterCost],
) -> [Panel; 3] {
    let paper = curves(&printed_kbytes);
    let formula = curves(&|years, minutes| Some(table_6::formula(links(years, minutes))));
    let ours = curves(&|years, minutes| {
        let of = |cost: &&MeterCost| (cost.chain_years, cost.interval_min) == (years, minutes);
        let bytes = u32::try_from(costs.iter().find(of)?.checkpoint_bytes).ok()?;
        Some(f64::from(bytes) / 1e3)
    });
    let lines = |title: &str, y, series: [Series; N], from_zero| Panel::Lines {
        title: title.to_owned(),
        x,
        y,
        series: series.to_vec(),
        from_zero,
    };
    [
        lines("the paper (Table 6)", "S, as printed in KBytes", paper, false),
        lines("(256 + 2.1 log2 n) / 1000", "S, as printed in KBytes", formula, false),
        lines("ours: checkpoints in flash, written once", "KB", ours, true),
    ]
}

/// Figure 11: the leader's time over `Num_SP`, a curve per `Num_SM`.
pub(super) fn leader(costs: &[LeaderCost]) -> Result<Part, ChartError> {
    let curves = |value: Value<'_>| -> Vec<Series> {
        let curve = |meters: u32| {
            let point = |providers| Some((f64::from(providers), value(meters, providers)?));
            let providers = TABLE_8.into_iter().map(|(providers, _)| providers);
            (format!("{meters} meters"), providers.filter_map(point).collect())
        };
        let filled = |(_, points): &Series| !points.is_empty();
        TABLE_8_METERS.map(curve).into_iter().filter(filled).collect()
    };
    let lines = |title: &str, series| Panel::Lines {
        title: title.to_owned(),
        x: "Num_SP",
        y: "ms",
        series,
        from_zero: true,
    };
    let ours =
        curves(&|meters, providers| find(costs, meters, providers).map(LeaderCost::total_ms));
    // The curve of the most meters stands for ours beside the paper's: the others lie below it.
    let beside = ours.last().map(|(name, points)| (format!("ours, {name}"), points.clone()));
    let both: Vec<_> = curves(&printed_ms).into_iter().chain(beside).collect();
    let panels = [
        lines("the paper (Table 8) and ours on one axis", both),
        lines("ours: two blocks, their certificates (own scale)", ours),
    ];
    picture("figure-11", "the leader's time over the number of providers", &panels)
}

/// Figure 12: ours beside what a user would pick instead.
pub(super) fn schemes(costs: &[SchemeCost]) -> Result<Part, ChartError> {
    let bars = |title: &str, names, value: fn(&SchemeCost) -> f64| Panel::Bars {
        title: title.to_owned(),
        bars: costs.iter().map(|cost| (cost.name.to_owned(), value(cost))).collect(),
        names,
    };
    let panels = [
        bars("signing, us (logarithmic)", true, |cost| cost.sign_us),
        bars("checking, us (logarithmic)", false, |cost| cost.verify_us),
        bars("bytes per reading (log.)", false, |cost| cost.bytes),
    ];
    let title = "ours beside other signatures, per reading";
    let mut part = picture("figure-12", title, &panels)?;
    let columns = ["scheme", "sign, us", "check, us", "bytes", "lacks of Table 4", "cannot"];
    let mut sheet = Sheet::new("schemes", "ours beside what a user would pick instead", &columns);
    for cost in costs {
        sheet.rows.push(vec![
            cost.name.into(),
            Cell::Number(cost.sign_us, 2),
            Cell::Number(cost.verify_us, 2),
            Cell::Number(cost.bytes, 1),
            cost.lacks.into(),
            cost.cannot.into(),
        ]);
    }
    sheet.note(
        "lacks: what of F1 to F9 the signature alone does not give; each can be built around it",
    );
    sheet.note("totals of the schemes the paper compares with cannot be derived and are not given");
    sheet.note("ours: signing is v_i, p and q; checking is request and opening in a ledger's blocks, batches' signatures included; bytes are those of both on the ledger less the sealed reading");
    sheet.note("LMS: one key of 1024 signatures in a full run; a meter needs a tree of trees, which is longer");
    part.sheets.push(sheet);
    Ok(part)
}

fn picture(id: &'static str, title: &str, panels: &[Panel]) -> Result<Part, ChartError> {
    Ok(Part { sheets: vec![], figures: vec![figure(id, title, panels)?] })
}
