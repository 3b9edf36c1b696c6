//! The numbers that the paper prints, as it prints them. Nothing here is computed.

/// Table 4: which of F1 to F9 each scheme has, by the paper.
pub const TABLE_4: [(&str, [bool; 9]); 6] = {
    const Y: bool = true;
    const N: bool = false;
    [
        ("[16]", [Y, N, Y, N, N, N, N, N, N]),
        ("[20]", [Y, Y, Y, Y, Y, Y, N, N, N]),
        ("[12]", [Y, Y, Y, Y, Y, Y, Y, N, N]),
        ("[22]", [Y, Y, Y, Y, Y, Y, Y, N, N]),
        ("[30]", [Y, Y, Y, N, N, Y, Y, Y, Y]),
        ("Ours", [Y, Y, Y, Y, Y, Y, Y, Y, Y]),
    ]
};

/// `T_inter` of the columns of Table 6, minutes.
pub const TABLE_6_INTERVALS_MIN: [u32; 5] = [10, 20, 30, 40, 50];
/// Table 6: `T_certi` in years, and what a meter stores, "`KBytes`".
pub const TABLE_6: [(u32, [f64; 5]); 3] = [
    (1, [0.289, 0.287, 0.286, 0.285, 0.284]),
    (5, [0.294, 0.292, 0.290, 0.290, 0.289]),
    (10, [0.296, 0.294, 0.293, 0.291, 0.289]),
];

/// Table 7: `T_certi` in years, `T_inter` in minutes, and a meter's time from low to high, ms.
pub const TABLE_7: [(u32, u32, f64, f64); 6] = [
    (1, 10, 11.56, 57.80),
    (1, 30, 11.44, 57.20),
    (1, 50, 11.36, 56.80),
    (5, 10, 11.76, 58.80),
    (5, 30, 11.60, 58.00),
    (5, 50, 11.56, 57.80),
];

/// `Num_SM` of the columns of Table 8.
pub const TABLE_8_METERS: [u32; 4] = [1000, 2000, 3000, 4000];
/// Table 8: `Num_SP`, and the leader's time, ms.
pub const TABLE_8: [(u32, [f64; 4]); 6] = [
    (5, [51.4, 102.6, 154.0, 205.9]),
    (10, [51.7, 105.0, 157.7, 210.1]),
    (15, [52.9, 110.9, 165.4, 216.9]),
    (22, [55.2, 116.1, 178.3, 231.7]),
    (40, [63.2, 125.2, 191.2, 243.5]),
    (50, [72.1, 134.6, 204.2, 265.0]),
];

/// A cell of Table 6; `None` if it has no such setting.
pub fn table_6(chain_years: u32, interval_min: u32) -> Option<f64> {
    let (_, row) = TABLE_6.iter().find(|(years, _)| *years == chain_years)?;
    let column = TABLE_6_INTERVALS_MIN.iter().position(|minutes| *minutes == interval_min)?;
    Some(row[column])
}

/// The two numbers of a cell of Table 7, low and high; `None` if it has no such setting.
pub fn table_7(chain_years: u32, interval_min: u32) -> Option<(f64, f64)> {
    let cell = TABLE_7
        .iter()
        .find(|(years, minutes, ..)| (*years, *minutes) == (chain_years, interval_min));
    cell.map(|(_, _, low, high)| (*low, *high))
}

/// A cell of Table 8; `None` if it has no such setting.
pub fn table_8(meters: u32, providers: u32) -> Option<f64> {
    let (_, row) = TABLE_8.iter().find(|(known, _)| *known == providers)?;
    Some(row[TABLE_8_METERS.iter().position(|known| *known == meters)?])
}
