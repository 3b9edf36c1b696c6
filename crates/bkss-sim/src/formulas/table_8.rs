//! Table 8 and Figure 11: the leader's time, by the paper.
//!
//! Our copy has the row of 5 providers, one more cell, and the slopes between rows to a hundredth
//! of a millisecond. Where that leaves one value of a tenth of a millisecond, the cell is given;
//! where it leaves two, it is not available. Eqs 13 and 14 cannot give the table: it needs a term
//! in `Num_SM * Num_SP`.

use super::{eq_13, eq_14};

/// `Num_SM` of the table.
pub const METERS: [u32; 4] = [1000, 2000, 3000, 4000];
/// `Num_SP` of the table.
pub const PROVIDERS: [u32; 6] = [5, 10, 15, 22, 40, 50];
/// `phi` of the best fit, milliseconds.
pub const BEST_PHI_MS: f64 = 0.0523;
/// `D_vote` of the best fit, milliseconds.
pub const BEST_VOTE_MS: f64 = 1.26;

/// First row, milliseconds: 51.2 us per meter and 0.2, 0.2, 0.4, 1.1 ms.
const FIRST_ROW: [f64; 4] = [51.4, 102.6, 154.0, 205.9];
/// Slopes between rows, hundredths of a millisecond per added provider, by column.
const SLOPES: [[i64; 5]; 4] =
    [[6, 24, 33, 44, 89], [48, 118, 74, 51, 94], [74, 154, 184, 72, 130], [84, 136, 211, 66, 215]];

/// The table's cell, milliseconds; `None` where our copy leaves more than one value.
pub fn printed_ms(meters: u32, providers: u32) -> Option<f64> {
    let column = METERS.iter().position(|known| *known == meters)?;
    let row = PROVIDERS.iter().position(|known| *known == providers)?;
    let mut value = FIRST_ROW[column];
    for step in 0..row {
        let added = i64::from(PROVIDERS[step + 1] - PROVIDERS[step]);
        value += only_tenths(SLOPES[column][step], added)?;
    }
    Some((value * 10.0).round() / 10.0)
}

/// The one difference in tenths of a millisecond whose slope rounds to this one.
fn only_tenths(slope: i64, added: i64) -> Option<f64> {
    // In thousandths: slope +- 0.005 times the providers added, against steps of 100.
    let (least, most) = ((10 * slope - 5) * added, (10 * slope + 5) * added);
    let first = least.div_euclid(100) + i64::from(least.rem_euclid(100) > 0);
    let last = most.div_euclid(100);
    let tenths = i32::try_from(first).ok()?;
    (first == last).then(|| f64::from(tenths) / 10.0)
}

/// Eqs 13 and 14 with the constants that fit the table best, milliseconds.
pub fn equations_ms(meters: u32, providers: u32) -> f64 {
    let theta = eq_14(BEST_VOTE_MS, providers.into());
    eq_13(BEST_PHI_MS, meters.into(), theta)
}

/// The regression with an interaction term, milliseconds:
/// `-2.9 + 50.6 N + 0.17 Num_SP + 0.28 N Num_SP`, `N` in thousands of meters.
pub fn regression_ms(meters: u32, providers: u32) -> f64 {
    let (thousands, providers) = (f64::from(meters) / 1000.0, f64::from(providers));
    0.28f64.mul_add(
        thousands * providers,
        0.17f64.mul_add(providers, 50.6f64.mul_add(thousands, -2.9)),
    )
}

/// Slope of the paper's curve between two rows, milliseconds per added provider.
pub fn slope_ms(meters: u32, step: usize) -> Option<f64> {
    let column = METERS.iter().position(|known| *known == meters)?;
    let slope = i32::try_from(*SLOPES[column].get(step)?).ok()?;
    Some(f64::from(slope) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_our_copy_determines_is_given_and_nothing_else() {
        assert_eq!(printed_ms(1000, 5), Some(51.4));
        assert_eq!(printed_ms(4000, 5), Some(205.9));
        // Recorded on its own, and reached over the slopes.
        assert_eq!(printed_ms(1000, 22), Some(55.2));
        let cells = METERS.map(|meters| PROVIDERS.map(|sps| printed_ms(meters, sps)));
        let known = cells.as_flattened().iter().flatten().count();
        assert_eq!(known, 16, "the rows of 40 and 50 providers are not determined");
        assert_eq!(printed_ms(1000, 6), None);
    }

    #[test]
    fn the_equations_miss_the_table_and_an_interaction_term_fits() {
        let (mut worst, mut regressed) = (0.0_f64, 0.0_f64);
        for meters in METERS {
            for providers in PROVIDERS {
                let Some(printed) = printed_ms(meters, providers) else { continue };
                worst = worst.max((equations_ms(meters, providers) - printed).abs());
                regressed = regressed.max((regression_ms(meters, providers) - printed).abs());
            }
        }
        assert!(worst > 7.0, "{worst}");
        assert!(regressed < 8.0, "{regressed}");
    }

    #[test]
    fn the_slope_dips_at_22_and_rises_again_where_21_nodes_work_as_before() {
        for meters in METERS {
            let [before, over, after] = [2, 3, 4].map(|step| slope_ms(meters, step).unwrap());
            assert!(after > over, "{meters}: a new rise from 40 to 50");
            assert!(over < before || meters == 1000, "{meters}: a dip from 22 to 40");
        }
    }
}
