//! Table 7: a meter's time, by the paper.
//!
//! `2 S / rate` at 50 and 10 Mb/s with `S` of Table 6 read as Mbit: Eq 12 with `omega + 2 phi`
//! collapsed into hashing what is stored twice. All twelve numbers of the table follow so; which
//! twelve of the thirty settings it shows is not recorded in our copy, so all thirty are given. In
//! `KBytes`, as Table 6 has it, the times would be 125 times smaller, in kbit a thousand times.

use super::eq_12;

/// Hash rates of the table, Mb/s.
pub const RATES_MBIT_S: [f64; 2] = [50.0, 10.0];

/// `2 S / rate`, milliseconds, `S` read as Mbit.
pub fn printed_ms(stored: f64, rate_mbit_s: f64) -> f64 {
    eq_12(0.0, 1000.0 * stored / rate_mbit_s)
}

/// The same with `S` in `KBytes`, as Table 6 says.
pub fn in_kbytes_ms(stored: f64, rate_mbit_s: f64) -> f64 {
    printed_ms(stored * 8.0 / 1000.0, rate_mbit_s)
}

/// A real count at the same rate: `k + 4` compressions of 512 bits for `k = ceil(log2 n)`.
pub fn counted_ms(links: u32, rate_mbit_s: f64) -> f64 {
    let levels = f64::from(links).log2().ceil();
    (levels + 4.0) * 512.0 / (rate_mbit_s * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formulas::{links, table_6};

    fn hundredths(value: f64) -> f64 {
        (value * 100.0).round() / 100.0
    }

    #[test]
    fn the_recorded_numbers_follow() {
        assert_eq!(hundredths(printed_ms(0.289, 50.0)), 11.56);
        assert_eq!(hundredths(printed_ms(0.289, 10.0)), 57.80);
        // The range that the paper adds up in Figure 12: 11.4 to 58.
        assert_eq!((printed_ms(table_6::printed(1, 50), 50.0) * 10.0).round() / 10.0, 11.4);
        assert_eq!(printed_ms(table_6::printed(1, 10), 10.0).round(), 58.0);
    }

    #[test]
    fn the_unit_is_wrong_by_125() {
        let ratio = printed_ms(0.289, 50.0) / in_kbytes_ms(0.289, 50.0);
        assert!((ratio - 125.0).abs() < 1e-9);
        assert!((in_kbytes_ms(0.289, 50.0) - 0.092_48).abs() < 1e-9);
        assert!(counted_ms(links(10, 10), 50.0) < 0.26);
        assert!(counted_ms(links(10, 10), 10.0) < 1.24);
    }
}
