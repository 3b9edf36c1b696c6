//! Table 7: a meter's time, by the closed form behind it.
//!
//! `2 S / rate` at 50 and 10 Mb/s with the `S` of Table 6 read as Mbit: Eq 12 with `omega + 2 phi`
//! collapsed into hashing what is stored twice, and `zeta` and `eta` left out, as the paper allows.
//! All twelve numbers that the paper prints follow so. In `KBytes`, as Table 6 has it, the times would
//! be 125 times smaller, in kbit a thousand times.

use super::eq_12;

/// Hash rates of the table, Mb/s.
pub const RATES_MBIT_S: [f64; 2] = [50.0, 10.0];

/// `2 S / rate`, milliseconds, `S` read as Mbit.
pub fn formula_ms(stored: f64, rate_mbit_s: f64) -> f64 {
    eq_12(0.0, 1000.0 * stored / rate_mbit_s, 0.0, 0.0)
}

/// The same with `S` in `KBytes`, as Table 6 says.
pub fn in_kbytes_ms(stored: f64, rate_mbit_s: f64) -> f64 {
    formula_ms(stored * 8.0 / 1000.0, rate_mbit_s)
}

/// A real count at the same rate: `k + 4` compressions of 512 bits for `k = ceil(log2 n)`.
pub fn counted_ms(links: u32, rate_mbit_s: f64) -> f64 {
    let levels = f64::from(links).log2().ceil();
    (levels + 4.0) * 512.0 / (rate_mbit_s * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{formulas::links, tables};

    fn hundredths(value: f64) -> f64 {
        (value * 100.0).round() / 100.0
    }

    #[test]
    fn all_twelve_printed_numbers_follow_from_the_printed_cells_of_table_6() {
        for (years, minutes, low, high) in tables::TABLE_7 {
            let stored = tables::table_6(years, minutes).unwrap();
            let computed = RATES_MBIT_S.map(|rate| hundredths(formula_ms(stored, rate)));
            assert_eq!(computed, [low, high], "{years} years, {minutes} minutes");
        }
    }

    #[test]
    fn the_unit_is_wrong_by_125() {
        let ratio = formula_ms(0.289, 50.0) / in_kbytes_ms(0.289, 50.0);
        assert!((ratio - 125.0).abs() < 1e-9);
        assert!((in_kbytes_ms(0.289, 50.0) - 0.092_48).abs() < 1e-9);
        assert!(counted_ms(links(10, 10), 50.0) < 0.26);
        assert!(counted_ms(links(10, 10), 10.0) < 1.24);
    }
}
