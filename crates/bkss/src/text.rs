//! Texts of others, as they are shown: nobody writes lines that are not his.

use std::path::Path;

use bkss_scheme::identity::is_printable_char;

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
}
