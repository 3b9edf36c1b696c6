//! Table 6: what a meter stores, by the paper.
//!
//! `S = (256 + 2.1 log2 n) / 1000`, rounded to three digits, gives 13 of the 15 cells. The other two
//! contradict the table itself: `n = 131 400` stands in it twice with different values, and
//! `n = 105 120` has less than `n = 65 700`; no function that grows with `n` can have that.

use super::{CHAIN_YEARS, INTERVALS_MIN, links};

/// The two cells that are not the formula's: `T_certi`, `T_inter`, value.
const EXCEPTIONS: [(u32, u32, f64); 2] = [(10, 40, 0.291), (10, 50, 0.289)];

/// `S` before it is rounded.
pub fn formula(links: u32) -> f64 {
    2.1f64.mul_add(f64::from(links).log2(), 256.0) / 1000.0
}

/// `S` as the table shows it, rounded to three digits.
pub fn rounded(links: u32) -> f64 {
    (formula(links) * 1000.0).round() / 1000.0
}

/// The table's cell.
pub fn printed(chain_years: u32, interval_min: u32) -> f64 {
    let exception = EXCEPTIONS
        .iter()
        .find(|(years, minutes, _)| (*years, *minutes) == (chain_years, interval_min));
    exception.map_or_else(|| rounded(links(chain_years, interval_min)), |(_, _, value)| *value)
}

/// All settings of the table, `T_certi` and `T_inter`.
pub fn settings() -> impl Iterator<Item = (u32, u32)> {
    CHAIN_YEARS.into_iter().flat_map(|years| INTERVALS_MIN.map(|minutes| (years, minutes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_of_fifteen_cells_follow() {
        let exact = settings()
            .filter(|(years, minutes)| {
                printed(*years, *minutes) == rounded(links(*years, *minutes))
            })
            .count();
        assert_eq!((settings().count(), exact), (15, 13));
        // The ends of the range that the paper names.
        let values: Vec<_> = settings().map(|(years, minutes)| printed(years, minutes)).collect();
        assert_eq!(values.iter().copied().fold(f64::MAX, f64::min), 0.284);
        assert_eq!(values.iter().copied().fold(0.0, f64::max), 0.296);
    }

    #[test]
    fn the_other_two_contradict_the_table_itself() {
        assert_eq!(links(5, 20), links(10, 40));
        assert_ne!(printed(5, 20), printed(10, 40));
        assert!(links(10, 50) > links(5, 40) && printed(10, 50) < printed(5, 40));
        assert_eq!(rounded(links(10, 40)), 0.292);
        assert_eq!(rounded(links(10, 50)), 0.291);
    }
}
