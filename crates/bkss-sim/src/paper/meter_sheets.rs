//! Tables 5, 6 and 7: what a meter stores and how long it works.

use super::settings;
use crate::{
    formulas::{links, table_5_chain_bytes, table_6 as stored, table_7 as time},
    measure::meter::MeterCost,
    report::{Cell, Sheet},
    tables,
};

fn bytes(value: u64) -> Cell {
    Cell::Number(f64::from(u32::try_from(value).unwrap_or(u32::MAX)), 0)
}

/// The setting's three columns.
fn head(years: u32, minutes: u32) -> Vec<Cell> {
    [years, minutes, links(years, minutes)].map(|value| Cell::Number(value.into(), 0)).to_vec()
}

const SETTING: [&str; 3] = ["T_certi, years", "T_inter, min", "n"];

/// Table 5 as the paper prints it: what each party stores, beside where ours has it.
pub(super) fn what_is_stored() -> Sheet {
    let columns = ["party", "the paper", "ours"];
    let mut sheet = Sheet::new("table-5-items", "what each party stores", &columns);
    for (party, item, ours) in [
        (
            "SP",
            "PK, SK",
            "keys of identity, votes and sealing (keys.bkss); those of others in the genesis",
        ),
        ("SP", "T_s", "block headers and the accepted requests in them"),
        ("SP", "LA, Trans", "the agreement's digest in the genesis; all blocks"),
        ("SM", "v_0, v_1, .., v_n", "checkpoints of the chain, from which each link is walked to"),
        ("SM", "T_s", "the newest certified ledger time, in memory"),
        ("SM", "r", "its root message, r in it"),
    ] {
        sheet.rows.push(vec![party.into(), item.into(), ours.into()]);
    }
    sheet
}

/// Table 5.
pub(super) fn table_5(costs: &[MeterCost]) -> Sheet {
    let columns = [
        &SETTING[..],
        &[
            "paper: v_0 .. v_n, bytes",
            "Table 6 says, KBytes",
            "ours: flash, written once, bytes",
            "ours: rewritten per slot, bytes",
        ],
    ]
    .concat();
    let mut sheet = Sheet::new("table-5", "what a meter stores", &columns);
    for (years, minutes, cost) in settings(costs) {
        let mut row = head(years, minutes);
        row.push(bytes(table_5_chain_bytes(links(years, minutes))));
        row.push(Cell::maybe(tables::table_6(years, minutes), 3));
        row.push(cost.map_or(Cell::NotAvailable, |cost| bytes(cost.checkpoint_bytes)));
        row.push(cost.map_or(Cell::NotAvailable, |cost| bytes(cost.record_bytes as u64)));
        sheet.rows.push(row);
    }
    sheet
        .note("the paper's text has the meter store the whole chain: a thousand times its Table 6");
    sheet.note("ours beside that: some 300 bytes of constants, and less than 400 bytes of memory");
    sheet
}

/// Table 6.
pub(super) fn table_6(costs: &[MeterCost]) -> Sheet {
    let columns =
        [&SETTING[..], &["paper, KBytes", "(256 + 2.1 log2 n) / 1000", "the same", "ours, KB"]]
            .concat();
    let mut sheet = Sheet::new("table-6", "storage of a meter", &columns);
    let mut same = 0;
    for (years, minutes, cost) in settings(costs) {
        let (printed, formula) =
            (tables::table_6(years, minutes), stored::formula(links(years, minutes)));
        let agrees = printed == Some(stored::rounded(links(years, minutes)));
        same += u32::from(agrees);
        let mut row = head(years, minutes);
        row.push(Cell::maybe(printed, 3));
        row.push(Cell::Number(formula, 4));
        row.push(if agrees { "yes" } else { "no" }.into());
        let kilobytes = cost
            .map(|cost| f64::from(u32::try_from(cost.checkpoint_bytes).unwrap_or(u32::MAX)) / 1e3);
        row.push(Cell::maybe(kilobytes, 3));
        sheet.rows.push(row);
    }
    sheet.note(format!(
        "{same} of 15 cells follow from the closed form; the other two contradict the table itself"
    ));
    sheet.note("256 bits and 2.1 bits per level: the unit can only be kbit, not KBytes");
    sheet.note("no construction behind the claim is known: 0.289 kbit is one hash and four bytes");
    sheet
}

/// Table 7.
pub(super) fn table_7(costs: &[MeterCost]) -> Sheet {
    let columns = [
        &SETTING[..],
        &[
            "paper, low, ms",
            "paper, high, ms",
            "2 S / 50 Mb/s, ms",
            "2 S / 10 Mb/s, ms",
            "S in KBytes, 50 Mb/s, ms",
            "counted, 50 Mb/s, ms",
            "ours, average, us",
            "ours, worst slot, us",
        ],
    ]
    .concat();
    let mut sheet = Sheet::new("table-7", "a meter's time for one reading", &columns);
    for (years, minutes, cost) in settings(costs) {
        let value = stored::rounded(links(years, minutes));
        let printed = tables::table_7(years, minutes);
        let mut row = head(years, minutes);
        row.push(Cell::maybe(printed.map(|(low, _)| low), 2));
        row.push(Cell::maybe(printed.map(|(_, high)| high), 2));
        row.extend(time::RATES_MBIT_S.map(|rate| Cell::Number(time::formula_ms(value, rate), 2)));
        row.push(Cell::Number(time::in_kbytes_ms(value, time::RATES_MBIT_S[0]), 4));
        row.push(Cell::Number(time::counted_ms(links(years, minutes), time::RATES_MBIT_S[0]), 3));
        row.push(Cell::maybe(cost.map(|cost| cost.average_us), 1));
        row.push(Cell::maybe(cost.map(|cost| cost.worst_us), 1));
        sheet.rows.push(row);
    }
    sheet.note("the paper prints six of these settings; all its twelve numbers are 2 S / rate with S of Table 6 taken for Mbit");
    sheet.note("ours: v_i from its checkpoint, H(body), p and q, by the meter's code on this machine, not on a meter");
    sheet.note("neither has the encryption in it, which the paper does not consider");
    sheet
}
