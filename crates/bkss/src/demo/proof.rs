//! What a demonstration shows at its end: a home's day in kilowatt-hours, a forgery that is refused,
//! and a stranger who learns nothing. All of it from the files that it has left.

use std::{collections::BTreeMap, path::Path};

use bkss_ledger::Trust;
use bkss_scheme::{ProviderId, codec, receipt::Receipt};

use super::founding::provider_dir;
use crate::{
    files,
    meters::RunError,
    open::{Opened, Owner},
    text::shown_path,
    verify::{self, MAX_RECEIPT},
};

/// Seconds of a day.
const DAY_S: u64 = 86_400;
/// Decimals of the unit that values are added up in: no reading of a demonstration is finer.
const DECIMALS: i32 = 9;

/// All three with the receipts of a meter: its name, its receipts' directory, its owner.
pub(super) fn lines(
    dir: &Path,
    trust: &Trust,
    (name, receipts, owner): (&str, &Path, ProviderId),
) -> Result<Vec<String>, RunError> {
    let paths = verify::expand(&[receipts.to_owned()])?;
    let Some(first) = paths.first() else { return Ok(Vec::new()) };
    let genesis = dir.join("genesis.bkss");
    let load = |provider| {
        Owner::load(&provider_dir(dir, provider), Some(&genesis), false)
            .map_err(RunError::step("keys of a provider"))
    };
    let mut own = load(owner)?;
    own.find_sessions(&provider_dir(dir, owner), &paths).map_err(RunError::step("sessions"))?;
    let opened = paths.iter().map(|path| own.open(path)).collect::<Result<Vec<_>, _>>();
    let opened = opened.map_err(RunError::step("a receipt and its owner"))?;
    let mut lines = day(name, owner, &opened);
    let file = shown_path(first);
    lines.push(format!("one bit of {file} altered: {}", altered(first, trust)?));
    let stranger = ProviderId(u16::from(owner.0 == 0));
    let refused = match load(stranger)?.decrypt(first) {
        Ok(_) => return Err(RunError::Step("a stranger", "opened a receipt".into())),
        Err(error) => error.to_string(),
    };
    let reason = refused.strip_prefix(&format!("{file}: ")).unwrap_or(&refused);
    lines
        .push(format!("its sealed reading with the keys of provider {stranger}: CLOSED, {reason}"));
    Ok(lines)
}

/// The first day of a meter: all of it, and by hour.
fn day(name: &str, owner: ProviderId, opened: &[Opened]) -> Vec<String> {
    let intervals = opened.iter().flat_map(|opened| {
        let start = |at| opened.start_s(at);
        let scaled = |value: Option<i32>| Some((value?, i32::from(opened.scaler) - 3));
        (0..opened.intervals.len())
            .filter_map(move |at| Some((start(at), scaled(opened.intervals[at].value())?)))
    });
    let intervals: Vec<_> = intervals.collect();
    let Some(first) = intervals.iter().map(|(start, _)| *start).min() else { return Vec::new() };
    let midnight = first / DAY_S * DAY_S;
    let (mut hours, mut count) = (BTreeMap::<u64, i64>::new(), 0);
    for (start, (value, exponent)) in intervals {
        if start < midnight + DAY_S {
            let hour = hours.entry((start - midnight) / 3600).or_default();
            let sum = units(value, exponent).and_then(|units| hour.checked_add(units));
            let Some(sum) = sum else {
                return vec![format!("home {name}: its values are too large to be added up here")];
            };
            (*hour, count) = (sum, count + 1);
        }
    }
    let date = verify::utc(bkss_scheme::LedgerTime::from_seconds(midnight));
    let date = date.split_once('T').map_or(&*date, |(date, _)| date);
    let sum = kwh(hours.values().sum());
    let mut lines = vec![format!(
        "home {name} on {date}: {sum} kWh in {count} intervals, read with the keys of its provider, \
         {owner}"
    )];
    let hours: Vec<_> =
        hours.iter().map(|(hour, sum)| format!("{hour:02}h {}", kwh(*sum))).collect();
    lines.extend(hours.chunks(8).map(|some| format!("  {}", some.join("  "))));
    lines
}

/// A value in units of the finest that are added up, exactly.
fn units(value: i32, exponent: i32) -> Option<i64> {
    let digits = u32::try_from(DECIMALS + exponent).ok()?;
    10_i64.checked_pow(digits)?.checked_mul(value.into())
}

/// A sum with the decimals that it needs.
fn kwh(units: i64) -> String {
    let unit = 10_u64.pow(DECIMALS.unsigned_abs());
    let sign = if units < 0 { "-" } else { "" };
    let (whole, rest) = (units.unsigned_abs() / unit, units.unsigned_abs() % unit);
    let rest = format!("{rest:09}");
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

/// What a verifier says of a receipt whose sealed reading has another bit.
fn altered(path: &Path, trust: &Trust) -> Result<String, RunError> {
    let bytes = files::read(path, MAX_RECEIPT)?;
    let mut receipt: Receipt<'_> =
        codec::decode("receipt", &bytes).map_err(RunError::step("receipt"))?;
    let mut body = receipt.body.to_vec();
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    receipt.body = &body;
    match receipt.verify(&trust.anchors()).failure() {
        Some((check, failure)) => {
            let (name, expected, found) = (check.name(), failure.expected(), failure.found());
            Ok(format!("REFUSED, {name} failed: expected {expected}, found {found}"))
        }
        None => Err(RunError::Step("an altered receipt", "verifies".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_shown_with_the_decimals_they_need() {
        for (values, expected) in [
            (&[(1, -2), (0, 0), (-3, -3), (250, -3)][..], "0.257"),
            (&[(12, 0), (5, -1)], "12.5"),
            (&[(-41, -9)], "-0.000000041"),
            (&[(1, 0), (-1, 0)], "0"),
            (&[(999_999_999, -9)], "0.999999999"),
        ] {
            let sum = values.iter().map(|(value, exponent)| units(*value, *exponent).unwrap());
            assert_eq!(kwh(sum.sum()), expected);
        }
        for (value, exponent) in [(1, -10), (i32::MAX, 1), (1, 127)] {
            assert_eq!(units(value, exponent), None);
        }
    }
}
