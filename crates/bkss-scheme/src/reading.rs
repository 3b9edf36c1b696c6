//! What a meter measured: a block of intervals, in the field's terms.
//!
//! `[1, channel, start, scaler, [+ interval]]`, deterministic CBOR, then zeros up to the padding.
//! Values are integers with a decimal scaler, never floats; times are UTC seconds; each interval
//! has a quality. A channel says what is measured (OBIS code), in which unit and over how long an
//! interval; the usual ones have a profile number, so that one interval fits 32 bytes.
//!
//! The layout of the reading in the scheme's test vectors (Appendix A) is not used.

use core::fmt;

use heapless::Vec;
use minicbor::{Decode, Decoder, Encode, Encoder, data::Type, decode, encode};

use crate::{
    codec::{self, Encoded, Malformed},
    seal::{MAX_PLAINTEXT, PADDING},
};

/// Most intervals of one block: a day of quarter hours.
pub const MAX_INTERVALS: usize = 96;

/// DLMS unit code of watt-hours (IEC 62056-6-2).
pub const UNIT_WH: u8 = 30;

/// What is measured, in which unit, over how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Channel {
    /// OBIS code A-B:C.D.E*F, one byte each.
    pub obis: [u8; 6],
    /// DLMS unit code.
    pub unit: u8,
    /// Length of an interval in seconds, at least 1.
    pub interval_s: u32,
}

impl Channel {
    /// Active energy, import less export, per interval: OBIS 1-0:16.29.0*255, in Wh.
    pub const fn net_energy(interval_s: u32) -> Self {
        Self { obis: [1, 0, 16, 29, 0, 255], unit: UNIT_WH, interval_s }
    }

    /// The channels with a number of their own.
    const PROFILES: [(u8, Self); 3] =
        [(1, Self::net_energy(900)), (2, Self::net_energy(1800)), (3, Self::net_energy(3600))];
}

impl<C> Encode<C> for Channel {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        if let Some((number, _)) = Self::PROFILES.iter().find(|(_, channel)| channel == self) {
            return encoder.u8(*number)?.ok();
        }
        encoder.array(3)?.bytes(&self.obis)?.u8(self.unit)?.u32(self.interval_s)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Channel {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = decoder.position();
        if decoder.datatype()? == Type::U8 {
            let number = decoder.u8()?;
            return Self::PROFILES
                .iter()
                .find(|(profile, _)| *profile == number)
                .map(|(_, channel)| *channel)
                .ok_or_else(|| decode::Error::message("unknown profile").at(at));
        }
        codec::array(decoder, 3)?;
        let channel =
            Self { obis: codec::bytes(decoder)?, unit: decoder.u8()?, interval_s: decoder.u32()? };
        if channel.interval_s == 0 {
            return Err(decode::Error::message("interval of no length").at(at));
        }
        Ok(channel)
    }
}

/// How a value came about (NEM12 A/E/S/N; DLMS status).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Quality {
    /// Read off the register.
    Measured = 0,
    /// Computed because it could not be read.
    Estimated = 1,
    /// Replaced after the fact.
    Substituted = 2,
    /// There is no value.
    Missing = 3,
    /// The clock was set during the interval.
    ClockAdjusted = 4,
}

/// One interval's value; `value` is `None` exactly if it is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interval {
    value: Option<i32>,
    quality: Quality,
}

impl Interval {
    /// A measured value, in units of `10^scaler`.
    pub const fn measured(value: i32) -> Self {
        Self { value: Some(value), quality: Quality::Measured }
    }

    /// A value of that quality; `None` if one is given for a missing interval.
    pub const fn with_quality(value: i32, quality: Quality) -> Option<Self> {
        match quality {
            Quality::Missing => None,
            quality => Some(Self { value: Some(value), quality }),
        }
    }

    /// No value.
    pub const fn missing() -> Self {
        Self { value: None, quality: Quality::Missing }
    }

    /// The value, in units of `10^scaler`.
    pub const fn value(&self) -> Option<i32> {
        self.value
    }

    /// How it came about.
    pub const fn quality(&self) -> Quality {
        self.quality
    }
}

/// The usual, measured value is an integer; any other quality is `[quality, value / null]`.
impl<C> Encode<C> for Interval {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        match (self.quality, self.value) {
            (Quality::Measured, Some(value)) => encoder.i32(value)?.ok(),
            (quality, value) => encoder.array(2)?.u8(quality as u8)?.encode(value)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Interval {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if decoder.datatype()? != Type::Array {
            return decoder.i32().map(Self::measured);
        }
        let at = decoder.position();
        codec::array(decoder, 2)?;
        let quality = match decoder.u8()? {
            1 => Quality::Estimated,
            2 => Quality::Substituted,
            3 => Quality::Missing,
            4 => Quality::ClockAdjusted,
            _ => return Err(decode::Error::message("unknown quality").at(at)),
        };
        let value = codec::optional(decoder, |decoder| decoder.i32())?;
        match (quality, value) {
            (Quality::Missing, None) => Ok(Self::missing()),
            (quality, Some(value)) => Self::with_quality(value, quality)
                .ok_or_else(|| decode::Error::message("a missing interval has no value").at(at)),
            (_, None) => Err(decode::Error::message("value expected").at(at)),
        }
    }
}

/// A block of consecutive intervals of one channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading {
    /// What was measured.
    pub channel: Channel,
    /// Start of the first interval, seconds since 1970 UTC.
    pub start_s: u64,
    /// Decimal exponent of all values: `value * 10^scaler` in the channel's unit.
    pub scaler: i8,
    /// One or more intervals, oldest first.
    pub intervals: Vec<Interval, MAX_INTERVALS>,
}

impl Reading {
    /// A block of one interval.
    pub fn single(channel: Channel, start_s: u64, scaler: i8, interval: Interval) -> Self {
        let mut intervals = Vec::new();
        let pushed = intervals.push(interval);
        debug_assert!(pushed.is_ok(), "96 intervals fit, so one does");
        Self { channel, start_s, scaler, intervals }
    }

    /// A block of as many of the first of these measured values as one exponent and
    /// [`MAX_INTERVALS`] hold; `None` if there are none, or if 8 bits do not
    /// hold the exponent.
    ///
    /// The values are in units of `10^unit` of the channel's unit. All values of a block have the
    /// exponent of the finest, so that none loses a digit; a block ends before a value that does not
    /// fit 32 bits then.
    pub fn of_measured(
        channel: Channel,
        start_s: u64,
        unit: i8,
        values: &[Decimal],
    ) -> Option<Self> {
        let mut finest = values.first()?.exponent;
        let mut count = 0;
        for value in values.iter().take(MAX_INTERVALS) {
            let finer = finest.min(value.exponent);
            let fits = |value: &Decimal| value.in_units_of(finer).is_some();
            if !values[..=count].iter().all(fits) {
                break;
            }
            (finest, count) = (finer, count + 1);
        }
        let scaled = |value: &Decimal| value.in_units_of(finest).map(Interval::measured);
        let intervals = values[..count].iter().map(scaled).collect::<Option<_>>()?;
        Some(Self { channel, start_s, scaler: finest.checked_add(unit)?, intervals })
    }

    /// The bytes to be sealed, without padding; `None` if they exceed 928 bytes.
    pub fn to_bytes(&self) -> Option<Vec<u8, MAX_PLAINTEXT>> {
        let mut buffer = [0; MAX_PLAINTEXT];
        let length = codec::encode_into(self, &mut buffer)?.len();
        Vec::from_slice(&buffer[..length]).ok()
    }

    /// Parses an opened plaintext, zero padding included.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is no reading, not canonical, or padded by other than the zeros up to
    /// the next multiple of 32.
    pub fn from_padded(plaintext: &[u8]) -> Result<Self, Malformed> {
        let mut padding = plaintext;
        let reading = codec::decode_first("reading", &mut padding)?;
        let end = plaintext.len() - padding.len();
        if plaintext.len() != end.next_multiple_of(PADDING) || padding.iter().any(|b| *b != 0) {
            return Err(Malformed::Spelling {
                what: "padding of a reading",
                offset: end,
                length: plaintext.len(),
            });
        }
        Ok(reading)
    }
}

impl<C> Encode<C> for Reading {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.u8(1)?.encode(self.channel)?.u64(self.start_s)?.i8(self.scaler)?;
        encoder.array(self.intervals.len() as u64)?;
        self.intervals.iter().try_for_each(|interval| encoder.encode(interval)?.ok())
    }
}

impl<'b, C> Decode<'b, C> for Reading {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        codec::constant(decoder, 1)?;
        let (channel, start_s, scaler) = (decoder.decode()?, decoder.u64()?, decoder.i8()?);
        let at = decoder.position();
        let count = codec::array_of_at_most(decoder, MAX_INTERVALS)?;
        if count == 0 {
            return Err(decode::Error::message("a reading has at least one interval").at(at));
        }
        let mut intervals = Vec::new();
        for _ in 0..count {
            let interval = decoder.decode()?;
            intervals.push(interval).map_err(|_| decode::Error::message("too many").at(at))?;
        }
        Ok(Self { channel, start_s, scaler, intervals })
    }
}

/// A decimal number `value * 10^exponent`, as people write it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decimal {
    /// All digits.
    pub value: i32,
    /// Power of ten.
    pub exponent: i8,
}

/// Why a text is no [`Decimal`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoDecimal {
    /// There is no digit.
    #[error("no digit")]
    NoDigit,
    /// Something else than a digit, a sign in front or the first point.
    #[error("{0:?} where a digit is due")]
    Character(char),
    /// More digits than 32 bits hold, zeros in front not counted.
    #[error("{0} digits, at most {MAX_DIGITS} can be signed")]
    Digits(usize),
}

/// Most digits of a decimal number; any such number fits 32 bits.
const MAX_DIGITS: usize = 9;

impl Decimal {
    /// Parses digits with at most one point and one sign, such as `0.25`, `-.250`, `+007` or `5.`:
    /// the value is exact, and keeps the decimals that are written. Zero has no sign.
    ///
    /// # Errors
    ///
    /// [`NoDecimal`] for anything else, such as `1e3`, `1,5` or `NaN`.
    pub fn parse(text: &str) -> Result<Self, NoDecimal> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if let Some(other) = whole.chars().chain(fraction.chars()).find(|c| !c.is_ascii_digit()) {
            return Err(NoDecimal::Character(other));
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(NoDecimal::NoDigit);
        }
        let whole = whole.trim_start_matches('0');
        let length = whole.len() + fraction.len();
        if length > MAX_DIGITS {
            return Err(NoDecimal::Digits(length));
        }
        let magnitude = whole.bytes().chain(fraction.bytes()).fold(0_i32, |sum, byte| {
            10 * sum + i32::from(byte - b'0') // nine digits fit
        });
        let exponent = i8::try_from(fraction.len()).map_err(|_| NoDecimal::Digits(length))?;
        let value = if text.starts_with('-') { -magnitude } else { magnitude };
        Ok(Self { value, exponent: -exponent })
    }

    /// The same number as a multiple of `10^exponent`; `None` if that is no integer of 32 bits.
    pub fn in_units_of(&self, exponent: i8) -> Option<i32> {
        let digits = self.exponent.checked_sub(exponent)?;
        10_i32.checked_pow(u32::try_from(digits).ok()?)?.checked_mul(self.value)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.value < 0 { "-" } else { "" };
        let magnitude = self.value.unsigned_abs();
        if self.exponent >= 0 {
            write!(f, "{sign}{magnitude}")?;
            if magnitude == 0 {
                return Ok(());
            }
            return (0..self.exponent).try_for_each(|_| f.write_str("0"));
        }
        let places = usize::from(self.exponent.unsigned_abs());
        let mut digits = heapless::String::<16>::new();
        fmt::Write::write_fmt(&mut digits, format_args!("{magnitude}"))?;
        match digits.len().checked_sub(places) {
            Some(0) => write!(f, "{sign}0.{digits}"),
            Some(split) => write!(f, "{sign}{}.{}", &digits[..split], &digits[split..]),
            None => write!(f, "{sign}0.{digits:0>places$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn one_usual_interval_fits_32_bytes() {
        let largest = Interval::measured(i32::MIN);
        let reading = Reading::single(Channel::net_energy(900), u64::from(u32::MAX), -3, largest);
        assert!(reading.to_bytes().unwrap().len() <= 32);
    }

    #[test]
    fn decimals_come_back_digit_by_digit() {
        for text in ["0", "0.01", "0.10", "12.5", "-0.003", "115.232", "7", "0.000", "-41"] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Decimal { value: 5, exponent: 2 }.to_string(), "500");
    }

    #[test]
    fn what_is_exact_is_read_however_it_is_written() {
        for (text, value) in [
            ("000123.456", "123.456"),
            (".362", "0.362"),
            ("5.", "5"),
            ("+0.01", "0.01"),
            ("-0.000", "0.000"),
            ("-.5", "-0.5"),
            ("0000000000.999999999", "0.999999999"),
            ("-999999999", "-999999999"),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), value, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_decimal_says_which_rule_it_breaks() {
        for (text, reason) in [
            ("", "no digit"),
            ("-", "no digit"),
            (".", "no digit"),
            ("1e3", "'e' where a digit is due"),
            ("1.2.3", "'.' where a digit is due"),
            ("+-1", "'-' where a digit is due"),
            ("NaN", "'N' where a digit is due"),
            ("inf", "'i' where a digit is due"),
            (" 1", "' ' where a digit is due"),
            ("1,5", "',' where a digit is due"),
            ("0x1", "'x' where a digit is due"),
            ("٣", "'٣' where a digit is due"),
            ("1234567890", "10 digits, at most 9 can be signed"),
            ("0.0000000000", "10 digits, at most 9 can be signed"),
        ] {
            assert_eq!(Decimal::parse(text).unwrap_err().to_string(), reason, "{text:?}");
        }
    }

    fn block(texts: &[&str]) -> Option<(usize, i8)> {
        let values: std::vec::Vec<_> =
            texts.iter().map(|text| Decimal::parse(text).unwrap()).collect();
        let reading = Reading::of_measured(Channel::net_energy(900), 0, 3, &values)?;
        for (value, interval) in values.iter().zip(&reading.intervals) {
            let scaled = Decimal { value: interval.value().unwrap(), exponent: reading.scaler - 3 };
            assert_eq!(scaled.in_units_of(-9), value.in_units_of(-9), "{value}");
        }
        Some((reading.intervals.len(), reading.scaler))
    }

    #[test]
    fn a_block_ends_before_a_value_that_does_not_fit_its_exponent() {
        assert_eq!(block(&["251.75", "0.12345678"]), Some((1, 1)), "0.12345678 waits");
        assert_eq!(block(&["0.12345678", "251.75"]), Some((1, -5)), "251.75 waits");
        assert_eq!(block(&["21.47", "0.12345678", "21.48"]), Some((2, -5)));
        assert_eq!(block(&["1", "0.5", "0.25"]), Some((3, 1)));
        assert_eq!(block(&["1"; 200]), Some((MAX_INTERVALS, 3)));
        assert_eq!(block(&[]), None);
        let beyond = [Decimal { value: 1, exponent: i8::MAX }];
        assert_eq!(Reading::of_measured(Channel::net_energy(900), 0, 3, &beyond), None);
        assert_eq!(Decimal { value: 1, exponent: i8::MAX }.in_units_of(i8::MIN), None);
    }

    #[test]
    fn padding_is_part_of_the_spelling() {
        let reading =
            Reading::single(Channel::net_energy(900), 1_700_000_000, 1, Interval::measured(26));
        let mut padded = std::vec::Vec::from(&reading.to_bytes().unwrap()[..]);
        padded.resize(32, 0);
        assert_eq!(Reading::from_padded(&padded).as_ref(), Ok(&reading));
        let longer = [&padded[..], &[0; 32]].concat();
        assert!(Reading::from_padded(&longer).is_err(), "one block of zeros too many");
        padded[31] = 1;
        assert!(Reading::from_padded(&padded).is_err(), "padding that is not zero");
        assert!(Reading::from_padded(&[]).is_err());
    }

    fn interval() -> impl Strategy<Value = Interval> {
        prop_oneof![
            any::<i32>().prop_map(Interval::measured),
            Just(Interval::missing()),
            (
                any::<i32>(),
                prop::sample::select(std::vec![
                    Quality::Estimated,
                    Quality::Substituted,
                    Quality::ClockAdjusted
                ])
            )
                .prop_map(|(value, quality)| Interval::with_quality(value, quality).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn a_reading_comes_back(
            intervals in prop::collection::vec(interval(), 1..=MAX_INTERVALS),
            start_s: u32, scaler: i8, obis: [u8; 6], unit: u8, interval_s in 1..u32::MAX,
        ) {
            let reading = Reading {
                channel: Channel { obis, unit, interval_s },
                start_s: start_s.into(),
                scaler,
                intervals: intervals.into_iter().collect(),
            };
            let bytes = reading.to_bytes().unwrap();
            let mut padded = std::vec::Vec::from(&bytes[..]);
            padded.resize(bytes.len().next_multiple_of(PADDING), 0);
            prop_assert_eq!(Reading::from_padded(&padded), Ok(reading));
        }

        #[test]
        fn no_measured_value_is_lost_or_changed(
            numbers in prop::collection::vec((-999_999_999..=999_999_999, -9_i8..=0), 1..120),
        ) {
            let values: std::vec::Vec<_> =
                numbers.iter().map(|(value, exponent)| Decimal { value: *value, exponent: *exponent }).collect();
            let mut left = &values[..];
            while !left.is_empty() {
                let reading = Reading::of_measured(Channel::net_energy(900), 0, 3, left).unwrap();
                prop_assert!(!reading.intervals.is_empty());
                for (value, interval) in left.iter().zip(&reading.intervals) {
                    prop_assert_eq!(value.in_units_of(reading.scaler - 3), interval.value());
                    prop_assert!(interval.value().is_some());
                }
                left = &left[reading.intervals.len()..];
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Reading::from_padded(&bytes);
        }
    }
}
