//! How long the sections of the archive are, so that a part of it can be served without everything
//! before it being read again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks of a section.
pub(super) const SECTION: u64 = 32;
/// So near the head certificates may still come, and make a section longer.
const RECENT: u64 = 96;

/// How long each section was when it was written last.
#[derive(Debug, Default)]
pub(super) struct Lengths(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Bytes of each section, 0 where that is not known.
    sections: Vec<u64>,
    /// How often a section has turned out to be of another length.
    changes: u64,
}

impl Lengths {
    /// The length of a section.
    pub(super) fn of(&self, section: u64) -> Option<u64> {
        let known = self.known();
        let length = usize::try_from(section).ok().and_then(|at| known.sections.get(at));
        length.copied().filter(|length| *length > 0)
    }

    /// How often lengths have changed: parts that belong together have been served with the same
    /// number.
    pub(super) fn changes(&self) -> u64 {
        self.known().changes
    }

    /// A section has been written, the newest block being at `head`. False if it had another length
    /// before: bodies have been erased or certificates have come, and the lengths of all others may
    /// be wrong as well.
    pub(super) fn wrote(&self, section: u64, length: u64, head: u64) -> bool {
        let Ok(at) = usize::try_from(section) else { return true };
        let end = section.saturating_add(1).saturating_mul(SECTION);
        if end.saturating_add(RECENT) > head {
            return true;
        }
        let mut known = self.known();
        let before = known.sections.get(at).copied().unwrap_or(0);
        let same = before == 0 || before == length;
        if !same {
            known.sections.clear();
            known.changes += 1;
        }
        if at >= known.sections.len() {
            known.sections.resize(at + 1, 0);
        }
        known.sections[at] = length;
        same
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_section_of_another_length_makes_all_of_them_unknown() {
        let lengths = Lengths::default();
        let head = 5 * SECTION + RECENT;
        assert!(lengths.wrote(3, 900, head) && lengths.wrote(1, 700, head));
        assert_eq!(
            [0, 1, 2, 3, 4].map(|at| lengths.of(at)),
            [None, Some(700), None, Some(900), None]
        );
        assert!(lengths.wrote(3, 900, head), "as before");
        assert_eq!(lengths.changes(), 0);
        assert!(!lengths.wrote(3, 800, head), "bodies of it were erased");
        assert_eq!([1, 3].map(|at| lengths.of(at)), [None, Some(800)]);
        assert_eq!(lengths.changes(), 1);
        assert!(lengths.wrote(5, 100, head), "it may still become longer");
        assert_eq!(lengths.of(5), None);
    }
}
