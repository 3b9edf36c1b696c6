//! What a file is that is not what was expected: by its first bytes, for an error's message.

use std::{fs::File, io::Read, path::Path};

use bkss_ledger::Genesis;
use bkss_scheme::{Head, codec, hash, receipt::Receipt};
use minicbor::Decoder;

use crate::text::shown;

/// Bytes of a file that are looked at: more than any receipt or head has.
const LOOKED_AT: u64 = 1 << 20;

/// What a file is, as far as that can be told.
pub(crate) fn of_file(path: &Path) -> Option<String> {
    // A pipe is read once, and was.
    if !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LOOKED_AT).read_to_end(&mut bytes).ok()?;
    of(&bytes)
}

/// What these first bytes of a file are.
pub(crate) fn of(bytes: &[u8]) -> Option<String> {
    let named = match bytes {
        [] => "an empty file",
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "text in UTF-16",
        [0x1F, 0x8B, ..] => "compressed by gzip",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        _ if bytes.starts_with(b"-----BEGIN ") => "text in PEM",
        _ if codec::decode::<Receipt<'_>>("receipt", bytes).is_ok() => "a receipt",
        _ if Genesis::decode_first(bytes).is_ok() => "a genesis",
        _ if codec::decode::<Head<'_>>("head", bytes).is_ok() => "a head",
        // Five values of which the first is the format, and a checksum behind them.
        [0x85, format, ..] if *format < 0x18 && is_checked(bytes) => "keys of a provider",
        _ => return titled(bytes).or_else(|| text(bytes).map(str::to_owned)),
    };
    Some(named.to_owned())
}

fn is_checked(bytes: &[u8]) -> bool {
    let checked = bytes.split_last_chunk::<32>();
    checked.is_some_and(|(content, checksum)| hash::plain(content).0 == *checksum)
}

/// The title of one of our papers, an archive or a snapshot.
fn titled(bytes: &[u8]) -> Option<String> {
    // In front of the first frame of an archive is its length.
    [bytes, bytes.get(4..)?].into_iter().find_map(|bytes| {
        let mut decoder = Decoder::new(bytes);
        decoder.array().ok()?;
        let title = decoder.str().ok()?.strip_prefix("bkss ")?;
        Some(format!("a bkss file, {}", shown(title)))
    })
}

/// What kind of text it is, if it is one.
fn text(bytes: &[u8]) -> Option<&'static str> {
    // A text that was cut in the middle of a letter is one, too.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let mut letters = text.chars().filter(|c| !c.is_whitespace());
    let first = letters.next()?;
    Some(match first {
        '{' | '[' => "text, perhaps JSON",
        '<' => "text, perhaps HTML or XML",
        _ if text.starts_with("VID,") => "an interval file",
        _ if text.len() > 40 && base64(first) && letters.all(base64) => "text, perhaps base64",
        _ => "text",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let base64 =
            "hwFQNsNXEADlIq9avdy3bneGQcOCg40CGgAAB\nhwFQNsNXEADlIq9avdy3bneGQcOCg40CGgAAB\n";
        for (bytes, expected) in [
            (&b""[..], Some("an empty file")),
            (b"\xFF\xFEV\0I\0D\0", Some("text in UTF-16")),
            (b"\x1F\x8B\x08", Some("compressed by gzip")),
            (b"{\"error\": 1}", Some("text, perhaps JSON")),
            (b"\n<html>", Some("text, perhaps HTML or XML")),
            (b"VID,V001\n", Some("an interval file")),
            (base64.as_bytes(), Some("text, perhaps base64")),
            (b"Dear customer,", Some("text")),
            ("Zähler".as_bytes(), Some("text")),
            (&"Zä".as_bytes()[..2], Some("text")),
            (b"\x83\x6Cbkss archive\x02", Some("a bkss file, archive")),
            (b"\0\0\0\x20\x83\x6Cbkss archive\x02", Some("a bkss file, archive")),
            (b"\0\x01\x02", None),
            (b"\x83\x8A\xFF", None),
        ] {
            assert_eq!(of(bytes).as_deref(), expected, "{bytes:?}");
        }
    }
}
