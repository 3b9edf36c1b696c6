//! How far a meter has got with its readings, as it outlives the process.
//!
//! It is on the disk before the message that it tells of leaves. Whoever goes on where a run was
//! stopped sends the same messages again, and signs none of their readings a second time.

use std::{collections::BTreeSet, path::Path};

use bkss_scheme::{
    Digest, LinkIndex, MeterId,
    codec::{self, Encoded},
    hash_chain::MAX_SLOTS,
    transaction::Submit,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::files::{self, FileError, Readers, malformed};

/// Most bytes of the file.
const MAX_FILE: u64 = 64 << 20;
/// Most messages of one meter: a chain has no more links.
const MAX_MESSAGES: usize = 1 << 20;

/// A message whose opening is not final yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Sent {
    meter: MeterId,
    index: LinkIndex,
    value: Digest,
    body: Box<[u8]>,
    /// Whether its request is final.
    stamped: bool,
    /// Number of its first reading, and of the first one behind it.
    readings: (usize, usize),
}

impl Sent {
    /// As it leaves.
    pub(crate) fn message(&self) -> Submit<'_> {
        Submit { meter: self.meter, index: self.index, value: self.value, body: &self.body }
    }

    /// The link it will be opened with.
    pub(crate) const fn index(&self) -> LinkIndex {
        self.index
    }

    /// Whether its request is final.
    pub(crate) const fn is_stamped(&self) -> bool {
        self.stamped
    }

    const fn count(&self) -> usize {
        self.readings.1 - self.readings.0
    }
}

/// Which readings of a meter have been signed, and which messages have not been opened yet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    signed: usize,
    /// Links whose openings are final: of each there has to be a receipt.
    opened: BTreeSet<u32>,
    /// Oldest first. Only the newest can be without a stamp: a meter signs again in its next slot, and
    /// by then the one before has its stamp or is given up.
    under_way: Vec<Sent>,
}

impl Progress {
    /// Readings that have been signed: the first of all.
    pub(crate) const fn signed(&self) -> usize {
        self.signed
    }

    /// Readings whose opening is final.
    pub(crate) fn opened(&self) -> usize {
        self.signed - self.under_way.iter().map(Sent::count).sum::<usize>()
    }

    /// Links whose openings are final, oldest first.
    pub(crate) fn opened_links(&self) -> impl Iterator<Item = u32> {
        self.opened.iter().copied()
    }

    /// Messages that are not opened yet, oldest first.
    pub(crate) fn under_way(&self) -> &[Sent] {
        &self.under_way
    }

    /// A message with the next `count` readings has been signed.
    pub(crate) fn sign(&mut self, message: &Submit<'_>, count: usize) -> &Sent {
        let Submit { meter, index, value, body } = *message;
        let readings = (self.signed, self.signed + count);
        self.signed += count;
        let body = body.into();
        self.under_way.push(Sent { meter, index, value, body, stamped: false, readings });
        &self.under_way[self.under_way.len() - 1]
    }

    /// The request of a link is final.
    pub(crate) fn stamp(&mut self, index: LinkIndex) {
        let sent = self.under_way.iter_mut().find(|sent| sent.index == index);
        sent.into_iter().for_each(|sent| sent.stamped = true);
    }

    /// The opening of a link is final; returns how many readings are in it.
    pub(crate) fn open(&mut self, index: LinkIndex) -> usize {
        let at = self.under_way.iter().position(|sent| sent.index == index);
        let Some(at) = at else { return 0 };
        self.opened.insert(index.get());
        self.under_way.remove(at).count()
    }

    /// Gives up the newest message if it has no stamp and its slot is over: its readings are to be
    /// signed again. Returns its link.
    pub(crate) fn give_up(&mut self, is_over: impl Fn(LinkIndex) -> bool) -> Option<LinkIndex> {
        let missed = self.under_way.pop_if(|sent| !sent.stamped && is_over(sent.index))?;
        self.signed = missed.readings.0;
        Some(missed.index)
    }

    /// Writes it; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`FileError::Unwritable`].
    pub(crate) fn save(&self, path: &Path) -> Result<(), FileError> {
        let mut bytes = Vec::new();
        codec::encode_infallible(self, &mut bytes);
        files::add_checksum(&mut bytes);
        files::replace(path, &bytes, Readers::All)
    }

    /// Reads it; where there is no file nothing has been signed.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file was altered.
    pub(crate) fn load(path: &Path) -> Result<Self, FileError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = files::read(path, MAX_FILE)?;
        codec::decode("progress of a meter", files::check(path, &bytes)?).map_err(malformed(path))
    }
}

/// `[1, signed, [* [first, behind, stamped, submit]], [* [from, to]]]`, the last opened links, from the
/// first to the last of each row of them.
impl<C> Encode<C> for Progress {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(4)?.u8(1)?.u64(self.signed as u64)?;
        encoder.array(self.under_way.len() as u64)?;
        for sent in &self.under_way {
            let (first, behind) = sent.readings;
            encoder.array(4)?.u64(first as u64)?.u64(behind as u64)?.bool(sent.stamped)?;
            encoder.encode(sent.message())?;
        }
        let rows = rows(&self.opened);
        encoder.array(rows.len() as u64)?;
        for (from, to) in rows {
            encoder.array(2)?.u32(from)?.u32(to)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Progress {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let wrong = |at| decode::Error::message("messages do not follow one another").at(at);
        codec::array(decoder, 4)?;
        codec::constant(decoder, 1)?;
        let signed = number(decoder)?;
        let (mut under_way, mut last) = (Vec::<Sent>::new(), 0);
        for _ in 0..codec::array_of_at_most(decoder, MAX_MESSAGES)? {
            let at = decoder.position();
            codec::array(decoder, 4)?;
            let readings = (number(decoder)?, number(decoder)?);
            let stamped = decoder.bool()?;
            let Submit { meter, index, value, body } = decoder.decode()?;
            if readings.0 < last || readings.1 <= readings.0 || readings.1 > signed {
                return Err(wrong(at));
            }
            last = readings.1;
            let body = body.into();
            under_way.push(Sent { meter, index, value, body, stamped, readings });
        }
        // The newest is given up if it gets no stamp, and signed again from its first reading on.
        let unstamped = under_way.iter().find(|sent| !sent.stamped);
        if unstamped.is_some_and(|sent| sent.readings.1 != signed) {
            return Err(wrong(decoder.position()));
        }
        let (mut opened, mut least) = (BTreeSet::new(), 1);
        for _ in 0..codec::array_of_at_most(decoder, MAX_MESSAGES)? {
            let at = decoder.position();
            codec::array(decoder, 2)?;
            let (from, to) = (decoder.u32()?, decoder.u32()?);
            if from < least || to < from || to > MAX_SLOTS {
                return Err(decode::Error::message("opened links do not ascend").at(at));
            }
            opened.extend(from..=to);
            least = to + 1;
        }
        Ok(Self { signed, opened, under_way })
    }
}

/// The first and the last of each row of links without a gap.
fn rows(links: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut rows: Vec<(u32, u32)> = Vec::new();
    for link in links {
        match rows.last_mut() {
            Some((_, to)) if *to + 1 == *link => *to = *link,
            _ => rows.push((*link, *link)),
        }
    }
    rows
}

fn number(decoder: &mut Decoder<'_>) -> Result<usize, decode::Error> {
    let at = decoder.position();
    let number = decoder.u64()?;
    usize::try_from(number).map_err(|_| decode::Error::message("number too large").at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(index: u32) -> LinkIndex {
        LinkIndex::new(index, 100).unwrap()
    }

    fn sign(progress: &mut Progress, link: u32, count: usize) {
        let value = Digest([1; 32]);
        let submit = Submit { meter: MeterId(7), index: index(link), value, body: &[1, 2] };
        progress.sign(&submit, count);
    }

    /// Two messages with a stamp and one without, 7 readings signed.
    fn three() -> Progress {
        let mut progress = Progress::default();
        for (link, count) in [(1, 1), (2, 2), (5, 4)] {
            sign(&mut progress, link, count);
            progress.stamp(index(link.min(2)));
        }
        progress
    }

    #[test]
    fn readings_are_final_message_by_message_in_any_order() {
        let mut progress = three();
        assert_eq!((progress.signed(), progress.opened()), (7, 0));
        assert_eq!(progress.open(index(2)), 2);
        assert_eq!((progress.signed(), progress.opened()), (7, 2), "the first still waits");
        assert_eq!((progress.open(index(2)), progress.open(index(1))), (0, 1));
        assert_eq!((progress.signed(), progress.opened()), (7, 3));
        assert_eq!(progress.opened_links().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn opened_links_come_back_in_rows_and_only_ascending() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.bkss");
        let opened: BTreeSet<u32> = [1, 2, 3, 7, 9, 10, MAX_SLOTS].into();
        assert_eq!(rows(&opened), [(1, 3), (7, 7), (9, 10), (MAX_SLOTS, MAX_SLOTS)]);
        let progress = Progress { opened, ..three() };
        progress.save(&path).unwrap();
        assert_eq!(Progress::load(&path).unwrap(), progress);
        for rows in [&[(0, 1)][..], &[(2, 1)], &[(1, 2), (2, 3)], &[(1, MAX_SLOTS + 1)]] {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes);
            encoder.array(4).unwrap().u8(1).unwrap().u64(0).unwrap().array(0).unwrap();
            encoder.array(rows.len() as u64).unwrap();
            for (from, to) in rows {
                encoder.array(2).unwrap().u32(*from).unwrap().u32(*to).unwrap();
            }
            let refused = codec::decode::<Progress>("progress", &bytes).unwrap_err().to_string();
            assert!(refused.contains("opened links do not ascend"), "{rows:?}: {refused}");
        }
    }

    #[test]
    fn what_has_no_stamp_by_the_end_of_its_slot_is_signed_again_and_nothing_else() {
        let mut progress = three();
        assert_eq!(progress.give_up(|_| false), None);
        assert_eq!(progress.give_up(|_| true), Some(index(5)));
        assert_eq!(progress.signed(), 3);
        assert_eq!(progress.give_up(|_| true), None, "the others have their stamp");
    }

    #[test]
    fn it_comes_back_from_the_disk_and_not_if_a_byte_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.bkss");
        assert_eq!(Progress::load(&path).unwrap(), Progress::default());
        three().save(&path).unwrap();
        assert_eq!(Progress::load(&path).unwrap(), three());
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            std::fs::write(&path, altered).unwrap();
            assert!(Progress::load(&path).is_err(), "byte {at}");
        }
    }

    #[test]
    fn messages_that_overlap_or_leave_a_gap_before_what_may_be_given_up_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.bkss");
        let breaks: [fn(&mut Progress); 5] = [
            |progress| progress.under_way[1].stamped = false,
            |progress| progress.under_way[1].readings.0 = 0,
            |progress| progress.under_way[1].readings = (2, 2),
            |progress| progress.signed = 6,
            |progress| progress.signed = 8,
        ];
        for (number, break_it) in breaks.iter().enumerate() {
            let mut progress = three();
            break_it(&mut progress);
            progress.save(&path).unwrap();
            let error = Progress::load(&path).unwrap_err().to_string();
            assert!(error.contains("progress of a meter"), "{number}: {error}");
        }
    }
}
