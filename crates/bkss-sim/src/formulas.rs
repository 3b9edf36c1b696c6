//! The paper's cost formulas with its own symbols (Eq 11 to 14), and the closed forms behind its
//! tables (scheme s6).
//!
//! | symbol | meaning | unit |
//! |---|---|---|
//! | `Num_SM` | meters | |
//! | `Num_SP` | providers | |
//! | `T_certi` | life of a chain | years |
//! | `T_inter` | time between readings | minutes |
//! | `n` | links of a chain, `T_certi * 525600 / T_inter` | |
//! | `S` | what a meter stores (Table 6) | "`KBytes`" |
//! | `S_totle` | what a provider stores (Eq 11) | bit |
//! | `Psi_SM`, `Psi_SP` | a meter's and the leader's work on one reading and one block | ms |
//! | `phi` | one hash | ms |
//! | `omega` | walking the chain to a key | ms |
//! | `zeta`, `eta` | what else a meter does; the paper leaves it out | ms |
//! | `D_vote` | one vote | ms |
//! | `Theta` | collecting the votes | ms |
//! | `Lambda` | hashing what the meters sent, `phi * Num_SM` | ms |
//! | `Upsilon`, `Gamma` | what else a leader does | ms |
//!
//! No value here is measured. What the paper prints is in [`tables`](crate::tables).

pub mod table_6;
pub mod table_7;
pub mod table_8;

/// Minutes of a year.
pub const MINUTES_A_YEAR: u32 = 525_600;
/// `T_certi` of Tables 5 to 7, years.
pub const CHAIN_YEARS: [u32; 3] = [1, 5, 10];
/// `T_inter` of Tables 5 to 7, minutes.
pub const INTERVALS_MIN: [u32; 5] = [10, 20, 30, 40, 50];

/// `n = T_certi * 525600 / T_inter`: links of a chain.
pub const fn links(chain_years: u32, interval_min: u32) -> u32 {
    chain_years * MINUTES_A_YEAR / interval_min
}

/// Eq 11 as printed: transactions of `Num_SM` meters over `T_certi`,
/// `Num_SM * 2.628e6 * T_certi / T_inter`.
///
/// `2.628e6` is the number of minutes in five years, so with `T_certi` in years it counts every
/// transaction five times. See [`eq_11_transactions`].
pub fn eq_11_printed(meters: f64, chain_years: f64, interval_min: f64) -> f64 {
    meters * 2.628e6 * chain_years / interval_min
}

/// Eq 11 with the minutes of one year.
pub fn eq_11_transactions(meters: f64, chain_years: f64, interval_min: f64) -> f64 {
    meters * f64::from(MINUTES_A_YEAR) * chain_years / interval_min
}

/// Bits of Eq 11 that do not grow: `l_PK`, `l_SK`, the time stamp and the agreement `LA`.
pub const EQ_11_CONSTANT_BITS: u32 = 256 + 256 + 10 + 32;

/// Eq 11 as printed: `S_totle`, bits that a provider stores for so many transactions of
/// `transaction_bits`, `l_PK + l_SK + l_timestamp + l_Am + l_Trans * transactions`.
pub fn eq_11(transaction_bits: f64, transactions: f64) -> f64 {
    transaction_bits.mul_add(transactions, f64::from(EQ_11_CONSTANT_BITS))
}

/// Eq 12: a meter's work on one reading, `Psi_SM = omega + 2 phi + zeta + eta`, milliseconds.
pub fn eq_12(omega_ms: f64, phi_ms: f64, zeta_ms: f64, eta_ms: f64) -> f64 {
    2.0f64.mul_add(phi_ms, omega_ms) + zeta_ms + eta_ms
}

/// Eq 13: the leader's work on one block, `Psi_SP = Theta + Upsilon + Gamma + Lambda`, milliseconds;
/// `Lambda = phi * Num_SM`.
pub fn eq_13(theta_ms: f64, upsilon_ms: f64, gamma_ms: f64, lambda_ms: f64) -> f64 {
    theta_ms + upsilon_ms + gamma_ms + lambda_ms
}

/// Eq 14: the least time of collecting votes, `Theta >= D_vote * (Num_SP / 2 + 1)`, milliseconds.
///
/// It waits for a majority, while Algorithm 2 asks for more than `2f + 1`.
pub fn eq_14(vote_ms: f64, providers: f64) -> f64 {
    vote_ms * (providers / 2.0 + 1.0)
}

/// Table 5: bytes of the whole chain, `v_0 .. v_n`, which a meter stores by the paper's text.
pub const fn table_5_chain_bytes(links: u32) -> u64 {
    32 * (links as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eq_11_counts_five_times() {
        assert_eq!(eq_11_printed(1000.0, 5.0, 30.0), 438.0e6);
        assert_eq!(eq_11_transactions(1000.0, 5.0, 30.0), 87.6e6);
        assert_eq!(EQ_11_CONSTANT_BITS, 554);
        assert_eq!(eq_11(512.0, 1000.0), 512_554.0);
    }

    #[test]
    fn a_stored_chain_is_a_thousand_times_what_table_6_says() {
        assert_eq!(links(1, 50), 10_512);
        assert_eq!(links(10, 10), 525_600);
        assert_eq!(table_5_chain_bytes(links(1, 50)), 336_416); // 0.34 MB
        assert_eq!(table_5_chain_bytes(links(10, 10)), 16_819_232); // 16.8 MB
    }
}
