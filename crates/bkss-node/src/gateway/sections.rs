//! Which sections of the journal are still needed.

use std::collections::BTreeMap;

/// Bytes of a section before the next is begun.
pub const SECTION_BYTES: usize = 16 << 20;
/// Sections before what is left in the older half is carried forward.
pub const MAX_SECTIONS: usize = 64;

/// Counts, per section, the messages that are not settled.
#[derive(Debug, Default)]
pub(super) struct Sections {
    live: BTreeMap<u64, u64>,
    current: u64,
    written: usize,
    pruned: u64,
}

impl Sections {
    /// Begins with a section that was not in use before.
    pub(super) const fn begin(&mut self, section: u64) {
        self.current = section;
    }

    /// Where messages are written now.
    pub(super) const fn current(&self) -> u64 {
        self.current
    }

    /// Sections that are kept.
    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    /// One more unsettled message in a section.
    pub(super) fn add(&mut self, section: u64) {
        *self.live.entry(section).or_default() += 1;
    }

    /// One fewer.
    pub(super) fn remove(&mut self, section: u64) {
        if let Some(live) = self.live.get_mut(&section) {
            *live -= 1;
            if *live == 0 {
                self.live.remove(&section);
            }
        }
    }

    /// A group of so many bytes was written to the current section, which may end it.
    pub(super) const fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= SECTION_BYTES {
            self.current += 1;
            self.written = 0;
        }
    }

    /// The section below which nothing is needed, if that has moved.
    pub(super) fn prunable(&mut self) -> Option<u64> {
        let oldest = self.live.first_key_value().map_or(self.current, |(oldest, _)| *oldest);
        let below = oldest.min(self.current);
        let moved = below > self.pruned;
        self.pruned = below;
        moved.then_some(below)
    }

    /// The section below which everything is to be carried forward, if there are too many.
    pub(super) fn crowded(&self) -> Option<u64> {
        let middle = self.live.keys().nth(MAX_SECTIONS / 2)?;
        (self.live.len() > MAX_SECTIONS).then_some(*middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_needed_until_the_last_of_it_is_settled() {
        let mut sections = Sections::default();
        sections.begin(5);
        assert_eq!(sections.prunable(), Some(5), "nothing of an earlier life is needed");
        sections.add(5);
        sections.add(5);
        sections.wrote(SECTION_BYTES);
        sections.add(6);
        sections.remove(5);
        assert_eq!((sections.current(), sections.prunable()), (6, None));
        sections.remove(5);
        assert_eq!((sections.prunable(), sections.prunable()), (Some(6), None));
        sections.wrote(SECTION_BYTES);
        sections.remove(6);
        assert_eq!(sections.prunable(), Some(7), "up to the one that is written");
    }

    #[test]
    fn too_many_sections_are_carried_forward_from_their_middle() {
        let mut sections = Sections::default();
        (0..=MAX_SECTIONS as u64).for_each(|section| sections.add(section));
        assert_eq!(sections.crowded(), Some(MAX_SECTIONS as u64 / 2));
        sections.remove(0);
        assert_eq!(sections.crowded(), None);
    }
}
