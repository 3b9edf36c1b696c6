//! Table 6: what a meter stores, by the closed form behind it.
//!
//! `S = (256 + 2.1 log2 n) / 1000`, rounded to three digits, gives 13 of the 15 cells that the paper
//! prints. The other two contradict the table itself: `n = 131 400` stands in it twice with different
//! values, and `n = 105 120` has less than `n = 65 700`; no function that grows with `n` can have
//! that.

use super::{CHAIN_YEARS, INTERVALS_MIN};

/// `S` before it is rounded.
pub fn formula(links: u32) -> f64 {
    2.1f64.mul_add(f64::from(links).log2(), 256.0) / 1000.0
}

/// `S` to three digits, as the table shows it.
pub fn rounded(links: u32) -> f64 {
    (formula(links) * 1000.0).round() / 1000.0
}

/// All settings of the table, `T_certi` and `T_inter`.
pub fn settings() -> impl Iterator<Item = (u32, u32)> {
    CHAIN_YEARS.into_iter().flat_map(|years| INTERVALS_MIN.map(|minutes| (years, minutes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{formulas::links, tables};

    fn printed(years: u32, minutes: u32) -> f64 {
        tables::table_6(years, minutes).unwrap()
    }

    #[test]
    fn thirteen_of_the_fifteen_printed_cells_follow() {
        let differ: Vec<_> = settings()
            .filter(|(years, minutes)| {
                printed(*years, *minutes) != rounded(links(*years, *minutes))
            })
            .collect();
        assert_eq!((settings().count(), differ), (15, vec![(10, 40), (10, 50)]));
        assert_eq!(rounded(links(10, 40)), 0.292);
        assert_eq!(rounded(links(10, 50)), 0.291);
    }

    #[test]
    fn the_other_two_contradict_the_table_itself() {
        assert_eq!(links(5, 20), links(10, 40));
        assert_ne!(printed(5, 20), printed(10, 40));
        assert!(links(10, 50) > links(5, 40) && printed(10, 50) < printed(5, 40));
    }
}
