//! Texts of others, as they are shown: nobody writes lines that are not his.

use std::path::Path;

use bkss_scheme::{LedgerTime, identity::is_printable_char};

/// A text of others in one line: control characters, and those that turn the direction of what
/// follows, are escaped.
pub(crate) fn shown(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if is_printable_char(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
        shown
    })
}

/// A path in one line.
pub(crate) fn shown_path(path: &Path) -> String {
    shown(&path.display().to_string())
}

/// A ledger time in UTC by RFC 3339; beyond the year 9999 its milliseconds.
pub(crate) fn utc(time: LedgerTime) -> String {
    let milliseconds = i64::try_from(time.0).ok();
    milliseconds
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{time} ms"), |time| time.to_string())
}

/// A message of the ledger's rules, with its ledger times as people read them: the rules know
/// milliseconds alone.
pub(crate) fn with_times(message: &str) -> String {
    /// Digits of milliseconds since 1970 that are a time and no duration: from 2001 on.
    const LEAST: usize = 13;
    let mut parts = message.split(" ms");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = shown.len() - shown.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let at = shown.len() - digits;
        let time = Some(&shown[at..]).filter(|_| digits >= LEAST);
        match time.and_then(|digits| digits.parse().ok()) {
            Some(time) => shown.replace_range(at.., &utc(LedgerTime(time))),
            None => shown.push_str(" ms"),
        }
        shown.push_str(part);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_named_stays_in_its_line() {
        for (text, expected) in [
            ("Stadtwerke Köln", "Stadtwerke Köln"),
            ("Utility\n  provider 9: Good Bank", "Utility\\u{a}  provider 9: Good Bank"),
            ("hidden \u{1b}[8m", "hidden \\u{1b}[8m"),
            ("abc\u{202e}cba", "abc\\u{202e}cba"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn ledger_times_in_a_message_are_shown_in_utc_and_durations_stay() {
        for (message, expected) in [
            (
                "slot begins at 1796130300000 ms, after 1796130300001 ms",
                "slot begins at 2026-12-01T13:05:00Z, after 2026-12-01T13:05:00.001Z",
            ),
            ("no answer for 500 ms", "no answer for 500 ms"),
            ("no ms at all", "no ms at all"),
            ("", ""),
        ] {
            assert_eq!(with_times(message), expected);
        }
    }
}
