//! One canonical spelling: deterministic CBOR (RFC 8949 s4.2.1), arrays of known length.
//!
//! A decoder first parses, then encodes what it understood and compares: whatever has a second
//! spelling (long integers, indefinite lengths, trailing bytes) is refused without a rule of its
//! own. Every length is bounded before anything is read into memory of that length.

use core::{convert::Infallible, fmt::Write as _};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as DecodeError,
    encode::{Error as EncodeError, Write},
};

use crate::{Digest, Signature};

/// Most bytes of a sealed body (scheme s4.5, REV rule 1).
pub const MAX_BODY: usize = 1024;
/// Most siblings of an inclusion proof: trees of up to 2^32 leaves.
pub const MAX_PATH: usize = 32;
/// Most bytes of a name of an SP or SDI.
pub const MAX_NAME: usize = 64;

/// Bytes that are not the canonical spelling of what was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Malformed {
    /// Not CBOR, or CBOR of another shape.
    #[error("{what}: {reason} at byte {offset} of {length}")]
    Shape { what: &'static str, reason: Reason, offset: usize, length: usize },
    /// A second spelling of a value that has one.
    #[error("{what}: not the canonical spelling at byte {offset} of {length}")]
    Spelling { what: &'static str, offset: usize, length: usize },
}

/// What a decoder did not like, in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reason(heapless::String<MAX_REASON>);

/// Most bytes of a reason; what is longer is cut.
const MAX_REASON: usize = 64;

impl Reason {
    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        let mut reason = heapless::String::new();
        // What does not fit is left out.
        let _ = text.chars().try_for_each(|c| reason.push(c));
        Self(reason)
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decodes exactly one value that fills `bytes` and is spelled canonically.
///
/// # Errors
///
/// [`Malformed`], naming `what` was expected and the offset of the first surprise.
pub fn decode<'b, T>(what: &'static str, bytes: &'b [u8]) -> Result<T, Malformed>
where
    T: Decode<'b, ()> + Encode<()>,
{
    let length = bytes.len();
    let mut decoder = Decoder::new(bytes);
    let value: T = decoder.decode().map_err(|error| Malformed::Shape {
        what,
        reason: reason(&error),
        offset: error.position().unwrap_or(decoder.position()),
        length,
    })?;
    let mut matcher = Matcher { expected: bytes, position: 0 };
    let same = Encoder::new(&mut matcher).encode(&value).is_ok();
    if same && matcher.position == length {
        Ok(value)
    } else {
        Err(Malformed::Spelling { what, offset: matcher.position, length })
    }
}

/// Decodes one value from the front of `bytes` and leaves the rest there.
///
/// # Errors
///
/// [`Malformed`], as for [`decode`].
pub fn decode_first<'b, T>(what: &'static str, bytes: &mut &'b [u8]) -> Result<T, Malformed>
where
    T: Decode<'b, ()> + Encode<()>,
{
    let mut decoder = Decoder::new(bytes);
    // Where the value ends is known after one pass; what is wrong with it, `decode` says.
    let end = decoder.decode::<T>().map_or(bytes.len(), |_| decoder.position());
    let (first, rest) = bytes.split_at(end);
    let value = decode(what, first)?;
    *bytes = rest;
    Ok(value)
}

/// Encodes into `buffer` and returns the bytes used; `None` if they do not fit.
pub fn encode_into<'a>(value: &impl Encode<()>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut cursor = minicbor::encode::write::Cursor::new(&mut *buffer);
    Encoder::new(&mut cursor).encode(value).ok()?;
    let length = cursor.position();
    Some(&buffer[..length])
}

/// Encoded length in bytes.
pub fn length(value: &impl Encode<()>) -> usize {
    struct Counter(usize);
    impl Write for Counter {
        type Error = Infallible;
        fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
            self.0 += bytes.len();
            Ok(())
        }
    }
    let mut counter = Counter(0);
    encode_infallible(value, &mut counter);
    counter.0
}

/// Encodes into a sink that cannot fail: a hasher, a counter, a vector.
pub fn encode_infallible(value: &impl Encode<()>, sink: &mut impl Write<Error = Infallible>) {
    let mut encoder = Encoder::new(sink);
    let encoded = encoder.encode(value).is_ok();
    debug_assert!(encoded, "encoders of this crate do not fail on their own");
}

/// Expects an array of exactly `length` elements.
///
/// # Errors
///
/// A message naming the first mismatch.
pub fn array(decoder: &mut Decoder<'_>, length: u64) -> Result<(), DecodeError> {
    let at = decoder.position();
    match decoder.array()? {
        Some(found) if found == length => Ok(()),
        Some(_) => Err(DecodeError::message("array of another length").at(at)),
        None => Err(DecodeError::message("array of indefinite length").at(at)),
    }
}

/// Expects an array of at most `most` elements and returns how many.
///
/// # Errors
///
/// If it is longer or of indefinite length.
pub fn array_of_at_most(decoder: &mut Decoder<'_>, most: usize) -> Result<usize, DecodeError> {
    let at = decoder.position();
    match decoder.array()?.map(usize::try_from) {
        Some(Ok(found)) if found <= most => Ok(found),
        Some(_) => Err(DecodeError::message("array too long").at(at)),
        None => Err(DecodeError::message("array of indefinite length").at(at)),
    }
}

/// Expects the constant `number`: a version or the number of a message.
///
/// # Errors
///
/// If there is another.
pub fn constant(decoder: &mut Decoder<'_>, number: u8) -> Result<(), DecodeError> {
    let at = decoder.position();
    if decoder.u8()? == number {
        Ok(())
    } else {
        Err(DecodeError::message("unknown version or message number").at(at))
    }
}

const OLDER: &str = "made by an older version, which this one does not read";
const NEWER: &str = "made by a newer version";

/// Expects the number of a format that has had others before.
///
/// # Errors
///
/// If there is another, saying whether an older or a newer version made it.
pub fn format(decoder: &mut Decoder<'_>, number: u8) -> Result<(), DecodeError> {
    let at = decoder.position();
    let found = decoder.u8()?;
    let message = match found.cmp(&number) {
        core::cmp::Ordering::Equal => return Ok(()),
        core::cmp::Ordering::Less => OLDER,
        core::cmp::Ordering::Greater => NEWER,
    };
    Err(DecodeError::message(message).at(at))
}

/// Expects a byte string of exactly `N` bytes.
///
/// # Errors
///
/// If it has another length.
pub fn bytes<const N: usize>(decoder: &mut Decoder<'_>) -> Result<[u8; N], DecodeError> {
    let at = decoder.position();
    decoder
        .bytes()?
        .try_into()
        .map_err(|_| DecodeError::message("byte string of another length").at(at))
}

/// Expects a byte string of at most `most` bytes.
///
/// # Errors
///
/// If it is longer.
pub fn bytes_of_at_most<'b>(
    decoder: &mut Decoder<'b>,
    most: usize,
) -> Result<&'b [u8], DecodeError> {
    let at = decoder.position();
    let found = decoder.bytes()?;
    if found.len() <= most {
        Ok(found)
    } else {
        Err(DecodeError::message("byte string too long").at(at))
    }
}

/// Decodes with `decode`, or `None` where there is a null.
///
/// # Errors
///
/// Those of `decode`.
pub fn optional<'b, T>(
    decoder: &mut Decoder<'b>,
    decode: impl FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if decoder.datatype()? == minicbor::data::Type::Null {
        decoder.null()?;
        Ok(None)
    } else {
        decode(decoder).map(Some)
    }
}

/// A fixed-length byte string as a newtype of an array.
macro_rules! byte_string {
    ($name:ty, $length:literal) => {
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                decoder: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                $crate::codec::bytes::<$length>(decoder).map(Self)
            }
        }
    };
}
pub(crate) use byte_string;

/// An unsigned number as a newtype.
macro_rules! number {
    ($name:ty, $inner:ident) => {
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.$inner(self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                decoder: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                decoder.$inner().map(Self)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
pub(crate) use number;

byte_string!(Digest, 32);
byte_string!(Signature, 64);

/// Compares what is written with what was read.
struct Matcher<'a> {
    expected: &'a [u8],
    position: usize,
}

impl Write for Matcher<'_> {
    type Error = Differs;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Differs> {
        let expected = &self.expected[self.position..];
        if expected.starts_with(bytes) {
            self.position += bytes.len();
            return Ok(());
        }
        let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        self.position += same;
        Err(Differs)
    }
}

struct Differs;

/// The static part of a decoder's error: this crate has no allocator to format the rest.
fn reason(error: &DecodeError) -> Reason {
    if error.is_end_of_input() {
        return Reason::from("ends too early");
    }
    // The library gives its words as a text: "KIND at position N: WORDS", the last two if known.
    let mut text = heapless::String::<160>::new();
    let _ = write!(text, "{error}"); // a longer one is cut
    let mut place = heapless::String::<32>::from_iter([':']);
    if let Some(position) = error.position() {
        place.clear();
        let _ = write!(place, " at position {position}");
    }
    let (kind, words) = text.split_once(place.as_str()).unwrap_or((&text, ""));
    let words = words.trim_start_matches([':', ' ']).trim_end_matches(" (definite length)");
    if error.is_message() || words.is_empty() {
        return Reason::from(if words.is_empty() { kind } else { words });
    }
    let mut both = heapless::String::<160>::new();
    let _ = write!(both, "{kind}, {words}");
    Reason::from(both.as_str())
}

/// Alias for the result of an encoder.
pub type Encoded<W> = Result<(), EncodeError<<W as Write>::Error>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    #[test]
    fn every_second_spelling_is_refused() {
        assert_eq!(decode::<Slot>("slot", &[0x17]), Ok(Slot(23)));
        for (spelling, offset) in [
            (&[0x18, 0x17][..], 0),       // one byte more than needed
            (&[0x19, 0x00, 0x17][..], 0), // two bytes more
            (&[0x17, 0x00][..], 1),       // something behind the value
        ] {
            assert_eq!(
                decode::<Slot>("slot", spelling),
                Err(Malformed::Spelling { what: "slot", offset, length: spelling.len() }),
            );
        }
        let indefinite = [&[0x5F, 0x58, 32][..], &[7; 32], &[0xFF]].concat();
        assert!(decode::<Digest>("digest", &indefinite).is_err());
    }

    /// Decodes as `T` and returns what is said about it.
    fn said<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> std::string::String {
        use std::string::ToString;
        decode::<T>("thing", bytes).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_a_decoder_does_not_like_is_said_in_its_words() {
        let path = [0x9F, 0xFF];
        for (found, expected) in [
            (said::<Digest>(&[0x41, 7]), "thing: byte string of another length at byte 0 of 2"),
            (said::<Slot>(&[]), "thing: ends too early at byte 0 of 0"),
            (said::<Slot>(&[0x41, 7]), "thing: unexpected type bytes, expected u64 at byte 0 of 2"),
            (said::<crate::LinkIndex>(&[0]), "thing: link out of 1 to 2^20 at byte 0 of 1"),
            (
                said::<Signature>(&path),
                "thing: unexpected type indefinite array, expected bytes at byte 0 of 2",
            ),
        ] {
            assert_eq!(found, expected);
        }
        assert_eq!(Reason::from("x".repeat(70).as_str()).as_str(), "x".repeat(MAX_REASON));
    }

    #[test]
    fn a_format_of_another_version_is_refused_in_words() {
        struct Format;
        impl<C> Encode<C> for Format {
            fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
                encoder.u8(2)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for Format {
            fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                format(decoder, 2).map(|()| Self)
            }
        }
        assert!(decode::<Format>("file", &[2]).is_ok());
        for (number, expected) in [(1, OLDER), (3, NEWER)] {
            let Err(Malformed::Shape { reason, offset, .. }) = decode::<Format>("file", &[number])
            else {
                panic!("format {number} was taken");
            };
            assert_eq!((reason.as_str(), offset), (expected, 0));
        }
    }

    #[test]
    fn a_refusal_names_what_was_expected_and_where() {
        let error = decode::<Digest>("digest", &[0x58, 32, 1, 2, 3]).unwrap_err();
        assert_eq!(
            std::string::ToString::to_string(&error),
            "digest: ends too early at byte 2 of 5"
        );
    }
}
